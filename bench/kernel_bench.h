// Times each kernel alone on a GPU (kernel_works.h), and finds the device's peak. Only in builds
// with CUDA.
#pragma once

#include <cstddef>
#include <string>

namespace kshot::bench {

/// The peak of a GPU by its clocks and units: FP32 operations per second (a multiply-add counts as
/// two), and bytes of device memory per second. The clock is the highest one; a device under load
/// may run at a lower one.
struct DevicePeak {
  double flops = 0, bytes = 0;
};
/// `device` is "cuda" or "cuda:N", and must be usable.
DevicePeak device_peak(const std::string& device);

/// Returns the bytes of the current device's memory that all programs together use.
std::size_t device_bytes_taken();

/// Registers a benchmark kernel/LAUNCHER/PROBLEM for each kernel, which is timed by the device's
/// events. The counters are bytes_per_second and FLOP/s, from the least bytes and operations of the
/// kernel, and their shares of the peak.
void register_kernels(const std::string& device);

}  // namespace kshot::bench
