// Bandit agents against closed forms, the play of trials, and environments from tables.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <set>

#include "bandit/bayes_regression.h"
#include "kshot/bandit.h"
#include "support/error_text.h"

namespace kshot::bandit {
namespace {

using test::error_text;
using ::testing::Each;
using ::testing::HasSubstr;

// ---- Bayesian linear regression ----

TEST(BayesRegression, OneInputHasItsClosedForm) {
  BayesRegression regression({.shape = 6, .rate = 6, .lambda = 0.25}, 1);
  const float x[] = {1.0f, 2.0f, -1.5f};
  const double y[] = {2.0, 3.5, -4.0};
  double xx = 0.25, xy = 0.0, yy = 0.0;
  for (int i = 0; i < 3; ++i) {
    regression.add(std::span(x + i, 1), y[i]);
    xx += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    xy += static_cast<double>(x[i]) * y[i];
    yy += y[i] * y[i];
  }
  EXPECT_NEAR(regression.mean()[0], xy / xx, 1e-12);
  EXPECT_NEAR(regression.shape(), 7.5, 1e-12);
  EXPECT_NEAR(regression.rate(), 6.0 + 0.5 * (yy - xy * xy / xx), 1e-12);
  regression.clear();
  EXPECT_EQ(regression.mean()[0], 0.0);
  EXPECT_EQ(regression.rate(), 6.0);
}

TEST(BayesRegression, SamplesHaveThePosteriorsMoments) {
  BayesRegression regression({.shape = 6, .rate = 6, .lambda = 0.25}, 2);
  const std::array<float, 2> rows[] = {{1.0f, 1.0f}, {2.0f, 1.0f}, {-1.0f, 1.0f}, {0.5f, 1.0f}};
  const double y[] = {1.0, 2.5, -2.0, 0.7};
  double a = 0.25, b = 0.0, c = 0.25;
  for (int i = 0; i < 4; ++i) {
    regression.add(rows[i], y[i]);
    a += static_cast<double>(rows[i][0]) * static_cast<double>(rows[i][0]);
    b += static_cast<double>(rows[i][0]);
    c += 1.0;
  }
  // The weights have a Student t distribution with covariance b / (a - 1) L^-1.
  const double scale = regression.rate() / (regression.shape() - 1.0) / (a * c - b * b);
  RandomStream stream({.seed = 1});
  constexpr int n = 200000;
  double mean[2] = {}, squares[3] = {};
  std::array<double, 2> w{};
  for (int i = 0; i < n; ++i) {
    regression.sample(stream, w);
    const double d0 = w[0] - regression.mean()[0], d1 = w[1] - regression.mean()[1];
    mean[0] += d0 / n;
    mean[1] += d1 / n;
    squares[0] += d0 * d0 / n;
    squares[1] += d0 * d1 / n;
    squares[2] += d1 * d1 / n;
  }
  // The standard deviation of an estimated mean is sqrt(variance / n). The relative one of an
  // estimated variance is about sqrt(2 / n).
  EXPECT_NEAR(mean[0], 0.0, 5 * std::sqrt(scale * c / n));
  EXPECT_NEAR(mean[1], 0.0, 5 * std::sqrt(scale * a / n));
  EXPECT_NEAR(squares[0], scale * c, 0.03 * scale * c);
  EXPECT_NEAR(squares[1], -scale * b, 0.03 * scale * std::sqrt(a * c));
  EXPECT_NEAR(squares[2], scale * a, 0.03 * scale * a);
}

TEST(GammaDraw, HasMeanAndVarianceOfItsShape) {
  RandomStream stream({.seed = 2});
  for (const double shape : {1.0, 6.0, 40.0}) {
    constexpr int n = 100000;
    double sum = 0.0, squares = 0.0;
    for (int i = 0; i < n; ++i) {
      const double g = gamma_draw(stream, shape);
      ASSERT_GT(g, 0.0);
      sum += g / n;
      squares += g * g / n;
    }
    EXPECT_NEAR(sum, shape, 5 * std::sqrt(shape / n));
    EXPECT_NEAR(squares - sum * sum, shape, 0.05 * shape + 0.02);
  }
}

// ---- playing ----

/// An environment with two arms. Arm 0 pays x and arm 1 pays -x, where x = +-1 alternates from step
/// to step.
class Sign final : public Environment {
 public:
  std::string name() const override { return "sign"; }
  int context_size() const override { return 1; }
  int arms() const override { return 2; }
  void round(std::uint64_t, int trial, std::uint64_t step, const Round& r) const override {
    const float x = (step + static_cast<std::uint64_t>(trial)) % 2 == 0 ? 1.0f : -1.0f;
    r.context[0] = x;
    r.means[0] = r.rewards[0] = static_cast<double>(x);
    r.means[1] = r.rewards[1] = -static_cast<double>(x);
  }
};

/// An agent that always takes the same arm and records its inputs.
class Constant final : public Agent {
 public:
  explicit Constant(int arm, int ahead = 1, int pulls = 0)
      : arm_(arm), ahead_(ahead), pulls_(pulls) {}
  std::string name() const override { return "constant"; }
  void begin(const Problem&) override { calls = 0; }
  int rounds_ahead(std::uint64_t) const override { return ahead_; }
  int initial_pulls() const override { return pulls_; }
  void choose(const Rounds& rounds, std::span<int> arms) override {
    ++calls;
    std::ranges::fill(arms, arm_);
    for (int t = 0; t < rounds.trials; ++t) {
      for (int i = 0; i < rounds.count; ++i) contexts.insert(rounds.context(t, i)[0]);
    }
  }
  void observe(const Rounds& rounds, std::span<const int>, std::span<const double> r) override {
    seen += rounds.count;
    rewards.insert(rewards.end(), r.begin(), r.end());
  }
  int calls = 0, seen = 0;
  std::set<float> contexts;
  std::vector<double> rewards;

 private:
  int arm_, ahead_, pulls_;
};

TEST(Play, RegretIsTheDistanceToTheBestMean) {
  Constant agent(0, 7);
  const Result r = play(Sign(), agent, {.trials = 3, .steps = 100, .last_steps = 10, .threads = 1});
  // Half of the rounds cost 2.
  EXPECT_THAT(r.cumulative, Each(100.0));
  EXPECT_THAT(r.simple, Each(1.0));
  EXPECT_EQ(agent.calls, 15);  // 14 calls with 7 rounds and one with 2
  EXPECT_EQ(agent.seen, 100);
  EXPECT_EQ(agent.rewards.size(), 300u);
  EXPECT_EQ(agent.contexts, (std::set<float>{-1.0f, 1.0f}));
  ASSERT_EQ(r.curve_steps.back(), 100u);
  EXPECT_EQ(r.curve.back(), 100.0);
  EXPECT_EQ(r.curve.size(), 100u);
}

TEST(Play, InitialPullsGoRoundTheArms) {
  Constant agent(1, 50, 3);
  const Result r = play(Sign(), agent, {.trials = 1, .steps = 6, .threads = 1});
  EXPECT_EQ(agent.calls, 0);  // All six rounds are initial pulls.
  // The arms are 0, 1, 0, ... and x is 1, -1, ..., so that the arm is always the best one.
  EXPECT_THAT(r.cumulative, Each(0.0));
  EXPECT_EQ(r.initial_pulls, 3);
}

TEST(Play, RefusesWhatIsOutOfRange) {
  Constant bad(2), good(0);
  EXPECT_THAT(error_text([&] { play(Sign(), bad, {.threads = 1}); }),
              HasSubstr("chose arm 2 in step 0, expected 0 to 1"));
  EXPECT_THAT(error_text([&] { play(Sign(), good, {.trials = 0}); }), HasSubstr("trials"));
  EXPECT_THAT(error_text([&] { play(Sign(), good, {.steps = 0}); }), HasSubstr("steps"));
}

TEST(Agents, UniformPaysTheMeanRegret) {
  const auto wheel = make_wheel({.delta = 0.5});
  const auto uniform = make_uniform();
  const Result r = play(*wheel, *uniform, {.trials = 40, .steps = 2000, .threads = 2});
  // The expected cost per round is (0 + 3 49 + 48.8) / 5 outside, which has probability 3/4, and 4
  // 0.2 / 5 inside.
  const double expected = 2000 * (0.75 * (3 * 49.0 + 48.8) / 5 + 0.25 * 0.16);
  const double mean = std::accumulate(r.cumulative.begin(), r.cumulative.end(), 0.0) / 40;
  EXPECT_NEAR(mean, expected, 0.01 * expected);  // five standard deviations of the mean
}

TEST(Agents, LinearOnesSolveALinearProblem) {
  const auto thompson = make_linear_thompson({});
  const auto epsilon = make_epsilon_greedy({.epsilon = 0.1});
  const PlayOptions options{.trials = 20, .steps = 2000, .last_steps = 500, .threads = 2};
  const Result a = play(Sign(), *thompson, options);
  const Result b = play(Sign(), *epsilon, options);
  for (std::size_t t = 0; t < 20; ++t) {
    EXPECT_LT(a.simple[t], 0.05) << t;
    // One round of ten is random, and half of these cost 2.
    EXPECT_NEAR(b.simple[t], 0.1, 0.1) << t;
  }
}

TEST(Agents, TrialsAreTheSameForAnyNumberOfThreadsAndOthers) {
  const auto wheel = make_wheel({.delta = 0.7});
  for (const auto& agent : {make_uniform(), make_linear_thompson({}), make_epsilon_greedy({}),
                            make_neural_linear({.hidden = {8}, .minibatches = 5})}) {
    const Result one = play(*wheel, *agent, {.trials = 4, .steps = 130, .threads = 1});
    const Result two = play(*wheel, *agent, {.trials = 4, .steps = 130, .threads = 2});
    const Result more = play(*wheel, *agent, {.trials = 6, .steps = 130, .threads = 2});
    EXPECT_EQ(one.cumulative, two.cumulative) << agent->name();
    EXPECT_TRUE(std::equal(one.cumulative.begin(), one.cumulative.end(), more.cumulative.begin()))
        << agent->name();
    EXPECT_NE(one.cumulative[0], one.cumulative[1]) << agent->name();
  }
}

/// An environment in which arm 0 pays |x| and arm 1 pays 1 - |x|, with x uniform in [-1, 1]. No
/// linear model separates the arms.
class Fold final : public Environment {
 public:
  std::string name() const override { return "fold"; }
  int context_size() const override { return 1; }
  int arms() const override { return 2; }
  void round(std::uint64_t seed, int trial, std::uint64_t step, const Round& r) const override {
    RandomStream stream({.seed = seed, .step = step, .task = static_cast<std::uint32_t>(trial)});
    r.context[0] = stream.uniform(-1.0f, 1.0f);
    r.means[0] = r.rewards[0] = std::abs(static_cast<double>(r.context[0]));
    r.means[1] = r.rewards[1] = 1.0 - r.means[0];
  }
};

TEST(Agents, NeuralLinearLearnsWhatLinesCannot) {
  const auto neural = make_neural_linear({.hidden = {20}, .prior_shape = 6, .prior_rate = 0.1});
  const auto linear = make_linear_thompson({.prior_rate = 0.1});
  const PlayOptions options{.trials = 6, .steps = 1500, .last_steps = 500, .threads = 2};
  const auto mean = [](const std::vector<double>& v) {
    return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
  };
  // Random arms cost 1/4 per round.
  EXPECT_LT(mean(play(Fold(), *neural, options).simple), 0.06);
  EXPECT_GT(mean(play(Fold(), *linear, options).simple), 0.15);
}

TEST(Agents, BadOptionsAreRefused) {
  EXPECT_THAT(error_text([] { make_linear_thompson({.lambda = 0.0}); }), HasSubstr("lambda"));
  EXPECT_THAT(error_text([] { make_epsilon_greedy({.epsilon = 1.5}); }), HasSubstr("epsilon"));
  EXPECT_THAT(error_text([] { make_neural_linear({.hidden = {}}); }), HasSubstr("hidden"));
}

// ---- tables ----

TableOptions rows(bool mushroom) {
  TableOptions o;
  o.name = "table";
  o.context_size = 1;
  o.mushroom = mushroom;
  for (int i = 0; i < 10; ++i) {
    o.contexts.push_back(static_cast<float>(i));
    o.labels.push_back(mushroom ? i % 2 : i % 3);
  }
  return o;
}

TEST(Tables, EveryRowComesOnceBeforeAnyReturns) {
  const auto table = make_table(rows(false));
  EXPECT_EQ(table->arms(), 3);
  float x = 0.0f;
  std::array<double, 3> rewards{}, means{};
  for (const int trial : {0, 5}) {
    for (std::uint64_t pass = 0; pass < 3; ++pass) {
      std::set<float> seen;
      for (std::uint64_t step = 0; step < 10; ++step) {
        table->round(1, trial, 10 * pass + step, {std::span(&x, 1), rewards, means});
        seen.insert(x);
        const auto label = static_cast<std::size_t>(static_cast<int>(x) % 3);
        for (std::size_t arm = 0; arm < 3; ++arm) EXPECT_EQ(rewards[arm], arm == label ? 1 : 0);
        EXPECT_EQ(rewards, means);
      }
      EXPECT_EQ(seen.size(), 10u);
    }
  }
}

TEST(Tables, APoisonousMushroomIsAGamble) {
  const auto table = make_table(rows(true));
  float x = 0.0f;
  std::array<double, 2> rewards{}, means{};
  int good = 0, poisonous = 0;
  for (std::uint64_t step = 0; step < 4000; ++step) {
    table->round(1, 0, step, {std::span(&x, 1), rewards, means});
    EXPECT_EQ(rewards[0], 0.0);
    if (static_cast<int>(x) % 2 == 0) {
      EXPECT_EQ(rewards[1], 5.0);
      EXPECT_EQ(means[1], 5.0);
    } else {
      EXPECT_EQ(means[1], -15.0);
      EXPECT_TRUE(rewards[1] == 5.0 || rewards[1] == -35.0);
      ++poisonous;
      good += rewards[1] == 5.0;
    }
  }
  EXPECT_EQ(poisonous, 2000);
  EXPECT_NEAR(good, 1000, 112);  // five standard deviations
}

TEST(Tables, WhatDoesNotFitIsRefused) {
  TableOptions o = rows(true);
  o.labels[3] = 2;
  EXPECT_THAT(error_text([&] { make_table(o); }), HasSubstr("edible"));
  o = rows(false);
  o.contexts.pop_back();
  EXPECT_THAT(error_text([&] { make_table(o); }), HasSubstr("9 numbers and 10 labels"));
}

}  // namespace
}  // namespace kshot::bandit
