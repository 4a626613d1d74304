#include "backend/cpu/cpu_wave.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <new>
#include <numbers>

#include "backend/cpu/generator.h"

namespace kshot::backend::cpu {

namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;
constexpr std::size_t cache_line = 64;

std::shared_ptr<std::byte> pages(std::size_t bytes, std::size_t alignment) {
  auto* const p = static_cast<std::byte*>(::operator new (bytes, std::align_val_t{alignment}));
  const auto release = [alignment](std::byte* q) {
    ::operator delete (q, std::align_val_t{alignment});
  };
#if defined(MADV_HUGEPAGE)
  if (alignment >= huge_page) ::madvise(p, bytes, MADV_HUGEPAGE);  // a wish: failure is harmless
#endif
  return {p, release};
}

std::shared_ptr<std::byte> take(std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  return pages(bytes, cache_line);  // one by one, so that leaving one is seen
#else
  if (bytes > huge_page / 2) {
    return pages((bytes + huge_page - 1) / huge_page * huge_page, huge_page);
  }
  struct Run {
    std::shared_ptr<std::byte> memory;
    std::size_t used = huge_page;
  };
  thread_local Run run;
  if (run.used + bytes > huge_page) run = {pages(huge_page, huge_page), 0};
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
    : kernels_(kernels), loss_(loss), shape_(shape) {
  network_ = std::move(network);
  network_outputs_ = network_->outputs();
}

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
  if (capacity() > 1 && storage(block).layout != Layout::tasks) return nullptr;
  return at(block) + static_cast<std::size_t>(task) * storage(block).width;
}

float* CpuWave::at(Block block) {
  return block ? blocks_[static_cast<std::size_t>(block.id)].values.data() : nullptr;
}
const float* CpuWave::at(Block block) const {
  return block ? blocks_[static_cast<std::size_t>(block.id)].values.data() : nullptr;
}
std::size_t CpuWave::vectors(Block block) const {
  return storage(block).values.size() / static_cast<std::size_t>(kernels_.lanes);
}

int CpuWave::task_rows(Set set, int task) const {
  const int s = support_n_[static_cast<std::size_t>(task)];
  const int q = query_n_[static_cast<std::size_t>(task)];
  return set == Set::support ? s : set == Set::query ? q : s + q;
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
  return static_cast<float>(scale.factor / by);
}

NoiseKey CpuWave::noise_key(const RandomKey& key, std::uint32_t task) {
  const auto k = key.key();
  const auto c = key.counter(0);
  return {{k[0], k[1]}, c[1], task, c[3]};
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

// ---- algebra ----

void CpuWave::fill(Block dst, double value) {
  // pads of weights stay zero: only zero may be written to them
  if (value == 0.0 || !storage(dst).weights || kernels_.lanes == capacity()) {
    kernels_.fill(at(dst), static_cast<float>(value), vectors(dst));
    return;
  }
  const std::vector<double> values(storage(dst).width, value);
  upload(dst, values.data(), 0);
}
void CpuWave::copy(Block dst, Block src) {
  std::memcpy(at(dst), at(src), storage(src).values.size() * sizeof(float));
}
void CpuWave::axpy(Block y, double a, Block x) {
  kernels_.axpy(at(y), static_cast<float>(a), at(x), vectors(y));
}
void CpuWave::multiply_add(Block y, double a, Block x1, Block x2) {
  kernels_.multiply_add(at(y), static_cast<float>(a), at(x1), at(x2), vectors(y));
}
void CpuWave::multiply_fold(Block y, double a, Block x1, Block x2) {
  const std::size_t n = storage(y).width;
  const auto tasks = static_cast<std::size_t>(capacity());
  const auto factor = static_cast<float>(a);
  const float* left = at(x1);
  const float* right = at(x2);
  float* to = at(y);
  for (std::size_t e = 0; e < storage(x1).width; ++e) {
    for (std::size_t t = 0; t < tasks; ++t) {
      to[e % n * tasks + t] += factor * left[e * tasks + t] * right[e * tasks + t];
    }
  }
}
void CpuWave::normal(Block dst, const Noise& noise) {
  if (noise.host != nullptr) return upload(dst, noise.host, noise.stride);
  const std::size_t width = storage(dst).width;
  AlignedFloats values((width + 63) / 64 * 64);
  for (int task = 0; task < count_; ++task) {
    kernels_.noise_single(noise_key(noise.key, global_first_ + static_cast<std::uint32_t>(task)),
                          values.data(), width);
    write(dst, task, values.data());
  }
}
void CpuWave::mean_square(Block value, double weight, Block a, Block b, Block g_b) {
  const std::size_t n = storage(a).width;
  const auto tasks = static_cast<std::size_t>(capacity());
  const auto scale = static_cast<float>(weight / static_cast<double>(n));
  const float* left = at(a);
  const float* right = at(b);
  for (std::size_t t = 0; t < tasks; ++t) {
    float sum = 0.0f;
    for (std::size_t e = t; e < n * tasks; e += tasks) {
      const float d = left[e] - right[e];
      sum += d * d;
      at(g_b)[e] -= 2.0f * scale * d;
    }
    at(value)[t] += scale * sum;
  }
}
void CpuWave::exponential(Block dst, Block src) {
  kernels_.exponential(at(dst), at(src), vectors(dst));
}
void CpuWave::repeated_rate(Block dst, Block src, const Rate& rate, Block grad) {
  const auto& rates = host<float>(*rate.vector);
  const auto tasks = static_cast<std::size_t>(capacity());
  for (std::size_t e = 0; e < storage(dst).width; ++e) {
    const float r = rates.data()[e % rates.size()];
    for (std::size_t t = e * tasks; t < (e + 1) * tasks; ++t) {
      at(dst)[t] = src ? at(src)[t] - r * at(grad)[t] : r * at(grad)[t];
    }
  }
}
void CpuWave::rate_multiply(Block dst, const Rate& rate, Block x) {
  if (rate.vector != nullptr && !storage(dst).weights) return repeated_rate(dst, {}, rate, x);
  bool splat = false;
  const float* rates = rate.vector != nullptr ? shared_rates(*rate.vector, splat) : nullptr;
  kernels_.rate_step(at(dst), nullptr, static_cast<float>(rate.value), rates, splat, at(x),
                     vectors(dst));
}
void CpuWave::rate_step(Block dst, Block src, const Rate& rate, Block grad) {
  if (rate.vector != nullptr && !storage(dst).weights) {
    return repeated_rate(dst, src, rate, grad);
  }
  bool splat = false;
  const float* rates = rate.vector != nullptr ? shared_rates(*rate.vector, splat) : nullptr;
  kernels_.rate_step(at(dst), at(src), static_cast<float>(rate.value), rates, splat, at(grad),
                     vectors(dst));
}

// ---- scalars of a task; loops run over real elements alone, so that pads stay as they are ----

void CpuWave::spread(Block scalar, float* out) const {
  const float* from = at(scalar);
  for (std::size_t i = 0; i < static_cast<std::size_t>(kernels_.lanes); ++i) {
    out[i] = from[tasks_at_once() == 1 ? 0 : i];
  }
}

void CpuWave::row_count(Block dst, Set set) {
  for (std::size_t t = 0; t < tasks_at_once(); ++t) {
    at(dst)[t] = static_cast<float>(task_rows(set, static_cast<int>(t)));
  }
}

void CpuWave::apply(Block dst, Function f, Block src) {
  const float* from = at(src);
  float* to = at(dst);
  const std::size_t n = storage(src).width * tasks_at_once();
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

void CpuWave::scale_by(Block y, Block scalar) {
  float factor[max_lanes] = {};
  spread(scalar, factor);
  kernels_.scale(at(y), factor, vectors(y));
}

void CpuWave::adam_step(const AdamBlocks& blocks, const AdamRule& rule) {
  float count[max_lanes] = {};
  spread(blocks.count, count);
  AdamFactors factors{};
  factors.beta1 = static_cast<float>(rule.beta1);
  factors.beta2 = static_cast<float>(rule.beta2);
  factors.epsilon = static_cast<float>(rule.epsilon);
  for (int i = 0; i < kernels_.lanes; ++i) {
    const double n = count[i];
    factors.rate[i] = static_cast<float>(rule.learning_rate / (1.0 - std::pow(rule.beta1, n)));
    factors.root[i] = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(rule.beta2, n)));
  }
  kernels_.adam(at(blocks.parameters), at(blocks.gradient), at(blocks.m), at(blocks.v), factors,
                vectors(blocks.parameters));
}

void CpuWave::sample(Block phi, Block eps, Block mu, Block sigma, const Noise* noise) {
  if (noise != nullptr && noise->host == nullptr) return draw(phi, eps, mu, sigma, noise->key);
  if (noise != nullptr) upload(eps, noise->host, noise->stride);
  kernels_.reparameterise(at(phi), at(mu), at(sigma), at(eps), vectors(phi));
}
void CpuWave::sample_pullback(Block g_mu, Block g_s, double a, Block g, Block eps, Block sigma) {
  kernels_.sample_pullback(at(g_mu), at(g_s), static_cast<float>(a), at(g), at(eps), at(sigma),
                           vectors(g));
}
void CpuWave::sample_direction(Block u, Block v_mu, Block v_s, Block eps, Block sigma) {
  kernels_.sample_direction(at(u), at(v_mu), at(v_s), at(eps), at(sigma), nullptr, nullptr,
                            vectors(u));
}
void CpuWave::sample_with_direction(Block phi, Block u, Block mu, Block v_mu, Block v_s, Block eps,
                                    Block sigma) {
  kernels_.sample_direction(at(u), at(v_mu), at(v_s), at(eps), at(sigma), at(phi), at(mu),
                            vectors(u));
}
KlArgs CpuWave::kl_args(const KlTerms& t, const float* scale) const {
  const bool both = t.sigma && t.prior_precision;
  return {at(t.mu),
          at(t.s),
          at(t.prior_mu),
          at(t.prior_s),
          scale,
          both ? at(t.sigma) : nullptr,
          both ? at(t.prior_precision) : nullptr};
}
void CpuWave::kl(const KlTerms& t, Block value, Block g_mu, Block g_s, Block gp_mu, Block gp_s) {
  float scale[max_lanes] = {};
  float sums[max_lanes] = {};
  pattern(t.scale, scale);
  kernels_.kl(kl_args(t, scale), value ? sums : nullptr, at(g_mu), at(g_s), at(gp_mu), at(gp_s),
              vectors(t.mu));
  if (value) add_value(value, sums);
}
void CpuWave::kl_hvp(const KlTerms& t, Block v_mu, Block v_s, Block r_mu, Block r_s, Block rp_mu,
                     Block rp_s) {
  float scale[max_lanes] = {};
  pattern(t.scale, scale);
  kernels_.kl_hvp(kl_args(t, scale), at(v_mu), at(v_s), at(r_mu), at(r_s), at(rp_mu), at(rp_s),
                  vectors(t.mu));
}

std::unique_ptr<Generator> CpuWave::generator(const GeneratorSpec& spec) {
  return make_generator(*this, spec);
}

}  // namespace kshot::backend::cpu
