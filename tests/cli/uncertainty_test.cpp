// Calibration of a run, and comparisons on the same episodes, through the program.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "cli/fixture.h"
#include "support/class_files.h"

namespace kshot::test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// Trains on sinusoids with a likelihood.
class CliUncertainty : public Cli {
 protected:
  void train(const std::string& run, const std::vector<std::string>& more = {}) {
    std::vector<std::string> command = {"train",
                                        "c.toml",
                                        "--out",
                                        run,
                                        "--quiet",
                                        "--set",
                                        "loss.type=gaussian_nll",
                                        "--set",
                                        "loss.noise_std=1",
                                        "--set",
                                        "inner.learning_rate=0.0005"};
    command.insert(command.end(), more.begin(), more.end());
    const Outcome outcome = kshot(command);
    ASSERT_EQ(outcome.status, 0) << outcome.error;
  }
  json evaluation(const std::string& run) const {
    return json::parse(slurp(folder_ / run / "evaluation.json"));
  }
};

TEST_F(CliUncertainty, ACalibratedRunPredictsWithItWhereAsked) {
  train("run");
  expect_one_line(kshot({"evaluate", "run", "--calibrated"}), "it has not been calibrated");
  EXPECT_FALSE(fs::exists(folder_ / "run" / "evaluation.json"));
  const Outcome calibrated = kshot({"calibrate", "run"});
  ASSERT_EQ(calibrated.status, 0) << calibrated.error;
  EXPECT_THAT(calibrated.out,
              AllOf(HasSubstr("variance factor "), HasSubstr("30 validation episodes")));
  const json c = json::parse(slurp(folder_ / "run" / "calibration.json"));
  EXPECT_LT(c.at("nll_after"), c.at("nll_before"));
  EXPECT_EQ(c.at("split"), "validation");
  EXPECT_EQ(c.at("checkpoint"), "best.safetensors");

  const Outcome evaluated = kshot({"evaluate", "run", "--calibrated"});
  ASSERT_EQ(evaluated.status, 0) << evaluated.error;
  EXPECT_THAT(evaluated.out,
              AllOf(HasSubstr("maml, calibrated, 2 steps"), HasSubstr("maml, 2 steps"),
                    HasSubstr("calibrated: variance factor"), HasSubstr("CRPS")));
  const json steps = evaluation("run").at("steps");
  ASSERT_EQ(steps.size(), 4u);
  EXPECT_EQ(steps[3].at("calibrated"), true);
  EXPECT_NEAR(
      steps[3].at("sharpness").at("mean"),
      std::sqrt(c.at("value").get<double>()) * steps[2].at("sharpness").at("mean").get<double>(),
      1e-9);
  ASSERT_EQ(kshot({"evaluate", "run"}).status, 0);
  EXPECT_EQ(evaluation("run").at("steps").size(), 3u) << "never without --calibrated";

  put_file(folder_ / "s.csv", "x0,y\n0.1,1.0\n-1.0,0.5\n2.0,-0.4\n1.0,0.3\n");
  put_file(folder_ / "q.csv", "x0\n0.5\n-2.0\n");
  const std::vector<std::string> adapt = {"adapt", "run", "--support", "s.csv", "--query", "q.csv"};
  const Outcome plain = kshot(adapt);
  ASSERT_EQ(plain.status, 0) << plain.error;
  EXPECT_THAT(plain.out, Not(HasSubstr("calibrated")));
  const std::string before = slurp(folder_ / "adapted" / "predictions.csv");
  std::vector<std::string> with = adapt;
  with.emplace_back("--calibrated");
  const Outcome corrected = kshot(with);
  ASSERT_EQ(corrected.status, 0) << corrected.error;
  EXPECT_THAT(corrected.out, HasSubstr("calibrated with variance factor"));
  EXPECT_NE(slurp(folder_ / "adapted" / "predictions.csv"), before);

  // The resumed run has another checkpoint.
  ASSERT_EQ(kshot({"train", "--resume", "run", "--quiet", "--set", "train.steps=24"}).status, 0);
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"evaluate", "run", "--calibrated"}, with}) {
    const Outcome stale = kshot(command);
    expect_one_line(stale, command.front());
    EXPECT_THAT(stale.error, AllOf(HasSubstr("calibration.json"), HasSubstr("another checkpoint")));
  }
  const Outcome again = kshot({"calibrate", "run"});
  EXPECT_EQ(again.status, 0) << again.error;
  EXPECT_EQ(kshot({"evaluate", "run", "--calibrated"}).status, 0);
  // A file that kshot did not write stays.
  put_file(folder_ / "run" / "calibration.json", "{\"mine\": 1}");
  expect_one_line(kshot({"calibrate", "run"}), "it is not kshot's");
  EXPECT_EQ(slurp(folder_ / "run" / "calibration.json"), "{\"mine\": 1}");
}

/// The values of a column of a CSV file without quoted fields.
std::vector<std::string> column(const std::string& csv, const std::string& name) {
  std::vector<std::string> values;
  std::istringstream lines(csv);
  std::size_t column_index = 0;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::vector<std::string> row;
    for (std::string field; std::getline(fields, field, ',');) row.push_back(field);
    if (values.empty() && column_index == 0) {
      column_index = static_cast<std::size_t>(std::ranges::find(row, name) - row.begin());
      EXPECT_LT(column_index, row.size()) << name << " in " << line;
      continue;
    }
    values.push_back(row.at(column_index));
  }
  return values;
}

TEST_F(CliUncertainty, IntervalsHoldTheTargetsOfOtherEpisodes) {
  train("run");
  ASSERT_EQ(kshot({"calibrate", "run", "--quiet", "--episodes", "400"}).status, 0);
  const Outcome evaluated = kshot({"evaluate", "run", "--calibrated", "--episodes", "1000"});
  ASSERT_EQ(evaluated.status, 0) << evaluated.error;
  EXPECT_THAT(evaluated.out, HasSubstr("conformal prediction intervals"));
  const json sets = evaluation("run").at("sets");
  ASSERT_EQ(sets.size(), 4u);
  for (const json& s : sets) {
    // The 400 episodes of the calibration add about 0.013 to the half width of the interval.
    const double level = s.at("level");
    EXPECT_THAT((std::vector<double>{0.8, 0.9, 0.95, 0.99}), testing::Contains(level));
    EXPECT_NEAR(s.at("coverage").at("value").get<double>(), level, 0.04) << level;
    EXPECT_GT(s.at("size").at("value"), 0.0);
  }
  EXPECT_LT(sets[0].at("size").at("value"), sets[3].at("size").at("value"));
  EXPECT_FALSE(evaluation("run").contains("decisions"));

  put_file(folder_ / "s.csv", "x0,y\n0.1,1.0\n-1.0,0.5\n2.0,-0.4\n1.0,0.3\n");
  put_file(folder_ / "q.csv", "x0\n0.5\n-2.0\n");
  const std::vector<std::string> adapt = {"adapt",   "run",   "--support", "s.csv",
                                          "--query", "q.csv", "--level"};
  const auto with = [&](std::vector<std::string> words, const std::string& level) {
    words.push_back(level);
    return kshot(words);
  };
  const Outcome adapted = with(adapt, "0.905");
  ASSERT_EQ(adapted.status, 0) << adapted.error;
  EXPECT_THAT(adapted.error, HasSubstr("the quantile for 0.91 is taken"));
  const std::string csv = slurp(folder_ / "adapted" / "predictions.csv");
  const json c = json::parse(slurp(folder_ / "run" / "calibration.json"));
  for (const json& q : c.at("quantiles")) {
    if (std::abs(q.at("level").get<double>() - 0.91) > 1e-9) continue;
    for (std::size_t row = 0; row < 2; ++row) {
      const double width =
          std::stod(column(csv, "y_high")[row]) - std::stod(column(csv, "y_low")[row]);
      EXPECT_NEAR(width, 2.0 * q.at("score").get<double>() * std::stod(column(csv, "y_std")[row]),
                  1e-4 * width);
    }
  }
  expect_one_line(with(adapt, "0.9995"), "at most 0.999");
  expect_one_line(with(adapt, "1"), "below 1");
  std::vector<std::string> risk = adapt;
  risk.back() = "--max-risk";
  const Outcome values = with(risk, "0.05");
  expect_one_line(values, "of values");
  EXPECT_THAT(values.error, HasSubstr("--level"));
  ASSERT_EQ(kshot({"calibrate", "run", "--quiet", "--episodes", "8"}).status, 0);
  const Outcome few = with(adapt, "0.95");
  expect_one_line(few, "few");
  EXPECT_THAT(few.error, HasSubstr("more than the 8 validation episodes"));
  // A calibration file of version 0.1.0 has no quantiles.
  json old = c;
  for (const char* key : {"quantiles", "decision_seed", "decision_episodes", "confidence"}) {
    old.erase(key);
  }
  put_file(folder_ / "run" / "calibration.json", old.dump());
  const Outcome earlier = with(adapt, "0.9");
  expect_one_line(earlier, "old");
  EXPECT_THAT(earlier.error, HasSubstr("earlier version"));
}

TEST_F(CliUncertainty, RunsThatCannotBeCalibratedSaySo) {
  const Outcome trained = kshot({"train", "c.toml", "--out", "points", "--quiet"});
  ASSERT_EQ(trained.status, 0) << trained.error;
  const Outcome points = kshot({"calibrate", "points", "--quiet"});
  expect_one_line(points, "squared error");
  EXPECT_THAT(points.error, AllOf(HasSubstr("points"), HasSubstr("gaussian_nll")));
  EXPECT_FALSE(fs::exists(folder_ / "points" / "calibration.json"));
}

TEST_F(CliUncertainty, RunsAreComparedOnTheSameEpisodes) {
  train("a");
  train("b", {"--set", "train.steps=60", "--set", "train.validate_every=30"});
  for (const char* run : {"a", "b"}) ASSERT_EQ(kshot({"evaluate", run, "--quiet"}).status, 0);
  const Outcome same = kshot({"compare", "a", "b"});
  ASSERT_EQ(same.status, 0) << same.error;
  EXPECT_EQ(same.error, "");
  EXPECT_THAT(same.out, AllOf(HasSubstr("Differences to a on the same episodes"),
                              HasSubstr("b (30 episodes)"), HasSubstr("ridge regression (30")));
  const auto mean = [&](const char* run) {
    return evaluation(run).at("steps").at(2).at("nll").at("mean").get<double>();
  };
  // The row "    NLL   -1.2345 [..." shows b's mean minus a's.
  const std::string row = same.out.substr(same.out.find("b (30 episodes)"));
  const std::string number = row.substr(row.find("NLL") + 3);
  EXPECT_NEAR(std::stod(number), mean("b") - mean("a"), 1e-4);
  EXPECT_THAT(slurp(folder_ / "comparison.html"), HasSubstr("Differences to a"));

  // An evaluation of more episodes with the same seed begins with the same episodes.
  ASSERT_EQ(kshot({"evaluate", "b", "--quiet", "--episodes", "50"}).status, 0);
  EXPECT_THAT(kshot({"compare", "a", "b"}).out, HasSubstr("b (30 episodes)"));
  ASSERT_EQ(kshot({"evaluate", "b", "--quiet", "--seed", "5"}).status, 0);
  const Outcome other = kshot({"compare", "a", "b", "--out", "other.html"});
  EXPECT_EQ(other.status, 0);
  EXPECT_EQ(std::ranges::count(other.error, '\n'), 1) << other.error;
  EXPECT_THAT(other.error, HasSubstr("different episodes"));
  EXPECT_THAT(other.out, Not(HasSubstr("b (")));
}

TEST_F(CliUncertainty, ReportsDrawTheNewFigures) {
  train("run");
  ASSERT_EQ(kshot({"evaluate", "run", "--quiet"}).status, 0);
  ASSERT_EQ(kshot({"report", "run", "--quick", "--out", "r.html"}).status, 0);
  EXPECT_THAT(slurp(folder_ / "r.html"),
              AllOf(HasSubstr("Probability integral transform"), HasSubstr("sharpness")));
}

TEST_F(CliUncertainty, RowsBelowAThresholdAreUnknown) {
  write_class_file(folder_ / "v.kshot", {.input = {.channels = 6}, .noise = 1.0});
  put_file(folder_ / "v.toml", R"(algorithm = "protonet"
data = { source = "file", path = "v.kshot", ways = 3, shots = 1, queries = 5 }
network = { type = "linear", layers = [6, 4] }
evaluate.episodes = 100
train = { steps = 2, meta_batch = 4, validate_every = 0 }
)");
  ASSERT_EQ(kshot({"train", "v.toml", "--out", "run", "--quiet"}).status, 0);
  ASSERT_EQ(kshot({"calibrate", "run", "--quiet"}).status, 0);
  const auto rows = [](const std::string& head, const std::vector<std::string>& labels) {
    std::string text = head;
    for (int i = 0; i < 6; ++i) text += fmt::format(",x{}", i);
    int number = 0;
    for (const std::string& label : labels) {
      ++number;
      text += "\n" + label;
      for (int i = 0; i < 6; ++i) {
        text += fmt::format(",{}", (7 * (number + 1) * (number + i) % 11) / 10.0);
      }
    }
    return text + "\n";
  };
  put_file(folder_ / "s.csv", rows("label", {"a", "b", "c"}));
  put_file(folder_ / "q.csv", rows("label", {"a", "b", "c", "a", "b", "c"}));
  const std::vector<std::string> adapt = {"adapt", "run", "--support", "s.csv", "--query", "q.csv"};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = adapt;
    words.insert(words.end(), more.begin(), more.end());
    return kshot(words);
  };
  // Every answer keeps the first bound. For the second one, these few episodes give no threshold.
  const Outcome all = with({"--max-risk", "0.5", "--level", "0.8"});
  const Outcome none = with({"--max-risk", "0.001"});
  expect_one_line(none, "0.001");
  EXPECT_THAT(none.error, HasSubstr("no threshold of confidence"));
  ASSERT_EQ(all.status, 0) << all.error;
  EXPECT_THAT(all.out, HasSubstr("the risk of wrong answers is at most 0.5, with confidence"));
  const Outcome some = with({"--min-confidence", "0.5", "--level", "0.8"});
  ASSERT_EQ(some.status, 0) << some.error;
  EXPECT_THAT(some.out, HasSubstr("of 6 rows: confidence of at least 0.5"));
  const std::string csv = slurp(folder_ / "adapted" / "predictions.csv");
  for (std::size_t row = 0; row < 6; ++row) {
    const bool sure = std::stod(column(csv, "probability")[row]) >= 0.5;
    EXPECT_EQ(column(csv, "answer")[row], sure ? column(csv, "prediction")[row] : "unknown");
    EXPECT_EQ(column(csv, "in(" + column(csv, "prediction")[row] + ")")[row], "1");
  }
  const Outcome shown = kshot({"inspect", "adapted/predictions.npz"});
  EXPECT_THAT(shown.out, AllOf(HasSubstr("answered"), HasSubstr("in_set")));
  put_file(folder_ / "s.csv", rows("label", {"a", "unknown", "c"}));
  put_file(folder_ / "q.csv", rows("label", {"a", "a"}));
  expect_one_line(with({"--min-confidence", "0.5"}), "a class called unknown");
  EXPECT_NE(with({"--min-confidence", "0.5", "--max-risk", "0.1"}).status, 0);
}

TEST_F(CliUncertainty, AClassifierIsCalibratedOrSaysThatItHasNoValidationClasses) {
  write_class_file(folder_ / "i.kshot", {});
  put_file(folder_ / "k.toml", R"(algorithm = "protonet"
data = { source = "file", path = "i.kshot", ways = 3, shots = 1, queries = 5 }
evaluate.episodes = 20
[network]
type = "sequential"
input = [1, 6, 6]
layers = [ { type = "flatten" }, { type = "linear", out = 3 } ]
[train]
steps = 2
meta_batch = 4
validate_every = 0
)");
  ASSERT_EQ(kshot({"train", "k.toml", "--out", "run", "--quiet"}).status, 0);
  const Outcome calibrated = kshot({"calibrate", "run"});
  ASSERT_EQ(calibrated.status, 0) << calibrated.error;
  EXPECT_THAT(calibrated.out, AllOf(HasSubstr("temperature "), HasSubstr("ECE ")));
  const Outcome evaluated = kshot({"evaluate", "run", "--calibrated"});
  ASSERT_EQ(evaluated.status, 0) << evaluated.error;
  EXPECT_THAT(evaluated.out, AllOf(HasSubstr("protonet, calibrated"), HasSubstr("AURC")));
  EXPECT_THAT(evaluated.out, AllOf(HasSubstr("answers above a threshold"),
                                   HasSubstr("conformal prediction sets")));
  ASSERT_EQ(kshot({"report", "run", "--quick", "--out", "r.html"}).status, 0);
  EXPECT_THAT(slurp(folder_ / "r.html"),
              AllOf(HasSubstr("Risk and coverage"), HasSubstr("PROTONET, calibrated")));
  const Outcome ood = kshot({"evaluate", "run", "--ood", "noise=2", "--ood", "rotate", "--quiet"});
  ASSERT_EQ(ood.status, 0) << ood.error;
  EXPECT_THAT(ood.out, AllOf(HasSubstr("maximum probability"), HasSubstr("FPR at 95 %"),
                             HasSubstr("15 to 45 degrees")));
  EXPECT_EQ(
      json::parse(slurp(folder_ / "run" / "evaluation-ood.json")).at("out_of_distribution").size(),
      2u);
  EXPECT_THAT(slurp(folder_ / "run" / "evaluation-ood.html"), HasSubstr("share of rows"));
  ASSERT_EQ(kshot({"report", "run", "--quick", "--out", "r.html"}).status, 0);
  EXPECT_THAT(slurp(folder_ / "r.html"), HasSubstr("Out of distribution, noise=2: entropy"));
  expect_one_line(kshot({"evaluate", "run", "--ood", "blur", "--quiet"}), "--ood blur");
  write_class_file(folder_ / "none.kshot", {.validation = 0});
  const Outcome none = kshot(
      {"calibrate", "run", "--set", "data.path=none.kshot", "--allow-changed-data", "--quiet"});
  EXPECT_EQ(none.status, 2);
  EXPECT_THAT(none.error, HasSubstr("validation"));
}

}  // namespace
}  // namespace kshot::test
