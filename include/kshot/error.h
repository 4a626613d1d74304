// Errors that reach the user. Everything kshot throws on purpose is an Error: its message is one
// line that names the file (or the object), the key and what was expected. The command line prints
// it and leaves with code 2. Anything else that escapes is a defect of kshot.
#pragma once

#include <stdexcept>
#include <string>

namespace kshot {

/// Bad input or an environment that cannot do what was asked (file, configuration, shape, device).
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

/// A backend was asked for that this build or this machine does not have. Never a silent fallback.
class DeviceError : public Error {
 public:
  using Error::Error;
};

}  // namespace kshot
