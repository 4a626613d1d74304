#include "kshot/error.h"

#include <string_view>

#include "base/text.h"

namespace kshot {

Error::Error(const std::string& message) : std::runtime_error(printable(message)) {}

}  // namespace kshot
