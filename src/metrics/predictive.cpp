#include "metrics/predictive.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "kshot/error.h"
#include "metrics/constants.h"
#include "metrics/metrics.h"

namespace kshot::metrics {
namespace {

constexpr double kInverseSqrtPi = 0.56418958354775628695;
constexpr double kInverseSqrt2Pi = 0.39894228040143267794;

double normal_density(double z) {
  return kInverseSqrt2Pi * std::exp(-0.5 * z * z);
}

/// E |d + std e| with e standard normal.
double mean_distance(double d, double std) {
  if (std <= 0.0) return std::abs(d);
  const double z = d / std;
  return std * (2.0 * normal_density(z) + z * (2.0 * normal_cdf(z) - 1.0));
}

void check_means(std::span<const double> means) {
  if (means.empty()) throw Error("predictive distribution: no samples, expected at least 1");
}

}  // namespace

double crps_gaussian(double y, double mean, double std) {
  if (std <= 0.0) return std::abs(y - mean);
  return mean_distance(y - mean, std) - std * kInverseSqrtPi;
}

double crps_mixture(double y, std::span<const double> means, double std) {
  check_means(means);
  const double n = static_cast<double>(means.size());
  double to_target = 0.0, among = 0.0;  // sums of A; `among` over pairs s < t
  for (double mean : means) to_target += mean_distance(y - mean, std);
  if (std > 0.0) {
    for (std::size_t s = 0; s < means.size(); ++s) {
      for (std::size_t t = 0; t < s; ++t) {
        among += mean_distance(means[s] - means[t], kSqrt2 * std);
      }
    }
    among += 0.5 * n * mean_distance(0.0, kSqrt2 * std);  // the S pairs with s = t
  } else {
    std::vector<double> sorted(means.begin(), means.end());
    std::ranges::sort(sorted);
    for (std::size_t s = 0; s < sorted.size(); ++s) {
      // Each value is the larger one of a pair s times, and the smaller one n - 1 - s times.
      among += sorted[s] * (2.0 * static_cast<double>(s) + 1.0 - n);
    }
  }
  return to_target / n - among / (n * n);
}

double pit_gaussian(double y, double mean, double std) {
  return pit_mixture(y, std::span(&mean, 1), std);
}

double pit_mixture(double y, std::span<const double> means, double std) {
  check_means(means);
  double sum = 0.0;
  for (double mean : means) {
    if (std > 0.0) {
      sum += normal_cdf((y - mean) / std);
    } else {
      sum += mean < y ? 1.0 : (mean == y ? 0.5 : 0.0);
    }
  }
  // The sum over many samples may round to just beyond their number.
  return std::clamp(sum / static_cast<double>(means.size()), 0.0, 1.0);
}

double mixture_std(std::span<const double> means, double std) {
  check_means(means);
  const double n = static_cast<double>(means.size());
  double mean = 0.0, squares = 0.0;
  for (double m : means) mean += m / n;
  for (double m : means) squares += (m - mean) * (m - mean) / n;
  return std::sqrt(squares + std * std);
}

PitHistogram::PitHistogram(std::size_t bins) : counts_(bins, 0) {
  if (bins == 0) throw Error("PIT histogram: number of bins is 0, expected at least 1");
}

void PitHistogram::add(double pit) {
  if (!(pit >= 0.0 && pit <= 1.0)) {
    throw Error("PIT histogram: value " + std::to_string(pit) + ", expected 0 to 1");
  }
  ++counts_[bin_of(pit, counts_.size(), BinEdges::left)];
  ++total_;
}

std::vector<double> PitHistogram::densities() const {
  std::vector<double> densities;
  for (std::size_t count : counts_) {
    densities.push_back(static_cast<double>(count) * static_cast<double>(counts_.size()) /
                        static_cast<double>(total_));
  }
  return densities;
}

}  // namespace kshot::metrics
