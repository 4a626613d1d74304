#include <cublas_v2.h>

#include <algorithm>
#include <cstddef>

#include "simt/runtime.h"

namespace kshot::simt::api {

struct Blas {
  cudaStream_t stream = nullptr;
};

namespace {

template <class T>
struct Product {
  bool transpose_a, transpose_b;
  std::size_t m, n, k;
  T alpha;
  const T* a;
  std::size_t lda;
  std::ptrdiff_t stride_a;
  const T* b;
  std::size_t ldb;
  std::ptrdiff_t stride_b;
  T beta;
  T* c;
  std::size_t ldc;
  std::ptrdiff_t stride_c;
  int batch;

  // Elements from a matrix's first to its last, columns that hold nothing between left out.
  template <class Visit>
  static void columns(std::size_t rows, std::size_t cols, std::size_t ld, Visit visit) {
    if (rows == 0) return;
    for (std::size_t j = 0; j < cols; ++j) visit(j * ld, rows * sizeof(T));
  }

  // Device memory is poisoned for the host's code (memory.h).
  [[gnu::no_sanitize("address")]] void operator()() const {
    for (int i = 0; i < batch; ++i) {
      const T* x = a + i * stride_a;
      const T* y = b + i * stride_b;
      T* z = c + i * stride_c;
      if (k > 0 && alpha != T(0)) {
        columns(transpose_a ? k : m, transpose_a ? m : k, lda,
                [&](std::size_t at, std::size_t bytes) {
                  require_device("cuBLAS, matrix A", x + at, bytes, true, false);
                });
        columns(transpose_b ? n : k, transpose_b ? k : n, ldb,
                [&](std::size_t at, std::size_t bytes) {
                  require_device("cuBLAS, matrix B", y + at, bytes, true, false);
                });
      }
      columns(m, n, ldc, [&](std::size_t at, std::size_t bytes) {
        require_device("cuBLAS, matrix C", z + at, bytes, beta != T(0), true);
      });
      for (std::size_t col = 0; col < n; ++col) {
        for (std::size_t row = 0; row < m; ++row) {
          T sum = 0;
          for (std::size_t p = 0; alpha != T(0) && p < k; ++p) {
            sum += x[transpose_a ? row * lda + p : p * lda + row] *
                   y[transpose_b ? p * ldb + col : col * ldb + p];
          }
          T& out = z[col * ldc + row];
          out = alpha * sum + (beta == T(0) ? T(0) : beta * out);
        }
      }
    }
  }
};

template <class T>
cublasStatus_t gemm(cublasHandle_t handle, cublasOperation_t transpose_a,
                    cublasOperation_t transpose_b, int m, int n, int k, const T* alpha, const T* a,
                    int lda, long long stride_a, const T* b, int ldb, long long stride_b,
                    const T* beta, T* c, int ldc, long long stride_c, int batch) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  const bool ta = transpose_a == CUBLAS_OP_T, tb = transpose_b == CUBLAS_OP_T;
  if (m < 0 || n < 0 || k < 0 || batch < 0 || lda < std::max(1, ta ? k : m) ||
      ldb < std::max(1, tb ? n : k) || ldc < std::max(1, m)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const auto size = [](int x) { return static_cast<std::size_t>(x); };
  const Product<T> product{ta,    tb,        size(m),   size(n),  size(k),   *alpha,
                           a,     size(lda), stride_a,  b,        size(ldb), stride_b,
                           *beta, c,         size(ldc), stride_c, batch};
  return enqueue(handle->stream, product) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                         : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // namespace

const char* cublasGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
  }
  return "unknown status";
}
const char* cublasGetStatusString(cublasStatus_t status) {
  return cublasGetStatusName(status);
}

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new Blas;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) {
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t, void*, std::size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t transpose_a,
                           cublasOperation_t transpose_b, int m, int n, int k, const float* alpha,
                           const float* a, int lda, const float* b, int ldb, const float* beta,
                           float* c, int ldc) {
  return gemm(handle, transpose_a, transpose_b, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc,
              0, 1);
}
cublasStatus_t cublasDgemm(cublasHandle_t handle, cublasOperation_t transpose_a,
                           cublasOperation_t transpose_b, int m, int n, int k, const double* alpha,
                           const double* a, int lda, const double* b, int ldb, const double* beta,
                           double* c, int ldc) {
  return gemm(handle, transpose_a, transpose_b, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc,
              0, 1);
}
cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t transpose_a,
                                         cublasOperation_t transpose_b, int m, int n, int k,
                                         const float* alpha, const float* a, int lda,
                                         long long stride_a, const float* b, int ldb,
                                         long long stride_b, const float* beta, float* c, int ldc,
                                         long long stride_c, int batch) {
  return gemm(handle, transpose_a, transpose_b, m, n, k, alpha, a, lda, stride_a, b, ldb, stride_b,
              beta, c, ldc, stride_c, batch);
}
cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t transpose_a,
                                         cublasOperation_t transpose_b, int m, int n, int k,
                                         const double* alpha, const double* a, int lda,
                                         long long stride_a, const double* b, int ldb,
                                         long long stride_b, const double* beta, double* c, int ldc,
                                         long long stride_c, int batch) {
  return gemm(handle, transpose_a, transpose_b, m, n, k, alpha, a, lda, stride_a, b, ldb, stride_b,
              beta, c, ldc, stride_c, batch);
}

}  // namespace kshot::simt::api
