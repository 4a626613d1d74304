// The one CUDA header that a kernel file (*.cu) includes. A kernel file is compiled twice: by nvcc
// for a GPU, and by the host's compiler for the emulator in src/emulator. This asks of a kernel:
//
//   - it is launched by launch<kernel>(...), never by <<<>>>
//   - static shared memory is declared by KSHOT_SHARED, dynamic shared memory by DynamicShared
//   - where several threads store the same value, they call store_uniform
//   - blocks of one launch do not communicate; floating-point atomics are not used
//   - asynchronous copies stand behind #ifndef KSHOT_SIMT, with a plain equivalent
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>

#include "kernels/extent.h"
#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// The number of lanes of a warp, and the mask with all of them.
constexpr int warp_lanes = 32;
constexpr unsigned all_lanes = 0xffffffffu;

// ---- shared memory ----

/// KSHOT_SHARED(float, tile, [32][33]); declares `tile` in shared memory. The dimensions are
/// constants. They are left out for a single number.
#ifdef KSHOT_SIMT
#define KSHOT_SHARED(type, name, ...)                                            \
  static char name##_key;                                                        \
  using name##_type = type __VA_ARGS__;                                          \
  name##_type& name = *static_cast<name##_type*>(::kshot::simt::shared_variable( \
      &name##_key, #name, sizeof(name##_type), alignof(name##_type)))
#else
#define KSHOT_SHARED(type, name, ...) __shared__ type name __VA_ARGS__
#endif

/// Divides the dynamic shared memory of a launch into arrays. The host computes the number of bytes
/// to ask for in the same way as the kernel takes its arrays:
///
///   host     const auto bytes = SharedSize().add<float>(n).add<double>(m).bytes();
///   kernel   DynamicShared shared; float* x = shared.take<float>(n); ...
class SharedSize {
 public:
  template <class T>
  constexpr SharedSize& add(std::size_t count) {
    bytes_ = (bytes_ + alignof(T) - 1) / alignof(T) * alignof(T) + count * sizeof(T);
    return *this;
  }
  constexpr std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
};

#if defined(KSHOT_SIMT) || defined(__CUDACC__)
#ifndef KSHOT_SIMT
extern __shared__ __align__(16) unsigned char kshot_dynamic_shared[];
#endif

/// Takes arrays from the launch's dynamic shared memory, in the layout of SharedSize.
class DynamicShared {
 public:
  template <class T>
  __device__ T* take(unsigned count) {
    constexpr unsigned alignment = alignof(T);
    static_assert(alignment <= 16);
    const unsigned offset = (end_ + alignment - 1) / alignment * alignment;
    end_ = offset + count * static_cast<unsigned>(sizeof(T));
#ifdef KSHOT_SIMT
    return static_cast<T*>(simt::dynamic_shared(offset, count * sizeof(T)));
#else
    return reinterpret_cast<T*>(kshot_dynamic_shared + offset);
#endif
  }

 private:
  unsigned end_ = 0;
};

// ---- declared sameness ----

/// Stores a value that several threads store at the same address. This is not a race, and the
/// emulator checks that the values are equal.
template <class T>
__device__ inline void store_uniform(T* address, T value) {
#ifdef KSHOT_SIMT
  simt::store_uniform(address, &value, sizeof value);
#else
  *address = value;
#endif
}
#endif

// ---- rows of a task, sums of a warp ----

#if defined(KSHOT_SIMT) || defined(__CUDACC__)
/// The number of a task's own rows.
__device__ inline int own_row_count(const RowExtent& rows, int task) {
  return rows.counts ? rows.counts[task] : rows.rows;
}

/// The sum over the lanes of a warp, returned to all of them. The additions form a fixed tree.
template <class T>
__device__ T warp_sum(T value) {
#pragma unroll
  for (int lanes = warp_lanes / 2; lanes > 0; lanes /= 2) {
    value += __shfl_xor_sync(all_lanes, value, lanes);
  }
  return value;
}
#endif

// ---- launch ----

/// The shape of a launch and the stream that it is put on.
struct Launch {
  dim3 grid = 1;
  dim3 block = 1;
  std::size_t shared_bytes = 0;  ///< of dynamic shared memory
  cudaStream_t stream = nullptr;
};

namespace detail {

/// Returns "axpy_kernel<float>" for the __PRETTY_FUNCTION__ "... [with auto kernel =
/// ns::axpy_kernel<float>; ...".
inline std::string kernel_name(std::string_view pretty) {
  if (const auto at = pretty.find("kernel = "); at != pretty.npos) pretty.remove_prefix(at + 9);
  std::size_t depth = 0, begin = 0, end = 0;
  for (; end < pretty.size(); ++end) {
    const char c = pretty[end];
    if (c == '<') ++depth;
    if (c == '>') --depth;
    if (depth == 0 && (c == ';' || c == ']')) break;
    if (depth == 0 && c == ':') begin = end + 1;
  }
  return std::string(pretty.substr(begin, end - begin));
}

/// Launches a kernel by the type of its function.
template <class Function>
struct Launcher;

template <class... Parameters>
struct Launcher<void (*)(Parameters...)> {
  /// Takes the arguments by value, so that each is converted to the parameter's type here.
  template <auto kernel>
  static void run(const Launch& shape, Parameters... arguments) {
    const char* pretty = __PRETTY_FUNCTION__;
#ifdef KSHOT_SIMT
    using Arguments = std::tuple<Parameters...>;
    const cudaError_t error = simt::launch(
        kernel_name(pretty), shape.grid, shape.block, shape.shared_bytes, shape.stream,
        [](const void* tuple) { std::apply(kernel, *static_cast<const Arguments*>(tuple)); },
        std::make_shared<const Arguments>(arguments...), sizeof(Arguments));
#else
    cudaError_t error = cudaSuccess;
    if (shape.shared_bytes > (48 << 10)) {  // more than the default must be requested
      error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shape.shared_bytes));
    }
    void* addresses[] = {const_cast<void*>(static_cast<const void*>(&arguments))..., nullptr};
    if (error == cudaSuccess) {
      error = cudaLaunchKernel(reinterpret_cast<const void*>(kernel), shape.grid, shape.block,
                               addresses, shape.shared_bytes, shape.stream);
    }
#endif
    if (error != cudaSuccess) throw_device_error(error, "kernel " + kernel_name(pretty));
  }
};

}  // namespace detail

/// Puts a kernel on a stream: launch<axpy_kernel<float>>({.grid = g, .block = 256, .stream = s}, y,
/// a, x). Throws a DeviceError that names the kernel if the launch fails.
template <auto kernel, class... Arguments>
void launch(const Launch& shape, const Arguments&... arguments) {
  detail::Launcher<decltype(kernel)>::template run<kernel>(shape, arguments...);
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
