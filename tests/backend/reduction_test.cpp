// The sum over tasks. The tasks' indices alone fix its order, whatever the order in which waves
// arrive. Diverged tasks are left out and reported.
#include <bit>
#include <thread>

#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

using backend::Block;
using backend::Set;
using backend::Shared;

class ReductionTest : public ::testing::TestWithParam<std::tuple<std::string, int>> {
 protected:
  /// On the CPU backend, a plain perceptron has several tasks per wave and other networks have one.
  static std::shared_ptr<const Network> network() {
    return chosen_networks()[std::get<1>(GetParam()) == 0 ? 0 : 9].network;
  }
  void SetUp() override { backend_ = open_backend(std::get<0>(GetParam())); }

  struct Tasks {
    Numbers gradient;  ///< [T, D]
    Numbers rates;     ///< [T, 3]
    Numbers loss;      ///< [T]
  };
  static Tasks random_tasks(std::size_t tasks, std::uint64_t seed) {
    RandomStream random = stream(seed, 6);
    // The magnitudes differ, so that another order of summation gives other bits.
    Tasks t{normals(random, tasks * network()->size()), normals(random, tasks * 3),
            normals(random, tasks)};
    for (double& x : t.gradient) x = static_cast<float>(x * std::exp2(pick(random, -10, 10)));
    return t;
  }

  struct Sums {
    Numbers gradient, rates;
    double loss = 0.0;
    std::vector<std::uint32_t> diverged;
    bool operator==(const Sums&) const = default;
  };
  /// Uploads the tasks wave by wave from `threads` threads, each with its own wave. `shuffle` is
  /// the seed of the order of the waves. With 0 they are in ascending order.
  Sums reduce(const Tasks& tasks, std::uint64_t shuffle, int threads) {
    const int count = static_cast<int>(tasks.loss.size());
    const Problem problem = make_problem(network(), backend::LossKind::mse, count, 1);
    const std::size_t width = problem.width();
    const std::size_t widths[] = {width, 3};
    const auto reduction = backend_->reduction(widths);
    std::vector<std::unique_ptr<Runner>> runners;
    for (int i = 0; i < threads; ++i) {
      runners.push_back(std::make_unique<Runner>(*backend_, problem));
    }
    const int capacity = runners[0]->wave().capacity();
    std::vector<int> order(static_cast<std::size_t>((count + capacity - 1) / capacity));
    std::iota(order.begin(), order.end(), 0);
    RandomStream random = stream(shuffle, 7);
    for (std::size_t i = order.size(); shuffle != 0 && i > 1; --i) {
      std::swap(order[i - 1], order[random.below(static_cast<std::uint32_t>(i))]);
    }
    const auto step = backend_->open_step();
    step->clear();
    reduction->begin(order.size(), tasks.loss.size(), *step);
    const auto work = [&](int thread) {
      backend::Wave& wave = runners[static_cast<std::size_t>(thread)]->wave();
      const Block g = wave.weights(), r = wave.block(3), loss = wave.block(1);
      for (std::size_t i = static_cast<std::size_t>(thread); i < order.size();
           i += static_cast<std::size_t>(threads)) {
        const int first = order[i] * capacity;
        wave.load(problem.batch(*backend_), first, std::min(capacity, count - first),
                  static_cast<std::uint32_t>(first));
        wave.upload(g, tasks.gradient.data(), width);
        wave.upload(r, tasks.rates.data(), 3);
        wave.upload(loss, tasks.loss.data(), 1);
        const Block blocks[] = {g, r};
        reduction->add(wave, static_cast<std::size_t>(order[i]), blocks, loss);
      }
    };
    std::vector<std::thread> pool;
    for (int i = 1; i < threads; ++i) pool.emplace_back(work, i);
    work(0);
    for (std::thread& t : pool) t.join();
    const Shared means[] = {backend_->shared(width), backend_->shared(3)};
    reduction->finish(means);
    const backend::StepStatistics statistics = step->read();
    Sums sums{Numbers(width), Numbers(3), statistics.mean_loss(), reduction->diverged_tasks()};
    means[0]->download(sums.gradient);
    means[1]->download(sums.rates);
    EXPECT_EQ(statistics.diverged, static_cast<double>(sums.diverged.size()));
    EXPECT_EQ(statistics.tasks + statistics.diverged, static_cast<double>(count));
    return sums;
  }

  /// The sum of `values` as a binary tree that is filled from the left.
  static double tree(const Numbers& values, std::size_t first, std::size_t count) {
    if (count == 1) return values[first];
    const std::size_t half = std::bit_ceil(count) / 2;
    return tree(values, first, half) + tree(values, first + half, count - half);
  }
  /// The mean in the order of task_tree.h, written out: a tree per aligned run of 16 tasks in T,
  /// then a tree over the runs in double.
  template <typename T>
  static Numbers ordered_mean(const Numbers& values, std::size_t width,
                              const std::vector<std::uint32_t>& diverged) {
    const std::size_t tasks = values.size() / width;
    Numbers means(width);
    for (std::size_t e = 0; e < width; ++e) {
      Numbers runs;
      for (std::size_t run = 0; run < tasks; run += 16) {
        T sums[16] = {};
        for (std::size_t t = run; t < std::min(run + 16, tasks); ++t) {
          const bool skip = std::find(diverged.begin(), diverged.end(), t) != diverged.end();
          sums[t - run] = skip ? T(0) : static_cast<T>(values[t * width + e]);
        }
        for (std::size_t size = 16; size > 1; size /= 2) {
          for (std::size_t i = 0; i < size / 2; ++i) sums[i] = sums[2 * i] + sums[2 * i + 1];
        }
        runs.push_back(static_cast<double>(sums[0]));
      }
      const double total = tree(runs, 0, runs.size());
      const double kept = static_cast<double>(tasks - diverged.size());
      means[e] = static_cast<double>(static_cast<T>(total * (kept > 0 ? 1.0 / kept : 0.0)));
    }
    return means;
  }
  Numbers expected(const Numbers& values, std::size_t width,
                   const std::vector<std::uint32_t>& diverged = {}) const {
    return backend_->precision() == backend::Precision::f64
               ? ordered_mean<double>(values, width, diverged)
               : ordered_mean<float>(values, width, diverged);
  }

  std::unique_ptr<backend::Backend> backend_;
};

TEST_P(ReductionTest, SumsInTheStatedOrder) {
  for (const std::size_t count : {1, 2, 3, 5, 8, 15, 16, 17, 23, 31, 32, 37, 50, 113, 140, 300}) {
    SCOPED_TRACE(count);
    const Tasks tasks = random_tasks(count, count);
    const Sums got = reduce(tasks, 0, 1);
    EXPECT_EQ(got.gradient, expected(tasks.gradient, network()->size()));
    EXPECT_EQ(got.rates, expected(tasks.rates, 3));
    EXPECT_TRUE(got.diverged.empty());
    const double mean =
        std::accumulate(tasks.loss.begin(), tasks.loss.end(), 0.0) / static_cast<double>(count);
    EXPECT_NEAR(got.loss, mean, 1e-13);
  }
}

TEST_P(ReductionTest, AnyOrderOfArrivalGivesTheSameBits) {
  const Tasks tasks = random_tasks(45, 3);
  const Sums want = reduce(tasks, 0, 1);
  for (const std::uint64_t shuffle : {1, 2, 3, 4}) EXPECT_EQ(reduce(tasks, shuffle, 1), want);
}

TEST_P(ReductionTest, AnyNumberOfThreadsGivesTheSameBits) {
  const Tasks tasks = random_tasks(333, 4);
  const Sums want = reduce(tasks, 0, 1);
  for (const int threads : {2, 3, 5}) EXPECT_EQ(reduce(tasks, 0, threads), want);
}

TEST_P(ReductionTest, DivergedTasksAreLeftOutAndNamed) {
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::size_t width = network()->size();
  Tasks tasks = random_tasks(40, 5);
  tasks.gradient[3 * width + width / 2] = nan;
  tasks.gradient[18 * width] = -inf;
  tasks.rates[17 * 3 + 2] = inf;
  tasks.loss[39] = nan;
  const std::vector<std::uint32_t> diverged = {3, 17, 18, 39};
  const Sums got = reduce(tasks, 0, 1);
  EXPECT_EQ(got.diverged, diverged);
  EXPECT_EQ(got.gradient, expected(tasks.gradient, width, diverged));
  EXPECT_EQ(got.rates, expected(tasks.rates, 3, diverged));
  double mean = 0.0;
  for (std::size_t t = 0; t < 40; ++t) {
    if (std::find(diverged.begin(), diverged.end(), t) == diverged.end()) mean += tasks.loss[t];
  }
  EXPECT_NEAR(got.loss, mean / 36.0, 1e-13);
  EXPECT_EQ(reduce(tasks, 9, 1), got);
  EXPECT_EQ(reduce(tasks, 0, 3), got);
}

TEST_P(ReductionTest, NothingLeftIsZero) {
  Tasks tasks = random_tasks(5, 6);
  for (double& x : tasks.loss) x = std::numeric_limits<double>::quiet_NaN();
  const Sums got = reduce(tasks, 0, 1);
  EXPECT_EQ(got.diverged.size(), 5u);
  EXPECT_EQ(got.gradient, Numbers(network()->size(), 0.0));
  EXPECT_EQ(got.loss, 0.0);
}

TEST_P(ReductionTest, AReductionCanBeginAgain) {
  const std::size_t widths[] = {2};
  const auto reduction = backend_->reduction(widths);
  const Problem problem = make_problem(network(), backend::LossKind::mse, 1, 1);
  Runner runner(*backend_, problem);
  const Block g = runner.wave().block(2), loss = runner.wave().block(1);
  const Shared mean[] = {backend_->shared(2)};
  const auto step = backend_->open_step();
  for (const double value : {3.0, 5.0}) {
    step->clear();
    reduction->begin(1, 1, *step);
    runner.for_each_wave([&](int) {
      runner.wave().fill(g, value);
      runner.wave().fill(loss, -value);
      reduction->add(runner.wave(), 0, std::span(&g, 1), loss);
    });
    reduction->finish(mean);
    Numbers got(2);
    mean[0]->download(got);
    EXPECT_EQ(got, Numbers(2, value));
    EXPECT_EQ(step->read().mean_loss(), -value);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, ReductionTest, ::testing::ValuesIn(backends_and_layouts()),
                         layout_test_name);

// ---- a task that leaves the finite range, through a whole network ----

class DivergenceTest : public ::testing::TestWithParam<std::string> {};

TEST_P(DivergenceTest, OneTaskDivergesAndTheOthersDoNotNotice) {
  const auto backend = open_backend(GetParam());
  for (const NamedNetwork& named : chosen_networks()) {
    if (!takes(*backend, *named.network)) continue;
    SCOPED_TRACE(named.name);
    const std::shared_ptr<const Network> network = named.network;
    const std::size_t width = network->size();
    const std::size_t bad = 4;
    const bool saturates = std::any_of(network->layers().begin(), network->layers().end(),
                                       [](const Layer& l) { return l.type == LayerType::tanh; });
    for (const backend::LossKind kind : all_losses) {
      SCOPED_TRACE(loss_name(kind));
      Problem problem = make_problem(network, kind, 7, 21);
      Runner runner(*backend, problem);
      const Numbers healthy = runner.gradient(problem.weights, Set::support, {});
      for (const double poison :
           {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
        // Only the first layer's weights are changed. An activation must propagate NaN, but tanh
        // correctly maps an infinite input to 1.
        if (std::isinf(poison) && saturates) continue;
        const ParameterTensor& first = network->parameters()[0];
        Numbers weights = problem.weights;
        for (std::size_t i = 0; i < first.size; ++i) weights[bad * width + i] = poison;
        Numbers loss;
        const Numbers got = runner.gradient(weights, Set::support, {}, &loss);
        bool finite = std::isfinite(loss[bad]);
        for (std::size_t i = 0; i < width; ++i) {
          finite = finite && std::isfinite(got[bad * width + i]);
        }
        EXPECT_FALSE(finite) << "weights " << poison;
        for (std::size_t i = 0; i < got.size(); ++i) {
          if (i / width == bad) continue;
          ASSERT_EQ(got[i], healthy[i]) << "task " << i / width;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, DivergenceTest, ::testing::ValuesIn(backend_names()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace kshot::testing
