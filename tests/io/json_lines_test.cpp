// Files of JSON lines: appending, cut lines, and cutting back for a resume.
#include "io/json_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "io/atomic_file.h"
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

class JsonLines : public ::testing::Test {
 protected:
  TempFolder folder_;
  fs::path path_ = folder_ / "metrics.jsonl";
};

TEST_F(JsonLines, EveryLineIsOnTheDiskWhenAppendReturns) {
  JsonLinesWriter writer(path_);
  writer.append({{"step", 1}, {"loss", 0.1}});
  EXPECT_EQ(read_file(path_), "{\"step\":1,\"loss\":0.1}\n");
  writer.append({{"step", 2}, {"loss", std::nan("")}, {"note", "two\nlines"}});
  const auto records = read_json_lines(path_);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0]["loss"].get<double>(), 0.1);
  EXPECT_TRUE(records[1]["loss"].is_null());
  EXPECT_EQ(records[1]["note"], "two\nlines");
}

TEST_F(JsonLines, NumbersComeBackBitForBit) {
  const double value = 0x1.fffffffffffffp-3;
  JsonLinesWriter(path_).append({{"x", value}, {"y", 1.0 / 3.0}});
  const auto records = read_json_lines(path_);
  EXPECT_EQ(records[0]["x"].get<double>(), value);
  EXPECT_EQ(records[0]["y"].get<double>(), 1.0 / 3.0);
}

TEST_F(JsonLines, ACutLastLineIsLeftOutAndThenOverwritten) {
  const std::string whole = "{\"step\":1}\n{\"step\":2,\"loss\":[1,2]}\n";
  const std::size_t first = whole.find('\n') + 1;
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    put_file(path_, whole.substr(0, size));
    // A line that lacks only its line end is complete.
    const std::size_t expected = size + 1 >= whole.size() ? 2 : size + 1 >= first ? 1 : 0;
    EXPECT_EQ(read_json_lines(path_).size(), expected) << size;
    JsonLinesWriter(path_).append({{"step", 9}});
    const auto records = read_json_lines(path_);
    ASSERT_EQ(records.size(), expected + 1) << size;
    EXPECT_EQ(records.back()["step"], 9);
    EXPECT_EQ(read_file(path_).back(), '\n');
  }
}

TEST_F(JsonLines, ABadLineInTheMiddleIsAnErrorWithItsNumber) {
  put_file(path_, "{\"step\":1}\n\n{\"step\":\n{\"step\":3}\n");
  EXPECT_EQ(error_text([&] { read_json_lines(path_); }),
            path_.string() + ", line 3: expected a JSON object");
  put_file(path_, "17\n");
  EXPECT_EQ(error_text([&] { read_json_lines(path_); }),
            path_.string() + ", line 1: expected a JSON object");
  EXPECT_EQ(error_text([&] { read_json_lines(folder_ / "none"); }),
            "cannot read " + (folder_ / "none").string() + ": No such file or directory");
  EXPECT_EQ(error_text([&] { JsonLinesWriter writer(folder_ / "none/x"); }),
            "cannot write " + (folder_ / "none/x").string() + ": No such file or directory");
}

TEST_F(JsonLines, TruncateAfterKeepsEarlierLinesByteForByte) {
  // These spaces and number formats would not survive a parser and a printer.
  const std::string kept =
      "{ \"kind\":\"start\" }\n{\"step\" : 1, \"loss\": 1.50}\n{\"step\":2.0}\n";
  put_file(path_, kept + "{\"step\":3}\n{\"step\":4}\n{\"st");
  EXPECT_EQ(truncate_after(path_, 2), 3u);
  EXPECT_EQ(read_file(path_), kept);
  EXPECT_EQ(truncate_after(path_, 2), 0u);
  EXPECT_EQ(read_file(path_), kept);
  EXPECT_EQ(truncate_after(path_, -1), 2u);
  EXPECT_EQ(read_file(path_), "{ \"kind\":\"start\" }\n");
  EXPECT_EQ(truncate_after(folder_ / "none", 2), 0u);
  EXPECT_FALSE(fs::exists(folder_ / "none"));
}

TEST_F(JsonLines, ALineThatDoesNotFitLeavesNoPart) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    JsonLinesWriter writer(path_);
    writer.append({{"step", 1}});
    const rlimit limit{100, 100};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string text = error_text([&] {
      writer.append({{"step", 2}, {"text", std::string(200, 'x')}});
    });
    ::_exit(text == "cannot write " + path_.string() + ": File too large" ? 0 : 1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(read_file(path_), "{\"step\":1}\n");
}

}  // namespace
}  // namespace kshot::io
