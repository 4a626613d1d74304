// a * b + c in a file whose compiler may contract it to one fused multiply-add.
#pragma once

namespace kshot::testing::contracted {

/// Calls kshot::product_sum.
float product_sum(float a, float b, float c);
/// Computes a * b + c as written.
float plain(float a, float b, float c);

}  // namespace kshot::testing::contracted
