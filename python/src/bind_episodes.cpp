// Sources of tasks that are written in Python, and meta-gradients of given tasks.
#include <algorithm>
#include <mutex>

#include "bindings.h"

namespace kshot::python {

using namespace nb::literals;

namespace {

FeatureShape feature_shape(const std::vector<int>& shape) {
  if (shape.size() == 3) return {shape[0], shape[1], shape[2], true};
  return {shape.at(0), 1, 1, false};
}

/// Copies a task (support_x, support_y, query_x, query_y, ways) to the engine's slot. The arrays
/// have the engine's types and fit the slot, which python/kshot/_episodes.py has checked.
void fill_slot(const nb::tuple& rows, TargetKind target, const TaskSlot& slot) {
  const auto support_x = nb::cast<Floats>(rows[0]);
  const auto query_x = nb::cast<Floats>(rows[2]);
  std::ranges::copy(span_of(support_x), slot.support_x.begin());
  std::ranges::copy(span_of(query_x), slot.query_x.begin());
  if (target == TargetKind::label) {
    std::ranges::copy(span_of(nb::cast<Labels>(rows[1])), slot.support_label.begin());
    std::ranges::copy(span_of(nb::cast<Labels>(rows[3])), slot.query_label.begin());
  } else {
    std::ranges::copy(span_of(nb::cast<Floats>(rows[1])), slot.support_value.begin());
    std::ranges::copy(span_of(nb::cast<Floats>(rows[3])), slot.query_value.begin());
  }
  if (slot.ways != nullptr) *slot.ways = nb::cast<std::int32_t>(rows[4]);
  *slot.support_n = static_cast<std::int32_t>(support_x.shape(0));
  *slot.query_n = static_cast<std::int32_t>(query_x.shape(0));
}

/// The engine of kshot.MetaGradient, for tasks of one shape.
class GradientEngine {
 public:
  GradientEngine(const Config& config, const TaskShape& shape, const std::string& device,
                 int threads)
      : shape_(shape), engine_(config, shape, {device, threads}) {}

  nb::dict initial() const {
    nb::dict groups;
    const std::vector<std::string> names = engine_.groups();
    std::vector<std::vector<double>> values = engine_.initial();
    for (std::size_t g = 0; g < names.size(); ++g) {
      const std::size_t size = values[g].size();
      groups[nb::cast(names[g])] = to_numpy(std::move(values[g]), {size});
    }
    return groups;
  }

  /// Returns (loss, task_loss, diverged, gradients by group).
  nb::tuple compute(const std::vector<Doubles>& parameters, const nb::list& tasks,
                    std::uint64_t step) {
    guard_.check("MetaGradient");
    std::vector<std::vector<double>> values;
    for (const Doubles& group : parameters) {
      values.emplace_back(group.data(), group.data() + group.size());
    }
    TaskBatch batch(shape_, static_cast<int>(tasks.size()));
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      fill_slot(nb::cast<nb::tuple>(tasks[t]), shape_.target, batch.slot(static_cast<int>(t)));
    }
    MetaGradientResult result;
    {
      const nb::gil_scoped_release release;
      const std::lock_guard lock(mutex_);
      result = engine_.compute(values, batch, step);
    }
    nb::dict gradients;
    const std::vector<std::string> names = engine_.groups();
    for (std::size_t g = 0; g < names.size(); ++g) {
      const std::size_t size = result.gradients[g].size();
      gradients[nb::cast(names[g])] = to_numpy(std::move(result.gradients[g]), {size});
    }
    return nb::make_tuple(result.loss, result.task_loss, result.diverged, gradients);
  }

 private:
  TaskShape shape_;
  MetaGradient engine_;
  std::mutex mutex_;
  ProcessGuard guard_;
};

TaskShape task_shape(const std::vector<int>& input_shape, int outputs, bool classification,
                     bool ways_vary, int support, int query) {
  TaskShape shape;
  shape.input = feature_shape(input_shape);
  shape.outputs = outputs;
  shape.target = classification ? TargetKind::label : TargetKind::value;
  shape.ways_vary = ways_vary;
  shape.support = support;
  shape.query = query;
  return shape;
}

/// A source whose tasks a Python function makes:
/// draw(seed, split, step, task) -> (support_x, support_y, query_x, query_y, ways). The function
/// returns checked arrays in the engine's types and the task's number of classes. Worker threads
/// call the function and take the interpreter's lock for it.
class PythonSource final : public EpisodeSource {
 public:
  PythonSource(nb::callable draw, TaskShape shape, std::string description,
               std::vector<std::string> splits)
      : draw_(std::move(draw)),
        shape_(shape),
        description_(std::move(description)),
        splits_(std::move(splits)) {}
  ~PythonSource() override {
    const nb::gil_scoped_acquire lock;
    draw_.reset();
  }

  TaskShape shape() const override { return shape_; }
  std::string describe() const override { return description_; }
  bool has(Split split) const override {
    return std::ranges::find(splits_, split_name(split)) != splits_.end();
  }

  void fill(const TaskId& id, const TaskSlot& slot) const override {
    const nb::gil_scoped_acquire lock;
    const nb::object drawn = draw_(id.seed, split_name(id.split), id.step, id.task);
    fill_slot(nb::cast<nb::tuple>(drawn), shape_.target, slot);
  }

 private:
  nb::object draw_;
  TaskShape shape_;
  std::string description_;
  std::vector<std::string> splits_;
};

}  // namespace

void bind_episodes(nb::module_& m) {
  nb::class_<EpisodeSource>(m, "EpisodeSource");
  m.def(
      "python_source",
      [](nb::callable draw, const std::vector<int>& input_shape, int outputs, bool classification,
         bool ways_vary, int support, int query, const std::string& description,
         const std::vector<std::string>& splits) -> std::shared_ptr<EpisodeSource> {
        const TaskShape shape =
            task_shape(input_shape, outputs, classification, ways_vary, support, query);
        return std::make_shared<PythonSource>(std::move(draw), shape, description, splits);
      },
      "draw"_a, "input_shape"_a, "outputs"_a, "classification"_a, "ways_vary"_a, "support"_a,
      "query"_a, "description"_a, "splits"_a);
  nb::class_<GradientEngine>(m, "MetaGradient")
      .def(
          "__init__",
          [](GradientEngine* self, const Config& config, const std::vector<int>& input_shape,
             int outputs, bool classification, bool ways_vary, int support, int query,
             const std::string& device, int threads) {
            const nb::gil_scoped_release release;
            new (self) GradientEngine(
                config, task_shape(input_shape, outputs, classification, ways_vary, support, query),
                device, threads);
          },
          "config"_a, "input_shape"_a, "outputs"_a, "classification"_a, "ways_vary"_a, "support"_a,
          "query"_a, "device"_a, "threads"_a)
      .def("initial", &GradientEngine::initial)
      .def("compute", &GradientEngine::compute, "parameters"_a, "tasks"_a, "step"_a);
}

}  // namespace kshot::python
