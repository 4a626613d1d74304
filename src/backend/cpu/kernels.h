// The table of numeric kernels that the cpu backend runs on. One source (kernels_impl.h) is
// compiled once per instruction set (isa_*.cpp). Each gives one table, and the table is chosen at
// run time. The interface has plain pointers and sizes only, so that no inline function of the
// standard library is compiled for a processor that may not be the one it runs on.
//
// There are two layouts (cpu_wave.h): *lanes*, with W tasks side by side ([element][W]), and
// *single*, with one task and channels last. Element-wise kernels serve both layouts. They see
// `vectors` of W floats, and a per-task factor as a pattern of W floats (all equal in the single
// layout). A shared vector has one float per element. With `splat`, each float is copied to all
// lanes (lanes layout); without it, W floats are loaded as they lie (single layout).
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

/// The product
///   P[m][n] = bias[m] (or 0) + sum_p sum_k A_p[m][k] B_p[k][n]
/// of matrices in which every element is W tasks side by side. Strides are in elements. The members
/// that are set choose what is written to C (`base`, `gate`, `shift` and `c_s` have C's strides):
///   none     C = P
///   base     C = base + scale P
///   rectify  C = P, times `slope` where P is negative (NaN stays): a piecewise linear activation
///   gate     C = P, times `slope` where the gate is not positive: the activation's derivative
///   shift    C += scale P and c_s += scale P * shift: the pull-back of a weight gradient through
///            weights mu + sigma eps, with shift = sigma eps
/// With `rows`, the sums R[m] = sum_k A_0[m][k] (a bias's gradient beside that of its weights) are
/// written in the same way, to the elements of one column.
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
  /// Output of the row sums: same meaning as c, base, shift and c_s, each [m]. Not used with
  /// `rectify` or `gate`.
  struct Rows {
    float* c = nullptr;
    const float* base = nullptr;
    const float* shift = nullptr;
    float* c_s = nullptr;
  } rows;
};

/// Operand offsets in step k of gather_gemm, in floats: `a` for x, `b` for the row of B.
struct GatherIndex {
  std::int32_t a, b;
};

/// C[c_offset[m]][0:n] (+)= sum_k x[m_offset[m] + k.a] B[k.b][0:n], with n a multiple of W.
/// Different tables give a convolution, its transpose, its weight gradient and a linear layer.
/// Without `accumulate`, C starts from init[0:n], or from zero where `init` is null.
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

/// C[i c_row + j c_col] (+)= sum_k A[i][k] B[j][k], with k a multiple of W. Both operands are read
/// along the inner dimension.
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

/// Loss over [outputs][rows] in the lanes layout. `weight` [rows][W] is the task's factor, and zero
/// for rows beyond the task's own. LossType::squared is coefficient * sum (z - y)^2 + constant per
/// row.
struct LaneLoss {
  LossType type;
  int outputs, rows;
  float coefficient, constant;
  const float* z;       ///< [outputs][rows][W]
  const float* target;  ///< [outputs][rows][W]; one-hot for cross_entropy
  const float* weight;  ///< [rows][W]
  float* loss;          ///< [W], added to; may be null
  float* delta;         ///< [outputs][rows][W], overwritten; may be null
  const float* z_dot;   ///< Tangent of z; given together with delta_dot.
  float* delta_dot;
};

/// The loss in the single layout: z and target are [rows][stride].
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

/// Batch norm over `pixels` rows of `channels` (multiple of W) floats, at the given offsets.
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
  // Saved statistics [channels]: mean, 1/std, and for the tangent mean(x_hat x_dot).
  float* mean;
  float* inverse;
  float* slope;
  // backward
  const float* dy;
  const float* dy_dot;
  float* dx;
  float* dx_dot;
  float* d_gamma;  ///< gradient, or its tangent in norm_backward_tangent
  float* d_beta;
  float* scratch;  ///< [4 * channels]
  float epsilon;
  bool accumulate;  ///< applies to d_gamma and d_beta
  bool given;       ///< forward pass: mean and inverse are inputs
};

/// Arguments of the KL divergence of q = N(mu, exp(2 s)) from p = N(pmu, exp(2 ps)). sigma = exp(s)
/// and precision = exp(-2 ps) are both given or both null. `scale` is [W].
struct KlArgs {
  const float *mu, *s, *pmu, *ps, *scale, *sigma, *precision;
};

/// Key and counter words of random.h's generator. `task` is the task of the first lane.
struct NoiseKey {
  std::uint32_t key[2];
  std::uint32_t counter1, task, counter3;
};

/// Constants of an Adam step, with `rate` and `root` per lane.
struct AdamFactors {
  float beta1, beta2, epsilon;
  float rate[max_lanes];  ///< learning rate / (1 - beta1^n)
  float root[max_lanes];  ///< 1 / sqrt(1 - beta2^n)
};

/// The kernels of one instruction set.
struct Kernels {
  const char* name;
  int lanes;

  // ---- element-wise ----
  void (*fill)(float* y, float a, std::size_t vectors);
  void (*axpy)(float* y, float a, const float* x, std::size_t vectors);
  void (*multiply_add)(float* y, float a, const float* x1, const float* x2, std::size_t vectors);
  void (*multiply)(float* y, const float* x, std::size_t vectors);  // y *= x
  void (*exponential)(float* y, const float* x, std::size_t vectors);
  /// exp(x) - 1, without loss of precision where x is small.
  void (*exp_less_one)(float* y, const float* x, std::size_t vectors);
  /// dst = src - rate * g, or rate * g where src is null. The rate is the number `rate`, or the
  /// vector `rates` where given.
  void (*rate_step)(float* dst, const float* src, float rate, const float* rates, bool splat,
                    const float* g, std::size_t vectors);
  /// y *= factor, where factor is a pattern of W floats.
  void (*scale)(float* y, const float* factor, std::size_t vectors);
  /// Adam: m and v move by their decay rates, then p -= rate m / (sqrt(v) root + epsilon). `rate`
  /// and `root` are patterns of W floats that include the bias corrections.
  void (*adam)(float* p, const float* g, float* m, float* v, const AdamFactors& factors,
               std::size_t vectors);
  void (*broadcast)(float* dst, const float* src, std::size_t elements);  // lanes layout only
  void (*reparameterise)(float* phi, const float* mu, const float* sigma, const float* eps,
                         std::size_t vectors);
  void (*sample_pullback)(float* g_mu, float* g_s, float a, const float* g, const float* eps,
                          const float* sigma, std::size_t vectors);
  /// u = v_mu + sigma eps v_s. Where phi is given, phi = mu + sigma eps in the same pass.
  void (*sample_direction)(float* u, const float* v_mu, const float* v_s, const float* eps,
                           const float* sigma, float* phi, const float* mu, std::size_t vectors);
  /// Any output may be null (mu and s in pairs). `value` [W] receives the sums per lane.
  void (*kl)(const KlArgs& q, float* value, float* g_mu, float* g_s, float* gp_mu, float* gp_s,
             std::size_t vectors);
  void (*kl_hvp)(const KlArgs& q, const float* v_mu, const float* v_s, float* r_mu, float* r_s,
                 float* rp_mu, float* rp_s, std::size_t vectors);
  /// phi = mu + shift and, where u is given, u = v_mu + shift * v_s, with shift = sigma eps.
  void (*shifted)(float* phi, float* u, const float* mu, const float* v_mu, const float* v_s,
                  const float* shift, std::size_t vectors);
  /// Standard normals. noise_lanes writes element e of task + lane to eps[e * W + lane], and phi =
  /// mu + sigma eps in the same pass. Without `eps`, it writes sigma eps to `shift`. noise_single
  /// writes element e to eps[e], which needs room for `elements` rounded up to 64.
  void (*noise_lanes)(const NoiseKey& key, float* eps, float* shift, float* phi, const float* mu,
                      const float* sigma, std::size_t elements);
  void (*noise_single)(const NoiseKey& key, float* eps, std::size_t elements);

  // ---- activations, contiguous ----
  void (*act)(Activation a, float* y, const float* x, std::size_t n);
  /// y_dot = a'(x) x_dot, computed from y.
  void (*act_tangent)(Activation a, float* y_dot, const float* y, const float* x_dot,
                      std::size_t n);
  void (*act_backward)(Activation a, float* dx, const float* y, const float* dy, std::size_t n);
  /// dx_dot = a'(x) dy_dot + a''(x) x_dot dy, where y_dot is the tangent of y.
  void (*act_backward_tangent)(Activation a, float* dx_dot, const float* y, const float* y_dot,
                               const float* dy, const float* dy_dot, std::size_t n);

  // ---- lanes ----
  void (*lane_gemm)(const LaneGemm& args);
  void (*lane_loss)(const LaneLoss& args);
  /// Tree sums over the lanes (neighbours first) of x [elements][W] into out [elements].
  void (*lane_tree_sum)(float* out, const float* x, std::size_t elements);
  /// Sets finite[lane] to 0 where an element of the lane is not finite, and leaves it as it is
  /// elsewhere.
  void (*lane_finite)(const float* x, std::size_t elements, float* finite);
  /// Sets x[e][lane] to 0 where keep[lane] is 0. This is not a multiplication, so NaN is cleared
  /// too.
  void (*lane_mask)(float* x, const float* keep, std::size_t elements);

  // ---- single ----
  void (*gather_gemm)(const GatherGemm& args);
  void (*dots)(const Dots& args);
  /// y[c][r] = x[r][c] for a rows x columns matrix. Row strides are in floats, and pads are not
  /// touched.
  void (*transpose)(float* y, std::ptrdiff_t y_row, const float* x, std::ptrdiff_t x_row, int rows,
                    int columns);
  /// y[0:channels] (+)= the sum over pixels of x at the offsets.
  void (*channel_sum)(float* y, const float* x, const std::int32_t* offset, int pixels,
                      int channels, bool accumulate);
  void (*row_loss)(const RowLoss& args);
  void (*norm_forward)(const NormArgs& args);
  void (*norm_backward)(const NormArgs& args);
  void (*norm_backward_tangent)(const NormArgs& args);
  /// Maximum over windows of size x size. corner [outputs] has the offset of a window's first
  /// element, `window` [size * size] the offsets within a window. `winner` receives the window
  /// position of the maximum per channel (as int bits).
  void (*pool_forward)(float* y, std::int32_t* winner, const float* x, const std::int32_t* y_offset,
                       const std::int32_t* corner, const std::int32_t* window, int window_size,
                       int outputs, int channels);
  /// y = x at the winners (the tangent of pooling).
  void (*pool_gather)(float* y, const std::int32_t* winner, const float* x,
                      const std::int32_t* y_offset, const std::int32_t* corner,
                      const std::int32_t* window, int window_size, int outputs, int channels);
  /// Writes dx at all window positions: dy at the winner, zero elsewhere.
  void (*pool_scatter)(float* dx, const std::int32_t* winner, const float* dy,
                       const std::int32_t* y_offset, const std::int32_t* corner,
                       const std::int32_t* window, int window_size, int outputs, int channels);

  // ---- generated weights ----
  /// With std(u) = max(exp(u) - below, least): w += share std eps, and slope = share std' eps. The
  /// slope is zero where std is `least`.
  void (*deviate)(float* w, float* slope, const float* u, const float* eps, const float* below,
                  float least, float share, std::size_t vectors);
  /// y = slope (g_dot + u_dot g): the tangent of slope * g. The derivative of slope by u is slope
  /// itself, because slope = share eps exp(u).
  void (*deviate_tangent)(float* y, const float* slope, const float* u_dot, const float* g,
                          const float* g_dot, std::size_t vectors);

  // ---- flipout and local ----
  /// Noise by rows (row_noise.h). In lanes, element e of task + lane is at out[e * W + lane]; for
  /// one task, it is at out[e]. Normals of one task are drawn by noise_single.
  void (*row_normals_lanes)(const NoiseKey& key, float* out, std::size_t elements);
  void (*row_signs_lanes)(const NoiseKey& key, float* out, std::size_t elements);
  void (*row_signs_single)(const NoiseKey& key, float* out, std::size_t elements);
  /// y = a x1 x2, n floats.
  void (*product)(float* y, float a, const float* x1, const float* x2, std::size_t n);
  /// y += sqrt(variance) zeta, and inverse = 1 / sqrt(variance). Both terms are zero where the
  /// variance is zero.
  void (*deviation)(float* y, float* inverse, const float* variance, const float* zeta,
                    std::size_t vectors);
  void (*deviation_tangent)(float* y_dot, const float* variance_dot, const float* inverse,
                            const float* zeta, std::size_t vectors);
  /// Gradient of the variance from the gradient of y, and its tangent where dv_dot is given.
  void (*deviation_backward)(float* dv, float* dv_dot, const float* dy, const float* dy_dot,
                             const float* variance_dot, const float* inverse, const float* zeta,
                             std::size_t vectors);

  // ---- small matrices (dense_impl.h) ----
  const DenseKernels<float>& (*dense_lanes)();   ///< for W tasks
  const DenseKernels<float>& (*dense_single)();  ///< for one task
};

/// The tables that this binary has. select_kernels picks the best one that the processor runs.
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
/// The best table for this processor. KSHOT_ISA=portable|avx2|avx512 in the environment chooses one
/// explicitly. Throws DeviceError where the processor lacks its instructions.
const Kernels& select_kernels();

}  // namespace kshot::backend::cpu
