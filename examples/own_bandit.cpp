// Defines a contextual bandit and an agent, and plays the agent beside two agents of the library.
#include <cstdio>
#include <numeric>
#include <vector>

#include "kshot/bandit.h"
#include "kshot/random.h"

using namespace kshot;

/// Two arms. One pays the context, which is uniform in [-1, 1]. The other one pays 0.2.
struct Threshold final : bandit::Environment {
  std::string name() const override { return "threshold"; }
  int context_size() const override { return 1; }
  int arms() const override { return 2; }
  // All numbers follow from the seed, the trial and the step, so that every agent sees the same
  // rounds.
  void round(std::uint64_t seed, int trial, std::uint64_t step,
             const bandit::Round& r) const override {
    RandomStream random({.seed = seed, .step = step, .task = static_cast<std::uint32_t>(trial)});
    r.context[0] = random.uniform(-1.0f, 1.0f);
    r.means[0] = static_cast<double>(r.context[0]);
    r.means[1] = 0.2;
    for (std::size_t arm = 0; arm < 2; ++arm) {
      r.rewards[arm] = r.means[arm] + 0.1 * static_cast<double>(random.normal());
    }
  }
};

/// Plays the arm with the largest mean reward so far. It ignores the context.
class MeanReward final : public bandit::Agent {
 public:
  std::string name() const override { return "mean reward"; }
  // The number of pulls of every arm before `choose` is called.
  int initial_pulls() const override { return 5; }
  void begin(const bandit::Problem& problem) override {
    const auto trials = static_cast<std::size_t>(problem.trials);
    arms_ = static_cast<std::size_t>(problem.arms);
    sums_.assign(trials * arms_, 0.0);
    pulls_.assign(trials * arms_, 0.0);
  }
  void choose(const bandit::Rounds&, std::span<int> arms) override {
    for (std::size_t t = 0; t < arms.size(); ++t) {  // `t` is the trial
      for (std::size_t a = 0; a < arms_; ++a) {
        if (mean(t, a) > mean(t, static_cast<std::size_t>(arms[t]))) arms[t] = static_cast<int>(a);
      }
    }
  }
  void observe(const bandit::Rounds&, std::span<const int> arms,
               std::span<const double> rewards) override {
    for (std::size_t t = 0; t < arms.size(); ++t) {
      sums_[t * arms_ + static_cast<std::size_t>(arms[t])] += rewards[t];
      pulls_[t * arms_ + static_cast<std::size_t>(arms[t])] += 1.0;
    }
  }

 private:
  double mean(std::size_t t, std::size_t a) const {
    return sums_[t * arms_ + a] / pulls_[t * arms_ + a];
  }
  std::size_t arms_ = 0;
  std::vector<double> sums_, pulls_;
};

int main() {
  const Threshold threshold;
  MeanReward own;
  const auto uniform = bandit::make_uniform(), linear = bandit::make_linear_thompson({});
  for (bandit::Agent* agent : {static_cast<bandit::Agent*>(&own), uniform.get(), linear.get()}) {
    const bandit::Result r = bandit::play(threshold, *agent, {.trials = 20, .steps = 1000});
    const double regret = std::accumulate(r.cumulative.begin(), r.cumulative.end(), 0.0) / 20;
    std::printf("%-12s regret %6.1f in 1000 rounds\n", r.agent.c_str(), regret);
  }
}
