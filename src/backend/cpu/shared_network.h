// A perceptron that all tasks share, on rows of features. Its dense products use weights that are
// packed once per step. Rows are padded to a multiple of W floats, and the pads are zero.
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

/// Dense matrix products through gather_gemm. The offset tables are kept for reuse.
class Products {
 public:
  explicit Products(const Kernels& kernels) : kernels_(kernels) {}

  /// C[i][0:n] (+)= sum_k A(i, k) B[k][0:n], with A(i, k) = a[i a_row + k a_col] and n a multiple
  /// of W. b_row and c_row are the distances between rows of B and of C.
  void multiply(int m, int n, int k, const float* a, std::size_t a_row, std::size_t a_col,
                const float* b, std::size_t b_row, float* c, std::size_t c_row, bool accumulate);
  /// C[i][0:n] (+)= sum over the terms of A(i, k) B[k][0:n], with A(i, k) = a[i a_row + terms[k].a]
  /// and B[k] = b + terms[k].b.
  void multiply(int m, int n, std::span<const GatherIndex> terms, const float* a, std::size_t a_row,
                const float* b, float* c, std::size_t c_row, bool accumulate);

  /// to[0:n] = the sum of m rows of x, with n a multiple of W.
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

/// A perceptron with one vector of weights for all rows of a pass.
class SharedNetwork {
 public:
  /// Takes a network of linear layers and activations. `rows` is the largest number of rows of a
  /// pass.
  SharedNetwork(Products& products, std::shared_ptr<const Network> network, int rows);

  int in_stride() const { return layers_.front().in_stride; }
  int out_stride() const { return layers_.back().out_stride; }

  /// Packs the weights, [network.size()] in flat order.
  void pack(const float* weights);
  /// From now on this network uses the packed weights of `other`, a network of the same layers.
  void share_weights(const SharedNetwork& other);

  /// Outputs [rows, out_stride] of x [rows, in_stride]. They stay until the next forward. x must
  /// stay valid while pull-backs follow.
  const float* forward(const float* x, int rows);
  /// Outputs of the last forward.
  const float* outputs() const { return layers_.back().y.data(); }
  /// Tangents of the last forward's outputs along x_dot.
  const float* tangent(const float* x_dot);
  /// Returns the gradient by the inputs [rows, in_stride] from that by the outputs [rows,
  /// out_stride]. With `inputs` false, the gradient by the inputs is not computed. The layers' own
  /// gradients stay for add_gradient.
  const float* backward(const float* g, bool inputs = true);
  /// Tangents of backward's results along g_dot and the last tangent(). Call after backward(g).
  const float* backward_tangent(const float* g_dot);
  /// flat += the last backward's weight gradient of rows [first, first + rows).
  void add_gradient(float* flat, int first, int rows);
  /// flat += a times the tangent of that gradient.
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
    AlignedFloats g, g_dot;    ///< gradient by the layer's input, [rows, in_stride]
    const float* x = nullptr;  ///< operands of the last passes
    const float* x_dot = nullptr;
    const float* g_out = nullptr;
    const float* g_out_dot = nullptr;
  };
  /// One outer product of a weight gradient: g^T x over rows.
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
