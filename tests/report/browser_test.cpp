// Pages as a browser shows them (browser.py): skipped where no Chromium runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdio.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "cli/program.h"
#include "support/put_file.h"
#include "support/python.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using test::run;
using test::TempFolder;
using testing::HasSubstr;

struct Shown {
  int status = -1;  ///< 0: nothing is wrong; 77: there is no browser
  std::string text;
};

/// What browser.py says about pages. KSHOT_TEST_SCREENSHOTS names a folder for pictures of them.
Shown show(const std::vector<fs::path>& pages) {
  std::string command = test::quoted(test::python()) + " " +
                        test::quoted(KSHOT_SOURCE_DIR "/tests/report/browser.py");
  if (const char* folder = std::getenv("KSHOT_TEST_SCREENSHOTS")) {
    command += " --screenshots " + test::quoted(folder);
  }
  for (const fs::path& page : pages) command += " " + test::quoted(page.string());
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  Shown shown;
  char buffer[4096];
  for (std::size_t got = 0; (got = ::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) {
    shown.text.append(buffer, got);
  }
  const int status = ::pclose(pipe);
  shown.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return shown;
}

/// Puts a page with this body into the folder.
fs::path put_page(const TempFolder& folder, const std::string& name, const std::string& body) {
  const fs::path file = folder / name;
  test::put_file(file, "<!DOCTYPE html><html lang=\"en\"><head><title>t</title></head><body>" +
                           body + "</body></html>");
  return file;
}

/// The checks themselves: a page of its own for each fault.
TEST(Browser, FindsWhatIsWrong) {
  const TempFolder folder;
  std::vector<fs::path> pages = {put_page(
      folder, "good.html",
      "<p>text</p><figure><svg width=\"99\" height=\"99\"><path d=\"M0 0L50 50\" stroke=\"black\"/>"
      "<text x=\"9\" y=\"90\">label</text></svg></figure>")};
  struct Fault {
    const char *body, *finding;
  };
  const std::vector<Fault> faults = {
      Fault{"<script>console.log('said')</script>", "console: said"},
      Fault{"<script>nothing.here</script>", "exception: "},
      Fault{"<img src=\"missing.png\" alt=\"one\">", "a picture is not shown: \"one\""},
      Fault{"<p style=\"width:4000px\">wide</p>", "pixels wide"},
      Fault{"<p style=\"position:absolute;left:-30px\">outside</p>",
            "text cut by the page: \"outside\""},
      Fault{"<p style=\"width:9px;overflow:hidden\">hidden</p>", "text cut by P: \"hidden\""},
      Fault{"<svg width=\"50\" height=\"50\"><path d=\"M0 0L9 9\" stroke=\"black\"/>"
            "<text x=\"30\" y=\"40\">beyond</text></svg>",
            "text cut by svg: \"beyond\""},
      Fault{"<p style=\"position:absolute\">under</p><p style=\"position:absolute\">over</p>",
            "texts overlap: \"under\" and \"over\""},
      Fault{"<p style=\"color:#999\">pale</p>", "of the text \"pale\""},
      Fault{"<p style=\"display:none\">absent</p>", "not shown: \"absent\""},
      Fault{"<figure><svg width=\"50\" height=\"50\"><title>none</title></svg></figure>",
            "a figure draws nothing: \"none\""},
      Fault{"<svg width=\"50\" height=\"50\"><title>half</title><path d=\"M0 0L9 9\" "
            "stroke=\"black\"/><svg><path d=\"M3 3\" stroke=\"black\"/></svg></svg>",
            "an empty panel in \"half\""},
      Fault{"<svg width=\"50\" height=\"50\"><title>pale</title><path d=\"M0 0L9 9\" "
            "stroke=\"#ddd\"/></svg>",
            "of a mark rgb(221, 221, 221) in \"pale\""},
  };
  for (const Fault& fault : faults) {
    pages.push_back(put_page(folder, "bad" + std::to_string(pages.size()) + ".html", fault.body));
  }
  const Shown shown = show(pages);
  if (shown.status == 77) GTEST_SKIP() << shown.text;
  EXPECT_EQ(shown.status, 1);
  std::vector<std::string> found(pages.size());
  std::istringstream lines(shown.text);
  for (std::string line; std::getline(lines, line);) {
    for (std::size_t i = 0; i < pages.size(); ++i) {
      if (!line.starts_with(pages[i].string() + ", ") || line.ends_with(" texts")) continue;
      found[i] += line + '\n';
    }
  }
  EXPECT_EQ(found[0], "") << "a good page";
  for (std::size_t i = 0; i < faults.size(); ++i) {
    EXPECT_THAT(found[i + 1], HasSubstr(faults[i].finding)) << faults[i].body;
  }
}

TEST(Browser, PagesAreShownWhole) {
  const TempFolder folder;
  const Shown none = show({put_page(folder, "none.html", "<p>text</p>")});
  if (none.status == 77) GTEST_SKIP() << none.text;
  ASSERT_EQ(run(folder.path(), {"demo", "--seconds", "1", "--out", "d"}).status, 0);
  ASSERT_EQ(run(folder.path(), {"evaluate", "d/abml", "--episodes", "20", "--shots", "1,5"}).status,
            0);
  ASSERT_EQ(run(folder.path(), {"compare", "d/abml", "d/maml", "d/alpaca"}).status, 0);
  const Shown shown = show({folder / "d/report.html", folder / "d/abml/evaluation-shots.html",
                            folder / "comparison.html"});
  EXPECT_EQ(shown.status, 0) << shown.text;
}

}  // namespace
}  // namespace kshot
