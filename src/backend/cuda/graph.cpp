#include "backend/cuda/graph.h"

#include <exception>

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

bool Graph::capture(const Stream& stream, const std::function<void()>& work) {
  // Other threads continue with their own work, because only this thread's calls are captured.
  KSHOT_CUDA_CHECK(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal));
  std::exception_ptr error;
  try {
    work();
  } catch (...) {
    error = std::current_exception();
  }
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  KSHOT_CUDA_CHECK(cudaStreamIsCapturing(stream.get(), &status));
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream.get(), &graph);
  if (status == cudaStreamCaptureStatusInvalidated) {
    cudaGetLastError();  // clears the error of a call that a capture does not allow
    return false;
  }
  if (error) {
    if (graph) cudaGraphDestroy(graph);
    std::rethrow_exception(error);
  }
  check(ended, "cudaStreamEndCapture");
  cudaError_t updated = cudaErrorUnknown;
  if (executable_) {
    cudaGraphExecUpdateResultInfo info{};
    updated = cudaGraphExecUpdate(executable_, graph, &info);
  }
  if (updated != cudaSuccess) {
    cudaGetLastError();
    if (executable_) cudaGraphExecDestroy(executable_);
    executable_ = nullptr;
    updated = cudaGraphInstantiate(&executable_, graph, 0);
  }
  cudaGraphDestroy(graph);
  check(updated, "cudaGraphInstantiate");
  return true;
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
