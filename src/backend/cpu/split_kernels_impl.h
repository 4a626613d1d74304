// Kernels of the estimators flipout and local: noise by rows (row_noise.h), and the element-wise
// steps around the products with the spread. Included by kernels_impl.h, in the namespace of an
// instruction set.

// ---- noise by rows ----

void row_normals_lanes(const NoiseKey& key, float* out, std::size_t elements) {
  draw_lanes(key, elements, [&](std::size_t element, vf z) { store(out + element * W, z); });
}

/// -1 where the lowest bit is set, else +1.
KSHOT_INLINE vf sign_of(vu bits) {
  return reinterpret_cast<vf>(((bits & 1u) << 31) | 0x3f800000u);
}

void row_signs_lanes(const NoiseKey& key, float* out, std::size_t elements) {
  const WideWords counter1 = wide(key.counter1), task = wide_from(key.task),
                  counter3 = wide(key.counter3);
  for (std::size_t block = 0; block < elements; block += 128) {
    const Words words = philox(wide(static_cast<std::uint32_t>(block / 128)), counter1, task,
                               counter3, key.key[0], key.key[1]);
    for (std::size_t i = 0; i < 128 && block + i < elements; ++i) {
      store(out + (block + i) * W, sign_of(words.w[i / 32] >> static_cast<std::uint32_t>(i & 31)));
    }
  }
}

void row_signs_single(const NoiseKey& key, float* out, std::size_t elements) {
  constexpr std::size_t turn = std::size_t{128} * W;
  const WideWords counter1 = wide(key.counter1), task = wide(key.task),
                  counter3 = wide(key.counter3);
  for (std::size_t block = 0; block < elements; block += turn) {
    const Words words = philox(wide_from(static_cast<std::uint32_t>(block / 128)), counter1, task,
                               counter3, key.key[0], key.key[1]);
    for (std::size_t i = 0; i < turn && block + i < elements; ++i) {
      const std::uint32_t word = words.w[(i / 32) & 3][i / 128];
      out[block + i] = ((word >> (i & 31)) & 1u) != 0 ? -1.0f : 1.0f;
    }
  }
}

// ---- element-wise ----

void product(float* y, float a, const float* x1, const float* x2, std::size_t n) {
  map([a](vf p, vf q) { return a * p * q; }, y, n, x1, x2);
}

/// A variance below this value counts as zero, and its deviation has derivative zero. The cubes of
/// 1 / deviation then stay finite.
constexpr float least_variance = 1e-20f;

void deviation(float* y, float* inverse, const float* variance, const float* zeta,
               std::size_t vectors) {
  for (std::size_t i = 0; i < vectors; ++i) {
    const vf v = load(variance + i * W);
    const vi none = v < least_variance;
    const vf d = vsqrt(v);
    store(inverse + i * W, select(none, splat(0.0f), 1.0f / d));
    store(y + i * W, load(y + i * W) + select(none, splat(0.0f), d) * load(zeta + i * W));
  }
}

void deviation_tangent(float* y_dot, const float* variance_dot, const float* inverse,
                       const float* zeta, std::size_t vectors) {
  for (std::size_t i = 0; i < vectors; ++i) {
    const vf d_dot = 0.5f * load(inverse + i * W) * load(variance_dot + i * W);
    store(y_dot + i * W, load(y_dot + i * W) + d_dot * load(zeta + i * W));
  }
}

void deviation_backward(float* dv, float* dv_dot, const float* dy, const float* dy_dot,
                        const float* variance_dot, const float* inverse, const float* zeta,
                        std::size_t vectors) {
  for (std::size_t i = 0; i < vectors; ++i) {
    const vf r = load(inverse + i * W);
    const vf half = 0.5f * load(zeta + i * W);
    const vf d = load(dy + i * W);
    if (dv_dot != nullptr) {
      const vf r_dot = -0.5f * (r * r) * r * load(variance_dot + i * W);
      store(dv_dot + i * W, half * (load(dy_dot + i * W) * r + d * r_dot));
    }
    store(dv + i * W, half * d * r);
  }
}
