// The arithmetic of the library's own episodes: stored images, and sinusoid regression (Finn et al.
// 2017, section 5.1). Its operations give the same bits on the host and on a device.
#pragma once

#include "kshot/episode.h"
#include "kshot/random.h"

namespace kshot {

/// The value of a stored pixel: 0..255 maps to [0, 1].
KSHOT_HOST_DEVICE constexpr float stored_number(std::uint8_t x) {
  return static_cast<float>(x) * (1.0f / 255.0f);
}

/// Largest |z| for which sine() keeps its accuracy.
constexpr float largest_angle = 8192.0f;

/// sin(z) for |z| <= largest_angle, with an absolute error of at most 2e-7 (the method of Cephes
/// sinf). It consists of multiplications and additions without a branch. Loops over it therefore
/// vectorise, and the bits do not depend on a mathematics library.
KSHOT_HOST_DEVICE inline float sine(float z) {
  // q = round(z / (pi/2)), by the rounding of a float addition. r = z - q pi/2, |r| <= pi/4.
  const float q = product_sum(z, 0.636619772367581343f, 12582912.0f) - 12582912.0f;
  // pi/2 is subtracted in three parts. The products of q with the first two are exact.
  float r = product_sum(q, -1.5703125f, z);
  r = product_sum(q, -4.837512969970703125e-4f, r);
  r = product_sum(q, -7.549789954891882e-8f, r);
  const float r2 = r * r;
  float s = product_sum(r2, -1.9515295891e-4f, 8.3321608736e-3f);
  s = product_sum(r2, s, -1.6666654611e-1f);
  s = product_sum(r * r2, s, r);
  float c = product_sum(r2, 2.443315711809948e-5f, -1.388731625493765e-3f);
  c = product_sum(r2, c, 4.166664568298827e-2f);
  c = product_sum(r2 * r2, c, product_sum(r2, -0.5f, 1.0f));
  const int quadrant = static_cast<int>(q);
  const float value = (quadrant & 1) != 0 ? c : s;
  return (quadrant & 2) != 0 ? -value : value;
}

/// SinusoidOptions in single precision, in which the draws compute.
struct SinusoidRanges {
  float amplitude_low, amplitude_high;
  float phase_low, phase_high;
  float x_low, x_high;
  float noise_std;
  float line_share, line_limit;
};
inline SinusoidRanges sinusoid_ranges(const SinusoidOptions& options) {
  const auto single = [](double x) { return static_cast<float>(x); };
  return {
      single(options.amplitude_low), single(options.amplitude_high), single(options.phase_low),
      single(options.phase_high),    single(options.x_low),          single(options.x_high),
      single(options.noise_std),     single(options.line_share),     single(options.line_limit)};
}

/// The parts of an episode's stream (the argument `part` of episode_key). Query and support points
/// have separate streams. The query set is therefore the same for any number of shots, and more
/// shots extend the support set without changing the rows before.
enum SinusoidPart : std::uint32_t {
  sinusoid_task = 0,
  sinusoid_query = 1,
  sinusoid_support = 2,
  sinusoid_noise = 2,  ///< added to the part of the query or support points: their noise
};

/// The function of a task: a sin(x - p), or a line.
struct SinusoidTask {
  float amplitude = 0.0f, phase = 0.0f;
  bool line = false;
  float slope = 0.0f, intercept = 0.0f;

  KSHOT_HOST_DEVICE float wave_at(float x) const { return amplitude * sine(x - phase); }
  KSHOT_HOST_DEVICE float line_at(float x) const { return product_sum(slope, x, intercept); }
};
/// Draws a task from the stream of part `sinusoid_task`.
KSHOT_HOST_DEVICE inline SinusoidTask draw_sinusoid(const SinusoidRanges& ranges,
                                                    RandomStream stream) {
  SinusoidTask task;
  task.amplitude = stream.uniform(ranges.amplitude_low, ranges.amplitude_high);
  task.phase = stream.uniform(ranges.phase_low, ranges.phase_high);
  if (ranges.line_share > 0.0f && stream.uniform() < ranges.line_share) {
    task.line = true;
    task.slope = stream.uniform(-ranges.line_limit, ranges.line_limit);
    task.intercept = stream.uniform(-ranges.line_limit, ranges.line_limit);
  }
  return task;
}

}  // namespace kshot
