// Small perceptrons: one launch computes a task's whole inner loop, the outer loss and the adjoint
// of both. Pointers are device memory. Instantiated for float and double.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/activation.h"
#include "kernels/elementwise.h"
#include "kernels/extent.h"
#include "kernels/loss.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

constexpr int most_perceptron_layers = 6;
/// The largest number of different rates in one descent.
constexpr int most_descent_rates = 10;

/// How a layer computes its product of features and weights, or of gradients and weights.
enum class ProductWay : std::uint8_t {
  elements,    ///< too narrow for tiles: one thread per element
  outer,       ///< the depth of the product is one
  column,      ///< the product has one column
  tiles,       ///< tiles of any sizes
  usual_tiles  ///< tiles of sizes that the compiler knows
};
/// How a layer computes the gradient of its weights.
enum class GradientWay : std::uint8_t { elements, one_input, one_output, tiles, usual_tiles };
/// The activation of a layer's outputs.
enum class Curve : std::uint8_t { none, relu, leaky_relu, tanh };

/// A linear layer, and the activation of its outputs.
struct PerceptronLayer {
  int inputs = 0, outputs = 0;
  int weight = 0;  ///< offset of [outputs, inputs] in the flat vector of parameters
  int bias = -1;   ///< offset of [outputs], likewise; -1: no bias
  bool activated = false;
  Activation activation = Activation::relu;
  // Set by plan_perceptron: offsets in the block's memory.
  int stride = 0;  ///< distance of two rows of the weights
  int weight_offset = 0, bias_offset = 0;
  int inputs_offset = 0, inputs_stride = 0;  ///< features that enter the layer, [rows, inputs]
  int gradient_offset = 0,
      gradient_stride = 0;  ///< gradient by the layer's outputs, [rows, outputs]
  // The fields on which the choice of code depends, next to each other.
  ProductWay forward = ProductWay::elements, backward = ProductWay::elements;
  GradientWay weights = GradientWay::elements;
  Curve curve = Curve::none;
};

/// The layers of a perceptron and the layout of its memory.
struct Perceptron {
  int layers = 0;
  int weights = 0;  ///< D
  PerceptronLayer layer[most_perceptron_layers];
  // Set by plan_perceptron, in scalars.
  int stored_weights = 0;  ///< size of a vector of weights in the block's memory, and of an iterate
  int features = 0;        ///< size of all features and gradients, without tangents
  int kept_offset = 0;     ///< offset in them of all layers' outputs, one after another
  int kept = 0;            ///< size of these outputs, which a gradient keeps for its derivative
  int rows = 0;            ///< the largest number of rows of a set
};

/// The layout of a descent on a device.
struct PerceptronPlan {
  Perceptron network;
  int threads = 0;  ///< threads per block
  int teams = 1;    ///< teams per block; each team computes a pass of its own
  std::size_t shared_bytes = 0;
  int blocks = 0;  ///< blocks that the device holds at the same time
  /// Number of scalars of scratch memory for `tasks` tasks and `steps` inner steps whose adjoint is
  /// computed.
  std::size_t scratch(int tasks, int steps) const;
};

/// The properties of a device on which a plan depends.
struct DeviceLimits {
  std::size_t shared_limit = 0;  ///< bytes of shared memory per block
  std::size_t shared_total = 0;  ///< bytes of shared memory per multiprocessor
  int processors = 1;
};
/// Plans a descent of `network`, whose first part is filled in, on sets of at most `rows` rows.
/// Returns false if it does not fit into shared memory. `own_direction` says that the descent has
/// vectors of rates, or a direction.
template <class T>
bool plan_perceptron(PerceptronPlan& plan, const Perceptron& network, int rows, bool own_direction,
                     const DeviceLimits& device);

/// One set (support, query or both) of the tasks' rows.
template <class T>
struct PerceptronRows {
  const T* x = nullptr;  ///< [tasks, rows, inputs]
  LossTarget<T> target;
  RowExtent rows;
  TaskScale<T> scale;  ///< factor of the sum of the rows' losses
};

/// A descent of each task: w_0 = start, and w_{k+1} = w_k - rate_k grad L(w_k) for k < steps, where
/// L is the scaled loss of `inner`. If `gradient` is given, the loss of `outer` at w_steps and its
/// gradients follow. If `direction` is given, only -rates[0].value times the product of L's Hessian
/// at the start and the direction is computed.
template <class T>
struct PerceptronDescent {
  TaskTensor<const T> start;
  int steps = 0;
  int rate_count = 1;  ///< the last rate also serves all later steps
  RateArgument<T> rates[most_descent_rates];
  PerceptronRows<T> inner;
  T* end = nullptr;  ///< w_steps [tasks, D]; may be the start, if each task has its own

  T* gradient = nullptr;  ///< by w_0, or the Hessian-vector product, [tasks, D]; null: not computed
  bool accumulate = false;  ///< the gradient is added to; else it is overwritten
  bool second_order = true;
  PerceptronRows<T> outer;
  T* loss = nullptr;            ///< [tasks], added to
  int rate_gradient_count = 0;  ///< 0: not computed; the last one sums those of all later steps
  T* rate_gradients[most_descent_rates] = {};  ///< [tasks, D] each, overwritten

  const T* direction = nullptr;  ///< [tasks, D]

  T* scratch = nullptr;  ///< PerceptronPlan::scratch scalars; null if nothing is differentiated
};

template <class T>
void perceptron_descent(const PerceptronPlan& plan, const PerceptronDescent<T>& descent, int tasks,
                        cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
