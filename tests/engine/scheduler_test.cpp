// The scheduler when a worker fails: the error is thrown, nobody waits forever, and the next step
// works. Also the metrics of a step and its signal-to-noise ratio.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kshot/config.h"

namespace kshot::test {
namespace {

/// A source of sinusoids whose first task fails late. By then the other worker is far ahead.
class FailingSource final : public EpisodeSource {
 public:
  TaskShape shape() const override { return good_->shape(); }
  std::string describe() const override { return "failing"; }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    if (fails && id.task == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      throw std::runtime_error("task 0 cannot be drawn");
    }
    good_->fill(id, slot);
  }
  bool fails = true;

 private:
  std::unique_ptr<EpisodeSource> good_ = make_sinusoid({});
};

TEST(Scheduler, AFailingWorkerEndsTheStepAndTheNextOneWorks) {
  const Config config = Config::parse("algorithm = \"maml\"\n[network]\nlayers = [1, 4, 1]\n");
  const auto network = std::make_shared<const Network>(config.make_network());
  const auto backend = backend::make_backend("cpu", 2);
  ASSERT_EQ(backend->name(), "cpu");
  const auto algorithm = make_algorithm(config, network);
  FailingSource source;
  Scheduler scheduler(*backend, *algorithm, source.shape());
  const backend::Shared theta = backend->shared(network->size());
  theta->upload(network->initial_weights(1));
  const std::vector<backend::Shared> parameters = {theta};
  // A wave has at most 16 lanes, so that there are far more waves than the reduction lets a worker
  // run ahead.
  constexpr int tasks = 16 * 400;
  EXPECT_THROW(scheduler.step(parameters, source, 1, 0, tasks), std::runtime_error);
  source.fails = false;
  const StepResult result = scheduler.step(parameters, source, 1, 0, tasks);
  EXPECT_EQ(result.tasks, static_cast<std::size_t>(tasks));
  EXPECT_EQ(result.diverged, 0u);
}

TEST(Scheduler, MetricsAreMeansOverTasksAndTheSignalToNoiseTheirScatter) {
  for (const std::string device : {"reference", "cpu"}) {
    SCOPED_TRACE(device);
    const Config config = Config::parse(
        "algorithm = \"abml\"\n[network]\nlayers = [1, 4, 1]\n[inner]\nsteps = 2\n"
        "learning_rate = 0.01\n[abml]\nlog_sigma_init = -2.0\nestimator = \"local\"\n");
    const auto network = std::make_shared<const Network>(config.make_network());
    const auto backend = backend::make_backend(device, 1);
    ASSERT_EQ(backend->name(), device);
    const auto algorithm = make_algorithm(config, network);
    const auto source = make_sinusoid({});
    Scheduler scheduler(*backend, *algorithm, source->shape());
    const std::vector<std::vector<double>> initial = algorithm->initial(1);
    std::vector<backend::Shared> parameters;
    for (const std::vector<double>& values : initial) {
      parameters.push_back(backend->shared(values.size()));
      parameters.back()->upload(values);
    }
    // The gradient of task 1 follows from the gradient of task 0 alone and the mean of both.
    const auto gradient = [&](int tasks, StepResult* result) {
      *result = scheduler.step(parameters, *source, 1, 0, tasks, true);
      std::vector<double> all;
      for (const backend::Shared& g : scheduler.gradients()) {
        std::vector<double> values(g->size());
        g->download(values);
        all.insert(all.end(), values.begin(), values.end());
      }
      return all;
    };
    StepResult one, two;
    const std::vector<double> first = gradient(1, &one), mean = gradient(2, &two);
    double signal = 0.0, scatter = 0.0;
    for (std::size_t i = 0; i < mean.size(); ++i) {
      signal += mean[i] * mean[i];
      // Both tasks have the same distance.
      scatter += 2.0 * (first[i] - mean[i]) * (first[i] - mean[i]);
    }
    const double want = signal / (scatter / 2.0);
    EXPECT_TRUE(std::isnan(one.gradient_snr));
    EXPECT_NEAR(two.gradient_snr, want, 1e-3 * want);
    ASSERT_EQ(algorithm->metrics(), (std::vector<std::string>{"kl", "sigma_moved", "log_sigma"}));
    ASSERT_EQ(two.metrics.size(), 3u);
    EXPECT_GT(two.metrics[0], 0.0);
    EXPECT_GT(two.metrics[1], 0.0);
    EXPECT_LE(two.metrics[1], 1.0);
    EXPECT_NEAR(two.metrics[2], -2.0, 0.5);
    EXPECT_EQ(algorithm->warning(two.metrics), "");
    EXPECT_NE(algorithm->warning(std::vector<double>{0.0, 0.0, -2.0}).find("stay at the prior"),
              std::string::npos);
    EXPECT_NE(algorithm->warning(std::vector<double>{9.0, 1.0, -12.0}).find("collapsed"),
              std::string::npos);
  }
}

TEST(Scheduler, WithoutInnerStepsThePosteriorIsThePrior) {
  const Config config = Config::parse(
      "algorithm = \"abml\"\n[network]\nlayers = [1, 4, 1]\n[inner]\nsteps = 0\n[abml]\n"
      "log_sigma_init = -2.0\n");
  const auto network = std::make_shared<const Network>(config.make_network());
  const auto backend = backend::make_backend("cpu", 1);
  const auto algorithm = make_algorithm(config, network);
  const auto source = make_sinusoid({});
  Scheduler scheduler(*backend, *algorithm, source->shape());
  std::vector<backend::Shared> parameters;
  for (const std::vector<double>& values : algorithm->initial(1)) {
    parameters.push_back(backend->shared(values.size()));
    parameters.back()->upload(values);
  }
  const StepResult result = scheduler.step(parameters, *source, 1, 0, 19, true);
  EXPECT_EQ(result.metrics, (std::vector<double>{0.0, 0.0, -2.0}));
  EXPECT_EQ(algorithm->warning(result.metrics), "");
}

}  // namespace
}  // namespace kshot::test
