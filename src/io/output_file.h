// Checks and writes the files that a user names as the output of a command.
//
// One rule holds for every command:
// - An output is never one of the command's inputs, by whatever path or link it is named.
// - A file that kshot did not write is never replaced.
// - A file of the same kind that kshot wrote is replaced, and one line on standard error says so.
// - Missing folders above an output are created.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

namespace kshot::io {

enum class OutputKind {
  data_file,    ///< .kshot
  evaluation,   ///< JSON of `kshot evaluate`
  calibration,  ///< JSON of `kshot calibrate`
  bandit,       ///< JSON of `kshot bandit`
  page,         ///< HTML of `kshot report` and `kshot compare`
  arrays,       ///< .npz
  weights,      ///< adapted.safetensors of `kshot adapt`
  predictions,  ///< predictions.csv of `kshot adapt`
  class_table,  ///< .tsv that `kshot embed` writes beside its arrays
  text,         ///< text that people edit, such as a configuration; never replaced
};

/// Claims a path for an output before a command begins its work. It creates only missing folders,
/// and removes them again if nothing was written into them.
class OutputFile {
 public:
  /// Throws Error, which names the file, if the file is one of `inputs`, exists and is not a file
  /// of this kind that kshot wrote, or cannot be written. `inputs` that do not exist are ignored.
  OutputFile(std::filesystem::path file, OutputKind kind,
             const std::vector<std::filesystem::path>& inputs = {});
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// Writes the whole file atomically and calls `written`. Checks the rule once more, because a
  /// file may have appeared in the meantime.
  void write(std::string_view text);
  /// Reports in one line that an earlier file was replaced, if one was. Call it once the file is in
  /// place.
  void written();

 private:
  bool check() const;

  std::filesystem::path path_;
  OutputKind kind_;
  std::vector<std::filesystem::path> inputs_;
  std::vector<std::filesystem::path> created_;  ///< created folders, the outermost first
  bool replaces_ = false;
};

/// Marks by which kshot's own files are recognised. The writers put them into the first bytes of a
/// file, or for arrays into the comment of the archive.
inline constexpr std::string_view evaluation_mark = "kshot evaluation";
inline constexpr std::string_view calibration_mark = "kshot calibration";
inline constexpr std::string_view bandit_mark = "kshot bandit";
inline constexpr std::string_view page_mark = "<meta name=\"generator\" content=\"kshot\">";
inline constexpr std::string_view arrays_mark = "written by kshot";
inline constexpr std::string_view weights_mark = "kshot adapted weights";
inline constexpr std::string_view class_table_header = "index\tname\tsplit\n";

}  // namespace kshot::io
