#include "emulator/tensor_core.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace kshot::simt {
namespace {

constexpr int rows = 16, columns = 8, depth = 8;
constexpr int float_bits = std::numeric_limits<float>::digits;

/// The operand without the 13 bits that TF32 lacks.
float as_tf32(std::uint32_t operand) {
  return std::bit_cast<float>(operand & 0xffffe000u);
}

/// Truncates x below the last bit of a float as large as `largest`.
double cut(double x, double largest) {
  int exponent = 0;
  std::frexp(largest, &exponent);
  const double unit = std::ldexp(1.0, exponent - float_bits);
  return std::trunc(x / unit) * unit;
}

}  // namespace

float multiply_add(float c, const std::array<float, 8>& a, const std::array<float, 8>& b) {
  std::array<double, depth + 1> terms{};
  terms[depth] = static_cast<double>(c);
  for (std::size_t k = 0; k < depth; ++k) {
    terms[k] = static_cast<double>(a[k]) * static_cast<double>(b[k]);
  }
  double largest = 0.0, plain = 0.0, sum = 0.0;
  for (const double term : terms) {
    largest = std::max(largest, std::abs(term));
    plain += term;
  }
  if (largest == 0.0 || !std::isfinite(plain)) return static_cast<float>(plain);
  for (const double term : terms) sum += cut(term, largest);
  return sum == 0.0 ? 0.0f : static_cast<float>(cut(sum, sum));
}

// The fragments are those of the PTX ISA, "Matrix Fragments for mma.m16n8k8", .tf32.
void multiply(const std::array<TensorFragments*, 32>& lanes) {
  std::array<std::array<float, depth>, rows> a{};     // [row][k]
  std::array<std::array<float, depth>, columns> b{};  // [column][k]
  for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
    const std::size_t group = lane / 4, in_group = lane % 4;
    const TensorFragments& f = *lanes[lane];
    for (std::size_t i = 0; i < 4; ++i)
      a[group + i % 2 * 8][in_group + i / 2 * 4] = as_tf32(f.a[i]);
    for (std::size_t i = 0; i < 2; ++i) b[group][in_group + i * 4] = as_tf32(f.b[i]);
  }
  for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
    const std::size_t group = lane / 4, in_group = lane % 4;
    TensorFragments& f = *lanes[lane];
    for (std::size_t i = 0; i < 4; ++i) {
      f.d[i] = multiply_add(f.c[i], a[group + i / 2 * 8], b[2 * in_group + i % 2]);
    }
  }
}

}  // namespace kshot::simt
