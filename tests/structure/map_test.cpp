// The map of files in ARCHITECTURE.md ("Where to look") names every source file and no other.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

namespace {

namespace fs = std::filesystem;

// The words in backticks of each section "### `folder`" of the map, by folder.
std::map<std::string, std::set<std::string>> read_map(const fs::path& document) {
  std::map<std::string, std::set<std::string>> map;
  std::ifstream lines(document);
  std::string folder;
  bool in_map = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("## ")) in_map = line == "## Where to look";
    if (!in_map) continue;
    const bool heading = line.starts_with("### `");
    for (std::size_t from = line.find('`'); from != std::string::npos;) {
      const std::size_t to = line.find('`', from + 1);
      if (to == std::string::npos) break;
      const std::string word = line.substr(from + 1, to - from - 1);
      if (heading) {
        folder = word;
      } else if (!folder.empty()) {
        map[folder].insert(word);
      }
      from = line.find('`', to + 1);
    }
  }
  return map;
}

// The names without extensions of the source files directly in a folder.
std::set<std::string> sources(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    static const std::set<std::string> kinds = {".h", ".cpp", ".cu", ".py", ".cmake"};
    if (kinds.contains(extension)) names.insert(entry.path().stem().string());
  }
  return names;
}

TEST(Map, NamesEverySourceFile) {
  const fs::path root = KSHOT_SOURCE_DIR;
  const auto map = read_map(root / "ARCHITECTURE.md");
  std::set<fs::path> folders = {root / "include/kshot", root / "kernels",  root / "python/kshot",
                                root / "python/src",    root / "bench",    root / "bench/peers",
                                root / "cmake",         root / "examples", root / "tools"};
  for (const auto& entry : fs::recursive_directory_iterator(root / "src")) {
    const std::string name = fs::relative(entry.path(), root).generic_string();
    // Stand-ins for the headers of CUDA, which have their names.
    if (entry.is_directory() && !name.starts_with("src/emulator/include"))
      folders.insert(entry.path());
  }
  for (const fs::path& folder : folders) {
    const std::string name = fs::relative(folder, root).string();
    const auto section = map.find(name);
    ASSERT_NE(section, map.end()) << "ARCHITECTURE.md has no section for " << name;
    for (const std::string& file : sources(folder)) {
      EXPECT_TRUE(section->second.contains(file))
          << "ARCHITECTURE.md does not say where to look for " << name << "/" << file;
    }
  }
  for (const auto& entry : fs::directory_iterator(root / "tests")) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory()) {
      EXPECT_TRUE(map.at("tests").contains(name)) << "tests/" << name;
    }
  }
}

// A file that was renamed or removed must leave the map too. Words with other characters (`kshot
// adapt`, `--set`) are no names of files, and the section about the tests names folders. Scripts
// have no extension.
TEST(Map, NamesNothingElse) {
  const fs::path root = KSHOT_SOURCE_DIR;
  for (const auto& [folder, words] : read_map(root / "ARCHITECTURE.md")) {
    if (folder == "tests") continue;
    const std::set<std::string> files = sources(root / folder);
    EXPECT_FALSE(files.empty()) << folder;
    const auto is_script = [&](const std::string& name) {
      return fs::is_regular_file(root / folder / name);
    };
    for (const std::string& word : words) {
      const bool name =
          word.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
      EXPECT_TRUE(!name || files.contains(word) || is_script(word))
          << folder << "/" << word << " is not there";
    }
  }
}

}  // namespace
