// Vectors that all tasks share: weights, gradients, learned rates, the optimiser's state.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

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

}  // namespace kshot::backend
