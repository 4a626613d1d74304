// kshot::bandit::play: plays the trials of an agent and sums its regret.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "backend/task_tree.h"
#include "engine/rank_checks.h"
#include "kshot/bandit.h"
#include "kshot/error.h"
#include "kshot/stop.h"

namespace kshot::bandit {
namespace {

/// Number of points of a regret curve, at equal distances.
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

/// The trials that this process plays.
struct OwnTrials {
  int first = 0, count = 0;
};

/// The rounds that an agent decides in one call, with the rewards of all arms.
struct Batch {
  Rounds rounds;
  std::vector<float> contexts;
  std::vector<double> rewards, means;  ///< [trials, count, arms]
  std::vector<int> arms;               ///< [trials, count]
  std::vector<double> observed;        ///< [trials, count]

  void draw(const Environment& environment, std::uint64_t seed, const OwnTrials& own,
            std::uint64_t first, int count) {
    const auto width = static_cast<std::size_t>(environment.context_size());
    const auto arms_n = static_cast<std::size_t>(environment.arms());
    const std::size_t all = static_cast<std::size_t>(own.count) * static_cast<std::size_t>(count);
    contexts.resize(all * width);
    rewards.resize(all * arms_n);
    means.resize(all * arms_n);
    arms.assign(all, 0);
    observed.resize(all);
    rounds = {first, own.count, count, environment.context_size(), contexts};
    for (int trial = 0; trial < own.count; ++trial) {
      for (int i = 0; i < count; ++i) {
        const std::size_t at = rounds.index(trial, i);
        environment.round(seed, own.first + trial, first + static_cast<std::uint64_t>(i),
                          {std::span(contexts).subspan(at * width, width),
                           std::span(rewards).subspan(at * arms_n, arms_n),
                           std::span(means).subspan(at * arms_n, arms_n)});
      }
    }
  }
};

/// Returns the numbers of all ranks, one rank after another.
std::vector<double> gather_from_ranks(Communicator* ranks, const std::vector<double>& own,
                                      const char* what) {
  if (ranks == nullptr) return own;
  std::vector<double> all;
  for (const std::vector<double>& part : ranks->all_gather(std::span(own), what)) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

/// Sums the regrets of this process's trials over rounds, which must come in their order. The
/// points of the curve are means over the trials of all ranks, so that the ranks exchange their
/// sums at each point.
class Regrets {
 public:
  Regrets(const PlayOptions& options, const OwnTrials& own, Result& result)
      : options_(options),
        result_(result),
        last_(std::min(options.last_steps, options.steps)),
        total_(static_cast<std::size_t>(own.count)),
        simple_(total_.size()) {}

  void add(const Batch& batch, std::size_t arms_n) {
    for (int i = 0; i < batch.rounds.count; ++i) {
      const std::uint64_t step = batch.rounds.first + static_cast<std::uint64_t>(i);
      for (std::size_t trial = 0; trial < total_.size(); ++trial) {
        const std::size_t at = batch.rounds.index(static_cast<int>(trial), i);
        const auto means = std::span(batch.means).subspan(at * arms_n, arms_n);
        const double regret =
            std::ranges::max(means) - means[static_cast<std::size_t>(batch.arms[at])];
        total_[trial] += regret;
        if (step + last_ >= options_.steps) {
          simple_[trial] += regret / static_cast<double>(last_);
        }
      }
      const std::uint64_t done = step + 1;
      const std::uint64_t every = std::max<std::uint64_t>(1, options_.steps / curve_points);
      if (done % every == 0 || done == options_.steps) {
        double sum = 0.0;
        for (const double t : gather_from_ranks(options_.ranks.get(), total_, "regrets")) sum += t;
        result_.curve_steps.push_back(done);
        result_.curve.push_back(sum / static_cast<double>(options_.trials));
      }
    }
  }
  /// Writes the regrets of all ranks' trials to the result. To be called after the last round.
  void finish() {
    result_.cumulative = gather_from_ranks(options_.ranks.get(), total_, "cumulative regrets");
    result_.simple = gather_from_ranks(options_.ranks.get(), simple_, "simple regrets");
  }

 private:
  const PlayOptions& options_;
  Result& result_;
  std::uint64_t last_;
  std::vector<double> total_, simple_;
};

/// Writes the remark and the seconds of all ranks to the result.
void finish(Result& result, const Agent& agent, std::uint64_t failures, Communicator* ranks) {
  if (ranks != nullptr) {
    const double own[] = {static_cast<double>(failures), result.seconds};
    failures = 0;
    for (const std::vector<double>& of : ranks->all_gather(std::span(own), "the agent's time")) {
      failures += static_cast<std::uint64_t>(of[0]);
      result.seconds = std::max(result.seconds, of[1]);
    }
  }
  result.remark = agent.remark(failures);
}

Result play_trials(const Environment& environment, Agent& agent, const PlayOptions& options) {
  check(environment, options);
  Communicator* const ranks = options.ranks.get();
  backend::TaskShares shares(static_cast<std::size_t>(options.trials));
  if (ranks) shares = {shares.total, 1, ranks->rank(), ranks->size()};
  const OwnTrials own{static_cast<int>(shares.first()), static_cast<int>(shares.count())};
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
  const int requested = rank_threads(options.threads, ranks);
  const int threads = requested > 0
                          ? requested
                          : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  if (own.count > 0) {
    timed([&] {
      agent.begin({own.count, environment.context_size(), environment.arms(), options.steps,
                   options.seed, threads, own.first});
    });
  }
  const std::uint64_t pulls =
      static_cast<std::uint64_t>(std::max(0, result.initial_pulls)) * arms_n;
  Regrets regrets(options, own, result);
  Batch batch;
  for (std::uint64_t step = 0; step < options.steps;) {
    if (options.stop && options.stop()) throw Stopped();
    const bool in_turn = step < pulls;
    const std::uint64_t left = options.steps - step;
    // A rank without trials does not call the agent, because the agent has not begun.
    const int ahead = in_turn || own.count == 0 ? 1 : std::max(1, agent.rounds_ahead(step));
    const int count = static_cast<int>(std::min<std::uint64_t>(left, static_cast<unsigned>(ahead)));
    batch.draw(environment, options.seed, own, step, count);
    if (own.count == 0) {
      // There is nothing to choose.
    } else if (in_turn) {
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
    if (own.count > 0) timed([&] { agent.observe(batch.rounds, batch.arms, batch.observed); });
    step += static_cast<std::uint64_t>(count);
  }
  regrets.finish();
  finish(result, agent, own.count > 0 ? agent.failures() : 0, ranks);
  return result;
}

}  // namespace

Result play(const Environment& environment, Agent& agent, const PlayOptions& options) {
  return run_and_report_failure(options.ranks.get(),
                                [&] { return play_trials(environment, agent, options); });
}

}  // namespace kshot::bandit
