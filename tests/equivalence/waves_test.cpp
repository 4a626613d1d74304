// Waves on a device. A meta-batch that is far larger than one wave gives the same bits as one that
// fits into it, for any number of streams. The memory that the device counts is the planned memory.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "algorithms/algorithm.h"
#include "engine/assembly.h"
#include "engine/engine_cases.h"
#include "engine/plan.h"
#include "engine/scheduler.h"
#include "episodes/sources.h"
#include "kshot/kshot.h"
#include "support/backend_problems.h"
#include "support/class_files.h"
#include "support/environment.h"
#include "support/temp_folder.h"

namespace kshot::testing {
namespace {

Config config_of(const std::string& algorithm, const std::string& layers) {
  return test::small_config(algorithm, {"network.layers=" + layers, "network.activation=tanh"});
}

/// Meta-gradients of two steps, and the memory that they took. If `predicts` is true, predictions
/// are made too.
struct Result {
  std::vector<Numbers> gradients;
  std::vector<double> losses;
  int capacity = 0;
  /// Bytes of the device's memory, as the device counts them.
  std::size_t bytes = 0;
  backend::WavePlan plan;
  /// Bytes of parameters, gradients and sums, computed without asking the device.
  std::size_t shared_bytes = 0;
};

Result run(const std::string& name, const Config& config, int tasks, int streams, int most,
           bool predicts = false) {
  const test::Environment limit("KSHOT_WAVE_TASKS", std::to_string(most));
  Result result;
  const auto backend = open_backend(name, streams);
  const auto source = make_source(config);
  const auto network = std::make_shared<const Network>(config.make_network());
  const auto algorithm = make_algorithm(config, network);
  const std::size_t before = backend->device_bytes();
  result.plan = plan_waves(*backend, config, source->shape());
  EXPECT_EQ(backend->device_bytes(), before) << "planning takes no memory";
  Scheduler scheduler(*backend, *algorithm, source->shape());
  result.capacity = algorithm->open(*backend, source->shape())->wave().capacity();
  std::vector<backend::Shared> parameters;
  const std::size_t scalar = backend->precision() == backend::Precision::f32 ? 4 : 8;
  for (const Numbers& values : algorithm->initial(1)) {
    parameters.push_back(backend->shared(values.size()));
    parameters.back()->upload(values);
    result.shared_bytes += 2 * scalar * values.size();  // The second copy is the gradient.
  }
  // The mean, and the nodes of the sum over tasks: two per level of the tree over runs of 16 tasks,
  // one more next to them, and the root.
  const auto runs = static_cast<std::size_t>((tasks + 15) / 16);
  const std::size_t nodes = 2 * (static_cast<std::size_t>(std::bit_width(runs)) + 1) + 2;
  for (const std::size_t width : algorithm->gradient_widths()) {
    result.shared_bytes += (scalar + nodes * sizeof(double)) * width;
  }
  for (std::uint64_t step = 0; step < 2; ++step) {
    result.losses.push_back(scheduler.step(parameters, *source, 5, step, tasks).loss);
    for (const backend::Shared& g : scheduler.gradients()) {
      Numbers values(g->size());
      g->download(values);
      result.gradients.push_back(std::move(values));
    }
  }
  // There are enough waves that each worker gets one.
  if (predicts) {
    scheduler.for_each_wave(parameters, *source, 5, Split::validation, 0, 2 * tasks,
                            [&](TaskProgram& program, const TaskBatch&, int, int) {
                              program.predict({}, predict_options(config, *algorithm),
                                              [](int, int, backend::Block) {});
                            });
  }
  result.bytes = backend->device_bytes() - before;
  return result;
}

std::vector<std::string> device_names() {
  std::vector<std::string> names = backend_names();
  std::erase_if(names, [](const std::string& name) {
    return !name.starts_with("simt") && !name.starts_with("cuda");
  });
  return names;
}

class Waves : public ::testing::TestWithParam<std::string> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Waves);

TEST_P(Waves, SameBitsInManyAsInOne) {
  const test::TempFolder folder;
  test::write_class_file(folder / "classes.kshot", {.input = {6, 1, 1, false}, .rows = 8});
  const std::pair<std::string, Config> kinds[] = {
      {"maml", config_of("maml", "1,4,1")},
      {"abml", config_of("abml", "1,4,1")},
      {"leo", test::leo_points({"leo.latent=2"})},
      {"leo, a head", test::leo_head(folder / "classes.kshot", {"leo.latent=2"})},
  };
  for (const auto& [kind, config] : kinds) {
    SCOPED_TRACE(kind);
    constexpr int tasks = 52;  // The last wave of every size has fewer tasks than it may have.
    const Result one = run(GetParam(), config, tasks, 1, 112);
    ASSERT_EQ(one.capacity, 112);
    for (const auto& [most, streams] : {std::pair{16, 1}, {16, 3}, {48, 2}}) {
      SCOPED_TRACE(fmt::format("waves of {}, {} streams", most, streams));
      const Result many = run(GetParam(), config, tasks, streams, most);
      ASSERT_EQ(many.capacity, most);
      EXPECT_EQ(many.losses, one.losses);
      EXPECT_EQ(many.gradients, one.gradients);
    }
  }
}

TEST_P(Waves, TakeTheMemoryThatIsPlanned) {
  struct Kind {
    std::string name;
    Config config;
  };
  using Overrides = std::vector<std::string>;
  // A configuration whose inner loop adapts a network with these layers.
  const auto own_loop = [](const std::string& algorithm, const std::string& layers,
                           const Overrides& more = {}) {
    Overrides all = {"network.layers=" + layers, "network.activation=tanh"};
    all.insert(all.end(), more.begin(), more.end());
    return Kind{algorithm + " " + layers + (more.empty() ? "" : " " + more[0]),
                test::small_config(algorithm, all)};
  };
  const auto points_of_leo = [](const Overrides& more) {
    return Kind{"leo " + (more.empty() ? "" : more[0]), test::leo_points(more)};
  };
  const test::TempFolder folder;
  test::write_class_file(folder / "classes.kshot", {.input = {6, 1, 1, false}, .rows = 8});
  const Kind head_of_leo{"leo, a head",
                         test::leo_head(folder / "classes.kshot", {"leo.dropout_rate=0.3"})};
  const std::vector<Kind> kinds = {
      own_loop("maml", "1,8,1"),
      own_loop("maml", "1,10,10,1"),
      own_loop("abml", "1,8,1"),
      own_loop("abml", "1,8,1", {"abml.estimator=flipout"}),
      own_loop("abml", "1,8,1", {"abml.estimator=local"}),
      own_loop("abml", "1,8,1", {"abml.estimator=local", "inner.order=first"}),
      own_loop("abml", "1,8,1", {"abml.rates=weight"}),
      own_loop("meta_sgd", "1,12,8,1"),
      points_of_leo({}),
      points_of_leo({"inner.order=first"}),
      points_of_leo({"leo.relation=false"}),
      head_of_leo,
  };
  for (const Kind& kind : kinds) {
    SCOPED_TRACE(kind.name);
    // The same waves also predict, because the blocks that only a prediction needs are planned too.
    const Result r = run(GetParam(), kind.config, 18, 2, 16, true);
    ASSERT_EQ(r.capacity, 16);
    ASSERT_GT(r.plan.task_bytes, 0u);
    // Two workers have a wave each. The smallest wave, which was opened to measure its size, is
    // already closed.
    const auto want = static_cast<double>(r.plan.task_bytes * 16 * 2 + r.shared_bytes);
    EXPECT_NEAR(static_cast<double>(r.bytes), want, 0.05 * want)
        << static_cast<double>(r.bytes) / want;
  }
}

TEST_P(Waves, ShareWhatOnlyTasksAtWorkNeed) {
  // The iterates of a small perceptron belong to the thread blocks that run on a device at the same
  // time, not to the tasks.
  const Config config = test::small_config("maml", {"network.layers=1,40,40,1", "inner.steps=40"});
  const auto source = make_source(config);
  const auto planned = [&](int most) {
    const test::Environment limit("KSHOT_WAVE_TASKS", std::to_string(most));
    const auto plan = plan_waves(*open_backend(GetParam(), 1), config, source->shape());
    EXPECT_EQ(plan.tasks, most);
    return static_cast<double>(plan.task_bytes);
  };
  EXPECT_LT(planned(4096), 0.5 * planned(16));
}

INSTANTIATE_TEST_SUITE_P(Devices, Waves, ::testing::ValuesIn(device_names()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace kshot::testing
