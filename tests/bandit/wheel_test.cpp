// The wheel bandit: its environment and the meta-training episodes that are drawn from it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <set>

#include "episodes/wheel.h"
#include "kshot/bandit.h"
#include "support/error_text.h"

namespace kshot::bandit {
namespace {

using test::error_text;
using ::testing::HasSubstr;

/// One round of the wheel. Rewards and mean rewards are per arm.
struct WheelRound {
  std::array<float, 2> context{};
  std::array<double, 5> rewards{}, means{};
};
WheelRound draw_round(const Environment& wheel, std::uint64_t seed, int trial, std::uint64_t step) {
  WheelRound d;
  wheel.round(seed, trial, step, {d.context, d.rewards, d.means});
  return d;
}

TEST(Wheel, RewardsFollowTheDefinition) {
  const double delta = 0.7;
  const auto wheel = make_wheel({.delta = delta, .noise_std = 0.01});
  int inside = 0;
  double squares = 0.0, x = 0.0;
  constexpr int n = 20000;
  for (int i = 0; i < n; ++i) {
    const WheelRound d = draw_round(*wheel, 1, i % 7, static_cast<std::uint64_t>(i));
    const double r = std::hypot(d.context[0], d.context[1]);
    ASSERT_LE(r, 1.0 + 1e-6);
    inside += r <= delta;
    x += static_cast<double>(d.context[0]);
    // The quadrants are numbered as in docs/bandits.md.
    const int quadrant =
        d.context[0] >= 0 ? (d.context[1] >= 0 ? 0 : 1) : (d.context[1] >= 0 ? 2 : 3);
    for (int arm = 0; arm < 5; ++arm) {
      const auto a = static_cast<std::size_t>(arm);
      const double mean = arm == 4 ? 1.2 : (arm == quadrant && r > delta) ? 50.0 : 1.0;
      ASSERT_EQ(d.means[a], mean);
      squares += (d.rewards[a] - mean) * (d.rewards[a] - mean);
    }
  }
  // Contexts are uniform in the disc, so that a share delta^2 lies inside. The standard deviation
  // of the share is sqrt(p (1 - p) / n) = 0.0035.
  EXPECT_NEAR(static_cast<double>(inside) / n, delta * delta, 0.015);
  EXPECT_NEAR(x / n, 0.0, 0.015);
  EXPECT_NEAR(std::sqrt(squares / (5.0 * n)), 0.01, 2e-4);
}

TEST(Wheel, RoundsDependOnSeedTrialAndStepAlone) {
  const auto wheel = make_wheel({.delta = 0.5});
  const auto other = make_wheel({.delta = 0.9});
  const WheelRound d = draw_round(*wheel, 1, 2, 3);
  EXPECT_EQ(draw_round(*wheel, 1, 2, 3).rewards, d.rewards);
  EXPECT_EQ(draw_round(*other, 1, 2, 3).context, d.context);
  EXPECT_NE(draw_round(*wheel, 2, 2, 3).context, d.context);
  EXPECT_NE(draw_round(*wheel, 1, 1, 3).context, d.context);
  EXPECT_NE(draw_round(*wheel, 1, 2, 4).context, d.context);
}

TEST(Wheel, BadOptionsNameTheKey) {
  for (const double delta : {0.0, 1.0, -1.0, std::nan("")}) {
    EXPECT_THAT(error_text([&] { make_wheel({.delta = delta}); }), HasSubstr("delta"));
  }
  EXPECT_THAT(error_text([] { make_wheel({.delta = 0.5, .noise_std = -1}); }),
              HasSubstr("noise_std"));
}

/// The rows of one task.
struct Task {
  explicit Task(const EpisodeSource& source, const TaskId& id) : batch(source.shape(), 1) {
    batch.draw(source, id, id.task, 1);
  }
  TaskBatch batch;
};

TEST(WheelEpisodes, RowsAreContextArmAndStandardisedReward) {
  const auto source = make_wheel_source({.support = 400, .query = 50, .noise_std = 0.0});
  const RewardScale scale = wheel_reward_scale(0.0);
  const Task task(*source, {.seed = 3, .task = 4});
  ASSERT_EQ(task.batch.support_n[0], 400);
  ASSERT_EQ(task.batch.query_n[0], 50);
  // One delta explains all rows: beyond it, the arm of a quadrant pays 50 in its own quadrant.
  double largest_low = 0.0, smallest_high = 2.0;
  std::array<int, 5> pulls{};
  for (std::size_t row = 0; row < 400; ++row) {
    const float* x = task.batch.support_x.data() + row * wheel_inputs;
    int arm = -1;
    for (int a = 0; a < wheel_arms; ++a) {
      if (x[2 + a] == 1.0f) {
        ASSERT_EQ(arm, -1);
        arm = a;
      } else {
        ASSERT_EQ(x[2 + a], 0.0f);
      }
    }
    ASSERT_GE(arm, 0);
    ++pulls[static_cast<std::size_t>(arm)];
    const double reward =
        static_cast<double>(task.batch.support_value[row]) * scale.std + scale.mean;
    const double r = std::hypot(x[0], x[1]);
    const bool own = arm == wheel_quadrant(std::span(x, 2));
    if (arm == 4) {
      ASSERT_NEAR(reward, 1.2, 1e-5);
    } else if (!own) {
      ASSERT_NEAR(reward, 1.0, 1e-5);
    } else if (reward > 25.0) {
      ASSERT_NEAR(reward, 50.0, 1e-4);
      smallest_high = std::min(smallest_high, r);
    } else {
      ASSERT_NEAR(reward, 1.0, 1e-5);
      largest_low = std::max(largest_low, r);
    }
  }
  EXPECT_LT(largest_low, smallest_high);
  for (const int n : pulls) EXPECT_NEAR(n, 80, 40);  // 5 standard deviations
}

TEST(WheelEpisodes, TargetsAreStandardisedOverProblems) {
  const auto source = make_wheel_source({.support = 1, .query = 20, .noise_std = 0.05});
  double sum = 0.0, squares = 0.0;
  constexpr int tasks = 4000;
  for (std::uint32_t t = 0; t < tasks; ++t) {
    const Task task(*source, {.seed = 1, .split = Split::test, .task = t});
    for (const float y : task.batch.query_value) {
      sum += static_cast<double>(y);
      squares += static_cast<double>(y) * static_cast<double>(y);
    }
  }
  constexpr double n = 20.0 * tasks;
  // The rows of a task share its delta, so that the standard deviation is at most about 1 /
  // sqrt(tasks).
  EXPECT_NEAR(sum / n, 0.0, 0.05);
  EXPECT_NEAR(squares / n, 1.0, 0.12);
}

TEST(WheelEpisodes, AllArmsOfAContextAndProblemsThatReturn) {
  const auto source =
      make_wheel_source({.support = 6, .query = 2, .all_arms = true, .problems = 3});
  EXPECT_EQ(source->shape().support, 30);
  EXPECT_EQ(source->shape().query, 10);
  const Task task(*source, {.seed = 1});
  for (std::size_t row = 0; row < 30; ++row) {
    const float* x = task.batch.support_x.data() + row * wheel_inputs;
    EXPECT_EQ(x[2 + row % 5], 1.0f);
    EXPECT_EQ(x[0], task.batch.support_x[row / 5 * 5 * wheel_inputs]);
  }
  // With three problems and many rows, the tasks change their rewards at three radii.
  const auto many = make_wheel_source({.support = 3000, .query = 1, .noise_std = 0, .problems = 3});
  std::set<int> turns;
  for (std::uint32_t t = 0; t < 40; ++t) {
    const Task rows(*many, {.seed = 1, .step = t, .task = t});
    double low = 0.0;
    for (std::size_t row = 0; row < 3000; ++row) {
      const float* x = rows.batch.support_x.data() + row * wheel_inputs;
      const std::span<const float> context(x, 2);
      const bool own = x[2 + wheel_quadrant(context)] == 1.0f;
      if (own && rows.batch.support_value[row] < 0.0f) {
        low = std::max(low, std::hypot(static_cast<double>(x[0]), static_cast<double>(x[1])));
      }
    }
    turns.insert(static_cast<int>(std::lround(low * 12)));
  }
  // Each radius lies within a twelfth.
  EXPECT_LE(turns.size(), 6u);
  EXPECT_GE(turns.size(), 2u);
}

TEST(WheelEpisodes, BadOptionsNameTheKey) {
  EXPECT_THAT(error_text([] { make_wheel_source({.query = 0}); }), HasSubstr("data.queries"));
  EXPECT_THAT(error_text([] { make_wheel_source({.noise_std = std::nan("")}); }),
              HasSubstr("data.noise_std"));
  EXPECT_THAT(error_text([] { make_wheel_source({.problems = -1}); }), HasSubstr("data.problems"));
}

}  // namespace
}  // namespace kshot::bandit
