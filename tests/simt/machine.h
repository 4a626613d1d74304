// Runs the blocks of a grid one after another, each thread of a block on a fiber of its own.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "simt/memory.h"
#include "simt/simt.h"

namespace kshot::simt {

/// A kernel with its arguments, ready to run.
struct Kernel {
  std::string name;
  api::dim3 grid, block;
  std::size_t shared_bytes = 0;
  void (*body)(const void* arguments) = nullptr;
  const void* arguments = nullptr;  ///< readable by the kernel, as the device's parameter bank
  std::size_t argument_bytes = 0;
};

/// Throws Failure where the kernel breaks a rule. One at a time (the runtime's lock sees to it).
void run(const Kernel& kernel);

/// What counters() shows.
Counters& mutable_counters();

/// What instrumented code reports (hooks.cpp). Nothing happens outside of kernels.
void on_access(const void* address, std::size_t bytes, Access kind, const void* code);
void on_undefined(const char* file, unsigned line, const char* what, std::ptrdiff_t value,
                  const char* type);

}  // namespace kshot::simt
