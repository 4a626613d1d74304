// Training runs on the emulated device.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>

#include "backend/backend.h"
#include "kshot/kshot.h"

namespace kshot::test {

/// Skipped where the build has no emulated device.
class DeviceRuns : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const backend::DeviceInfo& device : backend::list_devices()) {
      if (device.name == "simt") return;
    }
    GTEST_SKIP() << "this build leaves the emulated CUDA backend out";
  }
  /// On two streams; without a folder nothing is written.
  static TrainerOptions options(const std::filesystem::path& folder = {}) {
    TrainerOptions o;
    o.device = "simt";
    o.threads = 2;
    o.run_folder = folder;
    return o;
  }
};

}  // namespace kshot::test
