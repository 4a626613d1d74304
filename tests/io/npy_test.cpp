// Reading and writing .npy and .npz files: headers, types, byte orders, and damaged files.
#include "io/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zip.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
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
using DType = Tensor::DType;

// A file from parts: `dictionary` is the header, and `data` are the bytes after it.
std::string npy(const std::string& dictionary, const std::string& data, int major = 1) {
  std::string file = "\x93NUMPY";
  file += static_cast<char>(major);
  file += '\0';
  const std::string header = dictionary + "\n";
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i) {
    file += static_cast<char>(header.size() >> (8 * i) & 0xff);
  }
  return file + header + data;
}

template <typename T>
std::string as_bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

class Npy : public ::testing::Test {
 protected:
  NpyArray read(const std::string& contents) {
    put_file(path_, contents);
    return read_npy(path_);
  }
  // The message without the path, with which it must begin.
  std::string error_of(const std::string& contents) {
    const std::string text = error_text([&] { read(contents); });
    const std::string start = path_.string();
    return text.starts_with(start) ? text.substr(start.size()) : "(no path) " + text;
  }

  TempFolder folder_;
  fs::path path_ = folder_ / "x.npy";
};

TEST_F(Npy, ReadsEveryVersionAndLayoutOfHeader) {
  const std::string data = as_bytes<float>({1, 2, 3, 4, 5, 6});
  for (int version = 1; version <= 3; ++version) {
    const NpyArray array =
        read(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", data, version));
    EXPECT_EQ(array.dtype, DType::f32);
    EXPECT_THAT(array.shape, ElementsAre(2, 3));
    EXPECT_THAT(array.to_f64(), ElementsAre(1, 2, 3, 4, 5, 6));
    EXPECT_EQ(array.origin, path_.string());
  }
  // The header has another order of keys, other quotes, spaces, and Python 2's long integers.
  const NpyArray array =
      read(npy("{\"shape\":(6L,),\"fortran_order\":False,\"descr\":\"<f4\"}   ", data));
  EXPECT_THAT(array.shape, ElementsAre(6));
}

TEST_F(Npy, ConvertsColumnMajorOrder) {
  // a[i, j, k] = 100 i + 10 j + k with shape (2, 3, 2). The first index runs fastest.
  std::vector<std::int16_t> column_major;
  for (int k = 0; k < 2; ++k) {
    for (int j = 0; j < 3; ++j) {
      for (int i = 0; i < 2; ++i) {
        column_major.push_back(static_cast<std::int16_t>(100 * i + 10 * j + k));
      }
    }
  }
  const NpyArray array = read(
      npy("{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3, 2), }", as_bytes(column_major)));
  EXPECT_THAT(array.to_i64(), ElementsAre(0, 1, 10, 11, 20, 21, 100, 101, 110, 111, 120, 121));
}

TEST_F(Npy, ScalarsAndEmptyArrays) {
  const NpyArray scalar =
      read(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (), }", as_bytes<double>({2.5})));
  EXPECT_TRUE(scalar.shape.empty());
  EXPECT_THAT(scalar.to_f64(), ElementsAre(2.5));
  const NpyArray empty =
      read(npy("{'descr': '<f8', 'fortran_order': True, 'shape': (3, 0), }", ""));
  EXPECT_THAT(empty.shape, ElementsAre(3, 0));
  EXPECT_TRUE(empty.to_f64().empty());
}

TEST_F(Npy, RejectsWhatItCannotHold) {
  const auto with = [&](const std::string& descr) {
    return error_of(
        npy("{'descr': " + descr + ", 'fortran_order': False, 'shape': (1,), }", "12345678"));
  };
  EXPECT_EQ(with("'>U3'"), ": dtype '>U3' is not supported: text; expected numbers or booleans");
  EXPECT_EQ(with("'|O'"),
            ": dtype '|O' is not supported: Python objects; expected numbers or booleans");
  EXPECT_EQ(with("'<U3'"), ": dtype '<U3' is not supported: text; expected numbers or booleans");
  EXPECT_EQ(with("'|S8'"), ": dtype '|S8' is not supported: text; expected numbers or booleans");
  EXPECT_THAT(with("'<c8'"), HasSubstr("complex"));
  EXPECT_THAT(with("'<f16'"), HasSubstr("expected numbers of up to 64 bits"));
  EXPECT_THAT(with("'<M8[ns]'"), HasSubstr("is not supported"));
  EXPECT_THAT(with("[('a', '<f4'), ('b', '<f4')]"), HasSubstr("structured"));
  EXPECT_EQ(with("'?f8'"), ": the .npy header is damaged");
  EXPECT_THAT(with("''"), HasSubstr("is not supported"));
}

TEST_F(Npy, BigEndianNumbersAreTheSameNumbers) {
  const auto big = [&](const std::string& descr, const std::string& data,
                       const std::string& order = "False") {
    return read(
        npy("{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': (2, 2), }", data));
  };
  // Half-precision numbers 1, -2, 0.5, 0: the first byte has the sign, the exponent and the top of
  // the fraction.
  EXPECT_THAT(big(">f2", {"\x3c\x00\xc0\x00\x38\x00\x00\x00", 8}).to_f64(),
              ElementsAre(1, -2, 0.5, 0));
  const std::string words("\x00\x00\x01\x02\xff\xff\xff\xfe\x7f\xff\xff\xff\x00\x00\x00\x05", 16);
  EXPECT_THAT(big(">i4", words).to_i64(), ElementsAre(258, -2, 2147483647, 5));
  EXPECT_THAT(big(">u4", words).to_i64(), ElementsAre(258, 4294967294, 2147483647, 5));
  EXPECT_THAT(big(">i4", words, "True").to_i64(), ElementsAre(258, 2147483647, -2, 5));
  EXPECT_THAT(
      big(">f4", {"\x3f\x80\x00\x00\xc0\x49\x0f\xdb\x00\x00\x00\x00\x7f\x80\x00\x00", 16}).to_f32(),
      ElementsAre(1.0f, -3.14159274f, 0.0f, std::numeric_limits<float>::infinity()));
  std::string doubles;
  for (const double value : {1.5, -0.1, 1e300, 0.0}) {
    std::string bytes = as_bytes<double>({value});
    doubles.append(bytes.rbegin(), bytes.rend());
  }
  EXPECT_THAT(big(">f8", doubles).to_f64(), ElementsAre(1.5, -0.1, 1e300, 0.0));
  EXPECT_THAT(big(">i1", "\x01\xff\x7f\x05").to_i64(), ElementsAre(1, -1, 127, 5));
}

TEST_F(Npy, AnArrayThatNoMachineHoldsIsRefused) {
  EXPECT_THAT(
      error_of(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1048576, 1048576), }", "")),
      ::testing::AllOf(HasSubstr("shape (1048576, 1048576) of float64 is 8192.0 GiB"),
                       HasSubstr("memory that this machine has")));
}

TEST_F(Npy, RejectsDamagedFiles) {
  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
  EXPECT_EQ(error_of(""), " is empty: expected a .npy array");
  EXPECT_EQ(error_of("hello, this is text"),
            ": not a .npy array (it does not begin with \"\\x93NUMPY\")");
  EXPECT_EQ(error_of(npy(good, "", 4)), ": .npy format version 4.0: expected 1.0, 2.0 or 3.0");
  EXPECT_THAT(error_of(npy(good, as_bytes<float>({1, 2, 3}))), HasSubstr("bytes, found more"));
  for (const std::string bad :
       {"{'descr': '<f4', 'fortran_order': False}", "{'descr': '<f4', 'fortran_order': 0, ",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 2, }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'descr': '<f4'}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), } + 1", "{'descr", "{", ""}) {
    EXPECT_EQ(error_of(npy(bad, as_bytes<float>({1, 2}))), ": the .npy header is damaged") << bad;
  }
  EXPECT_THAT(error_of(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, "
                           "4294967296), }",
                           "")),
              HasSubstr("impossible shape (4294967296, 4294967296)"));
}

TEST_F(Npy, CutAnywhereIsAnErrorWithTheSizes) {
  const std::string whole =
      npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", as_bytes<float>({1, 2}));
  ASSERT_THAT(read(whole).to_f64(), ElementsAre(1, 2));
  for (std::size_t size = 1; size < whole.size(); ++size) {
    const std::string text = error_of(whole.substr(0, size));
    EXPECT_THAT(text, HasSubstr(size < 6 ? "is cut short" : "is cut short: expected ")) << size;
    EXPECT_TRUE(text.ends_with("found " + std::to_string(size))) << text;
  }
}

TEST_F(Npy, RoundTripOfEveryType) {
  std::mt19937 random(7);
  for (const DType dtype :
       {DType::f16, DType::f32, DType::f64, DType::i8, DType::u8, DType::i16, DType::i32,
        DType::i64, DType::u16, DType::u32, DType::u64, DType::boolean}) {
    for (const std::vector<std::size_t>& shape :
         {std::vector<std::size_t>{}, {1}, {5, 7}, {2, 0, 3}, {1, 2, 3, 4, 5}}) {
      NpyArray array;
      array.dtype = dtype;
      array.shape = shape;
      array.bytes.resize(array.size() * item_size(dtype));
      for (std::byte& byte : array.bytes) {
        byte = static_cast<std::byte>(dtype == DType::boolean ? random() % 2 : random() % 256);
      }
      write_npy(path_, array);
      EXPECT_EQ(read_npy(path_), array) << dtype_name(dtype) << " " << shape_text(shape);
      // NumPy maps files into memory, so that the data must begin at a multiple of 64.
      EXPECT_EQ((fs::file_size(path_) - array.bytes.size()) % 64, 0u);
    }
  }
}

TEST_F(Npy, WritesTheDocumentedBytes) {
  // The header is that of numpy.save. The data begin after 128 bytes.
  write_npy(path_, Tensor::from(std::vector<std::int32_t>{258, -1}, {2}));
  std::string expected("\x93NUMPY\x01\x00\x76\x00", 10);
  expected += "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }";
  expected.resize(127, ' ');
  expected += '\n';
  expected += std::string("\x02\x01\x00\x00\xff\xff\xff\xff", 8);
  EXPECT_EQ(read_file(path_), expected);
}

class Npz : public ::testing::Test {
 protected:
  std::map<std::string, NpyArray> example() {
    std::map<std::string, NpyArray> entries;
    std::vector<double> values(6000);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.5 * static_cast<double>(i);
    entries["theta.layers.0.weight"] = Tensor::from(values, {60, 100});
    entries["support_y"] = Tensor::from(std::vector<std::int64_t>{0, 4, 2}, {3});
    entries["empty"] = Tensor::from(std::vector<float>{}, {0, 4});
    entries["scalar"] = Tensor::from(std::vector<float>{0.25f}, {});
    return entries;
  }
  std::string error_of() {
    const std::string text = error_text([&] { read_npz(path_); });
    const std::string start = path_.string();
    return text.starts_with(start) ? text.substr(start.size()) : "(no path) " + text;
  }
  // Writes an archive with one entry of any bytes.
  void write_entry(const std::string& name, const std::string& data) {
    fs::remove(path_);
    int code = 0;
    zip_t* archive = zip_open(path_.c_str(), ZIP_CREATE, &code);
    ASSERT_NE(archive, nullptr);
    zip_source_t* source = zip_source_buffer(archive, data.data(), data.size(), 0);
    ASSERT_GE(zip_file_add(archive, name.c_str(), source, 0), 0);
    ASSERT_EQ(zip_close(archive), 0);
  }

  TempFolder folder_;
  fs::path path_ = folder_ / "x.npz";
};

TEST_F(Npz, RoundTripStoredAndDeflated) {
  const auto entries = example();
  write_npz(path_, entries);
  const auto stored_size = fs::file_size(path_);
  EXPECT_EQ(read_npz(path_), entries);
  EXPECT_EQ(read_npz(path_).at("support_y").origin, path_.string() + ": support_y");
  write_npz(path_, entries, Compression::deflated);
  EXPECT_LT(fs::file_size(path_), stored_size / 2);
  EXPECT_EQ(read_npz(path_), entries);
  write_npz(path_, {});
  EXPECT_TRUE(read_npz(path_).empty());
}

TEST_F(Npz, SameEntriesSameBytes) {
  write_npz(path_, example());
  write_npz(folder_ / "y.npz", example());
  EXPECT_TRUE(read_file(path_) == read_file(folder_ / "y.npz"));
}

TEST_F(Npz, NamesFileAndEntry) {
  write_entry("x.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "1234"));
  EXPECT_THAT(error_of(), ::testing::MatchesRegex(": x is cut short: expected 76 bytes, found 72"));
  write_entry("names.npy",
              npy("{'descr': '<U2', 'fortran_order': False, 'shape': (1,), }", "1234"));
  EXPECT_EQ(error_of(),
            ": names: dtype '<U2' is not supported: text; expected numbers or booleans");
  write_entry("readme.txt", "some text");
  EXPECT_EQ(error_of(), ": readme.txt: not a .npy array (it does not begin with \"\\x93NUMPY\")");
}

TEST_F(Npz, MissingFileAndFolder) {
  EXPECT_EQ(error_text([&] { read_npz(path_); }),
            "cannot read " + path_.string() + ": No such file or directory");
  EXPECT_EQ(error_text([&] { read_npz(folder_.path()); }),
            "cannot read " + folder_.path().string() + ": Is a directory");
  EXPECT_EQ(error_text([&] { write_npz(folder_ / "none/x.npz", {}); }),
            "cannot write " + (folder_ / "none/x.npz").string() + ": No such file or directory");
}

TEST_F(Npz, CutAnywhereIsAnError) {
  write_npz(path_, example(), Compression::deflated);
  const std::string whole = read_file(path_);
  for (std::size_t size = 0; size < whole.size(); size += size < 64 ? 1 : 61) {
    put_file(path_, whole.substr(0, size));
    EXPECT_THAT(error_of(), HasSubstr("not a whole .npz (zip) archive")) << size;
  }
}

TEST_F(Npz, ChangedDataIsAnErrorWithTheEntry) {
  const auto entries = example();
  for (const Compression compression : {Compression::stored, Compression::deflated}) {
    write_npz(path_, entries, compression);
    const std::string whole = read_file(path_);
    // Names precede their data. This offset lies within the data of the largest entry.
    const std::size_t at = whole.find("theta.layers.0.weight.npy") + 400;
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    put_file(path_, changed);
    EXPECT_THAT(error_of(), HasSubstr(": theta.layers.0.weight is damaged: "));
  }
}

TEST_F(Npz, AnyChangedByteGivesAnErrorOrTheSameArrays) {
  const auto entries = example();
  write_npz(path_, entries, Compression::deflated);
  const std::string whole = read_file(path_);
  std::mt19937 random(11);
  int errors = 0;
  for (int trial = 0; trial < 300; ++trial) {
    std::string changed = whole;
    changed[random() % changed.size()] ^= static_cast<char>(1 << random() % 8);
    put_file(path_, changed);
    try {
      // Names, times and flags have no checksum. The bytes of the arrays have one.
      for (const auto& read : read_npz(path_)) {
        EXPECT_TRUE(std::ranges::any_of(entries, [&](const auto& entry) {
          return entry.second == read.second;
        })) << read.first;
      }
    } catch (const Error&) {
      ++errors;
    }
  }
  EXPECT_GT(errors, 150);
}

TEST_F(Npz, ReadsTheSharedCases) {
  const fs::path cases = fs::path(KSHOT_SHARED_DIR) / "cases";
  if (!fs::is_directory(cases)) GTEST_SKIP() << "no cases at " << cases;
  int files = 0;
  for (const auto& folder : fs::directory_iterator(cases)) {
    const fs::path inputs = folder.path() / "inputs.npz";
    if (!fs::exists(inputs)) continue;
    ++files;
    const auto entries = read_npz(inputs);
    EXPECT_TRUE(entries.contains("support_x")) << inputs;
    for (const auto& [name, array] : entries) {
      EXPECT_TRUE(array.dtype == DType::f64 || array.dtype == DType::i64) << inputs << name;
      for (const double value : array.to_f64()) EXPECT_TRUE(std::isfinite(value)) << inputs << name;
    }
    EXPECT_FALSE(read_npz(folder.path() / "expected.npz").empty());
  }
  EXPECT_GT(files, 0);
}

}  // namespace
}  // namespace kshot::io
