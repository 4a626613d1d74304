#include "backend/cuda/split_layers.h"

#include <algorithm>

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using backend::count_of;
using backend::Estimator;
using backend::Set;

/// For a linear layer, each feature is a channel.
SignSize in_signs(const Layer& layer) {
  if (layer.type == LayerType::linear) return {layer.in.size(), 1};
  return {layer.in.channels, layer.in.height * layer.in.width};
}
SignSize out_signs(const Layer& layer) {
  return {layer.out.channels, layer.out.height * layer.out.width};
}

}  // namespace

template <class T>
SplitLayers<T>::SplitLayers(const Network& network, int tasks, int rows)
    : network_(network), largest_(count_of(tasks) * count_of(rows)) {
  for (const Estimator e : {Estimator::flipout, Estimator::local}) {
    layouts_[static_cast<std::size_t>(e)] = backend::row_noise_layout(network, e);
  }
  variances_.resize(network.layers().size());
}

// ---- memory ----

template <class T>
void SplitLayers<T>::reserve(Dual& dual, std::size_t features, bool tangents) {
  dual.value.reserve(largest_ * features);
  if (tangents) dual.dot.reserve(largest_ * features);
}

/// Buffers have the size of the largest layer that the estimator splits.
template <class T>
void SplitLayers<T>::reserve(Estimator estimator, bool tangents) {
  std::size_t most_in = 0, most_out = 0;
  for (std::size_t i = 0; i < network_.layers().size(); ++i) {
    const Layer& layer = network_.layers()[i];
    if (!splits(layer)) continue;
    most_in = std::max(most_in, count_of(layer.in.size()));
    most_out = std::max(most_out, count_of(layer.out.size()));
    if (estimator == Estimator::local) {
      reserve(variances_[i], count_of(layer.out.size()), tangents);
    }
  }
  reserve(inputs_, most_in, tangents);
  reserve(outputs_, most_out, tangents);
  reserve(back_, most_in, tangents);
}

// ---- noise ----

template <class T>
void SplitLayers<T>::take_noise(Estimator estimator, const backend::GaussianNoise& noise,
                                const Rows& rows, bool tangents, const Read& read,
                                const Stream& stream) {
  estimator_ = estimator;
  reserve(estimator, tangents);
  noise_ = {};
  noise_.width = layouts_[static_cast<std::size_t>(estimator)].width;
  if (!noise.layers.empty()) return take_given(noise, rows, read, stream);
  noise_.key = backend::row_key(noise.key, rows.set == Set::query);
  noise_.key.task = rows.global_first;
  if (rows.set == Set::all) {
    noise_.support = rows.support;
    noise_.query = backend::row_key(noise.key, true).purpose;
  }
}

/// Arranges given noise in rows as drawn noise has them, with the tasks' own rows one after
/// another.
template <class T>
void SplitLayers<T>::take_given(const backend::GaussianNoise& noise, const Rows& rows,
                                const Read& read, const Stream& stream) {
  const backend::RowNoiseLayout& layout = layouts_[static_cast<std::size_t>(estimator_)];
  const std::size_t tasks = count_of(rows.extent.tasks), of_task = count_of(rows.extent.rows);
  staging_.assign(tasks * of_task * layout.width, T(0));
  const auto put = [&](backend::Block given, std::size_t width, std::size_t offset) {
    if (width == 0) return;
    const std::vector<double> values = read(given);
    for (std::size_t t = 0; t < tasks; ++t) {
      const std::size_t support = rows.set == Set::query ? 0 : count_of(rows.support_n[t]);
      const std::size_t query = rows.set == Set::support ? 0 : count_of(rows.query_n[t]);
      const std::size_t skip =
          rows.set == Set::query && noise.support_first ? count_of(rows.support_n[t]) : 0;
      const double* from = values.data() + t * (values.size() / tasks) + skip * width;
      for (std::size_t row = 0; row < support + query; ++row, from += width) {
        std::transform(from, from + width,
                       staging_.begin() +
                           static_cast<std::ptrdiff_t>((t * of_task + row) * layout.width + offset),
                       [](double x) { return static_cast<T>(x); });
      }
    }
  };
  for (std::size_t i = 0; i < layout.layers.size(); ++i) {
    put(noise.layers[i].in, layout.layers[i].in_width, layout.layers[i].in);
    put(noise.layers[i].out, layout.layers[i].out_width, layout.layers[i].out);
  }
  given_.reserve(staging_.size());
  stream.to_device(given_.data(), staging_.data(), staging_.size());
  noise_.given = given_.data();
}

template <class T>
RowNoise<T> SplitLayers<T>::noise(std::size_t offset) const {
  RowNoise<T> of_layer = noise_;
  of_layer.offset = offset;
  return of_layer;
}

// ---- passes ----

template <class T>
LayerCall<T> SplitLayers<T>::enter(std::size_t layer, const LayerCall<T>& at_mean,
                                   const Tensors<const T>& spread, bool tangents) {
  LayerCall<T> call = at_mean;
  const Tangent<T> x = inputs_.at(tangents && at_mean.x.dot);
  if (local()) {
    square<T>(x, at_mean.x, call.layer->in.size(), call.rows, call.stream);
  } else {
    const auto& part = layouts_[static_cast<std::size_t>(estimator_)].layers[layer];
    multiply_signs<T>(x, at_mean.x, false, noise(part.in), in_signs(*call.layer), call.rows,
                      call.stream);
  }
  call.x = {x.value, x.dot};
  call.weight = spread.weight;
  call.bias = splits_biases() ? spread.bias : TensorTangent<const T>{};
  return call;
}

template <class T>
void SplitLayers<T>::forward(std::size_t layer, const LayerCall<T>& at_mean,
                             const Tensors<const T>& spread, Tangent<T> y) {
  const bool tangents = y.dot != nullptr;
  const LayerCall<T> call = enter(layer, at_mean, spread, tangents);
  const Tangent<T> t = (local() ? variances_[layer] : outputs_).at(tangents);
  layer_operations<T>(call.layer->type)->forward(call, t);
  const auto& part = layouts_[static_cast<std::size_t>(estimator_)].layers[layer];
  if (local()) {
    deviate<T>(y, {t.value, t.dot}, noise(part.out), call.layer->out.size(), call.rows,
               call.stream);
  } else {
    multiply_signs<T>(y, {t.value, t.dot}, true, noise(part.out), out_signs(*call.layer), call.rows,
                      call.stream);
  }
}

template <class T>
void SplitLayers<T>::backward(std::size_t layer, const LayerCall<T>& at_mean,
                              const Tensors<const T>& spread, Tangent<const T> g, Tangent<T> g_in,
                              const Tensors<T>& g_spread, Accumulate to) {
  const bool tangents = g.dot != nullptr;
  const LayerCall<T> call = enter(layer, at_mean, spread, tangents);
  const auto& part = layouts_[static_cast<std::size_t>(estimator_)].layers[layer];
  const int inputs = call.layer->in.size(), outputs = call.layer->out.size();
  const Tangent<T> g_t = outputs_.at(tangents);
  if (local()) {
    const Tangent<T> variance = variances_[layer].at(tangents);
    deviate_pullback<T>(g_t, g, {variance.value, variance.dot}, noise(part.out), outputs, call.rows,
                        call.stream);
  } else {
    multiply_signs<T>(g_t, g, false, noise(part.out), out_signs(*call.layer), call.rows,
                      call.stream);
  }
  const Tangent<T> back = g_in.value ? back_.at(tangents) : Tangent<T>{};
  layer_operations<T>(call.layer->type)
      ->backward(call, {g_t.value, g_t.dot}, back, g_spread.weight,
                 splits_biases() ? g_spread.bias : TensorTangent<T>{}, to);
  if (!g_in.value) return;
  if (local()) {
    square_pullback<T>(g_in, {back.value, back.dot}, at_mean.x, inputs, call.rows, call.stream);
  } else {
    multiply_signs<T>(g_in, {back.value, back.dot}, true, noise(part.in), in_signs(*call.layer),
                      call.rows, call.stream);
  }
}

template class SplitLayers<float>;
template class SplitLayers<double>;

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
