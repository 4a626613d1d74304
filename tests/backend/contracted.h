// a * b + c in a file whose compiler may make one operation of it.
#pragma once

namespace kshot::testing::contracted {

float product_sum(float a, float b, float c);  ///< kshot::product_sum
float plain(float a, float b, float c);        ///< a * b + c as it stands

}  // namespace kshot::testing::contracted
