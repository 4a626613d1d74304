// Trainings and evaluations of several ranks are those of one process, bit for bit. The ranks are
// threads here; mpirun_test.cpp has processes.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "engine/checkpoint.h"
#include "engine/engine_cases.h"
#include "kshot/kshot.h"
#include "support/class_files.h"
#include "support/temp_folder.h"
#include "support/thread_ranks.h"

namespace kshot::test {
namespace {

namespace fs = std::filesystem;

/// What a run leaves, but for the time it took.
struct Outcome {
  std::map<std::string, std::vector<std::byte>> tensors;
  std::uint64_t step = 0, tasks = 0, diverged = 0;
  double best = 0.0, window_loss = 0.0;
  bool operator==(const Outcome&) const = default;
};
Outcome outcome(const fs::path& file) {
  const Checkpoint checkpoint = Checkpoint::read(file);
  Outcome o;
  for (const auto& [name, tensor] : checkpoint.tensors) {
    o.tensors[name] = tensor.bytes;
  }
  const RunState& s = checkpoint.state;
  o.step = s.step;
  o.tasks = s.tasks;
  o.diverged = s.diverged;
  o.best = s.best.value;
  o.window_loss = s.window.loss;
  return o;
}

/// Trains on `size` ranks in `folder`. Returns what each rank threw.
std::vector<std::string> train(const Config& config, const fs::path& folder, int size,
                               const std::string& device, int steps = -1, bool resume = false) {
  return on_ranks(size, [&](const std::shared_ptr<Communicator>& ranks) {
    TrainerOptions options;
    options.run_folder = folder;
    options.device = device;
    options.threads = 1 + size % 2;
    options.ranks = ranks;
    options.resume = resume;
    // The ranks need not all be asked.
    if (steps >= 0 && (!ranks || ranks->rank() == size - 1)) options.stop = stop_after(steps);
    Trainer trainer(config, options);
    const std::string name = trainer.device();
    EXPECT_TRUE(name.starts_with(device)) << name;
    trainer.run();
  });
}

class OnRanks : public ::testing::Test {
 protected:
  /// The same training on 1 rank and on others.
  void compare(const Config& config, const std::string& device,
               const std::vector<int>& sizes = {2, 3, 4}) {
    SCOPED_TRACE(device);
    const fs::path one = folder_.path() / "one";
    fs::remove_all(one);
    ASSERT_EQ(train(config, one, 1, device), std::vector<std::string>(1));
    for (const int size : sizes) {
      SCOPED_TRACE(size);
      const fs::path many = folder_.path() / "many";
      fs::remove_all(many);
      ASSERT_EQ(train(config, many, size, device),
                std::vector<std::string>(static_cast<std::size_t>(size)));
      EXPECT_EQ(outcome(many / last_checkpoint), outcome(one / last_checkpoint));
      if (fs::exists(one / best_checkpoint)) {
        EXPECT_EQ(outcome(many / best_checkpoint), outcome(one / best_checkpoint));
      }
    }
  }
  TempFolder folder_;
};

TEST_F(OnRanks, TrainEveryAlgorithmOnSinusoids) {
  for (const char* algorithm : {"maml", "meta_sgd", "abml", "hvi"}) {
    SCOPED_TRACE(algorithm);
    compare(small_config(algorithm, {"train.meta_batch=75"}), "cpu");
  }
  for (const char* algorithm : {"alpaca", "dkt", "r2d2"}) {
    SCOPED_TRACE(algorithm);
    compare(head_config(algorithm, {"train.meta_batch=37"}), "cpu");
  }
  compare(leo_points(), "cpu");
}

TEST_F(OnRanks, DivideTasksBelowARunOfSixteen) {
  // The reference has one task in a wave, so that ranks divide the trees of single precision too.
  compare(small_config("maml", {"train.meta_batch=21", "train.steps=6"}), "reference",
          {2, 3, 4, 7, 8});
  compare(small_config("abml", {"train.meta_batch=5", "train.steps=4"}), "reference", {2, 4, 8});
}

TEST_F(OnRanks, TrainOnTheEmulatedDevice) {
  bool emulated = false;
  for (const backend::DeviceInfo& device : backend::list_devices()) {
    emulated = emulated || device.name == "simt";
  }
  if (!emulated) GTEST_SKIP() << "this build has no emulator";
  const std::vector<std::string> few = {"train.meta_batch=75", "train.steps=3",
                                        "train.validate_every=2", "train.validation_episodes=6"};
  compare(small_config("maml", few), "simt", {2, 3});
  compare(leo_points(few), "simt", {3});
  // The gradient is exchanged in pieces, which are of unequal numbers of columns.
  const std::vector<std::string> wide = {"train.meta_batch=33",    "train.steps=1",
                                         "train.validate_every=0", "network.layers=[1,90,90,1]",
                                         "inner.steps=1",          "data.shots=1",
                                         "data.queries=1"};
  compare(small_config("maml", wide), "simt", {3});
}

TEST_F(OnRanks, TrainOnClasses) {
  const fs::path file = put_class_vectors(folder_.path());
  for (const char* algorithm : {"protonet", "bayes_protonet", "r2d2"}) {
    SCOPED_TRACE(algorithm);
    compare(class_head_config(algorithm, file), "cpu", {2, 3});
  }
  compare(leo_head(file), "cpu", {2});
}

TEST_F(OnRanks, LargeVectorsAreExchangedInPieces) {
  compare(small_config("maml", {"network.layers=[1,90,90,1]", "train.steps=3"}), "reference",
          {3, 4});
}

TEST_F(OnRanks, TasksThatRememberAreDivided) {
  const std::vector<std::string> fixed = {"data.tasks=50", "train.checkpoint_every=4",
                                          "train.meta_batch=20"};
  compare(small_config("hvi", fixed), "cpu", {2, 3, 4});
  compare(small_config("hvi", fixed), "reference", {3});
}

TEST_F(OnRanks, AResumeMayHaveAnotherNumberOfRanks) {
  for (const char* algorithm : {"maml", "hvi"}) {
    SCOPED_TRACE(algorithm);
    std::vector<std::string> overrides = {"train.meta_batch=37", "train.checkpoint_every=2"};
    if (std::string(algorithm) == "hvi") overrides.push_back("data.tasks=60");
    const Config config = small_config(algorithm, overrides);
    const fs::path whole = folder_.path() / (std::string(algorithm) + "-whole");
    const fs::path parts = folder_.path() / (std::string(algorithm) + "-parts");
    ASSERT_EQ(train(config, whole, 1, "cpu"), std::vector<std::string>(1));
    bool resume = false;
    for (const int size : {2, 1, 3, 4, 2}) {
      SCOPED_TRACE(size);
      ASSERT_EQ(train(config, parts, size, "cpu", size == 2 && resume ? -1 : 3, resume),
                std::vector<std::string>(static_cast<std::size_t>(size)));
      resume = true;
    }
    EXPECT_EQ(outcome(parts / last_checkpoint), outcome(whole / last_checkpoint));
    // Nothing of other divisions is left.
    int stores = 0;
    for (const auto& entry : fs::directory_iterator(parts)) {
      stores += is_memory_file(entry.path().filename().string()) ? 1 : 0;
    }
    EXPECT_EQ(stores, std::string(algorithm) == "hvi" ? 2 : 0);
  }
}

TEST_F(OnRanks, DivergedTasksAreCountedOnAll) {
  for (const int size : {1, 2, 3}) {
    const fs::path folder = folder_.path() / std::to_string(size);
    const auto errors = on_ranks(size, [&](const std::shared_ptr<Communicator>& ranks) {
      TrainerOptions options;
      options.run_folder = folder;
      options.device = "cpu";
      options.ranks = ranks;
      options.threads = 1;
      Trainer trainer(small_config("maml", {"train.meta_batch=40", "train.max_diverged=0.5",
                                            "train.validate_every=0"}),
                      std::make_shared<Spoilt>(Split::train, 33), options);
      EXPECT_EQ(trainer.run().diverged, 14u);
    });
    EXPECT_EQ(errors, std::vector<std::string>(static_cast<std::size_t>(size)));
    EXPECT_EQ(outcome(folder / last_checkpoint), outcome(folder_.path() / "1" / last_checkpoint));
  }
}

TEST_F(OnRanks, EvaluateLikeOneProcess) {
  const Config config = small_config("abml");
  const fs::path run = folder_.path() / "run";
  ASSERT_EQ(train(config, run, 1, "cpu"), std::vector<std::string>(1));
  const auto numbers = [](Evaluation e) {
    e.seconds = 0.0;
    e.device = {};
    return e.to_json();
  };
  std::string want;
  for (const int size : {1, 2, 3, 4}) {
    std::vector<std::string> got(static_cast<std::size_t>(size));
    const auto errors = on_ranks(size, [&](const std::shared_ptr<Communicator>& ranks) {
      EvaluatorOptions options;
      options.device = "cpu";
      options.threads = 1;
      options.ranks = ranks;
      options.overrides = {"evaluate.episodes=300"};
      got[static_cast<std::size_t>(ranks ? ranks->rank() : 0)] =
          numbers(Evaluator(run, options).run());
    });
    EXPECT_EQ(errors, std::vector<std::string>(static_cast<std::size_t>(size)));
    if (size == 1) want = got[0];
    for (const std::string& of_rank : got) EXPECT_EQ(of_rank, want) << size;
  }
}

TEST_F(OnRanks, DifferencesAreSaidWithTheRank) {
  const auto with = [&](const std::string& device, const std::vector<std::string>& overrides) {
    return on_ranks(2, [&](const std::shared_ptr<Communicator>& ranks) {
      TrainerOptions options;
      options.run_folder = folder_.path() / "never";
      options.ranks = ranks;
      options.threads = 1;
      const bool second = ranks->rank() == 1;
      options.device = second ? device : "cpu";
      Trainer trainer(small_config("maml", second ? overrides : std::vector<std::string>{}),
                      options);
    });
  };
  const std::vector<std::string> steps = with("cpu", {"inner.steps=3"});
  EXPECT_EQ(steps[0],
            "rank 1: inner.steps = 3, but rank 0 has 2; expected the same configuration on all "
            "ranks");
  EXPECT_EQ(steps[1], steps[0]);
  const std::vector<std::string> device = with("reference", {});
  EXPECT_EQ(device[0].find("rank 1: the device is reference, but rank 0 has cpu"), 0u) << device[0];
  const std::vector<std::string> missing = with("nothing", {});
  EXPECT_EQ(missing[0].find("rank 1: device \"nothing\" is unknown"), 0u) << missing[0];
  EXPECT_FALSE(fs::exists(folder_.path() / "never"));
}

TEST_F(OnRanks, OtherDataFilesAreRefused) {
  const fs::path file = folder_.path() / "classes.kshot", other = folder_.path() / "other.kshot";
  write_class_file(file, {.input = {6, 1, 1, false}, .train = 9, .validation = 5, .test = 7});
  write_class_file(other, {.input = {6, 1, 1, false}, .train = 9, .validation = 5, .test = 8});
  const auto errors = on_ranks(2, [&](const std::shared_ptr<Communicator>& ranks) {
    TrainerOptions options;
    options.ranks = ranks;
    options.threads = 1;
    Trainer trainer(class_head_config("protonet", ranks->rank() == 1 ? other : file), options);
  });
  EXPECT_EQ(errors[0].find("rank 1: the checksum of the data file is crc32:"), 0u) << errors[0];
  EXPECT_EQ(errors[1], errors[0]);
}

/// A source that fails on one rank in the middle of the training.
class Failing final : public EpisodeSource {
 public:
  explicit Failing(bool fails) : fails_(fails), good_(make_sinusoid({})) {}
  TaskShape shape() const override { return good_->shape(); }
  std::string describe() const override { return "sinusoids"; }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    if (fails_ && id.step == 5) throw Error("task cannot be drawn");
    good_->fill(id, slot);
  }

 private:
  bool fails_;
  std::unique_ptr<EpisodeSource> good_;
};

TEST_F(OnRanks, AnErrorOfOneIsAnErrorOfAllAndTheRunCanGoOn) {
  const Config config = small_config(
      "maml", {"train.meta_batch=40", "train.checkpoint_every=2", "train.validate_every=0"});
  const fs::path run = folder_.path() / "run", whole = folder_.path() / "whole";
  const auto errors = on_ranks(3, [&](const std::shared_ptr<Communicator>& ranks) {
    TrainerOptions options;
    options.run_folder = run;
    options.device = "cpu";
    options.threads = 1;
    options.ranks = ranks;
    Trainer trainer(config, std::make_shared<Failing>(ranks->rank() == 1), options);
    trainer.run();
  });
  EXPECT_EQ(errors,
            (std::vector<std::string>{"rank 1: task cannot be drawn", "task cannot be drawn",
                                      "rank 1: task cannot be drawn"}));
  EXPECT_EQ(outcome(run / last_checkpoint).step, 4u);
  const auto go_on = [&](const fs::path& folder, bool resume) {
    TrainerOptions options;
    options.run_folder = folder;
    options.device = "cpu";
    options.threads = 1;
    options.resume = resume;
    Trainer(config, std::make_shared<Failing>(false), options).run();
  };
  go_on(run, true);
  go_on(whole, false);
  EXPECT_EQ(outcome(run / last_checkpoint), outcome(whole / last_checkpoint));
}

TEST_F(OnRanks, ARunFolderThatCannotBeMadeEndsAllOfThem) {
  const fs::path file = folder_.path() / "a file";
  std::ofstream(file) << "in the way";
  const auto errors = train(small_config("maml"), file / "run", 2, "cpu");
  EXPECT_EQ(errors[1], "rank 0: " + errors[0]);
  EXPECT_NE(errors[0].find("run folder"), std::string::npos) << errors[0];
}

}  // namespace
}  // namespace kshot::test
