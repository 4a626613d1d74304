// A training run as an agent. All trials are one batch of tasks. The support rows of a task are
// what the trial has seen, and its query rows are the coming contexts with every arm.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "config/schema.h"
#include "engine/assembly.h"
#include "engine/checkpoint.h"
#include "engine/predictor.h"
#include "episodes/wheel.h"
#include "kshot/bandit.h"
#include "kshot/error.h"
#include "kshot/random.h"
#include "metrics/small_algebra.h"

namespace kshot::bandit {
namespace {

/// Streams of the agent's random numbers, apart from those of TrialAgent.
enum AgentPart : std::uint32_t { draw_part = 1, history_part = 2 };

/// Most draws of the weights per adaptation.
constexpr int most_draws = 32;

/// The rows that a trial has seen: all of them, or a random subset (reservoir sampling).
struct History {
  std::vector<float> inputs;  ///< [rows, inputs]
  std::vector<float> targets;
  std::uint64_t seen = 0;
};

/// Draws `values`, one per arm, from N(mean, covariance). A jitter is added to the diagonal of the
/// covariance, as large as its Cholesky factor needs.
void draw_jointly(std::span<const double> mean, std::vector<double> covariance,
                  RandomStream& stream, std::span<double> values) {
  const std::size_t n = mean.size();
  double largest = 0.0;
  for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, covariance[i * n + i]);
  for (double& v : values) v = static_cast<double>(stream.normal());
  for (double jitter = 1e-7; largest > 0.0; jitter *= 10.0) {
    std::vector<double> l = covariance;
    for (std::size_t i = 0; i < n; ++i) l[i * n + i] += jitter * largest;
    if (!metrics::cholesky(l, n)) continue;
    for (std::size_t i = n; i-- > 0;) {
      values[i] = metrics::dot(std::span(l).subspan(i * n, i + 1), values.first(i + 1));
    }
    break;
  }
  for (std::size_t i = 0; i < n; ++i) values[i] = mean[i] + (largest > 0.0 ? values[i] : 0.0);
}

class RunAgent final : public Agent {
 public:
  explicit RunAgent(const RunAgentOptions& options)
      : options_(options), checkpoint_(Checkpoint::read(find_checkpoint(options.run))) {
    if (options.rounds < 1 || options.rounds > 1000 || options.rows < 1 ||
        !(options.growth >= 0.0 && options.growth <= 1.0) || options.initial_pulls < 0) {
      throw Error(
          "run agent: expected rounds from 1 to 1000, rows of at least 1, growth from 0 to 1 and "
          "initial_pulls of at least 0");
    }
    config_ = prediction_config(
        Config::parse(checkpoint_.config.to_toml(), checkpoint_.path.string(), options.overrides));
    if (is_classification(config_) || checkpoint_.source.shape.outputs != 1) {
      throw Error(fmt::format(
          "{}: predicts {}, expected a run that predicts one number, the reward",
          options.run.string(), is_classification(config_) ? "classes" : "several numbers"));
    }
    if (config_.data.source == DataKind::wheel) {
      scale_ = wheel_reward_scale(config_.data.noise_std);
    }
  }

  std::string name() const override {
    return options_.name.empty() ? schema::selector(config_, "algorithm") : options_.name;
  }
  int initial_pulls() const override { return options_.initial_pulls; }

  void begin(const Problem& problem) override {
    problem_ = problem;
    programs_.clear();
    assembly_ = assemble(config_, options_.device, problem.threads);
    const int inputs = problem.context_size + problem.arms;
    if (assembly_.network->input().size() != inputs) {
      throw Error(
          fmt::format("{}: the network takes {} inputs, expected {}: a context of {} "
                      "numbers and {} arms",
                      options_.run.string(), assembly_.network->input().size(), inputs,
                      problem.context_size, problem.arms));
    }
    load_parameters(assembly_, checkpoint_);
    assembly_.algorithm->prepare(*assembly_.backend, assembly_.parameters, {});
    width_ = static_cast<std::size_t>(inputs);
    histories_.assign(static_cast<std::size_t>(problem.trials), {});
    diverged_ = 0;
    shape_ = {};
  }

  int rounds_ahead(std::uint64_t step) const override {
    // The first calls have 1, 1, 2, 4, ... rounds, so that the agent learns from early rounds.
    const double most =
        std::max(static_cast<double>(options_.rounds), options_.growth * static_cast<double>(step));
    const double rounds = std::min({most, std::max(1.0, static_cast<double>(step)), 1000.0});
    return static_cast<int>(rounds);
  }

  void choose(const Rounds& rounds, std::span<int> arms) override {
    const std::size_t rows = histories_.front().targets.size();
    PredictOptions predict = predict_options(config_, *assembly_.algorithm);
    predict.every_step = false;
    predict.covariance = !options_.greedy;
    // Every draw of the weights costs a pass over all query rows, so that their number is limited.
    if (assembly_.algorithm->bayesian() && !options_.greedy) {
      predict.samples = std::min(rounds.count, most_draws);
    }
    const bool nothing_seen = rows == 0 && !has_prior(config_.algorithm);
    if (nothing_seen) predict.steps = 0;
    TaskShape shape = checkpoint_.source.shape;
    shape.support = rows > 0 ? static_cast<int>(std::bit_ceil(rows)) : (nothing_seen ? 1 : 0);
    shape.query = rounds.count * problem_.arms;
    open(shape);
    StepContext context;
    context.seed = problem_.seed;
    context.step = rounds.first;
    const int capacity = program(0).wave().capacity();
    const auto waves = static_cast<std::size_t>((rounds.trials + capacity - 1) / capacity);
    std::vector<int> lost(waves);
    assembly_.backend->pool().run(waves, [&](std::size_t worker, std::size_t wave) {
      const int first = static_cast<int>(wave) * capacity;
      const int count = std::min(capacity, rounds.trials - first);
      const TaskBatch batch = rows_of(rounds, first, count);
      TaskProgram& own = program(worker);
      own.wave().load(batch, 0, count, number(first));
      for (const EpisodePrediction& p : predict_wave(own, batch, first, count, context, predict)) {
        lost[wave] += p.diverged ? 1 : 0;
        decide(rounds, p, predict.samples, arms);
      }
    });
    for (const int n : lost) diverged_ += static_cast<std::uint64_t>(n);
  }

  void observe(const Rounds& rounds, std::span<const int> arms,
               std::span<const double> rewards) override {
    std::vector<float> row(width_);
    for (int trial = 0; trial < rounds.trials; ++trial) {
      for (int i = 0; i < rounds.count; ++i) {
        const std::size_t at = rounds.index(trial, i);
        write_arm_inputs(rounds.context(trial, i), arms[at], problem_.arms, row);
        remember(trial, rounds.first + static_cast<std::uint64_t>(i), row,
                 scale_.standardised(rewards[at]));
      }
    }
  }

  std::uint64_t failures() const override { return diverged_; }
  std::string remark(std::uint64_t failures) const override {
    if (failures == 0) return {};
    return fmt::format(
        "{}: {} adaptations left the finite range; their rounds were decided at random", name(),
        failures);
  }

 private:
  /// Returns the number of a trial among the trials of all processes, for its random numbers.
  std::uint32_t number(int trial) const {
    return static_cast<std::uint32_t>(problem_.first_trial + trial);
  }
  /// Prepares for tasks of this shape. Each thread makes its own program when it needs one.
  void open(const TaskShape& shape) {
    if (!programs_.empty() && shape.support == shape_.support && shape.query == shape_.query) {
      return;
    }
    shape_ = shape;
    programs_.clear();
    programs_.resize(static_cast<std::size_t>(assembly_.backend->pool().workers()));
  }
  TaskProgram& program(std::size_t worker) {
    std::unique_ptr<TaskProgram>& own = programs_[worker];
    if (!own) own = assembly_.algorithm->open(*assembly_.backend, shape_);
    return *own;
  }

  /// Returns the trials [first, first + count) as tasks.
  TaskBatch rows_of(const Rounds& rounds, int first, int count) const {
    TaskBatch batch(shape_, count);
    for (int t = 0; t < count; ++t) {
      const History& history = histories_[static_cast<std::size_t>(first + t)];
      const TaskSlot slot = batch.slot(t);
      if (history.targets.empty()) {
        // There is no row to adapt to. The task has one row of zeros, which no inner step uses, or
        // no support row at all.
        std::ranges::fill(slot.support_x, 0.0f);
        std::ranges::fill(slot.support_value, 0.0f);
      } else {
        std::ranges::copy(history.inputs, slot.support_x.begin());
        std::ranges::copy(history.targets, slot.support_value.begin());
        *slot.support_n = static_cast<std::int32_t>(history.targets.size());
      }
      std::size_t row = 0;
      for (int i = 0; i < rounds.count; ++i) {
        for (int arm = 0; arm < problem_.arms; ++arm) {
          write_arm_inputs(rounds.context(first + t, i), arm, problem_.arms,
                           slot.query_x.subspan(row++ * width_, width_));
        }
      }
    }
    return batch;
  }

  void decide(const Rounds& rounds, const EpisodePrediction& p, int samples,
              std::span<int> chosen) const {
    const auto arms = static_cast<std::size_t>(problem_.arms);
    const auto rows = static_cast<std::size_t>(p.rows);
    std::vector<double> values(arms), mean(arms), covariance;
    for (int i = 0; i < rounds.count; ++i) {
      RandomStream stream({.seed = problem_.seed,
                           .purpose = Purpose::user,
                           .step = rounds.first + static_cast<std::uint64_t>(i),
                           .task = number(p.episode),
                           .sample = draw_part});
      int& arm = chosen[rounds.index(p.episode, i)];
      if (p.diverged) {
        arm = static_cast<int>(stream.below(static_cast<std::uint32_t>(problem_.arms)));
        continue;
      }
      const std::size_t first = static_cast<std::size_t>(i) * arms;
      const auto sample = [&](int s) {
        return std::span(p.outputs.front())
            .subspan(static_cast<std::size_t>(s) * rows + first, arms);
      };
      if (!p.covariance.empty()) {
        covariance.clear();
        for (std::size_t a = 0; a < arms; ++a) {
          const auto part = std::span(p.covariance).subspan((first + a) * rows + first, arms);
          covariance.insert(covariance.end(), part.begin(), part.end());
        }
        draw_jointly(sample(0), covariance, stream, values);
      } else if (options_.greedy) {
        std::ranges::fill(values, 0.0);
        for (int s = 0; s < samples; ++s) metrics::add_scaled(values, 1.0, sample(s));
      } else {
        std::ranges::copy(sample(i % samples), values.begin());
      }
      arm = static_cast<int>(std::ranges::max_element(values) - values.begin());
    }
  }

  void remember(int trial, std::uint64_t step, std::span<const float> row, float target) {
    History& h = histories_[static_cast<std::size_t>(trial)];
    ++h.seen;
    const auto most = static_cast<std::size_t>(options_.rows);
    if (h.targets.size() < most) {
      h.inputs.insert(h.inputs.end(), row.begin(), row.end());
      h.targets.push_back(target);
      return;
    }
    RandomStream stream({.seed = problem_.seed,
                         .purpose = Purpose::user,
                         .step = step,
                         .task = number(trial),
                         .sample = history_part});
    const std::size_t place = stream.below(static_cast<std::uint32_t>(h.seen));
    if (place >= most) return;
    std::ranges::copy(row, h.inputs.begin() + static_cast<std::ptrdiff_t>(place * width_));
    h.targets[place] = target;
  }

  RunAgentOptions options_;
  Checkpoint checkpoint_;
  Config config_;
  RewardScale scale_;
  Problem problem_;
  Assembly assembly_;
  std::size_t width_ = 0;
  std::vector<History> histories_;
  TaskShape shape_;
  std::vector<std::unique_ptr<TaskProgram>> programs_;
  std::uint64_t diverged_ = 0;
};

}  // namespace

std::unique_ptr<Agent> make_run_agent(const RunAgentOptions& options) {
  return std::make_unique<RunAgent>(options);
}

}  // namespace kshot::bandit
