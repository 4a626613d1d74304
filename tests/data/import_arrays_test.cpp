// The import of .npy and .npz arrays: classes by axis or by labels, standardization, splits,
// layouts of images, and the messages for faults.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "data/files.h"
#include "data/import.h"
#include "data/imports.h"
#include "io/npy.h"

namespace kshot::data {
namespace {

using test::row;
using test::write_text;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename T>
io::Tensor counting(std::vector<std::size_t> shape) {
  std::size_t size = 1;
  for (const std::size_t dim : shape) size *= dim;
  std::vector<T> values(size);
  std::iota(values.begin(), values.end(), T{0});
  return io::Tensor::from(std::span<const T>(values), std::move(shape));
}

io::Tensor labels_of(std::vector<std::int64_t> values) {
  return io::Tensor::from(std::span<const std::int64_t>(values), {values.size()});
}

class Arrays : public test::Imports<ArraysImport, import_arrays> {
 protected:
  Arrays() { options_.source = (folder_ / "x.npy").string(); }
};

TEST_F(Arrays, FirstAxisIsTheClassAndATableNamesIt) {
  io::write_npy(folder_ / "x.npy", counting<float>({4, 2, 3}));
  write_text(folder_ / "classes.tsv",
             "index\tclass\tsplit\n0\tash\ttrain\n2\telm\tval\n1\toak\ttest\n3\tyew\ttrain\n");
  options_.splits.table = folder_ / "classes.tsv";
  const auto data = import();
  const DatasetHeader& header = data->header();
  EXPECT_EQ(header.input, (FeatureShape{.channels = 3}));
  ASSERT_EQ(header.groups.size(), 4u);
  EXPECT_EQ(header.groups[1].name, "oak");
  EXPECT_EQ(header.groups[1].split, Split::test);
  EXPECT_EQ(header.groups[2].split, Split::validation);
  EXPECT_THAT(row(*data, 3), ElementsAre(9, 10, 11));
}

TEST_F(Arrays, StandardisedWithTheTrainingClassesAlone) {
  const std::vector<double> values = {1, 5, 3, 5, 100, 9, -100, 7};  // [2, 2, 2]
  io::write_npy(folder_ / "x.npy", io::Tensor::from(std::span<const double>(values), {2, 2, 2}));
  write_text(folder_ / "c.csv", "index,split\n0,train\n1,test\n");
  options_.splits.table = folder_ / "c.csv";
  options_.standardise = true;
  const auto data = import();
  // Column 0 has mean 2 and standard deviation 1. Column 1 is constant 5.
  EXPECT_THAT(row(*data, 0), ElementsAre(-1, 0));
  EXPECT_THAT(row(*data, 1), ElementsAre(1, 0));
  EXPECT_THAT(row(*data, 2), ElementsAre(98, 4));
  const auto& columns = data->header().preprocessing.columns;
  EXPECT_EQ(columns[0].mean, 2.0);
  EXPECT_EQ(columns[0].std, 1.0);
  EXPECT_EQ(columns[1].std, 1.0);
}

TEST_F(Arrays, LabelsGroupTheRows) {
  io::write_npy(folder_ / "x.npy", counting<double>({5, 2}));
  io::write_npy(folder_ / "y.npy", labels_of({7, 3, 7, 3, 7}));
  options_.labels = (folder_ / "y.npy").string();
  options_.splits.fractions = {1, 0, 0};
  const auto data = import();
  ASSERT_EQ(data->header().groups.size(), 2u);
  EXPECT_EQ(data->header().groups[0].name, "3");
  EXPECT_EQ(data->header().groups[1].rows, 3u);
  EXPECT_THAT(row(*data, 0), ElementsAre(2, 3));
  EXPECT_THAT(row(*data, 4), ElementsAre(8, 9));
}

TEST_F(Arrays, ArchivesHoldBoth) {
  io::write_npz(folder_ / "set.npz", {{"x", counting<float>({4, 2})},
                                      {"y", labels_of({0, 0, 1, 1})},
                                      {"fine", labels_of({0, 1, 2, 3})}});
  options_.source = (folder_ / "set.npz").string();
  options_.splits.fractions = {0.5, 0, 0.5};
  EXPECT_EQ(import()->header().groups.size(), 2u);
  options_.labels = options_.source + ":fine";
  EXPECT_EQ(import()->header().groups.size(), 4u);
  std::filesystem::remove(options_.output);
  options_.labels = options_.source + ":coarse";
  EXPECT_THAT(fault(), AllOf(HasSubstr("set.npz"), HasSubstr("'coarse'"), HasSubstr("fine, x, y")));
}

TEST_F(Arrays, BytesOfImagesAreScaledAndChannelsComeFirst) {
  io::write_npy(folder_ / "x.npy", counting<std::uint8_t>({2, 2, 2, 3}));  // [N, H, W, C]
  io::write_npy(folder_ / "y.npy", labels_of({0, 1}));
  options_.labels = (folder_ / "y.npy").string();
  options_.splits.fractions = {0.5, 0, 0.5};
  const auto data = import();
  EXPECT_EQ(data->header().input, (FeatureShape{3, 2, 2, true}));
  EXPECT_EQ(data->header().element, Element::u8);
  std::vector<float> want;
  for (const int value : {12, 15, 18, 21, 13, 16, 19, 22, 14, 17, 20, 23}) {
    want.push_back(static_cast<float>(value) * (1.0f / 255.0f));
  }
  EXPECT_EQ(row(*data, 1), want);
  options_.layout = ArrayLayout::chw;  // The option says [N, C, H, W].
  EXPECT_EQ(import()->header().input, (FeatureShape{2, 2, 3, true}));
}

TEST_F(Arrays, AmbiguousChannelsAreAsked) {
  io::write_npy(folder_ / "x.npy", counting<float>({2, 4, 3, 5, 3}));
  EXPECT_THAT(fault(), AllOf(HasSubstr("x.npy"), HasSubstr("--layout")));
}

TEST_F(Arrays, FaultsNameFileAndRow) {
  std::vector<float> values(12, 1.0f);
  values[7] = std::numeric_limits<float>::quiet_NaN();
  io::write_npy(folder_ / "x.npy", io::Tensor::from(std::span<const float>(values), {3, 2, 2}));
  options_.splits.fractions = {1, 0, 0};
  EXPECT_THAT(fault(), AllOf(HasSubstr("x.npy"), HasSubstr("row 3, element 1")));

  io::write_npy(folder_ / "x.npy", counting<float>({4, 2}));
  EXPECT_THAT(fault(), AllOf(HasSubstr("(4, 2)"), HasSubstr("--labels")));
  options_.labels = (folder_ / "y.npy").string();
  io::write_npy(folder_ / "y.npy", labels_of({0, 1, 2}));
  EXPECT_THAT(fault(), AllOf(HasSubstr("y.npy"), HasSubstr("each of the 4 rows")));
  io::write_npy(folder_ / "y.npy", labels_of({0, 1, -2, 0}));
  EXPECT_THAT(fault(), HasSubstr("label -2 at row 2; expected 0 or more"));
  const std::vector<double> halves = {0, 0.5, 1, 1};
  io::write_npy(folder_ / "y.npy", io::Tensor::from(std::span<const double>(halves), {4}));
  EXPECT_THAT(fault(), HasSubstr("y.npy"));

  io::write_npy(folder_ / "y.npy", labels_of({0, 5, 1, 1}));
  write_text(folder_ / "c.tsv", "index\tsplit\n0\ttrain\n1\ttest\n");
  options_.splits.table = folder_ / "c.tsv";
  EXPECT_THAT(fault(), AllOf(HasSubstr("c.tsv"), HasSubstr("no row for class 5")));
  write_text(folder_ / "c.tsv", "index\tsplit\n0\ttrain\n1\ttest\n5\ttrial\n");
  EXPECT_THAT(fault(), AllOf(HasSubstr("c.tsv, line 4"), HasSubstr("'trial'")));
  write_text(folder_ / "c.tsv", "index\tsplit\n0\ttrain\n1\ttest\n5\ttest\n6\ttest\n");
  EXPECT_THAT(fault(), HasSubstr("4 classes; expected the 3"));
  options_.splits.fractions.clear();
  write_text(folder_ / "c.tsv", "index\tsplit\n0\tval\n1\ttest\n5\ttest\n");
  EXPECT_EQ(import()->header().groups.size(), 3u);
  EXPECT_THAT(summary_.notes, ::testing::Contains(HasSubstr("no class is for training")));
  std::filesystem::remove(options_.output);
  options_.standardise = true;
  EXPECT_THAT(fault(), HasSubstr("expected at least one training class"));
}

TEST_F(Arrays, NamesOfClassesAreThereOnce) {
  io::write_npy(folder_ / "x.npy", counting<float>({4, 2, 3}));
  write_text(folder_ / "c.csv",
             "\xef\xbb\xbfindex,name,Split\r\n0,cat,train\r\n1,dog,dev\r\n2,owl,test\r\n"
             "3,cat,test\r\n");
  options_.splits.table = folder_ / "c.csv";
  EXPECT_THAT(fault(), AllOf(HasSubstr("class 'cat' is in train ('cat') and in test ('cat')"),
                             HasSubstr("--allow-shared-classes")));
  write_text(folder_ / "train.txt", "cat\n");
  write_text(folder_ / "test.txt", "owl\n");
  options_.splits.lists = {{Split::train, folder_ / "train.txt"},
                           {Split::test, folder_ / "test.txt"}};
  EXPECT_THAT(fault(), HasSubstr("class 'cat' is in train ('cat') and in train"));
  options_.splits.allow_shared = true;
  EXPECT_EQ(import()->header().split_groups(Split::train).size(), 2u);
  options_.splits.lists.clear();
  const auto data = import();
  EXPECT_EQ(summary_.division, "by the column 'split' of " + (folder_ / "c.csv").string());
  EXPECT_EQ(data->header().split_groups(Split::validation).size(), 1u);
  EXPECT_EQ(data->header().split_groups(Split::test).size(), 2u);
}

TEST_F(Arrays, ADivisionUnderAnotherNameIsNotPassedOver) {
  io::write_npy(folder_ / "x.npy", counting<float>({3, 2, 3}));
  write_text(folder_ / "c.csv", "index,name,subset\n0,cat,train\n1,dog,train\n2,owl,test\n");
  options_.splits.table = folder_ / "c.csv";
  EXPECT_THAT(fault(), AllOf(HasSubstr("c.csv: column 'subset'"), HasSubstr("called 'split'")));
  // The column is recognized by its name where its values are not words for splits.
  for (const char* name : {"partition", "is_test", "train", "Fold", "data_split", "set"}) {
    write_text(folder_ / "c.csv",
               "index,name," + std::string(name) + "\n0,cat,0\n1,dog,0\n2,owl,1\n");
    EXPECT_THAT(fault(), AllOf(HasSubstr("c.csv: column '" + std::string(name) + "' may divide"),
                               HasSubstr("called 'split'"), HasSubstr("--fractions")));
  }
  options_.splits.fractions = {1, 0, 0};
  EXPECT_EQ(import()->header().groups.size(), 3u);
  options_.splits.fractions.clear();
  write_text(folder_ / "c.csv", "index,name,colour\n0,cat,red\n1,dog,red\n2,owl,blue\n");
  EXPECT_THAT(fault(), HasSubstr("--fractions 0.64,0.16,0.2")) << "at random; too few classes";
}

TEST_F(Arrays, ArraysOfAnArchiveThatAreNotUsedAreSaid) {
  io::write_npz(folder_ / "x.npz", {{"x", counting<float>({4, 2})},
                                    {"X", counting<float>({4, 2})},
                                    {"y", labels_of({0, 0, 1, 1})},
                                    {"split", labels_of({0, 0, 1, 1})}});
  options_.source = (folder_ / "x.npz").string();
  EXPECT_THAT(fault(), AllOf(HasSubstr("x.npz: split may divide the classes"),
                             HasSubstr("--classes"), HasSubstr("--fractions")));
  options_.splits.fractions = {0.5, 0, 0.5};
  EXPECT_EQ(import()->header().groups.size(), 2u);
  EXPECT_THAT(summary_.notes, ::testing::Contains(HasSubstr("not used: X, split")));
  // Unused arrays do not count as a split where the arrays are named explicitly.
  options_.splits.fractions.clear();
  io::write_npz(folder_ / "x.npz", {{"x_train", counting<float>({40, 2})},
                                    {"x_test", counting<float>({4, 2})},
                                    {"y_train", labels_of(std::vector<std::int64_t>(40, 0))}});
  options_.source += ":x_train";
  std::vector<std::int64_t> ten;
  for (int i = 0; i < 40; ++i) ten.push_back(i / 4);
  io::write_npy(folder_ / "y.npy", labels_of(ten));
  options_.labels = (folder_ / "y.npy").string();
  EXPECT_EQ(import()->header().groups.size(), 10u);
  EXPECT_THAT(summary_.notes, ::testing::Contains(HasSubstr("not used: x_test, y_train")));
}

TEST_F(Arrays, PartsOfNpyFilesAndLabelsOfOtherShapesAreRefused) {
  io::write_npy(folder_ / "x.npy", counting<float>({4, 2}));
  io::NpyArray y = labels_of({0, 0, 1, 1});
  io::write_npy(folder_ / "y.npy", y);
  options_.source = (folder_ / "x.npy:1").string();
  options_.labels = (folder_ / "y.npy").string();
  EXPECT_THAT(fault(), AllOf(HasSubstr("x.npy:1: a .npy file holds one array")));
  options_.source = (folder_ / "x.npy").string();
  options_.labels += ":0";
  EXPECT_THAT(fault(), HasSubstr("y.npy:0: a .npy file holds one array"));
  y.shape = {2, 2};
  io::write_npy(folder_ / "y.npy", y);
  options_.labels = (folder_ / "y.npy").string();
  EXPECT_THAT(fault(), HasSubstr("y.npy: shape (2, 2); expected one label"));
  y.shape = {4, 1};
  io::write_npy(folder_ / "y.npy", y);
  options_.splits.fractions = {1, 0, 0};
  EXPECT_EQ(import()->header().groups.size(), 2u);
}

TEST_F(Arrays, SmallClassesCanBeLeftOut) {
  io::write_npy(folder_ / "x.npy", counting<double>({5, 2}));
  io::write_npy(folder_ / "y.npy", labels_of({7, 3, 7, 9, 7}));
  options_.labels = (folder_ / "y.npy").string();
  options_.splits.fractions = {1, 0, 0};
  options_.min_examples = 2;
  EXPECT_EQ(import()->header().groups.size(), 1u);
  EXPECT_THAT(summary_.notes, ::testing::Contains(AllOf(HasSubstr("2 classes with fewer than 2"),
                                                        HasSubstr("3: 1, 9: 1"))));
}

TEST_F(Arrays, ImagesWithoutLabelsAreAskedAbout) {
  options_.splits.fractions = {1, 0, 0};
  io::write_npy(folder_ / "x.npy", counting<float>({30, 28, 28}));
  EXPECT_THAT(fault(), AllOf(HasSubstr("x.npy: shape (30, 28, 28) without labels"),
                             HasSubstr("30 images or 30 classes of 28 examples"),
                             HasSubstr("--labels"), HasSubstr("--layout vectors")));
  options_.layout = ArrayLayout::vectors;
  EXPECT_EQ(import()->header().input, (FeatureShape{.channels = 28}));
  EXPECT_THAT(summary_.notes,
              ::testing::Contains(HasSubstr("read as 30 classes of 28 examples each")));
  std::filesystem::remove(options_.output);
  options_.layout = ArrayLayout::automatic;
  io::write_npy(folder_ / "x.npy", counting<std::uint8_t>({4, 6, 5}));
  EXPECT_THAT(fault(), HasSubstr("without labels"));
  for (const std::vector<std::size_t>& shape :
       {std::vector<std::size_t>{9, 8, 8, 3}, {9, 3, 8, 8}, {9, 1, 8, 8}, {9, 8, 8, 1}}) {
    io::write_npy(folder_ / "x.npy", counting<float>(shape));
    EXPECT_THAT(fault(), AllOf(HasSubstr("without labels"), HasSubstr("--layout hw")));
  }
  options_.layout = ArrayLayout::hw;
  io::write_npy(folder_ / "x.npy", counting<float>({9, 3, 8, 8}));
  EXPECT_EQ(import()->header().input, (FeatureShape{1, 8, 8, true}));
}

TEST_F(Arrays, StandardisedInDoubleFromTheSourcesOwnType) {
  std::vector<std::int64_t> whole(1000);
  std::iota(whole.begin(), whole.end(), std::int64_t{1} << 33);
  const std::vector<double> real(whole.begin(), whole.end());
  options_.standardise = true;
  options_.splits.fractions = {1, 0, 0};
  for (const io::Tensor& x : {io::Tensor::from(std::span<const std::int64_t>(whole), {2, 500, 1}),
                              io::Tensor::from(std::span<const double>(real), {2, 500, 1})}) {
    io::write_npy(folder_ / "x.npy", x);
    const auto data = import();
    const auto& column = data->header().preprocessing.columns[0];
    // A running mean near 2^33 has this rounding.
    EXPECT_NEAR(column.mean, 0x1p33 + 499.5, 1e-4);
    EXPECT_NEAR(column.std, 288.675, 1e-3);
    for (std::uint64_t r = 0; r < 1000; ++r) {
      ASSERT_EQ(row(*data, r)[0],
                static_cast<float>((0x1p33 + static_cast<double>(r) - column.mean) / column.std));
    }
  }
  options_.standardise = false;
  import();
  EXPECT_THAT(summary_.notes, ::testing::Contains(AllOf(HasSubstr("8589934592 to 8589935591"),
                                                        HasSubstr("--standardise"))));
}

TEST_F(Arrays, WholeNumbersThatDoublesRoundAreRefused) {
  const std::vector<std::int64_t> x = {std::int64_t{1} << 60, (std::int64_t{1} << 60) + 1, 0, 1};
  io::write_npy(folder_ / "x.npy", io::Tensor::from(std::span<const std::int64_t>(x), {2, 2, 1}));
  options_.splits.fractions = {1, 0, 0};
  options_.standardise = true;
  EXPECT_THAT(fault(), AllOf(HasSubstr("x.npy"), HasSubstr("row 0"), HasSubstr("2^53")));
}

TEST_F(Arrays, UnitsAndAxesAreSaidAndStored) {
  options_.splits.fractions = {1, 0, 0};
  io::write_npy(folder_ / "x.npy", counting<std::uint8_t>({2, 1, 2, 2, 3}));
  EXPECT_TRUE(import()->header().preprocessing.bytes);
  EXPECT_THAT(
      summary_.notes,
      ::testing::Contains("images [height, width, channels] of uint8: 0 to 255 become [0, 1]"));
  io::write_npy(folder_ / "x.npy", counting<float>({2, 1, 3, 2, 2}));
  const Preprocessing stored = import()->header().preprocessing;
  EXPECT_FALSE(stored.bytes);
  EXPECT_EQ(stored.high, 23.0);
  EXPECT_THAT(summary_.notes, ::testing::Contains(HasSubstr("float32: numbers from 0 to 23")));
  options_.layout = ArrayLayout::hwc;
  io::write_npy(folder_ / "x.npy", counting<float>({2, 1, 3}));
  EXPECT_THAT(fault(), HasSubstr("--layout says that an example has 3 axes; here it has 1"));
}

TEST_F(Arrays, AnArchiveMayHoldOtherThingsAndAnyCase) {
  io::write_npz(folder_ / "SET.NPZ",
                {{"x", counting<float>({4, 2})}, {"y", labels_of({0, 0, 1, 1})}});
  options_.source = (folder_ / "SET.NPZ").string();
  options_.splits.fractions = {0.5, 0, 0.5};
  EXPECT_EQ(import()->header().groups.size(), 2u);
  EXPECT_THAT(summary_.notes, ::testing::Contains(HasSubstr("labels from")));
  options_.labels = options_.source + ":y";
  EXPECT_EQ(import()->header().groups.size(), 2u);
  // An array of Python objects in the archive is not read.
  io::write_npy(folder_ / "x.npy", counting<float>({4, 2}));
  io::write_npy(folder_ / "y.npy", labels_of({0, 0, 1, 1}));
  test::write_zip(folder_ / "mixed.npz", {{"x.npy", test::read_text(folder_ / "x.npy")},
                                          {"y.npy", test::read_text(folder_ / "y.npy")},
                                          {"meta.npy", "not an array"}});
  options_.source = (folder_ / "mixed.npz").string();
  options_.labels.clear();
  EXPECT_EQ(import()->header().groups.size(), 2u);
}

}  // namespace
}  // namespace kshot::data
