// A stream's work as a CUDA graph: one launch for the hundreds of kernels of a meta-gradient.
#pragma once

#include <functional>

#include "backend/cuda/memory.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Work is captured anew each time, since its arguments change (keys of random numbers, rates); the
/// executable graph is then updated, which is cheap, and made again only where its shape changed.
class Graph {
 public:
  Graph() = default;
  ~Graph() {
    if (executable_) cudaGraphExecDestroy(executable_);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  /// Takes what `work` puts on the stream, without running it. False where a graph cannot hold it
  /// (it allocates, or waits): nothing was run then. Throws what `work` throws of its own.
  bool capture(const Stream& stream, const std::function<void()>& work);
  void launch(const Stream& stream) const {
    KSHOT_CUDA_CHECK(cudaGraphLaunch(executable_, stream.get()));
  }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
