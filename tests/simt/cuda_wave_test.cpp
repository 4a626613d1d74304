// Properties of the CUDA backend's waves alone, on the emulator: memory and, at step 0, weights
// that tasks of different size share. tests/backend tests their numbers together with every other
// backend's.
#include "backend/linear_algebra.h"
#include "emulator/simt.h"
#include "support/backend_problems.h"
#include "support/environment.h"

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

// Convolutions, norm and pooling do not touch rows beyond a task's own; flat passes do.
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

/// How a wave receives one start for all its tasks.
enum class Start { broadcast, copies };

/// The gradient, Hessian-vector product, losses and outputs of all tasks from one start, task by
/// task, with at most `most` tasks in a wave.
std::vector<Numbers> from_one_start(backend::Backend& made, const Problem& p, const Numbers& start,
                                    const Numbers& direction, int most, Start how) {
  const std::size_t width = p.width();
  const backend::Shared shared = made.shared(width);
  shared->upload(start);
  Runner runner(made, p);
  backend::Wave& wave = runner.wave();
  const backend::Block w = runner.block(0), u = runner.block(1), result = runner.block(2),
                       also = runner.block(3), loss = wave.block(1);
  const auto begin = [&] {  // only a block that was broadcast and not written since is shared
    if (how == Start::broadcast) return wave.broadcast(w, *shared);
    wave.upload(w, start.data(), 0);
  };
  // Numbers that must not be read are NaN.
  wave.load(p.batch(made), 0, p.tasks, 0);
  const Numbers diverged(p.weights.size(), std::numeric_limits<double>::quiet_NaN());
  runner.put(w, diverged);
  wave.hessian_vector({Set::all, w, {}}, w, result, false, also);
  std::vector<Numbers> all(6);
  for (int first = 0; first < p.tasks; first += most) {
    wave.load(p.batch(made), first, std::min(most, p.tasks - first),
              static_cast<std::uint32_t>(first));
    const backend::Wave::Pass pass{Set::support, w, {1.0, backend::Scale::By::support}};
    begin();
    wave.fill(loss, 0.0);
    wave.gradient(pass, result, false, loss);
    runner.take(result, width, all[0]);
    runner.take(loss, 1, all[1]);
    begin();
    runner.put(u, direction);
    wave.hessian_vector(pass, u, result, false, also);
    runner.take(result, width, all[2]);
    runner.take(also, width, all[3]);
    begin();
    wave.hessian_vector(pass, u, result, false, {});  // small perceptrons compute it in one kernel
    runner.take(result, width, all[4]);
    begin();
    const backend::Block outputs = wave.outputs(Set::query);
    wave.value({Set::query, w, {}}, {}, outputs, backend::NormStatistics::support);
    runner.take(outputs, static_cast<std::size_t>(wave.rows(Set::query) * p.network->outputs()),
                all[5]);
  }
  return all;
}

// Tiles extend across tasks if the tasks share their weights.
TEST_F(CudaWave, AtStepZeroATaskHasTheSameBitsInABatchAsAlone) {
  using enum LayerType;
  const auto network = [](const FeatureShape& input, const std::vector<LayerSpec>& layers) {
    return std::make_shared<const Network>(input, layers);
  };
  const NamedNetwork networks[] = {
      {"conv", network({2, 5, 4, true}, {conv_layer(3, 3, 2, 1), layer(relu),
                                         conv_layer(2, 2, 1, 1), layer(mean), linear_layer(2)})},
      {"linear", network({3, 1, 1, false},
                         {linear_layer(5), layer(norm), layer(LayerType::tanh), linear_layer(2)})},
      {"perceptron",
       network({3, 1, 1, false}, {linear_layer(5), layer(LayerType::tanh), linear_layer(2)})},
  };
  const struct {
    const char *name, *backend, *tensor_cores;
  } paths[] = {{"double", "simt_f64", nullptr},
               {"plain", "simt_f32", "0"},
               {"tensor cores", "simt_f32", "1"}};
  for (const auto& path : paths) {
    const test::Environment environment("KSHOT_TENSOR_CORES", path.tensor_cores);
    const auto made = open_backend(path.backend);
    for (const NamedNetwork& named : networks) {
      SCOPED_TRACE(std::string(path.name) + ", " + named.name);
      constexpr int tasks = 6;
      const Problem p = make_problem(named.network, backend::LossKind::mse, tasks, 5, {1, 5, 4});
      const auto& own = p.single.support_n;
      ASSERT_GT(std::ranges::max(own), std::ranges::min(own)) << "tasks of different size";
      const Numbers start(p.weights.begin(),
                          p.weights.begin() + static_cast<std::ptrdiff_t>(p.width()));
      RandomStream random = stream(3);
      const Numbers direction = normals(random, p.weights.size());
      const auto run = [&](int most, Start how) {
        return from_one_start(*made, p, start, direction, most, how);
      };
      const std::vector<Numbers> alone = run(1, Start::copies);
      for (const Numbers& numbers : alone) {
        EXPECT_TRUE(std::ranges::all_of(numbers, [](double x) { return std::isfinite(x); }));
      }
      EXPECT_EQ(run(tasks, Start::broadcast), alone);
      EXPECT_EQ(run(4, Start::broadcast), alone);
      EXPECT_EQ(run(1, Start::broadcast), alone);
      EXPECT_EQ(run(tasks, Start::copies), alone);
    }
  }
}

// Features, a factorization and a pull-back are launched one by one and as one graph.
TEST_F(CudaWave, SmallMatricesAndThePullBackGoIntoAGraph) {
  const auto network = std::make_shared<const Network>(Network::mlp({2, 5, 3}, LayerType::tanh));
  const Problem p = make_problem(network, backend::LossKind::mse, 3, 7, {1, 4, 4});
  for (const char* const name : {"simt_f32", "simt_f64"}) {
    const auto made = open_backend(name);
    Runner runner(*made, p);
    backend::Wave& wave = runner.wave();
    const auto algebra = wave.linear_algebra();
    const int rows = wave.rows(Set::support), features = network->outputs();
    const backend::Block weights = runner.block(0), gradient = runner.block(1);
    const backend::Matrix z{wave.outputs(Set::support), rows, features};
    const backend::Matrix gram = algebra->matrix(rows, rows), l = algebra->matrix(rows, rows),
                          y = algebra->matrix(rows, features), one = algebra->matrix(1, 1),
                          jittered = algebra->matrix(1, 1);
    // y = (z z^T + 1)^-1 targets is pulled back as if it were a gradient by z.
    const auto work = [&] {
      wave.value({Set::support, weights, {}}, {}, z.block, backend::NormStatistics::batch);
      wave.fill(one.block, 1.0);
      wave.fill(jittered.block, 0.0);
      algebra->product(gram, 1.0, z, backend::transposed(z));
      algebra->add_diagonal(gram, 1.0, one, Set::support);
      algebra->cholesky(l, gram, jittered);
      algebra->targets(y, Set::support);
      algebra->solve_triangular(l, backend::Side::left, y);
      algebra->solve_triangular(backend::transposed(l), backend::Side::left, y);
      wave.output_pullback({Set::support, weights, {}}, y.block, gradient, false);
    };
    const auto run = [&](bool as_graph) {
      Numbers result;
      for (int first = 0; first < p.tasks; ++first) {  // different tasks each time
        wave.load(p.batch(*made), first, 1, static_cast<std::uint32_t>(first));
        runner.put(weights, p.weights);
        as_graph ? wave.capture(work) : work();
        runner.take(gradient, p.width(), result);
      }
      return result;
    };
    const Numbers one_by_one = run(false);
    EXPECT_TRUE(std::ranges::all_of(one_by_one, [](double x) { return std::isfinite(x); }));
    const std::uint64_t before = simt::counters().graphs_launched;
    EXPECT_EQ(run(true), one_by_one);
    EXPECT_EQ(simt::counters().graphs_launched - before, 2u) << "the first run takes memory";
    EXPECT_EQ(run(true), one_by_one);
    EXPECT_EQ(simt::counters().graphs_launched - before, 5u);
  }
}

}  // namespace
}  // namespace kshot::testing
