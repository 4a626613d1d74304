#include "kshot/meta_gradient.h"

#include <fmt/format.h>

#include "engine/assembly.h"
#include "engine/scheduler.h"
#include "kshot/error.h"

namespace kshot {
namespace {

/// A source with only the shape of the caller's tasks, for the checks that take a source.
class ShapeOnly final : public EpisodeSource {
 public:
  explicit ShapeOnly(const TaskShape& shape) : shape_(shape) {}
  TaskShape shape() const override { return shape_; }
  void fill(const TaskId& /*id*/, const TaskSlot& /*slot*/) const override {}
  std::string describe() const override { return "given tasks"; }

 private:
  TaskShape shape_;
};

}  // namespace

struct MetaGradient::State {
  State(const Config& config, const TaskShape& task_shape, const MetaGradientOptions& options)
      : assembly(assemble(with_head_outputs(config, task_shape), options.device, options.threads)),
        shape(task_shape) {
    if (!assembly.algorithm->memory().empty()) {
      throw Error(
          "meta-gradient: algorithm = \"hvi\" keeps a state for each training task; expected "
          "another algorithm");
    }
    check_fit(assembly.config, *assembly.network, ShapeOnly(shape));
    scheduler = std::make_unique<Scheduler>(*assembly.backend, *assembly.algorithm, shape);
  }

  void upload(std::span<const std::vector<double>> parameters) {
    const std::vector<ParameterGroup>& groups = assembly.algorithm->groups();
    if (parameters.size() != groups.size()) {
      throw Error(fmt::format("meta-gradient: {} groups of parameters, expected {}",
                              parameters.size(), groups.size()));
    }
    for (std::size_t g = 0; g < groups.size(); ++g) {
      backend::SharedVector& group = *assembly.parameters[g];
      if (parameters[g].size() != group.size()) {
        throw Error(fmt::format("meta-gradient: group \"{}\" has {} numbers, expected {}",
                                groups[g].name, parameters[g].size(), group.size()));
      }
      group.upload(parameters[g]);
    }
  }

  Assembly assembly;
  TaskShape shape;
  std::unique_ptr<Scheduler> scheduler;
};

MetaGradient::MetaGradient(const Config& config, const TaskShape& shape,
                           const MetaGradientOptions& options)
    : state_(std::make_unique<State>(config, shape, options)) {}
MetaGradient::~MetaGradient() = default;
MetaGradient::MetaGradient(MetaGradient&&) noexcept = default;
MetaGradient& MetaGradient::operator=(MetaGradient&&) noexcept = default;

std::vector<std::string> MetaGradient::groups() const {
  std::vector<std::string> names;
  for (const ParameterGroup& group : state_->assembly.algorithm->groups()) {
    names.push_back(group.name);
  }
  return names;
}

std::vector<std::vector<double>> MetaGradient::initial() const {
  return state_->assembly.algorithm->initial(state_->assembly.config.seed);
}

MetaGradientResult MetaGradient::compute(std::span<const std::vector<double>> parameters,
                                         const TaskBatch& tasks, std::uint64_t step) {
  State& s = *state_;
  const TaskShape& given = tasks.shape();
  if (tasks.tasks() < 1 || given.input.size() != s.shape.input.size() ||
      given.outputs != s.shape.outputs || given.target != s.shape.target ||
      given.support != s.shape.support || given.query != s.shape.query ||
      given.ways_vary != s.shape.ways_vary) {
    throw Error("meta-gradient: expected at least one task, of the shape that was given");
  }
  s.upload(parameters);
  StepContext context;
  context.seed = s.assembly.config.seed;
  context.step = step;
  const StepResult result = s.scheduler->step(s.assembly.parameters, tasks, context);
  MetaGradientResult out;
  out.loss = result.loss;
  out.task_loss = result.task_loss;
  out.tasks = result.tasks;
  out.diverged = result.diverged;
  for (const backend::Shared& gradient : s.scheduler->gradients()) {
    out.gradients.emplace_back(gradient->size());
    gradient->download(out.gradients.back());
  }
  return out;
}

}  // namespace kshot
