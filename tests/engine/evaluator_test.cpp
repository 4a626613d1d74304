// Evaluation and adaptation, against numbers that are computed here from the checkpoint's weights.
#include "kshot/evaluator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numbers>
#include <numeric>

#include "engine/checkpoint.h"
#include "engine/engine_cases.h"
#include "kshot/learner.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::small_config;
using test::TempFolder;
using test::train_run;
using testing::AllOf;
using testing::HasSubstr;

std::unique_ptr<EpisodeSource> sinusoids(const Config& config) {
  SinusoidOptions options;
  options.support = config.data.shots;
  options.query = config.data.queries;
  return make_sinusoid(options);
}

/// The mean squared error of y = w x + b after `steps` steps of gradient descent on the support
/// set.
double line_error(const TaskBatch& batch, double w, double b, double rate, int steps) {
  const int n = batch.shape().support, m = batch.shape().query;
  double total = 0.0;
  for (int t = 0; t < batch.tasks(); ++t) {
    double tw = w, tb = b;
    for (int k = 0; k < steps; ++k) {
      double gw = 0.0, gb = 0.0;
      for (int i = 0; i < n; ++i) {
        const auto at = static_cast<std::size_t>(t * n + i);
        const double x = static_cast<double>(batch.support_x[at]);
        const double d = tw * x + tb - static_cast<double>(batch.support_value[at]);
        gw += 2.0 * d * x / n;
        gb += 2.0 * d / n;
      }
      tw -= rate * gw;
      tb -= rate * gb;
    }
    for (int i = 0; i < m; ++i) {
      const auto at = static_cast<std::size_t>(t * m + i);
      const double d = tw * static_cast<double>(batch.query_x[at]) + tb -
                       static_cast<double>(batch.query_value[at]);
      total += d * d / m;
    }
  }
  return total / batch.tasks();
}

std::vector<std::string> names(const std::vector<Score>& scores) {
  std::vector<std::string> all;
  for (const Score& s : scores) all.push_back(s.name);
  return all;
}

TEST(Evaluator, ErrorsAreThoseOfTheAdaptedLine) {
  const TempFolder folder;
  const Config config =
      small_config("maml", {"network.layers=1,1", "train.steps=3", "evaluate.steps=4"});
  const fs::path run = train_run(folder.path(), config);
  const auto tensors = test::tensors(run / "best.safetensors");
  const double w = tensors.at("theta.layers.0.weight").to_f64()[0];
  const double b = tensors.at("theta.layers.0.bias").to_f64()[0];
  const std::unique_ptr<EpisodeSource> source = sinusoids(config);
  TaskBatch batch(source->shape(), config.evaluate.episodes);
  batch.draw(*source, {config.evaluate.seed, Split::test, 0, 0}, 0, config.evaluate.episodes);
  for (const char* device : {"cpu", "reference"}) {
    EvaluatorOptions options;
    options.device = device;
    const Evaluation e = Evaluator(run, options).run();
    EXPECT_THAT(e.device, testing::StartsWith(device));
    ASSERT_EQ(e.steps.size(), 5u);
    for (int k = 0; k <= 4; ++k) {
      const double expected = line_error(batch, w, b, config.inner.learning_rate, k);
      const Score& score = e.steps[static_cast<std::size_t>(k)];
      EXPECT_EQ(score.inner_steps, k);
      EXPECT_NEAR(score.mse->mean, expected, 1e-4 * expected) << device << " after " << k;
    }
    // The support mean is computed here. The other baselines have their own tests.
    double mean_error = 0.0;
    for (int t = 0; t < batch.tasks(); ++t) {
      const auto support =
          std::span(batch.support_value).subspan(static_cast<std::size_t>(t) * 4, 4);
      const double mean = std::accumulate(support.begin(), support.end(), 0.0) / 4.0;
      for (int i = 0; i < 5; ++i) {
        const double d =
            mean - static_cast<double>(batch.query_value[static_cast<std::size_t>(t * 5 + i)]);
        mean_error += d * d / 5.0 / batch.tasks();
      }
    }
    EXPECT_EQ(names(e.baselines),
              (std::vector<std::string>{"support mean", "knn", "ridge regression", "gp_rbf"}));
    EXPECT_TRUE(e.left_out.empty());
    EXPECT_NEAR(e.baselines[0].mse->mean, mean_error, 1e-9 * mean_error);
    EXPECT_FALSE(e.last().nll) << "squared error of a point estimate is no likelihood";
  }
}

/// Tasks with two features, which are zeros and ones if `binary` is true. Each task has `rows`
/// support rows, and one test episode has `other_rows`. The label is the sign of the first feature,
/// and the value is the sum of the features.
class Rows final : public EpisodeSource {
 public:
  Rows(TargetKind target, int rows, int other_rows, bool binary)
      : target_(target), rows_(rows), other_rows_(other_rows), binary_(binary) {}
  TaskShape shape() const override {
    return {.input = {.channels = 2},
            .outputs = target_ == TargetKind::label ? 2 : 1,
            .target = target_,
            .support = std::max(rows_, other_rows_),
            .query = 3};
  }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    RandomStream random({.seed = id.seed, .step = id.step, .task = id.task});
    *slot.support_n = id.split == Split::test && id.task == 3 ? other_rows_ : rows_;
    const auto put = [&](std::span<float> x, std::span<float> value,
                         std::span<std::int32_t> label) {
      for (float& f : x) f = binary_ ? (random.normal() > 0.0f ? 1.0f : 0.0f) : random.normal();
      for (std::size_t i = 0; i < x.size() / 2; ++i) {
        if (target_ == TargetKind::value) value[i] = x[2 * i] + x[2 * i + 1];
        if (target_ == TargetKind::label) label[i] = x[2 * i] > 0.0f;
      }
    };
    put(slot.support_x, slot.support_value, slot.support_label);
    put(slot.query_x, slot.query_value, slot.query_label);
  }
  std::string describe() const override { return "rows"; }

 private:
  TargetKind target_;
  int rows_, other_rows_;
  bool binary_;
};

Evaluation evaluate_rows(TargetKind target, int rows, int other_rows, bool binary) {
  const TempFolder folder;
  const bool classify = target == TargetKind::label;
  Config config = small_config("maml", {classify ? "network.layers=2,2" : "network.layers=2,1",
                                        classify ? "loss.type=cross_entropy" : "loss.type=mse",
                                        "train.steps=1", "evaluate.episodes=8"});
  // This method has a prior, so that it predicts without support rows.
  if (other_rows == 0) {
    const std::string name = classify ? "bayes_protonet" : "alpaca";
    config = Config::parse("algorithm = \"" + name + R"("
network = { layers = [2, 4], activation = "tanh" }
train = { steps = 1, meta_batch = 4 }
evaluate.episodes = 8
)",
                           "test");
  }
  const auto source = std::make_shared<Rows>(target, rows, other_rows, binary);
  Trainer(config, source, {.run_folder = folder / "run", .device = "cpu", .threads = 1}).run();
  return Evaluator(folder / "run", source).run();
}

TEST(Evaluator, BaselinesBesideAPointMethod) {
  const Evaluation values = evaluate_rows(TargetKind::value, 9, 5, false);
  EXPECT_EQ(names(values.baselines),
            (std::vector<std::string>{"support mean", "knn", "ridge regression", "gp_rbf"}));
  // The Gaussian process is the only method with a predictive distribution. It has its own columns.
  EXPECT_TRUE(values.last().coverage.empty());
  const Score& process = values.baselines.back();
  ASSERT_EQ(process.coverage.size(), 3u);
  EXPECT_TRUE(process.nll);
  EXPECT_GT(process.coverage[2].observed.mean, 0.5);
  EXPECT_LT(process.mse->mean, values.baselines.front().mse->mean);
  EXPECT_THAT(values.table(),
              AllOf(HasSubstr("in 95 % band"), testing::Not(HasSubstr("left out"))));

  const Evaluation bits = evaluate_rows(TargetKind::value, 9, 5, true);
  EXPECT_EQ(names(bits.baselines),
            (std::vector<std::string>{"support mean", "knn", "ridge regression", "gp_rbf",
                                      "gp_tanimoto"}));
  EXPECT_EQ(Evaluation::from_json(bits.to_json()).to_json(), bits.to_json());

  const std::vector<std::string> classifiers = {
      "nearest centroid", "mahalanobis", "knn", "logistic regression", "gp_rbf", "gp_tanimoto"};
  const Evaluation labels = evaluate_rows(TargetKind::label, 20, 12, true);
  EXPECT_EQ(names(labels.baselines), classifiers);
  for (const Score& s : labels.baselines) {
    EXPECT_EQ(s.accuracy->episodes, 8u) << s.name;
    EXPECT_GT(s.accuracy->mean, 0.9) << s.name << ": one feature is the label";
    EXPECT_TRUE(std::isfinite(s.nll->mean)) << s.name;
  }
}

TEST(Evaluator, BaselinesThatCannotBeFittedInAnEpisodeAreLeftOutAndNamed) {
  // One episode of eight has no support rows, where the method predicts from its prior. No baseline
  // can be compared with it.
  for (const TargetKind target : {TargetKind::value, TargetKind::label}) {
    const Evaluation e = evaluate_rows(target, 4, 0, false);
    EXPECT_EQ(e.diverged, 0);
    EXPECT_TRUE(e.baselines.empty());
    EXPECT_EQ(e.left_out.size(), target == TargetKind::label ? 5u : 4u);
    EXPECT_THAT(e.table(), HasSubstr("left out: knn (episode 3: there are no support rows"));
    EXPECT_EQ(Evaluation::from_json(e.to_json()).to_json(), e.to_json());
  }
  // One episode has more support rows than the methods on pairs of rows accept.
  const Evaluation large = evaluate_rows(TargetKind::label, 4, 1100, false);
  EXPECT_EQ(names(large.baselines),
            (std::vector<std::string>{"nearest centroid", "mahalanobis", "logistic regression"}));
  EXPECT_THAT(large.table(), HasSubstr("left out: gp_rbf (episode 3: 1100 support rows of 2 "));
}

TEST(Evaluator, ThreadsDoNotMatter) {
  for (const char* algorithm : {"maml", "abml"}) {
    const TempFolder folder;
    const fs::path run = train_run(folder.path(), small_config(algorithm, {"train.steps=2"}));
    std::vector<Evaluation> seen;
    for (const int threads : {1, 2}) {
      EvaluatorOptions options;
      options.device = "cpu";
      options.threads = threads;
      options.overrides = {"evaluate.episodes=70"};
      seen.push_back(Evaluator(run, options).run());
      seen.back().seconds = 0.0;
      seen.back().device = "";
    }
    EXPECT_EQ(seen[0].to_json(), seen[1].to_json());
  }
}

TEST(Evaluator, StepsSamplesAndShotsAreSetApart) {
  const TempFolder folder;
  const fs::path run = train_run(folder.path(), small_config("abml", {"train.steps=2"}));
  EvaluatorOptions options;
  options.overrides = {"evaluate.steps=4", "evaluate.samples=7", "data.shots=9"};
  const Evaluation e = Evaluator(run, options).run();
  EXPECT_EQ(e.steps.size(), 5u);
  EXPECT_EQ(e.samples, 7);
  EXPECT_EQ(e.shape.support, 9);
  ASSERT_EQ(e.last().coverage.size(), 3u);
  EXPECT_TRUE(e.last().nll);
  EXPECT_THAT(e.table(), HasSubstr("in 90 % band"));
}

TEST(Evaluator, JsonComesBackTheSame) {
  const TempFolder folder;
  const fs::path run = train_run(folder.path(), small_config("abml", {"train.steps=1"}));
  const Evaluation e = Evaluator(run).run();
  EXPECT_EQ(Evaluation::from_json(e.to_json()).to_json(), e.to_json());
  EXPECT_THAT(error_text([] { Evaluation::from_json("{}", "e.json"); }), HasSubstr("e.json"));
}

TEST(Evaluator, JsonThatIsNoEvaluationIsRefused) {
  const TempFolder folder;
  const fs::path run = train_run(folder.path(), small_config("abml", {"train.steps=1"}));
  const auto whole = nlohmann::json::parse(Evaluator(run).run().to_json());
  const auto refused = [](const nlohmann::json& j) {
    return error_text([&] { Evaluation::from_json(j.dump(), "e.json"); });
  };
  auto changed = whole;
  changed["split"] = "holdout";
  EXPECT_THAT(refused(changed), AllOf(HasSubstr("e.json"), HasSubstr("\"split\" is \"holdout\"")));
  // The score lacks the number that reports are based on.
  changed = whole;
  changed["baselines"][0].erase("mse");
  EXPECT_THAT(refused(changed), AllOf(HasSubstr("e.json"), HasSubstr("has no \"mse\"")));
  changed = whole;
  changed["target"] = "label";
  EXPECT_THAT(refused(changed), HasSubstr("has no \"accuracy\""));
}

TEST(Evaluator, DivergedEpisodesAreLeftOutAndCounted) {
  const TempFolder folder;
  const fs::path run = train_run(folder.path(), small_config("maml", {"train.steps=1"}));
  EvaluatorOptions options;
  options.threads = 2;
  const Evaluation e =
      Evaluator(run, std::make_shared<test::Spoilt>(Split::test, 21), options).run();
  EXPECT_EQ(e.diverged, 1);
  EXPECT_EQ(e.last().mse->episodes, 39u);
  EXPECT_TRUE(std::isfinite(e.last().mse->mean));
  EXPECT_THAT(e.table(), HasSubstr("1 diverged"));
}

TEST(Learner, AgreesWithTheEvaluatorTaskByTask) {
  // Compares a task in a wave of its own with the same task among others.
  const TempFolder folder;
  const Config config = small_config("maml", {"train.steps=3"});
  const fs::path run = train_run(folder.path(), config);
  const std::unique_ptr<EpisodeSource> source = sinusoids(config);
  TaskBatch batch(source->shape(), 40);
  batch.draw(*source, {config.evaluate.seed, Split::test, 0, 0}, 0, 40);
  const Learner learner(run);
  double mean = 0.0;
  for (std::size_t t = 0; t < 40; ++t) {
    const auto x = std::span<const float>(batch.support_x).subspan(t * 4, 4);
    const auto y = std::span<const float>(batch.support_value).subspan(t * 4, 4);
    const auto q = std::span<const float>(batch.query_x).subspan(t * 5, 5);
    const Prediction p = learner.predict({.x = x, .values = y}, q);
    ASSERT_EQ(p.mean.size(), 5u);
    EXPECT_EQ(p.inner_steps, 2);
    for (std::size_t i = 0; i < 5; ++i) {
      const double d = p.mean[i] - static_cast<double>(batch.query_value[t * 5 + i]);
      mean += d * d / 5.0 / 40.0;
    }
    EXPECT_EQ(p.std, std::vector<double>(5, 0.0));
  }
  EXPECT_NEAR(Evaluator(run).run().last().mse->mean, mean, 1e-5 * mean);
}

TEST(Evaluator, PredictsWithTheLearnedNoise) {
  for (const Config& config :
       {small_config("maml", test::learned_noise), small_config("abml", test::learned_noise),
        test::leo_points(test::learned_noise)}) {
    const TempFolder folder;
    const fs::path run = train_run(folder.path(), config);
    const double std = std::exp(test::tensors(find_checkpoint(run)).at("log_noise").to_f64()[0]);
    EXPECT_NE(static_cast<float>(std), 0.5f);
    const std::unique_ptr<EpisodeSource> source = sinusoids(config);
    const int tasks = config.evaluate.episodes;
    TaskBatch batch(source->shape(), tasks);
    batch.draw(*source, {config.evaluate.seed, Split::test, 0, 0}, 0, tasks);
    const Learner learner(run);
    double nll = 0.0, inside = 0.0;
    for (std::size_t t = 0; t < static_cast<std::size_t>(tasks); ++t) {
      const auto x = std::span<const float>(batch.support_x).subspan(t * 4, 4);
      const auto y = std::span<const float>(batch.support_value).subspan(t * 4, 4);
      const auto q = std::span<const float>(batch.query_x).subspan(t * 5, 5);
      const Prediction p = learner.predict({.x = x, .values = y}, q);
      EXPECT_DOUBLE_EQ(p.noise_std, std);
      if (p.samples > 1) continue;
      for (std::size_t i = 0; i < 5; ++i) {
        const double z = (static_cast<double>(batch.query_value[t * 5 + i]) - p.mean[i]) / std;
        nll += (0.5 * z * z + std::log(std) + 0.5 * std::log(2.0 * std::numbers::pi)) / 5 / tasks;
        inside += (std::abs(z) <= 1.6448536269514722 ? 1.0 : 0.0) / 5 / tasks;
      }
    }
    const Evaluation e = Evaluator(run).run();
    ASSERT_TRUE(e.last().nll);
    ASSERT_EQ(e.last().coverage.size(), 3u);
    // The other algorithms predict by samples.
    if (config.algorithm != AlgorithmKind::maml) continue;
    EXPECT_NEAR(e.last().nll->mean, nll, 1e-5 * (1.0 + std::abs(nll)));
    EXPECT_EQ(e.last().coverage[1].level, 0.9);
    EXPECT_NEAR(e.last().coverage[1].observed.mean, inside, 1e-9);
  }
}

TEST(Learner, AdaptedWeightsGiveTheSamePredictions) {
  const TempFolder folder;
  const fs::path run =
      train_run(folder.path(), small_config("maml", {"network.layers=1,1", "train.steps=3"}));
  const float x[] = {-1.0f, 0.5f, 2.0f}, y[] = {0.3f, -1.0f, 2.5f}, query[] = {1.5f, -3.0f};
  const Prediction p = Learner(run).predict({.x = x, .values = y}, query);
  ASSERT_EQ(p.adapted.size(), 2u);
  EXPECT_EQ(p.adapted[0].name, "theta.layers.0.weight");
  for (std::size_t i = 0; i < 2; ++i) {
    const double expected =
        p.adapted[0].values[0] * static_cast<double>(query[i]) + p.adapted[1].values[0];
    EXPECT_NEAR(p.mean[i], expected, 1e-5);
  }
}

TEST(Learner, ProbabilitiesAndUncertaintyOfABayesianClassifier) {
  const TempFolder folder;
  /// Two classes of numbers, which differ in their sign.
  class Signs final : public EpisodeSource {
   public:
    TaskShape shape() const override {
      return {.input = {.channels = 1}, .outputs = 2, .support = 4, .query = 4};
    }
    void fill(const TaskId& id, const TaskSlot& slot) const override {
      RandomStream random({.seed = id.seed, .step = id.step, .task = id.task});
      for (std::size_t i = 0; i < 4; ++i) {
        slot.support_x[i] = random.normal();
        slot.query_x[i] = random.normal();
        slot.support_label[i] = slot.support_x[i] > 0.0f;
        slot.query_label[i] = slot.query_x[i] > 0.0f;
      }
    }
    std::string describe() const override { return "signs"; }
  };
  const Config config =
      small_config("abml", {"network.layers=1,8,2", "loss.type=cross_entropy", "train.steps=2",
                            "abml.log_sigma_init=-1", "evaluate.samples=30"});
  const auto signs = std::make_shared<Signs>();
  Trainer(config, signs, {.run_folder = folder / "run", .device = "cpu", .threads = 1}).run();
  const float x[] = {-1.0f, 1.0f, -0.5f, 0.5f}, query[] = {-2.0f, 0.1f, 2.0f};
  const std::int32_t labels[] = {0, 1, 0, 1};
  const Learner learner(folder / "run");
  const std::vector<Prediction> steps = learner.predict_steps({x, labels}, query);
  ASSERT_EQ(steps.size(), 3u);
  const Prediction& p = steps.back();
  EXPECT_EQ(p.samples, 30);
  EXPECT_TRUE(p.classification);
  for (std::size_t row = 0; row < 3; ++row) {
    const double a = p.mean[2 * row], b = p.mean[2 * row + 1];
    EXPECT_NEAR(a + b, 1.0, 1e-12);
    EXPECT_NEAR(p.entropy[row], -a * std::log(a) - b * std::log(b), 1e-12);
    EXPECT_GT(p.mutual_information[row], 0.0);
    EXPECT_LT(p.mutual_information[row], p.entropy[row]);
    EXPECT_GT(p.std[2 * row], 0.0);
    // The expected value is the mean over samples of the softmax of two logits.
    double expected = 0.0;
    for (std::size_t s = 0; s < 30; ++s) {
      const double margin = p.raw[s * 6 + 2 * row + 1] - p.raw[s * 6 + 2 * row];
      expected += 1.0 / (1.0 + std::exp(margin)) / 30.0;
    }
    EXPECT_NEAR(a, expected, 1e-9);
  }
  ASSERT_EQ(p.adapted.size(), 8u);
  EXPECT_EQ(p.adapted[4].name, "log_sigma.layers.0.weight");
  EXPECT_EQ(learner.predict({x, labels}, query).mean, p.mean) << "the same every time";

  const Evaluation e = Evaluator(folder / "run", signs).run();
  EXPECT_TRUE(e.last().accuracy && e.last().brier && e.last().ece);
  EXPECT_EQ(e.baselines[0].name, "nearest centroid");
}

TEST(Learner, SaysWhatDoesNotFit) {
  const TempFolder folder;
  const Learner learner(train_run(folder.path(), small_config("maml", {"train.steps=1"})));
  const float x[] = {1.0f, 2.0f}, y[] = {1.0f}, nan[] = {std::nanf(""), 1.0f};
  EXPECT_THAT(error_text([&] { learner.predict({.x = x, .values = y}, x); }),
              HasSubstr("expected 2 for 2 rows"));
  EXPECT_THAT(error_text([&] { learner.predict({.x = {}, .values = {}}, x); }),
              HasSubstr("support rows"));
  EXPECT_THAT(error_text([&] { learner.predict({.x = x, .values = x}, {}); }),
              HasSubstr("query rows"));
  EXPECT_THAT(error_text([&] { learner.predict({.x = nan, .values = x}, x); }),
              HasSubstr("finite"));
}

/// Two classes that a threshold separates. The query rows of every fourth task are all of one
/// class.
class TwoClasses final : public EpisodeSource {
 public:
  TaskShape shape() const override {
    return {.input = {.channels = 1}, .outputs = 2, .support = 4, .query = 6};
  }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    for (std::size_t i = 0; i < 4; ++i) {
      slot.support_label[i] = static_cast<std::int32_t>(i % 2);
      slot.support_x[i] = slot.support_label[i] == 1 ? 1.0f : -1.0f;
    }
    for (std::size_t i = 0; i < 6; ++i) {
      slot.query_label[i] = id.task % 4 == 3 ? 0 : static_cast<std::int32_t>(i % 2);
      // The first row of class 0 lies above two of the three rows of class 1.
      slot.query_x[i] = i == 0 ? 2.5f : slot.query_label[i] == 1 ? static_cast<float>(i) : -1.0f;
    }
  }
  std::string describe() const override { return "two classes"; }
};

TEST(Evaluator, TwoClassesHaveAnAreaUnderTheCurve) {
  const TempFolder folder;
  const auto source = std::make_shared<TwoClasses>();
  Config config;
  config.algorithm = AlgorithmKind::protonet;
  config.loss.type = LossType::cross_entropy;
  config.network.layers = {1, 1};
  config.train.steps = 1;
  config.train.validate_every = 0;
  config.evaluate.episodes = 8;
  Trainer(config, source, {.run_folder = folder / "run", .device = "reference", .threads = 1})
      .run();
  const Evaluation e =
      Evaluator(folder / "run", source, EvaluatorOptions{.device = "reference", .threads = 1})
          .run();
  // The rows of class 1 are 1, 3 and 5, and those of class 0 are 2.5, -1 and -1. One of the nine
  // pairs is in the wrong order: 1 and 2.5.
  ASSERT_TRUE(e.last().auroc);
  EXPECT_NEAR(e.last().auroc->mean, 8.0 / 9.0, 1e-12);
  EXPECT_EQ(e.last().auroc->episodes, 6u) << "two episodes have queries of one class";
  EXPECT_TRUE(std::isnan(e.last().per_episode.auroc.at(3)));
  EXPECT_THAT(e.table(), HasSubstr("AUROC"));
  const Evaluation back = Evaluation::from_json(e.to_json());
  EXPECT_EQ(back.last().auroc->mean, e.last().auroc->mean);
  EXPECT_EQ(back.to_json(), e.to_json());
}

TEST(Evaluator, R2IsThatOfEachEpisode) {
  const TempFolder folder;
  const Config config = test::small_config("maml");
  const Evaluation e =
      Evaluator(train_run(folder.path(), config), EvaluatorOptions{.device = "cpu", .threads = 1})
          .run();
  // The expected values use the support mean of an episode.
  TaskBatch batch(sinusoids(config)->shape(), 1);
  batch.draw(*sinusoids(config), {config.evaluate.seed, Split::test, 0, 0}, 0, 1);
  double mean = 0.0, centre = 0.0, residual = 0.0, total = 0.0;
  for (const float y : batch.support_value) mean += static_cast<double>(y) / 4.0;
  for (const float y : batch.query_value) centre += static_cast<double>(y) / 5.0;
  for (const float y : batch.query_value) {
    residual += std::pow(static_cast<double>(y) - mean, 2);
    total += std::pow(static_cast<double>(y) - centre, 2);
  }
  const Score& support_mean = e.baselines.front();
  EXPECT_EQ(support_mean.name, "support mean");
  EXPECT_NEAR(support_mean.per_episode.r2.front(), 1.0 - residual / total, 1e-9);
  ASSERT_TRUE(e.last().r2);
  EXPECT_THAT(e.table(), HasSubstr("R2"));
}

}  // namespace
}  // namespace kshot
