// Features, calibrations, rows out of distribution and bandits of several ranks are those of one
// process, bit for bit. The ranks are threads here; mpirun_test.cpp has processes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "bandit/experiment.h"
#include "engine/calibration.h"
#include "engine/divided_work.h"
#include "engine/rank_checks.h"
#include "io/atomic_file.h"
#include "kshot/kshot.h"
#include "support/class_files.h"
#include "support/environment.h"
#include "support/put_file.h"
#include "support/temp_folder.h"
#include "support/thread_ranks.h"

namespace kshot::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;
using Ranks = std::shared_ptr<Communicator>;

TEST(DivideWork, EveryRankTakesAllResultsInOrder) {
  for (const int size : {1, 2, 3, 5}) {
    for (const std::size_t total : {0u, 1u, 7u, 40u}) {
      const auto errors = on_ranks(size, [&](const Ranks& ranks) {
        std::size_t worked = 0;
        std::vector<double> taken;
        divide_work<std::vector<double>>(
            ranks.get(), {total, 16, 2, "numbers"},
            [&](std::size_t first, std::size_t count, const auto& put) {
              EXPECT_GT(count, 0u);
              worked += count;
              for (std::size_t i = first; i < first + count; ++i) {
                put(std::vector<double>{static_cast<double>(i)});
              }
            },
            [&](const std::vector<double>& result) { taken.push_back(result.at(0)); });
        ASSERT_EQ(taken.size(), total);
        for (std::size_t i = 0; i < total; ++i) EXPECT_EQ(taken[i], static_cast<double>(i));
        // Nobody works on much more than a fair part.
        EXPECT_LE(worked, (total / 16 + 1) * (16 / static_cast<std::size_t>(size) + 2));
      });
      EXPECT_EQ(errors, std::vector<std::string>(static_cast<std::size_t>(size)));
    }
  }
}

TEST(DivideWork, AnErrorOfOneRankIsKnownToAllAtTheNextExchange) {
  const auto errors = on_ranks(3, [](const Ranks& ranks) {
    run_and_report_failure(ranks.get(), [&] {
      divide_work<int>(
          ranks.get(), {30, 9, 1, "numbers"},
          [&](std::size_t first, std::size_t, const auto&) {
            if (ranks->rank() == 1 && first > 9) throw Error("the disk is gone");
          },
          [](int) {});
    });
  });
  EXPECT_EQ(errors, (std::vector<std::string>{"rank 1: the disk is gone", "the disk is gone",
                                              "rank 1: the disk is gone"}));
}

TEST(RankDevice, IsTheOneOfTheLocalRankOrTheOnlyOneInSight) {
  const auto device = [](const char* visible) {
    const Environment environment("CUDA_VISIBLE_DEVICES", visible);
    std::vector<std::string> devices(3);
    on_ranks(3, [&](const Ranks& ranks) {
      devices[static_cast<std::size_t>(ranks->rank())] = rank_device("cuda", ranks.get());
      EXPECT_EQ(rank_device("cuda:1", ranks.get()), "cuda:1");
      EXPECT_EQ(rank_device("cpu", ranks.get()), "cpu");
    });
    return devices;
  };
  const std::vector<std::string> local = {"cuda:0", "cuda:1", "cuda:2"};
  EXPECT_EQ(device(nullptr), local);
  EXPECT_EQ(device(""), local);
  EXPECT_EQ(device("4,5,6,7"), local);
  EXPECT_EQ(device("6"), std::vector<std::string>(3, "cuda:0"));
}

/// A Bayesian classifier of small images, with samples, norm layers and a validation split.
class RunOnRanks : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder();
    write_class_file(file(), {.validation = 4, .test = 5, .rows = 21});
    const Config config = Config::parse(R"(
algorithm = "abml"
seed = 3
loss.type = "cross_entropy"
inner = { steps = 1, learning_rate = 0.1 }
abml = { samples_inner = 1, samples_outer = 2 }
data = { source = "file", ways = 3, shots = 1, queries = 2, path = ")" +
                                            file().string() + R"(" }
train = { steps = 2, meta_batch = 4, validate_every = 0 }
evaluate = { episodes = 70, samples = 2 }
[network]
type = "sequential"
input = [1, 6, 6]
layers = [ { type = "conv", out = 5, kernel = 3, padding = 1 }, { type = "norm" }, { type = "relu" },
           { type = "max_pool", size = 2 }, { type = "flatten" }, { type = "linear", out = 3 } ]
)",
                                        "test");
    Trainer(config, {.run_folder = run(), .device = "cpu", .threads = 1}).run();
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }
  static fs::path file() { return *folder_ / "c.kshot"; }
  static fs::path run() { return *folder_ / "run"; }
  static EvaluatorOptions options(const Ranks& ranks) {
    EvaluatorOptions options;
    options.device = "cpu";
    options.threads = 1;
    options.ranks = ranks;
    return options;
  }
  /// What `text` gives on every rank is the same, for any number of them.
  static void same(const std::function<std::string(const Ranks&)>& text) {
    std::string want;
    for (const int size : {1, 2, 3, 4}) {
      SCOPED_TRACE(size);
      std::vector<std::string> got(static_cast<std::size_t>(size));
      const auto errors = on_ranks(size, [&](const Ranks& ranks) {
        got[static_cast<std::size_t>(ranks ? ranks->rank() : 0)] = text(ranks);
      });
      EXPECT_EQ(errors, std::vector<std::string>(static_cast<std::size_t>(size)));
      if (size == 1) want = got[0];
      EXPECT_FALSE(want.empty());
      EXPECT_EQ(got, std::vector<std::string>(static_cast<std::size_t>(size), want));
    }
  }
  static inline TempFolder* folder_ = nullptr;
};

TEST_F(RunOnRanks, EmbedTheSameFile) {
  for (const std::string name : {"f.kshot", "f.npz"}) {
    SCOPED_TRACE(name);
    same([&](const Ranks& ranks) {
      const Embedder embedder(run(), {.device = "cpu", .threads = 1});
      std::uint64_t done = 0;
      const EmbeddedFile result = embed_file(
          embedder, file(), *folder_ / name,
          [&](std::uint64_t rows, std::uint64_t) { done = rows; }, ranks);
      EXPECT_EQ(done, result.rows);
      if (ranks) ranks->barrier("all have read");
      return io::read_file(result.files.front());
    });
  }
}

TEST_F(RunOnRanks, AnEmbeddingThatFailsLeavesNothing) {
  const auto embed = [&](int size, const fs::path& data, const fs::path& out) {
    return on_ranks(size, [&](const Ranks& ranks) {
      const Embedder embedder(run(), {.device = "cpu", .threads = 1});
      embed_file(embedder, data, out, {}, ranks);
    });
  };
  const auto below = embed(3, file(), file() / "o.kshot");
  EXPECT_THAT(below[0], HasSubstr("cannot write"));
  EXPECT_EQ(below[1], "rank 0: " + below[0]);
  EXPECT_EQ(below[2], below[1]);
  // An image of 1e38 leaves the finite range; all ranks see the same.
  const fs::path large = *folder_ / "large.kshot";
  write_class_file(large, {.rows = 21, .noise = 3e38});
  const auto wild = embed(2, large, *folder_ / "o.kshot");
  EXPECT_THAT(wild[0], AllOf(HasSubstr("large.kshot: class 'class "), HasSubstr("not finite")));
  EXPECT_EQ(wild[1], wild[0]);
  EXPECT_FALSE(fs::exists(*folder_ / "o.kshot"));
  // Another data file on another rank.
  const fs::path other = *folder_ / "other.kshot";
  write_class_file(other, {.rows = 20});
  const auto differ = on_ranks(2, [&](const Ranks& ranks) {
    const Embedder embedder(run(), {.device = "cpu", .threads = 1});
    embed_file(embedder, ranks->rank() == 0 ? file() : other, *folder_ / "o.kshot", {}, ranks);
  });
  EXPECT_THAT(differ[0], StartsWith("rank 1: the checksum of the data file is crc32"));
  EXPECT_EQ(differ[1], differ[0]);
}

TEST_F(RunOnRanks, CalibrateAndEvaluateCalibrated) {
  const fs::path written = run() / calibration_file;
  same([&](const Ranks& ranks) {
    const WrittenCalibration result = calibrate_run(run(), options(ranks));
    EXPECT_EQ(result.file, written);
    const std::string text = io::read_file(written);
    EXPECT_EQ(text, result.calibration.to_json());
    if (ranks) ranks->barrier("all have read");
    return text;
  });
  same([&](const Ranks& ranks) {
    EvaluatorOptions calibrated = options(ranks);
    calibrated.calibrated = true;
    Evaluation result = Evaluator(run(), calibrated).run();
    result.seconds = 0.0;
    return result.to_json();
  });
  const auto differ = on_ranks(2, [&](const Ranks& ranks) {
    EvaluatorOptions some = options(ranks);
    some.calibrated = ranks->rank() == 1;
    Evaluator(run(), some).run();
  });
  EXPECT_THAT(differ[0], StartsWith("rank 1: the calibration is temperature"));
  EXPECT_EQ(differ[1], differ[0]);
}

TEST_F(RunOnRanks, RowsOutOfDistribution) {
  for (const char* kind : {"open_set", "noise=2"}) {
    SCOPED_TRACE(kind);
    same([&](const Ranks& ranks) {
      const OodEvaluation result = evaluate_ood(run(), kind, options(ranks));
      EXPECT_EQ(result.scores.size(), 5u);
      EXPECT_EQ(result.samples, 2);
      return ood_to_json({result});
    });
  }
  const auto errors =
      on_ranks(2, [&](const Ranks& ranks) { evaluate_ood(run(), "blur", options(ranks)); });
  EXPECT_THAT(errors[0], StartsWith("--ood blur"));
  EXPECT_EQ(errors[1], errors[0]);
  // A file that kshot did not write is not replaced, which rank 0 alone sees.
  put_file(*folder_ / "mine.json", "{}");
  const auto taken = on_ranks(2, [&](const Ranks& ranks) {
    write_ood(run(), {"noise"}, *folder_ / "mine.json", options(ranks));
  });
  EXPECT_THAT(taken[0], HasSubstr("mine.json"));
  EXPECT_EQ(taken[1], "rank 0: " + taken[0]);
}

class BanditsOnRanks : public testing::Test {
 protected:
  void train(const std::string& algorithm) const {
    const bool head = algorithm == "alpaca";
    const Config config = Config::parse(
        "algorithm = \"" + algorithm + "\"\nnetwork.layers = [7, 8, " + (head ? "6" : "1") +
        "]\ndata = { source = \"wheel\", shots = [4, 8], queries = 8, noise_std = 0.01 }\n"
        "train = { steps = 3, meta_batch = 4, validate_every = 0 }\n" +
        (head ? "" : "inner = { steps = 2, learning_rate = 0.02 }\n"));
    Trainer(config, {.run_folder = folder_ / algorithm, .device = "cpu", .threads = 1}).run();
  }
  std::string agents() const {
    std::string text = R"(
[[agent]]
type = "linear_ts"
[[agent]]
type = "epsilon_greedy"
[[agent]]
type = "neural_linear"
hidden = [6]
)";
    for (const char* algorithm : {"abml", "alpaca"}) {
      text += "[[agent]]\ntype = \"run\"\nrows = 20\nrun = \"" + (folder_ / algorithm).string() +
              "\"\n";
    }
    return text;
  }
  /// The results on rank 0, but for the time they took.
  static std::vector<std::string> play(int size, const std::function<std::string(int)>& config,
                                       std::string& json) {
    return on_ranks(size, [&](const Ranks& ranks) {
      const int rank = ranks ? ranks->rank() : 0;
      bandit::ExperimentOptions options;
      options.device = "cpu";
      options.threads = 1;
      options.ranks = ranks;
      bandit::Results results =
          bandit::run_experiment(bandit::Settings::parse(config(rank), "b.toml"), options);
      for (auto& entry : results.entries) entry.result.seconds = 0.0;
      if (rank == 0) json = results.to_json();
    });
  }
  TempFolder folder_;
};

TEST_F(BanditsOnRanks, GiveTheResultsOfOneProcess) {
  train("abml");
  train("alpaca");
  const std::string config =
      "trials = 5\nsteps = 60\nlast_steps = 30\nseed = 4\ndelta = [0.5]\n" + agents();
  std::string want;
  ASSERT_EQ(play(
                1, [&](int) { return config; }, want),
            std::vector<std::string>(1));
  EXPECT_THAT(want, HasSubstr("alpaca"));
  for (const int size : {2, 3, 4, 7}) {  // with 7 ranks two have no trials
    SCOPED_TRACE(size);
    std::string got;
    EXPECT_EQ(play(
                  size, [&](int) { return config; }, got),
              std::vector<std::string>(static_cast<std::size_t>(size)));
    EXPECT_EQ(got, want);
  }
}

TEST_F(BanditsOnRanks, OtherConfigurationsAndAgentsThatFailEndAll) {
  const std::string uniform = "trials = 4\nsteps = 20\n[[agent]]\ntype = \"uniform\"\n";
  std::string json;
  const auto differ = play(
      2, [&](int rank) { return "seed = " + std::to_string(rank + 1) + "\n" + uniform; }, json);
  EXPECT_THAT(differ[0], StartsWith("rank 1: the checksum of the configuration is crc32c:"));
  EXPECT_EQ(differ[1], differ[0]);
  /// Chooses an arm that is not there, on one rank.
  class Wrong final : public bandit::Agent {
   public:
    std::string name() const override { return "wrong"; }
    void begin(const bandit::Problem& problem) override { first_ = problem.first_trial; }
    void choose(const bandit::Rounds& rounds, std::span<int> arms) override {
      std::ranges::fill(arms, first_ > 0 && rounds.first == 150 ? 99 : 0);
    }
    void observe(const bandit::Rounds&, std::span<const int>, std::span<const double>) override {}

   private:
    int first_ = 0;
  };
  const auto wheel = bandit::make_wheel({.delta = 0.5});
  const auto errors = on_ranks(2, [&](const Ranks& ranks) {
    Wrong wrong;
    bandit::play(*wheel, wrong, {.trials = 4, .steps = 400, .threads = 1, .ranks = ranks});
  });
  EXPECT_EQ(errors[1], "agent wrong: chose arm 99 in step 150, expected 0 to 4");
  EXPECT_EQ(errors[0], "rank 1: " + errors[1]);
}

}  // namespace
}  // namespace kshot::test
