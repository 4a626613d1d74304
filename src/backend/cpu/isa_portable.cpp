// Kernels for any processor, with the instructions of the target's baseline.
#define KSHOT_ISA portable
#define KSHOT_LANES 4
#include "backend/cpu/kernels_impl.h"
