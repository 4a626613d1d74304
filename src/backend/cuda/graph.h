// A stream's work as a CUDA graph: one launch instead of the hundreds of kernels of a
// meta-gradient.
#pragma once

#include <functional>

#include "backend/cuda/memory.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Work is captured anew each time, because its arguments change (keys of random numbers, rates).
/// The executable graph is then updated, which is cheap. It is made again only where the graph's
/// shape changed.
class Graph {
 public:
  Graph() = default;
  ~Graph() {
    if (executable_) cudaGraphExecDestroy(executable_);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  /// Records the work that `work` puts on the stream, without running it. Returns false where a
  /// graph cannot hold it (it allocates, or waits); nothing has run then. Exceptions of `work`
  /// itself are passed on.
  bool capture(const Stream& stream, const std::function<void()>& work);
  void launch(const Stream& stream) const {
    KSHOT_CUDA_CHECK(cudaGraphLaunch(executable_, stream.get()));
  }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
