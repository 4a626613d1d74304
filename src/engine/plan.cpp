#include "engine/plan.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "algorithms/algorithm.h"
#include "backend/generator.h"
#include "backend/host.h"
#include "backend/linear_algebra.h"
#include "engine/assembly.h"

namespace kshot {
namespace {

using backend::Block;
using backend::NormStatistics;
using backend::Set;
using backend::SharedVector;

/// A wave of one task that computes nothing and records what the algorithm asks for.
class CostRecorder final : public backend::Wave, private backend::FusedDescent {
 public:
  CostRecorder(std::shared_ptr<const Network> network, const backend::Loss& loss,
               const backend::WaveShape& shape, int tasks, TaskCost& cost,
               backend::WaveDemand& demand, bool fused)
      : Wave(std::move(network), loss, shape),
        tasks_(tasks),
        cost_(cost),
        demand_(demand),
        fused_(fused) {
    count_ = 1;
  }

  int capacity() const override { return tasks_; }
  Block make_block(std::size_t width) override {
    cost_.vector_scalars += width;
    return {next_++};
  }
  Block make_weights() override { return make_block(network_->size()); }

  void do_broadcast(Block, const SharedVector&) override {}
  void do_fill(Block, double) override {}
  void do_copy(Block, Block) override {}
  void do_axpy(Block, double, Block) override {}
  void do_multiply_add(Block, double, Block, Block) override {}
  void do_multiply_fold(Block, double, Block, Block) override {}
  void do_exponential(Block, Block) override {}
  void do_normal(Block, const RandomKey&) override {}
  void do_mean_square(Block, double, Block, Block, Block) override {}
  void do_rate_multiply(Block, const backend::Rate&, Block) override {}
  void do_rate_step(Block, Block, const backend::Rate&, Block) override {}
  void do_row_count(Block, Set) override {}
  void do_apply(Block, backend::Function, Block) override {}
  void do_scale_by(Block, Block) override {}
  void do_adam_step(const AdamBlocks&, const backend::AdamRule&) override {}
  void do_upload(Block, const double*, std::size_t) override {}
  void do_sample(Block, Block, Block, Block, const RandomKey*) override {}
  void do_sample_pullback(Block, Block, double, Block, Block, Block) override {}
  void do_sample_direction(Block, Block, Block, Block, Block) override {}
  void do_kl(const KlTerms&, Block, Block, Block, Block, Block) override {}
  void do_kl_hvp(const KlTerms&, Block, Block, Block, Block, Block, Block) override {}

  void do_gradient(const Pass& pass, Block, bool, Block) override {
    ++cost_.gradients;
    demand_.dropout = demand_.dropout || pass.dropout;
    note(pass.set, 3.0, 2);
  }
  backend::FusedDescent* fused_descent() override { return fused_ ? this : nullptr; }
  bool run(const backend::Descent& descent) override {
    demand_.descent_steps = std::max(demand_.descent_steps, descent.steps);
    return true;
  }
  bool run(const backend::GaussianDescent& descent) override {
    if (!draws_fused(descent)) return false;
    demand_.descent_steps = std::max(demand_.descent_steps, descent.steps);
    demand_.descent_samples =
        std::max({demand_.descent_samples, descent.draws.samples, descent.outer_draws.samples});
    if (descent.second_order) {
      demand_.descent_noise =
          std::max(demand_.descent_noise, descent.steps * descent.draws.samples);
    }
    return true;
  }
  void do_hessian_vector(const Pass& pass, Block, Block, bool, Block grad) override {
    ++cost_.hessian_products;
    demand_.dropout = demand_.dropout || pass.dropout;
    demand_.hessian_gradients = demand_.hessian_gradients || grad;
    note(pass.set, 6.0, 4);
  }
  void do_value(const Pass& pass, Block, Block, NormStatistics) override { note(pass.set, 1.0, 1); }
  // Every product is computed twice, at the mean and at the spread (network_passes.h).
  void do_split_gradient(const SplitPass& pass, Block, Block, bool, Block) override {
    ++cost_.gradients;
    split(pass).passes = true;
    note(pass.set, 6.0, 4);
  }
  void do_split_hessian_vector(const SplitPass& pass, Block, Block, Block, Block) override {
    ++cost_.hessian_products;
    split(pass) = {true, true};
    note(pass.set, 12.0, 8);
  }
  void do_split_value(const SplitPass& pass, Block, Block, NormStatistics) override {
    split(pass).passes = true;
    note(pass.set, 2.0, 2);
  }
  int rows(Set set) const override { return shape_.rows(set); }
  std::unique_ptr<backend::Generator> generator(const backend::GeneratorSpec& spec) override;
  void do_download(Block, std::span<double>) const override {}

  void do_output_pullback(const Pass& pass, Block, Block, bool) override { note(pass.set, 3.0, 2); }
  std::unique_ptr<backend::LinearAlgebra> linear_algebra() override;

  int classes() const { return network_->outputs(); }

 protected:
  void do_load(const TaskBatch&, int, int, std::uint32_t) override {}

 private:
  backend::WaveDemand::Split& split(const SplitPass& pass) {
    return demand_.split[static_cast<std::size_t>(pass.estimator)];
  }
  void note(Set set, double forwards, std::size_t copies) {
    const int n = rows(set);
    cost_.operations += forwards * 2.0 * network_->forward_macs() * n;
    std::size_t outputs = 0;
    for (const Layer& layer : network_->layers()) {
      outputs += static_cast<std::size_t>(layer.out.size());
    }
    cost_.activation_scalars =
        std::max(cost_.activation_scalars, copies * outputs * static_cast<std::size_t>(n));
  }

  int tasks_;
  TaskCost& cost_;
  backend::WaveDemand& demand_;
  bool fused_;
  int next_ = 0;
};

/// Records the cost of generated weights.
class GeneratorCostRecorder final : public backend::Generator {
 public:
  GeneratorCostRecorder(CostRecorder& wave, const backend::GeneratorSpec& spec, TaskCost& cost,
                        backend::WaveDemand& demand)
      : Generator(wave, spec),
        spec_(spec),
        planned_(std::make_shared<backend::GeneratorSpec>(spec)),
        cost_(cost),
        demand_(demand),
        rows_(wave.rows(Set::support)) {
    latents_ = static_cast<double>((spec.by_label ? wave.classes() : 1) * spec.latents);
    demand_.generator = planned_;
  }

 protected:
  Block do_gradients(std::size_t width) override {
    planned_->gradient_demand.width = width;
    return Generator::do_gradients(width);
  }
  void do_encode(const SharedVector&, const backend::Dropout& dropout, Block) override {
    demand_.encoder_dropout = demand_.encoder_dropout || dropout;
    encoding(1.0);
  }
  void do_encode_pullback(const SharedVector&, const backend::Dropout&, Block, Block) override {
    encoding(2.0);
  }
  void do_sample(Block, Block, Block) override {}
  void do_sample_pullback(Block, Block, Block, Block) override {}
  void do_kl(Kl, double, Block, Block, Block, Block, Block) override {}
  void do_decode(const SharedVector&, const Latents&, Block) override { decoding(1.0); }
  void do_decode_pullback(const SharedVector&, const Latents&, Block, Block,
                          Block g_theta) override {
    if (g_theta) ++planned_->gradient_demand.pullbacks;
    decoding(g_theta ? 2.0 : 1.0);
  }
  void do_decode_tangent(const SharedVector&, const Latents&, Block, Block) override {
    decoding(1.0);
  }
  void do_decode_pullback_tangent(const SharedVector&, const Latents&, Block, Block, Block, Block,
                                  double, Block) override {
    demand_.decoder_tangents = true;
    ++planned_->gradient_demand.pullback_tangents;
    decoding(4.0);
  }

 private:
  void encoding(double forwards) {
    double macs = rows_ * spec_.encoder->forward_macs();
    if (spec_.relation) macs += rows_ * static_cast<double>(rows_) * spec_.relation->forward_macs();
    cost_.operations += forwards * 2.0 * macs;
  }
  void decoding(double forwards) {
    cost_.operations += forwards * 2.0 * latents_ * spec_.decoder->forward_macs();
  }

  backend::GeneratorSpec spec_;
  std::shared_ptr<backend::GeneratorSpec> planned_;
  TaskCost& cost_;
  backend::WaveDemand& demand_;
  int rows_;
  double latents_;
};

/// Records the cost of a head's small matrices: products, factorizations, triangular solves,
/// distances, cosines, sums and elementwise products. The other operations are not counted.
class AlgebraCostRecorder final : public backend::LinearAlgebra {
 public:
  AlgebraCostRecorder(CostRecorder& wave, TaskCost& cost) : LinearAlgebra(wave), cost_(cost) {}

 protected:
  using Matrix = backend::Matrix;
  using Operand = backend::Operand;
  using Scale = backend::Scale;

  void do_targets(const Matrix&, Set) override {}
  void do_row_indicator(const Matrix&, Set) override {}
  void do_class_indicator(const Matrix&) override {}
  void do_copy_part(const Matrix&, const Matrix&, const Part&) override {}
  void do_product(const Matrix& c, double, const Operand& a, const Operand&, bool) override {
    count(2.0, c.rows, c.columns, a.columns());
  }
  void do_multiply(const Matrix& dst, double, const Matrix&, const Matrix&, bool) override {
    count(1.0, dst.rows, dst.columns, 1);
  }
  void do_sum(const Matrix&, double, const Matrix& x, const Matrix&, bool) override {
    count(2.0, x.rows, x.columns, 1);
  }
  void do_add_diagonal(const Matrix&, double, const Matrix&, std::optional<Set>) override {}
  void do_trace(const Matrix&, double, const Matrix&, bool) override {}
  void do_cholesky(const Matrix& l, const Matrix&, const Matrix&) override {
    count(1.0 / 3.0, l.rows, l.rows, l.rows);
  }
  void do_solve_triangular(const Operand& l, backend::Side, const Matrix& x) override {
    count(1.0, x.rows, x.columns, l.matrix.rows);
  }
  void do_log_determinant(const Matrix&, double, const Matrix&) override {}
  void do_unpack_factor(const Matrix&, const Matrix&) override {}
  void do_unpack_factor_pullback(const Matrix&, const Matrix&, const Matrix&) override {}
  void do_distances(const Matrix& dst, const Matrix& a, const Matrix&, const Matrix&) override {
    count(3.0, dst.rows, dst.columns, a.columns);
  }
  void do_distances_pullback(const Matrix& g, const Matrix& a, const Matrix&, const Matrix&,
                             const Matrix&, const Matrix&, const Matrix&) override {
    count(6.0, g.rows, g.columns, a.columns);
  }
  void do_cosines(const Matrix& dst, const Matrix& a, const Matrix&) override {
    count(2.0, dst.rows, dst.columns, a.columns);
  }
  void do_cosines_pullback(const Matrix& g, const Matrix& a, const Matrix&, const Matrix&,
                           const Matrix&) override {
    count(8.0, g.rows, g.columns, a.columns);
  }
  void do_cross_entropy(const Matrix&, Set, const Scale&, const Matrix&, const Matrix&,
                        const Matrix&) override {}
  void do_squared_error(const Matrix&, Set, const Scale&, const Matrix&, const Matrix&,
                        const Matrix&) override {}
  void do_gaussian_nll(const Matrix&, Set, const Scale&, const Matrix&, const Matrix&,
                       const Matrix&, const Matrix&, const Matrix&) override {}

 private:
  void count(double operations, int a, int b, int c) { cost_.operations += operations * a * b * c; }
  TaskCost& cost_;
};

std::unique_ptr<backend::LinearAlgebra> CostRecorder::linear_algebra() {
  return std::make_unique<AlgebraCostRecorder>(*this, cost_);
}

std::unique_ptr<backend::Generator> CostRecorder::generator(const backend::GeneratorSpec& spec) {
  return std::make_unique<GeneratorCostRecorder>(*this, spec, cost_, demand_);
}

/// A backend whose waves record their costs.
class CostRecordingBackend final : public backend::HostBackend<float> {
 public:
  /// `tasks` is the capacity that the waves report. `planned_for` is the backend that is planned
  /// for. Where it is null, inner loops are composed of single operations.
  explicit CostRecordingBackend(int tasks, const backend::Backend* planned_for = nullptr)
      : tasks_(tasks), planned_for_(planned_for) {}
  std::string name() const override { return "recorder"; }
  std::string description() const override { return "counts and does not compute"; }
  backend::Precision precision() const override { return backend::Precision::f32; }
  int concurrency() const override { return 1; }
  std::unique_ptr<backend::Wave> open(std::shared_ptr<const Network> network,
                                      const backend::Loss& loss,
                                      const backend::WaveShape& shape) override {
    demand.network = network;
    demand.loss = loss;
    demand.shape = shape;
    const bool fused = planned_for_ && planned_for_->fuses_descent(*network, shape);
    return std::make_unique<CostRecorder>(std::move(network), loss, shape, tasks_, cost, demand,
                                          fused);
  }

  TaskCost cost;
  backend::WaveDemand demand;

 private:
  int tasks_;
  const backend::Backend* planned_for_;
};

/// Runs the algorithm on the recorder: its meta-gradient and, where `predict` is true, its
/// prediction too.
void count(const Config& given, const TaskShape& shape, CostRecordingBackend& backend,
           bool predict) {
  const Config config = with_head_outputs(given, shape);
  const auto network = std::make_shared<const Network>(config.make_network());
  const std::unique_ptr<Algorithm> algorithm = make_algorithm(config, network);
  std::vector<backend::Shared> parameters;
  for (const ParameterGroup& group : algorithm->groups()) {
    parameters.push_back(backend.shared(group.size));
  }
  algorithm->prepare(backend, parameters, {});
  const std::unique_ptr<TaskProgram> program = algorithm->open(backend, shape);
  program->meta_gradient({});
  if (!predict) return;
  PredictOptions options = predict_options(config, *algorithm);
  options.steps = std::max(options.steps, algorithm->steps());
  program->predict({}, options, [](int, int, Block) {});
  for (const std::size_t width : algorithm->gradient_widths()) {
    backend.demand.gradient_scalars += width;
  }
}

}  // namespace

TaskCost count_task(const Config& config, const TaskShape& shape) {
  CostRecordingBackend backend(1);
  count(config, shape, backend, false);
  TaskCost cost = backend.cost;
  const auto targets =
      static_cast<std::size_t>(shape.target == TargetKind::label ? 1 : shape.outputs);
  cost.row_scalars = static_cast<std::size_t>(shape.support + shape.query) *
                     (static_cast<std::size_t>(shape.input.size()) + targets);
  return cost;
}

backend::WavePlan plan_waves(backend::Backend& backend, const Config& config,
                             const TaskShape& shape) {
  return backend.plan_waves([&](int tasks) {
    CostRecordingBackend recorder(tasks, &backend);
    count(config, shape, recorder, true);
    recorder.demand.vector_scalars = recorder.cost.vector_scalars;
    if (const auto& generator = recorder.demand.generator) {
      recorder.demand.vector_scalars -= generator->gradient_demand.width;
    }
    recorder.demand.hessian_vectors = recorder.cost.hessian_products > 0;
    return recorder.demand;
  });
}

}  // namespace kshot
