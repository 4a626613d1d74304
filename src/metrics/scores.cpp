// The public metrics (kshot/metrics.h): checks of the arguments, and the measures of this folder
// over all rows.
#include <algorithm>
#include <cmath>
#include <string>

#include "kshot/error.h"
#include "kshot/metrics.h"
#include "metrics/bootstrap.h"
#include "metrics/classification.h"
#include "metrics/constants.h"
#include "metrics/detection.h"
#include "metrics/metrics.h"
#include "metrics/predictive.h"

namespace kshot {
namespace {

/// Throws Error that says `what` was expected of an argument, and what it is.
[[noreturn]] void refuse(const std::string& name, const std::string& got, const std::string& what) {
  throw Error(name + ": " + got + ", expected " + what);
}

std::string at(std::size_t index) {
  return "[" + std::to_string(index) + "]";
}

void check_size(const std::string& name, std::size_t size, std::size_t expected) {
  if (size != expected) {
    refuse(name, std::to_string(size) + " values", std::to_string(expected));
  }
}

/// Checks the size of a matrix with `rows` above 0, without a product that might overflow.
void check_size(const std::string& name, std::size_t size, std::size_t rows, std::size_t columns) {
  if (size % rows != 0 || size / rows != columns) {
    refuse(name, std::to_string(size) + " values",
           std::to_string(rows) + " times " + std::to_string(columns));
  }
}

void check_finite(const std::string& name, std::span<const double> values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      refuse(name + at(i), std::to_string(values[i]), "a finite number");
    }
  }
}

void check_positive(const std::string& name, std::span<const double> values) {
  check_finite(name, values);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] <= 0.0) {
      refuse(name + at(i), std::to_string(values[i]), "a number above 0");
    }
  }
}

void check_fraction(const std::string& name, double value) {
  if (!(value >= 0.0 && value <= 1.0)) refuse(name, std::to_string(value), "0 to 1");
}

void check_probabilities(std::span<const double> probabilities,
                         std::span<const std::int32_t> labels, std::size_t classes) {
  if (classes == 0) refuse("classes", "0", "at least 1");
  if (labels.empty()) refuse("labels", "no rows", "at least one");
  check_size("probabilities", probabilities.size(), labels.size(), classes);
  for (std::size_t r = 0; r < labels.size(); ++r) {
    if (labels[r] < 0 || static_cast<std::size_t>(labels[r]) >= classes) {
      refuse("labels" + at(r), std::to_string(labels[r]), "0 to " + std::to_string(classes - 1));
    }
    double sum = 0.0;
    for (const double p : probabilities.subspan(r * classes, classes)) {
      if (!(p >= 0.0 && p <= 1.0)) refuse("probabilities" + at(r), std::to_string(p), "0 to 1");
      sum += p;
    }
    if (std::abs(sum - 1.0) > 1e-3) {
      refuse("probabilities" + at(r), "sum " + std::to_string(sum), "1");
    }
  }
}

/// Mean over classes of the AUROC of one class against the rest; NaN where it has no class.
double mean_auroc(std::span<const double> probabilities, std::span<const std::int32_t> labels,
                  std::size_t classes) {
  metrics::Mean mean;
  // The two AUROCs of two classes are the same number, apart from rounding of 1 - p.
  for (std::size_t c = classes == 2 ? 1 : 0; c < classes; ++c) {
    const double one = metrics::class_auroc(probabilities, labels, classes, c);
    if (!std::isnan(one)) mean.add(one);
  }
  return mean.mean();
}

void check_options(const RegressionScoreOptions& options) {
  for (const double level : options.levels) {
    if (!(level > 0.0 && level < 1.0)) refuse("levels", std::to_string(level), "between 0 and 1");
  }
  if (options.pit_bins == 0) refuse("pit_bins", "0", "at least 1");
}

/// Scores mixtures. `noise` has one number per target, all 0 where there is no noise.
RegressionScores score_mixtures(std::span<const double> samples, std::size_t sample_count,
                                std::span<const double> y, std::span<const double> noise,
                                const RegressionScoreOptions& options) {
  RegressionScores scores;
  scores.rows = y.size();
  const double n = static_cast<double>(y.size());
  const bool noisy = noise.front() > 0.0;
  const bool distribution = noisy || sample_count > 1;
  metrics::Coverage coverage(options.levels);
  metrics::PitHistogram histogram(options.pit_bins);
  std::vector<double> widths(options.levels.size(), 0.0), means(sample_count);
  for (std::size_t i = 0; i < y.size(); ++i) {
    double mean = 0.0;
    for (std::size_t s = 0; s < sample_count; ++s) {
      means[s] = samples[s * y.size() + i];
      mean += means[s] / static_cast<double>(sample_count);
    }
    std::ranges::sort(means);
    scores.mse += (mean - y[i]) * (mean - y[i]) / n;
    scores.nll += noisy ? metrics::mixture_nll(y[i], means, noise[i]) / n : metrics::kNaN;
    scores.crps += metrics::crps_mixture(y[i], means, noise[i]) / n;
    scores.sharpness += metrics::mixture_std(means, noise[i]) / n;
    if (!distribution) continue;
    scores.pit.push_back(metrics::pit_mixture(y[i], means, noise[i]));
    histogram.add(scores.pit.back());
    coverage.add_mixture(y[i], means, noise[i]);
    for (std::size_t l = 0; l < widths.size(); ++l) {
      const metrics::Band band = sample_count == 1
                                     ? metrics::central_band(means[0], noise[i], options.levels[l])
                                     : metrics::mixture_band(means, noise[i], options.levels[l]);
      widths[l] += (band.high - band.low) / n;
    }
  }
  if (!distribution) return scores;
  const std::vector<double> shares = coverage.end_episode();
  for (std::size_t l = 0; l < widths.size(); ++l) {
    scores.bands.push_back({options.levels[l], shares[l], widths[l]});
  }
  scores.pit_histogram = histogram.counts();
  return scores;
}

}  // namespace

ClassificationScores classification_scores(std::span<const double> probabilities,
                                           std::span<const std::int32_t> labels,
                                           std::size_t classes,
                                           const ClassificationScoreOptions& options) {
  if (options.bins == 0) refuse("bins", "0", "at least 1");
  if (options.edges != "right" && options.edges != "left") {
    refuse("edges", "\"" + options.edges + "\"", "\"right\" or \"left\"");
  }
  check_fraction("coverage", options.coverage);
  check_fraction("risk", options.risk);
  check_probabilities(probabilities, labels, classes);
  const auto edges = options.edges == "left" ? metrics::BinEdges::left : metrics::BinEdges::right;

  metrics::ClassificationMetrics all(options.bins, edges);
  const metrics::ClassificationScore means = all.add_episode(probabilities, labels, classes);
  const metrics::BrierParts parts =
      metrics::brier_parts(probabilities, labels, classes, options.bins, edges);
  const std::vector<metrics::Answer> answers = metrics::answers(probabilities, labels, classes);
  const metrics::RiskCoverage curve(answers);
  ClassificationScores scores{
      .rows = labels.size(),
      .classes = classes,
      .accuracy = means.accuracy,
      .nll = means.nll,
      .brier = means.brier,
      .brier_reliability = parts.reliability,
      .brier_resolution = parts.resolution,
      .brier_uncertainty = parts.uncertainty,
      .brier_within_bin = parts.within_bin,
      .ece = all.calibration().ece(),
      .mce = all.calibration().mce(),
      .ece_equal_mass = metrics::ece_equal_mass(answers, options.bins),
      .classwise_ece = metrics::classwise_ece(probabilities, labels, classes, options.bins, edges),
      .aurc = curve.aurc(),
      .risk_at_coverage = curve.risk_at(options.coverage),
      .coverage_at_risk = curve.coverage_at(options.risk),
      .auroc = mean_auroc(probabilities, labels, classes),
      .reliability = {},
      .risk_coverage = {}};
  for (const metrics::ReliabilityBin& b : all.calibration().bins()) {
    scores.reliability.push_back({b.low, b.high, b.count, b.confidence, b.accuracy});
  }
  for (const metrics::RiskPoint& p : curve.points()) {
    scores.risk_coverage.push_back({p.threshold, p.coverage, p.risk});
  }
  return scores;
}

RegressionScores regression_scores(std::span<const double> mean, std::span<const double> std,
                                   std::span<const double> y,
                                   const RegressionScoreOptions& options) {
  if (y.empty()) refuse("y", "no rows", "at least one");
  check_size("mean", mean.size(), y.size());
  check_size("std", std.size(), y.size());
  check_finite("mean", mean);
  check_positive("std", std);
  check_finite("y", y);
  check_options(options);
  return score_mixtures(mean, 1, y, std, options);
}

RegressionScores regression_scores_of_samples(std::span<const double> samples,
                                              std::size_t sample_count, std::span<const double> y,
                                              std::span<const double> noise_std,
                                              const RegressionScoreOptions& options) {
  if (y.empty()) refuse("y", "no rows", "at least one");
  if (sample_count == 0) refuse("sample_count", "0", "at least 1");
  check_size("samples", samples.size(), y.size(), sample_count);
  if (noise_std.size() > 1) check_size("noise_std", noise_std.size(), y.size());
  check_finite("samples", samples);
  check_positive("noise_std", noise_std);
  check_finite("y", y);
  check_options(options);
  std::vector<double> noise(noise_std.begin(), noise_std.end());
  if (noise.size() < y.size()) noise.assign(y.size(), noise.empty() ? 0.0 : noise.front());
  return score_mixtures(samples, sample_count, y, noise, options);
}

DetectionScores detection_scores(std::span<const double> inside, std::span<const double> outside) {
  if (inside.empty()) refuse("inside", "no scores", "at least one");
  if (outside.empty()) refuse("outside", "no scores", "at least one");
  for (const auto& [name, scores] : {std::pair{"inside", inside}, std::pair{"outside", outside}}) {
    if (std::ranges::any_of(scores, [](double s) { return std::isnan(s); })) {
      refuse(name, "a score is NaN", "numbers");
    }
  }
  metrics::Detection detection;
  detection.add_episode(inside, outside);
  // One episode has no interval, so that nothing is drawn.
  const metrics::DetectionStatistics all = detection.statistics({});
  return {all.auroc.value, all.aupr.value, all.fpr95.value};
}

IntervalScore mean_interval(std::span<const double> values, const IntervalOptions& options) {
  if (values.empty()) refuse("values", "no episodes", "at least one");
  check_finite("values", values);
  if (options.resamples == 0) refuse("resamples", "0", "at least 1");
  if (!(options.level > 0.0 && options.level < 1.0)) {
    refuse("level", std::to_string(options.level), "between 0 and 1");
  }
  const metrics::Interval interval = metrics::bootstrap_mean(
      values, {.resamples = options.resamples, .level = options.level, .seed = options.seed});
  return {interval.value, interval.low, interval.high};
}

}  // namespace kshot
