// Sinusoid regression (Finn et al. 2017, section 5.1): y = a sin(x - p).
#include <algorithm>
#include <cmath>
#include <optional>

#include "episodes/episode_stream.h"
#include "kshot/episode.h"
#include "kshot/error.h"

#include <fmt/format.h>

namespace kshot {
namespace {

/// Largest |x - p| for which sine() keeps its accuracy.
constexpr double largest_angle = 8192.0;

/// sin(z) for |z| <= largest_angle within 1e-6 absolute. Plain multiplications and additions
/// without a branch: loops over it vectorise, and the bits do not hang on the C library. Cephes
/// sinf.
inline float sine(float z) {
  // q = round(z / (pi/2)) through the rounding of float addition; rest r = z - q pi/2, |r| <= pi/4
  const float q = (z * 0.636619772367581343f + 12582912.0f) - 12582912.0f;
  float r = z - q * 1.5703125f;  // pi/2 in three parts, q times the first two is exact
  r = r - q * 4.837512969970703125e-4f;
  r = r - q * 7.549789954891882e-8f;
  const float r2 = r * r;
  const float s =
      r + r * r2 * (-1.6666654611e-1f + r2 * (8.3321608736e-3f - r2 * 1.9515295891e-4f));
  const float c =
      1.0f - 0.5f * r2 +
      r2 * r2 *
          (4.166664568298827e-2f + r2 * (-1.388731625493765e-3f + r2 * 2.443315711809948e-5f));
  const int quadrant = static_cast<int>(q);
  const float value = (quadrant & 1) != 0 ? c : s;
  return (quadrant & 2) != 0 ? -value : value;
}

class Sinusoid final : public EpisodeSource {
 public:
  explicit Sinusoid(const SinusoidOptions& options) : options_(options) {
    if (options.support < 1 || options.query < 1) {
      throw Error("sinusoid: data.shots and data.queries must be at least 1");
    }
    const auto require_range = [](double low, double high, const char* what) {
      if (!std::isfinite(low) || !std::isfinite(high) || low > high) {
        throw Error(
            fmt::format("sinusoid: {0}_low = {1} and {0}_high = {2}: expected finite numbers, low "
                        "not above high",
                        what, low, high));
      }
    };
    require_range(options.amplitude_low, options.amplitude_high, "data.amplitude");
    require_range(options.phase_low, options.phase_high, "phase");
    require_range(options.x_low, options.x_high, "data.x");
    if (!(options.line_share >= 0.0 && options.line_share <= 1.0) || !(options.line_limit >= 0.0)) {
      throw Error("sinusoid: expected a share of lines from 0 to 1 and limits of at least 0");
    }
    if (!std::isfinite(options.noise_std) || options.noise_std < 0) {
      throw Error("sinusoid: data.noise_std must not be negative");
    }
    const double widest =
        std::max(std::abs(options.x_low - options.phase_high), std::abs(options.x_high)) +
        std::max(std::abs(options.phase_low), std::abs(options.phase_high));
    if (widest > largest_angle) {
      throw Error(fmt::format("sinusoid: data.x_low and data.x_high must lie within {} of 0",
                              largest_angle));
    }
  }

  TaskShape shape() const override {
    return {.input = {.channels = 1},
            .outputs = 1,
            .target = TargetKind::value,
            .support = options_.support,
            .query = options_.query};
  }

  void fill(const TaskId& id, const TaskSlot& slot) const override {
    RandomStream task = episode_stream(id, 0);
    const float amplitude = task.uniform(static_cast<float>(options_.amplitude_low),
                                         static_cast<float>(options_.amplitude_high));
    const float phase = task.uniform(static_cast<float>(options_.phase_low),
                                     static_cast<float>(options_.phase_high));
    std::optional<Line> line;
    if (options_.line_share > 0.0 && task.uniform() < static_cast<float>(options_.line_share)) {
      const auto limit = static_cast<float>(options_.line_limit);
      const float slope = task.uniform(-limit, limit);
      line = Line{slope, task.uniform(-limit, limit)};
    }
    // Streams of their own: the query set is the same for any number of shots, and more shots add
    // to the support set without changing what is there.
    draw_points(id, 1, amplitude, phase, line, slot.query_x, slot.query_value);
    draw_points(id, 2, amplitude, phase, line, slot.support_x, slot.support_value);
  }

  std::string describe() const override {
    const std::string lines = options_.line_share > 0.0
                                  ? fmt::format("lines (a share of {}) and ", options_.line_share)
                                  : "";
    return lines + fmt::format(
                       "sinusoids a sin(x - p), a in [{}, {}], x in [{}, {}], noise {}, {} support "
                       "and {} query "
                       "points",
                       options_.amplitude_low, options_.amplitude_high, options_.x_low,
                       options_.x_high, options_.noise_std, options_.support, options_.query);
  }

 private:
  struct Line {
    float slope, intercept;
  };

  void draw_points(const TaskId& id, std::uint32_t part, float amplitude, float phase,
                   const std::optional<Line>& line, std::span<float> xs,
                   std::span<float> ys) const {
    RandomStream stream = episode_stream(id, part);
    const float low = static_cast<float>(options_.x_low);
    const float high = static_cast<float>(options_.x_high);
    for (float& x : xs) x = stream.uniform(low, high);
    const float* __restrict x = xs.data();
    float* __restrict y = ys.data();
    const std::size_t n = xs.size();
    if (line) {
      for (std::size_t i = 0; i < n; ++i) y[i] = line->slope * x[i] + line->intercept;
    } else {
      for (std::size_t i = 0; i < n; ++i) y[i] = amplitude * sine(x[i] - phase);
    }
    if (options_.noise_std > 0) {
      RandomStream noise = episode_stream(id, part + 2);
      for (std::size_t i = 0; i < n; ++i) {
        y[i] += static_cast<float>(options_.noise_std) * noise.normal();
      }
    }
  }

  SinusoidOptions options_;
};

}  // namespace

std::unique_ptr<EpisodeSource> make_sinusoid(const SinusoidOptions& options) {
  return std::make_unique<Sinusoid>(options);
}

}  // namespace kshot
