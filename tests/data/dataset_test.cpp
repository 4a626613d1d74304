// The data file: its contents are read back, and damage is detected.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <vector>

#include "data/dataset.h"
#include "data/files.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot::data {
namespace {

using test::error_text;
using test::TempFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;

DatasetHeader class_header() {
  DatasetHeader header;
  header.kind = GroupKind::classes;
  header.input = {1, 2, 3, true};
  header.element = Element::u8;
  header.preprocessing.kind = Preprocessing::Kind::image;
  header.preprocessing.input = header.input;
  header.preprocessing.inverted = true;
  header.provenance = {{"program", "a test"}};
  return header;
}

void write_classes(const std::filesystem::path& path) {
  DatasetWriter writer(path, class_header());
  std::uint8_t next = 0;
  const auto add = [&](int rows) {
    for (int r = 0; r < rows; ++r) {
      std::vector<std::uint8_t> row(6);
      for (auto& pixel : row) pixel = next++;
      writer.add(std::span<const std::uint8_t>(row));
    }
  };
  writer.begin_group("first", Split::train);
  add(3);
  writer.begin_group("zwölf", Split::test);
  add(2);
  writer.commit();
}

TEST(Dataset, ClassesOfBytesComeBackScaled) {
  TempFolder folder;
  write_classes(folder / "a.kshot");
  const auto data = Dataset::open(folder / "a.kshot");
  const DatasetHeader& header = data->header();
  EXPECT_EQ(header.kind, GroupKind::classes);
  EXPECT_EQ(header.input, (FeatureShape{1, 2, 3, true}));
  EXPECT_EQ(header.rows(), 5u);
  ASSERT_EQ(header.groups.size(), 2u);
  EXPECT_EQ(header.groups[1].name, "zwölf");
  EXPECT_EQ(header.groups[1].first, 3u);
  EXPECT_EQ(header.groups[1].rows, 2u);
  EXPECT_EQ(header.split_groups(Split::test), std::vector<std::uint32_t>{1});
  EXPECT_TRUE(header.split_groups(Split::validation).empty());
  EXPECT_TRUE(header.preprocessing.inverted);
  EXPECT_EQ(header.provenance.at(0).second, "a test");
  std::vector<float> row(6);
  data->read(4, row);
  for (int i = 0; i < 6; ++i) {
    EXPECT_FLOAT_EQ(row[static_cast<std::size_t>(i)], static_cast<float>(24 + i) / 255.0f);
  }
}

/// Writes rows of 1000 floats, which take several pages.
void write_floats(const std::filesystem::path& path, float first) {
  DatasetHeader header;
  header.kind = GroupKind::tasks;
  header.input = {.channels = 1000};
  header.target = TargetKind::value;
  header.outputs = 1;
  header.preprocessing.input = header.input;
  DatasetWriter writer(path, header);
  writer.begin_group("only", Split::train);
  for (int r = 0; r < 16; ++r) {
    writer.add(std::vector<float>(1000, first + static_cast<float>(r)));
    writer.add_value(std::vector<float>{static_cast<float>(r)});
  }
  writer.commit();
}

TEST(Dataset, AFileThatIsCutShortWhileItIsOpenIsAnError) {
  TempFolder folder;
  const std::filesystem::path file = folder / "cut.kshot";
  std::vector<float> row(1000);
  for (const std::uintmax_t size : {std::uintmax_t{0}, std::uintmax_t{10}, std::uintmax_t{20000}}) {
    SCOPED_TRACE(size);
    std::filesystem::remove(file);
    write_floats(file, 1.0f);
    const auto data = Dataset::open(file);
    data->read(0, row);
    EXPECT_EQ(row[0], 1.0f);
    std::filesystem::resize_file(file, size);
    const std::string expected = "cut.kshot: the data file was cut short";
    EXPECT_THAT(error_text([&] { data->read(12, row); }), HasSubstr(expected));
    EXPECT_THAT(error_text([&] { data->value(12); }), HasSubstr(expected));
    EXPECT_THAT(error_text([&] { data->check(); }), HasSubstr(expected));
  }
}

/// The page that holds the new end of the file raises no signal. The rest of this page reads as
/// zeros.
TEST(Dataset, AFileThatIsCutWithinItsLastPageIsAnError) {
  TempFolder folder;
  const std::filesystem::path file = folder / "cut.kshot";
  write_floats(file, 1.0f);
  const auto data = Dataset::open(file);
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  EXPECT_THAT(error_text([&] { data->check(); }), HasSubstr("was cut short"));
}

TEST(Dataset, AFileThatIsWrittenOverWhileItIsOpenIsAnErrorButNotOneThatIsTouchedOrReplaced) {
  TempFolder folder;
  const std::filesystem::path file = folder / "a.kshot", other = folder / "b.kshot";
  write_floats(file, 1.0f);
  write_floats(other, 2.0f);
  const auto data = Dataset::open(file);
  using std::filesystem::last_write_time;
  last_write_time(file, last_write_time(file) + std::chrono::hours(1));
  EXPECT_NO_THROW(data->check());
  // An import replaces a file in this way. The open file still exists.
  std::filesystem::rename(other, file);
  EXPECT_NO_THROW(data->check());

  const auto replaced = Dataset::open(file);
  write_floats(other, 3.0f);
  {
    std::ifstream from(other, std::ios::binary);
    std::fstream to(file, std::ios::binary | std::ios::in | std::ios::out);
    to << from.rdbuf();
  }
  last_write_time(file, last_write_time(file) + std::chrono::hours(2));
  EXPECT_THAT(error_text([&] { replaced->check(); }),
              HasSubstr("a.kshot: the data file was changed while it was in use"));
}

TEST(Dataset, TasksKeepTargetsLabelsAndPreprocessing) {
  TempFolder folder;
  DatasetHeader header;
  header.kind = GroupKind::tasks;
  header.input = {.channels = 2};
  header.target = TargetKind::value;
  header.outputs = 2;
  header.preprocessing.kind = Preprocessing::Kind::table;
  header.preprocessing.input = header.input;
  header.preprocessing.missing = MissingRule::drop;
  header.preprocessing.columns = {{"age", {}, 0.1, 3.0}, {"ward", {"a", "b"}, 0.0, 1.0}};
  header.preprocessing.targets = {{"y0", 1.5, 2.5}, {"y1", 0.0, 1.0}};
  {
    DatasetWriter writer(folder / "v.kshot", header);
    writer.begin_group("7", Split::validation);
    writer.add(std::vector<float>{1.0f, 2.0f});
    writer.add_value(std::vector<float>{-1.0f, 0.25f});
    writer.commit();
  }
  const auto values = Dataset::open(folder / "v.kshot");
  EXPECT_EQ(values->value(0)[1], 0.25f);
  const Preprocessing& back = values->header().preprocessing;
  EXPECT_EQ(back.missing, MissingRule::drop);
  ASSERT_EQ(back.columns.size(), 2u);
  EXPECT_EQ(back.columns[0].mean, 0.1);  // exact to the last bit
  EXPECT_EQ(back.columns[1].categories, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(back.targets[0].std, 2.5);

  header.target = TargetKind::label;
  header.preprocessing.targets.clear();
  header.preprocessing.labels = {"no", "yes"};
  header.preprocessing.label_column = "answer";
  {
    DatasetWriter writer(folder / "l.kshot", header);
    writer.begin_group("7", Split::train);
    writer.add(std::vector<float>{1.0f, 2.0f});
    writer.add_label(1);
    writer.commit();
  }
  const auto labels = Dataset::open(folder / "l.kshot");
  EXPECT_EQ(labels->label(0), 1);
  EXPECT_EQ(labels->header().preprocessing.labels[1], "yes");
}

TEST(Dataset, TheSameRowsGiveTheSameBytes) {
  TempFolder folder;
  write_classes(folder / "a.kshot");
  write_classes(folder / "b.kshot");
  EXPECT_EQ(test::read_text(folder / "a.kshot"), test::read_text(folder / "b.kshot"));
}

TEST(Dataset, EveryCutIsNoticed) {
  TempFolder folder;
  write_classes(folder / "a.kshot");
  const std::string bytes = test::read_text(folder / "a.kshot");
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    test::write_text(folder / "cut.kshot", bytes.substr(0, size));
    EXPECT_THAT(error_text([&] { Dataset::open(folder / "cut.kshot"); }),
                AllOf(HasSubstr("cut.kshot"),
                      HasSubstr(size < 8 ? "expected one written by `kshot import`" : "cut short")))
        << size;
  }
}

TEST(Dataset, EveryChangedByteIsNoticed) {
  TempFolder folder;
  write_classes(folder / "a.kshot");
  const std::string bytes = test::read_text(folder / "a.kshot");
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    test::write_text(folder / "bad.kshot", changed);
    EXPECT_THAT(error_text([&] { Dataset::open(folder / "bad.kshot"); }), HasSubstr("bad.kshot"))
        << "byte " << at;
  }
}

TEST(Dataset, OtherFilesAreRefusedByName) {
  TempFolder folder;
  EXPECT_THAT(error_text([&] { Dataset::open(folder / "none.kshot"); }),
              AllOf(HasSubstr("none.kshot"), HasSubstr("No such file")));
  EXPECT_THAT(error_text([&] { Dataset::open(folder.path()); }),
              HasSubstr("expected a data file written by `kshot import`"));
  test::write_text(folder / "x.csv", std::string(500, 'a'));
  EXPECT_THAT(error_text([&] { Dataset::open(folder / "x.csv"); }),
              HasSubstr("not a kshot data file"));
}

TEST(Dataset, NothingIsThereBeforeCommit) {
  TempFolder folder;
  {
    DatasetWriter writer(folder / "a.kshot", class_header());
    writer.begin_group("a", Split::train);
    writer.add(std::vector<std::uint8_t>(6));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_THAT(error_text([] { DatasetWriter("/proc/no/a.kshot", class_header()); }),
              HasSubstr("a.kshot"));
}

}  // namespace
}  // namespace kshot::data
