// A learned observation noise (loss.noise = "learned"): the standard deviation sigma of
// gaussian_nll is a meta-parameter log_noise = log sigma [1], which all tasks share and which no
// inner step moves.
//
// The loss of a row with o outputs is affine in its mean squared error:
//   nll = kappa mse + o (log_noise + log(2 pi) / 2),   kappa = o exp(-2 log_noise) / 2.
// A wave therefore computes `mse` (make_loss), whatever sigma is, and kappa acts outside of it,
// read from the backend's own memory:
//   outer loss     L = kappa M + o (log_noise + log(2 pi) / 2), M the mean squared error of the
//                  outer rows. Its gradient by the adapted weights is kappa dM/dw, and its direct
//                  derivative is o - 2 kappa M: per row and output 1 - r^2 / sigma^2.
//   step of a      w - alpha grad nll = w - (kappa alpha) grad mse, so that kappa is a factor of
//   point          the rate. With G = dL/d(kappa alpha), which a learned rate needs anyway
//                  (adaptation.h): dL/dalpha = kappa G, and log_noise gets -2 sum (kappa alpha) G,
//                  which is the sum over steps of <dL/dw_{k+1}, 2 alpha grad nll_k>.
//   step of a      kappa multiplies the gradient of the likelihood, not that of the KL, see
//   Gaussian       Adaptation::learn_noise.
// With inner.order = "first", the inner gradients are constants: log_noise gets the direct
// derivative only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "algorithms/adaptation.h"
#include "algorithms/algorithm.h"
#include "backend/backend.h"

namespace kshot {

/// The parameter log_noise and the values that all tasks derive from it. `learned()` is false where
/// the noise is fixed. Then no other member may be called.
class ObservationNoise {
 public:
  ObservationNoise(const Config& config, const Network& network);

  bool learned() const { return learned_; }
  int outputs() const { return outputs_; }
  /// "log_noise", one tensor [1] without a name of its own.
  ParameterGroup group() const;
  /// log(loss.noise_std).
  std::vector<double> initial() const { return {initial_}; }

  /// Called in Algorithm::prepare with the parameter, [1]. Computes kappa.
  void prepare(backend::Backend& backend, const backend::Shared& log_noise);
  /// Returns kappa times `rates`, each as a vector of `width` elements. A rate that is a number
  /// must stay the same from call to call. The results live until the next call with this `slot`.
  /// Each plan that is in use has a slot of its own.
  std::vector<backend::Rate> scaled(backend::Backend& backend, std::span<const backend::Rate> rates,
                                    std::size_t width, std::size_t slot);

  const backend::SharedVector& log_noise() const { return *log_noise_; }
  const backend::SharedVector& kappa() const { return *kappa_; }

 private:
  struct Scaled {
    std::vector<std::uint32_t> index;        ///< zeros: every element is kappa
    backend::Shared expanded;                ///< kappa, `width` times
    std::vector<backend::Shared> constants;  ///< the rates that are numbers, as vectors
    std::vector<backend::Shared> rates;
  };

  bool learned_;
  int outputs_;
  double initial_;
  backend::Shared log_noise_, kappa_, log_half_outputs_;
  std::vector<Scaled> scaled_;
};

/// The learned noise on the tasks of one wave: kappa as a block, and the gradient of log_noise.
class TaskNoise {
 public:
  TaskNoise(backend::Wave& wave, const ObservationNoise& noise);

  /// Loads the current noise into the wave's tasks and sets the gradient to zero. Called first,
  /// after prepare().
  void begin();
  /// [1]: kappa, the same for all tasks.
  backend::Block kappa() const { return kappa_; }
  /// [1]: dL/dlog_noise.
  backend::Block gradient() const { return gradient_; }
  /// `loss` [1] is a mean of `mse` over rows, and `gradients` are its gradients. Turns loss and
  /// gradients into those of gaussian_nll, and adds the direct derivative to gradient().
  void outer(backend::Block loss, std::span<const backend::Block> gradients);
  /// Adds the derivative through the inner steps with `rate`, which scaled() has returned. g =
  /// dL/drate and `scratch` are vectors of the rate's width.
  void inner(const backend::Rate& rate, backend::Block g, backend::Block scratch);
  /// Name of the metric (Algorithm::metrics). metrics() writes its value, sigma, for task t to
  /// values[t * stride].
  static constexpr const char* metric = "noise_std";
  void metrics(std::span<double> values, std::size_t stride) const;

 private:
  backend::Wave& wave_;
  const ObservationNoise& noise_;
  backend::Block kappa_, log_noise_, gradient_, constant_;
};

}  // namespace kshot
