// bench/device.sh, as far as it runs without a GPU.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/program.h"
#include "support/put_file.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

Outcome device(const TempFolder& folder, const std::string& arguments,
               const std::string& environment = "") {
  const std::string command =
      fmt::format("{3} '{1}/bench/device.sh' --out '{0}/results' {2} >'{0}/out' 2>'{0}/error'",
                  folder.path().string(), KSHOT_SOURCE_DIR, arguments, environment);
  const int status = std::system(command.c_str());
  return {WEXITSTATUS(status), slurp(folder / "out"), slurp(folder / "error")};
}

TEST(DeviceScript, ADryRunNamesEveryStepAndRunsNone) {
  const TempFolder folder;
  const Outcome outcome = device(folder, "--dry-run");
  EXPECT_EQ(outcome.status, 0) << outcome.error;
  for (const char* what : {"-DKSHOT_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=native", "build",
                           "equivalence", "kernels", "compare --only sinusoid_maml_k5", "train"}) {
    EXPECT_THAT(outcome.out, HasSubstr(what));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "results"));
}

TEST(DeviceScript, WrongUsageIsOneLineAndStatus2) {
  const TempFolder folder;
  for (const char* arguments : {"--bogus", "--device tpu", "--limit soon", "--steps kernels,dance",
                                "--data /nowhere/omniglot.kshot", "--out"}) {
    const Outcome outcome = device(folder, arguments);
    EXPECT_EQ(outcome.status, 2) << arguments;
    EXPECT_THAT(outcome.error, StartsWith("device: ")) << arguments;
    EXPECT_EQ(std::ranges::count(outcome.error, '\n'), 1) << outcome.error;
  }
}

void put_program(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  put_file(path, text);
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
}

TEST(DeviceScript, AFailureLeavesTheOthersTheirResults) {
  if (std::system("python3 --version >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "no python3, in which the tables are written";
  }
  const TempFolder folder;
  // These programs print what real ones would. Their output for conv4 is empty.
  for (const char* name : {"cmake", "c++"}) put_program(folder / "bin" / name, "#!/bin/sh\n");
  put_program(folder / "bin" / "ctest", "#!/bin/sh\necho cpu\n");
  put_program(folder / "build" / "kshot", R"(#!/bin/sh
case $1 in
devices) echo "cpu  made up" ;;
import) : >"$5" ;;
train)
  mkdir -p "$6"
  echo '{"kind": "validation", "step": 100, "seconds": 12.5, "accuracy": 0.985}' >"$6/metrics.jsonl" ;;
evaluate) echo '{}' >"$9" ;;
esac
)");
  put_program(folder / "build" / "bench" / "kshot_bench", R"(#!/bin/sh
case $* in *conv4*) echo "broken on purpose" >&2; exit 1 ;; esac
cat <<END
{"context": {"kshot_version": "0", "device": "made up", "peak_gflops": "100.0"},
 "benchmarks": [
  {"name": "sinusoid/1024/real_time", "tasks_per_second": 9e6, "GFLOP/s": 5.0, "peak_rss_bytes": 7},
  {"name": "sinusoid/4096/real_time", "tasks_per_second": 1e7, "GFLOP/s": 5.0, "peak_rss_bytes": 7}]}
END
)");
  // These packages exist but fail on import.
  for (const char* name : {"jax", "torch"}) {
    put_program(folder / "python" / name / "__init__.py", "raise RuntimeError('no peer really')\n");
  }
  const std::string environment =
      fmt::format("PATH='{0}/bin':$PATH PYTHONPATH='{0}/python' KSHOT_BUILD_DIR='{0}/build'",
                  folder.path().string());
  const Outcome outcome = device(folder, "--device cpu", environment);
  EXPECT_EQ(outcome.status, 1) << outcome.out << outcome.error;

  const auto results = folder / "results";
  const auto summary = nlohmann::json::parse(slurp(results / "summary.json"));
  std::map<std::string, std::string> states;
  for (const auto& step : summary.at("steps")) states[step.at("name")] = step.at("state");
  const std::map<std::string, std::string> expected = {
      {"configure", "passed"},   {"build", "passed"},    {"devices", "passed"},
      {"equivalence", "passed"}, {"sinusoid", "failed"}, {"train", "passed"},
      {"conv4", "failed"},       {"abml", "failed"},     {"leo", "failed"},
      {"memory", "passed"},      {"kernels", "left-out"}};
  EXPECT_EQ(states, expected) << outcome.error;
  EXPECT_EQ(slurp(results / "evaluation.json"), "{}\n") << "of the fifth option, --out";
  EXPECT_FALSE(std::filesystem::exists(std::string(KSHOT_SOURCE_DIR) + "/--out"));
  EXPECT_THAT(slurp(results / "sinusoid.log"), HasSubstr("jax sinusoid_maml_k5 failed: "));
  EXPECT_THAT(slurp(results / "conv4.log"), HasSubstr("broken on purpose"));

  const auto reach = nlohmann::json::parse(slurp(results / "reach.json"));
  std::map<std::string, nlohmann::json> met;
  for (const auto& line : reach) {
    met[line.at("what").get<std::string>() + ": " + line.at("asked").get<std::string>()] =
        line.at("met");
  }
  EXPECT_EQ(met.size(), 10u);
  EXPECT_EQ(met.at("the same: >= 10,000,000 tasks/s"), true);
  EXPECT_EQ(met.at("the same: >= 10,000 tasks/s"), nullptr) << "there is no result";
  EXPECT_EQ(met.at("Omniglot 5-way 1-shot: 98% in under 60 s"), nullptr) << "of made-up classes";
  for (const char* what : {"9,000,000", "10,000,000", "no result", "made-up classes", "98.5%"}) {
    EXPECT_THAT(slurp(results / "table.txt"), HasSubstr(what));
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
