// Every layer and loss against numbers that are computed by hand. This anchors the central
// differences of network_test.cpp, which are taken of the reference backend's losses.
#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

using backend::Loss;
using backend::LossKind;
using backend::NormStatistics;
using backend::Scale;
using backend::Set;
using enum LayerType;

class LayersTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { backend_ = open_backend(GetParam()); }

  /// A network of convolutions, norm and activations. Where the larger one takes too long, the
  /// smaller one is used.
  std::shared_ptr<const Network> image_network() const {
    const std::vector<NamedNetwork> all = chosen_networks();
    const auto larger = named(all, "conv_stride_odd");
    return takes(*backend_, *larger) ? larger : named(all, "conv_tiny");
  }
  /// A problem with one task, whose support and query rows are `x` [rows, inputs].
  Problem one_task(Network network, const Loss& loss, const Numbers& x, const Numbers& targets) {
    Problem p;
    p.network = std::make_shared<const Network>(std::move(network));
    p.loss = loss;
    p.tasks = 1;
    const auto inputs = static_cast<std::size_t>(p.network->input().size());
    const bool label = loss.kind == LossKind::cross_entropy;
    TaskShape shape;
    shape.input = p.network->input();
    shape.outputs = p.network->outputs();
    shape.target = label ? TargetKind::label : TargetKind::value;
    shape.support = shape.query = static_cast<int>(x.size() / inputs);
    p.single = TaskBatch(shape, 1);
    p.twice = TaskBatch(shape, 1, true);
    p.single.support_x.assign(x.begin(), x.end());
    p.twice.support_x64 = x;
    p.single.support_value.assign(targets.begin(), targets.end());
    p.twice.support_value64 = targets;
    for (TaskBatch* b : {&p.single, &p.twice}) {
      b->support_n = b->query_n = {shape.support};
      if (label) b->support_label.assign(targets.begin(), targets.end());
      b->query_label = b->support_label;
      b->query_x = b->support_x;
      b->query_x64 = b->support_x64;
      b->query_value = b->support_value;
      b->query_value64 = b->support_value64;
    }
    return p;
  }
  /// The outputs of a network for the rows `x`.
  Numbers outputs(Network network, const Numbers& weights, const Numbers& x) {
    const auto inputs = static_cast<std::size_t>(network.input().size());
    const auto wide = static_cast<std::size_t>(network.outputs());
    const Problem p =
        one_task(std::move(network), {LossKind::mse}, x, Numbers(x.size() / inputs * wide, 0.0));
    Numbers result;
    Runner(*backend_, p).value(weights, Set::query, {}, NormStatistics::batch, &result);
    return result;
  }
  void expect_near(const Numbers& got, const Numbers& want) {
    EXPECT_TRUE(close_rows(got, want, want.size(), closed_form_tolerance(*backend_)));
  }

  std::unique_ptr<backend::Backend> backend_;
};

FeatureShape image(int c, int h, int w) {
  return {c, h, w, true};
}
FeatureShape vector(int d) {
  return {d, 1, 1, false};
}

TEST_P(LayersTest, Linear) {
  // The weight is [[1, 2, 3], [-4, 5, -6]] and the bias is [10, 20].
  const Network network(vector(3), {linear_layer(2)});
  const Numbers got = outputs(network, {1, 2, 3, -4, 5, -6, 10, 20}, {1, 1, 1, 2, 0, -1});
  expect_near(got, {16, 15, 9, 18});
}

TEST_P(LayersTest, Activations) {
  // The activation follows an identity, because a network needs weights.
  const Numbers identity = {1, 0, 0, 1, 0, 0};
  const auto through = [&](LayerType type) {
    return outputs(Network(vector(2), {linear_layer(2), layer(type)}), identity, {-2, 3, 0.5, 0});
  };
  expect_near(through(relu), {0, 3, 0.5, 0});
  expect_near(through(leaky_relu), {-0.02, 3, 0.5, 0});
  expect_near(through(tanh), {std::tanh(-2.0), std::tanh(3.0), std::tanh(0.5), 0});
}

TEST_P(LayersTest, ConvolutionWithoutPadding) {
  // A 3x3 image and the kernel [[1, 2], [3, 4]] (correlation: the kernel is not flipped), with bias
  // 10.
  const Network network(image(1, 3, 3), {conv_layer(1, 2, 1, 0), layer(flatten)});
  expect_near(outputs(network, {1, 2, 3, 4, 10}, {1, 2, 3, 4, 5, 6, 7, 8, 9}), {47, 57, 77, 87});
}

TEST_P(LayersTest, ConvolutionWithStrideAndPadding) {
  // A 3x3 kernel of ones at stride 2 and padding 1 sums the neighbourhoods of the four corners.
  const Network network(image(1, 3, 3), {conv_layer(1, 3, 2, 1), layer(flatten)});
  Numbers weights(10, 1.0);
  weights[9] = 0.0;
  expect_near(outputs(network, weights, {1, 2, 3, 4, 5, 6, 7, 8, 9}), {12, 16, 24, 28});
}

TEST_P(LayersTest, ConvolutionOverChannels) {
  // Two input and two output channels with a pointwise kernel: weight [O, I] = [[1, 10], [100,
  // 1000]].
  const Network network(image(2, 1, 2), {conv_layer(2, 1, 1, 0), layer(flatten)});
  expect_near(outputs(network, {1, 10, 100, 1000, 0.5, 0.25}, {1, 2, 3, 4}),
              {31.5, 42.5, 3100.25, 4200.25});
}

TEST_P(LayersTest, MaxPoolDropsWhatDoesNotFill) {
  // A 5x3 image through a pointwise identity. Windows of 2 leave out the last row and column.
  const Network network(image(1, 5, 3), {conv_layer(1, 1, 1, 0), pool_layer(2), layer(flatten)});
  expect_near(outputs(network, {1, 0}, {1, 2, 99, 4, 3, 99, -5, -6, 99, -7, -8, 99, 99, 99, 99}),
              {4, -5});
}

TEST_P(LayersTest, MaxPoolTieGoesToTheFirst) {
  // y = w1 x1 + w2 x2 at w = (1, 1). Both pixels of the window give 1. The first one gets it from
  // x1.
  const Network network(image(2, 2, 2), {conv_layer(1, 1, 1, 0), pool_layer(2), layer(flatten)});
  const Problem p = one_task(network, {LossKind::mse}, {1, 0, 0, 0, /*x2:*/ 0, 1, 0, 0}, {0.0});
  const Numbers g = Runner(*backend_, p).gradient({1, 1, 0}, Set::support, {});
  expect_near(g, {2, 0, 2});  // d (y^2) = 2 y dy
}

TEST_P(LayersTest, MeanAndFlattenOrder) {
  const Numbers x = {1, 2, 3, 4, 10, 20, 30, 40};
  const Numbers identity = {1, 0, 0, 1, 0, 0};
  expect_near(outputs(Network(image(2, 2, 2), {conv_layer(2, 1, 1, 0), layer(mean)}), identity, x),
              {2.5, 25});
  expect_near(
      outputs(Network(image(2, 2, 2), {conv_layer(2, 1, 1, 0), layer(flatten)}), identity, x), x);
}

TEST_P(LayersTest, NormOfVectorsIsOverTheBatch) {
  // Per feature: {1, 3} has mean 2 and biased variance 1, and {0, 8} has mean 4 and biased variance
  // 16.
  const Network network(vector(2), {layer(norm)});
  const double a = 1.0 / std::sqrt(1.0 + 1e-5), b = 4.0 / std::sqrt(16.0 + 1e-5);
  expect_near(outputs(network, {2, 1, 0.5, -1}, {1, 0, 3, 8}),
              {-2 * a + 0.5, -b - 1, 2 * a + 0.5, b - 1});
}

TEST_P(LayersTest, NormOfImagesIsOverBatchAndPositions) {
  // One channel and two 1x2 images: {0, 2, 4, 6} has mean 3 and biased variance 5.
  const Network network(image(1, 1, 2), {layer(norm), layer(flatten)});
  const double d = std::sqrt(5.0 + 1e-5);
  expect_near(outputs(network, {1, 0}, {0, 2, 4, 6}), {-3 / d, -1 / d, 1 / d, 3 / d});
}

TEST_P(LayersTest, NormWithTheStatisticsOfTheSupportSet) {
  const Network network(vector(1), {layer(norm)});
  Problem p = one_task(network, {LossKind::mse}, {1, 3}, {0, 0});
  p.single.query_x = {5, -2};
  p.twice.query_x64 = {5, -2};
  Numbers got;
  Runner(*backend_, p).value({1, 0}, Set::query, {}, NormStatistics::support, &got);
  const double d = std::sqrt(1.0 + 1e-5);
  expect_near(got, {3 / d, -4 / d});
}

TEST_P(LayersTest, ReluHasNoDerivativeAtZero) {
  // The weights are zero, so that every activation is exactly 0.
  const Network network(vector(1), {linear_layer(1), layer(relu), linear_layer(1)});
  const Problem p = one_task(network, {LossKind::mse}, {1}, {-1});
  const Numbers g = Runner(*backend_, p).gradient({0, 0, 1, 0}, Set::support, {});
  expect_near(g, {0, 0, 0, 2});
}

TEST_P(LayersTest, Losses) {
  Numbers identity = {1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0};
  const Network network(vector(3), {linear_layer(3)});
  const auto loss = [&](const Loss& kind, const Numbers& x, const Numbers& targets) {
    const Problem p = one_task(network, kind, x, targets);
    return Runner(*backend_, p).value(identity, Set::support, {});
  };
  expect_near(loss({LossKind::cross_entropy}, {1, 2, 3}, {0}),
              {std::log(std::exp(1.0) + std::exp(2.0) + std::exp(3.0)) - 1.0});
  // Large logits must neither overflow nor lose the small ones.
  expect_near(loss({LossKind::cross_entropy}, {1000, 998, -1000}, {1}),
              {2.0 + std::log1p(std::exp(-2.0))});
  expect_near(loss({LossKind::mse}, {1, 2, 3}, {0, 4, 3}), {5.0 / 3.0});
  const double s = 0.5;
  expect_near(loss({LossKind::gaussian_nll, s}, {1, 2, 3}, {0, 4, 3}),
              {5.0 / (2.0 * s * s) + 3.0 * (std::log(s) + 0.5 * std::log(2.0 * M_PI))});
}

TEST_P(LayersTest, ScalesDivideByATasksOwnRows) {
  Problem p = make_problem(std::make_shared<const Network>(Network::mlp({2, 3, 2}, tanh)),
                           LossKind::mse, 5, 1);
  Runner runner(*backend_, p);
  const auto counts = [&](int t, Scale::By by) {
    const double s = p.single.support_n[static_cast<std::size_t>(t)];
    const double q = p.single.query_n[static_cast<std::size_t>(t)];
    return by == Scale::By::one       ? 1.0
           : by == Scale::By::support ? s
           : by == Scale::By::query   ? q
                                      : s + q;
  };
  for (const Set set : {Set::support, Set::query, Set::all}) {
    const Numbers sum = runner.value(p.weights, set, {1.0, Scale::By::one});
    const Numbers sum_gradient = runner.gradient(p.weights, set, {1.0, Scale::By::one});
    for (const Scale::By by :
         {Scale::By::one, Scale::By::support, Scale::By::query, Scale::By::all}) {
      const Numbers got = runner.value(p.weights, set, {2.5, by});
      const Numbers gradient = runner.gradient(p.weights, set, {2.5, by});
      Numbers want = sum, want_gradient = sum_gradient;
      for (int t = 0; t < p.tasks; ++t) {
        want[static_cast<std::size_t>(t)] *= 2.5 / counts(t, by);
        for (std::size_t i = 0; i < p.width(); ++i) {
          want_gradient[static_cast<std::size_t>(t) * p.width() + i] *= 2.5 / counts(t, by);
        }
      }
      EXPECT_TRUE(close_rows(got, want, 1, closed_form_tolerance(*backend_)));
      EXPECT_TRUE(close_rows(gradient, want_gradient, p.width(), closed_form_tolerance(*backend_)));
    }
  }
}

TEST_P(LayersTest, AccumulateAddsAndLossAdds) {
  const Problem p = make_problem(image_network(), LossKind::cross_entropy, 3, 1);
  Runner runner(*backend_, p);
  backend::Wave& wave = runner.wave();
  RandomStream random = stream(5, 5);
  const Numbers start = normals(random, p.weights.size());
  const Numbers direction = normals(random, p.weights.size());
  const Numbers g = runner.gradient(p.weights, Set::query, {1.0, Scale::By::query});
  const Numbers hv =
      runner.hessian_vector(p.weights, direction, Set::query, {1.0, Scale::By::query});
  const Numbers loss = runner.value(p.weights, Set::query, {1.0, Scale::By::query});
  const backend::Block weights = wave.weights(), to = wave.weights(), v = wave.weights(),
                       sum = wave.block(1);
  Numbers got_g, got_hv, got_loss;
  runner.for_each_wave([&](int) {
    const backend::Wave::Pass pass{Set::query, weights, {1.0, Scale::By::query}};
    runner.put(weights, p.weights);
    runner.put(v, direction);
    runner.put(to, start);
    wave.fill(sum, 4.0);
    wave.gradient(pass, to, true, sum);
    runner.take(to, p.width(), got_g);
    runner.take(sum, 1, got_loss);
    runner.put(to, start);
    wave.hessian_vector(pass, v, to, true, {});
    runner.take(to, p.width(), got_hv);
  });
  Numbers want_g = start, want_hv = start, want_loss(loss.size(), 4.0);
  for (std::size_t i = 0; i < start.size(); ++i) {
    want_g[i] += g[i];
    want_hv[i] += hv[i];
  }
  for (std::size_t t = 0; t < loss.size(); ++t) want_loss[t] += loss[t];
  const double tolerance = closed_form_tolerance(*backend_);
  EXPECT_TRUE(close_rows(got_g, want_g, p.width(), tolerance));
  EXPECT_TRUE(close_rows(got_hv, want_hv, p.width(), tolerance));
  EXPECT_TRUE(close_rows(got_loss, want_loss, 1, tolerance));
}

TEST_P(LayersTest, SupportStatisticsMakeAQueryIndependentOfItsCompany) {
  // A query row alone must give the same outputs as among the other rows.
  const Problem all = make_problem(image_network(), LossKind::mse, 1, 7, {3, 5, 6});
  Numbers together;
  Runner(*backend_, all).value(all.weights, Set::query, {}, NormStatistics::support, &together);
  const auto inputs = static_cast<std::size_t>(all.network->input().size());
  const auto wide = static_cast<std::size_t>(all.network->outputs());
  for (std::size_t row = 0; row < 6; ++row) {
    Problem alone = all;
    for (TaskBatch* b : {&alone.single, &alone.twice}) b->query_n = {1};
    const auto move = [&](auto& x) {
      if (!x.empty())
        std::copy_n(x.begin() + static_cast<std::ptrdiff_t>(row * inputs), inputs, x.begin());
    };
    move(alone.single.query_x);
    move(alone.twice.query_x64);
    Numbers got;
    Runner(*backend_, alone).value(alone.weights, Set::query, {}, NormStatistics::support, &got);
    const Numbers want(together.begin() + static_cast<std::ptrdiff_t>(row * wide),
                       together.begin() + static_cast<std::ptrdiff_t>((row + 1) * wide));
    expect_near({got.begin(), got.begin() + static_cast<std::ptrdiff_t>(wide)}, want);
    // The outputs beyond the task's own rows are zero.
    EXPECT_TRUE(std::all_of(got.begin() + static_cast<std::ptrdiff_t>(wide), got.end(),
                            [](double y) { return y == 0.0; }));
  }
}

TEST_P(LayersTest, FloatAndDoubleBatchesAreTheSameTasks) {
  for (const auto& network : {named(chosen_networks(), "mlp_relu"), image_network()}) {
    const Problem p = make_problem(network, LossKind::mse, 3, 2);
    Problem other = p;
    std::swap(other.single, other.twice);
    EXPECT_EQ(Runner(*backend_, p).gradient(p.weights, Set::all, {}),
              Runner(*backend_, other).gradient(p.weights, Set::all, {}));
  }
}

TEST_P(LayersTest, ATaskDoesNotDependOnItsWave) {
  // A task gives the same bits as the first of many and alone.
  for (const NamedNetwork& named : chosen_networks()) {
    if (!takes(*backend_, *named.network)) continue;
    SCOPED_TRACE(named.name);
    const Problem p = make_problem(named.network, LossKind::cross_entropy, 7, 3);
    Runner runner(*backend_, p);
    const Numbers together = runner.gradient(p.weights, Set::all, {});
    backend::Wave& wave = runner.wave();
    const backend::Block weights = wave.weights(), to = wave.weights();
    for (int t = 0; t < p.tasks; ++t) {
      wave.load(p.batch(*backend_), t, 1, static_cast<std::uint32_t>(t));
      wave.upload(weights, p.weights.data(), p.width());
      wave.gradient({Set::all, weights, {}}, to, false, {});
      Numbers alone(p.width());
      wave.download(to, alone);
      const auto at = together.begin() +
                      static_cast<std::ptrdiff_t>(t) * static_cast<std::ptrdiff_t>(p.width());
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), at)) << "task " << t;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, LayersTest, ::testing::ValuesIn(backend_names()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace kshot::testing
