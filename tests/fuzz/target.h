// Helpers that the fuzz targets share. A target feeds bytes to one parser. Every target requires
// that its parser either accepts the bytes or throws kshot::Error. Anything else is a failure:
// another exception, a sanitizer's report, a leak, or memory or time beyond the limits of
// tests/fuzz/run.
//
// A file NAME_target.cpp defines one target with KSHOT_FUZZ_TARGET(NAME). With KSHOT_FUZZ it
// becomes the libFuzzer program fuzz_NAME. In every other build it is a part of test_fuzz, which
// feeds it the corpus (tests/fuzz/corpus/NAME).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <string_view>

#include "kshot/error.h"
#include "support/put_file.h"
#include "support/temp_folder.h"

namespace kshot::fuzz {

using Target = void (*)(std::string_view bytes);

/// All targets of this program by name.
inline std::map<std::string, Target>& targets() {
  static std::map<std::string, Target> all;
  return all;
}

/// Aborts where the parser breaks a promise that no sanitizer checks.
inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: broken promise: %s\n", what);
  std::abort();
}

/// Runs `parse` and accepts kshot::Error as an answer. The error's message must contain `name`, the
/// name of the faulty file. Returns true where the parser accepted the bytes.
template <typename Parse>
bool accepts(std::string_view name, Parse&& parse) {
  try {
    parse();
    return true;
  } catch (const Error& error) {
    const std::string_view message = error.what();
    require(!message.empty(), "an error has a message");
    require(message.find(name) != std::string_view::npos, "the message names the file");
    return false;
  }
}

/// Writes the bytes to a file in a folder of this process. TMPDIR says where the folder is.
inline std::filesystem::path input(const std::string& name, std::string_view bytes) {
  static const test::TempFolder folder;
  std::ofstream file(folder / name, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) throw std::runtime_error("fuzz: cannot write the input");
  return folder / name;
}

/// Removes the first byte of the input. The byte chooses between variants of the target.
inline std::uint8_t take_byte(std::string_view* bytes) {
  if (bytes->empty()) return 0;
  const auto byte = static_cast<std::uint8_t>(bytes->front());
  bytes->remove_prefix(1);
  return byte;
}

}  // namespace kshot::fuzz

#ifdef KSHOT_FUZZ
#define KSHOT_FUZZ_ENTRY(name)                                                        \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) { \
    name(std::string_view(reinterpret_cast<const char*>(data), size));                \
    return 0;                                                                         \
  }
#else
#define KSHOT_FUZZ_ENTRY(name)                       \
  [[maybe_unused]] static const bool name##_listed = \
      kshot::fuzz::targets().emplace(#name, name).second;
#endif

#define KSHOT_FUZZ_TARGET(name)             \
  static void name(std::string_view bytes); \
  KSHOT_FUZZ_ENTRY(name)                    \
  static void name(std::string_view bytes)
