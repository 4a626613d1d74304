// `verify`: compares the results of a case with the expected numbers in its folder.
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <optional>

#include "cli/commands.h"
#include "engine/verify.h"
#include "io/npy.h"
#include "io/output_file.h"

namespace kshot::cli {

int run_verify(const VerifyArguments& a) {
  std::optional<backend::Precision> precision;
  if (!a.precision.empty()) {
    precision = a.precision == "f64" ? backend::Precision::f64 : backend::Precision::f32;
  }
  const std::filesystem::path folder = a.folder;
  std::optional<io::OutputFile> file;
  if (!a.out.empty()) {
    file.emplace(a.out, io::OutputKind::arrays,
                 std::vector{folder / "inputs.npz", folder / "expected.npz"});
  }
  const VerifyResult result = verify_case(a.folder, a.machine.device, precision, a.machine.threads);
  if (file) {
    io::write_npz(file->path(), result.values);
    file->written();
  }
  fmt::print("{}: {}\n", folder.string(), result.device);
  std::size_t width = 0;
  for (const VerifyKey& key : result.keys) width = std::max(width, key.name.size());
  std::size_t bad = 0;
  for (const VerifyKey& key : result.keys) {
    const bool good = key.error <= result.tolerance;
    bad += !good;
    fmt::print("  {:<{}}  {:.3e}{}\n", key.name, width, key.error,
               good ? "" : "  OUT OF TOLERANCE");
  }
  if (result.keys.empty()) {
    fmt::print("  no expected.npz: {} results computed, none compared\n", result.values.size());
  } else if (bad == 0) {
    fmt::print("  all {} results within {:.0e}\n", result.keys.size(), result.tolerance);
  } else {
    fmt::print("  {} of {} results out of tolerance {:.0e}\n", bad, result.keys.size(),
               result.tolerance);
  }
  return result.within() ? 0 : 1;
}

}  // namespace kshot::cli
