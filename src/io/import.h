// Imports: from the files people have to the one data file that training maps (io/dataset.h). Each
// returns what it wrote; each throws Error with the file, the line or entry and what was expected,
// and then leaves nothing at `output`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "io/dataset.h"

namespace kshot::io {

/// Which classes or tasks go to which split: by lists, or by shares of a seeded shuffle.
struct SplitOptions {
  /// Text files, one name a line; several a split. What no file lists is left out.
  std::vector<std::pair<Split, std::filesystem::path>> lists;
  /// Table with a column `split`: its first column is the index (arrays) or name (tables) of a
  /// class or task, a column `name`, `class` or else its second one the name to keep.
  std::filesystem::path table;
  /// Shares of train, validation, test. Where nothing else is given: 0.64, 0.16, 0.2.
  std::vector<double> fractions;
  std::uint64_t seed = 1;
};

struct ImportCommon {
  std::filesystem::path output;
  SplitOptions splits;
  /// Called after every class that a long import has done.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;
};

struct ImportSummary {
  std::filesystem::path output;
  DatasetHeader header;
  std::uint64_t bytes = 0;
  std::vector<std::string> notes;
  /// How each column of a table was read, in their order.
  std::vector<std::string> columns;
};

/// Omniglot as published: images_background and images_evaluation, zip or folder, with
/// <alphabet>/characterNN/*.png, black on white. Split lists hold "Alphabet/characterNN/rotDDD": a
/// class turned counter-clockwise by 0, 90, 180 or 270 degrees ("/rotDDD" may be left out). Strokes
/// become 1, paper 0.
struct OmniglotImport : ImportCommon {
  std::vector<std::filesystem::path> sources;
  int size = 28;
};
ImportSummary import_omniglot(const OmniglotImport& options);

/// A folder or zip archive with a folder of PNG and JPEG images for every class; `train`, `val` and
/// `test` folders above them, if there are, are the splits.
struct ImagesImport : ImportCommon {
  std::filesystem::path source;
  int height = 0, width = 0;  ///< 0: that of the images, which must then be equal
  bool grey = false;          ///< else RGB
  bool crop = false;          ///< the centre of the wanted aspect ratio, else squeezed
  bool invert = false;
};
ImportSummary import_images(const ImagesImport& options);

/// Classes from arrays. References are FILE.npy, FILE.npz or FILE.npz:NAME. Without labels the
/// array is [classes, examples, ...], with labels [N, ...], labels whole numbers [N]. An example is
/// a vector [d] or an image [H, W], [H, W, C], [C, H, W].
struct ArraysImport : ImportCommon {
  std::string source;
  std::string labels;
  ArrayLayout layout = ArrayLayout::automatic;
  /// Vectors: with mean and deviation over the training classes, in double precision.
  bool standardise = false;
};
ImportSummary import_arrays(const ArraysImport& options);

/// One few-shot task for every value of a task column. From CSV or TSV, or from arrays: the source
/// [rows, d] (FILE.npy, FILE.npz:NAME), tasks and targets as columns of the source or as arrays
/// ([rows] or [rows, t]; FILE.npy:2 is column 2).
struct TableImport : ImportCommon {
  std::string source;
  std::string task;  ///< empty: one task, for training
  std::vector<std::string> targets;
  bool classification = false;           ///< one target, whose values are the labels
  std::string split_column;              ///< train, validation or test, the same within a task
  std::vector<std::string> categorical;  ///< columns that are categories though they look numeric
  std::vector<std::string> categorical_arrays;  ///< further columns, of codes
  std::vector<std::string> ignore;
  std::vector<std::string> dates;  ///< columns of ISO 8601 dates, read as days
  std::filesystem::path columns;   ///< arrays: table whose column `name` names the columns
  MissingRule missing = MissingRule::error;
  bool raw_targets = false;  ///< keep targets as they are
  char delimiter = 0;        ///< 0: the one that fits
  TextFormat format;         ///< how numbers and missing values are written
};
ImportSummary import_table(const TableImport& options);

}  // namespace kshot::io
