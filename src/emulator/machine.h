// Runs the blocks of a grid one after another. Each thread of a block has a fiber of its own.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "emulator/memory.h"
#include "emulator/simt.h"

namespace kshot::simt {

/// A kernel with its arguments, ready to run.
struct Kernel {
  std::string name;
  api::dim3 grid, block;
  std::size_t shared_bytes = 0;
  void (*body)(const void* arguments) = nullptr;
  /// the kernel may read them, as it reads the parameter bank of a device
  const void* arguments = nullptr;
  std::size_t argument_bytes = 0;
};

/// Runs a kernel. Throws Failure if the kernel breaks a rule. Only one kernel runs at a time; the
/// runtime's lock ensures this.
void run(const Kernel& kernel);

/// The counters that counters() returns.
Counters& mutable_counters();

/// Receives the reports of instrumented code (hooks.cpp). Outside of kernels nothing happens.
void on_access(const void* address, std::size_t bytes, Access kind, const void* code);
void on_undefined(const char* file, unsigned line, const char* what, std::ptrdiff_t value,
                  const char* type);

}  // namespace kshot::simt
