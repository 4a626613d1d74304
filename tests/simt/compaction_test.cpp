// Lists of indices, compared with loops, for lists of every kind that a step may ask for.
#include "kernels/compaction.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "kshot/random.h"
#include "simt/device_array.h"
#include "simt/orders.h"

namespace kshot::cuda {
namespace {

using Indices = std::vector<std::uint32_t>;

TEST(Compaction, SetFlagsAreNamedInOrder) {
  RandomStream random({1, Purpose::episode, 0, 0, 0, 0});
  for (const std::size_t count : {1u, 5u, 16u, 1000u}) {
    for (const std::uint32_t one_in : {1u, 3u, 5000u}) {
      std::vector<std::int32_t> flags(count);
      Indices want;
      for (std::size_t i = 0; i < count; ++i) {
        flags[i] = random.below(one_in) == 0 ? 1 : 0;
        if (flags[i] != 0) want.push_back(static_cast<std::uint32_t>(i));
      }
      for (const bool lazy : {false, true}) {
        const simt::With with({.lazy = lazy});
        DeviceArray<std::int32_t> on_device(flags);
        DeviceArray<std::uint32_t> list(count);
        ASSERT_EQ(set_indices(list.data(), on_device.data(), count, nullptr), want.size());
        if (want.empty()) continue;
        Indices got(want.size());
        KSHOT_CUDA_CHECK(cudaMemcpy(got.data(), list.data(), got.size() * sizeof got[0],
                                    cudaMemcpyDeviceToHost));
        EXPECT_EQ(got, want);
      }
    }
  }
}

TEST(Compaction, TheInverseNamesElementsByTheirTargetInOrder) {
  RandomStream random({2, Purpose::episode, 0, 0, 0, 0});
  for (const std::size_t targets : {1u, 4u, 40u}) {
    for (const std::size_t count : {1u, 7u, 300u}) {
      Indices index(count);
      for (std::uint32_t& i : index) i = random.below(static_cast<std::uint32_t>(targets));
      Indices want_first, want_order;
      for (std::uint32_t target = 0; target < targets; ++target) {
        want_first.push_back(static_cast<std::uint32_t>(want_order.size()));
        for (std::size_t i = 0; i < count; ++i) {
          if (index[i] == target) want_order.push_back(static_cast<std::uint32_t>(i));
        }
      }
      want_first.push_back(static_cast<std::uint32_t>(count));
      DeviceArray<std::uint32_t> on_device(index), first(targets + 1), order(count), scratch(count);
      invert_index(first.data(), order.data(), on_device.data(), count, targets, scratch.data(),
                   nullptr);
      EXPECT_EQ(first.host(), want_first);
      EXPECT_EQ(order.host(), want_order);
    }
  }
}

}  // namespace
}  // namespace kshot::cuda
