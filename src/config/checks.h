// Checks of a whole Config, beyond the type of each value.
#pragma once

#include "config/value_reader.h"

namespace kshot::schema {

/// Checks the range of every key that applies, and the rules between keys. Throws Error for the
/// first key that breaks one.
void check_config(Config config, const Locate& locate);

}  // namespace kshot::schema
