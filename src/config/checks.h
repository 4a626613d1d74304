// Checks of a whole Config, beyond the type of each value.
#pragma once

#include "config/value_reader.h"

namespace kshot::schema {

/// Ranges of every key that applies, and what must hold between keys. Throws Error.
void check_config(Config config, const Locate& locate);

}  // namespace kshot::schema
