// Noise by rows under Gaussian weights, around the products with the second vector of weights
// (row_noise.h).
//
// Mathematics    signs     y = r x is linear, so y' = r x', g_x = r g, g_x' = r g'
//                square    y = x^2, y' = 2 x x';  g_x = 2 x g, g_x' = 2 (x g' + x' g)
//                deviate   with h = 1 / (2 sqrt(v)):  y = sqrt(v) zeta, y' = h v' zeta;
//                          g_v = g h zeta, g_v' = (g' h + g h') zeta, h' = -2 h^3 v'
// Layout         Features [task][row][channel][position]. A row's numbers are [layer][element] in
//                its stream. One Philox quad gives 128 signs, and 16 quads give 64 neighbouring
//                normals.
// Who does what  signs, deviate: a warp takes a task's row. For 1024 signs each lane draws a quad
//                and keeps one of its words (eight quads, each drawn by four lanes); a shuffle
//                brings the word of an element. For 128 normals each lane draws a quad, which is
//                four elements 16 apart, so that half a warp reads and writes neighbours. square:
//                by_own_row of passes.h.
// Outputs        Overwritten or added to, as the header says.
// Bytes          Scalars of T and operations per element (tangents move twice the bytes):
//                  multiply_signs  2, 3 if added to   ~8 (Philox: 60 per 1024 signs and lane)
//                  deviate         3                  ~70 (Philox 15, Box-Muller 50)
//                  deviate_pullback 3                 ~75
//                  square 2, square_pullback 4        1 to 4
//                Signs and squares are bound by memory. Drawing a normal again takes about as long
//                as reading a stored one, and needs no memory: 4 bytes at 4.8 TB/s are 0.8 ps, and
//                65 operations at 33 T/s are 2 ps, next to 12 bytes that are moved anyway (2.5 ps).
#include "kernels/row_noise.h"

#include <type_traits>

#include "kernels/passes.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

constexpr int warps = threads / warp_lanes;
constexpr int quad_signs = 128;     // signs per Philox quad
constexpr int window_signs = 1024;  // signs of a warp's 32 words
constexpr int block_normals = 64;   // normals of 16 quads

// ---- a warp's row ----

/// A task's row, and the lane of the calling thread.
struct WarpRow {
  int task, row, lane;
  std::size_t index;  // index in [tasks, rows]
};

template <class Pass>
__global__ void __launch_bounds__(threads) by_warp_row_kernel(Pass pass, RowExtent rows) {
  const int thread = static_cast<int>(threadIdx.x);
  const std::size_t index =
      std::size_t{blockIdx.x} * warps + static_cast<std::size_t>(thread / warp_lanes);
  const int task = static_cast<int>(index / static_cast<std::size_t>(rows.rows));
  if (task >= rows.tasks) return;  // whole warps return
  const int row = static_cast<int>(index % static_cast<std::size_t>(rows.rows));
  if (row < own_row_count(rows, task)) pass(WarpRow{task, row, thread % warp_lanes, index});
}

template <class Pass>
void by_warp_row(const Pass& pass, const RowExtent& rows, cudaStream_t stream) {
  if (rows.tasks == 0 || rows.rows == 0) return;
  const std::size_t all =
      static_cast<std::size_t>(rows.tasks) * static_cast<std::size_t>(rows.rows);
  launch<by_warp_row_kernel<Pass>>({.grid = static_cast<unsigned>((all + warps - 1) / warps),
                                    .block = threads,
                                    .stream = stream},
                                   pass, rows);
}

/// The first of a row's numbers of one layer in their stream.
struct StreamPlace {
  RandomKey key;
  std::uint64_t first;
};

template <class T>
__device__ StreamPlace place_of(const RowNoise<T>& noise, const WarpRow& at) {
  StreamPlace place{noise.key, 0};
  place.key.task += static_cast<std::uint32_t>(at.task);
  int row = at.row;
  if (noise.support && row >= noise.support[at.task]) {
    row -= noise.support[at.task];
    place.key.purpose = noise.query;
  }
  place.first = static_cast<std::uint64_t>(row) * noise.width + noise.offset;
  return place;
}

template <class T>
__device__ const T* given_of(const RowNoise<T>& noise, const WarpRow& at) {
  return noise.given + at.index * noise.width + noise.offset;
}

/// Calls body(element, sign) for the elements of a row, [channels, positions].
template <class T, class Body>
__device__ void each_sign(const RowNoise<T>& noise, const SignSize& size, const WarpRow& at,
                          const Body& body) {
  if (noise.given) {
    const T* signs = given_of(noise, at);
    for (int e = at.lane; e < size.channels * size.positions; e += warp_lanes) {
      body(e, signs[e / size.positions]);
    }
    return;
  }
  const StreamPlace place = place_of(noise, at);
  const std::uint64_t end = place.first + static_cast<std::uint64_t>(size.channels);
  for (std::uint64_t window = place.first / quad_signs * quad_signs; window < end;
       window += window_signs) {
    const auto words =
        philox4x32(place.key.counter(static_cast<std::uint32_t>(window / quad_signs) +
                                     static_cast<std::uint32_t>(at.lane / 4)),
                   place.key.key());
    const std::uint32_t low = at.lane % 2 == 0 ? words[0] : words[1];
    const std::uint32_t high = at.lane % 2 == 0 ? words[2] : words[3];
    const std::uint32_t own = at.lane % 4 < 2 ? low : high;
    // The first channel of the window, its bit, and the number of elements in the window.
    const int channel = window > place.first ? static_cast<int>(window - place.first) : 0;
    const int bit = window > place.first ? 0 : static_cast<int>(place.first - window);
    const int left = size.channels - channel;
    const int count = (left < window_signs - bit ? left : window_signs - bit) * size.positions;
    // all lanes stay in the loop for the shuffle
    for (int e = at.lane; e - at.lane < count; e += warp_lanes) {
      const int of = bit + e / size.positions;
      const std::uint32_t word = __shfl_sync(all_lanes, own, of / 32 % warp_lanes);
      if (e < count) {
        body(channel * size.positions + e, ((word >> (of % 32)) & 1u) != 0 ? T(-1) : T(1));
      }
    }
  }
}

/// Calls body(element, normal) for the `count` elements of a row.
template <class T, class Body>
__device__ void each_normal(const RowNoise<T>& noise, int count, const WarpRow& at,
                            const Body& body) {
  if (noise.given) {
    const T* normals = given_of(noise, at);
    for (int e = at.lane; e < count; e += warp_lanes) body(e, normals[e]);
    return;
  }
  const StreamPlace place = place_of(noise, at);
  const int before = static_cast<int>(place.first % block_normals);
  const auto first_quad = static_cast<std::uint32_t>(place.first / block_normals * 16);
  // Elements and quads are counted from the block of normals that has the row's first element.
  for (int quad = at.lane; (quad - at.lane) * 4 < before + count; quad += warp_lanes) {
    const auto words = philox4x32(place.key.counter(first_quad + static_cast<std::uint32_t>(quad)),
                                  place.key.key());
    const NormalPair low = box_muller(words[0], words[1]), high = box_muller(words[2], words[3]);
    const float normals[4] = {low.cosine, low.sine, high.cosine, high.sine};
    const int first = quad / 16 * block_normals + quad % 16 - before;  // inverse of noise_address
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      const int e = first + 16 * word;
      if (e >= 0 && e < count) body(e, static_cast<T>(normals[word]));
    }
  }
}

// ---- flipout ----

template <class T>
struct Signs {
  Tangent<T> y;
  Tangent<const T> x;
  bool accumulate;
  RowNoise<T> noise;
  SignSize size;

  __device__ void operator()(const WarpRow& at) const {
    const std::size_t first = at.index * static_cast<std::size_t>(size.channels * size.positions);
    each_sign(noise, size, at, [&](int e, T sign) {
      const std::size_t i = first + static_cast<std::size_t>(e);
      put(y.value[i], sign * x.value[i]);
      if (y.dot) put(y.dot[i], x.dot ? sign * x.dot[i] : T(0));
    });
  }
  __device__ void put(T& to, T value) const { to = accumulate ? to + value : value; }
};

// ---- local ----

template <class T>
struct Square {
  Tangent<T> y;
  Tangent<const T> x;
  __device__ void operator()(std::size_t i) const {
    const T value = x.value[i];
    y.value[i] = value * value;
    if (y.dot) y.dot[i] = x.dot ? T(2) * value * x.dot[i] : T(0);
  }
};

template <class T>
struct SquarePullback {
  Tangent<T> g_x;
  Tangent<const T> g, x;
  __device__ void operator()(std::size_t i) const {
    const T value = x.value[i], out = g.value[i];
    g_x.value[i] += T(2) * value * out;
    if (!g_x.dot) return;
    T dot = value * g.dot[i];
    if (x.dot) dot += x.dot[i] * out;
    g_x.dot[i] += T(2) * dot;
  }
};

/// Above this variance the cube of half_slope, which the second derivative has, is finite.
template <class T>
constexpr T least_variance = std::is_same_v<T, float> ? T(1e-20) : T(1e-200);

/// The derivative of a standard deviation by its variance. NaN is passed on.
template <class T>
__device__ T half_slope(T variance) {
  return variance < least_variance<T> ? T(0) : T(0.5) / sqrt(variance);
}

template <class T>
struct Deviate {
  Tangent<T> y;
  Tangent<const T> variance;
  RowNoise<T> noise;
  int features;
  __device__ void operator()(const WarpRow& at) const {
    const std::size_t first = at.index * static_cast<std::size_t>(features);
    each_normal(noise, features, at, [&](int e, T zeta) {
      const std::size_t i = first + static_cast<std::size_t>(e);
      const T v = variance.value[i];
      y.value[i] += (v < least_variance<T> ? T(0) : sqrt(v)) * zeta;
      if (y.dot && variance.dot) y.dot[i] += half_slope(v) * variance.dot[i] * zeta;
    });
  }
};

template <class T>
struct DeviatePullback {
  Tangent<T> g_v;
  Tangent<const T> g, variance;
  RowNoise<T> noise;
  int features;
  __device__ void operator()(const WarpRow& at) const {
    const std::size_t first = at.index * static_cast<std::size_t>(features);
    each_normal(noise, features, at, [&](int e, T zeta) {
      const std::size_t i = first + static_cast<std::size_t>(e);
      const T slope = half_slope(variance.value[i]), out = g.value[i];
      if (g_v.dot) {
        T dot = g.dot[i] * slope;
        if (variance.dot) dot -= T(2) * out * slope * slope * slope * variance.dot[i];
        g_v.dot[i] = dot * zeta;
      }
      g_v.value[i] = out * slope * zeta;
    });
  }
};

}  // namespace

// ---- launchers ----

template <class T>
void multiply_signs(Tangent<T> y, Tangent<const T> x, bool accumulate, const RowNoise<T>& noise,
                    SignSize size, const RowExtent& rows, cudaStream_t stream) {
  by_warp_row(Signs<T>{y, x, accumulate, noise, size}, rows, stream);
}

template <class T>
void square(Tangent<T> y, Tangent<const T> x, int features, const RowExtent& rows,
            cudaStream_t stream) {
  by_own_row(Square<T>{y, x}, features, rows, stream);
}

template <class T>
void square_pullback(Tangent<T> g_x, Tangent<const T> g, Tangent<const T> x, int features,
                     const RowExtent& rows, cudaStream_t stream) {
  by_own_row(SquarePullback<T>{g_x, g, x}, features, rows, stream);
}

template <class T>
void deviate(Tangent<T> y, Tangent<const T> variance, const RowNoise<T>& noise, int features,
             const RowExtent& rows, cudaStream_t stream) {
  by_warp_row(Deviate<T>{y, variance, noise, features}, rows, stream);
}

template <class T>
void deviate_pullback(Tangent<T> g_v, Tangent<const T> g, Tangent<const T> variance,
                      const RowNoise<T>& noise, int features, const RowExtent& rows,
                      cudaStream_t stream) {
  by_warp_row(DeviatePullback<T>{g_v, g, variance, noise, features}, rows, stream);
}

#define KSHOT_INSTANTIATE(T)                                                                     \
  template void multiply_signs(Tangent<T>, Tangent<const T>, bool, const RowNoise<T>&, SignSize, \
                               const RowExtent&, cudaStream_t);                                  \
  template void square(Tangent<T>, Tangent<const T>, int, const RowExtent&, cudaStream_t);       \
  template void square_pullback(Tangent<T>, Tangent<const T>, Tangent<const T>, int,             \
                                const RowExtent&, cudaStream_t);                                 \
  template void deviate(Tangent<T>, Tangent<const T>, const RowNoise<T>&, int, const RowExtent&, \
                        cudaStream_t);                                                           \
  template void deviate_pullback(Tangent<T>, Tangent<const T>, Tangent<const T>,                 \
                                 const RowNoise<T>&, int, const RowExtent&, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
