// The only door to a device.
//
// A Backend owns vectors that all tasks share (weights, gradients, optimiser state) and opens
// Waves. A Wave holds a set of tasks in the backend's own layout and acts on all of them at once,
// in three families: the network (value, gradient, Hessian-vector product), the algebra of per-task
// vectors, and the door back (reduction over tasks, downloads). Algorithms are written on these
// operations alone (src/algorithms), once for all backends.
//
//   reference   double, one task a wave, plain loops
//   cpu         float, a SIMD group of tasks (small networks) or one task (others) a wave
//   cuda        float or double, thousands of tasks a wave, on a GPU or emulated (simt)
//
// Shapes below: B tasks in the wave, D weights of one task's network, n rows of a data set. Every
// per-task scalar factor that depends on the task's own number of rows is expressed by a Scale, so
// that tasks of different size need no special case anywhere.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "kshot/episode.h"
#include "kshot/network.h"
#include "kshot/random.h"

namespace kshot::backend {

enum class Precision { f32, f64 };

/// A vector of n scalars that all tasks share, in the backend's memory and precision.
class SharedVector {
 public:
  virtual ~SharedVector() = default;
  virtual std::size_t size() const = 0;
  virtual void upload(std::span<const double> values) = 0;
  virtual void download(std::span<double> values) const = 0;
  /// The values as they are now, to be read once, later, from any thread: a backend may copy them
  /// meanwhile. The vector may be changed, or go, before.
  virtual std::function<std::vector<double>()> snapshot() const {
    std::vector<double> values(size());
    download(values);
    return [values = std::move(values)] { return values; };
  }
};
using Shared = std::shared_ptr<SharedVector>;

/// A per-task vector [B, width] of a wave, named by number: only the wave knows where it lies.
struct Block {
  int id = -1;
  explicit operator bool() const { return id >= 0; }
};

/// Rows of a task: its support set, its query set, or both as one set (support first).
enum class Set { support, query, all };

/// A per-task factor: `factor` divided by 1, by the number of rows of the set at hand, or by a
/// named count of the task's rows.
struct Scale {
  enum class By { one, support, query, all };
  double factor = 1.0;
  By by = By::one;
};

/// Per-weight step sizes: a number for all weights, or a shared vector [D] (masks are zeros in it).
/// For a block that is not of weights the vector's length may divide its width: it is repeated.
struct Rate {
  double value = 0.0;
  const SharedVector* vector = nullptr;  ///< used where set; `value` is ignored then
};

/// Inputs of a pass are dropped out: an element is zero with probability `rate`, else divided by
/// 1 - rate. Drawn by key (task = the task's global index), element by element of the set's rows,
/// so that the same key is the same mask.
struct Dropout {
  double rate = 0.0;
  RandomKey key;
  explicit operator bool() const { return rate > 0.0; }
};

/// A function of a task's scalars, element by element.
enum class Function { reciprocal, logarithm, square_root };

/// Adam (Kingma & Ba 2015) for vectors that every task optimises for itself.
struct AdamRule {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
};

/// Standard normal noise, [B, width] for one inner step and sample: drawn by key (task = the task's
/// global index), or taken from the host where a case gives it (`host` = task 0 of the batch that
/// the wave was loaded from; task t at host + t * stride).
struct Noise {
  RandomKey key;
  const double* host = nullptr;
  std::size_t stride = 0;
};

/// Which statistics a norm layer uses in a forward pass without gradient.
enum class NormStatistics {
  batch,    ///< of the set at hand (transductive)
  support,  ///< of the support set under the same weights: queries can come one at a time
};

/// How a network is evaluated under Gaussian weights, N(mu, sigma^2) each
/// (docs/mathematics.md, "Estimators").
enum class Estimator {
  weight,   ///< one draw of the weights for all rows
  flipout,  ///< one draw, decorrelated between rows by random signs (Wen et al. 2018)
  local,    ///< a draw of each row's pre-activations (Kingma et al. 2015)
};

/// The noise of one Monte Carlo sample under Gaussian weights: drawn by key, or a case's own
/// arrays.
struct GaussianNoise {
  /// One layer's noise by rows, of task 0; task t at + t * stride. `in` and `out` are flipout's
  /// signs [rows, input features or channels] and [rows, output features or channels], `out` is
  /// local's noise [rows, output elements].
  struct Layer {
    const double* in = nullptr;
    const double* out = nullptr;
    std::size_t in_stride = 0, out_stride = 0;
  };
  RandomKey key;
  const double* weights = nullptr;  ///< as Noise::host; standard normal, one a weight
  std::size_t weights_stride = 0;
  /// One entry a layer of the network, or none: rows are drawn by key.
  std::span<const Layer> layers;
  /// In `layers` the rows of a query set follow the task's own support rows (those of Set::all do
  /// anyway).
  bool support_first = false;
};

/// One Monte Carlo sample of the network under Gaussian weights, on one set of rows (or two, each
/// with its own batch statistics). mu and sigma are blocks of weights; gradients and directions are
/// in (mu, s = log sigma).
struct GaussianPass {
  Set set = Set::support;
  bool and_support = false;  ///< gradient: the support set too, as a set of its own, after `set`
  Scale scale;
  Estimator estimator = Estimator::weight;
  Block mu, sigma;
  GaussianNoise noise;
  /// Where the draw may stay (Wave::draw_memory), and whether it is there already, from an earlier
  /// pass at the same mu and sigma. Its contents are the backend's own business.
  Block kept = {};
  bool drawn = false;
};

/// Tasks of a source that a backend draws by itself (Backend::place). Its contents, a copy of the
/// source's data among them, are the backend's own business.
class Episodes {
 public:
  virtual ~Episodes() = default;
};

enum class LossKind { cross_entropy, mse, gaussian_nll };
struct Loss {
  LossKind kind = LossKind::cross_entropy;
  double noise_std = 1.0;  ///< gaussian_nll
};

class Generator;
struct GeneratorSpec;
class LinearAlgebra;

/// Largest sizes a wave must serve.
struct WaveShape {
  int support = 0, query = 0;  ///< rows
  bool with_all = false;       ///< Set::all is used
  bool generated = false;      ///< the weights are a generator's
  /// Where a head beside the network makes the predictions (closed-form heads), the network's
  /// outputs are features: `targets` is the tasks' own number of classes or of target values, and
  /// no pass of the network asks for a loss. 0: the network's outputs are the predictions.
  int targets = 0;
  bool every_class = false;  ///< every class of a task must have a support row
  bool operator==(const WaveShape&) const = default;
  int rows(Set set) const {
    return set == Set::support ? support : set == Set::query ? query : support + query;
  }
};

/// Operations on the tasks of one wave. Not thread-safe; different waves are independent.
class Wave {
 public:
  virtual ~Wave() = default;

  /// Largest number of tasks at once: a power of two up to 16, or a multiple of 16. Waves start at
  /// multiples of their capacity, so that the reduction's order does not depend on it.
  virtual int capacity() const = 0;

  /// Takes tasks [first, first + count) of the batch; `global_first` is the meta-batch index of the
  /// first. Lanes without a task compute on copies and are ignored by reduction and downloads.
  /// Set::all is prepared where the wave was opened with it. Unless the backend is asynchronous(),
  /// the batch must stay as it is until the next load: a wave may read its rows where they are.
  /// The batch is checked here, once for every backend, before anything is computed (task_rows.h):
  /// throws Error where a size, a number of rows or a label is out of range, and the wave keeps the
  /// tasks that it has. A task with a number that is not finite is taken, see rows_finite.
  void load(const TaskBatch& batch, int first, int count, std::uint32_t global_first);
  /// Whether all numbers of the valid rows of task `t` (of the wave) are finite, as far as the host
  /// has seen them. A task of which that is not true counts as diverged, whatever was computed of
  /// it.
  bool rows_finite(int t) const {
    return not_finite_.empty() || not_finite_[static_cast<std::size_t>(t)] == 0;
  }
  /// Makes the loss [count()] of every task without finite rows NaN, so that the reduction leaves
  /// the task out: an activation may have swallowed what was not finite in its rows.
  void exclude_not_finite(Block loss);
  /// The same for tasks [id.task, id.task + count), that this wave's backend draws: the bits that
  /// the source's fill gives, without a word from the host. Their shape is the wave's.
  virtual void draw(const Episodes& /*episodes*/, const TaskId& /*id*/, int /*count*/) {
    throw std::logic_error("a wave whose backend draws no tasks");
  }
  int count() const { return count_; }
  std::uint32_t global_first() const { return global_first_; }

  /// Runs `work`, which calls operations of this wave that need nothing from the host and bring
  /// nothing back. A backend may gather them into one launch (CudaWave: a graph).
  virtual void gather_work(const std::function<void()>& work) { work(); }

  /// A new per-task vector; lives as long as the wave. Contents are undefined.
  virtual Block block(std::size_t width) = 0;
  /// The same for a vector of D network weights (or gradients, noise, ... of them), in whatever
  /// order the backend keeps weights; uploads, downloads, shared vectors and reduction use the flat
  /// order.
  virtual Block weights() = 0;

  // ---- algebra of per-task vectors; all arguments of one operation have the same width ----
  virtual void broadcast(Block dst, const SharedVector& src) = 0;        // dst[b] = src
  virtual void fill(Block dst, double value) = 0;                        // dst = value
  virtual void copy(Block dst, Block src) = 0;                           // dst = src
  virtual void axpy(Block y, double a, Block x) = 0;                     // y += a x
  virtual void multiply_add(Block y, double a, Block x1, Block x2) = 0;  // y += a x1 * x2
  virtual void multiply_fold(Block y, double a, Block x1,
                             Block x2) = 0;  // y[i mod n] += a x1[i] * x2[i], y of width n
  virtual void exponential(Block dst, Block src) = 0;      // dst = exp(src)
  virtual void normal(Block dst, const Noise& noise) = 0;  // dst ~ N(0, 1); not for weights
  /// With d = a - b over n elements: value += weight * mean(d^2), g_b -= 2 weight d / n.
  virtual void mean_square(Block value, double weight, Block a, Block b, Block g_b) = 0;
  virtual void rate_multiply(Block dst, const Rate& rate, Block x) = 0;  // dst = rate * x
  virtual void rate_step(Block dst, Block src, const Rate& rate,
                         Block grad) = 0;  // src - rate*grad
  // ---- scalars of a task: blocks of width 1, and what they do to vectors ----
  /// dst[b] = the task's own number of rows of the set.
  virtual void row_count(Block dst, Set set) = 0;
  /// dst[b] = f(src[b]), for blocks of one width made by block(); dst may be src.
  virtual void apply(Block dst, Function f, Block src) = 0;
  /// y[b] *= scalar[b], a block of width 1.
  virtual void scale_by(Block y, Block scalar) = 0;
  /// A step of Adam for every task by itself: `count`, of width 1, is the number of this step in
  /// the task's own counting, from 1. Vectors have one width.
  struct AdamBlocks {
    Block parameters, gradient;
    Block m, v;  ///< the optimiser's state
    Block count;
  };
  virtual void adam_step(const AdamBlocks& blocks, const AdamRule& rule) = 0;

  /// Task t's vector from host + t * stride of the batch the wave was loaded from.
  virtual void upload(Block dst, const double* host, std::size_t stride) = 0;

  // ---- Gaussian over weights: q = N(mu, exp(2 s)), prior N(mu_p, exp(2 s_p)) ----
  /// phi = mu + sigma * eps. With `noise` eps ~ N(0, 1) is drawn first; without, eps is taken as it
  /// is (an earlier draw that was kept).
  virtual void sample(Block phi, Block eps, Block mu, Block sigma, const Noise* noise) = 0;
  /// Pull-back of a weight gradient g through phi: g_mu += a g; g_s += a g * eps * sigma.
  virtual void sample_pullback(Block g_mu, Block g_s, double a, Block g, Block eps,
                               Block sigma) = 0;
  /// Direction in weight space of a direction (v_mu, v_s): u = v_mu + sigma * eps * v_s.
  virtual void sample_direction(Block u, Block v_mu, Block v_s, Block eps, Block sigma) = 0;
  /// Both for noise that is there: phi = mu + sigma * eps and u. A backend may fuse them.
  virtual void sample_with_direction(Block phi, Block u, Block mu, Block v_mu, Block v_s, Block eps,
                                     Block sigma) {
    sample(phi, eps, mu, sigma, nullptr);
    sample_direction(u, v_mu, v_s, eps, sigma);
  }
  /// value += scale * KL(q || p); (g_mu, g_s) += scale * dKL/d(mu, s); (gp_mu, gp_s) likewise for
  /// the prior. Blocks that are not wanted are left empty.
  struct KlTerms {
    Block mu, s;              ///< q
    Block prior_mu, prior_s;  ///< p
    Scale scale;
    /// exp(s) and exp(-2 prior_s), where the caller has both: a backend may read them instead of
    /// computing them again.
    Block sigma = {}, prior_precision = {};
  };
  virtual void kl(const KlTerms& terms, Block value, Block g_mu, Block g_s, Block gp_mu,
                  Block gp_s) = 0;
  /// Second derivatives of scale * KL (they are diagonal): (r_mu, r_s) += d2/dq2 v and, where
  /// wanted, (rp_mu, rp_s) += (d2/dp dq) v.
  virtual void kl_hvp(const KlTerms& terms, Block v_mu, Block v_s, Block r_mu, Block r_s,
                      Block rp_mu, Block rp_s) = 0;

  // ---- network ----
  /// One set of rows under one set of weights; nll summed over the set's rows, times `scale`.
  struct Pass {
    Set set = Set::support;
    Block weights;
    Scale scale;
    /// A number >= 0 a gradient's activations may be kept under, for the Hessian-vector product
    /// that names it too: same tasks, set, weights, scale and dropout. A backend keeps as many as
    /// it sees fit, within a fixed size: what grows with the number of inner steps are the
    /// iterates.
    int activations = -1;
    Dropout dropout = {};
  };
  /// loss[b] += scale * sum nll (where `loss` is given); grad = or += its gradient.
  virtual void gradient(const Pass& pass, Block grad, bool accumulate, Block loss) = 0;
  /// Pull-back of an output gradient (vector-Jacobian product): grad = or += sum over the rows of
  /// the set of (d outputs / d weights)^T g_outputs. `g_outputs` is laid out as outputs(set),
  /// [rows(set), outputs]; rows beyond the task's own count are not read. Norm layers are
  /// differentiated through the statistics of the set at hand. pass.scale is not used.
  virtual void output_pullback(const Pass& /*pass*/, Block /*g_outputs*/, Block /*grad*/,
                               bool /*accumulate*/) {
    throw std::logic_error("output_pullback is not there yet on this backend");
  }
  /// hv = or += scale * (d2 sum nll / dw2) direction; the gradient itself into `grad` where wanted
  /// (overwritten). Forward over reverse (Pearlmutter 1994).
  virtual void hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                              Block grad) = 0;
  /// dst = src - rate * gradient: an inner step. A backend may fuse the two; here they are
  /// composed.
  virtual void gradient_step(const Pass& pass, Block dst, Block src, const Rate& rate,
                             Block scratch) {
    gradient(pass, scratch, false, {});
    rate_step(dst, src, rate, scratch);
  }
  /// dst = v - H (rate * v): an adjoint step, likewise; dst is not v. The gradient into `grad`
  /// where wanted.
  virtual void hessian_step(const Pass& pass, Block dst, Block v, const Rate& rate, Block grad,
                            Block scratch) {
    rate_multiply(scratch, rate, v);
    hessian_vector(pass, scratch, dst, false, grad);
    rate_step(dst, v, {1.0}, dst);
  }
  /// A whole inner loop: gradient descent from a start that all tasks share,
  ///   w_0 = start, w_{k+1} = w_k - rate_k * gradient(set, scale; w_k), k < steps,
  /// then a loss at w_steps (`outer`, whose weights are that) and its gradient by start and rates.
  struct Descent {
    Set set = Set::support;
    Scale scale;
    const SharedVector* start = nullptr;
    std::span<const Rate> rates;  ///< one a step; the last serves the steps beyond
    int steps = 0;
    bool second_order = true;  ///< else each inner gradient counts as a constant
    Pass outer;
    Block end;       ///< w_steps
    Block gradient;  ///< by the start, overwritten
    Block loss;      ///< added to
    /// By the rates, overwritten: one a step, the last for the steps beyond, or none.
    std::span<const Block> rate_gradients;
  };
  /// All of it at once, where the backend has that for this network and these sizes. False where it
  /// has not; nothing is done then, and the caller composes it of the operations here.
  virtual bool differentiate(const Descent& /*descent*/) { return false; }
  /// The same for a Gaussian over weights, by samples of them (Estimator::weight): from theta =
  /// (mu, s), which is the prior p too, descent on the mean over samples of the scaled loss plus kl
  /// KL(q
  /// || p); then the mean over samples of the scaled loss of `outer_set`, with the support set as a
  /// set of its own after it where wanted, plus outer_kl KL(q || p), and its gradient by theta.
  struct GaussianDescent {
    /// Noise of all samples and steps: drawn by key, whose inner step and sample are set, or a
    /// case's own arrays: those of task 0; step, task and sample strides.
    struct Draws {
      RandomKey key;
      const double* host = nullptr;
      std::size_t step_stride = 0, task_stride = 0, sample_stride = 0;
      int samples = 1;
    };
    Set set = Set::support;
    Scale scale, kl;
    const SharedVector* mu = nullptr;
    const SharedVector* s = nullptr;
    std::span<const Rate> rates;  ///< as Descent's, for mu and s alike
    int steps = 0;
    bool second_order = true;
    bool differentiate_prior = true;  ///< theta is differentiated as the inner KL's prior too
    Draws draws;
    Set outer_set = Set::query;
    bool and_support = false;
    Scale outer_scale, outer_kl;
    Draws outer_draws;
    Block end_mu, end_s;            ///< q at the end
    Block gradient_mu, gradient_s;  ///< by theta, overwritten
    Block loss;                     ///< added to
  };
  virtual bool differentiate_gaussian(const GaussianDescent& /*descent*/) { return false; }
  /// Whether a fused version may count inner steps and samples in Philox's counter alone: both stay
  /// within the 16 bits that they have there (RandomKey::key).
  static bool draws_fused(const GaussianDescent& descent) {
    constexpr int most = 1 << 16;
    return descent.steps <= most && descent.draws.samples <= most &&
           descent.outer_draws.samples <= most;
  }
  /// Forward only: loss as above where given, outputs [rows of the set (largest), outputs] where
  /// given; rows beyond the task's own are zero.
  virtual void value(const Pass& pass, Block loss, Block outputs, NormStatistics statistics) = 0;

  // ---- network under Gaussian weights; here composed of the operations above ----
  /// A block for GaussianPass::kept; none where there is nothing to keep.
  virtual Block draw_memory(Estimator estimator);
  /// (g_mu, g_s) += a * the gradient of scale * sum nll at the sample; loss[b] += scale * sum nll
  /// (where `loss` is given).
  virtual void gaussian_gradient(const GaussianPass& pass, double a, Block g_mu, Block g_s,
                                 Block loss);
  /// (r_mu, r_s) += a * the derivative of that gradient along (v_mu, v_s), but for the part that
  /// gaussian_curvature adds.
  virtual void gaussian_hessian_vector(const GaussianPass& pass, double a, Block v_mu, Block v_s,
                                       Block r_mu, Block r_s);
  /// That part, which needs no pass over the rows: r_s += a c * g_s * v_s, where g_s is the
  /// gradient in s (of any number of samples at once) and c comes from the curvature of the sampled
  /// weights (c = 1) or variances (c = 2) in s itself.
  virtual void gaussian_curvature(Estimator estimator, double a, Block r_s, Block g_s, Block v_s);
  /// Forward only, as value().
  virtual void gaussian_value(const GaussianPass& pass, Block loss, Block outputs,
                              NormStatistics statistics);
  /// The wave's own block for outputs of a set, [rows(set), outputs].
  Block outputs(Set set);
  /// Rows of a set in the layout of `outputs` (the largest number over tasks).
  virtual int rows(Set set) const = 0;

  // ---- what flipout and local are composed of ----
  /// The network with two vectors of weights, `mean` and `spread` (s), and noise by rows. A linear
  /// or convolution layer f gives
  ///   flipout  f(x; mean) + bias + r_out * f(r_in * x; s),  s = sigma * eps
  ///   local    f(x; mean) + bias + sqrt(f(x^2; s) + s_bias) * zeta,  s = sigma^2
  /// and every other parameter (norm; flipout's biases) is taken from `mean` as it stands.
  struct SplitPass {
    Set set = Set::support;
    Estimator estimator = Estimator::flipout;
    Block mean, spread;
    Scale scale;
    const GaussianNoise* noise = nullptr;
  };
  /// g_mean and g_spread = or += gradients; where a parameter is taken from `mean` alone, g_spread
  /// gets the same as g_mean. loss[b] += scale * sum nll where given. Throws DeviceError where the
  /// backend has only the estimator `weight`, as the next two.
  virtual void split_gradient(const SplitPass& pass, Block g_mean, Block g_spread, bool accumulate,
                              Block loss);
  /// Their derivatives along (u_mean, u_spread), overwriting h_mean and h_spread; those of a
  /// parameter taken from `mean` alone likewise in both.
  virtual void split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread,
                                    Block h_mean, Block h_spread);
  virtual void split_value(const SplitPass& pass, Block loss, Block outputs,
                           NormStatistics statistics);

  /// Networks that all tasks share and that make this wave's weights (generator.h); on blocks of
  /// this wave, which must outlive it.
  virtual std::unique_ptr<Generator> generator(const GeneratorSpec& spec) = 0;

  /// Small matrices of this wave's tasks (linear_algebra.h); on blocks of this wave, which must
  /// outlive it.
  virtual std::unique_ptr<LinearAlgebra> linear_algebra();

  // ---- the door back ----
  /// values[t * width + i], t < count().
  virtual void download(Block src, std::span<double> values) const = 0;

 protected:
  Wave(std::shared_ptr<const Network> network, const Loss& loss, const WaveShape& shape)
      : network_outputs_(network->outputs()),
        network_(std::move(network)),
        loss_(loss),
        shape_(shape) {}
  /// load() for a batch that was checked; task_ways() is set.
  virtual void do_load(const TaskBatch& batch, int first, int count,
                       std::uint32_t global_first) = 0;
  /// To be called by draw(), which takes tasks of `ways` classes without a batch.
  void take_drawn(int count, int ways) {
    not_finite_.clear();
    ways_.assign(static_cast<std::size_t>(count), ways);
  }
  /// Number of classes of task t of the wave; the batch's number of outputs where it says nothing.
  int task_ways(int t) const { return ways_[static_cast<std::size_t>(t)]; }

  int count_ = 0;
  std::uint32_t global_first_ = 0;
  std::vector<std::int32_t> ways_;  ///< classes of each loaded task
  int network_outputs_;
  std::shared_ptr<const Network> network_;
  Loss loss_;
  WaveShape shape_;

 private:
  /// Block `i` of the composed operations, made when first asked for.
  Block scratch(std::size_t i);
  /// phi and eps of the estimator `weight`.
  struct Sampled {
    Block phi, eps;
  };
  Sampled draw_weights(const GaussianPass& pass);
  /// Means and spreads of the others; d spread / ds = factor * slope.
  struct Split {
    Block mean, spread, slope;
    double factor = 1.0;
  };
  Split draw_split(const GaussianPass& pass);
  static SplitPass split_pass(const GaussianPass& pass, const Split& split, Set set);
  /// 1 for parameters that the estimator draws, 0 for those it splits; none where it splits all.
  Block drawn_mask(Estimator estimator);

  Block output_blocks_[3];
  std::vector<Block> scratch_;
  struct Mask {
    Block block;
    bool made = false;
  };
  Mask drawn_masks_[3];
  std::vector<char> not_finite_;  ///< a flag per task, or empty: all are finite
  Block exclusion_;               ///< [1]: NaN for tasks that are not finite, else 0
};

inline Block Wave::outputs(Set set) {
  Block& block = output_blocks_[static_cast<int>(set)];
  if (!block) {
    block = this->block(static_cast<std::size_t>(rows(set)) *
                        static_cast<std::size_t>(network_outputs_));
  }
  return block;
}

/// What a training step may come to.
enum class Outcome {
  update,  ///< the optimiser's step is taken
  guard,   ///< it is taken with a gradient that pulls towards zero: Backend::guard
  stop,    ///< nothing changes
};

/// What a step comes to beside its gradients. Doubles alone, one after another.
struct StepFigures {
  double loss = 0.0;              ///< sum over the tasks that did not diverge
  double tasks = 0.0;             ///< their number
  double diverged = 0.0;          ///< number of the others
  double outside = 0.0;           ///< terms that stand outside the mean over tasks
  double mean_squares = 0.0;      ///< of the means over tasks, all elements
  double gradient_squares = 0.0;  ///< of the gradients, all groups
  double clipped_squares = 0.0;   ///< likewise, of elements cut to +-clip_value
  double outcome = 0.0;           ///< an Outcome, by Step::judge

  double mean_loss() const { return tasks > 0.0 ? loss / tasks : 0.0; }
  double total_loss() const { return mean_loss() + outside; }
};
using Figure = double StepFigures::*;

/// Which outcome a step has, by its figures.
struct StepRule {
  double max_diverged = 1.0;  ///< the largest share of tasks
  bool guard = false;         ///< rather than to stop, and for any task that diverged

  Outcome outcome(const StepFigures& f) const {
    const bool finite = std::isfinite(f.total_loss());
    if (guard && (f.diverged > 0.0 || !finite)) return Outcome::guard;
    const bool many = f.tasks == 0.0 || f.diverged / (f.tasks + f.diverged) > max_diverged;
    return many || !finite ? Outcome::stop : Outcome::update;
  }
};

/// A training step on a backend: figures that stay in the backend's memory, where operations add to
/// them and go by them, until the host reads all at once; and the launch of its work.
class Step {
 public:
  virtual ~Step() = default;
  /// Runs `work`: operations of the backend, of `waves` (which are loaded) and of their reduction
  /// that need nothing from the host and bring nothing back. A backend may gather them into one
  /// launch (CudaStep: a graph); then `work` may run twice, the first time in vain.
  virtual void gather(std::span<Wave* const> /*waves*/, const std::function<void()>& work) {
    work();
  }
  /// All figures are zero.
  virtual void clear() = 0;
  virtual void add(Figure figure, double value) = 0;
  /// Sets the outcome, from loss, tasks, diverged and outside.
  virtual void judge(const StepRule& rule) = 0;
  /// Waits for what was begun.
  virtual StepFigures read() const = 0;
};

/// A figure that an operation adds its value to.
struct Sum {
  Step& step;
  Figure figure;
};

/// Sums over tasks. The order is fixed by the tasks' indices alone: a binary tree over each aligned
/// run of 16 tasks, the runs then one after another in double precision. Waves are added from any
/// thread; `ordinal` counts them from 0 and commits happen in its order. A task with a non-finite
/// element in any block or in its loss counts as zero and as diverged.
class Reduction {
 public:
  virtual ~Reduction() = default;
  /// Of so many tasks, whose figures (loss, tasks, diverged) are added to those of `step`.
  virtual void begin(std::size_t waves, std::size_t tasks, Step& step) = 0;
  /// `gradients` in the order and widths given at creation; `loss` of width 1.
  virtual void add(Wave& wave, std::size_t ordinal, std::span<const Block> gradients,
                   Block loss) = 0;
  /// A wave will never come (its worker threw): nobody waits for it any more, later adds do
  /// nothing, and finish must not be called before the next begin.
  virtual void cancel() = 0;
  /// After the last add: per block the mean over the tasks that did not diverge.
  virtual void finish(std::span<const Shared> means) = 0;
  /// Indices of the diverged tasks, ascending, after finish.
  virtual std::vector<std::uint32_t> diverged_tasks() const = 0;
};

struct OptimizerStep {
  enum class Kind { sgd, adam } kind = Kind::adam;
  double learning_rate = 1e-3;
  double momentum = 0.9;                              ///< sgd
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  ///< adam (Kingma & Ba 2015)
  std::uint64_t step = 1;                             ///< counts from 1, for the bias correction
  double clip_value = 0.0;                            ///< 0: off; applied before clip_norm
  /// 0: off; else gradients are scaled down so that `of`'s clipped_squares is the square of at most
  /// this.
  double clip_norm = 0.0;
  double weight_decay = 0.0;  ///< times the parameters, added to the clipped gradient
  /// Where given, a step whose outcome is `stop` changes nothing.
  const Step* of = nullptr;
};

/// What each task of a wave will take, counted before one is opened (engine/plan.h).
struct WaveDemand {
  std::shared_ptr<const Network> network;
  Loss loss;
  WaveShape shape;
  std::size_t vector_scalars = 0;    ///< of all blocks
  std::size_t gradient_scalars = 0;  ///< that the reduction sums
  bool hessian_vectors = false;      ///< there are some
  bool hessian_gradients = false;    ///< and some give the gradient as well
  bool dropout = false;
  // Of Wave::differentiate and differentiate_gaussian, where they are done at once:
  int descent_steps = 0;
  int descent_samples = 0;  ///< the most of any step; 0: of a point
  int descent_noise = 0;    ///< samples of all inner steps that are differentiated
  /// Passes with noise by rows, and Hessian-vector products of them; by Estimator.
  struct Split {
    bool passes = false, hessian_vectors = false;
  } split[3];
  std::shared_ptr<const GeneratorSpec> generator;  ///< null: none
  bool encoder_dropout = false, decoder_tangents = false;
};

/// The size of waves that a backend chose by its memory.
struct WavePlan {
  int tasks = 0;               ///< of a wave; 0: waves have a size of their own
  std::size_t task_bytes = 0;  ///< a task's share of the device's memory that a wave takes
};

/// Where a source's tasks come from.
struct EpisodePlace {
  std::shared_ptr<const Episodes> here;  ///< null: from the host
  std::string reason;                    ///< why from the host; empty where there is no choice
  std::size_t bytes = 0;                 ///< of the backend's memory that they take
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;         ///< "reference", "cpu", ...
  virtual std::string description() const = 0;  ///< for logs: instruction set, lanes, device
  virtual Precision precision() const = 0;
  /// Waves that can run at once (threads or streams).
  virtual int concurrency() const = 0;
  /// As many threads for loops over waves or over shared vectors, one loop at a time; made when
  /// first asked for.
  ThreadPool& pool() {
    if (!pool_) pool_ = std::make_unique<ThreadPool>(concurrency());
    return *pool_;
  }

  virtual Shared shared(std::size_t size) = 0;
  virtual std::unique_ptr<Wave> open(std::shared_ptr<const Network> network, const Loss& loss,
                                     const WaveShape& shape) = 0;
  virtual std::unique_ptr<Reduction> reduction(std::span<const std::size_t> widths) = 0;
  virtual std::unique_ptr<Step> open_step() = 0;
  /// Sizes the waves for such a network and shape that are opened from now on, for all workers
  /// together; demand(tasks): of a wave of so many tasks. Others are as small as they can be.
  /// Throws DeviceError where the smallest does not fit.
  virtual WavePlan plan_waves(const std::function<WaveDemand(int tasks)>& /*demand*/) { return {}; }
  /// Prepares to draw tasks of a split by itself and brings what they are made of to its memory,
  /// where it can and that fits. To be asked for before plan_waves, which has what is left. The
  /// recipe is not needed any more when it returns.
  virtual EpisodePlace place(const EpisodeRecipe& /*recipe*/, Split /*split*/) { return {}; }
  /// Whether its waves do Wave::differentiate at once for such a network and shape.
  virtual bool differentiates(const Network& /*network*/, const WaveShape& /*shape*/) const {
    return false;
  }
  /// Bytes of device memory that this program has taken, as its allocations count them; 0 where a
  /// backend's memory is the host's.
  virtual std::size_t device_bytes() const { return 0; }
  /// Computes beside the host's threads, which are free to prepare what comes next.
  virtual bool asynchronous() const { return false; }

  // ---- shared vectors: done in the order of the calls, not always when they return ----
  /// dst = src.
  virtual void assign(SharedVector& dst, const SharedVector& src) = 0;
  /// dst *= src, element by element.
  virtual void multiply(SharedVector& dst, const SharedVector& src) = 0;
  /// dst += a src.
  virtual void add(SharedVector& dst, double a, const SharedVector& src) = 0;
  /// dst = exp(src), element by element; dst may be src.
  virtual void exponential(SharedVector& dst, const SharedVector& src) = 0;
  /// Adds the sum of squares, in fixed order, in double precision; of elements first cut to +-clip
  /// where clip > 0.
  virtual void squared_norm(const SharedVector& v, double clip, Sum to) = 0;
  /// dst[i] = src[index[i]] (rates a tensor to rates a weight), and its transpose: dst[index[i]] +=
  /// src[i], after dst was set to zero unless `accumulate`.
  virtual void gather(SharedVector& dst, const SharedVector& src,
                      std::span<const std::uint32_t> index) = 0;
  virtual void scatter_add(SharedVector& dst, const SharedVector& src,
                           std::span<const std::uint32_t> index, bool accumulate = false) = 0;
  /// Gamma-Gaussian hyper-prior of ABML (Ravi & Beatson 2019, 3.3) on (mu, s = log sigma),
  /// tau = exp(-2 s): adds weight * [sum mu^2/2 - sum((a0 - 1) log tau - b0 tau)] to a figure, and
  /// its gradient to (g_mu, g_s).
  virtual void hyper_prior(const SharedVector& mu, const SharedVector& s, double a0, double b0,
                           double weight, SharedVector& g_mu, SharedVector& g_s, Sum to) = 0;
  /// A run of a vector's elements.
  struct Segment {
    std::size_t offset = 0, size = 0;
  };
  /// Adds weight / 2 * the sum of squares of the segments' elements, and its gradient to g.
  virtual void l2_penalty(const SharedVector& v, std::span<const Segment> segments, double weight,
                          SharedVector& g, Sum to) = 0;
  /// Each element cut to +-value where value > 0; then each segment scaled down to a norm of at
  /// most `norm`.
  virtual void clip(SharedVector& v, double value, double norm,
                    std::span<const Segment> segments) = 0;
  /// With d_a the columns of the matrix [rows, columns] at `offset` of v: adds weight *
  /// mean over (a, b) of (cos(d_a, d_b) - [a = b])^2, and its gradient to g, at the same
  /// offset.
  virtual void column_orthogonality(const SharedVector& v, std::size_t offset, std::size_t rows,
                                    std::size_t columns, double weight, SharedVector& g,
                                    Sum to) = 0;
  /// gradient = factor * parameters, where the step's outcome is `guard`.
  virtual void guard(const Step& step, SharedVector& gradient, const SharedVector& parameters,
                     double factor) = 0;
  /// One step in place; m and v are the optimiser's state (v unused by sgd, may be null).
  virtual void optimizer_step(SharedVector& parameters, const SharedVector& gradient,
                              SharedVector& m, SharedVector* v, const OptimizerStep& step) = 0;

  /// What `work` adds, read at once.
  double value(const std::function<void(Sum to)>& work);

 private:
  std::unique_ptr<Step> at_once_;  ///< of value()
  std::unique_ptr<ThreadPool> pool_;
};

/// What a machine offers. `usable` false comes with the reason.
struct DeviceInfo {
  std::string name;  ///< what --device takes
  std::string description;
  bool usable = false;
  std::string reason;
};
std::vector<DeviceInfo> list_devices();

/// A backend that is not part of the library: a program has it that links it (the emulator of
/// tests/simt, which must never be in an installed library).
struct AddedBackend {
  DeviceInfo device;
  std::function<std::unique_ptr<Backend>(int threads, Precision precision)> make;
};
/// From now on list_devices names it and make_backend makes it. To be called while the program
/// starts, before there are other threads. True, so that it can initialise a variable.
bool add_backend(AddedBackend backend);

/// "reference", "cpu", "auto" (says in `description` what was picked), "cuda" and "cuda:N" (GPUs),
/// "simt" (CUDA emulated, for tests). `precision` is f32 where it is left out, and heeded by "cuda"
/// and "simt" alone: the others have one. Throws DeviceError for a device this build or machine
/// does not have, naming why. threads = 0: all cores.
std::unique_ptr<Backend> make_backend(const std::string& device, int threads,
                                      std::optional<Precision> precision = {});

}  // namespace kshot::backend
