// What a call says when it throws kshot::Error.
#pragma once

#include <string>

#include "kshot/error.h"

namespace kshot::test {

/// The message of the Error that `action` throws; "(no error)" where it throws none. Other
/// exceptions pass.
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
