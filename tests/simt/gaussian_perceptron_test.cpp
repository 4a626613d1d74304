// kernels/gaussian_perceptron.cu on the emulator, as ABML calls it: a whole meta-gradient in one
// launch. It is compared with the composition of the reference backend's operations in double, with
// central differences of its own loss, and with itself where bits must be equal.
#include "kernels/gaussian_perceptron.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "algorithms/algorithm.h"
#include "engine/verify.h"
#include "simt/orders.h"
#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

namespace fs = std::filesystem;
using backend::LossKind;

struct Case {
  std::string name;
  std::shared_ptr<const Network> network;
  LossKind loss = LossKind::gaussian_nll;
  Config config = {};
  Rows rows = {};
  int tasks = 2;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

std::shared_ptr<const Network> mlp(const std::vector<int>& layers, LayerType activation) {
  return std::make_shared<const Network>(Network::mlp(layers, activation));
}

Config abml(int steps, int samples, int outer_samples) {
  Config config;
  config.algorithm = AlgorithmKind::abml;
  config.inner.steps = steps;
  config.inner.learning_rate = 0.05;
  config.abml.samples_inner = samples;
  config.abml.samples_outer = outer_samples;
  config.abml.kl_weight_inner = 0.01;
  config.abml.kl_weight_outer = 0.3;
  return config;
}

std::vector<Case> cases() {
  using enum LayerType;
  std::vector<Case> list;
  const auto add = [&](const std::string& name, std::shared_ptr<const Network> network,
                       LossKind loss, const Config& config) -> Case& {
    list.push_back({name, std::move(network), loss, config});
    return list.back();
  };
  const auto small = [] { return mlp({2, 9, 7, 3}, relu); };
  add("sinusoid", mlp({1, 40, 40, 1}, relu), LossKind::mse, abml(1, 2, 2)).rows = {10, 10, 10};
  add("samples_for_one_team", small(), LossKind::cross_entropy, abml(3, 1, 1));
  add("samples_left_over", small(), LossKind::mse, abml(2, 3, 5));
  add("more_outside", small(), LossKind::gaussian_nll, abml(2, 1, 4));
  {
    Case& c = add("prior_cut", small(), LossKind::gaussian_nll, abml(3, 2, 3));
    c.config.abml.differentiate_prior = false;
  }
  {
    Case& c = add("query_alone", mlp({3, 8, 2}, tanh), LossKind::mse, abml(2, 4, 2));
    c.config.abml.support_in_outer = false;
    c.rows = {1, 4, 7};
  }
  {
    Case& c = add("all_rows_inside", mlp({2, 6, 5, 2}, leaky_relu), LossKind::cross_entropy,
                  abml(2, 2, 2));
    c.config.abml.inner_data = InnerData::all;
  }
  {
    Case& c = add("first_order", small(), LossKind::cross_entropy, abml(3, 2, 2));
    c.config.inner.order = Order::first;
  }
  {
    Case& c = add("masked", small(), LossKind::mse, abml(2, 2, 1));
    c.config.inner.adapt = {"layers.2.*"};
  }
  {
    Case& c = add("no_kl", small(), LossKind::mse, abml(2, 2, 2));
    c.config.abml.kl_weight_inner = 0.0;
    c.config.abml.kl_weight_outer = 0.0;
  }
  add("no_steps", small(), LossKind::gaussian_nll, abml(0, 2, 3));
  {  // more than one tile in every direction, and more warps
    Case& c = add("wide", mlp({21, 50, 43, 5}, tanh), LossKind::cross_entropy, abml(1, 2, 1));
    c.rows = {11, 13, 12};
    c.tasks = 1;
  }
  {  // more tasks than a wave holds
    Case& c = add("many_tasks", mlp({1, 5, 1}, tanh), LossKind::gaussian_nll, abml(2, 3, 2));
    c.rows = {1, 5, 3};
    c.tasks = 19;
  }
  return list;
}

/// The results of a meta-gradient, task by task.
struct Result {
  Numbers mu, s, loss, end_mu, end_s;
  std::uint64_t kernels = 0;  ///< the largest number of kernels of a wave
  bool operator==(const Result& o) const {
    return mu == o.mu && s == o.s && loss == o.loss && end_mu == o.end_mu && end_s == o.end_s;
  }
};

/// theta is rounded to float, so that both precisions get the same numbers.
Numbers theta_mu(const Problem& problem) {
  const auto begin = problem.weights.begin();
  return {begin, begin + static_cast<std::ptrdiff_t>(problem.width())};
}
Numbers theta_s(const Problem& problem) {
  RandomStream random = stream(9, 5);
  Numbers s = normals(random, problem.width(), 0.2);
  for (double& x : s) x = static_cast<float>(x - 2.0);
  return s;
}

Result meta_gradient(backend::Backend& backend, const Case& c, const Problem& problem,
                     const Numbers& mu, const Numbers& s, StepContext context = {},
                     int most_tasks = 1 << 20) {
  Config config = c.config;
  config.loss.noise_std = problem.loss.noise_std;
  config.loss.type = c.loss == LossKind::mse             ? LossType::mse
                     : c.loss == LossKind::cross_entropy ? LossType::cross_entropy
                                                         : LossType::gaussian_nll;
  const auto algorithm = make_algorithm(config, problem.network);
  std::vector<backend::Shared> parameters;
  for (const ParameterGroup& group : algorithm->groups()) {
    const Numbers rates(group.size, config.inner.learning_rate);
    parameters.push_back(backend.shared(group.size));
    parameters.back()->upload(group.name == "mu" ? mu : group.name == "log_sigma" ? s : rates);
  }
  context.seed = 11;
  context.step = 3;
  context.batch_tasks = problem.tasks;
  algorithm->prepare(backend, parameters, context);
  const TaskBatch& batch = problem.batch(backend);
  const auto program = algorithm->open(backend, batch.shape());
  backend::Wave& wave = program->wave();
  Result r;
  const auto take = [&](backend::Block from, std::size_t width, Numbers& to) {
    const std::size_t old = to.size();
    to.resize(old + static_cast<std::size_t>(wave.count()) * width);
    wave.download(from, std::span(to).subspan(old));
  };
  const int most = std::min(wave.capacity(), most_tasks);
  for (int first = 0; first < problem.tasks; first += most) {
    wave.load(batch, first, std::min(most, problem.tasks - first),
              static_cast<std::uint32_t>(first));
    const auto before = simt::counters().kernels;
    program->meta_gradient(context);
    r.kernels = std::max(r.kernels, simt::counters().kernels - before);
    take(program->gradients()[0], problem.width(), r.mu);
    take(program->gradients()[1], problem.width(), r.s);
    take(program->loss(), 1, r.loss);
    const auto adapted = program->adapted();
    take(adapted[0].block, problem.width(), r.end_mu);
    take(adapted[1].block, problem.width(), r.end_s);
  }
  return r;
}

bool emulated() {
  const auto devices = backend::list_devices();
  return std::ranges::any_of(devices, [](const auto& d) { return d.name == "simt"; });
}

class GaussianPerceptronTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!emulated()) GTEST_SKIP() << "this build leaves the emulated CUDA backend out";
  }
};

TEST_P(GaussianPerceptronTest, IsTheCompositionInEveryOrderOfThreads) {
  const Case& c = GetParam();
  const Problem problem = make_problem(c.network, c.loss, c.tasks, 5, c.rows);
  const std::size_t width = problem.width();
  const Numbers mu = theta_mu(problem), s = theta_s(problem);
  const Result want = meta_gradient(*open_backend("reference"), c, problem, mu, s);
  for (const simt::Settings& order : simt::all_orders()) {
    const simt::With with(order);
    for (const std::string precision : {"f64", "f32"}) {
      SCOPED_TRACE(precision + ", order " + std::to_string(static_cast<int>(order.order)));
      const auto backend = open_backend("simt_" + precision);
      const Result got = meta_gradient(*backend, c, problem, mu, s);
      EXPECT_EQ(got.kernels, 2u) << "the loss is cleared, then all is one launch";
      // The difference is rounding alone, as in perceptron_test.cpp.
      const double tolerance = precision == "f64" ? 1e-12 : 2e-4;
      EXPECT_TRUE(close_rows(got.end_mu, want.end_mu, width, tolerance));
      EXPECT_TRUE(close_rows(got.end_s, want.end_s, width, tolerance));
      EXPECT_TRUE(close_rows(got.mu, want.mu, width, tolerance));
      EXPECT_TRUE(close_rows(got.s, want.s, width, tolerance));
      EXPECT_TRUE(close_rows(got.loss, want.loss, 1, tolerance));
      if (HasFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GaussianPerceptronTest, ::testing::ValuesIn(cases()),
                         [](const auto& param) { return param.param.name; });

class GaussianPerceptron : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!emulated()) GTEST_SKIP() << "this build leaves the emulated CUDA backend out";
  }
};

TEST_F(GaussianPerceptron, GradientIsTheLosssDerivative) {
  // With tanh the loss has derivatives everywhere.
  const Case c{"", mlp({2, 5, 2}, LayerType::tanh), LossKind::gaussian_nll, abml(3, 3, 2)};
  const Problem problem = make_problem(c.network, c.loss, 2, 7, {3, 4, 5});
  const std::size_t width = problem.width();
  Numbers theta = theta_mu(problem);
  const Numbers s = theta_s(problem);
  theta.insert(theta.end(), s.begin(), s.end());
  const auto backend = open_backend("simt_f64");
  const auto at = [&](const Numbers& x) {
    const auto middle = x.begin() + static_cast<std::ptrdiff_t>(width);
    return meta_gradient(*backend, c, problem, {x.begin(), middle}, {middle, x.end()});
  };
  const Result got = at(theta);
  for (std::size_t i = 0; i < 2 * width; ++i) {
    Numbers x = theta;
    x[i] = theta[i] + difference_step;
    const Numbers above = at(x).loss;
    x[i] = theta[i] - difference_step;
    const Numbers below = at(x).loss;
    for (std::size_t t = 0; t < 2; ++t) {
      const Numbers& of = i < width ? got.mu : got.s;
      EXPECT_NEAR(of[t * width + i % width], (above[t] - below[t]) / (2.0 * difference_step), 2e-7)
          << "task " << t << ", element " << i;
    }
  }
}

TEST_F(GaussianPerceptron, SmallSpreadsKeepTheirDigits) {
  // sigma = e^-14 = 8e-7 is small compared with weights near 1, whose floats are 1.2e-7 apart. The
  // displacement of a sample can no longer be computed from the sample.
  Case c{"", mlp({2, 6, 3}, LayerType::tanh), LossKind::gaussian_nll, abml(2, 3, 2)};
  c.config.abml.kl_weight_inner = 0.0;  // so that the whole gradient by s comes from the samples
  c.config.abml.kl_weight_outer = 0.0;
  const Problem problem = make_problem(c.network, c.loss, 3, 7, {4, 5, 6});
  const std::size_t width = problem.width();
  RandomStream random = stream(9, 6);
  Numbers mu = normals(random, width, 0.2);
  for (double& x : mu) x = static_cast<float>(x + (x > 0.0 ? 1.0 : -1.0));
  const Numbers s(width, -14.0);
  const Result want = meta_gradient(*open_backend("simt_f64"), c, problem, mu, s);
  const Result got = meta_gradient(*open_backend("simt_f32"), c, problem, mu, s);
  // An element of a gradient is a sum over about ten rows of products through two layers: about 40
  // roundings of 6e-8, including that of the sample itself. Two steps and their adjoint are five
  // gradients and derivatives deep, which gives 1.2e-5 relative to the largest element. The
  // tolerance is twice that, for cancellation in the sums.
  EXPECT_TRUE(close_rows(got.s, want.s, width, 2.5e-5));
  EXPECT_TRUE(close_rows(got.mu, want.mu, width, 2.5e-5));
}

TEST_F(GaussianPerceptron, DrawsTheNoiseOfEveryBackend) {
  const Case c{"", mlp({1, 40, 3}, LayerType::relu), LossKind::mse, abml(2, 3, 2)};
  const Problem problem = make_problem(c.network, c.loss, 3, 7, {3, 4, 5});
  const std::size_t width = problem.width();
  const Numbers mu = theta_mu(problem), s = theta_s(problem);
  Numbers inner, outer;
  const auto put = [&](Numbers& to, Purpose purpose, int task, int step, int sample) {
    const RandomKey key{11,
                        purpose,
                        3,
                        static_cast<std::uint32_t>(task),
                        static_cast<std::uint32_t>(step),
                        static_cast<std::uint32_t>(sample)};
    for (std::size_t i = 0; i < width; ++i) to.push_back(normal_element(key, i));
  };
  for (int k = 0; k < 2; ++k) {
    for (int t = 0; t < 3; ++t) {
      for (int n = 0; n < 3; ++n) put(inner, Purpose::noise_inner, t, k, n);
    }
  }
  for (int t = 0; t < 3; ++t) {
    for (int n = 0; n < 2; ++n) put(outer, Purpose::noise_outer, t, 0, n);
  }
  StepContext given;
  given.noise_inner = inner.data();
  given.noise_outer = outer.data();
  for (const std::string precision : {"f64", "f32"}) {
    const auto backend = open_backend("simt_" + precision);
    EXPECT_EQ(meta_gradient(*backend, c, problem, mu, s),
              meta_gradient(*backend, c, problem, mu, s, given));
    EXPECT_EQ(meta_gradient(*backend, c, problem, mu, s),
              meta_gradient(*backend, c, problem, mu, s, given, 2))
        << "in waves of two";
  }
}

TEST_F(GaussianPerceptron, ATaskHasItsBitsAloneAndBesideOneThatDiverged) {
  const Case c{"", mlp({1, 7, 5, 1}, LayerType::relu), LossKind::mse, abml(2, 3, 2)};
  Problem problem = make_problem(c.network, c.loss, 5, 7, {1, 4, 5});
  const std::size_t width = problem.width();
  const Numbers mu = theta_mu(problem), s = theta_s(problem);
  const auto backend = open_backend("simt_f32");
  const Result all = meta_gradient(*backend, c, problem, mu, s);
  EXPECT_EQ(meta_gradient(*backend, c, problem, mu, s, {}, 1), all);
  EXPECT_EQ(meta_gradient(*backend, c, problem, mu, s, {}, 3), all);
  constexpr int far = 2;  // the support set of this task drives it out of the finite range
  problem.single.support_x[far * 4] = 1e30f;
  const Result beside = meta_gradient(*backend, c, problem, mu, s);
  for (int t = 0; t < problem.tasks; ++t) {
    const auto of = [&](const Numbers& x) {
      const auto begin =
          x.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(t) * width);
      return Numbers(begin, begin + static_cast<std::ptrdiff_t>(width));
    };
    if (t == far) {
      EXPECT_FALSE(std::ranges::all_of(of(beside.mu), [](double x) { return std::isfinite(x); }));
    } else {
      EXPECT_EQ(of(beside.mu), of(all.mu)) << "task " << t;
      EXPECT_EQ(of(beside.s), of(all.s)) << "task " << t;
    }
  }
}

TEST_F(GaussianPerceptron, WhatItDoesNotTakeIsComposed) {
  const auto launches = [](std::shared_ptr<const Network> network, Estimator estimator,
                           AbmlRates rates = AbmlRates::fixed, NoiseKind noise = NoiseKind::fixed) {
    Case c{"", std::move(network), LossKind::gaussian_nll, abml(1, 1, 1)};
    c.config.abml.estimator = estimator;
    c.config.abml.rates = rates;
    c.config.loss.noise = noise;
    const Problem problem = make_problem(c.network, c.loss, 1, 7, {1, 2, 2});
    const auto backend = open_backend("simt_f32");
    return meta_gradient(*backend, c, problem, theta_mu(problem), theta_s(problem)).kernels;
  };
  EXPECT_EQ(launches(mlp({2, 4, 1}, LayerType::relu), Estimator::weight), 2u);
  EXPECT_GT(launches(mlp({2, 4, 1}, LayerType::relu), Estimator::flipout), 10u);
  EXPECT_GT(launches(mlp({2, 4, 1}, LayerType::relu), Estimator::local), 10u);
  for (const AbmlRates learned : {AbmlRates::layer, AbmlRates::weight}) {
    EXPECT_GT(launches(mlp({2, 4, 1}, LayerType::relu), Estimator::weight, learned), 10u);
  }
  EXPECT_GT(launches(mlp({2, 4, 1}, LayerType::relu), Estimator::weight, AbmlRates::fixed,
                     NoiseKind::learned),
            10u);
  EXPECT_GT(launches(mlp({2, 2, 2, 2, 2, 2, 2, 2, 2}, LayerType::relu), Estimator::weight), 10u)
      << "layers";
}

TEST(GaussianPerceptronPlan, TakesTwoSamplesAtOnceWhereTheyFit) {
  using cuda::Perceptron, cuda::PerceptronPlan, cuda::plan_gaussian_perceptron;
  Perceptron p;
  p.layers = 2;
  const auto set = [&p](int l, int inputs, int outputs, int weight) {
    p.layer[l].inputs = inputs;
    p.layer[l].outputs = outputs;
    p.layer[l].weight = weight;
    p.layer[l].bias = weight + inputs * outputs;
  };
  set(0, 2, 30, 0);
  set(1, 30, 3, 90);
  p.weights = 183;
  const auto plan = [&](int samples, std::size_t limit) {
    PerceptronPlan made;
    EXPECT_TRUE(plan_gaussian_perceptron<float>(made, p, 10, samples, {limit, limit + 1024, 3}));
    EXPECT_LE(made.shared_bytes, limit);
    EXPECT_EQ(made.threads % (32 * made.teams), 0);
    return made;
  };
  const PerceptronPlan one = plan(1, 1 << 17), two = plan(10, 1 << 17);
  EXPECT_EQ(one.teams, 1);
  EXPECT_EQ(two.teams, 2);
  EXPECT_EQ(plan(10, two.shared_bytes).teams, 2);
  EXPECT_EQ(plan(10, two.shared_bytes - 1).teams, 1);
  EXPECT_EQ(plan(10, one.shared_bytes).shared_bytes, one.shared_bytes);
  PerceptronPlan none;
  EXPECT_FALSE(plan_gaussian_perceptron<float>(none, p, 10, 10,
                                               {one.shared_bytes - 1, one.shared_bytes + 1024, 3}));
}

/// The shared cases that the kernel can compute are verified, and it must be the kernel that
/// computes them.
class GaussianPerceptronSharedCase : public ::testing::TestWithParam<const char*> {};

TEST_P(GaussianPerceptronSharedCase, Agrees) {
  const fs::path folder = fs::path(KSHOT_SHARED_DIR) / "cases" / GetParam();
  if (!fs::exists(folder)) GTEST_SKIP() << "the shared cases are not here: " << folder;
  if (!emulated()) GTEST_SKIP() << "this build leaves the emulated CUDA backend out";
  for (const auto precision : {backend::Precision::f32, backend::Precision::f64}) {
    const auto before = simt::counters().kernels;
    const VerifyResult result = verify_case(folder, "simt", precision);
    // The remaining launches are outputs at the end, the mean over tasks and the hyper-prior. If
    // composed, the inner steps alone would be several hundred launches.
    EXPECT_LT(simt::counters().kernels - before, 100u);
    EXPECT_EQ(result.tolerance, precision == backend::Precision::f64 ? 1e-9 : 1e-4);
    EXPECT_FALSE(result.keys.empty());
    for (const VerifyKey& key : result.keys) {
      EXPECT_LE(key.error, result.tolerance) << key.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Abml, GaussianPerceptronSharedCase,
                         ::testing::Values("abml_mlp_classify_fixed_prior", "abml_mlp_regression",
                                           "abml_query_only_first_order", "abml_ragged_all_data"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace kshot::testing
