#include "io/json_lines.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "io/atomic_file.h"
#include "io/json_text.h"
#include "io/system_error.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

using nlohmann::json;

struct Line {
  std::string_view text;  ///< includes the end of line, if there is one
  json record;
};

/// Returns the complete records of a file's contents, and sets `*whole` to their end. If the last
/// line has no end of line and is not a JSON object, a crash has cut it off, and it is not part of
/// the result.
std::vector<Line> parse_lines(const std::filesystem::path& path, std::string_view contents,
                              std::size_t* whole) {
  std::vector<Line> lines;
  std::size_t begin = 0;
  for (std::size_t number = 1; begin < contents.size(); ++number) {
    const std::size_t end_of_line = contents.find('\n', begin);
    const bool ended = end_of_line != std::string_view::npos;
    const std::size_t end = ended ? end_of_line + 1 : contents.size();
    const std::string_view text = contents.substr(begin, end - begin);
    if (text.find_first_not_of(" \t\r\n") != std::string_view::npos) {
      json record;  // null if the line is not JSON
      if (!nested_deeper(text, deepest_json)) {
        record = json::parse(text, nullptr, /*allow_exceptions=*/false);
      }
      if (!record.is_object()) {
        if (!ended) break;
        throw Error(fmt::format("{}, line {}: expected a JSON object", path.string(), number));
      }
      lines.push_back({text, std::move(record)});
    }
    begin = end;
  }
  *whole = begin;
  return lines;
}

}  // namespace

JsonLinesWriter::JsonLinesWriter(const std::filesystem::path& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw_system_error("cannot write", path_, errno);
  try {
    const std::string contents = read_file(path_);
    std::size_t whole = 0;
    parse_lines(path_, contents, &whole);
    if (whole < contents.size() && ::ftruncate(descriptor_, static_cast<off_t>(whole)) != 0) {
      throw_system_error("cannot write", path_, errno);
    }
    if (whole > 0 && contents[whole - 1] != '\n' && ::write(descriptor_, "\n", 1) != 1) {
      throw_system_error("cannot write", path_, errno);
    }
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

JsonLinesWriter::~JsonLinesWriter() {
  ::close(descriptor_);
}

void JsonLinesWriter::append(const nlohmann::ordered_json& record) {
  const std::string line =
      record.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + '\n';
  std::size_t done = 0;
  while (done < line.size()) {
    const ssize_t written = ::write(descriptor_, line.data() + done, line.size() - done);
    if (written < 0) {
      if (errno == EINTR) continue;
      const int failure = errno;
      const off_t end = ::lseek(descriptor_, 0, SEEK_END);
      if (done > 0 && end >= 0) {
        (void)!::ftruncate(descriptor_, end - static_cast<off_t>(done));
      }
      throw_system_error("cannot write", path_, failure);
    }
    done += static_cast<std::size_t>(written);
  }
}

std::vector<json> read_json_lines(const std::filesystem::path& path) {
  const std::string contents = read_file(path);
  std::size_t whole = 0;
  std::vector<json> records;
  for (Line& line : parse_lines(path, contents, &whole)) records.push_back(std::move(line.record));
  return records;
}

std::size_t truncate_after(const std::filesystem::path& path, std::int64_t last_step) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return 0;
  const std::string contents = read_file(path);
  std::size_t whole = 0;
  const std::vector<Line> lines = parse_lines(path, contents, &whole);
  std::string kept;
  std::size_t removed = whole < contents.size() ? 1 : 0;
  for (const Line& line : lines) {
    const auto step = line.record.find("step");
    if (step != line.record.end() && step->is_number() &&
        step->get<double>() > static_cast<double>(last_step)) {
      ++removed;
      continue;
    }
    kept += line.text;
  }
  if (removed > 0) write_file_atomic(path, kept);
  return removed;
}

}  // namespace kshot::io
