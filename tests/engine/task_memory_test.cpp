// Per-task state in training: the tasks that a step draws, the state that each of them gets, and
// bit-for-bit resumes of a run with a task store after any interruption.
#include "engine/task_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <map>
#include <mutex>
#include <set>

#include "engine/engine_cases.h"
#include "engine/scheduler.h"
#include "io/atomic_file.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::small_config;
using test::stop_after;
using test::TempFolder;
using test::tensors;
using testing::HasSubstr;

TrainerOptions in_folder(const fs::path& folder, int threads = 1) {
  TrainerOptions options;
  options.run_folder = folder;
  options.device = "cpu";
  options.threads = threads;
  return options;
}
const std::vector<std::string> fixed_tasks = {"data.tasks=50", "train.checkpoint_every=4"};

TEST(TaskMemory, KeepsRowsThatAreFinite) {
  TaskMemory memory({{{"a", 2}, {"b", 1}}, backend::Precision::f64, 4});
  std::vector<double> row(3);
  EXPECT_FALSE(memory.recall(2, 0, row));
  const std::vector<double> first = {1.0, 2.0, 3.0};
  memory.keep(2, 5, first);
  memory.keep(2, 6, std::vector<double>{1.0, std::numeric_limits<double>::quiet_NaN(), 3.0});
  EXPECT_TRUE(memory.recall(2, 4, row));
  EXPECT_EQ(row, first);
  EXPECT_FALSE(memory.recall(2, 5, row)) << "nothing after five steps";
  EXPECT_FALSE(memory.recall(1, 0, row));
}

TEST(TaskMemory, MembersOfAStepAreDifferentAndEachHasItsTurn) {
  std::map<std::uint32_t, int> turns;
  for (std::uint64_t step = 0; step < 400; ++step) {
    const auto members = draw_members(7, step, 40, 10);
    EXPECT_EQ(std::set<std::uint32_t>(members.begin(), members.end()).size(), 10u);
    for (const std::uint32_t m : members) {
      EXPECT_LT(m, 40u);
      ++turns[m];
    }
    EXPECT_EQ(members, draw_members(7, step, 40, 10));
  }
  // Each member expects 100 turns with standard deviation sqrt(400 * 1/4 * 3/4) = 8.7. The
  // tolerance is six of these.
  EXPECT_EQ(turns.size(), 40u);
  for (const auto& [member, count] : turns) EXPECT_NEAR(count, 100, 52) << member;
  // A few members of very many are drawn by another algorithm.
  const auto far = draw_members(7, 0, 4'000'000'000ull, 64);
  EXPECT_EQ(std::set<std::uint32_t>(far.begin(), far.end()).size(), 64u);
}

/// A source of sinusoids that records the tasks that were asked for.
class Noted final : public EpisodeSource {
 public:
  explicit Noted(std::uint64_t tasks) : tasks_(tasks) {
    SinusoidOptions options;
    options.support = 4;
    options.query = 5;
    inner_ = make_sinusoid(options);
  }
  TaskShape shape() const override { return inner_->shape(); }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    {
      const std::lock_guard lock(mutex_);
      asked.push_back(id);
    }
    inner_->fill(id, slot);
  }
  std::string describe() const override { return "noted"; }
  std::uint64_t training_tasks() const override { return tasks_; }

  mutable std::vector<TaskId> asked;

 private:
  std::unique_ptr<EpisodeSource> inner_;
  std::uint64_t tasks_;
  mutable std::mutex mutex_;
};

TEST(TaskMemory, AMemberGetsItsOwnMemoryBack) {
  // One step at a time with the test's own TaskMemory. The count in a row says how often the task
  // was drawn. A row that was not drawn does not change.
  const Config config = small_config("hvi");
  const auto network = std::make_shared<const Network>(config.make_network());
  const auto algorithm = make_algorithm(config, network);
  const auto backend = backend::make_backend("cpu", 2);
  std::vector<backend::Shared> parameters;
  for (const auto& values : algorithm->initial(3)) {
    parameters.push_back(backend->shared(values.size()));
    parameters.back()->upload(values);
  }
  algorithm->begin_training(30, 0.0);
  Noted source(30);
  Scheduler scheduler(*backend, *algorithm, source.shape());
  TaskMemory memory({algorithm->memory(), backend->precision(), 30});
  const std::size_t width = memory.layout().width();
  std::vector<int> drawn(30, 0);
  std::vector<std::vector<double>> before(30, std::vector<double>(width));
  for (std::uint64_t step = 0; step < 12; ++step) {
    source.asked.clear();
    scheduler.step(parameters, source, 3, step, 20, false, &memory);
    ASSERT_EQ(source.asked.size(), 20u);
    std::set<std::int64_t> members;
    for (const TaskId& id : source.asked) members.insert(id.member);
    EXPECT_EQ(members.size(), 20u);
    for (std::uint64_t task = 0; task < 30; ++task) {
      const bool now = members.contains(static_cast<std::int64_t>(task));
      drawn[task] += now;
      std::vector<double> row(width);
      EXPECT_EQ(memory.recall(task, 0, row), drawn[task] > 0);
      if (drawn[task] > 0) {
        EXPECT_EQ(row.back(), drawn[task]);
        EXPECT_EQ(row == before[task], !now);
      }
      before[task] = row;
    }
  }
}

TEST(TaskMemory, EndlessTasksStayForSomeStepsThenAllIsNew) {
  const Config config = small_config("hvi");  // joint_steps = 3
  const auto network = std::make_shared<const Network>(config.make_network());
  const auto algorithm = make_algorithm(config, network);
  const auto backend = backend::make_backend("cpu", 1);
  std::vector<backend::Shared> parameters;
  for (const auto& values : algorithm->initial(3)) {
    parameters.push_back(backend->shared(values.size()));
    parameters.back()->upload(values);
  }
  algorithm->begin_training(20, 0.0);
  Noted source(0);
  Scheduler scheduler(*backend, *algorithm, source.shape());
  TaskMemory memory({algorithm->memory(), backend->precision(), 20});
  std::vector<double> row(memory.layout().width());
  for (std::uint64_t step = 0; step < 8; ++step) {
    source.asked.clear();
    scheduler.step(parameters, source, 3, step, 20, false, &memory);
    for (const TaskId& id : source.asked) EXPECT_EQ(id.step, step / 3);
    ASSERT_TRUE(memory.recall(11, 0, row));
    EXPECT_EQ(row.back(), static_cast<double>(step % 3 + 1)) << "joint steps of this meta-batch";
  }
}

TEST(TaskMemory, ResumesBitForBitFromACrashAtAnyStep) {
  const TempFolder folder;
  const Config config = small_config("hvi", fixed_tasks);
  Trainer(config, in_folder(folder / "straight")).run();
  for (int at = 1; at < 14; ++at) {
    SCOPED_TRACE(at);
    const fs::path run = folder / ("killed" + std::to_string(at));
    const fs::path frozen = folder / ("frozen" + std::to_string(at));
    {
      // The folder is as a kill after this step leaves it: the writes to the mapping are in the
      // file.
      TrainerOptions options = in_folder(run, 2);
      options.stop = [&, left = at]() mutable {
        if (left-- > 0) return false;
        fs::copy(run, frozen);
        return true;
      };
      Trainer(config, options).run();
    }
    TrainerOptions options = in_folder(frozen);
    options.resume = true;
    Trainer(config, options).run();
    EXPECT_EQ(tensors(frozen / "last.safetensors"),
              tensors(folder / "straight" / "last.safetensors"));
    EXPECT_EQ(tensors(frozen / "best.safetensors"),
              tensors(folder / "straight" / "best.safetensors"));
  }
}

TEST(TaskMemory, WithAndWithoutAFolderTheSame) {
  const TempFolder folder;
  const Config config = small_config("hvi", fixed_tasks);
  Trainer there(config, in_folder(folder / "run"));
  there.run();
  Trainer here(config, TrainerOptions{.device = "cpu", .threads = 2});
  here.run();
  for (const std::string& group : here.groups()) {
    EXPECT_EQ(here.parameters(group), there.parameters(group));
  }
}

TEST(TaskMemory, AStoreOfAnotherRunIsAnError) {
  const TempFolder folder;
  const Config config = small_config("hvi", fixed_tasks);
  for (const char* name : {"one", "two"}) {
    TrainerOptions options = in_folder(folder / name);
    options.stop = stop_after(5);
    Trainer(config, options).run();
  }
  TrainerOptions options = in_folder(folder / "one");
  options.resume = true;
  fs::copy(folder / "two" / "tasks.store", folder / "one" / "tasks.store",
           fs::copy_options::overwrite_existing);
  EXPECT_THAT(error_text([&] { Trainer(config, options); }), HasSubstr("of another run"));
  fs::remove(folder / "one" / "tasks.store");
  EXPECT_THAT(error_text([&] { Trainer(config, options); }), HasSubstr("tasks.store"));
}

TEST(TaskMemory, AStartThatWasKilledDoesNotBlockTheNext) {
  const TempFolder folder;
  const Config config = small_config("hvi", fixed_tasks);
  TrainerOptions options = in_folder(folder / "run");
  options.stop = stop_after(5);
  Trainer(config, options).run();
  // The folder is as a kill between the creation of the store and the first checkpoint leaves it,
  // with half a checkpoint.
  for (const auto& entry : fs::directory_iterator(folder / "run")) {
    if (entry.path().filename() != "tasks.store") fs::remove(entry.path());
  }
  io::write_file_atomic(folder / "run" / ".last.safetensors.tmp-7-0", "half");
  options.stop = stop_after(6);
  Trainer(config, options).run();
  EXPECT_FALSE(fs::exists(folder / "run" / ".last.safetensors.tmp-7-0"));

  // The same leftovers in the folder of a run that is resumed.
  io::write_file_atomic(folder / "run" / ".tasks.store.tmp-7", "half");
  io::write_file_atomic(folder / "run" / ".best.safetensors.tmp-7-1", "half");
  options.resume = true;
  options.stop = {};
  Trainer(config, options).run();
  EXPECT_FALSE(fs::exists(folder / "run" / ".tasks.store.tmp-7"));
  EXPECT_FALSE(fs::exists(folder / "run" / ".best.safetensors.tmp-7-1"));
  Trainer(config, in_folder(folder / "whole")).run();
  EXPECT_EQ(tensors(folder / "run" / "last.safetensors"),
            tensors(folder / "whole" / "last.safetensors"));
}

TEST(TaskMemory, MoreTasksInABatchThanThereAreIsAnError) {
  EXPECT_THAT(error_text([] {
                Trainer(small_config("hvi", {"data.tasks=7"}), TrainerOptions{.device = "cpu"});
              }),
              HasSubstr("train.meta_batch = 20: hvi keeps a posterior for each training task, and "
                        "there are 7"));
}

TEST(TaskMemory, TasksThatDivergeKeepWhatTheyHad) {
  // One member has a target that is not finite whenever it is drawn.
  class SpoiltMember final : public EpisodeSource {
   public:
    TaskShape shape() const override { return good_.shape(); }
    void fill(const TaskId& id, const TaskSlot& slot) const override {
      good_.fill(id, slot);
      if (id.member == 4) slot.support_value[0] = std::numeric_limits<float>::infinity();
    }
    std::string describe() const override { return "spoilt"; }
    std::uint64_t training_tasks() const override { return 25; }

   private:
    Noted good_{25};
  };
  const TempFolder folder;
  const Config config = small_config("hvi", {"train.validate_every=0", "train.meta_batch=25"});
  Trainer trainer(config, std::make_shared<SpoiltMember>(), in_folder(folder / "run"));
  const TrainResult result = trainer.run();
  EXPECT_EQ(result.diverged, 14u) << "once a step";
  EXPECT_TRUE(std::isfinite(result.loss));
}

}  // namespace
}  // namespace kshot
