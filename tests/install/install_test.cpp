// An installed kshot as a user sees it. cmake --install writes into an empty prefix. Then an
// outside program that knows only this prefix is configured with find_package(kshot), built and
// run.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

/// The value of a key in this build's CMakeCache.txt.
std::string cached(const std::string& key) {
  std::istringstream lines(read(fs::path(KSHOT_BINARY_DIR) / "CMakeCache.txt"));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(key + ":")) return line.substr(line.find('=') + 1);
  }
  return "";
}

class Install : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "kshot_install_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr) << name;
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// Runs cmake or another program. Returns true if it exits with 0. output() is what it printed.
  bool cmake(const std::vector<std::string>& arguments) {
    return run(cached("CMAKE_COMMAND"), arguments);
  }
  bool run(const std::string& program, const std::vector<std::string>& arguments) {
    std::string line = "'" + program + "'";
    for (const std::string& argument : arguments) line += " '" + argument + "'";
    line += " >'" + log().string() + "' 2>&1";
    return std::system(line.c_str()) == 0;
  }
  std::string output() const { return read(log()); }
  std::string prefix() const { return (folder_ / "prefix").string(); }
  fs::path log() const { return folder_ / "log"; }

  fs::path folder_;
};

TEST_F(Install, OutsideProgramBuildsAndRuns) {
  ASSERT_TRUE(cmake({"--install", KSHOT_BINARY_DIR, "--prefix", prefix()})) << output();
  EXPECT_TRUE(fs::exists(folder_ / "prefix/include/kshot/network.h"));

  std::string flags = cached("CMAKE_CXX_FLAGS");
  if (const std::string sanitizers = cached("KSHOT_SANITIZE"); !sanitizers.empty()) {
    // The library contains calls of the sanitizer.
    flags += " -fsanitize=" + sanitizers;
  }
  const std::string build = (folder_ / "build").string();
  ASSERT_TRUE(
      cmake({"-S", KSHOT_SOURCE_DIR "/tests/install/outside", "-B", build, "-G",
             cached("CMAKE_GENERATOR"), "-DCMAKE_PREFIX_PATH=" + prefix(),
             "-DCMAKE_CXX_COMPILER=" + cached("CMAKE_CXX_COMPILER"), "-DCMAKE_CXX_FLAGS=" + flags}))
      << output();
  ASSERT_TRUE(cmake({"--build", build})) << output();
  ASSERT_TRUE(run(build + "/outside", {})) << output();
  // The number of weights is 1*40 + 40 + 40*40 + 40 + 40*1 + 1.
  EXPECT_EQ(output(), "weights 1761\n");
}

/// The emulator of GPUs defines the calls of the thread sanitizer. A user's own sanitizer would
/// find them defined twice.
TEST_F(Install, TheLibraryHasNothingOfTheEmulator) {
  if (cached("KSHOT_SANITIZE").find("thread") != std::string::npos) {
    GTEST_SKIP() << "a build for the thread sanitizer calls it everywhere";
  }
  ASSERT_TRUE(cmake({"--install", KSHOT_BINARY_DIR, "--prefix", prefix()})) << output();
  std::vector<std::string> libraries;
  for (const auto& entry : fs::recursive_directory_iterator(prefix())) {
    if (entry.path().extension() == ".a") libraries.push_back(entry.path().string());
  }
  EXPECT_EQ(libraries.size(), 1u);
  for (const std::string& library : libraries) {
    ASSERT_TRUE(run(cached("CMAKE_NM"), {"-A", "-C", library}));
    const std::string symbols = output();
    EXPECT_NE(symbols.find("kshot::Trainer::run"), std::string::npos) << "nm reads it";
    for (const char* of_emulator : {"__tsan_", "simt::", "cudaMalloc"}) {
      if (of_emulator == std::string("cudaMalloc") && cached("KSHOT_CUDA") != "OFF") continue;
      const std::size_t at = symbols.find(of_emulator);
      EXPECT_EQ(at, std::string::npos)
          << symbols.substr(at == std::string::npos ? 0 : at - 200, 300);
    }
  }
}

/// In somebody's project, kshot is only its library: no tests, no benchmarks, and no warnings as
/// errors.
class PartOfAProject : public Install, public testing::WithParamInterface<const char*> {};

TEST_P(PartOfAProject, NothingIsForced) {
  std::ofstream(folder_ / "CMakeLists.txt")
      << "cmake_minimum_required(VERSION 3.25)\n"
         "project(outer LANGUAGES CXX)\n"
      << GetParam()
      << "add_executable(outside " KSHOT_SOURCE_DIR
         "/tests/install/outside/main.cpp)\n"
         "target_link_libraries(outside PRIVATE kshot::kshot)\n"
         "get_directory_property(options COMPILE_OPTIONS)\n"
         "get_directory_property(definitions COMPILE_DEFINITIONS)\n"
         "get_target_property(own outside COMPILE_OPTIONS)\n"
         "file(WRITE ${CMAKE_BINARY_DIR}/flags \"<${CMAKE_BUILD_TYPE}>"
         "<${CMAKE_CXX_FLAGS_RELWITHDEBINFO}><${CMAKE_CXX_STANDARD}><${CMAKE_CXX_COMPILER_LAUNCHER}"
         ">"
         "<${options}${definitions}><${own}>\")\n";
  const fs::path build = folder_ / "build";
  ASSERT_TRUE(cmake({"-S", folder_.string(), "-B", build.string(), "-G", cached("CMAKE_GENERATOR"),
                     "-DKSHOT_CUDA=OFF", "-DCMAKE_CXX_COMPILER=" + cached("CMAKE_CXX_COMPILER")}))
      << output();
  const std::string cache = read(build / "CMakeCache.txt");
  for (const char* option : {"KSHOT_BUILD_TESTS", "KSHOT_BUILD_BENCH", "KSHOT_BUILD_PROGRAM",
                             "KSHOT_INSTALL", "KSHOT_SIMT", "KSHOT_WERROR"}) {
    EXPECT_NE(cache.find(std::string(option) + ":BOOL=OFF"), std::string::npos) << option;
  }
  EXPECT_EQ(read(build / "flags"), "<><-O2 -g -DNDEBUG><><><><own-NOTFOUND>")
      << "the outer project's own";
  ASSERT_TRUE(cmake({"--build", build.string(), "--target", "help"}));
  EXPECT_EQ(output().find("test_"), std::string::npos);
  EXPECT_EQ(output().find("kshot_cli"), std::string::npos);
  ASSERT_TRUE(cmake({"--install", build.string(), "--prefix", prefix()})) << output();
  EXPECT_FALSE(fs::exists(prefix()) && !fs::is_empty(prefix())) << "kshot installs nothing";
}

INSTANTIATE_TEST_SUITE_P(Install, PartOfAProject,
                         testing::Values("add_subdirectory(" KSHOT_SOURCE_DIR " kshot)\n",
                                         "include(FetchContent)\n"
                                         "FetchContent_Declare(kshot SOURCE_DIR " KSHOT_SOURCE_DIR
                                         ")\n"
                                         "FetchContent_MakeAvailable(kshot)\n"),
                         [](const auto& param) {
                           return param.index == 0 ? std::string("AddSubdirectory")
                                                   : std::string("FetchContent");
                         });

/// find_package with this version of kshot succeeds where the version is compatible.
TEST_F(Install, PackageChecksTheVersion) {
  ASSERT_TRUE(cmake({"--install", KSHOT_BINARY_DIR, "--prefix", prefix()})) << output();
  const auto found = [&](const std::string& version) {
    std::ofstream(folder_ / "CMakeLists.txt") << "cmake_minimum_required(VERSION 3.25)\n"
                                                 "project(other LANGUAGES CXX)\n"
                                                 "find_package(kshot "
                                              << version << " REQUIRED)\n";
    return cmake({"-S", folder_.string(), "-B", (folder_ / "build").string(), "-G",
                  cached("CMAKE_GENERATOR"), "-DCMAKE_PREFIX_PATH=" + prefix(),
                  "-DCMAKE_CXX_COMPILER=" + cached("CMAKE_CXX_COMPILER")});
  };
  EXPECT_TRUE(found("0.2")) << output();
  EXPECT_TRUE(found("0.2.0 EXACT")) << output();
  for (const char* other : {"0.1", "0.2.1", "0.3", "99.0"}) {
    EXPECT_FALSE(found(other)) << other;
    EXPECT_NE(output().find("considered but not accepted"), std::string::npos) << output();
  }
}

/// Debian packages name a maintainer to whom users can write. No package is made without one.
TEST_F(Install, PackagesNeedAMaintainer) {
  const auto accepted = [&](const std::string& contact) {
    return cmake({"-D", "CPACK_PACKAGE_CONTACT=" + contact, "-P",
                  KSHOT_SOURCE_DIR "/cmake/package_contact.cmake"});
  };
  EXPECT_TRUE(accepted("Ada Lovelace <ada@example.org>")) << output();
  for (const char* other : {"", "Ada", "ada@example.org", "<ada@example.org>", "Ada <ada>",
                            "Ada <>", "Ada <ada@example.org> and others"}) {
    EXPECT_FALSE(accepted(other)) << other;
    EXPECT_NE(output().find("KSHOT_PACKAGE_CONTACT"), std::string::npos) << output();
  }
  if (!fs::exists(KSHOT_BINARY_DIR "/CPackConfig.cmake"))
    GTEST_SKIP() << "built without the program";
  EXPECT_FALSE(
      run(cached("CMAKE_CPACK_COMMAND"), {"--config", KSHOT_BINARY_DIR "/CPackConfig.cmake", "-B",
                                          prefix(), "-D", "CPACK_PACKAGE_CONTACT="}));
  EXPECT_NE(output().find("KSHOT_PACKAGE_CONTACT"), std::string::npos) << output();
  EXPECT_FALSE(fs::exists(prefix())) << "nothing is made";
}

}  // namespace
