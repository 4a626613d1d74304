#include "algorithms/observation_noise.h"

#include <cmath>
#include <numbers>

namespace kshot {

using backend::Block;
using backend::Rate;

ObservationNoise::ObservationNoise(const Config& config, const Network& network)
    : learned_(config.loss.type == LossType::gaussian_nll &&
               config.loss.noise == NoiseKind::learned),
      outputs_(network.outputs()),
      initial_(std::log(config.loss.noise_std)) {}

ParameterGroup ObservationNoise::group() const {
  return {"log_noise", {{"", {1}, 0, 1}}, 1};
}

void ObservationNoise::prepare(backend::Backend& backend, const backend::Shared& log_noise) {
  log_noise_ = log_noise;
  if (!kappa_) {
    kappa_ = backend.shared(1);
    log_half_outputs_ = backend.shared(1);
    log_half_outputs_->upload(std::vector<double>{std::log(0.5 * outputs_)});
  }
  backend.assign(*kappa_, *log_half_outputs_);
  backend.add(*kappa_, -2.0, *log_noise_);
  backend.exponential(*kappa_, *kappa_);
}

std::vector<Rate> ObservationNoise::scaled(backend::Backend& backend, std::span<const Rate> rates,
                                           std::size_t width, std::size_t slot) {
  if (scaled_.size() <= slot) scaled_.resize(slot + 1);
  Scaled& s = scaled_[slot];
  if (!s.expanded) {
    s.index.assign(width, 0);
    s.expanded = backend.shared(width);
    for (const Rate& rate : rates) {
      s.rates.push_back(backend.shared(width));
      s.constants.emplace_back();
      if (rate.vector != nullptr) continue;
      s.constants.back() = backend.shared(width);
      s.constants.back()->upload(std::vector<double>(width, rate.value));
    }
  }
  backend.gather(*s.expanded, *kappa_, s.index);
  std::vector<Rate> scaled;
  for (std::size_t i = 0; i < rates.size(); ++i) {
    const backend::SharedVector& rate =
        rates[i].vector != nullptr ? *rates[i].vector : *s.constants[i];
    backend.assign(*s.rates[i], rate);
    backend.multiply(*s.rates[i], *s.expanded);
    scaled.push_back({0.0, s.rates[i].get()});
  }
  return scaled;
}

TaskNoise::TaskNoise(backend::Wave& wave, const ObservationNoise& noise)
    : wave_(wave), noise_(noise) {
  for (Block* b : {&kappa_, &log_noise_, &gradient_, &constant_}) *b = wave_.block(1);
}

void TaskNoise::begin() {
  wave_.broadcast(kappa_, noise_.kappa());
  wave_.broadcast(log_noise_, noise_.log_noise());
  wave_.fill(gradient_, 0.0);
}

void TaskNoise::outer(Block loss, std::span<const Block> gradients) {
  const double outputs = noise_.outputs();
  for (const Block g : gradients) wave_.scale_by(g, kappa_);
  wave_.scale_by(loss, kappa_);
  wave_.fill(constant_, outputs);
  wave_.axpy(gradient_, 1.0, constant_);
  wave_.axpy(gradient_, -2.0, loss);
  wave_.axpy(loss, 0.5 * std::log(2.0 * std::numbers::pi), constant_);
  wave_.axpy(loss, outputs, log_noise_);
}

void TaskNoise::metrics(std::span<double> values, std::size_t stride) const {
  std::vector<double> log_noise(static_cast<std::size_t>(wave_.count()));
  wave_.download(log_noise_, log_noise);
  for (std::size_t t = 0; t < log_noise.size(); ++t) values[t * stride] = std::exp(log_noise[t]);
}

void TaskNoise::inner(const Rate& rate, Block g, Block scratch) {
  wave_.broadcast(scratch, *rate.vector);
  wave_.multiply_fold(gradient_, -2.0, scratch, g);
}

}  // namespace kshot
