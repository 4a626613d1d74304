// Tensors of every type: values, conversions, and sizes that do not fit.
#include "io/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "kshot/error.h"
#include "support/error_text.h"

namespace kshot::io {
namespace {

using test::error_text;
using ::testing::ElementsAre;
using DType = Tensor::DType;

template <typename T>
Tensor raw(DType dtype, const std::vector<T>& values) {
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.shape = {values.size()};
  tensor.bytes.resize(values.size() * sizeof(T));
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  tensor.origin = "data.npz: x";
  return tensor;
}

TEST(Tensor, HoldsItsValues) {
  const std::vector<double> values{1.5, -2, 3, 4, 5, 6};
  const Tensor tensor = Tensor::from(values, {2, 3});
  EXPECT_EQ(tensor.size(), 6u);
  EXPECT_EQ(tensor.bytes.size(), 48u);
  EXPECT_EQ(tensor.to_f64(), values);
  EXPECT_THAT(Tensor::from(std::vector<float>{0.1f}, {}).to_f64(), ElementsAre(double{0.1f}));
  EXPECT_THROW(Tensor::from(values, {2, 2}), std::logic_error);
}

TEST(Tensor, EveryIntegerTypeAtItsLimits) {
  const auto check = [](DType dtype, auto lowest, auto highest) {
    const Tensor tensor = raw(dtype, std::vector{lowest, highest});
    EXPECT_THAT(tensor.to_i64(),
                ElementsAre(std::int64_t{lowest}, static_cast<std::int64_t>(highest)))
        << dtype_name(dtype);
    EXPECT_THAT(tensor.to_f64(),
                ElementsAre(static_cast<double>(lowest), static_cast<double>(highest)));
    EXPECT_THAT(tensor.to_f32(),
                ElementsAre(static_cast<float>(lowest), static_cast<float>(highest)));
  };
  check(DType::i8, std::int8_t{-128}, std::int8_t{127});
  check(DType::u8, std::uint8_t{0}, std::uint8_t{255});
  check(DType::i16, std::int16_t{-32768}, std::int16_t{32767});
  check(DType::u16, std::uint16_t{0}, std::uint16_t{65535});
  check(DType::i32, std::numeric_limits<std::int32_t>::min(),
        std::numeric_limits<std::int32_t>::max());
  check(DType::u32, std::uint32_t{0}, std::uint32_t{4294967295u});
  check(DType::i64, std::numeric_limits<std::int64_t>::min(),
        std::numeric_limits<std::int64_t>::max());
}

TEST(Tensor, HalfPrecision) {
  // IEEE 754 binary16: signs, the largest number, the smallest normal and subnormal numbers, and
  // infinity.
  const Tensor tensor = raw(DType::f16, std::vector<std::uint16_t>{0x3c00, 0xc000, 0x7bff, 0x0400,
                                                                   0x0001, 0x8000, 0x7c00, 0x3555});
  EXPECT_THAT(tensor.to_f64(),
              ElementsAre(1.0, -2.0, 65504.0, 0x1p-14, 0x1p-24, -0.0,
                          std::numeric_limits<double>::infinity(), 0.333251953125));
  EXPECT_TRUE(std::signbit(tensor.to_f32()[5]));
  EXPECT_TRUE(std::isnan(raw(DType::f16, std::vector<std::uint16_t>{0x7e00}).to_f64()[0]));
}

TEST(Tensor, Booleans) {
  const Tensor tensor = raw(DType::boolean, std::vector<std::uint8_t>{0, 1, 7});
  EXPECT_THAT(tensor.to_i64(), ElementsAre(0, 1, 1));
  EXPECT_THAT(tensor.to_f32(), ElementsAre(0.0f, 1.0f, 1.0f));
}

TEST(Tensor, ConversionsAreChecked) {
  const auto to_i64 = [](const Tensor& tensor) { return error_text([&] { tensor.to_i64(); }); };
  EXPECT_EQ(to_i64(raw(DType::f64, std::vector<double>{1, 2.5})),
            "data.npz: x: element 1 is 2.5: expected a whole number (int64)");
  EXPECT_EQ(to_i64(raw(DType::f64, std::vector<double>{0x1p63})),
            "data.npz: x: element 0 is 9.223372036854776e+18: expected a whole number (int64)");
  EXPECT_EQ(to_i64(raw(DType::f32, std::vector<float>{std::nanf("")})),
            "data.npz: x: element 0 is nan: expected a whole number (int64)");
  EXPECT_EQ(to_i64(raw(DType::u64, std::vector<std::uint64_t>{~std::uint64_t{0}})),
            "data.npz: x: element 0 is 18446744073709551615: expected a whole number within the "
            "range of int64");
  EXPECT_THAT(raw(DType::f64, std::vector<double>{-0x1p63, 3}).to_i64(),
              ElementsAre(std::numeric_limits<std::int64_t>::min(), 3));
  EXPECT_EQ(error_text([&] { raw(DType::f64, std::vector<double>{1e39}).to_f32(); }),
            "data.npz: x: element 0 is 1e+39: expected a number within the range of float32");
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(std::isinf(raw(DType::f64, std::vector<double>{infinity}).to_f32()[0]));
}

TEST(Tensor, SizesThatDoNotFit) {
  std::size_t elements = 0;
  std::size_t bytes = 0;
  EXPECT_TRUE(checked_size({3, 4}, DType::f64, &elements, &bytes));
  EXPECT_EQ(elements, 12u);
  EXPECT_EQ(bytes, 96u);
  const std::size_t large = std::size_t{1} << 32;
  EXPECT_FALSE(checked_size({large, large}, DType::u8, &elements, &bytes));
  EXPECT_FALSE(checked_size({large, large >> 3}, DType::f64, &elements, &bytes));
  EXPECT_TRUE(checked_size({large, large, 0}, DType::f64, &elements, &bytes));
  EXPECT_EQ(bytes, 0u);
  EXPECT_TRUE(checked_size({}, DType::f32, &elements, &bytes));
  EXPECT_EQ(bytes, 4u);
}

TEST(Tensor, ShapesAsPythonWritesThem) {
  EXPECT_EQ(shape_text({}), "()");
  EXPECT_EQ(shape_text({3}), "(3,)");
  EXPECT_EQ(shape_text({3, 0}), "(3, 0)");
}

}  // namespace
}  // namespace kshot::io
