// Products of matrices (product.h).
//
// Mathematics    C_b = alpha (A1_b B1_b + A2_b B2_b) + bias, and the row sums of A1, so that the
//                gradient g^T x of a linear layer's weights comes with the gradient of its bias.
// Layout         Strided (Matrix). Each factor is contiguous along the depth or across it. x W^T, g
//                W and g^T x are three of the four cases.
// Who does what  A block of 64 threads computes one tile of one b (tile.h). No sum is split, so a
//                row has the same bits in a batch of any length. cuBLAS does not promise this,
//                because its choice of algorithm follows the sizes.
// Outputs        Overwritten or accumulated, as asked.
// Bytes          A m k, B k n and C m n scalars once from memory. L2 serves A again to each tile of
//                columns, and B to each tile of rows.
// Operations     2 m n k FLOP. LEO on 640 features with L = 64, per task of 5-way 1-shot: encoding
//                0.4 MFLOP, a decode 0.8 MFLOP. In float both are bound by arithmetic; 0.6 to 0.7
//                of the peak is expected, as for the full tiles of conv.cu but without its gather.
//                A gradient of weights per task is bound by memory instead: it reads and writes C,
//                8 bytes for 2 k FLOP, with k = 5 to 25 rows. It is computed only if the gradient
//                of one task is asked for. factors.cu computes sums over tasks.
#include "kernels/product.h"

#include <limits>
#include <string>

#include "kernels/tile.h"
#include "kshot/error.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using namespace tile;

template <class T, int M, int N, bool a_along_depth, bool b_along_depth>
__global__ void __launch_bounds__(threads) product_kernel(Product<T> p, int tiles_m, int tiles_n) {
  KSHOT_SHARED(Quad<T>, slice_a, [2][depth_step][M / 4 + 1]);
  KSHOT_SHARED(Quad<T>, slice_b, [2][depth_step][N / 4 + 1]);
  using LoadsA = Loads<M, a_along_depth>;
  using LoadsB = Loads<N, b_along_depth>;
  const int thread = static_cast<int>(threadIdx.x);
  int block = static_cast<int>(blockIdx.x);
  // the tile
  const int first_n = block % tiles_n * N;
  block /= tiles_n;
  const int first_m = block % tiles_m * M;
  const auto b = static_cast<std::size_t>(block / tiles_m);

  // The depth of the second product follows that of the first.
  const int steps = (p.k + depth_step - 1) / depth_step;
  const int all_steps = p.second.a.data ? 2 * steps : steps;
  T next_a[LoadsA::count], next_b[LoadsB::count];
  const auto load = [&](int step) {
    const Factors<T>& f = step < steps ? p.first : p.second;
    const int first_k = (step < steps ? step : step - steps) * depth_step;
    const T* a = f.a.data + b * f.a.batch;
    const T* of_b = f.b.data + b * f.b.batch;
#pragma unroll
    for (int i = 0; i < LoadsA::count; ++i) {
      const int m = first_m + LoadsA::element(thread, i), k = first_k + LoadsA::depth(thread, i);
      const std::size_t at = static_cast<std::size_t>(m) * (a_along_depth ? f.a.row : 1) +
                             static_cast<std::size_t>(k) * (a_along_depth ? 1 : f.a.column);
      next_a[i] = m < p.m && k < p.k ? a[at] : T(0);
    }
#pragma unroll
    for (int i = 0; i < LoadsB::count; ++i) {
      const int n = first_n + LoadsB::element(thread, i), k = first_k + LoadsB::depth(thread, i);
      const std::size_t at = static_cast<std::size_t>(n) * (b_along_depth ? f.b.column : 1) +
                             static_cast<std::size_t>(k) * (b_along_depth ? 1 : f.b.row);
      next_b[i] = n < p.n && k < p.k ? of_b[at] : T(0);
    }
  };
  const auto store = [&](int step) {
    LoadsA::store(slice_a[step % 2], thread, next_a);
    LoadsB::store(slice_b[step % 2], thread, next_b);
  };

  // multiply
  const bool with_sums = p.row_sums && first_n == 0;
  Sums<T, M, N> sums(thread);
  walk(all_steps, load, store, [&](int step) {
    if (with_sums && step < steps) {
      sums.template add<true>(slice_a[step % 2], slice_b[step % 2]);
    } else {
      sums.template add<false>(slice_a[step % 2], slice_b[step % 2]);
    }
  });

  // write the tile
  T* c = p.c + b * p.c_batch;
  const bool has_sums = with_sums && sums.finish_row_sums();
#pragma unroll
  for (int i = 0; i < Sums<T, M, N>::rows; ++i) {
    const int m = first_m + sums.row(i);
    if (m >= p.m) continue;
    if (has_sums) {
      T& to = p.row_sums[b * p.c_batch + static_cast<std::size_t>(m)];
      to = p.accumulate ? to + p.alpha * sums.row_sum(i) : p.alpha * sums.row_sum(i);
    }
#pragma unroll
    for (int j = 0; j < Sums<T, M, N>::columns; ++j) {
      const int n = first_n + sums.column(j);
      if (n >= p.n) continue;
      T& to = c[static_cast<std::size_t>(m) * p.c_row + static_cast<std::size_t>(n)];
      T value = p.alpha * sums.v[i][j];
      if (p.bias) value += p.bias[n];
      to = p.accumulate ? to + value : value;
    }
  }
}

template <class T, bool a_along_depth, bool b_along_depth>
void run(const Product<T>& p, cudaStream_t stream) {
  with_tile<T>(p.m, p.n, [&](auto m, auto n) {
    constexpr int M = decltype(m)::value, N = decltype(n)::value;
    const int tiles_m = tiles(p.m, M), tiles_n = tiles(p.n, N);
    const long long blocks = 1LL * p.batch * tiles_m * tiles_n;
    if (blocks > std::numeric_limits<int>::max()) {
      throw Error("matrix product of " + std::to_string(blocks) +
                  " tiles, expected fewer than 2^31");
    }
    launch<product_kernel<T, M, N, a_along_depth, b_along_depth>>(
        {.grid = static_cast<unsigned>(blocks), .block = threads, .stream = stream}, p, tiles_m,
        tiles_n);
  });
}

}  // namespace

template <class T>
void multiply_matrices(const Product<T>& p, cudaStream_t stream) {
  if (p.m == 0 || p.n == 0 || p.batch == 0) return;
  const bool a_along_depth = p.first.a.column == 1, b_along_depth = p.first.b.row == 1;
  if (a_along_depth) {
    b_along_depth ? run<T, true, true>(p, stream) : run<T, true, false>(p, stream);
  } else {
    b_along_depth ? run<T, false, true>(p, stream) : run<T, false, false>(p, stream);
  }
}

template void multiply_matrices(const Product<float>&, cudaStream_t);
template void multiply_matrices(const Product<double>&, cudaStream_t);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
