// Metrics as JSON lines: one object per line, appended during training.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace kshot::io {

/// Appends whole lines to a file, so that a reader or a crash finds at most one incomplete line,
/// the last one.
class JsonLinesWriter {
 public:
  /// Creates the file, or appends after its last whole line. An incomplete last line (from a crash)
  /// is removed.
  explicit JsonLinesWriter(const std::filesystem::path& path);
  ~JsonLinesWriter();
  JsonLinesWriter(const JsonLinesWriter&) = delete;
  JsonLinesWriter& operator=(const JsonLinesWriter&) = delete;

  /// Writes one line and hands it to the system before the return. NaN and infinities, which JSON
  /// does not have, become null. Throws Error where the line cannot be written, and then leaves no
  /// part of it.
  void append(const nlohmann::ordered_json& record);

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// Reads all records of a file. An incomplete last line is ignored. Any other line that is not JSON
/// is an Error with its number.
std::vector<nlohmann::json> read_json_lines(const std::filesystem::path& path);

/// Prepares a file for a resume: removes the records whose number under "step" is greater than
/// `last_step`, and an incomplete last line. The other lines stay as they are, byte for byte. The
/// file is replaced atomically. A missing file is no error and is not created. Returns the number
/// of removed lines.
std::size_t truncate_after(const std::filesystem::path& path, std::int64_t last_step);

}  // namespace kshot::io
