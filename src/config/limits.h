// Constants that several lists of the schema share: the largest sizes, and the kinds of algorithms.
#pragma once

#include <string>
#include <vector>

namespace kshot::schema {

// Limits far beyond any network that trains, but small enough that products of sizes do not
// overflow.
inline constexpr int largest_size = 1 << 20;
inline constexpr int largest_kernel = 1 << 10;

/// The algorithms that adapt to a task by gradient steps.
inline std::vector<std::string> inner_loop_algorithms() {
  return {"maml", "meta_sgd", "abml", "leo", "hvi"};
}

/// The algorithms that fit a head in closed form (is_closed_form).
inline std::vector<std::string> closed_form_algorithms() {
  return {"protonet", "r2d2", "bayes_protonet", "alpaca", "dkt"};
}

}  // namespace kshot::schema
