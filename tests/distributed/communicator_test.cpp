// Exchanges between ranks: what comes where, and how a failure of one becomes known to all.
#include "kshot/communicator.h"

#include <gtest/gtest.h>

#include <map>

#include "base/archive.h"
#include "distributed/launch.h"
#include "kshot/error.h"
#include "support/thread_ranks.h"

namespace kshot::test {
namespace {

Communicator::Bytes bytes_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}
std::string text_of(const Communicator::Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(Communicator, GathersBytesOfDifferentSizes) {
  const auto errors = on_ranks(4, [](const std::shared_ptr<Communicator>& ranks) {
    const std::string mine(static_cast<std::size_t>(ranks->rank()), 'a');
    const auto all = ranks->all_gather(bytes_of(mine), "texts");
    ASSERT_EQ(all.size(), 4u);
    for (std::size_t r = 0; r < 4; ++r) EXPECT_EQ(text_of(all[r]), std::string(r, 'a'));
  });
  EXPECT_EQ(errors, std::vector<std::string>(4));
}

TEST(Communicator, SendsToEachRankItsOwn) {
  const auto errors = on_ranks(3, [](const std::shared_ptr<Communicator>& ranks) {
    std::vector<Communicator::Bytes> to;
    for (int r = 0; r < 3; ++r) {
      to.push_back(bytes_of(std::to_string(ranks->rank()) + std::string(2u * r, '>')));
    }
    const auto from = ranks->all_to_all(to, "texts");
    for (std::size_t r = 0; r < 3; ++r) {
      EXPECT_EQ(text_of(from[r]),
                std::to_string(r) + std::string(2u * static_cast<std::size_t>(ranks->rank()), '>'));
    }
  });
  EXPECT_EQ(errors, std::vector<std::string>(3));
}

TEST(Communicator, AFailureIsKnownToAllByItsRank) {
  const auto errors = on_ranks(3, [](const std::shared_ptr<Communicator>& ranks) {
    ranks->barrier("the start");
    if (ranks->rank() == 1) {
      ranks->fail("the disk is full");
      EXPECT_TRUE(ranks->failed());
      EXPECT_EQ(ranks->failure(), "rank 1: the disk is full");
      return;
    }
    ranks->barrier("the end");
  });
  EXPECT_EQ(errors,
            (std::vector<std::string>{"rank 1: the disk is full", "", "rank 1: the disk is full"}));
}

TEST(Communicator, TheSameFailureOfAllIsSaidAsItIs) {
  on_ranks(3, [](const std::shared_ptr<Communicator>& ranks) {
    ranks->fail("no such file");
    EXPECT_EQ(ranks->failure(), "no such file");
    EXPECT_THROW(ranks->barrier("later"), Error);
    ranks->fail("again");  // nobody waits for this
  });
}

TEST(Communicator, OfSeveralFailuresTheFirstRankIsNamed) {
  on_ranks(3, [](const std::shared_ptr<Communicator>& ranks) {
    if (ranks->rank() > 0) {
      ranks->fail("bad " + std::to_string(ranks->rank()));
    } else {
      EXPECT_THROW(ranks->barrier("the start"), Error);
    }
    EXPECT_EQ(ranks->failure(), "rank 1: bad 1");
  });
}

TEST(Communicator, RanksThatAreOutOfStepSaySo) {
  const auto errors = on_ranks(2, [](const std::shared_ptr<Communicator>& ranks) {
    ranks->barrier(ranks->rank() == 0 ? "a" : "b");
  });
  EXPECT_NE(errors[0].find("rank 1: is at another exchange"), std::string::npos) << errors[0];
  EXPECT_NE(errors[1].find("rank 0: is at another exchange"), std::string::npos) << errors[1];
}

TEST(Communicator, FlagsGoToAllWithTheNextExchange) {
  const auto errors = on_ranks(2, [](const std::shared_ptr<Communicator>& ranks) {
    if (ranks->rank() == 1) ranks->raise(2);
    EXPECT_EQ(ranks->flags(), 0u);
    ranks->barrier("a step");
    EXPECT_EQ(ranks->flags(), 2u);
    ranks->clear_flags();
    ranks->barrier("a step");
    EXPECT_EQ(ranks->flags(), 0u);
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

struct Inner {
  std::string text;
  std::vector<float> values;
};
template <class Archive>
void fields(Archive& a, Inner& i) {
  a(i.text, i.values);
}

TEST(Archive, GivesBackWhatItWasGiven) {
  std::vector<Inner> inner = {{"one", {1.0f, 2.0f}}, {"", {}}};
  int number = -3;
  Pack pack;
  pack(number, inner);
  const std::vector<std::byte> bytes = pack.take();
  std::vector<Inner> again;
  int number_again = 0;
  Unpack unpack(bytes);
  unpack(number_again, again);
  EXPECT_TRUE(unpack.done());
  EXPECT_EQ(number_again, -3);
  ASSERT_EQ(again.size(), 2u);
  EXPECT_EQ(again[0].text, "one");
  EXPECT_EQ(again[0].values, inner[0].values);
  for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
    Unpack less(std::span<const std::byte>(bytes).first(cut));
    EXPECT_THROW(less(number_again, again), std::logic_error) << cut;
  }
}

Launch launch_with(const std::map<std::string, std::string>& variables) {
  return detect_launch([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(Launch, KnowsTheLaunchersByTheirVariables) {
  EXPECT_EQ(launch_with({}).size, 1);
  const Launch open_mpi =
      launch_with({{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "3"}});
  EXPECT_EQ(open_mpi.size, 4);
  EXPECT_EQ(open_mpi.rank, 3);
  EXPECT_EQ(open_mpi.launcher, "mpirun");
  EXPECT_TRUE(open_mpi.mpi);
  const Launch mpich = launch_with({{"PMI_SIZE", "2"}, {"PMI_RANK", "1"}});
  EXPECT_EQ(mpich.size, 2);
  EXPECT_EQ(mpich.rank, 1);
  const Launch slurm =
      launch_with({{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_PROCID", "5"}});
  EXPECT_EQ(slurm.size, 8);
  EXPECT_EQ(slurm.launcher, "srun");
  EXPECT_EQ(slurm.rank, 5);
  EXPECT_FALSE(slurm.offers_pmi);  // srun --mpi=none
  EXPECT_TRUE(
      launch_with({{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "8"}, {"PMIX_RANK", "0"}})
          .offers_pmi);
  const Launch pmi2 = launch_with({{"SLURM_STEP_ID", "0"},
                                   {"SLURM_STEP_NUM_TASKS", "8"},
                                   {"PMI_SIZE", "8"},
                                   {"PMI_RANK", "2"}});
  EXPECT_EQ(pmi2.launcher, "srun");
  EXPECT_EQ(pmi2.rank, 2);
  EXPECT_TRUE(pmi2.offers_pmi);
  // A batch script of a job with many tasks is one process.
  EXPECT_EQ(launch_with({{"SLURM_NTASKS", "8"}, {"SLURM_PROCID", "0"}}).size, 1);
  const Launch torch = launch_with({{"RANK", "1"}, {"WORLD_SIZE", "2"}});
  EXPECT_EQ(torch.size, 2);
  EXPECT_EQ(torch.launcher, "torchrun");
  EXPECT_FALSE(torch.mpi);
  EXPECT_EQ(launch_with({{"OMPI_COMM_WORLD_SIZE", "many"}}).size, 1);
}

}  // namespace
}  // namespace kshot::test
