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
  explicit Error(const std::string& message) : std::runtime_error(message) {}  ///< of one line
};

/// This build or machine does not have the backend that was asked for. No other takes its place.
class DeviceError : public Error {
 public:
  using Error::Error;
};

}  // namespace kshot
