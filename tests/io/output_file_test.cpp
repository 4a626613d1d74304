// Outputs of commands: a file is replaced only if kshot wrote it, is of the same kind, and is no
// input.
#include "io/output_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "io/atomic_file.h"
#include "io/npy.h"
#include "kshot/error.h"
#include "support/error_text.h"
#include "support/put_file.h"
#include "support/temp_folder.h"

namespace kshot::io {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::put_file;
using test::TempFolder;
using testing::AllOf;
using testing::HasSubstr;

constexpr OutputKind kinds[] = {
    OutputKind::data_file, OutputKind::evaluation,  OutputKind::page,        OutputKind::arrays,
    OutputKind::weights,   OutputKind::predictions, OutputKind::class_table, OutputKind::text};

/// Writes one of kshot's own files of each kind that may be replaced.
std::map<OutputKind, fs::path> own_files(const fs::path& folder) {
  put_file(folder / "a.kshot", "KSHOTDAT...");
  put_file(folder / "e.json", "{\n  \"format\": \"kshot evaluation\"\n}\n");
  put_file(folder / "r.html",
           "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n" + std::string(page_mark) + "\n");
  put_file(folder / "adapted.safetensors", "{\"format\":\"kshot adapted weights\"}");
  put_file(folder / "predictions.csv", "row,y\n0,1\n");
  const double x = 1.0;
  write_npz(folder / "f.npz", {{"x", NpyArray::from(std::span(&x, 1), {1})}});
  put_file(folder / "f.tsv", std::string(class_table_header) + "0\ta\ttrain\n");
  return {{OutputKind::data_file, folder / "a.kshot"},
          {OutputKind::evaluation, folder / "e.json"},
          {OutputKind::page, folder / "r.html"},
          {OutputKind::arrays, folder / "f.npz"},
          {OutputKind::weights, folder / "adapted.safetensors"},
          {OutputKind::predictions, folder / "predictions.csv"},
          {OutputKind::class_table, folder / "f.tsv"}};
}

TEST(OutputFile, ReplacesAFileOfTheSameKindAndSaysSo) {
  const TempFolder folder;
  for (const auto& [kind, path] : own_files(folder.path())) {
    testing::internal::CaptureStderr();
    OutputFile(path, kind).write("new");
    EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("replaced " + path.string()));
    own_files(folder.path());
  }
  testing::internal::CaptureStderr();
  OutputFile(folder / "free", OutputKind::page).write("new");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << "nothing was there";
  EXPECT_EQ(read_file(folder / "free"), "new");
}

TEST(OutputFile, LeavesFilesOfAnyOtherKindAlone) {
  const TempFolder folder;
  auto files = own_files(folder.path());
  files[OutputKind::text] = folder / "my.toml";
  put_file(folder / "my.toml", "seed = 1\n");
  for (const OutputKind requested : kinds) {
    for (const auto& file : files) {
      if (file.first == requested && file.first != OutputKind::text) continue;
      const fs::path& path = file.second;
      const std::string before = read_file(path);
      EXPECT_THAT(error_text([&] { OutputFile(path, requested); }),
                  AllOf(HasSubstr("cannot write " + path.string()), HasSubstr("the file exists")))
          << path;
      EXPECT_EQ(read_file(path), before);
    }
  }
}

TEST(OutputFile, LeavesForeignFilesAlone) {
  const TempFolder folder;
  for (const std::string content :
       {"", "x,y\n1,2\n", "row,y\n1,2\n", "{}", "{\"algorithm\": 1}",
        "<!DOCTYPE html>\n<p>mine</p>", "PK\x03\x04", "index\tname\tsplit\n0\ta\ttrain\n"}) {
    put_file(folder / "mine", content);
    for (const OutputKind kind : kinds) {
      EXPECT_THAT(error_text([&] { OutputFile(folder / "mine", kind); }), HasSubstr("exists"))
          << content;
    }
    EXPECT_EQ(read_file(folder / "mine"), content);
  }
}

TEST(OutputFile, KnowsAnInputByEveryName) {
  const TempFolder folder;
  put_file(folder / "a.kshot", "KSHOTDAT...");
  fs::create_directory(folder / "sub");
  fs::create_symlink("a.kshot", folder / "symbolic");
  fs::create_symlink("symbolic", folder / "chain");
  fs::create_hard_link(folder / "a.kshot", folder / "hard");
  fs::create_directory_symlink(folder.path(), folder / "sub" / "up");
  const std::string relative = fs::relative(folder / "a.kshot").string();
  for (const std::string& name :
       {(folder / "a.kshot").string(), (folder / "symbolic").string(), (folder / "chain").string(),
        (folder / "hard").string(), (folder / "sub/../a.kshot").string(),
        (folder / "sub/up/a.kshot").string(), (folder / "./sub/..//a.kshot").string(), relative}) {
    for (const bool turned : {false, true}) {
      const fs::path output = turned ? folder / "a.kshot" : fs::path(name);
      const fs::path input = turned ? fs::path(name) : folder / "a.kshot";
      EXPECT_THAT(error_text([&] {
                    OutputFile(output, OutputKind::data_file, {"none", input});
                  }),
                  HasSubstr("is an input of this command"))
          << name;
    }
  }
  EXPECT_EQ(read_file(folder / "a.kshot"), "KSHOTDAT...");
}

TEST(OutputFile, MakesFoldersAndRemovesThemWhereNothingIsWritten) {
  const TempFolder folder;
  OutputFile(folder / "a/b/c.html", OutputKind::page).write("x");
  EXPECT_EQ(read_file(folder / "a/b/c.html"), "x");
  { const OutputFile unused(folder / "d/e/f.html", OutputKind::page); }
  EXPECT_FALSE(fs::exists(folder / "d"));
  { const OutputFile unused(folder / "a/b/d/f.html", OutputKind::page); }
  EXPECT_FALSE(fs::exists(folder / "a/b/d"));
  EXPECT_TRUE(fs::exists(folder / "a/b/c.html"));
}

TEST(OutputFile, SaysWhatCannotBeWritten) {
  const TempFolder folder;
  put_file(folder / "file", "x");
  fs::create_symlink("loop", folder / "loop");
  for (const fs::path& bad :
       {folder / "file/a", folder / "file/a/b", folder / "loop", folder / "loop/a", folder.path(),
        folder.path() / "", fs::path("/proc/none/a"), fs::path("/dev/null"), fs::path("")}) {
    EXPECT_THAT(error_text([&] { OutputFile(bad, OutputKind::page); }),
                HasSubstr("cannot write " + bad.string()))
        << bad;
  }
}

TEST(OutputFile, ALinkToNothingIsNotReplaced) {
  const TempFolder folder;
  fs::create_symlink("gone/x.html", folder / "link.html");
  EXPECT_THAT(error_text([&] { OutputFile(folder / "link.html", OutputKind::page); }),
              ::testing::AllOf(HasSubstr("cannot write " + (folder / "link.html").string()),
                               HasSubstr("a link to gone/x.html, which is not there")));
  EXPECT_TRUE(fs::is_symlink(folder / "link.html"));
  EXPECT_FALSE(fs::exists(folder / "gone"));
}

TEST(OutputFile, AFileThatAppearsMeanwhileIsLeftAlone) {
  const TempFolder folder;
  OutputFile output(folder / "a.html", OutputKind::page);
  put_file(folder / "a.html", "mine");
  EXPECT_THAT(error_text([&] { output.write("x"); }), HasSubstr("exists"));
  EXPECT_EQ(read_file(folder / "a.html"), "mine");
}

TEST(OutputFile, ArraysCarryTheirMark) {
  const TempFolder folder;
  write_npz(folder / "none.npz", {});
  OutputFile(folder / "none.npz", OutputKind::arrays).written();
  EXPECT_TRUE(read_npz(folder / "none.npz").empty());
}

}  // namespace
}  // namespace kshot::io
