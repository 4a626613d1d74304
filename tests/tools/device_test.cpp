// bench/device.sh, as far as it goes where no GPU is.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "cli/program.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

Outcome device(const TempFolder& folder, const std::string& arguments) {
  const std::string command =
      fmt::format("'{1}/bench/device.sh' --out '{0}/results' {2} >'{0}/out' 2>'{0}/error'",
                  folder.path().string(), KSHOT_SOURCE_DIR, arguments);
  const int status = std::system(command.c_str());
  return {WEXITSTATUS(status), slurp(folder / "out"), slurp(folder / "error")};
}

TEST(DeviceScript, ADryRunNamesEveryStepAndRunsNone) {
  const TempFolder folder;
  const Outcome outcome = device(folder, "--dry-run");
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  for (const char* what : {"-DKSHOT_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=native", "build",
                           "equivalence", "kernels", "compare sinusoid_maml_k5", "train"}) {
    EXPECT_THAT(outcome.out, HasSubstr(what));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "results"));
}

TEST(DeviceScript, WrongUsageIsOneLineAndStatus2) {
  const TempFolder folder;
  for (const char* arguments :
       {"--bogus", "--device tpu", "--limit soon", "--data /nowhere/omniglot.kshot", "--out"}) {
    const Outcome outcome = device(folder, arguments);
    EXPECT_EQ(outcome.status, 2) << arguments;
    EXPECT_THAT(outcome.error, StartsWith("device: ")) << arguments;
    EXPECT_EQ(std::ranges::count(outcome.error, '\n'), 1) << outcome.error;
  }
}

TEST(DeviceScript, WithoutADeviceItSaysSo) {
  if (std::system("ldconfig -p 2>/dev/null | grep -q 'libcuda\\.so\\.1'") == 0 ||
      std::filesystem::exists("/dev/nvidia0")) {
    GTEST_SKIP() << "a driver is installed here";
  }
  const TempFolder folder;
  const Outcome outcome = device(folder, "");
  EXPECT_EQ(outcome.status, 2);
  EXPECT_THAT(outcome.error, HasSubstr("no usable device"));
}

}  // namespace
}  // namespace kshot::test
