#include "backend/reference/reference_wave.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "backend/reference/layers.h"
#include "backend/reference/split_layers.h"
#include "backend/row_noise.h"
#include "kshot/error.h"

namespace kshot::backend {
namespace {

using reference::DataSet;
using reference::Dual;
using reference::LayerRecord;

/// Reads the valid rows of one set of task t.
template <typename T>
DataSet read_rows(const TaskShape& shape, LossKind loss, int t, int largest, std::int32_t valid,
                  const std::vector<T>& x, const std::vector<T>& values,
                  const std::vector<std::int32_t>& labels) {
  DataSet set;
  set.rows = static_cast<std::size_t>(valid);
  const auto row0 = static_cast<std::size_t>(t) * static_cast<std::size_t>(largest);
  const auto copy = [&](const auto& from, std::size_t width, auto& to) {
    const auto* begin = from.data() + row0 * width;
    to.assign(begin, begin + set.rows * width);
  };
  const auto outputs = static_cast<std::size_t>(shape.outputs);
  copy(x, static_cast<std::size_t>(shape.input.size()), set.x);
  if (loss != LossKind::cross_entropy) {
    copy(values, outputs, set.values);
    return set;
  }
  copy(labels, 1, set.labels);
  return set;
}

void append(DataSet& to, const DataSet& from) {
  to.rows += from.rows;
  to.x.insert(to.x.end(), from.x.begin(), from.x.end());
  to.labels.insert(to.labels.end(), from.labels.begin(), from.labels.end());
  to.values.insert(to.values.end(), from.values.begin(), from.values.end());
}

}  // namespace

void ReferenceWave::do_load(const TaskBatch& batch, int first, int count,
                            std::uint32_t global_first) {
  const TaskShape& shape = batch.shape();
  count_ = count;
  global_first_ = global_first;
  first_ = static_cast<std::size_t>(first);
  const auto read = [&](int largest, const std::vector<std::int32_t>& valid, const auto& x,
                        const auto& values, const std::vector<std::int32_t>& labels) {
    return read_rows(shape, loss_.kind, first, largest, valid.at(first_), x, values, labels);
  };
  if (batch.is_double()) {
    support_ = read(shape.support, batch.support_n, batch.support_x64, batch.support_value64,
                    batch.support_label);
    query_ =
        read(shape.query, batch.query_n, batch.query_x64, batch.query_value64, batch.query_label);
  } else {
    support_ = read(shape.support, batch.support_n, batch.support_x, batch.support_value,
                    batch.support_label);
    query_ = read(shape.query, batch.query_n, batch.query_x, batch.query_value, batch.query_label);
  }
  if (shape_.with_all) {
    all_ = support_;
    append(all_, query_);
  }
}

double ReferenceWave::factor(const Scale& scale) const {
  const auto divided_by = [&](std::size_t rows) {
    return rows > 0 ? scale.factor / static_cast<double>(rows) : 0.0;
  };
  switch (scale.by) {
    case Scale::By::one:
      break;
    case Scale::By::support:
      return divided_by(support_.rows);
    case Scale::By::query:
      return divided_by(query_.rows);
    case Scale::By::all:
      return divided_by(support_.rows + query_.rows);
  }
  return scale.factor;
}

// ---- algebra ----

void ReferenceWave::do_axpy(Block y, double a, Block x) {
  const Values& from = at(x);
  Values& to = at(y);
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += a * from[i];
}

void ReferenceWave::do_multiply_add(Block y, double a, Block x1, Block x2) {
  const Values& left = at(x1);
  const Values& right = at(x2);
  Values& to = at(y);
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += a * left[i] * right[i];
}

void ReferenceWave::do_multiply_fold(Block y, double a, Block x1, Block x2) {
  const Values& left = at(x1);
  const Values& right = at(x2);
  Values& to = at(y);
  for (std::size_t i = 0; i < left.size(); ++i) to[i % to.size()] += a * left[i] * right[i];
}

void ReferenceWave::do_normal(Block dst, const RandomKey& of_wave) {
  RandomKey key = of_wave;
  key.task = global_first_;
  Values& to = at(dst);
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = normal_element(key, i);
}

void ReferenceWave::do_mean_square(Block value, double weight, Block a, Block b, Block g_b) {
  const Values& left = at(a);
  const Values& right = at(b);
  Values& g = at(g_b);
  const double scale = weight / static_cast<double>(left.size());
  for (std::size_t i = 0; i < left.size(); ++i) {
    const double d = left[i] - right[i];
    at(value)[0] += scale * d * d;
    g[i] -= 2.0 * scale * d;
  }
}

void ReferenceWave::do_exponential(Block dst, Block src) {
  const Values& from = at(src);
  Values& to = at(dst);
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = std::exp(from[i]);
}

void ReferenceWave::do_rate_multiply(Block dst, const Rate& rate, Block x) {
  const Values& from = at(x);
  Values& to = at(dst);
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = rate_at(rate, i) * from[i];
}

void ReferenceWave::do_rate_step(Block dst, Block src, const Rate& rate, Block grad) {
  const Values& from = at(src);
  const Values& g = at(grad);
  Values& to = at(dst);
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = from[i] - rate_at(rate, i) * g[i];
}

// ---- scalars of a task ----

void ReferenceWave::do_apply(Block dst, Function f, Block src) {
  const Values& from = at(src);
  Values& to = at(dst);
  for (std::size_t i = 0; i < to.size(); ++i) {
    switch (f) {
      case Function::reciprocal:
        to[i] = 1.0 / from[i];
        break;
      case Function::logarithm:
        to[i] = std::log(from[i]);
        break;
      case Function::square_root:
        to[i] = std::sqrt(from[i]);
        break;
    }
  }
}

void ReferenceWave::do_adam_step(const AdamBlocks& blocks, const AdamRule& rule) {
  const Values& g = at(blocks.gradient);
  Values& p = at(blocks.parameters);
  Values& m = at(blocks.m);
  Values& v = at(blocks.v);
  const double count = at(blocks.count)[0];
  const double correction1 = 1.0 - std::pow(rule.beta1, count);
  const double correction2 = 1.0 - std::pow(rule.beta2, count);
  for (std::size_t i = 0; i < g.size(); ++i) {
    m[i] = rule.beta1 * m[i] + (1.0 - rule.beta1) * g[i];
    v[i] = rule.beta2 * v[i] + (1.0 - rule.beta2) * g[i] * g[i];
    p[i] -=
        rule.learning_rate * (m[i] / correction1) / (std::sqrt(v[i] / correction2) + rule.epsilon);
  }
}

// ---- Gaussian over weights ----

void ReferenceWave::do_sample(Block phi, Block eps, Block mu, Block sigma,
                              const RandomKey* of_wave) {
  const Values& m = at(mu);
  const Values& sd = at(sigma);
  Values& e = at(eps);
  Values& p = at(phi);
  if (of_wave) {
    RandomKey key = *of_wave;
    key.task = global_first_;
    for (std::size_t i = 0; i < e.size(); ++i) e[i] = normal_element(key, i);
  }
  for (std::size_t i = 0; i < p.size(); ++i) p[i] = m[i] + sd[i] * e[i];
}

void ReferenceWave::do_sample_pullback(Block g_mu, Block g_s, double a, Block g, Block eps,
                                       Block sigma) {
  const Values& grad = at(g);
  const Values& e = at(eps);
  const Values& sd = at(sigma);
  Values& to_mu = at(g_mu);
  Values& to_s = at(g_s);
  for (std::size_t i = 0; i < grad.size(); ++i) {
    to_mu[i] += a * grad[i];
    to_s[i] += a * grad[i] * e[i] * sd[i];
  }
}

void ReferenceWave::do_sample_direction(Block u, Block v_mu, Block v_s, Block eps, Block sigma) {
  const Values& vm = at(v_mu);
  const Values& vs = at(v_s);
  const Values& e = at(eps);
  const Values& sd = at(sigma);
  Values& to = at(u);
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = vm[i] + sd[i] * e[i] * vs[i];
}

// KL = sum s_p - s + (e^{2 s} + d^2) / (2 e^{2 s_p}) - 1/2, d = mu - mu_p.

void ReferenceWave::do_kl(const KlTerms& terms, Block value, Block g_mu, Block g_s, Block gp_mu,
                          Block gp_s) {
  const Values& mu = at(terms.mu);
  const Values& s = at(terms.s);
  const Values& mu_p = at(terms.prior_mu);
  const Values& s_p = at(terms.prior_s);
  const double scale = factor(terms.scale);
  double sum = 0.0;
  for (std::size_t i = 0; i < mu.size(); ++i) {
    const double d = mu[i] - mu_p[i];
    const double precision = std::exp(-2.0 * s_p[i]);
    const double ratio = std::exp(2.0 * (s[i] - s_p[i]));  // ratio of the variances
    sum += s_p[i] - s[i] + 0.5 * (ratio + d * d * precision) - 0.5;
    if (g_mu) at(g_mu)[i] += scale * d * precision;
    if (g_s) at(g_s)[i] += scale * (ratio - 1.0);
    if (gp_mu) at(gp_mu)[i] -= scale * d * precision;
    if (gp_s) at(gp_s)[i] += scale * (1.0 - ratio - d * d * precision);
  }
  if (value) at(value)[0] += scale * sum;
}

void ReferenceWave::do_kl_hvp(const KlTerms& terms, Block v_mu, Block v_s, Block r_mu, Block r_s,
                              Block rp_mu, Block rp_s) {
  const Values& mu = at(terms.mu);
  const Values& s = at(terms.s);
  const Values& mu_p = at(terms.prior_mu);
  const Values& s_p = at(terms.prior_s);
  const Values& vm = at(v_mu);
  const Values& vs = at(v_s);
  const double scale = factor(terms.scale);
  for (std::size_t i = 0; i < mu.size(); ++i) {
    const double d = mu[i] - mu_p[i];
    const double precision = std::exp(-2.0 * s_p[i]);
    const double ratio = std::exp(2.0 * (s[i] - s_p[i]));
    if (r_mu) at(r_mu)[i] += scale * precision * vm[i];
    if (r_s) at(r_s)[i] += scale * 2.0 * ratio * vs[i];
    if (rp_mu) at(rp_mu)[i] -= scale * precision * vm[i];
    if (rp_s) {
      at(rp_s)[i] -= scale * (2.0 * d * precision * vm[i] + 2.0 * ratio * vs[i]);
    }
  }
}

// ---- network ----

void ReferenceWave::do_gradient(const Pass& pass, Block grad, bool accumulate, Block loss) {
  const Values& weights = at(pass.weights);
  const double scale = factor(pass.scale);
  Values g;
  const double sum =
      reference::network_gradient<double>(*network_, loss_, weights.data(), data(pass), g);
  Values& to = at(grad);
  for (std::size_t i = 0; i < g.size(); ++i) to[i] = (accumulate ? to[i] : 0.0) + scale * g[i];
  if (loss) at(loss)[0] += scale * sum;
}

void ReferenceWave::do_output_pullback(const Pass& pass, Block g_outputs, Block grad,
                                       bool accumulate) {
  const Values& weights = at(pass.weights);
  const DataSet& set = data(pass);
  const auto width = static_cast<std::size_t>(network_outputs_);
  const Values& all = at(g_outputs);
  Values g_rows(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(set.rows * width));
  std::vector<LayerRecord<double>> records;
  reference::network_forward<double>(*network_, weights.data(), set, records, nullptr);
  Values g;
  reference::network_backward<double>(*network_, weights.data(), set, records, std::move(g_rows),
                                      g);
  Values& to = at(grad);
  for (std::size_t i = 0; i < g.size(); ++i) to[i] = (accumulate ? to[i] : 0.0) + g[i];
}

void ReferenceWave::do_hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                                      Block grad) {
  const Values& weights = at(pass.weights);
  const Values& v = at(direction);
  const double scale = factor(pass.scale);
  std::vector<Dual> dual(weights.size()), g;
  for (std::size_t i = 0; i < dual.size(); ++i) dual[i] = {weights[i], v[i]};
  reference::network_gradient<Dual>(*network_, loss_, dual.data(), data(pass), g);
  Values& to = at(hv);
  for (std::size_t i = 0; i < g.size(); ++i) {
    to[i] = (accumulate ? to[i] : 0.0) + scale * g[i].tangent;
    if (grad) at(grad)[i] = scale * g[i].value;
  }
}

void ReferenceWave::do_value(const Pass& pass, Block loss, Block outputs,
                             NormStatistics statistics) {
  const double* weights = at(pass.weights).data();
  std::vector<LayerRecord<double>> records, of_support;
  const bool given = statistics == NormStatistics::support;
  if (given) {
    reference::network_forward<double>(*network_, weights, support_, of_support, nullptr);
  }
  const Values out = reference::network_forward<double>(*network_, weights, data(pass), records,
                                                        given ? &of_support : nullptr);
  put_value(pass, out, loss, outputs);
}

void ReferenceWave::put_value(const Pass& pass, const Values& out, Block loss, Block outputs) {
  const auto width = static_cast<std::size_t>(network_outputs_);
  if (loss) {
    at(loss)[0] += factor(pass.scale) *
                   reference::loss_sum<double>(loss_, data(pass.set), width, out, nullptr);
  }
  if (outputs) {
    Values& to = at(outputs);
    std::ranges::fill(to, 0.0);
    std::ranges::copy(out, to.begin());
  }
}

// ---- network under Gaussian weights ----

/// The noise of a set's rows, expanded to elements: the sign of a channel applies to all its
/// positions.
std::vector<reference::LayerNoise> ReferenceWave::row_noise(const SplitPass& pass, Set set) const {
  const GaussianNoise& noise = *pass.noise;
  const RowNoiseLayout layout = row_noise_layout(*network_, pass.estimator);
  const std::size_t rows = data(set).rows;
  // Number of support rows among `rows`.
  const std::size_t support_rows = set == Set::query ? 0 : support_.rows;
  const auto number = [&](std::size_t row, std::size_t element) {
    const bool query = row >= support_rows;
    RandomKey key = row_key(noise.key, query);
    key.task = global_first_;
    const std::size_t at = (row - (query ? support_rows : 0)) * layout.width + element;
    return static_cast<double>(pass.estimator == Estimator::flipout ? sign_element(key, at)
                                                                    : normal_element(key, at));
  };
  // Number of support rows before a query set's rows, in arrays that hold the rows of both sets.
  const std::size_t skipped = set == Set::query && noise.support_first ? support_.rows : 0;
  std::vector<reference::LayerNoise> layers(layout.layers.size());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto spread = [&](const FeatureShape& shape, std::size_t width, std::size_t offset,
                            Block given, std::vector<double>& to) {
      if (width == 0) return;
      const std::size_t elements = reference::features(shape);
      to.resize(rows * elements);
      for (std::size_t row = 0; row < rows; ++row) {
        for (std::size_t w = 0; w < width; ++w) {
          const double value = noise.layers.empty() ? number(row, offset + w)
                                                    : at(given)[(skipped + row) * width + w];
          const auto first =
              to.begin() + static_cast<std::ptrdiff_t>(row * elements + w * (elements / width));
          std::fill_n(first, elements / width, value);
        }
      }
    };
    const RowNoiseLayout::Part& part = layout.layers[i];
    const GaussianNoise::Layer given =
        noise.layers.empty() ? GaussianNoise::Layer{} : noise.layers[i];
    const Layer& layer = network_->layers()[i];
    spread(layer.in, part.in_width, part.in, given.in, layers[i].in);
    spread(layer.out, part.out_width, part.out, given.out, layers[i].out);
  }
  return layers;
}

void ReferenceWave::do_split_gradient(const SplitPass& pass, Block g_mean, Block g_spread,
                                      bool accumulate, Block loss) {
  const std::vector<reference::LayerNoise> noise = row_noise(pass, pass.set);
  const std::size_t width = network_->size();
  const double scale = factor(pass.scale);
  Values gm, gs;
  const double sum = reference::split_gradient<double>(
      *network_, loss_, {pass.estimator, at(pass.mean).data(), at(pass.spread).data(), &noise},
      data(pass.set), gm, gs);
  Values& to_mean = at(g_mean);
  Values& to_spread = at(g_spread);
  for (std::size_t i = 0; i < width; ++i) {
    to_mean[i] = (accumulate ? to_mean[i] : 0.0) + scale * gm[i];
    to_spread[i] = (accumulate ? to_spread[i] : 0.0) + scale * gs[i];
  }
  if (loss) at(loss)[0] += scale * sum;
}

void ReferenceWave::do_split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread,
                                            Block h_mean, Block h_spread) {
  const std::vector<reference::LayerNoise> noise = row_noise(pass, pass.set);
  const std::size_t width = network_->size();
  const double scale = factor(pass.scale);
  const auto dual = [&](Block value, Block tangent) {
    const Values& v = at(value);
    const Values& u = at(tangent);
    std::vector<Dual> d(width);
    for (std::size_t i = 0; i < width; ++i) d[i] = {v[i], u[i]};
    return d;
  };
  const std::vector<Dual> mean = dual(pass.mean, u_mean), spread = dual(pass.spread, u_spread);
  std::vector<Dual> gm, gs;
  reference::split_gradient<Dual>(*network_, loss_,
                                  {pass.estimator, mean.data(), spread.data(), &noise},
                                  data(pass.set), gm, gs);
  for (std::size_t i = 0; i < width; ++i) {
    at(h_mean)[i] = scale * gm[i].tangent;
    at(h_spread)[i] = scale * gs[i].tangent;
  }
}

void ReferenceWave::do_split_value(const SplitPass& pass, Block loss, Block outputs,
                                   NormStatistics statistics) {
  const double* mean = at(pass.mean).data();
  const double* spread = at(pass.spread).data();
  const bool given = statistics == NormStatistics::support;
  std::vector<reference::SplitRecord<double>> records, of_support;
  if (given) {
    const std::vector<reference::LayerNoise> noise = row_noise(pass, Set::support);
    reference::split_forward<double>(*network_, {pass.estimator, mean, spread, &noise}, support_,
                                     of_support, nullptr);
  }
  const std::vector<reference::LayerNoise> noise = row_noise(pass, pass.set);
  const Values out =
      reference::split_forward<double>(*network_, {pass.estimator, mean, spread, &noise},
                                       data(pass.set), records, given ? &of_support : nullptr);
  put_value({pass.set, {}, pass.scale}, out, loss, outputs);
}

// ---- reduction ----

void ReferenceWave::sum_tasks(std::span<const Block> blocks, Block loss, double* out,
                              double* losses, char* diverged) {
  const auto finite = [](const Values& values) {
    return std::ranges::all_of(values, [](double x) { return std::isfinite(x); });
  };
  losses[0] = at(loss)[0];
  diverged[0] = !finite(at(loss)) ||
                !std::ranges::all_of(blocks, [&](Block block) { return finite(at(block)); });
  for (const Block block : blocks) {
    const Values& values = at(block);
    if (diverged[0]) {
      std::fill_n(out, values.size(), 0.0);
    } else {
      std::ranges::copy(values, out);
    }
    out += values.size();
  }
}

}  // namespace kshot::backend
