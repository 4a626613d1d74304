// Pages as a browser shows them (browser.py). The tests are skipped where no Chromium runs.
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
#include "support/class_files.h"
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
  /// 0: no finding. 77: there is no browser.
  int status = -1;
  std::string text;
};

/// The findings of browser.py on pages. KSHOT_TEST_SCREENSHOTS names a folder for screenshots.
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

/// Writes a page with this body into the folder.
fs::path put_page(const TempFolder& folder, const std::string& name, const std::string& body) {
  const fs::path file = folder / name;
  test::put_file(file, "<!DOCTYPE html><html lang=\"en\"><head><title>t</title></head><body>" +
                           body + "</body></html>");
  return file;
}

/// Tests the checks of browser.py with one page per fault.
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

/// Runs the program in a folder of its own, for tests of the pages that it writes.
class BrowserPages : public testing::Test {
 protected:
  void SetUp() override {
    const Shown none = show({put_page(folder_, "none.html", "<p>text</p>")});
    if (none.status == 77) GTEST_SKIP() << none.text;
  }
  void kshot(const std::vector<std::string>& command) {
    const test::Outcome outcome = run(folder_.path(), command);
    ASSERT_EQ(outcome.status, 0) << outcome.error;
  }
  void expect_whole(const std::vector<std::string>& pages) {
    std::vector<fs::path> paths;
    for (const std::string& page : pages) paths.push_back(folder_ / page);
    const Shown shown = show(paths);
    EXPECT_EQ(shown.status, 0) << shown.text;
  }

  TempFolder folder_;
};

TEST_F(BrowserPages, RegressionIsShownWhole) {
  kshot({"demo", "--seconds", "1", "--out", "d"});
  kshot({"calibrate", "d/abml", "--episodes", "20"});
  kshot({"evaluate", "d/abml", "--episodes", "20", "--shots", "1,5"});
  kshot({"evaluate", "d/abml", "--episodes", "20", "--ood", "shift=1", "--ood", "noise"});
  kshot({"evaluate", "d/abml", "--episodes", "20", "--calibrated"});
  kshot({"report", "d/abml"});
  kshot({"compare", "d/abml", "d/maml", "d/alpaca"});
  expect_whole({"d/report.html", "d/abml/evaluation-shots.html", "d/abml/evaluation-ood.html",
                "d/abml/report.html", "comparison.html"});
}

TEST_F(BrowserPages, ClassificationIsShownWhole) {
  test::write_class_file(folder_ / "images.kshot", {.validation = 6, .test = 8, .noise = 1.5});
  test::write_class_file(folder_ / "other.kshot", {.test = 9, .noise = 0.5});
  test::put_file(folder_ / "c.toml", R"(algorithm = "protonet"
data = { source = "file", path = "images.kshot", ways = 3, shots = [1, 5], queries = 10 }
evaluate.episodes = 40
[network]
type = "sequential"
input = [1, 6, 6]
layers = [ { type = "flatten" }, { type = "linear", out = 3 } ]
[train]
steps = 20
meta_batch = 8
validate_every = 10
validation_episodes = 20
)");
  kshot({"train", "c.toml", "--out", "a run with a rather long name of many words", "--quiet"});
  kshot({"train", "c.toml", "--out", "maml", "--quiet", "--set", "algorithm=maml", "--set",
         "loss.type=cross_entropy"});
  for (const char* name : {"a run with a rather long name of many words", "maml"}) {
    kshot({"calibrate", name, "--set", "data.shots=2"});
    kshot({"evaluate", name, "--calibrated", "--shots", "1,2,5"});
    kshot({"evaluate", name, "--calibrated"});
    kshot({"evaluate", name, "--ood", "open_set", "--ood", "rotate=30", "--ood", "permute", "--ood",
           "other.kshot"});
    kshot({"report", name});
  }
  kshot({"compare", "a run with a rather long name of many words", "maml"});
  const std::string first = "a run with a rather long name of many words/";
  expect_whole({first + "report.html", first + "evaluation-shots.html",
                first + "evaluation-ood.html", "maml/report.html", "maml/evaluation-ood.html",
                "comparison.html"});
}

TEST_F(BrowserPages, BanditsAreShownWhole) {
  test::put_file(folder_ / "b.toml", R"(delta = [0.5, 0.99]
trials = 4
steps = 60
last_steps = 20
[[agent]]
type = "uniform"
[[agent]]
type = "linear_ts"
[[agent]]
type = "epsilon_greedy"
[[agent]]
type = "neural_linear"
[[agent]]
type = "neural_linear"
hidden = [100, 100]
name = "networks of two hidden layers & \"linear\" Thompson sampling"
)");
  kshot({"bandit", "b.toml", "--quiet"});
  expect_whole({"bandit.html"});
}

}  // namespace
}  // namespace kshot
