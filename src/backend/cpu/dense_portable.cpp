// Small-matrix kernels for any processor.
#define KSHOT_ISA portable
#define KSHOT_LANES 4
#include "backend/cpu/dense_impl.h"
