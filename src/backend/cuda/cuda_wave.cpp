// The wave of the CUDA backend. The file is long because it defines one class, which implements
// every part of the wave interface.
#include "backend/cuda/cuda_wave.h"

#include <algorithm>
#include <iterator>
#include <span>
#include <stdexcept>
#include <type_traits>

#include "backend/cuda/cuda_generator.h"
#include "backend/cuda/cuda_linear_algebra.h"
#include "kernels/latent.h"
#include "kernels/reduction.h"
#include "kernels/scalar.h"
#include "kshot/error.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using backend::count_of;

int largest_rows(const backend::WaveShape& shape) {
  return shape.with_all ? shape.support + shape.query : std::max(shape.support, shape.query);
}

/// The largest number of features that a layer takes or gives.
std::size_t largest_features(const Network& network) {
  std::size_t most = count_of(network.input().size());
  for (const Layer& layer : network.layers()) most = std::max(most, count_of(layer.out.size()));
  return most;
}

}  // namespace

template <class T>
CudaWave<T>::CudaWave(const Device& device, SharedStreamPointer shared,
                      std::shared_ptr<const Network> network, const backend::Loss& loss,
                      const backend::WaveShape& shape, int capacity, Arithmetic arithmetic)
    : Wave(std::move(network), loss, shape),
      device_(device),
      shared_(std::move(shared)),
      capacity_(capacity),
      arithmetic_(arithmetic),
      rows_(*network_, loss, shape, targets(), capacity),
      perceptron_(*network_, shape) {
  const std::size_t tasks = count_of(capacity);
  const std::size_t most = tasks * count_of(largest_rows(shape));
  row_loss_ = DeviceMemory<T>(most);
  const std::vector<Layer>& layers = network_->layers();
  features_.resize(layers.size());
  kept_.resize(layers.size());
  given_.resize(layers.size());
  int source = -1;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    source_.push_back(source);
    const LayerOperations<T>* operations = layer_operations<T>(layers[i].type);
    if (!operations) continue;  // flatten: the next layer reads this one's input
    features_[i].value = features(most * count_of(layers[i].out.size()));
    if (operations->kept) {
      const std::size_t kept = tasks * operations->kept(layers[i], largest_rows(shape));
      kept_[i].value = DeviceMemory<T>(kept);
      given_[i] = DeviceMemory<T>(kept);
    }
    source = static_cast<int>(i);
  }
  source_.push_back(source);
  for (Dual& g : g_) g.value = features(most * largest_features(*network_));
}

template <class T>
DeviceMemory<T> CudaWave<T>::features(std::size_t count) const {
  DeviceMemory<T> made(count);
  stream_.clear(made.data(), count);
  return made;
}

template <class T>
void CudaWave<T>::prepare_tangents() {
  if (tangents_) return;
  tangents_ = true;
  for (std::vector<Dual>* duals : {&features_, &kept_}) {
    for (Dual& d : *duals) d.dot = features(d.value.size());
  }
  for (Dual& g : g_) g.dot = features(g.value.size());
}

template <class T>
void CudaWave<T>::take_memory(const backend::WaveDemand& demand) {
  // Small perceptrons use their fused kernel, except for operations that it does not have.
  bool layered = demand.dropout || demand.hessian_gradients || !perceptron_.open();
  for (const backend::Estimator e : {backend::Estimator::flipout, backend::Estimator::local}) {
    const auto& split = demand.split[static_cast<std::size_t>(e)];
    if (split.passes) split_layers().reserve(e, split.hessian_vectors);
    layered = layered || split.hessian_vectors;
  }
  if (demand.hessian_vectors && layered) prepare_tangents();
  if (demand.descent_samples > 0) {
    perceptron_.reserve_gaussian(capacity_, demand.descent_steps, demand.descent_samples,
                                 demand.descent_noise);
  } else if (demand.descent_steps > 0) {
    perceptron_.reserve(capacity_, demand.descent_steps);
  }
  if (demand.dropout) {
    dropped_.reserve(count_of(capacity_) * count_of(largest_rows(shape_)) *
                     count_of(network_->input().size()));
  }
  if (demand.generator) take_generator_memory(*this, demand);
  block(demand.vector_scalars);
}

template <class T>
std::size_t wave_bytes(const Device& device, const backend::WaveDemand& demand, int tasks) {
  MemoryCount count;
  CudaWave<T> wave(device, nullptr, demand.network, demand.loss, demand.shape, tasks,
                   Arithmetic::plain);
  wave.take_memory(demand);
  // Memory of CudaReduction: the sums of runs, their counts, and the flags.
  const std::size_t runs = count_of((tasks + run_tasks - 1) / run_tasks);
  const DeviceMemory<T> sums(demand.gradient_scalars * runs);
  const DeviceMemory<double> counts(3 * runs);
  const DeviceMemory<std::int32_t> flags(count_of(tasks));
  return count.bytes();
}

template <class T>
void CudaWave<T>::capture(const std::function<void()>& work) {
  follow_shared();  // here, because work in a graph cannot wait for work outside of it
  if (capture_state_ == CaptureState::enabled) {
    if (graph_.capture(stream_, work)) return graph_.launch(stream_);
    capture_state_ = CaptureState::unsupported;
  }
  work();
  if (capture_state_ == CaptureState::first_call) capture_state_ = CaptureState::enabled;
}

// ---- tasks ----

template <class T>
void CudaWave<T>::do_load(const TaskBatch& batch, int first, int count,
                          std::uint32_t global_first) {
  device_.activate();
  count_ = count;
  global_first_ = global_first;
  begin_tasks();
  rows_.load(batch, first, count, stream_);
}

template <class T>
void CudaWave<T>::draw(const backend::Episodes& episodes, const TaskId& id, int count) {
  const auto& drawn = dynamic_cast<const CudaEpisodes&>(episodes);
  const TaskShape& shape = drawn.shape();
  if (count < 1 || count > capacity_) {
    throw std::logic_error(
        fmt::format("a wave of at most {} tasks asked to draw {}", capacity_, count));
  }
  if (shape.input.size() != network_->input().size() || shape.outputs != targets() ||
      (shape.target == TargetKind::label) != (loss_.kind == backend::LossKind::cross_entropy) ||
      shape.support != shape_.support || shape.query != shape_.query || id.split != drawn.split()) {
    throw std::logic_error("tasks to be drawn do not fit the wave");
  }
  device_.activate();
  take_drawn(count, shape.outputs);
  count_ = count;
  global_first_ = id.task;
  begin_tasks();
  rows_.draw(drawn, id, count, stream_);
}

template <class T>
typename CudaWave<T>::SupportRows CudaWave<T>::support_rows() const {
  const SetRows& rows = rows_.of(Set::support);
  SupportRows view;
  view.extent = rows_.extent(rows);
  view.features = network_->input().size();
  view.targets = targets();
  view.x = rows.x.data();
  view.values = rows.values.data();
  view.labels = rows.labels.data();
  return view;
}

template <class T>
typename CudaWave<T>::TargetRows CudaWave<T>::target_rows(Set set) const {
  const SetRows& rows = rows_.of(set);
  return {rows_.extent(rows), rows.values.data(), rows.labels.data()};
}

// ---- blocks ----

template <class T>
backend::Block CudaWave<T>::make_block(std::size_t width) {
  device_.activate();
  blocks_.push_back({DeviceMemory<T>(count_of(capacity_) * width), width});
  return {static_cast<int>(blocks_.size()) - 1};
}

template <class T>
backend::Block CudaWave<T>::factored_block(std::unique_ptr<FactoredGradient<T>> gradient) {
  const std::size_t width = gradient->width();
  blocks_.push_back({{}, width, false, std::move(gradient)});
  return note({static_cast<int>(blocks_.size()) - 1}, width, false);
}

template <class T>
FactoredGradient<T>& CudaWave<T>::factored(Block block) const {
  FactoredGradient<T>* const found = find_factored(block);
  if (!found) throw std::logic_error("a block that is not Generator::gradients()'s");
  return *found;
}

template <class T>
const typename CudaWave<T>::Storage& CudaWave<T>::with_values(Block block) const {
  const Storage& found = storage(block);
  if (found.factored) throw std::logic_error("a gradient that is kept as factors has no values");
  return found;
}

template <class T>
T* CudaWave<T>::at(Block block, std::size_t width) {
  require_width("an operation of the device", block, width);
  return at(block);
}

template <class T>
void CudaWave<T>::do_upload(Block dst, const double* host, std::size_t stride) {
  const std::size_t n = width(dst);
  staging_.resize(elements(dst));
  for (std::size_t t = 0; t < count_of(count_); ++t) {
    const double* from = host + (rows_.batch_first() + t) * stride;
    std::transform(from, from + n, staging_.begin() + static_cast<std::ptrdiff_t>(t * n),
                   [](double x) { return static_cast<T>(x); });
  }
  stream_.to_device(at(dst), staging_.data(), staging_.size());
}

template <class T>
void CudaWave<T>::do_download(Block src, std::span<double> values) const {
  if (values.size() != elements(src)) {
    throw std::logic_error(
        fmt::format("{} numbers asked for of a block of {}", values.size(), elements(src)));
  }
  staging_.resize(values.size());
  if (const FactoredGradient<T>* gradient = find_factored(src)) {
    const std::size_t n = width(src);
    gradient->visit(count_, stream_, [&](int first, int count, const T* g) {
      stream_.to_host(staging_.data() + count_of(first) * n, g, count_of(count) * n);
    });
  } else {
    stream_.to_host(staging_.data(), data(src), staging_.size());
  }
  std::ranges::transform(staging_, values.begin(), [](T x) { return static_cast<double>(x); });
}

// ---- algebra ----

template <class T>
void CudaWave<T>::do_broadcast(Block dst, const backend::SharedVector& src) {
  cuda::broadcast(at(dst, src.size()), shared(src), extent(dst), stream_.get());
  storage(dst).is_shared = true;
}

template <class T>
void CudaWave<T>::do_fill(Block dst, double value) {
  if (FactoredGradient<T>* gradient = find_factored(dst)) {
    if (value != 0.0) throw std::logic_error("a gradient that is kept as factors begins with zero");
    return gradient->clear(stream_);
  }
  cuda::fill(at(dst), static_cast<T>(value), elements(dst), stream_.get());
}

template <class T>
void CudaWave<T>::do_copy(Block dst, Block src) {
  stream_.copy(at(dst, width(src)), data(src), elements(src));
}

template <class T>
void CudaWave<T>::do_axpy(Block y, double a, Block x) {
  cuda::axpy(at(y, width(x)), static_cast<T>(a), data(x), elements(x), stream_.get());
}

template <class T>
void CudaWave<T>::do_multiply_add(Block y, double a, Block x1, Block x2) {
  cuda::multiply_add<T>(at(y, width(x1)), static_cast<T>(a), data(x1), at(x2, width(x1)),
                        elements(x1), stream_.get());
}

template <class T>
void CudaWave<T>::do_multiply_fold(Block y, double a, Block x1, Block x2) {
  const std::size_t n = width(y);
  if (width(x1) % n != 0) {
    throw std::logic_error(fmt::format("{} does not divide the width {}", n, width(x1)));
  }
  if (const FactoredGradient<T>* gradient = x1.id == x2.id ? find_factored(x1) : nullptr) {
    T* const to = at(y);
    return gradient->visit(count_, stream_, [&](int first, int count, const T* g) {
      cuda::multiply_fold<T>(to + count_of(first) * n, static_cast<T>(a), g, g,
                             {count, static_cast<int>(width(x1))}, static_cast<int>(n),
                             stream_.get());
    });
  }
  cuda::multiply_fold<T>(at(y), static_cast<T>(a), data(x1), at(x2, width(x1)), extent(x1),
                         static_cast<int>(n), stream_.get());
}

template <class T>
void CudaWave<T>::do_exponential(Block dst, Block src) {
  cuda::exponential(at(dst, width(src)), data(src), elements(src), stream_.get());
}

template <class T>
void CudaWave<T>::do_normal(Block dst, const RandomKey& of_wave) {
  RandomKey key = of_wave;
  key.task = global_first_;
  draw_normal(at(dst), key, extent(dst), stream_.get());
}

template <class T>
void CudaWave<T>::do_mean_square(Block value, double weight, Block a, Block b, Block g_b) {
  cuda::mean_square<T>(at(value, 1), static_cast<T>(weight), data(a), at(b, width(a)),
                       at(g_b, width(a)), extent(a), stream_.get());
}

template <class T>
void CudaWave<T>::do_row_count(Block dst, Set set) {
  from_counts(at(dst, 1), rows_.counts(set), count_, stream_.get());
}

template <class T>
void CudaWave<T>::do_apply(Block dst, backend::Function f, Block src) {
  T* const to = at(dst, width(src));
  switch (f) {
    case backend::Function::reciprocal:
      return reciprocal(to, data(src), elements(src), stream_.get());
    case backend::Function::logarithm:
      return logarithm(to, data(src), elements(src), stream_.get());
    case backend::Function::square_root:
      return square_root(to, data(src), elements(src), stream_.get());
  }
}

template <class T>
void CudaWave<T>::do_scale_by(Block y, Block scalar) {
  cuda::scale_by<T>(at(y), at(scalar, 1), extent(y), stream_.get());
}

template <class T>
void CudaWave<T>::do_adam_step(const AdamBlocks& blocks, const backend::AdamRule& rule) {
  const std::size_t n = width(blocks.parameters);
  TaskAdam<T> adam;
  adam.parameters = at(blocks.parameters);
  adam.gradient = at(blocks.gradient, n);
  adam.m = at(blocks.m, n);
  adam.v = at(blocks.v, n);
  adam.count = at(blocks.count, 1);
  adam.learning_rate = static_cast<T>(rule.learning_rate);
  adam.beta1 = static_cast<T>(rule.beta1);
  adam.beta2 = static_cast<T>(rule.beta2);
  adam.epsilon = static_cast<T>(rule.epsilon);
  cuda::adam_step(adam, extent(blocks.parameters), stream_.get());
}

/// A vector that is shorter than the width is repeated, as if the block had correspondingly more
/// tasks.
template <class T>
RateArgument<T> CudaWave<T>::rate_argument(const backend::Rate& rate, Extent& extent) const {
  if (!rate.vector) return {static_cast<T>(rate.value), nullptr};
  const int n = static_cast<int>(rate.vector->size());
  if (extent.width % n != 0) {
    throw std::logic_error(fmt::format("blocks of width {} and {}", n, extent.width));
  }
  extent = {extent.tasks * (extent.width / n), n};
  return {T(0), shared(*rate.vector)};
}

template <class T>
void CudaWave<T>::do_rate_multiply(Block dst, const backend::Rate& rate, Block x) {
  Extent extent = this->extent(x);
  const RateArgument<T> argument = rate_argument(rate, extent);
  cuda::rate_multiply(at(dst, width(x)), argument, data(x), extent, stream_.get());
}

template <class T>
void CudaWave<T>::do_rate_step(Block dst, Block src, const backend::Rate& rate, Block grad) {
  Extent extent = this->extent(src);
  const RateArgument<T> argument = rate_argument(rate, extent);
  cuda::rate_step<T>(at(dst, width(src)), data(src), argument, at(grad, width(src)), extent,
                     stream_.get());
}

// ---- Gaussian over weights ----

template <class T>
void CudaWave<T>::do_sample(Block phi, Block eps, Block mu, Block sigma, const RandomKey* of_wave) {
  const std::size_t n = width(mu);
  if (of_wave) {
    RandomKey key = *of_wave;
    key.task = global_first_;
    draw_sample<T>(at(phi, n), at(eps, n), data(mu), at(sigma, n), key, extent(mu), stream_.get());
    return;
  }
  cuda::sample<T>(at(phi, n), at(eps, n), data(mu), at(sigma, n), elements(mu), stream_.get());
}

template <class T>
void CudaWave<T>::do_sample_pullback(Block g_mu, Block g_s, double a, Block g, Block eps,
                                     Block sigma) {
  const std::size_t n = width(g);
  cuda::sample_pullback<T>(at(g_mu, n), at(g_s, n), static_cast<T>(a), data(g), at(eps, n),
                           at(sigma, n), elements(g), stream_.get());
}

template <class T>
void CudaWave<T>::do_sample_direction(Block u, Block v_mu, Block v_s, Block eps, Block sigma) {
  const std::size_t n = width(v_mu);
  cuda::sample_direction<T>(at(u, n), data(v_mu), at(v_s, n), at(eps, n), at(sigma, n),
                            elements(v_mu), stream_.get());
}

template <class T>
TaskScale<T> CudaWave<T>::task_scale(const backend::Scale& scale) const {
  const auto counts = [&](Set set) { return rows_.counts(set); };
  const T factor = static_cast<T>(scale.factor);
  switch (scale.by) {
    case backend::Scale::By::one:
      break;
    case backend::Scale::By::support:
      return {factor, counts(Set::support)};
    case backend::Scale::By::query:
      return {factor, counts(Set::query)};
    case backend::Scale::By::all:
      return {factor, counts(Set::all)};
  }
  return {factor, nullptr};
}

template <class T>
GaussianPair<T> CudaWave<T>::gaussian_pair(const KlTerms& terms) {
  const std::size_t n = width(terms.mu);
  return {data(terms.mu), at(terms.s, n), at(terms.prior_mu, n), at(terms.prior_s, n),
          task_scale(terms.scale)};
}

template <class T>
void CudaWave<T>::do_kl(const KlTerms& terms, Block value, Block g_mu, Block g_s, Block gp_mu,
                        Block gp_s) {
  const std::size_t n = width(terms.mu);
  cuda::kl(gaussian_pair(terms), at_or_null(value, 1), at_or_null(g_mu, n), at_or_null(g_s, n),
           at_or_null(gp_mu, n), at_or_null(gp_s, n), extent(terms.mu), stream_.get());
}

template <class T>
void CudaWave<T>::do_kl_hvp(const KlTerms& terms, Block v_mu, Block v_s, Block r_mu, Block r_s,
                            Block rp_mu, Block rp_s) {
  const std::size_t n = width(terms.mu);
  cuda::kl_hvp<T>(gaussian_pair(terms), at(v_mu, n), at(v_s, n), at_or_null(r_mu, n),
                  at_or_null(r_s, n), at_or_null(rp_mu, n), at_or_null(rp_s, n), extent(terms.mu),
                  stream_.get());
}

// ---- network ----

template <class T>
TaskTensor<const T> CudaWave<T>::weights_in(Block block) const {
  return {data(block), storage(block).is_shared ? 0 : network_->size()};
}

template <class T>
typename CudaWave<T>::Run CudaWave<T>::enter(const Pass& pass, const T* direction) {
  const SetRows& rows = rows_.of(pass.set);
  Run entered{&rows, rows.x.data(), weights_in(pass.weights), direction};
  if (pass.dropout) {
    const int width = rows.rows * network_->input().size();
    dropped_.reserve(count_of(capacity_) * count_of(largest_rows(shape_)) *
                     count_of(network_->input().size()));
    RandomKey key = pass.dropout.key;
    key.task = global_first_;
    drop(dropped_.data(), rows.x.data(), pass.dropout.rate, key, {count_, width}, stream_.get());
    entered.x = dropped_.data();
  }
  return entered;
}

template <class T>
Tangent<const T> CudaWave<T>::input(const Run& pass, std::size_t layer) const {
  if (source_[layer] < 0) return {pass.x, nullptr};
  const Dual& features = features_[count_of(source_[layer])];
  return {features.value.data(), pass.direction ? features.dot.data() : nullptr};
}

template <class T>
template <class U>
TensorTangent<U> CudaWave<T>::tensors(int parameter, Tangent<U> flat) const {
  if (parameter < 0) return {};
  const std::size_t offset = network_->parameters()[count_of(parameter)].offset;
  const auto tensor = [&](U* of) -> TaskTensor<U> {
    if (!of) return {};
    return {of + offset, network_->size()};
  };
  return {tensor(flat.value), tensor(flat.dot)};
}

template <class T>
LayerCall<T> CudaWave<T>::call(const Run& pass, std::size_t layer) {
  LayerCall<T> c;
  c.layer = &network_->layers()[layer];
  c.rows = rows_.extent(*pass.rows);
  c.stream = stream_.get();
  c.arithmetic = arithmetic_;
  c.x = input(pass, layer);
  c.weight = tensors<const T>(c.layer->weight, {pass.weights.data, pass.direction});
  c.bias = tensors<const T>(c.layer->bias, {pass.weights.data, pass.direction});
  c.weight.value.stride = c.bias.value.stride = pass.weights.stride;
  c.kept = {kept_[layer].value.data(), pass.direction ? kept_[layer].dot.data() : nullptr};
  return c;
}

template <class T>
void CudaWave<T>::forward(const Run& pass, bool given) {
  const std::vector<Layer>& layers = network_->layers();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const LayerOperations<T>* operations = layer_operations<T>(layers[i].type);
    if (!operations) continue;
    LayerCall<T> c = call(pass, i);
    if (given) c.given = given_[i].data();
    const Tangent<T> y{features_[i].value.data(),
                       pass.direction ? features_[i].dot.data() : nullptr};
    operations->forward(c, y);
    if (pass.spread.value && SplitLayers<T>::splits(layers[i])) {
      split_->forward(i, c,
                      {tensors<const T>(layers[i].weight, pass.spread),
                       tensors<const T>(layers[i].bias, pass.spread)},
                      y);
    }
  }
}

template <class T>
void CudaWave<T>::give_statistics() {
  for (std::size_t i = 0; i < kept_.size(); ++i) std::swap(kept_[i].value, given_[i]);
}

template <class T>
LossTarget<T> CudaWave<T>::target_of(const SetRows& rows) const {
  LossTarget<T> target;
  switch (loss_.kind) {
    case backend::LossKind::cross_entropy:
      target.function = LossFunction::cross_entropy;
      break;
    case backend::LossKind::mse:
      target.function = LossFunction::mse;
      break;
    case backend::LossKind::gaussian_nll:
      target.function = LossFunction::gaussian_nll;
      break;
  }
  target.noise_std = static_cast<T>(loss_.noise_std);
  target.labels = rows.labels.data();
  target.values = rows.values.data();
  return target;
}

template <class T>
void CudaWave<T>::loss_of(const Run& pass, const backend::Scale& scale, Block loss, Tangent<T> g) {
  cuda::loss(target_of(*pass.rows), outputs_of(pass), network_->outputs(), rows_.extent(*pass.rows),
             task_scale(scale), at_or_null(loss, 1), row_loss_.data(), g, stream_.get());
}

template <class T>
void CudaWave<T>::backward(const Run& pass, Tangent<T> gradient, Tangent<T> by_spread,
                           Accumulate to) {
  const auto tangent = [&](Dual& g) -> Tangent<T> {
    return {g.value.data(), pass.direction ? g.dot.data() : nullptr};
  };
  const std::vector<Layer>& layers = network_->layers();
  int at = 0;  // index of the gradient by the layer's output
  for (std::size_t i = layers.size(); i-- > 0;) {
    const LayerOperations<T>* operations = layer_operations<T>(layers[i].type);
    if (!operations) continue;
    const LayerCall<T> c = call(pass, i);
    const Tangent<T> g = tangent(g_[at]);
    const Tangent<T> g_in = source_[i] < 0 ? Tangent<T>{} : tangent(g_[1 - at]);
    operations->backward(c, {g.value, g.dot}, g_in, tensors(layers[i].weight, gradient),
                         tensors(layers[i].bias, gradient), to);
    if (pass.spread.value) split_backward(pass, i, c, g, g_in, gradient, by_spread, to);
    at = 1 - at;
  }
}

template <class T>
template <class OutputGradient>
void CudaWave<T>::layered_gradient(const Pass& pass, Block grad, bool accumulate,
                                   const OutputGradient& output_gradient) {
  const Run entered = enter(pass, nullptr);
  forward(entered, false);
  output_gradient(entered);
  backward(entered, {at(grad, network_->size()), nullptr}, {}, {accumulate, false});
}

template <class T>
void CudaWave<T>::do_gradient(const Pass& pass, Block grad, bool accumulate, Block loss) {
  if (!pass.dropout) {
    PerceptronDescent<T> fused;
    fused.start = weights_in(pass.weights);
    fused.outer = perceptron_rows(pass.set, pass.scale);
    fused.gradient = at(grad, network_->size());
    fused.accumulate = accumulate;
    fused.second_order = false;
    fused.loss = at_or_null(loss, 1);
    if (perceptron_.run(fused, count_, stream_)) return;
  }
  layered_gradient(pass, grad, accumulate, [&](const Run& run) {
    loss_of(run, pass.scale, loss, {g_[0].value.data(), nullptr});
  });
}

template <class T>
void CudaWave<T>::do_output_pullback(const Pass& pass, Block g_outputs, Block grad,
                                     bool accumulate) {
  layered_gradient(pass, grad, accumulate, [&](const Run& run) {
    const RowExtent extent = rows_.extent(*run.rows);
    const T* const from = at(g_outputs, count_of(extent.rows) * count_of(network_outputs_));
    own_rows(g_[0].value.data(), from, network_outputs_, extent, stream_.get());
  });
}

template <class T>
void CudaWave<T>::do_hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                                    Block grad) {
  const std::size_t n = network_->size();
  if (!pass.dropout && !grad) {
    PerceptronDescent<T> fused;
    fused.start = weights_in(pass.weights);
    fused.inner = perceptron_rows(pass.set, pass.scale);
    fused.rates[0].value = T(-1);
    fused.direction = at(direction, n);
    fused.gradient = at(hv, n);
    fused.accumulate = accumulate;
    if (perceptron_.run(fused, count_, stream_)) return;
  }
  prepare_tangents();
  const Run entered = enter(pass, at(direction, n));
  forward(entered, false);
  loss_of(entered, pass.scale, {}, {g_[0].value.data(), g_[0].dot.data()});
  backward(entered, {at_or_null(grad, n), at(hv, n)}, {}, {false, accumulate});
}

template <class T>
void CudaWave<T>::put_value(const Run& run, const backend::Scale& scale, Block loss,
                            Block outputs) {
  if (loss) loss_of(run, scale, loss, {});
  if (outputs) {
    const RowExtent extent = rows_.extent(*run.rows);
    own_rows(at(outputs, count_of(extent.rows) * count_of(network_outputs_)), outputs_of(run).value,
             network_outputs_, extent, stream_.get());
  }
}

template <class T>
PerceptronRows<T> CudaWave<T>::perceptron_rows(Set set, const backend::Scale& scale) const {
  const SetRows& rows = rows_.of(set);
  return {rows.x.data(), target_of(rows), rows_.extent(rows), task_scale(scale)};
}

template <class T>
void CudaWave<T>::do_gradient_step(const Pass& pass, Block dst, Block src,
                                   const backend::Rate& rate, Block scratch) {
  // The kernel takes the gradient at the step's start, and so fits only where this is pass.weights.
  if (!pass.dropout && pass.weights.id == src.id) {
    const std::size_t n = network_->size();
    PerceptronDescent<T> step;
    step.start = {at(src, n), n};  // may be the memory of dst
    step.steps = 1;
    Extent extent = this->extent(src);
    step.rates[0] = rate_argument(rate, extent);
    step.inner = perceptron_rows(pass.set, pass.scale);
    step.end = at(dst, n);
    if (perceptron_.run(step, count_, stream_)) return;
  }
  Wave::do_gradient_step(pass, dst, src, rate, scratch);
}

template <class T>
template <class To>
bool CudaWave<T>::take_rates(std::span<const backend::Rate> rates, To& to) const {
  if (rates.empty() || rates.size() > count_of(most_descent_rates)) return false;
  to.rate_count = static_cast<int>(rates.size());
  for (std::size_t i = 0; i < rates.size(); ++i) {
    Extent extent{count_, static_cast<int>(network_->size())};
    to.rates[i] = rate_argument(rates[i], extent);
  }
  return true;
}

template <class T>
bool CudaWave<T>::run(const backend::Descent& descent) {
  if (descent.outer.dropout || descent.rate_gradients.size() > count_of(most_descent_rates)) {
    return false;
  }
  const std::size_t n = network_->size();
  PerceptronDescent<T> d;
  if (!take_rates(descent.rates, d)) return false;
  d.start = {shared(*descent.start), 0};
  d.steps = descent.steps;
  d.inner = perceptron_rows(descent.set, descent.scale);
  d.end = at_or_null(descent.end, n);
  d.gradient = at(descent.gradient, n);
  d.second_order = descent.second_order;
  d.outer = perceptron_rows(descent.outer.set, descent.outer.scale);
  d.loss = at_or_null(descent.loss, 1);
  d.rate_gradient_count = static_cast<int>(descent.rate_gradients.size());
  for (std::size_t i = 0; i < descent.rate_gradients.size(); ++i) {
    d.rate_gradients[i] = at(descent.rate_gradients[i], n);
  }
  perceptron_.reserve(capacity_, descent.steps);
  return perceptron_.run(d, count_, stream_);
}

template <class T>
PerceptronNoise<T> CudaWave<T>::perceptron_noise(const backend::GaussianDescent::Draws& draws,
                                                 int steps) const {
  PerceptronNoise<T> noise;
  noise.key = draws.key;
  noise.key.task = global_first_;
  if (!draws.given) return noise;
  const std::size_t n = network_->size(), of_step = count_of(draws.samples) * n;
  require_width("given noise", draws.given, count_of(steps) * of_step);
  noise.given = data(draws.given);
  noise.sample_stride = n;
  noise.step_stride = of_step;
  noise.task_stride = width(draws.given);
  return noise;
}

template <class T>
bool CudaWave<T>::run(const backend::GaussianDescent& descent) {
  const std::size_t n = network_->size();
  cuda::GaussianDescent<T> d;
  if (!draws_fused(descent) || !take_rates(descent.rates, d)) return false;
  d.mu = shared(*descent.mu);
  d.s = shared(*descent.s);
  d.steps = descent.steps;
  d.inner = perceptron_rows(descent.set, descent.scale);
  d.samples = descent.draws.samples;
  d.noise = perceptron_noise(descent.draws, descent.steps);
  d.kl = task_scale(descent.kl);
  d.second_order = descent.second_order;
  d.prior_path = descent.differentiate_prior;
  d.outer = perceptron_rows(descent.outer_set, descent.outer_scale);
  d.two_sets = descent.and_support;
  d.second = perceptron_rows(Set::support, descent.outer_scale);
  d.outer_samples = descent.outer_draws.samples;
  d.outer_noise = perceptron_noise(descent.outer_draws, 1);
  d.outer_kl = task_scale(descent.outer_kl);
  d.end_mu = at(descent.end_mu, n);
  d.end_s = at(descent.end_s, n);
  d.gradient_mu = at(descent.gradient_mu, n);
  d.gradient_s = at(descent.gradient_s, n);
  d.loss = at_or_null(descent.loss, 1);
  perceptron_.reserve_gaussian(capacity_, descent.steps, std::max(d.samples, d.outer_samples),
                               d.adjoint_samples());
  return perceptron_.run(d, count_, stream_);
}

template <class T>
void CudaWave<T>::do_value(const Pass& pass, Block loss, Block outputs,
                           backend::NormStatistics statistics) {
  const bool given = statistics == backend::NormStatistics::support;
  if (given) {
    forward(enter({Set::support, pass.weights, {}}, nullptr), false);
    give_statistics();
  }
  const Run entered = enter(pass, nullptr);
  forward(entered, given);
  put_value(entered, pass.scale, loss, outputs);
}

// ---- network under Gaussian weights, by flipout and local ----

template <class T>
SplitLayers<T>& CudaWave<T>::split_layers() {
  if (!split_) {
    split_ = std::make_unique<SplitLayers<T>>(*network_, capacity_, largest_rows(shape_));
  }
  return *split_;
}

template <class T>
typename CudaWave<T>::Run CudaWave<T>::enter(const SplitPass& pass, Set set, Block u_mean,
                                             Block u_spread) {
  const std::size_t n = network_->size();
  const SetRows& rows = rows_.of(set);
  split_layers().take_noise(
      pass.estimator, *pass.noise,
      {set, rows_.extent(rows), rows_.counts(Set::support), rows_.support_counts(),
       rows_.query_counts(), global_first_},
      static_cast<bool>(u_mean),
      [this](Block given) {
        std::vector<double> values(elements(given));
        download(given, values);
        return values;
      },
      stream_);
  Run run{&rows, rows.x.data(), weights_in(pass.mean), at_or_null(u_mean, n)};
  run.spread = {at(pass.spread, n), at_or_null(u_spread, n)};
  return run;
}

template <class T>
void CudaWave<T>::split_backward(const Run& pass, std::size_t layer, const LayerCall<T>& call,
                                 Tangent<T> g, Tangent<T> g_in, Tangent<T> gradient,
                                 Tangent<T> by_spread, Accumulate to) {
  const Layer& l = network_->layers()[layer];
  const bool split = SplitLayers<T>::splits(l);
  if (split) {
    split_->backward(
        layer, call,
        {tensors<const T>(l.weight, pass.spread), tensors<const T>(l.bias, pass.spread)},
        {g.value, g.dot}, g_in, {tensors(l.weight, by_spread), tensors(l.bias, by_spread)}, to);
  }
  // A parameter that is taken from the mean alone has the same gradient in both vectors.
  const auto same = [&](int parameter) {
    if (parameter < 0) return;
    const int size = static_cast<int>(network_->parameters()[count_of(parameter)].size);
    const auto copy = [&](TaskTensor<T> dst, TaskTensor<T> src) {
      if (dst.data) copy_tensor<T>(dst, {src.data, src.stride}, {count_, size}, stream_.get());
    };
    const TensorTangent<T> from = tensors(parameter, gradient), dst = tensors(parameter, by_spread);
    copy(dst.value, from.value);
    copy(dst.dot, from.dot);
  };
  if (!split) same(l.weight);
  if (!split || !split_->splits_biases()) same(l.bias);
}

template <class T>
void CudaWave<T>::do_split_gradient(const SplitPass& pass, Block g_mean, Block g_spread,
                                    bool accumulate, Block loss) {
  const std::size_t n = network_->size();
  const Run run = enter(pass, pass.set, {}, {});
  forward(run, false);
  loss_of(run, pass.scale, loss, {g_[0].value.data(), nullptr});
  backward(run, {at(g_mean, n), nullptr}, {at(g_spread, n), nullptr}, {accumulate, false});
}

template <class T>
void CudaWave<T>::do_split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread,
                                          Block h_mean, Block h_spread) {
  prepare_tangents();
  const std::size_t n = network_->size();
  const Run run = enter(pass, pass.set, u_mean, u_spread);
  forward(run, false);
  loss_of(run, pass.scale, {}, {g_[0].value.data(), g_[0].dot.data()});
  backward(run, {nullptr, at(h_mean, n)}, {nullptr, at(h_spread, n)}, {});
}

template <class T>
void CudaWave<T>::do_split_value(const SplitPass& pass, Block loss, Block outputs,
                                 backend::NormStatistics statistics) {
  const bool given = statistics == backend::NormStatistics::support;
  if (given) {
    forward(enter(pass, Set::support, {}, {}), false);
    give_statistics();
  }
  const Run run = enter(pass, pass.set, {}, {});
  forward(run, given);
  put_value(run, pass.scale, loss, outputs);
}

template <class T>
std::unique_ptr<backend::Generator> CudaWave<T>::generator(const backend::GeneratorSpec& spec) {
  device_.activate();
  return make_generator(*this, spec);
}

template <class T>
std::unique_ptr<backend::LinearAlgebra> CudaWave<T>::linear_algebra() {
  return make_linear_algebra(*this);
}

template class CudaWave<float>;
template class CudaWave<double>;
template std::size_t wave_bytes<float>(const Device&, const backend::WaveDemand&, int);
template std::size_t wave_bytes<double>(const Device&, const backend::WaveDemand&, int);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
