// Imports: from the files people have to the one data file that training maps (io/dataset.h). Each
// returns what it wrote; each throws Error with the file, the line or entry and what was expected,
// and then leaves nothing at `output`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/dataset.h"

namespace kshot::io {

/// Which classes or tasks go to which split: by lists, or by shares of a seeded shuffle.
struct SplitOptions {
  /// Text files, one name per line; a split may have several. What no file lists is left out.
  std::vector<std::pair<Split, std::filesystem::path>> lists;
  /// Table with a column `split`: its first column is the index (arrays) or name (tables) of a
  /// class or task, a column `name`, `class` or else its second one the name to keep.
  std::filesystem::path table;
  /// Shares of train, validation, test. Where nothing else is given: 0.64, 0.16, 0.2.
  std::vector<double> fractions;
  std::uint64_t seed = 1;
  /// Images: a class goes by the first folder above it that names a split, wherever that folder
  /// stands; what has none is left out.
  bool by_folders = false;
  /// One class may be in two splits, or several classes have one name.
  bool allow_shared = false;
};

struct ImportCommon {
  std::filesystem::path output;
  SplitOptions splits;
  /// Called after every class that a long import has done.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;
  /// Called now and then by a long import, so that the caller can end it: an exception that this
  /// throws is passed on, and nothing is left at `output`.
  std::function<void()> interrupt = {};
};

/// Imports whose groups are classes.
struct ClassImport : ImportCommon {
  std::size_t min_examples = 1;  ///< classes with fewer are left out
};

struct ImportSummary {
  std::filesystem::path output;
  DatasetHeader header;
  std::uint64_t bytes = 0;
  std::string division;  ///< how the classes or tasks were divided
  std::vector<std::string> notes;
  /// How each column of a table was read, in their order.
  std::vector<std::string> columns;
};

/// Omniglot as published: images_background and images_evaluation, zip or folder, with
/// <alphabet>/characterNN/*.png, black on white. Split lists hold "Alphabet/characterNN/rotDDD": a
/// class turned counter-clockwise by 0, 90, 180 or 270 degrees ("/rotDDD" may be left out). Strokes
/// become 1, paper 0.
struct OmniglotImport : ClassImport {
  std::vector<std::filesystem::path> sources;
  int size = 28;
  bool skip_bad = false;  ///< pictures that cannot be read are left out and noted
};
ImportSummary import_omniglot(const OmniglotImport& options);

/// A folder or zip archive with a folder of PNG and JPEG images for every class. Folders above them
/// that are called `train`, `val`, `test` or the like are the splits; where that is not clear, the
/// import is refused. Where lists or fractions divide, classes of one name below such folders are
/// one class.
struct ImagesImport : ClassImport {
  std::filesystem::path source;
  int height = 0, width = 0;  ///< 0: that of the images, which must then be equal
  bool grey = false;          ///< else RGB
  bool crop = false;          ///< the centre of the wanted aspect ratio, else squeezed
  bool invert = false;
  bool skip_bad = false;  ///< pictures that cannot be read are left out and noted
  Background background = Background::stored;  ///< behind transparent pixels
};
ImportSummary import_images(const ImagesImport& options);

/// Classes from arrays. References are FILE.npy, FILE.npz or FILE.npz:NAME. Without labels the
/// array is [classes, examples, ...], with labels [N, ...], labels whole numbers [N]. An example is
/// a vector [d] or an image [H, W], [H, W, C], [C, H, W].
struct ArraysImport : ClassImport {
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
  /// A table in memory. It is read in the place of `source`, whose name then stands in messages.
  std::optional<Table> table = {};
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
  bool raw_inputs = false;   ///< keep numeric inputs as they are; not with MissingRule::mean
  char delimiter = 0;        ///< 0: the one that fits
  TextFormat format;         ///< how numbers and missing values are written
};
ImportSummary import_table(const TableImport& options);

}  // namespace kshot::io
