// The public meta-gradient (kshot/meta_gradient.h), against central differences of the loss that it
// returns.
#include "kshot/meta_gradient.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine_cases.h"
#include "support/error_text.h"

namespace kshot::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TaskBatch sinusoids(int tasks) {
  const std::unique_ptr<EpisodeSource> source =
      make_sinusoid({.support = CountRange(2, 4), .query = 5});
  TaskBatch batch(source->shape(), tasks);
  batch.draw(*source, {.seed = 4}, 0, tasks);
  return batch;
}

Config config_of(const std::string& algorithm) {
  const bool head = algorithm == "alpaca" || algorithm == "dkt";
  // The activation is tanh, so that no kink lies between the two points of a difference.
  return head ? head_config(algorithm) : small_config(algorithm, {"network.activation=tanh"});
}

TEST(MetaGradientAlone, IsTheDerivativeOfTheLoss) {
  const TaskBatch batch = sinusoids(3);
  for (const char* algorithm : {"maml", "meta_sgd", "abml", "alpaca", "dkt"}) {
    SCOPED_TRACE(algorithm);
    const Config config = config_of(algorithm);
    MetaGradient exact(config, batch.shape(), {.device = "reference"});
    const std::vector<std::vector<double>> parameters = exact.initial();
    ASSERT_EQ(parameters.size(), exact.groups().size());
    const MetaGradientResult result = exact.compute(parameters, batch, 7);
    EXPECT_EQ(result.tasks, 3u);
    EXPECT_EQ(result.diverged, 0u);
    const MetaGradientResult fast =
        MetaGradient(config, batch.shape(), {.device = "cpu", .threads = 2})
            .compute(parameters, batch, 7);
    EXPECT_NEAR(fast.loss, result.loss, 1e-4 * (1.0 + std::abs(result.loss)));
    constexpr double h = 1e-5;
    for (std::size_t g = 0; g < parameters.size(); ++g) {
      SCOPED_TRACE(exact.groups()[g]);
      ASSERT_EQ(result.gradients[g].size(), parameters[g].size());
      double largest = 0.0;
      for (const double v : result.gradients[g]) largest = std::max(largest, std::abs(v));
      for (std::size_t i = 0; i < parameters[g].size(); i += 5) {
        std::vector<std::vector<double>> moved = parameters;
        moved[g][i] += h;
        const double above = exact.compute(moved, batch, 7).loss;
        moved[g][i] -= 2.0 * h;
        const double below = exact.compute(moved, batch, 7).loss;
        // The error of a central difference is of order h^2 plus the rounding error divided by h.
        EXPECT_NEAR(result.gradients[g][i], (above - below) / (2.0 * h), 1e-6 * (1.0 + largest));
        EXPECT_NEAR(fast.gradients[g][i], result.gradients[g][i], 1e-3 * (1e-3 + largest));
      }
    }
  }
}

TEST(MetaGradientAlone, StepsHaveTheirOwnSamples) {
  const TaskBatch batch = sinusoids(3);
  MetaGradient engine(config_of("abml"), batch.shape(), {.device = "cpu"});
  const auto loss = [&](std::uint64_t step) {
    return engine.compute(engine.initial(), batch, step).loss;
  };
  EXPECT_EQ(loss(1), loss(1));
  EXPECT_NE(loss(1), loss(2));
}

TEST(MetaGradientAlone, WhatDoesNotFitIsRefused) {
  const TaskBatch batch = sinusoids(3);
  MetaGradient engine(config_of("maml"), batch.shape(), {.device = "cpu"});
  std::vector<std::vector<double>> parameters = engine.initial();
  parameters[0].pop_back();
  EXPECT_THAT(error_text([&] { engine.compute(parameters, batch); }),
              StartsWith("meta-gradient: group \"theta\" has 36 numbers, expected 37"));
  EXPECT_THAT(error_text([&] { engine.compute({}, batch); }),
              HasSubstr("0 groups of parameters, expected 1"));
  EXPECT_THAT(error_text([&] { engine.compute(engine.initial(), TaskBatch(batch.shape(), 0)); }),
              HasSubstr("expected at least one task"));
  TaskShape other = batch.shape();
  other.query = 9;
  EXPECT_THAT(error_text([&] { engine.compute(engine.initial(), TaskBatch(other, 2)); }),
              HasSubstr("of the shape that was given"));
  EXPECT_THAT(error_text([&] { MetaGradient(config_of("hvi"), batch.shape()); }),
              HasSubstr("\"hvi\" keeps a state for each training task"));
  other.outputs = 2;
  EXPECT_THAT(error_text([&] { MetaGradient(config_of("maml"), other); }),
              HasSubstr("[network] gives 1 outputs"));
}

}  // namespace
}  // namespace kshot::test
