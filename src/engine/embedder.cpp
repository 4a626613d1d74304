#include "kshot/embedder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <system_error>
#include <utility>

#include "base/episode_stream.h"
#include "base/feature_network.h"
#include "base/log.h"
#include "data/dataset.h"
#include "engine/assembly.h"
#include "engine/checkpoint.h"
#include "engine/data_file.h"
#include "engine/divided_work.h"
#include "engine/rank_checks.h"
#include "episodes/sample.h"
#include "episodes/sources.h"
#include "io/npy.h"
#include "io/output_file.h"
#include "kshot/error.h"
#include "kshot/version.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using backend::Block;
using backend::NormStatistics;
using backend::Set;

std::string size_text(const FeatureShape& s) {
  return s.spatial ? fmt::format("images {} x {} x {}", s.channels, s.height, s.width)
                   : fmt::format("vectors of {}", s.size());
}

/// Opens a data file of classes whose rows fit the network.
std::shared_ptr<const data::Dataset> open_classes(const fs::path& file, const Network& network) {
  std::shared_ptr<const data::Dataset> data = data::Dataset::open(file);
  const data::DatasetHeader& header = data->header();
  if (header.kind != data::GroupKind::classes) {
    throw Error(fmt::format("{}: holds tasks; expected a file of classes", file.string()));
  }
  const FeatureShape& input = network.input();
  if (header.input.size() != input.size() || (input.spatial && header.input != input)) {
    throw Error(fmt::format("{}: holds {}; the network takes {}", file.string(),
                            size_text(header.input), size_text(input)));
  }
  return data;
}

/// The number of rows whose activations in the widest layer take at most 64 MiB (single precision),
/// but from 16 to 1024.
int rows_that_fit(const Network& network) {
  std::size_t widest = static_cast<std::size_t>(network.input().size());
  for (const Layer& layer : network.layers()) {
    widest = std::max(widest, static_cast<std::size_t>(layer.out.size()));
  }
  return static_cast<int>(std::clamp<std::size_t>((std::size_t{1} << 24) / widest, 16, 1024));
}

}  // namespace

struct Embedder::State {
  State(const fs::path& run, const EmbedderOptions& options)
      : checkpoint(Checkpoint::read(find_checkpoint(run))) {
    const std::string file = checkpoint.path.string();
    config = Config::parse(checkpoint.config.to_toml(), file, options.overrides);
    if (config.algorithm == AlgorithmKind::leo) {
      throw Error(fmt::format(
          "{}: algorithm = \"leo\" generates every task's weights and has no network of features; "
          "expected a run of another algorithm",
          file));
    }
    const auto whole = std::make_shared<const Network>(config.make_network());
    try {
      // With a closed-form head, the network's outputs are the features.
      network = is_closed_form(config.algorithm)
                    ? whole
                    : std::make_shared<const Network>(feature_network(*whole));
    } catch (const Error& error) {
      throw Error(fmt::format("{}: {}", file, error.what()));
    }
    backend = backend::make_backend(options.device, options.threads);
    load_weights(whole);
    draw_reference(options.allow_changed_data);
    workers.resize(static_cast<std::size_t>(backend->pool().workers()));
    plan_wave();
  }

  /// A thread's own wave, and memory for its rows.
  struct Worker {
    std::unique_ptr<backend::Wave> wave;
    Block weights;
    TaskBatch batch;
    std::vector<double> outputs;
  };

  std::size_t inputs() const { return static_cast<std::size_t>(network->input().size()); }
  std::size_t features() const { return static_cast<std::size_t>(network->outputs()); }
  /// Number of examples in one wave.
  std::size_t wave_rows() const {
    return static_cast<std::size_t>(tasks) * static_cast<std::size_t>(rows);
  }

  /// Loads the weights of the feature layers. They come first in the vector, because the layers do.
  void load_weights(const std::shared_ptr<const Network>& whole) {
    const std::unique_ptr<Algorithm> algorithm = make_algorithm(config, whole);
    const ParameterGroup& group = algorithm->groups().front();  // theta, or mu
    const backend::Shared all = backend->shared(group.size);
    checkpoint.load("", group, *all);
    std::vector<double> values(group.size);
    all->download(values);
    values.resize(network->size());
    weights = backend->shared(values.size());
    weights->upload(values);
  }

  /// Draws examples of the training classes as a support set, which gives norm layers their
  /// statistics.
  void draw_reference(bool allow_changed_data) {
    reference.assign(inputs(), 0.0f);  // one row, which is never read
    if (!has_norm(*network)) return;
    if (config.data.source != DataKind::file || config.data.path.empty()) {
      throw Error(
          fmt::format("{}: data.path: norm layers take their statistics from training examples; "
                      "expected the data file of the run (--set data.path=FILE)",
                      checkpoint.path.string()));
    }
    config = locate_data(config, checkpoint);
    const std::shared_ptr<const data::Dataset> data = open_classes(config.data.path, *network);
    const bool changed = check_same_data(checkpoint, *data, allow_changed_data);
    std::vector<std::uint64_t> all;
    for (const std::uint32_t g : data->header().split_groups(Split::train)) {
      const data::Group& group = data->header().groups[g];
      for (std::uint64_t row = 0; row < group.rows; ++row) all.push_back(group.first + row);
    }
    if (all.empty()) {
      throw Error(
          fmt::format("{}: has no train classes; norm layers take their statistics from "
                      "their examples",
                      config.data.path));
    }
    std::vector<std::uint32_t> chosen(
        std::min({all.size(), static_cast<std::size_t>(reference_rows),
                  static_cast<std::size_t>(rows_that_fit(*network))}));
    // A step that hardly any training reaches, and that the counter's bits for the step can hold
    // (RandomKey).
    RandomStream stream = episode_stream(
        {.seed = config.seed, .split = Split::train, .step = (std::uint64_t{1} << 28) - 1});
    sample_without_replacement(stream, static_cast<std::uint32_t>(all.size()), chosen);
    reference.resize(chosen.size() * inputs());
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      data->read(all[chosen[i]], std::span(reference).subspan(i * inputs(), inputs()));
    }
    data->check();
    if (takes_unit_length()) scale_to_unit_length(reference, inputs());
    statistics = fmt::format("norm statistics of {} training examples of {} (seed {}{})",
                             chosen.size(), data->path().filename().string(), config.seed,
                             changed ? ", not the data file of the training" : "");
  }

  std::unique_ptr<backend::Wave> open_wave() const {
    return backend->open(network, {},
                         {static_cast<int>(reference.size() / inputs()), rows, false, false});
  }

  /// Chooses the tasks of a wave, and the rows of each task. With more tasks, each has fewer rows.
  void plan_wave() {
    rows = rows_that_fit(*network);
    tasks = std::min(open_wave()->capacity(), 16);
    rows = std::max(rows / tasks, 1);
  }

  Worker& worker(std::size_t index) {
    if (!workers[index]) {
      auto made = std::make_unique<Worker>();
      made->wave = open_wave();
      made->weights = made->wave->weights();
      // Labels are never read. As targets they take the least memory.
      made->batch = TaskBatch({.input = network->input(),
                               .outputs = network->outputs(),
                               .target = TargetKind::label,
                               .support = static_cast<int>(reference.size() / inputs()),
                               .query = rows},
                              tasks);
      for (int t = 0; t < tasks; ++t) {
        std::ranges::copy(reference, made->batch.slot(t).support_x.begin());
      }
      workers[index] = std::move(made);
    }
    return *workers[index];
  }

  /// Embeds up to wave_rows() examples on one thread.
  void embed(Worker& w, std::span<const float> x, std::span<float> out) const {
    const std::size_t count = x.size() / inputs();
    const auto per_task = static_cast<std::size_t>(rows);
    const std::size_t used = (count + per_task - 1) / per_task;
    for (std::size_t t = 0; t < used; ++t) {
      const std::size_t n = std::min(per_task, count - t * per_task);
      const TaskSlot slot = w.batch.slot(static_cast<int>(t));
      std::ranges::copy(x.subspan(t * per_task * inputs(), n * inputs()), slot.query_x.begin());
      *slot.query_n = static_cast<std::int32_t>(n);
      if (takes_unit_length()) scale_to_unit_length(slot.query_x.first(n * inputs()), inputs());
    }
    w.wave->load(w.batch, 0, static_cast<int>(used), 0);
    w.wave->broadcast(w.weights, *weights);
    const Block block = w.wave->outputs(Set::query);
    w.wave->value({.set = Set::query, .weights = w.weights, .scale = {}}, {}, block,
                  NormStatistics::support);
    const std::size_t stride = static_cast<std::size_t>(w.wave->rows(Set::query)) * features();
    w.outputs.resize(used * stride);
    w.wave->download(block, w.outputs);
    for (std::size_t t = 0; t < used; ++t) {
      const std::size_t n = std::min(per_task, count - t * per_task);
      std::ranges::transform(std::span(w.outputs).subspan(t * stride, n * features()),
                             out.begin() + static_cast<std::ptrdiff_t>(t * per_task * features()),
                             [](double v) { return static_cast<float>(v); });
    }
  }

  bool takes_unit_length() const {
    return config.data.source == DataKind::file && config.data.unit_length;
  }

  Checkpoint checkpoint;
  Config config;
  std::shared_ptr<const Network> network;
  std::unique_ptr<backend::Backend> backend;
  backend::Shared weights;
  std::vector<float> reference;  ///< [rows, inputs]
  std::string statistics;        ///< norm statistics in words; empty without norm layers
  int tasks = 1, rows = 1;       ///< tasks of a wave, and rows of each task
  std::vector<std::unique_ptr<Worker>> workers;
  std::mutex mutex;  ///< the workers serve one call at a time
};

Embedder::Embedder(const fs::path& run, const EmbedderOptions& options)
    : state_(std::make_unique<State>(run, options)) {}
Embedder::~Embedder() = default;
Embedder::Embedder(Embedder&&) noexcept = default;
Embedder& Embedder::operator=(Embedder&&) noexcept = default;

const Config& Embedder::config() const {
  return state_->config;
}
const Network& Embedder::network() const {
  return *state_->network;
}
const std::string& Embedder::preprocessing() const {
  return state_->checkpoint.source.preprocessing;
}
std::string Embedder::device() const {
  return device_text(*state_->backend);
}

std::string Embedder::describe() const {
  const State& s = *state_;
  return fmt::format("{} after {} meta-steps{}{}", s.checkpoint.path.string(),
                     s.checkpoint.state.step, s.statistics.empty() ? "" : "; ", s.statistics);
}

std::size_t Embedder::preferred_rows() const {
  return state_->wave_rows() * state_->workers.size();
}

std::vector<float> Embedder::embed(std::span<const float> x) const {
  State& s = *state_;
  if (x.size() % s.inputs() != 0) {
    throw Error(fmt::format("{} numbers, expected a multiple of the network's {} inputs", x.size(),
                            s.inputs()));
  }
  const std::lock_guard lock(s.mutex);
  const std::size_t count = x.size() / s.inputs();
  const std::size_t each = s.wave_rows();
  std::vector<float> out(count * s.features());
  s.backend->pool().run((count + each - 1) / each, [&](std::size_t index, std::size_t wave) {
    const std::size_t first = wave * each;
    const std::size_t n = std::min(each, count - first);
    s.embed(s.worker(index), x.subspan(first * s.inputs(), n * s.inputs()),
            std::span(out).subspan(first * s.features(), n * s.features()));
  });
  return out;
}

namespace {

/// The destination of features.
class FeatureSink {
 public:
  virtual ~FeatureSink() = default;
  virtual void begin_class(const data::Group& group) = 0;
  virtual void add(std::span<const float> row) = 0;
  virtual std::vector<fs::path> commit() = 0;
};

/// Writes features as a data file.
class DataFileSink final : public FeatureSink {
 public:
  DataFileSink(const fs::path& output, const Embedder& embedder, const data::Dataset& data)
      : output_(output), writer_(output, header(embedder, data), {data.path()}) {}
  void begin_class(const data::Group& group) override {
    writer_.begin_group(group.name, group.split);
  }
  void add(std::span<const float> row) override { writer_.add(row); }
  std::vector<fs::path> commit() override {
    writer_.commit();
    return {output_};
  }

 private:
  static data::DatasetHeader header(const Embedder& embedder, const data::Dataset& data) {
    data::DatasetHeader h;
    h.kind = data::GroupKind::classes;
    h.element = data::Element::f32;
    h.input = {.channels = embedder.network().outputs()};
    // A new task comes as a table of features.
    h.preprocessing.kind = data::Preprocessing::Kind::table;
    h.preprocessing.input = h.input;
    h.preprocessing.standardised = false;
    h.preprocessing.named_columns = false;
    for (int i = 0; i < h.input.channels; ++i) {
      data::Preprocessing::Column column;
      column.name = fmt::format("x{}", i);
      h.preprocessing.columns.push_back(std::move(column));
    }
    h.provenance = {
        {"program", fmt::format("kshot {}", version())},
        {"import", "embed"},
        {"sources", fmt::format("{} (checksum {:08x})", data.path().string(), data.checksum())},
        {"features", embedder.describe()}};
    return h;
  }

  fs::path output_;
  data::DatasetWriter writer_;
};

/// Writes features as an .npz file, and the names of the classes as a table beside it.
class ArraySink final : public FeatureSink {
 public:
  ArraySink(fs::path output, int features, const fs::path& data)
      : output_(std::move(output)),
        names_(fs::path(output_).replace_extension(".tsv")),
        features_(static_cast<std::size_t>(features)),
        array_file_(output_, io::OutputKind::arrays, {data}),
        table_file_(names_, io::OutputKind::class_table, {data}) {}
  void begin_class(const data::Group& group) override {
    if (group.name.find_first_of("\t\r\n") != std::string::npos) {
      throw Error(
          fmt::format("{}: the name of class {} has a tab or a line break; expected an "
                      "output that does not end in .npz",
                      names_.string(), label_ + 1));
    }
    ++label_;
    table_ += fmt::format("{}\t{}\t{}\n", label_, group.name, split_name(group.split));
  }
  void add(std::span<const float> row) override {
    x_.insert(x_.end(), row.begin(), row.end());
    y_.push_back(label_);
  }
  std::vector<fs::path> commit() override {
    io::write_npz(output_,
                  {{"x", io::Tensor::from(std::span<const float>(x_), {y_.size(), features_})},
                   {"y", io::Tensor::from(std::span<const std::int64_t>(y_), {y_.size()})}});
    array_file_.written();
    table_file_.write(table_);
    return {output_, names_};
  }

 private:
  fs::path output_, names_;
  std::size_t features_;
  io::OutputFile array_file_, table_file_;
  std::string table_{io::class_table_header};
  std::int64_t label_ = -1;
  std::vector<float> x_;
  std::vector<std::int64_t> y_;
};

std::unique_ptr<FeatureSink> make_sink(const fs::path& output, const Embedder& embedder,
                                       const data::Dataset& data) {
  if (output.extension() == ".npz") {
    return std::make_unique<ArraySink>(output, embedder.network().outputs(), data.path());
  }
  return std::make_unique<DataFileSink>(output, embedder, data);
}

/// The number of rows that the ranks exchange together: 64 MiB of features per rank, but at least
/// 16 rows per rank.
std::size_t rows_per_exchange(const Embedder& embedder, const Communicator& ranks) {
  const auto size = static_cast<std::size_t>(ranks.size());
  const std::size_t row = static_cast<std::size_t>(embedder.network().outputs()) * sizeof(float);
  const std::size_t fit = (std::size_t{64} << 20) / row / size;
  return size *
         std::clamp<std::size_t>(fit, 16, std::max<std::size_t>(16, embedder.preferred_rows()));
}

/// Hands rows of features to the sink. Throws Error where a row is not finite.
class FeatureRows {
 public:
  FeatureRows(FeatureSink* sink, const data::Dataset& data, std::size_t width)
      : sink_(sink), data_(data), width_(width), group_(data.header().groups.begin()) {}
  /// `rows` is [n, width].
  void add(std::span<const float> rows) {
    for (; !rows.empty(); rows = rows.subspan(width_)) {
      const std::span<const float> row = rows.first(width_);
      if (in_group_ == 0 && sink_ != nullptr) sink_->begin_class(*group_);
      if (!std::ranges::all_of(row, [](float v) { return std::isfinite(v); })) {
        throw Error(
            fmt::format("{}: class '{}', example {}: the network gives features that are "
                        "not finite",
                        data_.path().string(), group_->name, in_group_));
      }
      if (sink_ != nullptr) sink_->add(row);
      ++done_;
      if (++in_group_ == group_->rows) {
        ++group_;
        in_group_ = 0;
      }
    }
  }
  std::uint64_t done() const { return done_; }

 private:
  FeatureSink* sink_;  ///< null on a rank that does not write
  const data::Dataset& data_;
  std::size_t width_;
  std::vector<data::Group>::const_iterator group_;
  std::uint64_t in_group_ = 0, done_ = 0;
};

EmbeddedFile embed(const Embedder& embedder, const fs::path& data, const fs::path& output,
                   const std::function<void(std::uint64_t, std::uint64_t)>& progress,
                   Communicator* ranks) {
  const std::shared_ptr<const data::Dataset> file = open_classes(data, embedder.network());
  const data::DatasetHeader& header = file->header();
  if (ranks != nullptr) {
    std::vector<RankFact> facts =
        work_facts("embed", embedder.device(), describe_data(*file).checksum);
    // The path of the checkpoint may differ between machines.
    const std::string text = embedder.describe();
    facts.push_back({"the run", text.substr(text.rfind(" after ") + 1)});
    check_same(ranks, facts);
    check_same_config(ranks, embedder.config());
  }
  const bool is_rank_zero = kshot::is_rank_zero(ranks);
  if (is_rank_zero && !embedder.preprocessing().empty() &&
      embedder.preprocessing() != header.preprocessing.to_json()) {
    log_warning(
        fmt::format("{}: its examples were prepared differently from the training data of the "
                    "network (kshot inspect shows how)",
                    data.string()));
  }
  const std::unique_ptr<FeatureSink> sink =
      is_rank_zero ? make_sink(output, embedder, *file) : nullptr;
  const auto inputs = static_cast<std::size_t>(embedder.network().input().size());
  const auto features = static_cast<std::size_t>(embedder.network().outputs());
  const std::uint64_t total = header.rows();
  const std::size_t portion =
      ranks != nullptr ? rows_per_exchange(embedder, *ranks) : embedder.preferred_rows();
  FeatureRows rows(sink.get(), *file, features);
  std::vector<float> x;
  const auto work = [&](std::size_t first, std::size_t count, const auto& put) {
    x.resize(count * inputs);
    for (std::size_t i = 0; i < count; ++i) {
      file->read(first + i, std::span(x).subspan(i * inputs, inputs));
    }
    file->check();
    put(embedder.embed(x));
  };
  divide_work<std::vector<float>>(
      ranks, {static_cast<std::size_t>(total), portion, backend::run_tasks, "features"}, work,
      [&](const std::vector<float>& y) {
        rows.add(y);
        if (progress) progress(rows.done(), total);
      });
  EmbeddedFile result{.rows = total, .features = static_cast<int>(features), .files = {}};
  if (sink) result.files = sink->commit();
  if (ranks == nullptr) return result;
  Pack names;
  for (const fs::path& path : result.files) {
    std::string name = path.string();
    names(name);
  }
  const auto all = ranks->all_gather(names.take(), "the files of features");
  result.files.clear();
  for (Unpack of(all.front()); !of.done();) {
    std::string name;
    of(name);
    result.files.emplace_back(name);
  }
  return result;
}

}  // namespace

EmbeddedFile embed_file(const Embedder& embedder, const fs::path& data, const fs::path& output,
                        const std::function<void(std::uint64_t, std::uint64_t)>& progress,
                        const std::shared_ptr<Communicator>& ranks) {
  return run_and_report_failure(
      ranks.get(), [&] { return embed(embedder, data, output, progress, ranks.get()); });
}

}  // namespace kshot
