#if defined(__x86_64__)
#define KSHOT_ISA avx512
#define KSHOT_LANES 16
#include "backend/cpu/dense_impl.h"
#endif
