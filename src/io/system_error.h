// Throws failures of the operating system as one-line Errors.
#pragma once

#include <filesystem>
#include <string>
#include <system_error>

#include "kshot/error.h"

namespace kshot::io {

/// Throws "cannot write PATH: No space left on device". `code` is an errno value.
[[noreturn]] inline void throw_system_error(const std::string& what,
                                            const std::filesystem::path& path, int code) {
  throw Error(what + " " + path.string() + ": " + std::generic_category().message(code));
}

}  // namespace kshot::io
