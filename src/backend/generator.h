// Generated weights: networks that all tasks share make the weights of each task's own network from
// its support rows, through latents of few numbers (latent embedding optimisation, Rusu et al.,
// ICLR 2019). A family of the door beside those of backend.h: forward, pull-back, and the tangents
// of decoding, from which an algorithm composes inner loops in the latents and their adjoint.
//
// One task: the support rows fall into N groups (the classes of a head; one group of all rows
// else). Rows of a group are encoded,
//   e_i = encoder(x_i),  (m, u)_n = mean over i in group n of mean over all rows j of
//                                   relation([e_i, e_j])            (without relation: of e_i)
//   z_{n,c} = m_n + std(u_n; 0) eps_{n,c},   c < C,
// and every latent decoded to the P weights of its group's part of the network (D = N P):
//   (m, u) = decoder(z_{n,c}),   w_n = mean over c of m + std(u; offset) eps.
// std(u; offset) = max(exp(u) - (1 - offset), 1e-10).
#pragma once

#include <memory>
#include <vector>

#include "backend/backend.h"

namespace kshot::backend {

/// Below this a standard deviation does not fall; where it would, its derivative is zero.
inline constexpr double least_std = 1e-10;

struct GeneratorSpec {
  // The shared networks: plain perceptrons, each acting on rows. Their weights lie one after
  // another in one shared vector, in this order.
  std::shared_ptr<const Network> encoder;   ///< to [L], or [2 L] without a relation network
  std::shared_ptr<const Network> relation;  ///< [2 L] to [2 L]; null: none
  std::shared_ptr<const Network> decoder;   ///< [L] to [2 P]: means, then u
  /// Rows are grouped by label, and encoded from x; else all rows make one group, and are encoded
  /// from [x, y].
  bool by_label = true;
  int latents = 1;              ///< C
  bool latent_per_row = false;  ///< every group must have exactly C rows
  std::vector<double> offset;   ///< [P], of the weights' standard deviation

  /// For planning memory: the block of Generator::gradients, and what one meta-gradient adds to it.
  /// The block is no part of WaveDemand::vector_scalars.
  struct GradientDemand {
    std::size_t width = 0;                     ///< 0: there is none
    int pullbacks = 0, pullback_tangents = 0;  ///< of decodes
  } gradient_demand;

  std::size_t latent() const { return static_cast<std::size_t>(decoder->input().size()); }
  std::size_t weights() const { return static_cast<std::size_t>(decoder->outputs()) / 2; }
  std::size_t relation_at() const { return encoder->size(); }
  std::size_t decoder_at() const { return encoder->size() + (relation ? relation->size() : 0); }
  /// Throws Error where a group of a task has not the rows it must have.
  void check_group(std::size_t group, std::size_t rows) const;
  /// Length of the networks' part of the shared vector, which may be longer.
  std::size_t size() const { return decoder_at() + decoder->size(); }
};

/// On the blocks of one wave. Widths: statistics [N, 2, L] (m, then u), latents and their noise
/// [N, C, L], weights' noise [N, C, P], g_theta that of the shared vector; weights are blocks of
/// Wave::weights(). Where noise is an empty block there is none: the means are taken.
class Generator {
 public:
  /// On a wave's blocks, which must outlive it.
  explicit Generator(Wave& wave) : wave_(wave) {}
  virtual ~Generator() = default;

  /// A new block for g_theta, in whatever form the backend keeps such sums; at least as wide as the
  /// generator's part of the shared vector. It takes Wave::fill with zero, the operations below,
  /// downloads and the reduction.
  virtual Block gradients(std::size_t width) { return wave_.block(width); }

  /// From the support rows of the tasks at hand. Throws Error for a task whose groups have no row,
  /// or with latent_per_row not C rows.
  virtual void encode(const SharedVector& theta, const Dropout& dropout, Block statistics) = 0;
  /// g_theta += pull-back of g_statistics through encode, after an encode of the same, whose
  /// activations may serve again.
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
  /// value += weight * kl; g_statistics += weight * its derivative, the path through z included.
  virtual void kl(Kl kind, double weight, Block statistics, Block z, Block eps, Block value,
                  Block g_statistics) = 0;

  /// Latents, and the noise of one decode.
  struct Latents {
    Block z, eps;
    /// The generator's last decode was of these latents and this noise: its activations may serve
    /// again.
    bool again = false;
    /// A number >= 0 that decode may keep under what decode_tangent needs, which names it too: same
    /// tasks, shared networks, latents and noise. A generator keeps what it sees fit, within a
    /// fixed size.
    int activations = -1;
  };
  virtual void decode(const SharedVector& theta, const Latents& at, Block weights) = 0;
  /// Pull-back of a weight gradient: g_z is overwritten, g_theta added to; each where wanted.
  virtual void decode_pullback(const SharedVector& theta, const Latents& at, Block g_weights,
                               Block g_z, Block g_theta) = 0;
  /// Directional derivative of the weights along z_dot.
  virtual void decode_tangent(const SharedVector& theta, const Latents& at, Block z_dot,
                              Block weights_dot) = 0;
  /// That of the pull-back, along (z_dot, g_weights_dot): h_z is overwritten, h_theta gets a times
  /// it added.
  virtual void decode_pullback_tangent(const SharedVector& theta, const Latents& at, Block z_dot,
                                       Block g_weights, Block g_weights_dot, Block h_z, double a,
                                       Block h_theta) = 0;

  // ---- the loss of a pass at decoded weights, as a function of the latents: composed of the
  // operations above and the wave's; a backend may fuse them ----
  /// g_z = the gradient by z of the pass's loss at decode(at). The decoded weights may be left in
  /// pass.weights, and must stay there for the product below (at.again is not looked at).
  virtual void loss_gradient(const SharedVector& theta, const Latents& at, const Wave::Pass& pass,
                             Block g_z);
  /// The derivatives of <z_dot, g_z> after that gradient: h_z = that by z, h_theta += a times that
  /// by theta.
  virtual void loss_hessian_vector(const SharedVector& theta, const Latents& at,
                                   const Wave::Pass& pass, Block z_dot, Block h_z, double a,
                                   Block h_theta);

 private:
  Wave& wave_;
  Block g_weights_, weights_dot_, h_weights_;  ///< of the composed forms, made when first asked for
};

}  // namespace kshot::backend
