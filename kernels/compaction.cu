// Lists of indices (compaction.h): compaction, a stable sort by key, and a search in the sorted
// keys. All three are Thrust's.
//
// Mathematics    The sort is stable: elements with equal keys stay in the order of their indices,
//                so that sums over them have a fixed order. There are no atomics.
// Layout         Flat lists.
// Who does what  Thrust decides.
// Outputs        Overwritten.
// Bytes          A radix sort's four passes over keys and values. Every other operation goes over
//                each list once.
#include "kernels/compaction.h"

#include <thrust/binary_search.h>
#include <thrust/copy.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/sort.h>
#include <thrust/system/cuda/execution_policy.h>

#include <new>
#include <stdexcept>

#include "kernels/device.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

struct IsSet {
  __host__ __device__ bool operator()(std::int32_t flag) const { return flag != 0; }
};

/// Runs `work`, and turns Thrust's exceptions into kshot's.
template <class Work>
auto guarded(const Work& work) {
  try {
    return work();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw_device_error(cudaErrorMemoryAllocation, "Thrust");
  } catch (const std::runtime_error& error) {  // thrust::system_error
    const cudaError_t last = cudaGetLastError();
    throw_device_error(last == cudaSuccess ? cudaErrorUnknown : last,
                       std::string("Thrust: ") + error.what());
  }
}

}  // namespace

std::size_t set_indices(std::uint32_t* to, const std::int32_t* flags, std::size_t count,
                        cudaStream_t stream) {
  return guarded([&] {
    const auto index = thrust::make_counting_iterator(std::uint32_t{0});
    const auto n = static_cast<std::ptrdiff_t>(count);
    std::uint32_t* const end =
        thrust::copy_if(thrust::cuda::par_nosync.on(stream), index, index + n, flags, to, IsSet());
    return static_cast<std::size_t>(end - to);
  });
}

void invert_index(std::uint32_t* first, std::uint32_t* order, const std::uint32_t* index,
                  std::size_t count, std::size_t targets, std::uint32_t* scratch,
                  cudaStream_t stream) {
  guarded([&] {
    const auto policy = thrust::cuda::par_nosync.on(stream);
    const auto number = thrust::make_counting_iterator(std::uint32_t{0});
    const auto n = static_cast<std::ptrdiff_t>(count), m = static_cast<std::ptrdiff_t>(targets);
    thrust::copy(policy, index, index + n, scratch);
    thrust::copy(policy, number, number + n, order);
    thrust::stable_sort_by_key(policy, scratch, scratch + n, order);
    thrust::lower_bound(policy, scratch, scratch + n, number, number + (m + 1), first);
  });
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
