// Contextual bandits: environments, agents, and trials of one in the other (docs/bandits.md).
//
//   const auto wheel = kshot::bandit::make_wheel({.delta = 0.95});
//   const auto agent = kshot::bandit::make_linear_thompson({});
//   const kshot::bandit::Result result = kshot::bandit::play(*wheel, *agent, {.trials = 50});
//
// All trials are played side by side: an agent chooses for all of them in one call, so that its
// trials can be one batch of tasks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kshot/communicator.h"

namespace kshot::bandit {

/// One round of one trial, written by Environment::round.
struct Round {
  std::span<float> context;   ///< [context_size]
  std::span<double> rewards;  ///< [arms], what each arm would pay
  std::span<double> means;    ///< [arms], the expected reward of each arm in this context
};

/// A contextual bandit whose contexts and rewards do not depend on what was chosen before.
class Environment {
 public:
  virtual ~Environment() = default;
  /// One line for tables and logs.
  virtual std::string name() const = 0;
  virtual int context_size() const = 0;  ///< numbers of a context
  virtual int arms() const = 0;          ///< number of arms
  /// Writes round `step` of a trial. It must follow from (seed, trial, step) alone, so that every
  /// agent sees the same contexts and rewards.
  virtual void round(std::uint64_t seed, int trial, std::uint64_t step,
                     const Round& round) const = 0;
};

/// What an agent is told before the first round.
struct Problem {
  int trials = 0;
  int context_size = 0;
  int arms = 0;
  std::uint64_t steps = 0;
  std::uint64_t seed = 0;  ///< for the agent's own random numbers
  int threads = 1;
  /// Number of the first trial that this process plays, among the trials of all processes. Trial i
  /// must not depend on which process plays it, so that its random numbers follow from
  /// first_trial + i.
  int first_trial = 0;
};

/// Rounds [first, first + count) of all trials.
struct Rounds {
  std::uint64_t first = 0;
  int trials = 0;
  int count = 0;
  int context_size = 0;
  std::span<const float> contexts;  ///< [trials, count, context_size]

  /// Place of a trial's round in arrays [trials, count].
  std::size_t index(int trial, int round) const {
    return static_cast<std::size_t>(trial) * static_cast<std::size_t>(count) +
           static_cast<std::size_t>(round);
  }
  /// The context of one round of one trial, [context_size].
  std::span<const float> context(int trial, int round) const {
    const auto size = static_cast<std::size_t>(context_size);
    return contexts.subspan(index(trial, round) * size, size);
  }
};

/// Plays all trials of an environment side by side.
class Agent {
 public:
  virtual ~Agent() = default;
  /// One line for tables and logs.
  virtual std::string name() const = 0;
  /// Starts anew: forgets everything that was observed.
  virtual void begin(const Problem& problem) = 0;
  /// How many rounds, from `step` on, the agent decides with what it knows now. Their contexts then
  /// come in one call. Contexts do not depend on choices, so this changes how often an agent learns
  /// and nothing else.
  virtual int rounds_ahead(std::uint64_t /*step*/) const { return 1; }
  /// How often every arm is pulled in turn before the agent makes its first choice.
  virtual int initial_pulls() const { return 0; }
  /// Writes an arm for every round, [trials, count].
  virtual void choose(const Rounds& rounds, std::span<int> arms) = 0;
  /// The rewards of the arms that were pulled, [trials, count].
  virtual void observe(const Rounds& rounds, std::span<const int> arms,
                       std::span<const double> rewards) = 0;
  /// Number of decisions since `begin` that were not the agent's own choice, because its
  /// computation failed. `play` adds up those of all processes.
  virtual std::uint64_t failures() const { return 0; }
  /// A remark for the readers of the result, in one line. Empty: none. `failures` is the number of
  /// all trials.
  virtual std::string remark(std::uint64_t /*failures*/) const { return {}; }
};

/// Options of play.
struct PlayOptions {
  int trials = 50;
  std::uint64_t steps = 2000;
  std::uint64_t seed = 1;
  std::uint64_t last_steps = 500;  ///< simple regret is over these
  int threads = 0;                 ///< 0: all cores
  /// Asked before every call of the agent, on the calling thread; `play` ends with kshot::Stopped
  /// once it says true. Empty: never.
  std::function<bool()> stop = {};
  /// The processes that play together, each a part of the trials; null: this process alone. All get
  /// the same result. The agents must use Problem::first_trial.
  std::shared_ptr<Communicator> ranks = {};
};

/// The regret of an agent. The regret of a round is the largest mean of an arm less the mean of the
/// arm that was pulled.
struct Result {
  std::string environment, agent;
  int initial_pulls = 0;
  std::uint64_t steps = 0;
  std::vector<double> cumulative;  ///< [trials], sum over all rounds
  std::vector<double> simple;      ///< [trials], mean over the last rounds
  /// Cumulative regret, mean over trials, after the numbers of rounds in `curve_steps`.
  std::vector<double> curve;
  std::vector<std::uint64_t> curve_steps;
  double seconds = 0.0;  ///< of the agent: begin, choose and observe; the most of all processes
  std::string remark;    ///< Agent::remark at the end
};

/// Plays all trials of an environment with an agent. Throws Error for numbers out of range and for
/// an agent that chooses an arm that does not exist.
Result play(const Environment& environment, Agent& agent, const PlayOptions& options);

// ---- environments ----

/// The wheel bandit of Riquelme, Tucker and Snoek (2018): docs/bandits.md.
struct WheelOptions {
  double delta = 0.5;       ///< radius of the inner region, in (0, 1)
  double noise_std = 0.01;  ///< of every reward
};
/// A wheel bandit.
std::unique_ptr<Environment> make_wheel(const WheelOptions& options);

/// Rows of a labelled table, drawn without replacement as long as there are enough of them.
/// mushroom: two arms, not to eat (0) and to eat (5 for an edible one; for a poisonous one -35 or
/// 5, each with probability one half). classes: one arm per class, which pays 1 for the row's own
/// class and 0 for another.
struct TableOptions {
  std::string name = {};
  std::vector<float> contexts = {};  ///< [rows, context_size]
  std::vector<int> labels = {};      ///< [rows]; mushroom: 1 is poisonous
  int context_size = 0;
  bool mushroom = false;
};
/// A bandit from a table. Throws Error for sizes that do not fit.
std::unique_ptr<Environment> make_table(TableOptions options);

// ---- agents ----

/// An agent that chooses every arm with the same probability.
std::unique_ptr<Agent> make_uniform();

/// Bayesian linear regression per arm on [context, 1] with a normal-inverse-gamma prior, Thompson
/// sampling (the LinFullPost of Riquelme et al. 2018).
struct LinearThompsonOptions {
  double prior_shape = 6.0;  ///< a0 of the noise's inverse gamma prior
  double prior_rate = 6.0;   ///< b0
  double lambda = 0.25;      ///< precision of the prior over weights, in units of the noise
  int initial_pulls = 2;
};
/// An agent with these options.
std::unique_ptr<Agent> make_linear_thompson(const LinearThompsonOptions& options);

/// Ridge regression per arm on [context, 1]; the best arm, or with probability `epsilon` any arm.
struct EpsilonGreedyOptions {
  double epsilon = 0.1;
  double lambda = 0.25;
  int initial_pulls = 2;
};
/// An agent with these options.
std::unique_ptr<Agent> make_epsilon_greedy(const EpsilonGreedyOptions& options);

/// NeuralLinear of Riquelme et al. (2018): a ReLU perceptron with one output per arm, trained by
/// minibatches on what the trial has seen, and Bayesian linear regression per arm on its last
/// hidden layer with Thompson sampling. Their two settings are hidden {50} with the prior below,
/// and hidden {100, 100} with prior_shape 12, prior_rate 30 and lambda 23.
struct NeuralLinearOptions {
  std::vector<int> hidden = {50};
  double prior_shape = 6.0, prior_rate = 6.0, lambda = 0.25;
  int train_every = 50;         ///< rounds between two trainings of the network
  int minibatches = 100;        ///< of one training
  int batch = 64;               ///< rows of a minibatch
  double learning_rate = 0.01;  ///< RMSProp
  int initial_pulls = 2;
};
/// An agent with these options.
std::unique_ptr<Agent> make_neural_linear(const NeuralLinearOptions& options);

/// A training run as an agent: it adapts to the rows (context, arm, reward) that it has seen, for
/// all trials as one batch of tasks, and predicts the reward of every arm. The network takes the
/// context followed by one number per arm, 1 for the arm that is pulled, and gives one value.
/// Rewards are standardised as the run's training episodes were (data.source = "wheel"), or taken
/// as they are (a source of one's own).
///
/// The choice is by Thompson sampling where the run gives a posterior: draws of the weights, one
/// per decision as far as 32 draws per adaptation go round (abml, hvi, leo), or one draw from the
/// joint Gaussian over the arms (alpaca, dkt). Else it is the arm of the largest prediction.
struct RunAgentOptions {
  /// Run folder (its best checkpoint, else the last) or checkpoint.
  std::filesystem::path run = {};
  std::string name = {};  ///< empty: the algorithm's
  bool greedy = false;    ///< the largest mean prediction instead of Thompson sampling
  int rounds = 20;        ///< rounds between two adaptations, at first ...
  /// ... and at least this share of the rounds seen so far, later. The first adaptations come after
  /// 1, 2, 4, ... rounds.
  double growth = 0.05;
  int rows = 1000;  ///< most rows to adapt to; of more, a random subset
  int initial_pulls = 0;
  std::string device = "auto";
  std::vector<std::string> overrides = {};  ///< of the run's configuration: "evaluate.steps=10"
};
/// An agent with these options. Throws Error where the run cannot be read.
std::unique_ptr<Agent> make_run_agent(const RunAgentOptions& options);

}  // namespace kshot::bandit
