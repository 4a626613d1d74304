// Sources of episodes that a user writes may be faulty. On every backend and for every algorithm,
// faulty rows are either refused with one clear line or count as one diverged task. Nothing hangs,
// and no thread is left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "algorithms/algorithm.h"
#include "engine/assembly.h"
#include "engine/engine_cases.h"
#include "engine/predictor.h"
#include "engine/scheduler.h"
#include "engine/task_memory.h"
#include "episodes/sources.h"
#include "kshot/kshot.h"
#include "support/backend_problems.h"
#include "support/class_files.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// The task that the tests spoil.
constexpr std::uint32_t bad = 4;
constexpr int tasks = 9;

using Spoil = std::function<void(const TaskSlot&)>;

/// A good source. If `spoil` is set, it changes the rows of task number `bad`.
class Hostile final : public EpisodeSource {
 public:
  explicit Hostile(std::unique_ptr<EpisodeSource> good) : good_(std::move(good)) {}
  TaskShape shape() const override { return good_->shape(); }
  std::string describe() const override { return "hostile"; }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    good_->fill(id, slot);
    if (id.task == bad && spoil) spoil(slot);
  }
  Spoil spoil;

 private:
  std::unique_ptr<EpisodeSource> good_;
};

/// An algorithm on a backend, with a source for it.
class Steps {
 public:
  Steps(const std::string& backend, const Config& config)
      : backend_(open_backend(backend, 2)),
        source_(make_source(config)),
        network_(std::make_shared<const Network>(config.make_network())),
        algorithm_(make_algorithm(config, network_)),
        scheduler_(*backend_, *algorithm_, source_.shape()),
        options_(predict_options(config, *algorithm_)) {
    for (const Numbers& values : algorithm_->initial(1)) {
      parameters_.push_back(backend_->shared(values.size()));
      parameters_.back()->upload(values);
    }
    if (!algorithm_->memory().empty()) {
      memory_ = std::make_unique<TaskMemory>(
          TaskMemory::Layout{algorithm_->memory(), backend_->precision(), tasks});
    }
  }

  StepResult step(Spoil spoil) {
    source_.spoil = std::move(spoil);
    return scheduler_.step(parameters_, source_, 1, next_++, tasks, false, memory_.get());
  }
  void draw_ahead() { scheduler_.draw_ahead(); }
  std::vector<std::uint32_t> diverged() const { return scheduler_.diverged_tasks(); }
  bool gradients_finite() const {
    for (const backend::Shared& g : scheduler_.gradients()) {
      Numbers values(g->size());
      g->download(values);
      for (const double v : values) {
        if (!std::isfinite(v)) return false;
      }
    }
    return true;
  }
  /// The test episodes whose prediction counts as diverged.
  std::vector<std::uint32_t> diverged_episodes(Spoil spoil) {
    source_.spoil = std::move(spoil);
    std::vector<std::uint32_t> found;
    predict_in_order(scheduler_, parameters_, source_, {1, Split::test, tasks}, 0, tasks, options_,
                     [&](const EpisodePrediction& p) -> std::function<void()> {
                       if (!p.diverged) return [] {};
                       const auto episode = static_cast<std::uint32_t>(p.episode);
                       return [&found, episode] { found.push_back(episode); };
                     },
                     {});
    return found;
  }

 private:
  std::unique_ptr<backend::Backend> backend_;
  Hostile source_;
  std::shared_ptr<const Network> network_;
  std::unique_ptr<Algorithm> algorithm_;
  Scheduler scheduler_;
  PredictOptions options_;
  std::vector<backend::Shared> parameters_;
  std::unique_ptr<TaskMemory> memory_;
  std::uint64_t next_ = 0;
};

struct Case {
  std::string name;
  Config config;
};

class HostileSourceTest : public ::testing::TestWithParam<std::string> {
 protected:
  HostileSourceTest() { test::write_class_file(file_, {.input = {6, 1, 1, false}, .rows = 12}); }
  bool on_emulator() const { return GetParam().starts_with("simt"); }

  /// Configurations whose tasks have real targets.
  std::vector<Case> regression() const {
    std::vector<Case> cases = {{"maml", test::small_config("maml", {"network.activation=relu"})}};
    if (on_emulator()) return cases;
    for (const std::string algorithm : {"meta_sgd", "abml", "hvi"}) {
      cases.push_back({algorithm, test::small_config(algorithm)});
    }
    for (const std::string estimator : {"flipout", "local"}) {
      cases.push_back(
          {"abml " + estimator, test::small_config("abml", {"abml.estimator=" + estimator})});
    }
    cases.push_back({"no steps", test::small_config("maml", {"inner.steps=0"})});
    cases.push_back({"leo", test::leo_points()});
    return cases;
  }
  /// Configurations whose tasks have labels. They cover three layouts of the CPU backend: tasks in
  /// lanes, tasks one at a time, and tasks with a head that LEO generates.
  std::vector<Case> classification() const {
    const std::string text = R"(
algorithm = "maml"
loss.type = "cross_entropy"
inner = { steps = 2, learning_rate = 0.01 }
data = { source = "file", ways = 3, shots = 2, queries = 3 }
)";
    const std::vector<std::string> path = {"data.path=" + file_.string()};
    std::vector<Case> cases = {
        {"head", test::leo_head(file_, {"data.unit_length=true", "leo.latent_lr_init=0.01",
                                        "leo.deterministic=true"})}};
    cases.push_back({"lanes", Config::parse(text + "network.layers = [6, 5, 3]\n", "test", path)});
    if (on_emulator()) return cases;
    cases.push_back({"single", Config::parse(text + R"(
[network]
type = "sequential"
input = [6]
layers = [{ type = "norm" }, { type = "linear", out = 3 }]
)",
                                             "test", path)});
    return cases;
  }

 private:
  test::TempFolder folder_;
  std::filesystem::path file_ = folder_ / "classes.kshot";
};

std::vector<float> not_finite() {
  const float infinity = std::numeric_limits<float>::infinity();
  return {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity};
}

TEST_P(HostileSourceTest, ATaskThatIsNotFiniteIsOneDivergedTask) {
  std::vector<Case> cases = regression();
  for (Case& c : classification()) cases.push_back(std::move(c));
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Steps steps(GetParam(), c.config);
    for (const float number : not_finite()) {
      const std::vector<std::pair<std::string, Spoil>> spoils = {
          {"support input", [=](const TaskSlot& s) { s.support_x[1] = number; }},
          {"query input", [=](const TaskSlot& s) { s.query_x[2] = number; }},
          {"support target",
           [=](const TaskSlot& s) {
             (s.support_value.empty() ? s.support_x : s.support_value)[3] = number;
           }},
          {"query target",
           [=](const TaskSlot& s) {
             (s.query_value.empty() ? s.query_x : s.query_value)[0] = number;
           }},
      };
      for (const auto& [what, spoil] : spoils) {
        SCOPED_TRACE(what + " " + std::to_string(number));
        const StepResult result = steps.step(spoil);
        EXPECT_EQ(result.diverged, 1u);
        EXPECT_THAT(steps.diverged(), ElementsAre(bad));
        EXPECT_TRUE(std::isfinite(result.loss));
        EXPECT_TRUE(steps.gradients_finite());
        // On the emulator, one number that is not NaN is enough.
        if (on_emulator() && !std::isnan(number)) break;
        EXPECT_THAT(steps.diverged_episodes(spoil), ElementsAre(bad));
      }
    }
    EXPECT_EQ(steps.step({}).diverged, 0u) << "the next step has nothing of it";
  }
}

TEST_P(HostileSourceTest, LabelsAndRowsOutOfRangeAreRefused) {
  constexpr std::int32_t lowest = std::numeric_limits<std::int32_t>::min();
  constexpr std::int32_t highest = std::numeric_limits<std::int32_t>::max();
  for (const Case& c : classification()) {
    SCOPED_TRACE(c.name);
    Steps steps(GetParam(), c.config);
    const auto refuses = [&](const Spoil& spoil, const std::string& message) {
      EXPECT_THAT(test::error_text([&] { steps.step(spoil); }), HasSubstr(message));
      EXPECT_THAT(test::error_text([&] { steps.diverged_episodes(spoil); }), HasSubstr(message));
    };
    for (const std::int32_t label : {-1, 3, lowest, highest}) {
      const std::string text = ": label " + std::to_string(label);
      refuses([=](const TaskSlot& s) { s.support_label[2] = label; },
              "task 4, support row 2" + text);
      refuses([=](const TaskSlot& s) { s.query_label[1] = label; }, "task 4, query row 1" + text);
    }
    for (const std::int32_t n : {-1, lowest, highest, 100}) {
      const std::string text = "task 4: " + std::to_string(n);
      refuses([=](const TaskSlot& s) { *s.support_n = n; },
              text + " support rows, expected 0 to 6");
      refuses([=](const TaskSlot& s) { *s.query_n = n; }, text + " query rows, expected 0 to 9");
    }
    EXPECT_EQ(steps.step({}).diverged, 0u) << "the next step works";
  }
}

/// A task without rows may count as one diverged task, be refused by its number, or have a loss
/// without data (a KL). It must never spoil the other tasks.
TEST_P(HostileSourceTest, ATaskWithoutRowsSpoilsNothing) {
  std::vector<Case> cases = regression();
  for (Case& c : classification()) cases.push_back(std::move(c));
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Steps steps(GetParam(), c.config);
    const std::vector<Spoil> spoils = {[](const TaskSlot& s) { *s.query_n = 0; },
                                       [](const TaskSlot& s) { *s.support_n = 0; },
                                       [](const TaskSlot& s) { *s.support_n = *s.query_n = 0; }};
    for (const Spoil& spoil : spoils) {
      const std::string message = test::error_text([&] {
        const StepResult result = steps.step(spoil);
        EXPECT_LE(result.diverged, 1u);
        if (result.diverged > 0) {
          EXPECT_THAT(steps.diverged(), ElementsAre(bad));
        }
        EXPECT_TRUE(std::isfinite(result.loss));
        EXPECT_TRUE(steps.gradients_finite());
      });
      EXPECT_THAT(message, ::testing::AnyOf("(no error)", HasSubstr("support rows")));
    }
    EXPECT_EQ(steps.step({}).diverged, 0u);
  }
}

std::size_t threads_of_this_process() {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator("/proc/self/task"),
                    std::filesystem::directory_iterator{}));
}

TEST_P(HostileSourceTest, WhatASourceThrowsComesOutAndNoThreadStays) {
  // The thread sanitizer starts its own thread together with the first thread of the process.
  std::thread([] {}).join();
  const std::size_t before = threads_of_this_process();
  for (const bool ahead : {false, true}) {
    const Config config = test::small_config("maml");
    Steps steps(GetParam(), config);
    if (ahead) steps.draw_ahead();
    const Spoil spoil = [](const TaskSlot&) { throw std::domain_error("the user's own"); };
    for (int i = 0; i < 3; ++i) EXPECT_THROW(steps.step(spoil), std::domain_error);
    EXPECT_THROW(steps.diverged_episodes(spoil), std::domain_error);
    EXPECT_EQ(steps.step({}).diverged, 0u);
  }
  EXPECT_EQ(threads_of_this_process(), before);
}

INSTANTIATE_TEST_SUITE_P(Backends, HostileSourceTest, ::testing::ValuesIn(backend_names()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace kshot::testing
