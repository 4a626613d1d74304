// `kshot import` as a user sees it: its output, and the files that an interrupted import leaves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "cli/program.h"
#include "data/files.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

namespace fs = std::filesystem;

class CliImport : public testing::Test {
 protected:
  Outcome kshot(const std::vector<std::string>& arguments) const {
    return run(folder_.path(), arguments);
  }
  bool temporary() const {
    for (const auto& entry : fs::directory_iterator(folder_.path())) {
      if (entry.path().filename().string().find(".tmp-") != std::string::npos) return true;
    }
    return false;
  }

  TempFolder folder_;
};

class CliImportSignal : public CliImport, public testing::WithParamInterface<int> {};

TEST_P(CliImportSignal, AnInterruptedImportLeavesNothing) {
  // One large picture under many names is more work than the test waits for.
  write_text(folder_ / "one.png", png_bytes(plain(1500, 1500, 3, 7)));
  for (int c = 0; c < 20; ++c) {
    const std::string name = "birds/class" + std::to_string(c);
    fs::create_directories(folder_ / name);
    for (int i = 0; i < 50; ++i) {
      fs::create_symlink(folder_ / "one.png", folder_ / (name + "/" + std::to_string(i) + ".png"));
    }
  }
  Program program(folder_.path(), {"import", "images", "birds", "-o", "out.kshot", "--size", "84"});
  for (int i = 0; i < 3000 && !temporary(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ASSERT_TRUE(temporary()) << program.error();
  program.signal(GetParam());
  EXPECT_EQ(program.wait(), -GetParam()) << program.error();
  EXPECT_FALSE(temporary());
  EXPECT_FALSE(fs::exists(folder_ / "out.kshot"));
}
INSTANTIATE_TEST_SUITE_P(All, CliImportSignal, testing::Values(SIGINT, SIGTERM, SIGHUP),
                         [](const auto& parameter) {
                           return parameter.param == SIGINT    ? "Interrupt"
                                  : parameter.param == SIGTERM ? "Terminate"
                                                               : "HangUp";
                         });

}  // namespace
}  // namespace kshot::test
