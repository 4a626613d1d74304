// The algebra of per-task vectors on every backend, and on the CPU backend in both layouts.
// Element-wise operations and Gaussians are tested against their formulas, and the derivatives of
// the KL against central differences.
#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

using backend::Block;
using KlTerms = backend::Wave::KlTerms;
using backend::Rate;
using backend::Scale;

/// Networks for the two layouts of the CPU backend. The tasks of a small perceptron lie in SIMD
/// lanes. The tasks of any other network are stored one by one with padded channels.
std::vector<std::shared_ptr<const Network>> algebra_networks() {
  return {std::make_shared<const Network>(Network::mlp({2, 7, 3}, LayerType::relu)),
          std::make_shared<const Network>(Network(
              {2, 5, 4, true}, {conv_layer(5, 3, 1, 1), layer(LayerType::norm),
                                layer(LayerType::relu), layer(LayerType::mean), linear_layer(3)}))};
}

class AlgebraTest : public ::testing::TestWithParam<std::tuple<std::string, int>> {
 protected:
  void SetUp() override {
    backend_ = open_backend(std::get<0>(GetParam()));
    problem_ = make_problem(algebra_networks()[static_cast<std::size_t>(std::get<1>(GetParam()))],
                            backend::LossKind::mse, tasks_, 3);
    runner_ = std::make_unique<Runner>(*backend_, problem_);
  }

  backend::Wave& wave() { return runner_->wave(); }
  std::size_t size() const { return static_cast<std::size_t>(tasks_) * problem_.width(); }
  Numbers random(std::uint32_t use, double scale = 1.0) const {
    RandomStream s = stream(17, 100 + use);
    return normals(s, size(), scale);
  }
  /// Uploads each input to a block of weights, wave by wave, calls body(blocks) and returns
  /// blocks[0] of all tasks.
  template <typename Body>
  Numbers run(const std::vector<Numbers>& inputs, const Body& body) {
    std::vector<Block> blocks;
    for (std::size_t i = 0; i < inputs.size(); ++i) blocks.push_back(wave().weights());
    Numbers result;
    runner_->for_each_wave([&](int) {
      for (std::size_t i = 0; i < inputs.size(); ++i) runner_->put(blocks[i], inputs[i]);
      body(blocks);
      runner_->take(blocks[0], problem_.width(), result);
    });
    return result;
  }
  void expect_close(const Numbers& got, const Numbers& want) {
    EXPECT_TRUE(close_rows(got, want, problem_.width(), closed_form_tolerance(*backend_)));
  }
  template <typename F>
  Numbers map(const F& f) const {
    Numbers result(size());
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = f(i);
    return result;
  }

  int tasks_ = 19;
  std::unique_ptr<backend::Backend> backend_;
  Problem problem_;
  std::unique_ptr<Runner> runner_;
};

TEST_P(AlgebraTest, ElementWise) {
  const Numbers a = random(0), b = random(1), c = random(2);
  const std::size_t width = problem_.width();
  expect_close(run({a, b}, [&](auto& x) { wave().copy(x[0], x[1]); }), b);
  expect_close(run({a}, [&](auto& x) { wave().fill(x[0], 2.5); }), Numbers(size(), 2.5));
  expect_close(run({a, b}, [&](auto& x) { wave().axpy(x[0], -0.75, x[1]); }),
               map([&](std::size_t i) { return a[i] - 0.75 * b[i]; }));
  expect_close(run({a, b, c}, [&](auto& x) { wave().multiply_add(x[0], 0.5, x[1], x[2]); }),
               map([&](std::size_t i) { return a[i] + 0.5 * b[i] * c[i]; }));
  expect_close(run({a, b}, [&](auto& x) { wave().exponential(x[0], x[1]); }),
               map([&](std::size_t i) { return std::exp(b[i]); }));
  const Rate number{0.125, nullptr};
  expect_close(run({a, b}, [&](auto& x) { wave().rate_multiply(x[0], number, x[1]); }),
               map([&](std::size_t i) { return 0.125 * b[i]; }));
  expect_close(run({a, b, c}, [&](auto& x) { wave().rate_step(x[0], x[1], number, x[2]); }),
               map([&](std::size_t i) { return b[i] - 0.125 * c[i]; }));
  // A shared vector has the same elements for all tasks.
  RandomStream s = stream(18);
  const Numbers shared = normals(s, width);
  const backend::Shared vector = backend_->shared(width);
  vector->upload(shared);
  const Rate rates{99.0, vector.get()};
  expect_close(run({a}, [&](auto& x) { wave().broadcast(x[0], *vector); }),
               map([&](std::size_t i) { return shared[i % width]; }));
  expect_close(run({a, b}, [&](auto& x) { wave().rate_multiply(x[0], rates, x[1]); }),
               map([&](std::size_t i) { return shared[i % width] * b[i]; }));
  expect_close(run({a, b, c}, [&](auto& x) { wave().rate_step(x[0], x[1], rates, x[2]); }),
               map([&](std::size_t i) { return b[i] - shared[i % width] * c[i]; }));
}

TEST_P(AlgebraTest, AStepWorksInPlace) {
  const Numbers a = random(0), b = random(1);
  expect_close(run({a, b},
                   [&](auto& x) {
                     wave().rate_step(x[0], x[0], {0.5, nullptr}, x[1]);
                   }),
               map([&](std::size_t i) { return a[i] - 0.5 * b[i]; }));
  expect_close(run({a}, [&](auto& x) { wave().exponential(x[0], x[0]); }),
               map([&](std::size_t i) { return std::exp(a[i]); }));
}

TEST_P(AlgebraTest, ExponentialOverItsRange) {
  Numbers a(size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] =
        static_cast<float>(-80.0 + 160.0 * static_cast<double>(i) / static_cast<double>(a.size()));
  }
  const Numbers got = run({a, a}, [&](auto& x) { wave().exponential(x[0], x[1]); });
  const double tolerance = closed_form_tolerance(*backend_);
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(got[i] / std::exp(a[i]), 1.0, tolerance) << "exp(" << a[i] << ")";
  }
}

TEST_P(AlgebraTest, SamplesAndTheirPullBacks) {
  const Numbers mu = random(0), s = random(1, 0.3), g = random(3), h = random(4), vm = random(5),
                vs = random(6), r0 = random(7), r1 = random(8);
  Numbers sigma = map([&](std::size_t i) { return static_cast<float>(std::exp(s[i])); });
  const Numbers given = random(2);
  const auto phi = [&](std::size_t i) { return mu[i] + sigma[i] * given[i]; };
  expect_close(
      run({r0, given, mu, sigma}, [&](auto& x) { wave().sample(x[0], x[1], x[2], x[3], nullptr); }),
      map(phi));
  expect_close(run({given, r1, mu, sigma},
                   [&](auto& x) {
                     // The noise in x[0] is read, not drawn.
                     wave().sample(x[1], x[0], x[2], x[3], nullptr);
                   }),
               given);
  expect_close(run({r0, r1, g, given, sigma},
                   [&](auto& x) { wave().sample_pullback(x[0], x[1], 0.25, x[2], x[3], x[4]); }),
               map([&](std::size_t i) { return r0[i] + 0.25 * g[i]; }));
  expect_close(run({r1, r0, g, given, sigma},
                   [&](auto& x) { wave().sample_pullback(x[1], x[0], 0.25, x[2], x[3], x[4]); }),
               map([&](std::size_t i) { return r1[i] + 0.25 * g[i] * given[i] * sigma[i]; }));
  expect_close(run({r0, vm, vs, given, sigma},
                   [&](auto& x) { wave().sample_direction(x[0], x[1], x[2], x[3], x[4]); }),
               map([&](std::size_t i) { return vm[i] + sigma[i] * given[i] * vs[i]; }));
}

TEST_P(AlgebraTest, SampleAndDirectionTogether) {
  const Numbers r0 = random(7), mu = random(0), s = random(1, 0.3), eps = random(2), vm = random(5),
                vs = random(6);
  const Numbers sigma = map([&](std::size_t i) { return static_cast<float>(std::exp(s[i])); });
  expect_close(
      run({r0, r0, mu, vm, vs, eps, sigma},
          [&](auto& x) { wave().sample_with_direction(x[0], x[1], x[2], x[3], x[4], x[5], x[6]); }),
      map([&](std::size_t i) { return mu[i] + sigma[i] * eps[i]; }));
  expect_close(
      run({r0, r0, mu, vm, vs, eps, sigma},
          [&](auto& x) { wave().sample_with_direction(x[1], x[0], x[2], x[3], x[4], x[5], x[6]); }),
      map([&](std::size_t i) { return vm[i] + sigma[i] * eps[i] * vs[i]; }));
}

TEST_P(AlgebraTest, SampledLossHasTheDerivativesOfThePullBacks) {
  // f(mu, s) = sum (mu + e^s eps)^3 / 3, with g = phi^2 and h = 2 phi u. All expected values are
  // differences of f.
  const Numbers mu = random(0), s = random(1, 0.3), eps = random(2), vm = random(5), vs = random(6),
                zero(size(), 0.0);
  const auto phi = [&](const Numbers& m, const Numbers& l, std::size_t i) {
    return m[i] + std::exp(l[i]) * eps[i];
  };
  const double step = 1e-5;
  const auto f_mu = [&](std::size_t i, double dm, double ds) {
    const double p = mu[i] + dm + std::exp(s[i] + ds) * eps[i];
    return p * p * p / 3.0;
  };
  const Numbers sigma = map([&](std::size_t i) { return std::exp(s[i]); });
  const Numbers g = map([&](std::size_t i) { return std::pow(phi(mu, s, i), 2); });
  const Numbers u = run({zero, vm, vs, eps, sigma},
                        [&](auto& x) { wave().sample_direction(x[0], x[1], x[2], x[3], x[4]); });
  const Numbers h = map([&](std::size_t i) { return 2.0 * phi(mu, s, i) * u[i]; });
  const Numbers got_gs = run({zero, zero, g, eps, sigma}, [&](auto& x) {
    wave().sample_pullback(x[1], x[0], 1.0, x[2], x[3], x[4]);
  });
  // The Hessian-vector product pulls h back, and adds to the part of s the gradient times v_s.
  const Numbers got_hmu = run({zero, zero, h, eps, sigma}, [&](auto& x) {
    wave().sample_pullback(x[0], x[1], 1.0, x[2], x[3], x[4]);
  });
  const Numbers got_hs = run({zero, zero, h, eps, sigma, got_gs, vs}, [&](auto& x) {
    wave().sample_pullback(x[1], x[0], 1.0, x[2], x[3], x[4]);
    wave().multiply_add(x[0], 1.0, x[5], x[6]);
  });
  const auto ds = [&](std::size_t i, double dm, double d) {
    return (f_mu(i, dm, d + step) - f_mu(i, dm, d - step)) / (2.0 * step);
  };
  const auto dmu = [&](std::size_t i, double d, double l) {
    return (f_mu(i, d + step, l) - f_mu(i, d - step, l)) / (2.0 * step);
  };
  const double outer = 1e-3;  // Rounding of second differences is 1e-16 / (1e-5 1e-3) = 1e-8.
  const Numbers want_gs = map([&](std::size_t i) { return ds(i, 0, 0); });
  const Numbers want_hmu = map([&](std::size_t i) {
    return (dmu(i, outer * vm[i], outer * vs[i]) - dmu(i, -outer * vm[i], -outer * vs[i])) /
           (2.0 * outer);
  });
  const Numbers want_hs = map([&](std::size_t i) {
    return (ds(i, outer * vm[i], outer * vs[i]) - ds(i, -outer * vm[i], -outer * vs[i])) /
           (2.0 * outer);
  });
  const std::size_t width = problem_.width();
  EXPECT_TRUE(close_rows(got_gs, want_gs, width, 2e-5));
  EXPECT_TRUE(close_rows(got_hmu, want_hmu, width, 2e-5));
  EXPECT_TRUE(close_rows(got_hs, want_hs, width, 2e-5));
}

// ---- KL ----

class KlTest : public AlgebraTest {
 protected:
  struct Gaussians {
    Numbers mu, s, prior_mu, prior_s;
  };
  Gaussians gaussians() const { return {random(0), random(1, 0.4), random(2), random(3, 0.4)}; }
  struct Result {
    Numbers value, mu, s, prior_mu, prior_s;
  };
  Result kl(const Gaussians& at, Scale scale) {
    const Numbers zero(size(), 0.0);
    Result result;
    std::vector<Block> b;
    for (int i = 0; i < 8; ++i) b.push_back(wave().weights());
    const Block value = wave().block(1);
    runner_->for_each_wave([&](int) {
      put(b, at);
      for (int i = 4; i < 8; ++i) wave().fill(b[static_cast<std::size_t>(i)], 0.0);
      wave().fill(value, 0.0);
      wave().kl({b[0], b[1], b[2], b[3], scale}, value, b[4], b[5], b[6], b[7]);
      runner_->take(value, 1, result.value);
      take(b, 4, result);
    });
    return result;
  }
  Result kl_hvp(const Gaussians& at, Scale scale, const Numbers& vm, const Numbers& vs) {
    Result result;
    std::vector<Block> b;
    for (int i = 0; i < 10; ++i) b.push_back(wave().weights());
    runner_->for_each_wave([&](int) {
      put(b, at);
      runner_->put(b[8], vm);
      runner_->put(b[9], vs);
      for (int i = 4; i < 8; ++i) wave().fill(b[static_cast<std::size_t>(i)], 0.0);
      wave().kl_hvp({b[0], b[1], b[2], b[3], scale}, b[8], b[9], b[4], b[5], b[6], b[7]);
      take(b, 4, result);
    });
    return result;
  }
  void put(const std::vector<Block>& b, const Gaussians& at) {
    runner_->put(b[0], at.mu);
    runner_->put(b[1], at.s);
    runner_->put(b[2], at.prior_mu);
    runner_->put(b[3], at.prior_s);
  }
  void take(const std::vector<Block>& b, std::size_t from, Result& result) {
    runner_->take(b[from], problem_.width(), result.mu);
    runner_->take(b[from + 1], problem_.width(), result.s);
    runner_->take(b[from + 2], problem_.width(), result.prior_mu);
    runner_->take(b[from + 3], problem_.width(), result.prior_s);
  }
  double by(int t, Scale::By by) const {
    const double s = problem_.single.support_n[static_cast<std::size_t>(t)];
    const double q = problem_.single.query_n[static_cast<std::size_t>(t)];
    return by == Scale::By::one       ? 1
           : by == Scale::By::support ? s
           : by == Scale::By::query   ? q
                                      : s + q;
  }
};

/// The KL of one pair of Gaussians, in the textbook form with variances.
double textbook_kl(double mu, double s, double prior_mu, double prior_s) {
  const double var = std::exp(2 * s), prior_var = std::exp(2 * prior_s), d = mu - prior_mu;
  return 0.5 * (std::log(prior_var / var) + (var + d * d) / prior_var - 1.0);
}

TEST_P(KlTest, ValueIsTheClosedFormOverATasksOwnRows) {
  // N(0, 1) to N(1, 4): log 2 + 2/8 - 1/2
  EXPECT_DOUBLE_EQ(textbook_kl(0, 0, 1, std::log(2.0)), std::log(2.0) - 0.25);
  const Gaussians at = gaussians();
  for (const Scale::By rows :
       {Scale::By::one, Scale::By::support, Scale::By::query, Scale::By::all}) {
    Numbers want(static_cast<std::size_t>(tasks_), 0.0);
    for (std::size_t i = 0; i < size(); ++i) {
      const auto t = i / problem_.width();
      want[t] += 0.3 / by(static_cast<int>(t), rows) *
                 textbook_kl(at.mu[i], at.s[i], at.prior_mu[i], at.prior_s[i]);
    }
    EXPECT_TRUE(close_rows(kl(at, {0.3, rows}).value, want, 1, closed_form_tolerance(*backend_)));
  }
  Gaussians same = at;
  same.prior_mu = at.mu;
  same.prior_s = at.s;
  for (const double v : kl(same, {1.0, Scale::By::one}).value) EXPECT_NEAR(v, 0.0, 1e-5);
}

TEST_P(KlTest, GradientIsTheDifferenceOfTheClosedForm) {
  const Gaussians at = gaussians();
  const Scale scale{0.7, Scale::By::support};
  const Result got = kl(at, scale);
  const double h = 1e-5;
  const auto difference = [&](int which) {
    return map([&](std::size_t i) {
      const auto value = [&](double d) {
        double a[4] = {at.mu[i], at.s[i], at.prior_mu[i], at.prior_s[i]};
        a[which] += d;
        return textbook_kl(a[0], a[1], a[2], a[3]);
      };
      return 0.7 / by(static_cast<int>(i / problem_.width()), Scale::By::support) *
             (value(h) - value(-h)) / (2.0 * h);
    });
  };
  // Rounding is 1e-16 * 10 / 1e-5. Truncation is 1e-10 times third derivatives up to 100.
  const double tolerance = backend_->precision() == backend::Precision::f64 ? 1e-7 : 5e-6;
  EXPECT_TRUE(close_rows(got.mu, difference(0), problem_.width(), tolerance));
  EXPECT_TRUE(close_rows(got.s, difference(1), problem_.width(), tolerance));
  EXPECT_TRUE(close_rows(got.prior_mu, difference(2), problem_.width(), tolerance));
  EXPECT_TRUE(close_rows(got.prior_s, difference(3), problem_.width(), tolerance));
}

TEST_P(KlTest, HessianVectorIsTheDifferenceOfTheGradient) {
  const Gaussians at = gaussians();
  const Scale scale{0.7, Scale::By::all};
  const Numbers vm = random(4), vs = random(5);
  const Result got = kl_hvp(at, scale, vm, vs);
  // The expected value differentiates the closed form of the gradient, in double, along (v_mu, v_s)
  // of q.
  const double h = 1e-5;
  const auto difference = [&](auto gradient) {
    return map([&](std::size_t i) {
      const auto g = [&](double d) {
        return gradient(at.mu[i] + d * vm[i], at.s[i] + d * vs[i], at.prior_mu[i], at.prior_s[i]);
      };
      return 0.7 / by(static_cast<int>(i / problem_.width()), Scale::By::all) * (g(h) - g(-h)) /
             (2.0 * h);
    });
  };
  const auto precision = [](double s) { return std::exp(-2.0 * s); };
  const double tolerance = backend_->precision() == backend::Precision::f64 ? 1e-7 : 5e-6;
  const std::size_t width = problem_.width();
  EXPECT_TRUE(close_rows(got.mu, difference([&](double m, double, double pm, double ps) {
                           return (m - pm) * precision(ps);
                         }),
                         width, tolerance));
  EXPECT_TRUE(close_rows(got.s, difference([&](double, double s, double, double ps) {
                           return -1.0 + std::exp(2 * s) * precision(ps);
                         }),
                         width, tolerance));
  EXPECT_TRUE(close_rows(got.prior_mu, difference([&](double m, double, double pm, double ps) {
                           return -(m - pm) * precision(ps);
                         }),
                         width, tolerance));
  EXPECT_TRUE(close_rows(got.prior_s, difference([&](double m, double s, double pm, double ps) {
                           return 1.0 - (std::exp(2 * s) + (m - pm) * (m - pm)) * precision(ps);
                         }),
                         width, tolerance));
}

TEST_P(KlTest, UnwantedPartsMayBeEmpty) {
  const Gaussians at = gaussians();
  const Result all = kl(at, {1.0, Scale::By::one});
  const Result hvp = kl_hvp(at, {1.0, Scale::By::one}, at.mu, at.s);
  std::vector<Block> b;
  for (int i = 0; i < 6; ++i) b.push_back(wave().weights());
  const Block value = wave().block(1);
  Numbers only_value, only_mu, only_hvp;
  runner_->for_each_wave([&](int) {
    put(b, at);
    const KlTerms terms{b[0], b[1], b[2], b[3], {1.0, Scale::By::one}};
    wave().fill(value, 0.0);
    wave().kl(terms, value, {}, {}, {}, {});
    runner_->take(value, 1, only_value);
    wave().fill(b[4], 0.0);
    wave().fill(b[5], 0.0);
    wave().kl(terms, {}, b[4], b[5], {}, {});
    runner_->take(b[4], problem_.width(), only_mu);
    wave().fill(b[4], 0.0);
    wave().fill(b[5], 0.0);
    wave().kl_hvp(terms, b[0], b[1], b[4], b[5], {}, {});
    runner_->take(b[5], problem_.width(), only_hvp);
  });
  EXPECT_EQ(only_value, all.value);
  EXPECT_EQ(only_mu, all.mu);
  EXPECT_EQ(only_hvp, hvp.s);
}

// ---- scalars of a task ----

TEST_P(AlgebraTest, RowCounts) {
  const Block count = wave().block(1);
  for (const backend::Set set : {backend::Set::support, backend::Set::query, backend::Set::all}) {
    Numbers got, want;
    runner_->for_each_wave([&](int) {
      wave().row_count(count, set);
      runner_->take(count, 1, got);
    });
    for (int t = 0; t < tasks_; ++t) {
      const auto task = static_cast<std::size_t>(t);
      const int support = problem_.twice.support_n[task], query = problem_.twice.query_n[task];
      want.push_back(set == backend::Set::support ? support
                     : set == backend::Set::query ? query
                                                  : support + query);
    }
    EXPECT_EQ(got, want);
  }
}

TEST_P(AlgebraTest, FunctionsOfAScalar) {
  RandomStream draw = stream(5, 300);
  Numbers x;
  for (int t = 0; t < tasks_; ++t) x.push_back(static_cast<float>(0.01 + 9.0 * draw.uniform()));
  const Block scalar = wave().block(1);
  const auto map_of = [&](backend::Function f) {
    Numbers got;
    runner_->for_each_wave([&](int) {
      runner_->put(scalar, x);
      wave().apply(scalar, f, scalar);
      runner_->take(scalar, 1, got);
    });
    return got;
  };
  const auto expect = [&](backend::Function f, double (*g)(double)) {
    Numbers want;
    for (const double v : x) want.push_back(g(v));
    EXPECT_TRUE(close_rows(map_of(f), want, 1, closed_form_tolerance(*backend_)));
  };
  expect(backend::Function::reciprocal, [](double v) { return 1.0 / v; });
  expect(backend::Function::logarithm, [](double v) { return std::log(v); });
  expect(backend::Function::square_root, [](double v) { return std::sqrt(v); });
}

TEST_P(AlgebraTest, AScalarScalesItsTask) {
  const Numbers a = random(0);
  const std::size_t width = problem_.width();
  Numbers factor;
  for (int t = 0; t < tasks_; ++t) factor.push_back(0.25 * (t + 1));
  const Block scalar = wave().block(1);
  const Block vector = wave().weights();
  Numbers got;
  runner_->for_each_wave([&](int) {
    runner_->put(scalar, factor);
    runner_->put(vector, a);
    wave().scale_by(vector, scalar);
    runner_->take(vector, width, got);
  });
  expect_close(got, map([&](std::size_t i) { return factor[i / width] * a[i]; }));
}

/// The fold includes every weight and excludes the padding of a layout.
TEST_P(AlgebraTest, WeightsFoldToANumberPerTask) {
  Numbers a = random(0), b = random(1), start, want;
  for (double& x : a) x = std::abs(x);
  for (double& x : b) x = std::abs(x);
  const std::size_t width = problem_.width();
  for (std::size_t t = 0; t < static_cast<std::size_t>(tasks_); ++t) {
    start.push_back(0.25 * static_cast<double>(t));
    want.push_back(start.back());
    for (std::size_t i = t * width; i < (t + 1) * width; ++i) want.back() += 2.0 * a[i] * b[i];
  }
  const Block sum = wave().block(1), left = wave().weights(), right = wave().weights();
  Numbers got;
  runner_->for_each_wave([&](int) {
    runner_->put(sum, start);
    runner_->put(left, a);
    runner_->put(right, b);
    wave().multiply_fold(sum, 2.0, left, right);
    runner_->take(sum, 1, got);
  });
  EXPECT_TRUE(close_rows(got, want, 1, closed_form_tolerance(*backend_)));
}

/// Two Adam steps per task, from its own step count, against the formulas of Kingma & Ba.
TEST_P(AlgebraTest, AdamStepsOfEveryTask) {
  const backend::AdamRule rule{.learning_rate = 0.05, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-4};
  const std::size_t width = problem_.width();
  Numbers p = random(0), m = random(1, 0.1), v = random(2, 0.1);
  for (double& x : v) x = std::abs(x);
  const Numbers gradients[] = {random(3), random(4)};
  Numbers count;
  for (int t = 0; t < tasks_; ++t) count.push_back(t % 5);
  const backend::Wave::AdamBlocks blocks{wave().weights(), wave().weights(), wave().weights(),
                                         wave().weights(), wave().block(1)};
  Numbers got, got_m, got_v;
  runner_->for_each_wave([&](int) {
    runner_->put(blocks.parameters, p);
    runner_->put(blocks.m, m);
    runner_->put(blocks.v, v);
    for (int step = 0; step < 2; ++step) {
      Numbers now = count;
      for (double& n : now) n += step + 1;
      runner_->put(blocks.count, now);
      runner_->put(blocks.gradient, gradients[step]);
      wave().adam_step(blocks, rule);
    }
    runner_->take(blocks.parameters, width, got);
    runner_->take(blocks.m, width, got_m);
    runner_->take(blocks.v, width, got_v);
  });
  for (std::size_t i = 0; i < p.size(); ++i) {
    for (int step = 0; step < 2; ++step) {
      const double n = count[i / width] + step + 1;
      const double g = gradients[step][i];
      m[i] = 0.8 * m[i] + 0.2 * g;
      v[i] = 0.95 * v[i] + 0.05 * g * g;
      p[i] -= 0.05 * (m[i] / (1.0 - std::pow(0.8, n))) /
              (std::sqrt(v[i] / (1.0 - std::pow(0.95, n))) + 1e-4);
    }
  }
  expect_close(got, p);
  expect_close(got_m, m);
  expect_close(got_v, v);
}

INSTANTIATE_TEST_SUITE_P(Backends, AlgebraTest, ::testing::ValuesIn(backends_and_layouts()),
                         layout_test_name);
INSTANTIATE_TEST_SUITE_P(Backends, KlTest, ::testing::ValuesIn(backends_and_layouts()),
                         layout_test_name);

}  // namespace
}  // namespace kshot::testing
