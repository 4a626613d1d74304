// Measures the peak of the machine's cores: single-precision multiply-adds on registers.
#pragma once

#include <string>

namespace kshot::bench {

/// Name of the widest instruction set of this processor that fma_peak uses.
std::string fma_instruction_set();

/// Returns the floating-point operations per second (a multiply-add counts as two) of `threads`
/// threads that run independent multiply-add chains on registers for `seconds` each. The result is
/// the best of `tries`.
double fma_peak(int threads, double seconds = 0.05, int tries = 5);

}  // namespace kshot::bench
