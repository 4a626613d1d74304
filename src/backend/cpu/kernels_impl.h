// The cpu backend's kernels, compiled once per instruction set: KSHOT_ISA names the namespace, and
// KSHOT_LANES is W, the number of floats in a vector. The code uses the vector extensions that g++
// and clang share. The few operations that the extensions do not have (square root, 32 x 32 -> 64
// bit products) use an intrinsic where the target has one and a plain loop elsewhere. No function
// of the standard library is called (see kernels.h).
//
// The order of operations depends on W only through the layout: a lane (a task, or a channel) sees
// the same operations on every instruction set that fuses multiply and add.
#include <cstddef>
#include <cstdint>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "backend/cpu/kernels.h"

// GCC 12's own intrinsics start from an undefined register on purpose.
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace kshot::backend::cpu {
namespace KSHOT_ISA {
namespace {

// The order matters: later files use what earlier ones define.
// clang-format off
#include "backend/cpu/simd_impl.h"
#include "backend/cpu/element_kernels_impl.h"
#include "backend/cpu/noise_kernels_impl.h"
#include "backend/cpu/lane_kernels_impl.h"
#include "backend/cpu/product_kernels_impl.h"
#include "backend/cpu/layer_kernels_impl.h"
#include "backend/cpu/split_kernels_impl.h"
// clang-format on

#define KSHOT_STRINGIFY_(x) #x
#define KSHOT_STRINGIFY(x) KSHOT_STRINGIFY_(x)

constexpr Kernels table = {
    KSHOT_STRINGIFY(KSHOT_ISA),
    W,
    fill,
    axpy,
    multiply_add,
    multiply,
    exponential,
    exp_less_one,
    rate_step,
    scale,
    adam,
    broadcast,
    reparameterise,
    sample_pullback,
    sample_direction,
    kl,
    kl_hvp,
    shifted,
    noise_lanes,
    noise_single,
    act,
    act_tangent,
    /*act_backward=*/act_tangent,  // both multiply by the derivative
    act_backward_tangent,
    lane_gemm,
    lane_loss,
    lane_tree_sum,
    lane_finite,
    lane_mask,
    gather_gemm,
    dots,
    transpose,
    channel_sum,
    row_loss,
    norm_forward,
    norm_backward,
    norm_backward_tangent,
    pool_forward,
    pool_gather,
    pool_scatter,
    deviate,
    deviate_tangent,
    row_normals_lanes,
    row_signs_lanes,
    row_signs_single,
    product,
    deviation,
    deviation_tangent,
    deviation_backward,
    KSHOT_CONCAT(dense_lanes_, KSHOT_ISA),
    KSHOT_CONCAT(dense_single_, KSHOT_ISA),
};

}  // namespace
}  // namespace KSHOT_ISA

const Kernels& KSHOT_CONCAT(kernels_, KSHOT_ISA)() {
  return KSHOT_ISA::table;
}

}  // namespace kshot::backend::cpu
