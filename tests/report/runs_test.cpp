// Reports and comparisons of run folders through the library, and work that is stopped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <vector>

#include "cli/program.h"
#include "engine/engine_cases.h"
#include "kshot/bandit.h"
#include "kshot/report.h"
#include "kshot/stop.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::TempFolder;
using testing::HasSubstr;

fs::path trained(const TempFolder& folder, const std::string& name, const Config& config) {
  Trainer(config, {.run_folder = folder / name, .device = "cpu", .threads = 1}).run();
  return folder / name;
}

double mean(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

TEST(Reports, APageHasTheRunsNumbers) {
  const TempFolder folder;
  const fs::path run = trained(folder, "run", test::small_config("maml"));
  ReportOptions options{.device = "cpu", .threads = 1};
  const RunReport report = write_report(run, {}, options);
  EXPECT_EQ(report.file, run / "report.html");
  EXPECT_TRUE(fs::exists(report.file));
  EXPECT_TRUE(fs::exists(run / "evaluation.json"));
  ASSERT_TRUE(report.evaluation);
  EXPECT_EQ(report.by_shots.size(), 5u);
  EXPECT_EQ(report.by_shots.front().second.support.most, 1);

  options.quick = true;
  const RunReport quick = write_report(run, folder / "quick.html", options);
  ASSERT_TRUE(quick.evaluation);
  EXPECT_EQ(quick.evaluation->last().mse->mean, report.evaluation->last().mse->mean);
  EXPECT_TRUE(quick.by_shots.empty());
}

/// A comparison has a run's curve against shots once, because the baselines do not carry the run's
/// name.
TEST(Reports, AComparisonNamesEveryCurveOnce) {
  const TempFolder folder;
  const fs::path run = trained(folder, "run", test::small_config("maml"));
  const std::vector<std::string> evaluate = {"evaluate",   "run", "--shots", "1,2",
                                             "--episodes", "10",  "--quiet"};
  ASSERT_EQ(test::run(folder.path(), evaluate).status, 0);
  const RunComparison comparison = compare_runs({run}, folder / "page.html");
  const std::string page = test::slurp(comparison.file);
  const std::size_t chart = page.find(" against shots</text>");
  ASSERT_NE(chart, std::string::npos);
  const std::string legend = page.substr(chart, page.find("</figure>", chart) - chart);
  std::size_t entries = 0;
  for (std::size_t i = legend.find("</span>"); i != std::string::npos;
       i = legend.find("</span>", i + 1)) {
    ++entries;
  }
  EXPECT_EQ(entries, 1u) << legend;
  EXPECT_THAT(legend, HasSubstr("run</span>"));
}

TEST(Reports, ADifferenceIsTheMeanOverTheSameEpisodes) {
  const TempFolder folder;
  std::vector<fs::path> runs;
  std::vector<Evaluation> evaluations;
  for (const char* name : {"first", "second"}) {
    runs.push_back(
        trained(folder, name, test::small_config("maml", {runs.empty() ? "seed=1" : "seed=2"})));
    write_report(runs.back(), {}, {.device = "cpu", .threads = 1});
    evaluations.push_back(Evaluator(runs.back(), EvaluatorOptions{.device = "cpu"}).run());
  }
  const RunComparison both = compare_runs(runs, folder / "both.html");
  EXPECT_TRUE(fs::exists(folder / "both.html"));
  EXPECT_TRUE(both.warnings.empty());
  ASSERT_FALSE(both.differences.empty());
  const PairedDifference& mse = both.differences.front();
  EXPECT_EQ(mse.method, "second");
  EXPECT_EQ(mse.metric, "MSE");
  EXPECT_NEAR(
      mse.value,
      mean(evaluations[1].last().per_episode.mse) - mean(evaluations[0].last().per_episode.mse),
      1e-6);
  ASSERT_EQ(both.settings.size(), 1u);
  EXPECT_EQ(both.settings[0].key, "seed");
  EXPECT_THAT(both.settings[0].values, testing::ElementsAre("1", "2"));
  EXPECT_THAT(both.text(), HasSubstr("Differences to first on the same episodes"));
  EXPECT_THAT(error_text([&] { compare_runs({}); }), HasSubstr("expected at least one"));
}

/// A stop callback that returns true from the second call on.
std::function<bool()> second_time() {
  return [asked = std::make_shared<std::atomic<int>>(0)] { return ++*asked > 1; };
}

TEST(Stop, EndsAnEvaluationAReportAndPredictions) {
  const TempFolder folder;
  const fs::path run = trained(folder, "run", test::small_config("maml"));
  Evaluator evaluator(run, EvaluatorOptions{.device = "cpu", .threads = 1, .stop = second_time()});
  EXPECT_THROW(evaluator.run(), Stopped);
  ReportOptions options{.device = "cpu", .threads = 1, .stop = second_time()};
  EXPECT_THROW(write_report(run, {}, options), Stopped);
  EXPECT_FALSE(fs::exists(run / "report.html"));
  EXPECT_FALSE(fs::exists(run / "evaluation.json"));

  const Learner learner(run, {.device = "cpu", .threads = 2, .stop = [] { return true; }});
  const std::vector<float> x = {0.0f, 1.0f};
  const std::vector<TaskRows> tasks(100, {{.x = x, .values = x}, x});
  EXPECT_THROW(learner.predict_many(tasks), Stopped);
  const std::vector<SupportRows> supports(100, {.x = x, .values = x});
  EXPECT_THROW(learner.adapt_many(supports), Stopped);
}

TEST(Stop, EndsBandits) {
  const auto wheel = bandit::make_wheel({});
  const auto agent = bandit::make_uniform();
  EXPECT_THROW(bandit::play(*wheel, *agent, {.trials = 2, .stop = second_time()}), Stopped);
}

}  // namespace
}  // namespace kshot
