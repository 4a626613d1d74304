// The configuration file of `kshot bandit`, and a meta-trained run as an agent.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>

#include "bandit/results.h"
#include "bandit/settings.h"
#include "kshot/config.h"
#include "kshot/trainer.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot::bandit {
namespace {

using test::error_text;
using test::TempFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string fault(const std::string& text, const std::vector<std::string>& set = {}) {
  return error_text([&] { Settings::parse(text, "b.toml", set); });
}

TEST(Settings, AreReadAndOverridden) {
  const Settings s = Settings::parse(
      "steps = 100\ndelta = [0.9]\n[[agent]]\ntype = \"neural_linear\"\nhidden = [8, 9]\nlambda = "
      "2\n"
      "[[agent]]\ntype = \"uniform\"\n",
      "b.toml", {"steps=200", "delta=0.3,0.4"});
  EXPECT_EQ(s.steps, 200);
  EXPECT_EQ(s.trials, 50);
  EXPECT_THAT(s.delta, ElementsAre(0.3, 0.4));
  ASSERT_EQ(s.agents.size(), 2u);
  EXPECT_THAT(s.agents[0].hidden, ElementsAre(8, 9));
  EXPECT_EQ(s.agents[0].lambda, 2.0);
  EXPECT_EQ(s.agent(s.agents[0], "cpu")->name(), "neural_linear_8_9");
  ASSERT_EQ(s.environments().size(), 2u);
  EXPECT_EQ(s.environments()[1]->name(), "wheel, delta 0.4");
}

/// Every type of agent plays under the name that the file gives it. The name does not change its
/// play.
TEST(Settings, NamesAreTakenByEveryAgent) {
  const auto wheel = make_wheel({.delta = 0.5});
  const PlayOptions options{.trials = 2, .steps = 40, .seed = 5, .threads = 1};
  for (const std::string type : {"uniform", "linear_ts", "epsilon_greedy", "neural_linear"}) {
    const std::string agent = "[[agent]]\ntype = \"" + type + "\"\n";
    const Settings s = Settings::parse(agent + agent + "name = \"mine\"\n", "b.toml");
    const auto unnamed = s.agent(s.agents[0], "cpu"), named = s.agent(s.agents[1], "cpu");
    const Result own = play(*wheel, *unnamed, options), mine = play(*wheel, *named, options);
    EXPECT_THAT(own.agent, ::testing::StartsWith(type));
    EXPECT_EQ(mine.agent, "mine");
    EXPECT_EQ(mine.cumulative, own.cumulative) << type;
    EXPECT_EQ(mine.initial_pulls, own.initial_pulls) << type;
  }
}

TEST(Settings, FaultsNameLineAndKey) {
  const std::string uniform = "[[agent]]\ntype = \"uniform\"\n";
  EXPECT_THAT(fault("step = 5\n" + uniform),
              AllOf(HasSubstr("b.toml:1"), HasSubstr("step: unknown")));
  EXPECT_THAT(fault("trials = 0\n" + uniform),
              AllOf(HasSubstr("b.toml:1: trials"), HasSubstr("an integer from 1")));
  EXPECT_THAT(fault("delta = [0.5, 1.0]\n" + uniform),
              AllOf(HasSubstr("above 0 and below 1"), HasSubstr("got a list")));
  EXPECT_THAT(fault("environment = \"bus\"\n" + uniform), HasSubstr("wheel, mushroom"));
  EXPECT_THAT(fault("environment = \"adult\"\n" + uniform), HasSubstr("folder: required"));
  EXPECT_THAT(fault("environment = \"adult\"\ndelta = [0.5]\n" + uniform),
              HasSubstr("delta: applies to environment = wheel alone"));
  EXPECT_THAT(fault("steps = 5\n"), HasSubstr("[[agent]]"));
  EXPECT_THAT(fault("[[agent]]\nname = \"x\"\n"), HasSubstr("agent.type: required"));
  EXPECT_THAT(fault("[[agent]]\ntype = \"run\"\n"), HasSubstr("agent.run: required"));
  EXPECT_THAT(fault(uniform + "epsilon = 0.5\n"),
              AllOf(HasSubstr("b.toml:3"), HasSubstr("agent.epsilon")));
  EXPECT_THAT(fault("seed = [}\n"), HasSubstr("b.toml:1: not TOML"));
  EXPECT_THAT(fault(uniform, {"stepz=5"}), HasSubstr("--set"));
  EXPECT_THAT(fault(uniform, {"steps=a b"}), HasSubstr("--set"));
  EXPECT_THAT(fault(uniform, {"steps=0"}), ::testing::StartsWith("--set steps: expected"));
}

TEST(Settings, TheDocumentHasEveryKey) {
  std::ostringstream text;
  text << std::ifstream(std::filesystem::path(KSHOT_SOURCE_DIR) / "docs" / "bandits.md").rdbuf();
  EXPECT_NE(text.str().find(settings_reference()), std::string::npos)
      << "write the table anew: kshot bandit --reference";
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// A small run on wheel problems.
void train(const std::string& algorithm, const std::filesystem::path& folder) {
  const bool head = algorithm == "alpaca" || algorithm == "dkt";
  const Config config = Config::parse(
      "algorithm = \"" + algorithm + "\"\nnetwork.layers = [7, 24, 24, " + (head ? "16" : "1") +
      "]\ndata = { source = \"wheel\", shots = [4, 48], queries = 32, noise_std = 0.01 }\n"
      "optimizer = { learning_rate = 3e-3, clip_norm = 1.0 }\n"
      "train = { steps = 700, meta_batch = 16, validate_every = 0 }\n" +
      (head ? "" : "inner = { steps = 3, learning_rate = 0.02 }\n"));
  config.check_data();
  Trainer(config, {.run_folder = folder, .device = "cpu", .threads = 2}).run();
}

TEST(RunAgent, MetaTrainingBeatsChanceFromTheFirstRounds) {
  TempFolder folder;
  const auto wheel = make_wheel({.delta = 0.5});
  const PlayOptions options{.trials = 6, .steps = 150, .seed = 5, .last_steps = 50, .threads = 2};
  const auto uniform = make_uniform();
  const Result chance = play(*wheel, *uniform, options);
  for (const char* algorithm : {"maml", "alpaca"}) {
    train(algorithm, folder / algorithm);
    const auto agent = make_run_agent({.run = folder / algorithm, .device = "cpu"});
    EXPECT_EQ(agent->name(), algorithm);
    const Result r = play(*wheel, *agent, options);
    EXPECT_LT(mean(r.cumulative), 0.4 * mean(chance.cumulative)) << algorithm;
    // A repetition, also with other numbers of threads and trials, gives the same numbers.
    const Result fewer = play(*wheel, *agent, {.trials = 3, .steps = 150, .seed = 5, .threads = 1});
    EXPECT_EQ(fewer.cumulative[0], r.cumulative[0]) << algorithm;
    EXPECT_EQ(fewer.cumulative[2], r.cumulative[2]) << algorithm;
    const Settings settings = Settings::parse(
        "[[agent]]\ntype = \"run\"\nname = \"g\"\ngreedy = true\n"
        "run = '" +
            (folder / algorithm).string() + "'\n",
        "b.toml");
    const auto greedy = settings.agent(settings.agents[0], "auto");
    const Result g = play(*wheel, *greedy, options);
    EXPECT_EQ(g.agent, "g");
    if (std::string(algorithm) == "maml") {
      EXPECT_EQ(g.cumulative, r.cumulative);  // A point estimate has nothing to sample.
    } else {
      EXPECT_NE(g.cumulative, r.cumulative);
    }
  }
}

TEST(RunAgent, RunsThatDoNotFitAreRefused) {
  TempFolder folder;
  const Config sinusoid = Config::parse("train = { steps = 1, validate_every = 0 }\n");
  Trainer(sinusoid, {.run_folder = folder / "sine", .device = "cpu", .threads = 1}).run();
  const auto agent = make_run_agent({.run = folder / "sine", .device = "cpu"});
  const auto wheel = make_wheel({.delta = 0.5});
  EXPECT_THAT(error_text([&] { play(*wheel, *agent, {.trials = 1, .steps = 5, .threads = 1}); }),
              AllOf(HasSubstr("takes 1 inputs, expected 7"), HasSubstr("sine")));
  EXPECT_THAT(error_text([&] { make_run_agent({.run = folder / "none"}); }), HasSubstr("none"));
}

TEST(Results, ArePercentagesOfTheUniformAgent) {
  Results results;
  results.trials = 2;
  results.steps = 100;
  results.last_steps = 500;
  Result r;
  r.environment = "wheel, delta 0.5";
  r.agent = "linear_ts";
  r.initial_pulls = 2;
  r.cumulative = {10.0, 30.0};
  r.simple = {0.1, 0.1};
  r.curve_steps = {50, 100};
  r.curve = {10.0, 20.0};
  results.entries = {{r, 200.0, 2.0}};
  EXPECT_THAT(results.table(), AllOf(HasSubstr("10.00 +- 7.07"), HasSubstr("5.00 +- 0.00"),
                                     HasSubstr("over the last 100 rounds")));
  EXPECT_THAT(results.to_json(), AllOf(HasSubstr("\"mean\": 10.0"), HasSubstr("kshot bandit")));
  EXPECT_THAT(results.page(), AllOf(HasSubstr("<svg"), HasSubstr("linear_ts")));
}

}  // namespace
}  // namespace kshot::bandit
