// What training does with a device, seen on the emulator: what crosses the bus, what is launched as
// a graph, checkpoints that are written beside it, and devices that fail on the way.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "algorithms/algorithm.h"
#include "engine/checkpoint.h"
#include "engine/engine_cases.h"
#include "engine/plan.h"
#include "engine/scheduler.h"
#include "episodes/sources.h"
#include "kshot/error.h"
#include "kshot/kshot.h"
#include "simt/orders.h"
#include "support/backend_problems.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

namespace fs = std::filesystem;
using kshot::testing::Numbers;
using kshot::testing::open_backend;
using ::testing::AllOf;
using ::testing::HasSubstr;

class DeviceTraining : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const backend::DeviceInfo& device : backend::list_devices()) {
      if (device.name == "simt") return;
    }
    GTEST_SKIP() << "this build leaves the emulated CUDA backend out";
  }
  static Config config(const std::string& algorithm, std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"network.layers=1,6,1", "train.validate_every=0", "train.steps=6"});
    return small_config(algorithm, more);
  }
  static TrainerOptions options(const fs::path& folder = {}) {
    TrainerOptions o;
    o.device = "simt";
    o.threads = 2;
    o.run_folder = folder;
    return o;
  }
};

/// Options under which `act` is called between steps, before step number `step`.
TrainerOptions interrupted(TrainerOptions options, int step, std::function<void()> act) {
  options.stop = [done = 0, step, act = std::move(act)]() mutable {
    if (done++ == step) act();
    return false;
  };
  return options;
}

TEST_F(DeviceTraining, AStepBringsBackLossesAndFlagsAlone) {
  // ABML's reports look at the tasks' posteriors: its steps between reports are held
  for (const bool reported : {true, false}) {
    const std::string algorithm = reported ? "maml" : "abml";
    SCOPED_TRACE(algorithm);
    const Config c =
        config(algorithm, {"network.layers=1,60,1", "train.steps=7",
                           std::string("train.log_every=") + (reported ? "1" : "100")});
    TrainerOptions six = options();
    six.stop = [steps = 0]() mutable { return steps++ == 6; };
    Trainer trainer(c, six);
    const std::uint64_t before = simt::counters().bytes_to_host;
    ASSERT_EQ(trainer.run().step, 6u);
    const double a_step = static_cast<double>(simt::counters().bytes_to_host - before) / 6.0;
    // of a task: its loss, its flag, where reported its squared norm, four bytes each; of a step: a
    // double for each norm of a group of parameters, and for ABML's hyper-prior
    const double most = (reported ? 3.0 : 2.0) * c.train.meta_batch * 4.0 + 4.0 * 8.0;
    EXPECT_LE(a_step, most);
    EXPECT_GE(a_step, 2.0 * c.train.meta_batch * 4.0);
    EXPECT_LT(most, 4.0 * 181.0) << "less than one vector of weights";
  }
}

TEST_F(DeviceTraining, AMetaGradientIsOneLaunchWithTheSameBits) {
  for (const std::string algorithm : {"maml", "abml"}) {
    SCOPED_TRACE(algorithm);
    const Config c = config(algorithm);
    const auto backend = open_backend("simt_f32", 1);
    const auto source = make_source(c);
    const auto network = std::make_shared<const Network>(c.make_network());
    const auto made = make_algorithm(c, network);
    plan_waves(*backend, c, source->shape());
    Scheduler scheduler(*backend, *made, source->shape());
    std::vector<backend::Shared> parameters;
    for (const Numbers& values : made->initial(1)) {
      parameters.push_back(backend->shared(values.size()));
      parameters.back()->upload(values);
    }
    const auto gradient = [&] {
      std::vector<Numbers> all;
      for (const backend::Shared& g : scheduler.gradients()) {
        all.emplace_back(g->size());
        g->download(all.back());
      }
      return all;
    };
    constexpr int tasks = 16;
    const simt::Counters before = simt::counters();
    for (std::uint64_t step = 0; step < 4; ++step) {
      SCOPED_TRACE(step);
      const double loss = scheduler.step(parameters, *source, c.seed, step, tasks).loss;
      const std::vector<Numbers> got = gradient();
      // given tasks are not gathered
      TaskBatch batch(source->shape(), tasks);
      batch.draw(*source, {c.seed, Split::train, step}, 0, tasks);
      StepContext context;
      context.seed = c.seed;
      context.step = step;
      EXPECT_EQ(scheduler.step(parameters, batch, context).loss, loss);
      EXPECT_EQ(gradient(), got);
    }
    // the first step finds out what memory is needed, the second makes the graph
    EXPECT_EQ(simt::counters().graphs_launched - before.graphs_launched, 3u);
    EXPECT_EQ(simt::counters().graphs_made - before.graphs_made, 1u);
    EXPECT_EQ(simt::counters().graphs_updated - before.graphs_updated, 2u);
  }
}

TEST_F(DeviceTraining, WorkPutOffAsLongAsItMayChangesNothing) {
  for (const std::string algorithm : {"maml", "abml", "hvi"}) {
    SCOPED_TRACE(algorithm);
    const Config c = config(algorithm, {"train.checkpoint_every=1", "train.log_every=2"});
    const auto train = [&](const fs::path& folder, bool lazy) {
      const simt::With with({.lazy = lazy});
      Trainer trainer(c, options(folder));
      trainer.run();
      return tensors(folder / last_checkpoint);
    };
    const TempFolder folder;
    const auto want = train(folder / "at_once", false), got = train(folder / "late", true);
    ASSERT_EQ(got.size(), want.size());
    for (const auto& [name, tensor] : want)
      EXPECT_EQ(got.at(name).to_f64(), tensor.to_f64()) << name;
  }
}

TEST_F(DeviceTraining, GoesOnFromACheckpointBitForBit) {
  for (const std::string algorithm : {"maml", "hvi"}) {
    SCOPED_TRACE(algorithm);
    const Config c = config(algorithm, {"train.checkpoint_every=2", "train.validate_every=3"});
    const TempFolder folder;
    Trainer(c, options(folder / "whole")).run();
    TrainerOptions first = options(folder / "parts");
    int steps = 0;
    first.stop = [&] { return steps++ == 3; };
    EXPECT_EQ(Trainer(c, first).run().step, 3u);
    TrainerOptions rest = options(folder / "parts");
    rest.resume = true;
    EXPECT_EQ(Trainer(c, rest).run().step, 6u);
    const auto want = tensors(folder / "whole" / last_checkpoint);
    const auto got = tensors(folder / "parts" / last_checkpoint);
    for (const auto& [name, tensor] : want)
      EXPECT_EQ(got.at(name).to_f64(), tensor.to_f64()) << name;
  }
}

TEST_F(DeviceTraining, ADeviceThatIsLostLeavesTheLastCheckpoint) {
  const Config c = config("maml", {"train.checkpoint_every=2"});
  const TempFolder folder;
  Trainer(c, options(folder / "whole")).run();
  {
    const simt::With with({});
    const auto lost = [] { simt::settings().sticky_error = cudaErrorIllegalAddress; };
    Trainer trainer(c, interrupted(options(folder / "lost"), 4, lost));
    const std::string message = error_text([&] { trainer.run(); });
    EXPECT_THAT(message, AllOf(HasSubstr("CUDA"), HasSubstr("illegal memory access")));
    EXPECT_EQ(message.find('\n'), message.npos);
  }
  const Checkpoint last = Checkpoint::read(folder / "lost" / last_checkpoint);
  EXPECT_THAT(last.state.step, ::testing::AnyOf(2u, 4u))
      << "the last one that the device could still give";
  TrainerOptions rest = options(folder / "lost");
  rest.resume = true;
  EXPECT_EQ(Trainer(c, rest).run().step, 6u);
  const auto want = tensors(folder / "whole" / last_checkpoint);
  const auto got = tensors(folder / "lost" / last_checkpoint);
  for (const auto& [name, tensor] : want) EXPECT_EQ(got.at(name).to_f64(), tensor.to_f64()) << name;
}

TEST_F(DeviceTraining, MemoryThatRunsOutLeavesTheLastCheckpoint) {
  // 20 tasks are two waves: the second worker's is opened when it is first needed
  const Config c = config("maml", {"train.checkpoint_every=1"});
  const TempFolder folder;
  {
    const simt::With with({});
    const auto full = [] { simt::settings().memory = simt::allocated_bytes(); };
    const auto run = [&] { Trainer(c, interrupted(options(folder / "full"), 0, full)).run(); };
    EXPECT_THAT(error_text(run), AllOf(HasSubstr("out of memory"), HasSubstr("asked for")));
  }
  EXPECT_EQ(Checkpoint::read(folder / "full" / last_checkpoint).state.step, 0u);
  const simt::With with({.memory = simt::allocated_bytes() + (8 << 10)});
  EXPECT_THAT(error_text([&] { Trainer(c, options(folder / "small")); }),
              AllOf(HasSubstr("the smallest wave, 16 tasks, takes"), HasSubstr("are free")));
  EXPECT_FALSE(fs::exists(folder / "small"));
}

TEST_F(DeviceTraining, ADriverTooOldIsSaidAndNothingElseTakesOver) {
  const simt::With with({.driver_version = 12040});
  const TempFolder folder;
  EXPECT_THAT(error_text([&] { Trainer(config("maml"), options(folder / "run")); }),
              AllOf(HasSubstr("driver is too old"), HasSubstr("12.4")));
  EXPECT_FALSE(fs::exists(folder / "run"));
}

}  // namespace
}  // namespace kshot::test
