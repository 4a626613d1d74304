// NeuralLinear (Riquelme, Tucker and Snoek 2018). During the trial, a perceptron with one output
// per arm is trained on the squared error of the arm that was pulled. Each arm has a Bayesian
// linear regression on the last hidden layer, which is fitted again after each training.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "bandit/bayes_regression.h"
#include "bandit/trial_agent.h"
#include "kshot/error.h"

namespace kshot::bandit {
namespace {

/// A layer y = W x + b with RMSProp (decay 0.9), as in the authors' code.
struct Dense {
  int inputs = 0, outputs = 0;
  std::vector<float> w, b;      ///< weights [inputs, outputs] and bias [outputs]
  std::vector<float> g_w, g_b;  ///< their gradients
  std::vector<float> s_w, s_b;  ///< running means of their squared gradients
  std::vector<float> values;    ///< outputs, [batch, outputs]
  std::vector<float> g_values;  ///< gradient of the outputs, [batch, outputs]

  Dense(int in, int out, RandomStream& stream) : inputs(in), outputs(out) {
    const auto n = static_cast<std::size_t>(in) * static_cast<std::size_t>(out);
    const float std = std::sqrt(2.0f / static_cast<float>(in));
    w.resize(n);
    for (float& x : w) x = std * stream.normal();
    b.assign(static_cast<std::size_t>(out), 0.0f);
    g_w = s_w = std::vector<float>(n);
    g_b = s_b = b;
  }

  /// Computes values = x W + b for `rows` rows, and takes the positive part where `relu` is set.
  void forward(const float* x, std::size_t rows, bool relu) {
    const auto in = static_cast<std::size_t>(inputs), out = static_cast<std::size_t>(outputs);
    values.resize(rows * out);
    for (std::size_t r = 0; r < rows; ++r) {
      float* const y = values.data() + r * out;
      std::copy(b.begin(), b.end(), y);
      for (std::size_t i = 0; i < in; ++i) {
        const float xi = x[r * in + i];
        if (xi == 0.0f) continue;
        const float* const row = w.data() + i * out;
        for (std::size_t o = 0; o < out; ++o) y[o] += xi * row[o];
      }
      if (relu) {
        for (std::size_t o = 0; o < out; ++o) y[o] = std::max(y[o], 0.0f);
      }
    }
  }

  /// Computes the gradients of the weights, and of the inputs where g_x is not null, from g_values.
  void backward(const float* x, std::size_t rows, float* g_x) {
    const auto in = static_cast<std::size_t>(inputs), out = static_cast<std::size_t>(outputs);
    std::ranges::fill(g_w, 0.0f);
    std::ranges::fill(g_b, 0.0f);
    for (std::size_t r = 0; r < rows; ++r) {
      const float* const g = g_values.data() + r * out;
      for (std::size_t o = 0; o < out; ++o) g_b[o] += g[o];
      for (std::size_t i = 0; i < in; ++i) {
        const float xi = x[r * in + i];
        if (xi == 0.0f) continue;
        float* const row = g_w.data() + i * out;
        for (std::size_t o = 0; o < out; ++o) row[o] += xi * g[o];
      }
      if (g_x == nullptr) continue;
      for (std::size_t i = 0; i < in; ++i) {
        const float* const row = w.data() + i * out;
        float sum = 0.0f;
        for (std::size_t o = 0; o < out; ++o) sum += row[o] * g[o];
        g_x[r * in + i] = sum;
      }
    }
  }

  void step(float rate) {
    const auto move = [&](std::vector<float>& v, const std::vector<float>& g,
                          std::vector<float>& s) {
      for (std::size_t i = 0; i < v.size(); ++i) {
        s[i] = 0.9f * s[i] + 0.1f * g[i] * g[i];
        v[i] -= rate * g[i] / std::sqrt(s[i] + 1e-10f);
      }
    };
    move(w, g_w, s_w);
    move(b, g_b, s_b);
  }
};

class NeuralLinear final : public TrialAgent {
 public:
  explicit NeuralLinear(const NeuralLinearOptions& options)
      : options_(options), prior_{options.prior_shape, options.prior_rate, options.lambda} {
    const bool widths =
        !options.hidden.empty() && std::ranges::all_of(options.hidden, [](int h) { return h > 0; });
    if (!widths || options.train_every < 1 || options.minibatches < 1 || options.batch < 1 ||
        options.initial_pulls < 0 || !(options.learning_rate > 0.0)) {
      throw Error(
          "neural_linear: expected hidden layers of at least 1 unit, train_every, minibatches and "
          "batch of at least 1, and a learning_rate above 0");
    }
    if (!(prior_.shape >= 1.0) || !(prior_.rate > 0.0) || !(prior_.lambda > 0.0)) {
      throw Error(
          "neural_linear: expected prior_shape of at least 1, prior_rate and lambda above 0");
    }
  }
  std::string name() const override {
    std::string text = "neural_linear";
    for (const int h : options_.hidden) text += fmt::format("_{}", h);
    return text;
  }
  int initial_pulls() const override { return options_.initial_pulls; }

 private:
  struct Trial {
    std::vector<Dense> layers;
    std::vector<BayesRegression> arms;
    std::vector<float> contexts;  ///< [rows, context]
    std::vector<int> pulled;
    std::vector<float> rewards;
    std::vector<double> weights;
    std::vector<float> batch_x;
    std::uint64_t trained = 0;
  };

  void start() override {
    trials_.clear();
    trials_.resize(static_cast<std::size_t>(problem_.trials));
    const auto features = static_cast<std::size_t>(options_.hidden.back());
    for (std::size_t t = 0; t < trials_.size(); ++t) {
      RandomStream stream(
          {.seed = problem_.seed, .purpose = Purpose::initialisation, .task = number(t)});
      int width = problem_.context_size;
      for (const int h : options_.hidden) {
        trials_[t].layers.emplace_back(width, h, stream);
        width = h;
      }
      trials_[t].layers.emplace_back(width, problem_.arms, stream);
      trials_[t].arms.assign(static_cast<std::size_t>(problem_.arms),
                             BayesRegression(prior_, features));
      trials_[t].weights.resize(features);
    }
  }

  bool worth_threads_to_choose() const override { return options_.hidden.back() >= 64; }
  bool worth_threads_to_observe(std::uint64_t step) const override {
    return (step + 1) % static_cast<std::uint64_t>(options_.train_every) == 0;
  }

  /// Returns the last hidden layer for some rows, [rows, features].
  std::span<const float> features(Trial& t, std::span<const float> x, std::size_t rows) const {
    const float* from = x.data();
    for (std::size_t l = 0; l + 1 < t.layers.size(); ++l) {
      t.layers[l].forward(from, rows, true);
      from = t.layers[l].values.data();
    }
    return t.layers[t.layers.size() - 2].values;
  }

  int choose_one(std::size_t trial, std::span<const float> context, RandomStream& stream) override {
    Trial& t = trials_[trial];
    const std::span<const float> z = features(t, context, 1);
    int chosen = 0;
    double largest = 0.0;
    for (std::size_t arm = 0; arm < t.arms.size(); ++arm) {
      t.arms[arm].sample(stream, t.weights);
      const double value = product(t.weights, z);
      if (arm > 0 && value <= largest) continue;
      largest = value;
      chosen = static_cast<int>(arm);
    }
    return chosen;
  }

  void observe_one(std::size_t trial, std::span<const float> context, int arm,
                   double reward) override {
    Trial& t = trials_[trial];
    t.contexts.insert(t.contexts.end(), context.begin(), context.end());
    t.pulled.push_back(arm);
    t.rewards.push_back(static_cast<float>(reward));
    if (t.pulled.size() % static_cast<std::size_t>(options_.train_every) != 0) {
      t.arms[static_cast<std::size_t>(arm)].add(features(t, context, 1), reward);
      return;
    }
    train(trial);
    for (BayesRegression& regression : t.arms) regression.clear();
    const std::span<const float> z = features(t, t.contexts, t.pulled.size());
    const auto width = static_cast<std::size_t>(options_.hidden.back());
    for (std::size_t r = 0; r < t.pulled.size(); ++r) {
      t.arms[static_cast<std::size_t>(t.pulled[r])].add(z.subspan(r * width, width),
                                                        static_cast<double>(t.rewards[r]));
    }
  }

  void train(std::size_t trial) {
    Trial& t = trials_[trial];
    RandomStream stream({.seed = problem_.seed,
                         .purpose = Purpose::user,
                         .step = t.trained++,
                         .task = number(trial),
                         .sample = 3});
    const auto rows = static_cast<std::size_t>(options_.batch);
    const auto width = static_cast<std::size_t>(problem_.context_size);
    const auto arms = static_cast<std::size_t>(problem_.arms);
    t.batch_x.resize(rows * width);
    for (int minibatch = 0; minibatch < options_.minibatches; ++minibatch) {
      std::vector<std::size_t> drawn(rows);
      for (std::size_t r = 0; r < rows; ++r) {
        drawn[r] = stream.below(static_cast<std::uint32_t>(t.pulled.size()));
        std::copy_n(t.contexts.begin() + static_cast<std::ptrdiff_t>(drawn[r] * width), width,
                    t.batch_x.begin() + static_cast<std::ptrdiff_t>(r * width));
      }
      const std::span<const float> z = features(t, t.batch_x, rows);
      Dense& last = t.layers.back();
      last.forward(z.data(), rows, false);
      last.g_values.assign(last.values.size(), 0.0f);
      // The loss is the squared error of the arm that was pulled, mean over the rows.
      for (std::size_t r = 0; r < rows; ++r) {
        const std::size_t at = r * arms + static_cast<std::size_t>(t.pulled[drawn[r]]);
        last.g_values[at] =
            2.0f * (last.values[at] - t.rewards[drawn[r]]) / static_cast<float>(rows);
      }
      descend(t, rows);
    }
  }

  /// Makes one step of every layer from the last layer's g_values. The gradient of all layers
  /// together is clipped to norm 5.
  void descend(Trial& t, std::size_t rows) const {
    double squares = 0.0;
    for (std::size_t l = t.layers.size(); l-- > 0;) {
      Dense& layer = t.layers[l];
      if (l == 0) {
        layer.backward(t.batch_x.data(), rows, nullptr);
      } else {
        Dense& below = t.layers[l - 1];
        below.g_values.resize(below.values.size());
        layer.backward(below.values.data(), rows, below.g_values.data());
        for (std::size_t i = 0; i < below.values.size(); ++i) {
          if (below.values[i] <= 0.0f) below.g_values[i] = 0.0f;
        }
      }
      for (const float g : layer.g_w) squares += static_cast<double>(g) * static_cast<double>(g);
      for (const float g : layer.g_b) squares += static_cast<double>(g) * static_cast<double>(g);
    }
    constexpr double largest = 5.0;
    const double norm = std::sqrt(squares);
    const auto scale = static_cast<float>(norm > largest ? largest / norm : 1.0);
    for (Dense& layer : t.layers) {
      for (float& g : layer.g_w) g *= scale;
      for (float& g : layer.g_b) g *= scale;
      layer.step(static_cast<float>(options_.learning_rate));
    }
  }

  NeuralLinearOptions options_;
  RegressionPrior prior_;
  std::vector<Trial> trials_;
};

}  // namespace

std::unique_ptr<Agent> make_neural_linear(const NeuralLinearOptions& options) {
  return std::make_unique<NeuralLinear>(options);
}

}  // namespace kshot::bandit
