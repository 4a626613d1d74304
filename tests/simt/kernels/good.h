// Launchers of the correct kernels that the emulator is proven on.
#pragma once

#include <cstddef>

#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// c[m, n] = a[m, k] b[k, n], row-major, in tiles through shared memory.
template <class T>
void matrix_product(T* c, const T* a, const T* b, int m, int n, int k, cudaStream_t stream);

/// sums[i] = sum of x[i * width ... ), one block of 128 threads a row.
template <class T>
void row_sums(T* sums, const T* x, int rows, int width, cudaStream_t stream);

/// to[cols, rows] = from[rows, cols]^T, row-major.
void transpose(float* to, const float* from, int rows, int cols, cudaStream_t stream);

/// y[i] = x[0] + ... + x[i] within each run of 32.
void warp_scan(int* y, const int* x, int n, cudaStream_t stream);

/// bins[v] = how many x are v (0 <= v < 16), through shared counters and integer atomics.
void histogram(unsigned* bins, const int* x, int n, cudaStream_t stream);

/// y += a x.
void axpy(float* y, float a, const float* x, int n, cudaStream_t stream);

/// y[i] = x[n - 1 - i] for n <= 1024 through two arrays in dynamic shared memory.
void reverse(double* y, const double* x, int n, cudaStream_t stream);

/// *flag = 1 if any x is negative, else unchanged; every thread that finds one says so.
void any_negative(int* flag, const float* x, int n, cudaStream_t stream);

/// d[16, 8] = a[16, 8] b[8, 8] + c[16, 8], row-major, by one instruction of a tensor core, as the
/// numbers are.
void tensor_product(float* d, const float* a, const float* b, const float* c, cudaStream_t stream);

/// The same instruction on a warp's fragments, as its lanes hold them: a, c and d [32, 4], b
/// [32, 2].
void multiply_fragments(float* d, const float* a, const float* b, const float* c,
                        cudaStream_t stream);

/// hi[i] + lo[i] = x[i], nearly, in TF32.
void split(float* hi, float* lo, const float* x, int n, cudaStream_t stream);

/// Thrust: starts[i] = counts[0] + ... + counts[i - 1]; kept = the i whose count is not 0, in
/// order. Returns how many were kept.
int starts_and_kept(int* starts, int* kept, const int* counts, int n, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
