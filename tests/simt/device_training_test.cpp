// Training on a device, observed on the emulator: transfers over the bus, launches of graphs,
// checkpoints that are written at the same time, and devices that fail during the training.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/engine_cases.h"
#include "kshot/error.h"
#include "kshot/kshot.h"
#include "simt/device_runs.h"
#include "simt/orders.h"
#include "support/class_files.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

namespace fs = std::filesystem;
using kshot::testing::Numbers;
using ::testing::AllOf;
using ::testing::HasSubstr;

class DeviceTraining : public DeviceRuns {
 protected:
  /// The algorithm "leo" generates all weights.
  Config config(const std::string& algorithm, std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"train.validate_every=0", "train.steps=6"});
    if (algorithm == "leo") {
      more.insert(more.begin(), {"network.layers=1,3,1", "leo.latent=2", "leo.latent_steps=1",
                                 "leo.encoder_layers=4", "leo.decoder_layers=4"});
      return leo_points(more);
    }
    if (algorithm == "leo_head") {
      const fs::path file = folder_ / "classes.kshot";
      if (!fs::exists(file)) write_class_file(file, {.input = {6, 1, 1, false}});
      more.insert(more.begin(), {"data.shots=1", "data.queries=1", "leo.latent=2"});
      return leo_head(file, more);
    }
    more.insert(more.begin(), "network.layers=1,6,1");
    return small_config(algorithm, more);
  }
  /// Resumes the run of six steps in `folder`, and expects the bits of the run in `whole`.
  static void goes_on(const Config& c, const fs::path& folder, const fs::path& whole) {
    TrainerOptions rest = options(folder);
    rest.resume = true;
    EXPECT_EQ(Trainer(c, rest).run().step, 6u);
    const auto want = tensors(whole / last_checkpoint);
    const auto got = tensors(folder / last_checkpoint);
    for (const auto& [name, tensor] : want) {
      EXPECT_EQ(got.at(name).to_f64(), tensor.to_f64()) << name;
    }
  }

 private:
  TempFolder folder_;
};

/// Options that call `act` between steps, before step number `step`.
TrainerOptions interrupted(TrainerOptions options, int step, std::function<void()> act) {
  options.stop = [done = 0, step, act = std::move(act)]() mutable {
    if (done++ == step) act();
    return false;
  };
  return options;
}

/// The emulator's counters before each step and after the last one.
std::vector<simt::Counters> counted_steps(
    const Config& config, TrainerOptions options, std::size_t steps,
    const std::shared_ptr<const EpisodeSource>& source = nullptr) {
  std::vector<simt::Counters> seen;
  options.stop = [&] {
    seen.push_back(simt::counters());
    return seen.size() > steps;
  };
  Trainer trainer(config, source ? source : make_source(config), options);
  EXPECT_EQ(trainer.run().step, steps);
  return seen;
}

// 20 tasks are computed in two waves on two streams.
TEST_F(DeviceTraining, AStepIsOneGraphAndTheHostWaitsOnce) {
  const std::vector<std::string> plain = {"train.log_every=100", "train.steps=8"};
  struct Case {
    std::string algorithm;
    std::vector<std::string> more;
  };
  const Case cases[] = {
      {"maml", {}},
      {"maml", {"optimizer.clip_norm_of=tensor", "optimizer.clip_value=0.1"}},
      {"maml", {"optimizer.nan_guard=true", "optimizer.type=sgd"}},
      {"meta_sgd", {"meta_sgd.rates=layer", "meta_sgd.per_step=true"}},
      {"abml", {"abml.hyper_prior_weight=0.01"}},
      {"abml", {"abml.estimator=flipout"}},
      {"meta_sgd", test::learned_noise},
      {"abml", test::learned_noise},
      {"leo", test::learned_noise},
      {"leo", {"optimizer.clip_norm=0.01"}},
      {"leo_head",
       {"optimizer.clip_norm=0.01", "optimizer.nan_guard=true", "leo.orthogonality_weight=0.1",
        "leo.dropout_rate=0.3"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.algorithm + (c.more.empty() ? "" : " " + c.more.back()));
    std::vector<std::string> more = plain;
    more.insert(more.end(), c.more.begin(), c.more.end());
    for (const bool lazy : {false, true}) {
      if (!lazy && &c != cases) continue;  // without lazy streams one case is enough
      const simt::With with({.lazy = lazy});
      const std::vector<simt::Counters> seen =
          counted_steps(config(c.algorithm, more), options(), 5);
      for (std::size_t s = 2; s < 5; ++s) {  // the first step finds out how much memory is needed
        SCOPED_TRACE(s);
        const simt::Counters &before = seen[s], &after = seen[s + 1];
        EXPECT_EQ(after.host_waits - before.host_waits, 1u);
        EXPECT_EQ(after.graphs_launched - before.graphs_launched, 1u);
        EXPECT_EQ(after.graphs_updated - before.graphs_updated, 1u);
        EXPECT_EQ(after.graphs_made, before.graphs_made);
        EXPECT_EQ(after.bytes_to_host - before.bytes_to_host, sizeof(backend::StepStatistics));
      }
    }
  }
}

TEST_F(DeviceTraining, AReportedStepBringsBackATasksNorm) {
  const Config c = config("maml", {"train.log_every=1", "train.steps=8"});
  const std::vector<simt::Counters> seen = counted_steps(c, options(), 6);
  const auto norms = static_cast<std::uint64_t>(c.train.meta_batch) * sizeof(float);
  for (std::size_t s = 2; s < 6; ++s) {
    const simt::Counters &before = seen[s], &after = seen[s + 1];
    EXPECT_EQ(after.bytes_to_host - before.bytes_to_host, norms + sizeof(backend::StepStatistics));
    EXPECT_EQ(after.graphs_launched - before.graphs_launched, 2u) << "one a wave";
  }
}

/// The parameters at the end of a training.
std::vector<Numbers> trained(Trainer& trainer) {
  std::vector<Numbers> all;
  for (const std::string& group : trainer.groups()) all.push_back(trainer.parameters(group));
  return all;
}

TEST_F(DeviceTraining, TheSameBitsAsAGraphWaveByWaveAndOnOneStream) {
  // Every step is clipped.
  const std::string clip = "optimizer.clip_norm=0.001";
  for (const std::string algorithm : {"maml", "meta_sgd", "abml", "leo", "leo_head"}) {
    SCOPED_TRACE(algorithm);
    const auto run = [&](const char* log_every, int threads) {
      TrainerOptions o = options();
      o.threads = threads;
      o.on_report = [](const TrainReport& r) { EXPECT_GT(r.gradient_norm, 0.001); };
      Trainer trainer(config(algorithm, {std::string("train.log_every=") + log_every, clip}), o);
      trainer.run();
      return trained(trainer);
    };
    const std::uint64_t before = simt::counters().graphs_launched;
    const std::vector<Numbers> graph = run("100", 2);
    // The first step is not a graph, nor is the last one, which is reported.
    EXPECT_GE(simt::counters().graphs_launched - before, 4u);
    EXPECT_EQ(run("1", 2), graph);
    EXPECT_EQ(run("100", 1), graph);  // the two waves run one after another
  }
}

/// Sinusoids whose tasks from `bad` on have a target that is not finite, only at step `step`.
class Spoils final : public EpisodeSource {
 public:
  Spoils(std::uint64_t step, std::uint32_t bad) : step_(step), bad_(bad) {}
  TaskShape shape() const override { return good_->shape(); }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    good_->fill(id, slot);
    if (id.step == step_ && id.task >= bad_) {
      slot.support_value[0] = std::numeric_limits<float>::infinity();
    }
  }
  std::string describe() const override { return "sinusoids, spoilt at one step"; }

 private:
  std::unique_ptr<EpisodeSource> good_ = make_sinusoid({.support = 4, .query = 5});
  std::uint64_t step_;
  std::uint32_t bad_;
};

TEST_F(DeviceTraining, EpisodesFromTheHostAreThereBeforeTheGraph) {
  const Config c = config("maml", {"train.log_every=100", "train.steps=8"});
  const std::vector<simt::Counters> seen =
      counted_steps(c, options(), 6, std::make_shared<Spoils>(100, 0));
  for (std::size_t s = 2; s < 6; ++s) {
    EXPECT_EQ(seen[s + 1].host_waits - seen[s].host_waits, 1u);
    EXPECT_EQ(seen[s + 1].graphs_launched - seen[s].graphs_launched, 1u);
    EXPECT_GT(seen[s + 1].bytes_to_device, seen[s].bytes_to_device);
  }
}

TEST_F(DeviceTraining, AStepThatMustNotBeTakenChangesNothing) {
  const std::vector<std::string> to_the_end = {"train.log_every=100", "train.max_diverged=0.2"};
  std::vector<std::string> before_it = to_the_end;
  before_it.push_back("train.steps=4");
  for (const std::string algorithm : {"maml", "leo"}) {
    SCOPED_TRACE(algorithm);
    Trainer short_run(config(algorithm, before_it), options());
    short_run.run();
    Trainer trainer(config(algorithm, to_the_end), std::make_shared<Spoils>(4, 15), options());
    const std::uint64_t graphs = simt::counters().graphs_launched;
    EXPECT_THAT(
        error_text([&] { trainer.run(); }),
        AllOf(HasSubstr("step 5: 5 of 20 tasks diverged"), HasSubstr("train.max_diverged = 0.2")));
    EXPECT_EQ(simt::counters().graphs_launched - graphs, 4u) << "the failing one is one of them";
    EXPECT_EQ(trained(trainer), trained(short_run));
  }
}

TEST_F(DeviceTraining, AGuardedStepIsTheSameInAGraph) {
  const auto run = [&](const std::string& algorithm, const char* log_every) {
    TrainReport last;
    TrainerOptions o = options();
    o.on_report = [&](const TrainReport& r) { last = r; };
    Trainer trainer(config(algorithm, {std::string("train.log_every=") + log_every,
                                       "optimizer.nan_guard=true"}),
                    std::make_shared<Spoils>(3, 19), o);
    trainer.run();
    EXPECT_EQ(last.guarded, 1u);
    return trained(trainer);
  };
  for (const std::string algorithm : {"maml", "leo"}) {
    EXPECT_EQ(run(algorithm, "100"), run(algorithm, "1")) << algorithm;
  }
}

TEST_F(DeviceTraining, AFewDivergedTasksAreNamed) {
  const DeviceSteps run(config("maml"), "simt_f32", 2, 20, std::make_shared<Spoils>(2, 17));
  for (std::uint64_t step = 0; step < 4; ++step) {
    const StepResult result = run.scheduler->step(run.parameters, *run.source, 1, step, 20);
    EXPECT_EQ(result.diverged, step == 2 ? 3u : 0u);
    EXPECT_TRUE(std::isfinite(result.loss));
    const std::vector<std::uint32_t> want =
        step == 2 ? std::vector<std::uint32_t>{17, 18, 19} : std::vector<std::uint32_t>{};
    EXPECT_EQ(run.scheduler->diverged_tasks(), want);
  }
}

// The second run of tasks has one task that counts and three that do not. Gradients of shared
// networks are products over the tasks of a run.
TEST_F(DeviceTraining, GeneratedWeightsLeaveDivergedTasksOut) {
  const Config c = config("leo");
  const auto steps = [&](const std::string& device) {
    const DeviceSteps run(c, device, 1, 20, std::make_shared<Spoils>(1, 17));
    std::vector<Numbers> all;
    for (std::uint64_t step = 0; step < 3; ++step) {
      const StepResult result = run.scheduler->step(run.parameters, *run.source, 1, step, 20, true);
      EXPECT_EQ(result.diverged, step == 1 ? 3u : 0u) << device;
      all.push_back({result.loss, result.gradient_snr});
      for (Numbers& gradient : run.gradients()) all.push_back(std::move(gradient));
    }
    return all;
  };
  const std::vector<Numbers> want = steps("reference"), got = steps("simt_f64");
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    ASSERT_EQ(got[i].size(), want[i].size());
    for (std::size_t e = 0; e < want[i].size(); ++e) {
      // The sums of 20 tasks are added in another order.
      EXPECT_NEAR(got[i][e], want[i][e], 1e-11 * (1.0 + std::abs(want[i][e]))) << i << ", " << e;
    }
  }
}

TEST_F(DeviceTraining, AGradientIsNotReadOnceItsFactorsHaveChanged) {
  const Config c = config("leo");
  const DeviceSteps run(c, "simt_f32", 1, 16);
  run.algorithm->prepare(*run.backend, run.parameters, {});
  const auto program = run.algorithm->open(*run.backend, run.source->shape());
  TaskBatch batch(run.source->shape(), 3);
  batch.draw(*run.source, {c.seed, Split::train, 0}, 0, 3);
  program->wave().load(batch, 0, 3, 0);
  program->meta_gradient({});
  const backend::Block gradient = program->gradients()[0];
  Numbers values(3 * run.algorithm->gradient_widths()[0]);
  program->wave().download(gradient, values);
  program->predict({}, {1, 1, backend::NormStatistics::batch, false},
                   [](int, int, backend::Block) {});
  EXPECT_THROW(program->wave().download(gradient, values), std::logic_error);
  EXPECT_THROW(program->wave().fill(gradient, 1.0), std::logic_error);
  EXPECT_THROW(program->wave().axpy(gradient, 1.0, gradient), std::logic_error);
  program->meta_gradient({});
  Numbers again(values.size());
  program->wave().download(gradient, again);
  EXPECT_EQ(again, values);
  program->wave().load(batch, 0, 3, 0);
  EXPECT_THROW(program->wave().download(gradient, again), std::logic_error);
}

/// The state of the first `tasks` tasks as a step reads it: one vector per group, [tasks, width].
std::vector<std::vector<double>> recalled(const TaskMemory& memory, std::uint64_t since, int tasks,
                                          const std::vector<std::vector<double>>& fresh) {
  std::vector<std::vector<double>> all(fresh.size());
  std::vector<double> row(memory.layout().width());
  for (int t = 0; t < tasks; ++t) {
    const bool known = memory.recall(static_cast<std::uint64_t>(t), since, row);
    auto from = row.cbegin();
    for (std::size_t g = 0; g < all.size(); ++g) {
      const auto end = from + static_cast<std::ptrdiff_t>(fresh[g].size());
      all[g].insert(all[g].end(), known ? from : fresh[g].cbegin(), known ? end : fresh[g].cend());
      from = end;
    }
  }
  return all;
}

TEST_F(DeviceTraining, AMetaGradientIsOneLaunchWithTheSameBits) {
  for (const std::string algorithm : {"maml", "abml", "leo", "leo_head", "hvi"}) {
    SCOPED_TRACE(algorithm);
    const Config c = config(algorithm);
    constexpr int tasks = 16;
    const DeviceSteps run(c, "simt_f32", 1, tasks);
    const auto period = static_cast<std::uint64_t>(run.algorithm->steps_per_batch());
    const simt::Counters before = simt::counters();
    for (std::uint64_t step = 0; step < 4; ++step) {
      SCOPED_TRACE(step);
      // A step on given tasks is not captured.
      TaskBatch batch(run.source->shape(), tasks);
      batch.draw(*run.source, {c.seed, Split::train, step / period}, 0, tasks);
      StepContext context;
      context.seed = c.seed;
      context.step = step;
      std::vector<std::vector<double>> given;
      if (run.memory) {
        given = recalled(*run.memory, step / period * period, tasks,
                         run.algorithm->fresh_memory(run.parameters));
        context.memory = given;
      }
      const double loss = run.scheduler->step(run.parameters, batch, context).loss;
      const std::vector<Numbers> want = run.gradients();
      const StepResult captured = run.scheduler->step(run.parameters, *run.source, c.seed, step,
                                                      tasks, false, run.memory.get());
      EXPECT_EQ(captured.loss, loss);
      EXPECT_EQ(run.gradients(), want);
    }
    // The first step finds out how much memory is needed, and the second makes the graph.
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
    goes_on(c, folder / "parts", folder / "whole");
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
  goes_on(c, folder / "lost", folder / "whole");
}

TEST_F(DeviceTraining, ADeviceThatIsLostWithinAGraphLeavesTheLastCheckpoint) {
  const Config c = config("maml", {"train.checkpoint_every=1", "train.log_every=100"});
  const TempFolder folder;
  Trainer(c, options(folder / "whole")).run();
  {
    const simt::With with({});
    const auto soon = [] { simt::settings().lost_at_kernel = simt::counters().kernels + 3; };
    Trainer trainer(c, interrupted(options(folder / "lost"), 4, soon));
    EXPECT_THAT(error_text([&] { trainer.run(); }), HasSubstr("unspecified launch failure"));
  }
  // Either the data that step 4 had copied before is complete, or step 3 is the last one.
  EXPECT_THAT(Checkpoint::read(folder / "lost" / last_checkpoint).state.step,
              ::testing::AnyOf(3u, 4u));
  goes_on(c, folder / "lost", folder / "whole");
}

TEST_F(DeviceTraining, MemoryThatRunsOutInTheFirstStepLeavesNoFolder) {
  // 20 tasks are two waves. The wave of the second worker is opened when it is first needed.
  const Config c = config("maml", {"train.checkpoint_every=1"});
  const TempFolder folder;
  {
    const simt::With with({});
    const auto full = [] { simt::settings().memory = simt::allocated_bytes(); };
    const auto run = [&] { Trainer(c, interrupted(options(folder / "full"), 0, full)).run(); };
    EXPECT_THAT(error_text(run), AllOf(HasSubstr("out of memory"), HasSubstr("asked for")));
  }
  EXPECT_FALSE(fs::exists(folder / "full"));
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
