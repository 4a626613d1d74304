// Vectors that all tasks share: weights, gradients, learned rates, the optimizer's state.
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
  /// Returns a function that gives the present values. The function may be called once, at any
  /// later time and from any thread; a backend may copy the values until then. The vector may
  /// change or be destroyed before the call.
  virtual std::function<std::vector<double>()> snapshot() const {
    std::vector<double> values(size());
    download(values);
    return [values = std::move(values)] { return values; };
  }
};
using Shared = std::shared_ptr<SharedVector>;

}  // namespace kshot::backend
