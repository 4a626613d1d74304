// Which kshot this is.
#pragma once

namespace kshot {

/// "0.1.0".
const char* version();

}  // namespace kshot
