// The small types that a backend's operations take: names of per-task vectors and of sets of rows,
// factors, rates, noise, losses and sizes.
//
// Letters for shapes in all headers of this folder: B tasks in the wave, D weights of one task's
// network, n rows of a data set. A factor that depends on a task's own number of rows is always a
// Scale, so that tasks of different size need no special case.
#pragma once

#include <cstddef>
#include <span>

#include "backend/shared_vector.h"
#include "kshot/random.h"

namespace kshot::backend {

/// A number that is not negative as a size. Shapes are numbers of type int.
constexpr std::size_t count_of(int n) {
  return static_cast<std::size_t>(n);
}
/// The product of two sizes, which an int may not hold.
constexpr std::size_t product(int a, int b) {
  return count_of(a) * count_of(b);
}

/// A per-task vector [B, width] of a wave, named by a number. Only the wave knows where the vector
/// is stored.
struct Block {
  int id = -1;
  explicit operator bool() const { return id >= 0; }
};

/// A set of a task's rows: the support rows, the query rows, or all rows as one set (support
/// first).
enum class Set { support, query, all };

/// A per-task factor: `factor` divided by 1, or by the task's number of support rows, query rows or
/// all rows.
struct Scale {
  enum class By { one, support, query, all };
  double factor = 1.0;
  By by = By::one;
};

/// Step sizes: one number for all weights, or a shared vector [D] with one rate per weight (a mask
/// is a vector with zeros). For a block that does not hold weights, the length of the vector may be
/// a divisor of the block's width. The vector is then repeated.
struct Rate {
  double value = 0.0;
  /// Where set, this vector is used and `value` is ignored.
  const SharedVector* vector = nullptr;
};

/// Dropout of the inputs of a pass: each element is set to zero with probability `rate` and
/// otherwise divided by 1 - rate. The mask is drawn by key (its task is the task's global index),
/// element by element of the set's rows. The same key therefore gives the same mask.
struct Dropout {
  double rate = 0.0;
  RandomKey key;
  explicit operator bool() const { return rate > 0.0; }
};

/// A function that is applied to each element of a per-task vector.
enum class Function { reciprocal, logarithm, square_root };

/// Adam (Kingma & Ba 2015) for vectors that each task optimizes separately.
struct AdamRule {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
};

/// The statistics that a norm layer uses in a forward pass without a gradient.
enum class NormStatistics {
  batch,  ///< statistics of the set itself (transductive)
  /// Statistics of the support set under the same weights, so that query rows can come one at a
  /// time.
  support,
};

/// How a network is evaluated under Gaussian weights, N(mu, sigma^2) for each weight
/// (docs/mathematics.md, "Estimators").
enum class Estimator {
  weight,   ///< one draw of the weights for all rows
  flipout,  ///< one draw, decorrelated between rows by random signs (Wen et al. 2018)
  local,    ///< one draw of the pre-activations per row (Kingma et al. 2015)
};

/// The noise of one Monte Carlo sample under Gaussian weights. It is drawn by key (whose task is
/// the task's global index) or given in blocks, as in recorded cases.
struct GaussianNoise {
  /// The noise by rows of one layer. For flipout, `in` [rows, input features or channels] and `out`
  /// [rows, output features or channels] are signs. For local, `out` [rows, output elements] is
  /// normal noise. A block is empty where the layer has no such noise.
  struct Layer {
    Block in, out;
  };
  RandomKey key;
  /// Standard normal noise of the weights, in the layout of weights. Empty: the noise is drawn.
  Block weights;
  /// One entry per layer of the network. Empty: the noise by rows is drawn by key.
  std::span<const Layer> layers;
  /// In the blocks of `layers`, the rows of a query set follow the task's own support rows. (For
  /// Set::all they always do.)
  bool support_first = false;
};

enum class LossKind { cross_entropy, mse, gaussian_nll };
struct Loss {
  LossKind kind = LossKind::cross_entropy;
  double noise_std = 1.0;  ///< gaussian_nll: standard deviation
};

/// The largest sizes that a wave must handle.
struct WaveShape {
  int support = 0, query = 0;  ///< numbers of rows per task
  bool with_all = false;       ///< Set::all is used
  bool generated = false;      ///< the weights come from a Generator
  /// Number of classes or of target values of the tasks, where a head outside of the network makes
  /// the predictions (closed-form heads). The outputs of the network are then features, and no pass
  /// of the network computes a loss. 0: the outputs of the network are the predictions.
  int targets = 0;
  bool every_class = false;  ///< every class of a task must have a support row
  bool operator==(const WaveShape&) const = default;
  int rows(Set set) const {
    return set == Set::support ? support : set == Set::query ? query : support + query;
  }
};

}  // namespace kshot::backend
