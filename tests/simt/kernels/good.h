// Launchers of correct kernels, on which the emulator is tested.
#pragma once

#include <cstddef>

#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// c[m, n] = a[m, k] b[k, n], row-major, in tiles through shared memory.
template <class T>
void matrix_product(T* c, const T* a, const T* b, int m, int n, int k, cudaStream_t stream);

/// sums[i] = the sum of x[i * width ... ), computed by one block of 128 threads per row.
template <class T>
void row_sums(T* sums, const T* x, int rows, int width, cudaStream_t stream);

/// to[cols, rows] = from[rows, cols]^T, row-major.
void transpose(float* to, const float* from, int rows, int cols, cudaStream_t stream);

/// y[i] = x[0] + ... + x[i] within each group of 32.
void warp_scan(int* y, const int* x, int n, cudaStream_t stream);

/// bins[v] = the number of x that are v (0 <= v < 16), by shared counters and integer atomics.
void histogram(unsigned* bins, const int* x, int n, cudaStream_t stream);

/// y += a x.
void axpy(float* y, float a, const float* x, int n, cudaStream_t stream);

/// y[i] = x[n - 1 - i] for n <= 1024, through two arrays in dynamic shared memory.
void reverse(double* y, const double* x, int n, cudaStream_t stream);

/// *flag = 1 if any x is negative, else unchanged. Every thread that finds a negative x stores the
/// flag.
void any_negative(int* flag, const float* x, int n, cudaStream_t stream);

/// d[16, 8] = a[16, 8] b[8, 8] + c[16, 8], row-major, by one instruction of a tensor core, without
/// splitting the numbers.
void tensor_product(float* d, const float* a, const float* b, const float* c, cudaStream_t stream);

/// The same instruction on the fragments that the lanes of a warp hold: a, c and d [32, 4], b [32,
/// 2].
void multiply_fragments(float* d, const float* a, const float* b, const float* c,
                        cudaStream_t stream);

/// hi[i] + lo[i] approximates x[i]; both are TF32.
void split(float* hi, float* lo, const float* x, int n, cudaStream_t stream);

/// By Thrust: starts[i] = counts[0] + ... + counts[i - 1]; kept = the indices i whose count is not
/// 0, in order. Returns the number of indices kept.
int starts_and_kept(int* starts, int* kept, const int* counts, int n, cudaStream_t stream);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
