#include "metrics/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "kshot/error.h"
#include "metrics/classification_checks.h"
#include "metrics/constants.h"

namespace kshot::metrics {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kZ95 = 1.96;  // the value that few-shot papers use
constexpr double kSqrt2Pi = 2.50662827463100050242;

double mixture_cdf(double y, std::span<const double> means, double std) {
  double sum = 0.0;
  for (double mean : means) sum += normal_cdf((y - mean) / std);
  return sum / static_cast<double>(means.size());
}

}  // namespace

void Mean::add(double value) {
  ++count_;
  const double delta = value - mean_;
  mean_ += delta / static_cast<double>(count_);
  squares_ += delta * (value - mean_);
}

double Mean::mean() const {
  return count_ > 0 ? mean_ : kNaN;
}

double Mean::standard_deviation() const {
  return count_ > 1 ? std::sqrt(squares_ / static_cast<double>(count_ - 1)) : kNaN;
}

Estimate Mean::estimate() const {
  const double half = kZ95 * standard_deviation() / std::sqrt(static_cast<double>(count_));
  return {mean(), half, count_};
}

Estimate estimate(std::span<const double> values) {
  Mean mean;
  for (double value : values) mean.add(value);
  return mean.estimate();
}

// ---- classification ----

double log_sum_exp(std::span<const double> x) {
  double largest = -kInfinity;
  for (double value : x) largest = std::max(largest, value);
  if (!std::isfinite(largest)) return largest;
  double sum = 0.0;
  for (double value : x) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

void softmax(std::span<const double> logits, std::span<double> probabilities) {
  double largest = -kInfinity;
  for (double value : logits) largest = std::max(largest, value);
  double sum = 0.0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    probabilities[i] = std::exp(logits[i] - largest);
    sum += probabilities[i];
  }
  for (double& p : probabilities) p /= sum;
}

void log_softmax(std::span<const double> logits, std::span<double> log_probabilities) {
  const double norm = log_sum_exp(logits);
  for (std::size_t i = 0; i < logits.size(); ++i) log_probabilities[i] = logits[i] - norm;
}

void mean_softmax(std::span<const double> logits, std::size_t samples, std::size_t rows,
                  std::size_t classes, std::span<double> probabilities) {
  std::vector<double> one(classes);
  std::fill(probabilities.begin(), probabilities.end(), 0.0);
  for (std::size_t s = 0; s < samples; ++s) {
    for (std::size_t r = 0; r < rows; ++r) {
      softmax(logits.subspan((s * rows + r) * classes, classes), one);
      for (std::size_t c = 0; c < classes; ++c) probabilities[r * classes + c] += one[c];
    }
  }
  for (double& p : probabilities) p /= static_cast<double>(samples);
}

std::size_t bin_of(double value, std::size_t bins, BinEdges edges) {
  const double n = static_cast<double>(bins);
  const auto edge = [n](std::size_t b) { return static_cast<double>(b) / n; };
  // The product may round across an edge, so that the result is corrected with the edges
  // themselves.
  auto bin = static_cast<std::size_t>(std::clamp(std::floor(value * n), 0.0, n - 1.0));
  if (edges == BinEdges::right) {
    while (bin > 0 && value <= edge(bin)) --bin;
    while (bin + 1 < bins && value > edge(bin + 1)) ++bin;
  } else {
    while (bin > 0 && value < edge(bin)) --bin;
    while (bin + 1 < bins && value >= edge(bin + 1)) ++bin;
  }
  return bin;
}

Calibration::Calibration(std::size_t bins, BinEdges edges) : sums_(bins), edges_(edges) {
  if (bins == 0) throw Error("calibration: number of bins is 0, expected at least 1");
}

void Calibration::add(double confidence, bool right) {
  Sum& sum = sums_[bin_of(confidence, sums_.size(), edges_)];
  ++sum.count;
  sum.right += right ? 1 : 0;
  sum.confidence += confidence;
}

double Calibration::ece() const {
  double gaps = 0.0;
  std::size_t count = 0;
  for (const Sum& sum : sums_) {
    gaps += std::abs(static_cast<double>(sum.right) - sum.confidence);
    count += sum.count;
  }
  return count > 0 ? gaps / static_cast<double>(count) : kNaN;
}

double Calibration::mce() const {
  double largest = kNaN;
  for (const Sum& sum : sums_) {
    if (sum.count == 0) continue;
    const double gap = std::abs(static_cast<double>(sum.right) - sum.confidence);
    largest = std::fmax(largest, gap / static_cast<double>(sum.count));
  }
  return largest;
}

std::vector<ReliabilityBin> Calibration::bins() const {
  std::vector<ReliabilityBin> bins(sums_.size());
  const double n = static_cast<double>(sums_.size());
  for (std::size_t b = 0; b < sums_.size(); ++b) {
    bins[b].low = static_cast<double>(b) / n;
    bins[b].high = static_cast<double>(b + 1) / n;
    bins[b].count = sums_[b].count;
    if (sums_[b].count == 0) continue;
    const double count = static_cast<double>(sums_[b].count);
    bins[b].confidence = sums_[b].confidence / count;
    bins[b].accuracy = static_cast<double>(sums_[b].right) / count;
  }
  return bins;
}

ClassificationScore ClassificationMetrics::add_episode(std::span<const double> probabilities,
                                                       std::span<const std::int32_t> labels,
                                                       std::size_t classes) {
  const std::size_t rows = labels.size();
  if (rows == 0) throw Error("classification metrics: an episode without query examples");
  // All arguments are checked before anything is counted.
  check_labelled_rows(probabilities, labels, classes);
  for (double p : probabilities) {
    if (!std::isfinite(p)) throw Error("classification metrics: a probability is not finite");
  }
  ClassificationScore score;
  for (std::size_t r = 0; r < rows; ++r) {
    const auto row = probabilities.subspan(r * classes, classes);
    const auto label = static_cast<std::size_t>(labels[r]);
    const auto best =
        static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin());
    calibration_.add(row[best], best == label);
    score.accuracy += best == label ? 1.0 : 0.0;
    score.nll -= std::log(std::max(row[label], std::numeric_limits<double>::min()));
    for (std::size_t c = 0; c < classes; ++c) {
      const double gap = row[c] - (c == label ? 1.0 : 0.0);
      score.brier += gap * gap;
    }
  }
  score.accuracy /= static_cast<double>(rows);
  score.nll /= static_cast<double>(rows);
  score.brier /= static_cast<double>(rows);
  accuracy_.add(score.accuracy);
  nll_.add(score.nll);
  brier_.add(score.brier);
  return score;
}

// ---- regression ----

double gaussian_nll(double y, double mean, double std) {
  const double z = (y - mean) / std;
  return 0.5 * z * z + std::log(std) + kLogSqrt2Pi;
}

double mixture_nll(double y, std::span<const double> means, double std) {
  // The log-sum-exp needs no buffer, because the nearest mean has the largest term.
  double nearest = kInfinity;
  for (double mean : means) nearest = std::min(nearest, std::abs(y - mean));
  const double smallest = 0.5 * (nearest / std) * (nearest / std);
  double sum = 0.0;
  for (double mean : means) {
    const double z = (y - mean) / std;
    sum += std::exp(smallest - 0.5 * z * z);
  }
  return smallest - std::log(sum / static_cast<double>(means.size())) + std::log(std) + kLogSqrt2Pi;
}

double normal_cdf(double z) {
  return 0.5 * std::erfc(-z / kSqrt2);
}

double normal_quantile(double p) {
  if (!(p > 0.0 && p < 1.0)) {
    throw Error("normal quantile: probability " + std::to_string(p) + ", expected between 0 and 1");
  }
  if (p > 0.5) return -normal_quantile(1.0 - p);
  // P. J. Acklam's rational approximations for the lower half, with a relative error of 1.15e-9.
  double z;
  if (p < 0.02425) {
    const double q = std::sqrt(-2.0 * std::log(p));
    z = (((((-7.784894002430293e-03 * q - 3.223964580411365e-01) * q - 2.400758277161838e+00) * q -
           2.549732539343734e+00) *
              q +
          4.374664141464968e+00) *
             q +
         2.938163982698783e+00) /
        ((((7.784695709041462e-03 * q + 3.224671290700398e-01) * q + 2.445134137142996e+00) * q +
          3.754408661907416e+00) *
             q +
         1.0);
  } else {
    const double q = p - 0.5;
    const double r = q * q;
    z = (((((-3.969683028665376e+01 * r + 2.209460984245205e+02) * r - 2.759285104469687e+02) * r +
           1.383577518672690e+02) *
              r -
          3.066479806614716e+01) *
             r +
         2.506628277459239e+00) *
        q /
        (((((-5.447609879822406e+01 * r + 1.615858368580409e+02) * r - 1.556989798598866e+02) * r +
           6.680131188771972e+01) *
              r -
          1.328068155288572e+01) *
             r +
         1.0);
  }
  const double error = normal_cdf(z) - p;
  const double u = error * kSqrt2Pi * std::exp(0.5 * z * z);
  return z - u / (1.0 + 0.5 * z * u);
}

Band central_band(double mean, double std, double level) {
  const double reach = -normal_quantile(0.5 * (1.0 - level)) * std;
  return {mean - reach, mean + reach};
}

Band central_band(std::span<const double> sorted, double level) {
  const auto quantile = [&](double p) {
    const double position = p * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(position);
    const std::size_t above = std::min(below + 1, sorted.size() - 1);
    return sorted[below] +
           (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
  };
  return {quantile(0.5 * (1.0 - level)), quantile(0.5 * (1.0 + level))};
}

Band mixture_band(std::span<const double> sorted_means, double std, double level) {
  if (std <= 0.0) return central_band(sorted_means, level);
  const auto quantile = [&](double p) {
    // The quantile of the mixture lies between the quantiles of its outermost parts.
    const double z = normal_quantile(p) * std;
    double low = sorted_means.front() + z;
    double high = sorted_means.back() + z;
    for (int i = 0; i < 60 && low < high; ++i) {
      const double middle = 0.5 * (low + high);
      (mixture_cdf(middle, sorted_means, std) < p ? low : high) = middle;
    }
    return 0.5 * (low + high);
  };
  return {quantile(0.5 * (1.0 - level)), quantile(0.5 * (1.0 + level))};
}

Coverage::Coverage(std::vector<double> levels)
    : levels_(std::move(levels)), inside_(levels_.size()), observed_(levels_.size()) {}

void Coverage::add(double y, std::span<const Band> bands) {
  for (std::size_t i = 0; i < levels_.size(); ++i) {
    if (bands[i].low <= y && y <= bands[i].high) ++inside_[i];
  }
  ++targets_;
}

void Coverage::add_probability(double p) {
  // y lies in the central band of a level exactly where its cumulative probability lies in the
  // central interval of that level.
  for (std::size_t i = 0; i < levels_.size(); ++i) {
    if (std::abs(p - 0.5) <= 0.5 * levels_[i]) ++inside_[i];
  }
  ++targets_;
}

void Coverage::add_gaussian(double y, double mean, double std) {
  add_probability(normal_cdf((y - mean) / std));
}

void Coverage::add_mixture(double y, std::span<double> means, double std) {
  if (std > 0.0) {
    add_probability(mixture_cdf(y, means, std));
    return;
  }
  std::sort(means.begin(), means.end());
  for (std::size_t i = 0; i < levels_.size(); ++i) {
    const Band band = central_band(means, levels_[i]);
    if (band.low <= y && y <= band.high) ++inside_[i];
  }
  ++targets_;
}

std::vector<double> Coverage::end_episode() {
  std::vector<double> shares;
  if (targets_ == 0) return shares;
  for (std::size_t i = 0; i < levels_.size(); ++i) {
    shares.push_back(static_cast<double>(inside_[i]) / static_cast<double>(targets_));
    observed_[i].add(shares.back());
    inside_[i] = 0;
  }
  targets_ = 0;
  return shares;
}

double r_squared(std::span<const double> predictions, std::span<const double> targets,
                 std::size_t outputs) {
  double residual = 0.0, total = 0.0;
  const double rows = static_cast<double>(targets.size() / outputs);
  for (std::size_t o = 0; o < outputs; ++o) {
    double mean = 0.0;
    for (std::size_t i = o; i < targets.size(); i += outputs) mean += targets[i] / rows;
    for (std::size_t i = o; i < targets.size(); i += outputs) {
      residual += (targets[i] - predictions[i]) * (targets[i] - predictions[i]);
      total += (targets[i] - mean) * (targets[i] - mean);
    }
  }
  return total > 0.0 ? 1.0 - residual / total : kNaN;
}

RegressionScore RegressionMetrics::add_episode(std::span<const double> samples,
                                               std::size_t sample_count,
                                               std::span<const double> targets, double noise_std) {
  const std::vector<double> same(targets.size(), noise_std);
  return add_episode(samples, sample_count, targets, same);
}

RegressionScore RegressionMetrics::add_episode(std::span<const double> samples,
                                               std::size_t sample_count,
                                               std::span<const double> targets,
                                               std::span<const double> noise_std) {
  const std::size_t size = targets.size();
  if (size == 0) throw Error("regression metrics: an episode without query rows");
  if (noise_std.size() != size) {
    throw Error("regression metrics: " + std::to_string(noise_std.size()) +
                " standard deviations for " + std::to_string(size) + " targets");
  }
  if (sample_count == 0 || samples.size() != sample_count * size) {
    throw Error("regression metrics: " + std::to_string(samples.size()) +
                " predictions, expected " + std::to_string(sample_count) + " samples of " +
                std::to_string(size));
  }
  const auto finite = [](double x) { return std::isfinite(x); };
  if (!std::all_of(samples.begin(), samples.end(), finite) ||
      !std::all_of(targets.begin(), targets.end(), finite) ||
      !std::all_of(noise_std.begin(), noise_std.end(), finite)) {
    throw Error("regression metrics: a prediction or target is not finite");
  }
  const bool noisy =
      std::all_of(noise_std.begin(), noise_std.end(), [](double s) { return s > 0.0; });
  const bool has_variance = sample_count > 1 || noisy;
  std::vector<double> means(sample_count);
  double squares = 0.0;
  double nll = 0.0;
  for (std::size_t i = 0; i < size; ++i) {
    double mean = 0.0;
    for (std::size_t s = 0; s < sample_count; ++s) {
      means[s] = samples[s * size + i];
      mean += means[s];
    }
    mean /= static_cast<double>(sample_count);
    squares += (mean - targets[i]) * (mean - targets[i]);
    if (noisy) nll += mixture_nll(targets[i], means, noise_std[i]);
    if (has_variance) coverage_.add_mixture(targets[i], means, noisy ? noise_std[i] : 0.0);
  }
  RegressionScore score;
  score.coverage = coverage_.end_episode();
  score.mse = squares / static_cast<double>(size);
  score.nll = noisy ? nll / static_cast<double>(size) : std::nan("");
  mse_.add(score.mse);
  if (noisy) nll_.add(score.nll);
  return score;
}

}  // namespace kshot::metrics
