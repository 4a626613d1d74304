// The imports of Omniglot and of image folders, on files that the tests make.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "data/files.h"
#include "data/import.h"
#include "data/imports.h"
#include "io/image.h"

namespace kshot::data {
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

/// A white image with a black stroke in the top left quarter, 105 x 105.
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
  // The drawings are in order of name, and the first of character01 is blank. One output pixel
  // covers 15 pixels. The stroke covers 3 x 2 of the 7 x 7 pixels, and rotations are
  // counter-clockwise.
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
  // Rotated by 90 degrees, the top left goes to the bottom left.
  stroke(3, 5, 0, 2, 3);
  stroke(4, 4, 5, 3, 2);  // 180 degrees
  stroke(5, 0, 4, 2, 3);  // 270 degrees: to the top right
}

TEST_F(Omniglot, AFolderIsReadAsTheArchive) {
  import_omniglot(options_);
  const std::string from_zip = test::read_text(options_.output);
  options_.sources = {folder_ / "images_background", folder_ / "images_evaluation"};
  import_omniglot(options_);
  const auto zip_size = from_zip.size();
  const auto data = Dataset::open(options_.output);
  const auto rows = data->header().rows() * 49;
  // The files are equal but for the names of the sources in the header.
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
  // One entry has a damaged byte. Its own checksum detects it.
  const std::string entry = "Greek/character02/0002_01.png";
  const auto at = zip.find(entry);  // The local header is right before the bytes.
  ASSERT_NE(at, std::string::npos);
  char& byte = zip[at + entry.size() + 30];
  byte = static_cast<char>(byte ^ 1);
  write_text(folder_ / "bad.zip", zip);
  options_.sources = {folder_ / "bad.zip", folder_ / "images_evaluation"};
  EXPECT_THAT(fault(), HasSubstr("bad.zip"));
}

TEST_F(Omniglot, TestClassesAlone) {
  options_.splits.lists = {{Split::test, folder_ / "test.txt"}};
  EXPECT_THAT(names(*import(), Split::test), ElementsAre("Keble/character01/rot270"));
}

TEST_F(Omniglot, AClassIsInOneSplit) {
  // This name means rot000, which is a training class.
  write_text(folder_ / "test.txt", "Greek/character01\n");
  EXPECT_THAT(fault(), AllOf(HasSubstr("test.txt, line 1"), HasSubstr("already in"),
                             HasSubstr("--allow-shared-classes")));
  options_.splits.allow_shared = true;
  EXPECT_THAT(names(*import(), Split::test), ElementsAre("Greek/character01"));
  options_.splits.allow_shared = false;
  write_text(folder_ / "test.txt", "Greek/character01/rot270\n");
  import();
  EXPECT_THAT(summary_.notes, ElementsAre(AllOf(HasSubstr("1 characters are in several splits"),
                                                HasSubstr("Greek/character01"))));
}

TEST_F(Omniglot, DrawingsAreCountedOnce) {
  options_.sources.push_back(folder_ / "images_background");
  EXPECT_THAT(fault(), AllOf(HasSubstr("'Greek/character01' is also in"), HasSubstr("once")));
}

TEST_F(Omniglot, BadPicturesAndSmallClassesCanBeLeftOut) {
  write_text(folder_ / "images_evaluation/Keble/character01/0965_02.png", "not an image");
  options_.skip_bad = true;
  options_.min_examples = 2;
  const auto data = import();
  EXPECT_THAT(names(*data, Split::train),
              ElementsAre("Greek/character01/rot000", "Greek/character01/rot090"));
  EXPECT_TRUE(names(*data, Split::test).empty());
  EXPECT_THAT(summary_.notes,
              ElementsAre(HasSubstr("2 classes with fewer than 2 examples"),
                          HasSubstr("1 pictures that cannot be read"), HasSubstr("0965_02.png")));
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
  EXPECT_THAT(summary.notes, ElementsAre(AllOf(HasSubstr("1 file that is not a PNG or JPEG image"),
                                               HasSubstr("class0/notes.txt"))));
  EXPECT_EQ(summary.division,
            "at random with seed 1, in shares of 0.5, 0.2, 0.3 for train, validation and test");
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
  EXPECT_THAT(summary.notes, ElementsAre(HasSubstr("7 classes that are in no split (class2, ")));
  EXPECT_THAT(summary.division, HasSubstr("by the lists train="));
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

/// Imports of class folders with one picture each, with or without other files.
class Divisions : public test::Imports<ImagesImport, import_images> {
 protected:
  Divisions() { options_.source = folder_ / "set"; }
  void put(const std::vector<std::string>& files) {
    std::filesystem::remove_all(folder_ / "set");
    for (const std::string& file : files) {
      write_text(folder_ / ("set/" + file),
                 file.ends_with(".png") ? test::png_bytes(test::plain(2, 2, 1, 8)) : "text");
    }
  }
  /// The classes per split in the order of the file, such as "train: a b | test: c".
  std::string divided(const std::vector<std::string>& files) {
    put(files);
    const auto data = import();
    std::string out;
    for (const Split split : {Split::train, Split::validation, Split::test}) {
      if (names(*data, split).empty()) continue;
      out += (out.empty() ? "" : " | ") + std::string(split_name(split)) + ":";
      for (const std::string& name : names(*data, split)) out += " " + name;
    }
    return out;
  }
  std::string refused(const std::vector<std::string>& files) {
    put(files);
    return fault();
  }
};

TEST_F(Divisions, CommonNamesOfTheSplits) {
  EXPECT_EQ(divided({"training/a/1.png", "dev/b/1.png", "testing/c/1.png"}),
            "train: training/a | validation: dev/b | test: testing/c");
  EXPECT_EQ(summary_.division, "by the folders training (train), dev (validation), testing (test)");
  EXPECT_EQ(divided({"base/a/1.png", "val/b/1.png", "novel/c/1.png"}),
            "train: base/a | validation: val/b | test: novel/c");
  EXPECT_EQ(divided({"x/meta-train/a/1.png", "x/meta_valid/b/1.png", "x/MetaTest/c/1.png"}),
            "train: meta-train/a | validation: meta_valid/b | test: MetaTest/c");
  EXPECT_EQ(divided({"Train_Set/a/1.png", "val2017/b/1.png", "test images/c/1.png"}),
            "train: Train_Set/a | validation: val2017/b | test: test images/c");
  EXPECT_EQ(divided({"seen/a/1.png", "Unseen/b/1.png"}), "train: seen/a | test: Unseen/b");
  EXPECT_EQ(divided({"tr/a/1.png", "va/b/1.png", "te/c/1.png"}),
            "train: tr/a | validation: va/b | test: te/c");
  EXPECT_EQ(divided({"train/a/1.png", "holdout/b/1.png"}), "train: train/a | test: holdout/b");
  EXPECT_EQ(divided({"images_background/Greek/a/1.png", "images_evaluation/Keble/a/1.png"}),
            "train: images_background/Greek/a | test: images_evaluation/Keble/a");
}

TEST_F(Divisions, WhatLiesBesideTheFoldersIsListed) {
  EXPECT_EQ(divided({"train/a/1.png", "test/b/1.png", "README.md", "logo.png", "docs/guide.txt",
                     "train/cover.png"}),
            "train: train/a | test: test/b");
  EXPECT_THAT(summary_.notes,
              ElementsAre(AllOf(HasSubstr("2 files"), HasSubstr("README.md, docs/guide.txt")),
                          AllOf(HasSubstr("2 pictures"), HasSubstr("logo.png, train/cover.png"))));
}

TEST_F(Divisions, OneSplitAlone) {
  EXPECT_EQ(divided({"test/a/1.png", "test/b/1.png"}), "test: test/a test/b");
  EXPECT_THAT(summary_.notes, ElementsAre(HasSubstr("no class is for training")));
  options_.splits.fractions = {0, 0, 1};
  EXPECT_EQ(divided({"a/1.png", "b/1.png"}), "test: a b");
}

TEST_F(Divisions, WhatIsNotClearIsRefusedWithTheList) {
  EXPECT_THAT(refused({"train/a/1.png", "test/b/1.png", "docs/logo.png"}),
              AllOf(HasSubstr("train/ (train, 1 class)"), HasSubstr("docs/ (no split, 1 class)"),
                    HasSubstr("--by-folders"), HasSubstr("--fractions"), HasSubstr("--split")));
  EXPECT_THAT(refused({"one/train/a/1.png", "one/test/b/1.png", "two/train/c/1.png"}),
              AllOf(HasSubstr("one/train/ (train, 1 class)"), HasSubstr("two/train/")));
  EXPECT_THAT(refused({"train/a/1.png", "val/b/1.png", "validation/c/1.png"}),
              HasSubstr("validation/ (validation, 1 class)"));
  EXPECT_THAT(refused({"my_train_v2/a/1.png", "my_test_v2/b/1.png"}),
              AllOf(HasSubstr("it is not clear which one"), HasSubstr("my_train_v2")));
  EXPECT_THAT(refused({"train/1.png", "test/1.png"}),
              HasSubstr("instead of a folder for every class"));
  EXPECT_THAT(refused({"cat/train/1.png", "cat/test/1.png", "dog/train/1.png"}),
              HasSubstr("instead of a folder for every class"));
}

TEST_F(Divisions, EqualNamesBelowDifferentFoldersAreSaid) {
  options_.splits.fractions = {1, 0, 0};
  divided({"2019/cat/1.png", "2020/cat/1.png", "2019/dog/1.png"});
  EXPECT_THAT(summary_.notes, ElementsAre(HasSubstr("('2019/cat', '2020/cat')")));
  divided({"2019/cat/1.png", "2020/owl/1.png"});
  EXPECT_THAT(summary_.notes, ElementsAre());
}

TEST_F(Divisions, ListsOfOtherPrograms) {
  put({"a/1.png", "b/1.png"});
  options_.splits.lists = {{Split::train, folder_ / "l.txt"}, {Split::test, folder_ / "m.txt"}};
  write_text(folder_ / "l.txt", "./a\n");
  write_text(folder_ / "m.txt", "./b/\n");
  EXPECT_EQ(import()->header().groups.size(), 2u);
  write_text(folder_ / "m.txt", std::string("b\0c\n", 4));
  EXPECT_THAT(fault(), AllOf(HasSubstr("m.txt: binary data"), HasSubstr("one name per line")));
  options_.splits.lists[1].second = "/dev/zero";
  EXPECT_THAT(fault(), HasSubstr("cannot read /dev/zero: it is a device"));
}

TEST_F(Divisions, OtherFormatsAreNamed) {
  EXPECT_THAT(refused({"a/1.gif", "b/2.webp"}),
              AllOf(HasSubstr("no images among 2 files"), HasSubstr("a/1.gif, b/2.webp")));
}

TEST_F(Divisions, OptionsSettleWhatIsNotClear) {
  options_.splits.by_folders = true;
  EXPECT_EQ(divided({"train/a/1.png", "test/b/1.png", "docs/logo.png"}),
            "train: train/a | test: test/b");
  EXPECT_THAT(summary_.notes,
              ElementsAre(AllOf(HasSubstr("left out: 1 classes"), HasSubstr("docs"))));
  EXPECT_EQ(divided({"one/train/a/1.png", "two/test/b/1.png"}),
            "train: one/train/a | test: two/test/b");
  EXPECT_THAT(refused({"a/1.png", "b/1.png"}), HasSubstr("--by-folders: no folder"));
  options_.splits.by_folders = false;
  options_.splits.fractions = {1, 0, 0};
  EXPECT_EQ(divided({"train/a/1.png", "docs/logo.png"}), "train: a docs");
}

TEST_F(Divisions, AWordAmongOthersIsAClass) {
  options_.splits.fractions.clear();
  put({"bus/1.png", "car/1.png", "train/1.png", "boat/1.png", "bike/1.png", "tram/1.png"});
  EXPECT_EQ(import()->header().groups.size(), 6u);
  EXPECT_THAT(summary_.division, AllOf(HasSubstr("at random with seed 1"), HasSubstr("0.64")));
}

TEST_F(Divisions, AClassIsInOneSplit) {
  const std::vector<std::string> files = {"train/cat/1.png", "train/dog/1.png", "test/cat/2.png",
                                          "test/dog/2.png"};
  EXPECT_THAT(refused(files),
              AllOf(HasSubstr("class 'cat' is in test ('test/cat') and in train ('train/cat')"),
                    HasSubstr("and 1 more"), HasSubstr("--fractions"),
                    HasSubstr("--allow-shared-classes")));
  options_.splits.allow_shared = true;
  EXPECT_EQ(divided(files), "train: train/cat train/dog | test: test/cat test/dog");
  options_.splits.allow_shared = false;
  options_.splits.fractions = {0.5, 0, 0.5};
  put(files);
  const auto data = import();
  ASSERT_EQ(data->header().groups.size(), 2u);  // Pictures of equal class names are one class.
  EXPECT_EQ(data->header().groups[0].name, "cat");
  EXPECT_EQ(data->header().groups[0].rows, 2u);
  EXPECT_THAT(summary_.notes, ElementsAre(HasSubstr("4 class folders form 2 classes")));
}

TEST_F(Divisions, ListsMayNameAClassTwiceWhereThatIsAllowed) {
  put({"a/1.png", "b/1.png"});
  write_text(folder_ / "train.txt",
             "\xef\xbb\xbf"
             "a\r\nb/\r");
  write_text(folder_ / "test.txt", "b\n");
  options_.splits.lists = {{Split::train, folder_ / "train.txt"},
                           {Split::test, folder_ / "test.txt"}};
  EXPECT_THAT(fault(), AllOf(HasSubstr("test.txt, line 1: 'b' is already in"),
                             HasSubstr("--allow-shared-classes")));
  options_.splits.allow_shared = true;
  const auto data = import();
  EXPECT_THAT(names(*data, Split::train), ElementsAre("a", "b"));
  EXPECT_THAT(names(*data, Split::test), ElementsAre("b"));
}

TEST_F(Divisions, SmallClassesAndBadPicturesCanBeLeftOut) {
  put({"a/1.png", "a/2.png", "b/1.png", "b/2.png", "c/1.png"});
  write_text(folder_ / "set/b/2.png", "no picture");
  options_.splits.fractions = {1, 0, 0};
  EXPECT_THAT(fault(), HasSubstr("b/2.png: expected a PNG or JPEG"));
  options_.skip_bad = true;
  options_.min_examples = 2;
  EXPECT_EQ(import()->header().groups.size(), 1u);
  EXPECT_THAT(summary_.notes,
              ElementsAre(AllOf(HasSubstr("2 classes with fewer than 2"), HasSubstr("b: 1, c: 1")),
                          HasSubstr("1 pictures that cannot be read"), HasSubstr("b/2.png")));
  options_.min_examples = 3;
  EXPECT_THAT(fault(), HasSubstr("no class has 3 examples (--min-examples)"));
}

TEST_F(Divisions, TransparencyIsNotedAndStoredWithTheFile) {
  put({});
  write_text(folder_ / "set/a/1.png", test::png_bytes({1, 1, 4, {9, 9, 9, 0}}));
  options_.splits.fractions = {1, 0, 0};
  EXPECT_EQ(row(*import(), 0)[0], 9.0f / 255.0f);
  EXPECT_THAT(summary_.notes, ElementsAre(HasSubstr("1 pictures have transparent parts")));
  options_.background = io::Background::white;
  const auto data = import();
  EXPECT_EQ(row(*data, 0)[0], 1.0f);
  EXPECT_EQ(encode_image(data->header().preprocessing, folder_ / "set/a/1.png"), row(*data, 0));
  EXPECT_TRUE(summary_.notes.empty());
}

TEST_F(Divisions, ClassNamesAreUtf8) {
  put({"a/1.png", "caf\xe9/1.png"});
  EXPECT_THAT(fault(), HasSubstr("the name of the class folder 'caf\\xe9' is not UTF-8"));
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
  EXPECT_THAT(fault(), HasSubstr("with 10 classes, none is left for validation"));
}

}  // namespace
}  // namespace kshot::data
