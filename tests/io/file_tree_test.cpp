// Folders and zip archives as trees of files: links, names of entries, and files that must be
// refused.
#include "io/file_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <zip.h>

#include <filesystem>
#include <map>
#include <string>

#include "data/files.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot::io {
namespace {

using test::error_text;
using test::write_text;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FileTrees : public ::testing::Test {
 protected:
  std::unique_ptr<FileTree> zip(const std::map<std::string, std::string>& entries) {
    test::write_zip(folder_ / "x.zip", entries);
    return FileTree::open(folder_ / "x.zip");
  }
  std::string zip_fault(const std::map<std::string, std::string>& entries) {
    return error_text([&] { zip(entries); });
  }
  /// Renames an entry in the bytes of the archive, to a name of equal length.
  void rename_entry(const std::string& from, const std::string& to) {
    std::string bytes = test::read_text(folder_ / "x.zip");
    for (std::size_t at = 0; (at = bytes.find(from, at)) != std::string::npos; at += to.size()) {
      bytes.replace(at, to.size(), to);
    }
    write_text(folder_ / "x.zip", bytes);
  }

  test::TempFolder folder_;
};

TEST_F(FileTrees, LinksAreFollowedAndEndInNoLoop) {
  namespace fs = std::filesystem;
  write_text(folder_ / "root/a/1.png", "one");
  write_text(folder_ / "elsewhere/2.png", "two");
  fs::create_directory_symlink(folder_ / "elsewhere", folder_ / "root/b");
  fs::create_symlink("1.png", folder_ / "root/a/link.png");
  fs::create_directory_symlink("..", folder_ / "root/a/up");
  fs::create_directory_symlink(folder_.path(), folder_ / "root/a/above");
  fs::create_symlink("nothing.png", folder_ / "root/a/gone.png");
  fs::create_symlink("self.png", folder_ / "root/self.png");
  ASSERT_EQ(::mkfifo((folder_ / "root/pipe.png").c_str(), 0600), 0);
  const auto tree = FileTree::open(folder_ / "root");
  EXPECT_THAT(tree->files(), ElementsAre("a/1.png", "a/link.png", "b/2.png"));
  EXPECT_EQ(tree->read("b/2.png"), "two");
  EXPECT_THAT(tree->left_out(),
              ::testing::UnorderedElementsAre(
                  "a/up (a link to a folder above it)", "a/above (a link to a folder above it)",
                  "a/gone.png (a link to nothing)", HasSubstr("self.png (Too many levels"),
                  "pipe.png (not a file)"));
}

TEST_F(FileTrees, AFolderIsThereOnceHoweverManyLinksLeadToIt) {
  namespace fs = std::filesystem;
  write_text(folder_ / "root/z/1.png", "one");
  fs::create_directory_symlink("z", folder_ / "root/a");
  write_text(folder_ / "elsewhere/2.png", "two");
  fs::create_directory_symlink(folder_ / "elsewhere", folder_ / "root/b");
  fs::create_directory_symlink(folder_ / "elsewhere", folder_ / "root/c");
  const auto tree = FileTree::open(folder_ / "root");
  EXPECT_EQ(tree->files().size(), 2u);
  EXPECT_THAT(tree->files(), ::testing::Contains("z/1.png"));
  EXPECT_THAT(tree->left_out(), ::testing::Contains("a (a link to z, which is there already)"));
  EXPECT_EQ(tree->left_out().size(), 2u);
}

TEST_F(FileTrees, NamesInAnotherEncodingArePrinted) {
  write_text(folder_ / "root/caf\xe9/1\n.png", "x");
  const auto tree = FileTree::open(folder_ / "root");
  ASSERT_EQ(tree->files().size(), 1u);
  EXPECT_EQ(tree->read(tree->files().front()), "x");
  EXPECT_THAT(tree->name(tree->files().front()), HasSubstr("caf\\xe9/1\\n.png"));
}

TEST_F(FileTrees, EntriesOfZipsAreNamedOneWay) {
  const auto tree = zip({{"train\\cat\\1.png", "1"},
                         {"./train/dog//2.png", "2"},
                         {"__MACOSX/train/._1.png", ""},
                         {"set/__MACOSX/3.png", ""},
                         {"set/.thumbs/3.png", ""},
                         {"set/@eaDir/1.png/small.png", ""}});
  EXPECT_THAT(tree->files(), ElementsAre("train/cat/1.png", "train/dog/2.png"));
  EXPECT_EQ(tree->read("train/cat/1.png"), "1");
  EXPECT_THAT(tree->left_out(), IsEmpty());
}

TEST_F(FileTrees, AnEntryTwiceIsOneFileOrAnError) {
  zip({{"a/1.png", "same"}, {"a/2.png", "same"}, {"a/3.png", "x"}});
  rename_entry("a/2.png", "a/1.png");
  const auto tree = FileTree::open(folder_ / "x.zip");
  EXPECT_THAT(tree->files(), ElementsAre("a/1.png", "a/3.png"));
  EXPECT_THAT(tree->left_out(), ElementsAre("repeated entries of the archive (1)"));
  rename_entry("a/3.png", "a/1.png");
  EXPECT_THAT(error_text([&] { FileTree::open(folder_ / "x.zip"); }),
              AllOf(HasSubstr("x.zip: a/1.png: the archive has two entries"),
                    HasSubstr("different contents")));
  EXPECT_THAT(zip_fault({{"a\\1.png", "1"}, {"a/1.png", "2"}}), HasSubstr("different contents"));
}

TEST_F(FileTrees, EntriesStayInTheArchive) {
  for (const char* entry : {"../x.png", "a/../../x.png", "/etc/x.png", "..\\x.png", "C:\\x.png"}) {
    EXPECT_THAT(zip_fault({{"a/1.png", "1"}, {entry, "2"}}),
                AllOf(HasSubstr("x.zip: the entry"), HasSubstr("leads outside of the archive")))
        << entry;
  }
}

TEST_F(FileTrees, WhatGrowsWithoutMeasureIsRefused) {
  // Zeros expand to a thousand times their compressed size. Pictures are already compressed and do
  // not.
  const std::string bomb(std::size_t{32} << 20, '\0');
  const auto tree = zip({{"a/1.png", bomb}, {"a/2.png", bomb.substr(0, std::size_t{1} << 20)}});
  EXPECT_THAT(error_text([&] { tree->read("a/1.png"); }),
              AllOf(HasSubstr("x.zip: a/1.png: cannot be read ("),
                    HasSubstr("would become 33554432; expected a picture")));
  EXPECT_EQ(tree->read("a/2.png").size(), std::size_t{1} << 20);
}

TEST_F(FileTrees, AnEntryLongerThanItsListSaysIsRefused) {
  zip({{"a/1.png", std::string(100000, 'x')}});
  // The size is in the entry's own header and in the archive's list. 100,000 becomes 99.
  std::string bytes = test::read_text(folder_ / "x.zip");
  const std::string stated("\xa0\x86\x01\x00", 4), lie("\x63\x00\x00\x00", 4);
  int places = 0;
  for (std::size_t at = 0; (at = bytes.find(stated, at)) != std::string::npos; ++places) {
    bytes.replace(at, 4, lie);
  }
  ASSERT_GE(places, 1);
  write_text(folder_ / "x.zip", bytes);
  const auto tree = FileTree::open(folder_ / "x.zip");
  EXPECT_THAT(error_text([&] { tree->read("a/1.png"); }),
              HasSubstr("x.zip: a/1.png: cannot be read ("));
}

TEST_F(FileTrees, HugeFilesAreRefusedBeforeTheyAreRead) {
  write_text(folder_ / "root/a/1.png", "x");
  // The file is sparse.
  std::filesystem::resize_file(folder_ / "root/a/1.png", std::uintmax_t{3} << 40);
  const auto tree = FileTree::open(folder_ / "root");
  EXPECT_THAT(error_text([&] { tree->read("a/1.png"); }),
              AllOf(HasSubstr("root/a/1.png: cannot be read"), HasSubstr("expected at most")));
}

TEST_F(FileTrees, EncryptedArchivesAreRefused) {
  int code = 0;
  zip_t* archive = zip_open((folder_ / "x.zip").c_str(), ZIP_CREATE, &code);
  zip_file_add(archive, "a/1.png", zip_source_buffer(archive, "secret", 6, 0), 0);
  if (zip_file_set_encryption(archive, 0, ZIP_EM_AES_256, "word") != 0) {
    zip_discard(archive);
    GTEST_SKIP() << "libzip cannot encrypt here";
  }
  ASSERT_EQ(zip_close(archive), 0);
  EXPECT_THAT(error_text([&] { FileTree::open(folder_ / "x.zip"); }),
              HasSubstr("x.zip: a/1.png is encrypted; expected an archive without a password"));
}

}  // namespace
}  // namespace kshot::io
