// Compares a backend's gradients for explicit inputs with numbers from elsewhere. A case is a
// folder with case.toml (the objective, in a configuration's own tables), inputs.npz and, to
// compare with, expected.npz.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "io/npy.h"

namespace kshot {

/// One compared array.
struct VerifyKey {
  std::string name;
  /// Largest |got - want| / (1e-8 + scale): scale is the array's largest |want|, for a gradient
  /// plus a tenth of the largest |want| among all gradients of the case (so that the rounding noise
  /// of a gradient that is zero does not count as an error).
  double error = 0.0;
};

struct VerifyResult {
  std::map<std::string, io::NpyArray> values;  ///< what was computed
  std::vector<VerifyKey> keys;                 ///< empty where there is no expected.npz
  double tolerance = 0.0;                      ///< 1e-9 in double, 1e-4 in single precision
  std::string device;
  bool within() const;
};

/// Computes a case and compares it. Throws Error for a case that cannot be read, and for a device
/// and precision that do not exist together.
VerifyResult verify_case(const std::filesystem::path& folder, const std::string& device,
                         std::optional<backend::Precision> precision, int threads = 0);

}  // namespace kshot
