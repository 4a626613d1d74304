// Stand-in for CUDA's header of this name: the part that kshot uses, run by the emulator. Names and
// meanings are CUDA's own (CUDA C++ Programming Guide; Runtime API reference). All of them are in
// kshot::simt::api, so that a program may contain both the emulator and the real runtime.
#pragma once

#ifndef KSHOT_SIMT
#error "only for targets compiled for the emulator (KSHOT_SIMT)"
#endif

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ KSHOT_SHARED_is_the_macro_for_shared_memory
#define __grid_constant__
#define __align__(n) alignas(n)

namespace kshot::simt {

using Location = std::source_location;

enum class BarrierKind { plain, all, any, count };
int block_barrier(BarrierKind kind, int predicate, Location location);
enum class WarpOp { index, up, down, exclusive_or, ballot, all, any, add, barrier, multiply };
std::uint64_t warp_exchange(WarpOp op, std::uint32_t mask, std::uint64_t value, int argument,
                            int width, Location location);

/// Returns a shared variable of the current block. `key` distinguishes variables (and
/// instantiations).
void* shared_variable(const void* key, const char* name, std::size_t bytes, std::size_t alignment);
/// Returns a part of the launch's dynamic shared memory. Parts do not overlap, and lie apart in
/// memory.
void* dynamic_shared(std::size_t offset, std::size_t bytes);

enum class AtomicOp { add, exchange, minimum, maximum, bit_and, bit_or, compare_exchange };
std::uint64_t atomic(AtomicOp op, void* address, std::size_t bytes, bool is_signed,
                     std::uint64_t value, std::uint64_t compare);
void store_uniform(void* address, const void* value, std::size_t bytes);

namespace api {

// ---- vector types ----
struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
constexpr float2 make_float2(float x, float y) {
  return {x, y};
}
constexpr float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}
constexpr double2 make_double2(double x, double y) {
  return {x, y};
}
constexpr int2 make_int2(int x, int y) {
  return {x, y};
}
constexpr int4 make_int4(int x, int y, int z, int w) {
  return {x, y, z, w};
}
constexpr uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
constexpr uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

}  // namespace api

// The indices of a thread never change while its code runs, so the compiler may call these
// functions once.
[[gnu::const]] api::uint3 thread_index();
[[gnu::const]] api::uint3 block_index();
[[gnu::const]] api::uint3 block_size();
[[gnu::const]] api::uint3 grid_size();

template <class T>
T shuffle(WarpOp op, unsigned mask, T value, int argument, int width, Location location) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = warp_exchange(op, mask, bits, argument, width, location);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// A lane's part of mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32: d = a b + c of the warp.
/// The tensor core ignores all bits of a and b beyond TF32's.
void multiply_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                   const float (&c)[4], Location location = Location::current());

namespace api {

// ---- threads of a block ----
#define threadIdx (::kshot::simt::thread_index())
#define blockIdx (::kshot::simt::block_index())
#define blockDim (::kshot::simt::block_size())
#define gridDim (::kshot::simt::grid_size())
constexpr int warpSize = 32;

inline void __syncthreads(Location location = Location::current()) {
  block_barrier(BarrierKind::plain, 0, location);
}
inline int __syncthreads_and(int predicate, Location location = Location::current()) {
  return block_barrier(BarrierKind::all, predicate, location);
}
inline int __syncthreads_or(int predicate, Location location = Location::current()) {
  return block_barrier(BarrierKind::any, predicate, location);
}
inline int __syncthreads_count(int predicate, Location location = Location::current()) {
  return block_barrier(BarrierKind::count, predicate, location);
}

// ---- lanes of a warp ----
inline void __syncwarp(unsigned mask = 0xffffffffu, Location location = Location::current()) {
  warp_exchange(WarpOp::barrier, mask, 0, 0, 32, location);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              Location location = Location::current()) {
  return shuffle(WarpOp::index, mask, value, source, width, location);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 Location location = Location::current()) {
  return shuffle(WarpOp::up, mask, value, static_cast<int>(delta), width, location);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   Location location = Location::current()) {
  return shuffle(WarpOp::down, mask, value, static_cast<int>(delta), width, location);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  Location location = Location::current()) {
  return shuffle(WarpOp::exclusive_or, mask, value, lanes, width, location);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              Location location = Location::current()) {
  return static_cast<unsigned>(
      warp_exchange(WarpOp::ballot, mask, predicate != 0 ? 1 : 0, 0, 32, location));
}
inline int __all_sync(unsigned mask, int predicate, Location location = Location::current()) {
  return static_cast<int>(
      warp_exchange(WarpOp::all, mask, predicate != 0 ? 1 : 0, 0, 32, location));
}
inline int __any_sync(unsigned mask, int predicate, Location location = Location::current()) {
  return static_cast<int>(
      warp_exchange(WarpOp::any, mask, predicate != 0 ? 1 : 0, 0, 32, location));
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value,
                                  Location location = Location::current()) {
  return static_cast<unsigned>(warp_exchange(WarpOp::add, mask, value, 0, 32, location));
}
/// A device may return any set of lanes that includes the caller. The emulator returns the caller
/// alone.
inline unsigned __activemask() {
  const uint3 t = thread_index(), n = block_size();
  return 1u << ((t.x + n.x * (t.y + n.y * t.z)) % 32);
}

// ---- memory ----
template <class T>
T __ldg(const T* address) {
  return *address;
}
// The emulator orders threads by barriers alone. It does not model fences.
inline void __threadfence() {}
inline void __threadfence_block() {}

// Only integers: atomic sums of floating-point numbers have no fixed order, and are forbidden here.
template <class T>
constexpr bool is_atomic =
    std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;
template <class T>
T atomic_of(AtomicOp op, T* address, T value, T compare = 0) {
  static_assert(is_atomic<T>, "atomics are for int, unsigned and unsigned long long");
  return static_cast<T>(atomic(op, address, sizeof(T), std::is_signed_v<T>,
                               static_cast<std::uint64_t>(value),
                               static_cast<std::uint64_t>(compare)));
}
template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return atomic_of(AtomicOp::add, address, value);
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return atomic_of(AtomicOp::exchange, address, value);
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return atomic_of(AtomicOp::minimum, address, value);
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return atomic_of(AtomicOp::maximum, address, value);
}
template <class T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return atomic_of(AtomicOp::bit_and, address, value);
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return atomic_of(AtomicOp::bit_or, address, value);
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  return atomic_of(AtomicOp::compare_exchange, address, value, compare);
}

// ---- arithmetic that CUDA has beyond math.h ----
inline float rsqrtf(float x) {
  return 1.0f / sqrtf(x);
}
inline float rsqrt(float x) {
  return 1.0f / sqrtf(x);
}
inline double rsqrt(double x) {
  return 1.0 / ::sqrt(x);
}
constexpr int min(int a, int b) {
  return b < a ? b : a;
}
constexpr int max(int a, int b) {
  return a < b ? b : a;
}
constexpr unsigned min(unsigned a, unsigned b) {
  return b < a ? b : a;
}
constexpr unsigned max(unsigned a, unsigned b) {
  return a < b ? b : a;
}
constexpr std::size_t min(std::size_t a, std::size_t b) {
  return b < a ? b : a;
}
constexpr std::size_t max(std::size_t a, std::size_t b) {
  return a < b ? b : a;
}
inline float min(float a, float b) {
  return fminf(a, b);
}
inline float max(float a, float b) {
  return fmaxf(a, b);
}
inline double min(double a, double b) {
  return fmin(a, b);
}
inline double max(double a, double b) {
  return fmax(a, b);
}
constexpr int __popc(unsigned x) {
  return __builtin_popcount(x);
}
constexpr int __clz(int x) {
  return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x));
}
constexpr int __ffs(int x) {
  return __builtin_ffs(x);
}
inline float __fmaf_rn(float a, float b, float c) {
  return fmaf(a, b, c);
}
inline double __fma_rn(double a, double b, double c) {
  return ::fma(a, b, c);
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline double __dadd_rn(double a, double b) {
  return a + b;
}
inline double __dmul_rn(double a, double b) {
  return a * b;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(a) * b) >> 32);
}
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof x);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace api
}  // namespace kshot::simt

#include "cuda_runtime_api.h"

namespace kshot::simt {

/// Puts a kernel on a stream. `arguments` is the argument of body, and `bytes` its size.
api::cudaError_t launch(std::string name, api::dim3 grid, api::dim3 block, std::size_t shared_bytes,
                        api::cudaStream_t stream, void (*body)(const void*),
                        std::shared_ptr<const void> arguments, std::size_t bytes);

}  // namespace kshot::simt

using namespace kshot::simt::api;  // NOLINT(google-build-using-namespace): CUDA's names are global
