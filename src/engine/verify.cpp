#include "engine/verify.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <system_error>

#include "engine/assembly.h"
#include "engine/scheduler.h"
#include "kshot/error.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using Arrays = std::map<std::string, io::NpyArray>;
using Sizes = std::vector<std::size_t>;

const char* precision_name(backend::Precision precision) {
  return precision == backend::Precision::f64 ? "f64" : "f32";
}

/// The arrays of inputs.npz, asked for by name.
class Inputs {
 public:
  explicit Inputs(const fs::path& path) : path_(path.string()), arrays_(io::read_npz(path)) {}

  bool has(const std::string& key) const { return arrays_.contains(key); }
  const io::NpyArray& at(const std::string& key) const {
    const auto found = arrays_.find(key);
    if (found == arrays_.end()) throw Error(fmt::format("{}: \"{}\" is missing", path_, key));
    return found->second;
  }
  std::vector<double> numbers(const std::string& key, const Sizes& shape) const {
    const io::NpyArray& array = at(key);
    if (array.shape != shape) fail_shape(key, array.shape, io::shape_text(shape));
    std::vector<double> values = array.to_f64();
    if (!std::ranges::all_of(values, [](double v) { return std::isfinite(v); })) {
      throw Error(fmt::format("{}: \"{}\": expected finite numbers", path_, key));
    }
    return values;
  }
  /// Whole numbers in [low, high].
  std::vector<std::int32_t> integers(const std::string& key, const Sizes& shape, int low,
                                     int high) const {
    const io::NpyArray& array = at(key);
    if (array.shape != shape) fail_shape(key, array.shape, io::shape_text(shape));
    std::vector<std::int32_t> values;
    for (const std::int64_t v : array.to_i64()) {
      if (v < low || v > high) {
        throw Error(fmt::format("{}: \"{}\": {} is out of range, expected {} to {}", path_, key, v,
                                low, high));
      }
      values.push_back(static_cast<std::int32_t>(v));
    }
    return values;
  }
  [[noreturn]] void fail_shape(const std::string& key, const Sizes& shape,
                               const std::string& expected) const {
    throw Error(fmt::format("{}: \"{}\" has shape {}, expected {}", path_, key,
                            io::shape_text(shape), expected));
  }

 private:
  std::string path_;
  Arrays arrays_;
};

/// Number of tasks and rows of "support_x" or "query_x", whose examples must fit the network.
std::pair<std::size_t, std::size_t> tasks_and_rows(const Inputs& inputs, const std::string& key,
                                                   const FeatureShape& input) {
  const Sizes& shape = inputs.at(key).shape;
  Sizes example;
  if (input.spatial) {
    example = {static_cast<std::size_t>(input.channels), static_cast<std::size_t>(input.height),
               static_cast<std::size_t>(input.width)};
  } else {
    example = {static_cast<std::size_t>(input.size())};
  }
  const bool fits = shape.size() == 2 + example.size() && shape[0] > 0 && shape[1] > 0 &&
                    std::equal(example.begin(), example.end(), shape.begin() + 2);
  if (!fits) {
    inputs.fail_shape(key, shape, fmt::format("(tasks, rows, {})", fmt::join(example, ", ")));
  }
  return {shape[0], shape[1]};
}

/// Number of classes or target values of the case's tasks. That of a closed-form head is in the
/// head's table, or follows from the targets.
int case_outputs(const Inputs& inputs, const Config& config, const Network& network) {
  if (!is_closed_form(config.algorithm)) return network.outputs();
  if (!is_classification(config)) {
    const Sizes& shape = inputs.at("query_y").shape;
    if (shape.size() != 3 || shape[2] < 1) {
      inputs.fail_shape("query_y", shape, "(tasks, rows, outputs)");
    }
    return static_cast<int>(shape[2]);
  }
  const int ways = config.algorithm == AlgorithmKind::protonet ? config.protonet.ways
                   : config.algorithm == AlgorithmKind::r2d2   ? config.r2d2.ways
                                                               : config.bayes_protonet.ways;
  if (ways < 1) {
    throw Error(
        fmt::format("{}: \"ways\" is missing in the algorithm's table: expected the largest "
                    "number of classes of a task",
                    "case.toml"));
  }
  return ways;
}

TaskBatch read_batch(const Inputs& inputs, const Config& config, const Network& network) {
  const auto [tasks, support] = tasks_and_rows(inputs, "support_x", network.input());
  // The objective of hvi is over the training tasks' own sets and has no query rows.
  const bool with_query = config.algorithm != AlgorithmKind::hvi;
  std::size_t query = 0;
  if (with_query) {
    const auto [query_tasks, rows] = tasks_and_rows(inputs, "query_x", network.input());
    if (query_tasks != tasks) {
      inputs.fail_shape("query_x", inputs.at("query_x").shape, fmt::format("{} tasks", tasks));
    }
    query = rows;
  }
  TaskShape shape;
  shape.input = network.input();
  shape.outputs = case_outputs(inputs, config, network);
  shape.target = is_classification(config) ? TargetKind::label : TargetKind::value;
  shape.support = static_cast<int>(support);
  shape.query = static_cast<int>(query);
  TaskBatch batch(shape, static_cast<int>(tasks), true);
  batch.support_x64 = inputs.numbers("support_x", inputs.at("support_x").shape);
  if (with_query) batch.query_x64 = inputs.numbers("query_x", inputs.at("query_x").shape);
  if (shape.target == TargetKind::label) {
    batch.support_label = inputs.integers("support_y", {tasks, support}, 0, shape.outputs - 1);
    if (with_query) {
      batch.query_label = inputs.integers("query_y", {tasks, query}, 0, shape.outputs - 1);
    }
  } else {
    const auto outputs = static_cast<std::size_t>(shape.outputs);
    batch.support_value64 = inputs.numbers("support_y", {tasks, support, outputs});
    if (with_query) batch.query_value64 = inputs.numbers("query_y", {tasks, query, outputs});
  }
  if (inputs.has("support_n")) {
    const int least = has_prior(config.algorithm) ? 0 : 1;
    batch.support_n = inputs.integers("support_n", {tasks}, least, shape.support);
  }
  if (with_query && inputs.has("query_n")) {
    batch.query_n = inputs.integers("query_n", {tasks}, 1, shape.query);
  }
  if (is_closed_form(config.algorithm) && shape.target == TargetKind::label && inputs.has("ways")) {
    batch.ways = inputs.integers("ways", {tasks}, 1, shape.outputs);
  }
  return batch;
}

Sizes tensor_shape(const ParameterTensor& tensor) {
  return {tensor.shape.begin(), tensor.shape.end()};
}

void upload_parameters(const Inputs& inputs, const Assembly& assembly) {
  const std::vector<ParameterGroup>& groups = assembly.algorithm->groups();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    std::vector<double> flat(groups[g].size);
    for (const ParameterTensor& tensor : groups[g].tensors) {
      const std::vector<double> values =
          inputs.numbers(full_name(groups[g], tensor), tensor_shape(tensor));
      std::ranges::copy(values, flat.begin() + static_cast<std::ptrdiff_t>(tensor.offset));
    }
    assembly.parameters[g]->upload(flat);
  }
}

/// Key of a layer's noise: the name of the layer's weights without the last part.
std::string layer_key(const Network& network, const Layer& layer) {
  const std::string& name = network.parameters()[static_cast<std::size_t>(layer.weight)].name;
  return name.substr(0, name.rfind('.'));
}

/// Explicit noise of an ABML case: per weight and, depending on the estimator, per row of every
/// linear and convolution layer. `set_name` names one of the two sets of arrays, "inner" or
/// "outer".
class CaseNoise {
 public:
  CaseNoise(const Inputs& inputs, const Network& network, Estimator estimator, std::string set_name)
      : inputs_(inputs), network_(network), estimator_(estimator), set_name_(std::move(set_name)) {}

  /// The number of samples, which a case gives only by the shape of its noise.
  int samples() const {
    const std::size_t axis = set_name_ == "inner" ? 2 : 1;
    std::string key = "noise_" + set_name_;
    std::size_t dimensions = axis + 2;
    if (!inputs_.has(key) && estimator_ == Estimator::local) {
      const Layer& first = *std::ranges::find_if(network_.layers(), splits);
      key += "." + layer_key(network_, first);
      dimensions = axis + 2 + output_shape(first).size();
    }
    const Sizes& shape = inputs_.at(key).shape;
    if (shape.size() != dimensions || shape[axis] < 1) {
      inputs_.fail_shape(key, shape,
                         fmt::format("({}tasks, samples, {})", axis == 2 ? "inner steps, " : "",
                                     dimensions == axis + 2 ? "weights" : "rows, outputs"));
    }
    return static_cast<int>(shape[axis]);
  }

  /// `leading` are the dimensions up to the samples, these included.
  void read(const Sizes& leading, std::size_t rows) {
    const auto array = [&](const std::string& key, Sizes rest) {
      Sizes shape = leading;
      shape.insert(shape.end(), rest.begin(), rest.end());
      return inputs_.numbers(key, shape);
    };
    const bool norm = std::ranges::any_of(
        network_.layers(), [](const Layer& layer) { return layer.type == LayerType::norm; });
    if (estimator_ != Estimator::local || norm) {
      weights_ = array("noise_" + set_name_, {network_.size()});
    }
    if (estimator_ == Estimator::weight) return;
    for (const Layer& layer : network_.layers()) {
      Rows& at = rows_.emplace_back();
      if (!splits(layer)) continue;
      const std::string name = layer_key(network_, layer);
      if (estimator_ == Estimator::flipout) {
        const bool conv = layer.type == LayerType::conv;
        const auto in = static_cast<std::size_t>(conv ? layer.in.channels : layer.in.size());
        const auto out = static_cast<std::size_t>(layer.out.channels);
        at.in = array("sign_" + set_name_ + "." + name + ".in", {rows, in});
        at.out = array("sign_" + set_name_ + "." + name + ".out", {rows, out});
      } else {
        Sizes shape = {rows};
        std::ranges::copy(output_shape(layer), std::back_inserter(shape));
        at.out = array("noise_" + set_name_ + "." + name, shape);
      }
    }
    std::size_t samples = 1;
    for (const std::size_t size : leading) samples *= size;
    for (const Rows& at : rows_) {
      layers_.push_back({at.in.empty() ? nullptr : at.in.data(),
                         at.out.empty() ? nullptr : at.out.data(), at.in.size() / samples,
                         at.out.size() / samples});
    }
  }
  const double* weights() const { return weights_.empty() ? nullptr : weights_.data(); }
  std::span<const StepContext::LayerNoise> layers() const { return layers_; }

 private:
  struct Rows {
    std::vector<double> in, out;
  };
  static bool splits(const Layer& layer) {
    return layer.type == LayerType::conv || layer.type == LayerType::linear;
  }
  static Sizes output_shape(const Layer& layer) {
    if (!layer.out.spatial) return {static_cast<std::size_t>(layer.out.size())};
    return {static_cast<std::size_t>(layer.out.channels),
            static_cast<std::size_t>(layer.out.height), static_cast<std::size_t>(layer.out.width)};
  }

  const Inputs& inputs_;
  const Network& network_;
  Estimator estimator_;
  std::string set_name_;
  std::vector<double> weights_;
  std::vector<Rows> rows_;
  std::vector<StepContext::LayerNoise> layers_;
};

/// The per-task state of a case, and the noise of its objective.
class CaseMemory {
 public:
  CaseMemory(const Inputs& inputs, const Algorithm& algorithm, int samples, std::size_t tasks,
             std::size_t weights)
      : tasks_(tasks), weights_(weights) {
    noise_inner_ =
        inputs.numbers("noise_inner", {tasks, static_cast<std::size_t>(samples), weights});
    noise_hyper_ = inputs.numbers("noise_hyper", {2, weights});
    for (const MemoryGroup& group : algorithm.memory()) {
      // The state of the tasks' optimisers is not part of a case. It is at its beginning, zero.
      const bool given = group.name == "task_mu" || group.name == "task_log_sigma";
      memory_.push_back(given ? inputs.numbers(group.name, {tasks, group.width})
                              : std::vector<double>(tasks * group.width, 0.0));
      if (given) gradients_[group.name].resize(tasks * weights);
    }
  }
  void fill(StepContext& context) const {
    context.noise_inner = noise_inner_.data();
    context.noise_hyper = noise_hyper_.data();
    context.memory = memory_;
    context.batch_tasks = static_cast<int>(tasks_);
  }
  /// Takes the gradients of a wave whose first task is `first`, and divides them by the number of
  /// tasks, because the loss is the mean over all tasks.
  void take_gradients(TaskProgram& program, std::size_t first) {
    const auto count = static_cast<std::size_t>(program.wave().count());
    for (const TaskProgram::NamedBlock& named : program.memory_gradients()) {
      const std::span<double> to =
          std::span(gradients_.at(named.name)).subspan(first * weights_, count * weights_);
      program.wave().download(named.block, to);
      for (double& v : to) v /= static_cast<double>(tasks_);
    }
  }
  const std::map<std::string, std::vector<double>>& gradients() const { return gradients_; }

 private:
  std::size_t tasks_, weights_;
  std::vector<double> noise_inner_, noise_hyper_;
  std::vector<std::vector<double>> memory_;  ///< one per group
  std::map<std::string, std::vector<double>> gradients_;
};

/// Largest |x|.
double largest(const std::vector<double>& values) {
  double m = 0.0;
  for (const double v : values) m = std::max(m, std::abs(v));
  return m;
}

std::vector<VerifyKey> compare(const Arrays& got, const fs::path& file) {
  const Arrays want = io::read_npz(file);
  const auto is_gradient = [](const std::string& key) { return key.starts_with("grad."); };
  double gradients = 0.0;
  for (const auto& [key, array] : want) {
    if (is_gradient(key)) gradients = std::max(gradients, largest(array.to_f64()));
  }
  std::vector<VerifyKey> keys;
  for (const auto& [key, array] : want) {
    const auto found = got.find(key);
    if (found == got.end()) {
      throw Error(fmt::format("{}: \"{}\" is not a result of this objective", file.string(), key));
    }
    if (found->second.shape != array.shape) {
      throw Error(fmt::format("{}: \"{}\" has shape {}, but the result has {}", file.string(), key,
                              io::shape_text(array.shape), io::shape_text(found->second.shape)));
    }
    const std::vector<double> w = array.to_f64();
    const std::vector<double> g = found->second.to_f64();
    const double scale = largest(w) + (is_gradient(key) ? 0.1 * gradients : 0.0);
    double error = 0.0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double e = std::abs(g[i] - w[i]) / (1e-8 + scale);
      // Comparisons with NaN are false. It must not pass as a small error.
      error = std::isnan(e) ? std::numeric_limits<double>::infinity() : std::max(error, e);
    }
    keys.push_back({key, error});
  }
  return keys;
}

bool is_head(const Config& config) {
  return config.algorithm == AlgorithmKind::alpaca || config.algorithm == AlgorithmKind::dkt;
}

/// Sets the numbers of samples and of outputs, which a case gives only by the shapes of its arrays.
void take_sizes(const Inputs& inputs, const Network& network, const CaseNoise& inner,
                const CaseNoise& outer, Config& config) {
  if (config.algorithm == AlgorithmKind::hvi) {
    const Sizes& shape = inputs.at("noise_inner").shape;
    if (shape.size() != 3 || shape[1] < 1) {
      inputs.fail_shape("noise_inner", shape, "(tasks, samples, weights)");
    }
    config.hvi.samples = static_cast<int>(shape[1]);
  }
  if (config.algorithm == AlgorithmKind::abml) {
    if (config.inner.steps > 0) config.abml.samples_inner = inner.samples();
    config.abml.samples_outer = outer.samples();
  }
  if (is_head(config)) {
    const int outputs = case_outputs(inputs, config, network);
    (config.algorithm == AlgorithmKind::alpaca ? config.alpaca.outputs : config.dkt.outputs) =
        outputs;
  }
}

/// Reads ABML's noise. The context then refers to `inner` and `outer`.
void read_noise(const Config& config, const TaskBatch& batch, CaseNoise& inner, CaseNoise& outer,
                StepContext& context) {
  const auto tasks = static_cast<std::size_t>(batch.tasks());
  const auto steps = static_cast<std::size_t>(config.inner.steps);
  const auto support = static_cast<std::size_t>(batch.shape().support);
  const auto query = static_cast<std::size_t>(batch.shape().query);
  if (steps > 0) {
    inner.read({steps, tasks, static_cast<std::size_t>(config.abml.samples_inner)},
               config.abml.inner_data == InnerData::all ? support + query : support);
  }
  outer.read({tasks, static_cast<std::size_t>(config.abml.samples_outer)},
             config.abml.support_in_outer ? support + query : query);
  context.noise_inner = inner.weights();
  context.noise_outer = outer.weights();
  context.layers_inner = inner.layers();
  context.layers_outer = outer.layers();
  context.batch_tasks = batch.tasks();
}

/// LEO's noise, which must live as long as the context.
struct LeoNoise {
  std::vector<double> latent, decoder;

  void read(const Inputs& inputs, const Config& config, const TaskBatch& batch, std::size_t weights,
            StepContext& context) {
    const bool head = is_classification(config);
    const auto count = [](int n) { return static_cast<std::size_t>(n); };
    const std::size_t tasks = count(batch.tasks());
    const std::size_t groups = head ? count(config.leo.ways) : 1;
    const std::size_t latents = head && config.leo.latents == Latents::per_example
                                    ? count(batch.shape().support) / groups
                                    : 1;
    latent = inputs.numbers("noise_encoder", {tasks, groups, latents, count(config.leo.latent)});
    decoder = inputs.numbers("noise_decoder", {tasks, count(config.leo.latent_steps) + 1, groups,
                                               latents, weights / groups});
    context.noise_latent = latent.data();
    context.noise_decoder = decoder.data();
    context.batch_tasks = batch.tasks();
  }
};

/// Values of the tasks of a step. Workers write disjoint tasks, and therefore need no lock.
struct TaskValues {
  std::size_t tasks, samples, rows, outputs;
  std::vector<double> loss = std::vector<double>(tasks);  ///< [T]
  std::vector<double> output =
      std::vector<double>(tasks * samples * rows * outputs);  ///< [T, S, ...]
  /// [T, rows, outputs] for heads that predict values; else empty
  std::vector<double> variance = {};

  void take(TaskProgram& program, int first_task) {
    const auto first = static_cast<std::size_t>(first_task);
    backend::Wave& wave = program.wave();
    const auto count = static_cast<std::size_t>(wave.count());
    wave.download(program.loss(), std::span(loss).subspan(first, count));
    const std::size_t size = rows * outputs;
    if (size == 0) return;
    std::vector<double> buffer(count * size);
    program.outputs_after_gradient([&](int sample, backend::Block block) {
      wave.download(block, buffer);
      for (std::size_t t = 0; t < count; ++t) {
        const auto to = ((first + t) * samples + static_cast<std::size_t>(sample)) * size;
        std::ranges::copy(std::span(buffer).subspan(t * size, size),
                          output.begin() + static_cast<std::ptrdiff_t>(to));
      }
    });
    if (variance.empty()) return;
    wave.download(program.predictive_variance(),
                  std::span(variance).subspan(first * size, count * size));
  }
};

void put(Arrays& to, const std::string& key, std::span<const double> values, Sizes shape) {
  to.insert_or_assign(key, io::NpyArray::from(values, std::move(shape)));
}

void put_values(const TaskValues& values, bool sampled, Arrays& to) {
  put(to, "task_loss", values.loss, {values.tasks});
  if (values.rows == 0) return;
  put(to, "query_output", values.output,
      sampled ? Sizes{values.tasks, values.samples, values.rows, values.outputs}
              : Sizes{values.tasks, values.rows, values.outputs});
  if (values.variance.empty()) return;
  put(to, "query_variance", values.variance, {values.tasks, values.rows, values.outputs});
}

void put_gradients(const Algorithm& algorithm, std::span<const backend::Shared> gradients,
                   Arrays& to) {
  const std::vector<ParameterGroup>& groups = algorithm.groups();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    std::vector<double> flat(groups[g].size);
    gradients[g]->download(flat);
    for (const ParameterTensor& tensor : groups[g].tensors) {
      put(to, "grad." + full_name(groups[g], tensor),
          std::span<const double>(flat).subspan(tensor.offset, tensor.size), tensor_shape(tensor));
    }
  }
}

}  // namespace

bool VerifyResult::within() const {
  return std::ranges::all_of(keys, [&](const VerifyKey& key) { return key.error <= tolerance; });
}

VerifyResult verify_case(const fs::path& folder, const std::string& device,
                         std::optional<backend::Precision> precision, int threads) {
  Config config = Config::load(folder / "case.toml");
  const Inputs inputs(folder / "inputs.npz");
  const bool sampled = config.algorithm == AlgorithmKind::abml;
  const Network network = config.make_network();
  CaseNoise inner(inputs, network, config.abml.estimator, "inner");
  CaseNoise outer(inputs, network, config.abml.estimator, "outer");
  take_sizes(inputs, network, inner, outer, config);
  Assembly assembly = assemble(config, device, threads, precision);
  backend::Backend& backend = *assembly.backend;
  if (precision && *precision != backend.precision()) {
    throw DeviceError(fmt::format("device \"{}\" computes in {}, not in {}", device,
                                  precision_name(backend.precision()), precision_name(*precision)));
  }
  const TaskBatch batch = read_batch(inputs, config, *assembly.network);
  upload_parameters(inputs, assembly);
  const auto tasks = static_cast<std::size_t>(batch.tasks());

  StepContext context;
  if (sampled) read_noise(config, batch, inner, outer, context);
  LeoNoise leo;
  if (config.algorithm == AlgorithmKind::leo && !config.leo.deterministic) {
    leo.read(inputs, config, batch, assembly.network->size(), context);
  }
  std::optional<CaseMemory> memory;
  if (config.algorithm == AlgorithmKind::hvi) {
    assembly.algorithm->begin_training(tasks, 0.0);
    memory.emplace(inputs, *assembly.algorithm, config.hvi.samples, tasks, network.size());
    memory->fill(context);
  }

  TaskValues values{tasks, static_cast<std::size_t>(assembly.algorithm->samples()),
                    static_cast<std::size_t>(batch.shape().query),
                    static_cast<std::size_t>(batch.shape().outputs)};
  if (is_head(config)) values.variance.resize(tasks * values.rows * values.outputs);
  Scheduler scheduler(backend, *assembly.algorithm, batch.shape());
  const auto visit = [&](TaskProgram& program, int first) {
    values.take(program, first);
    if (memory) memory->take_gradients(program, static_cast<std::size_t>(first));
  };
  const StepResult step = scheduler.step(assembly.parameters, batch, context, visit);

  VerifyResult result;
  result.device = device_text(backend);
  result.tolerance = backend.precision() == backend::Precision::f64 ? 1e-9 : 1e-4;
  put(result.values, "loss", std::span(&step.loss, 1), {});
  put_values(values, sampled, result.values);
  if (memory) {
    for (const auto& [name, gradient] : memory->gradients()) {
      put(result.values, "grad." + name, gradient, {tasks, network.size()});
    }
  }
  put_gradients(*assembly.algorithm, scheduler.gradients(), result.values);
  std::error_code ignored;
  const fs::path expected = folder / "expected.npz";
  if (fs::exists(expected, ignored)) result.keys = compare(result.values, expected);
  return result;
}

}  // namespace kshot
