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

#include <initializer_list>
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
  std::size_t relation_begin() const { return encoder->size(); }
  std::size_t decoder_begin() const { return encoder->size() + (relation ? relation->size() : 0); }
  /// Throws Error where the number of rows of a group is not allowed.
  void check_group(std::size_t group, std::size_t rows) const;
  /// Number of weights of all three networks. The shared vector may be longer.
  std::size_t size() const { return decoder_begin() + decoder->size(); }
};

/// The operations on the blocks of one wave. The blocks have these widths: statistics [N, 2, L] (m,
/// then u), latents and their noise [N, C, L], the noise of weights [N, C, P]; g_theta is as wide
/// as the shared vector. Weights are blocks of Wave::weights(). Where a block of noise is empty,
/// there is no noise and the means are used.
///
/// The public functions check the widths of the blocks, once for every backend, and then call the
/// backend's do_... function. A wrong argument is a mistake in our own code and throws
/// std::logic_error.
class Generator {
 public:
  /// Uses the blocks of `wave`, which must outlive this object.
  Generator(Wave& wave, const GeneratorSpec& spec);
  virtual ~Generator() = default;

  /// Makes a block for g_theta, at least as wide as the generator's part of the shared vector. The
  /// backend chooses the form in which it keeps such sums. The block may be used in Wave::fill with
  /// zero, the operations below, downloads and the reduction.
  Block gradients(std::size_t width);

  /// Computes the statistics from the support rows of the loaded tasks. Throws Error for a task
  /// with an empty group or, with latent_per_row, a group that does not have C rows.
  void encode(const SharedVector& theta, const Dropout& dropout, Block statistics);
  /// g_theta += pull-back of g_statistics through encode. encode must have been called with the
  /// same arguments before; its activations may be reused.
  void encode_pullback(const SharedVector& theta, const Dropout& dropout, Block g_statistics,
                       Block g_theta);

  /// z = m + std eps.
  void sample(Block z, Block statistics, Block eps);
  /// g_statistics += pull-back of g_z.
  void sample_pullback(Block g_statistics, Block statistics, Block eps, Block g_z);
  enum class Kl {
    sampled,   ///< mean over latent elements of log q(z) - log N(z; 0, 1) at the drawn z
    analytic,  ///< mean over (group, element) of KL(N(m, std^2) || N(0, 1))
  };
  /// value += weight * kl. g_statistics += weight * the derivative of kl, which includes the path
  /// through z.
  void kl(Kl kind, double weight, Block statistics, Block z, Block eps, Block value,
          Block g_statistics);

  /// Latents, and the noise of one decoding.
  struct Latents {
    Block z, eps;
    /// The generator's last decoding had these latents and this noise, so that its activations may
    /// be reused.
    bool reuse_last_decode = false;
    /// A number >= 0 under which decode may keep values for the decode_tangent with the same
    /// number. The tasks, shared networks, latents and noise of the two calls must be the same. -1:
    /// nothing is kept. A generator keeps as much as it chooses, within a fixed size.
    int activations = -1;
  };
  /// weights = the decoded weights.
  void decode(const SharedVector& theta, const Latents& latents, Block weights);
  /// Pull-back of a weight gradient: overwrites g_z and adds to g_theta, each where it is given.
  void decode_pullback(const SharedVector& theta, const Latents& latents, Block g_weights,
                       Block g_z, Block g_theta);
  /// weights_dot = the derivative of the weights along z_dot.
  void decode_tangent(const SharedVector& theta, const Latents& latents, Block z_dot,
                      Block weights_dot);
  /// Derivative of decode_pullback along (z_dot, g_weights_dot): overwrites h_z with the derivative
  /// of g_z, and adds a times the derivative of g_theta to h_theta.
  void decode_pullback_tangent(const SharedVector& theta, const Latents& latents, Block z_dot,
                               Block g_weights, Block g_weights_dot, Block h_z, double a,
                               Block h_theta);

  // ---- the loss of a pass at decoded weights, as a function of the latents ----
  /// g_z = the gradient by z of the pass's loss at decode(latents). The function may leave the
  /// decoded weights in pass.weights. loss_hessian_vector needs this block unchanged.
  /// latents.reuse_last_decode is ignored.
  void loss_gradient(const SharedVector& theta, const Latents& latents, const Wave::Pass& pass,
                     Block g_z);
  /// Computes the derivatives of <z_dot, g_z> by z and by theta: h_z = the derivative by z, and
  /// h_theta += a times the derivative by theta. loss_gradient must have been called before with
  /// the same arguments.
  void loss_hessian_vector(const SharedVector& theta, const Latents& latents,
                           const Wave::Pass& pass, Block z_dot, Block h_z, double a, Block h_theta);

 protected:
  virtual Block do_gradients(std::size_t width) { return wave_.block(width); }
  virtual void do_encode(const SharedVector& theta, const Dropout& dropout, Block statistics) = 0;
  virtual void do_encode_pullback(const SharedVector& theta, const Dropout& dropout,
                                  Block g_statistics, Block g_theta) = 0;
  virtual void do_sample(Block z, Block statistics, Block eps) = 0;
  virtual void do_sample_pullback(Block g_statistics, Block statistics, Block eps, Block g_z) = 0;
  virtual void do_kl(Kl kind, double weight, Block statistics, Block z, Block eps, Block value,
                     Block g_statistics) = 0;
  virtual void do_decode(const SharedVector& theta, const Latents& latents, Block weights) = 0;
  virtual void do_decode_pullback(const SharedVector& theta, const Latents& latents,
                                  Block g_weights, Block g_z, Block g_theta) = 0;
  virtual void do_decode_tangent(const SharedVector& theta, const Latents& latents, Block z_dot,
                                 Block weights_dot) = 0;
  virtual void do_decode_pullback_tangent(const SharedVector& theta, const Latents& latents,
                                          Block z_dot, Block g_weights, Block g_weights_dot,
                                          Block h_z, double a, Block h_theta) = 0;
  /// These two are composed of the functions above. A backend may have its own.
  virtual void do_loss_gradient(const SharedVector& theta, const Latents& latents,
                                const Wave::Pass& pass, Block g_z);
  virtual void do_loss_hessian_vector(const SharedVector& theta, const Latents& latents,
                                      const Wave::Pass& pass, Block z_dot, Block h_z, double a,
                                      Block h_theta);

 private:
  void require_theta(const char* operation, const SharedVector& theta) const;
  void require_gradient(const char* operation, Block g_theta) const;
  void require_statistics(const char* operation, std::initializer_list<Block> blocks) const;
  void require_latents(const char* operation, std::initializer_list<Block> blocks) const;
  void require_decoding(const char* operation, const SharedVector& theta, const Latents& latents,
                        std::initializer_list<Block> latent_blocks,
                        std::initializer_list<Block> weights, Block g_theta) const;

  Wave& wave_;
  std::size_t theta_width_;       ///< numbers of the shared vector that the generator uses
  std::size_t statistics_width_;  ///< N 2 L
  std::size_t latents_width_;     ///< N C L
  std::size_t noise_width_;       ///< N C P
  /// Blocks that the composed functions use; made on first use.
  Block g_weights_, weights_dot_, h_weights_;
};

}  // namespace kshot::backend
