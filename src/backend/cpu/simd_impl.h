// Vectors of W floats, their elementary operations, and exp, log and tanh on them. Included by
// kernels_impl.h, in the namespace of an instruction set.

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

/// Fused multiply-add, for numbers that must be the same on all backends (random.h).
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

/// exp(x) = scale (1 + r + p r^2), where scale is a power of two.
struct ExpParts {
  vf scale, r, p;
};
KSHOT_INLINE ExpParts exp_parts(vf x) {
  const vf clamped = vmin(vmax(x, splat(-87.3f)), splat(88.3f));
  const vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
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
/// y where exp(x) is in range, else the limit of exp: `least` or infinity. NaN stays NaN.
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

KSHOT_INLINE vf vlog(vf x) {  // for normal x > 0
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
