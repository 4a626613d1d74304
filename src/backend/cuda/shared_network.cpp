#include "backend/cuda/shared_network.h"

#include <optional>
#include <stdexcept>
#include <utility>

#include "backend/cuda/activation_of.h"
#include "backend/values.h"
#include "kernels/product.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using backend::count_of;

/// A row-major matrix [rows, columns], and its transpose.
template <class T>
Matrix<T> matrix(const T* data, int columns, std::size_t batch = 0) {
  return {data, count_of(columns), 1, batch};
}
template <class T>
Matrix<T> transposed(const T* data, int columns, std::size_t batch = 0) {
  return {data, 1, count_of(columns), batch};
}

}  // namespace

template <class T>
SharedNetwork<T>::SharedNetwork(std::shared_ptr<const Network> network, std::size_t rows)
    : network_(std::move(network)), most_rows_(rows) {
  for (const Layer& layer : network_->layers()) {
    Stage stage;
    stage.in = layer.in.size();
    stage.out = layer.out.size();
    stage.linear = layer.type == LayerType::linear;
    if (stage.linear) {
      const auto offset = [&](int tensor) {
        return network_->parameters()[count_of(tensor)].offset;
      };
      stage.weight = offset(layer.weight);
      stage.has_bias = layer.bias >= 0;
      if (stage.has_bias) stage.bias = offset(layer.bias);
    } else {
      const std::optional<Activation> activation = activation_of(layer.type);
      if (!activation) {
        throw std::logic_error("a shared network has linear layers and activations alone");
      }
      stage.activation = *activation;
    }
    stage.y = DeviceMemory<T>(rows * count_of(stage.out));
    stages_.push_back(std::move(stage));
  }
}

template <class T>
const T* SharedNetwork<T>::forward(const T* weights, const T* x, std::size_t rows,
                                   cudaStream_t stream) {
  weights_ = weights;
  rows_ = rows;
  for (Stage& s : stages_) {
    s.x = {x, nullptr};
    if (s.linear) {
      Product<T> p;
      p.m = static_cast<int>(rows);
      p.n = s.out;
      p.k = s.in;
      p.first = {matrix(x, s.in), transposed(weights + s.weight, s.in)};
      p.c = s.y.data();
      p.c_row = count_of(s.out);
      p.bias = s.has_bias ? weights + s.bias : nullptr;
      multiply_matrices(p, stream);
    } else {
      activation_forward<T>(s.activation, {s.y.data(), nullptr}, s.x, elements(s.out), stream);
    }
    x = s.y.data();
  }
  return x;
}

template <class T>
void SharedNetwork<T>::reserve_tangent() {
  for (Stage& s : stages_) s.y_dot.reserve(most_rows_ * count_of(s.out));
}

template <class T>
void SharedNetwork<T>::reserve_backward(bool tangents) {
  for (std::size_t i = 1; i < stages_.size(); ++i) {
    Stage& s = stages_[i];
    s.g_x.reserve(most_rows_ * count_of(s.in));
    if (tangents) s.g_x_dot.reserve(most_rows_ * count_of(s.in));
  }
}

template <class T>
const T* SharedNetwork<T>::tangent(const T* x_dot, cudaStream_t stream) {
  reserve_tangent();
  for (Stage& s : stages_) {
    s.x.dot = x_dot;
    if (s.linear) {
      Product<T> p;
      p.m = static_cast<int>(rows_);
      p.n = s.out;
      p.k = s.in;
      p.first = {matrix(x_dot, s.in), transposed(weights_ + s.weight, s.in)};
      p.c = s.y_dot.data();
      p.c_row = count_of(s.out);
      multiply_matrices(p, stream);
    } else {
      activation_forward<T>(s.activation, {s.y.data(), s.y_dot.data()}, s.x, elements(s.out),
                            stream);
    }
    x_dot = s.y_dot.data();
  }
  return x_dot;
}

template <class T>
void SharedNetwork<T>::backward(Tangent<const T> g, Tangent<T> g_x, cudaStream_t stream) {
  reserve_backward(g.dot != nullptr);
  for (std::size_t i = stages_.size(); i-- > 0;) {
    Stage& s = stages_[i];
    s.g = g;
    Tangent<T> to = g_x;
    if (i > 0) to = {s.g_x.data(), g.dot ? s.g_x_dot.data() : nullptr};
    if (s.linear) {
      const auto multiply = [&](T* out, const T* from) {
        Product<T> p;
        p.m = static_cast<int>(rows_);
        p.n = s.in;
        p.k = s.out;
        p.first = {matrix(from, s.out), matrix(weights_ + s.weight, s.in)};
        p.c = out;
        p.c_row = count_of(s.in);
        multiply_matrices(p, stream);
      };
      if (to.value) multiply(to.value, g.value);
      if (to.dot) multiply(to.dot, g.dot);
    } else if (to.value) {
      activation_backward<T>(s.activation, to, g, {s.x.value, g.dot ? s.x.dot : nullptr},
                             elements(s.in), stream);
    }
    g = {to.value, to.dot};
  }
}

template <class T>
std::size_t SharedNetwork<T>::add_matrices(FactoredGradient<T>& gradient, std::size_t offset,
                                           int rows) const {
  std::optional<std::size_t> first;
  for (const Stage& s : stages_) {
    if (!s.linear) continue;
    typename FactoredGradient<T>::Matrix matrix;
    matrix.rows = rows;
    matrix.out = s.out;
    matrix.in = s.in;
    matrix.weight = offset + s.weight;
    matrix.row = count_of(s.in);
    if (s.has_bias) matrix.bias = offset + s.bias;
    const std::size_t number = gradient.add_matrix(matrix);
    if (!first) first = number;
  }
  return first.value_or(0);
}

template <class T>
void SharedNetwork<T>::add_gradient(FactoredGradient<T>& gradient, std::size_t first, int tasks,
                                    const Stream& stream) const {
  each_linear(first, [&](const Stage& s, std::size_t number) {
    gradient.add(number, {s.g.value, s.x.value, T(1), true}, tasks, stream);
  });
}

template <class T>
void SharedNetwork<T>::add_gradient_copy(FactoredGradient<T>& gradient, std::size_t first,
                                         int tasks, const Stream& stream) const {
  each_linear(first, [&](const Stage& s, std::size_t number) {
    gradient.add_copy(number, {s.g.value, s.x.value, T(1), true}, tasks, stream);
  });
}

/// The matrix gets g.dot^T x + g^T x.dot; its bias gets the sum of g.dot alone.
template <class T>
void SharedNetwork<T>::add_gradient_tangent(FactoredGradient<T>& gradient, std::size_t first, T a,
                                            int tasks, const Stream& stream) const {
  each_linear(first, [&](const Stage& s, std::size_t number) {
    gradient.add_copy(number, {s.g.dot, s.x.value, a, true}, tasks, stream);
    gradient.add_copy(number, {s.g.value, s.x.dot, a, false}, tasks, stream);
  });
}

template class SharedNetwork<float>;
template class SharedNetwork<double>;

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
