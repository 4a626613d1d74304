// The memory of this machine.
#pragma once

namespace kshot {

/// Bytes of memory that this machine has; 0 where the system does not say.
double physical_memory();

}  // namespace kshot
