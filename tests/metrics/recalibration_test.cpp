// The temperature and the variance factor of a calibration, against known factors and minima of the
// likelihood.
#include "metrics/recalibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kshot/error.h"
#include "kshot/random.h"
#include "metrics/metrics.h"

namespace kshot::metrics {
namespace {

/// The predicted probabilities and the labels of one episode.
struct Episode {
  std::vector<double> probabilities;
  std::vector<std::int32_t> labels;
};

/// Labels that are drawn from softmax(logits) and predicted as softmax(factor * logits).
Episode drawn(std::uint32_t number, double factor, std::size_t rows, std::size_t classes) {
  RandomStream random({.seed = 5, .task = number});
  Episode e;
  std::vector<double> logits(classes), p(classes);
  for (std::size_t r = 0; r < rows; ++r) {
    for (double& l : logits) l = 1.5 * static_cast<double>(random.normal());
    softmax(logits, p);
    double u = static_cast<double>(random.uniform());
    std::int32_t label = 0;
    while (label + 1 < static_cast<std::int32_t>(classes) &&
           u >= p[static_cast<std::size_t>(label)]) {
      u -= p[static_cast<std::size_t>(label++)];
    }
    e.labels.push_back(label);
    for (double& l : logits) l *= factor;
    softmax(logits, p);
    e.probabilities.insert(e.probabilities.end(), p.begin(), p.end());
  }
  return e;
}

TEST(Temperature, ThatOfOverAndUnderconfidentLogitsIsRecovered) {
  for (const double factor : {3.0, 1.0, 0.4}) {
    TemperatureFit fit;
    for (std::uint32_t e = 0; e < 400; ++e) {
      const Episode one = drawn(e, factor, 50, 5);
      fit.add_episode(one.probabilities, one.labels, 5);
    }
    const Recalibration found = fit.fit();
    // With 20,000 rows, the standard error of 1/T is about one percent.
    EXPECT_NEAR(found.value, factor, 0.03 * factor) << factor;
    EXPECT_FALSE(found.at_end);
    EXPECT_LE(found.nll_after, found.nll_before);
  }
}

TEST(Temperature, IsTheMinimumOfTheMetricsOwnLikelihood) {
  // The episodes have unequal sizes, so that the mean over episodes is not the mean over rows.
  std::vector<Episode> episodes;
  TemperatureFit fit;
  for (std::uint32_t e = 0; e < 6; ++e) {
    episodes.push_back(drawn(e, 2.5, 3 + 9 * (e % 3), 3));
    fit.add_episode(episodes.back().probabilities, episodes.back().labels, 3);
  }
  const auto nll = [&](double temperature) {
    ClassificationMetrics all;
    for (const Episode& e : episodes) {
      std::vector<double> p = e.probabilities;
      apply_temperature(p, 3, temperature);
      all.add_episode(p, e.labels, 3);
    }
    return all.nll().mean;
  };
  const Recalibration found = fit.fit();
  EXPECT_NEAR(found.nll_before, nll(1.0), 1e-12);
  EXPECT_NEAR(found.nll_after, nll(found.value), 1e-12);
  EXPECT_GT(nll(found.value * 1.01), found.nll_after);
  EXPECT_GT(nll(found.value / 1.01), found.nll_after);
}

TEST(Temperature, AppliedByHand) {
  std::vector<double> p = {0.8, 0.2, 0.0, 0.25, 0.25, 0.5};
  apply_temperature(p, 3, 2.0);
  EXPECT_NEAR(p[0], std::sqrt(0.8) / (std::sqrt(0.8) + std::sqrt(0.2)), 1e-12);
  EXPECT_EQ(p[2], 0.0) << "a class of probability 0 keeps it";
  EXPECT_NEAR(p[5], std::sqrt(0.5) / (std::sqrt(0.5) + 1.0), 1e-12);
}

TEST(Temperature, PredictionsThatAreAllRightHaveNone) {
  TemperatureFit fit;
  fit.add_episode(std::vector<double>{0.9, 0.1, 0.3, 0.7}, std::vector<std::int32_t>{0, 1}, 2);
  EXPECT_TRUE(fit.fit().at_end);
  EXPECT_LT(fit.fit().value, 0.0011);
  EXPECT_THROW(TemperatureFit().fit(), Error);
  EXPECT_THROW(fit.add_episode({}, {}, 2), Error);
}

TEST(Temperature, ALabelOfProbabilityZeroIsAConstant) {
  TemperatureFit fit;
  fit.add_episode(std::vector<double>{1.0, 0.0, 0.6, 0.4, 0.6, 0.4, 0.6, 0.4},
                  std::vector<std::int32_t>{1, 0, 1, 1}, 2);
  const Recalibration found = fit.fit();
  EXPECT_TRUE(std::isfinite(found.nll_after));
  EXPECT_GT(found.nll_after, 177.0) << "708 nats in one of four rows";
}

TEST(VarianceFactor, OfOneSampleItIsTheMeanSquaredStandardizedResidual) {
  VarianceFit fit;
  double squares = 0.0;
  RandomStream random({.seed = 6});
  for (int e = 0; e < 30; ++e) {
    std::vector<double> means, targets, stds;
    for (int i = 0; i < 4; ++i) {
      means.push_back(static_cast<double>(random.normal()));
      stds.push_back(0.1 + static_cast<double>(random.uniform()));
      targets.push_back(means.back() + 3.0 * stds.back() * static_cast<double>(random.normal()));
      squares += std::pow((targets.back() - means.back()) / stds.back(), 2) / 120.0;
    }
    fit.add_episode(means, 1, targets, stds);
  }
  const Recalibration found = fit.fit();
  EXPECT_NEAR(found.value, squares, 1e-5 * squares);
  EXPECT_NEAR(found.nll_before - found.nll_after, 0.5 * (squares - 1.0 - std::log(squares)), 1e-9);
}

TEST(VarianceFactor, OfAMixtureIsTheMinimumOfItsLikelihood) {
  VarianceFit fit;
  std::vector<std::vector<double>> samples, targets;
  RandomStream random({.seed = 7});
  const std::vector<double> stds(5, 0.3);
  for (int e = 0; e < 20; ++e) {
    samples.emplace_back();
    targets.emplace_back();
    for (int i = 0; i < 20; ++i) samples.back().push_back(static_cast<double>(random.normal()));
    for (int i = 0; i < 5; ++i) {
      targets.back().push_back(2.5 * static_cast<double>(random.normal()));
    }
    fit.add_episode(samples.back(), 4, targets.back(), stds);
  }
  // The expected likelihood is computed directly: the samples are moved away from their mean, and
  // the noise is widened.
  const auto nll = [&](double factor) {
    RegressionMetrics all;
    for (std::size_t e = 0; e < samples.size(); ++e) {
      std::vector<double> moved = samples[e];
      for (std::size_t i = 0; i < 5; ++i) {
        double mean = 0.0;
        for (std::size_t s = 0; s < 4; ++s) mean += samples[e][s * 5 + i] / 4.0;
        for (std::size_t s = 0; s < 4; ++s) {
          moved[s * 5 + i] = mean + std::sqrt(factor) * (samples[e][s * 5 + i] - mean);
        }
      }
      all.add_episode(moved, 4, targets[e], 0.3 * std::sqrt(factor));
    }
    return all.nll().mean;
  };
  const Recalibration found = fit.fit();
  EXPECT_NEAR(found.nll_before, nll(1.0), 1e-9);
  EXPECT_NEAR(found.nll_after, nll(found.value), 1e-9);
  for (double factor = 0.01; factor < 100.0; factor *= 1.3) {
    EXPECT_GE(nll(factor), found.nll_after - 1e-9) << factor;
  }
}

TEST(VarianceFactor, PointsHaveNone) {
  VarianceFit fit;
  EXPECT_THROW(fit.add_episode(std::vector<double>{1.0}, 1, std::vector<double>{1.0},
                               std::vector<double>{0.0}),
               Error);
  EXPECT_THROW(fit.fit(), Error);
}

}  // namespace
}  // namespace kshot::metrics
