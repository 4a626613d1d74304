// What the machine's cores can do at most: single-precision multiply-adds from registers.
#pragma once

#include <string>

namespace kshot::bench {

/// Name of the widest instruction set this processor has and fma_peak uses.
std::string fma_instruction_set();

/// Floating-point operations per second (a multiply-add is two) of `threads` threads that run
/// independent multiply-add chains on registers for `seconds` each; the best of `tries`.
double fma_peak(int threads, double seconds = 0.05, int tries = 5);

}  // namespace kshot::bench
