// The closed-form heads on every backend that has small matrices. Loss, predictions and the whole
// meta-gradient are tested against the formulas (docs/mathematics.md), which are written out here
// once more, one task at a time in double, with matrices that Gaussian elimination inverts.
// Gradients are tested against central differences of this objective. Only a task's features come
// from the reference backend, which tests/backend tests against closed forms and differences. It is
// one file because all heads share the fixture and the list of settings.
#include <fmt/format.h>

#include <functional>
#include <numbers>

#include "algorithms/algorithm.h"
#include "backend/linear_algebra.h"
#include "engine/scheduler.h"
#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

using backend::LossKind;
using backend::NormStatistics;
using backend::Set;

/// A matrix in the formulas of this file.
struct Plain {
  int rows = 0, columns = 0;
  Numbers e;
  Plain(int r, int c) : rows(r), columns(c), e(static_cast<std::size_t>(r * c), 0.0) {}
  double& operator()(int i, int j) { return e[static_cast<std::size_t>(i * columns + j)]; }
  double operator()(int i, int j) const { return e[static_cast<std::size_t>(i * columns + j)]; }
  Plain transpose() const {
    Plain t(columns, rows);
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) t(j, i) = (*this)(i, j);
    }
    return t;
  }
};
Plain operator*(const Plain& a, const Plain& b) {
  Plain c(a.rows, b.columns);
  for (int i = 0; i < a.rows; ++i) {
    for (int j = 0; j < b.columns; ++j) {
      for (int k = 0; k < a.columns; ++k) c(i, j) += a(i, k) * b(k, j);
    }
  }
  return c;
}
Plain operator+(Plain a, const Plain& b) {
  for (std::size_t i = 0; i < a.e.size(); ++i) a.e[i] += b.e[i];
  return a;
}
Plain operator-(Plain a, const Plain& b) {
  for (std::size_t i = 0; i < a.e.size(); ++i) a.e[i] -= b.e[i];
  return a;
}
Plain operator*(double s, Plain a) {
  for (double& x : a.e) x *= s;
  return a;
}
Plain identity(int n) {
  Plain m(n, n);
  for (int i = 0; i < n; ++i) m(i, i) = 1.0;
  return m;
}
/// A^-1 by Gauss-Jordan elimination with pivoting, and log |det A|.
Plain inverse(Plain a, double* log_determinant = nullptr) {
  const int n = a.rows;
  Plain inv = identity(n);
  if (log_determinant) *log_determinant = 0.0;
  for (int c = 0; c < n; ++c) {
    int pivot = c;
    for (int r = c + 1; r < n; ++r) {
      if (std::abs(a(r, c)) > std::abs(a(pivot, c))) pivot = r;
    }
    for (int j = 0; j < n; ++j) {
      std::swap(a(c, j), a(pivot, j));
      std::swap(inv(c, j), inv(pivot, j));
    }
    const double p = a(c, c);
    if (log_determinant) *log_determinant += std::log(std::abs(p));
    for (int j = 0; j < n; ++j) {
      a(c, j) /= p;
      inv(c, j) /= p;
    }
    for (int r = 0; r < n; ++r) {
      if (r == c) continue;
      const double f = a(r, c);
      for (int j = 0; j < n; ++j) {
        a(r, j) -= f * a(c, j);
        inv(r, j) -= f * inv(c, j);
      }
    }
  }
  return inv;
}
Plain with_ones(const Plain& z) {
  Plain x(z.rows, z.columns + 1);
  for (int i = 0; i < z.rows; ++i) {
    for (int j = 0; j < z.columns; ++j) x(i, j) = z(i, j);
    x(i, z.columns) = 1.0;
  }
  return x;
}
double dot(const Plain& a, int i, const Plain& b, int m) {
  double sum = 0.0;
  for (int j = 0; j < a.columns; ++j) sum += a(i, j) * b(m, j);
  return sum;
}

/// One task in the formulas. It holds only valid rows.
struct Task {
  Plain z_s, z_q, y_s, y_q;
  int ways = 0;
};
/// The result of the formulas for one task.
struct Result {
  double loss = 0.0;
  /// [query rows, outputs]. For logits, the outputs are the task's own classes.
  Plain outputs, variance;
};

double cross_entropy(const Plain& logits, const Plain& y) {
  double sum = 0.0;
  for (int i = 0; i < logits.rows; ++i) {
    double total = 0.0;
    for (int m = 0; m < logits.columns; ++m) total += std::exp(logits(i, m));
    sum += std::log(total);
    for (int m = 0; m < logits.columns; ++m) sum -= y(i, m) * logits(i, m);
  }
  return sum / logits.rows;
}
double density(const Plain& mean, const Plain& variance, const Plain& y) {
  double sum = 0.0;
  for (std::size_t i = 0; i < y.e.size(); ++i) {
    const double error = y.e[i] - mean.e[i];
    sum += 0.5 * error * error / variance.e[i] +
           0.5 * std::log(2.0 * std::numbers::pi * variance.e[i]);
  }
  return sum / y.rows;
}

// `h` returns the head's tensors by name.
using HeadValues = std::function<Plain(const std::string& name)>;

Result protonet(const Config& c, const Task& t, const HeadValues& h) {
  Plain logits(t.z_q.rows, t.ways);
  const double scale = std::exp(h("log_scale")(0, 0));
  for (int m = 0; m < t.ways; ++m) {
    Plain centre(1, t.z_s.columns);
    double rows = 0.0;
    for (int i = 0; i < t.z_s.rows; ++i) {
      rows += t.y_s(i, m);
      for (int j = 0; j < centre.columns; ++j) centre(0, j) += t.y_s(i, m) * t.z_s(i, j);
    }
    centre = (1.0 / rows) * centre;
    for (int i = 0; i < t.z_q.rows; ++i) {
      const double cz = dot(t.z_q, i, centre, 0), cc = dot(centre, 0, centre, 0),
                   zz = dot(t.z_q, i, t.z_q, i);
      logits(i, m) = c.protonet.metric == Metric::euclidean
                         ? -scale * (cc - 2.0 * cz + zz)
                         : scale * cz / (std::sqrt(zz) * std::sqrt(cc) + 1e-8);
    }
  }
  return {cross_entropy(logits, t.y_q), logits, Plain(0, 0)};
}

Result bayes_protonet(const Config&, const Task& t, const HeadValues& h) {
  Plain logits(t.z_q.rows, t.ways);
  const Plain m0 = h("prior_mean"), s0 = h("prior_log_std"), s = h("log_std");
  for (int m = 0; m < t.ways; ++m) {
    for (int j = 0; j < t.z_s.columns; ++j) {
      double rows = 0.0, sum = 0.0;
      for (int i = 0; i < t.z_s.rows; ++i) {
        rows += t.y_s(i, m);
        sum += t.y_s(i, m) * t.z_s(i, j);
      }
      const double prior = std::exp(-2.0 * s0(0, j)), own = std::exp(-2.0 * s(0, j));
      const double precision = prior + rows * own;
      const double mean = (prior * m0(0, j) + own * sum) / precision;
      const double variance = 1.0 / own + 1.0 / precision;
      for (int i = 0; i < t.z_q.rows; ++i) {
        const double d = t.z_q(i, j) - mean;
        logits(i, m) -= 0.5 * (d * d / variance + std::log(variance));
      }
    }
  }
  return {cross_entropy(logits, t.y_q), logits, Plain(0, 0)};
}

Result r2d2(const Config& c, const Task& t, const HeadValues& h) {
  const Plain x = with_ones(t.z_s), q = with_ones(t.z_q);
  const Plain system = x.transpose() * x + std::exp(h("log_lambda")(0, 0)) * identity(x.columns);
  Plain outputs = q * (inverse(system) * (x.transpose() * t.y_s));
  if (c.loss.type == LossType::cross_entropy) {
    outputs = std::exp(h("log_scale")(0, 0)) * outputs;
    return {cross_entropy(outputs, t.y_q), outputs, Plain(0, 0)};
  }
  double sum = 0.0;
  for (const double error : (outputs - t.y_q).e) sum += error * error;
  return {sum / static_cast<double>(outputs.e.size()), outputs, Plain(0, 0)};
}

Result alpaca(const Config&, const Task& t, const HeadValues& h) {
  const Plain x = with_ones(t.z_s), q = with_ones(t.z_q);
  const Plain f = h("prior_factor"), m0 = h("prior_mean"), noise = h("log_noise");
  Plain l(f.rows, f.rows);
  for (int i = 0; i < f.rows; ++i) {
    for (int j = 0; j < i; ++j) l(i, j) = f(i, j);
    l(i, i) = std::exp(f(i, i));
  }
  const Plain prior = l * l.transpose();
  const Plain covariance = inverse(x.transpose() * x + prior);
  const Plain w = covariance * (x.transpose() * t.y_s + prior * m0);
  Result r{0.0, q * w, Plain(q.rows, m0.columns)};
  const Plain spread = q * covariance * q.transpose();
  for (int i = 0; i < q.rows; ++i) {
    for (int o = 0; o < m0.columns; ++o) {
      r.variance(i, o) = (1.0 + spread(i, i)) * std::exp(2.0 * noise(0, o));
    }
  }
  r.loss = density(r.outputs, r.variance, t.y_q);
  return r;
}

Result dkt(const Config& c, const Task& t, const HeadValues& h) {
  const double amplitude = std::exp(2.0 * h("log_amplitude")(0, 0));
  const double noise = std::exp(2.0 * h("log_noise")(0, 0));
  const Plain mean = h("mean");
  const auto kernel = [&](const Plain& a, const Plain& b) {
    Plain k(a.rows, b.rows);
    for (int i = 0; i < a.rows; ++i) {
      for (int m = 0; m < b.rows; ++m) {
        const double ab = dot(a, i, b, m), aa = dot(a, i, a, i), bb = dot(b, m, b, m);
        switch (c.dkt.kernel) {
          case Kernel::linear:
            k(i, m) = ab;
            break;
          case Kernel::rbf:
            k(i, m) =
                std::exp(-(aa - 2.0 * ab + bb) / (2.0 * std::exp(2.0 * h("log_length")(0, 0))));
            break;
          case Kernel::cosine:
            k(i, m) = ab / (std::sqrt(aa) * std::sqrt(bb) + 1e-8);
            break;
        }
      }
    }
    return amplitude * k;
  };
  const auto residual = [&](Plain y) {
    for (int i = 0; i < y.rows; ++i) {
      for (int o = 0; o < y.columns; ++o) y(i, o) -= mean(0, o);
    }
    return y;
  };
  const Plain inv = inverse(kernel(t.z_s, t.z_s) + noise * identity(t.z_s.rows));
  const Plain k_qs = kernel(t.z_q, t.z_s), k_qq = kernel(t.z_q, t.z_q);
  Result r{0.0, k_qs * (inv * residual(t.y_s)), Plain(t.z_q.rows, mean.columns)};
  const Plain explained = k_qs * inv * k_qs.transpose();
  for (int i = 0; i < t.z_q.rows; ++i) {
    for (int o = 0; o < mean.columns; ++o) {
      r.outputs(i, o) += mean(0, o);
      r.variance(i, o) = k_qq(i, i) - explained(i, i) + noise;
    }
  }
  if (c.dkt.objective == ProcessObjective::predictive) {
    r.loss = density(r.outputs, r.variance, t.y_q);
    return r;
  }
  const auto stacked = [](const Plain& a, const Plain& b) {
    Plain s(a.rows + b.rows, b.columns);
    std::ranges::copy(a.e, s.e.begin());
    std::ranges::copy(b.e, s.e.begin() + static_cast<std::ptrdiff_t>(a.e.size()));
    return s;
  };
  const Plain z = stacked(t.z_s, t.z_q), y = residual(stacked(t.y_s, t.y_q));
  double log_determinant = 0.0;
  const Plain all = inverse(kernel(z, z) + noise * identity(z.rows), &log_determinant);
  const Plain fit = y.transpose() * all * y;
  for (int o = 0; o < y.columns; ++o) {
    r.loss +=
        0.5 * fit(o, o) + 0.5 * log_determinant + 0.5 * z.rows * std::log(2.0 * std::numbers::pi);
  }
  r.loss /= z.rows;
  return r;
}

// ---- settings ----

/// A case: a head with its formula, a network and numbers of rows.
struct Setting {
  std::string name;
  Config config;
  std::shared_ptr<const Network> network;
  Rows rows;
  Result (*formula)(const Config&, const Task&, const HeadValues&) = nullptr;
  int tasks = 5;
  /// Factor of the tolerances in double, for formulas with more rounding.
  double roundings = 1.0;
};
void PrintTo(const Setting& s, std::ostream* out) {
  *out << s.name;
}

std::vector<Setting> settings() {
  const auto network = [](Network n) { return std::make_shared<const Network>(std::move(n)); };
  const auto mlp = network(Network::mlp({2, 7, 4}, LayerType::tanh));
  const auto relu = network(Network::mlp({3, 6, 5}, LayerType::relu));
  const auto linear = network(Network::mlp({4, 3}, LayerType::relu));
  const auto conv = network(
      Network({1, 5, 4, true}, {conv_layer(3, 3, 1, 1), layer(LayerType::norm),
                                layer(LayerType::tanh), layer(LayerType::mean), linear_layer(4)}));
  std::vector<Setting> list;
  const auto add = [&](std::string name, AlgorithmKind kind, auto net, Rows rows, auto formula,
                       const std::function<void(Config&)>& change = {}) {
    Setting s{std::move(name), {}, net, rows, formula};
    s.config.algorithm = kind;
    s.config.loss.type = LossType::cross_entropy;
    if (kind == AlgorithmKind::alpaca || kind == AlgorithmKind::dkt) {
      s.config.loss.type = LossType::gaussian_nll;
      s.config.alpaca.outputs = s.config.dkt.outputs = rows.targets;
    }
    if (change) change(s.config);
    list.push_back(std::move(s));
  };
  const auto cosine = [](Config& c) { c.protonet.metric = Metric::cosine; };
  const auto squared = [](Config& c) { c.loss.type = LossType::mse; };
  const auto process = [](Kernel kernel, ProcessObjective objective) {
    return [=](Config& c) {
      c.dkt.kernel = kernel;
      c.dkt.objective = objective;
    };
  };
  // The numbers are least, support, query and targets. The last field says if tasks differ in their
  // number of classes.
  add("protonet_euclidean", AlgorithmKind::protonet, mlp, {4, 7, 5, 3, true}, protonet);
  add("protonet_cosine", AlgorithmKind::protonet, relu, {4, 7, 5, 3, true}, protonet, cosine);
  add("protonet_conv", AlgorithmKind::protonet, conv, {4, 6, 4, 3, false}, protonet);
  add("bayes_protonet", AlgorithmKind::bayes_protonet, mlp, {1, 6, 5, 4, true}, bayes_protonet);
  add("bayes_protonet_prior", AlgorithmKind::bayes_protonet, mlp, {1, 0, 5, 3, false},
      bayes_protonet);
  add("r2d2_dual", AlgorithmKind::r2d2, relu, {3, 5, 4, 3, true}, r2d2);
  add("r2d2_primal", AlgorithmKind::r2d2, linear, {3, 9, 4, 3, true}, r2d2);
  add("r2d2_regression_dual", AlgorithmKind::r2d2, mlp, {1, 3, 4, 2}, r2d2, squared);
  add("r2d2_regression_primal", AlgorithmKind::r2d2, conv, {1, 8, 4, 1}, r2d2, squared);
  add("alpaca_dual", AlgorithmKind::alpaca, mlp, {1, 3, 4, 2}, alpaca);
  add("alpaca_primal", AlgorithmKind::alpaca, linear, {1, 8, 5, 1}, alpaca);
  add("alpaca_one_row", AlgorithmKind::alpaca, relu, {1, 1, 3, 3}, alpaca);
  add("alpaca_prior", AlgorithmKind::alpaca, conv, {1, 0, 4, 2}, alpaca);
  const char* const kernels[] = {"linear", "rbf", "cosine"};
  for (const Kernel kernel : {Kernel::linear, Kernel::rbf, Kernel::cosine}) {
    const std::string name = fmt::format("dkt_{}", kernels[static_cast<int>(kernel)]);
    add(name + "_predictive", AlgorithmKind::dkt, mlp, {1, 6, 5, 2}, dkt,
        process(kernel, ProcessObjective::predictive));
    add(name + "_marginal", AlgorithmKind::dkt, kernel == Kernel::rbf ? conv : linear, {1, 4, 5, 2},
        dkt, process(kernel, ProcessObjective::marginal));
    add(name + "_prior", AlgorithmKind::dkt, mlp, {1, 0, 4, 1}, dkt,
        process(kernel, ProcessObjective::predictive));
  }
  add("dkt_marginal_prior", AlgorithmKind::dkt, mlp, {1, 0, 4, 1}, dkt,
      process(Kernel::rbf, ProcessObjective::marginal));
  // The tasks have one size, and there are more of them than any wave of lanes holds.
  add("r2d2_full_waves", AlgorithmKind::r2d2, linear, {5, 5, 4, 3}, r2d2);
  list.back().tasks = 17;
  // These systems are larger than those that are solved with tasks side by side.
  const auto wide = network(Network::mlp({2, 66}, LayerType::relu));
  add("r2d2_large", AlgorithmKind::r2d2, wide, {66, 67, 3, 2}, r2d2);
  add("alpaca_large", AlgorithmKind::alpaca, wide, {67, 67, 3, 1}, alpaca);
  list.back().tasks = 2;
  list.back().roundings = 100.0;
  return list;
}

/// The predictions of all tasks, [tasks, query rows, outputs].
struct Predictions {
  Numbers outputs, variance;
};

class ClosedFormTest : public ::testing::TestWithParam<std::tuple<std::string, Setting>> {
 protected:
  void SetUp() override {
    setting_ = std::get<1>(GetParam());
    tasks = setting_.tasks;
    backend_ = open_backend(std::get<0>(GetParam()));
    reference_ = open_backend("reference");
    make();
  }

  bool classify() const { return setting_.config.loss.type == LossType::cross_entropy; }

  void make() {
    problem_ = make_problem(setting_.network, classify() ? LossKind::cross_entropy : LossKind::mse,
                            tasks, 29, setting_.rows);
    problem_.loss.kind = classify() ? LossKind::cross_entropy : LossKind::gaussian_nll;
    if (classify() && setting_.rows.support > 0 &&
        setting_.config.algorithm != AlgorithmKind::bayes_protonet) {
      give_every_class_a_row();
    }
    // One task has no support row.
    if (has_prior(setting_.config.algorithm)) {
      problem_.single.support_n[1] = problem_.twice.support_n[1] = 0;
    }
    algorithm_ = make_algorithm(setting_.config, setting_.network);
    RandomStream random = stream(31, 9);
    const std::vector<Numbers> initial = algorithm_->initial(3);
    for (std::size_t g = 0; g < initial.size(); ++g) {
      Numbers values = normals(random, initial[g].size(), 0.3);
      for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(values[i] + initial[g][i]);
      }
      parameters_.push_back(std::move(values));
    }
  }
  void give_every_class_a_row() {
    for (int t = 0; t < tasks; ++t) {
      const int ways = ways_of(t);
      const int rows = problem_.single.support_n[static_cast<std::size_t>(t)];
      for (int i = 0; i < rows; ++i) {
        const auto at = static_cast<std::size_t>(t * setting_.rows.support + i);
        problem_.single.support_label[at] = i % ways;
        problem_.twice.support_label[at] = i % ways;
      }
    }
  }
  int ways_of(int t) const {
    return problem_.single.ways.empty() ? setting_.rows.targets
                                        : problem_.single.ways[static_cast<std::size_t>(t)];
  }

  /// Uploads the parameters to a backend, one vector per group.
  std::vector<backend::Shared> shared_parameters(backend::Backend& backend) const {
    std::vector<backend::Shared> shared;
    for (const Numbers& values : parameters_) {
      shared.push_back(backend.shared(values.size()));
      shared.back()->upload(values);
    }
    return shared;
  }
  /// The gradients of all groups, one after another.
  static Numbers gradients_of(const Scheduler& scheduler) {
    Numbers all;
    for (const backend::Shared& g : scheduler.gradients()) {
      Numbers values(g->size());
      g->download(values);
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

  /// The features of a task's valid rows, from the reference backend.
  Plain features(int t, Set set, const Numbers& theta) {
    if (!feature_wave_) {
      feature_wave_ = reference_->open(
          setting_.network, problem_.loss,
          {setting_.rows.support, setting_.rows.query, false, false, setting_.rows.targets});
      feature_weights_ = feature_wave_->weights();
    }
    backend::Wave& wave = *feature_wave_;
    wave.load(problem_.twice, t, 1, static_cast<std::uint32_t>(t));
    wave.upload(feature_weights_, theta.data(), 0);
    const int rows = set == Set::support ? problem_.twice.support_n[static_cast<std::size_t>(t)]
                                         : problem_.twice.query_n[static_cast<std::size_t>(t)];
    Plain z(rows, setting_.network->outputs());
    if (rows == 0) return z;
    wave.value({set, feature_weights_, {}}, {}, wave.outputs(set), NormStatistics::batch);
    Numbers all(static_cast<std::size_t>(wave.rows(set) * z.columns));
    wave.download(wave.outputs(set), all);
    std::copy_n(all.begin(), z.e.size(), z.e.begin());
    return z;
  }
  Plain targets(int t, Set set) const {
    const bool support = set == Set::support;
    const auto task = static_cast<std::size_t>(t);
    const int most = support ? setting_.rows.support : setting_.rows.query;
    const int rows = support ? problem_.twice.support_n[task] : problem_.twice.query_n[task];
    Plain y(rows, classify() ? ways_of(t) : setting_.rows.targets);
    for (int i = 0; i < rows; ++i) {
      const auto row = task * static_cast<std::size_t>(most) + static_cast<std::size_t>(i);
      if (classify()) {
        y(i, (support ? problem_.twice.support_label : problem_.twice.query_label)[row]) = 1.0;
        continue;
      }
      for (int o = 0; o < y.columns; ++o) {
        y(i, o) =
            (support ? problem_.twice.support_value64
                     : problem_.twice.query_value64)[row * static_cast<std::size_t>(y.columns) +
                                                     static_cast<std::size_t>(o)];
      }
    }
    return y;
  }
  Result task_result(int t, const std::vector<Numbers>& at) {
    const Task task{features(t, Set::support, at[0]), features(t, Set::query, at[0]),
                    targets(t, Set::support), targets(t, Set::query), ways_of(t)};
    const ParameterGroup& head = algorithm_->groups()[1];
    return setting_.formula(setting_.config, task, [&](const std::string& name) {
      for (const ParameterTensor& tensor : head.tensors) {
        if (tensor.name != name) continue;
        Plain p(tensor.shape.size() > 1 ? tensor.shape[0] : 1, tensor.shape.back());
        std::copy_n(at[1].begin() + static_cast<std::ptrdiff_t>(tensor.offset), p.e.size(),
                    p.e.begin());
        return p;
      }
      throw std::logic_error("no tensor " + name);
    });
  }
  double objective(const std::vector<Numbers>& at) {
    double sum = 0.0;
    for (int t = 0; t < tasks; ++t) sum += task_result(t, at).loss;
    return sum / tasks;
  }
  /// The values of one task in the layout of a wave, with zeros where the task has no row or class.
  Numbers padded(const Plain& p) const {
    Numbers all(static_cast<std::size_t>(setting_.rows.query * setting_.rows.targets), 0.0);
    for (int i = 0; i < p.rows; ++i) {
      for (int o = 0; o < p.columns; ++o) {
        all[static_cast<std::size_t>(i * setting_.rows.targets + o)] = p(i, o);
      }
    }
    return all;
  }

  Setting setting_;
  int tasks = 0;
  std::unique_ptr<backend::Backend> backend_, reference_;
  Problem problem_;
  std::unique_ptr<Algorithm> algorithm_;
  std::vector<Numbers> parameters_;
  std::unique_ptr<backend::Wave> feature_wave_;
  backend::Block feature_weights_;
};

TEST_P(ClosedFormTest, LossPredictionsAndGradientAreThoseOfTheFormulas) {
  const std::vector<backend::Shared> shared = shared_parameters(*backend_);
  const TaskBatch& batch = problem_.batch(*backend_);
  Scheduler scheduler(*backend_, *algorithm_, batch.shape());
  const auto size = static_cast<std::size_t>(setting_.rows.query * setting_.rows.targets);
  const std::size_t all = static_cast<std::size_t>(tasks) * size;
  Numbers outputs(all), variance(all), predicted(all);
  const StepResult step = scheduler.step(shared, batch, {}, [&](TaskProgram& program, int first) {
    const auto at = static_cast<std::size_t>(first) * size;
    const auto count = static_cast<std::size_t>(program.wave().count()) * size;
    program.outputs_after_gradient([&](int, backend::Block block) {
      program.wave().download(block, std::span(outputs).subspan(at, count));
    });
    if (const backend::Block block = program.predictive_variance()) {
      program.wave().download(block, std::span(variance).subspan(at, count));
    }
    program.predict({}, {}, [&](int, int, backend::Block block) {
      program.wave().download(block, std::span(predicted).subspan(at, count));
    });
  });
  EXPECT_EQ(step.diverged, 0u);
  const bool twice = backend_->precision() == backend::Precision::f64;
  Numbers want_outputs, want_variance;
  for (int t = 0; t < tasks; ++t) {
    const Result r = task_result(t, parameters_);
    const Numbers o = padded(r.outputs), v = padded(r.variance);
    want_outputs.insert(want_outputs.end(), o.begin(), o.end());
    want_variance.insert(want_variance.end(), v.begin(), v.end());
  }
  // The systems have a few rows and condition numbers up to some thousands. The tolerance allows
  // for that many roundings.
  const double within = twice ? 1e-11 * setting_.roundings : 1e-4;
  const double value = objective(parameters_);
  EXPECT_NEAR(step.loss, value, within * (1.0 + std::abs(value)));
  EXPECT_TRUE(close_rows(outputs, want_outputs, size, within));
  EXPECT_TRUE(close_rows(predicted, want_outputs, size, within));
  if (!classify() && setting_.config.algorithm != AlgorithmKind::r2d2) {
    EXPECT_TRUE(close_rows(variance, want_variance, size, within));
  }
  // Both groups are compared on one scale, because one of them may be near zero.
  Numbers got, want;
  for (std::size_t g = 0; g < parameters_.size(); ++g) {
    Numbers gradient(parameters_[g].size());
    scheduler.gradients()[g]->download(gradient);
    const auto coordinates = chosen_coordinates(gradient.size(), g == 0 ? 24 : 40);
    Numbers differences = central_differences(
        [&](const Numbers& x) {
          std::vector<Numbers> at = parameters_;
          at[g] = x;
          return Numbers{objective(at)};
        },
        parameters_[g], 1, coordinates, difference_step);
    // A difference that is only the rounding of an exact zero (of classes that differ in nothing)
    // counts as zero.
    for (double& d : differences) d = std::abs(d) < 1e-9 ? 0.0 : d;
    const Numbers chosen = select(gradient, 1, coordinates);
    got.insert(got.end(), chosen.begin(), chosen.end());
    want.insert(want.end(), differences.begin(), differences.end());
  }
  const double gradient_within = twice ? 2e-6 * setting_.roundings : 3e-4;
  if (std::ranges::all_of(want, [](double w) { return w == 0.0; })) {
    // Where nothing depends on any parameter, the only scale is that of the loss.
    for (const double g : got) EXPECT_NEAR(g, 0.0, gradient_within * (1.0 + std::abs(value)));
    return;
  }
  EXPECT_TRUE(close_rows(got, want, want.size(), gradient_within));
}

TEST_P(ClosedFormTest, ThreadsAndEarlierTasksDoNotChangeABit) {
  const auto gradients = [&](int threads, bool after_one) {
    const auto backend = open_backend(std::get<0>(GetParam()), threads);
    const auto algorithm = make_algorithm(setting_.config, setting_.network);
    const std::vector<backend::Shared> shared = shared_parameters(*backend);
    const TaskBatch& batch = problem_.batch(*backend);
    Scheduler scheduler(*backend, *algorithm, batch.shape());
    if (after_one) scheduler.step(shared, first_tasks(batch, 1), {});
    scheduler.step(shared, batch, {});
    return gradients_of(scheduler);
  };
  const Numbers one = gradients(1, false);
  EXPECT_EQ(gradients(3, true), one);
}

/// With dropout, the loss and the gradients are those without it on rows that the test drops by the
/// keys of the masks. Predictions drop nothing.
TEST_P(ClosedFormTest, DropoutOfInputsInTrainingAlone) {
  // Dropout comes before the features. The size of the systems after them makes no difference.
  if (setting_.rows.support > 64) return;
  constexpr double rate = 0.4;
  StepContext context;
  context.seed = 7;
  context.step = 3;
  const auto run = [&](const Config& config, const TaskBatch& batch, Numbers* predicted) {
    const auto algorithm = make_algorithm(config, setting_.network);
    const std::vector<backend::Shared> shared = shared_parameters(*backend_);
    Scheduler scheduler(*backend_, *algorithm, batch.shape());
    const auto size = static_cast<std::size_t>(setting_.rows.query * setting_.rows.targets);
    predicted->resize(static_cast<std::size_t>(tasks) * size);
    const auto predict = [&](TaskProgram& program, int first) {
      program.predict(context, {}, [&](int, int, backend::Block block) {
        program.wave().download(
            block, std::span(*predicted)
                       .subspan(static_cast<std::size_t>(first) * size,
                                static_cast<std::size_t>(program.wave().count()) * size));
      });
    };
    Numbers result = {scheduler.step(shared, batch, context, predict).loss};
    const Numbers gradients = gradients_of(scheduler);
    result.insert(result.end(), gradients.begin(), gradients.end());
    return result;
  };
  Problem dropped = problem_;
  const auto inputs = static_cast<std::size_t>(setting_.network->input().size());
  const auto drop = [&](auto& x, const std::vector<int>& rows_of, int most, int pass) {
    if (x.empty()) return;  // A batch has rows in one of the two precisions.
    for (std::uint32_t t = 0; t < static_cast<std::uint32_t>(tasks); ++t) {
      const RandomKey key{
          context.seed, Purpose::dropout, context.step, t, static_cast<std::uint32_t>(pass), 0};
      const std::size_t first = t * static_cast<std::size_t>(most) * inputs;
      for (std::size_t i = 0; i < static_cast<std::size_t>(rows_of[t]) * inputs; ++i) {
        const bool gone = uniform_element(key, i) < rate;
        x[first + i] = gone ? 0 : x[first + i] / static_cast<decltype(x[0] + 0)>(1.0 - rate);
      }
    }
  };
  for (TaskBatch* b : {&dropped.single, &dropped.twice}) {
    drop(b->support_x, b->support_n, setting_.rows.support, 0);
    drop(b->support_x64, b->support_n, setting_.rows.support, 0);
    drop(b->query_x, b->query_n, setting_.rows.query, 1);
    drop(b->query_x64, b->query_n, setting_.rows.query, 1);
  }
  Config with = setting_.config;
  with.network.input_dropout = rate;
  Numbers predicted, plain_predicted, ignored;
  const Numbers got = run(with, problem_.batch(*backend_), &predicted);
  const Numbers plain = run(setting_.config, problem_.batch(*backend_), &plain_predicted);
  const Numbers want = run(setting_.config, dropped.batch(*backend_), &ignored);
  const double within = backend_->precision() == backend::Precision::f64 ? 1e-12 : 1e-4;
  EXPECT_TRUE(close_rows(got, want, want.size(), within));
  EXPECT_EQ(predicted, plain_predicted);
  // Without support rows, an RBF kernel is the same for every row.
  if (setting_.name != "dkt_rbf_prior") {
    EXPECT_NE(got, plain);
  }
}

std::string test_name(const ::testing::TestParamInfo<ClosedFormTest::ParamType>& param) {
  return std::get<0>(param.param) + "_" + std::get<1>(param.param).name;
}

INSTANTIATE_TEST_SUITE_P(Backends, ClosedFormTest,
                         ::testing::ValuesIn(backends_with(settings(),
                                                           [](const Setting& s,
                                                              const backend::Backend& b) {
                                                             return takes(b, *s.network);
                                                           })),
                         test_name);

/// A task whose system is singular or whose rows are not finite counts as one diverged task.
TEST(ClosedForm, ASingularTaskIsOneDivergedTask) {
  const auto network = std::make_shared<const Network>(Network::mlp({2, 3}, LayerType::relu));
  for (const std::string& name : backend_names()) {
    SCOPED_TRACE(name);
    const auto backend = open_backend(name);
    Problem problem = make_problem(network, LossKind::mse, 4, 5, {3, 4, 4, 1});
    problem.loss.kind = LossKind::gaussian_nll;
    Config config;
    config.algorithm = AlgorithmKind::dkt;
    config.loss.type = LossType::gaussian_nll;
    config.dkt.kernel = Kernel::linear;
    config.dkt.outputs = 1;
    const auto run = [&] {
      const auto algorithm = make_algorithm(config, network);
      std::vector<backend::Shared> shared;
      for (const Numbers& values : algorithm->initial(1)) {
        shared.push_back(backend->shared(values.size()));
        shared.back()->upload(values);
      }
      const TaskBatch& batch = problem.batch(*backend);
      Scheduler scheduler(*backend, *algorithm, batch.shape());
      const StepResult step = scheduler.step(shared, batch, {});
      EXPECT_TRUE(std::isfinite(step.loss));
      return scheduler.diverged_tasks();
    };
    EXPECT_TRUE(run().empty());
    // The inputs are so large that their kernel overflows.
    for (int i = 0; i < 8; ++i) {
      problem.single.support_x[static_cast<std::size_t>(2 * 8 + i)] = 3e38f;
      problem.twice.support_x64[static_cast<std::size_t>(2 * 8 + i)] = 1e300;
    }
    EXPECT_EQ(run(), std::vector<std::uint32_t>{2});
  }
}

}  // namespace
}  // namespace kshot::testing
