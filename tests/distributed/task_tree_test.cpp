// The order of sums over tasks does not depend on who computes which.
#include "backend/task_tree.h"

#include <gtest/gtest.h>

#include <string>

#include "backend/tree_sum.h"
#include "kshot/random.h"
#include "support/thread_ranks.h"

namespace kshot::test {
namespace {

using backend::places_of;
using backend::TaskShares;
using backend::TaskTree;

/// Nodes as texts: "((0 1) 2)" is the order of the additions.
const auto bracket = [](int, std::string& a, const std::string& b) { a = "(" + a + " " + b + ")"; };

std::string order(std::size_t tasks, std::size_t unit, int ranks) {
  TaskTree<std::string> whole;
  for (int r = 0; r < ranks; ++r) {
    const TaskShares shares(tasks, unit, r, ranks);
    TaskTree<std::string> own;
    for (std::size_t t = shares.first(); t < shares.first() + shares.count(); ++t) {
      own.push(0, t, std::to_string(t), bracket);
    }
    if (shares.last()) own.close(bracket);
    const auto places = places_of(shares, r, 0);
    EXPECT_EQ(places.size(), own.nodes().size());
    for (std::size_t n = 0; n < own.nodes().size(); ++n) {
      const auto& node = own.nodes()[n];
      EXPECT_EQ(places[n], (backend::TreePlace{node.level, node.index}));
      whole.push(node.level, node.index, node.value, bracket);
    }
  }
  whole.close(bracket);
  return whole.nodes().size() == 1 ? whole.nodes().front().value : "not whole";
}

TEST(TaskTree, AddsHalvesOfAlignedBlocks) {
  EXPECT_EQ(order(1, 1, 1), "0");
  EXPECT_EQ(order(5, 1, 1), "(((0 1) (2 3)) 4)");
  EXPECT_EQ(order(7, 1, 1), "(((0 1) (2 3)) ((4 5) 6))");
}

TEST(TaskTree, TheOrderIsTheSameForAnyNumberOfRanks) {
  for (std::size_t tasks = 1; tasks <= 70; ++tasks) {
    for (const std::size_t unit : {1, 4, 16}) {
      const std::string want = order(tasks, unit, 1);
      for (int ranks = 2; ranks <= 9; ++ranks) {
        ASSERT_EQ(order(tasks, unit, ranks), want) << tasks << " tasks, " << ranks << " ranks";
      }
    }
  }
}

TEST(TaskShares, AreAllTasksOnceInUnits) {
  for (const std::size_t tasks : {0u, 1u, 15u, 16u, 17u, 100u, 1024u}) {
    for (const std::size_t unit : {1u, 8u, 16u}) {
      for (int ranks = 1; ranks <= 8; ++ranks) {
        const TaskShares shares(tasks, unit, 0, ranks);
        std::size_t next = 0;
        for (int r = 0; r < ranks; ++r) {
          EXPECT_EQ(shares.first(r), next);
          if (shares.count(r) > 0) {
            EXPECT_EQ(shares.first(r) % unit, 0u);
          }
          for (std::size_t t = next; t < next + shares.count(r); ++t) {
            ASSERT_EQ(shares.rank_of(t), r);
          }
          next += shares.count(r);
        }
        EXPECT_EQ(next, tasks);
      }
    }
  }
}

/// Sums of single precision vectors over ranks: by all nodes to all, and in pieces.
TEST(TreeSum, IsTheSameForAnyNumberOfRanks) {
  for (const std::size_t width : {3u, 9000u}) {
    for (const std::size_t tasks : {5u, 16u, 37u, 64u}) {
      RandomStream random({.seed = 1, .purpose = Purpose::user, .task = 7});
      std::vector<std::vector<float>> values(tasks, std::vector<float>(width));
      for (auto& v : values) {
        for (float& x : v) x = random.normal();
      }
      std::vector<double> want;
      for (const int size : {1, 2, 3, 4, 7}) {
        std::vector<std::vector<double>> got(static_cast<std::size_t>(size));
        const auto errors = on_ranks(size, [&](const std::shared_ptr<Communicator>& ranks) {
          const int rank = ranks ? ranks->rank() : 0;
          const TaskShares shares(tasks, 1, rank, size);
          backend::TreeSum<float> sum;
          for (std::size_t t = shares.first(); t < shares.first() + shares.count(); ++t) {
            sum.push(0, t, values[t]);
          }
          if (shares.last()) sum.close();
          if (ranks) sum.exchange(*ranks, shares, width);
          got[static_cast<std::size_t>(rank)] = sum.root(width);
        });
        for (const std::string& error : errors) EXPECT_EQ(error, "");
        if (size == 1) want = got[0];
        for (const auto& of_rank : got) ASSERT_EQ(of_rank, want) << size << " ranks";
      }
    }
  }
}

}  // namespace
}  // namespace kshot::test
