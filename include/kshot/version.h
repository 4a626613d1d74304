// The version of kshot.
#pragma once

namespace kshot {

/// "0.2.0": major, minor and patch number.
const char* version();

}  // namespace kshot
