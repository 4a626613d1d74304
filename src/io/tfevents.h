// Writes scalars for TensorBoard: event files (TFRecord framing around the protocol buffer
// tensorflow.Event).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace kshot::io {

/// Writes one new event file into a folder. TensorBoard shows all files of a folder as one run.
class EventWriter {
 public:
  /// Creates the folder if necessary, and in it a file with a new name. `first_step` is the step at
  /// which a run begins or resumes: TensorBoard then drops the points of earlier files of the
  /// folder from that step on.
  explicit EventWriter(const std::filesystem::path& folder, std::int64_t first_step = 0);
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  /// Adds one point to the curve `tag`. `wall_time` is in seconds since 1970, by default the
  /// current time. Points are buffered until flush() or until there are many.
  void scalar(std::string_view tag, std::int64_t step, double value,
              std::optional<double> wall_time = std::nullopt);
  /// Hands everything to the system. Throws Error where it cannot be written.
  void flush();

  const std::filesystem::path& path() const { return path_; }

 private:
  void add_record(std::string_view event);

  std::filesystem::path path_;
  std::string buffer_;
  int descriptor_ = -1;
};

}  // namespace kshot::io
