// Matrix products of one task: with a gathered left operand (gather_gemm), and of rows by rows
// (dots). Included by kernels_impl.h, in the namespace of an instruction set.

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
  // The start value (the old C, `init`, or zero) is added at the end, because fewer registers are
  // then live in the loop.
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

/// A chunk of B's rows stays in the first-level cache while all rows of x pass. The last chunk may
/// be longer by half.
constexpr int gather_chunk = 64, gather_longest = gather_chunk + gather_chunk / 2;
/// From this number of rows of x on, a chunk is copied so that its rows lie side by side. Rows of B
/// that are a power of two apart map to few places of the cache and would evict each other.
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
