// Runs every fuzz target on its corpus and on beginnings of each corpus file, so that the targets
// are also tested where there is no clang++. fuzz/target.h says what a target requires of its
// parser.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "fuzz/target.h"

namespace kshot::fuzz {
namespace {

namespace fs = std::filesystem;

const fs::path corpus = fs::path(KSHOT_SOURCE_DIR) / "tests" / "fuzz" / "corpus";

std::string contents(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

class Corpus : public testing::TestWithParam<std::string> {};

TEST_P(Corpus, IsTakenOrRefused) {
  const Target target = targets().at(GetParam());
  std::size_t files = 0;
  for (const auto& entry : fs::directory_iterator(corpus / GetParam())) {
    SCOPED_TRACE(entry.path().filename());
    ++files;
    const std::string bytes = contents(entry.path());
    target(bytes);
    // About a hundred beginnings per file cut its header and its data at different places.
    const std::size_t step = std::max<std::size_t>(bytes.size() / 100, 1);
    for (std::size_t size = 0; size < bytes.size(); size += step) {
      target(std::string_view(bytes).substr(0, size));
    }
  }
  EXPECT_GE(files, 2u) << "a target needs a corpus: tests/fuzz/corpus/" << GetParam();
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& [name, target] : targets()) all.push_back(name);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Fuzz, Corpus, testing::ValuesIn(names()),
                         [](const auto& tested) { return tested.param; });

TEST(Corpora, EachHasATarget) {
  for (const auto& entry : fs::directory_iterator(corpus)) {
    EXPECT_TRUE(targets().contains(entry.path().filename().string())) << entry.path();
  }
}

}  // namespace
}  // namespace kshot::fuzz
