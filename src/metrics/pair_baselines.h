// Baselines that see a task only through one number per pair of rows (a squared distance or a
// similarity): nearest neighbours and Gaussian processes. Like those of metrics/baselines.h, they
// compute in double precision and are deterministic. They choose their hyperparameters (number of
// neighbours, kernel length, noise) on the task's support set alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "metrics/baselines.h"

namespace kshot::metrics {

/// One number for each pair of a support row with another support row or with a query row.
struct RowPairs {
  std::size_t support_n = 0;
  std::size_t query_n = 0;
  std::vector<double> support;  ///< [support_n, support_n], symmetric
  std::vector<double> query;    ///< [query_n, support_n]
};

/// Squared Euclidean distances, which are exactly 0 for equal rows. Throws Error for a set without
/// rows, sizes that do not fit or features that are not finite.
RowPairs squared_distances(const Features& features);

/// Returns true if every feature of the support and query rows is 0 or 1.
bool is_binary(const Features& features);
/// Tanimoto (Jaccard) similarities of binary rows: x.y / (x.x + y.y - x.y), which is the number of
/// features that both rows have, divided by the number that at least one has (Ralaivola et al.
/// 2005). It is 1 for two rows of zeros. Throws Error as squared_distances does, and for features
/// that are not 0 or 1.
RowPairs tanimoto_similarities(const Features& features);

/// Candidate numbers of neighbours k. A candidate needs at least k + 1 support rows.
inline constexpr std::size_t neighbour_counts[] = {1, 2, 3, 5, 10, 20};

/// k-nearest neighbours by squared distances with equal votes:
/// p_c = (v_c + 1/2) / (k + classes / 2), where v_c is the number of votes for class c (the
/// estimate of Krichevsky and Trofimov, so that no class has probability 0). Between classes with
/// equally many votes, the one with nearer voters wins: the vote of neighbour j (from 0) counts
/// 1 - 1e-6 j. Between equal distances, the lower row comes first.
///
/// k is the candidate in neighbour_counts with the largest mean log probability of the support
/// rows' labels, each predicted from the other rows. Between equal candidates the smaller one is
/// taken. k is 1 where no class has two rows. Returns [query_n, classes].
std::vector<double> nearest_neighbour_classes(const RowPairs& distances,
                                              std::span<const std::int32_t> labels,
                                              std::size_t classes);

/// Mean target of the k nearest neighbours: values [support_n, outputs] -> [query_n, outputs]. k is
/// the candidate in neighbour_counts with the least squared error of the support rows, each
/// predicted from the other rows. Between equal candidates the smaller one is taken. k is 1 for a
/// single row.
std::vector<double> nearest_neighbour_values(const RowPairs& distances,
                                             std::span<const float> values, std::size_t outputs);

enum class Kernel {
  rbf,       ///< R(d) = exp(-d / (2 length^2)) of squared distances d
  tanimoto,  ///< R(s) = s of similarities s
};

/// Predictions of a Gaussian process, and the hyperparameters that it uses.
struct GaussianProcessFit {
  std::vector<double> mean;     ///< [query_n, outputs]
  std::vector<double> std;      ///< [query_n, outputs], including the observation noise
  double length = 0.0;          ///< length of the RBF kernel
  double noise_share = 0.0;     ///< rho
  double log_likelihood = 0.0;  ///< log density of the standardised support targets, nats
};

/// Candidates of gaussian_process: multiples of the median distance, and noise shares. Between
/// equal marginal likelihoods, the earlier candidates are taken.
inline constexpr double process_lengths[] = {1.0, 0.5, 2.0, 0.25, 4.0};
inline constexpr double process_noise_shares[] = {0.1, 0.01, 0.001, 0.3, 0.6, 0.9};
/// Number of evenly spaced support rows on which the marginal likelihood is computed.
inline constexpr std::size_t process_likelihood_rows = 128;

/// Gaussian process regression (Rasmussen and Williams 2006, algorithm 2.1). Each output is
/// standardised by the mean and the standard deviation (with n, not n - 1) of the support targets.
/// Equal targets and a single target have no scale, and are divided by 1. The prior then has
/// variance 1, and the observation noise has the share rho of it: K = (1 - rho) R + rho I, and
///   mean = k^T K^-1 y,  variance = 1 - k^T K^-1 k,  k = (1 - rho) R(query, support).
/// Length and rho maximise the marginal likelihood log N(y; 0, K), summed over the outputs whose
/// targets are not all equal. The candidates are process_lengths (times the median of the positive
/// distances between support rows, or 1 where there are none) and process_noise_shares. Without
/// such outputs, the first candidates are taken. `targets` are [support_n, outputs].
GaussianProcessFit gaussian_process(Kernel kernel, const RowPairs& pairs,
                                    std::span<const float> targets, std::size_t outputs);

/// Least-squares classification with a Gaussian process (Rasmussen and Williams 2006, section 6.5):
/// one regression per class on the indicator of the class, with shared hyperparameters. p_c is
/// proportional to P(indicator > 1/2) = Phi((mean_c - 1/2) / std_c).
///
/// The hyperparameters are chosen as in gaussian_process. Where no class has two rows, nothing can
/// be learned about them, and the first candidates are taken. Classes without support examples have
/// the probability that the estimate of Krichevsky and Trofimov gives to an unseen class,
/// (1/2) / (support_n + classes / 2). The other classes share the rest. Returns [query_n, classes].
std::vector<double> gaussian_process_classes(Kernel kernel, const RowPairs& pairs,
                                             std::span<const std::int32_t> labels,
                                             std::size_t classes);

}  // namespace kshot::metrics
