#include "algorithms/closed_form.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "algorithms/common.h"
#include "algorithms/factories.h"

namespace kshot {

using backend::Block;
using backend::Matrix;
using backend::NormStatistics;
using backend::Set;
using backend::Shared;
using backend::Wave;

void Head::exponential(const Matrix& dst, double a, const Matrix& src) {
  zero(dst);
  add(dst, a, src);
  d_.wave.exponential(dst.block, dst.block);
}

void Head::append_ones(const Matrix& dst, const Matrix& z, Set set) {
  Matrix& ones = ones_[set == Set::query];
  if (!ones) ones = matrix(z.rows, 1);
  d_.la.row_indicator(ones, set);
  d_.la.copy_part(dst, z, {.rows = z.rows, .columns = z.columns});
  d_.la.copy_part(dst, ones, {.dst_column = z.columns, .rows = z.rows, .columns = 1});
}

void Head::drop_ones(const Matrix& g_z, const Matrix& g) {
  Matrix& part = dropped_[g_z.block.id == d_.g_q.block.id];
  if (!part) part = matrix(g_z.rows, g_z.columns);
  d_.la.copy_part(part, g, {.rows = g_z.rows, .columns = g_z.columns});
  add(g_z, 1.0, part);
}

namespace {

/// Values of the algorithm that its programs read. prepare() sets them.
struct HeadShared {
  Shared theta;
  std::vector<Shared> tensors;  ///< the head's tensors, one vector each
};

class ClosedFormProgram final : public TaskProgram {
 public:
  ClosedFormProgram(std::unique_ptr<Wave> wave, const Config& config, const HeadSpec& spec,
                    const TaskShape& shape, int features, const HeadShared& shared)
      : wave_(std::move(wave)),
        algebra_(wave_->linear_algebra()),
        shared_(shared),
        dropout_rate_(config.network.input_dropout) {
    HeadData d{*wave_, *algebra_};
    d.support = shape.support;
    d.query = shape.query;
    d.features = features;
    d.targets = shape.outputs;
    d.z_s = {wave_->outputs(Set::support), d.support, features};
    d.z_q = {wave_->outputs(Set::query), d.query, features};
    d.y_s = algebra_->matrix(d.support, d.targets);
    d.y_q = algebra_->matrix(d.query, d.targets);
    d.g_s = algebra_->matrix(d.support, features);
    d.g_q = algebra_->matrix(d.query, features);
    d.loss = algebra_->matrix(1, 1);
    d.jittered = algebra_->matrix(1, 1);
    weights_ = wave_->weights();
    gradients_.push_back(wave_->weights());
    for (const HeadTensor& tensor : spec.tensors) {
      const int rows = tensor.shape.size() > 1 ? tensor.shape[0] : 1;
      const int columns = tensor.shape.back();
      d.parameters.push_back(algebra_->matrix(rows, columns));
      d.gradients.push_back(algebra_->matrix(rows, columns));
      gradients_.push_back(d.gradients.back().block);
    }
    data_ = std::make_unique<HeadData>(d);
    head_ = spec.make(*data_, config);
  }

  Wave& wave() override { return *wave_; }

  void meta_gradient(const StepContext& context) override {
    HeadData& d = *data_;
    begin(context, NormStatistics::batch);
    for (const Matrix* m : {&d.g_s, &d.g_q, &d.loss}) wave_->fill(m->block, 0.0);
    for (const Matrix& g : d.gradients) wave_->fill(g.block, 0.0);
    algebra_->targets(d.y_q, Set::query);
    head_->differentiate();
    wave_->output_pullback(pass(context, Set::query), d.g_q.block, gradients_[0], false);
    if (d.support > 0) {
      wave_->output_pullback(pass(context, Set::support), d.g_s.block, gradients_[0], true);
    }
  }
  std::span<const Block> gradients() const override { return gradients_; }
  Block loss() const override { return data_->loss.block; }
  /// Metric: 1 where a factorization of the task needed a jitter, else 0.
  void metrics(std::span<double> values) override {
    const auto count = static_cast<std::size_t>(wave_->count());
    wave_->download(data_->jittered.block, values.first(count));
    for (double& v : values.first(count)) v = v > 0.0 ? 1.0 : 0.0;
  }

  void outputs_after_gradient(const std::function<void(int, Block)>& visit) override {
    head_->predict();
    visit(0, head_->outputs().block);
  }

  void predict(const StepContext& context, const PredictOptions& options,
               const std::function<void(int, int, Block)>& visit) override {
    StepContext without = context;
    without.dropout = false;
    begin(without, options.statistics);
    head_->predict();
    visit(0, 0, head_->outputs().block);
  }
  AdaptedState adapt(const StepContext& context, const PredictOptions& /*options*/) override {
    StepContext without = context;
    without.dropout = false;
    begin_support(without);
    head_->prepare();
    head_->fit();
    AdaptedState state;
    for (const Matrix& m : head_->fitted()) {
      state.push_back(download(*wave_, m.block, width_of(m)));
    }
    return state;
  }
  void predict_adapted(const AdaptedState& state, const StepContext& context,
                       const PredictOptions& options,
                       const std::function<void(int, int, Block)>& visit) override {
    StepContext without = context;
    without.dropout = false;
    take_parameters();
    head_->prepare();
    const std::vector<Matrix> fitted = head_->fitted();
    for (std::size_t i = 0; i < fitted.size(); ++i) {
      wave_->upload(fitted[i].block, state[i].data(), width_of(fitted[i]));
    }
    query_features(without, options.statistics);
    head_->query();
    visit(0, 0, head_->outputs().block);
  }
  Block predictive_variance() const override { return head_->variance().block; }
  Block predictive_covariance() override { return head_->covariance().block; }
  /// The network is the same for every task.
  std::vector<NamedBlock> adapted() const override { return {{"theta", weights_}}; }

 private:
  /// The pass of the network over a set's rows. The forward pass and the pull-back of a step over a
  /// set have the same key, so that they drop the same inputs.
  Wave::Pass pass(const StepContext& context, Set set) const {
    Wave::Pass pass{set, weights_, {}};
    pass.dropout = dropout(context, dropout_rate_, set == Set::support ? 0 : 1);
    return pass;
  }

  /// Computes the features of both sets, and takes the support targets and the head's parameters.
  void begin(const StepContext& context, NormStatistics statistics) {
    begin_support(context);
    query_features(context, statistics);
  }
  /// Broadcasts the network's weights and the head's parameters to the tasks.
  void take_parameters() {
    HeadData& d = *data_;
    wave_->broadcast(weights_, *shared_.theta);
    for (std::size_t i = 0; i < d.parameters.size(); ++i) {
      wave_->broadcast(d.parameters[i].block, *shared_.tensors[i]);
    }
  }
  void begin_support(const StepContext& context) {
    HeadData& d = *data_;
    take_parameters();
    wave_->fill(d.jittered.block, 0.0);
    if (d.support == 0) return;
    wave_->value(pass(context, Set::support), {}, d.z_s.block, NormStatistics::batch);
    algebra_->targets(d.y_s, Set::support);
  }
  void query_features(const StepContext& context, NormStatistics statistics) {
    wave_->value(pass(context, Set::query), {}, data_->z_q.block, statistics);
  }
  static std::size_t width_of(const Matrix& m) {
    return static_cast<std::size_t>(m.rows) * static_cast<std::size_t>(m.columns);
  }

  std::unique_ptr<Wave> wave_;
  std::unique_ptr<backend::LinearAlgebra> algebra_;
  const HeadShared& shared_;
  const double dropout_rate_;
  std::unique_ptr<HeadData> data_;
  std::unique_ptr<Head> head_;
  Block weights_;
  std::vector<Block> gradients_;
};

class ClosedForm final : public Algorithm {
 public:
  ClosedForm(std::string name, const Config& config, std::shared_ptr<const Network> network,
             HeadSpec spec)
      : name_(std::move(name)),
        config_(config),
        network_(std::move(network)),
        loss_(make_loss(config)),
        spec_(std::move(spec)) {
    groups_.push_back(network_group("theta", *network_));
    ParameterGroup head;
    head.name = "head";
    for (const HeadTensor& tensor : spec_.tensors) {
      const std::size_t size = tensor.initial.size();
      head.tensors.push_back({tensor.name, tensor.shape, head.size, size});
      std::vector<std::uint32_t>& index = index_.emplace_back();
      for (std::size_t i = 0; i < size; ++i) {
        index.push_back(static_cast<std::uint32_t>(head.size + i));
      }
      head.size += size;
    }
    groups_.push_back(std::move(head));
  }

  std::string name() const override { return name_; }
  const std::vector<ParameterGroup>& groups() const override { return groups_; }
  int steps() const override { return 0; }
  std::vector<std::vector<double>> initial(std::uint64_t seed) const override {
    std::vector<double> head;
    for (const HeadTensor& tensor : spec_.tensors) {
      head.insert(head.end(), tensor.initial.begin(), tensor.initial.end());
    }
    return {network_->initial_weights(seed), head};
  }
  std::vector<std::size_t> gradient_widths() const override {
    std::vector<std::size_t> widths = {network_->size()};
    for (const HeadTensor& tensor : spec_.tensors) widths.push_back(tensor.initial.size());
    return widths;
  }

  void prepare(backend::Backend& backend, std::span<const Shared> parameters,
               const StepContext& /*context*/) override {
    shared_.theta = parameters[0];
    for (std::size_t i = 0; i < index_.size(); ++i) {
      if (shared_.tensors.size() <= i) shared_.tensors.push_back(backend.shared(index_[i].size()));
      backend.gather(*shared_.tensors[i], *parameters[1], index_[i]);
    }
  }
  std::unique_ptr<TaskProgram> open(backend::Backend& backend,
                                    const TaskShape& shape) const override {
    backend::WaveShape wave{shape.support, shape.query};
    wave.targets = shape.outputs;
    wave.every_class = spec_.every_class;
    return std::make_unique<ClosedFormProgram>(backend.open(network_, loss_, wave), config_, spec_,
                                               shape, network_->outputs(), shared_);
  }
  void finish(backend::Backend& backend, std::span<const Shared> /*parameters*/,
              std::span<const Shared> means, std::span<const Shared> gradients,
              backend::Sum /*outside*/) const override {
    backend.assign(*gradients[0], *means[0]);
    for (std::size_t i = 0; i < index_.size(); ++i) {
      backend.scatter_add(*gradients[1], *means[1 + i], index_[i], i > 0);
    }
  }

  std::vector<std::string> metrics() const override { return {"jittered"}; }
  std::string warning(std::span<const double> means) const override {
    if (!(means[0] > 0.1)) return {};
    return "more than a tenth of the tasks' systems are singular within rounding and were given a "
           "jitter: their features are nearly linearly dependent";
  }
  std::string divergence_hint() const override {
    return "the features grow without bound, or a head's system is singular (lower "
           "optimizer.learning_rate, or clip the gradients with optimizer.clip_norm)";
  }

 private:
  std::string name_;
  Config config_;
  std::shared_ptr<const Network> network_;
  backend::Loss loss_;
  HeadSpec spec_;
  std::vector<ParameterGroup> groups_;
  std::vector<std::vector<std::uint32_t>> index_;  ///< offset of each tensor element in the group
  HeadShared shared_;
};

}  // namespace

std::unique_ptr<Algorithm> make_closed_form(const Config& config,
                                            std::shared_ptr<const Network> network) {
  const int features = network->outputs();
  const auto check_resolved = [](int outputs) {
    if (outputs < 1) throw std::logic_error("the head's number of outputs is not known yet");
  };
  const auto make = [&](const char* name, HeadSpec spec) {
    return std::make_unique<ClosedForm>(name, config, std::move(network), std::move(spec));
  };
  switch (config.algorithm) {
    case AlgorithmKind::protonet:
      return make("protonet", protonet_head(config, features));
    case AlgorithmKind::bayes_protonet:
      return make("bayes_protonet", bayes_protonet_head(config, features));
    case AlgorithmKind::r2d2:
      return make("r2d2", r2d2_head(config, features));
    case AlgorithmKind::alpaca:
      check_resolved(config.alpaca.outputs);
      return make("alpaca", alpaca_head(config, features));
    case AlgorithmKind::dkt:
      check_resolved(config.dkt.outputs);
      return make("dkt", dkt_head(config, features));
    default:
      throw std::logic_error("not an algorithm with a closed-form head");
  }
}

}  // namespace kshot
