// The uncertainty scores of an evaluation, and calibration after training, against numbers that are
// computed from the learner's predictions of the same episodes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/checkpoint.h"
#include "engine/engine_cases.h"
#include "kshot/calibration.h"
#include "kshot/evaluator.h"
#include "kshot/learner.h"
#include "metrics/classification.h"
#include "metrics/predictive.h"
#include "support/error_text.h"
#include "support/put_file.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::small_config;
using test::TempFolder;
using testing::AllOf;
using testing::HasSubstr;

/// Two classes of numbers that differ in their sign. A third of the labels are flipped.
class NoisySigns final : public EpisodeSource {
 public:
  TaskShape shape() const override {
    return {.input = {.channels = 1}, .outputs = 2, .support = 6, .query = 7};
  }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    RandomStream random({.seed = id.seed,
                         .step = id.step,
                         .task = id.task,
                         .inner_step = static_cast<std::uint32_t>(id.split)});
    const auto put = [&](std::span<float> x, std::span<std::int32_t> label) {
      for (std::size_t i = 0; i < x.size(); ++i) {
        x[i] = random.normal();
        label[i] = (x[i] > 0.0f) != (random.below(3) == 0);
      }
    };
    put(slot.support_x, slot.support_label);
    // The learner knows only the classes of the support rows, so that both classes must occur.
    slot.support_label[0] = 0;
    slot.support_label[1] = 1;
    put(slot.query_x, slot.query_label);
  }
  std::string describe() const override { return "noisy signs"; }
};

/// A run, its source, and the test episodes as the evaluator draws them.
struct Trained {
  explicit Trained(const Config& config_in, std::shared_ptr<const EpisodeSource> source_in)
      : config(config_in), source(std::move(source_in)), batch(source->shape(), 40) {
    Trainer(config, source, {.run_folder = folder / "run", .device = "cpu", .threads = 1}).run();
    batch.draw(*source, {config.evaluate.seed, Split::test, 0, 0}, 0, 40);
  }
  fs::path run() const { return folder / "run"; }
  Evaluation evaluate(EvaluatorOptions options = {}) const {
    options.device = "cpu";
    options.threads = 1;
    return Evaluator(run(), source, options).run();
  }
  RunCalibration calibrate() const {
    EvaluatorOptions options{.device = "cpu", .threads = 1, .split = Split::validation};
    const RunCalibration c = Evaluator(run(), source, options).calibrate();
    test::put_file(run() / calibration_file, c.to_json());
    return c;
  }
  Prediction predict(const Learner& learner, std::size_t task) const {
    const auto n = static_cast<std::size_t>(source->shape().support);
    const auto m = static_cast<std::size_t>(source->shape().query);
    SupportRows support{.x = std::span<const float>(batch.support_x).subspan(task * n, n)};
    if (source->shape().target == TargetKind::label) {
      support.labels = std::span<const std::int32_t>(batch.support_label).subspan(task * n, n);
    } else {
      support.values = std::span<const float>(batch.support_value).subspan(task * n, n);
    }
    return learner.predict(support, std::span<const float>(batch.query_x).subspan(task * m, m));
  }

  TempFolder folder;
  Config config;
  std::shared_ptr<const EpisodeSource> source;
  TaskBatch batch;
};

Config classifier(const std::string& algorithm, const std::vector<std::string>& more = {}) {
  std::vector<std::string> overrides = {"network.layers=1,8,2", "loss.type=cross_entropy",
                                        "train.steps=2", "inner.learning_rate=0.2"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return small_config(algorithm, overrides);
}

Config regressor(const std::string& algorithm) {
  return algorithm == "abml" ? small_config("abml", {"train.steps=2", "loss.type=gaussian_nll",
                                                     "loss.noise_std=0.5", "evaluate.samples=5"})
                             : test::head_config(algorithm);
}

std::shared_ptr<const EpisodeSource> sinusoids() {
  return make_sinusoid({.support = 4, .query = 5});
}

TEST(Uncertainty, OfAClassifierIsThatOfItsAnswers) {
  const Trained trained(
      classifier("maml", {"evaluate.bins=7", "evaluate.edges=left", "evaluate.risk=0.3"}),
      std::make_shared<NoisySigns>());
  const Learner learner(trained.run(), {.device = "cpu", .threads = 1});
  std::vector<metrics::Answer> answers;
  std::vector<double> all, aurc;
  double entropy = 0.0;
  metrics::Calibration calibration(7, metrics::BinEdges::left);
  for (std::size_t t = 0; t < 40; ++t) {
    const Prediction p = trained.predict(learner, t);
    const auto labels = std::span<const std::int32_t>(trained.batch.query_label).subspan(t * 7, 7);
    const auto own = metrics::answers(p.mean, labels, 2);
    aurc.push_back(metrics::RiskCoverage(own).aurc());
    answers.insert(answers.end(), own.begin(), own.end());
    all.insert(all.end(), p.mean.begin(), p.mean.end());
    for (std::size_t r = 0; r < 7; ++r) entropy += p.entropy[r] / 7 / 40;
  }
  for (const metrics::Answer& a : answers) calibration.add(a.confidence, a.right);
  const Evaluation e = trained.evaluate();
  ASSERT_TRUE(e.last().uncertainty);
  const UncertaintyScores& u = *e.last().uncertainty;
  const metrics::RiskCoverage risk(answers);
  // Predictions in a wave of one task and in a wave of many tasks differ by rounding in float.
  EXPECT_NEAR(*e.last().ece, calibration.ece(), 1e-5);
  EXPECT_NEAR(u.ece.value, calibration.ece(), 1e-5);
  EXPECT_NEAR(u.ece_equal_mass.value, metrics::ece_equal_mass(answers, 7), 1e-5);
  EXPECT_NEAR(u.classwise_ece.value,
              metrics::classwise_ece(all, trained.batch.query_label, 2, 7, metrics::BinEdges::left),
              1e-5);
  EXPECT_NEAR(u.aurc.value, risk.aurc(), 1e-5);
  EXPECT_NEAR(u.risk_at_coverage.value, risk.risk_at(0.8), 1e-9);
  EXPECT_NEAR(u.coverage_at_risk.value, risk.coverage_at(0.3), 1e-9);
  EXPECT_LT(u.ece.low, u.ece.high);
  EXPECT_LE(u.curve.size(), 200u);
  EXPECT_NEAR(u.curve.back().risk, 1.0 - e.last().accuracy->mean, 1e-12);
  ASSERT_EQ(e.last().per_episode.aurc.size(), 40u);
  EXPECT_NEAR(e.last().per_episode.aurc[3], aurc[3], 1e-5);
  EXPECT_NEAR(e.last().entropy->mean, entropy, 1e-5);
  EXPECT_FALSE(e.last().mutual_information) << "a point method has no samples";
  EXPECT_LT(e.last().accuracy->low, e.last().accuracy->mean);
  EXPECT_EQ(e.bins, 7);
  for (const Score& baseline : e.baselines) {
    EXPECT_TRUE(baseline.uncertainty) << baseline.name;
    EXPECT_FALSE(baseline.mutual_information) << baseline.name;
  }
  EXPECT_THAT(e.table(), AllOf(HasSubstr("AURC"), HasSubstr("cover at 30 %")));
  EXPECT_EQ(Evaluation::from_json(e.to_json()).to_json(), e.to_json());
}

/// The learner draws the samples of its only task like those of an evaluation's first episode.
TEST(Uncertainty, OfPosteriorSamplesHasTwoParts) {
  const Trained trained(classifier("abml", {"abml.log_sigma_init=-1", "evaluate.samples=9"}),
                        std::make_shared<NoisySigns>());
  const Learner learner(trained.run(), {.device = "cpu", .threads = 1});
  const Prediction p = trained.predict(learner, 0);
  double entropy = 0.0, mutual = 0.0;
  for (std::size_t r = 0; r < 7; ++r) {
    entropy += p.entropy[r] / 7;
    mutual += p.mutual_information[r] / 7;
  }
  const Evaluation e = trained.evaluate();
  EXPECT_NEAR(e.last().per_episode.entropy.at(0), entropy, 1e-5);
  EXPECT_NEAR(e.last().per_episode.mutual_information.at(0), mutual, 1e-5);
  EXPECT_GT(mutual, 0.0);
  EXPECT_EQ(e.last().mutual_information->episodes, 40u);
  EXPECT_THAT(e.table(), HasSubstr("mutual inf."));

  const Trained values(regressor("abml"), sinusoids());
  const Prediction q = values.predict(Learner(values.run(), {.device = "cpu", .threads = 1}), 0);
  double crps = 0.0, total = 0.0;
  for (std::size_t i = 0; i < 5; ++i) {
    std::vector<double> means;
    for (std::size_t s = 0; s < 5; ++s) means.push_back(q.raw[s * 5 + i]);
    crps += metrics::crps_mixture(static_cast<double>(values.batch.query_value[i]), means, 0.5) / 5;
    total += std::pow(metrics::mixture_std(means, 0.5), 2) / 5;
  }
  const Score last = values.evaluate().last();
  EXPECT_NEAR(last.per_episode.crps.at(0), crps, 1e-4 * crps);
  EXPECT_NEAR(last.per_episode.epistemic_variance.at(0), total - 0.25, 1e-4);
  EXPECT_NEAR(last.aleatoric_variance->mean, 0.25, 1e-12);
  EXPECT_EQ(last.pit.size(), 10u);
}

TEST(Uncertainty, OfARegressionIsThatOfItsDistributions) {
  for (const char* algorithm : {"alpaca", "dkt"}) {
    const Trained trained(regressor(algorithm), sinusoids());
    const Learner learner(trained.run(), {.device = "cpu", .threads = 1});
    double crps = 0.0, sharpness = 0.0, total = 0.0;
    metrics::PitHistogram pit;
    for (std::size_t t = 0; t < 40; ++t) {
      const Prediction p = trained.predict(learner, t);
      for (std::size_t i = 0; i < 5; ++i) {
        std::vector<double> means;
        for (int s = 0; s < p.samples; ++s) {
          means.push_back(p.raw[static_cast<std::size_t>(s) * 5 + i]);
        }
        const double y = static_cast<double>(trained.batch.query_value[t * 5 + i]);
        const double std = p.predictive_std.empty() ? p.noise_std : p.predictive_std[i];
        crps += metrics::crps_mixture(y, means, std) / 200;
        sharpness += metrics::mixture_std(means, std) / 200;
        total += std::pow(metrics::mixture_std(means, std), 2) / 200;
        pit.add(metrics::pit_mixture(y, means, std));
      }
    }
    const Evaluation e = trained.evaluate();
    const Score& last = e.last();
    EXPECT_NEAR(last.crps->mean, crps, 1e-4 * crps) << algorithm;
    EXPECT_NEAR(last.sharpness->mean, sharpness, 1e-4 * sharpness) << algorithm;
    EXPECT_NEAR(last.epistemic_variance->mean + last.aleatoric_variance->mean, total, 1e-4 * total)
        << algorithm;
    std::size_t differ = 0;
    ASSERT_EQ(last.pit.size(), 10u);
    for (std::size_t b = 0; b < 10; ++b) {
      differ += static_cast<std::size_t>(
          std::abs(static_cast<int>(last.pit[b]) - static_cast<int>(pit.counts()[b])));
    }
    EXPECT_LE(differ, 2u) << algorithm << ": rounding may move a target over an edge";
    // The aleatoric variance is that of the noise alone, which the head has learned.
    const auto tensors = test::tensors(find_checkpoint(trained.run()));
    const double noise =
        std::string(algorithm) == "abml" ? 0.5 : std::exp(tensors.at("head.log_noise").to_f64()[0]);
    EXPECT_NEAR(last.aleatoric_variance->mean, noise * noise, 1e-6) << algorithm;
    EXPECT_LT(last.crps->low, last.crps->high);
    ASSERT_EQ(last.per_episode.coverage.size(), 3u);
    EXPECT_EQ(last.per_episode.coverage[1].size(), 40u);
    EXPECT_LE(last.coverage[1].observed.low, last.coverage[1].observed.mean);
    for (const Score& baseline : e.baselines) EXPECT_TRUE(baseline.crps) << baseline.name;
    EXPECT_THAT(e.table(), AllOf(HasSubstr("CRPS"), HasSubstr("epistemic var.")));
    EXPECT_EQ(Evaluation::from_json(e.to_json()).to_json(), e.to_json());
  }
}

TEST(Uncertainty, OfAPointPredictionIsItsAbsoluteError) {
  const Trained trained(small_config("maml", {"train.steps=1"}), sinusoids());
  const Learner learner(trained.run(), {.device = "cpu", .threads = 1});
  double error = 0.0;
  for (std::size_t t = 0; t < 40; ++t) {
    const Prediction p = trained.predict(learner, t);
    for (std::size_t i = 0; i < 5; ++i) {
      error +=
          std::abs(p.mean[i] - static_cast<double>(trained.batch.query_value[t * 5 + i])) / 200;
    }
  }
  const Evaluation e = trained.evaluate();
  EXPECT_NEAR(e.last().crps->mean, error, 1e-5 * error);
  EXPECT_FALSE(e.last().sharpness || e.last().epistemic_variance);
  EXPECT_TRUE(e.last().pit.empty());
}

TEST(Uncertainty, EvaluationsOfEarlierVersionsAreRead) {
  const Trained trained(classifier("maml"), std::make_shared<NoisySigns>());
  auto j = nlohmann::json::parse(trained.evaluate().to_json());
  for (const char* key : {"bins", "edges", "risk"}) j.erase(key);
  for (const char* list : {"steps", "baselines"}) {
    for (auto& score : j[list]) {
      for (const char* key : {"uncertainty", "entropy"}) score.erase(key);
      for (const char* key : {"accuracy", "nll", "brier"}) score[key].erase("bootstrap");
      for (const char* key : {"aurc", "entropy"}) score["per_episode"].erase(key);
    }
  }
  const Evaluation old = Evaluation::from_json(j.dump());
  EXPECT_EQ(old.bins, 15);
  EXPECT_FALSE(old.last().uncertainty);
  EXPECT_THAT(old.table(), testing::Not(HasSubstr("AURC")));
}

TEST(Calibration, OfAClassifierLowersTheLikelihoodOfItsEpisodes) {
  for (const char* algorithm : {"maml", "abml"}) {
    const Trained trained(classifier(algorithm), std::make_shared<NoisySigns>());
    const RunCalibration c = trained.calibrate();
    EXPECT_TRUE(c.classification);
    EXPECT_EQ(RunCalibration::from_json(c.to_json(), "c.json").to_json(), c.to_json());
    const Evaluation e = trained.evaluate({.split = Split::validation, .calibrated = true});
    ASSERT_EQ(e.steps.size(), 4u);
    EXPECT_TRUE(e.last().calibrated);
    EXPECT_FALSE(e.steps[2].calibrated);
    EXPECT_NEAR(e.steps[2].nll->mean, c.nll_before, 1e-9);
    EXPECT_NEAR(e.last().nll->mean, c.nll_after, 1e-9);
    EXPECT_LT(c.nll_after, c.nll_before);
    EXPECT_NEAR(*e.steps[2].ece, *c.ece_before, 1e-9);
    EXPECT_NEAR(*e.last().ece, *c.ece_after, 1e-9);
    EXPECT_EQ(e.last().accuracy->mean, e.steps[2].accuracy->mean) << "the order of classes stays";
    EXPECT_THAT(e.table(), HasSubstr("calibrated: temperature "));
    EXPECT_TRUE(Evaluation::from_json(e.to_json()).last().calibrated);

    const Prediction before =
        trained.predict(Learner(trained.run(), {.device = "cpu", .threads = 1}), 0);
    const Prediction after = trained.predict(
        Learner(trained.run(), {.device = "cpu", .threads = 1, .calibrated = true}), 0);
    std::vector<double> expected = before.mean;
    c.apply(expected, 2);
    EXPECT_EQ(after.mean, expected);
    EXPECT_NE(after.mean, before.mean);
    EXPECT_EQ(after.mutual_information, before.mutual_information);
  }
}

TEST(Calibration, OfARegressionStretchesItsDistributions) {
  for (const char* algorithm : {"abml", "alpaca"}) {
    const Trained trained(regressor(algorithm), sinusoids());
    const RunCalibration c = trained.calibrate();
    EXPECT_FALSE(c.classification);
    const Evaluation e = trained.evaluate({.split = Split::validation, .calibrated = true});
    const Score& before = e.steps[e.steps.size() - 2];
    EXPECT_NEAR(before.nll->mean, c.nll_before, 1e-9);
    EXPECT_NEAR(e.last().nll->mean, c.nll_after, 1e-9);
    EXPECT_LT(c.nll_after, c.nll_before);
    EXPECT_NEAR(e.last().mse->mean, before.mse->mean, 1e-9) << "the mean stays";
    EXPECT_NEAR(e.last().sharpness->mean, std::sqrt(c.value) * before.sharpness->mean, 1e-9);
    const Prediction p =
        trained.predict(Learner(trained.run(), {.device = "cpu", .threads = 1}), 0);
    const Prediction q = trained.predict(
        Learner(trained.run(), {.device = "cpu", .threads = 1, .calibrated = true}), 0);
    for (std::size_t i = 0; i < 5; ++i) {
      EXPECT_NEAR(q.mean[i], p.mean[i], 1e-12);
      EXPECT_NEAR(q.std[i], std::sqrt(c.value) * p.std[i], 1e-12);
    }
    EXPECT_NEAR(q.noise_std, std::sqrt(c.value) * p.noise_std, 1e-12);
  }
}

TEST(Calibration, FilesThatDoNotFitAreRefused) {
  const Trained trained(classifier("maml"), std::make_shared<NoisySigns>());
  const auto evaluated = [&](std::vector<std::string> overrides = {}) {
    return error_text(
        [&] { trained.evaluate({.overrides = std::move(overrides), .calibrated = true}); });
  };
  EXPECT_THAT(evaluated(), AllOf(HasSubstr("calibration.json"), HasSubstr("kshot calibrate")));
  const RunCalibration c = trained.calibrate();
  EXPECT_THAT(evaluated({"evaluate.steps=1"}),
              AllOf(HasSubstr("fitted after 2 inner steps"), HasSubstr("--steps 1")));
  const auto adapted = [&] {
    return error_text([&] { Learner(trained.run(), {.device = "cpu", .calibrated = true}); });
  };
  RunCalibration other = c;
  other.checkpoint_checksum = "crc32c:00000000";
  test::put_file(trained.run() / calibration_file, other.to_json());
  for (const std::string& text : {evaluated(), adapted()}) {
    EXPECT_THAT(text, AllOf(HasSubstr("calibration.json"), HasSubstr("another checkpoint")));
  }
  for (const auto& [key, value] : std::vector<std::pair<std::string, nlohmann::json>>{
           {"value", 0.0}, {"value", "1"}, {"kind", "scale"}, {"format", "x"}, {"split", "a"}}) {
    auto j = nlohmann::json::parse(c.to_json());
    j[key] = value;
    test::put_file(trained.run() / calibration_file, j.dump());
    EXPECT_THAT(adapted(), AllOf(HasSubstr("calibration.json"), HasSubstr("not a calibration")))
        << key;
  }
  test::put_file(trained.run() / calibration_file, "{");
  EXPECT_THAT(adapted(), HasSubstr("not a calibration"));
}

TEST(Calibration, OfPointsIsRefused) {
  const Trained trained(small_config("maml", {"train.steps=1"}), sinusoids());
  EXPECT_THAT(error_text([&] { trained.calibrate(); }),
              AllOf(HasSubstr("points"), HasSubstr("gaussian_nll")));
}

}  // namespace
}  // namespace kshot
