// The store of rows: its contents after crashes, and files that must be refused.
#include "io/row_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <thread>

#include "io/atomic_file.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot::io {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::TempFolder;
using testing::HasSubstr;

constexpr std::size_t row_bytes = 100;

std::vector<std::byte> row_of(int value) {
  return std::vector<std::byte>(row_bytes, static_cast<std::byte>(value));
}
/// The row's first byte where all bytes are equal, -1 where no row was written, and -2 for a
/// mixture.
int value_of(const RowStore::State& state) {
  if (state.step == 0) return -1;
  for (const std::byte b : state.data) {
    if (b != state.data.front()) return -2;
  }
  return static_cast<int>(state.data.front());
}

std::unique_ptr<RowStore> reopen(const fs::path& file, std::uint64_t step) {
  return RowStore::open(file, 3, row_bytes, "me", step);
}

TEST(RowStore, AFileThatIsCutShortWhileItIsOpenIsAnError) {
  TempFolder folder;
  const fs::path file = folder / "tasks.store";
  for (const bool reads : {false, true}) {
    const auto store = RowStore::create(file, 1000, row_bytes, "me");
    store->write(900, 1, row_of(11));
    fs::resize_file(file, 0);
    const std::string expected = "tasks.store: the task store was cut short";
    if (reads) {
      EXPECT_THAT(error_text([&] { store->newest(900); }), HasSubstr(expected));
    } else {
      EXPECT_THAT(error_text([&] { store->write(900, 2, row_of(12)); }), HasSubstr(expected));
    }
    EXPECT_THAT(error_text([&] { store->sync(); }), HasSubstr(expected));
  }
  const auto store = RowStore::create(file, 1000, row_bytes, "me");
  fs::resize_file(file, fs::file_size(file) - 1);
  EXPECT_THAT(error_text([&] { store->sync(); }), HasSubstr("was cut short"));
}

TEST(RowStore, NewestStateOfEveryRow) {
  const auto store = RowStore::in_memory(3, row_bytes);
  EXPECT_EQ(value_of(store->newest(1)), -1);
  store->write(1, 1, row_of(11));
  store->write(1, 5, row_of(15));
  store->write(2, 3, row_of(23));
  EXPECT_EQ(value_of(store->newest(0)), -1);
  EXPECT_EQ(value_of(store->newest(1)), 15);
  EXPECT_EQ(store->newest(1).step, 5u);
  EXPECT_EQ(value_of(store->newest(2)), 23);
}

TEST(RowStore, GoesBackToTheCheckpointFromAnyMoment) {
  // Every history of writes and checkpoints over some steps. At the end of each, the process is
  // gone.
  for (int writes = 0; writes < 1 << 4; ++writes) {
    for (int checkpoints = 0; checkpoints < 1 << 4; ++checkpoints) {
      const TempFolder folder;
      const fs::path file = folder / "rows";
      std::uint64_t committed = 0;
      int want = -1, now = -1;
      {
        const auto store = RowStore::create(file, 3, row_bytes, "me");
        for (int step = 1; step <= 4; ++step) {
          if ((writes >> (step - 1) & 1) != 0)
            store->write(1, static_cast<std::uint64_t>(step), row_of(now = step));
          ASSERT_EQ(value_of(store->newest(1)), now);
          if ((checkpoints >> (step - 1) & 1) != 0) {
            store->commit(committed = static_cast<std::uint64_t>(step));
            want = now;
          }
        }
      }
      const auto store = reopen(file, committed);
      ASSERT_EQ(value_of(store->newest(1)), want) << writes << " " << checkpoints;
      // Dropped states do not come back.
      store->write(1, committed + 1, row_of(77));
      ASSERT_EQ(value_of(store->newest(1)), 77);
      ASSERT_EQ(value_of(reopen(file, committed)->newest(1)), want);
    }
  }
}

TEST(RowStore, ACheckpointThatWasNotCommittedYetCounts) {
  // The process was killed between the rename of the checkpoint and commit().
  const TempFolder folder;
  {
    const auto store = RowStore::create(folder / "rows", 3, row_bytes, "me");
    store->write(0, 2, row_of(2));
    store->commit(2);
    store->write(0, 4, row_of(4));
    store->sync();
  }
  EXPECT_EQ(value_of(reopen(folder / "rows", 4)->newest(0)), 4);
}

TEST(RowStore, RowsCanBeWrittenFromSeveralThreads) {
  const auto store = RowStore::in_memory(64, row_bytes);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&store, t] {
      for (int row = t; row < 64; row += 4) {
        store->write(static_cast<std::uint64_t>(row), 1, row_of(row));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int row = 0; row < 64; ++row) {
    EXPECT_EQ(value_of(store->newest(static_cast<std::uint64_t>(row))), row);
  }
}

TEST(RowStore, TheFileHasTheSizeThatWasSaid) {
  const TempFolder folder;
  RowStore::create(folder / "rows", 3, row_bytes, "me");
  EXPECT_EQ(fs::file_size(folder / "rows"), RowStore::bytes(3, row_bytes));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

TEST(RowStore, RefusesWhatIsNotItsOwn) {
  const TempFolder folder;
  const fs::path file = folder / "rows";
  EXPECT_THAT(error_text([&] { reopen(file, 0); }), HasSubstr("No such file"));
  RowStore::create(file, 3, row_bytes, "me")->commit(7);
  EXPECT_THAT(error_text([&] { RowStore::open(file, 3, row_bytes, "you", 7); }),
              HasSubstr("of another run: it is of me (3 tasks), expected you (3 tasks)"));
  EXPECT_THAT(error_text([&] { RowStore::open(file, 4, row_bytes, "me", 7); }),
              HasSubstr("(3 tasks), expected me (4 tasks)"));
  EXPECT_THAT(error_text([&] { reopen(file, 6); }),
              HasSubstr("of step 7, ahead of the checkpoint's step 6"));
  const std::string whole = read_file(file);
  write_file_atomic(file, whole.substr(0, whole.size() - 100));
  EXPECT_THAT(error_text([&] { reopen(file, 7); }), HasSubstr("cut short"));
  std::string damaged = whole;
  damaged[20] ^= 1;
  write_file_atomic(file, damaged);
  EXPECT_THAT(error_text([&] { reopen(file, 7); }), HasSubstr("damaged"));
  write_file_atomic(file, "no store at all");
  EXPECT_THAT(error_text([&] { reopen(file, 7); }), HasSubstr("not a task store"));
}

TEST(RowStore, AFolderThatCannotTakeItSaysSo) {
  const TempFolder folder;
  EXPECT_THAT(error_text([&] { RowStore::create(folder / "none" / "rows", 3, row_bytes, "me"); }),
              HasSubstr("cannot write"));
  // 2^36 rows of 2^20 bytes fit on no disk.
  EXPECT_THAT(
      error_text([&] { RowStore::create(folder / "rows", std::uint64_t{1} << 36, 1 << 20, "me"); }),
      HasSubstr("cannot reserve"));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace kshot::io
