#include "kshot/version.h"

namespace kshot {

const char* version() {
  return KSHOT_VERSION;
}

}  // namespace kshot
