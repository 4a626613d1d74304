// Sweeps: the search space, small trainings side by side, successive halving, interruption and
// shards.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <set>

#include "cli/program.h"
#include "engine/checkpoint.h"
#include "kshot/stop.h"
#include "kshot/sweep.h"
#include "support/error_text.h"
#include "support/put_file.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::slurp;
using test::TempFolder;
using testing::ElementsAre;
using testing::HasSubstr;

using Values = std::vector<std::string>;

TEST(SweepSettings, AGridHasEveryCombinationTheLastKeyFastest) {
  SweepSettings s = SweepSettings::parse(R"([set]
inner.steps = [1, 2]
"network.activation" = ["relu", "tanh"]
)",
                                         "space.toml");
  s.add_axis("network.layers=[[1, 8, 1]]");
  ASSERT_EQ(s.axes.size(), 3u);
  EXPECT_EQ(s.axes[0].key, "inner.steps");
  const auto runs = s.runs();
  ASSERT_EQ(runs.size(), 4u);
  EXPECT_EQ(runs[0][0], "1");
  EXPECT_EQ(runs[1][0], "1");
  EXPECT_EQ(runs[2][0], "2");
  EXPECT_EQ(runs[0][1], "\"relu\"");
  EXPECT_EQ(runs[1][1], "\"tanh\"");
  EXPECT_EQ(runs[0][2], "[1, 8, 1]");
  SweepSettings numbers;
  numbers.add_axis("inner.learning_rate=[0.1, 1e-4, 2.0]");
  EXPECT_EQ(numbers.axes[0].values, (Values{"0.1", "0.0001", "2.0"}));
}

TEST(SweepSettings, ARandomSearchDrawsFromListsAndRanges) {
  SweepSettings s = SweepSettings::parse(R"(random = 400
seed = 3
[set]
inner.learning_rate = { low = 1e-4, high = 1e-2, log = true }
inner.steps = { low = 1, high = 3 }
abml.kl_weight_inner = [0.1, 1.0]
)",
                                         "space.toml");
  std::map<std::string, int> steps, weights;
  int below = 0;
  const auto column = [&](const std::string& key) {
    return static_cast<std::size_t>(std::ranges::find(s.axes, key, &SweepAxis::key) -
                                    s.axes.begin());
  };
  for (const Values& run : s.runs()) {
    const double rate = std::stod(run[column("inner.learning_rate")]);
    EXPECT_GE(rate, 1e-4);
    EXPECT_LE(rate, 1e-2);
    below += rate < 1e-3 ? 1 : 0;
    ++steps[run[column("inner.steps")]];
    ++weights[run[column("abml.kl_weight_inner")]];
  }
  // There are 400 draws. Three standard deviations of a share of one half are 30, and those of one
  // third are 28.
  EXPECT_NEAR(below, 200, 30);
  EXPECT_EQ(steps.size(), 3u);
  for (const auto& [value, count] : steps) EXPECT_NEAR(count, 133, 29) << value;
  EXPECT_EQ(weights.size(), 2u);
  EXPECT_EQ(s.runs(), s.runs());
}

TEST(SweepSettings, MistakesAreNamed) {
  const auto text = [](const std::string& toml) {
    return error_text([&] { SweepSettings::parse(toml, "space.toml").runs(); });
  };
  EXPECT_THAT(text("grid = 1"), HasSubstr("unknown key \"grid\""));
  EXPECT_THAT(text("random = 0"), HasSubstr("random: expected a whole number of at least 1"));
  EXPECT_THAT(text("halving = 1"), HasSubstr("at least 2"));
  EXPECT_THAT(text("[set]\ninner.steps = 3"), HasSubstr("inner.steps: expected a list"));
  EXPECT_THAT(text("[set]\ninner.steps = []"), HasSubstr("expected a list"));
  EXPECT_THAT(text("[set]\nseed = { low = 2, high = 1 }"), HasSubstr("to a larger one"));
  EXPECT_THAT(text("[set]\nseed = { low = 0, high = 1, log = true }"), HasSubstr("above 0"));
  EXPECT_THAT(text("[set]\nseed = { low = 0.1, high = 1 }"), HasSubstr("--random"));
  EXPECT_THAT(text("seed = 1"), HasSubstr("without keys to vary"));
  SweepSettings twice;
  twice.add_axis("seed=[1,2]");
  twice.add_axis("seed=[3]");
  EXPECT_THAT(error_text([&] { twice.runs(); }), HasSubstr("varied twice"));
  for (const char* wrong : {"seed", "=[1]", "seed=3", "seed=1:2:lin", "seed=[1", "seed=1:"}) {
    EXPECT_THAT(error_text([&] { SweepSettings().add_axis(wrong); }), HasSubstr("--vary")) << wrong;
  }
}

class SweepRuns : public testing::Test {
 protected:
  void SetUp() override {
    test::put_file(config_, R"(algorithm = "maml"
network.layers = [1, 8, 1]
inner = { steps = 1, learning_rate = 0.01 }
data = { shots = 4, queries = 5 }
[train]
steps = 24
meta_batch = 8
validate_every = 4
validation_episodes = 10
)");
    settings_.add_axis("optimizer.learning_rate=[0.01, 0.0001]");
    settings_.add_axis("seed=[1, 2]");
  }
  SweepOptions options(const std::string& folder) const {
    SweepOptions o;
    o.out = folder_ / folder;
    o.jobs = 2;
    o.device = "cpu";
    return o;
  }
  std::vector<SweepRow> run(const SweepOptions& o) const {
    return run_sweep(config_, {}, settings_, o);
  }
  /// The table without the training times.
  std::string table(const std::vector<SweepRow>& rows) const {
    return sweep_table(settings_, rows);
  }
  TempFolder folder_;
  fs::path config_ = folder_ / "c.toml";
  SweepSettings settings_;
};

TEST_F(SweepRuns, TrainsEveryRunAndPutsTheBestFirst) {
  const std::vector<SweepRow> rows = run(options("out"));
  ASSERT_EQ(rows.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(rows[i].status, "done");
    EXPECT_EQ(rows[i].step, 24u);
    EXPECT_EQ(rows[i].metric, "mse");
    EXPECT_LE(rows[i > 0 ? i - 1 : 0].value, rows[i].value);
    const Checkpoint c = Checkpoint::read(
        folder_ / "out" / ("run-00" + std::to_string(rows[i].run)) / last_checkpoint);
    EXPECT_EQ(c.config.optimizer.learning_rate, std::stod(rows[i].values[0]));
    EXPECT_EQ(c.config.seed, std::stoull(rows[i].values[1]));
    EXPECT_EQ(c.state.best.value, rows[i].value);
  }
  const std::string csv = slurp(folder_ / "out" / "sweep.csv");
  EXPECT_THAT(csv, testing::StartsWith("run,status,metric,value,half_width,best_step,steps,seconds,"
                                       "optimizer.learning_rate,seed,message\n"));
  EXPECT_EQ(std::ranges::count(csv, '\n'), 5);
  // Everything is done, so that nothing is trained again.
  SweepOptions again = options("out");
  again.stop = [] {
    ADD_FAILURE() << "a step was made";
    return false;
  };
  EXPECT_EQ(table(run(again)), table(rows));
}

TEST_F(SweepRuns, ASweepThatWasStoppedGoesOnAsIfItHadNotBeen) {
  const std::string whole = table(run(options("whole")));
  SweepOptions stopped_before_start = options("parts");
  stopped_before_start.stop = [] { return true; };
  EXPECT_THROW(run(stopped_before_start), Stopped);
  SweepOptions stopped = options("parts");
  std::atomic<int> steps{0};
  stopped.stop = [&] { return ++steps > 40; };
  EXPECT_THROW(run(stopped), Stopped);
  EXPECT_TRUE(fs::exists(folder_ / "parts" / "sweep.csv"));
  EXPECT_EQ(table(run(options("parts"))), whole);
}

TEST_F(SweepRuns, HalvingStopsTheWorseHalf) {
  settings_.halving = 2;
  settings_.first_steps = 8;
  const std::vector<SweepRow> rows = run(options("out"));
  std::map<std::uint64_t, int> steps;
  for (const SweepRow& r : rows) {
    ++steps[r.step];
    EXPECT_EQ(r.status, r.step == 24 ? "done" : "stopped");
  }
  EXPECT_EQ(steps, (std::map<std::uint64_t, int>{{8, 2}, {16, 1}, {24, 1}}));
  // The runs that continued were the best after eight steps.
  settings_.halving = 0;
  settings_.first_steps = 0;
  std::map<int, double> at_eight;
  for (const SweepRow& r : run_sweep(config_, {"train.steps=8"}, settings_, options("eight"))) {
    at_eight[r.run] = r.value;
  }
  double worst_kept = 0.0, best_stopped = 1e9;
  for (const SweepRow& r : rows) {
    if (r.step > 8) {
      worst_kept = std::max(worst_kept, at_eight[r.run]);
    } else {
      best_stopped = std::min(best_stopped, at_eight[r.run]);
    }
  }
  EXPECT_LE(worst_kept, best_stopped);
}

TEST_F(SweepRuns, ShardsDivideTheRunsAndAreCollected) {
  std::set<int> seen;
  for (const int shard : {1, 2}) {
    SweepOptions o = options("out");
    o.shard = shard;
    o.shards = 2;
    for (const SweepRow& r : run(o)) EXPECT_TRUE(seen.insert(r.run).second);
  }
  EXPECT_EQ(seen, (std::set<int>{0, 1, 2, 3}));
  EXPECT_TRUE(fs::exists(folder_ / "out" / "sweep-2-of-2.csv"));
  SweepOptions collect = options("out");
  collect.collect = true;
  EXPECT_EQ(table(run(collect)), table(run(options("whole"))));
}

TEST_F(SweepRuns, ARunThatFailsDoesNotEndTheOthers) {
  SweepSettings settings;
  settings.add_axis("inner.learning_rate=[0.01, 1e9]");
  const std::vector<SweepRow> rows = run_sweep(config_, {}, settings, options("out"));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].status, "done");
  EXPECT_EQ(rows[1].status, "failed");
  EXPECT_THAT(rows[1].message, HasSubstr("diverged"));
  EXPECT_THAT(slurp(folder_ / "out" / "sweep.csv"), HasSubstr("diverged"));
}

TEST_F(SweepRuns, ARunThatFailsInAShardIsCollectedAsFailed) {
  SweepSettings settings;
  settings.add_axis("inner.learning_rate=[0.01, 1e9]");
  for (const int shard : {1, 2, 3}) {  // The last one has no runs.
    SweepOptions o = options("out");
    o.shard = shard;
    o.shards = 3;
    run_sweep(config_, {}, settings, o);
  }
  SweepOptions collect = options("out");
  collect.collect = true;
  const std::vector<SweepRow> rows = run_sweep(config_, {}, settings, collect);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].status, "done");
  EXPECT_EQ(rows[1].status, "failed");
  EXPECT_THAT(rows[1].message, HasSubstr("diverged"));
  EXPECT_EQ(sweep_table(settings, rows),
            sweep_table(settings, run_sweep(config_, {}, settings, options("whole"))));
}

TEST_F(SweepRuns, WhatCannotBeSweptIsSaidBeforeAnyTraining) {
  const auto text = [&](const std::vector<std::string>& overrides, const SweepSettings& settings) {
    return error_text([&] { run_sweep(config_, overrides, settings, options("none")); });
  };
  EXPECT_THAT(text({"train.validate_every=0"}, settings_), HasSubstr("by validation"));
  SweepSettings wrong;
  wrong.add_axis("inner.stepps=[1]");
  EXPECT_THAT(text({}, wrong), HasSubstr("inner.stepps"));
  SweepSettings halved = settings_;
  halved.halving = 2;
  EXPECT_THAT(text({}, halved), HasSubstr("first_steps"));
  halved.first_steps = 2;
  EXPECT_THAT(text({}, halved), HasSubstr("train.validate_every = 4"));
  SweepSettings losses;
  losses.add_axis("loss.type=[\"mse\", \"gaussian_nll\"]");
  EXPECT_FALSE(fs::exists(folder_ / "none"));
  EXPECT_THAT(text({}, losses), HasSubstr("cannot be compared"));
  run(options("out"));
  SweepSettings other;
  other.add_axis("optimizer.learning_rate=[0.02]");
  EXPECT_THAT(error_text([&] { run_sweep(config_, {}, other, options("out")); }),
              HasSubstr("another configuration"));
}

TEST_F(SweepRuns, TheProgramPrintsOneTable) {
  const test::Outcome o = test::run(
      folder_.path(), {"sweep", "c.toml", "--vary", "seed=[1,2]", "--out", "s", "--jobs", "1"});
  ASSERT_EQ(o.status, 0) << o.error;
  EXPECT_THAT(o.out,
              testing::AllOf(HasSubstr("validation"), HasSubstr("best by validation: s/run-00")));
  const test::Outcome wrong =
      test::run(folder_.path(), {"sweep", "c.toml", "--vary", "seed=[1]", "--shard", "3/2"});
  EXPECT_EQ(wrong.status, 2);
  EXPECT_THAT(wrong.error, HasSubstr("--shard 3/2"));
}

}  // namespace
}  // namespace kshot
