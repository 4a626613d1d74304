// Vectors that all tasks share: their algebra, the hyper-prior, the step statistics, and one step
// of each optimizer, on every backend. Also the names of backends.
#include <gmock/gmock.h>

#include <cmath>
#include <functional>
#include <limits>
#include <thread>

#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

using backend::OptimizerStep;
using backend::Shared;
using backend::StepRule;
using backend::StepStatistics;
using backend::StepStatus;
using backend::Sum;
using ::testing::HasSubstr;

class SharedVectorTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { backend_ = open_backend(GetParam()); }
  Shared vector(const Numbers& values) {
    const Shared v = backend_->shared(values.size());
    v->upload(values);
    return v;
  }
  static Numbers values(const Shared& v) {
    Numbers x(v->size());
    v->download(x);
    return x;
  }
  void expect_close(const Shared& got, const Numbers& want) {
    EXPECT_TRUE(close_rows(values(got), want, want.size(), closed_form_tolerance(*backend_)));
  }
  std::unique_ptr<backend::Backend> backend_;
};

TEST_P(SharedVectorTest, ASnapshotKeepsWhatTheVectorWas) {
  std::function<std::vector<double>()> first, second;
  {
    const Shared a = vector({1, -2, 3.5}), b = vector({4, 0.5, -1});
    first = a->snapshot();
    backend_->add(*a, 2.0, *b);
    second = a->snapshot();
    a->upload(Numbers{0, 0, 0});
  }
  Numbers other;
  std::thread([&] { other = second(); }).join();
  EXPECT_EQ(other, (Numbers{9, -1, 1.5}));
  EXPECT_EQ(first(), (Numbers{1, -2, 3.5}));
}

TEST_P(SharedVectorTest, Algebra) {
  const Shared a = vector({1, -2, 3.5}), b = vector({4, 0.5, -1});
  EXPECT_EQ(a->size(), 3u);
  EXPECT_EQ(values(a), (Numbers{1, -2, 3.5}));
  EXPECT_EQ(values(backend_->shared(2)), Numbers(2, 0.0));
  backend_->add(*a, 0.5, *b);
  expect_close(a, {3, -1.75, 3});
  backend_->multiply(*a, *b);
  expect_close(a, {12, -0.875, -3});
  backend_->exponential(*a, *b);
  expect_close(a, {std::exp(4.0), std::exp(0.5), std::exp(-1.0)});
  backend_->assign(*a, *b);
  expect_close(a, {4, 0.5, -1});
  const auto squared_norm = [&](double clip) {
    return backend_->value([&](Sum to) { backend_->squared_norm(*a, clip, to); });
  };
  EXPECT_NEAR(squared_norm(0.0), 17.25, 1e-6);
  EXPECT_NEAR(squared_norm(0.75), 0.5625 + 0.25 + 0.5625, 1e-6);
}

TEST_P(SharedVectorTest, ClipsByValueThenEachSegmentByNorm) {
  const Shared v = vector({3, -4, 0.5, 9, -9});
  const backend::Backend::Segment segments[] = {{0, 3}, {3, 2}};
  // After clipping to +-4, (3, -4, 0.5) has norm sqrt(25.25) and (4, -4) has norm sqrt(32).
  backend_->clip(*v, 4.0, 2.0, segments);
  const double first = 2.0 / std::sqrt(25.25), second = 2.0 / std::sqrt(32.0);
  expect_close(v, {3 * first, -4 * first, 0.5 * first, 4 * second, -4 * second});
  const Shared small = vector({0.1, -0.2, 0, 7, 1});
  backend_->clip(*small, 0.0, 8.0, segments);
  expect_close(small, {0.1, -0.2, 0, 7, 1});
}

TEST_P(SharedVectorTest, OrthogonalityOfColumns) {
  // The columns are (1, 0, 0) and (1, 1, 0). Their cosine is 1/sqrt(2), so that the mean over four
  // pairs is 2 * 0.5 / 4.
  const Shared v = vector({9, 1, 1, 0, 1, 0, 0});
  const Shared g = vector({0, 0, 0, 0, 0, 0, 0});
  EXPECT_NEAR(
      backend_->value([&](Sum to) { backend_->column_orthogonality(*v, 1, 3, 2, 8.0, *g, to); }),
      8.0 * 0.25, 1e-6);
  // The derivative of 4 cos^2 by a is 8 cos (n_b - cos n_a) / |a|.
  const double c = std::sqrt(0.5);
  expect_close(g, {0, 8 * c * (c - c * 1.0), 8 * c * (1.0 - c * c) / std::sqrt(2.0), 8 * c * c,
                   8 * c * (0.0 - c * c) / std::sqrt(2.0), 0, 0});
}

TEST_P(SharedVectorTest, GatherAndItsTranspose) {
  const std::vector<std::uint32_t> index = {2, 0, 2, 1};
  const Shared wide = backend_->shared(4);
  backend_->gather(*wide, *vector({10, 20, 30}), index);
  expect_close(wide, {30, 10, 30, 20});
  const Shared narrow = vector({7, 7, 7});
  backend_->scatter_add(*narrow, *vector({1, 2, 4, 8}), index);
  expect_close(narrow, {2, 8, 5});
  backend_->scatter_add(*narrow, *vector({1, 2, 4, 8}), index, true);
  expect_close(narrow, {4, 16, 10});
}

TEST_P(SharedVectorTest, L2PenaltyOfSegments) {
  const Shared v = vector({3, -4, 0.5, 9, -9}), g = vector({1, 1, 1, 1, 1});
  const backend::Backend::Segment segments[] = {{0, 2}, {4, 1}};
  EXPECT_NEAR(backend_->value([&](Sum to) { backend_->l2_penalty(*v, segments, 0.5, *g, to); }),
              0.25 * (9 + 16 + 81), 1e-5);
  expect_close(g, {2.5, -1, 1, 1, -3.5});
}

TEST_P(SharedVectorTest, HyperPriorAndItsGradient) {
  const double a0 = 2.5, b0 = 0.2, weight = 0.3;
  const Numbers mu = {0.5, -1.25}, s = {-1, 0.25};
  const auto value = [&](const Numbers& m, const Numbers& l) {
    double sum = 0.0;
    for (std::size_t i = 0; i < m.size(); ++i) {
      const double tau = std::exp(-2.0 * l[i]);
      sum += m[i] * m[i] / 2.0 - ((a0 - 1.0) * std::log(tau) - b0 * tau);
    }
    return weight * sum;
  };
  const Shared g_mu = vector({1, 2}), g_s = vector({3, 4});
  const double got = backend_->value([&](Sum to) {
    backend_->hyper_prior(*vector(mu), *vector(s), a0, b0, weight, *g_mu, *g_s, to);
  });
  EXPECT_NEAR(got, value(mu, s), 1e-6);
  Numbers want_mu = {1, 2}, want_s = {3, 4};
  const double h = 1e-5;
  for (std::size_t i = 0; i < 2; ++i) {
    Numbers up = mu, down = mu;
    up[i] += h;
    down[i] -= h;
    want_mu[i] += (value(up, s) - value(down, s)) / (2 * h);
    up = down = s;
    up[i] += h;
    down[i] -= h;
    want_s[i] += (value(mu, up) - value(mu, down)) / (2 * h);
  }
  EXPECT_TRUE(close_rows(values(g_mu), want_mu, 2, 1e-6));
  EXPECT_TRUE(close_rows(values(g_s), want_s, 2, 1e-6));
}

TEST_P(SharedVectorTest, SgdWithMomentum) {
  const Shared p = vector({1, -1}), m = vector({0, 0});
  OptimizerStep step;
  step.kind = OptimizerStep::Kind::sgd;
  step.learning_rate = 0.5;
  step.momentum = 0.75;
  backend_->optimizer_step(*p, *vector({2, 4}), *m, nullptr, step);
  expect_close(p, {0, -3});
  backend_->optimizer_step(*p, *vector({1, 0}), *m, nullptr, step);
  expect_close(m, {2.5, 3});  // 0.75 * (2, 4) + (1, 0)
  expect_close(p, {-1.25, -4.5});
}

TEST_P(SharedVectorTest, Adam) {
  // Kingma & Ba, algorithm 1, over three steps.
  OptimizerStep step;
  step.learning_rate = 0.01;
  const std::vector<Numbers> gradients = {{0.5, -3}, {-0.25, 1}, {2, 0.125}};
  Numbers want = {1, 2};
  double m1[2] = {}, m2[2] = {};
  const Shared p = vector(want), m = vector({0, 0}), v = vector({0, 0});
  for (std::size_t t = 1; t <= gradients.size(); ++t) {
    step.step = t;
    backend_->optimizer_step(*p, *vector(gradients[t - 1]), *m, v.get(), step);
    for (std::size_t i = 0; i < 2; ++i) {
      const double g = gradients[t - 1][i];
      m1[i] = 0.9 * m1[i] + 0.1 * g;
      m2[i] = 0.999 * m2[i] + 0.001 * g * g;
      want[i] -= 0.01 * (m1[i] / (1 - std::pow(0.9, t))) /
                 (std::sqrt(m2[i] / (1 - std::pow(0.999, t))) + 1e-8);
    }
    expect_close(p, want);
  }
  expect_close(m, {m1[0], m1[1]});
}

TEST_P(SharedVectorTest, ClippingFactorAndDecay) {
  // The order is clipping by value, clipping by norm, then decay: x = 0.5 clip(g) + 0.25 p.
  OptimizerStep step;
  step.kind = OptimizerStep::Kind::sgd;
  step.momentum = 0.0;
  step.learning_rate = 1.0;
  step.clip_value = 3.0;
  step.clip_norm = 0.5 * std::sqrt(9.0 + 4.0 + 9.0);
  step.weight_decay = 0.25;
  const Shared p = vector({4, 4, -4}), m = vector({0, 0, 0}), g = vector({10, 2, -10});
  const auto of = backend_->open_step();
  step.training_step = of.get();
  of->clear();
  backend_->squared_norm(*g, step.clip_value, {*of, &StepStatistics::clipped_squares});
  backend_->optimizer_step(*p, *g, *m, nullptr, step);
  expect_close(p, {4 - 1.5 - 1, 4 - 1 - 1, -4 + 1.5 + 1});
}

// ---- the statistics of a step, and its status ----

TEST_P(SharedVectorTest, FiguresAddUpUntilTheyAreCleared) {
  const auto step = backend_->open_step();
  const Shared a = vector({1, 2}), b = vector({3});
  for (int round = 0; round < 2; ++round) {
    step->clear();
    backend_->squared_norm(*a, 0.0, {*step, &StepStatistics::mean_squares});
    backend_->squared_norm(*b, 0.0, {*step, &StepStatistics::mean_squares});
    backend_->squared_norm(*b, 2.0, {*step, &StepStatistics::clipped_squares});
    step->add(&StepStatistics::outside, 0.5);
    step->add(&StepStatistics::loss, 6.0);
    step->add(&StepStatistics::tasks, 3.0);
    step->add(&StepStatistics::diverged, 1.0);
    const StepStatistics got = step->read();
    EXPECT_EQ(got.mean_squares, 14.0);
    EXPECT_EQ(got.clipped_squares, 4.0);
    EXPECT_EQ(got.gradient_squares, 0.0);
    EXPECT_EQ(got.diverged, 1.0);
    EXPECT_EQ(got.mean_loss(), 2.0);
    EXPECT_EQ(got.total_loss(), 2.5);
  }
}

TEST_P(SharedVectorTest, AStepIsTakenGuardedOrNot) {
  struct Case {
    double loss, tasks, diverged;
    StepRule rule;
    StepStatus want;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Case cases[] = {
      {1.0, 4.0, 0.0, {0.0, false}, StepStatus::update},
      {1.0, 4.0, 0.0, {0.0, true}, StepStatus::update},
      {1.0, 3.0, 1.0, {0.25, false}, StepStatus::update},
      {1.0, 3.0, 1.0, {0.2, false}, StepStatus::stop},
      {1.0, 3.0, 1.0, {0.25, true}, StepStatus::guard},
      {0.0, 0.0, 4.0, {1.0, false}, StepStatus::stop},
      {nan, 4.0, 0.0, {1.0, false}, StepStatus::stop},
      {nan, 4.0, 0.0, {1.0, true}, StepStatus::guard},
  };
  for (const Case& c : cases) {
    const auto of = backend_->open_step();
    of->clear();
    of->add(&StepStatistics::loss, c.loss);
    of->add(&StepStatistics::tasks, c.tasks);
    of->add(&StepStatistics::diverged, c.diverged);
    of->decide_update(c.rule);
    EXPECT_EQ(static_cast<StepStatus>(of->read().status), c.want);
    const Shared p = vector({2, -4}), m = vector({0, 0}), g = vector({1, 1});
    backend_->guard(*of, *g, *p, 0.5);
    OptimizerStep step;
    step.kind = OptimizerStep::Kind::sgd;
    step.learning_rate = 1.0;
    step.training_step = of.get();
    backend_->optimizer_step(*p, *g, *m, nullptr, step);
    switch (c.want) {
      case StepStatus::update:
        expect_close(p, {1, -5});
        break;
      case StepStatus::guard:
        expect_close(p, {1, -2});
        break;
      case StepStatus::stop:
        expect_close(p, {2, -4});
        expect_close(m, {0, 0});
        break;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, SharedVectorTest, ::testing::ValuesIn(backend_names()),
                         [](const auto& param) { return param.param; });

// ---- names ----

std::string message_of(const std::string& device, int threads = 1) {
  try {
    backend::make_backend(device, threads);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Devices, EveryUsableDeviceOpensUnderItsName) {
  int usable = 0;
  for (const backend::DeviceInfo& device : backend::list_devices()) {
    EXPECT_FALSE(device.description.empty());
    if (device.usable) {
      EXPECT_EQ(backend::make_backend(device.name, 1)->name(), device.name);
      ++usable;
    } else {
      EXPECT_FALSE(device.reason.empty());
      EXPECT_THROW(backend::make_backend(device.name, 1), DeviceError);
      EXPECT_THAT(message_of(device.name), HasSubstr(device.reason));
    }
  }
  EXPECT_GE(usable, 2);  // At least reference and cpu.
}

TEST(Devices, PrecisionAndThreads) {
  const auto reference = backend::make_backend("reference", 3);
  EXPECT_EQ(reference->precision(), backend::Precision::f64);
  EXPECT_EQ(reference->concurrency(), 3);
  const auto cpu = backend::make_backend("cpu", 2);
  EXPECT_EQ(cpu->precision(), backend::Precision::f32);
  EXPECT_EQ(cpu->concurrency(), 2);
  EXPECT_GE(backend::make_backend("cpu", 0)->concurrency(), 1);
  EXPECT_GE(backend::make_backend("reference", 0)->concurrency(), 1);
}

TEST(Devices, AutoSaysWhatItPicked) {
  const auto chosen = backend::make_backend("auto", 1);
  EXPECT_NE(chosen->name(), "auto");
  EXPECT_THAT(chosen->description(), HasSubstr(chosen->name()));
}

TEST(Devices, AWrongNameIsAnErrorThatHelps) {
  EXPECT_THAT(message_of("gpu"), HasSubstr("device \"gpu\" is unknown"));
  EXPECT_THAT(message_of("gpu"), HasSubstr("\"reference\""));
  EXPECT_THAT(message_of("cudagpu"), HasSubstr("unknown"));
  EXPECT_THAT(message_of(""), HasSubstr("unknown"));
  EXPECT_THAT(message_of("cpu", -1), HasSubstr("threads = -1"));
  for (const std::string device : {"cpu", "reference", "auto"}) {
    EXPECT_THAT(message_of(device, 100000),
                HasSubstr("threads = 100000: expected 0 (all cores) to "));
  }
}

}  // namespace
}  // namespace kshot::testing
