// Kernels of one task: layers other than products, the loss of rows, and generated weights.
// Included by kernels_impl.h, in the namespace of an instruction set.

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
  // Tiles of 16 x 16 keep both matrices in the first-level cache.
  for (int r0 = 0; r0 < rows; r0 += 16) {
    const int r1 = r0 + 16 < rows ? r0 + 16 : rows;
    for (int c0 = 0; c0 < columns; c0 += 16) {
      const int c1 = c0 + 16 < columns ? c0 + 16 : columns;
#if KSHOT_LANES == 16
      if (r1 - r0 == 16 && c1 - c0 == 16) {
        vf v[16];
        for (int i = 0; i < 16; ++i) v[i] = load(x + (r0 + i) * x_row + c0);
        // Four rounds, each of which interleaves rows i and i + 8.
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

/// Sum over pixels of f(offset) for one vector of channels, in four interleaved partial sums.
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

/// dx = gamma inverse q, where q = dy - mean(dy) - x_hat mean(dy x_hat).
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

/// dx and its tangent. d_gamma and d_beta receive tangents. dy is read before dx is written, so
/// that dx may be dy.
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
        // A NaN wins, so that a diverged task is seen.
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
