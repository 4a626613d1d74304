// What is particular to the CUDA backend's waves, on the emulator: memory that tasks of different
// size share. Their numbers are held by tests/backend, with every other backend's.
#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

using backend::Set;

class CudaWave : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto names = backend_names();
    if (std::ranges::find(names, "simt_f64") == names.end()) {
      GTEST_SKIP() << "this build leaves the emulated CUDA backend out";
    }
  }
};

// Convolutions, norm and pooling leave rows beyond a task's own alone; flat passes do not.
TEST_F(CudaWave, WhatEarlierTasksLeftBeyondATasksRowsIsHarmless) {
  using enum LayerType;
  const auto network = std::make_shared<const Network>(
      FeatureShape{1, 6, 6, true},
      std::vector<LayerSpec>{conv_layer(2, 3, 1, 1), layer(norm), layer(relu), pool_layer(2),
                             conv_layer(3, 2, 1, 0), layer(LayerType::tanh), layer(mean),
                             linear_layer(2)});
  const auto made = open_backend("simt_f64");
  const Problem ragged = make_problem(network, backend::LossKind::mse, 3, 1, {1, 3, 3});
  const Problem full = make_problem(network, backend::LossKind::mse, 3, 2, {3, 3, 3});
  const Numbers diverged(full.weights.size(), std::numeric_limits<double>::quiet_NaN());
  RandomStream random = stream(3);
  const Numbers direction = normals(random, ragged.weights.size());
  Runner fresh(*made, ragged), used(*made, ragged);
  used.wave().load(full.batch(*made), 0, 3, 0);
  used.put(used.block(0), diverged);
  used.wave().hessian_vector({Set::all, used.block(0), {}}, used.block(0), used.block(1), false,
                             used.block(2));
  for (const Set set : {Set::support, Set::all}) {
    EXPECT_EQ(used.gradient(ragged.weights, set, {}), fresh.gradient(ragged.weights, set, {}));
    EXPECT_EQ(used.hessian_vector(ragged.weights, direction, set, {}),
              fresh.hessian_vector(ragged.weights, direction, set, {}));
    Numbers got, want;
    used.value(ragged.weights, set, {}, backend::NormStatistics::support, &got);
    fresh.value(ragged.weights, set, {}, backend::NormStatistics::support, &want);
    EXPECT_EQ(got, want);
  }
}

}  // namespace
}  // namespace kshot::testing
