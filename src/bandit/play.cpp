#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "kshot/bandit.h"
#include "kshot/error.h"
#include "kshot/stop.h"

namespace kshot::bandit {
namespace {

/// Points of a regret curve, spread evenly.
constexpr std::uint64_t curve_points = 200;

void check(const Environment& environment, const PlayOptions& options) {
  if (environment.arms() < 2 || environment.context_size() < 1) {
    throw Error(fmt::format("{}: expected at least 2 arms and a context", environment.name()));
  }
  if (options.trials < 1 || options.trials > 1 << 20) {
    throw Error(fmt::format("trials: expected 1 to {}, got {}", 1 << 20, options.trials));
  }
  if (options.steps < 1 || options.steps > std::uint64_t{1} << 32) {
    throw Error(fmt::format("steps: expected 1 to 2^32, got {}", options.steps));
  }
  if (options.last_steps < 1) throw Error("last_steps: expected at least 1, got 0");
}

/// The rounds that an agent decides in one call, with what every arm would pay.
struct Batch {
  Rounds rounds;
  std::vector<float> contexts;
  std::vector<double> rewards, means;  ///< [trials, count, arms]
  std::vector<int> arms;               ///< [trials, count]
  std::vector<double> observed;        ///< [trials, count]

  void draw(const Environment& environment, const PlayOptions& options, std::uint64_t first,
            int count) {
    const auto width = static_cast<std::size_t>(environment.context_size());
    const auto arms_n = static_cast<std::size_t>(environment.arms());
    const std::size_t all =
        static_cast<std::size_t>(options.trials) * static_cast<std::size_t>(count);
    contexts.resize(all * width);
    rewards.resize(all * arms_n);
    means.resize(all * arms_n);
    arms.assign(all, 0);
    observed.resize(all);
    rounds = {first, options.trials, count, environment.context_size(), contexts};
    for (int trial = 0; trial < options.trials; ++trial) {
      for (int i = 0; i < count; ++i) {
        const std::size_t at = rounds.index(trial, i);
        environment.round(options.seed, trial, first + static_cast<std::uint64_t>(i),
                          {std::span(contexts).subspan(at * width, width),
                           std::span(rewards).subspan(at * arms_n, arms_n),
                           std::span(means).subspan(at * arms_n, arms_n)});
      }
    }
  }
};

/// Sums regrets over rounds, which come in their order.
class Regrets {
 public:
  Regrets(const PlayOptions& options, Result& result)
      : options_(options),
        result_(result),
        last_(std::min(options.last_steps, options.steps)),
        total_(static_cast<std::size_t>(options.trials)) {
    result_.simple.assign(total_.size(), 0.0);
  }

  void add(const Batch& batch, std::size_t arms_n) {
    for (int i = 0; i < batch.rounds.count; ++i) {
      const std::uint64_t step = batch.rounds.first + static_cast<std::uint64_t>(i);
      double sum = 0.0;
      for (std::size_t trial = 0; trial < total_.size(); ++trial) {
        const std::size_t at = batch.rounds.index(static_cast<int>(trial), i);
        const auto means = std::span(batch.means).subspan(at * arms_n, arms_n);
        const double regret =
            std::ranges::max(means) - means[static_cast<std::size_t>(batch.arms[at])];
        total_[trial] += regret;
        sum += total_[trial];
        if (step + last_ >= options_.steps) {
          result_.simple[trial] += regret / static_cast<double>(last_);
        }
      }
      const std::uint64_t done = step + 1;
      const std::uint64_t every = std::max<std::uint64_t>(1, options_.steps / curve_points);
      if (done % every == 0 || done == options_.steps) {
        result_.curve_steps.push_back(done);
        result_.curve.push_back(sum / static_cast<double>(total_.size()));
      }
    }
    result_.cumulative = total_;
  }

 private:
  const PlayOptions& options_;
  Result& result_;
  std::uint64_t last_;
  std::vector<double> total_;
};

}  // namespace

Result play(const Environment& environment, Agent& agent, const PlayOptions& options) {
  check(environment, options);
  using Clock = std::chrono::steady_clock;
  const auto arms_n = static_cast<std::size_t>(environment.arms());
  Result result;
  result.environment = environment.name();
  result.agent = agent.name();
  result.initial_pulls = agent.initial_pulls();
  result.steps = options.steps;
  const auto timed = [&](const auto& act) {
    const auto start = Clock::now();
    act();
    result.seconds += std::chrono::duration<double>(Clock::now() - start).count();
  };
  const int threads = options.threads > 0
                          ? options.threads
                          : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  timed([&] {
    agent.begin({options.trials, environment.context_size(), environment.arms(), options.steps,
                 options.seed, threads});
  });
  const std::uint64_t pulls =
      static_cast<std::uint64_t>(std::max(0, result.initial_pulls)) * arms_n;
  Regrets regrets(options, result);
  Batch batch;
  for (std::uint64_t step = 0; step < options.steps;) {
    if (options.stop && options.stop()) throw Stopped();
    const bool in_turn = step < pulls;
    const std::uint64_t left = options.steps - step;
    const int ahead = in_turn ? 1 : std::max(1, agent.rounds_ahead(step));
    const int count = static_cast<int>(std::min<std::uint64_t>(left, static_cast<unsigned>(ahead)));
    batch.draw(environment, options, step, count);
    if (in_turn) {
      std::ranges::fill(batch.arms, static_cast<int>(step % arms_n));
    } else {
      timed([&] { agent.choose(batch.rounds, batch.arms); });
    }
    for (std::size_t i = 0; i < batch.arms.size(); ++i) {
      const int arm = batch.arms[i];
      if (arm < 0 || arm >= environment.arms()) {
        throw Error(fmt::format("agent {}: chose arm {} in step {}, expected 0 to {}", agent.name(),
                                arm, step, environment.arms() - 1));
      }
      batch.observed[i] = batch.rewards[i * arms_n + static_cast<std::size_t>(arm)];
    }
    regrets.add(batch, arms_n);
    timed([&] { agent.observe(batch.rounds, batch.arms, batch.observed); });
    step += static_cast<std::uint64_t>(count);
  }
  result.remark = agent.remark();
  return result;
}

}  // namespace kshot::bandit
