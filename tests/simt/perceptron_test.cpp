// kernels/perceptron.cu, called by the backend's operation on the emulator: a whole inner loop with
// its gradients in one launch. It is compared with a composition in double of the reference
// backend's gradients and Hessian-vector products. tests/backend compares those with central
// differences.
#include "kernels/perceptron.h"

#include <gtest/gtest.h>

#include "algorithms/algorithm.h"
#include "simt/orders.h"
#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

using backend::LossKind;
using backend::Rate;
using backend::Scale;
using backend::Set;

struct Case {
  std::string name;
  std::shared_ptr<const Network> network;
  LossKind loss = LossKind::mse;
  int steps = 2;
  bool second_order = true;
  int vectors = 0;  ///< vectors of rates; 0: one number for all weights
  bool rate_gradients = false;
  Rows rows = {};
  Set set = Set::support;
  int tasks = 2;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

std::shared_ptr<const Network> mlp(const std::vector<int>& layers, LayerType activation) {
  return std::make_shared<const Network>(Network::mlp(layers, activation));
}

std::vector<Case> cases() {
  using enum LayerType;
  std::vector<Case> list;
  const auto add = [&](const std::string& name, std::shared_ptr<const Network> network,
                       LossKind loss) -> Case& {
    list.push_back({name, std::move(network), loss});
    return list.back();
  };
  const auto sine = [] { return mlp({1, 40, 40, 1}, relu); };
  add("sinusoid", sine(), LossKind::mse).rows = {10, 10, 10};
  {
    Case& c = add("sinusoid_rates", sine(), LossKind::gaussian_nll);
    c.rows = {4, 10, 7};
    c.vectors = 1;
    c.rate_gradients = true;
  }
  {
    Case& c = add("tanh_all_rows", mlp({3, 44, 37, 2}, tanh), LossKind::mse);
    c.rows = {1, 8, 6};
    c.set = Set::all;
    c.vectors = 2;
    c.rate_gradients = true;
    c.steps = 3;
  }
  {  // more than one tile in every direction, and more warps
    Case& c = add("wide", mlp({21, 50, 43, 5}, leaky_relu), LossKind::cross_entropy);
    c.rows = {11, 13, 12};
    c.tasks = 1;
    c.steps = 1;
  }
  {  // consecutive layers of the usual width, with two tiles for a set's rows
    Case& c = add("deep", mlp({1, 40, 40, 40, 1}, relu), LossKind::mse);
    c.rows = {20, 20, 20};
    c.tasks = 1;
  }
  {  // more tasks than a wave holds
    Case& c = add("few_rows", mlp({5, 8, 6, 3}, tanh), LossKind::cross_entropy);
    c.rows = {1, 5, 3};
    c.tasks = 19;
    c.steps = 3;
  }
  {
    Case& c = add("first_order", mlp({4, 21, 3}, tanh), LossKind::gaussian_nll);
    c.second_order = false;
  }
  {
    Case& c = add("first_order_rates", mlp({4, 21, 3}, tanh), LossKind::mse);
    c.second_order = false;
    c.vectors = 1;
    c.rate_gradients = true;
  }
  {
    Case& c = add("rate_gradients_of_numbers", mlp({4, 13, 3}, relu), LossKind::mse);
    c.rate_gradients = true;
    c.steps = 3;
  }
  add("softmax_head", mlp({33, 5}, relu), LossKind::cross_entropy).steps = 4;
  add("no_steps", mlp({2, 6, 2}, relu), LossKind::mse).steps = 0;
  LayerSpec no_bias = linear_layer(6);
  no_bias.bias = false;
  add("ends_activated",
      std::make_shared<const Network>(FeatureShape{3, 1, 1, false},
                                      std::vector<LayerSpec>{no_bias, layer(tanh), linear_layer(4),
                                                             linear_layer(3), layer(tanh)}),
      LossKind::gaussian_nll);
  return list;
}

struct Result {
  Numbers end, gradient, loss;
  std::vector<Numbers> rates;
};

constexpr double number = 0.0625;

/// The same algorithm on the reference backend.
Result composed(const Case& c, const Problem& problem, const Numbers& start,
                const std::vector<Numbers>& rates) {
  const auto reference = open_backend("reference");
  Runner runner(*reference, problem);
  const std::size_t width = problem.width(), all = start.size();
  const auto slot = [](int k, std::size_t count) {
    return std::min(static_cast<std::size_t>(k), count - 1);
  };
  const auto rate = [&](int k, std::size_t i) {
    return rates.empty() ? number : rates[slot(k, rates.size())][i % width];
  };
  const Scale inner{0.7, c.set == Set::all ? Scale::By::all : Scale::By::support};
  std::vector<Numbers> iterates = {start};
  for (int k = 0; k < c.steps; ++k) {
    Numbers next = iterates.back();
    const Numbers g = runner.gradient(next, c.set, inner);
    for (std::size_t i = 0; i < all; ++i) next[i] -= rate(k, i) * g[i];
    iterates.push_back(next);
  }
  Result r;
  r.end = iterates.back();
  r.gradient = runner.gradient(r.end, Set::query, {1.5, Scale::By::query}, &r.loss);
  if (c.rate_gradients) r.rates.assign(rates.empty() ? 1 : rates.size(), Numbers(all, 0.0));
  for (int k = c.steps - 1; k >= 0; --k) {
    const Numbers& at = iterates[static_cast<std::size_t>(k)];
    Numbers scaled = r.gradient, g;
    for (std::size_t i = 0; i < all; ++i) scaled[i] *= rate(k, i);
    const Numbers h = runner.hessian_vector(at, scaled, c.set, inner, &g);
    for (std::size_t i = 0; i < all; ++i) {
      if (c.rate_gradients) r.rates[slot(k, r.rates.size())][i] -= r.gradient[i] * g[i];
      if (c.second_order) r.gradient[i] -= h[i];
    }
  }
  return r;
}

/// The fused operation on the emulator, in one launch.
Result fused(const Case& c, const Problem& problem, const Numbers& start,
             const std::vector<Numbers>& rates, backend::Backend& backend) {
  const std::size_t width = problem.width();
  Runner runner(backend, problem);
  backend::Wave& wave = runner.wave();
  const backend::Shared theta = backend.shared(width);
  theta->upload(std::span(start).first(width));
  std::vector<backend::Shared> vectors;
  std::vector<Rate> plan;
  for (const Numbers& values : rates) {
    vectors.push_back(backend.shared(width));
    vectors.back()->upload(values);
    plan.push_back({99.0, vectors.back().get()});
  }
  if (rates.empty()) plan.push_back({number, nullptr});
  std::vector<backend::Block> of_rates;
  if (c.rate_gradients) {
    for (std::size_t i = 0; i < plan.size(); ++i) of_rates.push_back(wave.weights());
  }
  backend::Descent descent;
  descent.set = c.set;
  descent.scale = {0.7, c.set == Set::all ? Scale::By::all : Scale::By::support};
  descent.start = theta.get();
  descent.rates = plan;
  descent.steps = c.steps;
  descent.second_order = c.second_order;
  descent.outer = {Set::query, {}, {1.5, Scale::By::query}};
  descent.end = wave.weights();
  descent.gradient = wave.weights();
  descent.loss = wave.block(1);
  descent.rate_gradients = of_rates;
  Result r;
  r.rates.resize(of_rates.size());
  runner.for_each_wave([&](int) {
    wave.fill(descent.loss, 0.0);
    const auto before = simt::counters().kernels;
    ASSERT_TRUE(wave.fused_descent()->run(descent));
    ASSERT_EQ(simt::counters().kernels - before, 1u) << "one launch";
    runner.take(descent.end, width, r.end);
    runner.take(descent.gradient, width, r.gradient);
    runner.take(descent.loss, 1, r.loss);
    for (std::size_t i = 0; i < of_rates.size(); ++i) runner.take(of_rates[i], width, r.rates[i]);
  });
  return r;
}

class PerceptronTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const auto devices = backend::list_devices();
    if (std::ranges::none_of(devices, [](const auto& d) { return d.name == "simt"; })) {
      GTEST_SKIP() << "this build leaves the emulated CUDA backend out";
    }
  }
};

TEST_P(PerceptronTest, IsTheCompositionInEveryOrderOfThreads) {
  const Case& c = GetParam();
  const Problem problem = make_problem(c.network, c.loss, c.tasks, 5, c.rows);
  const std::size_t width = problem.width();
  RandomStream random = stream(7, 3);
  Numbers start;
  for (int t = 0; t < c.tasks; ++t) {
    start.insert(start.end(), problem.weights.begin(),
                 problem.weights.begin() + static_cast<std::ptrdiff_t>(width));
  }
  std::vector<Numbers> rates(static_cast<std::size_t>(c.vectors));
  for (Numbers& values : rates) {
    values = normals(random, width, 0.1);
    for (std::size_t i = 0; i < width; i += 3) values[i] = 0.0;  // masked weights
  }
  const Result want = composed(c, problem, start, rates);
  for (const simt::Settings& order : simt::all_orders()) {
    const simt::With with(order);
    for (const std::string precision : {"f64", "f32"}) {
      SCOPED_TRACE(precision + ", order " + std::to_string(static_cast<int>(order.order)));
      const auto backend = open_backend("simt_" + precision);
      const Result got = fused(c, problem, start, rates, *backend);
      // The difference is rounding alone, through up to three steps: about a hundred units in the
      // last place.
      const double tolerance = precision == "f64" ? 1e-12 : 2e-4;
      EXPECT_TRUE(close_rows(got.end, want.end, width, tolerance));
      EXPECT_TRUE(close_rows(got.gradient, want.gradient, width, tolerance));
      EXPECT_TRUE(close_rows(got.loss, want.loss, 1, tolerance));
      ASSERT_EQ(got.rates.size(), want.rates.size());
      for (std::size_t i = 0; i < got.rates.size(); ++i) {
        EXPECT_TRUE(close_rows(got.rates[i], want.rates[i], width, tolerance)) << "rates " << i;
      }
      if (HasFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, PerceptronTest, ::testing::ValuesIn(cases()),
                         [](const auto& param) { return param.param.name; });

TEST(PerceptronPath, WhatItDoesNotTakeIsLeftToTheCaller) {
  const auto devices = backend::list_devices();
  if (std::ranges::none_of(devices, [](const auto& d) { return d.name == "simt"; })) {
    GTEST_SKIP() << "this build leaves the emulated CUDA backend out";
  }
  const auto backend = open_backend("simt_f32");
  const auto takes = [&](const Network& network) {
    const auto shared = std::make_shared<const Network>(network);
    const auto wave = backend->open(shared, {LossKind::mse}, {2, 2, false});
    const backend::Shared theta = backend->shared(network.size());
    const Rate rate{0.1, nullptr};
    backend::Descent descent;
    descent.start = theta.get();
    descent.rates = {&rate, 1};
    descent.outer = {Set::query, {}, {}};
    descent.gradient = wave->weights();
    return wave->fused_descent() != nullptr && wave->fused_descent()->run(descent);
  };
  EXPECT_TRUE(takes(Network::mlp({2, 4, 1}, LayerType::relu)));
  EXPECT_FALSE(takes(Network::mlp({2, 400, 400, 1}, LayerType::relu))) << "shared memory";
  EXPECT_FALSE(takes(Network::mlp({2, 2, 2, 2, 2, 2, 2, 2, 2}, LayerType::relu))) << "layers";
  EXPECT_FALSE(takes(Network({3, 1, 1, false}, {layer(LayerType::norm), linear_layer(2)})));
  EXPECT_FALSE(takes(Network({3, 1, 1, false}, {layer(LayerType::tanh), linear_layer(2)})));
}

// The kernel decides by the sign of relu's output whether a tangent passes. At exactly 0 it passes.
TEST(PerceptronPath, TangentsAtZeroAreTheReferences) {
  const auto devices = backend::list_devices();
  if (std::ranges::none_of(devices, [](const auto& d) { return d.name == "simt"; })) {
    GTEST_SKIP() << "this build leaves the emulated CUDA backend out";
  }
  for (const LayerType type : {LayerType::relu, LayerType::leaky_relu}) {
    const Problem problem = make_problem(mlp({1, 40, 40, 1}, type), LossKind::mse, 1, 5);
    const std::size_t width = problem.width();
    Numbers at(problem.weights.begin(),
               problem.weights.begin() + static_cast<std::ptrdiff_t>(width));
    // Every third unit of the first layer is 0 for all inputs, because its weight and its bias are
    // 0.
    for (std::size_t i = 0; i < 40; i += 3) at[i] = at[40 + i] = 0.0;
    RandomStream random = stream(7, 4);
    const Numbers along = normals(random, width, 1.0);
    const auto reference = open_backend("reference");
    const Numbers want =
        Runner(*reference, problem).hessian_vector(at, along, Set::support, {1.0, Scale::By::one});
    const auto backend = open_backend("simt_f64");
    Runner runner(*backend, problem);
    EXPECT_TRUE(close_rows(runner.hessian_vector(at, along, Set::support, {1.0, Scale::By::one}),
                           want, width, 1e-12));
  }
}

TEST(PerceptronPath, AMetaGradientIsOneLaunch) {
  const auto devices = backend::list_devices();
  if (std::ranges::none_of(devices, [](const auto& d) { return d.name == "simt"; })) {
    GTEST_SKIP() << "this build leaves the emulated CUDA backend out";
  }
  for (const AlgorithmKind kind : {AlgorithmKind::maml, AlgorithmKind::meta_sgd}) {
    Config config;
    config.algorithm = kind;
    config.inner.steps = 3;
    config.loss.type = LossType::mse;
    const Problem problem = make_problem(mlp({1, 8, 8, 1}, LayerType::relu), LossKind::mse, 3, 5);
    const auto backend = open_backend("simt_f32");
    const auto algorithm = make_algorithm(config, problem.network);
    std::vector<backend::Shared> parameters;
    for (const ParameterGroup& group : algorithm->groups()) {
      parameters.push_back(backend->shared(group.size));
    }
    algorithm->prepare(*backend, parameters, {});
    const TaskBatch& batch = problem.batch(*backend);
    const auto program = algorithm->open(*backend, batch.shape());
    program->wave().load(batch, 0, problem.tasks, 0);
    const auto before = simt::counters().kernels;
    program->meta_gradient({});
    // The second launch sets the loss to zero. A composition has several launches per layer and
    // step.
    EXPECT_LE(simt::counters().kernels - before, 2u);
  }
}

}  // namespace
}  // namespace kshot::testing
