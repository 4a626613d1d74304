// The tables of small-matrix kernels (backend/dense_kernels.h) for one instruction set. As in
// kernels_impl.h, KSHOT_ISA names it and KSHOT_LANES is the number of tasks in the lanes of a
// vector.
#include "backend/cpu/kernels.h"
#include "backend/dense_kernels_impl.h"

namespace kshot::backend::cpu {
namespace {

/// Gives the templates of this translation unit internal linkage.
struct ThisInstructionSet {};

}  // namespace

#define KSHOT_CONCAT_(a, b) a##b
#define KSHOT_CONCAT(a, b) KSHOT_CONCAT_(a, b)
const DenseKernels<float>& KSHOT_CONCAT(dense_lanes_, KSHOT_ISA)() {
  return Dense<float, KSHOT_LANES, ThisInstructionSet>::table();
}
const DenseKernels<float>& KSHOT_CONCAT(dense_single_, KSHOT_ISA)() {
  return Dense<float, 1, ThisInstructionSet>::table();
}

}  // namespace kshot::backend::cpu
