// The table of numeric kernels that the cpu backend runs on: one source (kernels_impl.h), compiled
// once per instruction set (isa_*.cpp), one table each, chosen at run time. Plain pointers and
// sizes only, so that no inline function of the standard library is compiled for a processor that
// may not be the one it runs on.
//
// Two layouts (cpu_wave.h): *lanes*, W tasks side by side ([element][W]), and *single*, one task,
// channels last. Element-wise kernels serve both: they see `vectors` of W floats, and a per-task
// factor as a pattern of W floats (all equal in the single layout). Shared vectors are one float an
// element: splat in lanes, loaded as they lie in single (`splat`).
#pragma once

#include <cstddef>
#include <cstdint>

namespace kshot::backend {
template <typename T>
struct DenseKernels;  // backend/dense_kernels.h
}

namespace kshot::backend::cpu {

inline constexpr int max_lanes = 16;

enum class Activation { relu, tanh, leaky_relu };

/// P[m][n] = bias[m] (or 0) + sum_p sum_k A_p[m][k] B_p[k][n], every element W tasks side by side;
/// C = P, or C = base + scale P where `base` (strides of C) is given; or C = P with P multiplied by
/// `slope` where the gate is negative (`rectify`: the gate is P itself, whose NaN stays) or not
/// positive (`gate`, strides of C): a piecewise linear activation and its derivative; or, with
/// `shift`, C += scale P and c_s += scale P * shift (strides of C): the pull-back of a weight
/// gradient through weights mu + sigma eps, shift = sigma eps. With `rows` the sums
/// R[m] = sum_k A_0[m][k] (a bias's gradient beside its weights') are written in the same way, to
/// elements of one column. Strides in elements.
struct LaneGemm {
  int m = 0, n = 0, k = 0;
  int products = 1;
  const float* a[2] = {};
  const float* b[2] = {};
  std::ptrdiff_t a_row = 0, a_col = 0, b_row = 0, b_col = 0;
  float* c = nullptr;
  std::ptrdiff_t c_row = 0, c_col = 0;
  const float* bias = nullptr;  ///< [m]
  const float* base = nullptr;
  float scale = 1.0f;
  bool rectify = false;
  const float* gate = nullptr;
  float slope = 0.0f;
  const float* shift = nullptr;
  float* c_s = nullptr;
  struct Rows {  ///< as c, base, shift and c_s, [m]; not with `rectify` or `gate`
    float* c = nullptr;
    const float* base = nullptr;
    const float* shift = nullptr;
    float* c_s = nullptr;
  } rows;
};

/// What gather_gemm reads in step k: x at +a, row of B at +b (floats).
struct GatherIndex {
  std::int32_t a, b;
};

/// C[c_offset[m]][0:n] (+)= sum_k x[m_offset[m] + k.a] B[k.b][0:n], n a multiple of W. Convolution,
/// its transpose, its weight gradient and linear layers are all this with other tables. Without
/// `accumulate` C starts at init[0:n] or zero.
struct GatherGemm {
  int m = 0, n = 0, k = 0;
  const float* x = nullptr;
  const std::int32_t* m_offset = nullptr;
  const GatherIndex* index = nullptr;
  const float* b = nullptr;
  float* c = nullptr;
  const std::int32_t* c_offset = nullptr;
  const float* init = nullptr;
  bool accumulate = false;
};

/// C[i c_row + j c_col] (+)= sum_k A[i][k] B[j][k], k a multiple of W: both sides are read along
/// the inner dimension.
struct Dots {
  int m = 0, n = 0, k = 0;
  const float* a = nullptr;
  std::ptrdiff_t a_row = 0;
  const float* b = nullptr;
  std::ptrdiff_t b_row = 0;
  float* c = nullptr;
  std::ptrdiff_t c_row = 0, c_col = 0;
  bool accumulate = false;
};

enum class LossType { cross_entropy, squared };

/// Loss over [outputs][rows] in the lanes layout. `weight` [rows][W] is the task's factor, zero for
/// rows beyond its own. squared: coefficient * sum (z - y)^2 + constant a row.
struct LaneLoss {
  LossType type;
  int outputs, rows;
  float coefficient, constant;
  const float* z;       ///< [outputs][rows][W]
  const float* target;  ///< [outputs][rows][W]; one-hot for cross_entropy
  const float* weight;  ///< [rows][W]
  float* loss;          ///< [W], added to; may be null
  float* delta;         ///< [outputs][rows][W], overwritten; may be null
  const float* z_dot;   ///< with delta_dot: tangent of z
  float* delta_dot;
};

/// The same in the single layout: z [rows][stride], target likewise.
struct RowLoss {
  LossType type;
  int outputs, rows, stride;
  float coefficient, constant, weight;
  const float* z;
  const float* target;
  double* loss;
  float* delta;
  const float* z_dot;
  float* delta_dot;
};

/// Batch norm over `pixels` rows of `channels` (multiple of W) floats at offsets.
struct NormArgs {
  int channels, pixels;
  const std::int32_t* offset;  ///< [pixels], the same for all buffers below
  const float* x;
  const float* x_dot;
  const float* gamma;
  const float* beta;
  const float* gamma_dot;
  const float* beta_dot;
  float* x_hat;
  float* x_hat_dot;
  float* y;
  float* y_dot;
  // saved statistics [channels]: mean, 1/std, and of the tangent mean(x_hat x_dot)
  float* mean;
  float* inverse;
  float* slope;
  // backward
  const float* dy;
  const float* dy_dot;
  float* dx;
  float* dx_dot;
  float* d_gamma;  ///< gradient (plain) or its tangent
  float* d_beta;
  float* scratch;  ///< [4 * channels]
  float epsilon;
  bool accumulate;  ///< d_gamma, d_beta
  bool given;       ///< forward: mean and inverse are inputs
};

/// q = N(mu, exp(2 s)) against p = N(pmu, exp(2 ps)); sigma = exp(s) and precision = exp(-2 ps) are
/// both given or both null. scale [W].
struct KlArgs {
  const float *mu, *s, *pmu, *ps, *scale, *sigma, *precision;
};

struct NoiseKey {
  std::uint32_t key[2];
  std::uint32_t counter1, task, counter3;
};

struct AdamFactors {
  float beta1, beta2, epsilon;
  float rate[max_lanes];  ///< learning rate / (1 - beta1^n)
  float root[max_lanes];  ///< 1 / sqrt(1 - beta2^n)
};

struct Kernels {
  const char* name;
  int lanes;

  // ---- element-wise ----
  void (*fill)(float* y, float a, std::size_t vectors);
  void (*axpy)(float* y, float a, const float* x, std::size_t vectors);
  void (*multiply_add)(float* y, float a, const float* x1, const float* x2, std::size_t vectors);
  void (*multiply)(float* y, const float* x, std::size_t vectors);  // y *= x
  void (*exponential)(float* y, const float* x, std::size_t vectors);
  /// exp(x) - 1, as precise where x is small.
  void (*exp_less_one)(float* y, const float* x, std::size_t vectors);
  /// dst = src - rate * g (src null: rate * g). rate: number, or vector where `rates` is given.
  void (*rate_step)(float* dst, const float* src, float rate, const float* rates, bool splat,
                    const float* g, std::size_t vectors);
  /// y *= factor, a pattern of W floats.
  void (*scale)(float* y, const float* factor, std::size_t vectors);
  /// Adam: m and v move by their decays; p -= rate m / (sqrt(v) root + epsilon), where rate and
  /// root, patterns of W floats, hold the bias corrections.
  void (*adam)(float* p, const float* g, float* m, float* v, const AdamFactors& factors,
               std::size_t vectors);
  void (*broadcast)(float* dst, const float* src, std::size_t elements);  // lanes
  void (*reparameterise)(float* phi, const float* mu, const float* sigma, const float* eps,
                         std::size_t vectors);
  void (*sample_pullback)(float* g_mu, float* g_s, float a, const float* g, const float* eps,
                          const float* sigma, std::size_t vectors);
  /// u = v_mu + sigma eps v_s and, where phi is given, phi = mu + sigma eps in the same pass.
  void (*sample_direction)(float* u, const float* v_mu, const float* v_s, const float* eps,
                           const float* sigma, float* phi, const float* mu, std::size_t vectors);
  /// Any output may be null (mu and s in pairs); value [W] gets per-lane sums.
  void (*kl)(const KlArgs& q, float* value, float* g_mu, float* g_s, float* gp_mu, float* gp_s,
             std::size_t vectors);
  void (*kl_hvp)(const KlArgs& q, const float* v_mu, const float* v_s, float* r_mu, float* r_s,
                 float* rp_mu, float* rp_s, std::size_t vectors);
  /// phi = mu + shift and u = v_mu + shift * v_s (where u is given), shift = sigma eps.
  void (*shifted)(float* phi, float* u, const float* mu, const float* v_mu, const float* v_s,
                  const float* shift, std::size_t vectors);
  /// Standard normals. Lanes: element e of task + lane at eps[e * W + lane], and phi = mu + sigma
  /// eps in the same pass; without `eps`, sigma eps goes to `shift`. Single: at eps[e] (eps has
  /// room for elements rounded up to 64).
  void (*noise_lanes)(const NoiseKey& key, float* eps, float* shift, float* phi, const float* mu,
                      const float* sigma, std::size_t elements);
  void (*noise_single)(const NoiseKey& key, float* eps, std::size_t elements);

  // ---- activations, contiguous ----
  void (*act)(Activation a, float* y, const float* x, std::size_t n);
  /// y_dot = a'(x) x_dot, from y.
  void (*act_tangent)(Activation a, float* y_dot, const float* y, const float* x_dot,
                      std::size_t n);
  void (*act_backward)(Activation a, float* dx, const float* y, const float* dy, std::size_t n);
  /// dx_dot = a'(x) dy_dot + a''(x) x_dot dy; y_dot is the tangent of y.
  void (*act_backward_tangent)(Activation a, float* dx_dot, const float* y, const float* y_dot,
                               const float* dy, const float* dy_dot, std::size_t n);

  // ---- lanes ----
  void (*lane_gemm)(const LaneGemm& args);
  void (*lane_loss)(const LaneLoss& args);
  /// Tree sums over lanes (neighbours first) of [elements][W] into out [elements].
  void (*lane_tree_sum)(float* out, const float* x, std::size_t elements);
  /// finite[W] &= every element of the lane is finite (as 1.0 / 0.0 factors: pattern *= that).
  void (*lane_finite)(const float* x, std::size_t elements, float* finite);
  /// x[e][lane] = 0 where keep[lane] is 0 (not a multiplication: NaN goes too).
  void (*lane_mask)(float* x, const float* keep, std::size_t elements);

  // ---- single ----
  void (*gather_gemm)(const GatherGemm& args);
  void (*dots)(const Dots& args);
  /// y[c][r] = x[r][c] for a rows x columns matrix, row strides in floats; pads are not touched.
  void (*transpose)(float* y, std::ptrdiff_t y_row, const float* x, std::ptrdiff_t x_row, int rows,
                    int columns);
  /// y[0:channels] (+)= sum over pixels of x at offsets.
  void (*channel_sum)(float* y, const float* x, const std::int32_t* offset, int pixels,
                      int channels, bool accumulate);
  void (*row_loss)(const RowLoss& args);
  void (*norm_forward)(const NormArgs& args);
  void (*norm_backward)(const NormArgs& args);
  void (*norm_backward_tangent)(const NormArgs& args);
  /// Max over windows of size x size: corner [outputs] offsets of a window's first element, window
  /// offsets [size * size] within; winner gets the window position per channel (as int bits).
  void (*pool_forward)(float* y, std::int32_t* winner, const float* x, const std::int32_t* y_offset,
                       const std::int32_t* corner, const std::int32_t* window, int window_size,
                       int outputs, int channels);
  /// y = x at the winners (tangent).
  void (*pool_gather)(float* y, const std::int32_t* winner, const float* x,
                      const std::int32_t* y_offset, const std::int32_t* corner,
                      const std::int32_t* window, int window_size, int outputs, int channels);
  /// dx at all window positions: dy at the winner, zero elsewhere.
  void (*pool_scatter)(float* dx, const std::int32_t* winner, const float* dy,
                       const std::int32_t* y_offset, const std::int32_t* corner,
                       const std::int32_t* window, int window_size, int outputs, int channels);

  // ---- generated weights ----
  /// With std(u) = max(exp(u) - below, least): w += share std eps, slope = share std' eps (the
  /// slope of `least` is zero).
  void (*deviate)(float* w, float* slope, const float* u, const float* eps, const float* below,
                  float least, float share, std::size_t vectors);
  /// y = slope (g_dot + u_dot g): the tangent of slope g, as a slope eps exp(u) is its own
  /// derivative.
  void (*deviate_tangent)(float* y, const float* slope, const float* u_dot, const float* g,
                          const float* g_dot, std::size_t vectors);

  // ---- flipout and local ----
  /// Noise by rows (row_noise.h): element e of task + lane at out[e * W + lane], or of one task at
  /// out[e]. Normals of one task: noise_single.
  void (*row_normals_lanes)(const NoiseKey& key, float* out, std::size_t elements);
  void (*row_signs_lanes)(const NoiseKey& key, float* out, std::size_t elements);
  void (*row_signs_single)(const NoiseKey& key, float* out, std::size_t elements);
  /// y = a x1 x2, n floats.
  void (*product)(float* y, float a, const float* x1, const float* x2, std::size_t n);
  /// y += sqrt(variance) zeta; inverse = 1 / sqrt(variance). Both zero at no variance.
  void (*deviation)(float* y, float* inverse, const float* variance, const float* zeta,
                    std::size_t vectors);
  void (*deviation_tangent)(float* y_dot, const float* variance_dot, const float* inverse,
                            const float* zeta, std::size_t vectors);
  /// Gradient of the variance from that of y, and its tangent where wanted.
  void (*deviation_backward)(float* dv, float* dv_dot, const float* dy, const float* dy_dot,
                             const float* variance_dot, const float* inverse, const float* zeta,
                             std::size_t vectors);

  // ---- small matrices (dense_impl.h) ----
  const DenseKernels<float>& (*dense_lanes)();   ///< of W tasks
  const DenseKernels<float>& (*dense_single)();  ///< of one task
};

/// The tables this binary holds, best first; the run-time choice is the first the processor runs.
const Kernels& kernels_portable();
const DenseKernels<float>& dense_lanes_portable();
const DenseKernels<float>& dense_single_portable();
#if defined(__x86_64__)
const Kernels& kernels_avx2();
const DenseKernels<float>& dense_lanes_avx2();
const DenseKernels<float>& dense_single_avx2();
const Kernels& kernels_avx512();
const DenseKernels<float>& dense_lanes_avx512();
const DenseKernels<float>& dense_single_avx512();
#endif
/// The best table for this processor; KSHOT_ISA=portable|avx2|avx512 in the environment picks one
/// (Error where the processor lacks it).
const Kernels& select_kernels();

}  // namespace kshot::backend::cpu
