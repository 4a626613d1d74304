#include "backend/cpu/generator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "backend/cpu/row_encoder.h"
#include "backend/cpu/shared_network.h"

namespace kshot::backend::cpu {

LatentGenerator::LatentGenerator(CpuWave& wave, const GeneratorSpec& spec)
    : Generator(wave, spec),
      wave_(wave),
      spec_(spec),
      groups_(spec.by_label ? static_cast<std::size_t>(wave.network().outputs()) : 1),
      latents_(static_cast<std::size_t>(spec.latents)),
      latent_(spec.latent()),
      weights_(spec.weights()) {}

LatentGenerator::Values LatentGenerator::vector(Block block, int task) const {
  Values values(wave_.width(block));
  wave_.read(block, task, values.data());
  return values;
}

/// std(u) = max(exp(u) - 1, least_std) and its derivative, for the elements of a task's statistics.
LatentGenerator::Deviations LatentGenerator::deviations(const Values& statistics) const {
  const auto lanes = static_cast<std::size_t>(wave_.kernels().lanes);
  const std::size_t n = groups_ * latent_;
  Deviations d{Values((n + lanes - 1) / lanes * lanes), Values(n)};
  for (std::size_t i = 0; i < n; ++i) {
    d.value[i] = statistics[i / latent_ * 2 * latent_ + latent_ + i % latent_];
  }
  wave_.kernels().exp_less_one(d.value.data(), d.value.data(), d.value.size() / lanes);
  constexpr auto least = static_cast<float>(least_std);
  for (std::size_t i = 0; i < n; ++i) {
    const bool low = d.value[i] < least;
    d.slope[i] = low ? 0.0f : d.value[i] + 1.0f;
    if (low) d.value[i] = least;
  }
  return d;
}

void LatentGenerator::do_sample(Block z, Block statistics, Block eps) {
  for_latents(statistics, eps, [&](int task, const Values& s, const Values& e) {
    const Deviations d = deviations(s);
    Values to(groups_ * latents_ * latent_);
    each_latent([&](std::size_t i, std::size_t element, std::size_t mean) {
      to[i] = s[mean] + (eps ? d.value[element] * e[i] : 0.0f);
    });
    wave_.write(z, task, to.data());
  });
}

void LatentGenerator::do_sample_pullback(Block g_statistics, Block statistics, Block eps,
                                         Block g_z) {
  for_latents(statistics, eps, [&](int task, const Values& s, const Values& e) {
    const Deviations d = deviations(s);
    const Values g = vector(g_z, task);
    Values to = vector(g_statistics, task);
    each_latent([&](std::size_t i, std::size_t element, std::size_t mean) {
      to[mean] += g[i];
      if (eps) to[mean + latent_] += d.slope[element] * g[i] * e[i];
    });
    wave_.write(g_statistics, task, to.data());
  });
}

void LatentGenerator::do_kl(Kl kind, double weight, Block statistics, Block z, Block eps,
                            Block value, Block g_statistics) {
  for_latents(statistics, eps, [&](int task, const Values& s, const Values& e) {
    const Deviations d = deviations(s);
    Values to = vector(g_statistics, task);
    const Values at = vector(z, task);
    const std::size_t elements = groups_ * latent_;
    const bool sampled = kind == Kl::sampled;
    const std::size_t terms = sampled ? at.size() : elements;
    const auto scale = static_cast<float>(weight / static_cast<double>(terms));
    float sum = 0.0f;
    for (std::size_t i = 0; i < elements; ++i) {
      // Each of the group's latents has this term.
      sum -= (sampled ? static_cast<float>(latents_) : 1.0f) * std::log(d.value[i]);
      if (sampled) continue;
      const std::size_t mean = i / latent_ * 2 * latent_ + i % latent_;
      sum += 0.5f * (d.value[i] * d.value[i] + s[mean] * s[mean] - 1.0f);
      to[mean] += scale * s[mean];
      to[mean + latent_] += scale * (d.value[i] - 1.0f / d.value[i]) * d.slope[i];
    }
    each_latent([&](std::size_t i, std::size_t element, std::size_t mean) {
      if (!sampled) return;
      sum += 0.5f * (at[i] * at[i] - e[i] * e[i]);
      to[mean] += scale * at[i];
      to[mean + latent_] += scale * (at[i] * e[i] - 1.0f / d.value[element]) * d.slope[element];
    });
    wave_.write(g_statistics, task, to.data());
    Values total = vector(value, task);
    total[0] += scale * sum;
    wave_.write(value, task, total.data());
  });
}

namespace {

/// The generator for any networks, in rows of floats outside of the wave's own layout.
class CpuGenerator final : public LatentGenerator {
 public:
  CpuGenerator(CpuWave& wave, const GeneratorSpec& spec)
      : LatentGenerator(wave, spec),
        products_(wave.kernels()),
        encoder_(products_, spec_, 1, static_cast<int>(groups_), wave.largest_support()),
        decoder_(products_, spec.decoder, wave.capacity() * static_cast<int>(groups_ * latents_)) {
    const std::size_t rows = static_cast<std::size_t>(wave.capacity()) * groups_ * latents_;
    const auto z = static_cast<std::size_t>(decoder_.in_stride());
    const auto out = static_cast<std::size_t>(decoder_.out_stride());
    for (AlignedFloats* a : {&z_, &z_dot_}) *a = AlignedFloats(rows * z);
    for (AlignedFloats* a : {&g_out_, &g_out_dot_}) *a = AlignedFloats(rows * out);
    e_ = AlignedFloats(rows * out);
    for (Values* v : {&eps_, &spread_, &slope_}) v->resize(rows * weights_);
    for (const double o : spec_.offset) below_.push_back(static_cast<float>(1.0 - o));
    x_ = AlignedFloats(static_cast<std::size_t>(wave.largest_support()) *
                       static_cast<std::size_t>(encoder_.in_stride()));
  }

 protected:
  void do_encode(const SharedVector& theta, const Dropout& dropout, Block statistics) override {
    pack(theta);
    const auto stride = static_cast<std::size_t>(encoder_.out_stride());
    std::vector<float> flat(groups_ * 2 * latent_);
    for (int task = 0; task < wave_.count(); ++task) {
      const float* s = encode_task(task, dropout);
      for (std::size_t g = 0; g < groups_; ++g) {
        std::copy_n(s + g * stride, 2 * latent_, flat.data() + g * 2 * latent_);
      }
      wave_.write(statistics, task, flat.data());
    }
  }

  void do_encode_pullback(const SharedVector& theta, const Dropout& dropout, Block g_statistics,
                          Block g_theta) override {
    pack(theta);
    const auto stride = static_cast<std::size_t>(encoder_.out_stride());
    std::vector<float> flat(groups_ * 2 * latent_);
    AlignedFloats padded(groups_ * stride);
    for (int task = 0; task < wave_.count(); ++task) {
      encode_task(task, dropout);
      wave_.read(g_statistics, task, flat.data());
      for (std::size_t g = 0; g < groups_; ++g) {
        std::copy_n(flat.data() + g * 2 * latent_, 2 * latent_, padded.data() + g * stride);
      }
      encoder_.pullback(padded.data());
      add_to(g_theta, task, [&](float* to) { encoder_.add_gradient(0, to); });
    }
  }

  void do_decode(const SharedVector& theta, const Latents& latents, Block to) override {
    pack(theta);
    const float* out = forward(latents);
    if (keeps(latents)) kept_[static_cast<std::size_t>(latents.activations)] = slope_;
    put_weights(to, [&](std::size_t row, float* w, float share) {
      const float* m = out + row * out_stride();
      const float* spread = spread_.data() + row * weights_;
      for (std::size_t p = 0; p < weights_; ++p) w[p] += share * (m[p] + spread[p]);
    });
  }

  void do_decode_pullback(const SharedVector& theta, const Latents& latents, Block g_weights,
                          Block g_z, Block g_theta) override {
    pack(theta);
    forward(latents);
    take_weights(g_weights, g_out_);
    const float* g = decoder_.backward(g_out_.data(), static_cast<bool>(g_z));
    if (g_z) put_latents(g_z, g);
    if (!g_theta) return;
    for (int task = 0; task < wave_.count(); ++task) {
      add_to(g_theta, task, [&](float* flat) {
        decoder_.add_gradient(flat + spec_.decoder_begin(), task * rows_of_task(), rows_of_task());
      });
    }
  }

  void do_decode_tangent(const SharedVector& theta, const Latents& latents, Block z_dot,
                         Block weights_dot) override {
    pack(theta);
    if (keeps(latents) && !kept_[static_cast<std::size_t>(latents.activations)].empty()) {
      take_latents(latents.z, z_);
      slope_ = kept_[static_cast<std::size_t>(latents.activations)];
    } else {
      forward(latents);
    }
    const float* out_dot = tangent(z_dot);
    put_weights(weights_dot, [&](std::size_t row, float* w, float share) {
      const float* m_dot = out_dot + row * out_stride();
      const float* u_dot = m_dot + weights_;
      const float* slope = slope_.data() + row * weights_;
      for (std::size_t p = 0; p < weights_; ++p) w[p] += share * (m_dot[p] + slope[p] * u_dot[p]);
    });
  }

  void do_decode_pullback_tangent(const SharedVector& theta, const Latents& latents, Block z_dot,
                                  Block g_weights, Block g_weights_dot, Block h_z, double a,
                                  Block h_theta) override {
    pack(theta);
    forward(latents);
    const float* out_dot = tangent(z_dot);
    take_weights(g_weights, g_out_);
    take_weights(g_weights_dot, g_out_dot_);
    // The slope is eps exp(u) where it is not zero, and is therefore its own derivative by u.
    for (std::size_t row = 0; row < count_rows(); ++row) {
      const std::size_t u = row * out_stride() + weights_;
      float* to = g_out_dot_.data() + u;
      const float* g = g_out_.data() + u;
      for (std::size_t p = 0; p < weights_; ++p) to[p] += g[p] * out_dot[u + p];
    }
    decoder_.backward(g_out_.data(), false);
    put_latents(h_z, decoder_.backward_tangent(g_out_dot_.data()));
    for (int task = 0; task < wave_.count(); ++task) {
      add_to(h_theta, task, [&](float* flat) {
        decoder_.add_gradient_tangent(flat + spec_.decoder_begin(), a, task * rows_of_task(),
                                      rows_of_task());
      });
    }
  }

 private:
  int rows_of_task() const { return static_cast<int>(groups_ * latents_); }
  std::size_t count_rows() const {
    return static_cast<std::size_t>(wave_.count()) * groups_ * latents_;
  }
  std::size_t out_stride() const { return static_cast<std::size_t>(decoder_.out_stride()); }
  void pack(const SharedVector& theta) {
    const auto& vector = host<float>(theta);
    if (version_ == vector.version()) return;
    version_ = vector.version();
    encoder_.pack(vector.data());
    decoder_.pack(vector.data() + spec_.decoder_begin());
  }

  /// Calls body with the task's vector, to which body may add.
  template <typename F>
  void add_to(Block block, int task, const F& body) {
    if (float* run = wave_.task_run(block, task)) return body(run);
    Values values = vector(block, task);
    body(values.data());
    wave_.write(block, task, values.data());
  }

  const float* encode_task(int task, const Dropout& dropout) {
    const auto rows = static_cast<std::size_t>(wave_.support_rows(task));
    const auto inputs = static_cast<std::size_t>(wave_.network().input().size());
    const auto outputs = static_cast<std::size_t>(wave_.network().outputs());
    const auto stride = static_cast<std::size_t>(encoder_.in_stride());
    Values factors;
    if (dropout) {
      factors.resize(rows * inputs);
      dropout_factors(dropout, wave_.global_first() + static_cast<std::uint32_t>(task), factors);
    }
    Values target(outputs);
    std::vector<int> group(rows, 0);
    std::vector<std::size_t> members(groups_, 0);
    for (std::size_t row = 0; row < rows; ++row) {
      float* x = x_.data() + row * stride;
      wave_.read_support(task, static_cast<int>(row), x, target.data());
      if (dropout) {
        for (std::size_t i = 0; i < inputs; ++i) x[i] *= factors[row * inputs + i];
      }
      if (spec_.by_label) {
        group[row] = static_cast<int>(std::ranges::max_element(target) - target.begin());
      } else {
        std::ranges::copy(target, x + inputs);
      }
      ++members[static_cast<std::size_t>(group[row])];
    }
    for (std::size_t g = 0; g < groups_; ++g) spec_.check_group(g, members[g]);
    return encoder_.forward(x_.data(), {static_cast<int>(rows)}, group);
  }

  void take_latents(Block z, AlignedFloats& to) {
    const auto stride = static_cast<std::size_t>(decoder_.in_stride());
    for (int task = 0; task < wave_.count(); ++task) {
      const Values flat = vector(z, task);
      float* rows = to.data() + static_cast<std::size_t>(task * rows_of_task()) * stride;
      for (std::size_t r = 0; r < groups_ * latents_; ++r) {
        std::copy_n(flat.data() + r * latent_, latent_, rows + r * stride);
      }
    }
  }
  void put_latents(Block z, const float* from) {
    const auto stride = static_cast<std::size_t>(decoder_.in_stride());
    Values flat(groups_ * latents_ * latent_);
    for (int task = 0; task < wave_.count(); ++task) {
      const float* rows = from + static_cast<std::size_t>(task * rows_of_task()) * stride;
      for (std::size_t r = 0; r < groups_ * latents_; ++r) {
        std::copy_n(rows + r * stride, latent_, flat.data() + r * latent_);
      }
      wave_.write(z, task, flat.data());
    }
  }
  /// True where slopes are kept under a number: a decoder that is a single linear layer has no
  /// activations, and its tangents need only the slopes.
  bool keeps(const Latents& latents) const {
    return latents.activations >= 0 && latents.activations < most_kept &&
           spec_.decoder->layers().size() == 1;
  }
  /// The decoder's outputs for all tasks' latents. With noise, spread_ = std eps and slope_ is its
  /// derivative by u. Without noise, spread_ and slope_ are zero.
  const float* forward(const Latents& latents) {
    if (latents.reuse_last_decode) return out_;
    take_latents(latents.z, z_);
    const std::size_t rows = count_rows();
    out_ = decoder_.forward(z_.data(), static_cast<int>(rows));
    if (!latents.eps) {
      std::ranges::fill(spread_, 0.0f);
      std::ranges::fill(slope_, 0.0f);
      return out_;
    }
    for (int task = 0; task < wave_.count(); ++task) {
      wave_.read(latents.eps, task,
                 eps_.data() + static_cast<std::size_t>(task * rows_of_task()) * weights_);
    }
    const auto lanes = static_cast<std::size_t>(wave_.kernels().lanes);
    wave_.kernels().exponential(e_.data(), out_, rows * out_stride() / lanes);
    constexpr auto least = static_cast<float>(least_std);
    for (std::size_t row = 0; row < rows; ++row) {
      const float* e = e_.data() + row * out_stride() + weights_;
      const float* eps = eps_.data() + row * weights_;
      float* spread = spread_.data() + row * weights_;
      float* slope = slope_.data() + row * weights_;
      for (std::size_t p = 0; p < weights_; ++p) {
        const float std = e[p] - below_[p];
        const bool low = std < least;
        spread[p] = (low ? least : std) * eps[p];
        slope[p] = (low ? 0.0f : e[p]) * eps[p];
      }
    }
    return out_;
  }
  const float* tangent(Block z_dot) {
    take_latents(z_dot, z_dot_);
    return decoder_.tangent(z_dot_.data());
  }
  /// Writes the weights. add(row, w, 1 / C) adds the share of latent `row` to its group's weights
  /// w.
  template <typename F>
  void put_weights(Block to, const F& add) {
    const float share = 1.0f / static_cast<float>(latents_);
    flat_.resize(groups_ * weights_);
    for (int task = 0; task < wave_.count(); ++task) {
      std::ranges::fill(flat_, 0.0f);
      for (std::size_t r = 0; r < groups_ * latents_; ++r) {
        const std::size_t row = static_cast<std::size_t>(task) * groups_ * latents_ + r;
        add(row, flat_.data() + r / latents_ * weights_, share);
      }
      wave_.write(to, task, flat_.data());
    }
  }
  /// The gradient by the decoder's outputs, from g, the gradient by the weights: (g, slope g) / C.
  void take_weights(Block g_weights, AlignedFloats& to) {
    const float share = 1.0f / static_cast<float>(latents_);
    flat_.resize(groups_ * weights_);
    for (int task = 0; task < wave_.count(); ++task) {
      wave_.read(g_weights, task, flat_.data());
      for (std::size_t r = 0; r < groups_ * latents_; ++r) {
        const std::size_t row = static_cast<std::size_t>(task) * groups_ * latents_ + r;
        const float* g = flat_.data() + r / latents_ * weights_;
        const float* slope = slope_.data() + row * weights_;
        float* out = to.data() + row * out_stride();
        for (std::size_t p = 0; p < weights_; ++p) out[p] = share * g[p];
        for (std::size_t p = 0; p < weights_; ++p) out[weights_ + p] = slope[p] * out[p];
      }
    }
  }

  Products products_;
  RowEncoder encoder_;
  SharedNetwork decoder_;
  std::uint64_t version_ = 0;  ///< version of the packed weights
  AlignedFloats x_, z_, z_dot_, g_out_, g_out_dot_, e_;
  const float* out_ = nullptr;          ///< outputs of the last decode
  Values eps_, spread_, slope_, flat_;  ///< [rows, P]; flat_ is one task's weights
  static constexpr int most_kept = 16;
  std::array<Values, most_kept> kept_;  ///< slopes, by number
  Values below_;                        ///< 1 - offset
};

}  // namespace

std::unique_ptr<Generator> make_generator(CpuWave& wave, const GeneratorSpec& spec) {
  return std::make_unique<CpuGenerator>(wave, spec);
}

}  // namespace kshot::backend::cpu
