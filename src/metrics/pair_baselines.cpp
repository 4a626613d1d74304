#include "metrics/pair_baselines.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <string>

#include "kshot/error.h"
#include "metrics/baseline_checks.h"
#include "metrics/constants.h"
#include "metrics/metrics.h"
#include "metrics/small_algebra.h"

namespace kshot::metrics {
namespace {

constexpr double kTieBreak = 1e-6;  // difference between the votes of consecutive neighbours

/// Computes one number per pair of rows, in double precision.
RowPairs pairs_of(
    const Features& features,
    const std::function<double(std::span<const double>, std::span<const double>)>& number) {
  const std::size_t dim = features.dim;
  RowPairs pairs{check_rows(features.support, dim, "support set"),
                 check_rows(features.query, dim, "query set"),
                 {},
                 {}};
  const std::vector<double> support(features.support.begin(), features.support.end());
  const std::vector<double> query(features.query.begin(), features.query.end());
  const std::size_t n = pairs.support_n;
  pairs.support.resize(n * n);
  pairs.query.resize(pairs.query_n * n);
  const auto row = [dim](const std::vector<double>& x, std::size_t i) {
    return std::span(x).subspan(i * dim, dim);
  };
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      pairs.support[i * n + j] = pairs.support[j * n + i] =
          number(row(support, i), row(support, j));
    }
  }
  for (std::size_t q = 0; q < pairs.query_n; ++q) {
    for (std::size_t j = 0; j < n; ++j) {
      pairs.query[q * n + j] = number(row(query, q), row(support, j));
    }
  }
  return pairs;
}

void check_pairs(const RowPairs& pairs) {
  const std::size_t n = pairs.support_n;
  if (n == 0 || pairs.support.size() != n * n || pairs.query.size() != pairs.query_n * n) {
    throw Error("baseline: " + std::to_string(pairs.support.size()) +
                " numbers for pairs of two support rows and " + std::to_string(pairs.query.size()) +
                " for pairs of a query row and a support row; expected " + std::to_string(n * n) +
                " and " + std::to_string(pairs.query_n * n) + ", with at least one support row");
  }
}

void check_values(std::span<const float> values, std::size_t outputs, std::size_t rows) {
  if (check_rows(values, outputs, "support targets") != rows) {
    throw Error("baseline: " + std::to_string(values.size()) + " target numbers, expected " +
                std::to_string(rows) + " rows of " + std::to_string(outputs));
  }
}

bool some_class_twice(std::span<const std::int32_t> labels, std::size_t classes) {
  std::vector<std::size_t> count(classes, 0);
  for (std::int32_t label : labels) {
    if (++count[static_cast<std::size_t>(label)] > 1) return true;
  }
  return false;
}

// ---- nearest neighbours ----

constexpr std::size_t kNobody = std::numeric_limits<std::size_t>::max();

/// Returns the `most` nearest rows by increasing distance, without the row `left_out`.
std::vector<std::size_t> nearest(std::span<const double> distances, std::size_t most,
                                 std::size_t left_out = kNobody) {
  std::vector<std::size_t> rows;
  rows.reserve(distances.size());
  for (std::size_t i = 0; i < distances.size(); ++i) {
    if (i != left_out) rows.push_back(i);
  }
  most = std::min(most, rows.size());
  std::partial_sort(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(most), rows.end(),
                    [&](std::size_t a, std::size_t b) {
                      return distances[a] != distances[b] ? distances[a] < distances[b] : a < b;
                    });
  rows.resize(most);
  return rows;
}

void vote(std::span<const std::size_t> neighbours, std::span<const std::int32_t> labels,
          std::span<double> probabilities) {
  std::fill(probabilities.begin(), probabilities.end(), 0.5);
  double weight = 1.0, total = 0.5 * static_cast<double>(probabilities.size());
  for (std::size_t row : neighbours) {
    probabilities[static_cast<std::size_t>(labels[row])] += weight;
    total += weight;
    weight -= kTieBreak;
  }
  for (double& p : probabilities) p /= total;
}

/// Returns the number of neighbours with the least cost, summed over the support rows. Each row is
/// predicted from the others.
std::size_t choose_neighbours(
    const RowPairs& distances,
    const std::function<double(std::span<const std::size_t> neighbours, std::size_t row)>& cost) {
  const std::size_t n = distances.support_n;
  std::vector<double> costs;
  for (std::size_t i = 0; i < n; ++i) {
    const auto order = nearest(std::span(distances.support).subspan(i * n, n),
                               std::ranges::max(neighbour_counts), i);
    std::size_t candidate = 0;
    for (const std::size_t k : neighbour_counts) {
      if (k > order.size()) break;
      if (costs.size() == candidate) costs.push_back(0.0);
      costs[candidate++] += cost(std::span(order).first(k), i);
    }
  }
  // Sums that differ only by rounding count as equal.
  std::size_t best = 0;
  for (std::size_t c = 1; c < costs.size(); ++c) {
    if (costs[c] < costs[best] - 1e-12 * std::abs(costs[best])) best = c;
  }
  return neighbour_counts[best];
}

// ---- Gaussian processes ----

struct Hyperparameters {
  double length;
  double noise_share;
};

/// Targets of unit variance, and the numbers that convert back. [n, outputs] is stored as [outputs,
/// n].
struct Standardised {
  std::vector<double> y;
  std::vector<double> mean, scale;  // [outputs]
  std::vector<std::size_t> varied;  // the outputs whose targets are not all equal
};

Standardised standardised(std::span<const float> targets, std::size_t outputs) {
  const std::size_t n = targets.size() / outputs;
  Standardised out{std::vector<double>(targets.size()),
                   std::vector<double>(outputs),
                   std::vector<double>(outputs, 1.0),
                   {}};
  for (std::size_t o = 0; o < outputs; ++o) {
    const auto y = std::span(out.y).subspan(o * n, n);
    for (std::size_t i = 0; i < n; ++i) y[i] = targets[i * outputs + o];
    const auto [least, most] = std::ranges::minmax(y);
    const double mean = std::accumulate(y.begin(), y.end(), 0.0) / static_cast<double>(n);
    // The exact value, so that rounding is not mistaken for variance.
    out.mean[o] = least == most ? least : mean;
    for (double& value : y) value -= out.mean[o];
    if (least != most) {
      out.scale[o] = std::sqrt(dot(y, y) / static_cast<double>(n));
      out.varied.push_back(o);
    }
    for (double& value : y) value /= out.scale[o];
  }
  return out;
}

/// Returns the evenly spaced support rows on which hyperparameters are chosen.
std::vector<std::size_t> likelihood_rows(std::size_t n) {
  std::vector<std::size_t> rows(std::min(n, process_likelihood_rows));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = i * n / rows.size();
  return rows;
}

/// Median of the positive distances between the support rows in `rows`; 1 if there are none.
double median_distance(const RowPairs& pairs, std::span<const std::size_t> rows) {
  std::vector<double> distances;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const double d = pairs.support[rows[i] * pairs.support_n + rows[j]];
      if (d > 0.0) distances.push_back(std::sqrt(d));
    }
  }
  if (distances.empty()) return 1.0;
  std::ranges::sort(distances);
  const std::size_t half = distances.size() / 2;
  return distances.size() % 2 == 1 ? distances[half]
                                   : 0.5 * (distances[half - 1] + distances[half]);
}

double correlation(Kernel kernel, double pair, double length) {
  return kernel == Kernel::tanimoto ? pair : std::exp(-0.5 * pair / (length * length));
}

/// Returns the Cholesky factor of K between the support rows in `rows`.
std::vector<double> factor(Kernel kernel, const RowPairs& pairs, std::span<const std::size_t> rows,
                           const Hyperparameters& h) {
  const std::size_t n = rows.size();
  std::vector<double> k(n * n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      const double pair = pairs.support[rows[i] * pairs.support_n + rows[j]];
      k[i * n + j] = (1.0 - h.noise_share) * correlation(kernel, pair, h.length);
    }
    k[i * n + i] += h.noise_share;
  }
  if (!cholesky(k, n)) {
    throw Error("baseline: the kernel matrix of the support set is not positive definite");
  }
  return k;
}

/// log N(y; 0, K) of the support rows in `rows`, summed over the outputs whose targets vary.
double log_likelihood(std::span<const double> l, std::span<const std::size_t> rows,
                      const Standardised& targets, std::size_t support_n) {
  const std::size_t n = rows.size();
  double half_log_determinant = 0.0;
  for (std::size_t i = 0; i < n; ++i) half_log_determinant += std::log(l[i * n + i]);
  double sum = 0.0;
  std::vector<double> one(n);
  for (const std::size_t o : targets.varied) {
    for (std::size_t i = 0; i < n; ++i) one[i] = targets.y[o * support_n + rows[i]];
    solve_lower(l, n, one);
    sum -= 0.5 * dot(one, one) + half_log_determinant + static_cast<double>(n) * kLogSqrt2Pi;
  }
  return sum;
}

Hyperparameters choose_hyperparameters(Kernel kernel, const RowPairs& pairs,
                                       const Standardised& targets, double median,
                                       std::span<const std::size_t> rows) {
  std::optional<Hyperparameters> best;
  double best_likelihood = 0.0;
  for (const double length : process_lengths) {
    for (const double noise_share : process_noise_shares) {
      const Hyperparameters h{length * median, noise_share};
      const double likelihood =
          log_likelihood(factor(kernel, pairs, rows, h), rows, targets, pairs.support_n);
      // Likelihoods that differ only by rounding count as equal.
      if (best && likelihood <= best_likelihood + 1e-9 * (1.0 + std::abs(best_likelihood)))
        continue;
      best = h;
      best_likelihood = likelihood;
    }
    if (kernel == Kernel::tanimoto) break;  // this kernel has no length
  }
  return *best;
}

GaussianProcessFit fit(Kernel kernel, const RowPairs& pairs, std::span<const float> targets,
                       std::size_t outputs, bool choose) {
  const std::size_t n = pairs.support_n;
  const Standardised s = standardised(targets, outputs);
  const std::vector<std::size_t> some = likelihood_rows(n);
  const double median = kernel == Kernel::rbf ? median_distance(pairs, some) : 1.0;
  Hyperparameters h{process_lengths[0] * median, process_noise_shares[0]};
  if (choose && !s.varied.empty()) h = choose_hyperparameters(kernel, pairs, s, median, some);
  std::vector<std::size_t> all(n);
  std::iota(all.begin(), all.end(), std::size_t{0});
  const std::vector<double> l = factor(kernel, pairs, all, h);
  GaussianProcessFit out;
  out.length = kernel == Kernel::rbf ? h.length : 0.0;
  out.noise_share = h.noise_share;
  out.log_likelihood = log_likelihood(l, all, s, n);
  out.mean.resize(pairs.query_n * outputs);
  out.std.resize(pairs.query_n * outputs);
  std::vector<double> y = s.y;  // becomes L^-1 y, one output after another
  for (std::size_t o = 0; o < outputs; ++o) solve_lower(l, n, std::span(y).subspan(o * n, n));
  std::vector<double> k(n);
  for (std::size_t q = 0; q < pairs.query_n; ++q) {
    for (std::size_t i = 0; i < n; ++i) {
      k[i] = (1.0 - h.noise_share) * correlation(kernel, pairs.query[q * n + i], h.length);
    }
    solve_lower(l, n, k);
    // The variance is at least the noise, regardless of rounding.
    const double variance = std::max(1.0 - dot(k, k), h.noise_share);
    for (std::size_t o = 0; o < outputs; ++o) {
      out.mean[q * outputs + o] =
          s.mean[o] + s.scale[o] * dot(k, std::span<const double>(y).subspan(o * n, n));
      out.std[q * outputs + o] = s.scale[o] * std::sqrt(variance);
    }
  }
  return out;
}

/// log Phi(z), by the asymptotic series (Abramowitz and Stegun 26.2.12) where Phi underflows.
double log_normal_cdf(double z) {
  if (z > -30.0) return std::log(normal_cdf(z));
  const double inverse = 1.0 / (z * z);
  return -0.5 * z * z - std::log(-z) - kLogSqrt2Pi +
         std::log1p(-inverse * (1.0 - 3.0 * inverse * (1.0 - 5.0 * inverse)));
}

}  // namespace

RowPairs squared_distances(const Features& features) {
  return pairs_of(features, squared_distance);
}

bool is_binary(const Features& features) {
  const auto bit = [](float x) { return x == 0.0f || x == 1.0f; };
  return std::ranges::all_of(features.support, bit) && std::ranges::all_of(features.query, bit);
}

RowPairs tanimoto_similarities(const Features& features) {
  if (!is_binary(features)) {
    throw Error("baseline: a feature is neither 0 nor 1, which a Tanimoto similarity needs");
  }
  return pairs_of(features, [](std::span<const double> a, std::span<const double> b) {
    // Sums of zeros and ones are exact. They count the features that differ, and the features that
    // both rows have.
    const double differ = squared_distance(a, b), both = dot(a, b);
    return differ + both > 0.0 ? both / (differ + both) : 1.0;
  });
}

std::vector<double> nearest_neighbour_classes(const RowPairs& distances,
                                              std::span<const std::int32_t> labels,
                                              std::size_t classes) {
  check_pairs(distances);
  const std::size_t n = distances.support_n;
  check_labels(labels, n, classes);
  std::size_t k = 1;
  std::vector<double> probabilities(classes);
  if (some_class_twice(labels, classes)) {
    k = choose_neighbours(distances, [&](std::span<const std::size_t> neighbours, std::size_t row) {
      vote(neighbours, labels, probabilities);
      return -std::log(probabilities[static_cast<std::size_t>(labels[row])]);
    });
  }
  std::vector<double> out(distances.query_n * classes);
  for (std::size_t q = 0; q < distances.query_n; ++q) {
    vote(nearest(std::span(distances.query).subspan(q * n, n), k), labels,
         std::span(out).subspan(q * classes, classes));
  }
  return out;
}

std::vector<double> nearest_neighbour_values(const RowPairs& distances,
                                             std::span<const float> values, std::size_t outputs) {
  check_pairs(distances);
  const std::size_t n = distances.support_n;
  check_values(values, outputs, n);
  const auto mean = [&](std::span<const std::size_t> neighbours, std::size_t output) {
    double sum = 0.0;
    for (std::size_t row : neighbours) sum += values[row * outputs + output];
    return sum / static_cast<double>(neighbours.size());
  };
  std::size_t k = 1;
  if (n > 1) {
    k = choose_neighbours(distances, [&](std::span<const std::size_t> neighbours, std::size_t row) {
      double error = 0.0;
      for (std::size_t o = 0; o < outputs; ++o) {
        const double gap = mean(neighbours, o) - values[row * outputs + o];
        error += gap * gap;
      }
      return error;
    });
  }
  std::vector<double> out(distances.query_n * outputs);
  for (std::size_t q = 0; q < distances.query_n; ++q) {
    const auto neighbours = nearest(std::span(distances.query).subspan(q * n, n), k);
    for (std::size_t o = 0; o < outputs; ++o) out[q * outputs + o] = mean(neighbours, o);
  }
  return out;
}

GaussianProcessFit gaussian_process(Kernel kernel, const RowPairs& pairs,
                                    std::span<const float> targets, std::size_t outputs) {
  check_pairs(pairs);
  check_values(targets, outputs, pairs.support_n);
  return fit(kernel, pairs, targets, outputs, true);
}

std::vector<double> gaussian_process_classes(Kernel kernel, const RowPairs& pairs,
                                             std::span<const std::int32_t> labels,
                                             std::size_t classes) {
  check_pairs(pairs);
  const std::size_t n = pairs.support_n;
  check_labels(labels, n, classes);
  std::vector<float> indicators(n * classes, 0.0f);
  std::vector<bool> seen(classes, false);
  for (std::size_t i = 0; i < n; ++i) {
    const auto label = static_cast<std::size_t>(labels[i]);
    indicators[i * classes + label] = 1.0f;
    seen[label] = true;
  }
  const GaussianProcessFit f =
      fit(kernel, pairs, indicators, classes, some_class_twice(labels, classes));
  const auto unseen = static_cast<double>(std::ranges::count(seen, false));
  const double unseen_share = 0.5 / (static_cast<double>(n) + 0.5 * static_cast<double>(classes));
  std::vector<double> out(f.mean.size());
  for (std::size_t q = 0; q < pairs.query_n; ++q) {
    const auto row = std::span(out).subspan(q * classes, classes);
    for (std::size_t c = 0; c < classes; ++c) {
      row[c] = seen[c] ? log_normal_cdf((f.mean[q * classes + c] - 0.5) / f.std[q * classes + c])
                       : -std::numeric_limits<double>::infinity();
    }
    softmax(row, row);
    for (std::size_t c = 0; c < classes; ++c) {
      row[c] = seen[c] ? row[c] * (1.0 - unseen * unseen_share) : unseen_share;
    }
  }
  return out;
}

}  // namespace kshot::metrics
