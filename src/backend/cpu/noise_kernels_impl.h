// Noise by key: the Philox generator and Box-Muller transform of kshot/random.h on vectors.
// Included by kernels_impl.h, in the namespace of an instruction set.

// ---- noise: random.h's Philox and Box-Muller, W numbers at a time ----

typedef std::uint64_t vl __attribute__((vector_size(4 * W)));

/// W 32-bit words, each in the low half of a 64-bit lane, so that a 32 x 32 -> 64 bit product needs
/// no shuffle. The high halves hold arbitrary bits.
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

/// The words first, first + 1, ...
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

/// Box-Muller on words 0, 1 and 2, 3 of W quads: z[r] is the normal of word r. Both pairs advance
/// step by step together, because one alone is a long chain of dependent operations.
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

/// Calls sink(element, W standard normals, one per task) for every element.
template <class Sink>
KSHOT_INLINE void draw_lanes(const NoiseKey& key, std::size_t elements, Sink&& sink) {
  const WideWords counter1 = wide(key.counter1), task = wide_from(key.task),
                  counter3 = wide(key.counter3);
  Words words[16];
  for (std::size_t block = 0; block < elements; block += 64) {
    const std::size_t left = elements - block;
    const std::size_t quads = left < 16 ? left : 16;
    // Two loops, so that neither one's constants displace the other's from the registers.
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
