// Layers under Gaussian weights by flipout and local (backend.h, SplitPass): what a wave does
// beside a layer's own operations at the mean. The product with the spread goes through the same
// operations, whatever kernels they launch; kernels/row_noise.h says what goes in and out of it.
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

template <class T>
class SplitLayers {
 public:
  /// For waves of up to `tasks` tasks and `rows` rows of any set.
  SplitLayers(const Network& network, int tasks, int rows);

  /// Tasks that are loaded, for noise that is given row by row, and the set at hand.
  struct Rows {
    backend::Set set = backend::Set::support;
    RowExtent extent;
    const std::int32_t* support = nullptr;             ///< [tasks], device memory: own support rows
    std::span<const std::int32_t> support_n, query_n;  ///< [tasks]: own rows of both
    std::uint32_t global_first = 0;                    ///< the key's task of task 0
  };
  /// Room for what passes of an estimator compute, with tangents or without.
  void reserve(backend::Estimator estimator, bool tangents);
  /// A wave's block on the host, [tasks, width].
  using Read = std::function<std::vector<double>(backend::Block)>;
  /// The noise of the passes that follow, and room for them. Noise that is given goes through the
  /// host: recorded cases have it, and their time does not matter.
  void take_noise(backend::Estimator estimator, const backend::GaussianNoise& noise,
                  const Rows& rows, bool tangents, const Read& read, const Stream& stream);

  static bool splits(const Layer& layer) {
    return layer.type == LayerType::conv || layer.type == LayerType::linear;
  }
  /// The layer's tensors of spreads, or of their gradients.
  template <class U>
  struct Tensors {
    TensorTangent<U> weight, bias;
  };
  /// Adds to y, which holds the layer at the mean, what the spread gives. Backward needs the
  /// layer's variances, which it leaves here.
  void forward(std::size_t layer, const LayerCall<T>& at_mean, const Tensors<const T>& spread,
               Tangent<T> y);
  /// After the layer's own backward at the mean: adds to its g_in, where it is wanted, and writes
  /// or accumulates the gradients by the spread.
  void backward(std::size_t layer, const LayerCall<T>& at_mean, const Tensors<const T>& spread,
                Tangent<const T> g, Tangent<T> g_in, const Tensors<T>& g_spread, Accumulate to);
  /// Whether the spread's bias is a variance of its own: else the bias is drawn with the mean.
  bool splits_biases() const { return estimator_ == backend::Estimator::local; }

 private:
  struct Dual {
    DeviceMemory<T> value, dot;
    Tangent<T> at(bool with_dot) { return {value.data(), with_dot ? dot.data() : nullptr}; }
  };
  bool local() const { return estimator_ == backend::Estimator::local; }
  void reserve(Dual& dual, std::size_t features, bool tangents);
  RowNoise<T> noise(std::size_t offset) const;
  /// The call of the product with the spread; its input goes to inputs_.
  LayerCall<T> enter(std::size_t layer, const LayerCall<T>& at_mean, const Tensors<const T>& spread,
                     bool tangents);
  void take_given(const backend::GaussianNoise& noise, const Rows& rows, const Read& read,
                  const Stream& stream);

  const Network& network_;
  std::size_t largest_;  ///< tasks times rows
  backend::Estimator estimator_ = backend::Estimator::flipout;
  backend::RowNoiseLayout layouts_[3];
  RowNoise<T> noise_;            ///< but for the layer's offset
  std::vector<Dual> variances_;  ///< local: what each layer's spread gives
  Dual inputs_, outputs_;        ///< of a layer's product with the spread, or gradients by them
  Dual back_;                    ///< gradient by that product's input
  DeviceMemory<T> given_;
  std::vector<T> staging_;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
