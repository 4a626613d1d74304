// Every kernel alone, on problems of the sizes that training has: what kshot_bench times on a GPU
// and tests/simt runs once on the emulator. Compiled for either, like the backend
// (kernels/runtime.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/runtime.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

/// Device memory of one work, filled; freed with the arena. Offsets of what it gives are multiples
/// of 256 bytes.
class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// Uniform in [low, high).
  float* uniform(std::size_t count, float low = -1.0f, float high = 1.0f);
  float* zeros(std::size_t count);
  double* doubles(std::size_t count);  ///< zeros
  std::uint8_t* bytes(std::size_t count);
  /// i mod below.
  std::int32_t* labels(std::size_t count, int below);
  template <class T>
  T* upload(const std::vector<T>& values) {
    return static_cast<T*>(copy(values.data(), values.size() * sizeof(T)));
  }
  /// Bytes that are not finite as floats, of all that uniform and zeros gave.
  std::size_t not_finite() const;

 private:
  void* allocate(std::size_t bytes);
  void* copy(const void* host, std::size_t bytes);
  struct Floats {
    float* data;
    std::size_t count;
  };
  std::vector<void*> blocks_;
  std::vector<Floats> floats_;
};

struct KernelWork {
  using Run = std::function<void(cudaStream_t)>;

  std::string name;  ///< launcher/problem
  int tasks = 0;
  double bytes = 0;  ///< that a launch cannot do without, each array once
  double flops = 0;  ///< likewise; a multiply-add counts two
  /// Makes the arrays; the result launches the kernel once more each time, on the same arrays.
  std::function<Run(Arena&)> prepare;
};

/// Works put together by one file.
class WorkList {
 public:
  using Run = KernelWork::Run;

  std::vector<KernelWork> take() { return std::move(all_); }

 protected:
  explicit WorkList(bool smoke) : smoke_(smoke) {}
  /// numbers: moved by a launch, in floats.
  void add(const std::string& launcher, const std::string& problem, int tasks, double numbers,
           double flops, std::function<Run(Arena&)> prepare) {
    all_.push_back(
        {launcher + "/" + problem, tasks, numbers * sizeof(float), flops, std::move(prepare)});
  }
  static std::size_t count_of(int a, int b = 1, int c = 1) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c);
  }
  /// Factors are so small that nothing grows out of range, however often a launch is repeated.
  static constexpr float small = 1e-6f;

  bool smoke_;

 private:
  std::vector<KernelWork> all_;
};

/// `smoke`: two tasks and small shapes, for the emulator. A new kernel is an entry in
/// kernel_works.cpp.
std::vector<KernelWork> kernel_works(bool smoke);
/// Those of them for generated weights and for noise by rows (generator_works.cpp).
std::vector<KernelWork> generator_works(bool smoke);
/// And those of small perceptrons (perceptron_works.cpp).
std::vector<KernelWork> perceptron_works(bool smoke);
/// And those of closed-form heads (head_works.cpp).
std::vector<KernelWork> head_works(bool smoke);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
