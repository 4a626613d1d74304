#include "io/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "kshot/error.h"

namespace kshot::io {
namespace {

using DType = Tensor::DType;

struct Half {
  std::uint16_t bits;
};

/// Converts exactly, because every half-precision number is a float.
float widen(Half half) {
  const int exponent = (half.bits >> 10) & 31;
  const int fraction = half.bits & 1023;
  float magnitude = 0.0f;
  if (exponent == 31) {
    magnitude = fraction == 0 ? std::numeric_limits<float>::infinity()
                              : std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(fraction), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  }
  return (half.bits & 0x8000) != 0 ? -magnitude : magnitude;
}

struct Boolean {
  std::uint8_t byte;
};

/// Calls `visitor` with a value of the C++ type of `dtype`.
template <typename Visitor>
decltype(auto) dispatch(DType dtype, Visitor&& visitor) {
  switch (dtype) {
    case DType::f16:
      return visitor(Half{});
    case DType::f32:
      return visitor(float{});
    case DType::f64:
      return visitor(double{});
    case DType::i8:
      return visitor(std::int8_t{});
    case DType::u8:
      return visitor(std::uint8_t{});
    case DType::i16:
      return visitor(std::int16_t{});
    case DType::i32:
      return visitor(std::int32_t{});
    case DType::i64:
      return visitor(std::int64_t{});
    case DType::u16:
      return visitor(std::uint16_t{});
    case DType::u32:
      return visitor(std::uint32_t{});
    case DType::u64:
      return visitor(std::uint64_t{});
    case DType::boolean:
      return visitor(Boolean{});
  }
  throw std::logic_error("Tensor: no such dtype");
}

/// Converts an element to a C++ number of at least its own precision.
template <typename T>
auto number(T stored) {
  if constexpr (std::is_same_v<T, Half>) {
    return widen(stored);
  } else if constexpr (std::is_same_v<T, Boolean>) {
    return static_cast<std::uint8_t>(stored.byte != 0 ? 1 : 0);
  } else {
    return stored;
  }
}

[[noreturn]] void fail(const Tensor& tensor, std::size_t index, const std::string& found,
                       const char* expected) {
  throw Error(fmt::format("{}: element {} is {}: expected {}",
                          tensor.origin.empty() ? "array" : tensor.origin, index, found, expected));
}

template <typename Out, typename In>
Out to_real(const Tensor& tensor, std::size_t index, In value) {
  const Out result = static_cast<Out>(value);
  if constexpr (std::is_same_v<Out, float> && std::is_same_v<In, double>) {
    if (std::isinf(result) && std::isfinite(value)) {
      fail(tensor, index, fmt::format("{}", value), "a number within the range of float32");
    }
  }
  return result;
}

template <typename In>
std::int64_t to_integer(const Tensor& tensor, std::size_t index, In value) {
  if constexpr (std::is_floating_point_v<In>) {
    // 2^63 is a double, but the largest int64 is not. NaN fails every comparison.
    const bool whole = value >= In{-0x1p63} && value < In{0x1p63} && std::trunc(value) == value;
    if (!whole) fail(tensor, index, fmt::format("{}", value), "a whole number (int64)");
  } else if (!std::in_range<std::int64_t>(value)) {
    fail(tensor, index, fmt::format("{}", value), "a whole number within the range of int64");
  }
  return static_cast<std::int64_t>(value);
}

template <typename Out>
void convert(const Tensor& tensor, std::size_t first, std::span<Out> result) {
  dispatch(tensor.dtype, [&](auto prototype) {
    decltype(prototype) stored;
    if (tensor.bytes.size() != tensor.size() * sizeof(stored) ||
        first + result.size() > tensor.size()) {
      throw std::logic_error("Tensor: bytes do not fit the shape");
    }
    for (std::size_t k = 0; k < result.size(); ++k) {
      const std::size_t i = first + k;
      std::memcpy(&stored, tensor.bytes.data() + i * sizeof(stored), sizeof(stored));
      if constexpr (std::is_same_v<Out, std::int64_t>) {
        result[k] = to_integer(tensor, i, number(stored));
      } else {
        result[k] = to_real<Out>(tensor, i, number(stored));
      }
    }
  });
}

template <typename Out>
std::vector<Out> convert(const Tensor& tensor) {
  std::vector<Out> result(tensor.size());
  convert(tensor, 0, std::span<Out>(result));
  return result;
}

template <typename T>
Tensor make(DType dtype, std::span<const T> values, std::vector<std::size_t> shape) {
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  if (tensor.size() != values.size()) {
    throw std::logic_error(
        fmt::format("Tensor: {} values for the shape {}", values.size(), shape_text(tensor.shape)));
  }
  const auto bytes = std::as_bytes(values);
  tensor.bytes.assign(bytes.begin(), bytes.end());
  return tensor;
}

}  // namespace

Tensor Tensor::from(std::span<const double> values, std::vector<std::size_t> shape) {
  return make(DType::f64, values, std::move(shape));
}
Tensor Tensor::from(std::span<const float> values, std::vector<std::size_t> shape) {
  return make(DType::f32, values, std::move(shape));
}
Tensor Tensor::from(std::span<const std::int64_t> values, std::vector<std::size_t> shape) {
  return make(DType::i64, values, std::move(shape));
}
Tensor Tensor::from(std::span<const std::int32_t> values, std::vector<std::size_t> shape) {
  return make(DType::i32, values, std::move(shape));
}
Tensor Tensor::from(std::span<const std::uint8_t> values, std::vector<std::size_t> shape) {
  return make(DType::u8, values, std::move(shape));
}

std::size_t Tensor::size() const {
  std::size_t elements = 1;
  for (const std::size_t extent : shape) elements *= extent;
  return elements;
}

std::vector<double> Tensor::to_f64() const {
  return convert<double>(*this);
}
void Tensor::to_f64(std::size_t first, std::span<double> out) const {
  convert(*this, first, out);
}
std::vector<float> Tensor::to_f32() const {
  return convert<float>(*this);
}
std::vector<std::int64_t> Tensor::to_i64() const {
  return convert<std::int64_t>(*this);
}

std::size_t item_size(DType dtype) {
  return dispatch(dtype, [](auto prototype) { return sizeof(prototype); });
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return "float16";
    case DType::f32:
      return "float32";
    case DType::f64:
      return "float64";
    case DType::i8:
      return "int8";
    case DType::u8:
      return "uint8";
    case DType::i16:
      return "int16";
    case DType::i32:
      return "int32";
    case DType::i64:
      return "int64";
    case DType::u16:
      return "uint16";
    case DType::u32:
      return "uint32";
    case DType::u64:
      return "uint64";
    case DType::boolean:
      return "bool";
  }
  throw std::logic_error("Tensor: no such dtype");
}

std::string shape_text(const std::vector<std::size_t>& shape) {
  return fmt::format("({}{})", fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
}

bool checked_size(const std::vector<std::size_t>& shape, DType dtype, std::size_t* elements,
                  std::size_t* byte_count) {
  *elements = 1;
  bool overflow = false;
  bool empty = false;
  for (const std::size_t extent : shape) {
    empty = empty || extent == 0;
    overflow = __builtin_mul_overflow(*elements, extent, elements) || overflow;
  }
  if (empty) {
    *elements = *byte_count = 0;
    return true;
  }
  overflow = __builtin_mul_overflow(*elements, item_size(dtype), byte_count) || overflow;
  return !overflow && *byte_count <= std::size_t{1} << 62;
}

}  // namespace kshot::io
