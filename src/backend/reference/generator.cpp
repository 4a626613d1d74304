#include "backend/reference/generator.h"

#include <cmath>
#include <utility>

namespace kshot::backend::reference {
namespace {

/// std(u; offset) (backend/generator.h) and its derivative by u.
template <typename T>
struct Deviation {
  T value, slope;
};

template <typename T>
Deviation<T> deviation(const T& u, double offset) {
  using std::exp;
  const T e = exp(u);
  const T std = e - T(1.0 - offset);
  // The comparison is false for NaN, so that NaN is returned.
  if (primal(std) < least_std) return {T(least_std), T(0.0)};
  return {std, e};
}

/// Every ordered pair of rows, [rows^2, 2 L].
std::vector<double> pairs(const std::vector<double>& codes, std::size_t rows, std::size_t width) {
  std::vector<double> result;
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < rows; ++j) {
      for (const std::size_t row : {i, j}) {
        for (std::size_t k = 0; k < width; ++k) result.push_back(codes[row * width + k]);
      }
    }
  }
  return result;
}

}  // namespace

GeneratorMath::GeneratorMath(const GeneratorSpec& spec, int outputs)
    : spec_(spec),
      groups_(spec.by_label ? static_cast<std::size_t>(outputs) : 1),
      latents_(static_cast<std::size_t>(spec.latents)),
      latent_(spec.latent()),
      weights_(spec.weights()) {}

std::vector<std::vector<std::size_t>> GeneratorMath::groups(const DataSet& support) const {
  std::vector<std::vector<std::size_t>> groups(groups_);
  for (std::size_t row = 0; row < support.rows; ++row) {
    groups[spec_.by_label ? static_cast<std::size_t>(support.labels[row]) : 0].push_back(row);
  }
  for (std::size_t n = 0; n < groups_; ++n) spec_.check_group(n, groups[n].size());
  return groups;
}

GeneratorMath::Values GeneratorMath::encoder_input(const DataSet& support) const {
  if (spec_.by_label || support.rows == 0) return support.x;
  Values x;
  const std::size_t inputs = support.x.size() / support.rows;
  const std::size_t targets = support.values.size() / support.rows;
  for (std::size_t row = 0; row < support.rows; ++row) {
    for (std::size_t i = 0; i < inputs; ++i) x.push_back(support.x[row * inputs + i]);
    for (std::size_t o = 0; o < targets; ++o) x.push_back(support.values[row * targets + o]);
  }
  return x;
}

GeneratorMath::Values GeneratorMath::encode(const double* theta, const DataSet& support) const {
  const std::size_t width = 2 * latent_;
  const std::size_t n = support.rows;
  RowNetwork<double> encoder{*spec_.encoder, theta};
  Values of_rows = encoder.forward(encoder_input(support));
  if (spec_.relation) {
    RowNetwork<double> relation{*spec_.relation, theta + spec_.relation_begin()};
    const Values related = relation.forward(pairs(of_rows, n, latent_));
    of_rows.assign(n * width, 0.0);
    for (std::size_t pair = 0; pair < n * n; ++pair) {
      for (std::size_t k = 0; k < width; ++k) {
        of_rows[pair / n * width + k] += related[pair * width + k] / static_cast<double>(n);
      }
    }
  }
  Values statistics(groups_ * width, 0.0);
  const auto rows = groups(support);
  for (std::size_t g = 0; g < groups_; ++g) {
    for (const std::size_t row : rows[g]) {
      for (std::size_t k = 0; k < width; ++k) {
        statistics[g * width + k] += of_rows[row * width + k] / static_cast<double>(rows[g].size());
      }
    }
  }
  return statistics;
}

void GeneratorMath::encode_pullback(const double* theta, const DataSet& support,
                                    const Values& g_statistics, Values& g_theta) const {
  const std::size_t width = 2 * latent_;
  const std::size_t n = support.rows;
  Values g(n * width, 0.0);
  const auto rows = groups(support);
  for (std::size_t group = 0; group < groups_; ++group) {
    for (const std::size_t row : rows[group]) {
      for (std::size_t k = 0; k < width; ++k) {
        g[row * width + k] =
            g_statistics[group * width + k] / static_cast<double>(rows[group].size());
      }
    }
  }
  RowNetwork<double> encoder{*spec_.encoder, theta};
  const Values codes = encoder.forward(encoder_input(support));
  if (spec_.relation) {
    RowNetwork<double> relation{*spec_.relation, theta + spec_.relation_begin()};
    relation.forward(pairs(codes, n, latent_));
    Values g_related(n * n * width);
    for (std::size_t pair = 0; pair < n * n; ++pair) {
      for (std::size_t k = 0; k < width; ++k) {
        g_related[pair * width + k] = g[pair / n * width + k] / static_cast<double>(n);
      }
    }
    const Values g_pairs = relation.backward(g_related, g_theta.data() + spec_.relation_begin());
    g.assign(n * latent_, 0.0);
    for (std::size_t pair = 0; pair < n * n; ++pair) {
      for (std::size_t k = 0; k < latent_; ++k) {
        g[pair / n * latent_ + k] += g_pairs[pair * width + k];
        g[pair % n * latent_ + k] += g_pairs[pair * width + latent_ + k];
      }
    }
  }
  encoder.backward(g, g_theta.data());
}

GeneratorMath::Values GeneratorMath::sample(const Values& statistics, const Values* eps) const {
  Values z(groups_ * latents_ * latent_);
  for (std::size_t i = 0; i < z.size(); ++i) {
    const std::size_t m = i / (latents_ * latent_) * 2 * latent_ + i % latent_;
    z[i] = statistics[m];
    if (eps) z[i] += deviation(statistics[m + latent_], 0.0).value * (*eps)[i];
  }
  return z;
}

void GeneratorMath::sample_pullback(const Values& statistics, const Values* eps, const Values& g_z,
                                    Values& g_statistics) const {
  for (std::size_t i = 0; i < g_z.size(); ++i) {
    const std::size_t m = i / (latents_ * latent_) * 2 * latent_ + i % latent_;
    g_statistics[m] += g_z[i];
    if (eps) {
      g_statistics[m + latent_] +=
          deviation(statistics[m + latent_], 0.0).slope * g_z[i] * (*eps)[i];
    }
  }
}

// log q(z) - log N(z; 0, 1) = -log std - eps^2 / 2 + z^2 / 2, with z = m + std eps.
double GeneratorMath::sampled_kl(double weight, const Values& statistics, const Values& z,
                                 const Values& eps, Values& g_statistics) const {
  const double scale = weight / static_cast<double>(z.size());
  double sum = 0.0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    const std::size_t m = i / (latents_ * latent_) * 2 * latent_ + i % latent_;
    const auto std = deviation(statistics[m + latent_], 0.0);
    sum += -std::log(std.value) - 0.5 * eps[i] * eps[i] + 0.5 * z[i] * z[i];
    g_statistics[m] += scale * z[i];
    g_statistics[m + latent_] += scale * (z[i] * eps[i] - 1.0 / std.value) * std.slope;
  }
  return scale * sum;
}

double GeneratorMath::analytic_kl(double weight, const Values& statistics,
                                  Values& g_statistics) const {
  const double scale = weight / static_cast<double>(groups_ * latent_);
  double sum = 0.0;
  for (std::size_t i = 0; i < groups_ * latent_; ++i) {
    const std::size_t m = i / latent_ * 2 * latent_ + i % latent_;
    const auto std = deviation(statistics[m + latent_], 0.0);
    sum +=
        -std::log(std.value) + 0.5 * (std.value * std.value + statistics[m] * statistics[m] - 1.0);
    g_statistics[m] += scale * statistics[m];
    g_statistics[m + latent_] += scale * (std.value - 1.0 / std.value) * std.slope;
  }
  return scale * sum;
}

template <typename T>
std::vector<T> GeneratorMath::decode(const T* theta, const std::vector<T>& z,
                                     const Values* eps) const {
  RowNetwork<T> decoder{*spec_.decoder, theta + spec_.decoder_begin()};
  const std::vector<T> out = decoder.forward(z);
  std::vector<T> weights(groups_ * weights_, T(0.0));
  const T share(1.0 / static_cast<double>(latents_));
  for (std::size_t row = 0; row < groups_ * latents_; ++row) {
    for (std::size_t p = 0; p < weights_; ++p) {
      T w = out[row * 2 * weights_ + p];
      if (eps) {
        w += deviation(out[(row * 2 + 1) * weights_ + p], spec_.offset[p]).value *
             T((*eps)[row * weights_ + p]);
      }
      weights[row / latents_ * weights_ + p] += share * w;
    }
  }
  return weights;
}

template <typename T>
GeneratorMath::DecodeGradient<T> GeneratorMath::decode_pullback(
    const T* theta, const std::vector<T>& z, const Values* eps,
    const std::vector<T>& g_weights) const {
  RowNetwork<T> decoder{*spec_.decoder, theta + spec_.decoder_begin()};
  const std::vector<T> out = decoder.forward(z);
  const T share(1.0 / static_cast<double>(latents_));
  std::vector<T> g_out(out.size(), T(0.0));
  for (std::size_t row = 0; row < groups_ * latents_; ++row) {
    for (std::size_t p = 0; p < weights_; ++p) {
      const T g = share * g_weights[row / latents_ * weights_ + p];
      g_out[row * 2 * weights_ + p] = g;
      if (eps) {
        const std::size_t u = (row * 2 + 1) * weights_ + p;
        g_out[u] = g * T((*eps)[row * weights_ + p]) * deviation(out[u], spec_.offset[p]).slope;
      }
    }
  }
  DecodeGradient<T> result;
  result.decoder.assign(spec_.decoder->size(), T(0.0));
  result.z = decoder.backward(g_out, result.decoder.data());
  return result;
}

template std::vector<double> GeneratorMath::decode(const double*, const std::vector<double>&,
                                                   const Values*) const;
template std::vector<Dual> GeneratorMath::decode(const Dual*, const std::vector<Dual>&,
                                                 const Values*) const;
template GeneratorMath::DecodeGradient<double> GeneratorMath::decode_pullback(
    const double*, const std::vector<double>&, const Values*, const std::vector<double>&) const;
template GeneratorMath::DecodeGradient<Dual> GeneratorMath::decode_pullback(
    const Dual*, const std::vector<Dual>&, const Values*, const std::vector<Dual>&) const;

}  // namespace kshot::backend::reference
