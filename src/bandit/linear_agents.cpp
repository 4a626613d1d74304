// Agents without a network: uniform, linear Thompson sampling and epsilon-greedy.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "bandit/bayes_regression.h"
#include "bandit/trial_agent.h"
#include "kshot/error.h"

namespace kshot::bandit {
namespace {

class Uniform final : public TrialAgent {
 public:
  std::string name() const override { return "uniform"; }

 private:
  void start() override {}
  int choose_one(std::size_t, std::span<const float>, RandomStream& stream) override {
    return static_cast<int>(stream.below(static_cast<std::uint32_t>(problem_.arms)));
  }
  void observe_one(std::size_t, std::span<const float>, int, double) override {}
};

/// An agent with a regression of the reward on [context, 1] per arm and trial.
class LinearAgent : public TrialAgent {
 public:
  LinearAgent(const RegressionPrior& prior, int initial_pulls)
      : prior_(prior), initial_pulls_(initial_pulls) {
    if (!(prior.shape >= 1.0) || !(prior.rate > 0.0) || !(prior.lambda > 0.0)) {
      throw Error(
          "linear regression: expected prior_shape of at least 1, prior_rate and lambda above 0");
    }
    if (initial_pulls < 0) throw Error("initial_pulls: expected at least 0");
  }
  int initial_pulls() const override { return initial_pulls_; }

 protected:
  struct Trial {
    std::vector<BayesRegression> arms;
    std::vector<float> row;       ///< [context, 1]
    std::vector<double> weights;  ///< memory for a draw of weights
  };

  void start() override {
    const auto width = static_cast<std::size_t>(problem_.context_size) + 1;
    Trial trial;
    trial.arms.assign(static_cast<std::size_t>(problem_.arms), BayesRegression(prior_, width));
    trial.row.assign(width, 1.0f);
    trial.weights.resize(width);
    trials_.assign(static_cast<std::size_t>(problem_.trials), trial);
  }
  /// The time of a factorization grows with the cube of the width.
  bool worth_threads_to_choose() const override { return problem_.context_size >= 32; }
  Trial& with_row(std::size_t trial, std::span<const float> context) {
    std::ranges::copy(context, trials_[trial].row.begin());
    return trials_[trial];
  }
  void observe_one(std::size_t trial, std::span<const float> context, int arm,
                   double reward) override {
    Trial& t = with_row(trial, context);
    t.arms[static_cast<std::size_t>(arm)].add(t.row, reward);
  }
  /// Returns the arm of the largest value, the first of equal ones.
  template <typename Value>
  static int best(Trial& t, Value value) {
    int chosen = 0;
    double largest = 0.0;
    for (std::size_t arm = 0; arm < t.arms.size(); ++arm) {
      const double v = value(t.arms[arm]);
      if (arm > 0 && v <= largest) continue;
      largest = v;
      chosen = static_cast<int>(arm);
    }
    return chosen;
  }

 private:
  RegressionPrior prior_;
  int initial_pulls_;
  std::vector<Trial> trials_;
};

class LinearThompson final : public LinearAgent {
 public:
  explicit LinearThompson(const LinearThompsonOptions& o)
      : LinearAgent({o.prior_shape, o.prior_rate, o.lambda}, o.initial_pulls) {}
  std::string name() const override { return "linear_ts"; }

 private:
  int choose_one(std::size_t trial, std::span<const float> context, RandomStream& stream) override {
    Trial& t = with_row(trial, context);
    return best(t, [&](BayesRegression& arm) {
      arm.sample(stream, t.weights);
      return product(t.weights, t.row);
    });
  }
};

class EpsilonGreedy final : public LinearAgent {
 public:
  explicit EpsilonGreedy(const EpsilonGreedyOptions& o)
      : LinearAgent({.lambda = o.lambda}, o.initial_pulls), epsilon_(o.epsilon) {
    if (!(o.epsilon >= 0.0 && o.epsilon <= 1.0)) {
      throw Error(fmt::format("epsilon: expected a number from 0 to 1, got {}", o.epsilon));
    }
  }
  std::string name() const override { return "epsilon_greedy"; }

 private:
  int choose_one(std::size_t trial, std::span<const float> context, RandomStream& stream) override {
    if (static_cast<double>(stream.uniform()) < epsilon_) {
      return static_cast<int>(stream.below(static_cast<std::uint32_t>(problem_.arms)));
    }
    Trial& t = with_row(trial, context);
    return best(t, [&](BayesRegression& arm) { return product(arm.mean(), t.row); });
  }

  double epsilon_;
};

}  // namespace

std::unique_ptr<Agent> make_uniform() {
  return std::make_unique<Uniform>();
}
std::unique_ptr<Agent> make_linear_thompson(const LinearThompsonOptions& options) {
  return std::make_unique<LinearThompson>(options);
}
std::unique_ptr<Agent> make_epsilon_greedy(const EpsilonGreedyOptions& options) {
  return std::make_unique<EpsilonGreedy>(options);
}

}  // namespace kshot::bandit
