// Training, evaluation and resuming with episodes whose numbers of rows and classes differ.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "backend/backend.h"
#include "engine/engine_cases.h"
#include "support/class_files.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::put_class_vectors;
using test::TempFolder;
using testing::HasSubstr;

Config config_of(const std::string& name, const TempFolder& folder) {
  const std::vector<std::string> shots = {"data.shots=1,4", "data.queries=2,5"};
  if (name == "leo_head") {
    std::vector<std::string> more = shots;
    more.insert(more.end(),
                {"leo.latents=one", "leo.latent_lr_init=0.05", "data.queries=2,3",
                 "train.validate_every=4", "train.validation_episodes=19", "evaluate.episodes=40"});
    more.erase(more.begin() + 1);
    return test::leo_head(put_class_vectors(folder.path()), more);
  }
  if (name == "leo_points") {
    std::vector<std::string> more = shots;
    more.insert(more.end(),
                {"train.validate_every=4", "train.validation_episodes=19", "evaluate.episodes=40"});
    return test::leo_points(more);
  }
  if (name == "protonet" || name == "bayes_protonet" || name == "r2d2") {
    return test::class_head_config(name, put_class_vectors(folder.path()),
                                   {"data.shots=1,4", "data.queries=2,3", "data.ways=2,5"});
  }
  if (name == "alpaca" || name == "dkt") return test::head_config(name, shots);
  return test::small_config(name, shots);
}

class RangesTest : public testing::TestWithParam<const char*> {};

TEST_P(RangesTest, TrainsAsTheReferenceDoes) {
  const TempFolder folder;
  Config config = config_of(GetParam(), folder);
  config.train.steps = 2;
  config.train.validate_every = 0;
  config.train.log_every = 1;
  std::vector<std::vector<TrainReport>> seen;
  for (const char* device : {"reference", "cpu"}) {
    std::vector<TrainReport>& reports = seen.emplace_back();
    TrainerOptions options{.device = device, .threads = 2};
    options.on_report = [&reports](const TrainReport& r) { reports.push_back(r); };
    Trainer(config, options).run();
  }
  ASSERT_EQ(seen[0].size(), 2u);
  ASSERT_EQ(seen[1].size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    const TrainReport &want = seen[0][i], &got = seen[1][i];
    EXPECT_NEAR(got.loss, want.loss, 1e-4 * (1.0 + std::abs(want.loss)));
    EXPECT_NEAR(got.gradient_norm, want.gradient_norm, 1e-3 * want.gradient_norm);
    EXPECT_EQ(got.diverged, want.diverged);
  }
}

TEST_P(RangesTest, ResumesBitForBitAndIsEvaluated) {
  const TempFolder folder;
  const Config config = config_of(GetParam(), folder);
  Trainer(config, {.run_folder = folder / "straight", .device = "cpu", .threads = 2}).run();
  int left = 5;
  TrainerOptions options{.run_folder = folder / "stopped", .device = "cpu", .threads = 1};
  options.stop = [&left] { return --left == 0; };
  Trainer(config, options).run();
  options.stop = nullptr;
  options.resume = true;
  options.threads = 2;
  Trainer(config, options).run();
  EXPECT_EQ(test::tensors(folder / "stopped" / "last.safetensors"),
            test::tensors(folder / "straight" / "last.safetensors"));

  const Evaluation e =
      Evaluator(folder / "straight", EvaluatorOptions{.device = "cpu", .threads = 2}).run();
  EXPECT_LT(e.support.least, e.support.most) << "the episodes differ in size";
  EXPECT_LT(e.query.least, e.query.most);
  EXPECT_EQ(e.scored.size() + static_cast<std::size_t>(e.diverged), 40u);
  const Evaluation back = Evaluation::from_json(e.to_json());
  EXPECT_EQ(back.ways, e.ways);
  EXPECT_EQ(back.support, e.support);
  for (const Score* s : {&e.last(), &e.baselines.front()}) {
    const double value = s->accuracy ? s->accuracy->mean : s->mse->mean;
    EXPECT_TRUE(std::isfinite(value) && value >= 0.0) << s->name;
  }
}

INSTANTIATE_TEST_SUITE_P(Algorithms, RangesTest,
                         testing::Values("maml", "meta_sgd", "abml", "hvi", "leo_points",
                                         "leo_head", "protonet", "bayes_protonet", "r2d2", "alpaca",
                                         "dkt"),
                         [](const auto& param) { return std::string(param.param); });

/// Tasks of two or three classes with one row per class. All rows are equal.
class Differing final : public EpisodeSource {
 public:
  static int ways_of(std::uint32_t task) { return task % 3 == 0 ? 3 : 2; }
  TaskShape shape() const override {
    return {.input = {.channels = 1}, .outputs = 3, .support = 3, .query = 3, .ways_vary = true};
  }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    const int ways = ways_of(id.task);
    *slot.ways = *slot.support_n = *slot.query_n = ways;
    for (std::size_t i = 0; i < static_cast<std::size_t>(ways); ++i) {
      slot.support_x[i] = slot.query_x[i] = 1.0f;
      slot.support_label[i] = slot.query_label[i] = static_cast<std::int32_t>(i);
    }
  }
  std::string describe() const override { return "differing"; }
};

Config differing_config(AlgorithmKind algorithm) {
  Config config;
  config.algorithm = algorithm;
  config.network.layers = {1, 3};
  config.loss.type = LossType::cross_entropy;
  config.train.steps = 3;
  config.train.validate_every = 0;
  config.evaluate.episodes = 12;
  return config;
}

TEST(Ranges, TasksOfDifferentNumbersOfClassesNeedAHeadThatTakesThem) {
  const auto source = std::make_shared<Differing>();
  EXPECT_THAT(error_text([&] {
                Trainer(differing_config(AlgorithmKind::maml), source,
                        {.device = "cpu", .threads = 1});
              }),
              HasSubstr("differ in their number of classes"));
}

TEST(Ranges, ProbabilitiesAreOfATasksOwnClasses) {
  const TempFolder folder;
  const auto source = std::make_shared<Differing>();
  for (const char* device : {"reference", "cpu"}) {
    const fs::path run = folder / device;
    Trainer(differing_config(AlgorithmKind::protonet), source,
            {.run_folder = run, .device = device, .threads = 1})
        .run();
    const Evaluation e =
        Evaluator(run, source, EvaluatorOptions{.device = device, .threads = 1}).run();
    EXPECT_EQ(e.ways, CountRange(2, 3));
    ASSERT_EQ(e.last().per_episode.nll.size(), 12u);
    for (std::uint32_t t = 0; t < 12; ++t) {
      // All classes have the same prototype, so that they are equally likely.
      EXPECT_NEAR(e.last().per_episode.nll[t], std::log(Differing::ways_of(t)), 1e-5);
      EXPECT_NEAR(e.baselines.front().per_episode.nll[t], std::log(Differing::ways_of(t)), 1e-5);
    }
  }
}

/// Without support rows a posterior is the prior. Such tasks therefore train the prior predictive.
TEST(RangesFromZero, AbmlTrainsItsPriorPredictive) {
  for (const char* estimator : {"weight", "local", "flipout"}) {
    std::vector<double> losses;
    for (const char* device : {"reference", "cpu"}) {
      const Config config = test::small_config(
          "abml", {"data.shots=0,2", "train.steps=3", "train.validate_every=0", "train.log_every=1",
                   std::string("abml.estimator=") + estimator});
      TrainerOptions options{.device = device, .threads = 2};
      options.on_report = [&](const TrainReport& r) {
        EXPECT_EQ(r.diverged, 0u) << device << " " << estimator;
        losses.push_back(r.loss);
      };
      Trainer(config, options).run();
    }
    ASSERT_EQ(losses.size(), 6u);
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_NEAR(losses[i], losses[i + 3], 1e-4 * (1.0 + std::abs(losses[i]))) << estimator;
    }
  }
}

TEST(RangesFromZero, AbmlIsRefusedThemWhereKernelsDivideByTheRows) {
  const Config config = test::small_config("abml", {"data.shots=0,2"});
  int refused = 0;
  for (const backend::DeviceInfo& device : backend::list_devices()) {
    if (!device.usable || (device.name != "simt" && !device.name.starts_with("cuda"))) continue;
    EXPECT_THAT(error_text([&] { Trainer(config, {.device = device.name}); }),
                HasSubstr("data.shots: tasks without support rows are not supported on"));
    ++refused;
  }
  if (refused == 0) GTEST_SKIP() << "no CUDA backend in this build";
}

TEST(RangesFromZero, AbmlEvaluatesThePriorAlone) {
  const TempFolder folder;
  const Config config = test::small_config("abml", {"data.shots=0,2", "train.steps=2"});
  Trainer(config, {.run_folder = folder / "run", .device = "cpu", .threads = 1}).run();
  const EvaluatorOptions at_start{
      .device = "cpu", .threads = 1, .overrides = {"data.shots=3", "evaluate.steps=1"}};
  const EvaluatorOptions alone{
      .device = "cpu", .threads = 1, .overrides = {"evaluate.steps=0", "data.shots=0"}};
  const Evaluation prior = Evaluator(folder / "run", alone).run();
  EXPECT_EQ(prior.diverged, 0);
  // The queries do not depend on the number of shots, and no inner step is made.
  EXPECT_NEAR(prior.last().mse->mean, Evaluator(folder / "run", at_start).run().steps[0].mse->mean,
              1e-6);
  EXPECT_THAT(error_text([&] {
                Evaluator(folder / "run",
                          {.device = "cpu", .threads = 1, .overrides = {"data.shots=0"}});
              }),
              HasSubstr("evaluate.steps = 0"));
  EXPECT_THAT(error_text([&] { test::small_config("maml", {"data.shots=0,2"}); }),
              HasSubstr("a range from 0"));
}

}  // namespace
}  // namespace kshot
