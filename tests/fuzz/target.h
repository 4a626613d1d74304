// What the fuzz targets share. A target feeds bytes to one parser. The contract that every target
// holds its parser to: it takes the bytes, or it throws kshot::Error. Anything else fails: another
// exception, a sanitizer's report, a leak, memory or time beyond the limits of tests/fuzz/run.
//
// A file NAME_target.cpp defines one target with KSHOT_FUZZ_TARGET(NAME). With KSHOT_FUZZ it
// becomes the program fuzz_NAME of libFuzzer. In every other build it is a part of test_fuzz, which
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

/// A broken promise of the parser that no sanitizer sees.
inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: broken promise: %s\n", what);
  std::abort();
}

/// Runs `parse` and takes kshot::Error for an answer. Its message must hold `name`, the name of the
/// file that is at fault. Returns whether the bytes were taken.
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

/// A file with these bytes in a folder of this process, which TMPDIR places.
inline std::filesystem::path input(const std::string& name, std::string_view bytes) {
  static const test::TempFolder folder;
  std::ofstream file(folder / name, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) throw std::runtime_error("fuzz: cannot write the input");
  return folder / name;
}

/// Takes the first byte off the input: it chooses among variants of the target.
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
