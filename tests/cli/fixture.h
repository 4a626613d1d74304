// A fixture with a temporary folder that holds a small configuration. Tests run the program in it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "cli/program.h"
#include "io/safetensors.h"
#include "support/put_file.h"
#include "support/temp_folder.h"

namespace kshot::test {

namespace fs = std::filesystem;

inline constexpr const char* maml = R"(algorithm = "maml"
network.layers = [1, 12, 1]
inner = { steps = 2, learning_rate = 0.005 }
data = { shots = 4, queries = 5 }
optimizer.clip_norm = 5.0
evaluate.episodes = 30
[train]
steps = 12
meta_batch = 16
validate_every = 6
validation_episodes = 16
log_every = 2
)";

class Cli : public testing::Test {
 protected:
  void SetUp() override { put_file(folder_ / "c.toml", maml); }
  Outcome kshot(const std::vector<std::string>& arguments) const {
    return run(folder_.path(), arguments);
  }
  /// All files in the folder, without those that the fixture itself writes.
  std::set<std::string> files() const {
    std::set<std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(folder_.path())) {
      const std::string name = fs::relative(entry.path(), folder_.path()).string();
      if (name != "stdout.txt" && name != "stderr.txt") all.insert(name);
    }
    return all;
  }
  std::map<std::string, io::Tensor> tensors(const std::string& file) const {
    return io::read_safetensors(folder_ / file).tensors;
  }
  TempFolder folder_;
};

inline void expect_one_line(const Outcome& outcome, const std::string& what) {
  EXPECT_EQ(outcome.status, 2) << what;
  EXPECT_THAT(outcome.error, testing::StartsWith("kshot: ")) << what;
  EXPECT_EQ(std::ranges::count(outcome.error, '\n'), 1) << what << "\n" << outcome.error;
}

}  // namespace kshot::test
