#include "backend/backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/reference/reference_backend.h"
#include "kshot/error.h"

namespace kshot::backend {
namespace {

#ifdef KSHOT_HAS_CUDA
constexpr bool has_cuda = true;
#else
constexpr bool has_cuda = false;
#endif

constexpr const char* no_cuda =
    "this build has no CUDA backend (install the CUDA toolkit 13, then ./kshot ... --device cuda, "
    "or "
    "configure with -DKSHOT_CUDA=ON: docs/cuda.md)";
constexpr const char* no_simt =
    "this build has no emulated CUDA backend (./kshot ... --device simt builds it, as does "
    "configuring "
    "with -DKSHOT_SIMT=ON)";

/// The list is made on first use, because backends add themselves before main, in any order.
std::vector<AddedBackend>& added_backends() {
  static std::vector<AddedBackend> list;
  return list;
}

/// Limit of the number of threads. Each thread has its own waves, and more than a few threads per
/// core only wait for each other.
int most_threads() {
  return std::max(256, 4 * static_cast<int>(std::thread::hardware_concurrency()));
}

bool names_cuda(const std::string& device) {
  return device == "cuda" || device.starts_with("cuda:");
}

}  // namespace

double Backend::value(const std::function<void(Sum to)>& work) {
  if (!value_step_) value_step_ = open_step();
  value_step_->clear();
  work({*value_step_, &StepStatistics::outside});
  return value_step_->read().outside;
}

std::vector<DeviceInfo> list_devices() {
  std::vector<DeviceInfo> devices = {
      {"cpu", make_cpu_backend(0)->description(), true, ""},
      {"reference", make_reference_backend(0)->description(), true, ""}};
  if constexpr (has_cuda) {
    for (DeviceInfo& gpu : list_cuda_devices()) devices.push_back(std::move(gpu));
  } else {
    devices.push_back({"cuda", "NVIDIA GPU", false, no_cuda});
  }
  for (const AddedBackend& added : added_backends()) devices.push_back(added.device);
  return devices;
}

bool add_backend(AddedBackend backend) {
  added_backends().push_back(std::move(backend));
  return true;
}

std::unique_ptr<Backend> make_backend(const std::string& device, int threads,
                                      std::optional<Precision> precision) {
  if (threads < 0 || threads > most_threads()) {
    throw Error(fmt::format("threads = {}: expected 0 (all cores) to {} on this machine", threads,
                            most_threads()));
  }
  if (device == "cpu" || device == "auto") return make_cpu_backend(threads);
  if (device == "reference") return make_reference_backend(threads);
  if (names_cuda(device)) {
    if constexpr (has_cuda) {
      return make_cuda_backend(device, threads, precision.value_or(Precision::f32));
    }
    throw DeviceError(
        fmt::format("device \"{}\": {} (use \"auto\", \"cpu\" or \"reference\")", device, no_cuda));
  }
  for (const AddedBackend& added : added_backends()) {
    if (added.device.name == device) return added.make(threads, precision.value_or(Precision::f32));
  }
  if (device == "simt") {
    throw DeviceError(fmt::format("device \"simt\": {}", no_simt));
  }
  throw Error(fmt::format(
      "device \"{}\" is unknown: expected \"auto\", \"cpu\", \"reference\" or \"cuda\"", device));
}

}  // namespace kshot::backend
