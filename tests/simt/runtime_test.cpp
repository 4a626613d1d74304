// The stand-in for CUDA's runtime: memory, streams, events, graphs and errors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "kshot/error.h"
#include "simt/device_array.h"
#include "simt/kernels/good.h"
#include "simt/orders.h"

namespace kshot::cuda {
namespace {

using simt::With;
using testing::Each;
using testing::HasSubstr;

template <class Action>
std::string failure_of(Action action) {
  try {
    action();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

std::vector<float> ones(std::size_t n) {
  return std::vector<float>(n, 1.0f);
}

class Stream {
 public:
  Stream() { KSHOT_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event() { KSHOT_CUDA_CHECK(cudaEventCreate(&event_)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

TEST(Errors, NameCallAndDevice) {
  const With with({.memory = 1 << 20});
  void* pointer = nullptr;
  EXPECT_EQ(failure_of([&] { KSHOT_CUDA_CHECK(cudaMalloc(&pointer, 2 << 20)); }),
            "CUDA device 0 (emulated device): cudaMalloc: out of memory "
            "(cudaErrorMemoryAllocation)");
  EXPECT_THROW(KSHOT_CUDA_CHECK(cudaSetDevice(1)), DeviceError);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "the error was taken";
}

TEST(Errors, LostDeviceMissingDeviceOldDriver) {
  DeviceArray<float> x(ones(64));
  {
    const With with({.sticky_error = cudaErrorIllegalAddress});
    EXPECT_THAT(failure_of([&] { axpy(x.data(), 1.0f, x.data(), 64, nullptr); }),
                HasSubstr("kernel axpy_kernel: an illegal memory access was encountered"));
    EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
  }
  int count = -1;
  {
    const With with({.devices = 0});
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
    EXPECT_EQ(count, 0);
  }
  const With with({.driver_version = 12040});
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
}

TEST(Memory, LimitCountAndRelease) {
  const With with({.memory = 1000});
  const std::size_t before = simt::live_allocations();
  std::size_t free = 0, total = 0;
  {
    DeviceArray<char> x(600);
    EXPECT_EQ(simt::live_allocations(), before + 1);
    KSHOT_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    EXPECT_EQ(free, 400u);
    EXPECT_EQ(total, 1000u);
    EXPECT_THROW(DeviceArray<char>(401), DeviceError);
    EXPECT_NO_THROW(DeviceArray<char>(400));
  }
  EXPECT_EQ(simt::live_allocations(), before);
  float* gone = nullptr;
  KSHOT_CUDA_CHECK(cudaMalloc(&gone, 256));
  KSHOT_CUDA_CHECK(cudaMemset(gone, 0, 256));
  KSHOT_CUDA_CHECK(cudaFree(gone));
  EXPECT_EQ(cudaFree(gone), cudaErrorInvalidValue);
  DeviceArray<float> x(ones(64));
  EXPECT_THAT(failure_of([&] { axpy(x.data(), 1.0f, gone, 64, nullptr); }),
              HasSubstr("freed memory"));
}

TEST(Memory, CopiesAreChecked) {
  DeviceArray<float> x(ones(64));
  std::vector<float> host(65);
  EXPECT_THAT(failure_of([&] {
                cudaMemcpy(host.data(), x.data(), 65 * sizeof(float), cudaMemcpyDeviceToHost);
              }),
              HasSubstr("260 bytes, out of bounds: byte 0 of device allocation"));
  EXPECT_THAT(
      failure_of([&] { cudaMemcpy(host.data(), x.data(), sizeof(float), cudaMemcpyHostToDevice); }),
      HasSubstr("not the kind that was said"));
}

TEST(Memory, CopyCarriesWhatWasNeverWritten) {
  DeviceArray<float> x(64), y(64), z(ones(64));
  KSHOT_CUDA_CHECK(cudaMemset(x.data(), 0, 32 * sizeof(float)));
  KSHOT_CUDA_CHECK(cudaMemcpy(y.data(), x.data(), 64 * sizeof(float), cudaMemcpyDeviceToDevice));
  EXPECT_NO_THROW(axpy(z.data(), 1.0f, y.data(), 32, nullptr));
  EXPECT_THAT(failure_of([&] { axpy(z.data(), 1.0f, y.data(), 33, nullptr); }),
              HasSubstr("never written: byte 128 of device allocation"));
}

// Pinned memory is read when the copy runs, not when the copy is put on the stream.
TEST(Streams, LazyShowsBufferOverwrittenTooEarly) {
  const With with({.lazy = true});
  float* pinned = nullptr;
  KSHOT_CUDA_CHECK(cudaMallocHost(&pinned, 64 * sizeof(float)));
  DeviceArray<float> x(64);
  const Stream stream;
  const auto fill_and_send = [&](float value) {
    std::fill_n(pinned, 64, value);
    KSHOT_CUDA_CHECK(
        cudaMemcpyAsync(x.data(), pinned, 64 * sizeof(float), cudaMemcpyHostToDevice, stream));
  };
  fill_and_send(1.0f);
  std::fill_n(pinned, 64, 2.0f);  // too early
  KSHOT_CUDA_CHECK(cudaStreamSynchronize(stream));
  EXPECT_THAT(x.host(), Each(2.0f));
  fill_and_send(3.0f);
  KSHOT_CUDA_CHECK(cudaStreamSynchronize(stream));
  std::fill_n(pinned, 64, 4.0f);
  EXPECT_THAT(x.host(), Each(3.0f));
  KSHOT_CUDA_CHECK(cudaFreeHost(pinned));
}

TEST(Streams, LazyShowsMissingWaitBetweenStreams) {
  const With with({.lazy = true});
  for (const bool waits : {true, false}) {
    const Stream first, second;
    const Event filled;
    DeviceArray<float> x(64), y(ones(64));
    KSHOT_CUDA_CHECK(cudaMemsetAsync(x.data(), 0, 64 * sizeof(float), first));
    KSHOT_CUDA_CHECK(cudaEventRecord(filled, first));
    EXPECT_EQ(cudaEventQuery(filled), cudaErrorNotReady);
    if (waits) KSHOT_CUDA_CHECK(cudaStreamWaitEvent(second, filled));
    axpy(y.data(), 1.0f, x.data(), 64, second);
    const std::string failure =
        failure_of([&] { KSHOT_CUDA_CHECK(cudaStreamSynchronize(second)); });
    EXPECT_EQ(failure.empty(), waits);
    if (!waits) {
      EXPECT_THAT(failure, HasSubstr("never written"));
    }
  }
}

// Work that nothing waited for runs when its memory is freed, in a destructor. The next call
// reports its error.
TEST(Streams, LazyReportsWhatDestructorsFind) {
  const With with({.lazy = true});
  {
    DeviceArray<float> x(64);
    axpy(x.data(), 1.0f, x.data(), 64, nullptr);
  }
  EXPECT_THAT(failure_of([] { cudaDeviceSynchronize(); }), HasSubstr("never written"));
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  cudaGetLastError();
}

TEST(Streams, EventsTellTime) {
  const Stream stream;
  const Event start, stop;
  DeviceArray<float> x(ones(4096)), y(ones(4096));
  KSHOT_CUDA_CHECK(cudaEventRecord(start, stream));
  axpy(y.data(), 1.0f, x.data(), 4096, stream);
  KSHOT_CUDA_CHECK(cudaEventRecord(stop, stream));
  KSHOT_CUDA_CHECK(cudaEventSynchronize(stop));
  float milliseconds = -1.0f;
  KSHOT_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start, stop));
  EXPECT_GT(milliseconds, 0.0f);
}

TEST(Graphs, ReplayWhatWasCaptured) {
  for (const bool lazy : {false, true}) {
    const With with({.lazy = lazy});
    const Stream stream, side;
    const Event fork, join;
    DeviceArray<float> x(ones(64)), y(ones(64)), z(ones(64));
    const std::uint64_t kernels = simt::counters().kernels;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    KSHOT_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    axpy(y.data(), 1.0f, x.data(), 64, stream);  // y += x
    KSHOT_CUDA_CHECK(cudaEventRecord(fork, stream));
    KSHOT_CUDA_CHECK(cudaStreamWaitEvent(side, fork));
    axpy(z.data(), 2.0f, y.data(), 64, side);  // z += 2 y
    KSHOT_CUDA_CHECK(cudaEventRecord(join, side));
    KSHOT_CUDA_CHECK(cudaStreamWaitEvent(stream, join));
    KSHOT_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    EXPECT_EQ(simt::counters().kernels, kernels) << "capture does not run";
    KSHOT_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
    KSHOT_CUDA_CHECK(cudaGraphDestroy(graph));
    for (int i = 0; i < 3; ++i) KSHOT_CUDA_CHECK(cudaGraphLaunch(executable, stream));
    KSHOT_CUDA_CHECK(cudaStreamSynchronize(stream));
    EXPECT_EQ(simt::counters().kernels, kernels + 6);
    EXPECT_THAT(y.host(), Each(4.0f));  // 2, 3, 4
    EXPECT_THAT(z.host(), Each(1.0f + 2.0f * (2.0f + 3.0f + 4.0f)));
    KSHOT_CUDA_CHECK(cudaGraphExecDestroy(executable));
  }
}

TEST(Graphs, CaptureRefusesWhatTheDeviceRefuses) {
  const Stream stream, side;
  const Event fork;
  DeviceArray<float> x(ones(64));
  cudaGraph_t graph = nullptr;
  void* pointer = nullptr;
  KSHOT_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  EXPECT_EQ(cudaMalloc(&pointer, 64), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
  KSHOT_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
  KSHOT_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  KSHOT_CUDA_CHECK(cudaEventRecord(fork, stream));
  KSHOT_CUDA_CHECK(cudaStreamWaitEvent(side, fork));
  axpy(x.data(), 1.0f, x.data(), 64, side);
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureUnjoined);
  cudaGetLastError();
}

TEST(Graphs, UpdateTakesNewArgumentsAndNoOtherShape) {
  const Stream stream;
  DeviceArray<float> x(ones(64)), y(ones(64));
  const auto capture = [&](float a, int times) {
    cudaGraph_t graph = nullptr;
    KSHOT_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < times; ++i) axpy(y.data(), a, x.data(), 64, stream);
    KSHOT_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    return graph;
  };
  cudaGraph_t graphs[] = {capture(1.0f, 1), capture(5.0f, 1), capture(1.0f, 2)};
  cudaGraphExec_t executable = nullptr;
  KSHOT_CUDA_CHECK(cudaGraphInstantiate(&executable, graphs[0], 0));
  cudaGraphExecUpdateResultInfo info{};
  KSHOT_CUDA_CHECK(cudaGraphExecUpdate(executable, graphs[1], &info));
  KSHOT_CUDA_CHECK(cudaGraphLaunch(executable, stream));
  EXPECT_EQ(cudaGraphExecUpdate(executable, graphs[2], &info), cudaErrorGraphExecUpdateFailure);
  EXPECT_EQ(info.result, cudaGraphExecUpdateErrorTopologyChanged);
  cudaGetLastError();
  KSHOT_CUDA_CHECK(cudaGraphLaunch(executable, stream));
  KSHOT_CUDA_CHECK(cudaStreamSynchronize(stream));
  EXPECT_THAT(y.host(), Each(1.0f + 5.0f + 5.0f));
  for (cudaGraph_t graph : graphs) KSHOT_CUDA_CHECK(cudaGraphDestroy(graph));
  KSHOT_CUDA_CHECK(cudaGraphExecDestroy(executable));
}

TEST(Graphs, CaptureOfOneThreadLeavesTheOthersAlone) {
  const Stream stream;
  const auto allocates = [] {
    void* pointer = nullptr;
    const cudaError_t error = cudaMalloc(&pointer, 64);
    cudaFree(pointer);
    return error;
  };
  const auto elsewhere = [&] {
    cudaError_t error = cudaErrorUnknown;
    std::thread([&] { error = allocates(); }).join();
    return error;
  };
  cudaGraph_t graph = nullptr;
  KSHOT_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  EXPECT_EQ(elsewhere(), cudaSuccess);
  KSHOT_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  KSHOT_CUDA_CHECK(cudaGraphDestroy(graph));
  KSHOT_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  EXPECT_EQ(allocates(), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
  KSHOT_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  EXPECT_EQ(elsewhere(), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
  cudaGetLastError();
}

TEST(Thrust, ScanAndCompaction) {
  for (const bool lazy : {false, true}) {
    const With with({.lazy = lazy});
    const Stream stream;
    DeviceArray<int> counts(std::vector<int>{3, 0, 1, 0, 5}), starts(5), kept(3);
    EXPECT_EQ(starts_and_kept(starts.data(), kept.data(), counts.data(), 5, stream), 3);
    KSHOT_CUDA_CHECK(cudaStreamSynchronize(stream));
    EXPECT_THAT(starts.host(), testing::ElementsAre(0, 3, 3, 4, 4));
    EXPECT_THAT(kept.host(), testing::ElementsAre(0, 2, 4));
    EXPECT_THAT(failure_of([&] {
                  starts_and_kept(starts.data(), kept.data(), counts.data(), 6, stream);
                  KSHOT_CUDA_CHECK(cudaStreamSynchronize(stream));
                }),
                HasSubstr("Thrust: 24 bytes, out of bounds: byte 0 of device allocation"));
  }
}

}  // namespace
}  // namespace kshot::cuda
