// Writing whole files: nothing appears before the commit, an old file survives every failure, and
// messages name the path and the reason.
#include "io/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "kshot/error.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot::io {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::TempFolder;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  return names;
}

// Runs `action` in a child process and returns its result.
template <typename Action>
std::string in_child(Action action) {
  int ends[2];
  if (::pipe(ends) != 0) return "(no pipe)";
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string text = action();
    (void)!::write(ends[1], text.data(), text.size());
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(ends[0], buffer, sizeof(buffer))) > 0;) {
    text.append(buffer, static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return status == 0 ? text : "(the child died)";
}

TEST(AtomicFile, RoundTripOfAnyBytes) {
  const TempFolder folder;
  std::string data(300, '\0');
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i);
  write_file_atomic(folder / "a.bin", data);
  EXPECT_EQ(read_file(folder / "a.bin"), data);
  write_file_atomic(folder / "empty", "");
  EXPECT_EQ(read_file(folder / "empty"), "");
}

TEST(AtomicFile, KeepsTheOrderOfSmallAndLargeWrites) {
  const TempFolder folder;
  AtomicFile file(folder / "a");
  std::string expected;
  for (int i = 0; i < 9; ++i) {
    const std::string piece(i % 3 == 1 ? 2'000'001 : 400'000, static_cast<char>('a' + i));
    file.write(piece);
    expected += piece;
  }
  file.commit();
  EXPECT_TRUE(read_file(folder / "a") == expected);
}

TEST(AtomicFile, NothingAppearsBeforeCommitAndNothingStaysWithoutIt) {
  const TempFolder folder;
  write_file_atomic(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("new");
    EXPECT_EQ(read_file(folder / "a"), "old");
    EXPECT_EQ(names_in(folder.path()).size(), 2u);
  }
  EXPECT_EQ(read_file(folder / "a"), "old");
  EXPECT_EQ(names_in(folder.path()).size(), 1u);
  AtomicFile file(folder / "a");
  file.write("new");
  file.commit();
  EXPECT_EQ(read_file(folder / "a"), "new");
  EXPECT_EQ(names_in(folder.path()).size(), 1u);
}

TEST(AtomicFile, LeftoversOfKilledWritersAreRemoved) {
  const TempFolder folder;
  for (const char* other : {"a", "b", ".b.tmp-7-0", "a.tmp-7-0", ".a.txt"}) {
    write_file_atomic(folder / other, "stays");
  }
  const std::vector<std::string> before = names_in(folder.path());
  const pid_t writer = ::fork();
  if (writer == 0) {
    AtomicFile file(folder / "a");
    file.write("half");
    ::raise(SIGKILL);
  }
  ASSERT_GT(writer, 0);
  ASSERT_EQ(::waitpid(writer, nullptr, 0), writer);
  ASSERT_EQ(names_in(folder.path()).size(), before.size() + 1) << "the temporary of the killed one";
  remove_leftovers(folder / "a");
  EXPECT_THAT(names_in(folder.path()), testing::UnorderedElementsAreArray(before));
  EXPECT_EQ(read_file(folder / "a"), "stays");
  remove_leftovers(folder / "nowhere" / "a");  // There is nothing to do.
}

TEST(AtomicFile, TakesANameWithoutFolder) {
  const TempFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  write_file_atomic("plain", "x");
  fs::current_path(before);
  EXPECT_EQ(read_file(folder / "plain"), "x");
}

TEST(AtomicFile, KeepsPermissionsAndFollowsLinks) {
  const TempFolder folder;
  write_file_atomic(folder / "target", "old");
  ASSERT_EQ(::chmod((folder / "target").c_str(), 0640), 0);
  fs::create_symlink("target", folder / "link");
  write_file_atomic(folder / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_file(folder / "target"), "new");
  struct stat info {};
  ASSERT_EQ(::stat((folder / "target").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0640u);
}

TEST(AtomicFile, NamesPathAndReason) {
  const TempFolder folder;
  const std::string missing = (folder / "none/a").string();
  EXPECT_EQ(error_text([&] { AtomicFile file(missing); }),
            "cannot write " + missing + ": No such file or directory");
  write_file_atomic(folder / "file", "");
  const std::string below = (folder / "file/a").string();
  EXPECT_EQ(error_text([&] { AtomicFile file(below); }),
            "cannot write " + below + ": Not a directory");
  EXPECT_EQ(error_text([&] { AtomicFile file(folder.path()); }),
            "cannot write " + folder.path().string() + ": Is a directory");
  EXPECT_THAT(error_text([&] { AtomicFile file(folder.path() / ""); }), StartsWith("cannot write"));
}

TEST(AtomicFile, LeavesDevicesAlone) {
  EXPECT_EQ(error_text([] { AtomicFile file("/dev/null"); }),
            "cannot write /dev/null: exists and is not a regular file");
}

TEST(AtomicFile, UnwritableFolder) {
  const TempFolder folder;
  ASSERT_EQ(::chmod(folder.path().c_str(), 0555), 0);
  const std::string path = (folder / "a").string();
  const std::string text = in_child([&]() -> std::string {
    // The superuser may write anywhere, so that the process becomes nobody.
    if (::geteuid() == 0 && ::seteuid(65534) != 0) return "(cannot change user)";
    return error_text([&] { write_file_atomic(path, "x"); });
  });
  ASSERT_EQ(::chmod(folder.path().c_str(), 0755), 0);
  EXPECT_EQ(text, "cannot write " + path + ": Permission denied");
}

TEST(AtomicFile, ReachedFileSizeLimitLeavesTheOldFile) {
  const TempFolder folder;
  write_file_atomic(folder / "a", "old");
  const std::string text = in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100'000, 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    return error_text([&] { write_file_atomic(folder / "a", std::string(3'000'000, 'x')); });
  });
  EXPECT_EQ(text, "cannot write " + (folder / "a").string() + ": File too large");
  EXPECT_EQ(read_file(folder / "a"), "old");
  EXPECT_EQ(names_in(folder.path()).size(), 1u);
}

TEST(AtomicFile, FullDisk) {
  const TempFolder folder;
  const std::string text = in_child([&]() -> std::string {
    // The folder is a file system of 64 KiB that only this process sees.
    if (::unshare(CLONE_NEWNS | (::geteuid() == 0 ? 0 : CLONE_NEWUSER)) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", folder.path().c_str(), "tmpfs", 0, "size=64k") != 0) {
      return "skip";
    }
    write_file_atomic(folder / "a", "old");
    std::string said =
        error_text([&] { write_file_atomic(folder / "a", std::string(200'000, 'x')); });
    said += "|" + read_file(folder / "a");
    said += "|" + std::to_string(names_in(folder.path()).size());
    return said;
  });
  if (text == "skip") GTEST_SKIP() << "this machine does not let a test mount a small file system";
  EXPECT_EQ(text, "cannot write " + (folder / "a").string() + ": No space left on device|old|1");
}

TEST(ReadFile, NamesPathAndReason) {
  const TempFolder folder;
  const std::string missing = (folder / "none").string();
  EXPECT_EQ(error_text([&] { read_file(missing); }),
            "cannot read " + missing + ": No such file or directory");
  EXPECT_EQ(error_text([&] { read_file(folder.path()); }),
            "cannot read " + folder.path().string() + ": Is a directory");
}

TEST(ReadFile, ReadsPipesToTheirEnd) {
  const TempFolder folder;
  const fs::path pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const std::string data(200'000, 'p');
  const pid_t child = ::fork();
  if (child == 0) {
    FILE* out = ::fopen(pipe.c_str(), "w");
    const bool whole = ::fwrite(data.data(), 1, data.size(), out) == data.size();
    ::_exit(::fclose(out) == 0 && whole ? 0 : 1);
  }
  EXPECT_TRUE(read_file(pipe) == data);
  int status = 1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace kshot::io
