// Kernels of the lanes layout, with W tasks side by side: the small matrix product and its register
// tiles, the loss, and sums over tasks. Included by kernels_impl.h, in the namespace of an
// instruction set.

// ---- lanes ----

// Register tile: the accumulators, one column of A and one element of B must fit the register file.
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

/// acc = bias + A B of one tile, summed over the products. `sum` gets the row sums of the first
/// product's A.
template <int M, int N, bool with_rows>
KSHOT_INLINE void accumulate_tile(const LaneGemm& g, int m0, int n0, vf (&acc)[M][N], vf* sum) {
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
}

// The stores of a tile.

/// Layout of a tile in C, in floats.
struct LaneTile {
  std::ptrdiff_t offset, row, column;
};

/// C = leaky rectifier of the accumulators.
template <int M, int N>
KSHOT_INLINE void store_rectified(const LaneGemm& g, const LaneTile& tile, const vf (&acc)[M][N]) {
  float* const c = g.c + tile.offset;
  const vf slope = splat(g.slope);
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      const vf v = acc[i][j];
      store(c + i * tile.row + j * tile.column, select(v < 0.0f, slope * v, v));
    }
  }
}

/// C = accumulators times the derivative of the leaky rectifier at `gate`.
template <int M, int N>
KSHOT_INLINE void store_gated(const LaneGemm& g, const LaneTile& tile, const vf (&acc)[M][N]) {
  float* const c = g.c + tile.offset;
  const float* const gate = g.gate + tile.offset;
  const vf slope = splat(g.slope);
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      const std::ptrdiff_t e = i * tile.row + j * tile.column;
      store(c + e, select(load(gate + e) > 0.0f, acc[i][j], slope * acc[i][j]));
    }
  }
}

/// C += scale * accumulators, and C_s += scale * accumulators * shift.
template <int M, int N>
KSHOT_INLINE void add_with_shift(const LaneGemm& g, const LaneTile& tile, const vf (&acc)[M][N]) {
  const vf scale = splat(g.scale);
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      const std::ptrdiff_t e = tile.offset + i * tile.row + j * tile.column;
      const vf v = scale * acc[i][j];
      store(g.c + e, load(g.c + e) + v);
      store(g.c_s + e, load(g.c_s + e) + v * load(g.shift + e));
    }
  }
}

/// C = accumulators or, where there is a base, base + scale * accumulators.
template <int M, int N>
KSHOT_INLINE void store_sum(const LaneGemm& g, const LaneTile& tile, const vf (&acc)[M][N]) {
  float* const c = g.c + tile.offset;
  if (g.base == nullptr) {
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) store(c + i * tile.row + j * tile.column, acc[i][j]);
    }
    return;
  }
  const float* const base = g.base + tile.offset;
  const vf scale = splat(g.scale);
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      const std::ptrdiff_t e = i * tile.row + j * tile.column;
      store(c + e, load(base + e) + scale * acc[i][j]);
    }
  }
}

template <int M, int N, bool with_rows>
void lane_tile(const LaneGemm& g, int m0, int n0) {
  vf acc[M][N];
  vf sum[M] = {};
  accumulate_tile<M, N, with_rows>(g, m0, n0, acc, sum);
  if (with_rows) lane_rows<M>(g, m0, sum);
  const std::ptrdiff_t row = g.c_row * W, column = g.c_col * W;
  const LaneTile tile{m0 * row + n0 * column, row, column};
  if (g.rectify) return store_rectified<M, N>(g, tile, acc);
  if (g.gate != nullptr) return store_gated<M, N>(g, tile, acc);
  if (g.shift != nullptr) return add_with_shift<M, N>(g, tile, acc);
  store_sum<M, N>(g, tile, acc);
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

/// The last panel of columns also computes the row sums. It is one of the narrowest panels, so that
/// registers are left.
template <int N>
void lane_panel(const LaneGemm& g, int n0) {
  g.rows.c != nullptr&& n0 + N == g.n ? lane_column<N, true>(g, n0) : lane_column<N, false>(g, n0);
}

void lane_gemm(const LaneGemm& g) {
  // Columns are cut into nearly equal panels: 10 is 5 + 5, not 6 + 4. A panel of B stays in the
  // first-level cache while the rows of A stream past it.
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

/// Sums of neighbouring lanes: those of a, then those of b.
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
