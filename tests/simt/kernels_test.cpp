// The emulator on correct kernels, whose results have closed forms, in every order of threads; and
// on deliberately broken kernels, each of which it must report.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "simt/device_array.h"
#include "simt/kernels/broken.h"
#include "simt/kernels/good.h"
#include "simt/orders.h"

namespace kshot::cuda {
namespace {

using simt::With;
using testing::HasSubstr;

TEST(Emulator, MatrixProduct) {
  // a[i, p] = i + p and b[p, j] = p - j give sums of powers. They are small integers, hence exact
  // in float.
  const int m = 21, n = 35, k = 18;
  std::vector<float> a, b;
  for (int i = 0; i < m; ++i) {
    for (int p = 0; p < k; ++p) a.push_back(static_cast<float>(i + p));
  }
  for (int p = 0; p < k; ++p) {
    for (int j = 0; j < n; ++j) b.push_back(static_cast<float>(p - j));
  }
  const int s1 = k * (k - 1) / 2, s2 = (k - 1) * k * (2 * k - 1) / 6;
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    DeviceArray<float> da(a), db(b), dc(static_cast<std::size_t>(m * n));
    matrix_product(dc.data(), da.data(), db.data(), m, n, k, nullptr);
    const std::vector<float> c = dc.host();
    for (int i = 0; i < m; ++i) {
      for (int j = 0; j < n; ++j) {
        ASSERT_EQ(c[static_cast<std::size_t>(i * n + j)],
                  static_cast<float>(i * s1 - i * j * k + s2 - j * s1));
      }
    }
  }
}

TEST(Emulator, RowSumsThroughShuffles) {
  const int rows = 3, width = 1000;
  std::vector<double> x;
  for (int r = 0; r < rows; ++r) {
    for (int i = 0; i < width; ++i) x.push_back(r * 1000 + i);
  }
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    DeviceArray<double> dx(x), sums(3);
    row_sums(sums.data(), dx.data(), rows, width, nullptr);
    EXPECT_THAT(sums.host(), testing::ElementsAre(499500.0, 1499500.0, 2499500.0));
  }
}

TEST(Emulator, Transpose) {
  const int rows = 45, cols = 70;
  std::vector<float> x(static_cast<std::size_t>(rows * cols));
  std::iota(x.begin(), x.end(), 0.0f);
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    DeviceArray<float> from(x), to(x.size());
    transpose(to.data(), from.data(), rows, cols, nullptr);
    const std::vector<float> y = to.host();
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < cols; ++c) {
        ASSERT_EQ(y[static_cast<std::size_t>(c * rows + r)], static_cast<float>(r * cols + c));
      }
    }
  }
}

TEST(Emulator, WarpScan) {
  std::vector<int> x(200);
  std::iota(x.begin(), x.end(), 1);
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    DeviceArray<int> dx(x), dy(x.size());
    warp_scan(dy.data(), dx.data(), 200, nullptr);
    const std::vector<int> y = dy.host();
    for (int i = 0; i < 200; ++i) {
      const int first = i / 32 * 32;  // sum of first + 1 ... i + 1
      ASSERT_EQ(y[static_cast<std::size_t>(i)], (i - first + 1) * (first + 1 + i + 1) / 2);
    }
  }
}

TEST(Emulator, Histogram) {
  std::vector<int> x;
  for (int value = 0; value < 16; ++value)
    x.insert(x.end(), static_cast<std::size_t>(value), value);
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    DeviceArray<int> dx(x);
    DeviceArray<unsigned> bins(std::vector<unsigned>(16, 0));
    histogram(bins.data(), dx.data(), static_cast<int>(x.size()), nullptr);
    const std::vector<unsigned> counts = bins.host();
    for (unsigned i = 0; i < 16; ++i) EXPECT_EQ(counts[i], i);
  }
}

TEST(Emulator, DynamicSharedMemoryInParts) {
  std::vector<double> x(101);
  std::iota(x.begin(), x.end(), 0.0);
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    DeviceArray<double> dx(x), dy(x.size());
    reverse(dy.data(), dx.data(), 101, nullptr);
    EXPECT_EQ(dy.host(), std::vector<double>(x.rbegin(), x.rend()));
  }
}

TEST(Emulator, DeclaredSameValueIsNoRace) {
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    DeviceArray<float> x(std::vector<float>(64, -1.0f));
    DeviceArray<int> flag(std::vector<int>{0});
    any_negative(flag.data(), x.data(), 64, nullptr);
    EXPECT_EQ(flag.host().at(0), 1);
  }
}

struct Broken {
  const char* name;
  broken::Run* run;
  std::vector<const char*> says;  // parts of the report
};

void PrintTo(const Broken& broken, std::ostream* out) {
  *out << broken.name;
}

class BrokenKernel : public testing::TestWithParam<Broken> {};

TEST_P(BrokenKernel, IsReported) {
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    std::vector<float> values(64);
    std::iota(values.begin(), values.end(), 1.0f);
    DeviceArray<float> x(values), y(64);
    std::string report;
    try {
      GetParam().run(y.data(), x.data());
      ADD_FAILURE() << "nothing was reported";
    } catch (const simt::Failure& failure) {
      report = failure.what();
    }
    EXPECT_THAT(report, HasSubstr("kernel "));
    EXPECT_THAT(report, HasSubstr("block ("));
    for (const char* part : GetParam().says) EXPECT_THAT(report, HasSubstr(part));
    EXPECT_THAT(report, testing::Not(HasSubstr("\n")));
    // Later launches are not affected.
    axpy(x.data(), 1.0f, x.data(), 64, nullptr);
    EXPECT_EQ(x.host().at(63), 128.0f);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Emulator, BrokenKernel,
    testing::Values(
        Broken{"barrier_removed",
               broken::barrier_removed,
               {"barrier_removed_kernel", "of shared variable 'tile' (256 bytes)"}},
        Broken{
            "second_barrier_removed", broken::second_barrier_removed, {"race with the ", "'tile'"}},
        Broken{"shared_past_end",
               broken::shared_past_end,
               {"thread (63,0,0) writes 4 bytes, out of bounds: byte 256 of shared variable 'tile'",
                "broken.cu:"}},
        Broken{"shared_row_past_end",
               broken::shared_row_past_end,
               {"out of bounds: index 8 for 'float [8]' (broken.cu:"}},
        Broken{"dynamic_past_end",
               broken::dynamic_past_end,
               {"out of bounds: byte ", "of dynamic shared memory at "}},
        Broken{"dynamic_too_small",
               broken::dynamic_too_small,
               {"takes dynamic shared memory up to byte 516; the launch gave 512 bytes"}},
        Broken{"global_past_end",
               broken::global_past_end,
               {"thread (63,0,0) reads 4 bytes, out of bounds: byte 256 of device allocation"}},
        Broken{"global_before_begin",
               broken::global_before_begin,
               {"thread (0,0,0) writes 4 bytes, out of bounds: byte -4 of device allocation"}},
        Broken{"host_pointer", broken::host_pointer, {"reads 4 bytes, not device memory"}},
        Broken{"misaligned",
               broken::misaligned,
               {"misaligned address", "for 'struct float2' (broken.cu:"}},
        Broken{"shuffle_mask_lacks_caller",
               broken::shuffle_mask_lacks_caller,
               {"wrong mask: thread (",
                "calls __shfl_xor_sync with mask 0x0000ffff, which does "
                "not name it (broken.cu:"}},
        Broken{"shuffle_mask_too_wide",
               broken::shuffle_mask_too_wide,
               {"wrong mask: thread (0,0,0) waits at __shfl_xor_sync with mask 0xffffffff",
                "for lane 16, but thread (16,0,0) has left the kernel"}},
        Broken{"shuffle_reads_outside_mask",
               broken::shuffle_reads_outside_mask,
               {"(lane 15) reads lane 16 by __shfl_down_sync with mask 0x0000ffff, which does not "
                "name that lane"}},
        Broken{"tensor_core_half_warp",
               broken::tensor_core_half_warp,
               {"wrong mask: thread (0,0,0) waits at mma.sync with mask 0xffffffff",
                "for lane 16, but thread (16,0,0) has left the kernel"}},
        Broken{"barrier_in_divergent_code",
               broken::barrier_in_divergent_code,
               {"divergent barrier: 32 of 64 threads wait; thread (0,0,0) waits at __syncthreads "
                "(broken.cu:",
                "thread (32,0,0) has left the kernel"}},
        Broken{"two_barriers",
               broken::two_barriers,
               {"divergent barrier: thread (", "waits at __syncthreads (broken.cu:"}},
        Broken{"return_before_barrier",
               broken::return_before_barrier,
               {"divergent barrier: 63 of 64 threads wait", "thread (63,0,0) has left the kernel"}},
        Broken{"same_value",
               broken::same_value,
               {"writes 4 bytes, race with the write by thread number", "'found' (4 bytes)"}},
        Broken{"uniform_differs",
               broken::uniform_differs,
               {"race with the store of another value by thread number", "'last' (4 bytes)"}},
        Broken{"uninitialised_shared",
               broken::uninitialised_shared,
               {"thread (7,0,0) reads 4 bytes, never written: byte 28 of shared "
                "variable 'tile'"}},
        Broken{"uninitialised_global",
               broken::uninitialised_global,
               {"never written: byte", "of device allocation"}},
        Broken{"warp_without_barrier", broken::warp_without_barrier, {"'tile' (256 bytes)"}},
        Broken{"warp_barrier_between_warps",
               broken::warp_barrier_between_warps,
               {"'tile' (256 bytes)"}},
        Broken{"blocks_write_same",
               broken::blocks_write_same,
               {"writes 4 bytes, race with the write by thread number", "of block number",
                "in the same launch"}},
        Broken{"block_reads_other", broken::block_reads_other, {"of device allocation"}},
        Broken{"local_past_end",
               broken::local_past_end,
               {"out of bounds: ", " for 'float", "(broken.cu:"}}),
    [](const auto& broken) { return std::string(broken.param.name); });

}  // namespace
}  // namespace kshot::cuda
