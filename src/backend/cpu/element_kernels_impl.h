// Element-wise kernels: the algebra of vectors, sampling and KL under Gaussian weights, Adam, and
// activations. Included by kernels_impl.h, in the namespace of an instruction set.

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

void rate_step(float* dst, const float* src, float rate, const float* rates, bool copy_to_lanes,
               const float* g, std::size_t vectors) {
  for (std::size_t i = 0; i < vectors; ++i) {
    const vf r = rates == nullptr ? splat(rate)
                 : copy_to_lanes  ? splat(rates[i])
                                  : load(rates + i * W);
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

// ---- activations ----

/// Applies a vector function to contiguous floats. The tail goes through a padded copy.
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
      // NaN stays NaN, so that a diverged task is seen.
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
