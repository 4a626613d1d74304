// kshot._core.Learner and Embedder: predictions of a trained run for new tasks, and its features.
#include <algorithm>
#include <mutex>

#include "bindings.h"
#include "engine/row_decisions.h"

namespace kshot::python {

using namespace nb::literals;

namespace {

/// The support rows of one task as Python arrays. Arrays that do not apply are null.
struct Support {
  Floats x;
  std::optional<Labels> labels;
  std::optional<Floats> values;
  int ways = 0;

  SupportRows rows() const {
    SupportRows rows;
    rows.x = span_of(x);
    if (labels) rows.labels = span_of(*labels);
    if (values) rows.values = span_of(*values);
    rows.ways = ways;
    return rows;
  }
};

/// The support rows of many tasks, one task after another in the same arrays.
struct Supports {
  Support all;
  std::vector<SupportRows> rows;  ///< rows of each task, which lie in `all`

  /// Task i has counts[i] rows and ways[i] classes.
  Supports(const Support& arrays, const Counts& counts, const Labels& ways) : all(arrays) {
    rows.reserve(counts.size());
    SupportRows left = all.rows();
    const auto take = [](auto& span, std::size_t size) {
      const auto part = span.first(size);
      span = span.subspan(size);
      return part;
    };
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const auto count = static_cast<std::size_t>(counts.data()[i]);
      SupportRows task;
      task.x = take(left.x, count * all.x.shape(1));
      if (all.labels) task.labels = take(left.labels, count);
      if (all.values) task.values = take(left.values, count * all.values->shape(1));
      task.ways = ways.data()[i];
      rows.push_back(task);
    }
  }
};

/// The memory of an object's numbers. `found` is false where they are not C-contiguous.
struct Buffer {
  explicit Buffer(const nb::handle& object) {
    found = PyObject_GetBuffer(object.ptr(), &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) == 0;
    if (!found) PyErr_Clear();
  }
  ~Buffer() {
    if (found) PyBuffer_Release(&view);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  Py_buffer view{};
  bool found = false;
};

/// Returns the rows of all items one after another, as bytes, and the number of rows of each item
/// [items]. Returns None where some item is no C-contiguous array, or where two items differ in
/// their type or in the shape of a row.
nb::object joined_rows(const nb::list& items) {
  std::vector<std::uint8_t> bytes;
  std::vector<std::int64_t> counts;
  std::string format;
  std::vector<Py_ssize_t> row;
  for (const nb::handle item : items) {
    const Buffer buffer(item);
    const Py_buffer& view = buffer.view;
    if (!buffer.found || view.ndim < 1 || view.format == nullptr) return nb::none();
    const std::span<const Py_ssize_t> shape(view.shape + 1, view.shape + view.ndim);
    if (counts.empty()) {
      format = view.format;
      row.assign(shape.begin(), shape.end());
      bytes.reserve(static_cast<std::size_t>(view.len) * items.size());
      counts.reserve(items.size());
    } else if (format != view.format || !std::ranges::equal(row, shape)) {
      return nb::none();
    }
    const auto* const begin = static_cast<const std::uint8_t*>(view.buf);
    bytes.insert(bytes.end(), begin, begin + view.len);
    counts.push_back(view.shape[0]);
  }
  const std::size_t size = bytes.size(), tasks = counts.size();
  return nb::make_tuple(to_numpy(std::move(bytes), {size}), to_numpy(std::move(counts), {tasks}));
}

std::vector<std::size_t> sizes(std::initializer_list<int> numbers) {
  return {numbers.begin(), numbers.end()};
}

nb::dict adapted_arrays(const std::vector<AdaptedTensor>& tensors) {
  nb::dict arrays;
  for (const AdaptedTensor& tensor : tensors) {
    arrays[nb::cast(tensor.name)] =
        to_numpy(tensor.values, {tensor.shape.begin(), tensor.shape.end()});
  }
  return arrays;
}

std::vector<std::uint8_t> bytes_of(const std::vector<bool>& values) {
  return {values.begin(), values.end()};
}

/// Returns a prediction as a dict. `decided` has the decisions on the rows, if there are any.
nb::dict to_dict(Prediction p, std::optional<DecidedRows> decided = {}) {
  const std::vector<std::size_t> table = sizes({p.rows, p.outputs});
  nb::dict d;
  if (decided && !decided->answered.empty()) {
    d["answered"] = to_numpy(bytes_of(decided->answered), sizes({p.rows}));
  }
  if (decided && !decided->in_set.empty()) {
    d["in_set"] = to_numpy(bytes_of(decided->in_set), table);
  }
  if (decided && !decided->low.empty()) {
    d["low"] = to_numpy(std::move(decided->low), table);
    d["high"] = to_numpy(std::move(decided->high), table);
  }
  d["classification"] = p.classification;
  d["inner_steps"] = p.inner_steps;
  d["noise_std"] = p.noise_std;
  d["raw"] = to_numpy(std::move(p.raw), sizes({p.samples, p.rows, p.outputs}));
  d["mean"] = to_numpy(std::move(p.mean), table);
  d["std"] = to_numpy(std::move(p.std), table);
  if (!p.predictive_std.empty()) {
    d["predictive_std"] = to_numpy(std::move(p.predictive_std), table);
  }
  if (p.classification) {
    d["entropy"] = to_numpy(std::move(p.entropy), sizes({p.rows}));
    d["mutual_information"] = to_numpy(std::move(p.mutual_information), sizes({p.rows}));
  }
  d["adapted"] = adapted_arrays(p.adapted);
  return d;
}

/// Returns predictions of many tasks as a dict, with the numbers of each kind in one flat array.
nb::dict to_dict(const std::vector<Prediction>& predictions, const Decisions* decisions) {
  std::vector<std::int64_t> rows, outputs;
  std::vector<double> raw, mean, std, predictive_std, entropy, mutual_information, low, high;
  const auto append = [&](auto& to, const auto& from) {
    if (to.empty()) to.reserve(from.size() * predictions.size());
    to.insert(to.end(), from.begin(), from.end());
  };
  std::vector<std::uint8_t> diverged, answered, in_set;
  for (const Prediction& p : predictions) {
    if (decisions != nullptr) {
      const DecidedRows decided = decide(*decisions, p);
      append(answered, decided.answered);
      append(in_set, decided.in_set);
      append(low, decided.low);
      append(high, decided.high);
    }
    rows.push_back(p.rows);
    outputs.push_back(p.outputs);
    diverged.push_back(p.diverged ? 1 : 0);
    append(raw, p.raw);
    append(mean, p.mean);
    append(std, p.std);
    append(predictive_std, p.predictive_std);
    append(entropy, p.entropy);
    append(mutual_information, p.mutual_information);
  }
  nb::dict d;
  const Prediction first = predictions.empty() ? Prediction() : predictions.front();
  d["classification"] = first.classification;
  d["samples"] = first.samples;
  d["inner_steps"] = first.inner_steps;
  d["noise_std"] = first.noise_std;
  const auto put = [&](const char* name, auto& values) {
    const std::size_t size = values.size();
    d[name] = to_numpy(std::move(values), {size});
  };
  put("rows", rows);
  put("outputs", outputs);
  put("diverged", diverged);
  put("raw", raw);
  put("mean", mean);
  put("std", std);
  if (!predictive_std.empty()) put("predictive_std", predictive_std);
  if (!answered.empty()) put("answered", answered);
  if (!in_set.empty()) put("in_set", in_set);
  if (!low.empty()) {
    put("low", low);
    put("high", high);
  }
  if (first.classification) {
    put("entropy", entropy);
    put("mutual_information", mutual_information);
  }
  return d;
}

/// Returns a network's layers, each with its type, its shapes and the names of its parameters.
nb::list layer_list(const Network& network) {
  const auto shape = [](const FeatureShape& s) -> nb::object {
    if (!s.spatial) return nb::make_tuple(s.size());
    return nb::make_tuple(s.channels, s.height, s.width);
  };
  const auto name = [&](int index) -> nb::object {
    if (index < 0) return nb::none();
    return nb::cast(network.parameters()[static_cast<std::size_t>(index)].name);
  };
  nb::list layers;
  for (const Layer& layer : network.layers()) {
    nb::dict d;
    d["type"] = layer_name(layer.type);
    d["in"] = shape(layer.in);
    d["out"] = shape(layer.out);
    d["kernel"] = layer.kernel;
    d["stride"] = layer.stride;
    d["padding"] = layer.padding;
    d["size"] = layer.size;
    d["weight"] = name(layer.weight);
    d["bias"] = name(layer.bias);
    layers.append(d);
  }
  return layers;
}

/// Returns the standard normal numbers of posterior sample `sample` of a single task, [count], one
/// per weight. Learner::predict draws the same numbers for estimator "weight".
nb::object posterior_noise(std::uint64_t seed, std::uint32_t sample, std::size_t count) {
  RandomKey key;
  key.seed = seed;
  key.purpose = Purpose::noise_outer;
  key.sample = sample;
  std::vector<double> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = static_cast<double>(normal_element(key, i));
  }
  return to_numpy(std::move(values), {count});
}

/// Returns the rows of each task. They lie one after another in `all`, counts[i] rows for task i.
std::vector<std::span<const float>> rows_of_tasks(const Floats& all, const Counts& counts) {
  std::vector<std::span<const float>> rows;
  rows.reserve(counts.size());
  std::span<const float> left = span_of(all);
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const std::size_t size = static_cast<std::size_t>(counts.data()[i]) * all.shape(1);
    rows.push_back(left.first(size));
    left = left.subspan(size);
  }
  return rows;
}

/// A Learner that one thread uses at a time. Other threads wait without the interpreter's lock.
class SharedLearner {
  /// Does work of the learner without the interpreter's lock. Ctrl-C ends the work.
  template <typename Work>
  auto interruptible(const Work& work) const {
    Interruption interruption;
    return interruption.run([&] {
      const std::lock_guard lock(mutex_);
      interruption_ = &interruption;
      const auto forget = [this](Interruption*) { interruption_ = nullptr; };
      const std::unique_ptr<Interruption, decltype(forget)> used(&interruption, forget);
      return work();
    });
  }

 public:
  SharedLearner(const std::filesystem::path& run, LearnerOptions options)
      : learner_(override_errors([&] {
          options.stop = [this] { return interruption_ != nullptr && interruption_->stop(); };
          return Learner(run, options);
        })) {}

  AdaptedTask adapt(const Support& support) const {
    guard_.check("Learner");
    const nb::gil_scoped_release release;
    const std::lock_guard lock(mutex_);
    return learner_.adapt(support.rows());
  }

  nb::dict predict(const AdaptedTask& task, const Floats& query, const Decisions* decisions) const {
    guard_.check("Learner");
    std::optional<Prediction> prediction;
    std::optional<DecidedRows> decided;
    {
      const nb::gil_scoped_release release;
      const std::lock_guard lock(mutex_);
      prediction = task.predict(span_of(query));
      if (decisions != nullptr) decided = decide(*decisions, *prediction);
    }
    return to_dict(std::move(*prediction), std::move(decided));
  }

  nb::list predict_steps(const Support& support, const Floats& query) const {
    guard_.check("Learner");
    std::vector<Prediction> predictions;
    {
      const nb::gil_scoped_release release;
      const std::lock_guard lock(mutex_);
      predictions = learner_.predict_steps(support.rows(), span_of(query));
    }
    nb::list list;
    for (Prediction& p : predictions) list.append(to_dict(std::move(p)));
    return list;
  }

  AdaptedTasks adapt_many(const Supports& supports) const {
    guard_.check("Learner");
    return interruptible([&] { return learner_.adapt_many(supports.rows); });
  }

  /// Predicts the tasks' rows, which lie one after another in `query`, counts[i] rows for task i.
  nb::dict predict_many(const AdaptedTasks& tasks, const Floats& query, const Counts& counts,
                        const Decisions* decisions) const {
    guard_.check("Learner");
    const std::vector<std::span<const float>> rows = rows_of_tasks(query, counts);
    return to_dict(interruptible([&] { return tasks.predict(rows); }), decisions);
  }

  /// Adapts and predicts in one pass, and keeps no adapted state.
  nb::dict predict_many_once(const Supports& supports, const Floats& query, const Counts& counts,
                             const Decisions* decisions) const {
    guard_.check("Learner");
    const std::vector<std::span<const float>> rows = rows_of_tasks(query, counts);
    std::vector<TaskRows> tasks;
    tasks.reserve(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) tasks.push_back({supports.rows[i], rows[i]});
    return to_dict(interruptible([&] { return learner_.predict_many(tasks); }), decisions);
  }

  const Learner& learner() const { return learner_; }

 private:
  Learner learner_;
  mutable std::mutex mutex_;
  /// The interruption of the call that holds `mutex_`; null without such a call.
  mutable Interruption* interruption_ = nullptr;
  ProcessGuard guard_;
};

std::vector<int> input_shape(const Network& network) {
  const FeatureShape& input = network.input();
  if (!input.spatial) return {input.size()};
  return {input.channels, input.height, input.width};
}

class SharedEmbedder {
 public:
  SharedEmbedder(const std::filesystem::path& run, const EmbedderOptions& options)
      : embedder_(override_errors([&] { return Embedder(run, options); })) {}

  nb::object embed(const Floats& x) const {
    guard_.check("Embedder");
    std::vector<float> features;
    {
      const nb::gil_scoped_release release;
      const std::lock_guard lock(mutex_);
      features = embedder_.embed(span_of(x));
    }
    const auto width = static_cast<std::size_t>(embedder_.network().outputs());
    const std::size_t rows = features.size() / width;
    return to_numpy(std::move(features), {rows, width});
  }

  nb::dict embed_file(const std::filesystem::path& data, const std::filesystem::path& out) const {
    guard_.check("Embedder");
    Interruption interruption;
    const EmbeddedFile result = interruption.run([&] {
      const std::lock_guard lock(mutex_);
      const auto progress = [&](std::uint64_t, std::uint64_t) {
        if (interruption.stop()) throw Stopped();
      };
      return kshot::embed_file(embedder_, data, out, progress, launched_ranks());
    });
    nb::dict d;
    d["rows"] = result.rows;
    d["features"] = result.features;
    d["files"] = result.files;
    return d;
  }

  const Embedder& embedder() const { return embedder_; }

 private:
  Embedder embedder_;
  mutable std::mutex mutex_;
  ProcessGuard guard_;
};

void bind_tasks(nb::module_& m) {
  nb::class_<Support>(m, "Support")
      .def(
          "__init__",
          [](Support* self, Floats x, std::optional<Labels> labels, std::optional<Floats> values,
             int ways) {
            new (self) Support{x, labels, values, ways};
          },
          "x"_a, "labels"_a.none(), "values"_a.none(), "ways"_a)
      .def_prop_ro("address",
                   [](const Support& s) { return reinterpret_cast<std::uintptr_t>(s.x.data()); });
  nb::class_<Supports>(m, "Supports")
      .def(nb::init<const Support&, const Counts&, const Labels&>(), "arrays"_a, "counts"_a,
           "ways"_a);
  nb::class_<AdaptedTask>(m, "AdaptedTask")
      .def_prop_ro("adapted", [](const AdaptedTask& t) { return adapted_arrays(t.adapted()); })
      .def_prop_ro("samples", [](const AdaptedTask& t) {
        nb::list samples;
        for (const std::vector<AdaptedTensor>& sample : t.samples()) {
          samples.append(adapted_arrays(sample));
        }
        return samples;
      });
  nb::class_<AdaptedTasks>(m, "AdaptedTasks")
      .def_prop_ro("bytes_per_task", &AdaptedTasks::bytes_per_task);
  nb::class_<Decisions>(m, "Decisions")
      .def_ro("promise", &Decisions::promise)
      .def_ro("notes", &Decisions::notes);
}

void bind_shared_learner(nb::module_& m) {
  nb::class_<SharedLearner>(m, "Learner")
      .def(
          "__init__",
          [](SharedLearner* self, const std::filesystem::path& run, const std::string& device,
             int threads, const std::vector<std::string>& overrides, bool calibrated) {
            const nb::gil_scoped_release release;
            LearnerOptions options;
            options.device = device;
            options.threads = threads;
            options.overrides = overrides;
            options.calibrated = calibrated;
            new (self) SharedLearner(run, options);
          },
          "run"_a, "device"_a, "threads"_a, "overrides"_a, "calibrated"_a = false)
      .def("adapt", &SharedLearner::adapt, "support"_a)
      .def("predict", &SharedLearner::predict, "task"_a, "query"_a, "decisions"_a.none())
      .def("predict_steps", &SharedLearner::predict_steps, "support"_a, "query"_a)
      .def("adapt_many", &SharedLearner::adapt_many, "supports"_a)
      .def("predict_many", &SharedLearner::predict_many, "tasks"_a, "query"_a, "counts"_a,
           "decisions"_a.none())
      .def("predict_many_once", &SharedLearner::predict_many_once, "supports"_a, "query"_a,
           "counts"_a, "decisions"_a.none())
      .def(
          "decisions",
          [](const SharedLearner& l, std::optional<double> max_risk,
             std::optional<double> min_confidence, std::optional<double> level) {
            return make_decisions({max_risk, min_confidence, level}, l.learner());
          },
          "max_risk"_a.none(), "min_confidence"_a.none(), "level"_a.none())
      .def(
          "check", [](const SharedLearner& l, const Support& s) { l.learner().check(s.rows()); },
          "support"_a)
      .def_prop_ro("config", [](const SharedLearner& l) { return Config(l.learner().config()); })
      .def_prop_ro("input_shape",
                   [](const SharedLearner& l) { return input_shape(l.learner().network()); })
      .def_prop_ro("outputs", [](const SharedLearner& l) { return l.learner().outputs(); })
      .def_prop_ro("classification",
                   [](const SharedLearner& l) {
                     return l.learner().config().loss.type == LossType::cross_entropy;
                   })
      .def_prop_ro("has_prior",
                   [](const SharedLearner& l) { return has_prior(l.learner().config().algorithm); })
      .def_prop_ro("layers",
                   [](const SharedLearner& l) { return layer_list(l.learner().network()); })
      .def_prop_ro("parameters",
                   [](const SharedLearner& l) { return adapted_arrays(l.learner().parameters()); })
      .def_prop_ro("calibration",
                   [](const SharedLearner& l) -> std::optional<double> {
                     const auto& calibration = l.learner().calibration();
                     if (!calibration) return {};
                     return calibration->value;
                   })
      .def_prop_ro("preprocessing",
                   [](const SharedLearner& l) { return l.learner().preprocessing(); })
      .def_prop_ro("device", [](const SharedLearner& l) { return l.learner().device(); });
}

void bind_shared_embedder(nb::module_& m) {
  nb::class_<SharedEmbedder>(m, "Embedder")
      .def(
          "__init__",
          [](SharedEmbedder* self, const std::filesystem::path& run, const std::string& device,
             int threads, const std::vector<std::string>& overrides, bool allow_changed_data) {
            const nb::gil_scoped_release release;
            new (self) SharedEmbedder(run, {device, threads, overrides, allow_changed_data});
          },
          "run"_a, "device"_a, "threads"_a, "overrides"_a, "allow_changed_data"_a)
      .def("embed", &SharedEmbedder::embed, "x"_a)
      .def("embed_file", &SharedEmbedder::embed_file, "data"_a, "out"_a)
      .def_prop_ro("config", [](const SharedEmbedder& e) { return Config(e.embedder().config()); })
      .def_prop_ro("input_shape",
                   [](const SharedEmbedder& e) { return input_shape(e.embedder().network()); })
      .def_prop_ro("features",
                   [](const SharedEmbedder& e) { return e.embedder().network().outputs(); })
      .def_prop_ro("device", [](const SharedEmbedder& e) { return e.embedder().device(); })
      .def_prop_ro("description", [](const SharedEmbedder& e) { return e.embedder().describe(); });
}

}  // namespace

void bind_learner(nb::module_& m) {
  bind_tasks(m);
  bind_shared_learner(m);
  m.def("joined_rows", &joined_rows, "items"_a);
  m.def("posterior_noise", &posterior_noise, "seed"_a, "sample"_a, "count"_a);
  bind_shared_embedder(m);
}

}  // namespace kshot::python
