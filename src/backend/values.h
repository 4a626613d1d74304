// The small types that a backend's operations take: names of per-task vectors and of sets of rows,
// factors, rates, noise, losses and sizes.
//
// Shapes in all headers of this folder: B tasks in the wave, D weights of one task's network, n
// rows of a data set. Every per-task scalar factor that depends on the task's own number of rows is
// expressed by a Scale, so that tasks of different size need no special case anywhere.
#pragma once

#include <cstddef>
#include <span>

#include "backend/shared_vector.h"
#include "kshot/random.h"

namespace kshot::backend {

/// A per-task vector [B, width] of a wave, named by number: only the wave knows where it lies.
struct Block {
  int id = -1;
  explicit operator bool() const { return id >= 0; }
};

/// Rows of a task: its support set, its query set, or both as one set (support first).
enum class Set { support, query, all };

/// A per-task factor: `factor` divided by 1, by the number of rows of the set at hand, or by a
/// named count of the task's rows.
struct Scale {
  enum class By { one, support, query, all };
  double factor = 1.0;
  By by = By::one;
};

/// Per-weight step sizes: a number for all weights, or a shared vector [D] (masks are zeros in it).
/// For a block that is not of weights the vector's length may divide its width: it is repeated.
struct Rate {
  double value = 0.0;
  const SharedVector* vector = nullptr;  ///< used where set; `value` is ignored then
};

/// Inputs of a pass are dropped out: an element is zero with probability `rate`, else divided by
/// 1 - rate. Drawn by key (task = the task's global index), element by element of the set's rows,
/// so that the same key is the same mask.
struct Dropout {
  double rate = 0.0;
  RandomKey key;
  explicit operator bool() const { return rate > 0.0; }
};

/// A function of a task's scalars, element by element.
enum class Function { reciprocal, logarithm, square_root };

/// Adam (Kingma & Ba 2015) for vectors that every task optimises for itself.
struct AdamRule {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
};

/// Which statistics a norm layer uses in a forward pass without gradient.
enum class NormStatistics {
  batch,    ///< of the set at hand (transductive)
  support,  ///< of the support set under the same weights: queries can come one at a time
};

/// How a network is evaluated under Gaussian weights, N(mu, sigma^2) each
/// (docs/mathematics.md, "Estimators").
enum class Estimator {
  weight,   ///< one draw of the weights for all rows
  flipout,  ///< one draw, decorrelated between rows by random signs (Wen et al. 2018)
  local,    ///< a draw of each row's pre-activations (Kingma et al. 2015)
};

/// The noise of one Monte Carlo sample under Gaussian weights: drawn by key (task = the task's
/// global index), or given in blocks, as recorded cases have it.
struct GaussianNoise {
  /// One layer's noise by rows. `in` and `out` are flipout's signs [rows, input features or
  /// channels] and [rows, output features or channels], `out` is local's noise [rows, output
  /// elements]. Empty where the layer has none.
  struct Layer {
    Block in, out;
  };
  RandomKey key;
  Block weights;  ///< of weights, standard normal; empty: drawn
  /// One entry a layer of the network, or none: rows are drawn by key.
  std::span<const Layer> layers;
  /// In `layers` the rows of a query set follow the task's own support rows (those of Set::all do
  /// anyway).
  bool support_first = false;
};

enum class LossKind { cross_entropy, mse, gaussian_nll };
struct Loss {
  LossKind kind = LossKind::cross_entropy;
  double noise_std = 1.0;  ///< gaussian_nll
};

/// Largest sizes a wave must serve.
struct WaveShape {
  int support = 0, query = 0;  ///< rows
  bool with_all = false;       ///< Set::all is used
  bool generated = false;      ///< the weights are a generator's
  /// Where a head beside the network makes the predictions (closed-form heads), the network's
  /// outputs are features: `targets` is the tasks' own number of classes or of target values, and
  /// no pass of the network asks for a loss. 0: the network's outputs are the predictions.
  int targets = 0;
  bool every_class = false;  ///< every class of a task must have a support row
  bool operator==(const WaveShape&) const = default;
  int rows(Set set) const {
    return set == Set::support ? support : set == Set::query ? query : support + query;
  }
};

}  // namespace kshot::backend
