#include "metrics/recalibration.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kshot/error.h"
#include "metrics/classification_checks.h"
#include "metrics/metrics.h"

namespace kshot::metrics {
namespace {

const double kFloor = -std::log(std::numeric_limits<double>::min());  // 708 nats

}  // namespace

void apply_temperature(std::span<double> probabilities, std::size_t classes, double temperature) {
  for (std::size_t first = 0; first < probabilities.size(); first += classes) {
    const std::span<double> row = probabilities.subspan(first, classes);
    for (double& p : row) p = std::log(p) / temperature;  // log(0) is -infinity
    softmax(row, row);
  }
}

void TemperatureFit::add_episode(std::span<const double> probabilities,
                                 std::span<const std::int32_t> labels, std::size_t classes) {
  check_labelled_rows(probabilities, labels, classes);
  if (labels.empty()) throw Error("temperature: an episode without query rows");
  episodes_.push_back({log_probabilities_.size(), labels.size(), classes, labels_.size()});
  for (const double p : probabilities) log_probabilities_.push_back(std::log(p));
  labels_.insert(labels_.end(), labels.begin(), labels.end());
}

TemperatureFit::Value TemperatureFit::value(double inverse) const {
  Value mean;
  for (const Episode& e : episodes_) {
    Value sum;
    for (std::size_t r = 0; r < e.rows; ++r) {
      const auto row = std::span(log_probabilities_).subspan(e.first + r * e.classes, e.classes);
      const double own = row[static_cast<std::size_t>(labels_[e.first_label + r])];
      if (!std::isfinite(own)) {  // no temperature changes a probability of 0
        sum.nll += kFloor;
        continue;
      }
      const double largest = *std::ranges::max_element(row);
      double total = 0.0, weighted = 0.0;
      for (const double l : row) {
        if (!std::isfinite(l)) continue;
        const double share = std::exp(inverse * (l - largest));
        total += share;
        weighted += share * l;
      }
      sum.nll += inverse * (largest - own) + std::log(total);
      sum.slope += weighted / total - own;
    }
    mean.nll += sum.nll / static_cast<double>(e.rows);
    mean.slope += sum.slope / static_cast<double>(e.rows);
  }
  const auto n = static_cast<double>(episodes_.size());
  return {mean.nll / n, mean.slope / n};
}

Recalibration TemperatureFit::fit() const {
  if (episodes_.empty()) throw Error("temperature: no episodes, expected at least 1");
  double low = std::log(1e-3), high = std::log(1e3);  // range of log(1/T)
  Recalibration result;
  result.nll_before = value(1.0).nll;
  double found = 0.0;
  if (value(std::exp(low)).slope >= 0.0) {
    found = low;
    result.at_end = true;
  } else if (value(std::exp(high)).slope <= 0.0) {
    found = high;
    result.at_end = true;
  } else {
    while (high - low > 1e-9) {
      const double middle = 0.5 * (low + high);
      (value(std::exp(middle)).slope < 0.0 ? low : high) = middle;
    }
    found = 0.5 * (low + high);
  }
  result.value = std::exp(-found);
  result.nll_after = value(std::exp(found)).nll;
  return result;
}

void VarianceFit::add_episode(std::span<const double> samples, std::size_t sample_count,
                              std::span<const double> targets, std::span<const double> std) {
  const std::size_t size = targets.size();
  if (size == 0) throw Error("variance factor: an episode without query rows");
  if (samples.size() != sample_count * size || sample_count == 0 || std.size() != size) {
    throw Error("variance factor: " + std::to_string(samples.size()) + " predictions and " +
                std::to_string(std.size()) + " standard deviations for " + std::to_string(size) +
                " targets");
  }
  for (std::size_t i = 0; i < size; ++i) {
    if (!(std[i] > 0.0 && std::isfinite(std[i]))) {
      throw Error("variance factor: the standard deviation of the noise is " +
                  std::to_string(std[i]) + ", expected above 0");
    }
    double mean = 0.0;
    for (std::size_t s = 0; s < sample_count; ++s) mean += samples[s * size + i];
    mean /= static_cast<double>(sample_count);
    weights_.push_back(1.0 / static_cast<double>(size));
    residuals_.push_back(targets[i] - mean);
    stds_.push_back(std[i]);
    first_.push_back(deviations_.size());
    for (std::size_t s = 0; s < sample_count; ++s) {
      deviations_.push_back(samples[s * size + i] - mean);
    }
  }
  ++episodes_;
}

double VarianceFit::nll(double log_factor) const {
  // The density of a prediction stretched by r is the density of residual / r, divided by r.
  const double shrink = std::exp(-0.5 * log_factor);
  double sum = 0.0;
  for (std::size_t i = 0; i < residuals_.size(); ++i) {
    const std::size_t end = i + 1 < first_.size() ? first_[i + 1] : deviations_.size();
    const auto parts = std::span(deviations_).subspan(first_[i], end - first_[i]);
    sum += weights_[i] * mixture_nll(residuals_[i] * shrink, parts, stds_[i]);
  }
  return sum / static_cast<double>(episodes_) + 0.5 * log_factor;
}

Recalibration VarianceFit::fit() const {
  if (episodes_ == 0) throw Error("variance factor: no episodes, expected at least 1");
  constexpr int points = 57;
  const double end = std::log(1e6), step = 2.0 * end / (points - 1);
  int best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < points; ++i) {
    const double at = nll(-end + step * i);
    if (at < least) {
      least = at;
      best = i;
    }
  }
  const double centre = -end + step * best;
  double low = std::max(-end, centre - step), high = std::min(end, centre + step);
  const double golden = 0.5 * (std::sqrt(5.0) - 1.0);
  double left = high - golden * (high - low), right = low + golden * (high - low);
  double at_left = nll(left), at_right = nll(right);
  while (high - low > 1e-7) {
    if (at_left < at_right) {
      high = right;
      right = left;
      at_right = at_left;
      left = high - golden * (high - low);
      at_left = nll(left);
    } else {
      low = left;
      left = right;
      at_left = at_right;
      right = low + golden * (high - low);
      at_right = nll(right);
    }
  }
  const double found = 0.5 * (low + high);
  Recalibration result;
  result.value = std::exp(found);
  result.nll_before = nll(0.0);
  result.nll_after = nll(found);
  result.at_end = std::abs(found) > end - 1e-3;
  return result;
}

}  // namespace kshot::metrics
