// Works of the kernels for small perceptrons: whole meta-gradients of the sinusoid's network, for
// point estimates and for Gaussians.
#include <algorithm>
#include <cstddef>

#include "bench/kernel_works.h"
#include "kernels/gaussian_perceptron.h"
#include "kernels/perceptron.h"
#include "kshot/error.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

constexpr int rows = 10;  ///< number of rows of each set

DeviceLimits limits_of_device() {
  const auto attribute = [](cudaDeviceAttr which) {
    int value = 0;
    KSHOT_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, 0));
    return value;
  };
  return {static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)),
          static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor)),
          attribute(cudaDevAttrMultiProcessorCount)};
}

/// Returns a network with one input, two hidden layers of `hidden` units, and one output.
Perceptron network_of(int hidden) {
  Perceptron p;
  const int sizes[] = {1, hidden, hidden, 1};
  for (p.layers = 0; p.layers < 3; ++p.layers) {
    PerceptronLayer& layer = p.layer[p.layers];
    layer.inputs = sizes[p.layers];
    layer.outputs = sizes[p.layers + 1];
    layer.weight = p.weights;
    layer.bias = layer.weight + layer.inputs * layer.outputs;
    layer.activated = p.layers < 2;
    p.weights = layer.bias + layer.outputs;
  }
  return p;
}

PerceptronRows<float> rows_of(Arena& arena, int tasks) {
  const auto count = static_cast<std::size_t>(tasks) * rows;
  PerceptronRows<float> set;
  set.x = arena.uniform(count);
  set.target.function = LossFunction::mse;
  set.target.values = arena.uniform(count);
  set.rows = {tasks, rows, nullptr};
  set.scale = {1.0f / rows, nullptr};
  return set;
}

}  // namespace

std::vector<KernelWork> perceptron_works(bool smoke) {
  const int tasks = smoke ? 3 : 16384, steps = smoke ? 2 : 5, samples = smoke ? 3 : 10;
  const Perceptron network = network_of(smoke ? 5 : 40);
  const auto width = static_cast<std::size_t>(network.weights);
  const std::size_t all = static_cast<std::size_t>(tasks) * width;
  // `macs` is the number of multiply-adds of a forward pass per row. A gradient takes three times
  // that, without the gradient by the rows, which is not needed. The derivative of a known gradient
  // takes about twice as many as a gradient.
  double macs = 0;
  for (int l = 0; l < network.layers; ++l) {
    macs += static_cast<double>(network.layer[l].inputs) * network.layer[l].outputs;
  }
  const double first = network.layer[0].outputs;
  const double gradient = 2.0 * rows * (3.0 * macs - first);
  const double derivative = 2.0 * rows * (6.0 * macs - 4.0 * first);
  std::vector<KernelWork> works;
  const auto add = [&](const char* name, double vectors, double flops, auto prepare) {
    const double numbers = static_cast<double>(all) * vectors + 4.0 * tasks * rows;
    works.push_back({name, tasks, numbers * sizeof(float), flops * tasks, prepare});
  };
  add("perceptron_descent/sinusoid", 2, (steps + 1) * gradient + steps * derivative,
      [=](Arena& a) -> KernelWork::Run {
        PerceptronPlan plan;
        if (!plan_perceptron<float>(plan, network, rows, false, limits_of_device())) {
          throw DeviceError("the sinusoid's network does not fit into shared memory");
        }
        PerceptronDescent<float> descent;
        descent.start = {a.uniform(width, -0.3f, 0.3f), 0};
        descent.steps = steps;
        descent.rates[0].value = 0.01f;
        descent.inner = rows_of(a, tasks);
        descent.outer = rows_of(a, tasks);
        descent.end = a.zeros(all);
        descent.gradient = a.zeros(all);
        descent.loss = a.zeros(static_cast<std::size_t>(tasks));
        descent.scratch = a.zeros(plan.scratch(tasks, steps));
        return [=](cudaStream_t s) { perceptron_descent(plan, descent, tasks, s); };
      });
  // The outer loss is over both sets.
  add("gaussian_perceptron_descent/sinusoid", 4,
      samples * ((steps + 2) * gradient + steps * derivative), [=](Arena& a) -> KernelWork::Run {
        PerceptronPlan plan;
        if (!plan_gaussian_perceptron<float>(plan, network, rows, samples, limits_of_device())) {
          throw DeviceError("the sinusoid's network does not fit into shared memory");
        }
        GaussianDescent<float> descent;
        descent.mu = a.uniform(width, -0.3f, 0.3f);
        descent.s = a.uniform(width, -4.0f, -3.0f);
        descent.steps = steps;
        descent.rates[0].value = 0.001f;
        descent.inner = rows_of(a, tasks);
        descent.samples = samples;
        descent.noise.key = {1, Purpose::noise_inner, 0, 0, 0, 0};
        descent.kl = {0.1f / rows, nullptr};
        descent.outer = rows_of(a, tasks);
        descent.two_sets = true;
        descent.second = descent.inner;
        descent.outer_samples = samples;
        descent.outer_noise.key = {1, Purpose::noise_outer, 0, 0, 0, 0};
        descent.outer_kl = {0.1f / rows, nullptr};
        descent.end_mu = a.zeros(all), descent.end_s = a.zeros(all);
        descent.gradient_mu = a.zeros(all), descent.gradient_s = a.zeros(all);
        descent.loss = a.zeros(static_cast<std::size_t>(tasks));
        descent.scratch = a.zeros(gaussian_scratch(plan, tasks, steps, descent.adjoint_samples()));
        return [=](cudaStream_t s) { gaussian_perceptron_descent(plan, descent, tasks, s); };
      });
  return works;
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
