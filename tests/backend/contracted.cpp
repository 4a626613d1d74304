// This file is compiled with -ffp-contract=fast for a processor with fused multiply-add
// (cmake/KshotTests.cmake).
#include "backend/contracted.h"

#include "kshot/random.h"

namespace kshot::testing::contracted {

float product_sum(float a, float b, float c) {
  return kshot::product_sum(a, b, c);
}

float plain(float a, float b, float c) {
  return a * b + c;
}

}  // namespace kshot::testing::contracted
