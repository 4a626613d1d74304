#include "backend/backend.h"

#include <fmt/format.h>

#include "backend/cpu/cpu_backend.h"
#include "backend/reference/reference_backend.h"
#include "kshot/error.h"

namespace kshot::backend {
namespace {

constexpr const char* no_cuda = "this build has no CUDA backend";

bool names_cuda(const std::string& device) {
  return device == "cuda" || device.starts_with("cuda:");
}

}  // namespace

std::vector<DeviceInfo> list_devices() {
  return {{"cpu", make_cpu_backend(0)->description(), true, ""},
          {"reference", make_reference_backend(0)->description(), true, ""},
          {"cuda", "NVIDIA GPU", false, no_cuda}};
}

std::unique_ptr<Backend> make_backend(const std::string& device, int threads) {
  if (threads < 0) {
    throw Error(fmt::format("threads = {}: expected 0 (all cores) or a positive number", threads));
  }
  if (device == "cpu" || device == "auto") return make_cpu_backend(threads);
  if (device == "reference") return make_reference_backend(threads);
  if (names_cuda(device)) {
    throw DeviceError(
        fmt::format("device \"{}\": {} (use \"auto\", \"cpu\" or \"reference\")", device, no_cuda));
  }
  throw Error(fmt::format(
      "device \"{}\" is unknown: expected \"auto\", \"cpu\", \"reference\" or \"cuda\"", device));
}

}  // namespace kshot::backend
