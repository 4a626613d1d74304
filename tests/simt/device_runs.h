// Training runs on the emulated device, for tests.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "algorithms/algorithm.h"
#include "backend/backend.h"
#include "engine/plan.h"
#include "engine/scheduler.h"
#include "engine/task_memory.h"
#include "engine/training_episodes.h"
#include "episodes/sources.h"
#include "kshot/kshot.h"
#include "support/backend_problems.h"

namespace kshot::test {

/// The tests are skipped if the build has no emulated device.
class DeviceRuns : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const backend::DeviceInfo& device : backend::list_devices()) {
      if (device.name == "simt") return;
    }
    GTEST_SKIP() << "this build leaves the emulated CUDA backend out";
  }
  /// Options with two streams. Without a folder nothing is written.
  static TrainerOptions options(const std::filesystem::path& folder = {}) {
    TrainerOptions o;
    o.device = "simt";
    o.threads = 2;
    o.run_folder = folder;
    return o;
  }
};

/// The parts of a trainer that take steps: a scheduler that starts at the algorithm's initial
/// parameters.
struct DeviceSteps {
  /// `device` is as in open_backend. `tasks` is the number of tasks per step, for their memory.
  DeviceSteps(const Config& c, const std::string& device, int streams, int tasks,
              std::shared_ptr<const EpisodeSource> given = nullptr)
      : backend(testing::open_backend(device, streams)),
        source(given ? std::move(given) : make_source(c)),
        algorithm(make_algorithm(c, std::make_shared<const Network>(c.make_network()))),
        episodes(place_episodes(*backend, *source)) {
    plan_waves(*backend, c, source->shape());
    scheduler = std::make_unique<Scheduler>(*backend, *algorithm, source->shape());
    for (const testing::Numbers& values : algorithm->initial(1)) {
      parameters.push_back(backend->shared(values.size()));
      parameters.back()->upload(values);
    }
    if (algorithm->memory().empty()) return;
    algorithm->begin_training(static_cast<std::uint64_t>(tasks), source->training_rows());
    memory = std::make_unique<TaskMemory>(TaskMemory::Layout{
        algorithm->memory(), backend->precision(), static_cast<std::uint64_t>(tasks)});
  }
  /// The gradients of the last step, one vector per group.
  std::vector<testing::Numbers> gradients() const {
    std::vector<testing::Numbers> all;
    for (const backend::Shared& g : scheduler->gradients()) {
      all.emplace_back(g->size());
      g->download(all.back());
    }
    return all;
  }

  std::unique_ptr<backend::Backend> backend;
  std::shared_ptr<const EpisodeSource> source;
  std::unique_ptr<Algorithm> algorithm;
  TrainingEpisodes episodes;  ///< drawn by the device if the scheduler is told so
  std::unique_ptr<Scheduler> scheduler;
  std::vector<backend::Shared> parameters;
  std::unique_ptr<TaskMemory> memory;  ///< null if there is no per-task state
};

}  // namespace kshot::test
