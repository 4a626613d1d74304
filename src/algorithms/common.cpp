#include "algorithms/common.h"

#include <algorithm>
#include <utility>

#include "kshot/error.h"

namespace kshot {

std::vector<double> download(const backend::Wave& wave, backend::Block block, std::size_t width) {
  std::vector<double> values(static_cast<std::size_t>(wave.count()) * width);
  wave.download(block, values);
  return values;
}

std::vector<double> adapt_mask(const Network& network, const std::vector<std::string>& globs) {
  std::vector<double> mask(network.size(), 0.0);
  std::vector<int> tensors;
  try {
    tensors = network.match(globs);
  } catch (const Error& error) {
    throw Error(std::string("inner.adapt: ") + error.what());
  }
  for (const int i : tensors) {
    const ParameterTensor& tensor = network.parameters()[static_cast<std::size_t>(i)];
    std::fill_n(mask.begin() + static_cast<std::ptrdiff_t>(tensor.offset), tensor.size, 1.0);
  }
  return mask;
}

FixedRate::FixedRate(const Config& config, const Network& network)
    : rate_(config.inner.learning_rate), mask_(adapt_mask(network, config.inner.adapt)) {
  if (std::all_of(mask_.begin(), mask_.end(), [](double m) { return m == 1.0; })) mask_.clear();
}

void FixedRate::prepare(backend::Backend& backend) {
  if (mask_.empty() || vector_) return;
  std::vector<double> rates = mask_;
  for (double& r : rates) r *= rate_;
  vector_ = backend.shared(rates.size());
  vector_->upload(rates);
}

RatePlan FixedRate::plan() const {
  return {{backend::Rate{rate_, vector_.get()}}, {}};
}

LearnedRates::LearnedRates(std::string name, const Config& config, const Network& network,
                           const Layout& layout)
    : rate_(config.inner.learning_rate), mask_(adapt_mask(network, config.inner.adapt)) {
  group_.name = std::move(name);
  const bool per_step = layout.steps > 0;
  const std::size_t vectors = per_step ? static_cast<std::size_t>(layout.steps) : 1;
  index_.assign(vectors, std::vector<std::uint32_t>(network.size()));
  // The group holds the tensors one after another, each as [K] x (its shape or [1]).
  std::uint32_t offset = 0;
  for (const ParameterTensor& tensor : network.parameters()) {
    ParameterTensor entry;
    entry.name = tensor.name;
    if (per_step) entry.shape.push_back(layout.steps);
    if (layout.per_tensor) {
      entry.shape.push_back(1);
    } else {
      entry.shape.insert(entry.shape.end(), tensor.shape.begin(), tensor.shape.end());
    }
    entry.offset = offset;
    entry.size = vectors * (layout.per_tensor ? 1 : tensor.size);
    for (std::size_t k = 0; k < vectors; ++k) {
      for (std::size_t i = 0; i < tensor.size; ++i) {
        const std::size_t within = layout.per_tensor ? k : k * tensor.size + i;
        index_[k][tensor.offset + i] = offset + static_cast<std::uint32_t>(within);
      }
    }
    offset += static_cast<std::uint32_t>(entry.size);
    group_.tensors.push_back(std::move(entry));
  }
  group_.size = offset;
}

void LearnedRates::prepare(backend::Backend& backend, const backend::SharedVector& values) {
  if (expanded_.empty()) {
    for (std::size_t k = 0; k < index_.size(); ++k) {
      expanded_.push_back(backend.shared(mask_.size()));
      steps_.push_back({0.0, expanded_.back().get()});
    }
    mask_vector_ = backend.shared(mask_.size());
    mask_vector_->upload(mask_);
  }
  for (std::size_t k = 0; k < index_.size(); ++k) {
    backend.gather(*expanded_[k], values, index_[k]);
    backend.multiply(*expanded_[k], *mask_vector_);
  }
}

void LearnedRates::finish(backend::Backend& backend, std::span<const backend::Shared> means,
                          backend::SharedVector& gradient) const {
  for (std::size_t k = 0; k < index_.size(); ++k) {
    backend.multiply(*means[k], *mask_vector_);
    backend.scatter_add(gradient, *means[k], index_[k], k > 0);
  }
}

}  // namespace kshot
