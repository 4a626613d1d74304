// Errors that reach the user. Every exception that kshot throws on purpose is an Error. Its message
// is one line that names the file (or the object), the key and what was expected. The command line
// prints the message and exits with code 2. Any other exception is a defect of kshot.
#pragma once

#include <stdexcept>
#include <string>

namespace kshot {

/// Bad input or an environment that cannot do what was asked (file, configuration, shape, device).
class Error : public std::runtime_error {
 public:
  /// `message` is one line.
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

/// This build or machine does not have the backend that was asked for. No other backend is used in
/// its place.
class DeviceError : public Error {
 public:
  using Error::Error;
};

}  // namespace kshot
