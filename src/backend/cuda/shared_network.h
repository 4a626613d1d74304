// A perceptron that all tasks share, on rows of features of many tasks. Every layer is one product
// over all rows. Gradients of its weights are kept as factors (factored_gradient.h).
#pragma once

#include <memory>
#include <vector>

#include "backend/cuda/factored_gradient.h"
#include "backend/cuda/memory.h"
#include "kernels/activation.h"
#include "kernels/extent.h"
#include "kshot/network.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

template <class T>
class SharedNetwork {
 public:
  /// Takes a network of linear layers and activations. `rows` is the largest number of rows of a
  /// pass.
  SharedNetwork(std::shared_ptr<const Network> network, std::size_t rows);

  /// Outputs [rows, outputs] of x [rows, inputs], valid until the next forward. The rows lie task
  /// after task, with the same number for each task. `weights` are in flat order. x and `weights`
  /// must stay valid while the other functions follow.
  const T* forward(const T* weights, const T* x, std::size_t rows, cudaStream_t stream);
  /// Tangents of the last forward's outputs along x_dot.
  const T* tangent(const T* x_dot, cudaStream_t stream);
  /// Allocates the memory that tangent and backward otherwise allocate at first use.
  void reserve_tangent();
  void reserve_backward(bool tangents);
  /// Computes g_x, the gradient by the inputs, from g, the gradient by the outputs. A null g_x is
  /// not computed. Where g.dot is given, the tangents along the last tangent() are computed as
  /// well. g must stay valid for add_gradient.
  void backward(Tangent<const T> g, Tangent<T> g_x, cudaStream_t stream);
  /// Adds the linear layers' matrices, in their order, to a gradient whose vector has the weights
  /// from `offset` on. `rows` is the number of rows per task. Returns the number of the first
  /// matrix.
  std::size_t add_matrices(FactoredGradient<T>& gradient, std::size_t offset, int rows) const;
  /// gradient += the last backward's gradient by the weights. `first` is the result of
  /// add_matrices. The factors are not copied, and stay valid until the next forward.
  void add_gradient(FactoredGradient<T>& gradient, std::size_t first, int tasks,
                    const Stream& stream) const;
  /// Same as add_gradient, with copies of the factors.
  void add_gradient_copy(FactoredGradient<T>& gradient, std::size_t first, int tasks,
                         const Stream& stream) const;
  /// gradient += a times the tangent of that gradient, with copies: first the term with the
  /// outputs' g.dot, then the term with g.value.
  void add_gradient_tangent(FactoredGradient<T>& gradient, std::size_t first, T a, int tasks,
                            const Stream& stream) const;

 private:
  /// One layer and its buffers.
  struct Stage {
    bool linear = true;
    Activation activation = Activation::relu;
    int in = 0, out = 0;
    std::size_t weight = 0, bias = 0;  ///< offsets in flat order
    bool has_bias = false;
    DeviceMemory<T> y, y_dot;      ///< [rows, out]
    DeviceMemory<T> g_x, g_x_dot;  ///< [rows, in]; the first stage's belong to the caller
    Tangent<const T> x, g;         ///< operands of the last passes
  };
  std::size_t elements(int width) const { return rows_ * static_cast<std::size_t>(width); }
  /// Calls see(stage, number) for the linear stages, with their numbers in a gradient.
  template <class See>
  void each_linear(std::size_t first, const See& see) const {
    for (const Stage& s : stages_) {
      if (s.linear) see(s, first++);
    }
  }
  std::shared_ptr<const Network> network_;
  std::vector<Stage> stages_;
  std::size_t most_rows_, rows_ = 0;
  const T* weights_ = nullptr;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
