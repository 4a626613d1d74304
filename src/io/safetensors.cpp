#include "io/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "io/atomic_file.h"
#include "io/input_file.h"
#include "io/json_text.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

using DType = Tensor::DType;
using nlohmann::json;

constexpr std::size_t kLengthSize = 8;
/// Longest header in bytes, a limit of the format itself.
constexpr std::uint64_t longest_safetensors_header = 100'000'000;
constexpr std::string_view kMetadata = "__metadata__";

constexpr std::array<std::pair<std::string_view, DType>, 12> kTypes{{
    {"F16", DType::f16},
    {"F32", DType::f32},
    {"F64", DType::f64},
    {"I8", DType::i8},
    {"U8", DType::u8},
    {"I16", DType::i16},
    {"I32", DType::i32},
    {"I64", DType::i64},
    {"U16", DType::u16},
    {"U32", DType::u32},
    {"U64", DType::u64},
    {"BOOL", DType::boolean},
}};

std::string_view type_name(DType dtype) {
  for (const auto& [name, type] : kTypes) {
    if (type == dtype) return name;
  }
  throw std::logic_error("write_safetensors: no such dtype");
}

struct Entry {
  std::string name;
  Tensor tensor;
  std::uint64_t begin = 0, end = 0;
};

[[noreturn]] void cut_short(const std::filesystem::path& path, std::string_view expected,
                            std::uint64_t found) {
  throw Error(fmt::format("checkpoint {} is cut short: expected {} bytes, found {}", path.string(),
                          expected, found));
}

[[noreturn]] void damaged(const std::filesystem::path& path, const std::string& what) {
  throw Error(fmt::format("checkpoint {} is damaged: {}", path.string(), what));
}

json parse_header(const std::filesystem::path& path, const std::string& text) {
  // The JSON library would keep the last of two equal keys. The format forbids equal keys.
  std::set<std::string> names;
  const auto check = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth == 1 && event == json::parse_event_t::key &&
        !names.insert(parsed.get<std::string>()).second) {
      damaged(path, fmt::format("two tensors '{}'", parsed.get<std::string>()));
    }
    return true;
  };
  json header;
  try {
    if (nested_deeper(text, deepest_json)) damaged(path, "the header is not one of tensors");
    header = json::parse(text, check);
  } catch (const json::exception&) {
    damaged(path, "the header is not JSON");
  }
  if (!header.is_object()) damaged(path, "the header is not a JSON object");
  return header;
}

bool is_count(const json& value) {
  return value.is_number_unsigned();
}

Entry parse_entry(const std::filesystem::path& path, const std::string& name, const json& value) {
  const auto wrong = [&](const std::string& what) {
    damaged(path, fmt::format("tensor '{}': {}", name, what));
  };
  if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets")) {
    wrong("expected dtype, shape and data_offsets");
  }
  const json& dtype = value["dtype"];
  const json& shape = value["shape"];
  const json& offsets = value["data_offsets"];
  if (!dtype.is_string()) wrong("dtype: expected a text");
  if (!shape.is_array() || !std::all_of(shape.begin(), shape.end(), is_count)) {
    wrong("shape: expected a list of whole numbers");
  }
  if (!offsets.is_array() || offsets.size() != 2 || !is_count(offsets[0]) ||
      !is_count(offsets[1])) {
    wrong("data_offsets: expected two whole numbers");
  }
  Entry entry;
  entry.name = name;
  entry.tensor.origin = path.string() + ": " + name;
  const std::string& type = dtype.get_ref<const std::string&>();
  const auto known =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const auto& t) { return t.first == type; });
  if (known == kTypes.end()) {
    throw Error(
        fmt::format("checkpoint {}: tensor '{}': dtype {} is not supported: expected F64, "
                    "F32, F16, BOOL or an integer type",
                    path.string(), name, type));
  }
  entry.tensor.dtype = known->second;
  entry.tensor.shape = shape.get<std::vector<std::size_t>>();
  entry.begin = offsets[0].get<std::uint64_t>();
  entry.end = offsets[1].get<std::uint64_t>();
  std::size_t elements = 0;
  std::size_t byte_count = 0;
  if (!checked_size(entry.tensor.shape, entry.tensor.dtype, &elements, &byte_count) ||
      entry.begin > entry.end || entry.end - entry.begin != byte_count) {
    wrong(fmt::format("data_offsets {}, {} do not fit {} {}", entry.begin, entry.end,
                      dtype_name(entry.tensor.dtype), shape_text(entry.tensor.shape)));
  }
  return entry;
}

std::map<std::string, std::string> parse_metadata(const std::filesystem::path& path,
                                                  const json& value) {
  if (!value.is_object() ||
      !std::all_of(value.begin(), value.end(), [](const json& v) { return v.is_string(); })) {
    damaged(path, "__metadata__: expected texts by name");
  }
  return value.get<std::map<std::string, std::string>>();
}

}  // namespace

SafeTensors read_safetensors(const std::filesystem::path& path) {
  InputFile file(path);
  if (!file.size()) throw Error("cannot read " + path.string() + ": not a regular file");
  const std::uint64_t file_size = *file.size();

  std::array<unsigned char, kLengthSize> length{};
  const std::size_t got = file.read(length.data(), length.size());
  if (got < kLengthSize) cut_short(path, "at least 8", got);
  std::uint64_t header_size = 0;
  for (std::size_t i = kLengthSize; i-- > 0;) header_size = header_size << 8 | length[i];
  if (header_size > longest_safetensors_header) {
    throw Error(fmt::format("checkpoint {}: not a safetensors file (its header would be {} bytes)",
                            path.string(), header_size));
  }
  const std::uint64_t data_start = kLengthSize + header_size;
  if (data_start > file_size) cut_short(path, fmt::format("at least {}", data_start), file_size);
  std::string text(header_size, '\0');
  const std::size_t got_header = file.read(text.data(), text.size());
  if (got_header < text.size()) {
    cut_short(path, fmt::format("at least {}", data_start), kLengthSize + got_header);
  }
  if (!text.starts_with('{')) {
    throw Error(fmt::format("checkpoint {}: not a safetensors file (no header)", path.string()));
  }

  const json header = parse_header(path, text);
  SafeTensors content;
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadata) {
      content.metadata = parse_metadata(path, value);
    } else {
      entries.push_back(parse_entry(path, name, value));
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t data_size = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != data_size) {
      damaged(path, fmt::format("tensor '{}' begins at byte {} of the data: expected {} ({})",
                                entry.name, entry.begin, data_size,
                                entry.begin < data_size ? "an overlap" : "a hole"));
    }
    data_size = entry.end;
  }
  // The sum of the sizes is known to be free of overflow only within the size of the file.
  if (data_size > file_size - data_start) {
    const bool representable = data_size <= std::numeric_limits<std::uint64_t>::max() - data_start;
    cut_short(path, representable ? std::to_string(data_start + data_size) : "many more",
              file_size);
  }
  if (data_size < file_size - data_start) {
    damaged(path, fmt::format("expected {} bytes, found {}", data_start + data_size, file_size));
  }

  for (Entry& entry : entries) {
    Tensor& tensor = entry.tensor;
    tensor.bytes.resize(entry.end - entry.begin);
    const std::size_t read = file.read(tensor.bytes.data(), tensor.bytes.size());
    if (read < tensor.bytes.size()) {  // the file was shortened while it was read
      cut_short(path, std::to_string(file_size), data_start + entry.begin + read);
    }
    content.tensors.emplace(std::move(entry.name), std::move(tensor));
  }
  return content;
}

void write_safetensors(const std::filesystem::path& path, const SafeTensors& content) {
  std::vector<std::pair<const std::string*, const Tensor*>> order;
  for (const auto& [name, tensor] : content.tensors) {
    if (name == kMetadata) throw std::logic_error("write_safetensors: a tensor '__metadata__'");
    if (tensor.bytes.size() != tensor.size() * item_size(tensor.dtype)) {
      throw std::logic_error("write_safetensors: '" + name + "': bytes do not fit the shape");
    }
    order.emplace_back(&name, &tensor);
  }
  // The map is already sorted by name.
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return item_size(a.second->dtype) > item_size(b.second->dtype);
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!content.metadata.empty()) header[std::string(kMetadata)] = content.metadata;
  std::uint64_t offset = 0;
  for (const auto& [name, tensor] : order) {
    const std::uint64_t end = offset + tensor->bytes.size();
    header[*name] = {{"dtype", type_name(tensor->dtype)},
                     {"shape", tensor->shape},
                     {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception&) {
    throw Error("cannot write " + path.string() + ": a name or the metadata is not UTF-8 text");
  }
  text.append((8 - text.size() % 8) % 8, ' ');

  AtomicFile file(path);
  std::array<char, kLengthSize> length{};
  for (std::size_t i = 0; i < kLengthSize; ++i) {
    length[i] = static_cast<char>(text.size() >> (8 * i) & 0xff);
  }
  file.write(std::string_view(length.data(), length.size()));
  file.write(text);
  for (const auto& [name, tensor] : order) file.write(std::span(tensor->bytes));
  file.commit();
}

}  // namespace kshot::io
