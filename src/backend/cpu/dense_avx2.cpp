#if defined(__x86_64__)
#define KSHOT_ISA avx2
#define KSHOT_LANES 8
#include "backend/cpu/dense_impl.h"
#endif
