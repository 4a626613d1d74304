// Reading and writing safetensors files: types, alignment, and damaged files.
#include "io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "io/atomic_file.h"
#include "kshot/error.h"
#include "support/error_text.h"
#include "support/put_file.h"
#include "support/temp_folder.h"

namespace kshot::io {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::put_file;
using test::TempFolder;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string with_length(const std::string& header, const std::string& data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return file + header + data;
}

SafeTensors example() {
  SafeTensors content;
  content.tensors["theta.layers.0.weight"] =
      Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 0.1f}, {2, 3});
  content.tensors["adam.m"] = Tensor::from(std::vector<double>{1e-300, -0.0}, {2});
  content.tensors["step"] = Tensor::from(std::vector<std::int64_t>{std::int64_t{1} << 60}, {});
  content.tensors["flags"] = Tensor::from(std::vector<std::uint8_t>{1, 0, 255}, {3});
  content.tensors["index"] = Tensor::from(std::vector<std::int32_t>{-7}, {1, 1});
  content.tensors["none"] = Tensor::from(std::vector<float>{}, {0, 9});
  content.metadata = {{"format", "kshot"}, {"config", "a = \"\xc3\xa9\"\n[b]\n"}};
  return content;
}

class SafeTensorsFile : public ::testing::Test {
 protected:
  SafeTensors read(const std::string& contents) {
    put_file(path_, contents);
    return read_safetensors(path_);
  }
  // The message after "checkpoint PATH".
  std::string error_of(const std::string& contents) {
    const std::string text = error_text([&] { read(contents); });
    const std::string start = "checkpoint " + path_.string();
    return text.starts_with(start) ? text.substr(start.size()) : "(no path) " + text;
  }

  TempFolder folder_;
  fs::path path_ = folder_ / "last.safetensors";
};

TEST_F(SafeTensorsFile, ReadsAFileByHand) {
  const SafeTensors content = read(with_length(
      R"({"__metadata__":{"k":"v"},"b":{"dtype":"I32","shape":[2],"data_offsets":[4,12]},)"
      R"("a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}  )",
      std::string("\x00\x00\xc0\x3f\x02\x00\x00\x00\xff\xff\xff\xff", 12)));
  EXPECT_EQ(content.metadata.at("k"), "v");
  EXPECT_THAT(content.tensors.at("a").to_f64(), ElementsAre(1.5));
  EXPECT_THAT(content.tensors.at("a").shape, ElementsAre(1, 1));
  EXPECT_THAT(content.tensors.at("b").to_i64(), ElementsAre(2, -1));
  EXPECT_EQ(content.tensors.at("b").origin, path_.string() + ": b");
  EXPECT_TRUE(read(with_length("{}", "")).tensors.empty());
}

TEST_F(SafeTensorsFile, RoundTripBitForBit) {
  const SafeTensors content = example();
  write_safetensors(path_, content);
  const SafeTensors again = read_safetensors(path_);
  EXPECT_EQ(again.tensors, content.tensors);
  EXPECT_EQ(again.metadata, content.metadata);
  const std::string bytes = read_file(path_);
  write_safetensors(path_, again);
  EXPECT_TRUE(read_file(path_) == bytes);
}

TEST_F(SafeTensorsFile, RoundTripOfEveryType) {
  SafeTensors content;
  std::mt19937 random(3);
  for (const auto dtype :
       {Tensor::DType::f16, Tensor::DType::f32, Tensor::DType::f64, Tensor::DType::i8,
        Tensor::DType::u8, Tensor::DType::i16, Tensor::DType::i32, Tensor::DType::i64,
        Tensor::DType::u16, Tensor::DType::u32, Tensor::DType::u64, Tensor::DType::boolean}) {
    Tensor tensor;
    tensor.dtype = dtype;
    tensor.shape = {3, 1 + random() % 5};
    tensor.bytes.resize(tensor.size() * item_size(dtype));
    for (std::byte& byte : tensor.bytes) byte = static_cast<std::byte>(random() % 2);
    content.tensors[dtype_name(dtype)] = tensor;
  }
  write_safetensors(path_, content);
  EXPECT_EQ(read_safetensors(path_).tensors, content.tensors);
}

TEST_F(SafeTensorsFile, DataIsAligned) {
  write_safetensors(path_, example());
  const std::string bytes = read_file(path_);
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  EXPECT_EQ(header % 8, 0u);
  // The data begin with adam.m, the first of the 8-byte tensors.
  double first = 0;
  std::memcpy(&first, bytes.data() + 8 + header, sizeof(first));
  EXPECT_EQ(first, 1e-300);
}

TEST_F(SafeTensorsFile, CutAnywhereIsAnErrorWithTheSizes) {
  write_safetensors(path_, example());
  const std::string whole = read_file(path_);
  std::uint64_t header = 0;
  std::memcpy(&header, whole.data(), sizeof(header));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const std::string expected = size < 8            ? "at least 8"
                                 : size < 8 + header ? "at least " + std::to_string(8 + header)
                                                     : std::to_string(whole.size());
    EXPECT_EQ(error_of(whole.substr(0, size)),
              " is cut short: expected " + expected + " bytes, found " + std::to_string(size));
  }
  EXPECT_EQ(error_of(whole + "xy"), " is damaged: expected " + std::to_string(whole.size()) +
                                        " bytes, found " + std::to_string(whole.size() + 2));
}

TEST_F(SafeTensorsFile, RejectsDamagedHeaders) {
  const std::string data(8, 'x');
  const auto header = [&](const std::string& text) { return error_of(with_length(text, data)); };
  const auto tensor = [&](const std::string& text) { return header("{\"a\":" + text + "}"); };

  EXPECT_EQ(error_of("this is some other kind of file"),
            ": not a safetensors file (its header would be 2338328219631577204 bytes)");
  EXPECT_EQ(header("[1, 2]"), ": not a safetensors file (no header)");
  EXPECT_EQ(header("{\"a\": "), " is damaged: the header is not JSON");
  EXPECT_EQ(tensor("3"), " is damaged: tensor 'a': expected dtype, shape and data_offsets");
  EXPECT_EQ(tensor(R"({"dtype":"F32","shape":[2]})"),
            " is damaged: tensor 'a': expected dtype, shape and data_offsets");
  EXPECT_EQ(tensor(R"({"dtype":7,"shape":[2],"data_offsets":[0,8]})"),
            " is damaged: tensor 'a': dtype: expected a text");
  EXPECT_EQ(tensor(R"({"dtype":"BF16","shape":[4],"data_offsets":[0,8]})"),
            ": tensor 'a': dtype BF16 is not supported: expected F64, F32, F16, BOOL or an integer "
            "type");
  EXPECT_EQ(tensor(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"),
            " is damaged: tensor 'a': shape: expected a list of whole numbers");
  EXPECT_EQ(tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,9]})"),
            " is damaged: tensor 'a': data_offsets: expected two whole numbers");
  EXPECT_EQ(tensor(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"),
            " is damaged: tensor 'a': data_offsets 0, 8 do not fit float32 (3,)");
  EXPECT_EQ(tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"),
            " is damaged: tensor 'a': data_offsets 8, 0 do not fit float32 (2,)");
  EXPECT_THAT(tensor(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]})"),
              HasSubstr("do not fit"));
  EXPECT_EQ(tensor(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})"),
            " is damaged: tensor 'a' begins at byte 4 of the data: expected 0 (a hole)");
  EXPECT_EQ(header(R"({"a":{"dtype":"U8","shape":[6],"data_offsets":[0,6]},)"
                   R"("b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})"),
            " is damaged: tensor 'b' begins at byte 4 of the data: expected 6 (an overlap)");
  EXPECT_EQ(header(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                   R"("a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})"),
            " is damaged: two tensors 'a'");
  EXPECT_EQ(header(R"({"__metadata__":{"a":1}})"),
            " is damaged: __metadata__: expected texts by name");
  // A tensor that is larger than any file is reported and not allocated.
  EXPECT_THAT(tensor(R"({"dtype":"U8","shape":[1000000000000],"data_offsets":[0,1000000000000]})"),
              HasSubstr(" is cut short: expected 1000000000"));
}

TEST_F(SafeTensorsFile, AnyChangedHeaderByteIsAnErrorOrAValidFile) {
  write_safetensors(path_, example());
  const std::string whole = read_file(path_);
  std::uint64_t header = 0;
  std::memcpy(&header, whole.data(), sizeof(header));
  std::mt19937 random(5);
  int errors = 0;
  for (int trial = 0; trial < 500; ++trial) {
    std::string changed = whole;
    changed[random() % (8 + header)] ^= static_cast<char>(1 << random() % 8);
    try {
      // Anything but an Error or a result fails the test.
      read(changed);
    } catch (const Error& error) {
      ++errors;
      EXPECT_THAT(error.what(), HasSubstr(path_.string()));
    }
  }
  EXPECT_GT(errors, 250);
}

TEST_F(SafeTensorsFile, MissingFileAndBadText) {
  EXPECT_EQ(error_text([&] { read_safetensors(folder_ / "none"); }),
            "cannot read " + (folder_ / "none").string() + ": No such file or directory");
  SafeTensors content;
  content.metadata["name"] = "\xff\xfe";
  EXPECT_EQ(error_text([&] { write_safetensors(path_, content); }),
            "cannot write " + path_.string() + ": a name or the metadata is not UTF-8 text");
  EXPECT_FALSE(fs::exists(path_));
}

}  // namespace
}  // namespace kshot::io
