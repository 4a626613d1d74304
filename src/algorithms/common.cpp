#include "algorithms/common.h"

#include <algorithm>

#include "kshot/error.h"

namespace kshot {

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
  return {{backend::Rate{rate_, vector_.get()}}};
}

}  // namespace kshot
