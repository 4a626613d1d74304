// Twenty training steps on every backend stay as close to the same steps in exact arithmetic as
// rounding explains. This file derives the bound and evaluates it with the reference backend in
// double. Nothing in the bound is tuned.
//
// Let theta_s be the path in exact arithmetic. The reference backend stands for it, and its unit
// roundoff enters below as u_ref. Let theta'_s be the path of a backend with unit roundoff u', let
// u = u_ref + u', g_s = grad L_s(theta_s) and delta_s >= |theta'_s - theta_s|. Everything is
// element by element.
//
//  1. Gradient. The backend computes g'_s = grad L_s(theta'_s) + e_s. Its rounding error e_s is
//     measured: the reference evaluates grad L_s at theta'_s itself, which double holds exactly.
//     (The test also compares e_s with the tolerance of a single gradient, see the documentation of
//     `kshot verify`.) To first order in delta, with the meta-Hessian H_s by central differences on
//     the reference,
//         |g'_s - g_s| <= e_s + |H_s| delta_s.
//  2. Adam. m^ = sum_r w_r g_r and v^ = sum_r o_r g_r^2 have weights w and o that each sum to one.
//     Let r = sqrt v^, D = max over the steps so far of |g'_r - g_r| and M = max of |g_r| + D. Then
//     |m^' - m^| <= D. As r is a norm of (g_r)_r, also |r' - r| <= D. Rounding n steps of the
//     recurrences changes each weight by a relative 3 u per step. It also changes each weight once
//     by u b / (1 - b), because b is rounded to the backend's precision and 1 - b magnifies that
//     error. So with a few u for the divisions
//         |m^' - m^| <= D + (3 n + 4 + b1 / (1 - b1)) u M,
//         |r' - r|   <= D + (3 n + 6 + b2 / (1 - b2)) u r / 2.
//     By Cauchy and Schwarz |m^| <= B r with B^2 = sum_r w_r^2 / o_r. So the error of the step
//     x = m^ / (r + eps) is
//         |x' - x| <= (|m^' - m^| + B |r' - r|) / (r + eps), and at most 2 B.
//     This is the effect of Adam's normalization: errors count relative to the size of the
//     gradient.
//  3. Parameters. delta_{s+1} = delta_s + rate (|x' - x| + 4 u B) + u |theta_{s+1}|.
//
// Two backends then differ by at most the sum of their bounds.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "algorithms/algorithm.h"
#include "engine/engine_cases.h"
#include "engine/scheduler.h"
#include "episodes/sources.h"
#include "kshot/kshot.h"
#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

constexpr std::uint64_t steps = 20;
constexpr double rate = 1e-3, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;

Numbers joined(std::span<const backend::Shared> vectors) {
  Numbers all;
  for (const backend::Shared& v : vectors) {
    Numbers values(v->size());
    v->download(values);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

void put(std::span<const backend::Shared> vectors, const Numbers& all) {
  std::size_t at = 0;
  for (const backend::Shared& v : vectors) {
    v->upload(std::span(all).subspan(at, v->size()));
    at += v->size();
  }
}

/// A run on one backend with the trainer's scheduler and optimizer, but without its files.
class Steps {
 public:
  Steps(const Config& config, const std::string& name)
      : config_(config), source_(make_source(config)), backend_(open_backend(name, 2)) {
    network_ = std::make_shared<const Network>(config.make_network());
    algorithm_ = make_algorithm(config, network_);
    scheduler_ = std::make_unique<Scheduler>(*backend_, *algorithm_, source_->shape());
    for (auto* of : {&parameters_, &m_, &v_}) {
      for (const ParameterGroup& group : algorithm_->groups()) {
        of->push_back(backend_->shared(group.size));
      }
    }
    Numbers initial;
    for (const Numbers& values : algorithm_->initial(config.seed)) {
      initial.insert(initial.end(), values.begin(), values.end());
    }
    put(parameters_, initial);
  }
  double roundoff() const {
    return backend_->precision() == backend::Precision::f32
               ? std::numeric_limits<float>::epsilon() / 2.0
               : std::numeric_limits<double>::epsilon() / 2.0;
  }
  Numbers parameters() const { return joined(parameters_); }
  /// The gradient of step `s` at the present parameters.
  Numbers gradient(std::uint64_t s) {
    scheduler_->step(parameters_, *source_, config_.seed, s, config_.train.meta_batch);
    return joined(scheduler_->gradients());
  }
  Numbers gradient(std::uint64_t s, const Numbers& at) {
    put(parameters_, at);
    return gradient(s);
  }
  /// Makes an Adam step with the gradient of the last call.
  void update(std::uint64_t s) {
    backend::OptimizerStep step;
    step.learning_rate = rate;
    step.step = s + 1;
    for (std::size_t g = 0; g < parameters_.size(); ++g) {
      backend_->optimizer_step(*parameters_[g], *scheduler_->gradients()[g], *m_[g], v_[g].get(),
                               step);
    }
  }

 private:
  Config config_;
  std::unique_ptr<EpisodeSource> source_;
  std::unique_ptr<backend::Backend> backend_;
  std::shared_ptr<const Network> network_;
  std::unique_ptr<Algorithm> algorithm_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<backend::Shared> parameters_, m_, v_;
};

/// theta_s and g_s for s < steps, theta_steps, and H_s row by row.
struct Path {
  std::vector<Numbers> theta, g, hessian;
};

Path exact_path(const Config& config) {
  Path path;
  Steps run(config, "reference"), probe(config, "reference");
  for (std::uint64_t s = 0; s < steps; ++s) {
    path.theta.push_back(run.parameters());
    path.g.push_back(run.gradient(s));
    run.update(s);
    const std::size_t n = path.theta.back().size();
    Numbers hessian(n * n);
    const double h = 1e-5;
    for (std::size_t j = 0; j < n; ++j) {
      Numbers at = path.theta.back();
      at[j] += h;
      const Numbers up = probe.gradient(s, at);
      at[j] -= 2.0 * h;
      const Numbers down = probe.gradient(s, at);
      for (std::size_t i = 0; i < n; ++i) hessian[i * n + j] = (up[i] - down[i]) / (2.0 * h);
    }
    path.hessian.push_back(std::move(hessian));
  }
  path.theta.push_back(run.parameters());
  return path;
}

/// The bound B for step n of Adam.
double largest_step(std::uint64_t n) {
  double sum = 0.0;
  for (std::uint64_t r = 1; r <= n; ++r) {
    const auto age = static_cast<double>(n - r), count = static_cast<double>(n);
    const double w = (1 - beta1) * std::pow(beta1, age) / (1 - std::pow(beta1, count));
    const double o = (1 - beta2) * std::pow(beta2, age) / (1 - std::pow(beta2, count));
    sum += w * w / o;
  }
  return std::sqrt(sum);
}

/// The bound delta after all steps. `errors` holds e_s.
Numbers bound(const Path& path, const std::vector<Numbers>& errors, double u) {
  const std::size_t n = path.theta[0].size();
  Numbers delta(n), most(n, 0.0), size(n, 0.0), v(n, 0.0);
  for (std::size_t i = 0; i < n; ++i) delta[i] = u * std::abs(path.theta[0][i]);
  for (std::uint64_t s = 0; s < steps; ++s) {
    const auto count = static_cast<double>(s + 1);
    const double b = largest_step(s + 1);
    Numbers next = delta;
    for (std::size_t i = 0; i < n; ++i) {
      double off = errors[s][i];
      for (std::size_t j = 0; j < n; ++j) off += std::abs(path.hessian[s][i * n + j]) * delta[j];
      most[i] = std::max(most[i], off);
      size[i] = std::max(size[i], std::abs(path.g[s][i]));
      v[i] = beta2 * v[i] + (1 - beta2) * path.g[s][i] * path.g[s][i];
      const double r = std::sqrt(v[i] / (1 - std::pow(beta2, count)));
      const double d_m = most[i] + (3 * count + 4 + beta1 / (1 - beta1)) * u * (size[i] + most[i]);
      const double d_r = most[i] + (3 * count + 6 + beta2 / (1 - beta2)) * u * r / 2.0;
      const double d_x = std::min((d_m + b * d_r) / (r + epsilon), 2.0 * b);
      next[i] += rate * (d_x + 4.0 * u * b) + u * std::abs(path.theta[s + 1][i]);
    }
    delta = next;
  }
  return delta;
}

double largest(const Numbers& x) {
  double most = 0.0;
  for (const double value : x) most = std::max(most, std::abs(value));
  return most;
}

Config config_of(const std::string& algorithm) {
  std::vector<std::string> overrides = {"network.layers=1,5,1", "network.activation=tanh",
                                        "inner.learning_rate=0.02"};
  if (algorithm == "abml") overrides.push_back("abml.log_sigma_init=-2.0");
  return test::small_config(algorithm, overrides);
}

class Training : public ::testing::TestWithParam<std::string> {};

TEST_P(Training, TwentyStepsStayTogether) {
  const Config config = config_of(GetParam());
  const Path path = exact_path(config);
  const Numbers& end = path.theta.back();
  Numbers moved = end;
  for (std::size_t i = 0; i < moved.size(); ++i) moved[i] -= path.theta[0][i];
  Steps probe(config, "reference");
  struct End {
    std::string name;
    Numbers theta, delta;
  };
  std::vector<End> ends;
  for (const std::string& name : backend_names()) {
    if (name == "reference") continue;
    SCOPED_TRACE(name);
    Steps run(config, name);
    const double single = run.roundoff() > 1e-10 ? 1e-4 : 1e-9;
    std::vector<Numbers> errors;
    for (std::uint64_t s = 0; s < steps; ++s) {
      Numbers error = run.gradient(s);
      const Numbers want = probe.gradient(s, run.parameters());
      for (std::size_t i = 0; i < error.size(); ++i) error[i] = std::abs(error[i] - want[i]);
      ASSERT_LE(largest(error), single * largest(want)) << "gradient of step " << s;
      errors.push_back(std::move(error));
      run.update(s);
    }
    const double u = run.roundoff() + std::numeric_limits<double>::epsilon() / 2.0;
    End e{name, run.parameters(), bound(path, errors, u)};
    EXPECT_LT(largest(e.delta), 0.02 * largest(moved)) << "a bound that could not fail";
    for (std::size_t i = 0; i < end.size(); ++i) {
      EXPECT_LE(std::abs(e.theta[i] - end[i]), e.delta[i]) << i;
    }
    ends.push_back(std::move(e));
  }
  // Every path is close to the exact one. The pairs are tested too, because the CUDA backends are
  // compared with the CPU.
  for (const End& a : ends) {
    for (const End& b : ends) {
      for (std::size_t i = 0; i < end.size(); ++i) {
        EXPECT_LE(std::abs(a.theta[i] - b.theta[i]), a.delta[i] + b.delta[i])
            << a.name << ", " << b.name;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Algorithms, Training, ::testing::Values("maml", "meta_sgd", "abml"),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace kshot::testing
