// The errors of the CUDA backend for a device that is missing, too old, full or lost, on the
// emulator. tests/backend and tests/algorithms test its numbers together with every other
// backend's.
#include "backend/backend.h"

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "emulator/simt.h"
#include "kshot/error.h"
#include "simt/orders.h"
#include "support/environment.h"
#include "support/error_text.h"

namespace kshot {
namespace {

using backend::make_backend;
using test::error_text;
using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;

bool built() {
  for (const backend::DeviceInfo& device : backend::list_devices()) {
    if (device.name == "simt") return true;
  }
  return false;
}

class CudaBackend : public testing::Test {
 protected:
  void SetUp() override {
    if (!built()) GTEST_SKIP() << "this build leaves the emulated CUDA backend out";
  }
  static double squared_norm(backend::Backend& made, const backend::SharedVector& v) {
    return made.value([&](backend::Sum to) { made.squared_norm(v, 0.0, to); });
  }
  static std::shared_ptr<const Network> mlp() {
    return std::make_shared<const Network>(Network::mlp({2, 5, 3}, LayerType::relu));
  }
};

TEST_F(CudaBackend, SaysWhatItIs) {
  for (const auto precision : {backend::Precision::f32, backend::Precision::f64}) {
    const auto made = make_backend("simt", 3, precision);
    EXPECT_EQ(made->name(), "simt");
    EXPECT_EQ(made->precision(), precision);
    EXPECT_EQ(made->concurrency(), 3);
    EXPECT_THAT(made->description(),
                HasSubstr(precision == backend::Precision::f32 ? "float" : "double"));
    EXPECT_EQ(made->open(mlp(), {}, {3, 4, true})->capacity() % 16, 0);
  }
}

TEST_F(CudaBackend, TakesTensorCoresWhereThereAreSome) {
  const auto description = [](const char* setting, int compute_capability,
                              backend::Precision precision = backend::Precision::f32) {
    const simt::With with({.compute_capability = compute_capability});
    const test::Environment environment("KSHOT_TENSOR_CORES", setting);
    return make_backend("simt", 1, precision)->description();
  };
  const auto on = HasSubstr("TF32 split three ways"), off = HasSubstr("without tensor cores");
  EXPECT_THAT(description(nullptr, 90), on);
  EXPECT_THAT(description(nullptr, 80), on);
  EXPECT_THAT(description(nullptr, 75), off);
  EXPECT_THAT(description("0", 90), off);
  EXPECT_THAT(description("1", 90), on);
  EXPECT_THAT(description("1", 90, backend::Precision::f64), Not(AnyOf(on, off)));
  EXPECT_THAT(error_text([&] { description("1", 75); }),
              HasSubstr("KSHOT_TENSOR_CORES = \"1\": expected a device of compute capability 8.0"));
  EXPECT_THAT(error_text([&] { description("yes", 90); }),
              HasSubstr("KSHOT_TENSOR_CORES = \"yes\": expected 0"));
}

TEST_F(CudaBackend, ItsKernelsRunOnTheEmulator) {
  const auto before = simt::counters().kernels;
  const auto made = make_backend("simt", 1);
  const auto v = made->shared(3);
  v->upload(std::vector<double>{1, 2, 3});
  EXPECT_EQ(squared_norm(*made, *v), 14.0);
  EXPECT_GT(simt::counters().kernels, before);
}

TEST_F(CudaBackend, ADeviceThatCannotBeUsedIsOneClearError) {
  const auto message = [](const simt::Settings& settings) {
    const simt::With with(settings);
    EXPECT_THROW(make_backend("simt", 1), DeviceError);
    return error_text([] { make_backend("simt", 1); });
  };
  EXPECT_THAT(message({.devices = 0}), AllOf(HasSubstr("\"simt\""), HasSubstr("no NVIDIA GPU")));
  EXPECT_THAT(message({.driver_version = 12040}),
              AllOf(HasSubstr("driver is too old"), HasSubstr("12.4"), HasSubstr("13.0")));
  EXPECT_THAT(message({.sticky_error = cudaErrorLaunchFailure}),
              HasSubstr("cudaErrorLaunchFailure"));
}

TEST_F(CudaBackend, MemoryThatRunsOutIsOneClearError) {
  const auto made = make_backend("simt", 1);
  const simt::With with({.memory = simt::allocated_bytes() + 4096});
  EXPECT_THAT(error_text([&] { made->shared(1 << 20); }),
              AllOf(HasSubstr("4 MiB of device memory asked for"), HasSubstr("out of memory")));
  EXPECT_THROW(made->shared(1 << 20), DeviceError);
  EXPECT_NO_THROW(made->shared(16)) << "the device is still there";
}

TEST_F(CudaBackend, WavesThatArePlannedLaterLeaveRoomForThoseBefore) {
  const test::Environment most("KSHOT_WAVE_TASKS", "4096");
  const auto made = make_backend("simt", 1);
  const auto parameters = made->shared(1 << 16);  // allocated before, and not part of a wave
  const simt::With with({.memory = simt::allocated_bytes() + (1 << 20)});
  const auto plan = [&](const backend::WaveShape& shape) {
    return made->plan_waves([&](int) {
      backend::WaveDemand demand;
      demand.network = mlp();
      demand.shape = shape;
      return demand;
    });
  };
  const auto open = [&](const backend::WaveShape& shape) {
    auto wave = made->open(mlp(), {}, shape);
    EXPECT_EQ(wave->capacity(), plan(shape).tasks);
    return wave;
  };
  constexpr backend::WaveShape first{9, 9, true}, second{8, 8, true}, third{7, 7, true};
  for (const backend::WaveShape& shape : {first, second}) {
    EXPECT_GT(plan(shape).tasks, 16);
    EXPECT_LT(plan(shape).tasks, 4096);
  }
  auto a = open(first);
  const auto b = open(second);
  // After a wave is closed, it can be opened again.
  a.reset();
  plan(third);
  const auto c = open(third);
  a = open(first);
}

TEST_F(CudaBackend, ALostDeviceIsNoticed) {
  const auto made = make_backend("simt", 1);
  const auto v = made->shared(4);
  {
    const simt::With with({.sticky_error = cudaErrorIllegalAddress});
    EXPECT_THROW(squared_norm(*made, *v), DeviceError);
  }
  EXPECT_EQ(squared_norm(*made, *v), 0.0);
}

TEST_F(CudaBackend, NothingIsLeftBehind) {
  const std::size_t before = simt::live_allocations();
  {
    const auto made = make_backend("simt", 1);
    const auto wave = made->open(mlp(), {}, {3, 4, true});
    wave->weights();
    EXPECT_GT(simt::live_allocations(), before);
  }
  EXPECT_EQ(simt::live_allocations(), before);
}

}  // namespace
}  // namespace kshot
