#include "episodes/wheel.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

#include "base/episode_stream.h"
#include "base/text.h"
#include "episodes/draw_count.h"
#include "kshot/error.h"

namespace kshot {
namespace {

/// Parts of a task's random stream (base/episode_stream.h). Support and query rows have separate
/// streams, so that the query rows are the same for any number of support rows.
enum WheelPart : std::uint32_t { wheel_problem = 0, wheel_support = 1, wheel_query = 2 };

/// The step from whose task streams the training problems are drawn. No step of a training has this
/// number.
constexpr std::uint64_t problem_step = (std::uint64_t{1} << 60) - 1;

double squared_radius(std::span<const float> x) {
  const double a = x[0], b = x[1];
  return a * a + b * b;
}

class WheelSource final : public EpisodeSource {
 public:
  explicit WheelSource(const WheelEpisodes& options)
      : options_(options),
        rows_per_context_(options.all_arms ? wheel_arms : 1),
        scale_(wheel_reward_scale(options.noise_std)) {
    if (options.support.least < 0 || options.query.least < 1) {
      throw Error("wheel: data.shots must be at least 0, data.queries at least 1");
    }
    constexpr double largest = 1e6;
    if (!(options.noise_std >= 0.0 && options.noise_std <= largest)) {
      throw Error(fmt::format("wheel: data.noise_std = {}: expected a number from 0 to {}",
                              options.noise_std, largest));
    }
    if (options.problems < 0) throw Error("wheel: data.problems must be at least 0");
  }

  TaskShape shape() const override {
    return {.input = {.channels = wheel_inputs},
            .outputs = 1,
            .target = TargetKind::value,
            .support = options_.support.most * rows_per_context_,
            .query = options_.query.most * rows_per_context_};
  }

  void fill(const TaskId& id, const TaskSlot& slot) const override {
    const double delta = delta_of(id);
    *slot.support_n = draw_count(id, shots_part, options_.support) * rows_per_context_;
    *slot.query_n = draw_count(id, queries_part, options_.query) * rows_per_context_;
    draw_rows(id, wheel_support, delta, *slot.support_n, slot.support_x, slot.support_value);
    draw_rows(id, wheel_query, delta, *slot.query_n, slot.query_x, slot.query_value);
  }

  std::string describe() const override {
    const std::string rows =
        options_.all_arms ? "contexts with the rewards of all arms" : "rows of one arm each";
    const std::string problems =
        options_.problems > 0 ? fmt::format(", {} training problems", options_.problems) : "";
    return fmt::format("wheel bandits, delta in (0, 1), noise {}, {} support and {} query {}{}",
                       options_.noise_std, count_text(options_.support), count_text(options_.query),
                       rows, problems);
  }

 private:
  double delta_of(TaskId id) const {
    if (id.split == Split::train && options_.problems > 0) {
      const std::uint32_t problem =
          episode_stream(id, wheel_problem).below(static_cast<std::uint32_t>(options_.problems));
      id = {.seed = id.seed, .split = Split::train, .step = problem_step, .task = problem};
    }
    // The result is strictly between 0 and 1.
    return (episode_stream(id, wheel_problem).uniform() + 0x1p-25) / (1.0 + 0x1p-24);
  }

  void draw_rows(const TaskId& id, std::uint32_t part, double delta, int rows, std::span<float> x,
                 std::span<float> y) const {
    RandomStream stream = episode_stream(id, part);
    float context[wheel_context];
    for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
      int arm = static_cast<int>(row) % wheel_arms;
      if (!options_.all_arms || arm == 0) draw_wheel_context(stream, context);
      if (!options_.all_arms) arm = static_cast<int>(stream.below(wheel_arms));
      write_arm_inputs(context, arm, wheel_arms, x.subspan(row * wheel_inputs, wheel_inputs));
      const double noise = options_.noise_std * static_cast<double>(stream.normal());
      y[row] = scale_.standardised(wheel_mean(context, arm, delta) + noise);
    }
  }

  WheelEpisodes options_;
  int rows_per_context_;
  RewardScale scale_;
};

}  // namespace

void draw_wheel_context(RandomStream& stream, std::span<float> x) {
  do {
    x[0] = stream.uniform(-1.0f, 1.0f);
    x[1] = stream.uniform(-1.0f, 1.0f);
  } while (squared_radius(x) > 1.0);
}

int wheel_quadrant(std::span<const float> x) {
  return (x[0] < 0.0f ? 2 : 0) + (x[1] < 0.0f ? 1 : 0);
}

double wheel_mean(std::span<const float> x, int arm, double delta) {
  if (arm == wheel_safe_arm) return wheel_safe_mean;
  const bool outside = squared_radius(x) > delta * delta;
  return outside && arm == wheel_quadrant(x) ? wheel_outer_mean : wheel_inner_mean;
}

RewardScale wheel_reward_scale(double noise_std) {
  // A context lies outside with probability 1 - delta^2, whose mean over delta is 2/3. One arm in
  // five then has the high reward.
  constexpr double high = (2.0 / 3.0) / wheel_arms, safe = 1.0 / wheel_arms;
  constexpr double low = 1.0 - high - safe;
  RewardScale scale;
  scale.mean = high * wheel_outer_mean + safe * wheel_safe_mean + low * wheel_inner_mean;
  const auto squared = [&](double mean) { return (mean - scale.mean) * (mean - scale.mean); };
  scale.std = std::sqrt(high * squared(wheel_outer_mean) + safe * squared(wheel_safe_mean) +
                        low * squared(wheel_inner_mean) + noise_std * noise_std);
  return scale;
}

void write_arm_inputs(std::span<const float> context, int arm, int arms, std::span<float> inputs) {
  const auto one_hot = inputs.subspan(context.size(), static_cast<std::size_t>(arms));
  std::ranges::copy(context, inputs.begin());
  std::ranges::fill(one_hot, 0.0f);
  one_hot[static_cast<std::size_t>(arm)] = 1.0f;
}

std::unique_ptr<EpisodeSource> make_wheel_source(const WheelEpisodes& options) {
  return std::make_unique<WheelSource>(options);
}

}  // namespace kshot
