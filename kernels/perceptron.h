// Small perceptrons: a task's whole inner loop, the outer loss and the adjoint of it all in one
// launch. Pointers are device memory; instantiated for float and double.
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
/// Different vectors of rates in one descent.
constexpr int most_descent_rates = 10;

/// How a layer's product of features and weights, or of gradients and weights, is made.
enum class ProductWay : std::uint8_t {
  elements,    ///< too narrow for tiles: a thread an element
  outer,       ///< its depth is one
  column,      ///< it has one column
  tiles,       ///< of any sizes
  usual_tiles  ///< of sizes that the compiler knows
};
/// And its weights' gradient.
enum class GradientWay : std::uint8_t { elements, one_input, one_output, tiles, usual_tiles };
/// What is applied to its outputs.
enum class Curve : std::uint8_t { none, relu, leaky_relu, tanh };

/// A linear layer, and what is applied to its outputs.
struct PerceptronLayer {
  int inputs = 0, outputs = 0;
  int weight = 0;  ///< in the flat vector of parameters: [outputs, inputs]
  int bias = -1;   ///< likewise [outputs]; -1: none
  bool activated = false;
  Activation activation = Activation::relu;
  // Set by plan_perceptron: where they lie in the block's memory.
  int stride = 0;  ///< from one row of the weights to the next
  int weight_at = 0, bias_at = 0;
  int inputs_at = 0, inputs_stride = 0;      ///< features that enter, [rows, inputs]
  int gradient_at = 0, gradient_stride = 0;  ///< gradient by what leaves, [rows, outputs]
  // Everything that a choice depends on, side by side.
  ProductWay forward = ProductWay::elements, backward = ProductWay::elements;
  GradientWay weights = GradientWay::elements;
  Curve curve = Curve::none;
};

struct Perceptron {
  int layers = 0;
  int weights = 0;  ///< D
  PerceptronLayer layer[most_perceptron_layers];
  // Set by plan_perceptron, in scalars:
  int stored_weights = 0;  ///< one vector of weights in the block's memory, and of an iterate
  int features = 0;        ///< all features and gradients, without tangents
  int kept_at = 0;         ///< among them all layers' outputs, one after another,
  int kept = 0;            ///< so many, which a gradient keeps for its derivative
  int rows = 0;            ///< the most of any set
};

/// How a descent is laid out on a device.
struct PerceptronPlan {
  Perceptron network;
  int threads = 0;  ///< of a block
  int teams = 1;    ///< that make its threads up, each on a pass of its own
  std::size_t shared_bytes = 0;
  int blocks = 0;  ///< that the device holds at once
  /// Scalars of scratch memory for `tasks` tasks and `steps` inner steps whose adjoint is wanted.
  std::size_t scratch(int tasks, int steps) const;
};

/// Sizes a descent of `network` (its first part filled in) on sets of at most `rows` rows. False
/// where it does not fit into shared memory. `own_direction`: it has vectors of rates, or a
/// direction.
struct DeviceLimits {
  std::size_t shared_limit = 0;  ///< bytes of shared memory a block
  std::size_t shared_total = 0;  ///< and a multiprocessor
  int processors = 1;
};
template <class T>
bool plan_perceptron(PerceptronPlan& plan, const Perceptron& network, int rows, bool own_direction,
                     const DeviceLimits& device);

/// One set of the tasks' rows.
template <class T>
struct PerceptronRows {
  const T* x = nullptr;  ///< [tasks, rows, inputs]
  LossTarget<T> target;
  RowExtent rows;
  TaskScale<T> scale;  ///< of the sum of the rows' losses
};

/// w_0 = start, w_{k+1} = w_k - rate_k grad L(w_k) for k < steps, L the scaled loss of `inner`;
/// then, where `gradient` is wanted, the loss of `outer` at w_steps and its gradients. With
/// `direction` instead of all that the product of L's Hessian at the start and the direction.
template <class T>
struct PerceptronDescent {
  TaskTensor<const T> start;
  int steps = 0;
  int rate_count = 1;  ///< the last serves the steps beyond
  RateArgument<T> rates[most_descent_rates];
  PerceptronRows<T> inner;
  T* end = nullptr;  ///< w_steps [tasks, D]; may be the start, where that is each task's own

  T* gradient = nullptr;    ///< by w_0, or the product [tasks, D]; null: not wanted
  bool accumulate = false;  ///< it is added to, else overwritten
  bool second_order = true;
  PerceptronRows<T> outer;
  T* loss = nullptr;                           ///< [tasks], added to
  int rate_gradient_count = 0;                 ///< 0: not wanted; as rate_count
  T* rate_gradients[most_descent_rates] = {};  ///< [tasks, D] each, overwritten

  const T* direction = nullptr;  ///< [tasks, D]

  T* scratch = nullptr;  ///< PerceptronPlan::scratch scalars; where nothing is differentiated none
};

template <class T>
void perceptron_descent(const PerceptronPlan& plan, const PerceptronDescent<T>& descent, int tasks,
                        cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
