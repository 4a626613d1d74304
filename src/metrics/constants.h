// Constants of the normal distribution, and the value for a figure that does not exist.
#pragma once

#include <limits>

namespace kshot::metrics {

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
inline constexpr double kSqrt2 = 1.41421356237309504880;
inline constexpr double kLogSqrt2Pi = 0.91893853320467274178;

}  // namespace kshot::metrics
