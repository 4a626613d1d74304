// Base class of agents whose trials are independent of each other. A subclass says what it does for
// one trial. Trials run on all threads where a round takes longer than to wake the threads.
#pragma once

#include <algorithm>
#include <memory>

#include "base/thread_pool.h"
#include "kshot/bandit.h"
#include "kshot/random.h"

namespace kshot::bandit {

/// An agent with independent trials.
class TrialAgent : public Agent {
 public:
  void begin(const Problem& problem) override {
    problem_ = problem;
    start();
    pool_ = std::make_unique<ThreadPool>(std::min(problem.threads, problem.trials));
  }
  void choose(const Rounds& rounds, std::span<int> arms) override {
    for_each_trial(rounds.trials, worth_threads_to_choose(), [&](std::size_t trial) {
      const int t = static_cast<int>(trial);
      for (int i = 0; i < rounds.count; ++i) {
        RandomStream stream({.seed = problem_.seed,
                             .purpose = Purpose::user,
                             .step = rounds.first + static_cast<std::uint64_t>(i),
                             .task = number(trial)});
        arms[rounds.index(t, i)] = choose_one(trial, rounds.context(t, i), stream);
      }
    });
  }
  void observe(const Rounds& rounds, std::span<const int> arms,
               std::span<const double> rewards) override {
    for_each_trial(rounds.trials, worth_threads_to_observe(rounds.first), [&](std::size_t trial) {
      const int t = static_cast<int>(trial);
      for (int i = 0; i < rounds.count; ++i) {
        const std::size_t at = rounds.index(t, i);
        observe_one(trial, rounds.context(t, i), arms[at], rewards[at]);
      }
    });
  }

 protected:
  /// Makes the state of every trial. problem_ is set before this call.
  virtual void start() = 0;
  /// True if choosing for all trials takes much longer than the tens of microseconds that threads
  /// need to begin and end; worth_threads_to_observe says this of observing.
  virtual bool worth_threads_to_choose() const { return false; }
  virtual bool worth_threads_to_observe(std::uint64_t /*step*/) const { return false; }
  /// Returns the arm for one round of a trial. `stream` belongs to this trial and round.
  virtual int choose_one(std::size_t trial, std::span<const float> context,
                         RandomStream& stream) = 0;
  virtual void observe_one(std::size_t trial, std::span<const float> context, int arm,
                           double reward) = 0;

  /// Returns the number of a trial among the trials of all processes, for its random numbers.
  std::uint32_t number(std::size_t trial) const {
    return static_cast<std::uint32_t>(problem_.first_trial) + static_cast<std::uint32_t>(trial);
  }

  Problem problem_;

 private:
  template <typename Act>
  void for_each_trial(int trials, bool threads, const Act& act) {
    const auto n = static_cast<std::size_t>(trials);
    if (threads) return pool_->run(n, [&](std::size_t, std::size_t trial) { act(trial); });
    for (std::size_t trial = 0; trial < n; ++trial) act(trial);
  }

  std::unique_ptr<ThreadPool> pool_;
};

}  // namespace kshot::bandit
