// Every link in the documents that points into the repository has a target. With sanitizers, GCC 12
// takes std::regex's own members for uninitialised (GCC bug 105562).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

// The targets of [text](target) and ![text](target) outside fenced code, without #fragments. Links
// to the web and within the page are left out.
std::vector<std::string> local_links(const std::string& markdown) {
  static const std::regex link(R"(\]\(([^)\s#]+)(#[^)\s]*)?\))");
  std::vector<std::string> targets;
  std::istringstream lines(markdown);
  bool code = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("```")) code = !code;
    if (code) continue;
    for (std::sregex_iterator match(line.begin(), line.end(), link), end; match != end; ++match) {
      const std::string target = (*match)[1];
      if (target.find("://") == std::string::npos && !target.starts_with("mailto:")) {
        targets.push_back(target);
      }
    }
  }
  return targets;
}

TEST(Links, LeadSomewhere) {
  const fs::path root = KSHOT_SOURCE_DIR;
  std::vector<fs::path> documents;
  for (const auto& entry : fs::directory_iterator(root)) {
    if (entry.path().extension() == ".md") documents.push_back(entry.path());
  }
  for (const auto& entry : fs::recursive_directory_iterator(root / "docs")) {
    if (entry.path().extension() == ".md") documents.push_back(entry.path());
  }
  std::size_t links = 0;
  for (const fs::path& document : documents) {
    std::ostringstream text;
    text << std::ifstream(document).rdbuf();
    for (const std::string& target : local_links(text.str())) {
      ++links;
      EXPECT_TRUE(fs::exists(document.parent_path() / target))
          << fs::relative(document, root) << " links to " << target;
    }
  }
  EXPECT_GT(links, 5u) << "documents not found under " << root;
}

TEST(Links, AreFound) {
  const std::vector<std::string> found = local_links(
      "[a](b.md) and ![c](d/e.png), [w](https://example.org), [p](#part), [q](f.md#part)\n"
      "```\n[code](no.md)\n```\n");
  EXPECT_EQ(found, (std::vector<std::string>{"b.md", "d/e.png", "f.md"}));
}

}  // namespace
