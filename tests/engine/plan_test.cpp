// The counts of `kshot plan`, against counts by hand.
#include "engine/plan.h"

#include <gtest/gtest.h>

#include "engine/engine_cases.h"

namespace kshot {
namespace {

TaskShape points(int support, int query) {
  return {.input = {.channels = 1},
          .outputs = 1,
          .target = TargetKind::value,
          .support = support,
          .query = query};
}

Config config(const std::string& algorithm, const std::vector<std::string>& overrides) {
  std::vector<std::string> all = {"network.layers=1,40,40,1"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  return test::small_config(algorithm, all);
}

// The network 1-40-40-1 has 40 + 1600 + 40 multiply-adds per example.
constexpr double forward = 2.0 * 1680.0;

TEST(Plan, OperationsOfMaml) {
  const TaskCost cost = count_task(config("maml", {"inner.steps=5"}), points(10, 10));
  EXPECT_EQ(cost.gradients, 6u);
  EXPECT_EQ(cost.hessian_products, 5u);
  // There are 5 inner gradients, 5 Hessian-vector products and 1 outer gradient with 10 rows each:
  // 1.6 MFLOP.
  EXPECT_DOUBLE_EQ(cost.operations, forward * 10.0 * (5 * 3 + 5 * 6 + 3));
}

TEST(Plan, FirstOrderNeedsNoHessian) {
  const TaskCost cost =
      count_task(config("maml", {"inner.steps=5", "inner.order=first"}), points(10, 7));
  EXPECT_EQ(cost.hessian_products, 0u);
  EXPECT_DOUBLE_EQ(cost.operations, forward * (5 * 3 * 10.0 + 3 * 7.0));
}

TEST(Plan, SamplesMultiplyTheWorkOfAbml) {
  const TaskCost cost =
      count_task(config("abml", {"inner.steps=4", "abml.samples_inner=3", "abml.samples_outer=2"}),
                 points(10, 7));
  // In the outer loss, each sample takes the gradient on the query rows and on the support rows.
  EXPECT_EQ(cost.gradients, 4u * 3u + 2u * 2u);
  EXPECT_EQ(cost.hessian_products, 4u * 3u);
}

TEST(Plan, OnlyTheIteratesGrowWithTheInnerSteps) {
  const auto vectors = [](int steps) {
    return count_task(config("maml", {"inner.steps=" + std::to_string(steps)}), points(10, 10))
        .vector_scalars;
  };
  const std::size_t weights = 1761;
  EXPECT_EQ(vectors(50) - vectors(1), 49u * weights);
}

TEST(Plan, RowsAreInputsAndTargets) {
  EXPECT_EQ(count_task(config("maml", {}), points(10, 7)).row_scalars, 17u * 2u);
}

}  // namespace
}  // namespace kshot
