// Sums over tasks in a fixed order (reduction.h).
//
// Mathematics    ((x0 + x1) + (x2 + x3)) + ... over tasks. There are no atomics.
// Layout         Per-task vectors [tasks, width]; sums [runs, width]; nodes as in RunTree.
// Who does what  mark_diverged: one block per task. sum_runs: one thread per element of a run;
//                neighbouring threads take neighbouring elements. count_runs: one thread per run.
//                push_runs, fold_nodes, mean_of_total: one thread per element.
// Outputs        diverged and nodes are accumulated, the others overwritten.
// Bytes          x is read twice, once by mark_diverged and once by sum_runs. The rest is 1/16 of
//                it. push_runs reads and writes one node per 8 aligned runs, and more for the
//                others.
#include "kernels/reduction.h"

#include "kernels/passes.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

template <class T>
__global__ void __launch_bounds__(threads)
    mark_diverged_kernel(std::int32_t* diverged, const T* x, int width) {
  const int task = static_cast<int>(blockIdx.x);
  const std::size_t row = static_cast<std::size_t>(task) * static_cast<std::size_t>(width);
  bool bad = false;
  for (int i = static_cast<int>(threadIdx.x); i < width; i += threads) {
    // Zero times a number that is not finite is not zero.
    bad = bad || !(x[row + static_cast<std::size_t>(i)] * T(0) == T(0));
  }
  const bool any = __syncthreads_or(bad) != 0;
  if (threadIdx.x == 0 && any) diverged[task] = 1;
}

/// (at(first) + at(first + 1)) + ...: the sum of `count` values as a binary tree. It is a
/// recursion, because the compiler puts an array with loops over the levels into the thread's
/// memory.
template <int count, class At>
__device__ __forceinline__ auto tree_sum(const At& at, int first = 0) {
  if constexpr (count == 1) {
    return at(first);
  } else {
    return tree_sum<count / 2>(at, first) + tree_sum<count / 2>(at, first + count / 2);
  }
}

template <class T>
struct SumRun {
  T* sums;
  std::size_t stride;
  const T* x;
  const std::int32_t* diverged;
  int tasks, width;
  __device__ void operator()(int run, int i, std::size_t) const {
    const T sum = tree_sum<run_tasks>([&](int k) {
      const int task = run * run_tasks + k;
      return task < tasks && diverged[task] == 0
                 ? x[static_cast<std::size_t>(task) * static_cast<std::size_t>(width) +
                     static_cast<std::size_t>(i)]
                 : T(0);
    });
    sums[static_cast<std::size_t>(run) * stride + static_cast<std::size_t>(i)] = sum;
  }
};

template <class T>
struct CountRuns {
  double* sums;
  const T* loss;
  const std::int32_t* diverged;
  int tasks;
  __device__ void operator()(std::size_t run) const {
    double own = 0.0, others = 0.0;
    const int first = static_cast<int>(run) * run_tasks;
    const auto counts = [&](int k) { return first + k < tasks && diverged[first + k] == 0; };
    for (int k = 0; k < run_tasks && first + k < tasks; ++k) {
      own += counts(k) ? 1.0 : 0.0;
      others += counts(k) ? 0.0 : 1.0;
    }
    sums[3 * run] = tree_sum<run_tasks>(
        [&](int k) { return counts(k) ? static_cast<double>(loss[first + k]) : 0.0; });
    sums[3 * run + 1] = own;
    sums[3 * run + 2] = others;
  }
};

/// Number of runs that are summed in registers.
constexpr int together = 8;

template <class T>
struct PushRuns {
  RunTree tree;
  const T* sums;
  std::int64_t run;
  int runs;
  std::size_t width;
  __device__ double at(int k, std::size_t i) const {
    return static_cast<double>(sums[static_cast<std::size_t>(k) * width + i]);
  }
  __device__ double& node(int row, std::size_t i) const {
    return tree.nodes[static_cast<std::size_t>(row) * tree.stride + i];
  }
  /// Receives the value of node (level, index), and adds up the nodes that are complete now.
  __device__ void push(int level, std::int64_t index, double value, std::size_t i) const {
    while (index % 2 != 0 && ((index - 1) << level) >= tree.first) {
      value = node(level, i) + value;
      index /= 2;
      ++level;
    }
    node(index % 2 != 0 ? tree.levels + level : level, i) = value;
  }
  __device__ void operator()(std::size_t i) const {
    for (int k = 0; k < runs;) {
      if ((run + k) % together != 0 || runs - k < together) {
        push(0, run + k, at(k, i), i);
        ++k;
        continue;
      }
      push(3, (run + k) / together, tree_sum<together>([&](int j) { return at(k + j, i); }), i);
      k += together;
    }
  }
};

struct FoldNodes {
  double* total;
  const double* nodes;
  std::size_t stride;
  const std::int32_t* merges;
  int count;
  __device__ void operator()(std::size_t i) const {
    double sums[64];  // nodes that wait, at most two per level
    int waiting = 0;
    for (int n = 0; n < count; ++n) {
      sums[waiting++] = nodes[static_cast<std::size_t>(n) * stride + i];
      for (int m = 0; m < merges[n]; ++m) {
        --waiting;
        sums[waiting - 1] += sums[waiting];
      }
    }
    total[i] = waiting > 0 ? sums[0] : 0.0;
  }
};

template <class T>
struct MeanOfTotal {
  T* mean;
  const double* total;
  const double* tasks;
  __device__ void operator()(std::size_t i) const {
    const double scale = tasks[0] > 0.0 ? 1.0 / tasks[0] : 0.0;
    mean[i] = static_cast<T>(total[i] * scale);
  }
};

}  // namespace

template <class T>
void mark_diverged(std::int32_t* diverged, const T* x, Extent extent, cudaStream_t stream) {
  if (extent.count() == 0) return;
  launch<mark_diverged_kernel<T>>(
      {.grid = static_cast<unsigned>(extent.tasks), .block = threads, .stream = stream}, diverged,
      x, extent.width);
}

template <class T>
void sum_runs(T* sums, std::size_t stride, const T* x, const std::int32_t* diverged, Extent extent,
              cudaStream_t stream) {
  const int runs = (extent.tasks + run_tasks - 1) / run_tasks;
  by_task(SumRun<T>{sums, stride, x, diverged, extent.tasks, extent.width}, {runs, extent.width},
          stream);
}

template <class T>
void count_runs(double* sums, const T* loss, const std::int32_t* diverged, int tasks,
                cudaStream_t stream) {
  flat(CountRuns<T>{sums, loss, diverged, tasks},
       static_cast<std::size_t>((tasks + run_tasks - 1) / run_tasks), stream);
}

template <class T>
void push_runs(const RunTree& tree, const T* sums, std::int64_t run, int runs, std::size_t width,
               cudaStream_t stream) {
  flat(PushRuns<T>{tree, sums, run, runs, width}, width, stream);
}

void fold_nodes(double* total, const double* nodes, std::size_t stride, const std::int32_t* merges,
                int count, std::size_t width, cudaStream_t stream) {
  flat(FoldNodes{total, nodes, stride, merges, count}, width, stream);
}

template <class T>
void mean_of_total(T* mean, const double* total, const double* tasks, std::size_t width,
                   cudaStream_t stream) {
  flat(MeanOfTotal<T>{mean, total, tasks}, width, stream);
}

#define KSHOT_INSTANTIATE(T)                                                                       \
  template void mark_diverged(std::int32_t*, const T*, Extent, cudaStream_t);                      \
  template void sum_runs(T*, std::size_t, const T*, const std::int32_t*, Extent, cudaStream_t);    \
  template void count_runs(double*, const T*, const std::int32_t*, int, cudaStream_t);             \
  template void push_runs(const RunTree&, const T*, std::int64_t, int, std::size_t, cudaStream_t); \
  template void mean_of_total(T*, const double*, const double*, std::size_t, cudaStream_t)
KSHOT_INSTANTIATE(float);
KSHOT_INSTANTIATE(double);
#undef KSHOT_INSTANTIATE

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
