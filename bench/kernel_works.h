// Runs every kernel alone, on problems of the sizes that training has. kshot_bench times these
// works on a GPU, and tests/simt runs each once on the emulator. They are compiled for GPU and
// emulator, like the backend (kernels/runtime.h).
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

/// Allocates and fills the device memory of one work, and frees it at its end. Addresses are
/// multiples of 256 bytes.
class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// Numbers that are uniform in [low, high).
  float* uniform(std::size_t count, float low = -1.0f, float high = 1.0f);
  float* zeros(std::size_t count);
  double* doubles(std::size_t count);      ///< zeros
  std::uint8_t* bytes(std::size_t count);  ///< zeros
  /// Label i is i mod `below`.
  std::int32_t* labels(std::size_t count, int below);
  template <class T>
  T* upload(const std::vector<T>& values) {
    return static_cast<T*>(copy(values.data(), values.size() * sizeof(T)));
  }
  /// Returns how many floats of uniform and zeros are not finite.
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

/// A kernel with a problem.
struct KernelWork {
  using Run = std::function<void(cudaStream_t)>;

  std::string name;  ///< launcher/problem
  int tasks = 0;
  double bytes = 0;  ///< least bytes that a launch moves, each array once
  double flops = 0;  ///< least operations of a launch; a multiply-add counts as two
  /// Makes the arrays. Each call of the result launches the kernel once, on the same arrays.
  std::function<Run(Arena&)> prepare;
};

/// The works of one file.
class WorkList {
 public:
  using Run = KernelWork::Run;

  std::vector<KernelWork> take() { return std::move(all_); }

 protected:
  explicit WorkList(bool smoke) : smoke_(smoke) {}
  /// `numbers` is how many floats a launch moves.
  void add(const std::string& launcher, const std::string& problem, int tasks, double numbers,
           double flops, std::function<Run(Arena&)> prepare) {
    all_.push_back(
        {launcher + "/" + problem, tasks, numbers * sizeof(float), flops, std::move(prepare)});
  }
  static std::size_t count_of(int a, int b = 1, int c = 1) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c);
  }
  /// A factor so small that repeated launches do not leave the finite range.
  static constexpr float small = 1e-6f;

  bool smoke_;

 private:
  std::vector<KernelWork> all_;
};

/// Returns the works of all kernels. `smoke` makes two tasks and small shapes, for the emulator. A
/// new kernel needs an entry in kernel_works.cpp.
std::vector<KernelWork> kernel_works(bool smoke);
/// The works of generated weights and of noise by rows (generator_works.cpp).
std::vector<KernelWork> generator_works(bool smoke);
/// The works of small perceptrons (perceptron_works.cpp).
std::vector<KernelWork> perceptron_works(bool smoke);
/// The works of closed-form heads (head_works.cpp).
std::vector<KernelWork> head_works(bool smoke);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
