#include "kshot/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <system_error>

#include "base/background.h"
#include "base/log.h"
#include "config/facts.h"
#include "engine/assembly.h"
#include "engine/checkpoint.h"
#include "engine/data_file.h"
#include "engine/optimizer.h"
#include "engine/plan.h"
#include "engine/rank_checks.h"
#include "engine/run_folder.h"
#include "engine/run_log.h"
#include "engine/scheduler.h"
#include "engine/task_memory.h"
#include "engine/training_episodes.h"
#include "engine/validation.h"
#include "episodes/sources.h"
#include "io/atomic_file.h"
#include "kshot/error.h"
#include "kshot/version.h"
#include "metrics/metrics.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// Scale of the fallback gradient: a guarded step uses 1e-4 times the parameters instead of the
/// computed gradient (LEO's official code).
constexpr double guard_factor = 1e-4;
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

struct Trainer::State {
  /// `file` is the data file that the tasks are drawn from. It is null for a source of the caller's
  /// own.
  State(const Config& config, std::shared_ptr<const data::Dataset> file,
        std::shared_ptr<const EpisodeSource> tasks, TrainerOptions opts)
      : options(std::move(opts)),
        ranks(options.ranks.get()),
        source(std::move(tasks)),
        data(std::move(file)),
        assembly(assemble(with_head_outputs(config, source->shape()),
                          rank_device(options.device, ranks),
                          rank_threads(options.threads, ranks))) {
    options.progress = options.progress && is_rank_zero();
    check_ranks();
    assembly.backend->set_ranks(options.ranks);
    check_fit(config, *assembly.network, *source);
    check_training_memory(assembly, source->shape());
    validating = config.train.validate_every > 0 && source->has(Split::validation);
    if (config.train.patience > 0 && !validating) {
      throw Error(
          fmt::format("train.patience = {}: counts validations, but the episodes ({}) have no "
                      "validation split; expected 0",
                      config.train.patience, source->describe()));
    }
    if (config.train.validate_every > 0 && !validating && options.progress) {
      log_info("no validations: the episodes have no validation split");
    }
    optimizer =
        std::make_unique<Optimizer>(config, *assembly.backend, assembly.algorithm->groups());
    const std::vector<std::vector<double>> initial = assembly.algorithm->initial(config.seed);
    for (std::size_t g = 0; g < initial.size(); ++g) assembly.parameters[g]->upload(initial[g]);
    episodes = place_episodes(*assembly.backend, *source);
    plan_waves(*assembly.backend, config, source->shape());
    scheduler =
        std::make_unique<Scheduler>(*assembly.backend, *assembly.algorithm, source->shape());
    if (episodes.on_device) {
      scheduler->draw_on_device(*source, episodes.on_device);
    } else {
      scheduler->draw_ahead();
    }
    if (validating && prediction_config(config) != config) {
      predictor = make_algorithm(prediction_config(config), assembly.network);
      plan_waves(*assembly.backend, prediction_config(config), source->shape());
      predictor_scheduler =
          std::make_unique<Scheduler>(*assembly.backend, *predictor, source->shape());
    }
    check_shares();
    begin_memory();
    open_run();
  }

  /// True where this rank writes the files and the messages of the run.
  bool is_rank_zero() const { return kshot::is_rank_zero(ranks); }
  /// True where this rank writes the run folder.
  bool writes_run_folder() const { return is_rank_zero() && !options.run_folder.empty(); }

  void check_ranks() const {
    if (ranks == nullptr) return;
    std::vector<RankFact> facts = {{"the version of kshot", std::string(version())},
                                   {"the command", options.resume ? "a resume" : "a new run"}};
    for (RankFact& fact : backend_facts(*assembly.backend)) facts.push_back(std::move(fact));
    facts.push_back(
        {"the checksum of the data file", data ? describe_data(*data).checksum : "none"});
    facts.push_back({"the source of the tasks", source->describe()});
    check_same(ranks, facts);
    check_same_config(ranks, assembly.config);
  }

  /// Warns where the meta-batch is too small to give every rank tasks, which is a waste but not
  /// wrong.
  void check_shares() const {
    if (ranks == nullptr || !options.progress) return;
    const backend::TaskShares shares = scheduler->shares(assembly.config.train.meta_batch);
    int idle = 0;
    for (int r = 0; r < shares.size; ++r) idle += shares.count(r) == 0 ? 1 : 0;
    if (idle == 0) return;
    log_warning(fmt::format(
        "{} of {} ranks have no tasks: train.meta_batch = {} makes {} units of {} tasks; expected "
        "a larger meta-batch or fewer ranks",
        idle, shares.size, shares.total, (shares.total + shares.unit - 1) / shares.unit,
        shares.unit));
  }

  /// True where the algorithm keeps per-task state.
  bool keeps_task_state() const { return !assembly.algorithm->memory().empty(); }

  TaskMemory::Layout memory_layout() const {
    const std::uint64_t tasks = source->training_tasks();
    return {assembly.algorithm->memory(), assembly.backend->precision(),
            tasks > 0 ? tasks : static_cast<std::uint64_t>(assembly.config.train.meta_batch),
            ranks ? ranks->rank() : 0, ranks ? ranks->size() : 1};
  }

  /// Tells the algorithm the number of training tasks. Where there is a run folder, open_run()
  /// makes the memory of their state.
  void begin_memory() {
    if (!keeps_task_state()) return;
    const std::uint64_t tasks = memory_layout().tasks;
    const int batch = assembly.config.train.meta_batch;
    if (tasks < static_cast<std::uint64_t>(batch)) {
      throw Error(
          fmt::format("train.meta_batch = {}: {} keeps a posterior for each training task, "
                      "and there are {} ({}); expected at most {}",
                      batch, assembly.algorithm->name(), tasks, source->describe(), tasks));
    }
    if (tasks > 0xffffffffu) throw Error("data.tasks: too many training tasks");
    assembly.algorithm->begin_training(tasks, source->training_rows());
    if (options.run_folder.empty()) memory = std::make_unique<TaskMemory>(memory_layout());
  }

  /// Opens the run folder and the log, and sets the state to begin with.
  void open_run() {
    const fs::path& folder = options.run_folder;
    if (folder.empty()) {
      if (options.resume) throw Error("to resume a run, its folder is needed");
      return;
    }
    if (options.resume) {
      find_checkpoint(folder, "last");  // throws where there is none, before anything is made there
      if (writes_run_folder()) lock = std::make_unique<RunLock>(folder);
      const Checkpoint checkpoint = Checkpoint::read(find_checkpoint(folder, "last"));
      Session session{.command = options.command, .resumed_at = checkpoint.state.step};
      if (data) {
        session.changed_data = check_same_data(checkpoint, *data, options.allow_changed_data);
      }
      if (writes_run_folder()) clean_run_folder(folder);
      load_parameters(assembly, checkpoint);
      optimizer->load(checkpoint);
      run = checkpoint.state;
      check_same(ranks, {{"the step of the checkpoint", std::to_string(run.step)}});
      check_replicas(ranks, assembly.parameters, run.step);
      if (keeps_task_state()) open_memory();
      if (writes_run_folder()) begin_records(session);
      return;
    }
    if (writes_run_folder()) lock = create_run_folder(folder);
    try {
      if (ranks) ranks->barrier("the run folder");
      if (keeps_task_state()) {
        run.run_id = text_of_rank_zero(ranks, new_run_id(), "the name of the run");
        run.store_ranks = memory_layout().ranks;
        memory = std::make_unique<TaskMemory>(memory_layout(), folder, run.run_id);
      }
      // The first checkpoint comes before all else. It shows that the disk can be written, and a
      // run that is killed early can be resumed from it.
      save(last_checkpoint);
      writer.wait();
      if (writes_run_folder()) begin_records({.command = options.command});
    } catch (...) {
      if (writes_run_folder()) discard_run();
      throw;
    }
  }

  /// Opens the per-task state as of the checkpoint. The state is divided again where the run had
  /// another number of ranks before.
  void open_memory() {
    const TaskMemory::Layout layout = memory_layout();
    const fs::path& folder = options.run_folder;
    if (run.store_ranks != layout.ranks) {
      if (writes_run_folder()) {
        TaskMemory::divide_again(layout, run.store_ranks, folder, run.run_id, run.step);
      }
      if (ranks) ranks->barrier("the division of the task store");
      run.store_ranks = layout.ranks;
    }
    memory = std::make_unique<TaskMemory>(layout, folder, run.run_id, run.step);
  }

  void begin_records(const Session& session) {
    const fs::path& folder = options.run_folder;
    write_run_record(folder, assembly, source_info(), session);
    io::write_file_atomic(folder / config_file, assembly.config.to_toml());
    log = std::make_unique<RunLog>(folder, session.resumed_at);
  }

  SourceInfo source_info() const {
    SourceInfo info = describe(*source);
    if (data) info.data = describe_data(*data);
    return info;
  }

  /// Leaves the folder as if the run had never begun.
  void discard_run() {
    writer.finish();
    log.reset();
    memory.reset();
    remove_run(options.run_folder);
    lock.reset();
  }

  /// Takes a snapshot of the current state. It is copied to the host and written while the run goes
  /// on.
  void save(const char* name) {
    if (options.run_folder.empty()) return;
    check_replicas(ranks, assembly.parameters, run.step);
    // A resumed run starts from the last checkpoint. The per-task state must be on the disk before
    // this checkpoint, and must not change until the checkpoint is written.
    const bool remembered = memory && std::string_view(name) == last_checkpoint;
    if (remembered) {
      memory->sync();
      if (ranks) ranks->barrier("the task store");
    }
    if (writes_run_folder()) write(name);
    if (!remembered) return;
    if (writes_run_folder()) writer.wait();
    if (ranks) ranks->barrier("the checkpoint");
    memory->commit(run.step);
    if (writes_run_folder()) TaskMemory::remove_others(options.run_folder, run.store_ranks);
  }

  void write(const char* name) {
    struct Values {
      std::string prefix;
      const ParameterGroup* group;
      std::function<std::vector<double>()> read;
    };
    auto checkpoint = std::make_shared<Checkpoint>();
    checkpoint->config = assembly.config;
    checkpoint->state = run;
    checkpoint->source = source_info();
    std::vector<Values> values;
    const auto take = [&](const char* prefix, const ParameterGroup& group,
                          const backend::SharedVector& vector) {
      values.push_back({prefix, &group, vector.snapshot()});
    };
    const std::vector<ParameterGroup>& groups = assembly.algorithm->groups();
    for (std::size_t g = 0; g < groups.size(); ++g) take("", groups[g], *assembly.parameters[g]);
    optimizer->each_state(take);
    writer.submit([checkpoint, values = std::move(values), file = options.run_folder / name,
                   precision = assembly.backend->precision()] {
      for (const Values& v : values) {
        checkpoint->store(v.prefix, *v.group, v.read(), precision);
      }
      checkpoint->write(file);
    });
  }

  /// Makes one meta-step.
  StepResult step() {
    const Config& config = assembly.config;
    const bool reported =
        (run.step + 1) % static_cast<std::uint64_t>(config.train.log_every) == 0 ||
        run.step + 1 == static_cast<std::uint64_t>(config.train.steps);
    rate = learning_rate(config.optimizer, run.step, config.train.steps);
    // The host reads the statistics in the backend's memory when the step is over. A step that must
    // not be made changes nothing there.
    const auto update = [&](backend::Step& step) {
      const std::span<const backend::Shared> gradients = scheduler->gradients();
      step.decide_update({config.train.max_diverged, config.optimizer.nan_guard});
      if (config.optimizer.nan_guard) {
        for (std::size_t g = 0; g < gradients.size(); ++g) {
          assembly.backend->guard(step, *gradients[g], *assembly.parameters[g], guard_factor);
        }
      }
      if (reported) {
        optimizer->squared_norm(gradients, 0.0, {step, &backend::StepStatistics::gradient_squares});
      }
      optimizer->apply(assembly.parameters, gradients, step, run.step, rate);
    };
    StepResult result = scheduler->step(assembly.parameters, *source, config.seed, run.step,
                                        config.train.meta_batch, reported, memory.get(), update);
    if (result.status == backend::StepStatus::guard) {
      ++run.guarded;
    } else {
      check(result);
    }
    if (reported) {
      gradient_norm = result.gradient_norm;
      monitor(result);
    }
    ++run.step;
    run.tasks += result.tasks;
    run.diverged += result.diverged;
    run.window.steps += 1;
    run.window.tasks += result.tasks;
    run.window.diverged += result.diverged;
    run.window.loss += result.loss;
    run.window.task_loss += result.task_loss;
    return result;
  }

  /// Checks a step that was not guarded: throws Error where it was stopped, and warns of the first
  /// diverged tasks.
  void check(const StepResult& result) {
    const bool stop = result.status == backend::StepStatus::stop;
    const double share = static_cast<double>(result.diverged) / static_cast<double>(result.tasks);
    const double most = assembly.config.train.max_diverged;
    if (stop && (share > most || result.diverged == result.tasks)) {
      throw Error(fmt::format(
          "step {}: {} of {} tasks diverged, more than train.max_diverged = {} allows; likely "
          "cause: {}",
          run.step + 1, result.diverged, result.tasks, most, likely_cause()));
    }
    if (stop) {
      throw Error(fmt::format("step {}: the loss is not finite; likely cause: {}", run.step + 1,
                              likely_cause()));
    }
    if (result.diverged > 0 && options.progress && !warned) {
      warned = true;
      const std::vector<std::uint32_t> known = scheduler->diverged_tasks();
      log_warning(
          fmt::format("step {}: {} of {} tasks diverged and were left out{}; the progress and the "
                      "metrics count "
                      "them from here on",
                      run.step + 1, result.diverged, result.tasks,
                      known.empty() ? "" : fmt::format(" (first: task {})", known.front())));
    }
  }

  /// The likely cause of diverged tasks. In the first step, only the inner loop and the data can be
  /// the cause.
  std::string likely_cause() const {
    const std::string meta =
        "optimizer.learning_rate is too large (lower it, or set optimizer.clip_norm)";
    if (assembly.algorithm->steps() == 0) {  // there is no inner loop
      return run.step > 0 ? meta : "the inputs are too large for the network (standardise them)";
    }
    const std::string inner = assembly.algorithm->divergence_hint();
    return run.step > 0 ? meta + ", or " + inner : inner;
  }

  void monitor(const StepResult& result) {
    metrics = {{"gradient_snr", result.gradient_snr}};
    const std::vector<std::string> names = assembly.algorithm->metrics();
    for (std::size_t i = 0; i < names.size(); ++i) {
      metrics.emplace_back(names[i], result.metrics[i]);
    }
    const std::string warning = assembly.algorithm->warning(result.metrics);
    if (!warning.empty() && options.progress && !monitor_warned) {
      monitor_warned = true;
      log_warning(fmt::format("step {}: {}", run.step + 1, warning));
    }
  }

  /// True where inner.learning_rate has an effect. LEO has rates of its own.
  bool has_inner_rate() const {
    return assembly.algorithm->steps() > 0 && assembly.config.algorithm != AlgorithmKind::leo;
  }

  /// Warns where the accuracies of two successive validations are at chance within their intervals.
  void check_chance(const ValidationReport& v) {
    if (v.metric != "accuracy" || source->shape().ways_vary) return;
    const double chance = 1.0 / source->shape().outputs;
    at_chance = v.value - v.half_width <= chance ? at_chance + 1 : 0;
    if (at_chance == 2 && options.progress) {
      log_warning(fmt::format(
          "step {}: validation accuracy {:.3f} is still at chance ({:.3f}); try {}a smaller "
          "optimizer.learning_rate",
          v.step, v.value, chance, has_inner_rate() ? "another inner.learning_rate or " : ""));
    }
  }

  TrainReport report() {
    const ReportWindow& w = run.window;
    const auto n = static_cast<double>(w.steps);
    TrainReport r;
    r.step = run.step;
    r.loss = w.loss / n;
    r.task_loss = w.task_loss / n;
    r.learning_rate = rate;
    r.gradient_norm = gradient_norm;
    r.metrics = metrics;
    r.tasks = w.tasks;
    r.diverged = w.diverged;
    r.guarded = run.guarded;
    r.seconds = run.seconds;
    r.tasks_per_second = speed_seconds > 0.0 ? speed_tasks / speed_seconds : 0.0;
    speed_tasks = speed_seconds = 0.0;
    run.window = {};
    if (log) log->add(r);
    if (options.on_report) options.on_report(r);
    return r;
  }

  ValidationDetail validate_now() {
    Scheduler& s = predictor_scheduler ? *predictor_scheduler : *scheduler;
    ValidationDetail detail = validate(s, assembly, *source);
    ValidationReport& r = detail.report;
    r.step = run.step;
    const bool higher = r.metric == "accuracy";
    r.best = std::isfinite(r.value) &&
             (!run.validated || (higher ? r.value > run.best.value : r.value < run.best.value));
    return detail;
  }

  void take(ValidationDetail detail, double now) {
    detail.report.seconds = now;
    run.seconds = now;
    validated_at = run.step;
    if (detail.report.best) {
      run.best = detail.report;
      run.validated = true;
      run.validations_since_best = 0;
    } else {
      ++run.validations_since_best;
    }
    last_validation = detail.report;
    check_chance(detail.report);
    if (log) log->add(detail);
    if (detail.report.best) {
      // Both are saved, so that the last checkpoint is never older than the best one.
      save(best_checkpoint);
      save(last_checkpoint);
    }
    if (options.on_validation) {
      writer.wait();  // the callback may look at the checkpoint
      options.on_validation(detail.report);
    }
  }

  TrainResult train();

  std::string progress_text(const StepResult& result) const {
    std::string text = fmt::format("loss {:.4g}", result.loss);
    if (last_validation) {
      text += fmt::format("  val {} {:.4g} (best {:.4g})", last_validation->metric,
                          last_validation->value, run.best.value);
    }
    if (shown_speed > 0.0) text += fmt::format("  {:.4g} tasks/s", shown_speed);
    if (run.diverged > 0) text += fmt::format("  {} diverged", run.diverged);
    if (run.guarded > 0) text += fmt::format(", {} steps guarded", run.guarded);
    return text;
  }

  TrainerOptions options;
  Communicator* ranks;            ///< options.ranks; null: this process alone
  std::unique_ptr<RunLock> lock;  ///< lock of the run folder
  std::shared_ptr<const EpisodeSource> source;
  std::shared_ptr<const data::Dataset> data;
  Assembly assembly;
  std::unique_ptr<Optimizer> optimizer;
  TrainingEpisodes episodes;
  std::unique_ptr<Scheduler> scheduler;
  /// Set where the training algorithm's inner loop is not the one for new tasks.
  std::unique_ptr<Algorithm> predictor;
  std::unique_ptr<Scheduler> predictor_scheduler;
  std::unique_ptr<TaskMemory> memory;  ///< set where the algorithm keeps per-task state
  std::unique_ptr<RunLog> log;
  RunState run;
  bool validating = false;
  bool warned = false;
  bool monitor_warned = false;
  int at_chance = 0;  ///< number of successive validations at chance
  std::vector<std::pair<std::string, double>> metrics;  ///< metrics of the last reported step
  double rate = 0.0, gradient_norm = 0.0;
  double speed_tasks = 0.0, speed_seconds = 0.0, shown_speed = 0.0;
  std::optional<std::uint64_t> validated_at;
  std::optional<ValidationReport> last_validation;
  /// Writes checkpoints. It is the last member, so that it ends before the members that it reads
  /// from.
  Background writer;
};

namespace {

/// The configuration with the path at which its data file is found, for a run that is resumed from
/// any folder.
Config located(const Config& config, const TrainerOptions& options) {
  config.check_data();
  if (!options.resume || options.run_folder.empty()) return config;
  return locate_data(config, Checkpoint::read(find_checkpoint(options.run_folder, "last")));
}

}  // namespace

Trainer::Trainer(const Config& given, TrainerOptions options) {
  const std::shared_ptr<Communicator> ranks = options.ranks;
  run_and_report_failure(ranks.get(), [&] {
    given.check();
    const Config config = located(given, options);
    const std::shared_ptr<const data::Dataset> data = open_data(config);
    std::vector<Split> used = {Split::train};
    if (config.train.validate_every > 0) used.push_back(Split::validation);
    std::shared_ptr<const EpisodeSource> source = make_source(config, data, used);
    state_ = std::make_unique<State>(config, data, std::move(source), std::move(options));
  });
}

Trainer::Trainer(const Config& config, std::shared_ptr<const EpisodeSource> source,
                 TrainerOptions options) {
  const std::shared_ptr<Communicator> ranks = options.ranks;
  run_and_report_failure(ranks.get(), [&] {
    config.check();
    state_ = std::make_unique<State>(config, nullptr, std::move(source), std::move(options));
  });
}

Trainer::~Trainer() = default;
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer& Trainer::operator=(Trainer&&) noexcept = default;

TrainResult Trainer::run() {
  try {
    return run_and_report_failure(state_->ranks, [&] { return state_->train(); });
  } catch (...) {
    state_->writer.finish();  // the last checkpoint is written before the caller sees the error
    if (state_->run.step == 0 && state_->lock && !state_->options.resume) state_->discard_run();
    throw;
  }
}

TrainResult Trainer::State::train() {
  const Config& config = assembly.config;
  const Config::TrainTable& train = config.train;
  const auto steps = static_cast<std::uint64_t>(train.steps);
  const auto every = [this](int period) {
    return period > 0 && run.step % static_cast<std::uint64_t>(period) == 0;
  };
  const double before = run.seconds;
  const Clock::time_point start = Clock::now();
  std::optional<Progress> progress;
  if (options.progress) {
    Progress::Options o;
    o.start = run.step;
    progress.emplace(steps, "steps", o);
  }
  TrainResult result;
  result.loss = nan;
  const auto exhausted = [&] {
    return train.patience > 0 && run.validations_since_best >= train.patience;
  };
  // With ranks, a rank that wants to stop tells all others with the exchange of the next step, so
  // that they stop after the same step. Only rank 0's clock decides on the time limit.
  if (ranks) ranks->clear_flags();
  const auto agreed = [this](bool mine, std::uint32_t flag) {
    if (ranks == nullptr) return mine;
    if (mine) ranks->raise(flag);
    return (ranks->flags() & flag) != 0;
  };
  const auto out_of_time = [&] {
    return agreed(is_rank_zero() && train.time_limit > 0.0 && run.seconds >= train.time_limit, 1);
  };
  const auto asked = [&] { return agreed(options.stop && options.stop(), 2); };
  const auto validate_and_take = [&] { take(validate_now(), before + seconds_since(start)); };
  while (true) {
    if (run.step >= steps) {
      result.reason = StopReason::steps;
      break;
    }
    if (exhausted()) {
      result.reason = StopReason::patience;
      break;
    }
    if (out_of_time()) {
      result.reason = StopReason::time_limit;
      break;
    }
    if (asked()) {
      result.reason = StopReason::asked;
      break;
    }
    const Clock::time_point step_start = Clock::now();
    const StepResult done = step();
    result.loss = done.loss;
    run.seconds = before + seconds_since(start);
    const double step_seconds = seconds_since(step_start);
    speed_tasks += static_cast<double>(done.tasks);
    speed_seconds += step_seconds;
    if (speed_seconds > 0.0) shown_speed = speed_tasks / speed_seconds;
    if (every(train.log_every)) report();
    if (validating && every(train.validate_every)) validate_and_take();
    if (every(train.checkpoint_every)) save(last_checkpoint);
    if (progress) progress->update(run.step, progress_text(done));
  }
  if (result.reason != StopReason::asked) {
    if (run.window.steps > 0) report();
    const bool stepped = std::isfinite(result.loss);
    if (validating && stepped && validated_at != run.step) validate_and_take();
  }
  save(last_checkpoint);
  writer.wait();
  if (ranks) ranks->barrier("the end of the training");  // the run folder is complete
  if (progress) progress->finish();
  result.step = run.step;
  result.seconds = run.seconds;
  result.validated = run.validated;
  result.best = run.best;
  result.tasks = run.tasks;
  result.diverged = run.diverged;
  result.has_validation = source->has(Split::validation);
  result.has_test = source->has(Split::test);
  return result;
}

const Config& Trainer::config() const {
  return state_->assembly.config;
}
const Network& Trainer::network() const {
  return *state_->assembly.network;
}
std::string Trainer::device() const {
  const std::string& episodes = state_->episodes.text;
  return device_text(*state_->assembly.backend) + (episodes.empty() ? "" : ", ") + episodes;
}

std::vector<std::string> Trainer::groups() const {
  std::vector<std::string> names;
  for (const ParameterGroup& group : state_->assembly.algorithm->groups()) {
    names.push_back(group.name);
  }
  return names;
}

std::vector<double> Trainer::parameters(const std::string& group) const {
  const std::vector<ParameterGroup>& groups = state_->assembly.algorithm->groups();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (groups[g].name != group) continue;
    std::vector<double> values(groups[g].size);
    state_->assembly.parameters[g]->download(values);
    return values;
  }
  throw Error(fmt::format("no parameters \"{}\": {} has {}", group,
                          state_->assembly.algorithm->name(), fmt::join(this->groups(), ", ")));
}

Config resumed_config(const fs::path& run_folder, const Config* config,
                      const std::vector<std::string>& overrides) {
  const Checkpoint checkpoint = Checkpoint::read(find_checkpoint(run_folder, "last"));
  Config changed = Config::parse((config ? *config : checkpoint.config).to_toml(),
                                 run_folder.string(), overrides);
  const auto free = [](const std::string& key) {
    return key == "data.path" || key.starts_with("train.") || key.starts_with("optimizer.") ||
           key.starts_with("evaluate.");
  };
  for (const ConfigDifference& d : differences(checkpoint.config, changed)) {
    if (free(d.key)) continue;
    throw Error(fmt::format(
        "{}: cannot resume with {} = {}: the run has {} (only [train], [optimizer], [evaluate] and "
        "data.path may change)",
        run_folder.string(), d.key, d.second, d.first));
  }
  if (changed.optimizer.type != checkpoint.config.optimizer.type) {
    throw Error(fmt::format("{}: cannot resume with another optimizer.type than the run's",
                            run_folder.string()));
  }
  return changed;
}

}  // namespace kshot
