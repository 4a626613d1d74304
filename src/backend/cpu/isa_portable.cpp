// Kernels for any processor, with whatever instructions the target's baseline offers.
#define KSHOT_ISA portable
#define KSHOT_LANES 4
#include "backend/cpu/kernels_impl.h"
