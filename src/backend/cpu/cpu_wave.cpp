#include "backend/cpu/cpu_wave.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <new>
#include <numbers>
#include <stdexcept>

#include "backend/cpu/generator.h"
#include "backend/cpu/linear_algebra.h"
#include "base/memory.h"
#include "base/sanitizers.h"

namespace kshot::backend::cpu {

namespace {

constexpr std::size_t cache_line = 64;

std::shared_ptr<std::byte> take(std::size_t bytes) {
#if defined(KSHOT_ADDRESS_SANITIZER)
  // Each array is allocated separately, so that the sanitizer sees an access beyond its end.
  constexpr std::align_val_t alignment{cache_line};
  return {static_cast<std::byte*>(::operator new(bytes, alignment)),
          [](std::byte* p) { ::operator delete(p, alignment); }};
#else
  if (bytes > huge_page / 2) return huge_pages(bytes);
  struct Run {
    std::shared_ptr<std::byte> memory;
    std::size_t used = huge_page;
  };
  thread_local Run run;
  if (run.used + bytes > huge_page) run = {huge_pages(huge_page), 0};
  std::byte* const p = run.memory.get() + run.used;
  run.used += bytes;
  return {run.memory, p};
#endif
}

}  // namespace

AlignedFloats::AlignedFloats(std::size_t size) : size_(size) {
  const std::size_t bytes = (size * sizeof(float) + cache_line - 1) / cache_line * cache_line;
  const std::shared_ptr<std::byte> memory = take(std::max(bytes, cache_line));
  data_ = {memory, reinterpret_cast<float*>(memory.get())};
  std::fill_n(data_.get(), size, 0.0f);
}

CpuWave::CpuWave(const Kernels& kernels, std::shared_ptr<const Network> network, const Loss& loss,
                 const WaveShape& shape)
    : HostWave(std::move(network), loss, shape), kernels_(kernels) {}

Block CpuWave::store(std::size_t floats, std::size_t width, bool weights) {
  const auto lanes = static_cast<std::size_t>(kernels_.lanes);
  blocks_.push_back({AlignedFloats((floats + lanes - 1) / lanes * lanes), width, weights,
                     weights ? Layout::weights : Layout::elements});
  return {static_cast<int>(blocks_.size()) - 1};
}

Block CpuWave::store_by_task(std::size_t width) {
  const Block block = store(width * static_cast<std::size_t>(capacity()), width, false);
  blocks_.back().layout = Layout::tasks;
  return block;
}

float* CpuWave::task_run(Block block, int task) {
  if (storage(block).layout != Layout::tasks) {
    return tasks_per_run() == 1 ? at(block, static_cast<std::size_t>(task)) : nullptr;
  }
  return at(block) + static_cast<std::size_t>(task) * storage(block).width;
}

float* CpuWave::at(Block block, std::size_t run) {
  if (!block) return nullptr;
  return blocks_[static_cast<std::size_t>(block.id)].values.data() + run * run_floats(block);
}
const float* CpuWave::at(Block block, std::size_t run) const {
  return block ? storage(block).values.data() + run * run_floats(block) : nullptr;
}
std::size_t CpuWave::block_vectors(Block block) const {
  if (storage(block).values.size() == 0) {
    throw std::logic_error("an operation on a block that has no memory of its own");
  }
  return storage(block).values.size() / static_cast<std::size_t>(kernels_.lanes);
}

int CpuWave::task_rows(Set set, int task) const {
  const int s = support_n_[static_cast<std::size_t>(task)];
  const int q = query_n_[static_cast<std::size_t>(task)];
  return set == Set::support ? s : set == Set::query ? q : s + q;
}

DenseCounts CpuWave::run_counts(int run) const {
  DenseCounts c;
  const int tasks = run_tasks();
  for (int i = 0; i < tasks; ++i) {
    const int task = run * tasks + i;
    c.support[i] = task_rows(Set::support, task);
    c.query[i] = task_rows(Set::query, task);
    // Lanes without a task repeat the last one.
    c.ways[i] = task_ways(std::min(task, count_ - 1));
  }
  c.support_rows = rows(Set::support);
  return c;
}

std::unique_ptr<LinearAlgebra> CpuWave::linear_algebra() {
  return std::make_unique<CpuLinearAlgebra>(*this);
}

float CpuWave::factor(const Scale& scale, int task) const {
  double by = 1.0;
  switch (scale.by) {
    case Scale::By::one:
      break;
    case Scale::By::support:
      by = task_rows(Set::support, task);
      break;
    case Scale::By::query:
      by = task_rows(Set::query, task);
      break;
    case Scale::By::all:
      by = task_rows(Set::all, task);
      break;
  }
  return by > 0.0 ? static_cast<float>(scale.factor / by) : 0.0f;
}

NoiseKey CpuWave::noise_key(const RandomKey& key, std::uint32_t task) {
  const auto k = key.key();
  const auto c = key.counter(0);
  return {{k[0], k[1]}, c[1], task, c[3]};
}

bool CpuWave::all_finite(const float* x, std::size_t n) const {
  const auto lanes = static_cast<std::size_t>(kernels_.lanes);
  float keep[max_lanes];
  std::fill_n(keep, max_lanes, 1.0f);
  kernels_.lane_finite(x, n / lanes, keep);
  return std::all_of(keep, keep + lanes, [](float k) { return k != 0.0f; }) &&
         std::all_of(x + n / lanes * lanes, x + n, [](float v) { return std::isfinite(v); });
}

LossType CpuWave::loss_type() const {
  return loss_.kind == LossKind::cross_entropy ? LossType::cross_entropy : LossType::squared;
}
float CpuWave::loss_coefficient() const {
  if (loss_.kind == LossKind::mse) return static_cast<float>(1.0 / network_outputs_);
  return static_cast<float>(0.5 / (loss_.noise_std * loss_.noise_std));
}
float CpuWave::loss_constant() const {
  if (loss_.kind != LossKind::gaussian_nll) return 0.0f;
  return static_cast<float>(network_outputs_ *
                            (std::log(loss_.noise_std) + 0.5 * std::log(2.0 * std::numbers::pi)));
}

void CpuWave::do_upload(Block dst, const double* source, std::size_t stride) {
  std::vector<float> values(storage(dst).width);
  for (int t = 0; t < capacity(); ++t) {
    // Places without a task repeat the last one.
    const int task = batch_first_ + std::min(t, std::max(count_ - 1, 0));
    const double* from = source + static_cast<std::size_t>(task) * stride;
    std::transform(from, from + values.size(), values.begin(),
                   [](double v) { return static_cast<float>(v); });
    write(dst, t, values.data());
  }
}

void CpuWave::do_download(Block src, std::span<double> values) const {
  std::vector<float> flat(storage(src).width);
  auto to = values.begin();
  for (int t = 0; t < count_; ++t) {
    read(src, t, flat.data());
    to = std::ranges::copy(flat, to).out;
  }
}

// ---- algebra ----

void CpuWave::do_fill(Block dst, double value) {
  // The pads of weights must stay zero, so only zero may be written to them.
  if (value == 0.0 || !storage(dst).weights || kernels_.lanes == capacity()) {
    kernels_.fill(at(dst), static_cast<float>(value), block_vectors(dst));
    return;
  }
  const std::vector<double> values(storage(dst).width, value);
  upload(dst, values.data(), 0);
}
void CpuWave::do_copy(Block dst, Block src) {
  std::memcpy(at(dst), at(src), storage(src).values.size() * sizeof(float));
}
void CpuWave::do_axpy(Block y, double a, Block x) {
  kernels_.axpy(at(y), static_cast<float>(a), at(x), block_vectors(y));
}
void CpuWave::do_multiply_add(Block y, double a, Block x1, Block x2) {
  kernels_.multiply_add(at(y), static_cast<float>(a), at(x1), at(x2), block_vectors(y));
}
void CpuWave::do_multiply_fold(Block y, double a, Block x1, Block x2) {
  const std::size_t floats = storage(y).width * tasks_per_run();
  const auto factor = static_cast<float>(a);
  // Weights may lie between pads. The pads are zero, so that a sum over the whole run is right.
  const bool pads = storage(x1).weights && storage(y).width == 1;
  const std::size_t elements = pads ? run_floats(x1) / tasks_per_run() : storage(x1).width;
  for (std::size_t r = 0; r < runs(); ++r) {
    const float* left = at(x1, r);
    const float* right = at(x2, r);
    float* to = at(y, r);
    for (std::size_t e = 0; e < elements; e += storage(y).width) {
      for (std::size_t i = 0; i < floats; ++i) to[i] += factor * *left++ * *right++;
    }
  }
}
void CpuWave::do_normal(Block dst, const RandomKey& key) {
  const std::size_t width = storage(dst).width;
  AlignedFloats values((width + 63) / 64 * 64);
  for (int task = 0; task < count_; ++task) {
    kernels_.noise_single(noise_key(key, global_first_ + static_cast<std::uint32_t>(task)),
                          values.data(), width);
    write(dst, task, values.data());
  }
}
void CpuWave::do_mean_square(Block value, double weight, Block a, Block b, Block g_b) {
  const std::size_t n = storage(a).width;
  const std::size_t tasks = tasks_per_run();
  const auto scale = static_cast<float>(weight / static_cast<double>(n));
  for (std::size_t r = 0; r < runs(); ++r) {
    const float* left = at(a, r);
    const float* right = at(b, r);
    float* to = at(g_b, r);
    for (std::size_t t = 0; t < tasks; ++t) {
      float sum = 0.0f;
      for (std::size_t e = t; e < n * tasks; e += tasks) {
        const float d = left[e] - right[e];
        sum += d * d;
        to[e] -= 2.0f * scale * d;
      }
      at(value, r)[t] += scale * sum;
    }
  }
}
void CpuWave::do_exponential(Block dst, Block src) {
  kernels_.exponential(at(dst), at(src), block_vectors(dst));
}
void CpuWave::repeated_rate(Block dst, Block src, const Rate& rate, Block grad) {
  const auto& rates = host<float>(*rate.vector);
  const std::size_t tasks = tasks_per_run();
  for (std::size_t run = 0; run < runs(); ++run) {
    float* to = at(dst, run);
    const float* from = at(src, run);
    const float* g = at(grad, run);
    for (std::size_t e = 0; e < storage(dst).width; e += rates.size()) {
      for (std::size_t i = 0; i < rates.size(); ++i) {
        const float r = rates.data()[i];
        for (std::size_t t = 0; t < tasks; ++t) {
          const float step = r * *g++;
          *to++ = from != nullptr ? *from++ - step : step;
        }
      }
    }
  }
}
void CpuWave::do_rate_multiply(Block dst, const Rate& rate, Block x) {
  do_rate_step(dst, {}, rate, x);
}
void CpuWave::do_rate_step(Block dst, Block src, const Rate& rate, Block grad) {
  if (rate.vector != nullptr && !storage(dst).weights) {
    return repeated_rate(dst, src, rate, grad);
  }
  bool splat = false;
  const float* rates = rate.vector != nullptr ? shared_rates(*rate.vector, splat) : nullptr;
  for (std::size_t r = 0; r < runs(); ++r) {
    kernels_.rate_step(at(dst, r), at(src, r), static_cast<float>(rate.value), rates, splat,
                       at(grad, r), run_vectors(dst));
  }
}

// ---- scalars of a task; the loops visit real elements alone and leave the pads as they are ----

void CpuWave::scalar_pattern(const float* scalar, float* out) const {
  for (std::size_t i = 0; i < static_cast<std::size_t>(kernels_.lanes); ++i) {
    out[i] = scalar[tasks_per_run() == 1 ? 0 : i];
  }
}

void CpuWave::do_row_count(Block dst, Set set) {
  const std::size_t tasks = tasks_per_run();
  for (std::size_t t = 0; t < runs() * tasks; ++t) {
    at(dst, t / tasks)[t % tasks] = static_cast<float>(task_rows(set, static_cast<int>(t)));
  }
}

void CpuWave::do_apply(Block dst, Function f, Block src) {
  const std::size_t n = storage(src).width * tasks_per_run();
  for (std::size_t r = 0; r < runs(); ++r) {
    const float* from = at(src, r);
    float* to = at(dst, r);
    switch (f) {
      case Function::reciprocal:
        for (std::size_t i = 0; i < n; ++i) to[i] = 1.0f / from[i];
        break;
      case Function::logarithm:
        for (std::size_t i = 0; i < n; ++i) to[i] = std::log(from[i]);
        break;
      case Function::square_root:
        for (std::size_t i = 0; i < n; ++i) to[i] = std::sqrt(from[i]);
        break;
    }
  }
}

void CpuWave::do_scale_by(Block y, Block scalar) {
  for (std::size_t r = 0; r < runs(); ++r) {
    float factor[max_lanes] = {};
    scalar_pattern(at(scalar, r), factor);
    kernels_.scale(at(y, r), factor, run_vectors(y));
  }
}

void CpuWave::do_adam_step(const AdamBlocks& blocks, const AdamRule& rule) {
  AdamFactors factors{};
  factors.beta1 = static_cast<float>(rule.beta1);
  factors.beta2 = static_cast<float>(rule.beta2);
  factors.epsilon = static_cast<float>(rule.epsilon);
  for (std::size_t r = 0; r < runs(); ++r) {
    float count[max_lanes] = {};
    scalar_pattern(at(blocks.count, r), count);
    for (int i = 0; i < kernels_.lanes; ++i) {
      const double n = count[i];
      factors.rate[i] = static_cast<float>(rule.learning_rate / (1.0 - std::pow(rule.beta1, n)));
      factors.root[i] = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(rule.beta2, n)));
    }
    kernels_.adam(at(blocks.parameters, r), at(blocks.gradient, r), at(blocks.m, r),
                  at(blocks.v, r), factors, run_vectors(blocks.parameters));
  }
}

void CpuWave::do_sample(Block phi, Block eps, Block mu, Block sigma, const RandomKey* key) {
  if (key != nullptr) return draw_weights(phi, eps, mu, sigma, *key);
  kernels_.reparameterise(at(phi), at(mu), at(sigma), at(eps), block_vectors(phi));
}
void CpuWave::do_sample_pullback(Block g_mu, Block g_s, double a, Block g, Block eps, Block sigma) {
  kernels_.sample_pullback(at(g_mu), at(g_s), static_cast<float>(a), at(g), at(eps), at(sigma),
                           block_vectors(g));
}
void CpuWave::do_sample_direction(Block u, Block v_mu, Block v_s, Block eps, Block sigma) {
  kernels_.sample_direction(at(u), at(v_mu), at(v_s), at(eps), at(sigma), nullptr, nullptr,
                            block_vectors(u));
}
void CpuWave::do_sample_with_direction(Block phi, Block u, Block mu, Block v_mu, Block v_s,
                                       Block eps, Block sigma) {
  kernels_.sample_direction(at(u), at(v_mu), at(v_s), at(eps), at(sigma), at(phi), at(mu),
                            block_vectors(u));
}
KlArgs CpuWave::kl_args(const KlTerms& t, std::size_t run, const float* scale) const {
  const bool both = t.sigma && t.prior_precision;
  return {at(t.mu, run),
          at(t.s, run),
          at(t.prior_mu, run),
          at(t.prior_s, run),
          scale,
          both ? at(t.sigma, run) : nullptr,
          both ? at(t.prior_precision, run) : nullptr};
}
void CpuWave::do_kl(const KlTerms& t, Block value, Block g_mu, Block g_s, Block gp_mu, Block gp_s) {
  for (std::size_t r = 0; r < runs(); ++r) {
    float scale[max_lanes] = {};
    float sums[max_lanes] = {};
    pattern(t.scale, r, scale);
    kernels_.kl(kl_args(t, r, scale), value ? sums : nullptr, at(g_mu, r), at(g_s, r), at(gp_mu, r),
                at(gp_s, r), run_vectors(t.mu));
    if (value) add_value(at(value, r), sums);
  }
}
void CpuWave::do_kl_hvp(const KlTerms& t, Block v_mu, Block v_s, Block r_mu, Block r_s, Block rp_mu,
                        Block rp_s) {
  for (std::size_t r = 0; r < runs(); ++r) {
    float scale[max_lanes] = {};
    pattern(t.scale, r, scale);
    kernels_.kl_hvp(kl_args(t, r, scale), at(v_mu, r), at(v_s, r), at(r_mu, r), at(r_s, r),
                    at(rp_mu, r), at(rp_s, r), run_vectors(t.mu));
  }
}

std::unique_ptr<Generator> CpuWave::generator(const GeneratorSpec& spec) {
  return make_generator(*this, spec);
}

}  // namespace kshot::backend::cpu
