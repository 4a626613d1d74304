// The environments of Riquelme, Tucker and Snoek (2018): the wheel, and labelled tables.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "episodes/wheel.h"
#include "kshot/bandit.h"
#include "kshot/error.h"
#include "kshot/random.h"

namespace kshot::bandit {
namespace {

/// The streams of an environment. The agents' streams have another Purpose.
enum Part : std::uint32_t { context_part = 0, order_part = 1 };

RandomStream stream_of(std::uint64_t seed, int trial, std::uint64_t step, Part part) {
  return RandomStream({.seed = seed,
                       .purpose = Purpose::episode,
                       .step = step,
                       .task = static_cast<std::uint32_t>(trial),
                       .inner_step = 1,  // keeps the stream apart from the episodes of trainings
                       .sample = part});
}

class Wheel final : public Environment {
 public:
  explicit Wheel(const WheelOptions& options) : options_(options) {
    if (!(options.delta > 0.0 && options.delta < 1.0)) {
      throw Error(
          fmt::format("wheel: delta = {}: expected a number between 0 and 1", options.delta));
    }
    if (!(options.noise_std >= 0.0 && options.noise_std < 1e6)) {
      throw Error(
          fmt::format("wheel: noise_std = {}: expected a number of at least 0", options.noise_std));
    }
  }
  std::string name() const override { return fmt::format("wheel, delta {}", options_.delta); }
  int context_size() const override { return wheel_context; }
  int arms() const override { return wheel_arms; }
  void round(std::uint64_t seed, int trial, std::uint64_t step, const Round& r) const override {
    RandomStream stream = stream_of(seed, trial, step, context_part);
    draw_wheel_context(stream, r.context);
    for (int arm = 0; arm < wheel_arms; ++arm) {
      const auto i = static_cast<std::size_t>(arm);
      r.means[i] = wheel_mean(r.context, arm, options_.delta);
      r.rewards[i] = r.means[i] + options_.noise_std * static_cast<double>(stream.normal());
    }
  }

 private:
  WheelOptions options_;
};

class TableEnvironment final : public Environment {
 public:
  explicit TableEnvironment(TableOptions options) : options_(std::move(options)) {
    const auto width = static_cast<std::size_t>(std::max(1, options_.context_size));
    if (options_.labels.empty() || options_.contexts.size() != options_.labels.size() * width ||
        options_.context_size < 1) {
      throw Error(fmt::format("{}: {} numbers and {} labels, expected {} numbers per label",
                              options_.name, options_.contexts.size(), options_.labels.size(),
                              options_.context_size));
    }
    const auto [least, most] = std::ranges::minmax(options_.labels);
    if (least < 0 || most > (options_.mushroom ? 1 : 1 << 16)) {
      throw Error(fmt::format("{}: labels {} to {}, expected {}", options_.name, least, most,
                              options_.mushroom ? "0 (edible) and 1 (poisonous)" : "0, 1, ..."));
    }
    if (!std::ranges::all_of(options_.contexts, [](float x) { return std::isfinite(x); })) {
      throw Error(fmt::format("{}: expected finite numbers", options_.name));
    }
    arms_ = options_.mushroom ? 2 : most + 1;
    if (arms_ < 2) throw Error(fmt::format("{}: expected at least 2 classes", options_.name));
  }
  std::string name() const override { return options_.name; }
  int context_size() const override { return options_.context_size; }
  int arms() const override { return arms_; }
  void round(std::uint64_t seed, int trial, std::uint64_t step, const Round& r) const override {
    const std::size_t row = row_of(seed, trial, step);
    const auto width = static_cast<std::size_t>(options_.context_size);
    std::ranges::copy(std::span(options_.contexts).subspan(row * width, width), r.context.begin());
    const int label = options_.labels[row];
    if (!options_.mushroom) {
      for (std::size_t arm = 0; arm < r.means.size(); ++arm) {
        r.means[arm] = arm == static_cast<std::size_t>(label) ? 1.0 : 0.0;
        r.rewards[arm] = r.means[arm];
      }
      return;
    }
    const bool lucky = stream_of(seed, trial, step, context_part).word() % 2 == 0;
    r.means[0] = r.rewards[0] = 0.0;
    r.means[1] = label == 1 ? 0.5 * (good - bad) : good;
    r.rewards[1] = label == 1 && !lucky ? -bad : good;
  }

 private:
  static constexpr double good = 5.0, bad = 35.0;

  /// Returns the row of a round. Every trial has its own order of the rows, and after all rows
  /// another order follows. The order is a permutation by a Feistel network over [0, 2^bits), which
  /// is applied again until the result is a row. So no list of rows per trial is needed.
  std::size_t row_of(std::uint64_t seed, int trial, std::uint64_t step) const {
    const std::uint64_t rows = options_.labels.size();
    const std::uint64_t pass = step / rows;
    int half = 1;
    while ((std::uint64_t{1} << (2 * half)) < rows) ++half;
    const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
    std::uint64_t at = step % rows;
    do {
      std::uint64_t left = at >> half, right = at & mask;
      for (std::uint32_t turn = 0; turn < 6; ++turn) {
        const RandomKey key{.seed = seed,
                            .purpose = Purpose::episode,
                            .step = pass,
                            .task = static_cast<std::uint32_t>(trial),
                            .inner_step = 1 + turn,
                            .sample = order_part};
        const std::uint64_t mixed =
            left ^ philox4x32(key.counter(static_cast<std::uint32_t>(right)), key.key())[0];
        left = right;
        right = mixed & mask;
      }
      at = (left << half) | right;
    } while (at >= rows);
    return static_cast<std::size_t>(at);
  }

  TableOptions options_;
  int arms_ = 0;
};

}  // namespace

std::unique_ptr<Environment> make_wheel(const WheelOptions& options) {
  return std::make_unique<Wheel>(options);
}
std::unique_ptr<Environment> make_table(TableOptions options) {
  return std::make_unique<TableEnvironment>(std::move(options));
}

}  // namespace kshot::bandit
