// The program under mpirun: the same bits as one process, and one line for every failure. Skipped
// where the build has no MPI.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/checkpoint.h"
#include "io/atomic_file.h"
#include "io/safetensors.h"
#include "kshot/communicator.h"
#include "kshot/error.h"
#include "support/class_files.h"
#include "support/mpi_launch.h"
#include "support/put_file.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr const char* run_config = R"(algorithm = "maml"
seed = 5
network.layers = [1, 12, 1]
inner = { steps = 2, learning_rate = 0.005 }
data = { shots = 4, queries = 5 }
evaluate.episodes = 60
[train]
steps = 12
meta_batch = 50
validate_every = 6
validation_episodes = 30
checkpoint_every = 3
log_every = 2
)";

/// What a launch printed, and how it ended.
struct Ended {
  int status = 0;
  std::string out, error;
  /// Lines on standard error that kshot wrote.
  std::vector<std::string> lines() const {
    std::vector<std::string> ours;
    std::istringstream text(error);
    for (std::string line; std::getline(text, line);) {
      if (line.starts_with("kshot: ")) ours.push_back(line);
    }
    return ours;
  }
};

class Mpirun : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = no_ranks_because(); !why.empty()) GTEST_SKIP() << why;
    put_file(folder_ / "c.toml", run_config);
  }
  /// Runs a command of the shell in the folder. `kshot` in it is the program.
  Ended shell(const std::string& command) const {
    const std::string text = "cd '" + folder_.path().string() +
                             "' && kshot() { '" KSHOT_CLI "' \"$@\"; } && " + command +
                             " >out.txt 2>err.txt";
    const int status = std::system(text.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, io::read_file(folder_ / "out.txt"),
            io::read_file(folder_ / "err.txt")};
  }
  static std::string mpirun(const std::string& rest) { return start_ranks(120, rest); }
  /// The same where files may have no more than 32 KiB: MPICH's shared memory must not be files.
  static std::string mpirun_with_small_files(const std::string& rest) {
    return "UCX_TLS=sysv,self " + mpirun(rest);
  }
  static std::string ranks(int n, const std::string& arguments) {
    return mpirun("-n " + std::to_string(n) + " " KSHOT_CLI " " + arguments);
  }
  /// Each rank writes its process number to pid.RANK first.
  static std::string noted(int n, const std::string& arguments) {
    return mpirun("-n " + std::to_string(n) + " sh -c 'echo $$ >pid." + rank_variable +
                  "; exec " KSHOT_CLI " " + arguments + "'");
  }
  bool same(const std::string& a, const std::string& b) const {
    const Checkpoint first = Checkpoint::read(folder_ / a), second = Checkpoint::read(folder_ / b);
    if (first.state.step != second.state.step) return false;
    if (first.tensors.size() != second.tensors.size()) return false;
    for (const auto& [name, tensor] : first.tensors) {
      if (second.tensors.at(name).bytes != tensor.bytes) return false;
    }
    return true;
  }
  /// Waits until the run has a checkpoint of at least `step`, and returns the process of `rank`.
  int pid_at(int rank, const std::string& run, std::uint64_t step) const {
    const fs::path file = folder_ / ("pid." + std::to_string(rank));
    for (int i = 0; i < 600; ++i) {
      try {
        if (Checkpoint::read(folder_ / (run + "/last.safetensors")).state.step >= step) {
          int pid = 0;
          std::ifstream(file) >> pid;
          return pid;
        }
      } catch (const Error&) {  // not there yet
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return -1;
  }
  TempFolder folder_;
};

TEST_F(Mpirun, TrainsAndEvaluatesLikeOneProcess) {
  ASSERT_EQ(shell("kshot train c.toml --out one --quiet").status, 0);
  const Ended alone = shell("kshot evaluate one --quiet");
  ASSERT_EQ(alone.status, 0) << alone.error;
  const std::string table = alone.out;
  for (const int n : {2, 4}) {
    SCOPED_TRACE(n);
    const std::string run = "run" + std::to_string(n);
    const Ended trained = shell(ranks(n, "train c.toml --out " + run));
    EXPECT_EQ(trained.status, 0) << trained.error;
    EXPECT_THAT(trained.error, HasSubstr(std::to_string(n) + " ranks"));
    EXPECT_TRUE(same(run + "/last.safetensors", "one/last.safetensors"));
    EXPECT_TRUE(same(run + "/best.safetensors", "one/best.safetensors"));
    const Ended evaluated = shell(ranks(n, "evaluate " + run + " --quiet"));
    EXPECT_EQ(evaluated.status, 0) << evaluated.error;
    EXPECT_EQ(evaluated.out.substr(evaluated.out.find('\n')), table.substr(table.find('\n')));
  }
}

TEST_F(Mpirun, SevenAndEightProcessesLikeOne) {
  // More units of tasks than ranks, so that every rank has work.
  const std::string more = " --quiet --threads 1 --set train.meta_batch=150 --set train.steps=";
  for (const std::string algorithm : {"maml", "hvi"}) {
    SCOPED_TRACE(algorithm);
    std::string text = run_config;
    text.replace(text.find("maml"), 4, algorithm);
    if (algorithm == "hvi") text.insert(text.find("shots"), "tasks = 400, ");
    put_file(folder_ / "c.toml", text);
    ASSERT_EQ(shell("kshot train c.toml --out one" + more + "12").status, 0);
    // Eight processes make six steps, and seven go on.
    const Ended eight = shell(ranks(8, "train c.toml --out many" + more + "6"));
    EXPECT_EQ(eight.status, 0) << eight.error;
    const Ended seven = shell(ranks(7, "train --resume many" + more + "12"));
    EXPECT_EQ(seven.status, 0) << seven.error;
    EXPECT_TRUE(same("many/last.safetensors", "one/last.safetensors"));
    EXPECT_TRUE(same("many/best.safetensors", "one/best.safetensors"));
    fs::remove_all(folder_ / "one");
    fs::remove_all(folder_ / "many");
  }
}

TEST_F(Mpirun, EmbedsCalibratesAndPlaysLikeOneProcess) {
  write_class_file(folder_ / "classes.kshot", {.input = {6, 1, 1, false}, .validation = 4});
  const std::string classes =
      "algorithm = \"protonet\"\nnetwork = { type = \"linear\", layers = [6, 4] }\n"
      "data = { source = \"file\", path = \"classes.kshot\", ways = 3, shots = 2, queries = 3 }\n"
      "evaluate.episodes = 80\ntrain = { steps = 2, meta_batch = 4, validate_every = 0 }\n";
  put_file(folder_ / "classes.toml", classes);
  put_file(folder_ / "bandit.toml",
           "trials = 5\nsteps = 40\ndelta = [0.5]\n[[agent]]\ntype = \"linear_ts\"\n");
  ASSERT_EQ(shell("kshot train classes.toml --out run --quiet").status, 0);
  // Everything but the time that the agents took.
  const auto without_seconds = [](const std::string& text) {
    std::string without;
    const std::string key = "\"seconds\": ";
    std::size_t from = 0;
    for (std::size_t at = 0; (at = text.find(key, from)) != std::string::npos;) {
      without.append(text, from, at + key.size() - from);
      from = text.find_first_not_of("0123456789.e+-", at + key.size());
    }
    return without.append(text, from);
  };
  const std::vector<std::pair<std::string, std::string>> commands = {
      {"embed run --out f.kshot", "f.kshot"},
      {"calibrate run", "run/calibration.json"},
      {"evaluate run --calibrated --ood shift --out ood.json", "ood.json"},
      {"bandit bandit.toml", "bandit.json"}};
  for (const auto& [command, file] : commands) {
    SCOPED_TRACE(command);
    const Ended one = shell("kshot " + command + " --quiet");
    ASSERT_EQ(one.status, 0) << one.error;
    const std::string want = without_seconds(io::read_file(folder_ / file));
    fs::remove(folder_ / file);
    const Ended three = shell(ranks(3, command));
    EXPECT_EQ(three.status, 0) << three.error;
    EXPECT_EQ(without_seconds(io::read_file(folder_ / file)), want);
    // One rank prints, and shows progress and messages.
    EXPECT_EQ(std::ranges::count(three.out, '\n'), std::ranges::count(one.out, '\n'));
    EXPECT_EQ(three.error.find("written to"), three.error.rfind("written to")) << three.error;
  }
}

TEST_F(Mpirun, AnEvaluationThatCannotBeWrittenEndsAllRanks) {
  ASSERT_EQ(shell("kshot train c.toml --out one --quiet --set train.steps=1").status, 0);
  // 32 KiB are fewer than the scores of the episodes take. All ranks but rank 0 are done by then.
  const std::string evaluate =
      "exec " KSHOT_CLI " evaluate one --quiet --no-baselines --episodes 800'";
  const Ended ended = shell(mpirun_with_small_files("-n 1 sh -c 'trap \"\" XFSZ; ulimit -f 64; " +
                                                    evaluate + " : -n 1 sh -c '" + evaluate));
  EXPECT_NE(ended.status, 0);
  EXPECT_NE(ended.status, 124) << "it hung";
  ASSERT_EQ(ended.lines().size(), 1u) << ended.error;
  EXPECT_THAT(ended.lines()[0], HasSubstr("kshot: rank 0: "));
  EXPECT_FALSE(fs::exists(folder_ / "one/evaluation.json"));
}

TEST_F(Mpirun, WithoutAFolderAllRanksTakeTheSame) {
  const Ended ended = shell(ranks(2, "train c.toml --set train.steps=2"));
  EXPECT_EQ(ended.status, 0) << ended.error;
  EXPECT_TRUE(fs::exists(folder_ / "runs/c/last.safetensors"));
  EXPECT_FALSE(fs::exists(folder_ / "runs/c-2"));
}

TEST_F(Mpirun, ErrorsAreOneLine) {
  const Ended same_error = shell(ranks(3, "train missing.toml --out run"));
  EXPECT_NE(same_error.status, 0);
  ASSERT_EQ(same_error.lines().size(), 1u) << same_error.error;
  EXPECT_THAT(same_error.lines()[0], HasSubstr("kshot: missing.toml"));

  put_file(folder_ / "d.toml", std::string(run_config) + "max_diverged = 0.25\n");
  const Ended differ = shell(mpirun("-n 1 " KSHOT_CLI " train c.toml --out run : -n 1 " KSHOT_CLI
                                    " train d.toml --out run"));
  EXPECT_NE(differ.status, 0);
  ASSERT_EQ(differ.lines().size(), 1u) << differ.error;
  EXPECT_THAT(differ.lines()[0], HasSubstr("kshot: rank 1: train.max_diverged = 0.25, but rank 0"));

  const Ended device = shell(mpirun("-n 1 " KSHOT_CLI " train c.toml --out run : -n 1 " KSHOT_CLI
                                    " train c.toml --out run --device reference"));
  ASSERT_EQ(device.lines().size(), 1u) << device.error;
  EXPECT_THAT(device.lines()[0], HasSubstr("kshot: rank 1: the device is reference"));
  EXPECT_FALSE(fs::exists(folder_ / "run"));

  const Ended option = shell(ranks(2, "train c.toml --no-such-option"));
  ASSERT_EQ(option.lines().size(), 1u) << option.error;

  const Ended alone = shell(ranks(2, "demo"));
  ASSERT_EQ(alone.lines().size(), 1u) << alone.error;
  EXPECT_THAT(alone.lines()[0], HasSubstr("demo: works in one process, but 2 were started"));
}

TEST_F(Mpirun, AKilledRankEndsAllAndTheRunGoesOn) {
  Ended ended;
  std::thread launch([&] {
    ended = shell(noted(3, "train c.toml --out run --quiet --set train.steps=100000000"));
  });
  const int pid = pid_at(1, "run", 3);
  if (pid > 0) ::kill(pid, SIGKILL);
  launch.join();
  ASSERT_GT(pid, 0) << ended.error;
  EXPECT_NE(ended.status, 0);
  EXPECT_NE(ended.status, 124) << "it hung";
  if (has_open_mpi()) {
    EXPECT_THAT(ended.error, HasSubstr("rank 1"));
  } else {  // MPICH's launcher tells of a process, and on standard output
    EXPECT_THAT(ended.out, HasSubstr("BAD TERMINATION"));
  }
  const std::uint64_t step = Checkpoint::read(folder_ / "run/last.safetensors").state.step;
  const std::string more = " --set train.steps=" + std::to_string(step + 7);
  ASSERT_EQ(shell(ranks(2, "train --resume run --quiet" + more)).status, 0);
  ASSERT_EQ(shell("kshot train c.toml --out again --quiet" + more).status, 0);
  EXPECT_TRUE(same("run/last.safetensors", "again/last.safetensors"));
}

TEST_F(Mpirun, ARankThatHangsIsNamed) {
  Ended ended;
  std::thread launch([&] {
    ended = shell("KSHOT_RANK_TIMEOUT=3 " +
                  noted(3, "train c.toml --out run --quiet --set train.steps=100000000"));
  });
  const int pid = pid_at(1, "run", 3);
  if (pid > 0) ::kill(pid, SIGSTOP);
  launch.join();
  ASSERT_GT(pid, 0) << ended.error;
  EXPECT_NE(ended.status, 0);
  EXPECT_NE(ended.status, 124) << "it hung";
  ASSERT_EQ(ended.lines().size(), 1u) << ended.error;
  EXPECT_THAT(ended.lines()[0], HasSubstr("kshot: rank 1: did not come to an exchange"));
}

TEST_F(Mpirun, ASignalToOneRankWritesACheckpointAndLeaves) {
  Ended ended;
  std::thread launch(
      [&] { ended = shell(noted(2, "train c.toml --out run --set train.steps=100000000")); });
  const int pid = pid_at(1, "run", 3);
  if (pid > 0) ::kill(pid, SIGUSR1);
  launch.join();
  ASSERT_GT(pid, 0) << ended.error;
  EXPECT_NE(ended.status, 124) << "it hung";
  EXPECT_THAT(ended.error, HasSubstr("stopped by a signal"));
  const std::uint64_t step = Checkpoint::read(folder_ / "run/last.safetensors").state.step;
  const std::string steps = " --set train.steps=" + std::to_string(step);
  ASSERT_EQ(shell("kshot train c.toml --out again --quiet" + steps).status, 0);
  EXPECT_TRUE(same("run/last.safetensors", "again/last.safetensors"));
}

TEST_F(Mpirun, AFullDiskOfRankZeroEndsAllWithItsLastCheckpoint) {
  // A limit on the size of files takes the place of a full disk: the log grows until it is there.
  const std::string train = "exec " KSHOT_CLI
                            " train c.toml --out run --quiet --set train.steps=100000000 "
                            "--set train.log_every=1";
  const Ended ended = shell(mpirun_with_small_files("-n 1 sh -c 'trap \"\" XFSZ; ulimit -f 64; " +
                                                    train + "' : -n 2 sh -c '" + train + "'"));
  EXPECT_NE(ended.status, 0);
  EXPECT_NE(ended.status, 124) << "it hung";
  ASSERT_EQ(ended.lines().size(), 1u) << ended.error;
  EXPECT_THAT(ended.lines()[0], HasSubstr("kshot: rank 0: "));
  const std::uint64_t step = Checkpoint::read(folder_ / "run/last.safetensors").state.step;
  const std::string more = " --set train.steps=" + std::to_string(step + 5);
  ASSERT_EQ(shell(ranks(2, "train --resume run --quiet" + more)).status, 0);
  ASSERT_EQ(shell("kshot train c.toml --out again --quiet --set train.log_every=1" + more).status,
            0);
  EXPECT_TRUE(same("run/last.safetensors", "again/last.safetensors"));
}

TEST_F(Mpirun, TheEmulatedDeviceExchangesByMpiAndByNccl) {
  if (shell("kshot devices").out.find("simt") == std::string::npos) {
    GTEST_SKIP() << "this build has no emulator";
  }
  const std::string train =
      "train c.toml --device simt --quiet --set train.steps=3 --set train.validate_every=0 "
      "--set train.log_every=2 --out ";
  ASSERT_EQ(shell("kshot " + train + "one").status, 0);
  for (const std::string exchange : {"mpi", "nccl"}) {
    SCOPED_TRACE(exchange);
    for (const int n : {2, 3}) {
      const std::string run = exchange + std::to_string(n);
      const Ended ended = shell("KSHOT_EXCHANGE=" + exchange + " " + ranks(n, train + run));
      EXPECT_EQ(ended.status, 0) << ended.error;
      EXPECT_TRUE(same(run + "/last.safetensors", "one/last.safetensors"));
    }
  }
}

TEST_F(Mpirun, LargeVectorsGoInPiecesByNccl) {
  if (shell("kshot devices").out.find("simt") == std::string::npos) {
    GTEST_SKIP() << "this build has no emulator";
  }
  const std::string train =
      "train c.toml --device simt --quiet --set train.steps=1 --set train.meta_batch=33 "
      "--set train.validate_every=0 --set network.layers=[1,90,90,1] --set inner.steps=1 "
      "--set data.shots=1 --set data.queries=1 --out ";
  ASSERT_EQ(shell("kshot " + train + "one").status, 0);
  const Ended ended = shell("KSHOT_EXCHANGE=nccl " + ranks(3, train + "ranks"));
  EXPECT_EQ(ended.status, 0) << ended.error;
  EXPECT_TRUE(same("ranks/last.safetensors", "one/last.safetensors"));
}

TEST_F(Mpirun, OtherLaunchersAreOneLine) {
  const Ended torch = shell("RANK=0 WORLD_SIZE=2 kshot train c.toml --out run");
  EXPECT_EQ(torch.status, 2);
  ASSERT_EQ(torch.lines().size(), 1u) << torch.error;
  EXPECT_THAT(torch.lines()[0], HasSubstr("torchrun started 2 processes"));
  // MPI itself leaves memory behind.
  const Ended slurm = shell(
      "ASAN_OPTIONS=detect_leaks=0 SLURM_JOB_ID=7 SLURM_JOBID=7 SLURM_STEPID=0 SLURM_STEP_ID=0 "
      "SLURM_NTASKS=2 SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=0 kshot train c.toml --out run");
  EXPECT_EQ(slurm.status, 2);
  ASSERT_EQ(slurm.lines().size(), 1u) << slurm.error;
  EXPECT_EQ(slurm.error, slurm.lines()[0] + "\n");  // nothing of MPI's beside it
  EXPECT_THAT(slurm.lines()[0], HasSubstr("srun started 2 processes, but MPI"));
  EXPECT_FALSE(fs::exists(folder_ / "run"));
  // Each process for itself, where the user says so.
  EXPECT_EQ(
      shell("KSHOT_RANKS=off RANK=0 WORLD_SIZE=2 kshot train c.toml --out run --quiet").status, 0);
}

}  // namespace
}  // namespace kshot::test
