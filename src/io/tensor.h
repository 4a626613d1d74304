// An array in host memory, as .npy, .npz and safetensors files store it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace kshot::io {

// Every file format here is little-endian, and bytes are copied between file and memory unchanged.
static_assert(std::endian::native == std::endian::little, "kshot needs a little-endian processor");

struct Tensor {
  enum class DType { f16, f32, f64, i8, u8, i16, i32, i64, u16, u32, u64, boolean };

  DType dtype = DType::f64;
  std::vector<std::size_t> shape;  ///< empty for a single number
  std::vector<std::byte> bytes;    ///< row-major; size() * item_size(dtype)
  /// "FILE: KEY", which the errors below name. The readers set it.
  std::string origin;

  /// Copies `values`, row-major. Their number must be the product of `shape` (else
  /// std::logic_error).
  static Tensor from(std::span<const double> values, std::vector<std::size_t> shape);
  static Tensor from(std::span<const float> values, std::vector<std::size_t> shape);
  static Tensor from(std::span<const std::int64_t> values, std::vector<std::size_t> shape);
  static Tensor from(std::span<const std::int32_t> values, std::vector<std::size_t> shape);
  static Tensor from(std::span<const std::uint8_t> values, std::vector<std::size_t> shape);

  /// Number of elements.
  std::size_t size() const;

  /// Elements as real numbers, rounded to nearest. A finite value beyond the range of the result is
  /// an Error. Infinities and NaN are allowed.
  std::vector<double> to_f64() const;
  /// Writes the elements [first, first + out.size()) to `out`.
  void to_f64(std::size_t first, std::span<double> out) const;
  std::vector<float> to_f32() const;
  /// Elements as whole numbers: a fraction, NaN or a value out of range is an Error.
  std::vector<std::int64_t> to_i64() const;

  bool operator==(const Tensor& other) const {
    return dtype == other.dtype && shape == other.shape && bytes == other.bytes;
  }
};

/// Bytes of one element.
std::size_t item_size(Tensor::DType dtype);
/// NumPy's name of the type: "float32", "int64", "bool".
const char* dtype_name(Tensor::DType dtype);
/// The shape as NumPy prints it: "(2, 3)".
std::string shape_text(const std::vector<std::size_t>& shape);
/// Computes the number of elements and their size in bytes. Returns false if either needs more than
/// 63 bits.
bool checked_size(const std::vector<std::size_t>& shape, Tensor::DType dtype, std::size_t* elements,
                  std::size_t* byte_count);

}  // namespace kshot::io
