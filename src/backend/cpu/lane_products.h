// The shapes and strides of a linear layer's three products in lanes; the caller sets the operands.
// Weights are [out][in][W], features and their derivatives [feature][row][W].
#pragma once

#include "backend/cpu/kernels.h"

namespace kshot::backend::cpu {

/// y[out][row] = sum over in of W[out][in] x[in][row]: a = W, b = x, c = y.
inline LaneGemm output_product(int in, int out, int rows) {
  LaneGemm g;
  g.m = out;
  g.n = rows;
  g.k = in;
  g.a_row = in;
  g.a_col = 1;
  g.b_row = rows;
  g.b_col = 1;
  g.c_row = rows;
  g.c_col = 1;
  return g;
}

/// dx[in][row] = sum over out of W[out][in] dy[out][row]: a = W, b = dy, c = dx.
inline LaneGemm input_gradient_product(int in, int out, int rows) {
  LaneGemm g;
  g.m = in;
  g.n = rows;
  g.k = out;
  g.a_row = 1;
  g.a_col = in;
  g.b_row = rows;
  g.b_col = 1;
  g.c_row = rows;
  g.c_col = 1;
  return g;
}

/// dW[out][in] = sum over rows of dy[out][row] x[in][row]: a = dy, b = x, c = dW.
inline LaneGemm weight_gradient_product(int in, int out, int rows) {
  LaneGemm g;
  g.m = out;
  g.n = in;
  g.k = rows;
  g.a_row = rows;
  g.a_col = 1;
  g.b_row = 1;
  g.b_col = rows;
  g.c_row = in;
  g.c_col = 1;
  return g;
}

}  // namespace kshot::backend::cpu
