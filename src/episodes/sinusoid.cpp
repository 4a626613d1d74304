// Sinusoid regression (Finn et al. 2017, section 5.1): y = a sin(x - p).
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/episode_arithmetic.h"
#include "base/episode_recipe.h"
#include "base/episode_stream.h"
#include "base/text.h"
#include "episodes/draw_count.h"
#include "kshot/episode.h"
#include "kshot/error.h"

#include <fmt/format.h>

namespace kshot {
namespace {

class Sinusoid final : public EpisodeSource {
 public:
  explicit Sinusoid(const SinusoidOptions& options)
      : options_(options), ranges_(sinusoid_ranges(options)), recipe_{shape(), options} {
    if (options.support.least < 0 || options.query.least < 1) {
      throw Error("sinusoid: data.shots must be at least 0, data.queries at least 1");
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
    constexpr double largest = 1e30;  // keeps all points within the range of float
    for (const auto& [key, value] : {std::pair{"data.noise_std", options.noise_std},
                                     std::pair{"data.amplitude_low", options.amplitude_low},
                                     std::pair{"data.amplitude_high", options.amplitude_high},
                                     std::pair{"data.line_limit", options.line_limit}}) {
      if (std::abs(value) > largest) {
        throw Error(
            fmt::format("sinusoid: {} = {}: expected at most {} in size", key, value, largest));
      }
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
            .support = options_.support.most,
            .query = options_.query.most};
  }

  void fill(const TaskId& id, const TaskSlot& slot) const override {
    const SinusoidTask task = draw_sinusoid(ranges_, episode_stream(id, sinusoid_task));
    *slot.query_n = draw_count(id, queries_part, options_.query);
    *slot.support_n = draw_count(id, shots_part, options_.support);
    const auto query = static_cast<std::size_t>(*slot.query_n);
    const auto support = static_cast<std::size_t>(*slot.support_n);
    draw_points(id, sinusoid_query, task, slot.query_x.first(query), slot.query_value.first(query));
    draw_points(id, sinusoid_support, task, slot.support_x.first(support),
                slot.support_value.first(support));
  }

  /// Only sources with fixed numbers of points have a recipe, because all tasks of a recipe have
  /// equal sizes.
  const EpisodeRecipe* recipe() const override {
    return options_.support.fixed() && options_.query.fixed() ? &recipe_ : nullptr;
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
                       options_.x_high, options_.noise_std, count_text(options_.support),
                       count_text(options_.query));
  }

 private:
  void draw_points(const TaskId& id, std::uint32_t part, const SinusoidTask& task,
                   std::span<float> xs, std::span<float> ys) const {
    RandomStream stream = episode_stream(id, part);
    for (float& x : xs) x = stream.uniform(ranges_.x_low, ranges_.x_high);
    const float* __restrict x = xs.data();
    float* __restrict y = ys.data();
    const std::size_t n = xs.size();
    if (task.line) {
      for (std::size_t i = 0; i < n; ++i) y[i] = task.line_at(x[i]);
    } else {
      for (std::size_t i = 0; i < n; ++i) y[i] = task.wave_at(x[i]);
    }
    if (ranges_.noise_std > 0.0f) {
      RandomStream noise = episode_stream(id, part + sinusoid_noise);
      for (std::size_t i = 0; i < n; ++i)
        y[i] = product_sum(ranges_.noise_std, noise.normal(), y[i]);
    }
  }

  SinusoidOptions options_;
  SinusoidRanges ranges_;
  EpisodeRecipe recipe_;
};

}  // namespace

std::unique_ptr<EpisodeSource> make_sinusoid(const SinusoidOptions& options) {
  return std::make_unique<Sinusoid>(options);
}

}  // namespace kshot
