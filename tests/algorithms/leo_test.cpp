// Tests LEO's whole meta-gradient, on every backend, for random sizes and flags, against central
// differences of the meta-objective. It is one file because nearly all tests share the random
// settings and the objective, which are half of it.
//
// The objective is written out here once more, in double, one task at a time. Its networks, losses
// and gradients are this file's own. Terms that it treats as constants are recorded at the point of
// differentiation. They are the inner gradients in first order and the adapted latents in the
// encoder penalty.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <set>

#include "algorithms/algorithm.h"
#include "engine/scheduler.h"
#include "support/backend_problems.h"
#include "support/error_text.h"

namespace kshot::testing {
namespace {

/// A perceptron on single rows, y = f(x; w), and its pull-back.
struct Perceptron {
  const Network* network = nullptr;
  const double* weights = nullptr;
  mutable std::vector<Numbers> inputs = {};

  Numbers forward(Numbers x) const {
    inputs.clear();
    for (const Layer& layer : network->layers()) {
      inputs.push_back(x);
      if (layer.type == LayerType::relu) {
        for (double& v : x) v = std::max(v, 0.0);
      } else if (layer.type == LayerType::tanh) {
        for (double& v : x) v = std::tanh(v);
      } else {
        Numbers y(static_cast<std::size_t>(layer.out.size()), 0.0);
        const double* w = at(layer.weight);
        for (std::size_t o = 0; o < y.size(); ++o) {
          if (layer.bias >= 0) y[o] = at(layer.bias)[o];
          for (std::size_t i = 0; i < x.size(); ++i) y[o] += w[o * x.size() + i] * x[i];
        }
        x = std::move(y);
      }
    }
    return x;
  }
  /// The pull-back of the last forward pass. Returns the gradient of the input, and adds the
  /// gradient of the weights to g_weights.
  Numbers backward(Numbers g, Numbers* g_weights) const {
    for (std::size_t l = inputs.size(); l-- > 0;) {
      const Layer& layer = network->layers()[l];
      const Numbers& x = inputs[l];
      Numbers gx(x.size(), 0.0);
      for (std::size_t i = 0; i < x.size(); ++i) {
        if (layer.type == LayerType::relu) {
          gx[i] = x[i] > 0.0 ? g[i] : 0.0;
        } else if (layer.type == LayerType::tanh) {
          gx[i] = g[i] * (1.0 - std::tanh(x[i]) * std::tanh(x[i]));
        } else {
          for (std::size_t o = 0; o < g.size(); ++o) {
            gx[i] += g[o] * at(layer.weight)[o * x.size() + i];
            if (g_weights) (*g_weights)[offset(layer.weight) + o * x.size() + i] += g[o] * x[i];
          }
        }
      }
      if (g_weights && layer.bias >= 0) {
        for (std::size_t o = 0; o < g.size(); ++o) (*g_weights)[offset(layer.bias) + o] += g[o];
      }
      g = std::move(gx);
    }
    return g;
  }
  std::size_t offset(int tensor) const {
    return network->parameters()[static_cast<std::size_t>(tensor)].offset;
  }
  const double* at(int tensor) const { return weights + offset(tensor); }
};

Network perceptron(int inputs, const std::vector<int>& sizes, bool bias) {
  std::vector<LayerSpec> layers;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (i > 0) layers.push_back(layer(LayerType::relu));
    LayerSpec spec = linear_layer(sizes[i]);
    spec.bias = bias;
    layers.push_back(spec);
  }
  return Network({inputs, 1, 1, false}, layers);
}

/// A random case: a configuration, tasks in float and double, and the point at which the gradient
/// is taken.
struct LeoSetting {
  std::string name;
  Config config;
  std::shared_ptr<const Network> network;
  TaskBatch single, twice;
  /// All parameters, group after group. The last one is log_noise where the noise is learned.
  Numbers theta;
  StepContext context;

  bool learned_noise() const { return config.loss.noise == NoiseKind::learned; }
  bool head() const { return config.loss.type == LossType::cross_entropy; }
  const TaskBatch& batch(const backend::Backend& b) const {
    return b.precision() == backend::Precision::f64 ? twice : single;
  }
};

/// A random setting from `seed`. If `head` is true, LEO generates a softmax head on features,
/// otherwise all weights of a network.
LeoSetting random_leo(std::uint64_t seed, bool head) {
  RandomStream random = stream(seed, head ? 60 : 61);
  LeoSetting s;
  Config& c = s.config;
  c.algorithm = AlgorithmKind::leo;
  c.inner.order = random.below(4) == 0 ? Order::first : Order::second;
  Config::LeoTable& t = c.leo;
  t.ways = pick(random, 2, 4);
  t.dim = pick(random, 3, 20);
  t.latent = pick(random, 2, 6);
  t.latent_steps = pick(random, 0, 3);
  t.finetune_steps = pick(random, 0, 3);
  t.latents = random.below(2) == 0 ? Latents::per_example : Latents::one;
  t.relation = random.below(4) != 0;
  t.deterministic = random.below(5) == 0;
  t.kl = random.below(2) == 0 ? LatentKl::sampled : LatentKl::analytic;
  t.kl_weight = random.below(4) == 0 ? 0.0 : 0.3;
  t.encoder_penalty = random.below(3) == 0 ? 0.0 : 0.25;
  t.l2_weight = random.below(2) == 0 ? 0.0 : 0.01;
  t.orthogonality_weight = random.below(2) == 0 ? 0.0 : 0.5;
  t.dropout_rate = head && random.below(2) == 0 ? 0.25 : 0.0;
  t.decoder_offset = random.below(2) == 0 ? -1.0 : 0.5;
  t.encoder_layers = {5};
  t.decoder_layers = random.below(2) == 0 ? std::vector<int>{4} : std::vector<int>{4, 3};
  c.loss.noise_std = 0.75;
  if (head) {
    c.loss.type = LossType::cross_entropy;
  } else {
    c.loss.type = random.below(2) == 0 ? LossType::mse : LossType::gaussian_nll;
    if (c.loss.type == LossType::gaussian_nll && stream(seed, 62).below(4) != 0) {
      c.loss.noise = NoiseKind::learned;
    }
    c.network.layers = {pick(random, 1, 2), 4, 3, pick(random, 1, 2)};
    c.network.activation = random.below(2) == 0 ? "tanh" : "relu";
  }
  c.check();
  s.network = std::make_shared<const Network>(c.make_network());

  const int shots = pick(random, 1, 3);
  const bool ragged = !head || t.latents == Latents::one;
  const int tasks = 18;  // 18 tasks fill a SIMD group and begin the next one.
  TaskShape shape;
  shape.input = s.network->input();
  shape.outputs = s.network->outputs();
  shape.target = head ? TargetKind::label : TargetKind::value;
  shape.support = head ? t.ways * shots : 5;
  shape.query = 4;
  s.single = TaskBatch(shape, tasks);
  s.twice = TaskBatch(shape, tasks, true);
  const auto fill = [&](bool support) {
    const int rows = support ? shape.support : shape.query;
    auto& x = support ? s.single.support_x : s.single.query_x;
    auto& label = support ? s.single.support_label : s.single.query_label;
    auto& value = support ? s.single.support_value : s.single.query_value;
    for (float& v : x) v = random.normal();
    for (float& v : value) v = random.normal();
    for (int i = 0; i < tasks; ++i) {
      for (int r = 0; head && r < rows; ++r) {
        // Every class has a support row. The rows are not ordered by class.
        auto& to = label[static_cast<std::size_t>(i * rows + r)];
        to = support ? (r * (i % 2 == 0 ? 1 : t.ways - 1) + i) % t.ways
                     : static_cast<int>(random.below(static_cast<unsigned>(t.ways)));
        if (support && i % 2 == 1 && std::gcd(t.ways - 1, t.ways) != 1) to = r % t.ways;
      }
      if (ragged && i > 0) {
        (support ? s.single.support_n : s.single.query_n)[static_cast<std::size_t>(i)] =
            support && head ? pick(random, t.ways, rows) : pick(random, 1, rows);
      }
    }
  };
  fill(true);
  fill(false);
  const auto copy = [](const auto& from, auto& to) { to.assign(from.begin(), from.end()); };
  copy(s.single.support_x, s.twice.support_x64);
  copy(s.single.query_x, s.twice.query_x64);
  copy(s.single.support_value, s.twice.support_value64);
  copy(s.single.query_value, s.twice.query_value64);
  s.twice.support_label = s.single.support_label;
  s.twice.query_label = s.single.query_label;
  s.twice.support_n = s.single.support_n;
  s.twice.query_n = s.single.query_n;

  s.context.seed = seed;
  s.context.step = 7;
  const auto made = make_algorithm(c, s.network);
  EXPECT_EQ(made->groups().size(), s.learned_noise() ? 2u : 1u);
  for (const ParameterTensor& tensor : made->groups()[0].tensors) {
    for (std::size_t e = 0; e < tensor.size; ++e) {
      // The scale is small enough that the inner loops do not diverge, because standard deviations
      // are exp(u).
      const double scale = 0.6;
      double v =
          random.normal() * (tensor.shape.size() == 2 ? scale / std::sqrt(tensor.shape[1]) : 0.2);
      if (tensor.name.ends_with("_lr")) v = 0.01 + (head ? 0.05 : 0.02) * random.uniform();
      s.theta.push_back(static_cast<float>(v));
    }
  }
  if (s.learned_noise()) s.theta.push_back(static_cast<float>(std::log(0.6)));
  s.name = fmt::format("seed {}: {}, {} order, K {} + {}, {} latents, {} kl, dropout {}", seed,
                       head ? fmt::format("{} x {} head", t.ways, t.dim) : "network",
                       c.inner.order == Order::first ? "first" : "second", t.latent_steps,
                       t.finetune_steps, t.latents == Latents::one ? "one" : "per example",
                       t.kl == LatentKl::sampled ? "sampled" : "analytic", t.dropout_rate);
  return s;
}

/// An option of LEO with the names of its two values. `taken` is true where a setting takes the
/// value `yes`.
struct Choice {
  std::string yes, no;
  bool taken = false;
};
std::vector<Choice> choices(const LeoSetting& s) {
  const Config::LeoTable& t = s.config.leo;
  std::vector<Choice> all = {
      {"second order", "first order", s.config.inner.order == Order::second},
      {"latent steps", "no latent step", t.latent_steps > 0},
      {"fine-tuning", "no fine-tuning", t.finetune_steps > 0},
      {"relation network", "no relation network", t.relation},
      {"drawn", "deterministic", !t.deterministic},
      {"sampled KL", "analytic KL", t.kl == LatentKl::sampled},
      {"KL", "no KL", t.kl_weight > 0.0},
      {"encoder penalty", "no encoder penalty", t.encoder_penalty > 0.0},
      {"L2", "no L2", t.l2_weight > 0.0},
      {"orthogonality", "none", t.orthogonality_weight > 0.0},
  };
  if (s.head()) {
    all.push_back({"dropout", "no dropout", t.dropout_rate > 0.0});
    all.push_back({"a latent a row", "a latent a class", t.latents == Latents::per_example});
  } else {
    all.push_back({"MSE", "Gaussian NLL", s.config.loss.type == LossType::mse});
    all.push_back({"learned noise", "fixed noise", s.learned_noise()});
    if (s.learned_noise()) {
      const bool second = s.config.inner.order == Order::second;
      all.push_back({"learned noise, second order", "learned noise, first order", second});
    }
  }
  return all;
}

/// The meta-objective of a setting, written out.
class LeoObjective {
 public:
  explicit LeoObjective(const LeoSetting& setting)
      : s_(setting),
        t_(setting.config.leo),
        groups_(setting.head() ? static_cast<std::size_t>(t_.ways) : 1),
        latent_(static_cast<std::size_t>(t_.latent)),
        weights_(setting.network->size() / groups_),
        encoder_(networks(0)),
        relation_(networks(1)),
        decoder_(networks(2)) {
    constants_.resize(static_cast<std::size_t>(s_.twice.tasks()));
    recording_ = true;
    value_ = (*this)(s_.theta, &task_losses_);
    recording_ = false;
  }
  double value() const { return value_; }
  const Numbers& task_losses() const { return task_losses_; }

  double operator()(const Numbers& theta, Numbers* task_losses = nullptr) {
    double sum = 0.0;
    noise_std_ = s_.learned_noise() ? std::exp(theta.back()) : s_.config.loss.noise_std;
    const auto tasks = static_cast<std::size_t>(s_.twice.tasks());
    for (std::size_t t = 0; t < tasks; ++t) {
      next_ = 0;
      const double loss = task(t, theta);
      sum += loss;
      if (task_losses) task_losses->push_back(loss);
    }
    return sum / static_cast<double>(tasks) + penalties(theta);
  }

 private:
  Network networks(int which) const {
    const bool head = s_.head();
    const int two = 2 * t_.latent;
    if (which == 1) return perceptron(two, {two, two, two}, !head);
    std::vector<int> sizes;
    if (!head) sizes = which == 0 ? t_.encoder_layers : t_.decoder_layers;
    if (which == 0) {
      sizes.push_back(t_.relation ? t_.latent : two);
      return perceptron(s_.network->input().size() + (head ? 0 : s_.network->outputs()), sizes,
                        !head);
    }
    sizes.push_back(2 * static_cast<int>(weights_));
    return perceptron(t_.latent, sizes, !head);
  }
  std::size_t relation_begin() const { return encoder_.size(); }
  std::size_t decoder_begin() const {
    return relation_begin() + (t_.relation ? relation_.size() : 0);
  }
  std::size_t rates_at() const { return decoder_begin() + decoder_.size(); }

  double penalties(const Numbers& theta) const {
    double l2 = 0.0;
    const auto squares = [&](const Network& network, std::size_t at) {
      for (const ParameterTensor& p : network.parameters()) {
        if (p.shape.size() != 2) continue;
        for (std::size_t e = 0; e < p.size; ++e) l2 += std::pow(theta[at + p.offset + e], 2);
      }
    };
    squares(encoder_, 0);
    if (t_.relation) squares(relation_, relation_begin());
    squares(decoder_, decoder_begin());
    const ParameterTensor* last = nullptr;
    for (const ParameterTensor& p : decoder_.parameters()) {
      if (p.shape.size() == 2) last = &p;
    }
    const auto columns = static_cast<std::size_t>(last->shape[1]);
    const auto dot = [&](std::size_t a, std::size_t b) {
      double sum = 0.0;
      for (std::size_t r = 0; r < static_cast<std::size_t>(last->shape[0]); ++r) {
        const double* row = theta.data() + decoder_begin() + last->offset + r * columns;
        sum += row[a] * row[b];
      }
      return sum;
    };
    double orthogonality = 0.0;
    for (std::size_t a = 0; a < columns; ++a) {
      for (std::size_t b = 0; b < columns; ++b) {
        const double cosine = dot(a, b) / std::sqrt(dot(a, a) * dot(b, b));
        orthogonality += std::pow(cosine - (a == b ? 1.0 : 0.0), 2);
      }
    }
    return t_.l2_weight * l2 / 2.0 +
           t_.orthogonality_weight * orthogonality / static_cast<double>(columns * columns);
  }

  /// A value that the objective treats as a constant. The first evaluation records it, and later
  /// evaluations return the record.
  const Numbers& constant(std::size_t task, const Numbers& now) {
    if (recording_) constants_[task].push_back(now);
    return constants_[task][next_++];
  }

  struct Rows {
    std::vector<Numbers> x, y;
    std::vector<int> label;
  };
  Rows rows(std::size_t task, bool support, int dropout_pass) const {
    const TaskBatch& b = s_.twice;
    const TaskShape& shape = b.shape();
    const auto most = static_cast<std::size_t>(support ? shape.support : shape.query);
    const auto n = static_cast<std::size_t>((support ? b.support_n : b.query_n)[task]);
    const auto inputs = static_cast<std::size_t>(shape.input.size());
    const auto outputs = static_cast<std::size_t>(shape.outputs);
    Rows result;
    const RandomKey key{s_.context.seed,
                        Purpose::dropout,
                        s_.context.step,
                        static_cast<std::uint32_t>(task),
                        static_cast<std::uint32_t>(dropout_pass),
                        0};
    for (std::size_t r = 0; r < n; ++r) {
      Numbers x(inputs), y;
      for (std::size_t i = 0; i < inputs; ++i) {
        x[i] = (support ? b.support_x64 : b.query_x64)[(task * most + r) * inputs + i];
        if (t_.dropout_rate > 0.0) {
          const bool dropped = uniform_element(key, r * inputs + i) < t_.dropout_rate;
          x[i] = dropped ? 0.0 : x[i] / (1.0 - t_.dropout_rate);
        }
      }
      if (s_.head()) {
        result.label.push_back((support ? b.support_label : b.query_label)[task * most + r]);
      } else {
        for (std::size_t o = 0; o < outputs; ++o) {
          y.push_back(
              (support ? b.support_value64 : b.query_value64)[(task * most + r) * outputs + o]);
        }
      }
      result.x.push_back(std::move(x));
      result.y.push_back(std::move(y));
    }
    return result;
  }

  /// The sum of the losses over rows, and its gradient.
  double summed_loss(const Rows& rows, const Numbers& weights, Numbers* gradient) const {
    const Perceptron f{s_.network.get(), weights.data()};
    if (gradient) gradient->assign(weights.size(), 0.0);
    double sum = 0.0;
    for (std::size_t r = 0; r < rows.x.size(); ++r) {
      const Numbers o = f.forward(rows.x[r]);
      Numbers g(o.size());
      if (s_.head()) {
        double total = 0.0;
        for (const double v : o) total += std::exp(v);
        for (std::size_t i = 0; i < o.size(); ++i) g[i] = std::exp(o[i]) / total;
        const auto label = static_cast<std::size_t>(rows.label[r]);
        sum += std::log(total) - o[label];
        g[label] -= 1.0;
      } else {
        const double std = noise_std_;
        const bool mse = s_.config.loss.type == LossType::mse;
        const double factor = mse ? 1.0 / static_cast<double>(o.size()) : 0.5 / (std * std);
        for (std::size_t i = 0; i < o.size(); ++i) {
          const double d = o[i] - rows.y[r][i];
          sum += factor * d * d;
          if (!mse) sum += std::log(std) + 0.5 * std::log(2.0 * std::numbers::pi);
          g[i] = 2.0 * factor * d;
        }
      }
      if (gradient) f.backward(g, gradient);
    }
    return sum;
  }

  static double deviation(double u, double offset) {
    return std::max(std::exp(u) - (1.0 - offset), 1e-10);
  }
  double offset(std::size_t p) const {
    if (t_.decoder_offset >= 0.0) return t_.decoder_offset;
    if (s_.head()) return std::sqrt(2.0 / (t_.ways + t_.dim));
    const ParameterTensor* matrix = nullptr;
    for (const ParameterTensor& tensor : s_.network->parameters()) {
      if (tensor.shape.size() == 2) matrix = &tensor;
      if (p < tensor.offset + tensor.size) break;
    }
    return std::sqrt(2.0 / (matrix->shape[0] + matrix->shape[1]));
  }
  Numbers noise(std::size_t task, Purpose purpose, int k, std::size_t width) const {
    Numbers eps(width, 0.0);
    if (t_.deterministic) return eps;
    const RandomKey key{s_.context.seed,
                        purpose,
                        s_.context.step,
                        static_cast<std::uint32_t>(task),
                        static_cast<std::uint32_t>(k),
                        0};
    for (std::size_t i = 0; i < width; ++i) eps[i] = normal_element(key, i);
    return eps;
  }

  /// The weights that latents z [N, C, L] decode to, and the pull-back of a gradient of the
  /// weights.
  Numbers decode(const Numbers& theta, const Numbers& z, const Numbers& eps, std::size_t latents,
                 const Numbers* g_weights, Numbers* g_z) const {
    const Perceptron decoder{&decoder_, theta.data() + decoder_begin()};
    Numbers weights(groups_ * weights_, 0.0);
    if (g_z) g_z->clear();
    for (std::size_t row = 0; row < groups_ * latents; ++row) {
      const Numbers o =
          decoder.forward(Numbers(z.begin() + static_cast<std::ptrdiff_t>(row * latent_),
                                  z.begin() + static_cast<std::ptrdiff_t>((row + 1) * latent_)));
      Numbers g(2 * weights_, 0.0);
      for (std::size_t p = 0; p < weights_; ++p) {
        const std::size_t w = row / latents * weights_ + p;
        const double e = eps[row * weights_ + p];
        const double std = deviation(o[weights_ + p], offset(p));
        weights[w] += (o[p] + (t_.deterministic ? 0.0 : std * e)) / static_cast<double>(latents);
        if (!g_z) continue;
        g[p] = (*g_weights)[w] / static_cast<double>(latents);
        g[weights_ + p] = std > 1e-10 ? g[p] * e * std::exp(o[weights_ + p]) : 0.0;
      }
      if (!g_z) continue;
      const Numbers gz = decoder.backward(g, nullptr);
      g_z->insert(g_z->end(), gz.begin(), gz.end());
    }
    return weights;
  }

  /// (m, u) of each group.
  std::vector<Numbers> statistics(const Numbers& theta, const Rows& support) const {
    const Perceptron encoder{&encoder_, theta.data()};
    const Perceptron relation{&relation_, theta.data() + relation_begin()};
    std::vector<Numbers> codes, result(groups_, Numbers(2 * latent_, 0.0));
    for (std::size_t r = 0; r < support.x.size(); ++r) {
      Numbers x = support.x[r];
      x.insert(x.end(), support.y[r].begin(), support.y[r].end());
      codes.push_back(encoder.forward(x));
    }
    Numbers count(groups_, 0.0);
    const auto group = [&](std::size_t r) {
      return s_.head() ? static_cast<std::size_t>(support.label[r]) : 0;
    };
    for (std::size_t r = 0; r < codes.size(); ++r) count[group(r)] += 1.0;
    for (std::size_t i = 0; i < codes.size(); ++i) {
      Numbers of_row(2 * latent_, 0.0);
      if (t_.relation) {
        for (const Numbers& partner : codes) {
          Numbers pair = codes[i];
          pair.insert(pair.end(), partner.begin(), partner.end());
          const Numbers o = relation.forward(pair);
          for (std::size_t k = 0; k < o.size(); ++k) {
            of_row[k] += o[k] / static_cast<double>(codes.size());
          }
        }
      } else {
        of_row = codes[i];
      }
      for (std::size_t k = 0; k < of_row.size(); ++k) {
        result[group(i)][k] += of_row[k] / count[group(i)];
      }
    }
    return result;
  }

  double task(std::size_t t, const Numbers& theta) {
    const bool head = s_.head();
    const Rows clean = rows(t, true, 0);
    const std::size_t latents = head && t_.latents == Latents::per_example
                                    ? static_cast<std::size_t>(s_.twice.shape().support / t_.ways)
                                    : 1;
    const auto stats = statistics(theta, clean);
    const Numbers eps = noise(t, Purpose::noise_latent, 0, groups_ * latents * latent_);
    Numbers z(eps.size());
    double sampled = 0.0, analytic = 0.0;
    for (std::size_t i = 0; i < z.size(); ++i) {
      const Numbers& of_group = stats[i / (latents * latent_)];
      const double m = of_group[i % latent_];
      const double std = deviation(of_group[latent_ + i % latent_], 0.0);
      z[i] = m + (t_.deterministic ? 0.0 : std * eps[i]);
      // (z - m) / std equals eps.
      sampled += (-std::log(std) - eps[i] * eps[i] / 2.0 + z[i] * z[i] / 2.0) /
                 static_cast<double>(z.size());
    }
    for (const Numbers& of_group : stats) {
      for (std::size_t l = 0; l < latent_; ++l) {
        const double std = deviation(of_group[latent_ + l], 0.0);
        analytic += (-std::log(std) + (std * std + of_group[l] * of_group[l] - 1.0) / 2.0) /
                    static_cast<double>(groups_ * latent_);
      }
    }
    const Numbers z0 = z;
    const bool first = s_.config.inner.order == Order::first;
    const auto scale = [&](const Rows& r) {
      return head ? 1.0 : 1.0 / static_cast<double>(r.x.size());
    };
    Numbers w, g, gz;
    for (int k = 0; k < t_.latent_steps; ++k) {
      const Numbers e = noise(t, Purpose::noise_decoder, k, groups_ * latents * weights_);
      const Rows support = rows(t, true, k + 1);
      w = decode(theta, z, e, latents, nullptr, nullptr);
      summed_loss(support, w, &g);
      for (double& x : g) x *= scale(support);
      decode(theta, z, e, latents, &g, &gz);
      if (first) gz = constant(t, gz);
      for (std::size_t i = 0; i < z.size(); ++i) {
        z[i] -= theta[rates_at() + i % latent_] * gz[i];
      }
    }
    w = decode(theta, z,
               noise(t, Purpose::noise_decoder, t_.latent_steps, groups_ * latents * weights_),
               latents, nullptr, nullptr);
    for (int k = 0; k < t_.finetune_steps; ++k) {
      const Rows support = rows(t, true, t_.latent_steps + k + 1);
      summed_loss(support, w, &g);
      for (double& x : g) x *= scale(support) / static_cast<double>(latents);
      if (first) g = constant(t, g);
      for (std::size_t i = 0; i < w.size(); ++i) {
        w[i] -= theta[rates_at() + latent_ + i % weights_] * g[i];
      }
    }
    const Rows query = rows(t, false, t_.latent_steps + t_.finetune_steps + 1);
    double loss = summed_loss(query, w, nullptr) / static_cast<double>(query.x.size());
    if (!t_.deterministic) {
      loss += t_.kl_weight * (t_.kl == LatentKl::sampled ? sampled : analytic);
    }
    const Numbers& goal = constant(t, z);
    for (std::size_t i = 0; i < z.size(); ++i) {
      loss += t_.encoder_penalty * std::pow(goal[i] - z0[i], 2) / static_cast<double>(z.size());
    }
    return loss;
  }

  const LeoSetting& s_;
  const Config::LeoTable& t_;
  std::size_t groups_, latent_, weights_;
  Network encoder_, relation_, decoder_;
  std::vector<std::vector<Numbers>> constants_;
  std::size_t next_ = 0;
  bool recording_ = false;
  double value_ = 0.0;
  double noise_std_ = 1.0;
  Numbers task_losses_;
};

/// Uploads the setting's parameters to a backend, one vector per group.
std::vector<backend::Shared> upload(backend::Backend& backend, const Algorithm& algorithm,
                                    const LeoSetting& s) {
  std::vector<backend::Shared> parameters;
  auto from = s.theta.begin();
  for (const ParameterGroup& group : algorithm.groups()) {
    const auto to = from + static_cast<std::ptrdiff_t>(group.size);
    parameters.push_back(backend.shared(group.size));
    parameters.back()->upload(Numbers(from, to));
    from = to;
  }
  return parameters;
}

struct LeoResult {
  StepResult step;
  Numbers gradient;
};

/// The meta-gradient of a setting. If `after_one` is true, the waves have had one task before.
LeoResult run(backend::Backend& backend, const LeoSetting& s, bool after_one = false) {
  const auto algorithm = make_algorithm(s.config, s.network);
  const std::vector<backend::Shared> parameters = upload(backend, *algorithm, s);
  const TaskBatch& batch = s.batch(backend);
  Scheduler scheduler(backend, *algorithm, batch.shape());
  if (after_one) scheduler.step(parameters, first_tasks(batch, 1), s.context);
  LeoResult result{scheduler.step(parameters, batch, s.context), {}};
  for (const backend::Shared& g : scheduler.gradients()) {
    Numbers values(g->size());
    g->download(values);
    result.gradient.insert(result.gradient.end(), values.begin(), values.end());
  }
  return result;
}

class LeoTest : public ::testing::TestWithParam<std::string> {
 protected:
  /// Compares with central differences. The emulator runs only settings with a choice that no
  /// earlier setting had.
  void hold_against_differences(bool head, int settings) {
    const auto backend = open_backend(GetParam());
    std::set<std::string> held, expected;
    // The tolerances are those of property_test.cpp. In float the KL of a latent divides by a
    // standard deviation exp(u) - 1 that may be near zero.
    const bool twice = backend->precision() == backend::Precision::f64;
    for (int seed = 0; seed < settings; ++seed) {
      const LeoSetting s = random_leo(static_cast<std::uint64_t>(seed), head);
      SCOPED_TRACE(s.name);
      bool anything_new = false;
      for (const Choice& choice : choices(s)) {
        anything_new |= held.insert(choice.taken ? choice.yes : choice.no).second;
        expected.insert({choice.yes, choice.no});
      }
      if (emulated(*backend) && !anything_new) continue;
      LeoObjective objective(s);
      const LeoResult got = run(*backend, s);
      EXPECT_EQ(got.step.diverged, 0u);
      EXPECT_NEAR(got.step.loss, objective.value(),
                  (twice ? 1e-11 : 2e-5) * (1.0 + std::abs(objective.value())));
      std::vector<std::size_t> coordinates = chosen_coordinates(s.theta.size(), 60);
      const std::size_t last = s.theta.size() - 1;  // The log of the noise, where it is learned.
      if (std::ranges::find(coordinates, last) == coordinates.end()) coordinates.push_back(last);
      const Numbers want =
          central_differences([&](const Numbers& x) { return Numbers{objective(x)}; }, s.theta, 1,
                              coordinates, difference_step);
      EXPECT_TRUE(
          close_rows(select(got.gradient, 1, coordinates), want, want.size(), twice ? 2e-6 : 5e-4));
    }
    EXPECT_EQ(held, expected) << "of each choice a setting with it and one without";
  }
};

TEST_P(LeoTest, Head) {
  hold_against_differences(true, 24);
}
TEST_P(LeoTest, Network) {
  hold_against_differences(false, 16);
}

TEST_P(LeoTest, ThreadsAndEarlierTasksDoNotChangeABit) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    for (const bool head : {true, false}) {
      const LeoSetting s = random_leo(seed, head);
      const LeoResult want = run(*open_backend(GetParam(), 1), s);
      for (const int threads : {2, 3}) {
        const LeoResult got = run(*open_backend(GetParam(), threads), s, threads == 2);
        EXPECT_EQ(got.gradient, want.gradient);
        EXPECT_EQ(got.step.loss, want.step.loss);
      }
    }
  }
}

TEST_P(LeoTest, ADivergedTaskIsLeftOut) {
  const auto backend = open_backend(GetParam());
  for (const bool head : {true, false}) {
    LeoSetting s = random_leo(3, head);
    s.single.query_x[0] = std::numeric_limits<float>::infinity();
    s.twice.query_x64[0] = std::numeric_limits<double>::infinity();
    const LeoResult got = run(*backend, s);
    EXPECT_EQ(got.step.diverged, 1u);
    EXPECT_TRUE(std::isfinite(got.step.loss));
    EXPECT_TRUE(std::ranges::all_of(got.gradient, [](double g) { return std::isfinite(g); }));
  }
}

/// Predictions have neither noise nor dropout, so that they do not depend on the seed. The
/// prediction after the last step is the same, whether or not every step predicts.
TEST_P(LeoTest, PredictsWithoutNoise) {
  const auto backend = open_backend(GetParam());
  LeoSetting s = random_leo(5, true);
  s.config.leo.latent_steps = 2;
  s.config.leo.finetune_steps = 1;
  s.config.leo.dropout_rate = 0.5;
  s.config.leo.deterministic = false;
  const auto algorithm = make_algorithm(s.config, s.network);
  EXPECT_EQ(algorithm->steps(), 3);
  const std::vector<backend::Shared> parameters = upload(*backend, *algorithm, s);
  algorithm->prepare(*backend, parameters, {});
  const TaskBatch& batch = s.batch(*backend);
  const auto program = algorithm->open(*backend, batch.shape());
  program->wave().load(batch, 0, 1, 0);
  const auto predictions = [&](std::uint64_t seed, bool every_step) {
    StepContext context;
    context.seed = seed;
    std::vector<Numbers> all;
    program->predict(context, {3, 1, backend::NormStatistics::batch, every_step},
                     [&](int step, int, backend::Block outputs) {
                       EXPECT_EQ(step, every_step ? static_cast<int>(all.size()) : 3);
                       all.emplace_back(static_cast<std::size_t>(4 * s.config.leo.ways));
                       program->wave().download(outputs, all.back());
                     });
    return all;
  };
  const auto every = predictions(1, true);
  ASSERT_EQ(every.size(), 4u);
  EXPECT_EQ(every, predictions(2, true)) << "neither noise nor dropout, so no seed";
  const auto last = predictions(1, false);
  ASSERT_EQ(last.size(), 1u);
  EXPECT_EQ(last[0], every[3]);
  EXPECT_NE(every[0], every[1]);
  EXPECT_NE(every[2], every[3]);
}

/// After all its steps, a prediction equals the outputs of the meta-gradient's forward pass, for
/// any number of steps.
TEST_P(LeoTest, PredictsWhereTrainingEnds) {
  const auto backend = open_backend(GetParam());
  for (const int steps : {1, 2, 3, 5}) {
    LeoSetting s = random_leo(5, true);
    s.config.leo.latent_steps = steps;
    s.config.leo.finetune_steps = 2;
    s.config.leo.dropout_rate = 0.0;
    s.config.leo.deterministic = true;
    const auto algorithm = make_algorithm(s.config, s.network);
    const std::vector<backend::Shared> parameters = upload(*backend, *algorithm, s);
    algorithm->prepare(*backend, parameters, {});
    const TaskBatch& batch = s.batch(*backend);
    const auto program = algorithm->open(*backend, batch.shape());
    program->wave().load(batch, 0, 1, 0);
    Numbers trained(static_cast<std::size_t>(4 * s.config.leo.ways)), predicted = trained;
    program->meta_gradient({});
    program->outputs_after_gradient(
        [&](int, backend::Block outputs) { program->wave().download(outputs, trained); });
    program->predict(
        {}, {algorithm->steps(), 1, backend::NormStatistics::batch, false},
        [&](int, int, backend::Block outputs) { program->wave().download(outputs, predicted); });
    EXPECT_EQ(predicted, trained) << steps << " latent steps";
  }
}

/// The squares of a task's gradient are summed in the wave, in whatever form the wave stores the
/// gradient.
TEST_P(LeoTest, GradientsCanBeMultiplied) {
  const auto backend = open_backend(GetParam());
  const bool twice = backend->precision() == backend::Precision::f64;
  for (const bool head : {true, false}) {
    const LeoSetting s = random_leo(5, head);
    const auto algorithm = make_algorithm(s.config, s.network);
    const std::vector<backend::Shared> parameters = upload(*backend, *algorithm, s);
    algorithm->prepare(*backend, parameters, {});
    const TaskBatch& batch = s.batch(*backend);
    const auto program = algorithm->open(*backend, batch.shape());
    backend::Wave& wave = program->wave();
    const backend::Block squares = wave.block(1);
    const int count = std::min(batch.tasks(), wave.capacity());
    wave.load(batch, 0, count, 0);
    program->meta_gradient({});
    wave.fill(squares, 0.0);
    Numbers got(static_cast<std::size_t>(count)), want(got.size());
    for (std::size_t g = 0; g < program->gradients().size(); ++g) {
      const backend::Block block = program->gradients()[g];
      wave.multiply_fold(squares, 1.0, block, block);
      const std::size_t width = algorithm->gradient_widths()[g];
      Numbers values(width * got.size());
      wave.download(block, values);
      for (std::size_t i = 0; i < values.size(); ++i) want[i / width] += values[i] * values[i];
    }
    wave.download(squares, got);
    EXPECT_TRUE(close_rows(got, want, 1, twice ? 1e-12 : 1e-4));
  }
}

TEST_P(LeoTest, ClassesWithTheWrongNumberOfRows) {
  const auto backend = open_backend(GetParam());
  LeoSetting s = random_leo(0, true);
  s.config.leo.latents = Latents::one;
  std::ranges::fill(s.single.support_label, 0);
  std::ranges::fill(s.twice.support_label, 0);
  EXPECT_THAT(test::error_text([&] { run(*backend, s); }),
              ::testing::HasSubstr("class 1 of a task has 0 support rows, expected at least 1"));
}

/// The weights of a norm before the first layer have no fans. Their own number takes the place of
/// the fans.
TEST_P(LeoTest, GeneratesANetworkThatBeginsWithANorm) {
  const auto backend = open_backend(GetParam());
  const auto gradient = [&](double offset) {
    Config config = Config::parse(R"(
algorithm = "leo"
loss.type = "mse"
leo = { latent = 3, latent_steps = 1, finetune_steps = 1, encoder_layers = [4], decoder_layers = [4] }
[network]
type = "sequential"
input = [2]
layers = [{ type = "norm" }, { type = "tanh" }]
)",
                                  "test");
    config.leo.decoder_offset = offset;
    const auto network = std::make_shared<const Network>(config.make_network());
    const Problem p = make_problem(network, backend::LossKind::mse, 3, 8);
    const auto algorithm = make_algorithm(config, network);
    const Numbers theta = algorithm->initial(1).front();
    std::vector<backend::Shared> parameters = {backend->shared(theta.size())};
    parameters[0]->upload(theta);
    Scheduler scheduler(*backend, *algorithm, p.batch(*backend).shape());
    EXPECT_EQ(scheduler.step(parameters, p.batch(*backend), {}).diverged, 0u);
    Numbers values(theta.size());
    scheduler.gradients()[0]->download(values);
    return values;
  };
  EXPECT_EQ(gradient(-1.0), gradient(std::sqrt(2.0 / 2.0)));
  EXPECT_NE(gradient(-1.0), gradient(0.5));
}

INSTANTIATE_TEST_SUITE_P(Backends, LeoTest, ::testing::ValuesIn(backend_names()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace kshot::testing
