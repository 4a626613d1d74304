// Variance and cost of ABML's meta-gradient by estimator and number of samples: docs/estimators.md.
//
//   estimator_variance [REPEATS]                     sinusoids
//   estimator_variance REPEATS CONFIG [KEY=VALUE...] any configuration of ABML
//
// The program trains for a while. Then it draws the meta-gradient of the same tasks at the same
// parameters many times, with fresh noise each time. The variance is the trace of the gradient's
// covariance divided by the squared norm of the mean gradient. The cost is the time of one
// meta-gradient on one thread.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "algorithms/algorithm.h"
#include "backend/backend.h"
#include "engine/scheduler.h"
#include "episodes/sources.h"
#include "kshot/kshot.h"

namespace kshot {
namespace {

/// Measures every estimator after the configuration's training, on as many tasks as a meta-batch
/// has.
void measure(const std::string& name, const Config& base, int repeats) {
  Trainer trainer(base, {.device = "cpu"});
  trainer.run();
  const std::shared_ptr<const EpisodeSource> source = make_source(base);
  const int tasks = base.train.meta_batch;
  TaskBatch batch(source->shape(), tasks);
  batch.draw(*source, {9, Split::train, 0, 0}, 0, tasks);
  fmt::print("{}, after {} steps: {} tasks, {} repeats\n", name, base.train.steps, tasks, repeats);
  fmt::print("{:10} {:>3} {:>14} {:>12} {:>20}\n", "estimator", "S", "variance", "us a task",
             "variance x time");
  for (const char* estimator : {"weight", "flipout", "local"}) {
    for (const int samples : {1, 2, 5, 10}) {
      const Config config = Config::parse(base.to_toml(), name,
                                          {fmt::format("abml.estimator={}", estimator),
                                           fmt::format("abml.samples_inner={}", samples),
                                           fmt::format("abml.samples_outer={}", samples)});
      const auto network = std::make_shared<const Network>(config.make_network());
      const auto backend = backend::make_backend("cpu", 1);
      const auto algorithm = make_algorithm(config, network);
      Scheduler scheduler(*backend, *algorithm, source->shape());
      std::vector<backend::Shared> parameters;
      std::size_t width = 0;
      for (const ParameterGroup& group : algorithm->groups()) {
        parameters.push_back(backend->shared(group.size));
        parameters.back()->upload(trainer.parameters(group.name));
        width += group.size;
      }
      std::vector<double> sum(width), squares(width);
      double seconds = 1e30;
      for (int r = 0; r < repeats; ++r) {
        StepContext context;
        context.seed = 5;
        context.step = static_cast<std::uint64_t>(r);
        const auto start = std::chrono::steady_clock::now();
        scheduler.step(parameters, batch, context);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        seconds = std::min(seconds, took.count());
        std::size_t i = 0;
        for (const backend::Shared& g : scheduler.gradients()) {
          std::vector<double> values(g->size());
          g->download(values);
          for (const double v : values) {
            sum[i] += v;
            squares[i++] += v * v;
          }
        }
      }
      double variance = 0.0, signal = 0.0;
      for (std::size_t i = 0; i < width; ++i) {
        const double mean = sum[i] / repeats;
        const double v = (squares[i] / repeats - mean * mean) * repeats / (repeats - 1);
        variance += v;
        signal += mean * mean - v / repeats;
      }
      const double microseconds = 1e6 * seconds / tasks;
      fmt::print("{:10} {:>3} {:>14.4g} {:>12.1f} {:>20.4g}\n", estimator, samples,
                 variance / signal, microseconds, variance / signal * microseconds);
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace kshot

int main(int argc, char** argv) {
  const int repeats = argc > 1 ? std::atoi(argv[1]) : 200;
  if (repeats < 2) {
    fmt::print(stderr, "estimator_variance: REPEATS = {}: expected at least 2\n", argv[1]);
    return 2;
  }
  try {
    if (argc > 2) {
      const std::vector<std::string> keys(argv + 3, argv + argc);
      kshot::measure(argv[2], kshot::Config::load(argv[2], keys), repeats);
      return 0;
    }
    const std::string sinusoid = R"(
algorithm = "abml"
seed = 1
[network]
type = "mlp"
layers = [1, 40, 40, 1]
[loss]
type = "gaussian_nll"
noise_std = 0.3
[inner]
steps = 5
learning_rate = 0.001
[abml]
kl_weight_inner = 0.1
samples_inner = 5
samples_outer = 5
log_sigma_init = -3.0
hyper_prior_weight = 1e-6
[data]
shots = 10
queries = 10
noise_std = 0.3
[optimizer]
clip_norm = 10.0
learning_rate = 2e-3
[train]
meta_batch = 64
validate_every = 0
log_every = 1000
)";
    for (const int steps : {100, 3000}) {
      const std::string key = fmt::format("train.steps={}", steps);
      kshot::measure("sinusoid", kshot::Config::parse(sinusoid, "sinusoid", {key}), repeats);
    }
    return 0;
  } catch (const kshot::Error& error) {
    fmt::print(stderr, "estimator_variance: {}\n", error.what());
    return 2;
  }
}
