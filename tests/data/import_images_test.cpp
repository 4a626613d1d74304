// Omniglot and folders of images, from files made here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "data/files.h"
#include "data/imports.h"
#include "io/image.h"
#include "io/import.h"

namespace kshot::io {
namespace {

using test::Picture;
using test::row;
using test::write_text;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> names(const Dataset& data, Split split) {
  std::vector<std::string> out;
  for (const std::uint32_t g : data.header().split_groups(split)) {
    out.push_back(data.header().groups[g].name);
  }
  return out;
}

// ---- Omniglot ----

/// White paper with a black stroke in the top left quarter, 105 x 105.
Picture drawing() {
  Picture out = test::plain(105, 105, 1, 255);
  for (int y = 0; y < 45; ++y) {
    for (int x = 0; x < 30; ++x) out.pixels[static_cast<std::size_t>(y * 105 + x)] = 0;
  }
  return out;
}

std::map<std::string, std::string> background() {
  const std::string image = test::png1_bytes(drawing());
  return {{"images_background/Greek/character01/0001_02.png", image},
          {"images_background/Greek/character01/0001_01.png",
           test::png1_bytes(test::plain(105, 105, 1, 255))},
          {"images_background/Greek/character02/0002_01.png", image},
          {"images_background/.DS_Store", "x"}};
}

class Omniglot : public test::Imports<OmniglotImport, import_omniglot> {
 protected:
  Omniglot() {
    test::write_zip(folder_ / "background.zip", background());
    for (const auto& [name, bytes] : background()) write_text(folder_ / name, bytes);
    write_text(folder_ / "images_evaluation/Keble/character01/0965_01.png",
               test::png1_bytes(drawing()));
    write_text(folder_ / "train.txt",
               "Greek/character01/rot000\nGreek/character01/rot090\nGreek/character02/rot180\r\n");
    write_text(folder_ / "test.txt", "Keble/character01/rot270\n\n");
    options_.sources = {folder_ / "background.zip", folder_ / "images_evaluation"};
    options_.size = 7;
    options_.splits.lists = {{Split::train, folder_ / "train.txt"},
                             {Split::test, folder_ / "test.txt"}};
  }
};

TEST_F(Omniglot, RotatedClassesOfInvertedImages) {
  import_omniglot(options_);
  const auto data = Dataset::open(options_.output);
  EXPECT_EQ(data->header().input, (FeatureShape{1, 7, 7, true}));
  EXPECT_TRUE(data->header().preprocessing.inverted);
  EXPECT_THAT(names(*data, Split::train),
              ElementsAre("Greek/character01/rot000", "Greek/character01/rot090",
                          "Greek/character02/rot180"));
  EXPECT_THAT(names(*data, Split::test), ElementsAre("Keble/character01/rot270"));
  ASSERT_EQ(data->header().rows(), 6u);
  // Drawings in order of name: the first of character01 is blank paper. Rows 15 pixels apart: the
  // stroke covers 3 x 2 of the 7 x 7 pixels, and counter-clockwise turns carry it round.
  const auto stroke = [&](std::uint64_t at, int top, int left, int h, int w) {
    const auto pixels = row(*data, at);
    for (int y = 0; y < 7; ++y) {
      for (int x = 0; x < 7; ++x) {
        const bool inside = y >= top && y < top + h && x >= left && x < left + w;
        EXPECT_EQ(pixels[static_cast<std::size_t>(y * 7 + x)], inside ? 1.0f : 0.0f)
            << "row " << at << ", pixel " << y << ", " << x;
      }
    }
  };
  stroke(0, 0, 0, 0, 0);
  stroke(1, 0, 0, 3, 2);  // as drawn
  stroke(3, 5, 0, 2, 3);  // 90: the top left goes to the bottom left
  stroke(4, 4, 5, 3, 2);  // 180
  stroke(5, 0, 4, 2, 3);  // 270: to the top right
}

TEST_F(Omniglot, AFolderIsReadAsTheArchive) {
  import_omniglot(options_);
  const std::string from_zip = test::read_text(options_.output);
  options_.sources = {folder_ / "images_background", folder_ / "images_evaluation"};
  import_omniglot(options_);
  const auto zip_size = from_zip.size();
  const auto data = Dataset::open(options_.output);
  const auto rows = data->header().rows() * 49;
  // Everything but the sources' names in the header is the same.
  EXPECT_EQ(test::read_text(options_.output).substr(0, 64 + rows), from_zip.substr(0, 64 + rows));
  EXPECT_GT(zip_size, 64 + rows);
}

TEST_F(Omniglot, FaultsNameListAndLine) {
  write_text(folder_ / "test.txt", "Keble/character01/rot270\nKeble/character09/rot000\n");
  EXPECT_THAT(fault(), AllOf(HasSubstr("test.txt, line 2"), HasSubstr("Keble/character09")));
  write_text(folder_ / "test.txt", "Keble/character01/rot045\n");
  EXPECT_THAT(fault(), AllOf(HasSubstr("test.txt, line 1"), HasSubstr("expected rot000")));
  write_text(folder_ / "test.txt", "\nGreek/character01/rot090\n");
  EXPECT_THAT(fault(), AllOf(HasSubstr("test.txt, line 2"), HasSubstr("already in"),
                             HasSubstr("train.txt, line 2")));
  write_text(folder_ / "test.txt", "\n");
  EXPECT_THAT(fault(), HasSubstr("test.txt: empty"));
  options_.splits.lists = {{Split::train, folder_ / "nothing.txt"}};
  EXPECT_THAT(fault(), HasSubstr("nothing.txt"));
  options_.splits.lists.clear();
  EXPECT_THAT(fault(), HasSubstr("--split train=FILE"));
}

TEST_F(Omniglot, FaultsNameSourceAndImage) {
  write_text(folder_ / "images_evaluation/Keble/character01/0965_01.png", "not an image");
  EXPECT_THAT(fault(), HasSubstr("0965_01.png: expected a PNG or JPEG"));
  options_.sources = {folder_ / "none.zip"};
  EXPECT_THAT(fault(), AllOf(HasSubstr("none.zip"), HasSubstr("folder or a zip archive")));
  options_.sources = {folder_ / "train.txt"};
  EXPECT_THAT(fault(), AllOf(HasSubstr("train.txt"), HasSubstr("folder or a zip archive")));
  write_text(folder_ / "other/a.png", "x");
  options_.sources = {folder_ / "other"};
  EXPECT_THAT(fault(), HasSubstr("expected <alphabet>/characterNN/*.png"));
  std::string zip = test::read_text(folder_ / "background.zip");
  write_text(folder_ / "cut.zip", zip.substr(0, zip.size() / 2));
  options_.sources = {folder_ / "cut.zip"};
  EXPECT_THAT(fault(), HasSubstr("cut.zip"));
  // one entry's bytes damaged: its own checksum tells
  const std::string entry = "Greek/character02/0002_01.png";
  const auto at = zip.find(entry);  // its local header, right before its bytes
  ASSERT_NE(at, std::string::npos);
  char& byte = zip[at + entry.size() + 30];
  byte = static_cast<char>(byte ^ 1);
  write_text(folder_ / "bad.zip", zip);
  options_.sources = {folder_ / "bad.zip", folder_ / "images_evaluation"};
  EXPECT_THAT(fault(), HasSubstr("bad.zip"));
}

TEST_F(Omniglot, AListForTrainingIsNeeded) {
  options_.splits.lists = {{Split::test, folder_ / "test.txt"}};
  EXPECT_THAT(fault(), HasSubstr("--split train=FILE"));
}

// ---- folders of images ----

class Images : public test::Imports<ImagesImport, import_images> {
 protected:
  Images() {
    for (int c = 0; c < 10; ++c) {
      const std::string name = "birds/class" + std::to_string(c);
      write_text(folder_ / (name + "/a.png"),
                 test::png_bytes(test::plain(4, 4, 3, static_cast<std::uint8_t>(10 * c))));
      write_text(folder_ / (name + "/b.JPG"),
                 test::jpeg_bytes(test::plain(4, 4, 1, static_cast<std::uint8_t>(10 * c + 5))));
    }
    options_.source = folder_ / "birds";
  }
};

TEST_F(Images, ClassFoldersOfPngAndJpeg) {
  write_text(folder_ / "birds/class0/notes.txt", "x");
  options_.splits.fractions = {0.5, 0.2, 0.3};
  const ImportSummary summary = import_images(options_);
  EXPECT_THAT(summary.notes, ElementsAre(HasSubstr("1 files")));
  const auto data = Dataset::open(options_.output);
  EXPECT_EQ(data->header().input, (FeatureShape{3, 4, 4, true}));
  EXPECT_EQ(names(*data, Split::train).size(), 5u);
  EXPECT_EQ(names(*data, Split::validation).size(), 2u);
  EXPECT_EQ(names(*data, Split::test).size(), 3u);
  ASSERT_EQ(data->header().groups[7].name, "class7");
  EXPECT_FLOAT_EQ(row(*data, 14)[0], 70.0f / 255.0f);
  EXPECT_NEAR(row(*data, 15)[47], 75.0f / 255.0f, 0.005);
}

TEST_F(Images, TheDivisionHangsOnTheSeedAlone) {
  options_.splits.fractions = {0.5, 0.2, 0.3};
  std::vector<std::vector<std::string>> tests;
  for (const std::uint64_t seed : {1, 1, 2, 3, 4}) {
    options_.splits.seed = seed;
    import_images(options_);
    tests.push_back(names(*Dataset::open(options_.output), Split::test));
  }
  EXPECT_EQ(tests[0], tests[1]);
  EXPECT_TRUE(tests[0] != tests[2] || tests[0] != tests[3] || tests[0] != tests[4]);
}

TEST_F(Images, ListsNameClassFolders) {
  write_text(folder_ / "train.txt", "class3\nclass1\n");
  write_text(folder_ / "val.txt", "class0\n");
  options_.splits.lists = {{Split::train, folder_ / "train.txt"},
                           {Split::validation, folder_ / "val.txt"}};
  const ImportSummary summary = import_images(options_);
  EXPECT_THAT(summary.notes, ElementsAre(HasSubstr("7 classes are in no split")));
  const auto data = Dataset::open(options_.output);
  EXPECT_THAT(names(*data, Split::train), ElementsAre("class1", "class3"));
  EXPECT_THAT(names(*data, Split::validation), ElementsAre("class0"));
  write_text(folder_ / "val.txt", "class77\n");
  options_.output = folder_ / "other.kshot";
  EXPECT_THAT(fault(), AllOf(HasSubstr("val.txt, line 1"), HasSubstr("'class77' is not among")));
}

TEST_F(Images, FoldersTrainValTestAreSplits) {
  const std::string image = test::png_bytes(test::plain(2, 2, 1, 8));
  test::write_zip(folder_ / "set.zip", {{"set/train/owl/1.png", image},
                                        {"set/train/tit/1.png", image},
                                        {"set/val/jay/1.png", image},
                                        {"set/test/rook/1.png", image}});
  options_.source = folder_ / "set.zip";
  options_.grey = true;
  options_.invert = true;
  import_images(options_);
  const auto data = Dataset::open(options_.output);
  EXPECT_EQ(data->header().input, (FeatureShape{1, 2, 2, true}));
  EXPECT_THAT(names(*data, Split::train), ElementsAre("train/owl", "train/tit"));
  EXPECT_THAT(names(*data, Split::validation), ElementsAre("val/jay"));
  EXPECT_THAT(names(*data, Split::test), ElementsAre("test/rook"));
  EXPECT_FLOAT_EQ(row(*data, 0)[0], 247.0f / 255.0f);
}

TEST_F(Images, SizesMustAgreeOrBeGiven) {
  write_text(folder_ / "birds/class9/z.png", test::png_bytes(test::plain(5, 8, 1, 200)));
  EXPECT_THAT(fault(), AllOf(HasSubstr("z.png: 8x5 pixels"), HasSubstr("--size")));
  options_.height = 6;
  options_.width = 3;
  import_images(options_);
  EXPECT_EQ(Dataset::open(options_.output)->header().input, (FeatureShape{3, 6, 3, true}));
}

TEST_F(Images, NewImagesAreEncodedAsTheImportedWere) {
  Picture gradient = test::plain(9, 5, 1, 0);
  for (std::size_t p = 0; p < 45; ++p) gradient.pixels[p] = static_cast<std::uint8_t>(5 * p);
  write_text(folder_ / "birds/class9/z.png", test::png_bytes(gradient));
  options_.height = 4;
  options_.width = 4;
  options_.invert = true;
  import_images(options_);
  const auto data = Dataset::open(options_.output);
  EXPECT_EQ(encode_image(data->header().preprocessing, folder_ / "birds/class9/z.png"),
            row(*data, 20));
}

TEST_F(Images, FaultsNameTheFile) {
  write_text(folder_ / "birds/class4/c.png",
             test::png_bytes(test::plain(4, 4, 3, 1)).substr(0, 50));
  EXPECT_THAT(fault(), AllOf(HasSubstr("class4/c.png"), HasSubstr("PNG")));
  write_text(folder_ / "birds/stray.png", test::png_bytes(test::plain(4, 4, 3, 1)));
  EXPECT_THAT(fault(), HasSubstr("'stray.png' outside"));
  std::filesystem::create_directories(folder_ / "empty");
  options_.source = folder_ / "empty";
  EXPECT_THAT(fault(), HasSubstr("no images"));
}

TEST_F(Images, FractionsMustMakeSense) {
  options_.splits.fractions = {0.5, 0.2};
  EXPECT_THAT(fault(), HasSubstr("--fractions 0.5,0.2: expected three shares"));
  options_.splits.fractions = {0.5, 0.2, 0.2};
  EXPECT_THAT(fault(), HasSubstr("add up to 1"));
  options_.splits.fractions = {0.98, 0.01, 0.01};
  EXPECT_THAT(fault(), HasSubstr("of 10 classes none is left for validation"));
}

}  // namespace
}  // namespace kshot::io
