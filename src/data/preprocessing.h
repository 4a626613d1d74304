// Records what an import did to a user's raw inputs and targets. The data file and every checkpoint
// store it, and it turns the rows of a new task into features in exactly the same way.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/image.h"
#include "io/table.h"
#include "io/tensor.h"
#include "kshot/episode.h"

namespace kshot::data {

enum class MissingRule {
  error,  ///< a missing value is an Error
  mean,   ///< numeric: the training mean (0 once standardised); category: all zeros
  drop,   ///< the row is left out
};

/// How a picture is brought to the input size.
enum class ImageFit {
  exact,    ///< it must have that size
  squeeze,  ///< resized without regard to its aspect ratio
  crop,     ///< the centre part with the aspect ratio of the input size, resized
};

/// The meaning of the axes of one example of an array.
enum class ArrayLayout {
  automatic,  ///< inferred from the shape; for one channel the layouts do not differ
  hwc,
  chw,
  hw,      ///< images of one channel, without a channel axis
  vectors  ///< vectors instead of images
};

/// The conversion of inputs and targets.
struct Preprocessing {
  enum class Kind {
    none,   ///< not recorded
    image,  ///< from picture files
    array,  ///< from an array of images
    table,  ///< from a table, or an array of vectors
  };

  /// One column of raw input. A categorical column becomes one-hot, any other (value - mean) / std.
  struct Column {
    std::string name;
    std::vector<std::string> categories;  ///< empty if the column is not categorical
    double mean = 0.0, std = 1.0;
    io::Reading reading =
        io::Reading::number;  ///< of the cells of a column that is not categorical
    int features() const { return categories.empty() ? 1 : static_cast<int>(categories.size()); }
    /// Throws Error that begins with `location` for a result beyond the range of float32.
    float encode(double value, const std::string& location) const;
  };
  struct Target {
    std::string name;
    double mean = 0.0, std = 1.0;  ///< stored value = (raw - mean) / std
    io::Reading reading = io::Reading::number;
    /// Throws Error that begins with `location` for a result beyond the range of float32.
    float encode(double value, const std::string& location) const;
  };

  Kind kind = Kind::none;
  FeatureShape input;
  bool inverted = false;             ///< image: the stored value is 1 - grey level
  ImageFit fit = ImageFit::squeeze;  ///< image
  io::Background background = io::Background::stored;  ///< image: colour behind transparent pixels
  bool bytes = false;            ///< array: 0..255 maps to [0, 1]; false: numbers are kept
  double low = 0.0, high = 0.0;  ///< array, if not bytes: range of the imported numbers
  std::vector<Column> columns;   ///< table, in the order of the features
  bool standardised = true;      ///< table: `mean` and `std` of the columns were measured
  bool named_columns = true;     ///< table: false if kshot made up the names x0, x1, ...
  MissingRule missing = MissingRule::error;
  io::TextFormat format;            ///< table: how its numbers were written
  std::vector<Target> targets;      ///< for regression
  std::string label_column;         ///< for classification
  std::vector<std::string> labels;  ///< for classification: names by index

  std::string to_json() const;
  /// Throws Error that names `origin` where the text is not valid.
  static Preprocessing from_json(std::string_view text, const std::string& origin);
};

/// Rows of a table as features [rows, d] and, if requested, targets.
struct EncodedTable {
  std::size_t rows = 0;
  std::vector<float> x;
  std::vector<float> values;         ///< [rows, targets], standardised
  std::vector<std::int32_t> labels;  ///< [rows]
  std::vector<std::size_t> source;   ///< row of the table from which each row came
  /// Number of values whose category is not in the column's list. Their features are all zeros.
  std::size_t unseen = 0;
};

/// Encodes the rows of a table. Columns are found by name. Throws Error for a column that is
/// absent, a value that is not a finite number, a missing value under MissingRule::error, and an
/// unknown label.
EncodedTable encode_table(const Preprocessing& preprocessing, const io::Table& table,
                          bool with_targets);

/// Returns a decoded picture as the import stores it: cropped, inverted, resized. Where `fit` is
/// exact, throws Error that begins with `name` for a picture of another size.
io::Image prepare_image(const Preprocessing& preprocessing, io::Image picture,
                        const std::string& name);
/// Reads a picture file as a feature row: decoded, prepared, scaled to [0, 1].
std::vector<float> encode_image(const Preprocessing& preprocessing,
                                const std::filesystem::path& file);

/// The examples of an array of images as the import stores them.
class ImageArray {
 public:
  /// `x` is [rows, ...] or, with two `leading` axes, [classes, examples, ...]. It must outlive the
  /// object. An example is [H, W] (one channel), [H, W, C] or [C, H, W], as `layout` and the shape
  /// tell. Throws Error where the shape does not fit `preprocessing.input`, where it leaves the
  /// layout open, and where the numbers cannot have the units of the imported ones.
  ImageArray(const Preprocessing& preprocessing, const io::Tensor& x, std::size_t leading,
             ArrayLayout layout);
  std::size_t rows() const { return rows_; }
  /// Reads a row, channels first, as 0..255. Only for preprocessing.bytes and an `x` of bytes or
  /// booleans.
  void read(std::size_t row, std::span<std::uint8_t> out) const;
  /// Reads a row, channels first, as training reads it. Throws Error for a number that is not
  /// finite.
  void read(std::size_t row, std::span<float> out) const;

 private:
  void check_units() const;

  const Preprocessing& preprocessing_;
  const io::Tensor& x_;
  std::size_t rows_ = 0;
  std::size_t channels_ = 1, area_ = 1;
  bool channels_last_ = false;
};

/// Reads an array's numbers [first, first + out.size()) in double precision. Throws Error for a
/// number that is infinite or beyond float32, and for a whole number that double precision cannot
/// hold. NaN is allowed. `columns` (numbers per row) is used in messages.
void read_numbers(const io::Tensor& x, std::size_t first, std::span<double> out,
                  std::size_t columns);

const char* missing_rule_name(MissingRule rule);

}  // namespace kshot::data
