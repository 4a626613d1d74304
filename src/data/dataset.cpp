#include "data/dataset.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/episode_arithmetic.h"
#include "base/prefetch.h"
#include "base/text.h"
#include "io/atomic_file.h"
#include "io/json_text.h"
#include "io/output_file.h"
#include "io/system_error.h"
#include "kshot/error.h"

namespace kshot::data {
namespace {

using nlohmann::json;

constexpr std::string_view start_mark = "KSHOTDAT";
constexpr std::string_view end_mark = "KSHOTEND";
constexpr std::uint32_t format_version = 1;
constexpr std::uint64_t alignment = 64;

/// The last bytes of the file.
struct Trailer {
  std::uint64_t header_offset;
  std::uint64_t header_bytes;
  std::uint32_t checksum;
  std::uint32_t version;
  char mark[8];
};
static_assert(sizeof(Trailer) == 32);
/// The checksum covers all bytes before the field `checksum`.
constexpr std::uint64_t unchecked_tail = sizeof(Trailer) - offsetof(Trailer, checksum);

std::uint32_t crc(std::uint32_t previous, const void* data, std::size_t size) {
  return static_cast<std::uint32_t>(crc32_z(previous, static_cast<const Bytef*>(data), size));
}

std::size_t element_bytes(Element element) {
  return element == Element::u8 ? 1 : sizeof(float);
}

std::span<const std::byte> as_bytes(const void* data, std::size_t size) {
  return {static_cast<const std::byte*>(data), size};
}

json header_json(const DatasetHeader& header) {
  json groups;
  groups["names"] = json::array();
  groups["splits"] = json::array();
  groups["rows"] = json::array();
  for (const Group& group : header.groups) {
    groups["names"].push_back(group.name);
    groups["splits"].push_back(split_name(group.split));
    groups["rows"].push_back(group.rows);
  }
  json provenance = json::object();
  for (const auto& [key, value] : header.provenance) provenance[key] = printable(value);
  json out{{"kind", header.kind == GroupKind::classes ? "classes" : "tasks"},
           {"input",
            {{"channels", header.input.channels},
             {"height", header.input.height},
             {"width", header.input.width},
             {"spatial", header.input.spatial}}},
           {"element", header.element == Element::u8 ? "u8" : "f32"},
           {"groups", std::move(groups)},
           {"preprocessing", json::parse(header.preprocessing.to_json())},
           {"provenance", std::move(provenance)}};
  if (header.kind == GroupKind::tasks) {
    out["target"] = header.target == TargetKind::label ? "label" : "value";
    out["outputs"] = header.outputs;
  }
  return out;
}

Split parse_split(const std::string& name) {
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    if (name == split_name(split)) return split;
  }
  throw Error(fmt::format("unknown split '{}'", name));
}

void check_input(const FeatureShape& input) {
  std::int64_t size = 1;
  for (const int side : {input.channels, input.height, input.width}) {
    if (side < 1) throw Error("input shape is not positive");
    size *= side;
    if (size > std::numeric_limits<int>::max()) throw Error("input shape is too large");
  }
}

/// Throws json::exception or Error where `in` is not a valid header.
DatasetHeader parse_header(const json& in, const std::string& origin) {
  DatasetHeader header;
  const std::string kind = in.at("kind");
  if (kind != "classes" && kind != "tasks") throw Error("unknown kind '" + kind + "'");
  header.kind = kind == "classes" ? GroupKind::classes : GroupKind::tasks;
  const json& input = in.at("input");
  header.input = {.channels = io::whole_number<int>(input.at("channels")),
                  .height = io::whole_number<int>(input.at("height")),
                  .width = io::whole_number<int>(input.at("width")),
                  .spatial = input.at("spatial")};
  check_input(header.input);
  const std::string element = in.at("element");
  if (element != "u8" && element != "f32") throw Error("unknown element '" + element + "'");
  header.element = element == "u8" ? Element::u8 : Element::f32;
  if (header.kind == GroupKind::tasks) {
    header.target = in.at("target") == "label" ? TargetKind::label : TargetKind::value;
    header.outputs = io::whole_number<int>(in.at("outputs"));
    if (header.outputs < 1) throw Error("no outputs");
  }
  const json& groups = in.at("groups");
  const std::size_t count = groups.at("names").size();
  if (groups.at("splits").size() != count || groups.at("rows").size() != count) {
    throw Error("group lists of different length");
  }
  std::uint64_t first = 0;
  header.groups.reserve(count);
  for (std::size_t g = 0; g < count; ++g) {
    const auto rows = io::whole_number<std::uint32_t>(groups["rows"][g]);
    header.groups.push_back({groups["names"][g], parse_split(groups["splits"][g]), first, rows});
    first += rows;
  }
  header.preprocessing = Preprocessing::from_json(in.at("preprocessing").dump(), origin);
  for (const auto& [key, value] : in.at("provenance").items()) {
    header.provenance.emplace_back(key, value.get<std::string>());
  }
  return header;
}

}  // namespace

std::vector<std::uint32_t> DatasetHeader::split_groups(Split split) const {
  std::vector<std::uint32_t> out;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (groups[g].split == split) out.push_back(static_cast<std::uint32_t>(g));
  }
  return out;
}

std::uint64_t DatasetHeader::rows() const {
  return groups.empty() ? 0 : groups.back().first + groups.back().rows;
}

// ---- reading ----

std::shared_ptr<const Dataset> Dataset::open(const std::filesystem::path& path) {
  std::shared_ptr<Dataset> dataset(new Dataset);
  dataset->path_ = path;
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) io::throw_system_error("cannot open data file", path, errno);
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    throw Error(
        fmt::format("{}: expected a data file written by `kshot import`, not a folder or "
                    "device",
                    path.string()));
  }
  dataset->size_ = static_cast<std::uint64_t>(status.st_size);
  if (dataset->size_ > 0) {
    try {
      dataset->mapping_ = io::MappedFile(descriptor, dataset->size_, io::MappedFile::Access::read,
                                         path, "data file");
    } catch (...) {
      ::close(descriptor);
      throw;
    }
    dataset->bytes_ = reinterpret_cast<const unsigned char*>(dataset->mapping_.data());
  }
  ::close(descriptor);
  dataset->state_ = dataset->mapping_.state();
  try {
    dataset->parse();
  } catch (const Error&) {
    dataset->mapping_.check();  // a file cut short is the likelier cause
    throw;
  }
  dataset->check();
  return dataset;
}

Dataset::~Dataset() = default;

void Dataset::parse() {
  const auto fail = [&](const std::string& why) {
    return Error(fmt::format("{}: {}", path_.string(), why));
  };
  if (size_ < start_mark.size() || std::memcmp(bytes_, start_mark.data(), start_mark.size()) != 0) {
    throw fail("not a kshot data file (expected one written by `kshot import`)");
  }
  Trailer trailer{};
  if (size_ >= alignment + sizeof trailer) {
    std::memcpy(&trailer, bytes_ + size_ - sizeof trailer, sizeof trailer);
  }
  if (std::string_view(trailer.mark, sizeof trailer.mark) != end_mark) {
    throw fail(
        fmt::format("the data file is cut short: its {} bytes do not end with the closing "
                    "mark; import it again",
                    size_));
  }
  if (trailer.version != format_version) {
    throw fail(
        fmt::format("data file of version {}; this program reads version {}; import it again",
                    trailer.version, format_version));
  }
  checksum_ = crc(0, bytes_, size_ - unchecked_tail);
  if (checksum_ != trailer.checksum) {
    throw fail(
        fmt::format("the data file is corrupt: checksum {:08x}, expected {:08x}; import it "
                    "again",
                    checksum_, trailer.checksum));
  }
  // The checksum is right: a failure from here on is a defect of the program that wrote the file.
  const std::uint64_t end = size_ - sizeof trailer;
  if (trailer.header_offset > end || trailer.header_bytes > end - trailer.header_offset) {
    throw fail("the header lies outside of the data file; import the data again");
  }
  try {
    const char* text = reinterpret_cast<const char*>(bytes_ + trailer.header_offset);
    const json in = io::parse_json({text, trailer.header_bytes});
    header_ = parse_header(in, path_.string());
    const auto array = [&](const char* name, std::uint64_t row_bytes) {
      const auto offset = io::whole_number<std::uint64_t>(in.at("arrays").at(name));
      if (offset % alignment != 0 || offset > end ||
          header_.rows() > (end - offset) / std::max<std::uint64_t>(row_bytes, 1)) {
        throw Error(fmt::format("array '{}' lies outside of the file", name));
      }
      return bytes_ + offset;
    };
    x_ = array("x",
               static_cast<std::uint64_t>(header_.input.size()) * element_bytes(header_.element));
    if (header_.kind == GroupKind::tasks) {
      if (header_.target == TargetKind::value) {
        values_ = reinterpret_cast<const float*>(
            array("values", static_cast<std::uint64_t>(header_.outputs) * sizeof(float)));
      } else {
        labels_ = reinterpret_cast<const std::int32_t*>(array("labels", sizeof(std::int32_t)));
      }
    }
  } catch (const std::exception& error) {
    throw fail(
        fmt::format("the data file's header cannot be read ({}); import it again", error.what()));
  }
}

void Dataset::read(std::uint64_t row, std::span<float> out) const {
  const std::size_t d = out.size();
  if (header_.element == Element::u8) {
    const unsigned char* __restrict from = x_ + row * d;
    float* __restrict to = out.data();
    for (std::size_t i = 0; i < d; ++i) to[i] = stored_number(from[i]);
  } else {
    std::memcpy(out.data(), x_ + row * d * sizeof(float), d * sizeof(float));
  }
  mapping_.check();
}

void Dataset::prefetch(std::uint64_t row) const {
  const auto d = static_cast<std::size_t>(header_.input.size());
  const std::size_t bytes = d * (header_.element == Element::u8 ? 1 : sizeof(float));
  kshot::prefetch(x_ + row * bytes, bytes);
}

std::span<const std::byte> Dataset::stored() const {
  const auto row = static_cast<std::size_t>(header_.input.size()) * element_bytes(header_.element);
  return as_bytes(x_, header_.rows() * row);
}

std::span<const float> Dataset::value(std::uint64_t row) const {
  const auto outputs = static_cast<std::size_t>(header_.outputs);
  const float* const first = values_ + row * outputs;
  // Both ends of the target are read here, so that this call throws if the file has lost a page.
  static_cast<void>(*static_cast<const volatile float*>(first));
  static_cast<void>(*static_cast<const volatile float*>(first + outputs - 1));
  mapping_.check();
  return {first, outputs};
}

void Dataset::check() const {
  mapping_.check();
  const io::MappedFile::FileState now = mapping_.state();
  const std::lock_guard lock(state_mutex_);
  if (now == state_) return;
  if (now.size < size_) mapping_.fail();
  // A new time of change does not prove a change. The contents decide.
  if (now.size != size_ || crc(0, bytes_, size_ - unchecked_tail) != checksum_) {
    throw Error(fmt::format(
        "{}: the data file was changed while it was in use; import to another file, or train again",
        path_.string()));
  }
  mapping_.check();
  state_ = now;
}

std::int32_t Dataset::label(std::uint64_t row) const {
  const std::int32_t label = labels_[row];
  mapping_.check();
  return label;
}

// ---- writing ----

struct DatasetWriter::State {
  State(const std::filesystem::path& path, DatasetHeader given,
        const std::vector<std::filesystem::path>& inputs)
      : output(path, io::OutputKind::data_file, inputs), file(path), header(std::move(given)) {
    header.groups.clear();
  }

  void put(const void* data, std::size_t size) {
    file.write(as_bytes(data, size));
    checksum = crc(checksum, data, size);
    written += size;
  }
  /// Writes zeros up to the next aligned offset, and returns this offset.
  std::uint64_t align() {
    static constexpr char zeros[alignment] = {};
    if (written % alignment != 0) put(zeros, alignment - written % alignment);
    return written;
  }
  void add(const void* row, std::size_t elements, Element element) {
    if (header.groups.empty() || element != header.element ||
        elements != static_cast<std::size_t>(header.input.size())) {
      throw std::logic_error("data file: a row that does not fit the header");
    }
    if (header.groups.back().rows == std::numeric_limits<std::uint32_t>::max()) {
      throw Error(fmt::format("{}: more than 2^32 rows in '{}'", file.path().string(),
                              header.groups.back().name));
    }
    put(row, elements * element_bytes(element));
    ++header.groups.back().rows;
  }

  io::OutputFile output;  // checks the path and creates its folder before `file` is opened
  io::AtomicFile file;
  DatasetHeader header;
  std::uint64_t written = 0;
  std::uint32_t checksum = 0;
  std::vector<float> values;
  std::vector<std::int32_t> labels;
};

DatasetWriter::DatasetWriter(const std::filesystem::path& path, DatasetHeader header,
                             const std::vector<std::filesystem::path>& inputs)
    : state_(std::make_unique<State>(path, std::move(header), inputs)) {
  state_->put(start_mark.data(), start_mark.size());
  state_->put(&format_version, sizeof format_version);
  state_->align();
}

DatasetWriter::~DatasetWriter() = default;

void DatasetWriter::begin_group(const std::string& name, Split split) {
  if (!is_utf8(name)) {
    throw Error(fmt::format("'{}': the name of a {} is not UTF-8 text; rename it", printable(name),
                            state_->header.kind == GroupKind::classes ? "class" : "task"));
  }
  state_->header.groups.push_back({name, split, state_->header.rows(), 0});
}

void DatasetWriter::add(std::span<const std::uint8_t> x) {
  state_->add(x.data(), x.size(), Element::u8);
}

void DatasetWriter::add(std::span<const float> x) {
  state_->add(x.data(), x.size(), Element::f32);
}

void DatasetWriter::add_value(std::span<const float> target) {
  state_->values.insert(state_->values.end(), target.begin(), target.end());
}

void DatasetWriter::add_label(std::int32_t label) {
  state_->labels.push_back(label);
}

const DatasetHeader& DatasetWriter::commit() {
  State& s = *state_;
  const bool tasks = s.header.kind == GroupKind::tasks;
  const bool values = tasks && s.header.target == TargetKind::value;
  const std::uint64_t rows = s.header.rows();
  if (s.values.size() != (values ? rows * static_cast<std::uint64_t>(s.header.outputs) : 0) ||
      s.labels.size() != (tasks && !values ? rows : 0)) {
    throw std::logic_error("data file: rows without targets");
  }
  json header = header_json(s.header);
  header["arrays"]["x"] = alignment;
  if (values) {
    header["arrays"]["values"] = s.align();
    s.put(s.values.data(), s.values.size() * sizeof(float));
  } else if (tasks) {
    header["arrays"]["labels"] = s.align();
    s.put(s.labels.data(), s.labels.size() * sizeof(std::int32_t));
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception&) {
    throw Error(fmt::format("{}: a name of a class, task or column is not UTF-8 text",
                            s.file.path().string()));
  }
  Trailer trailer{};
  trailer.header_offset = s.align();
  trailer.header_bytes = text.size();
  s.put(text.data(), text.size());
  s.put(&trailer, sizeof trailer - unchecked_tail);
  trailer.checksum = s.checksum;
  trailer.version = format_version;
  std::memcpy(trailer.mark, end_mark.data(), sizeof trailer.mark);
  s.put(reinterpret_cast<const char*>(&trailer) + sizeof trailer - unchecked_tail, unchecked_tail);
  s.file.commit();
  s.output.written();
  return s.header;
}

}  // namespace kshot::data
