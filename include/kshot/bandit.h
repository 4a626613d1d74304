// Contextual bandits: environments, agents, and the trials in which an agent plays in an
// environment (docs/bandits.md).
//
//   const auto wheel = kshot::bandit::make_wheel({.delta = 0.95});
//   const auto agent = kshot::bandit::make_linear_thompson({});
//   const kshot::bandit::Result result = kshot::bandit::play(*wheel, *agent, {.trials = 50});
//
// All trials are played side by side. An agent chooses for all of them in one call, so that its
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
  std::span<float> context;   ///< The context, [context_size].
  std::span<double> rewards;  ///< The reward that each arm would pay, [arms].
  std::span<double> means;    ///< The expected reward of each arm in this context, [arms].
};

/// A contextual bandit whose contexts and rewards do not depend on what was chosen before.
class Environment {
 public:
  virtual ~Environment() = default;
  /// The name of the environment in tables and logs, in one line.
  virtual std::string name() const = 0;
  virtual int context_size() const = 0;  ///< How many numbers a context has.
  virtual int arms() const = 0;          ///< Number of arms.
  /// Writes round `step` of a trial. The round must depend on (seed, trial, step) alone, so that
  /// every agent sees the same contexts and rewards.
  virtual void round(std::uint64_t seed, int trial, std::uint64_t step,
                     const Round& round) const = 0;
};

/// The facts that an agent gets before the first round.
struct Problem {
  int trials = 0;           ///< Number of trials that this process plays.
  int context_size = 0;     ///< How many numbers a context has.
  int arms = 0;             ///< Number of arms.
  std::uint64_t steps = 0;  ///< Number of rounds per trial.
  std::uint64_t seed = 0;   ///< Seed of the agent's own random numbers.
  int threads = 1;          ///< Number of CPU threads that the agent may use; `play` never gives 0.
  /// Number of the first trial that this process plays, among the trials of all processes. Trial i
  /// must not depend on which process plays it, so that its random numbers follow from
  /// first_trial + i.
  int first_trial = 0;
};

/// Rounds [first, first + count) of all trials.
struct Rounds {
  std::uint64_t first = 0;          ///< Number of the first round, from 0.
  int trials = 0;                   ///< Number of trials that this process plays.
  int count = 0;                    ///< Number of rounds.
  int context_size = 0;             ///< How many numbers a context has.
  std::span<const float> contexts;  ///< The contexts, [trials, count, context_size].

  /// Index of a trial's round in arrays [trials, count]. `round` counts from `first`.
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
  /// The name of the agent in tables and logs, in one line.
  virtual std::string name() const = 0;
  /// Starts a new game: forgets everything that was observed.
  virtual void begin(const Problem& problem) = 0;
  /// Number of rounds, from `step` on, that the agent decides with what it knows now. One call of
  /// `choose` then has the contexts of all these rounds. Contexts do not depend on choices, so that
  /// this number changes only how often an agent learns.
  virtual int rounds_ahead(std::uint64_t /*step*/) const { return 1; }
  /// How many times every arm is pulled in turn before the agent makes its first choice.
  virtual int initial_pulls() const { return 0; }
  /// Writes the chosen arm of every round, [trials, count].
  virtual void choose(const Rounds& rounds, std::span<int> arms) = 0;
  /// Takes the arms that were pulled and their rewards, each [trials, count].
  virtual void observe(const Rounds& rounds, std::span<const int> arms,
                       std::span<const double> rewards) = 0;
  /// Number of computations since `begin` that failed, so that their decisions were not the agent's
  /// own choice. `play` adds up the numbers of all processes.
  virtual std::uint64_t failures() const { return 0; }
  /// A remark for the readers of the result, in one line. Empty: no remark. `failures` is the
  /// number of failures in the trials of all processes.
  virtual std::string remark(std::uint64_t /*failures*/) const { return {}; }
};

/// Options of play.
struct PlayOptions {
  int trials = 50;             ///< Number of trials, over all processes.
  std::uint64_t steps = 2000;  ///< Number of rounds per trial.
  std::uint64_t seed = 1;      ///< Seed of the environment and of the agent.
  /// The simple regret is the mean over this many last rounds, at most `steps`.
  std::uint64_t last_steps = 500;
  int threads = 0;  ///< Number of CPU threads; 0: all cores.
  /// A function that `play` calls before every block of rounds, on the calling thread. Once the
  /// function returns true, `play` throws kshot::Stopped. Empty: never.
  std::function<bool()> stop = {};
  /// The processes that play together; each plays a part of the trials. Null: this process alone.
  /// All processes get the same result. The agents must use Problem::first_trial.
  std::shared_ptr<Communicator> ranks = {};
};

/// The regret of an agent. The regret of a round is the largest mean of an arm minus the mean of
/// the arm that was pulled.
struct Result {
  std::string environment,         ///< Environment::name.
      agent;                       ///< Agent::name.
  int initial_pulls = 0;           ///< Agent::initial_pulls.
  std::uint64_t steps = 0;         ///< Number of rounds per trial.
  std::vector<double> cumulative;  ///< Sum of the regret over all rounds, [trials].
  std::vector<double> simple;      ///< Mean regret over the last rounds, [trials].
  /// Cumulative regret, mean over trials, after the numbers of rounds in `curve_steps`.
  std::vector<double> curve;
  std::vector<std::uint64_t> curve_steps;  ///< Numbers of rounds, ascending; the last is `steps`.
  /// Time in the agent's functions begin, choose and observe; the largest over all processes.
  double seconds = 0.0;
  std::string remark;  ///< Agent::remark at the end; empty: no remark.
};

/// Plays all trials of an environment with an agent. Throws Error for numbers out of range and for
/// an agent that chooses an arm that does not exist.
Result play(const Environment& environment, Agent& agent, const PlayOptions& options);

// ---- environments ----

/// The wheel bandit of Riquelme, Tucker and Snoek (2018): docs/bandits.md.
struct WheelOptions {
  double delta = 0.5;       ///< Radius of the inner region, in (0, 1).
  double noise_std = 0.01;  ///< Standard deviation of the Gaussian noise of every reward.
};
/// Makes a wheel bandit.
std::unique_ptr<Environment> make_wheel(const WheelOptions& options);

/// A bandit whose contexts are the rows of a labelled table. Rows are drawn without replacement as
/// long as there are enough of them. With `mushroom` there are two arms: not to eat pays 0; to eat
/// pays 5 for an edible mushroom, and for a poisonous one -35 or 5, each with probability one half.
/// Otherwise there is one arm per class, which pays 1 for the row's own class and 0 for another.
struct TableOptions {
  std::string name = {};             ///< Environment::name.
  std::vector<float> contexts = {};  ///< The rows, [rows, context_size].
  std::vector<int> labels = {};      ///< Class of each row, [rows]; `mushroom`: 1 is poisonous.
  int context_size = 0;              ///< How many numbers a row has.
  bool mushroom = false;             ///< The rewards of the mushroom bandit (see above).
};
/// Makes a bandit from a table. Throws Error for sizes that do not fit.
std::unique_ptr<Environment> make_table(TableOptions options);

// ---- agents ----

/// Makes an agent that chooses every arm with the same probability.
std::unique_ptr<Agent> make_uniform();

/// Bayesian linear regression per arm on [context, 1] with a normal-inverse-gamma prior, and
/// Thompson sampling (the LinFullPost of Riquelme et al. 2018).
struct LinearThompsonOptions {
  double prior_shape = 6.0;  ///< Shape a0 of the inverse gamma prior of the noise variance.
  double prior_rate = 6.0;   ///< Rate b0 of this prior.
  double lambda = 0.25;      ///< Precision of the prior over weights, in units of the noise.
  int initial_pulls = 2;     ///< Agent::initial_pulls.
};
/// Makes an agent with these options.
std::unique_ptr<Agent> make_linear_thompson(const LinearThompsonOptions& options);

/// Ridge regression per arm on [context, 1]. The agent chooses the best arm, or with probability
/// `epsilon` any arm.
struct EpsilonGreedyOptions {
  double epsilon = 0.1;   ///< Probability of a random arm.
  double lambda = 0.25;   ///< Ridge penalty of the squared weights.
  int initial_pulls = 2;  ///< Agent::initial_pulls.
};
/// Makes an agent with these options.
std::unique_ptr<Agent> make_epsilon_greedy(const EpsilonGreedyOptions& options);

/// NeuralLinear of Riquelme et al. (2018): a ReLU perceptron with one output per arm, which is
/// trained by minibatches on what the trial has seen, and Bayesian linear regression per arm on its
/// last hidden layer, with Thompson sampling. The two settings of the paper are hidden {50} with
/// the prior below, and hidden {100, 100} with prior_shape 12, prior_rate 30 and lambda 23.
struct NeuralLinearOptions {
  std::vector<int> hidden = {50};  ///< Width of every hidden layer.
  double prior_shape = 6.0,        ///< LinearThompsonOptions::prior_shape of the regression.
      prior_rate = 6.0,            ///< LinearThompsonOptions::prior_rate of the regression.
      lambda = 0.25;               ///< LinearThompsonOptions::lambda of the regression.
  int train_every = 50;            ///< Number of rounds between two trainings of the network.
  int minibatches = 100;           ///< Number of minibatches per training.
  int batch = 64;                  ///< Number of rows per minibatch.
  double learning_rate = 0.01;     ///< Step size of RMSProp.
  int initial_pulls = 2;           ///< Agent::initial_pulls.
};
/// Makes an agent with these options.
std::unique_ptr<Agent> make_neural_linear(const NeuralLinearOptions& options);

/// A training run as an agent: it adapts to the rows (context, arm, reward) that it has seen, for
/// all trials as one batch of tasks, and predicts the reward of every arm. The network takes the
/// context followed by one number per arm, 1 for the arm that is pulled, and gives one value.
/// Rewards are standardised as the run's training episodes were (data.source = "wheel"), or taken
/// as they are (a source of one's own).
///
/// The agent uses Thompson sampling where the run gives a posterior. With abml, hvi and leo it
/// draws weights: one draw per decision, up to 32 draws per adaptation, which decisions share
/// beyond that. With alpaca and dkt it takes one draw from the joint Gaussian over the arms.
/// Without a posterior the agent chooses the arm of the largest prediction.
struct RunAgentOptions {
  /// Run folder (its best checkpoint, else the last) or checkpoint.
  std::filesystem::path run = {};
  std::string name = {};  ///< Agent::name; empty: the name of the algorithm.
  bool greedy = false;    ///< Choose the largest mean prediction instead of Thompson sampling.
  /// Number of rounds between two adaptations, 1 to 1000. The first adaptations are closer: they
  /// come after 1, 2, 4, ... rounds.
  int rounds = 20;
  /// The number of rounds between two adaptations grows to this share, 0 to 1, of the rounds seen
  /// so far, where that is more than `rounds`, and to 1000 at most.
  double growth = 0.05;
  /// Most rows that the agent adapts to. From more rows it keeps a random subset.
  int rows = 1000;
  int initial_pulls = 0;        ///< Agent::initial_pulls.
  std::string device = "auto";  ///< The device, as TrainerOptions::device.
  /// Changes to the run's configuration: "evaluate.steps=10".
  std::vector<std::string> overrides = {};
};
/// Makes an agent with these options. Throws Error where the run cannot be read.
std::unique_ptr<Agent> make_run_agent(const RunAgentOptions& options);

}  // namespace kshot::bandit
