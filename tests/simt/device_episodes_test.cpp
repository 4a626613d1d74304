// Training whose episodes the device draws, on the emulator. The bits are those of episodes drawn
// by the host, nothing crosses the bus, and the host draws if the device's memory is too small for
// the rows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "engine/engine_cases.h"
#include "simt/device_runs.h"
#include "simt/orders.h"
#include "support/class_files.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

namespace fs = std::filesystem;
using kshot::testing::Numbers;
using kshot::testing::open_backend;
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

class DeviceEpisodes : public DeviceRuns {
 protected:
  /// A classifier of vectors from a file of classes.
  Config classes(const std::string& algorithm, std::vector<std::string> more = {}) {
    if (!fs::exists(file())) write_class_file(file(), {.input = {6, 1, 1, false}, .train = 9});
    more.insert(more.begin(),
                {"data.source=file", "data.path=" + file().string(), "data.ways=3", "data.shots=2",
                 "data.queries=3", "network.layers=6,8,3", "loss.type=cross_entropy",
                 "train.validate_every=0", "train.steps=3"});
    return small_config(algorithm, more);
  }
  fs::path file() const { return folder_ / "classes.kshot"; }

  TempFolder folder_;
};

/// Losses and gradients of a few steps with two waves each.
std::vector<Numbers> steps(const Config& c, const std::string& device, bool on_device) {
  constexpr int tasks = 20;
  const DeviceSteps run(c, device, 2, tasks);
  EXPECT_NE(run.episodes.on_device, nullptr) << run.episodes.text;
  if (on_device) run.scheduler->draw_on_device(*run.source, run.episodes.on_device);
  std::vector<Numbers> all;
  for (std::uint64_t step = 0; step < 2; ++step) {
    const StepResult result = run.scheduler->step(run.parameters, *run.source, c.seed, step, tasks,
                                                  false, run.memory.get());
    all.push_back({result.loss});
    for (Numbers& gradient : run.gradients()) all.push_back(std::move(gradient));
  }
  return all;
}

TEST_F(DeviceEpisodes, AStepHasTheBitsOfTheHostsEpisodes) {
  const Config on_classes = classes("maml");
  const std::vector<Config> configs = {
      small_config("maml", {"data.noise_std=0.1"}),
      small_config("maml", {"data.source=sine_line"}),
      small_config("hvi"),  // several steps use the same meta-batch
      small_config("abml", {"abml.inner_data=all"}),
      on_classes,
      leo_head(file(), {"data.unit_length=true"}),  // reads the labels of its tasks on the host
  };
  for (const Config& c : configs) {
    SCOPED_TRACE(c.to_toml());
    for (const std::string device : {"simt_f32", "simt_f64"}) {
      EXPECT_EQ(steps(c, device, true), steps(c, device, false)) << device;
    }
  }
}

TEST_F(DeviceEpisodes, NothingOfThemCrossesTheBus) {
  for (const Config& c : {small_config("maml", {"train.steps=9", "train.validate_every=0"}),
                          classes("maml", {"train.steps=9"})}) {
    TrainerOptions five = options();
    std::uint64_t before = 0;
    five.stop = [&, step = 0]() mutable {
      if (step == 1) before = simt::counters().bytes_to_device;
      return step++ == 5;
    };
    Trainer trainer(c, five);
    EXPECT_THAT(trainer.device(), HasSubstr("episodes drawn on the device"));
    ASSERT_EQ(trainer.run().step, 5u);
    const double a_step = static_cast<double>(simt::counters().bytes_to_device - before) / 4.0;
    EXPECT_LT(a_step, c.train.meta_batch * 4.0) << "less than a number a task";
  }
}

TEST_F(DeviceEpisodes, TheHostDrawsWhereTheRowsDoNotFit) {
  const Config c = classes("maml");
  const auto source = make_source(c);
  // 9 classes of 20 rows of 6 numbers, and the place of each class in them.
  constexpr std::size_t bytes = 9 * (20 * 6 * 4 + 8);
  for (const bool fits : {true, false}) {
    SCOPED_TRACE(fits);
    const auto backend = open_backend("simt_f32", 1);
    const std::size_t before = simt::allocated_bytes();
    const std::size_t counted = backend->device_bytes();
    const simt::With with({.memory = before + 2 * bytes - (fits ? 0 : 1)});
    const TrainingEpisodes episodes = place_episodes(*backend, *source);
    EXPECT_EQ(episodes.on_device != nullptr, fits);
    EXPECT_EQ(simt::allocated_bytes() - before, fits ? bytes : 0u);
    EXPECT_EQ(backend->device_bytes() - counted, fits ? bytes : 0u);
    if (fits) {
      EXPECT_EQ(episodes.text, "episodes drawn on the device from 0.00419 MiB of rows");
    } else {
      EXPECT_THAT(episodes.text, AllOf(HasSubstr("episodes drawn by the host (the rows take 4 KiB"),
                                       HasSubstr("more than half of the 9 KiB at hand")));
    }
  }
}

TEST_F(DeviceEpisodes, TheHostDrawsWhereRowsAreNotFinite) {
  // A class in a file that another program wrote has a NaN in its last row.
  data::DatasetHeader header;
  header.kind = data::GroupKind::classes;
  header.input = {6, 1, 1, false};
  header.element = data::Element::f32;
  header.preprocessing.input = header.input;
  data::DatasetWriter writer(file(), header);
  constexpr int groups = 5, rows = 6;
  for (int g = 0; g < groups; ++g) {
    writer.begin_group("class " + std::to_string(g), Split::train);
    for (int r = 0; r < rows; ++r) {
      std::vector<float> x = {1.0f * static_cast<float>(g), 0.5f, -1.0f, 2.0f, 0.1f, 0.3f};
      if (g == groups - 1 && r == rows - 1) x[3] = std::numeric_limits<float>::quiet_NaN();
      writer.add(x);
    }
  }
  writer.commit();
  const Config c = classes("maml");
  const auto source = make_source(c);
  const auto backend = open_backend("simt_f32", 1);
  const TrainingEpisodes episodes = place_episodes(*backend, *source);
  EXPECT_EQ(episodes.on_device, nullptr);
  EXPECT_EQ(episodes.text,
            "episodes drawn by the host (some of the rows hold numbers that are not finite)");
}

TEST_F(DeviceEpisodes, WhatIsInHandIsSaid) {
  const std::vector<std::string> fixed = {"data.tasks=30", "train.validate_every=0"};
  EXPECT_THAT(Trainer(small_config("maml", fixed), options()).device(),
              EndsWith(", episodes drawn by the host (the device cannot draw from this source)"));
  TrainerOptions cpu = options();
  cpu.device = "cpu";
  EXPECT_THAT(Trainer(small_config("maml"), cpu).device(), Not(HasSubstr("episodes")));
}

}  // namespace
}  // namespace kshot::test
