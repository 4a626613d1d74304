// Kernels with one deliberate defect each. The emulator must report every defect. They are not for
// a device.
#pragma once

#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace broken {

/// y and x hold 64 numbers each; one or two blocks of 64 threads.
using Run = void(float* y, const float* x);

Run barrier_removed;         // no barrier between filling a tile and reading it
Run second_barrier_removed;  // no barrier between reading a tile and filling it again
Run shared_past_end;         // writes element 64 of 64
Run shared_row_past_end;     // reads element [i][8] of [8][8], which is within the variable
Run dynamic_past_end;        // reads beyond the first part of dynamic shared memory, in the second
Run dynamic_too_small;       // takes more than the launch provides
Run global_past_end;         // reads x[64]
Run global_before_begin;     // writes y[-1]
Run host_pointer;            // reads the host's memory
Run misaligned;              // a float2 at an odd element
Run shuffle_mask_lacks_caller;   // lanes 16-31 call with the mask of lanes 0-15
Run shuffle_mask_too_wide;       // lanes 0-15 call with the mask of all lanes
Run shuffle_reads_outside_mask;  // lane 15 reads lane 16 with the mask of lanes 0-15
Run tensor_core_half_warp;       // only lanes 0-15 call it
Run barrier_in_divergent_code;   // half of the threads reach the barrier
Run two_barriers;                // one barrier in each branch
Run return_before_barrier;       // the last thread returns before the barrier
Run same_value;                  // all threads store 1 to one shared element, without store_uniform
Run uniform_differs;             // store_uniform, but the values differ
Run uninitialised_shared;        // reads memory that was never written
Run uninitialised_global;
Run warp_without_barrier;  // lanes of a warp communicate through shared memory without __syncwarp
Run warp_barrier_between_warps;  // __syncwarp before reading the data of another warp
Run blocks_write_same;           // two blocks write one element of y
Run block_reads_other;           // block 1 reads what block 0 writes in the same launch
Run local_past_end;              // an index beyond an array of the thread's own

}  // namespace broken
}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
