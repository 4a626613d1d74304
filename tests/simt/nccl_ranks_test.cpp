// A device is lost on one of two ranks that sum by NCCL's stand-in. The other rank must end with
// the error of the first. The test runs itself under mpirun.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "emulator/simt.h"
#include "engine/checkpoint.h"
#include "engine/engine_cases.h"
#include "io/atomic_file.h"
#include "kshot/kshot.h"
#include "support/mpi_launch.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// Two ranks. Each rank prints what ends its training.
TEST(NcclRanks, DISABLED_TrainUntilADeviceIsLost) {
  const std::shared_ptr<Communicator> ranks = launched_ranks();
  ASSERT_NE(ranks, nullptr);
  const int rank = ranks->rank();
  const Config config = small_config("maml", {"train.meta_batch=32", "train.checkpoint_every=1",
                                              "train.log_every=100", "train.validate_every=0"});
  TrainerOptions options;
  options.device = "simt";
  options.threads = 1;
  options.run_folder = std::getenv("KSHOT_TEST_RUN");
  options.ranks = ranks;
  int steps = 0;
  options.stop = [&] {
    // A step has about 15 kernels. In the middle of them the ranks have agreed to make the step,
    // and the sums are still to come.
    if (rank == 1 && ++steps == 4) {
      simt::settings().lost_at_kernel = simt::counters().kernels + 7;
    }
    return false;
  };
  Trainer trainer(config, options);
  try {
    trainer.run();
    ADD_FAILURE() << "no device was lost";
  } catch (const std::exception& error) {
    std::printf("rank %d ends: %s\n", rank, error.what());
  }
  std::fflush(stdout);
}

TEST(NcclRanks, ALostDeviceOfOneEndsTheOthersWithItsMessage) {
  if (const std::string why = no_ranks_because(); !why.empty()) GTEST_SKIP() << why;
  const TempFolder folder;
  const std::string self = fs::read_symlink("/proc/self/exe").string();
  const std::string out = (folder / "out.txt").string();
  // Longer than the whole test may take, so that the time limit of an exchange does not end it.
  const std::string command = "KSHOT_TEST_RUN='" + (folder / "run").string() +
                              "' KSHOT_EXCHANGE=nccl KSHOT_RANK_TIMEOUT=300 " +
                              start_ranks(100, "-n 2 '" + self +
                                                   "' --gtest_also_run_disabled_tests "
                                                   "--gtest_filter=NcclRanks.DISABLED_* >'" +
                                                   out + "' 2>&1");
  const int status = std::system(command.c_str());
  const std::string text = io::read_file(out);
  EXPECT_EQ(WEXITSTATUS(status), 0) << text;
  EXPECT_THAT(text, HasSubstr("rank 1 ends: CUDA"));
  EXPECT_THAT(text, HasSubstr("rank 0 ends: rank 1: CUDA"));
  EXPECT_GE(Checkpoint::read(folder / "run" / last_checkpoint).state.step, 2u);
}

}  // namespace
}  // namespace kshot::test
