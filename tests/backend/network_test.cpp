// Gradients and Hessian-vector products of every layer, loss and set on every backend, against
// central differences.
#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

using backend::LossKind;
using backend::NormStatistics;
using backend::Scale;
using backend::Set;

constexpr std::uint64_t random_networks = 24;

/// Number of tasks of a problem. Small networks run in SIMD groups of tasks, and the test uses a
/// full group and a part of one. Other networks run one task at a time.
int task_count(const Network& network) {
  return network.is_plain_mlp() && network.size() < 500 ? 19 : 3;
}

struct NetworkGroup {
  std::string name;
  std::vector<NamedNetwork> networks;
};
void PrintTo(const NetworkGroup& group, std::ostream* out) {
  *out << group.name;
}

/// The chosen networks are groups of one. The random networks are in groups of eight.
std::vector<NetworkGroup> network_groups() {
  std::vector<NetworkGroup> groups;
  for (const NamedNetwork& named : chosen_networks()) groups.push_back({named.name, {named}});
  for (std::uint64_t seed = 0; seed < random_networks; ++seed) {
    if (seed % 8 == 0) groups.push_back({"random_" + std::to_string(seed), {}});
    groups.back().networks.push_back(random_network(seed));
  }
  return groups;
}

class NetworkTest : public ::testing::TestWithParam<std::tuple<std::string, NetworkGroup>> {
 protected:
  void SetUp() override {
    backend_ = open_backend(std::get<0>(GetParam()));
    networks_ = std::get<1>(GetParam()).networks;
    std::erase_if(networks_, [&](const NamedNetwork& n) { return !takes(*backend_, *n.network); });
    ASSERT_FALSE(networks_.empty());
    reference_ = open_backend("reference");
  }

  /// Calls body(problem, runner, reference runner, set, scale) for three pairs of a loss and a set.
  /// Every loss and every set occurs, and the pairing differs between networks.
  template <typename Body>
  void for_each_case(const Body& body) {
    for (const NamedNetwork& named : networks_) {
      SCOPED_TRACE(named.name);
      for_each_case(named.network, body);
    }
  }
  template <typename Body>
  void for_each_case(const std::shared_ptr<const Network>& network, const Body& body) {
    const struct {
      Set set;
      Scale scale;
    } sets[] = {{Set::support, {0.7, Scale::By::support}},
                {Set::query, {1.0, Scale::By::query}},
                {Set::all, {1.5, Scale::By::all}}};
    for (std::size_t i = 0; i < 3; ++i) {
      const LossKind loss = all_losses[i];
      const auto& [set, scale] = sets[(i + network->size()) % 3];
      SCOPED_TRACE(std::string(loss_name(loss)) + ", set " + std::to_string(static_cast<int>(set)));
      const Problem problem = make_problem(network, loss, task_count(*network), 11);
      Runner runner(*backend_, problem);
      Runner reference(*reference_, problem);
      body(problem, runner, reference, set, scale);
    }
  }

  std::vector<NamedNetwork> networks_;
  std::unique_ptr<backend::Backend> backend_, reference_;
};

TEST_P(NetworkTest, GradientIsTheCentralDifferenceOfTheLoss) {
  for_each_case(
      [&](const Problem& problem, Runner& runner, Runner& reference, Set set, Scale scale) {
        Numbers loss;
        const Numbers got = runner.gradient(problem.weights, set, scale, &loss);
        const auto tasks = static_cast<std::size_t>(problem.tasks);
        const auto coordinates = chosen_coordinates(problem.width());
        const Numbers want =
            central_differences([&](const Numbers& w) { return reference.value(w, set, scale); },
                                problem.weights, tasks, coordinates, difference_step);
        EXPECT_TRUE(close_rows(select(got, tasks, coordinates), want, coordinates.size(),
                               difference_tolerance(*backend_)));
        EXPECT_TRUE(close_rows(loss, reference.value(problem.weights, set, scale), 1,
                               difference_tolerance(*backend_)));
      });
}

TEST_P(NetworkTest, HessianVectorIsTheCentralDifferenceOfTheGradient) {
  for_each_case([&](const Problem& problem, Runner& runner, Runner& reference, Set set,
                    Scale scale) {
    RandomStream random = stream(3, 3);
    const Numbers direction = normals(random, problem.weights.size());
    Numbers gradient;
    const Numbers got = runner.hessian_vector(problem.weights, direction, set, scale, &gradient);
    // The expected value uses the reference's gradient, which the test above checks against its
    // loss.
    const Numbers want = central_difference_along(
        [&](const Numbers& w) { return reference.gradient(w, set, scale); }, problem.weights,
        direction, difference_step);
    EXPECT_TRUE(close_rows(got, want, problem.width(), difference_tolerance(*backend_)));
    EXPECT_TRUE(close_rows(gradient, reference.gradient(problem.weights, set, scale),
                           problem.width(), difference_tolerance(*backend_)));
  });
}

TEST_P(NetworkTest, OutputPullbackIsTheCentralDifferenceOfTheOutputs) {
  for_each_case([&](const Problem& problem, Runner& runner, Runner& reference, Set set,
                    Scale /*scale*/) {
    const auto tasks = static_cast<std::size_t>(problem.tasks);
    const std::size_t width = static_cast<std::size_t>(runner.wave().rows(set)) *
                              static_cast<std::size_t>(problem.network->outputs());
    RandomStream random = stream(5, 3);
    Numbers g = normals(random, tasks * width);
    // The function is <g, outputs>. Outputs are zero in rows that a task does not have.
    const auto inner = [&](const Numbers& weights) {
      Numbers outputs, sums(tasks, 0.0);
      reference.value(weights, set, {}, NormStatistics::batch, &outputs);
      for (std::size_t i = 0; i < outputs.size(); ++i) sums[i / width] += g[i] * outputs[i];
      return sums;
    };
    const auto coordinates = chosen_coordinates(problem.width());
    const Numbers want =
        central_differences(inner, problem.weights, tasks, coordinates, difference_step);
    // Rows that a task does not have get NaN, because the pull-back must never read them.
    const auto& support = problem.single.support_n;
    const auto& query = problem.single.query_n;
    const auto outputs = static_cast<std::size_t>(problem.network->outputs());
    for (std::size_t t = 0; t < tasks; ++t) {
      const int rows = (set == Set::query ? 0 : support[t]) + (set == Set::support ? 0 : query[t]);
      std::fill(g.begin() + static_cast<std::ptrdiff_t>(t * width +
                                                        static_cast<std::size_t>(rows) * outputs),
                g.begin() + static_cast<std::ptrdiff_t>((t + 1) * width),
                std::numeric_limits<double>::quiet_NaN());
    }
    const Numbers got = runner.output_pullback(problem.weights, set, g);
    EXPECT_TRUE(close_rows(select(got, tasks, coordinates), want, coordinates.size(),
                           difference_tolerance(*backend_)));
  });
}

TEST_P(NetworkTest, StepsAreTheirComposition) {
  // The inner step is src - rate * g and the adjoint step is v - H (rate * v). A backend may fuse
  // them. g and H v are the reference's, which the tests above check against differences.
  for_each_case(
      [&](const Problem& problem, Runner& runner, Runner& reference, Set set, Scale scale) {
        const std::size_t width = problem.width();
        RandomStream random = stream(4, 3);
        const Numbers src = normals(random, problem.weights.size());
        const Numbers v = normals(random, problem.weights.size());
        Numbers rates = normals(random, width, 0.1);
        for (std::size_t i = 0; i < width; i += 3) rates[i] = 0.0;  // a masked rate
        const backend::Shared shared = backend_->shared(width);
        shared->upload(rates);
        const Numbers g = reference.gradient(problem.weights, set, scale);
        backend::Wave& wave = runner.wave();
        const backend::Block weights = wave.weights(), from = wave.weights(), to = wave.weights(),
                             scratch = wave.weights(), grad = wave.weights();
        const double number = 0.0625;
        for (const backend::Rate& rate :
             {backend::Rate{number, nullptr}, backend::Rate{99.0, shared.get()}}) {
          const auto at = [&](std::size_t i) { return rate.vector ? rates[i % width] : number; };
          Numbers want_step = src, scaled = v, want_adjoint = v;
          for (std::size_t i = 0; i < v.size(); ++i) {
            want_step[i] -= at(i) * g[i];
            scaled[i] *= at(i);
          }
          const Numbers hv = reference.hessian_vector(problem.weights, scaled, set, scale);
          for (std::size_t i = 0; i < v.size(); ++i) want_adjoint[i] -= hv[i];
          for (const bool with_gradient : {false, true}) {
            Numbers step, adjoint, gradient;
            runner.for_each_wave([&](int) {
              runner.put(weights, problem.weights);
              runner.put(from, src);
              wave.gradient_step({set, weights, scale}, to, from, rate, scratch);
              runner.take(to, width, step);
              runner.put(from, v);
              wave.hessian_step({set, weights, scale}, to, from, rate,
                                with_gradient ? grad : backend::Block{}, scratch);
              runner.take(to, width, adjoint);
              if (with_gradient) runner.take(grad, width, gradient);
            });
            const double tolerance = difference_tolerance(*backend_);
            EXPECT_TRUE(close_rows(step, want_step, width, tolerance));
            EXPECT_TRUE(close_rows(adjoint, want_adjoint, width, tolerance));
            if (with_gradient) {
              EXPECT_TRUE(close_rows(gradient, g, width, tolerance));
            }
          }
        }
      });
}

TEST_P(NetworkTest, ActivationsMayServeAgain) {
  // This is the order at the end of the inner loop: a gradient, an outer gradient on the query set
  // at other weights, then products at the first weights.
  const int passes = emulated(*backend_) ? 3 : 40;
  for_each_case([&](const Problem& problem, Runner& runner, Runner& reference, Set /*set*/,
                    Scale scale) {
    const std::size_t width = problem.width();
    RandomStream random = stream(6, 3);
    const Numbers v = normals(random, problem.weights.size());
    const Numbers elsewhere = normals(random, problem.weights.size());
    backend::Wave& wave = runner.wave();
    const backend::Block weights = wave.weights(), other = wave.weights(), from = wave.weights(),
                         to = wave.weights(), scratch = wave.weights(), grad = wave.weights();
    for (const int kept : {0, passes - 2}) {
      Numbers hv, step, gradient;
      const backend::Rate rate{0.125, nullptr};
      runner.for_each_wave([&](int) {
        runner.put(weights, problem.weights);
        runner.put(other, elsewhere);
        runner.put(from, v);
        // There are more gradients with kept activations than a backend may have room for. The last
        // gradients are at other weights and have no number.
        const backend::Wave::Pass again{Set::support, weights, scale, kept};
        const auto before = [&] {
          for (int i = 0; i < passes; ++i) {
            wave.gradient({Set::support, i == kept ? weights : other, scale, i}, scratch, false,
                          {});
          }
          wave.gradient({Set::support, other, {}}, scratch, false, {});
          wave.gradient({Set::query, other, {}}, scratch, false, {});
        };
        before();
        wave.hessian_vector(again, from, to, false, grad);
        runner.take(to, width, hv);
        runner.take(grad, width, gradient);
        before();
        wave.hessian_step(again, to, from, rate, {}, scratch);
        runner.take(to, width, step);
      });
      const Numbers want_hv = reference.hessian_vector(problem.weights, v, Set::support, scale);
      Numbers want_step = v;
      for (std::size_t i = 0; i < v.size(); ++i) want_step[i] -= rate.value * want_hv[i];
      const double tolerance = difference_tolerance(*backend_);
      EXPECT_TRUE(close_rows(hv, want_hv, width, tolerance));
      EXPECT_TRUE(close_rows(step, want_step, width, tolerance));
      EXPECT_TRUE(close_rows(gradient, reference.gradient(problem.weights, Set::support, scale),
                             width, tolerance));
    }
  });
}

TEST_P(NetworkTest, ValueGivesTheLossAndOutputsOfTheReference) {
  for_each_case(
      [&](const Problem& problem, Runner& runner, Runner& reference, Set set, Scale scale) {
        for (const auto statistics : {NormStatistics::batch, NormStatistics::support}) {
          Numbers outputs, expected_outputs;
          const Numbers got = runner.value(problem.weights, set, scale, statistics, &outputs);
          const Numbers want =
              reference.value(problem.weights, set, scale, statistics, &expected_outputs);
          EXPECT_TRUE(close_rows(got, want, 1, difference_tolerance(*backend_)));
          EXPECT_TRUE(close_rows(outputs, expected_outputs,
                                 expected_outputs.size() / static_cast<std::size_t>(problem.tasks),
                                 difference_tolerance(*backend_)));
        }
      });
}

std::string network_test_name(const ::testing::TestParamInfo<NetworkTest::ParamType>& param) {
  return std::get<0>(param.param) + "_" + std::get<1>(param.param).name;
}

INSTANTIATE_TEST_SUITE_P(
    Backends, NetworkTest,
    ::testing::ValuesIn(backends_with(network_groups(),
                                      [](const NetworkGroup& group, const backend::Backend& b) {
                                        return std::ranges::any_of(group.networks,
                                                                   [&](const NamedNetwork& n) {
                                                                     return takes(b, *n.network);
                                                                   });
                                      })),
    network_test_name);

}  // namespace
}  // namespace kshot::testing
