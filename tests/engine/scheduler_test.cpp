// The scheduler when a worker fails: the error comes out, nobody waits for ever, and the next step
// works.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>
#include <thread>

#include "kshot/config.h"

namespace kshot::test {
namespace {

/// Sinusoids whose first task fails, late: by then the other worker is far ahead.
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
  // 16 lanes at most: far more waves than the reduction lets a worker run ahead
  constexpr int tasks = 16 * 400;
  EXPECT_THROW(scheduler.step(parameters, source, 1, 0, tasks), std::runtime_error);
  source.fails = false;
  const StepResult result = scheduler.step(parameters, source, 1, 0, tasks);
  EXPECT_EQ(result.tasks, static_cast<std::size_t>(tasks));
  EXPECT_EQ(result.diverged, 0u);
}

}  // namespace
}  // namespace kshot::test
