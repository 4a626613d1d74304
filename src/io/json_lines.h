// Metrics as JSON lines: one object a line, appended as training goes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace kshot::io {

/// Appends to a file a whole line at a time, so that a reader or a crash meets at most one cut
/// line, the last.
class JsonLinesWriter {
 public:
  /// Creates the file or goes on after its last whole line; a cut one (of a crash) is removed.
  explicit JsonLinesWriter(const std::filesystem::path& path);
  ~JsonLinesWriter();
  JsonLinesWriter(const JsonLinesWriter&) = delete;
  JsonLinesWriter& operator=(const JsonLinesWriter&) = delete;

  /// One line, handed to the system before the return. NaN and infinities, which JSON does not
  /// have, become null. Throws Error where it cannot be written (and leaves no part of the line).
  void append(const nlohmann::ordered_json& record);

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// All records of a file; a cut last line is left out. Any other line that is not JSON is an Error
/// with its number.
std::vector<nlohmann::json> read_json_lines(const std::filesystem::path& path);

/// Before a resume: removes the records whose number under "step" is greater than `last_step` (and
/// a cut last line). The other lines stay as they are, byte for byte. The file is replaced
/// atomically; a missing file is left missing. Returns how many lines were removed.
std::size_t truncate_after(const std::filesystem::path& path, std::int64_t last_step);

}  // namespace kshot::io
