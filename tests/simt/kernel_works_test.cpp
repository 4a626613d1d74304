// Runs each work of the kernels' benchmarks (bench/kernel_works.h) once, in its small size, on the
// emulator, which reports accesses outside of a launch's arrays.
#include "bench/kernel_works.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "emulator/simt.h"

namespace kshot::cuda {
namespace {

TEST(KernelWorks, EachRunsOnItsArrays) {
  std::set<std::string> names;
  for (const KernelWork& work : kernel_works(/*smoke=*/true)) {
    SCOPED_TRACE(work.name);
    EXPECT_TRUE(names.insert(work.name).second) << "two of one name";
    EXPECT_GT(work.bytes, 0);
    Arena arena;
    const KernelWork::Run run = work.prepare(arena);
    for (int i = 0; i < 2; ++i) {  // a benchmark runs it repeatedly on the same arrays
      ASSERT_NO_THROW(run(nullptr));
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    }
    EXPECT_EQ(arena.not_finite(), 0u);
  }
}

}  // namespace
}  // namespace kshot::cuda
