// The message of a call that throws kshot::Error.
#pragma once

#include <string>

#include "kshot/error.h"

namespace kshot::test {

/// The message of the Error that `action` throws, or "(no error)" where it throws nothing. Other
/// exceptions propagate.
template <typename Action>
std::string error_text(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}

}  // namespace kshot::test
