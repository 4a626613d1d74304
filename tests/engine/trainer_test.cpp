// Training: the files of a run, that it can be stopped and resumed anywhere, and that only the seed
// and the configuration determine its bits.
#include "kshot/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/engine_cases.h"
#include "io/atomic_file.h"
#include "io/json_lines.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::small_config;
using test::stop_after;
using test::TempFolder;
using test::tensors;
using testing::HasSubstr;

TrainerOptions in_folder(const fs::path& folder, const std::string& device, int threads = 1) {
  TrainerOptions options;
  options.run_folder = folder;
  options.device = device;
  options.threads = threads;
  return options;
}

/// The metrics without the numbers that depend on the clock.
std::vector<nlohmann::json> metrics(const fs::path& run) {
  std::vector<nlohmann::json> records = io::read_json_lines(run / "metrics.jsonl");
  for (nlohmann::json& record : records) {
    record.erase("seconds");
    record.erase("tasks_per_second");
  }
  return records;
}

/// A training to resume: an algorithm with its options on a device.
struct Case {
  const char* algorithm;
  const char* device;
  /// True for heads that are fitted in closed form.
  bool head = false;
  /// The kind of abml's learned rates, or empty.
  std::string rates = {};
  /// True for gaussian_nll with learned noise.
  bool learned_noise = false;

  Config config(std::vector<std::string> overrides = {}) const {
    if (!rates.empty()) overrides.push_back("abml.rates=" + rates);
    if (learned_noise) {
      overrides.insert(overrides.end(), test::learned_noise.begin(), test::learned_noise.end());
    }
    return head ? test::head_config(algorithm, overrides) : small_config(algorithm, overrides);
  }
};
std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.algorithm << " on " << c.device << (c.rates.empty() ? "" : ", rates by ")
             << c.rates << (c.learned_noise ? ", learned noise" : "");
}

class TrainerTest : public testing::TestWithParam<Case> {};

TEST_P(TrainerTest, ResumesBitForBit) {
  const TempFolder folder;
  const Config config = GetParam().config();
  Trainer straight(config, in_folder(folder / "straight", GetParam().device));
  ASSERT_EQ(straight.run().reason, StopReason::steps);
  // The run stops at step 5, which neither logs nor validates, and again at step 7, with another
  // number of threads.
  TrainerOptions options = in_folder(folder / "stopped", GetParam().device, 2);
  options.stop = stop_after(5);
  EXPECT_EQ(Trainer(config, options).run().reason, StopReason::asked);
  options.resume = true;
  options.threads = 1;
  options.stop = stop_after(2);
  EXPECT_EQ(Trainer(config, options).run().step, 7u);
  options.threads = 2;
  options.stop = nullptr;
  const TrainResult result = Trainer(config, options).run();
  EXPECT_EQ(result.reason, StopReason::steps);
  EXPECT_EQ(result.step, 14u);
  EXPECT_EQ(result.tasks, 14u * 20u);
  EXPECT_EQ(tensors(folder / "stopped" / "last.safetensors"),
            tensors(folder / "straight" / "last.safetensors"));
  EXPECT_EQ(tensors(folder / "stopped" / "best.safetensors"),
            tensors(folder / "straight" / "best.safetensors"));
  EXPECT_EQ(metrics(folder / "stopped"), metrics(folder / "straight"));
}

TEST_P(TrainerTest, ThreadsDoNotMatter) {
  const Config config = GetParam().config({"train.validate_every=0"});
  std::vector<std::vector<double>> seen;
  for (const int threads : {1, 2, 3}) {
    TrainerOptions options;
    options.device = GetParam().device;
    options.threads = threads;
    Trainer trainer(config, options);
    trainer.run();
    std::vector<double> all;
    for (const std::string& group : trainer.groups()) {
      const std::vector<double> values = trainer.parameters(group);
      all.insert(all.end(), values.begin(), values.end());
    }
    seen.push_back(std::move(all));
  }
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_EQ(seen[0], seen[2]);
}

INSTANTIATE_TEST_SUITE_P(
    All, TrainerTest,
    testing::Values(Case{"maml", "cpu"}, Case{"maml", "reference"}, Case{"meta_sgd", "cpu"},
                    Case{"abml", "cpu"}, Case{"abml", "reference"},
                    Case{"abml", "cpu", false, "weight"}, Case{"abml", "reference", false, "layer"},
                    Case{"maml", "cpu", false, "", true},
                    Case{"meta_sgd", "reference", false, "", true},
                    Case{"abml", "cpu", false, "layer", true}, Case{"hvi", "cpu", false, "", true},
                    Case{"hvi", "cpu"}, Case{"hvi", "reference"}, Case{"alpaca", "reference", true},
                    Case{"dkt", "reference", true}, Case{"r2d2", "reference", true}),
    [](const auto& parameter) {
      const Case& c = parameter.param;
      return std::string(c.algorithm) + "_" + c.device + (c.rates.empty() ? "" : "_rates_by_") +
             c.rates + (c.learned_noise ? "_learned_noise" : "");
    });

TEST(Trainer, LearnsTheInnerRates) {
  // Both groups of rates start at inner.learning_rate and move. The rate of a weight that
  // inner.adapt does not name has no effect, so that it does not move.
  for (const std::string rates : {"layer", "weight"}) {
    SCOPED_TRACE(rates);
    const TempFolder folder;
    const Config config = small_config(
        "abml", {"abml.rates=" + rates, "inner.adapt=[\"layers.1.*\"]", "train.validate_every=0"});
    Trainer trainer(config, in_folder(folder / "run", "cpu"));
    EXPECT_THAT(trainer.groups(),
                testing::ElementsAre("mu", "log_sigma", "alpha_mu", "alpha_log_sigma"));
    trainer.run();
    const auto checkpoint = tensors(folder / "run" / "last.safetensors");
    for (const std::string group : {"alpha_mu", "alpha_log_sigma"}) {
      const std::vector<double> values = trainer.parameters(group);
      // By layer: weight and bias of layer 0, then those of layer 1. By weight: 24 weights of layer
      // 0, then 13 of layer 1.
      const std::size_t fixed = rates == "layer" ? 2 : 24;
      ASSERT_EQ(values.size(), rates == "layer" ? 4u : 37u);
      for (std::size_t i = 0; i < values.size(); ++i) {
        if (i < fixed) {
          EXPECT_FLOAT_EQ(values[i], 0.005) << group << " " << i;
        } else {
          EXPECT_NE(static_cast<float>(values[i]), 0.005f) << group << " " << i;
        }
      }
      EXPECT_TRUE(checkpoint.contains(group + ".layers.1.bias"));
    }
  }
}

TEST(Trainer, LearnsTheNoise) {
  for (const Config& config :
       {small_config("maml", test::learned_noise), small_config("meta_sgd", test::learned_noise),
        small_config("abml", test::learned_noise), small_config("hvi", test::learned_noise),
        test::leo_points(test::learned_noise)}) {
    const TempFolder folder;
    Trainer trainer(config, in_folder(folder / "run", "cpu"));
    SCOPED_TRACE(trainer.groups().front());
    ASSERT_EQ(trainer.groups().back(), "log_noise");
    EXPECT_FLOAT_EQ(static_cast<float>(trainer.parameters("log_noise")[0]), std::log(0.5f));
    trainer.run();
    const double learned = trainer.parameters("log_noise")[0];
    EXPECT_GT(std::abs(learned - std::log(0.5)), 1e-3);
    const auto checkpoint = tensors(folder / "run" / "last.safetensors");
    EXPECT_EQ(checkpoint.at("log_noise").shape, std::vector<std::size_t>{1});
    EXPECT_EQ(checkpoint.at("log_noise").to_f64()[0], learned);
    // Adam moves log_noise by at most about 0.001 per step, and there are at most 14 steps.
    const nlohmann::json record = metrics(folder / "run").front();
    EXPECT_NEAR(record.at("noise_std").get<double>(), 0.5, 0.01);
    EXPECT_NE(record.at("noise_std").get<double>(), 0.5);
  }
  Trainer fixed(small_config("maml", {"loss.type=gaussian_nll"}), TrainerOptions{.device = "cpu"});
  EXPECT_THAT(fixed.groups(), testing::ElementsAre("theta"));
}

TEST(Trainer, WorkAfterTheCheckpointIsDroppedAndDoneAgain) {
  // The folder is as after a kill: the metrics are ahead of the checkpoint and end with a cut line.
  const TempFolder folder;
  const Config config = small_config("maml");
  Trainer(config, in_folder(folder / "straight", "cpu")).run();
  TrainerOptions options = in_folder(folder / "killed", "cpu");
  options.stop = stop_after(6);
  Trainer(config, options).run();
  const std::string checkpoint = io::read_file(folder / "killed" / "last.safetensors");
  options.resume = true;
  options.stop = stop_after(4);
  Trainer(config, options).run();
  io::write_file_atomic(folder / "killed" / "last.safetensors", checkpoint);
  io::write_file_atomic(folder / "killed" / "metrics.jsonl",
                        io::read_file(folder / "killed" / "metrics.jsonl") + "{\"kind\":\"tr");
  options.stop = nullptr;
  Trainer(config, options).run();
  EXPECT_EQ(tensors(folder / "killed" / "last.safetensors"),
            tensors(folder / "straight" / "last.safetensors"));
  EXPECT_EQ(metrics(folder / "killed"), metrics(folder / "straight"));
}

TEST(Trainer, RunFolderHoldsWhatTheDocumentsSay) {
  const TempFolder folder;
  const Config config = small_config("maml");
  TrainerOptions options = in_folder(folder / "run", "cpu");
  options.command = "kshot train x.toml";
  Trainer(config, options).run();
  EXPECT_EQ(Config::load(folder / "run" / "config.toml"), config);
  const auto record = nlohmann::json::parse(io::read_file(folder / "run" / "run.json"));
  EXPECT_EQ(record.at("seed"), 3);
  EXPECT_EQ(record.at("sessions").at(0).at("kshot"), version());
  EXPECT_EQ(record.at("sessions").at(0).at("command"), "kshot train x.toml");
  EXPECT_THAT(record.at("sessions").at(0).at("device").get<std::string>(),
              testing::StartsWith("cpu"));
  const auto records = metrics(folder / "run");
  const auto count = [&](const char* kind) {
    return std::ranges::count_if(records, [&](const auto& r) { return r.at("kind") == kind; });
  };
  EXPECT_EQ(count("train"), 5);       // at steps 3, 6, 9, 12 and at the end, 14
  EXPECT_EQ(count("validation"), 4);  // at steps 4, 8, 12 and at the end
  // The optimizer's state has the shape of the parameters.
  const auto all = tensors(folder / "run" / "last.safetensors");
  EXPECT_EQ(all.size(), 3u * 4u);
  EXPECT_EQ(all.at("theta.layers.0.weight").shape, (std::vector<std::size_t>{12, 1}));
  EXPECT_EQ(all.at("optimizer.m.theta.layers.0.weight").shape, (std::vector<std::size_t>{12, 1}));
  EXPECT_EQ(all.at("optimizer.v.theta.layers.1.bias").shape, (std::vector<std::size_t>{1}));
}

TEST(Trainer, WithoutAFolderNothingIsWritten) {
  const TempFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  Trainer(small_config("maml"), TrainerOptions{.device = "cpu", .threads = 1}).run();
  fs::current_path(before);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Trainer, AFolderThatHoldsARunIsLeftAlone) {
  const TempFolder folder;
  const Config config = small_config("maml", {"train.steps=1"});
  Trainer(config, in_folder(folder / "run", "cpu")).run();
  const std::string before = io::read_file(folder / "run" / "last.safetensors");
  EXPECT_THAT(error_text([&] { Trainer(config, in_folder(folder / "run", "cpu")); }),
              HasSubstr("already holds a run"));
  EXPECT_EQ(io::read_file(folder / "run" / "last.safetensors"), before);
}

TEST(Trainer, AFolderThatCannotBeMadeLeavesNothing) {
  const TempFolder folder;
  io::write_file_atomic(folder / "file", "x");
  EXPECT_THAT(
      error_text([&] { Trainer(small_config("maml"), in_folder(folder / "file" / "run", "cpu")); }),
      HasSubstr("cannot create run folder"));
}

TEST(Trainer, LearningRatesFollowTheSchedule) {
  const auto rates = [](const std::vector<std::string>& overrides) {
    std::vector<double> seen;
    TrainerOptions options{.device = "cpu", .threads = 1};
    options.on_report = [&](const TrainReport& r) { seen.push_back(r.learning_rate); };
    std::vector<std::string> all = {"train.log_every=1", "train.steps=4", "train.validate_every=0",
                                    "optimizer.learning_rate=0.8"};
    all.insert(all.end(), overrides.begin(), overrides.end());
    Trainer(small_config("maml", all), options).run();
    return seen;
  };
  using testing::DoubleNear;
  using testing::ElementsAre;
  EXPECT_THAT(rates({}), ElementsAre(0.8, 0.8, 0.8, 0.8));
  // The cosine is taken at 0, 45, 90 and 135 degrees, between 0.8 and 0.2.
  EXPECT_THAT(rates({"optimizer.schedule=cosine", "optimizer.final_learning_rate=0.2"}),
              ElementsAre(DoubleNear(0.8, 1e-12), DoubleNear(0.5 + 0.3 * std::sqrt(0.5), 1e-12),
                          DoubleNear(0.5, 1e-12), DoubleNear(0.5 - 0.3 * std::sqrt(0.5), 1e-12)));
  EXPECT_THAT(
      rates({"optimizer.schedule=step", "optimizer.decay_every=2", "optimizer.decay_factor=0.25"}),
      ElementsAre(0.8, 0.8, 0.2, 0.2));
}

/// The change by one step of plain gradient descent with rate 1, which is the clipped gradient.
std::vector<double> one_step(const std::vector<std::string>& overrides) {
  std::vector<std::string> all = {"optimizer.type=sgd",     "optimizer.momentum=0",
                                  "optimizer.clip_norm=0",  "optimizer.learning_rate=1",
                                  "train.validate_every=0", "train.log_every=1"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  const TrainerOptions options{.device = "reference", .threads = 1};
  auto with_steps = all;
  with_steps.push_back("train.steps=0");
  Trainer before(small_config("maml", with_steps), options);
  with_steps.back() = "train.steps=1";
  Trainer after(small_config("maml", with_steps), options);
  before.run();
  after.run();
  std::vector<double> from = before.parameters("theta"), to = after.parameters("theta");
  for (std::size_t i = 0; i < from.size(); ++i) from[i] -= to[i];
  return from;
}

double norm(const std::vector<double>& x) {
  double sum = 0.0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum);
}

TEST(Trainer, ClipsByValueThenByNorm) {
  const std::vector<double> gradient = one_step({});
  const double largest =
      std::abs(*std::ranges::max_element(gradient, {}, [](double v) { return std::abs(v); }));
  ASSERT_GT(largest, 0.0);
  const double limit = 0.3 * largest;
  std::vector<double> cut = gradient;
  for (double& v : cut) v = std::clamp(v, -limit, limit);
  ASSERT_LT(norm(cut), norm(gradient));

  const std::vector<double> by_value = one_step({"optimizer.clip_value=" + std::to_string(limit)});
  for (std::size_t i = 0; i < cut.size(); ++i) EXPECT_NEAR(by_value[i], cut[i], 2e-6);

  const double length = 0.5 * norm(cut);
  const std::vector<double> by_norm = one_step({"optimizer.clip_norm=" + std::to_string(length)});
  EXPECT_NEAR(norm(by_norm), length, 2e-6);
  for (std::size_t i = 0; i < cut.size(); ++i) {
    EXPECT_NEAR(by_norm[i], gradient[i] * length / norm(gradient), 2e-6);
  }
  const std::vector<double> by_both = one_step({"optimizer.clip_value=" + std::to_string(limit),
                                                "optimizer.clip_norm=" + std::to_string(length)});
  for (std::size_t i = 0; i < cut.size(); ++i) {
    EXPECT_NEAR(by_both[i], cut[i] * length / norm(cut), 4e-6);
  }
}

TEST(Trainer, StopsWhenValidationsNoLongerImprove) {
  // The learning rate is too small to change a float. Every validation sees the same weights and
  // gives the same value, which also shows that its episodes are the same.
  std::vector<ValidationReport> seen;
  TrainerOptions options{.device = "cpu", .threads = 1};
  options.on_validation = [&](const ValidationReport& v) { seen.push_back(v); };
  const TrainResult result =
      Trainer(small_config("maml", {"train.steps=100", "train.patience=3", "train.validate_every=2",
                                    "optimizer.learning_rate=1e-30"}),
              options)
          .run();
  EXPECT_EQ(result.reason, StopReason::patience);
  EXPECT_EQ(result.step, 8u);
  ASSERT_EQ(seen.size(), 4u);
  EXPECT_TRUE(seen[0].best);
  for (std::size_t i = 1; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].value, seen[0].value);
    EXPECT_FALSE(seen[i].best);
  }
  EXPECT_EQ(result.best.step, 2u);
}

TEST(Trainer, TimeLimitCountsOverSessions) {
  const TempFolder folder;
  const Config config = small_config("maml", {"train.steps=100000000", "train.time_limit=0.3"});
  TrainerOptions options = in_folder(folder / "run", "cpu");
  const TrainResult first = Trainer(config, options).run();
  EXPECT_EQ(first.reason, StopReason::time_limit);
  EXPECT_GE(first.seconds, 0.3);
  options.resume = true;
  const TrainResult second = Trainer(config, options).run();
  EXPECT_EQ(second.reason, StopReason::time_limit);
  EXPECT_EQ(second.step, first.step) << "its time was spent before";
}

TEST(Trainer, ADivergedTaskIsLeftOutAndCounted) {
  for (const char* device : {"cpu", "reference"}) {
    std::vector<TrainReport> seen;
    TrainerOptions options{.device = device, .threads = 2};
    options.on_report = [&](const TrainReport& r) { seen.push_back(r); };
    Trainer trainer(small_config("maml", {"train.steps=3"}),
                    std::make_shared<test::Spoilt>(Split::train, 7), options);
    const TrainResult result = trainer.run();
    EXPECT_EQ(result.diverged, 3u);
    ASSERT_FALSE(seen.empty());
    EXPECT_EQ(seen[0].diverged, 3u);
    EXPECT_EQ(seen[0].tasks, 60u);
    EXPECT_TRUE(std::isfinite(seen[0].loss));
    for (const double v : trainer.parameters("theta")) EXPECT_TRUE(std::isfinite(v));
  }
}

TEST(Trainer, TheGuardReplacesTheGradientOfADivergedStep) {
  std::vector<TrainReport> seen;
  TrainerOptions options{.device = "reference", .threads = 2};
  options.on_report = [&](const TrainReport& r) { seen.push_back(r); };
  const Config config = small_config(
      "maml", {"train.steps=3", "optimizer.type=sgd", "optimizer.momentum=0",
               "optimizer.clip_norm=0", "optimizer.learning_rate=1", "optimizer.nan_guard=true",
               "train.max_diverged=0", "train.validate_every=0"});
  Trainer trainer(config, std::make_shared<test::Spoilt>(Split::train, 7), options);
  const std::vector<double> before = trainer.parameters("theta");
  trainer.run();
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen.back().guarded, 3u);
  const std::vector<double> after = trainer.parameters("theta");
  for (std::size_t i = 0; i < after.size(); ++i) {
    EXPECT_NEAR(after[i], before[i] * std::pow(1.0 - 1e-4, 3), 1e-12);
  }
}

TEST(Trainer, TooManyDivergedTasksStopWithTheLikelyCause) {
  const auto spoilt = std::make_shared<test::Spoilt>(Split::train, 7);
  const TrainerOptions options{.device = "cpu", .threads = 1};
  const std::string message = error_text(
      [&] { Trainer(small_config("maml", {"train.max_diverged=0.04"}), spoilt, options).run(); });
  EXPECT_THAT(message, HasSubstr("1 of 20 tasks diverged"));
  EXPECT_THAT(message, HasSubstr("train.max_diverged"));
  EXPECT_THAT(message, HasSubstr("inner.learning_rate"));
  // A whole batch diverges.
  EXPECT_THAT(error_text([&] {
                Trainer(small_config("abml", {"inner.learning_rate=1e20"}), options).run();
              }),
              HasSubstr("sigma"));
}

TEST(Trainer, ADivergedValidationEpisodeIsLeftOutAndCounted) {
  std::vector<ValidationReport> seen;
  TrainerOptions options{.device = "cpu", .threads = 2};
  options.on_validation = [&](const ValidationReport& v) { seen.push_back(v); };
  Trainer(small_config("maml"), std::make_shared<test::Spoilt>(Split::validation, 3), options)
      .run();
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen[0].diverged, 1u);
  EXPECT_TRUE(std::isfinite(seen[0].value));
}

TEST(Trainer, EpisodesMustFitTheNetwork) {
  const TrainerOptions options{.device = "cpu", .threads = 1};
  const auto source = std::make_shared<test::Spoilt>(Split::test, 0);
  EXPECT_THAT(error_text([&] {
                Trainer(small_config("maml", {"network.layers=2,12,1"}), source, options);
              }),
              HasSubstr("takes inputs of 2"));
  EXPECT_THAT(error_text([&] {
                Trainer(small_config("maml", {"network.layers=1,12,3"}), source, options);
              }),
              HasSubstr("3 outputs"));
  EXPECT_THAT(error_text([&] {
                Trainer(small_config("maml", {"loss.type=cross_entropy"}), source, options);
              }),
              HasSubstr("loss.type"));
}

TEST(ResumedConfig, MayGoOnForLongerButNotElsewhere) {
  const TempFolder folder;
  const Config config = small_config("maml", {"train.steps=1"});
  Trainer(config, in_folder(folder / "run", "cpu")).run();
  const fs::path run = folder / "run";
  EXPECT_EQ(resumed_config(run, nullptr, {}), config);
  EXPECT_EQ(resumed_config(run, nullptr, {"train.steps=9"}).train.steps, 9);
  const Config changed = small_config("maml", {"train.steps=7"});
  EXPECT_EQ(resumed_config(run, &changed, {}).train.steps, 7);
  EXPECT_THAT(error_text([&] { resumed_config(run, nullptr, {"inner.steps=9"}); }),
              HasSubstr("inner.steps = 9: the run has 2"));
  EXPECT_THAT(error_text([&] { resumed_config(run, nullptr, {"optimizer.type=sgd"}); }),
              HasSubstr("optimizer.type"));
  EXPECT_THAT(error_text([&] { resumed_config(folder / "nothing", nullptr, {}); }),
              HasSubstr("no such run folder"));
}

/// An Adam step of size optimizer.learning_rate would change the sign of a rate of 0.005. Learned
/// rates therefore move by a small part of their size.
TEST(Trainer, LearnedRatesOfAbmlMoveByASmallPartOfTheirSize) {
  const Config config =
      test::small_config("abml", {"abml.rates=layer", "optimizer.learning_rate=0.02",
                                  "train.steps=10", "train.validate_every=0"});
  Trainer trainer(config, {.device = "cpu", .threads = 1});
  trainer.run();
  for (const char* group : {"alpha_mu", "alpha_log_sigma"}) {
    double moved = 0.0;
    for (const double rate : trainer.parameters(group)) {
      // Ten steps move a rate by at most about 2 % each.
      EXPECT_NEAR(rate, 0.005, 0.005 * 0.25) << group;
      moved = std::max(moved, std::abs(rate - 0.005));
    }
    EXPECT_GT(moved, 1e-6) << group;
  }
}

}  // namespace
}  // namespace kshot
