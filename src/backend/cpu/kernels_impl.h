// The cpu backend's kernels, compiled once per instruction set: KSHOT_ISA names the namespace,
// KSHOT_LANES is W, the number of floats in a vector. The code uses those vector extensions that
// g++ and clang share. The few operations that the extensions do not have (square root, 32 x 32 ->
// 64 bit products) use an intrinsic where the target has one and a plain loop elsewhere. No
// function of the standard library is called (see kernels.h).
//
// Order of operations never depends on W except through the layout itself: a lane (a task, or a
// channel) sees the same operations on every instruction set that fuses multiply and add.
#include <cstddef>
#include <cstdint>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "backend/cpu/kernels.h"

// GCC 12's own intrinsics start from an undefined register, on purpose.
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace kshot::backend::cpu {
namespace KSHOT_ISA {
namespace {

constexpr int W = KSHOT_LANES;
typedef float vf __attribute__((vector_size(4 * W)));
typedef float vf_unaligned __attribute__((vector_size(4 * W), aligned(4)));
typedef std::int32_t vi __attribute__((vector_size(4 * W)));
typedef std::int32_t vi_unaligned __attribute__((vector_size(4 * W), aligned(4)));
typedef std::uint32_t vu __attribute__((vector_size(4 * W)));

#define KSHOT_INLINE inline __attribute__((always_inline))
#define KSHOT_CONCAT_(a, b) a##b
#define KSHOT_CONCAT(a, b) KSHOT_CONCAT_(a, b)

KSHOT_INLINE vf load(const float* p) {
  return *reinterpret_cast<const vf_unaligned*>(p);
}
KSHOT_INLINE void store(float* p, vf v) {
  *reinterpret_cast<vf_unaligned*>(p) = v;
}
KSHOT_INLINE vi load_int(const std::int32_t* p) {
  return *reinterpret_cast<const vi_unaligned*>(p);
}
KSHOT_INLINE void store_int(std::int32_t* p, vi v) {
  *reinterpret_cast<vi_unaligned*>(p) = v;
}
KSHOT_INLINE vf splat(float x) {
  return x - vf{};
}
KSHOT_INLINE vi splat_int(std::int32_t x) {
  return x - vi{};
}
KSHOT_INLINE vf as_float(vi x) {
  return reinterpret_cast<vf>(x);
}
KSHOT_INLINE vi as_int(vf x) {
  return reinterpret_cast<vi>(x);
}
KSHOT_INLINE vf select(vi mask, vf a, vf b) {
  return mask ? a : b;
}

template <typename V, typename Index, int... I>
KSHOT_INLINE V shuffle(V a, V b, Index, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, Index{}(I)...);
}
/// Element i of the result is element index(i) of a followed by b. The index is a lambda without
/// captures, because both compilers want constants.
template <typename V, typename Index>
KSHOT_INLINE V shuffle(V a, V b, Index index) {
  return shuffle(a, b, index, std::make_integer_sequence<int, W>());
}

KSHOT_INLINE vf vmax(vf a, vf b) {
  return a > b ? a : b;
}
KSHOT_INLINE vf vmin(vf a, vf b) {
  return a < b ? a : b;
}

KSHOT_INLINE vf vsqrt(vf x) {
#if defined(__AVX512F__) && KSHOT_LANES == 16
  return _mm512_sqrt_ps(x);
#elif defined(__AVX2__) && KSHOT_LANES == 8
  return _mm256_sqrt_ps(x);
#else
  vf y;
  for (int i = 0; i < W; ++i) y[i] = __builtin_sqrtf(x[i]);
  return y;
#endif
}

/// Fused multiply-add wherever the number must be the same on all backends (random.h).
KSHOT_INLINE vf fma_exact(vf a, vf b, vf c) {
#if defined(__AVX512F__) && KSHOT_LANES == 16
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__) && KSHOT_LANES == 8
  return _mm256_fmadd_ps(a, b, c);
#else
  vf y;
  for (int i = 0; i < W; ++i) y[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return y;
#endif
}

// ---- exp, log, tanh (Cephes polynomials, a few units in the last place) ----

/// exp(x) = scale (1 + r + p r^2), scale a power of two.
struct ExpParts {
  vf scale, r, p;
};
KSHOT_INLINE ExpParts exp_parts(vf x) {
  const vf clamped = vmin(vmax(x, splat(-87.3f)), splat(88.3f));
  const vf magic = splat(12582912.0f);  // 1.5 * 2^23: rounds to an integer
  const vf shifted = clamped * 1.44269504088896341f + magic;
  const vf n = shifted - magic;
  vf r = clamped - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  vf p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const vi exponent = (as_int(shifted) - as_int(magic) + 127) << 23;
  return {as_float(exponent), r, p};
}
/// y where exp(x) is in range, else its limits.
KSHOT_INLINE vf exp_limits(vf x, vf y, float least) {
  y = select(x < -87.3f, splat(least), y);
  y = select(x > 88.3f, splat(__builtin_inff()), y);
  return select(x == x, y, x);
}
KSHOT_INLINE vf vexp(vf x) {
  const ExpParts e = exp_parts(x);
  return exp_limits(x, (e.p * (e.r * e.r) + (e.r + 1.0f)) * e.scale, 0.0f);
}
KSHOT_INLINE vf vexp_less_one(vf x) {
  const ExpParts e = exp_parts(x);
  return exp_limits(x, (e.p * (e.r * e.r) + e.r) * e.scale + (e.scale - 1.0f), -1.0f);
}

KSHOT_INLINE vf vlog(vf x) {  // x > 0, normal
  vi bits = as_int(x);
  vi exponent = ((bits >> 23) & 0xff) - 126;
  vf m = as_float((bits & 0x007fffff) | 0x3f000000);
  const vi small = m < 0.707106781186547524f;
  exponent = exponent + small;  // small is -1 where true
  m = select(small, m + m, m) - 1.0f;
  const vf m2 = m * m;
  vf p = splat(7.0376836292e-2f);
  p = p * m + -1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m + -1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m + -1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m + -2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const vf e = __builtin_convertvector(exponent, vf);
  vf y = p * m * m2;
  y = e * -2.12194440e-4f + y;
  y = m2 * -0.5f + y;
  return e * 0.693359375f + (m + y);
}

KSHOT_INLINE vf vtanh(vf x) {
  const vf a = vmax(x, -x);
  const vf z = x * x;
  vf p = splat(-5.70498872745e-3f);
  p = p * z + 2.06390887954e-2f;
  p = p * z + -5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z + -3.33332819422e-1f;
  const vf near = p * z * x + x;
  const vf far_abs = 1.0f - 2.0f / (vexp(a + a) + 1.0f);
  const vf far = select(x < 0.0f, -far_abs, far_abs);
  return select(a < 0.625f, near, far);
}

KSHOT_INLINE float horizontal_sum(vf v) {
  float sum = 0.0f;
  for (int width = W / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) v[i] += v[i + width];
  }
  sum = v[0];
  return sum;
}

// ---- element-wise ----

void fill(float* y, float a, std::size_t vectors) {
  const vf v = splat(a);
  for (std::size_t i = 0; i < vectors; ++i) store(y + i * W, v);
}

void axpy(float* y, float a, const float* x, std::size_t vectors) {
  for (std::size_t i = 0; i < vectors; ++i) store(y + i * W, load(y + i * W) + a * load(x + i * W));
}

void multiply_add(float* y, float a, const float* x1, const float* x2, std::size_t vectors) {
  for (std::size_t i = 0; i < vectors; ++i) {
    store(y + i * W, load(y + i * W) + a * load(x1 + i * W) * load(x2 + i * W));
  }
}

void multiply(float* y, const float* x, std::size_t vectors) {
  for (std::size_t i = 0; i < vectors; ++i) store(y + i * W, load(y + i * W) * load(x + i * W));
}

void exponential(float* y, const float* x, std::size_t vectors) {
  for (std::size_t i = 0; i < vectors; ++i) store(y + i * W, vexp(load(x + i * W)));
}

void exp_less_one(float* y, const float* x, std::size_t vectors) {
  for (std::size_t i = 0; i < vectors; ++i) store(y + i * W, vexp_less_one(load(x + i * W)));
}

void rate_step(float* dst, const float* src, float rate, const float* rates, bool spread,
               const float* g, std::size_t vectors) {
  for (std::size_t i = 0; i < vectors; ++i) {
    const vf r = rates == nullptr ? splat(rate) : spread ? splat(rates[i]) : load(rates + i * W);
    const vf step = r * load(g + i * W);
    store(dst + i * W, src == nullptr ? step : load(src + i * W) - step);
  }
}

void scale(float* y, const float* factor, std::size_t vectors) {
  const vf a = load(factor);
  for (std::size_t i = 0; i < vectors; ++i) store(y + i * W, a * load(y + i * W));
}

void adam(float* p, const float* g, float* m, float* v, const AdamFactors& factors,
          std::size_t vectors) {
  const vf rate = load(factors.rate);
  const vf root = load(factors.root);
  const float b1 = factors.beta1;
  const float b2 = factors.beta2;
  for (std::size_t i = 0; i < vectors; ++i) {
    const vf x = load(g + i * W);
    const vf first = b1 * load(m + i * W) + (1.0f - b1) * x;
    const vf second = b2 * load(v + i * W) + (1.0f - b2) * x * x;
    store(m + i * W, first);
    store(v + i * W, second);
    store(p + i * W, load(p + i * W) - rate * first / (vsqrt(second) * root + factors.epsilon));
  }
}

void broadcast(float* dst, const float* src, std::size_t elements) {
  for (std::size_t i = 0; i < elements; ++i) store(dst + i * W, splat(src[i]));
}

void reparameterise(float* phi, const float* mu, const float* sigma, const float* eps,
                    std::size_t vectors) {
  for (std::size_t i = 0; i < vectors; ++i) {
    store(phi + i * W, load(mu + i * W) + load(sigma + i * W) * load(eps + i * W));
  }
}

void sample_pullback(float* g_mu, float* g_s, float a, const float* g, const float* eps,
                     const float* sigma, std::size_t vectors) {
  for (std::size_t i = 0; i < vectors; ++i) {
    const vf ag = a * load(g + i * W);
    store(g_mu + i * W, load(g_mu + i * W) + ag);
    store(g_s + i * W, load(g_s + i * W) + ag * (load(eps + i * W) * load(sigma + i * W)));
  }
}

void sample_direction(float* u, const float* v_mu, const float* v_s, const float* eps,
                      const float* sigma, float* phi, const float* mu, std::size_t vectors) {
  for (std::size_t i = 0; i < vectors; ++i) {
    const vf se = load(sigma + i * W) * load(eps + i * W);
    store(u + i * W, load(v_mu + i * W) + se * load(v_s + i * W));
    if (phi != nullptr) store(phi + i * W, load(mu + i * W) + se);
  }
}

void shifted(float* phi, float* u, const float* mu, const float* v_mu, const float* v_s,
             const float* shift, std::size_t vectors) {
  for (std::size_t i = 0; i < vectors; ++i) {
    const vf d = load(shift + i * W);
    store(phi + i * W, load(mu + i * W) + d);
    if (u != nullptr) store(u + i * W, load(v_mu + i * W) + d * load(v_s + i * W));
  }
}

/// exp(-2 ps) and exp(2 (s - ps)).
struct KlFactors {
  vf precision, ratio;
};
KSHOT_INLINE KlFactors kl_factors(const KlArgs& q, std::size_t i) {
  if (q.sigma != nullptr) {
    const vf sigma = load(q.sigma + i * W);
    const vf precision = load(q.precision + i * W);
    return {precision, sigma * sigma * precision};
  }
  const vf ps = load(q.ps + i * W);
  return {vexp(-2.0f * ps), vexp(2.0f * (load(q.s + i * W) - ps))};
}

void kl(const KlArgs& q, float* value, float* g_mu, float* g_s, float* gp_mu, float* gp_s,
        std::size_t vectors) {
  const vf c = load(q.scale);
  vf sum = splat(0.0f);
  for (std::size_t i = 0; i < vectors; ++i) {
    const vf d = load(q.mu + i * W) - load(q.pmu + i * W);
    const auto [precision, ratio] = kl_factors(q, i);
    const vf dp = d * precision;
    if (value != nullptr) {
      sum = sum + ((load(q.ps + i * W) - load(q.s + i * W)) + 0.5f * (ratio + d * dp) - 0.5f);
    }
    if (g_mu != nullptr) {
      store(g_mu + i * W, load(g_mu + i * W) + c * dp);
      store(g_s + i * W, load(g_s + i * W) + c * (ratio - 1.0f));
    }
    if (gp_mu != nullptr) {
      store(gp_mu + i * W, load(gp_mu + i * W) - c * dp);
      store(gp_s + i * W, load(gp_s + i * W) + c * (1.0f - ratio - d * dp));
    }
  }
  if (value != nullptr) store(value, load(value) + c * sum);
}

void kl_hvp(const KlArgs& q, const float* v_mu, const float* v_s, float* r_mu, float* r_s,
            float* rp_mu, float* rp_s, std::size_t vectors) {
  const vf c = load(q.scale);
  for (std::size_t i = 0; i < vectors; ++i) {
    const KlFactors factors = kl_factors(q, i);
    const vf precision = c * factors.precision;
    const vf ratio = 2.0f * c * factors.ratio;
    const vf vm = load(v_mu + i * W);
    const vf vs = load(v_s + i * W);
    store(r_mu + i * W, load(r_mu + i * W) + precision * vm);
    store(r_s + i * W, load(r_s + i * W) + ratio * vs);
    if (rp_mu != nullptr) {
      const vf d = load(q.mu + i * W) - load(q.pmu + i * W);
      store(rp_mu + i * W, load(rp_mu + i * W) - precision * vm);
      store(rp_s + i * W, load(rp_s + i * W) - (2.0f * d * precision * vm + ratio * vs));
    }
  }
}

// ---- noise: random.h's Philox and Box-Muller, W at a time ----

typedef std::uint64_t vl __attribute__((vector_size(4 * W)));

/// W 32-bit words, each in the low half of a 64-bit lane (the high halves hold anything), so that a
/// 32 x 32 -> 64 bit product needs no shuffle.
struct WideWords {
  vl half[2];
};

KSHOT_INLINE vl multiply_low(vl a, std::uint32_t b) {
#if defined(__AVX512F__) && KSHOT_LANES == 16
  return reinterpret_cast<vl>(
      _mm512_mul_epu32(reinterpret_cast<__m512i>(a), _mm512_set1_epi64(static_cast<long long>(b))));
#elif defined(__AVX2__) && KSHOT_LANES == 8
  return reinterpret_cast<vl>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a),
                                               _mm256_set1_epi64x(static_cast<long long>(b))));
#else
  return (a & 0xffffffffu) * static_cast<std::uint64_t>(b);
#endif
}

KSHOT_INLINE WideWords wide(std::uint32_t x) {
  const vl all = x - vl{};
  return {{all, all}};
}

/// first, first + 1, ...
KSHOT_INLINE WideWords wide_from(std::uint32_t first) {
  vl low;
  for (int i = 0; i < W / 2; ++i) low[i] = first + static_cast<std::uint64_t>(i);
  return {{low, low + W / 2}};
}

KSHOT_INLINE vu narrow(const WideWords& x) {
  return shuffle(reinterpret_cast<vu>(x.half[0]), reinterpret_cast<vu>(x.half[1]),
                 [](int i) { return 2 * i; });
}

struct Words {
  vu w[4];
};

KSHOT_INLINE Words philox(WideWords c0, WideWords c1, WideWords c2, WideWords c3, std::uint32_t k0,
                          std::uint32_t k1) {
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const vl p0 = multiply_low(c0.half[h], 0xD2511F53u);
      const vl p1 = multiply_low(c2.half[h], 0xCD9E8D57u);
      c0.half[h] = (p1 >> 32) ^ c1.half[h] ^ static_cast<std::uint64_t>(k0);
      c2.half[h] = (p0 >> 32) ^ c3.half[h] ^ static_cast<std::uint64_t>(k1);
      c1.half[h] = p1;
      c3.half[h] = p0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{narrow(c0), narrow(c1), narrow(c2), narrow(c3)}};
}

/// Box-Muller on words 0, 1 and 2, 3 of W quads: z[r] is the normal of word r. Both pairs step by
/// step together, since one alone is a long chain of dependent operations.
KSHOT_INLINE void normals(const Words& words, vf* z) {
  vf m[2], m2[2], e[2], p[2], radius[2], t[2], r[2], r2[2], s[2], c[2];
  vi q[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const vf u = fma_exact(__builtin_convertvector(reinterpret_cast<vi>(words.w[2 * i] >> 9), vf),
                           splat(0x1p-23f), splat(0x1p-24f));
    const vi bits = as_int(u);
    vi exponent = (bits >> 23) - 126;
    m[i] = as_float((bits & 0x007fffff) | 0x3f000000);
    const vi small = m[i] < 0.707106781186547524f;
    exponent = exponent + small;
    e[i] = __builtin_convertvector(exponent, vf);
    m[i] = select(small, m[i] + m[i], m[i]) - 1.0f;
    m2[i] = m[i] * m[i];
    t[i] = __builtin_convertvector(reinterpret_cast<vi>(words.w[2 * i + 1]), vf) * 0x1p-32f;
    const vf shifted = fma_exact(t[i], splat(4.0f), splat(12582912.0f));
    q[i] = as_int(shifted);
    r[i] = fma_exact(shifted - 12582912.0f, splat(-0.25f), t[i]) * 6.283185307179586f;
    r2[i] = r[i] * r[i];
    p[i] = splat(7.0376836292e-2f);
    s[i] = splat(-1.9515295891e-4f);
    c[i] = splat(2.443315711809948e-5f);
  }
  const auto step = [](vf* sum, const vf* x, float coefficient) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) sum[i] = fma_exact(sum[i], x[i], splat(coefficient));
  };
  step(p, m, -1.1514610310e-1f);
  step(s, r2, 8.3321608736e-3f);
  step(p, m, 1.1676998740e-1f);
  step(c, r2, -1.388731625493765e-3f);
  step(p, m, -1.2420140846e-1f);
  step(s, r2, -1.6666654611e-1f);
  step(p, m, 1.4249322787e-1f);
  step(c, r2, 4.166664568298827e-2f);
  step(p, m, -1.6668057665e-1f);
  step(p, m, 2.0000714765e-1f);
  step(p, m, -2.4999993993e-1f);
  step(p, m, 3.3333331174e-1f);
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    vf y = (p[i] * m[i]) * m2[i];
    y = fma_exact(e[i], splat(-2.12194440e-4f), y);
    y = fma_exact(m2[i], splat(-0.5f), y);
    const vf log_u = fma_exact(e[i], splat(0.693359375f), m[i] + y);
    radius[i] = vsqrt(-2.0f * log_u);
    s[i] = fma_exact(s[i] * r2[i], r[i], r[i]);
    c[i] = fma_exact(c[i] * r2[i], r2[i], fma_exact(r2[i], splat(-0.5f), splat(1.0f)));
    const vi swap = (q[i] & 1) != 0;
    const vf sine = select(swap, c[i], s[i]);
    const vf cosine = select(swap, s[i], c[i]);
    z[2 * i] = radius[i] * as_float(as_int(cosine) ^ (((q[i] + 1) & 2) << 30));
    z[2 * i + 1] = radius[i] * as_float(as_int(sine) ^ ((q[i] & 2) << 30));
  }
}

/// sink(element, W standard normal numbers, one a task) for every element.
template <class Sink>
KSHOT_INLINE void draw_lanes(const NoiseKey& key, std::size_t elements, Sink&& sink) {
  const WideWords counter1 = wide(key.counter1), task = wide_from(key.task),
                  counter3 = wide(key.counter3);
  Words words[16];
  for (std::size_t block = 0; block < elements; block += 64) {
    const std::size_t left = elements - block;
    const std::size_t quads = left < 16 ? left : 16;
    // in two turns, so that neither's constants drive the other's from the registers
    for (std::size_t j = 0; j < quads; ++j) {
      words[j] = philox(wide(static_cast<std::uint32_t>(block / 4 + j)), counter1, task, counter3,
                        key.key[0], key.key[1]);
    }
    for (std::size_t j = 0; j < quads; ++j) {
      vf z[4];
      normals(words[j], z);
      for (std::size_t r = 0; r < 4; ++r) {
        const std::size_t element = r * 16 + j;
        if (element < left) sink(block + element, z[r]);
      }
    }
  }
}

void noise_lanes(const NoiseKey& key, float* eps, float* shift, float* phi, const float* mu,
                 const float* sigma, std::size_t elements) {
  draw_lanes(key, elements, [&](std::size_t element, vf z) {
    const std::size_t at = element * W;
    const vf d = load(sigma + at) * z;
    store(eps != nullptr ? eps + at : shift + at, eps != nullptr ? z : d);
    store(phi + at, load(mu + at) + d);
  });
}

void noise_single(const NoiseKey& key, float* eps, std::size_t elements) {
  const WideWords counter1 = wide(key.counter1), task = wide(key.task),
                  counter3 = wide(key.counter3);
  for (std::size_t block = 0; block < elements; block += 64) {
    for (std::size_t j = 0; j < 16; j += W) {
      vf z[4];
      normals(philox(wide_from(static_cast<std::uint32_t>(block / 4 + j)), counter1, task, counter3,
                     key.key[0], key.key[1]),
              z);
      for (std::size_t r = 0; r < 4; ++r) store(eps + block + r * 16 + j, z[r]);
    }
  }
}

// ---- activations ----

/// Applies a vector function to contiguous floats, the tail through a padded copy.
template <typename F, typename... In>
KSHOT_INLINE void map(F&& f, float* out, std::size_t n, const In*... in) {
  std::size_t i = 0;
  for (; i + W <= n; i += W) store(out + i, f(load(in + i)...));
  if (i < n) {
    const auto tail = [&](const float* p) {
      vf v{};
      for (std::size_t j = 0; i + j < n; ++j) v[j] = p[i + j];
      return v;
    };
    const vf y = f(tail(in)...);
    for (std::size_t j = 0; i + j < n; ++j) out[i + j] = y[j];
  }
}

constexpr float leak = 0.01f;

void act(Activation a, float* y, const float* x, std::size_t n) {
  switch (a) {
    case Activation::relu:
      // NaN stays NaN: a diverged task must be seen
      return map([](vf v) { return select(v < 0.0f, splat(0.0f), v); }, y, n, x);
    case Activation::tanh:
      return map([](vf v) { return vtanh(v); }, y, n, x);
    case Activation::leaky_relu:
      return map([](vf v) { return select(v < 0.0f, v * leak, v); }, y, n, x);
  }
}

void act_tangent(Activation a, float* y_dot, const float* y, const float* x_dot, std::size_t n) {
  switch (a) {
    case Activation::relu:
      return map([](vf v, vf d) { return select(v > 0.0f, d, splat(0.0f)); }, y_dot, n, y, x_dot);
    case Activation::tanh:
      return map([](vf v, vf d) { return d - v * v * d; }, y_dot, n, y, x_dot);
    case Activation::leaky_relu:
      return map([](vf v, vf d) { return select(v > 0.0f, d, leak * d); }, y_dot, n, y, x_dot);
  }
}

void act_backward_tangent(Activation a, float* dx_dot, const float* y, const float* y_dot,
                          const float* dy, const float* dy_dot, std::size_t n) {
  if (a != Activation::tanh) return act_tangent(a, dx_dot, y, dy_dot, n);
  map([](vf v, vf v_dot, vf d, vf d_dot) { return d_dot - v * (v * d_dot + 2.0f * v_dot * d); },
      dx_dot, n, y, y_dot, dy, dy_dot);
}

// ---- lanes ----

// Register tile: accumulators plus one column of A and one element of B fit the register file.
#if defined(__AVX512F__)  // 32 registers
constexpr int lane_m = 4, lane_n = 6;
#else
constexpr int lane_m = 2, lane_n = 5;
#endif

template <int M>
KSHOT_INLINE void lane_rows(const LaneGemm& g, int m0, const vf* sum) {
  const vf scale = splat(g.scale);
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
    const std::ptrdiff_t e = (m0 + i) * W;
    store(g.rows.c + e, g.rows.base == nullptr ? sum[i] : load(g.rows.base + e) + scale * sum[i]);
    if (g.rows.shift == nullptr) continue;
    store(g.rows.c_s + e, load(g.rows.c_s + e) + scale * sum[i] * load(g.rows.shift + e));
  }
}

template <int M, int N, bool with_rows>
void lane_tile(const LaneGemm& g, int m0, int n0) {
  vf acc[M][N];
  vf sum[M] = {};
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
    vf start = splat(0.0f);
    if (g.bias != nullptr) start = load(g.bias + (m0 + i) * W);
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) acc[i][j] = start;
  }
  const std::ptrdiff_t a_row = g.a_row * W, a_col = g.a_col * W;
  const std::ptrdiff_t b_row = g.b_row * W, b_col = g.b_col * W;
  for (int p = 0; p < g.products; ++p) {
    const float* a = g.a[p] + m0 * a_row;
    const float* b = g.b[p] + n0 * b_col;
    for (int k = 0; k < g.k; ++k) {
      vf left[M];
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) {
        left[i] = load(a + i * a_row);
        if (with_rows && p == 0) sum[i] += left[i];
      }
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) {
        const vf right = load(b + j * b_col);
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i) acc[i][j] += left[i] * right;
      }
      a += a_col;
      b += b_row;
    }
  }
  if (with_rows) lane_rows<M>(g, m0, sum);
  const std::ptrdiff_t c_row = g.c_row * W, c_col = g.c_col * W;
  const std::ptrdiff_t at = m0 * c_row + n0 * c_col;
  float* const c = g.c + at;
  if (g.rectify) {
    const vf slope = splat(g.slope);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) {
        const vf v = acc[i][j];
        store(c + i * c_row + j * c_col, select(v < 0.0f, slope * v, v));
      }
    }
    return;
  }
  if (g.gate != nullptr) {
    const float* const gate = g.gate + at;
    const vf slope = splat(g.slope);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) {
        const std::ptrdiff_t e = i * c_row + j * c_col;
        store(c + e, select(load(gate + e) > 0.0f, acc[i][j], slope * acc[i][j]));
      }
    }
    return;
  }
  if (g.shift != nullptr) {
    const vf scale = splat(g.scale);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) {
        const std::ptrdiff_t e = at + i * c_row + j * c_col;
        const vf v = scale * acc[i][j];
        store(g.c + e, load(g.c + e) + v);
        store(g.c_s + e, load(g.c_s + e) + v * load(g.shift + e));
      }
    }
    return;
  }
  if (g.base == nullptr) {
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) store(c + i * c_row + j * c_col, acc[i][j]);
    }
    return;
  }
  const float* const base = g.base + at;
  const vf scale = splat(g.scale);
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      const std::ptrdiff_t e = i * c_row + j * c_col;
      store(c + e, load(base + e) + scale * acc[i][j]);
    }
  }
}

template <int N, bool with_rows>
void lane_column(const LaneGemm& g, int n0) {
  int m = 0;
  for (; m + lane_m <= g.m; m += lane_m) lane_tile<lane_m, N, with_rows>(g, m, n0);
  const int left = g.m - m;
  if constexpr (lane_m > 3) {
    if (left == 3) return lane_tile<3, N, with_rows>(g, m, n0);
    if (left == 2) return lane_tile<2, N, with_rows>(g, m, n0);
  }
  if (left == 1) lane_tile<1, N, with_rows>(g, m, n0);
}

/// Row sums go with the last panel of columns: one of the narrowest, which leaves registers.
template <int N>
void lane_panel(const LaneGemm& g, int n0) {
  g.rows.c != nullptr&& n0 + N == g.n ? lane_column<N, true>(g, n0) : lane_column<N, false>(g, n0);
}

void lane_gemm(const LaneGemm& g) {
  // Columns in nearly equal panels: 10 is 5 + 5, not 6 + 4. A panel of B stays in the first cache
  // while the rows of A stream past it.
  const int panels = (g.n + lane_n - 1) / lane_n;
  int n = 0;
  for (int p = 0; p < panels; ++p) {
    const int width = (g.n - n + panels - p - 1) / (panels - p);
    switch (width) {
      case 1:
        lane_panel<1>(g, n);
        break;
      case 2:
        lane_panel<2>(g, n);
        break;
      case 3:
        lane_panel<3>(g, n);
        break;
      case 4:
        lane_panel<4>(g, n);
        break;
      case 5:
        lane_panel<5>(g, n);
        break;
      default:
        lane_panel<lane_n>(g, n);
        break;
    }
    n += width;
  }
}

void lane_loss(const LaneLoss& g) {
  const std::ptrdiff_t row_stride = static_cast<std::ptrdiff_t>(g.rows) * W;
  vf total = splat(0.0f);
  for (int r = 0; r < g.rows; ++r) {
    const vf weight = load(g.weight + r * W);
    const vi valid = weight != 0.0f;
    const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(r) * W;
    vf row = splat(0.0f);
    if (g.type == LossType::squared) {
      for (int o = 0; o < g.outputs; ++o) {
        const std::ptrdiff_t e = at + o * row_stride;
        const vf d = load(g.z + e) - load(g.target + e);
        row += d * d;
        if (g.delta != nullptr) {
          store(g.delta + e, select(valid, (2.0f * g.coefficient) * weight * d, splat(0.0f)));
        }
        if (g.delta_dot != nullptr) {
          store(g.delta_dot + e,
                select(valid, (2.0f * g.coefficient) * weight * load(g.z_dot + e), splat(0.0f)));
        }
      }
      row = g.coefficient * row + g.constant;
    } else {
      vf top = load(g.z + at);
      for (int o = 1; o < g.outputs; ++o) top = vmax(top, load(g.z + at + o * row_stride));
      vf sum = splat(0.0f), picked = splat(0.0f), dot = splat(0.0f);
      for (int o = 0; o < g.outputs; ++o) {
        const std::ptrdiff_t e = at + o * row_stride;
        const vf shifted = load(g.z + e) - top;
        const vf power = vexp(shifted);
        sum += power;
        picked += load(g.target + e) * shifted;
        if (g.delta_dot != nullptr) dot += power * load(g.z_dot + e);
      }
      row = vlog(sum) - picked;
      row = select(sum == sum, row, sum);
      const vf inverse = 1.0f / sum;
      dot *= inverse;
      if (g.delta != nullptr || g.delta_dot != nullptr) {
        for (int o = 0; o < g.outputs; ++o) {
          const std::ptrdiff_t e = at + o * row_stride;
          const vf p = vexp(load(g.z + e) - top) * inverse;
          if (g.delta != nullptr) {
            store(g.delta + e, select(valid, weight * (p - load(g.target + e)), splat(0.0f)));
          }
          if (g.delta_dot != nullptr) {
            store(g.delta_dot + e,
                  select(valid, weight * p * (load(g.z_dot + e) - dot), splat(0.0f)));
          }
        }
      }
    }
    total += select(valid, weight * row, splat(0.0f));
  }
  if (g.loss != nullptr) store(g.loss, load(g.loss) + total);
}

/// Sums of neighbouring lanes of a, then of b.
KSHOT_INLINE vf pair_sums(vf a, vf b) {
  return shuffle(a, b, [](int i) { return 2 * i; }) +
         shuffle(a, b, [](int i) { return 2 * i + 1; });
}

void lane_tree_sum(float* out, const float* x, std::size_t elements) {
  std::size_t e = 0;
  for (; e < elements; e += W) {
    vf v[W];
    for (int i = 0; i < W; ++i) {
      v[i] = e + static_cast<std::size_t>(i) < elements
                 ? load(x + (e + static_cast<std::size_t>(i)) * W)
                 : splat(0.0f);
    }
    for (int width = W; width > 1; width /= 2) {
      for (int i = 0; i < width / 2; ++i) v[i] = pair_sums(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < W && e + static_cast<std::size_t>(i) < elements; ++i) {
      out[e + static_cast<std::size_t>(i)] = v[0][i];
    }
  }
}

void lane_finite(const float* x, std::size_t elements, float* finite) {
  vf bad = splat(0.0f);  // 0 * x is 0 for finite x, NaN for others
  vf other[3] = {bad, bad, bad};
  std::size_t e = 0;
  for (; e + 4 <= elements; e += 4) {
    bad += 0.0f * load(x + e * W);
    for (std::size_t i = 0; i < 3; ++i) other[i] += 0.0f * load(x + (e + i + 1) * W);
  }
  for (; e < elements; ++e) bad += 0.0f * load(x + e * W);
  bad += other[0] + other[1] + other[2];
  for (int i = 0; i < W; ++i) {
    if (!(bad[i] == 0.0f)) finite[i] = 0.0f;
  }
}

void lane_mask(float* x, const float* keep, std::size_t elements) {
  const vi kept = load(keep) != 0.0f;
  for (std::size_t i = 0; i < elements; ++i) {
    store(x + i * W, select(kept, load(x + i * W), splat(0.0f)));
  }
}

// ---- single ----

#if defined(__AVX512F__)
constexpr int gather_m = 6, gather_v = 4;
#else
constexpr int gather_m = 4, gather_v = 3;
#endif

template <int M, int V, bool accumulate>
void gather_tile(const GatherGemm& g, int m0, int n0, int k0, int k1, const float* packed) {
  vf acc[M][V];
  const float* x[M];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
    x[i] = g.x + g.m_offset[m0 + i];
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) acc[i][j] = splat(0.0f);
  }
  const float* const b0 = g.b + n0;
  for (int k = k0; k < k1; ++k) {
    const std::ptrdiff_t ka = g.index[k].a;
    const float* const b = packed != nullptr ? packed + (k - k0) * V * W : b0 + g.index[k].b;
    vf right[V];
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) right[j] = load(b + j * W);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const vf left = splat(x[i][ka]);
#pragma GCC unroll 8
      for (int j = 0; j < V; ++j) acc[i][j] += left * right[j];
    }
  }
  // The start (what was there, a bias, or nothing) joins at the end: fewer registers are alive.
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
    float* const c = g.c + g.c_offset[m0 + i] + n0;
    const float* const start = accumulate ? c : g.init != nullptr ? g.init + n0 : nullptr;
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) {
      store(c + j * W, start == nullptr ? acc[i][j] : acc[i][j] + load(start + j * W));
    }
  }
}

template <int V, bool accumulate>
void gather_rows(const GatherGemm& g, int n0, int k0, int k1, const float* packed) {
  const int panels = (g.m + gather_m - 1) / gather_m;
  int m = 0;
  for (int p = 0; p < panels; ++p) {
    const int height = (g.m - m + panels - p - 1) / (panels - p);
    switch (height) {
      case 1:
        gather_tile<1, V, accumulate>(g, m, n0, k0, k1, packed);
        break;
      case 2:
        gather_tile<2, V, accumulate>(g, m, n0, k0, k1, packed);
        break;
      case 3:
        gather_tile<3, V, accumulate>(g, m, n0, k0, k1, packed);
        break;
      case 4:
        gather_tile<4, V, accumulate>(g, m, n0, k0, k1, packed);
        break;
      case 5:
        gather_tile<(gather_m > 4 ? 5 : 1), V, accumulate>(g, m, n0, k0, k1, packed);
        break;
      default:
        gather_tile<gather_m, V, accumulate>(g, m, n0, k0, k1, packed);
        break;
    }
    m += height;
  }
}

/// A chunk of B's rows stays in the first cache while all rows of x pass; the last one may be half
/// as long again.
constexpr int gather_chunk = 64, gather_longest = gather_chunk + gather_chunk / 2;
/// From so many rows of x on a chunk is copied, so that its rows lie side by side: rows of B that
/// are a power of two apart share a few places of that cache and push each other out of it.
constexpr int gather_copied = 24;

template <int V>
void gather_panel(const GatherGemm& g, int n0, int k0, int k1, bool accumulate) {
  float copy[gather_longest * V * W];
  const float* packed = nullptr;
  if (g.m >= gather_copied) {
    float* to = copy;
    for (int k = k0; k < k1; ++k) {
      const float* const from = g.b + n0 + g.index[k].b;
      for (int j = 0; j < V; ++j, to += W) store(to, load(from + j * W));
    }
    packed = copy;
  }
  if (accumulate) {
    gather_rows<V, true>(g, n0, k0, k1, packed);
  } else {
    gather_rows<V, false>(g, n0, k0, k1, packed);
  }
}

void gather_gemm(const GatherGemm& g) {
  for (int n0 = 0; n0 < g.n; n0 += gather_v * W) {
    const int vectors = (g.n - n0) / W < gather_v ? (g.n - n0) / W : gather_v;
    int k0 = 0;
    do {
      const int k1 = g.k - k0 < gather_longest ? g.k : k0 + gather_chunk;
      const bool accumulate = g.accumulate || k0 > 0;
      switch (vectors) {
        case 1:
          gather_panel<1>(g, n0, k0, k1, accumulate);
          break;
        case 2:
          gather_panel<2>(g, n0, k0, k1, accumulate);
          break;
        case 3:
          gather_panel<3>(g, n0, k0, k1, accumulate);
          break;
        default:
          gather_panel<gather_v>(g, n0, k0, k1, accumulate);
          break;
      }
      k0 = k1;
    } while (k0 < g.k);
  }
}

#if defined(__AVX512F__)
constexpr int dots_m = 5, dots_n = 5;
#else
constexpr int dots_m = 2, dots_n = 4;
#endif

template <int M, int N>
void dots_tile(const Dots& g, int m0, int n0) {
  vf acc[M][N];
  const float* const a = g.a + m0 * g.a_row;
  const float* const b = g.b + n0 * g.b_row;
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) acc[i][j] = splat(0.0f);
  }
  for (int k = 0; k < g.k; k += W) {
    vf left[M];
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) left[i] = load(a + i * g.a_row + k);
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      const vf right = load(b + j * g.b_row + k);
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) acc[i][j] += left[i] * right;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      float& c = g.c[(m0 + i) * g.c_row + (n0 + j) * g.c_col];
      const float sum = horizontal_sum(acc[i][j]);
      c = g.accumulate ? c + sum : sum;
    }
  }
}

template <int M>
void dots_rows(const Dots& g, int m0) {
  for (int n0 = 0; n0 < g.n;) {
    const int n = g.n - n0 < dots_n ? g.n - n0 : dots_n;
    switch (n) {
      case 1:
        dots_tile<M, 1>(g, m0, n0);
        break;
      case 2:
        dots_tile<M, 2>(g, m0, n0);
        break;
      case 3:
        dots_tile<M, 3>(g, m0, n0);
        break;
      case 4:
        dots_tile<M, 4>(g, m0, n0);
        break;
      default:
        dots_tile<M, dots_n>(g, m0, n0);
        break;
    }
    n0 += n;
  }
}

void dots(const Dots& g) {
  int m0 = 0;
  for (; m0 + dots_m <= g.m; m0 += dots_m) dots_rows<dots_m>(g, m0);
  for (; m0 < g.m; ++m0) dots_rows<1>(g, m0);
}

// ---- generated weights ----

void deviate(float* w, float* slope, const float* u, const float* eps, const float* below,
             float least, float share, std::size_t vectors) {
  for (std::size_t i = 0; i < vectors * W; i += W) {
    const vf e = vexp(load(u + i));
    const vf noise = share * load(eps + i);
    const vf std = e - load(below + i);
    const vi low = std < least;
    store(w + i, load(w + i) + select(low, splat(least), std) * noise);
    store(slope + i, select(low, splat(0.0f), e) * noise);
  }
}

void deviate_tangent(float* y, const float* slope, const float* u_dot, const float* g,
                     const float* g_dot, std::size_t vectors) {
  for (std::size_t i = 0; i < vectors * W; i += W) {
    store(y + i, load(slope + i) * (load(g_dot + i) + load(u_dot + i) * load(g + i)));
  }
}

void transpose(float* y, std::ptrdiff_t y_row, const float* x, std::ptrdiff_t x_row, int rows,
               int columns) {
  // Tiles of 16 x 16 keep both sides in the first cache.
  for (int r0 = 0; r0 < rows; r0 += 16) {
    const int r1 = r0 + 16 < rows ? r0 + 16 : rows;
    for (int c0 = 0; c0 < columns; c0 += 16) {
      const int c1 = c0 + 16 < columns ? c0 + 16 : columns;
#if KSHOT_LANES == 16
      if (r1 - r0 == 16 && c1 - c0 == 16) {
        vf v[16];
        for (int i = 0; i < 16; ++i) v[i] = load(x + (r0 + i) * x_row + c0);
        // four rounds of interleaving rows i and i + 8
        const auto low = [](int i) { return i / 2 + 16 * (i & 1); };
        const auto high = [](int i) { return 8 + i / 2 + 16 * (i & 1); };
        for (int round = 0; round < 4; ++round) {
          vf t[16];
          for (int i = 0; i < 8; ++i) {
            t[2 * i] = shuffle(v[i], v[i + 8], low);
            t[2 * i + 1] = shuffle(v[i], v[i + 8], high);
          }
          for (int i = 0; i < 16; ++i) v[i] = t[i];
        }
        for (int i = 0; i < 16; ++i) store(y + (c0 + i) * y_row + r0, v[i]);
        continue;
      }
#endif
      for (int c = c0; c < c1; ++c) {
        for (int r = r0; r < r1; ++r) y[c * y_row + r] = x[r * x_row + c];
      }
    }
  }
}

void channel_sum(float* y, const float* x, const std::int32_t* offset, int pixels, int channels,
                 bool accumulate) {
  for (int c = 0; c < channels; c += W) {
    vf sum = accumulate ? load(y + c) : splat(0.0f);
    for (int p = 0; p < pixels; ++p) sum += load(x + offset[p] + c);
    store(y + c, sum);
  }
}

void row_loss(const RowLoss& g) {
  double total = 0.0;
  for (int r = 0; r < g.rows; ++r) {
    const float* z = g.z + static_cast<std::ptrdiff_t>(r) * g.stride;
    const float* y = g.target + static_cast<std::ptrdiff_t>(r) * g.stride;
    const float* z_dot =
        g.z_dot == nullptr ? nullptr : g.z_dot + static_cast<std::ptrdiff_t>(r) * g.stride;
    float* delta =
        g.delta == nullptr ? nullptr : g.delta + static_cast<std::ptrdiff_t>(r) * g.stride;
    float* delta_dot =
        g.delta_dot == nullptr ? nullptr : g.delta_dot + static_cast<std::ptrdiff_t>(r) * g.stride;
    if (g.type == LossType::squared) {
      float sum = 0.0f;
      for (int o = 0; o < g.outputs; ++o) {
        const float d = z[o] - y[o];
        sum += d * d;
        if (delta != nullptr) delta[o] = 2.0f * g.coefficient * g.weight * d;
        if (delta_dot != nullptr) delta_dot[o] = 2.0f * g.coefficient * g.weight * z_dot[o];
      }
      total += static_cast<double>(g.coefficient * sum + g.constant);
      continue;
    }
    float top = z[0];
    for (int o = 1; o < g.outputs; ++o) top = z[o] > top ? z[o] : top;
    float sum = 0.0f, picked = 0.0f, dot = 0.0f;
    for (int o = 0; o < g.outputs; ++o) {
      const float power = __builtin_expf(z[o] - top);
      sum += power;
      picked += y[o] * (z[o] - top);
      if (delta_dot != nullptr) dot += power * z_dot[o];
    }
    total += static_cast<double>(__builtin_logf(sum) - picked);
    dot /= sum;
    for (int o = 0; o < g.outputs; ++o) {
      const float p = __builtin_expf(z[o] - top) / sum;
      if (delta != nullptr) delta[o] = g.weight * (p - y[o]);
      if (delta_dot != nullptr) delta_dot[o] = g.weight * p * (z_dot[o] - dot);
    }
  }
  if (g.loss != nullptr) *g.loss += static_cast<double>(g.weight) * total;
}

/// Sum over pixels of f(offset), one vector of channels at a time, in four interleaved partial
/// sums.
template <typename F>
KSHOT_INLINE vf pixel_sum(const NormArgs& g, F&& f) {
  vf sum[4] = {};
  int p = 0;
  for (; p + 4 <= g.pixels; p += 4) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sum[i] += f(g.offset[p + i]);
  }
  for (; p < g.pixels; ++p) sum[0] += f(g.offset[p]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

void norm_forward(const NormArgs& g) {
  const float per_pixel = 1.0f / static_cast<float>(g.pixels);
  for (int c = 0; c < g.channels; c += W) {
    vf mean, inverse;
    if (g.given) {
      mean = load(g.mean + c);
      inverse = load(g.inverse + c);
    } else {
      mean = pixel_sum(g, [&](std::int32_t at) { return load(g.x + at + c); }) * per_pixel;
      const vf variance = pixel_sum(g,
                                    [&](std::int32_t at) {
                                      const vf d = load(g.x + at + c) - mean;
                                      return d * d;
                                    }) *
                          per_pixel;
      inverse = 1.0f / vsqrt(variance + g.epsilon);
      store(g.mean + c, mean);
      store(g.inverse + c, inverse);
    }
    const vf gamma = load(g.gamma + c);
    const vf beta = load(g.beta + c);
    for (int p = 0; p < g.pixels; ++p) {
      const std::ptrdiff_t at = g.offset[p] + c;
      const vf x_hat = (load(g.x + at) - mean) * inverse;
      store(g.x_hat + at, x_hat);
      store(g.y + at, gamma * x_hat + beta);
    }
    if (g.y_dot == nullptr) continue;
    // x_hat' = inverse (x' - mean(x') - x_hat mean(x_hat x'))
    const vf mean_dot =
        pixel_sum(g, [&](std::int32_t at) { return load(g.x_dot + at + c); }) * per_pixel;
    const vf slope =
        pixel_sum(
            g, [&](std::int32_t at) { return load(g.x_hat + at + c) * load(g.x_dot + at + c); }) *
        per_pixel;
    store(g.slope + c, slope);
    const vf gamma_dot = load(g.gamma_dot + c);
    const vf beta_dot = load(g.beta_dot + c);
    for (int p = 0; p < g.pixels; ++p) {
      const std::ptrdiff_t at = g.offset[p] + c;
      const vf x_hat = load(g.x_hat + at);
      const vf x_hat_dot = inverse * (load(g.x_dot + at) - mean_dot - x_hat * slope);
      store(g.x_hat_dot + at, x_hat_dot);
      store(g.y_dot + at, gamma_dot * x_hat + gamma * x_hat_dot + beta_dot);
    }
  }
}

/// dx = gamma inverse q, q = dy - mean(dy) - x_hat mean(dy x_hat)
void norm_backward(const NormArgs& g) {
  const float per_pixel = 1.0f / static_cast<float>(g.pixels);
  for (int c = 0; c < g.channels; c += W) {
    const vf sum = pixel_sum(g, [&](std::int32_t at) { return load(g.dy + at + c); });
    const vf product =
        pixel_sum(g, [&](std::int32_t at) { return load(g.dy + at + c) * load(g.x_hat + at + c); });
    if (g.d_gamma != nullptr) {
      store(g.d_gamma + c, g.accumulate ? load(g.d_gamma + c) + product : product);
      store(g.d_beta + c, g.accumulate ? load(g.d_beta + c) + sum : sum);
    }
    if (g.dx == nullptr) continue;
    const vf scale = load(g.gamma + c) * load(g.inverse + c);
    const vf mean1 = sum * per_pixel;
    const vf mean2 = product * per_pixel;
    for (int p = 0; p < g.pixels; ++p) {
      const std::ptrdiff_t at = g.offset[p] + c;
      store(g.dx + at, scale * (load(g.dy + at) - mean1 - load(g.x_hat + at) * mean2));
    }
  }
}

/// dx and its tangent; d_gamma, d_beta get the tangents. dy is overwritten last, so dx may be dy.
void norm_backward_tangent(const NormArgs& g) {
  const float per_pixel = 1.0f / static_cast<float>(g.pixels);
  for (int c = 0; c < g.channels; c += W) {
    const vf sum = pixel_sum(g, [&](std::int32_t at) { return load(g.dy + at + c); });
    const vf product =
        pixel_sum(g, [&](std::int32_t at) { return load(g.dy + at + c) * load(g.x_hat + at + c); });
    const vf sum_dot = pixel_sum(g, [&](std::int32_t at) { return load(g.dy_dot + at + c); });
    const vf product_dot = pixel_sum(g, [&](std::int32_t at) {
      return load(g.dy_dot + at + c) * load(g.x_hat + at + c) +
             load(g.dy + at + c) * load(g.x_hat_dot + at + c);
    });
    store(g.d_gamma + c, g.accumulate ? load(g.d_gamma + c) + product_dot : product_dot);
    store(g.d_beta + c, g.accumulate ? load(g.d_beta + c) + sum_dot : sum_dot);
    const vf inverse = load(g.inverse + c);
    const vf gamma = load(g.gamma + c);
    const vf scale = gamma * inverse;
    // (gamma inverse)' with inverse' = -inverse^2 mean(x_hat x')
    const vf scale_dot =
        load(g.gamma_dot + c) * inverse - gamma * inverse * inverse * load(g.slope + c);
    const vf mean1 = sum * per_pixel;
    const vf mean2 = product * per_pixel;
    const vf mean1_dot = sum_dot * per_pixel;
    const vf mean2_dot = product_dot * per_pixel;
    for (int p = 0; p < g.pixels; ++p) {
      const std::ptrdiff_t at = g.offset[p] + c;
      const vf x_hat = load(g.x_hat + at);
      const vf q = load(g.dy + at) - mean1 - x_hat * mean2;
      const vf q_dot =
          load(g.dy_dot + at) - mean1_dot - load(g.x_hat_dot + at) * mean2 - x_hat * mean2_dot;
      store(g.dx_dot + at, scale_dot * q + scale * q_dot);
      store(g.dx + at, scale * q);
    }
  }
}

void pool_forward(float* y, std::int32_t* winner, const float* x, const std::int32_t* y_offset,
                  const std::int32_t* corner, const std::int32_t* window, int window_size,
                  int outputs, int channels) {
  for (int o = 0; o < outputs; ++o) {
    for (int c = 0; c < channels; c += W) {
      vf best = load(x + corner[o] + window[0] + c);
      vi who = splat_int(0);
      for (int w = 1; w < window_size; ++w) {
        const vf v = load(x + corner[o] + window[w] + c);
        // a NaN wins, so that a diverged task is seen
        const vi better = (v > best) | (v != v);
        best = select(better, v, best);
        who = better ? splat_int(w) : who;
      }
      store(y + y_offset[o] + c, best);
      store_int(winner + static_cast<std::ptrdiff_t>(o) * channels + c, who);
    }
  }
}

void pool_gather(float* y, const std::int32_t* winner, const float* x, const std::int32_t* y_offset,
                 const std::int32_t* corner, const std::int32_t* window, int window_size,
                 int outputs, int channels) {
  for (int o = 0; o < outputs; ++o) {
    for (int c = 0; c < channels; c += W) {
      const vi who = load_int(winner + static_cast<std::ptrdiff_t>(o) * channels + c);
      vf v = splat(0.0f);
      for (int w = 0; w < window_size; ++w) {
        v = select(who == w, load(x + corner[o] + window[w] + c), v);
      }
      store(y + y_offset[o] + c, v);
    }
  }
}

void pool_scatter(float* dx, const std::int32_t* winner, const float* dy,
                  const std::int32_t* y_offset, const std::int32_t* corner,
                  const std::int32_t* window, int window_size, int outputs, int channels) {
  for (int o = 0; o < outputs; ++o) {
    for (int c = 0; c < channels; c += W) {
      const vi who = load_int(winner + static_cast<std::ptrdiff_t>(o) * channels + c);
      const vf v = load(dy + y_offset[o] + c);
      for (int w = 0; w < window_size; ++w) {
        store(dx + corner[o] + window[w] + c, select(who == w, v, splat(0.0f)));
      }
    }
  }
}

#include "backend/cpu/split_kernels_impl.h"

#define KSHOT_STRINGIFY_(x) #x
#define KSHOT_STRINGIFY(x) KSHOT_STRINGIFY_(x)

constexpr Kernels table = {
    KSHOT_STRINGIFY(KSHOT_ISA),
    W,
    fill,
    axpy,
    multiply_add,
    multiply,
    exponential,
    exp_less_one,
    rate_step,
    scale,
    adam,
    broadcast,
    reparameterise,
    sample_pullback,
    sample_direction,
    kl,
    kl_hvp,
    shifted,
    noise_lanes,
    noise_single,
    act,
    act_tangent,
    /*act_backward=*/act_tangent,  // the same product with the derivative
    act_backward_tangent,
    lane_gemm,
    lane_loss,
    lane_tree_sum,
    lane_finite,
    lane_mask,
    gather_gemm,
    dots,
    transpose,
    channel_sum,
    row_loss,
    norm_forward,
    norm_backward,
    norm_backward_tangent,
    pool_forward,
    pool_gather,
    pool_scatter,
    deviate,
    deviate_tangent,
    row_normals_lanes,
    row_signs_lanes,
    row_signs_single,
    product,
    deviation,
    deviation_tangent,
    deviation_backward,
    KSHOT_CONCAT(dense_lanes_, KSHOT_ISA),
    KSHOT_CONCAT(dense_single_, KSHOT_ISA),
};

}  // namespace
}  // namespace KSHOT_ISA

const Kernels& KSHOT_CONCAT(kernels_, KSHOT_ISA)() {
  return KSHOT_ISA::table;
}

}  // namespace kshot::backend::cpu
