// The kernels alone on a GPU (kernel_works.h), and what the device could do. In builds with CUDA.
#pragma once

#include <cstddef>
#include <string>

namespace kshot::bench {

/// What a GPU's clocks and units come to: FP32 multiply-adds, two operations each, and bytes of
/// device memory, both a second. The clock is the highest; a device under load may hold a lower
/// one.
struct DevicePeak {
  double flops = 0, bytes = 0;
};
/// device: "cuda" or "cuda:N", one that can be used.
DevicePeak device_peak(const std::string& device);

/// Bytes of the current device's memory that are taken, by whomever.
std::size_t device_bytes_taken();

/// Registers a benchmark kernel/LAUNCHER/PROBLEM for each kernel, timed by the device's events.
/// Counters: bytes_per_second and FLOP/s of what cannot be done without, and their shares of the
/// peak.
void register_kernels(const std::string& device);

}  // namespace kshot::bench
