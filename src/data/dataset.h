// Reads and writes the data file (.kshot): examples in groups, memory-mapped. A group is a class
// (few-shot classification draws N classes per task) or a whole task (tables: one subject, one
// sensor).
//
// The file is little-endian, and every array is aligned to 64 bytes:
//   "KSHOTDAT", u32 version, u32 0, zeros to byte 64
//   x       [rows, features] u8 or f32
//   values  [rows, outputs] f32   or   labels [rows] i32   (only in files of tasks)
//   header  JSON: kind, shapes, groups with their splits, preprocessing, provenance, array offsets
//   u64 header offset, u64 header bytes, u32 CRC-32 of all bytes before it, u32 version, "KSHOTEND"
// The header stands last, so that an import of any size can be written as a stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/preprocessing.h"
#include "io/mapped_file.h"
#include "kshot/episode.h"

namespace kshot::data {

enum class GroupKind { classes, tasks };
enum class Element {
  u8,  ///< images: 0..255 maps to [0, 1]
  f32
};

/// A class or a task. It consists of the rows [first, first + rows) of the file.
struct Group {
  std::string name;
  Split split = Split::train;
  std::uint64_t first = 0;
  std::uint32_t rows = 0;
};

struct DatasetHeader {
  GroupKind kind = GroupKind::classes;
  FeatureShape input;
  Element element = Element::f32;
  TargetKind target = TargetKind::label;  ///< only for tasks
  int outputs = 0;  ///< only for tasks: length of a target, or number of labels
  std::vector<Group> groups;
  Preprocessing preprocessing;
  /// The origin of the data: {"source", "..."}, {"program", "kshot 0.1.0"}.
  std::vector<std::pair<std::string, std::string>> provenance;

  /// Indices of the groups of a split.
  std::vector<std::uint32_t> split_groups(Split split) const;
  std::uint64_t rows() const;
};

/// A mapped and checked data file. It is immutable, and any number of threads may use it.
class Dataset {
 public:
  /// Throws Error for a file that is missing, of another kind or version, cut short or corrupt.
  static std::shared_ptr<const Dataset> open(const std::filesystem::path& path);
  ~Dataset();
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const DatasetHeader& header() const { return header_; }
  std::uint32_t checksum() const { return checksum_; }
  std::uint64_t file_bytes() const { return size_; }

  // The functions that read rows throw Error where the file was cut short while it was open.
  /// Reads the features of a row into `out`, input.size() numbers. u8 is scaled to [0, 1].
  void read(std::uint64_t row, std::span<float> out) const;
  /// Prefetches a row that will be read soon.
  void prefetch(std::uint64_t row) const;
  /// All rows as the file stores them, [rows, features] of header().element. Call check() after
  /// reading them.
  std::span<const std::byte> stored() const;
  /// Throws Error where the file has changed since it was opened (cut short or written over). Call
  /// it after the rows of a task were read. It takes one system call, and reads the whole file
  /// again if the time of its last change is new.
  void check() const;
  /// Target of a row, [outputs]. Only for tasks with real targets.
  std::span<const float> value(std::uint64_t row) const;
  /// Label of a row. Only for tasks with labels.
  std::int32_t label(std::uint64_t row) const;

 private:
  Dataset() = default;
  void parse();

  std::filesystem::path path_;
  DatasetHeader header_;
  io::MappedFile mapping_;
  mutable std::mutex state_mutex_;
  mutable io::MappedFile::FileState state_;  ///< the state whose contents were checked
  const unsigned char* bytes_ = nullptr;     ///< start of mapping_; null for an empty file
  std::uint64_t size_ = 0;
  std::uint32_t checksum_ = 0;
  const unsigned char* x_ = nullptr;
  const float* values_ = nullptr;
  const std::int32_t* labels_ = nullptr;
};

/// Writes a data file row by row. The file appears at `path` only with `commit`. The path must be
/// free or name a data file (io/output_file.h).
class DatasetWriter {
 public:
  /// `header.groups` is ignored: begin_group adds the groups. `path` must be none of `inputs`.
  DatasetWriter(const std::filesystem::path& path, DatasetHeader header,
                const std::vector<std::filesystem::path>& inputs = {});
  ~DatasetWriter();

  void begin_group(const std::string& name, Split split);
  /// Adds one row to the last group. The overload must fit the header's element type. Values must
  /// be finite (the caller checks them, because only the caller can name their source).
  void add(std::span<const std::uint8_t> x);
  void add(std::span<const float> x);
  /// Adds the target of the last row (only for tasks).
  void add_value(std::span<const float> target);
  void add_label(std::int32_t label);

  /// Completes the file and moves it into place. Returns its header.
  const DatasetHeader& commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kshot::data
