// Generated weights (latent embedding optimization, Rusu et al., ICLR 2019). Networks that all
// tasks share make the weights of each task's own network from its support rows, through latents of
// low dimension. This part of the backend interface has the forward pass, its pull-back, and the
// tangents of decoding and of its pull-back. An algorithm composes inner loops in the latents, and
// their adjoint, of these operations.
//
// For one task, the support rows are divided into N groups: the classes of a head, or else one
// group with all rows. The rows of a group are encoded:
//   e_i = encoder(x_i),  (m, u)_n = mean over i in group n of mean over all rows j of
//                                   relation([e_i, e_j])   (without a relation network: of e_i)
//   z_{n,c} = m_n + std(u_n; 0) eps_{n,c},   c < C.
// Every latent is decoded to the P weights of its group's part of the network (D = N P):
//   (m, u) = decoder(z_{n,c}),   w_n = mean over c of m + std(u; offset) eps.
// std(u; offset) = max(exp(u) - (1 - offset), 1e-10).
#pragma once

#include <memory>
#include <vector>

#include "backend/backend.h"

namespace kshot::backend {

/// Lower limit of a standard deviation. Where the limit applies, the derivative of the standard
/// deviation is zero.
inline constexpr double least_std = 1e-10;

/// Networks, groups and latents of a generator.
struct GeneratorSpec {
  // The shared networks are plain perceptrons that act on rows. Their weights are stored one after
  // another in one shared vector, in this order.
  std::shared_ptr<const Network> encoder;   ///< to [L], or [2 L] without a relation network
  std::shared_ptr<const Network> relation;  ///< [2 L] to [2 L]; null: none
  std::shared_ptr<const Network> decoder;   ///< [L] to [2 P]: means, then u
  /// Where true, rows are grouped by label and encoded from x. Where false, all rows are one group
  /// and are encoded from [x, y].
  bool by_label = true;
  int latents = 1;  ///< C
  /// Every group must have exactly C support rows.
  bool latent_per_row = false;
  std::vector<double> offset;  ///< [P], offset of the weights' standard deviations

  /// For planning memory: the width of the block that Generator::gradients makes, and the number of
  /// operations that add to it in one meta-gradient. WaveDemand::vector_scalars does not include
  /// this block.
  struct GradientDemand {
    std::size_t width = 0;                     ///< 0: there is no such block
    int pullbacks = 0, pullback_tangents = 0;  ///< of decodings
  } gradient_demand;

  /// L and P, and the offsets of the relation network and of the decoder in the shared vector.
  std::size_t latent() const { return static_cast<std::size_t>(decoder->input().size()); }
  std::size_t weights() const { return static_cast<std::size_t>(decoder->outputs()) / 2; }
  std::size_t relation_at() const { return encoder->size(); }
  std::size_t decoder_at() const { return encoder->size() + (relation ? relation->size() : 0); }
  /// Throws Error where the number of rows of a group is not allowed.
  void check_group(std::size_t group, std::size_t rows) const;
  /// Number of weights of all three networks. The shared vector may be longer.
  std::size_t size() const { return decoder_at() + decoder->size(); }
};

/// The operations on the blocks of one wave. The blocks have these widths: statistics [N, 2, L] (m,
/// then u), latents and their noise [N, C, L], the noise of weights [N, C, P]; g_theta is as wide
/// as the shared vector. Weights are blocks of Wave::weights(). Where a block of noise is empty,
/// there is no noise and the means are used.
class Generator {
 public:
  /// Uses the blocks of `wave`, which must outlive this object.
  explicit Generator(Wave& wave) : wave_(wave) {}
  virtual ~Generator() = default;

  /// Makes a block for g_theta, at least as wide as the generator's part of the shared vector. The
  /// backend chooses the form in which it keeps such sums. The block may be used in Wave::fill with
  /// zero, the operations below, downloads and the reduction.
  virtual Block gradients(std::size_t width) { return wave_.block(width); }

  /// Computes the statistics from the support rows of the loaded tasks. Throws Error for a task
  /// with an empty group or, with latent_per_row, a group that does not have C rows.
  virtual void encode(const SharedVector& theta, const Dropout& dropout, Block statistics) = 0;
  /// g_theta += pull-back of g_statistics through encode. encode must have been called with the
  /// same arguments before; its activations may be reused.
  virtual void encode_pullback(const SharedVector& theta, const Dropout& dropout,
                               Block g_statistics, Block g_theta) = 0;

  /// z = m + std eps.
  virtual void sample(Block z, Block statistics, Block eps) = 0;
  /// g_statistics += pull-back of g_z.
  virtual void sample_pullback(Block g_statistics, Block statistics, Block eps, Block g_z) = 0;
  enum class Kl {
    sampled,   ///< mean over latent elements of log q(z) - log N(z; 0, 1) at the drawn z
    analytic,  ///< mean over (group, element) of KL(N(m, std^2) || N(0, 1))
  };
  /// value += weight * kl. g_statistics += weight * the derivative of kl, which includes the path
  /// through z.
  virtual void kl(Kl kind, double weight, Block statistics, Block z, Block eps, Block value,
                  Block g_statistics) = 0;

  /// Latents, and the noise of one decoding.
  struct Latents {
    Block z, eps;
    /// The generator's last decoding had these latents and this noise, so that its activations may
    /// be reused.
    bool again = false;
    /// A number >= 0 under which decode may keep values for the decode_tangent with the same
    /// number. The tasks, shared networks, latents and noise of the two calls must be the same. -1:
    /// nothing is kept. A generator keeps as much as it chooses, within a fixed size.
    int activations = -1;
  };
  /// weights = the decoded weights.
  virtual void decode(const SharedVector& theta, const Latents& at, Block weights) = 0;
  /// Pull-back of a weight gradient: overwrites g_z and adds to g_theta, each where it is given.
  virtual void decode_pullback(const SharedVector& theta, const Latents& at, Block g_weights,
                               Block g_z, Block g_theta) = 0;
  /// weights_dot = the derivative of the weights along z_dot.
  virtual void decode_tangent(const SharedVector& theta, const Latents& at, Block z_dot,
                              Block weights_dot) = 0;
  /// Derivative of decode_pullback along (z_dot, g_weights_dot): overwrites h_z with the derivative
  /// of g_z, and adds a times the derivative of g_theta to h_theta.
  virtual void decode_pullback_tangent(const SharedVector& theta, const Latents& at, Block z_dot,
                                       Block g_weights, Block g_weights_dot, Block h_z, double a,
                                       Block h_theta) = 0;

  // ---- the loss of a pass at decoded weights, as a function of the latents ----
  /// g_z = the gradient by z of the pass's loss at decode(at). The function may leave the decoded
  /// weights in pass.weights. loss_hessian_vector needs this block unchanged. at.again is ignored.
  virtual void loss_gradient(const SharedVector& theta, const Latents& at, const Wave::Pass& pass,
                             Block g_z);
  /// Computes the derivatives of <z_dot, g_z> by z and by theta: h_z = the derivative by z, and
  /// h_theta += a times the derivative by theta. loss_gradient must have been called before with
  /// the same arguments.
  virtual void loss_hessian_vector(const SharedVector& theta, const Latents& at,
                                   const Wave::Pass& pass, Block z_dot, Block h_z, double a,
                                   Block h_theta);

 private:
  Wave& wave_;
  /// Blocks that the composed functions use; made on first use.
  Block g_weights_, weights_dot_, h_weights_;
};

}  // namespace kshot::backend
