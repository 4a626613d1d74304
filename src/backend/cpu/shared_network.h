// A perceptron that all tasks share, on rows of features: dense products with weights that are
// packed once a step. Rows are padded to a multiple of W floats; the pads are zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_wave.h"
#include "backend/cpu/kernels.h"
#include "kshot/network.h"

namespace kshot::backend::cpu {

/// Dense matrix products through gather_gemm, whose offset tables are kept.
class Products {
 public:
  explicit Products(const Kernels& kernels) : kernels_(kernels) {}

  /// C[i][0:n] (+)= sum_k A(i, k) B[k][0:n], A(i, k) = a[i a_row + k a_col], n a multiple of W,
  /// rows of B and C so far apart.
  void multiply(int m, int n, int k, const float* a, std::size_t a_row, std::size_t a_col,
                const float* b, std::size_t b_row, float* c, std::size_t c_row, bool accumulate);
  /// The same where term k has A(i, k) = a[i a_row + terms[k].a] and B[k] = b + terms[k].b.
  void multiply(int m, int n, std::span<const GatherIndex> terms, const float* a, std::size_t a_row,
                const float* b, float* c, std::size_t c_row, bool accumulate);

  /// to[0:n] = the sum of m rows of x, n a multiple of W.
  void sum_rows(int m, int n, const float* x, std::size_t row, float* to);

  int pad(int floats) const {
    return (floats + kernels_.lanes - 1) / kernels_.lanes * kernels_.lanes;
  }
  const Kernels& kernels() const { return kernels_; }

 private:
  const std::int32_t* offsets(std::size_t stride, int count);

  const Kernels& kernels_;
  std::map<std::size_t, std::vector<std::int32_t>> offsets_;
  std::map<std::pair<std::size_t, std::size_t>, std::vector<GatherIndex>> index_;
};

class SharedNetwork {
 public:
  /// Of linear layers and activations. `rows`: the most at once.
  SharedNetwork(Products& products, std::shared_ptr<const Network> network, int rows);

  int in_stride() const { return layers_.front().in_stride; }
  int out_stride() const { return layers_.back().out_stride; }

  /// Packs the weights, [network.size()] in flat order.
  void pack(const float* weights);
  /// From now on the packed weights of `other`, a network of the same layers, are this one's too.
  void share_weights(const SharedNetwork& other);

  /// Outputs [rows, out_stride] of x [rows, in_stride]; both stay until the next forward. x must
  /// stay while pull-backs follow.
  const float* forward(const float* x, int rows);
  /// The last forward's.
  const float* outputs() const { return layers_.back().y.data(); }
  /// Tangents of the outputs along x_dot, of the last forward's rows.
  const float* tangent(const float* x_dot);
  /// From the outputs' gradient [rows, out_stride] to that of the inputs [rows, in_stride] (not
  /// taken where `inputs` is false). The layers' own stay for add_gradient.
  const float* backward(const float* g, bool inputs = true);
  /// Tangents of backward's results, along g_dot and the last tangent(); after backward(g).
  const float* backward_tangent(const float* g_dot);
  /// flat += the last backward's weight gradient of rows [first, first + rows) ...
  void add_gradient(float* flat, int first, int rows);
  /// ... or a times its tangent.
  void add_gradient_tangent(float* flat, double a, int first, int rows);

 private:
  struct Layer {
    bool linear = true;
    Activation activation = Activation::relu;
    int in = 0, out = 0, in_stride = 0, out_stride = 0;
    std::size_t weight = 0, bias = 0;  ///< offsets in flat order
    bool has_bias = false;
    AlignedFloats packed;      ///< [in][out_stride]
    AlignedFloats transposed;  ///< [out][in_stride]
    AlignedFloats bias_row;    ///< [out_stride]
    AlignedFloats y, y_dot;    ///< [rows, out_stride]
    AlignedFloats g, g_dot;    ///< of the input, [rows, in_stride]
    const float* x = nullptr;  ///< of the last passes
    const float* x_dot = nullptr;
    const float* g_out = nullptr;
    const float* g_out_dot = nullptr;
  };
  struct Term {
    const float* g;
    const float* x;
  };
  void outer(const Layer& layer, std::span<const Term> terms, float* to, float a, int first,
             int rows);
  void add_bias(const Layer& layer, const float* g, float* to, float a, int first, int rows);

  Products& products_;
  std::shared_ptr<const Network> network_;
  std::vector<Layer> layers_;
  int rows_ = 0;
  AlignedFloats scratch_;
  std::vector<float> g_rows_, x_rows_, bias_;
};

}  // namespace kshot::backend::cpu
