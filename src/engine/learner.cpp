#include "kshot/learner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>

#include "base/memory.h"
#include "engine/assembly.h"
#include "engine/checkpoint.h"
#include "engine/predictor.h"
#include "engine/scheduler.h"
#include "episodes/sources.h"
#include "kshot/error.h"
#include "kshot/stop.h"
#include "metrics/metrics.h"

namespace kshot {
namespace {

double entropy(std::span<const double> p) {
  double h = 0.0;
  for (const double x : p) {
    if (x > 0.0) h -= x * std::log(x);
  }
  return h;
}

/// Computes the other members of `p` from `raw`. `labels` are those of the support rows. A class
/// that they do not have gets probability 0, unless the head itself predicts such classes
/// (`absent_classes`). A calibration changes `raw` and the standard deviations of a regression, and
/// `mean` of a classification.
void summarise(Prediction& p, std::span<const std::int32_t> labels, bool absent_classes,
               const RunCalibration* calibration) {
  const auto size = static_cast<std::size_t>(p.rows) * static_cast<std::size_t>(p.outputs);
  const auto samples = static_cast<std::size_t>(p.samples);
  const auto outputs = static_cast<std::size_t>(p.outputs);
  if (calibration && !p.classification) {
    calibration->stretch(p.raw, samples);
    const double scale = std::sqrt(calibration->value);
    p.noise_std *= scale;
    for (double& s : p.predictive_std) s *= scale;
  }
  std::vector<double> values = p.raw;
  if (p.classification) {
    std::vector<bool> present(outputs, absent_classes);
    for (const std::int32_t label : labels) present[static_cast<std::size_t>(label)] = true;
    for (std::size_t row = 0; row * outputs < values.size(); ++row) {
      const std::span<double> logits = std::span(values).subspan(row * outputs, outputs);
      for (std::size_t i = 0; i < outputs; ++i) {
        if (!present[i]) logits[i] = -std::numeric_limits<double>::infinity();
      }
      metrics::softmax(logits, logits);
    }
  }
  p.mean.assign(size, 0.0);
  p.std.assign(size, 0.0);
  for (std::size_t i = 0; i < size; ++i) {
    metrics::Mean mean;
    for (std::size_t s = 0; s < samples; ++s) mean.add(values[s * size + i]);
    p.mean[i] = mean.mean();
    if (samples > 1) p.std[i] = mean.standard_deviation();
  }
  if (!p.classification) return;
  const std::vector<double> uncalibrated = p.mean;
  if (calibration) calibration->apply(p.mean, outputs);
  for (std::size_t row = 0; row < static_cast<std::size_t>(p.rows); ++row) {
    p.entropy.push_back(entropy(std::span(p.mean).subspan(row * outputs, outputs)));
    const double total = entropy(std::span(uncalibrated).subspan(row * outputs, outputs));
    double expected = 0.0;
    for (std::size_t s = 0; s < samples; ++s) {
      expected += entropy(std::span(values).subspan(s * size + row * outputs, outputs));
    }
    expected /= static_cast<double>(samples);
    p.mutual_information.push_back(samples > 1 ? std::max(0.0, total - expected) : 0.0);
  }
}

/// Marks a diverged task and makes all its numbers NaN, because those that happen to be finite
/// would mislead.
void mark_diverged(Prediction& p) {
  p.diverged = true;
  for (std::vector<double>* values :
       {&p.raw, &p.mean, &p.std, &p.predictive_std, &p.entropy, &p.mutual_information}) {
    std::ranges::fill(*values, std::numeric_limits<double>::quiet_NaN());
  }
}

void check_finite(std::span<const float> values, const char* what) {
  if (!std::ranges::all_of(values, [](float v) { return std::isfinite(v); })) {
    throw Error(fmt::format("{}: expected finite numbers", what));
  }
}

/// The results of the adaptation of many tasks. Different threads may put different tasks at the
/// same time.
class KeptStates {
 public:
  /// Makes room for `tasks` tasks, with numbers of the precision that the backend computes in.
  KeptStates(std::size_t tasks, backend::Precision precision)
      : tasks_(tasks), single_(precision == backend::Precision::f32) {}

  /// Keeps the results of tasks [first, first + count), as TaskProgram::adapt returned them. Throws
  /// Error where the memory of this machine cannot hold all tasks.
  void put(std::size_t first, std::size_t count, const AdaptedState& state) {
    std::call_once(sized_, [&] { reserve(count, state); });
    for (std::size_t k = 0; k < state.size(); ++k) {
      const std::size_t begin = first * widths_[k];
      if (single_) {
        std::ranges::transform(state[k], numbers<float>(k) + begin,
                               [](double v) { return static_cast<float>(v); });
      } else {
        std::ranges::copy(state[k], numbers<double>(k) + begin);
      }
    }
  }
  AdaptedState get(std::size_t first, std::size_t count) const {
    AdaptedState state;
    for (std::size_t k = 0; k < widths_.size(); ++k) {
      const std::size_t begin = first * widths_[k], end = begin + count * widths_[k];
      if (single_) {
        state.emplace_back(numbers<float>(k) + begin, numbers<float>(k) + end);
      } else {
        state.emplace_back(numbers<double>(k) + begin, numbers<double>(k) + end);
      }
    }
    return state;
  }
  std::size_t bytes_per_task() const {
    return number_bytes() * std::accumulate(widths_.begin(), widths_.end(), std::size_t{0});
  }

 private:
  void reserve(std::size_t count, const AdaptedState& state) {
    for (const std::vector<double>& values : state) widths_.push_back(values.size() / count);
    const double bytes = static_cast<double>(bytes_per_task()) * static_cast<double>(tasks_);
    const double most = physical_memory();
    if (most > 0.0 && bytes > most) {
      throw Error(fmt::format(
          "{} adapted tasks take {:.1f} GiB, {} bytes each, and this machine has {:.1f} GiB of "
          "memory; expected fewer tasks at a time",
          tasks_, bytes / gib, bytes_per_task(), most / gib));
    }
    for (const std::size_t width : widths_) {
      values_.push_back(huge_pages(std::max<std::size_t>(1, tasks_ * width * number_bytes())));
    }
  }
  std::size_t number_bytes() const { return single_ ? sizeof(float) : sizeof(double); }
  template <typename T>
  T* numbers(std::size_t k) const {
    return reinterpret_cast<T*>(values_[k].get());
  }

  static constexpr double gib = 1024.0 * 1024.0 * 1024.0;
  std::size_t tasks_;
  bool single_;
  std::once_flag sized_;
  std::vector<std::size_t> widths_;
  std::vector<std::shared_ptr<std::byte>> values_;  ///< [tasks, width] each
};

}  // namespace

struct Learner::State {
  /// A user's tasks as a source. Episode `first` + i is task i, whatever the seed.
  class GivenTasks final : public EpisodeSource {
   public:
    GivenTasks(const State& state, std::span<const TaskRows> tasks, int first,
               const TaskShape& shape)
        : state_(state), tasks_(tasks), first_(static_cast<std::size_t>(first)), shape_(shape) {}
    TaskShape shape() const override { return shape_; }
    void fill(const TaskId& id, const TaskSlot& slot) const override {
      state_.fill(tasks_[id.task - first_], slot);
    }
    std::string describe() const override { return "given tasks"; }

   private:
    const State& state_;
    std::span<const TaskRows> tasks_;
    std::size_t first_;
    TaskShape shape_;
  };

  State(const std::filesystem::path& run, const LearnerOptions& options)
      : checkpoint(Checkpoint::read(find_checkpoint(run))), stop(options.stop) {
    const Config config =
        Config::parse(checkpoint.config.to_toml(), checkpoint.path.string(), options.overrides);
    assembly = assemble(prediction_config(config), options.device, options.threads);
    outputs = head_outputs();
    load_parameters(assembly, checkpoint);
    assembly.algorithm->prepare(*assembly.backend, assembly.parameters, {});
    noise_std = predictive_noise(assembly);
    if (options.calibrated) {
      calibration = RunCalibration::read(checkpoint.path);
      const PredictOptions predict = predict_options(assembly.config, *assembly.algorithm);
      calibration->check_fit(predict.steps, predict.samples);
    }
  }

  /// Number of classes or target values of every task. 0: each task has its own number.
  int head_outputs() const {
    const Config& config = assembly.config;
    if (!is_closed_form(config.algorithm)) return assembly.network->outputs();
    if (config.algorithm == AlgorithmKind::r2d2 && !is_classification(config)) {
      return checkpoint.source.shape.outputs;
    }
    return kshot::head_outputs(config).second;
  }
  /// Number of outputs for one task: the run's own number, or the task's number of classes where a
  /// closed-form head takes any number.
  int outputs_of(const SupportRows& support) const {
    if (outputs > 0) return outputs;
    if (support.ways > 0) return support.ways;
    if (support.labels.empty()) {
      throw Error("support rows: without labels the number of classes is needed (ways)");
    }
    return std::max(1, 1 + *std::ranges::max_element(support.labels));
  }

  /// Number of rows in `x` [rows, inputs]. Throws Error for an incomplete row and for numbers that
  /// are not finite.
  int rows_in(std::span<const float> x, const char* what, bool may_be_empty) const {
    const auto inputs = static_cast<std::size_t>(assembly.network->input().size());
    if (x.empty() && may_be_empty) return 0;
    if (x.empty() || x.size() % inputs != 0) {
      throw Error(
          fmt::format("{}: {} numbers, expected a positive multiple of the network's {} inputs",
                      what, x.size(), inputs));
    }
    check_finite(x, what);
    return static_cast<int>(x.size() / inputs);
  }

  /// The shape of a task with these support rows and no query rows yet. Throws Error where the rows
  /// do not fit.
  TaskShape checked_shape(const SupportRows& support) const {
    const bool classify = is_classification(assembly.config);
    const int outputs_here = outputs_of(support);
    TaskShape shape;
    shape.input = assembly.network->input();
    shape.outputs = outputs_here;
    shape.target = classify ? TargetKind::label : TargetKind::value;
    shape.support = rows_in(support.x, "support rows", has_prior(assembly.config.algorithm));
    if (shape.support == 0 && assembly.config.evaluate.norm_statistics == "support") {
      throw Error(
          "evaluate.norm_statistics = \"support\": there are no support rows; expected \"batch\"");
    }
    const std::size_t targets = classify ? support.labels.size() : support.values.size();
    const std::size_t expected = static_cast<std::size_t>(shape.support) *
                                 (classify ? 1 : static_cast<std::size_t>(outputs_here));
    if (targets != expected) {
      throw Error(fmt::format("support rows: {} {}, expected {} for {} rows", targets,
                              classify ? "labels" : "target numbers", expected, shape.support));
    }
    if (!classify) {
      check_finite(support.values, "support targets");
      return shape;
    }
    for (const std::int32_t label : support.labels) {
      if (label < 0 || label >= outputs_here) {
        throw Error(fmt::format("support rows: label {} is out of range, expected 0 to {}", label,
                                outputs_here - 1));
      }
    }
    return shape;
  }
  /// The shape of a task with its query rows; throws Error for rows that do not fit.
  TaskShape checked_shape(const TaskRows& task) const {
    TaskShape shape = checked_shape(task.support);
    shape.query = rows_in(task.query_x, "query rows", false);
    return shape;
  }

  /// Writes the rows of a checked task into `slot`, which may have room for more.
  void fill(const TaskRows& task, const TaskSlot& slot) const {
    const auto inputs = static_cast<std::size_t>(assembly.network->input().size());
    std::ranges::copy(task.support.x, slot.support_x.begin());
    std::ranges::copy(task.query_x, slot.query_x.begin());
    const Config::DataTable& data = assembly.config.data;
    if (data.source == DataKind::file && data.unit_length) {
      scale_to_unit_length(slot.support_x.first(task.support.x.size()), inputs);
      scale_to_unit_length(slot.query_x.first(task.query_x.size()), inputs);
    }
    if (is_classification(assembly.config)) {
      std::ranges::copy(task.support.labels, slot.support_label.begin());
    } else {
      std::ranges::copy(task.support.values, slot.support_value.begin());
    }
    *slot.support_n = static_cast<std::int32_t>(task.support.x.size() / inputs);
    *slot.query_n = static_cast<std::int32_t>(task.query_x.size() / inputs);
    if (slot.ways != nullptr) *slot.ways = outputs_of(task.support);
  }

  StepContext step_context() const {
    StepContext context;
    context.seed = assembly.config.evaluate.seed;
    return context;
  }

  /// Makes a prediction from one of the outputs of an episode.
  Prediction prediction(const EpisodePrediction& episode, std::size_t output, int inner_steps,
                        int samples, std::span<const std::int32_t> labels) const {
    Prediction p;
    p.rows = episode.rows;
    p.outputs = episode.outputs_n;
    p.samples = samples;
    p.inner_steps = inner_steps;
    p.classification = is_classification(assembly.config);
    p.raw = episode.outputs[output];
    p.predictive_std = episode.std;
    p.noise_std = noise_std;
    const bool last = output + 1 == episode.outputs.size();
    summarise(p, labels, is_closed_form(assembly.config.algorithm),
              last && calibration ? &*calibration : nullptr);
    return p;
  }

  /// A program with one loaded task. The program may read `rows` in place.
  struct LoadedTask {
    LoadedTask(const State& state, const TaskRows& task, const TaskShape& shape)
        : rows(shape, 1), program(state.assembly.algorithm->open(*state.assembly.backend, shape)) {
      state.fill(task, rows.slot(0));
      program->wave().load(rows, 0, 1, 0);
    }
    LoadedTask(const LoadedTask&) = delete;
    LoadedTask& operator=(const LoadedTask&) = delete;

    TaskBatch rows;
    std::unique_ptr<TaskProgram> program;
  };
  EpisodePrediction predict_one(const LoadedTask& task, const PredictOptions& options,
                                const AdaptedState* adapted) const {
    EpisodePrediction episode = std::move(
        predict_wave(*task.program, task.rows, 0, 1, step_context(), options, adapted).front());
    if (episode.diverged) {
      throw Error(fmt::format("the adaptation diverged; likely cause: {}",
                              assembly.algorithm->divergence_hint()));
    }
    return episode;
  }

  std::vector<Prediction> predict(const SupportRows& support, std::span<const float> query_x,
                                  bool every_step) const {
    const TaskRows rows{support, query_x};
    const LoadedTask task(*this, rows, checked_shape(rows));
    PredictOptions options = predict_options(assembly.config, *assembly.algorithm);
    options.every_step = every_step;
    const EpisodePrediction episode = predict_one(task, options, nullptr);
    std::vector<Prediction> predictions;
    for (std::size_t i = 0; i < episode.outputs.size(); ++i) {
      predictions.push_back(prediction(episode, i, every_step ? static_cast<int>(i) : options.steps,
                                       options.samples, support.labels));
    }
    predictions.back().adapted = adapted(*task.program);
    return predictions;
  }

  /// Calls `body` for task i. An Error of `body` is thrown again with the task's number.
  template <class Body>
  static auto of_task(std::size_t i, const Body& body) {
    try {
      return body();
    } catch (const Error& error) {
      throw Error(fmt::format("task {}: {}", i, error.what()));
    }
  }

  /// The shape that has room for every task. Tasks are TaskRows or SupportRows.
  template <class Rows>
  TaskShape common_shape(std::span<const Rows> tasks) const {
    TaskShape common;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      const TaskShape shape = of_task(i, [&] { return checked_shape(tasks[i]); });
      if (i == 0) common = shape;
      common.ways_vary = common.ways_vary || shape.outputs != common.outputs;
      common.outputs = std::max(common.outputs, shape.outputs);
      common.support = std::max(common.support, shape.support);
      common.query = std::max(common.query, shape.query);
    }
    return common;
  }

  static void check_number(int first_number) {
    if (first_number >= 0) return;
    throw Error(fmt::format("number of the first task: expected at least 0, got {}", first_number));
  }
  PredictOptions last_step() const {
    PredictOptions options = predict_options(assembly.config, *assembly.algorithm);
    options.every_step = false;
    return options;
  }

  /// Loads the tasks wave by wave on all threads. Calls visit(program, batch, first, count) for
  /// each wave, which holds the tasks [first, first + count). The number of the first task is
  /// `first_number`.
  template <class Visit>
  void for_each_wave(std::span<const TaskRows> tasks, const TaskShape& shape, int first_number,
                     const Visit& visit) const {
    const GivenTasks source(*this, tasks, first_number, shape);
    Scheduler scheduler(*assembly.backend, *assembly.algorithm, shape);
    scheduler.for_each_wave(
        assembly.parameters, source, assembly.config.evaluate.seed, Split::test, first_number,
        first_number + static_cast<int>(tasks.size()),
        [&](TaskProgram& program, const TaskBatch& batch, int first, int count) {
          if (stop && stop()) throw Stopped();
          visit(program, batch, static_cast<std::size_t>(first - first_number),
                static_cast<std::size_t>(count));
        });
  }

  /// Predicts tasks of one shape. `adapted` holds the results of their adaptation. Where it is
  /// null, the tasks are adapted here.
  std::vector<Prediction> predict_many(std::span<const TaskRows> tasks, const TaskShape& shape,
                                       int first_number, const KeptStates* adapted) const {
    std::vector<Prediction> predictions(tasks.size());
    const PredictOptions options = last_step();
    for_each_wave(
        tasks, shape, first_number,
        [&](TaskProgram& program, const TaskBatch& batch, std::size_t first, std::size_t count) {
          std::optional<AdaptedState> state;
          if (adapted != nullptr) state = adapted->get(first, count);
          const std::vector<EpisodePrediction> episodes =
              predict_wave(program, batch, static_cast<int>(first), static_cast<int>(count),
                           step_context(), options, state ? &*state : nullptr);
          for (const EpisodePrediction& episode : episodes) {
            const auto i = static_cast<std::size_t>(episode.episode);
            predictions[i] =
                prediction(episode, 0, options.steps, options.samples, tasks[i].support.labels);
            if (episode.diverged) mark_diverged(predictions[i]);
          }
        });
    return predictions;
  }

  /// Downloads the adapted state, which has the layout of the network's weights.
  std::vector<AdaptedTensor> adapted(TaskProgram& program) const {
    std::vector<AdaptedTensor> tensors;
    for (const TaskProgram::NamedBlock& named : program.adapted()) {
      std::vector<double> flat(assembly.network->size());
      program.wave().download(named.block, flat);
      append_tensors(named.name, flat, tensors);
    }
    return tensors;
  }
  void append_tensors(const std::string& name, const std::vector<double>& flat,
                      std::vector<AdaptedTensor>& tensors) const {
    for (const ParameterTensor& t : assembly.network->parameters()) {
      const auto begin = flat.begin() + static_cast<std::ptrdiff_t>(t.offset);
      tensors.push_back(
          {name + "." + t.name, t.shape, {begin, begin + static_cast<std::ptrdiff_t>(t.size)}});
    }
  }

  Checkpoint checkpoint;
  Assembly assembly;
  int outputs = 0;
  double noise_std = 0.0;
  std::optional<RunCalibration> calibration;
  std::function<bool()> stop;
};

struct AdaptedTask::State {
  State(std::shared_ptr<const Learner::State> of_learner, const SupportRows& rows)
      : learner(std::move(of_learner)),
        options(learner->last_step()),
        x(rows.x.begin(), rows.x.end()),
        labels(rows.labels.begin(), rows.labels.end()),
        values(rows.values.begin(), rows.values.end()),
        ways(rows.ways),
        shape(learner->checked_shape(rows)) {
    // Adaptation does not read query rows, but a wave has room for at least one.
    const std::vector<float> no_query(static_cast<std::size_t>(shape.input.size()), 0.0F);
    shape.query = 1;
    const Learner::State::LoadedTask task(*learner, {support(), no_query}, shape);
    adapted = task.program->adapt(learner->step_context(), options);
    tensors = learner->adapted(*task.program);
  }

  SupportRows support() const { return {x, labels, values, ways}; }

  Prediction predict(std::span<const float> query_x) const {
    TaskShape with_query = shape;
    with_query.query = learner->rows_in(query_x, "query rows", false);
    const Learner::State::LoadedTask task(*learner, {support(), query_x}, with_query);
    const EpisodePrediction episode = learner->predict_one(task, options, &adapted);
    Prediction p = learner->prediction(episode, 0, options.steps, options.samples, labels);
    p.adapted = tensors;
    return p;
  }

  std::vector<std::vector<AdaptedTensor>> samples() const {
    std::vector<std::vector<AdaptedTensor>> all;
    if (learner->assembly.config.algorithm != AlgorithmKind::leo) return all;
    for (const std::vector<double>& weights : adapted) {
      learner->append_tensors("theta", weights, all.emplace_back());
    }
    return all;
  }

  std::shared_ptr<const Learner::State> learner;
  PredictOptions options;
  std::vector<float> x;
  std::vector<std::int32_t> labels;
  std::vector<float> values;
  int ways;
  TaskShape shape;
  AdaptedState adapted;
  std::vector<AdaptedTensor> tensors;
};

struct AdaptedTasks::State {
  State(std::shared_ptr<const Learner::State> of_learner, std::span<const SupportRows> supports,
        int first)
      : learner(std::move(of_learner)),
        first_number(first),
        adapted(supports.size(), learner->assembly.backend->precision()) {
    Learner::State::check_number(first);
    if (supports.empty()) return;
    shape = learner->common_shape(supports);
    keep(supports);
    // Adaptation does not read query rows, but a wave has room for at least one.
    const std::vector<float> no_query(static_cast<std::size_t>(shape.input.size()), 0.0F);
    shape.query = 1;
    std::vector<TaskRows> tasks;
    for (const SupportRows& support : supports) tasks.push_back({support, no_query});
    const PredictOptions options = learner->last_step();
    learner->for_each_wave(
        tasks, shape, first,
        [&](TaskProgram& program, const TaskBatch&, std::size_t begin, std::size_t count) {
          adapted.put(begin, count, program.adapt(learner->step_context(), options));
        });
  }

  std::vector<Prediction> predict(std::span<const std::span<const float>> query_x) const {
    if (query_x.size() != rows.size()) {
      throw Error(fmt::format("query rows: got the rows of {} tasks, expected {}", query_x.size(),
                              rows.size()));
    }
    if (rows.empty()) return {};
    TaskShape with_query = shape;
    std::vector<TaskRows> tasks;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const int count = Learner::State::of_task(
          i, [&] { return learner->rows_in(query_x[i], "query rows", false); });
      with_query.query = std::max(with_query.query, count);
      tasks.push_back({rows[i], query_x[i]});
    }
    return learner->predict_many(tasks, with_query, first_number, &adapted);
  }

 private:
  /// Copies the part of the support rows that predictions from an adapted state still read: the
  /// number of rows, the labels, and the inputs where norm layers take statistics from them. The
  /// other numbers are replaced by zeros, which all tasks share.
  void keep(std::span<const SupportRows> supports) {
    const bool inputs = learner->last_step().statistics == backend::NormStatistics::support;
    std::size_t most_x = 0, most_values = 0;
    for (const SupportRows& support : supports) {
      if (inputs) x.insert(x.end(), support.x.begin(), support.x.end());
      labels.insert(labels.end(), support.labels.begin(), support.labels.end());
      most_x = std::max(most_x, support.x.size());
      most_values = std::max(most_values, support.values.size());
    }
    zeros.resize(std::max(inputs ? 0 : most_x, most_values));
    std::size_t at_x = 0, at_label = 0;
    for (const SupportRows& support : supports) {
      const std::span<const float> own =
          inputs ? std::span<const float>(x).subspan(at_x, support.x.size())
                 : std::span<const float>(zeros).first(support.x.size());
      rows.push_back({.x = own,
                      .labels = std::span(labels).subspan(at_label, support.labels.size()),
                      .values = std::span<const float>(zeros).first(support.values.size()),
                      .ways = support.ways});
      at_x += support.x.size();
      at_label += support.labels.size();
    }
  }

 public:
  std::shared_ptr<const Learner::State> learner;
  int first_number;
  TaskShape shape;
  std::vector<float> x, zeros;
  std::vector<std::int32_t> labels;
  std::vector<SupportRows> rows;  ///< support rows of each task, which refer to the vectors above
  KeptStates adapted;
};

AdaptedTasks::AdaptedTasks(std::unique_ptr<State> state) : state_(std::move(state)) {}
AdaptedTasks::~AdaptedTasks() = default;
AdaptedTasks::AdaptedTasks(AdaptedTasks&&) noexcept = default;
AdaptedTasks& AdaptedTasks::operator=(AdaptedTasks&&) noexcept = default;

std::size_t AdaptedTasks::size() const {
  return state_->rows.size();
}
std::size_t AdaptedTasks::bytes_per_task() const {
  return state_->adapted.bytes_per_task();
}
std::vector<Prediction> AdaptedTasks::predict(
    std::span<const std::span<const float>> query_x) const {
  return state_->predict(query_x);
}

AdaptedTask::AdaptedTask(std::unique_ptr<State> state) : state_(std::move(state)) {}
AdaptedTask::~AdaptedTask() = default;
AdaptedTask::AdaptedTask(AdaptedTask&&) noexcept = default;
AdaptedTask& AdaptedTask::operator=(AdaptedTask&&) noexcept = default;

Prediction AdaptedTask::predict(std::span<const float> query_x) const {
  return state_->predict(query_x);
}
const std::vector<AdaptedTensor>& AdaptedTask::adapted() const {
  return state_->tensors;
}
std::vector<std::vector<AdaptedTensor>> AdaptedTask::samples() const {
  return state_->samples();
}

Learner::Learner(const std::filesystem::path& run, const LearnerOptions& options)
    : state_(std::make_shared<const State>(run, options)) {}
Learner::~Learner() = default;
Learner::Learner(Learner&&) noexcept = default;
Learner& Learner::operator=(Learner&&) noexcept = default;

const Config& Learner::config() const {
  return state_->assembly.config;
}
const Network& Learner::network() const {
  return *state_->assembly.network;
}
std::vector<AdaptedTensor> Learner::parameters() const {
  const Assembly& assembly = state_->assembly;
  const std::vector<ParameterGroup>& groups = assembly.algorithm->groups();
  std::vector<AdaptedTensor> all;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    std::vector<double> values(groups[g].size);
    assembly.parameters[g]->download(values);
    for (const ParameterTensor& t : groups[g].tensors) {
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(t.offset);
      all.push_back(
          {full_name(groups[g], t), t.shape, {begin, begin + static_cast<std::ptrdiff_t>(t.size)}});
    }
  }
  return all;
}
int Learner::outputs() const {
  return state_->outputs;
}
const std::string& Learner::preprocessing() const {
  return state_->checkpoint.source.preprocessing;
}
const std::optional<RunCalibration>& Learner::calibration() const {
  return state_->calibration;
}
std::string Learner::device() const {
  return device_text(*state_->assembly.backend);
}

Prediction Learner::predict(const SupportRows& support, std::span<const float> query_x) const {
  return std::move(state_->predict(support, query_x, false).front());
}
std::vector<Prediction> Learner::predict_steps(const SupportRows& support,
                                               std::span<const float> query_x) const {
  return state_->predict(support, query_x, true);
}

std::vector<Prediction> Learner::predict_many(std::span<const TaskRows> tasks,
                                              int first_number) const {
  State::check_number(first_number);
  if (tasks.empty()) return {};
  return state_->predict_many(tasks, state_->common_shape(tasks), first_number, nullptr);
}

AdaptedTask Learner::adapt(const SupportRows& support) const {
  return AdaptedTask(std::make_unique<AdaptedTask::State>(state_, support));
}

AdaptedTasks Learner::adapt_many(std::span<const SupportRows> supports, int first_number) const {
  return AdaptedTasks(std::make_unique<AdaptedTasks::State>(state_, supports, first_number));
}

void Learner::check(const SupportRows& support) const {
  state_->checked_shape(support);
}

}  // namespace kshot
