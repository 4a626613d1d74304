// Layers under Gaussian weights by flipout and local (SplitPass in network_passes.h): the work of a
// wave beside a layer's own operations at the mean. The product with the spread uses the same
// operations and kernels. kernels/row_noise.h describes its input and the use of its output.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/layer_operations.h"
#include "backend/cuda/memory.h"
#include "backend/row_noise.h"
#include "kernels/row_noise.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// The products with the spread of one wave, and their buffers.
template <class T>
class SplitLayers {
 public:
  /// For waves of up to `tasks` tasks, and up to `rows` rows of any set.
  SplitLayers(const Network& network, int tasks, int rows);

  /// The loaded tasks and the set of a pass; given noise needs the numbers of rows.
  struct Rows {
    backend::Set set = backend::Set::support;
    RowExtent extent;
    const std::int32_t* support = nullptr;             ///< [tasks], device memory: own support rows
    std::span<const std::int32_t> support_n, query_n;  ///< own rows, [tasks], on the host
    std::uint32_t global_first = 0;                    ///< task number of task 0 in keys
  };
  /// Allocates the buffers of an estimator's passes, with tangents or without.
  void reserve(backend::Estimator estimator, bool tangents);
  /// Reads a wave's block, [tasks, width], to the host.
  using Read = std::function<std::vector<double>(backend::Block)>;
  /// Prepares the noise of the passes that follow, and their buffers. Noise that is given goes
  /// through the host. Only recorded cases have such noise, and their time does not matter.
  void take_noise(backend::Estimator estimator, const backend::GaussianNoise& noise,
                  const Rows& rows, bool tangents, const Read& read, const Stream& stream);

  static bool splits(const Layer& layer) {
    return layer.type == LayerType::conv || layer.type == LayerType::linear;
  }
  /// The layer's tensors of the spread, or of the gradients by it.
  template <class U>
  struct Tensors {
    TensorTangent<U> weight, bias;
  };
  /// Adds the spread's part to y, which holds the layer's output at the mean. Keeps the layer's
  /// variances for backward.
  void forward(std::size_t layer, const LayerCall<T>& at_mean, const Tensors<const T>& spread,
               Tangent<T> y);
  /// Runs after the layer's own backward at the mean. Adds the spread's part to g_in unless it is
  /// null, and writes or accumulates the gradients by the spread.
  void backward(std::size_t layer, const LayerCall<T>& at_mean, const Tensors<const T>& spread,
                Tangent<const T> g, Tangent<T> g_in, const Tensors<T>& g_spread, Accumulate to);
  /// True where the spread's bias is a separate variance. Otherwise the bias is drawn with the
  /// mean.
  bool splits_biases() const { return estimator_ == backend::Estimator::local; }

 private:
  /// Values and their tangents.
  struct Dual {
    DeviceMemory<T> value, dot;
    Tangent<T> at(bool with_dot) { return {value.data(), with_dot ? dot.data() : nullptr}; }
  };
  bool local() const { return estimator_ == backend::Estimator::local; }
  void reserve(Dual& dual, std::size_t features, bool tangents);
  RowNoise<T> noise(std::size_t offset) const;
  /// The call of the product with the spread. Its input is written to inputs_.
  LayerCall<T> enter(std::size_t layer, const LayerCall<T>& at_mean, const Tensors<const T>& spread,
                     bool tangents);
  void take_given(const backend::GaussianNoise& noise, const Rows& rows, const Read& read,
                  const Stream& stream);

  const Network& network_;
  std::size_t largest_;  ///< tasks times rows, at most
  backend::Estimator estimator_ = backend::Estimator::flipout;
  backend::RowNoiseLayout layouts_[3];
  RowNoise<T> noise_;            ///< without the layer's offset
  std::vector<Dual> variances_;  ///< local: output of the spread's product, per layer
  /// Input and output of a layer's product with the spread, or gradients by them.
  Dual inputs_, outputs_;
  Dual back_;  ///< gradient by the input of that product
  DeviceMemory<T> given_;
  std::vector<T> staging_;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
