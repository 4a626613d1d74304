#include "backend/cuda/perceptron_path.h"

#include <algorithm>

#include "backend/cuda/activation_of.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

DeviceLimits limits_of_device() {
  int device = 0;
  KSHOT_CUDA_CHECK(cudaGetDevice(&device));
  const auto attribute = [&](cudaDeviceAttr which) {
    int value = 0;
    KSHOT_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
    return value;
  };
  return {static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)),
          static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor)),
          attribute(cudaDevAttrMultiProcessorCount)};
}

}  // namespace

std::optional<Perceptron> as_perceptron(const Network& network) {
  Perceptron p;
  p.weights = static_cast<int>(network.size());
  const auto offset = [&](int tensor) {
    return static_cast<int>(network.parameters()[static_cast<std::size_t>(tensor)].offset);
  };
  for (const Layer& layer : network.layers()) {
    if (layer.type == LayerType::flatten) continue;
    if (layer.type == LayerType::linear) {
      if (p.layers == most_perceptron_layers) return {};
      PerceptronLayer& next = p.layer[p.layers++];
      next.inputs = layer.in.size();
      next.outputs = layer.out.size();
      next.weight = offset(layer.weight);
      if (layer.bias >= 0) next.bias = offset(layer.bias);
      continue;
    }
    const std::optional<Activation> activation = activation_of(layer.type);
    if (!activation || p.layers == 0) return {};
    PerceptronLayer& of = p.layer[p.layers - 1];
    if (of.activated) return {};
    of.activated = true;
    of.activation = *activation;
  }
  if (p.layers == 0) return {};
  return p;
}

template <class T>
PerceptronPath<T>::PerceptronPath(const Network& network, const backend::WaveShape& shape)
    : perceptron_(as_perceptron(network)) {
  const int rows =
      shape.with_all ? shape.support + shape.query : std::max(shape.support, shape.query);
  rows_ = std::max(rows, 1);
  if (!perceptron_) return;
  limits_ = limits_of_device();
  for (const bool own_direction : {false, true}) {
    PerceptronPlan plan;
    if (plan_perceptron<T>(plan, *perceptron_, rows_, own_direction, limits_)) {
      plans_[own_direction ? 1 : 0] = plan;
    }
  }
}

template <class T>
void PerceptronPath<T>::reserve(int tasks, int steps) {
  for (const std::optional<PerceptronPlan>& plan : plans_) {
    if (plan) iterates_.reserve(plan->scratch(tasks, steps));
  }
}

template <class T>
bool PerceptronPath<T>::run(PerceptronDescent<T> descent, int tasks, const Stream& stream) {
  bool own_direction = descent.direction != nullptr;
  for (int i = 0; i < descent.rate_count; ++i) own_direction |= descent.rates[i].vector != nullptr;
  const std::optional<PerceptronPlan>& plan = plans_[own_direction ? 1 : 0];
  if (!plan) return false;
  descent.scratch = iterates_.data();
  perceptron_descent(*plan, descent, tasks, stream.get());
  return true;
}

template <class T>
const std::optional<PerceptronPlan>& PerceptronPath<T>::gaussian_plan(int samples) {
  if (perceptron_ && samples != gaussian_samples_) {
    gaussian_samples_ = samples;
    PerceptronPlan plan;
    gaussian_.reset();
    if (plan_gaussian_perceptron<T>(plan, *perceptron_, rows_, samples, limits_)) gaussian_ = plan;
  }
  return gaussian_;
}

template <class T>
void PerceptronPath<T>::reserve_gaussian(int tasks, int steps, int samples, int adjoint_samples) {
  const std::optional<PerceptronPlan>& plan = gaussian_plan(samples);
  if (plan) iterates_.reserve(gaussian_scratch(*plan, tasks, steps, adjoint_samples));
}

template <class T>
bool PerceptronPath<T>::run(GaussianDescent<T> descent, int tasks, const Stream& stream) {
  const std::optional<PerceptronPlan>& plan =
      gaussian_plan(std::max(descent.samples, descent.outer_samples));
  if (!plan) return false;
  descent.scratch = iterates_.data();
  gaussian_perceptron_descent(*plan, descent, tasks, stream.get());
  return true;
}

template class PerceptronPath<float>;
template class PerceptronPath<double>;

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
