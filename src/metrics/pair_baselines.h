// Baselines that see a task only through a number for each pair of rows, a squared distance or a
// similarity: nearest neighbours and Gaussian processes. As those of metrics/baselines.h, they
// compute in double, are deterministic, and choose what they have to choose (number of neighbours,
// kernel length, noise) on the task's support set alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "metrics/baselines.h"

namespace kshot::metrics {

/// One number for each pair of a support row with a support row or a query row.
struct RowPairs {
  std::size_t support_n = 0;
  std::size_t query_n = 0;
  std::vector<double> support;  ///< [support_n, support_n], symmetric
  std::vector<double> query;    ///< [query_n, support_n]
};

/// Squared Euclidean distances; exactly 0 for equal rows. Throws Error for a set without rows,
/// sizes that do not fit or features that are not finite.
RowPairs squared_distances(const Features& features);

/// True where every feature of support and query rows is 0 or 1.
bool is_binary(const Features& features);
/// Tanimoto (Jaccard) similarities of binary rows: x.y / (x.x + y.y - x.y), the number of features
/// that both have over the number that either has (Ralaivola et al. 2005); 1 for two rows of zeros.
/// Throws Error as squared_distances, and for features that are not 0 or 1.
RowPairs tanimoto_similarities(const Features& features);

/// Numbers of neighbours that a support set is tried with, so far as it has one row more.
inline constexpr std::size_t neighbour_counts[] = {1, 2, 3, 5, 10, 20};

/// k-nearest neighbours by squared distances, equal votes: p_c = (v_c + 1/2) / (k + classes / 2),
/// v_c the number of votes for class c (Krichevsky and Trofimov's estimate, so that no class has
/// probability 0). Where classes have as many votes, the one whose voters are nearer is taken: the
/// j-th neighbour's vote counts 1 - 1e-6 j. Of equal distances the lower row comes first. k is the
/// one of neighbour_counts with the largest mean log probability of the support rows' own labels,
/// each predicted from the other rows; the smaller of equals; 1 where no class has two rows.
/// Returns [query_n, classes].
std::vector<double> nearest_neighbour_classes(const RowPairs& distances,
                                              std::span<const std::int32_t> labels,
                                              std::size_t classes);

/// Mean target of the k nearest neighbours: values [support_n, outputs] -> [query_n, outputs]. k is
/// the one of neighbour_counts with the least squared error of the support rows, each predicted
/// from the other rows; the smaller of equals; 1 for a single row.
std::vector<double> nearest_neighbour_values(const RowPairs& distances,
                                             std::span<const float> values, std::size_t outputs);

enum class Kernel {
  rbf,       ///< R(d) = exp(-d / (2 length^2)) of squared distances d
  tanimoto,  ///< R(s) = s of similarities s
};

/// What a Gaussian process predicts, and with which hyperparameters.
struct GaussianProcessFit {
  std::vector<double> mean;     ///< [query_n, outputs]
  std::vector<double> std;      ///< [query_n, outputs], the observation noise included
  double length = 0.0;          ///< of the RBF kernel
  double noise_share = 0.0;     ///< rho
  double log_likelihood = 0.0;  ///< log density of the standardised support targets, nats
};

/// Multiples of the median distance, and noise shares, that gaussian_process chooses from. The
/// first ones are taken where the marginal likelihoods are equal.
inline constexpr double process_lengths[] = {1.0, 0.5, 2.0, 0.25, 4.0};
inline constexpr double process_noise_shares[] = {0.1, 0.01, 0.001, 0.3, 0.6, 0.9};
/// Rows that the marginal likelihood is taken of: this many of the support set, evenly spaced.
inline constexpr std::size_t process_likelihood_rows = 128;

/// Gaussian process regression (Rasmussen and Williams 2006, algorithm 2.1). Each output is
/// standardised by mean and standard deviation (of n, not n - 1) of the support targets; equal
/// targets, and a single one, are divided by 1, for they have no scale. Then the prior has variance
/// one, of which the observation noise has the share rho: K = (1 - rho) R + rho I, and
///   mean = k^T K^-1 y,  variance = 1 - k^T K^-1 k,  k = (1 - rho) R(query, support).
/// Length and rho maximise the marginal likelihood log N(y; 0, K), summed over the outputs whose
/// targets are not all equal, on the grid of process_lengths (times the median of the positive
/// distances between support rows; 1 where there are none) and process_noise_shares; without such
/// outputs they are the first of each grid. `targets` [support_n, outputs].
GaussianProcessFit gaussian_process(Kernel kernel, const RowPairs& pairs,
                                    std::span<const float> targets, std::size_t outputs);

/// Least-squares classification with a Gaussian process (Rasmussen and Williams 2006, 6.5): one
/// regression per class on its indicator, with the hyperparameters of all classes in common.
/// p_c is proportional to P(indicator > 1/2) = Phi((mean_c - 1/2) / std_c). Hyperparameters as for
/// gaussian_process; but where no class has two rows, which leaves nothing to learn them from, the
/// first of each grid. Classes without support examples have the probability that Krichevsky and
/// Trofimov's estimate gives to a class not seen, (1/2) / (support_n + classes / 2); the others
/// share the rest. Returns [query_n, classes].
std::vector<double> gaussian_process_classes(Kernel kernel, const RowPairs& pairs,
                                             std::span<const std::int32_t> labels,
                                             std::size_t classes);

}  // namespace kshot::metrics
