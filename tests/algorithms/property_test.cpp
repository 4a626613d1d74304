// Tests the whole meta-gradient of every algorithm, on every backend, for random networks, tasks,
// flags, K and S, against central differences of the meta-objective. It is one file because all
// algorithms share the objective and the random settings.
//
// The objective is written out here once more, one task at a time in double, from the formulas
// (docs/mathematics.md), without any code of src/algorithms. Only a task's summed loss and its
// gradient come from the reference backend, which tests/backend tests against closed forms and
// differences. Terms that an objective treats as constants are recorded at the point of
// differentiation. They are the inner gradients in first order, and the prior of the inner KL where
// its path is cut.
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <numbers>
#include <set>

#include "algorithms/algorithm.h"
#include "engine/scheduler.h"
#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

using backend::LossKind;
using backend::Scale;
using backend::Set;

/// Parameters, one vector per group, in the order of Algorithm::groups().
using Parameters = std::vector<Numbers>;

/// A random case: a configuration, a problem, and the point at which the gradient is taken.
struct Setting {
  std::string name;
  Config config;
  Problem problem;
  Parameters parameters;
  StepContext context;
  /// The per-task state (hvi). task_mu and task_log_sigma come first, [T * D] each.
  Parameters memory;
};

LossType loss_type(LossKind kind) {
  return kind == LossKind::cross_entropy ? LossType::cross_entropy
         : kind == LossKind::mse         ? LossType::mse
                                         : LossType::gaussian_nll;
}

/// A random setting of an algorithm. `seed` determines everything.
Setting random_setting(AlgorithmKind algorithm, std::uint64_t seed) {
  RandomStream random = stream(seed, 50);
  Setting s;
  Config& c = s.config;
  c.algorithm = algorithm;
  c.inner.steps = pick(random, 0, 3);
  c.inner.learning_rate = static_cast<float>(0.02 + 0.1 * random.uniform());
  c.inner.order = random.below(4) == 0 ? Order::first : Order::second;
  c.meta_sgd.rates = random.below(2) == 0 ? RateKind::weight : RateKind::layer;
  c.meta_sgd.per_step = random.below(2) == 0;
  if (c.meta_sgd.per_step) c.inner.steps = std::max(c.inner.steps, 1);
  const double weights[] = {0.0, 0.25, 1.0};
  c.abml.kl_weight_inner = weights[random.below(3)];
  c.abml.kl_weight_outer = weights[random.below(3)];
  c.abml.kl_warmup = seed / 3 % 2 == 0 ? 0 : 26;  // The step is the 13th.
  c.abml.differentiate_prior = random.below(2) == 0;
  c.abml.support_in_outer = random.below(2) == 0;
  c.abml.hyper_prior_weight = random.below(2) == 0 ? 0.0 : 0.125;
  c.abml.samples_inner = pick(random, 1, 3);
  c.abml.samples_outer = pick(random, 1, 3);
  c.abml.inner_data = random.below(3) == 0 ? InnerData::all : InnerData::support;
  c.abml.estimator = std::array{Estimator::weight, Estimator::flipout, Estimator::local}[seed % 3];
  c.abml.rates = std::array{AbmlRates::fixed, AbmlRates::layer, AbmlRates::weight}[(seed / 3) % 3];
  c.abml.inner_step = stream(seed, 52).below(2) == 0 ? AbmlStep::gradient : AbmlStep::natural;
  const LossKind loss = all_losses[random.below(3)];
  c.loss.type = loss_type(loss);
  c.loss.noise_std = 0.75;
  if (algorithm == AlgorithmKind::abml && loss == LossKind::gaussian_nll &&
      c.abml.estimator == Estimator::weight && stream(seed, 53).below(2) == 0) {
    c.abml.outer_loss = AbmlOuter::predictive;
    c.abml.samples_outer = std::max(c.abml.samples_outer, 2);
  } else if (loss == LossKind::gaussian_nll && stream(seed, 51).below(2) == 0) {
    c.loss.noise = NoiseKind::learned;
  }

  const NamedNetwork named = random_network(1000 + seed);
  // 18 tasks fill a SIMD group and begin the next one.
  s.problem = make_problem(named.network, loss, named.network->is_plain_mlp() ? 18 : 3, seed);
  // Like ANIL, only some tensors adapt.
  if (random.below(3) == 0) {
    const auto& tensors = named.network->parameters();
    c.inner.adapt = {tensors[random.below(static_cast<std::uint32_t>(tensors.size()))].name};
    if (random.below(2) == 0) c.inner.adapt.push_back("*.bias");
  }
  if (algorithm == AlgorithmKind::hvi) {
    c.inner.adapt = {"*"};
    const Bound bounds[] = {Bound::vb, Bound::mcallester, Bound::seeger, Bound::pentina};
    c.hvi.bound = bounds[seed % 4];
    if (c.hvi.bound == Bound::seeger) c.loss.noise = NoiseKind::fixed;
    c.hvi.hyper_kl = random.below(2) == 0 ? HyperKl::full : HyperKl::per_model;
    c.hvi.tasks = pick(random, 2, 40);
    c.hvi.task_size = random.below(2) == 0 ? 0 : 30;
    c.hvi.kappa_prior = 2.0 + random.uniform();
    c.hvi.kappa_posterior = random.below(3) == 0 ? 0.0 : 0.25;
    c.hvi.samples = pick(random, 1, 3);
    for (const std::int32_t n : s.problem.twice.support_n) {
      if (n < 2) c.hvi.task_size = 30;  // McAllester's bound divides by m - 1.
    }
  }
  s.context.seed = seed;
  s.context.step = 12;
  const auto made = make_algorithm(c, named.network);
  for (const ParameterGroup& group : made->groups()) {
    Numbers values;
    if (group.name.starts_with("alpha")) {
      for (std::size_t i = 0; i < group.size; ++i) {
        values.push_back(static_cast<float>(0.01 + 0.1 * random.uniform()));
      }
    } else if (group.name == "log_noise") {
      values = {static_cast<float>(std::log(0.6))};
    } else if (group.name == "log_sigma") {
      // sigma is near 0.2, which keeps the step of the inner KL stable (docs/mathematics.md).
      values = normals(random, group.size, 0.2);
      for (double& x : values) x = static_cast<float>(x - 1.5);
    } else {
      values.assign(s.problem.weights.begin(),
                    s.problem.weights.begin() + static_cast<std::ptrdiff_t>(group.size));
    }
    s.parameters.push_back(std::move(values));
  }
  const std::size_t width = named.network->size();
  for (const MemoryGroup& group : made->memory()) {
    const std::size_t size = static_cast<std::size_t>(s.problem.tasks) * group.width;
    Numbers values(size, 0.0);
    if (group.name == "task_mu") values = normals(random, size, 0.5);
    if (group.name == "task_log_sigma") {
      values = normals(random, size, 0.2);
      for (double& x : values) x = static_cast<float>(x - 1.5);
    }
    s.memory.push_back(std::move(values));
    EXPECT_TRUE(group.width == width || group.width == 1u);
  }
  s.name =
      fmt::format("{} seed {}: {}, {}, estimator {}, rates {}, {} steps, K {}, {} order, adapt {}",
                  made->name(), seed, named.name, loss_name(loss),
                  static_cast<int>(c.abml.estimator), static_cast<int>(c.abml.rates),
                  c.abml.inner_step == AbmlStep::natural ? "natural" : "gradient", c.inner.steps,
                  c.inner.order == Order::first ? "first" : "second", c.inner.adapt[0]);
  return s;
}

/// The traits of a setting: the options and layers that it uses.
std::set<std::string> traits(const Setting& s) {
  const Config& c = s.config;
  std::set<std::string> all = {loss_name(s.problem.loss.kind)};
  if (c.loss.noise == NoiseKind::learned) {
    all.insert("learned noise");
    if (c.inner.steps > 0) {
      all.insert(std::string("learned noise, ") +
                 (c.inner.order == Order::first ? "first order" : "second order"));
    }
    if (c.algorithm == AlgorithmKind::meta_sgd && c.meta_sgd.per_step) {
      all.insert("learned noise, rates by step");
    }
    if (c.algorithm == AlgorithmKind::abml) {
      all.insert(std::string("learned noise, ") +
                 std::array{"weight", "flipout", "local"}[static_cast<int>(c.abml.estimator)]);
      if (c.abml.rates != AbmlRates::fixed) all.insert("learned noise, learned rates");
    }
  }
  const auto is = [&](bool holds, const std::string& what, const std::string& otherwise) {
    all.insert(holds ? what : otherwise);
  };
  if (c.algorithm == AlgorithmKind::hvi) {
    all.insert(std::array{"vb", "mcallester", "seeger", "pentina"}[static_cast<int>(c.hvi.bound)]);
    is(c.hvi.hyper_kl == HyperKl::full, "full hyper-KL", "hyper-KL per model");
    is(c.hvi.kappa_posterior > 0.0, "Gaussian hyper-posterior", "point hyper-posterior");
    is(c.hvi.samples > 1, "samples", "one sample");
    is(c.hvi.task_size > 0, "given task size", "own task size");
  } else {
    is(c.inner.order == Order::first, "first order", "second order");
    is(c.inner.adapt[0] == "*", "all adapt", "some adapt");
    is(c.inner.steps > 1, "steps", c.inner.steps == 1 ? "one step" : "no step");
  }
  if (c.algorithm == AlgorithmKind::meta_sgd) {
    all.insert(std::string("rates by ") +
               (c.meta_sgd.rates == RateKind::weight ? "weight" : "layer") +
               (c.meta_sgd.per_step ? " and step" : ""));
  }
  if (c.algorithm == AlgorithmKind::abml) {
    const std::string estimator =
        std::array{"weight", "flipout", "local"}[static_cast<int>(c.abml.estimator)];
    all.insert(estimator);
    if (c.abml.rates != AbmlRates::fixed && c.inner.steps > 0) {
      const std::string rates =
          c.abml.rates == AbmlRates::layer ? "rates by layer, " : "rates by weight, ";
      all.insert(rates + estimator);
      all.insert(rates + (c.inner.order == Order::first ? "first order" : "second order"));
      all.insert(rates + (c.inner.adapt[0] == "*" ? "all adapt" : "some adapt"));
    }
    if (c.abml.inner_step == AbmlStep::natural && c.inner.steps > 0) {
      all.insert("natural steps, " + estimator);
      all.insert(std::string("natural steps, ") +
                 (c.inner.order == Order::first ? "first order" : "second order"));
      all.insert(std::string("natural steps, ") +
                 (c.abml.rates == AbmlRates::fixed ? "fixed rates" : "learned rates"));
      if (c.loss.noise == NoiseKind::learned) all.insert("natural steps, learned noise");
    }
    is(c.abml.differentiate_prior, "prior's path", "prior cut");
    is(c.abml.support_in_outer, "support outside", "queries outside");
    if (c.abml.outer_loss == AbmlOuter::predictive) all.insert("predictive");
    is(c.abml.hyper_prior_weight > 0.0, "hyper-prior", "no hyper-prior");
    is(c.abml.inner_data == InnerData::all, "all inside", "support inside");
    is(c.abml.kl_weight_inner > 0.0, "inner KL", "no inner KL");
    is(c.abml.kl_weight_outer > 0.0, "outer KL", "no outer KL");
    is(c.abml.kl_weight_outer > 0.0 && c.abml.kl_warmup > 0, "KL's weight grows", "as it is");
    is(c.abml.samples_inner > 1, "inner samples", "one inner sample");
    is(c.abml.samples_outer > 1, "outer samples", "one outer sample");
  }
  for (const Layer& layer : s.problem.network->layers()) {
    all.insert(std::array{"conv", "norm", "max_pool", "mean", "flatten", "linear", "relu", "tanh",
                          "leaky_relu"}[static_cast<int>(layer.type)]);
  }
  const auto& n = s.problem.single.query_n;
  if (std::ranges::any_of(n, [&](std::int32_t rows) { return rows != n[0]; })) all.insert("ragged");
  return all;
}

/// The traits that the settings of an algorithm must have between them on every backend.
std::set<std::string> expected_traits(AlgorithmKind algorithm) {
  std::set<std::string> all = {"cross_entropy", "mse",        "gaussian_nll", "ragged", "conv",
                               "norm",          "linear",     "max_pool",     "mean",   "relu",
                               "tanh",          "leaky_relu", "learned noise"};
  if (algorithm == AlgorithmKind::hvi) {
    all.merge(std::set<std::string>{"vb", "mcallester", "seeger", "pentina", "full hyper-KL",
                                    "hyper-KL per model", "Gaussian hyper-posterior",
                                    "point hyper-posterior", "samples", "one sample",
                                    "given task size", "own task size"});
    return all;
  }
  all.merge(std::set<std::string>{"first order", "second order", "all adapt", "some adapt", "steps",
                                  "one step", "learned noise, first order",
                                  "learned noise, second order"});
  if (algorithm == AlgorithmKind::meta_sgd) {
    all.merge(std::set<std::string>{"rates by weight", "rates by weight and step", "rates by layer",
                                    "rates by layer and step", "learned noise, rates by step"});
  }
  if (algorithm == AlgorithmKind::abml) {
    all.merge(std::set<std::string>{"weight",
                                    "flipout",
                                    "local",
                                    "prior's path",
                                    "prior cut",
                                    "support outside",
                                    "queries outside",
                                    "hyper-prior",
                                    "no hyper-prior",
                                    "all inside",
                                    "support inside",
                                    "inner KL",
                                    "no inner KL",
                                    "outer KL",
                                    "no outer KL",
                                    "inner samples",
                                    "one inner sample",
                                    "outer samples",
                                    "one outer sample",
                                    "predictive",
                                    "natural steps, weight",
                                    "natural steps, flipout",
                                    "natural steps, local",
                                    "natural steps, first order",
                                    "natural steps, second order",
                                    "natural steps, fixed rates",
                                    "natural steps, learned rates",
                                    "natural steps, learned noise",
                                    "rates by layer, weight",
                                    "rates by layer, flipout",
                                    "rates by layer, local",
                                    "rates by weight, weight",
                                    "rates by weight, flipout",
                                    "rates by weight, local",
                                    "rates by layer, first order",
                                    "rates by weight, first order",
                                    "rates by layer, second order",
                                    "rates by weight, second order",
                                    "rates by layer, some adapt",
                                    "rates by weight, some adapt",
                                    "learned noise, weight",
                                    "learned noise, flipout",
                                    "learned noise, local",
                                    "learned noise, learned rates"});
  }
  return all;
}

bool takes(const backend::Backend& b, const Setting& s) {
  return testing::takes(b, *s.problem.network);
}

/// The meta-objective of a setting. It holds constant what the algorithm holds constant when it
/// differentiates.
class Objective {
 public:
  explicit Objective(const Setting& setting)
      : setting_(setting), config_(setting.config), reference_(open_backend("reference")) {
    const Problem& p = setting.problem;
    const TaskShape& shape = p.twice.shape();
    for (int t = 0; t < p.tasks; ++t) {
      Task task;
      task.wave = reference_->open(p.network, p.loss, {shape.support, shape.query, true});
      task.wave->load(p.twice, t, 1, static_cast<std::uint32_t>(t));
      task.weights = task.wave->weights();
      task.gradient = task.wave->weights();
      task.gradient_s = task.wave->weights();
      task.sigma = task.wave->weights();
      task.loss = task.wave->block(1);
      task.support = p.twice.support_n[static_cast<std::size_t>(t)];
      task.query = p.twice.query_n[static_cast<std::size_t>(t)];
      tasks_.push_back(std::move(task));
    }
    base_ = setting.parameters;
    memory_ = setting.memory;
    recording_ = true;
    task_loss_ = 0.0;
    value_ = (*this)(base_, &task_loss_);
    recording_ = false;
  }

  double value() const { return value_; }
  double task_loss() const { return task_loss_; }

  double operator()(const Parameters& at, double* mean_task_loss = nullptr) {
    double sum = 0.0;
    if (config_.loss.noise == NoiseKind::learned) log_noise_ = at.back()[0];
    for (std::size_t t = 0; t < tasks_.size(); ++t) {
      sum += config_.algorithm == AlgorithmKind::abml  ? bayesian_task(t, at)
             : config_.algorithm == AlgorithmKind::hvi ? bounded_task(t, at)
                                                       : point_task(t, at);
    }
    const double mean = sum / static_cast<double>(tasks_.size());
    if (mean_task_loss) *mean_task_loss = mean;
    double extra = 0.0;
    if (config_.algorithm == AlgorithmKind::hvi) extra = environment_term(at);
    if (config_.algorithm == AlgorithmKind::abml) {
      for (std::size_t i = 0; i < at[0].size(); ++i) {
        const double tau = std::exp(-2.0 * at[1][i]);
        extra += at[0][i] * at[0][i] / 2.0 -
                 ((config_.abml.gamma_shape - 1.0) * std::log(tau) - config_.abml.gamma_rate * tau);
      }
      extra *= config_.abml.hyper_prior_weight;
    }
    return mean + extra;
  }

  /// The objective at the base parameters with another per-task state.
  double with_memory(const Parameters& memory) {
    memory_ = memory;
    const double value = (*this)(base_);
    memory_ = setting_.memory;
    return value;
  }

 private:
  struct Task {
    std::unique_ptr<backend::Wave> wave;
    backend::Block weights, gradient, gradient_s, sigma, loss;
    int support = 0, query = 0;
    std::vector<Parameters> inner;  ///< recorded inner gradients, [K][mu, s]
  };

  int rows(const Task& task, Set set) const {
    return set == Set::support ? task.support
           : set == Set::query ? task.query
                               : task.support + task.query;
  }
  /// Converts a sum of gaussian_nll over a set's rows, and its gradients, from the noise s0 of the
  /// waves to the learned noise s. Without learned noise it changes nothing. With d = s0^2 / s^2
  /// and c = log(2 pi) / 2, the sum over rows and outputs is of
  ///   r^2 / (2 s^2) + log s + c = d (r^2 / (2 s0^2) + log s0 + c) - d (log s0 + c) + log s + c.
  double with_noise(const Task& task, Set set, double loss, Parameters* gradient) const {
    if (config_.loss.noise != NoiseKind::learned) return loss;
    const double s0 = setting_.problem.loss.noise_std;
    const double c = 0.5 * std::log(2.0 * std::numbers::pi);
    const double d = s0 * s0 * std::exp(-2.0 * log_noise_);
    if (gradient) {
      for (Numbers& part : *gradient) {
        for (double& x : part) x *= d;
      }
    }
    const double elements =
        static_cast<double>(rows(task, set)) * setting_.problem.network->outputs();
    return d * loss + elements * (log_noise_ + c - d * (std::log(s0) + c));
  }
  /// The sum of the losses over a set's rows for `weights` [D], and if `gradient` is not null, its
  /// gradient, [1][D].
  double summed_loss(Task& task, Set set, const Numbers& weights, Parameters* gradient) const {
    Numbers* const g = gradient ? gradient->data() : nullptr;
    return with_noise(task, set, wave_loss(task, set, weights, g), gradient);
  }
  static double wave_loss(Task& task, Set set, const Numbers& weights, Numbers* gradient) {
    backend::Wave& wave = *task.wave;
    // With stride 0, upload reads one vector of weights.
    wave.upload(task.weights, weights.data(), 0);
    wave.fill(task.loss, 0.0);
    double loss = 0.0;
    if (gradient) {
      wave.gradient({set, task.weights, {}}, task.gradient, false, task.loss);
      gradient->resize(weights.size());
      wave.download(task.gradient, *gradient);
    } else {
      wave.value({set, task.weights, {}}, task.loss, {}, backend::NormStatistics::batch);
    }
    wave.download(task.loss, std::span(&loss, 1));
    return loss;
  }
  /// The sum of the losses for one sample of N(mu, e^2s) by the configured estimator, with
  /// gradients by mu and s. The estimator `weight` is written out. The other estimators use the
  /// reference backend's passes, which tests/backend/estimator_test.cpp tests against formulas and
  /// differences.
  double sampled_loss(std::size_t t, Set set, Purpose purpose, int k, int sample, const Numbers& mu,
                      const Numbers& s, Parameters* gradient) {
    Task& task = tasks_[t];
    const std::size_t width = mu.size();
    if (config_.abml.estimator == Estimator::weight) {
      const Numbers eps = noise(t, purpose, k, sample, width);
      if (!gradient) return summed_loss(task, set, reparameterise(mu, s, eps), nullptr);
      gradient->assign(1, Numbers(width));
      const double loss = summed_loss(task, set, reparameterise(mu, s, eps), gradient);
      gradient->emplace_back(width);
      for (std::size_t i = 0; i < width; ++i) {
        (*gradient)[1][i] = (*gradient)[0][i] * std::exp(s[i]) * eps[i];
      }
      return loss;
    }
    backend::Wave& wave = *task.wave;
    wave.upload(task.weights, mu.data(), 0);
    wave.upload(task.sigma, s.data(), 0);
    wave.exponential(task.sigma, task.sigma);
    wave.fill(task.loss, 0.0);
    backend::GaussianPass pass;
    pass.set = set;
    pass.estimator = config_.abml.estimator == Estimator::flipout ? backend::Estimator::flipout
                                                                  : backend::Estimator::local;
    pass.mu = task.weights;
    pass.sigma = task.sigma;
    pass.noise.key = key(t, purpose, k, sample);
    double loss = 0.0;
    if (gradient) {
      gradient->assign(2, Numbers(width));
      wave.fill(task.gradient, 0.0);
      wave.fill(task.gradient_s, 0.0);
      wave.gaussian_passes().gradient(pass, 1.0, task.gradient, task.gradient_s, task.loss);
      wave.download(task.gradient, (*gradient)[0]);
      wave.download(task.gradient_s, (*gradient)[1]);
    } else {
      wave.gaussian_passes().value(pass, task.loss, {}, backend::NormStatistics::batch);
    }
    wave.download(task.loss, std::span(&loss, 1));
    return with_noise(task, set, loss, gradient);
  }
  bool adapts(const std::string& tensor) const {
    const auto& network = *setting_.problem.network;
    for (const int i : network.match(config_.inner.adapt)) {
      if (network.parameters()[static_cast<std::size_t>(i)].name == tensor) return true;
    }
    return false;
  }
  /// Step size of every weight at inner step k. `learned` is the group of learned rates, or null.
  Numbers rates(const Numbers* learned, bool layer, bool per_step, int k) const {
    Numbers result;
    // The rates are stored tensor by tensor, [K] x [shape or 1].
    std::size_t next = 0;
    const auto step = static_cast<std::size_t>(k);
    const auto steps = static_cast<std::size_t>(per_step ? config_.inner.steps : 1);
    for (const ParameterTensor& tensor : setting_.problem.network->parameters()) {
      const bool on = adapts(tensor.name);
      const std::size_t each = layer ? 1 : tensor.size;
      for (std::size_t i = 0; i < tensor.size; ++i) {
        double rate = config_.inner.learning_rate;
        if (learned) rate = (*learned)[next + (per_step ? step : 0) * each + (layer ? 0 : i)];
        result.push_back(on ? rate : 0.0);
      }
      next += steps * each;
    }
    return result;
  }

  double point_task(std::size_t t, const Parameters& at) {
    Task& task = tasks_[t];
    Numbers theta = at[0], g;
    for (int k = 0; k < config_.inner.steps; ++k) {
      inner_gradient(task, k, [&](Parameters& gradient) {
        gradient.resize(1);
        summed_loss(task, Set::support, theta, &gradient);
        for (double& x : gradient[0]) x /= task.support;
      });
      const bool learned = config_.algorithm == AlgorithmKind::meta_sgd;
      const Numbers rate =
          rates(learned ? &at[1] : nullptr, config_.meta_sgd.rates == RateKind::layer,
                learned && config_.meta_sgd.per_step, k);
      for (std::size_t i = 0; i < theta.size(); ++i) theta[i] -= rate[i] * now_[0][i];
    }
    return summed_loss(task, Set::query, theta, nullptr) / task.query;
  }

  double bayesian_task(std::size_t t, const Parameters& at) {
    Task& task = tasks_[t];
    const std::size_t width = at[0].size();
    Numbers mu = at[0], s = at[1];
    const Set set = config_.abml.inner_data == InnerData::all ? Set::all : Set::support;
    // The prior of the inner KL. It is constant where its path is cut.
    const Parameters& prior = config_.abml.differentiate_prior ? at : base_;
    for (int k = 0; k < config_.inner.steps; ++k) {
      inner_gradient(task, k, [&](Parameters& gradient) {
        gradient.assign(2, Numbers(width, 0.0));
        Parameters g;
        for (int sample = 0; sample < config_.abml.samples_inner; ++sample) {
          sampled_loss(t, set, Purpose::noise_inner, k, sample, mu, s, &g);
          for (std::size_t i = 0; i < width; ++i) {
            gradient[0][i] += g[0][i] / config_.abml.samples_inner;
            gradient[1][i] += g[1][i] / config_.abml.samples_inner;
          }
        }
        for (std::size_t i = 0; i < width; ++i) {
          const double var = std::exp(2.0 * prior[1][i]);
          gradient[0][i] += config_.abml.kl_weight_inner * (mu[i] - prior[0][i]) / var;
          gradient[1][i] += config_.abml.kl_weight_inner * (std::exp(2.0 * s[i]) / var - 1.0);
        }
        if (config_.abml.inner_step == AbmlStep::natural) {
          for (std::size_t i = 0; i < width; ++i) {
            gradient[0][i] *= std::exp(2.0 * s[i]);
            gradient[1][i] /= 2.0;
          }
          return;
        }
        for (Numbers& part : gradient) {
          for (double& x : part) x /= rows(task, set);
        }
      });
      const bool learned = config_.abml.rates != AbmlRates::fixed;
      const bool layer = config_.abml.rates == AbmlRates::layer;
      const Numbers rate_mu = rates(learned ? &at[2] : nullptr, layer, false, k);
      const Numbers rate_s = rates(learned ? &at[3] : nullptr, layer, false, k);
      for (std::size_t i = 0; i < width; ++i) {
        mu[i] -= rate_mu[i] * now_[0][i];
        s[i] -= rate_s[i] * now_[1][i];
      }
    }
    const double loss = config_.abml.outer_loss == AbmlOuter::predictive ? predictive_loss(t, mu, s)
                                                                         : expected_loss(t, mu, s);
    double kl = 0.0;
    for (std::size_t i = 0; i < width; ++i) {
      const double d = mu[i] - at[0][i];
      kl +=
          at[1][i] - s[i] + (std::exp(2.0 * s[i]) + d * d) / (2.0 * std::exp(2.0 * at[1][i])) - 0.5;
    }
    const double grown =
        config_.abml.kl_warmup == 0 ? 1.0 : 13.0 / static_cast<double>(config_.abml.kl_warmup);
    return (loss + grown * config_.abml.kl_weight_outer * kl) /
           (supports_outside() ? task.support + task.query : task.query);
  }
  bool supports_outside() const {
    return config_.abml.support_in_outer && config_.abml.outer_loss == AbmlOuter::elbo;
  }
  /// The sum of the losses over the outer rows, mean over the outer samples.
  double expected_loss(std::size_t t, const Numbers& mu, const Numbers& s) {
    double loss = 0.0;
    for (int sample = 0; sample < config_.abml.samples_outer; ++sample) {
      const auto loss_on = [&](Set rows) {
        return sampled_loss(t, rows, Purpose::noise_outer, 0, sample, mu, s, nullptr);
      };
      loss += loss_on(Set::query);
      if (config_.abml.support_in_outer) loss += loss_on(Set::support);
    }
    return loss / config_.abml.samples_outer;
  }
  /// The sum over query rows of -log N(y; m, V): m is the mean of the samples' outputs, and V their
  /// variance plus that of the noise.
  double predictive_loss(std::size_t t, const Numbers& mu, const Numbers& s) {
    Task& task = tasks_[t];
    const auto outputs = static_cast<std::size_t>(setting_.problem.network->outputs());
    const std::size_t elements = static_cast<std::size_t>(task.query) * outputs;
    const auto samples = static_cast<std::size_t>(config_.abml.samples_outer);
    const backend::Block block = task.wave->outputs(Set::query);
    std::vector<Numbers> drawn;
    for (std::size_t i = 0; i < samples; ++i) {
      const Numbers eps = noise(t, Purpose::noise_outer, 0, static_cast<int>(i), mu.size());
      const Numbers phi = reparameterise(mu, s, eps);
      task.wave->upload(task.weights, phi.data(), 0);
      task.wave->value({Set::query, task.weights, {}}, {}, block, backend::NormStatistics::batch);
      drawn.emplace_back(task.wave->width(block));
      task.wave->download(block, drawn.back());
    }
    const TaskBatch& batch = setting_.problem.twice;
    const std::size_t first = t * static_cast<std::size_t>(batch.shape().query) * outputs;
    double loss = 0.0;
    for (std::size_t e = 0; e < elements; ++e) {
      double mean = 0.0, variance = 0.0;
      for (const Numbers& one : drawn) mean += one[e] / static_cast<double>(samples);
      for (const Numbers& one : drawn) {
        variance += (one[e] - mean) * (one[e] - mean) / static_cast<double>(samples - 1);
      }
      variance += config_.loss.noise_std * config_.loss.noise_std;
      const double y = batch.query_value64[first + e];
      loss +=
          0.5 * (std::log(2.0 * std::numbers::pi * variance) + (y - mean) * (y - mean) / variance);
    }
    return loss;
  }

  /// H, the KL of the hyper-posterior to the hyper-prior in hierarchical variational inference.
  double hyper_kl(const Parameters& psi) const {
    double squares = 0.0;
    for (std::size_t part = 0; part < 2; ++part) {  // The parts are mu and log_sigma.
      for (const double x : psi[part]) squares += x * x;
    }
    const double prior = config_.hvi.kappa_prior * config_.hvi.kappa_prior;
    const double posterior = config_.hvi.kappa_posterior * config_.hvi.kappa_posterior;
    double h = squares / (2.0 * prior);
    if (posterior > 0.0) {
      const bool full = config_.hvi.hyper_kl == HyperKl::full;
      h += (full ? 2.0 * static_cast<double>(psi[0].size()) : 1.0) *
           (posterior / (2.0 * prior) + 0.5 * std::log(prior / posterior) - 0.5);
    }
    return h;
  }
  double set_size(std::size_t t) const {
    return config_.hvi.task_size > 0 ? config_.hvi.task_size : tasks_[t].support;
  }
  /// The first term of the bound, for the posterior of one task.
  double bounded_task(std::size_t t, const Parameters& psi) {
    const std::size_t width = psi[0].size();
    const auto own = [&](const Numbers& all) {
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(t * width);
      return Numbers(begin, begin + static_cast<std::ptrdiff_t>(width));
    };
    const Numbers mu = own(memory_[0]), s = own(memory_[1]);
    double error = 0.0;
    for (int sample = 0; sample < config_.hvi.samples; ++sample) {
      const Numbers phi = reparameterise(mu, s, noise(t, Purpose::noise_inner, 0, sample, width));
      error += summed_loss(tasks_[t], Set::support, phi, nullptr) / tasks_[t].support /
               config_.hvi.samples;
    }
    // All tasks share one draw of the prior. Its noise has the key of task 0 and samples 0 and 1.
    Numbers prior[2];
    for (int part = 0; part < 2; ++part) {
      prior[part] = psi[static_cast<std::size_t>(part)];
      const Numbers eps = noise(0, Purpose::noise_hyper, 0, part, width);
      for (std::size_t i = 0; i < width; ++i) {
        prior[part][i] += config_.hvi.kappa_posterior * eps[i];
      }
    }
    double kl = 0.0;
    for (std::size_t i = 0; i < width; ++i) {
      const double d = mu[i] - prior[0][i];
      kl += prior[1][i] - s[i] +
            (std::exp(2.0 * s[i]) + d * d) / (2.0 * std::exp(2.0 * prior[1][i])) - 0.5;
    }
    const double m = set_size(t), n = config_.hvi.tasks, h = hyper_kl(psi);
    switch (config_.hvi.bound) {
      case Bound::vb:
        return error + kl / m;
      case Bound::mcallester:
        return error +
               std::sqrt((h + kl + std::log(2.0 * m * n / config_.hvi.delta)) / (2.0 * (m - 1.0)));
      case Bound::seeger: {
        const double e = (kl + h + std::log(2.0 * n * std::sqrt(m) / config_.hvi.delta)) / m;
        return error + 2.0 * e + std::sqrt(2.0 * e * error);
      }
      case Bound::pentina:
        return error + kl / std::sqrt(m) + h / (n * std::sqrt(m));
    }
    return 0.0;
  }
  /// The second term of the bound.
  double environment_term(const Parameters& psi) const {
    const double n = config_.hvi.tasks, h = hyper_kl(psi);
    switch (config_.hvi.bound) {
      case Bound::vb: {
        double mean = 0.0;
        for (std::size_t t = 0; t < tasks_.size(); ++t) mean += h / (n * set_size(t));
        return mean / static_cast<double>(tasks_.size());
      }
      case Bound::pentina:
        return h / std::sqrt(n);
      default:
        return std::sqrt((h + std::log(2.0 * n / config_.hvi.delta)) / (2.0 * (n - 1.0)));
    }
  }

  /// Writes the inner gradient to now_. It is computed, or in first order taken from the record.
  template <typename F>
  void inner_gradient(Task& task, int k, const F& compute) {
    const auto step = static_cast<std::size_t>(k);
    if (config_.inner.order == Order::first && !recording_) {
      now_ = task.inner[step];
      return;
    }
    compute(now_);
    if (recording_) task.inner.push_back(now_);
  }
  RandomKey key(std::size_t t, Purpose purpose, int k, int sample) const {
    return {setting_.context.seed,         purpose,
            setting_.context.step,         static_cast<std::uint32_t>(t),
            static_cast<std::uint32_t>(k), static_cast<std::uint32_t>(sample)};
  }
  Numbers noise(std::size_t t, Purpose purpose, int k, int sample, std::size_t width) const {
    const RandomKey at = key(t, purpose, k, sample);
    Numbers eps(width);
    for (std::size_t i = 0; i < width; ++i) eps[i] = normal_element(at, i);
    return eps;
  }
  static Numbers reparameterise(const Numbers& mu, const Numbers& s, const Numbers& eps) {
    Numbers phi = mu;
    for (std::size_t i = 0; i < phi.size(); ++i) phi[i] += std::exp(s[i]) * eps[i];
    return phi;
  }

  const Setting& setting_;
  const Config& config_;
  std::unique_ptr<backend::Backend> reference_;
  std::vector<Task> tasks_;
  Parameters base_, memory_;
  Parameters now_;
  bool recording_ = false;
  double value_ = 0.0, task_loss_ = 0.0;
  double log_noise_ = 0.0;
};

/// The results of one meta-gradient on a backend.
struct MetaGradient {
  double loss = 0.0, task_loss = 0.0;
  Parameters gradients;
  /// Gradients of the tasks' own losses, [T * D] each.
  Parameters memory_gradients;
  bool operator==(const MetaGradient&) const = default;
};

/// The meta-gradient of a setting. If `after_one` is true, the waves have had one task before.
MetaGradient run(backend::Backend& backend, const Setting& setting, bool after_one = false) {
  const auto algorithm = make_algorithm(setting.config, setting.problem.network);
  std::vector<backend::Shared> parameters;
  for (const Numbers& values : setting.parameters) {
    parameters.push_back(backend.shared(values.size()));
    parameters.back()->upload(values);
  }
  const TaskBatch& batch = setting.problem.batch(backend);
  Scheduler scheduler(backend, *algorithm, batch.shape());
  StepContext context = setting.context;
  context.memory = setting.memory;
  algorithm->begin_training(static_cast<std::uint64_t>(setting.problem.tasks), 0.0);
  MetaGradient result;
  const std::size_t width = setting.problem.network->size();
  if (!setting.memory.empty()) {
    result.memory_gradients.assign(
        2, Numbers(static_cast<std::size_t>(setting.problem.tasks) * width));
  }
  if (after_one) scheduler.step(parameters, first_tasks(batch, 1), context);
  const StepResult step =
      scheduler.step(parameters, batch, context, [&](TaskProgram& program, int first) {
        const auto count = static_cast<std::size_t>(program.wave().count());
        const auto named = program.memory_gradients();
        for (std::size_t g = 0; g < named.size(); ++g) {
          program.wave().download(
              named[g].block, std::span(result.memory_gradients[g])
                                  .subspan(static_cast<std::size_t>(first) * width, count * width));
        }
      });
  EXPECT_EQ(step.diverged, 0u);
  EXPECT_EQ(step.tasks, static_cast<std::size_t>(setting.problem.tasks));
  result.loss = step.loss;
  result.task_loss = step.task_loss;
  for (const backend::Shared& g : scheduler.gradients()) {
    result.gradients.emplace_back(g->size());
    g->download(result.gradients.back());
  }
  return result;
}

class PropertyTest : public ::testing::TestWithParam<std::string> {
 protected:
  void hold_against_differences(AlgorithmKind algorithm, int settings) {
    const auto backend = open_backend(GetParam());
    // Rounding of the differences is 1e-16 * 10 / 1e-6. Truncation is as in tests/backend, through
    // K steps. In float the product of K Hessians multiplies the tolerance of one.
    const double tolerance = backend->precision() == backend::Precision::f64 ? 2e-6 : 2e-4;
    std::set<std::string> held;
    const std::set<std::string> expected = expected_traits(algorithm);
    const auto is_missing = [&](const std::string& trait) {
      return expected.contains(trait) && !held.contains(trait);
    };
    for (int seed = 0; seed < 3 * settings; ++seed) {
      const Setting setting = random_setting(algorithm, static_cast<std::uint64_t>(seed));
      if (!takes(*backend, setting)) continue;
      std::set<std::string> those = traits(setting);
      // Additional seeds run only where they have a trait that is still missing, because a backend
      // may take few of the first settings.
      if (seed >= settings && std::ranges::none_of(those, is_missing)) continue;
      held.merge(those);
      SCOPED_TRACE(setting.name);
      Objective objective(setting);
      const MetaGradient got = run(*backend, setting);
      const double loss_tolerance = backend->precision() == backend::Precision::f64 ? 1e-11 : 1e-5;
      EXPECT_NEAR(got.loss, objective.value(),
                  loss_tolerance * (1.0 + std::abs(objective.value())));
      EXPECT_NEAR(got.task_loss, objective.task_loss(),
                  loss_tolerance * (1.0 + std::abs(objective.task_loss())));
      ASSERT_EQ(got.gradients.size(), setting.parameters.size());
      // Errors are relative to the largest gradient of all groups, because the gradient of one
      // group may be near zero.
      Numbers all_got, all_want;
      for (std::size_t g = 0; g < setting.parameters.size(); ++g) {
        const auto coordinates = chosen_coordinates(setting.parameters[g].size(), 24);
        const Numbers want = central_differences(
            [&](const Numbers& x) {
              Parameters at = setting.parameters;
              at[g] = x;
              return Numbers{objective(at)};
            },
            setting.parameters[g], 1, coordinates, difference_step);
        const Numbers mine = select(got.gradients[g], 1, coordinates);
        all_got.insert(all_got.end(), mine.begin(), mine.end());
        all_want.insert(all_want.end(), want.begin(), want.end());
      }
      EXPECT_TRUE(close_rows(all_got, all_want, all_want.size(), tolerance));
      if (!setting.memory.empty()) hold_memory(setting, objective, got, tolerance);
    }
    for (const std::string& trait : expected) {
      EXPECT_TRUE(held.contains(trait)) << "no setting that the backend takes: " << trait;
    }
  }

  /// Compares the gradients by the per-task state. The objective is the mean over tasks.
  void hold_memory(const Setting& setting, Objective& objective, const MetaGradient& got,
                   double tolerance) {
    for (std::size_t g = 0; g < 2; ++g) {
      const auto coordinates = chosen_coordinates(setting.memory[g].size(), 24);
      const Numbers want = central_differences(
          [&](const Numbers& x) {
            Parameters memory = setting.memory;
            memory[g] = x;
            return Numbers{objective.with_memory(memory)};
          },
          setting.memory[g], 1, coordinates, difference_step);
      Numbers mine = select(got.memory_gradients[g], 1, coordinates);
      for (double& x : mine) x /= setting.problem.tasks;
      // The objective's own rounding, which the differences divide by a small step, depends on the
      // compiler and is near the tolerance of the other gradients.
      EXPECT_TRUE(close_rows(mine, want, want.size(), 3.0 * tolerance));
    }
  }
};

TEST_P(PropertyTest, Maml) {
  hold_against_differences(AlgorithmKind::maml, 24);
}
TEST_P(PropertyTest, MetaSgd) {
  hold_against_differences(AlgorithmKind::meta_sgd, 30);
}
TEST_P(PropertyTest, Abml) {
  hold_against_differences(AlgorithmKind::abml, 42);
}

TEST_P(PropertyTest, Hvi) {
  hold_against_differences(AlgorithmKind::hvi, 32);
}

TEST_P(PropertyTest, ThreadsDoNotChangeABit) {
  for (const AlgorithmKind algorithm :
       {AlgorithmKind::maml, AlgorithmKind::meta_sgd, AlgorithmKind::abml}) {
    int left = emulated(*open_backend(GetParam(), 1)) ? 1 : 3;
    for (std::uint64_t seed = 3; left > 0; ++seed) {
      Setting setting = random_setting(algorithm, seed);
      if (!takes(*open_backend(GetParam(), 1), setting)) continue;
      --left;
      SCOPED_TRACE(setting.name);
      setting.problem = make_problem(setting.problem.network, setting.problem.loss.kind, 37, 2);
      const MetaGradient want = run(*open_backend(GetParam(), 1), setting);
      for (const int threads : {2, 3}) {
        EXPECT_EQ(run(*open_backend(GetParam(), threads), setting), want) << threads << " threads";
      }
    }
  }
}

TEST_P(PropertyTest, AWaveThatHadFewerTasksHasTheSameBits) {
  for (const AlgorithmKind algorithm :
       {AlgorithmKind::maml, AlgorithmKind::meta_sgd, AlgorithmKind::abml}) {
    int left = algorithm != AlgorithmKind::abml         ? 1
               : emulated(*open_backend(GetParam(), 1)) ? 3
                                                        : 6;
    for (std::uint64_t seed = 3; left > 0; ++seed) {
      Setting setting = random_setting(algorithm, seed);
      if (!takes(*open_backend(GetParam(), 1), setting)) continue;
      --left;
      SCOPED_TRACE(setting.name);
      const Problem& p = setting.problem;
      setting.problem = make_problem(p.network, p.loss.kind, 5, 2);
      const MetaGradient want = run(*open_backend(GetParam(), 1), setting);
      EXPECT_EQ(run(*open_backend(GetParam(), 1), setting, true), want);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, PropertyTest, ::testing::ValuesIn(backend_names()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace kshot::testing
