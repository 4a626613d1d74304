// The rule of includes (ARCHITECTURE.md): a folder includes only folders that stand below it. The
// test reads the #include lines of the sources, so that a wrong one fails here and not in a review.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

// Maps a folder to the folders that it may include. Every folder may include itself, kshot/ (the
// public headers) and base/. "backend" is the backend interface (src/backend/*.h), not the backends
// behind it.
const std::map<std::string, std::set<std::string>> allowed = {
    {"kshot", {}},
    {"base", {}},
    {"data", {"io"}},
    {"io", {}},
    {"metrics", {}},
    {"distributed", {}},
    {"kernels", {}},
    {"backend", {}},
    {"backend/reference", {"backend"}},
    {"backend/cpu", {"backend"}},
    {"backend/cuda", {"backend", "kernels"}},
    {"algorithms", {"backend"}},
    {"episodes", {"data", "io"}},
    {"config", {"data", "episodes", "io"}},
    {"engine", {"algorithms", "backend", "config", "data", "episodes", "io", "metrics"}},
    {"report", {"engine", "algorithms", "backend", "config", "data", "episodes", "io", "metrics"}},
    {"bandit",
     {"report", "engine", "algorithms", "backend", "config", "data", "episodes", "io", "metrics"}},
    {"python/src", {"bandit", "config", "data", "engine", "io", "metrics"}},
    {"cli",
     {"bandit", "distributed", "report", "engine", "algorithms", "backend", "config", "data",
      "episodes", "io", "metrics"}},
    {"emulator", {}},
};

// The only file that knows every backend. It makes backends by name.
const std::string factory = "backend/backend.cpp";

// The folder of an include: "backend/cpu/gemm.h" gives "backend/cpu". "gemm.h" is in the includer's
// own folder and gives "".
std::string folder_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

// The quoted and bracketed includes that name a folder of the project.
std::vector<std::string> includes(const std::string& text) {
  std::vector<std::string> found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto hash = line.find_first_not_of(" \t");
    if (hash == std::string::npos || line[hash] != '#') continue;
    const auto word = line.find_first_not_of(" \t", hash + 1);
    if (word == std::string::npos || line.compare(word, 7, "include") != 0) continue;
    const auto open = line.find_first_of("\"<", word);
    if (open == std::string::npos) continue;
    const auto close = line.find_first_of("\">", open + 1);
    const std::string name = line.substr(open + 1, close - open - 1);
    if (line[open] == '"' || allowed.contains(folder_of(name))) found.push_back(name);
  }
  return found;
}

// One line per include that does not point down.
std::vector<std::string> wrong_arrows(const std::string& file, const std::string& folder,
                                      const std::string& text) {
  std::vector<std::string> wrong;
  if (!allowed.contains(folder)) {
    return {file + ": folder " + folder +
            " is not in the rule; add it there and in ARCHITECTURE.md"};
  }
  for (const std::string& name : includes(text)) {
    const std::string target = folder_of(name);
    const bool down = target.empty() || target == folder || target == "kshot" ||
                      (target == "base" && folder != "kshot") ||
                      allowed.at(folder).contains(target) ||
                      (file == factory && target.starts_with("backend/"));
    if (!down) wrong.push_back(file + " includes \"" + name + "\"");
  }
  return wrong;
}

bool is_source(const fs::path& path) {
  static const std::set<std::string> extensions = {".h", ".cpp", ".inl", ".cu", ".cuh"};
  return extensions.contains(path.extension().string());
}

TEST(Arrows, PointDown) {
  const fs::path source = KSHOT_SOURCE_DIR;
  std::set<std::string> seen;
  // Each tree with the folder where its includes start: include/ and src/ themselves, and the root
  // for kernels/.
  for (const auto& [tree, base] : std::map<std::string, std::string>{
           {"include", "include"}, {"src", "src"}, {"kernels", "."}, {"python/src", "."}}) {
    if (!fs::exists(source / tree)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(source / tree)) {
      if (!entry.is_regular_file() || !is_source(entry.path())) continue;
      const std::string relative = fs::relative(entry.path(), source / base).generic_string();
      // Stand-ins for the headers of CUDA, which lie in folders with the names of the originals.
      if (relative.starts_with("emulator/include/")) continue;
      seen.insert(folder_of(relative));
      std::ostringstream text;
      text << std::ifstream(entry.path()).rdbuf();
      for (const std::string& wrong : wrong_arrows(relative, folder_of(relative), text.str())) {
        ADD_FAILURE() << wrong;
      }
    }
  }
  for (const char* folder :
       {"kshot", "backend", "algorithms", "data", "engine", "episodes", "io", "python/src"}) {
    EXPECT_TRUE(seen.contains(folder)) << "no sources found in " << folder;
  }
}

TEST(Arrows, RuleSeesWrongOnes) {
  const auto count = [](const std::string& folder, const std::string& text) {
    return wrong_arrows("file.cpp", folder, text).size();
  };
  EXPECT_EQ(count("algorithms", "#include \"backend/backend.h\"\n#include \"kshot/network.h\"\n"),
            0u);
  EXPECT_EQ(count("algorithms", "#include \"backend/cpu/gemm.h\"\n"), 1u);
  EXPECT_EQ(count("algorithms", "#include \"engine/trainer.h\"\n"), 1u);
  EXPECT_EQ(count("backend/cpu", "#include \"backend/reference/wave.h\"\n"), 1u);
  EXPECT_EQ(count("backend/cpu", "  #  include  <engine/trainer.h>\n"), 1u);
  EXPECT_EQ(count("backend", "#include \"backend/cpu/isa.h\"\n"), 1u);
  EXPECT_EQ(count("episodes", "#include \"backend/backend.h\"\n"), 1u);
  EXPECT_EQ(count("io", "#include \"metrics/accuracy.h\"\n"), 1u);
  EXPECT_EQ(count("io", "#include \"data/dataset.h\"\n"), 1u);
  EXPECT_EQ(count("metrics", "#include <vector>\n#include <fmt/format.h>\n"), 0u);
  EXPECT_EQ(count("engine", "#include \"cli/options.h\"\n#include \"io/dataset.h\"\n"), 1u);
  EXPECT_EQ(count("kshot", "#include \"base/thread_pool.h\"\n"), 1u);
  EXPECT_EQ(count("python/src", "#include \"engine/run_folder.h\"\n"), 0u);
  EXPECT_EQ(count("python/src", "#include \"cli/commands.h\"\n"), 1u);
  EXPECT_EQ(count("unheard_of", ""), 1u);
  EXPECT_TRUE(wrong_arrows(factory, "backend", "#include \"backend/cpu/cpu_backend.h\"\n").empty());
}

}  // namespace
