// Closed-form heads in the engine: predictions with their own variance, tasks with any number of
// classes and rows, and features. Expected numbers are computed here from the checkpoint's tensors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <numbers>

#include "engine/engine_cases.h"
#include "kshot/embedder.h"
#include "kshot/evaluator.h"
#include "kshot/learner.h"
#include "support/class_files.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using test::class_head_config;
using test::error_text;
using test::head_config;
using test::put_class_vectors;
using test::TempFolder;
using testing::HasSubstr;

constexpr const char* reference_device = "reference";

fs::path train_on_reference(const TempFolder& folder, const Config& config) {
  return test::train_run(folder.path(), config, "run", reference_device);
}
Learner learner(const fs::path& run) {
  return Learner(run, {.device = reference_device, .threads = 1});
}
Evaluation evaluate(const fs::path& run, const std::vector<std::string>& overrides = {}) {
  EvaluatorOptions options;
  options.device = reference_device;
  options.overrides = overrides;
  return Evaluator(run, options).run();
}

/// The rows of one task like those of put_class_vectors. Class c lies around (c, -c, ...).
struct ClassTask {
  std::vector<float> support, query;
  std::vector<std::int32_t> labels;
};
ClassTask class_task(int classes, int shots) {
  ClassTask task;
  RandomStream random({5, Purpose::user, 0, 0, 0, 0});
  const auto row = [&](int c, std::vector<float>& to) {
    for (int j = 0; j < 6; ++j) {
      to.push_back(static_cast<float>(((c * 7 + j * 3) % 5) - 2) + 0.2f * random.normal());
    }
  };
  for (int s = 0; s < shots; ++s) {
    for (int c = 0; c < classes; ++c) {
      row(c, task.support);
      task.labels.push_back(c);
    }
  }
  for (int c = 0; c < classes; ++c) row(c, task.query);
  return task;
}

TEST(ClosedForm, EvaluationTakesThePredictiveVariance) {
  for (const char* algorithm : {"alpaca", "dkt"}) {
    SCOPED_TRACE(algorithm);
    const TempFolder folder;
    const Config config = head_config(algorithm, {"evaluate.episodes=30"});
    const fs::path run = train_on_reference(folder, config);
    SinusoidOptions options;
    options.support = config.data.shots;
    options.query = config.data.queries;
    options.noise_std = config.data.noise_std;
    const std::unique_ptr<EpisodeSource> source = make_sinusoid(options);
    TaskBatch batch(source->shape(), 30);
    batch.draw(*source, {config.evaluate.seed, Split::test, 0, 0}, 0, 30);
    const Learner one = learner(run);
    double nll = 0.0, inside = 0.0, squares = 0.0;
    for (std::size_t t = 0; t < 30; ++t) {
      const auto x = std::span<const float>(batch.support_x).subspan(t * 4, 4);
      const auto y = std::span<const float>(batch.support_value).subspan(t * 4, 4);
      const auto q = std::span<const float>(batch.query_x).subspan(t * 5, 5);
      const Prediction p = one.predict({.x = x, .values = y}, q);
      ASSERT_EQ(p.predictive_std.size(), 5u);
      EXPECT_EQ(p.noise_std, 0.0);
      for (std::size_t i = 0; i < 5; ++i) {
        const double s = p.predictive_std[i];
        const double z = (static_cast<double>(batch.query_value[t * 5 + i]) - p.mean[i]) / s;
        nll += (0.5 * z * z + std::log(s) + 0.5 * std::log(2.0 * std::numbers::pi)) / 150.0;
        inside += (std::abs(z) <= 1.6448536269514722 ? 1.0 : 0.0) / 150.0;
        squares += z * z * s * s / 150.0;
      }
    }
    const Evaluation e = evaluate(run);
    ASSERT_EQ(e.steps.size(), 1u);
    EXPECT_EQ(e.last().inner_steps, -1) << "there is no inner loop";
    EXPECT_NEAR(e.last().mse->mean, squares, 1e-9 * squares);
    ASSERT_TRUE(e.last().nll);
    EXPECT_NEAR(e.last().nll->mean, nll, 1e-9 * (1.0 + std::abs(nll)));
    ASSERT_EQ(e.last().coverage.size(), 3u);
    EXPECT_EQ(e.last().coverage[1].level, 0.9);
    EXPECT_NEAR(e.last().coverage[1].observed.mean, inside, 1e-9);
  }
}

TEST(ClosedForm, ValidationDecidesByTheOwnDensity) {
  const TempFolder folder;
  std::vector<ValidationReport> reports;
  TrainerOptions options{.run_folder = folder / "run", .device = reference_device, .threads = 1};
  options.on_validation = [&](const ValidationReport& r) { reports.push_back(r); };
  Trainer(head_config("alpaca"), options).run();
  ASSERT_FALSE(reports.empty());
  for (const ValidationReport& r : reports) {
    EXPECT_EQ(r.metric, "nll");
    EXPECT_EQ(r.value, r.nll);
  }
}

TEST(ClosedForm, WithoutRowsAlpacaPredictsFromItsPrior) {
  const TempFolder folder;
  const fs::path run = train_on_reference(folder, head_config("alpaca", {"network.layers=1,3"}));
  const auto tensors = test::tensors(run / "best.safetensors");
  const auto weight = tensors.at("theta.layers.0.weight").to_f64(),
             bias = tensors.at("theta.layers.0.bias").to_f64(),
             mean = tensors.at("head.prior_mean").to_f64(),
             factor = tensors.at("head.prior_factor").to_f64(),
             noise = tensors.at("head.log_noise").to_f64();
  const float query[] = {0.75f, -2.0f};
  const Prediction p = learner(run).predict({}, query);
  for (std::size_t i = 0; i < 2; ++i) {
    double x[4], u[4], expected = 0.0, squares = 0.0;
    for (std::size_t j = 0; j < 4; ++j) {
      x[j] = j < 3 ? weight[j] * static_cast<double>(query[i]) + bias[j] : 1.0;
      expected += x[j] * mean[j];
    }
    for (std::size_t r = 0; r < 4; ++r) {  // Solves L u = x.
      u[r] = x[r];
      for (std::size_t c = 0; c < r; ++c) u[r] -= factor[r * 4 + c] * u[c];
      u[r] /= std::exp(factor[r * 4 + r]);
      squares += u[r] * u[r];
    }
    EXPECT_NEAR(p.mean[i], expected, 1e-12);
    EXPECT_NEAR(p.predictive_std[i], std::sqrt(1.0 + squares) * std::exp(noise[0]), 1e-12);
  }
  EXPECT_THAT(evaluate(run, {"data.shots=0"}).last().coverage, testing::SizeIs(3));
}

TEST(ClosedForm, AnyNumberOfClasses) {
  const TempFolder folder;
  const fs::path run =
      train_on_reference(folder, class_head_config("protonet", put_class_vectors(folder.path())));
  const auto tensors = test::tensors(run / "best.safetensors");
  const auto weight = tensors.at("theta.layers.0.weight").to_f64(),
             bias = tensors.at("theta.layers.0.bias").to_f64();
  const double scale = std::exp(tensors.at("head.log_scale").to_f64()[0]);
  const auto features = [&](std::span<const float> x, std::size_t row) {
    std::array<double, 4> z{};
    for (std::size_t f = 0; f < 4; ++f) {
      z[f] = bias[f];
      for (std::size_t j = 0; j < 6; ++j) {
        z[f] += weight[f * 6 + j] * static_cast<double>(x[row * 6 + j]);
      }
    }
    return z;
  };
  for (const int classes : {2, 5, 9}) {  // The training had three classes.
    SCOPED_TRACE(classes);
    const ClassTask task = class_task(classes, 2);
    const Prediction p =
        learner(run).predict({.x = task.support, .labels = task.labels}, task.query);
    ASSERT_EQ(p.outputs, classes);
    for (int q = 0; q < classes; ++q) {
      const auto z = features(task.query, static_cast<std::size_t>(q));
      for (int m = 0; m < classes; ++m) {
        const auto a = features(task.support, static_cast<std::size_t>(m)),
                   b = features(task.support, static_cast<std::size_t>(classes + m));
        double distance = 0.0;
        for (std::size_t f = 0; f < 4; ++f) {
          const double d = z[f] - 0.5 * (a[f] + b[f]);
          distance += d * d;
        }
        EXPECT_NEAR(p.raw[static_cast<std::size_t>(q * classes + m)], -scale * distance,
                    1e-10 * (1.0 + scale * distance));
      }
    }
  }
  EXPECT_EQ(evaluate(run, {"data.ways=5"}).shape.outputs, 5);
}

TEST(ClosedForm, RowsThatComeLaterAreAsGoodAsRowsAtOnce) {
  // A head is fitted to a set of rows. The result depends neither on their order nor on when they
  // arrive.
  const TempFolder folder;
  for (const char* algorithm : {"alpaca", "dkt", "r2d2"}) {
    SCOPED_TRACE(algorithm);
    const TempFolder own;
    const Learner one = learner(train_on_reference(own, head_config(algorithm)));
    const float x[] = {-1.0f, 0.5f, 2.0f, -3.0f, 4.0f}, y[] = {0.3f, -1.0f, 2.5f, 0.1f, -0.6f};
    const float late_x[] = {2.0f, -3.0f, 4.0f, -1.0f, 0.5f},
                late_y[] = {2.5f, 0.1f, -0.6f, 0.3f, -1.0f};
    const float query[] = {1.5f, -2.5f};
    const Prediction first =
        one.predict({.x = std::span(x).first(2), .values = std::span(y).first(2)}, query);
    const Prediction from_all_rows = one.predict({.x = x, .values = y}, query);
    const Prediction later = one.predict({.x = late_x, .values = late_y}, query);
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_NEAR(later.mean[i], from_all_rows.mean[i], 1e-10);
      EXPECT_GT(std::abs(first.mean[i] - from_all_rows.mean[i]), 1e-6)
          << "three more rows say something";
      if (from_all_rows.predictive_std.empty()) continue;
      EXPECT_NEAR(later.predictive_std[i], from_all_rows.predictive_std[i], 1e-10);
      EXPECT_LT(from_all_rows.predictive_std[i], first.predictive_std[i]);
    }
  }
}

TEST(ClosedForm, EveryClassHeadTrainsAndIsEvaluated) {
  for (const char* algorithm : {"protonet", "bayes_protonet", "r2d2"}) {
    SCOPED_TRACE(algorithm);
    const TempFolder folder;
    const fs::path run = train_on_reference(
        folder, class_head_config(algorithm, put_class_vectors(folder.path()), {"train.steps=60"}));
    const Evaluation e = evaluate(run);
    EXPECT_EQ(e.diverged, 0);
    EXPECT_GT(e.last().accuracy->mean, 0.9) << "classes that lie far apart";
  }
}

TEST(ClosedForm, AClassWithoutARowIsRefusedOrPredictedFromThePrior) {
  const TempFolder folder;
  const fs::path file = put_class_vectors(folder.path());
  const ClassTask task = class_task(3, 1);
  const auto x = std::span<const float>(task.support).first(12);
  const auto labels = std::span<const std::int32_t>(task.labels).first(2);
  {
    const TempFolder own;
    const Learner one = learner(train_on_reference(own, class_head_config("protonet", file)));
    EXPECT_THAT(error_text([&] { one.predict({.x = x, .labels = labels, .ways = 3}, task.query); }),
                HasSubstr("class 2 of task 0 has no support row"));
  }
  const TempFolder own;
  const Learner one = learner(train_on_reference(own, class_head_config("bayes_protonet", file)));
  const Prediction p = one.predict({.x = x, .labels = labels, .ways = 3}, task.query);
  EXPECT_EQ(p.outputs, 3);
  const Prediction none = one.predict({.x = {}, .ways = 4}, task.query);
  for (const double probability : none.mean) EXPECT_NEAR(probability, 0.25, 1e-12);
  EXPECT_THAT(error_text([&] { one.predict({}, task.query); }), HasSubstr("number of classes"));
}

TEST(ClosedForm, FeaturesAreTheNetworksOutputs) {
  const TempFolder folder;
  const fs::path run =
      train_on_reference(folder, class_head_config("protonet", put_class_vectors(folder.path())));
  const auto tensors = test::tensors(run / "best.safetensors");
  const auto weight = tensors.at("theta.layers.0.weight").to_f64(),
             bias = tensors.at("theta.layers.0.bias").to_f64();
  const Embedder embedder(run, {.device = reference_device, .threads = 1});
  const std::vector<float> x = {0.5f, -1.0f, 2.0f, 0.25f, 0.0f, 1.5f};
  const std::vector<float> z = embedder.embed(x);
  ASSERT_EQ(z.size(), 4u);
  for (std::size_t f = 0; f < 4; ++f) {
    double expected = bias[f];
    for (std::size_t j = 0; j < 6; ++j) expected += weight[f * 6 + j] * static_cast<double>(x[j]);
    EXPECT_NEAR(static_cast<double>(z[f]), expected, 1e-5);
  }
}

TEST(ClosedForm, WhatDoesNotFitIsNamed) {
  const TempFolder folder;
  EXPECT_THAT(
      error_text([&] { train_on_reference(folder, head_config("alpaca", {"alpaca.outputs=3"})); }),
      HasSubstr("alpaca.outputs: expected 1"));
  EXPECT_THAT(error_text([&] {
                train_on_reference(folder,
                                   class_head_config("protonet", put_class_vectors(folder.path()),
                                                     {"protonet.ways=5"}));
              }),
              HasSubstr("protonet.ways: expected 3"));
}

}  // namespace
}  // namespace kshot
