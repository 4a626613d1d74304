// Multi-layer perceptrons under Gaussian weights by flipout and local, W tasks in lanes: the split
// pass of network_passes.h in the layout of lane_wave.cpp.
//
// Every linear layer has two products: M x with the mean, and t = S xs with the spread. The two
// estimators differ only in the input and the use of the second product:
//   flipout  xs = r_in x,  y += r_out t
//   local    xs = x^2,     y += sqrt(t) zeta
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "backend/cpu/cpu_wave.h"
#include "backend/cpu/kernels.h"
#include "backend/row_noise.h"

namespace kshot::backend::cpu {

/// The split passes of a lane wave, with buffers of their own.
class LaneSplit {
 public:
  LaneSplit(const Kernels& kernels, const Network& network, int most_rows);

  /// One set of rows of the wave's tasks.
  struct Rows {
    Set set = Set::support;
    int rows = 0;              ///< largest over tasks
    const float* x = nullptr;  ///< [inputs][rows][W]
    LaneLoss loss = {};        ///< targets, weights and constants of the rows' loss
    // The tasks' own numbers of rows, and the largest numbers.
    std::array<int, max_lanes> support_n = {}, query_n = {};
    int support = 0, query = 0;
  };
  struct Weights {
    const float* mean = nullptr;
    const float* spread = nullptr;
  };
  struct Gradients {
    float* mean = nullptr;
    float* spread = nullptr;
  };

  /// Draws the rows' noise for the passes that follow, or takes it from the wave's blocks where
  /// given.
  void take_noise(Estimator estimator, const GaussianNoise& noise, const CpuWave& wave,
                  const Rows& rows);
  /// Returns the outputs [outputs][rows][W]. With `dot`, their tangents go to y_dot of the last
  /// step.
  const float* forward(const Rows& rows, const Weights& w, const Weights* dot);
  void gradient(const Rows& rows, const Weights& w, const Gradients& to, bool accumulate,
                float* loss);
  void hessian_vector(const Rows& rows, const Weights& w, const Weights& dot, const Gradients& to);

 private:
  /// One layer: its sizes, and the buffers of its values and derivatives.
  struct Step {
    bool linear = false, has_bias = false;
    Activation activation = Activation::relu;
    int in = 0, out = 0;
    std::size_t weight = 0, bias = 0;
    std::size_t layer = 0;  ///< index of the layer in the network
    AlignedFloats y, y_dot, delta, delta_dot;
    // Linear layers only: the buffers of the product with the spread.
    AlignedFloats xs, xs_dot, t, t_dot, inverse, delta_s, delta_s_dot, back, back_dot;
    AlignedFloats noise_in, noise_out;  ///< [in or out][rows][W]
  };
  std::size_t floats(int features, int rows) const {
    return static_cast<std::size_t>(features) * static_cast<std::size_t>(rows) *
           static_cast<std::size_t>(lanes_);
  }
  void backward(const Rows& rows, const Weights& w, const Weights* dot, const Gradients& to,
                bool accumulate);
  void weight_gradient(const Step& step, int rows, const float* delta, const float* delta2,
                       const float* x, const float* x2, float* to, bool bias,
                       bool accumulate) const;
  void place(const Rows& rows, const float* support, const float* query);
  void place_given(const GaussianNoise& noise, const CpuWave& wave, const Rows& rows);

  const Kernels& kernels_;
  int lanes_;
  Estimator estimator_ = Estimator::flipout;
  RowNoiseLayout layouts_[3];
  std::vector<Step> steps_;
  AlignedFloats drawn_[2];  ///< [rows][width][W]
};

}  // namespace kshot::backend::cpu
