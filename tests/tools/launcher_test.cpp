// The script ./kshot: the build options that it sets, with a fake cmake that only records its
// calls.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "cli/program.h"
#include "support/put_file.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

/// The fake configuration writes the options into CMakeCache.txt, as CMake does. The fake build
/// makes a program that prints its arguments.
constexpr const char* fake_cmake = R"(#!/bin/bash
[[ $1 == --version ]] && { echo "cmake version 3.25.1"; exit; }
if [[ $1 == --build ]]; then
  printf '#!/bin/bash\necho ran "$@"\n' >"$2/kshot"
  chmod +x "$2/kshot"
  exit
fi
while (($#)); do
  case $1 in
    -S) source=$2 ;;
    -B) build=$2 ;;
    -D*) options+=("${1#-D}") ;;
  esac
  shift
done
echo "configured ${options[*]}" >>"$build/calls"
touch "$build/CMakeCache.txt" "$build/build.ninja"
for option in "CMAKE_HOME_DIRECTORY=$source" CMAKE_GENERATOR=Ninja "${options[@]}"; do
  sed -i "/^${option%%=*}:/d" "$build/CMakeCache.txt"
  echo "${option%%=*}:STRING=${option#*=}" >>"$build/CMakeCache.txt"
done
)";

class Launcher : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(build_);
    tool("cmake", fake_cmake);
    // All packages are present, and no test installs one.
    tool("dpkg-query", "#!/bin/bash\nfor p in \"${@:3}\"; do echo \"ii  $p\"; done\n");
    tool("apt-get", "#!/bin/bash\nexit 1\n");
    nvcc("13.0");
    tool("nvidia-smi", "#!/bin/bash\necho 'GPU 0: a fake one'\n");
  }

  void tool(const std::string& name, const std::string& script) {
    const fs::path file = folder_ / "bin" / name;
    fs::create_directories(file.parent_path());
    put_file(file, script);
    fs::permissions(file, fs::perms::owner_all);
  }
  void nvcc(const std::string& version) {
    tool("nvcc",
         fmt::format("#!/bin/bash\necho 'Cuda compilation tools, release {}, V1'\n", version));
  }

  /// Runs ./kshot with `arguments` and returns its output.
  std::string launch(const std::string& arguments) {
    const std::string command = fmt::format(
        "cd '{0}' && env -u CUDA_PATH -u CUDA_HOME PATH='{0}/bin':\"$PATH\" KSHOT_BUILD_DIR='{1}' "
        "'{2}/kshot' {3} >'{0}/out' 2>&1",
        folder_.path().string(), build_.string(), KSHOT_SOURCE_DIR, arguments);
    EXPECT_EQ(std::system(command.c_str()), 0) << slurp(folder_ / "out");
    return slurp(folder_ / "out");
  }
  /// One line per configuration.
  std::string configured() const { return slurp(build_ / "calls"); }

  TempFolder folder_;
  fs::path build_ = folder_ / "build";
};

TEST_F(Launcher, AFirstBuildIsTheProgramAlone) {
  EXPECT_THAT(launch("devices"), HasSubstr("ran devices"));
  EXPECT_EQ(configured(),
            "configured CMAKE_BUILD_TYPE=RelWithDebInfo KSHOT_UNITY=ON "
            "KSHOT_BUILD_LIBRARIES=MISSING KSHOT_BUILD_TESTS=OFF KSHOT_BUILD_BENCH=OFF "
            "KSHOT_SIMT=OFF\n");
  launch("devices");
  launch("verify case --device cpu");
  EXPECT_EQ(std::ranges::count(configured(), '\n'), 1) << "nothing had changed";
}

TEST_F(Launcher, TheEmulatorIsBuiltForItsDeviceAndStays) {
  EXPECT_THAT(launch("verify case --device simt --precision f64"),
              HasSubstr("ran verify case --device simt --precision f64"));
  EXPECT_THAT(configured(), HasSubstr("KSHOT_SIMT=ON"));
  launch("verify case --device=simt");
  launch("devices");
  EXPECT_EQ(std::ranges::count(configured(), '\n'), 1) << "it stays, and is not asked for twice";
}

TEST_F(Launcher, TheEmulatorIsAddedToABuildWithout) {
  launch("devices");
  EXPECT_THAT(configured(), Not(HasSubstr("KSHOT_SIMT=ON")));
  launch("verify case --device=simt");
  EXPECT_THAT(configured(),
              HasSubstr("\nconfigured CMAKE_BUILD_TYPE=RelWithDebInfo KSHOT_SIMT=ON\n"));
}

TEST_F(Launcher, TheLastDeviceCountsAndOthersWordsDoNot) {
  launch("verify case --device simt --device cpu");
  launch("train simt --set name=--device=simt");
  EXPECT_THAT(configured(), Not(HasSubstr("KSHOT_SIMT=ON")));
}

TEST_F(Launcher, CudaIsTurnedOnWhereNvccIs) {
  launch("train my.toml --device cuda:1");
  EXPECT_THAT(configured(), HasSubstr("KSHOT_CUDA=ON"));
}

TEST_F(Launcher, WithoutAGpuAFirstBuildIsForTheCpuAndSaysSo) {
  tool("nvidia-smi", "#!/bin/bash\nexit 9\n");
  EXPECT_THAT(launch("devices"), HasSubstr("building for the CPU (--device cuda"));
  EXPECT_THAT(configured(), HasSubstr("KSHOT_BUILD_BENCH=OFF KSHOT_SIMT=OFF KSHOT_CUDA=OFF\n"));
  EXPECT_THAT(launch("devices"), Not(HasSubstr("building for the CPU")));
  launch("train my.toml --device cuda");
  EXPECT_THAT(configured(),
              HasSubstr("\nconfigured CMAKE_BUILD_TYPE=RelWithDebInfo KSHOT_CUDA=ON\n"));
}

TEST_F(Launcher, WithoutAGpuAFirstBuildForCudaHasIt) {
  tool("nvidia-smi", "#!/bin/bash\nexit 9\n");
  EXPECT_THAT(launch("devices --device cuda"), Not(HasSubstr("building for the CPU")));
  EXPECT_THAT(configured(), HasSubstr("KSHOT_CUDA=ON"));
  EXPECT_THAT(configured(), Not(HasSubstr("KSHOT_CUDA=OFF")));
}

TEST_F(Launcher, ABuildThatHasCudaIsLeftAlone) {
  launch("devices");
  // CMake writes this where KSHOT_CUDA is AUTO and nvcc was found.
  std::ofstream(build_ / "CMakeCache.txt", std::ios::app)
      << "KSHOT_CUDA:STRING=AUTO\nKSHOT_NVCC:FILEPATH=/usr/bin/nvcc\n";
  launch("train my.toml --device cuda");
  EXPECT_THAT(configured(), Not(HasSubstr("KSHOT_CUDA")));
}

TEST_F(Launcher, AnOldNvccIsLeftToTheProgramsMessage) {
  nvcc("12.4");
  EXPECT_THAT(launch("train my.toml --device cuda"), HasSubstr("ran train my.toml --device cuda"));
  EXPECT_THAT(configured(), Not(HasSubstr("KSHOT_CUDA")));
}

TEST_F(Launcher, TestsAreThoseOfTheBackendsThatTheBuildHas) {
  tool("ctest", "#!/bin/bash\necho tested \"$@\"\n");
  launch("devices");
  EXPECT_THAT(launch("test -R abml"), HasSubstr("-R abml\n"));
  EXPECT_THAT(configured(), HasSubstr("\nconfigured CMAKE_BUILD_TYPE=RelWithDebInfo "
                                      "KSHOT_BUILD_TESTS=ON KSHOT_BUILD_BENCH=ON\n"));
}

TEST_F(Launcher, TestsTakeTheBackendsOfEveryDevice) {
  tool("ctest", "#!/bin/bash\necho tested \"$@\"\n");
  tool("nvidia-smi", "#!/bin/bash\nexit 9\n");
  EXPECT_THAT(launch("test --device simt -R abml --device=cuda -V"), HasSubstr(" -R abml -V\n"));
  EXPECT_THAT(configured(), HasSubstr("KSHOT_BUILD_BENCH=ON KSHOT_SIMT=ON KSHOT_CUDA=ON\n"));
  launch("test");
  EXPECT_EQ(std::ranges::count(configured(), '\n'), 1) << "they stay";
}

}  // namespace
}  // namespace kshot::test
