// Imports: each function converts the files of a user to the one data file that training maps
// (data/dataset.h), and returns a summary of what it wrote. Each throws Error with the file, the
// line or entry and what was expected, and then leaves nothing at `output`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/dataset.h"

namespace kshot::data {

/// Assigns classes or tasks to splits: by lists, or by shares of a seeded shuffle.
struct SplitOptions {
  /// Text files with one name per line. A split may have several files. Names in no file are left
  /// out.
  std::vector<std::pair<Split, std::filesystem::path>> lists;
  /// Table with a column `split`. Its first column is the index (arrays) or the name (tables) of a
  /// class or task. The name to keep stands in a column `name` or `class`, else in the second
  /// column.
  std::filesystem::path table;
  /// Shares of train, validation, test. The default, if nothing else divides, is 0.64, 0.16, 0.2.
  std::vector<double> fractions;
  std::uint64_t seed = 1;
  /// Images: the first folder above a class that names a split decides, wherever that folder
  /// stands. A class without such a folder is left out.
  bool by_folders = false;
  /// Allows a class in two splits, and several classes with one name.
  bool allow_shared = false;
};

struct ImportCommon {
  std::filesystem::path output;
  SplitOptions splits;
  /// Called after each class of a long import.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;
  /// Called now and then by a long import, so that the caller can end it: an exception that this
  /// function throws is passed on, and nothing is left at `output`.
  std::function<void()> interrupt = {};
};

/// Options of the imports whose groups are classes.
struct ClassImport : ImportCommon {
  std::size_t min_examples = 1;  ///< classes with fewer examples are left out
};

struct ImportSummary {
  std::filesystem::path output;
  DatasetHeader header;
  std::uint64_t bytes = 0;
  std::string division;  ///< how the classes or tasks were divided, for the user
  std::vector<std::string> notes;
  /// How each column of a table was read, in the order of the columns.
  std::vector<std::string> columns;
};

/// Imports Omniglot as published: images_background and images_evaluation, zip or folder, with
/// <alphabet>/characterNN/*.png, black on white. Split lists have lines
/// "Alphabet/characterNN/rotDDD": a class rotated counter-clockwise by 0, 90, 180 or 270 degrees
/// ("/rotDDD" may be left out). Strokes become 1, paper 0.
struct OmniglotImport : ClassImport {
  std::vector<std::filesystem::path> sources;
  int size = 28;
  bool skip_bad = false;  ///< leave out pictures that cannot be read, and note them
};
ImportSummary import_omniglot(const OmniglotImport& options);

/// Imports a folder or zip archive that has one folder of PNG and JPEG images per class. Folders
/// above the class folders that are called `train`, `val`, `test` or the like are the splits. Where
/// the folders do not clearly show the splits, the import is refused. Where lists or fractions
/// divide, class folders of one name below such folders are one class.
struct ImagesImport : ClassImport {
  std::filesystem::path source;
  int height = 0, width = 0;  ///< 0: the size of the images, which must then be equal
  bool grey = false;          ///< false: RGB
  bool crop = false;          ///< cut out the centre with the target aspect ratio; false: squeeze
  bool invert = false;
  bool skip_bad = false;  ///< leave out pictures that cannot be read, and note them
  io::Background background = io::Background::stored;  ///< colour behind transparent pixels
};
ImportSummary import_images(const ImagesImport& options);

/// Imports classes from arrays. References are FILE.npy, FILE.npz or FILE.npz:NAME. Without labels,
/// the array is [classes, examples, ...]. With labels, it is [N, ...] and the labels are whole
/// numbers [N]. An example is a vector [d] or an image [H, W], [H, W, C], [C, H, W].
struct ArraysImport : ClassImport {
  std::string source;
  std::string labels;
  ArrayLayout layout = ArrayLayout::automatic;
  /// Standardises vectors with the mean and standard deviation over the training classes, in double
  /// precision.
  bool standardise = false;
};
ImportSummary import_arrays(const ArraysImport& options);

/// Imports one few-shot task per value of a task column, from CSV or TSV, or from arrays. With
/// arrays, the source is [rows, d] (FILE.npy, FILE.npz:NAME), and tasks and targets are columns of
/// the source or arrays of their own ([rows] or [rows, t]; FILE.npy:2 is column 2).
struct TableImport : ImportCommon {
  std::string source;
  /// A table in memory, which is read instead of `source`. The name in `source` then stands in
  /// messages.
  std::optional<io::Table> table = {};
  std::string task;  ///< empty: all rows are one task, for training
  std::vector<std::string> targets;
  bool classification = false;  ///< one target column, whose values are the labels
  std::string split_column;     ///< column with train, validation or test, constant within a task
  std::vector<std::string> categorical;  ///< columns that are categories although they look numeric
  std::vector<std::string> categorical_arrays;  ///< further columns, which hold codes of categories
  std::vector<std::string> ignore;
  std::vector<std::string> dates;  ///< columns of ISO 8601 dates, read as days
  std::filesystem::path columns;   ///< only for arrays: table whose column `name` names the columns
  MissingRule missing = MissingRule::error;
  bool raw_targets = false;  ///< keep targets as they are
  bool raw_inputs = false;   ///< keep numeric inputs as they are; not with MissingRule::mean
  char delimiter = 0;        ///< 0: the delimiter that fits
  io::TextFormat format;     ///< how numbers and missing values are written
};
ImportSummary import_table(const TableImport& options);

}  // namespace kshot::data
