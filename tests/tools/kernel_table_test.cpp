// tools/kernel_table.py on kernels of this test: the facts that it reads from object files, and the
// faults that it must report. The machine code is written here, so that its share of multiply-adds
// is known.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "cli/program.h"
#include "support/put_file.h"
#include "support/python.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

/// A kernel that sums `values` numbers, which are all alive at the same time, with launch bounds
/// `bounds`.
std::string kernel(int values, const std::string& bounds) {
  return fmt::format(
      R"(__global__ void __launch_bounds__({1}) hot(float* y, const float* x, int n) {{
  __shared__ float tile[64];
  float v[{0}];
  tile[threadIdx.x % 64] = x[n];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < {0}; ++i) v[i] = x[i * n + static_cast<int>(threadIdx.x)] + tile[i];
#pragma unroll
  for (int i = 0; i < {0}; ++i) y[i * n] = v[i] * v[{0} - 1 - i] + v[(i * 7) % {0}];
}}
)",
      values, bounds);
}

/// An outer loop with an inner loop that holds three multiply-adds among its four instructions. The
/// no-operation does not count. Neither does the jump to itself that ends every kernel.
constexpr const char* machine_code =
    R"(	.section	.text._Z3hotPfPKfi,"ax",@progbits
_Z3hotPfPKfi:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   IADD3 R2, R2, 0x1, RZ ;
.L_x_1:
        /*0020*/                   FFMA R3, R4, R5, R3 ;
        /*0030*/              @!P1 FFMA.FTZ R3, R4, R5, R3 ;
        /*0040*/                   DFMA R6, R8, R10, R6 ;
        /*0050*/                   NOP ;
        /*0060*/               @P0 BRA `(.L_x_1) ;
        /*0070*/                   FFMA R3, R4, R5, R3 ;
        /*0080*/              @!P2 BRA `(.L_x_0) ;
        /*0090*/                   EXIT ;
.L_x_2:
        /*00a0*/                   BRA `(.L_x_2);
)";

class KernelTable : public testing::Test {
 protected:
  void SetUp() override {
    KSHOT_NEEDS("tomllib");
    fs::create_directories(folder_ / "kernels");
    fs::create_directories(folder_ / "objects");
    put_file(folder_ / "code.txt", machine_code);
    put_file(folder_ / "nvdisasm", fmt::format("#!/bin/sh\ncat '{}/code.txt'\n", folder()));
    fs::permissions(folder_ / "nvdisasm", fs::perms::owner_all);
    rules("hot = true");
    const Outcome nothing = tool("");
    if (nothing.status == 77) GTEST_SKIP() << "no nvcc";
    if (nothing.error.find("no cuobjdump") != std::string::npos) {
      GTEST_SKIP() << "no cuobjdump (Python package nvidia-cuda-cuobjdump)";
    }
  }

  std::string folder() const { return folder_.path().string(); }
  /// Compiles the source as the build does.
  void source(const std::string& text) {
    put_file(folder_ / "kernels" / "own.cu", text);
    const std::string command = fmt::format(
        "PATH=\"$PATH:${{CUDA_PATH:-/usr/local/cuda}}/bin\" nvcc -c -arch=sm_90 -std=c++20 -O2 -o "
        "'{0}/objects/own.cu.o' "
        "'{0}/kernels/own.cu'",
        folder());
    ASSERT_EQ(std::system(command.c_str()), 0);
  }
  void rules(const std::string& rule) {
    put_file(folder_ / "rules.toml", "[[kernels]]\nkernel = \"own/hot\"\n" + rule + "\n");
  }

  Outcome tool(const std::string& arguments) {
    const std::string command = fmt::format(
        "'{3}' '{1}/tools/kernel_table.py' --kernels '{0}/kernels' --objects '{0}/objects' --table "
        "'{0}/table.md' "
        "--rules '{0}/rules.toml' --archs 90 --nvdisasm '{0}/nvdisasm' {2} >'{0}/out' "
        "2>'{0}/error'",
        folder(), KSHOT_SOURCE_DIR, arguments, python());
    const int status = std::system(command.c_str());
    return {WEXITSTATUS(status), slurp(folder_ / "out"), slurp(folder_ / "error")};
  }

  TempFolder folder_;
};

TEST_F(KernelTable, HoldsWhatWasWritten) {
  source(kernel(8, "128"));
  const Outcome written = tool("--write");
  EXPECT_EQ(written.status, 0) << written.out << written.error;
  const std::string table = slurp(folder_ / "table.md");
  EXPECT_THAT(table, testing::ContainsRegex(
                         R"(\| \*\*`own/hot`\*\* \| 128 \| [0-9]+ \| 256 \| 0 \| 100 \| 75 \|)"));
  const Outcome same = tool("--strict");
  EXPECT_EQ(same.status, 0) << same.out << same.error;

  source(kernel(32, "128"));
  const Outcome grown = tool("");
  EXPECT_EQ(grown.status, 1);
  EXPECT_THAT(grown.out, HasSubstr("own/hot (sm_90): registers"));
}

TEST_F(KernelTable, ANewKernelIsToldAndMustBeWritten) {
  source(kernel(8, "128"));
  ASSERT_EQ(tool("--write").status, 0);
  source(kernel(8, "128") + "__global__ void more(float* y) { y[threadIdx.x] = 1.0f; }\n");
  const Outcome told = tool("");
  EXPECT_EQ(told.status, 0);
  EXPECT_THAT(told.out, HasSubstr("note: table.md is out of date: own/more is new"));
  EXPECT_EQ(tool("--strict").status, 1);
}

TEST_F(KernelTable, AStackFrameOfAHotKernelFails) {
  // There are 64 registers per thread. Addresses take half of them.
  source(kernel(60, "1024"));
  const Outcome spilled = tool("");
  EXPECT_EQ(spilled.status, 1) << spilled.out;
  EXPECT_THAT(spilled.out, HasSubstr("own/hot is hot and has a stack frame"));
  rules("hot = false");
  EXPECT_THAT(tool("").out, Not(HasSubstr("stack frame")));
}

TEST_F(KernelTable, TooFewMultiplyAddsFail) {
  source(kernel(8, "128"));
  rules("hot = true\nmultiply_adds = 0.8");
  const Outcome few = tool("");
  EXPECT_EQ(few.status, 1);
  EXPECT_THAT(few.out, HasSubstr("own/hot has 75 % multiply-adds in its inner loops (sm_90), at "
                                 "least 80 are asked for"));
}

TEST_F(KernelTable, TooFewTensorCoreInstructionsFail) {
  source(kernel(8, "128"));
  rules("hot = true\ntensor_core = 0.2");
  EXPECT_THAT(tool("").out, HasSubstr("own/hot has 0 % tensor-core instructions in its inner loops "
                                      "(sm_90), at least 20 are asked for"));
  std::string code = machine_code;
  const std::string one = "DFMA R6, R8, R10, R6";
  code.replace(code.find(one), one.size(), "HMMA.1688.F32.TF32 R8, R4, R6, RZ");
  put_file(folder_ / "code.txt", code);
  const Outcome enough = tool("");
  EXPECT_EQ(enough.status, 0) << enough.out;
  rules("hot = true\ntensor_core = 0.26");
  EXPECT_THAT(tool("").out, HasSubstr("own/hot has 25 % tensor-core instructions"));
}

TEST_F(KernelTable, AnObjectForOtherProcessorsIsRefused) {
  source(kernel(8, "128"));
  const Outcome other = tool("--archs 80");
  EXPECT_EQ(other.status, 1);
  EXPECT_THAT(other.error, HasSubstr("own.cu.o: expected one cubin of sm_80, it has 0"));
}

}  // namespace
}  // namespace kshot::test
