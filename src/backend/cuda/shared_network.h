// A perceptron that all tasks share, on rows of features of many tasks: every layer is one product
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
  /// Of linear layers and activations. `rows`: the most at once.
  SharedNetwork(std::shared_ptr<const Network> network, std::size_t rows);

  /// Outputs [rows, outputs] of x [rows, inputs], rows one task after another, the same number for
  /// each; both stay until the next forward. `weights`: in flat order. x and weights must stay
  /// while the others follow.
  const T* forward(const T* weights, const T* x, std::size_t rows, cudaStream_t stream);
  /// Tangents of the outputs along x_dot, of the last forward's rows.
  const T* tangent(const T* x_dot, cudaStream_t stream);
  /// Takes what tangent and backward otherwise take when they first need it.
  void reserve_tangent();
  void reserve_backward(bool tangents);
  /// From the outputs' gradient to that of the inputs, g_x, where it is wanted (not null). Where
  /// dots are given, theirs too, along the last tangent. g must stay for add_gradient.
  void backward(Tangent<const T> g, Tangent<T> g_x, cudaStream_t stream);
  /// Adds the linear layers' matrices, in their order, to a gradient whose vector has the weights
  /// from `offset` on; `rows`: of each task. Gives the first one's number.
  std::size_t add_matrices(FactoredGradient<T>& gradient, std::size_t offset, int rows) const;
  /// gradient += that of the weights by the last backward; first: what add_matrices gave. The
  /// factors are not copied: they last until the next forward.
  void add_gradient(FactoredGradient<T>& gradient, std::size_t first, int tasks,
                    const Stream& stream) const;
  /// The same with copies of the factors.
  void add_gradient_copy(FactoredGradient<T>& gradient, std::size_t first, int tasks,
                         const Stream& stream) const;
  /// gradient += a times its tangent, with copies: first the term with the outputs' g.dot, then
  /// that with g.value.
  void add_gradient_tangent(FactoredGradient<T>& gradient, std::size_t first, T a, int tasks,
                            const Stream& stream) const;

 private:
  struct Stage {
    bool linear = true;
    Activation activation = Activation::relu;
    int in = 0, out = 0;
    std::size_t weight = 0, bias = 0;  ///< offsets in flat order
    bool has_bias = false;
    DeviceMemory<T> y, y_dot;      ///< [rows, out]
    DeviceMemory<T> g_x, g_x_dot;  ///< [rows, in]; the first stage's are the caller's
    Tangent<const T> x, g;         ///< of the last passes
  };
  std::size_t elements(int width) const { return rows_ * static_cast<std::size_t>(width); }
  /// Calls see(stage, number) for the linear ones, with their numbers in a gradient.
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
