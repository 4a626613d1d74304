// Shared parts of the imports.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/division.h"
#include "data/import.h"
#include "io/tensor.h"

namespace kshot::data {

/// "FILE.npz:NAME" or "FILE.npy:COLUMN", cut at its colon. `part` is empty where there is none.
struct ArrayReference {
  std::filesystem::path file;
  std::string part;
};
ArrayReference parse_array_reference(const std::string& text);
bool is_array_file(const std::string& reference);
bool is_npz(const std::filesystem::path& file);  ///< decided by the name, in any case
/// Reads an array. From an archive it reads the named entry, else the first of `usual_names` that
/// the archive has, else the only entry. The column of a .npy reference is not applied here.
io::Tensor read_array(const ArrayReference& reference, const std::vector<std::string>& usual_names);
/// Reads an array as read_array does, but returns nothing where an archive has none of
/// `usual_names`.
std::optional<io::Tensor> find_array(const ArrayReference& reference,
                                     const std::vector<std::string>& usual_names);

/// Mean and population standard deviation of each column, accumulated in double precision.
class ColumnStatistics {
 public:
  explicit ColumnStatistics(std::size_t columns)
      : mean_(columns), square_(columns), low_(columns), high_(columns), n_(columns) {}
  void add(std::size_t column, double value) {  // method of Welford 1962
    low_[column] = n_[column] == 0 ? value : std::min(low_[column], value);
    high_[column] = n_[column] == 0 ? value : std::max(high_[column], value);
    const double delta = value - mean_[column];
    mean_[column] += delta / static_cast<double>(++n_[column]);
    square_[column] += delta * (value - mean_[column]);
  }
  double mean(std::size_t column) const { return mean_[column]; }
  /// Standard deviation. It is 1 for a constant column, which then becomes 0 throughout.
  double deviation(std::size_t column) const;
  bool constant(std::size_t column) const { return low_[column] == high_[column]; }
  double low(std::size_t column) const { return low_[column]; }
  double high(std::size_t column) const { return high_[column]; }
  std::size_t count(std::size_t column) const { return n_[column]; }

 private:
  std::vector<double> mean_, square_, low_, high_;
  std::vector<std::size_t> n_;
};

/// Adds to `notes` the pictures that were left out, each with its reason.
void note_bad_pictures(const std::vector<std::string>& bad, std::vector<std::string>* notes);

/// Provenance entries of a data file. `division` says how the classes or tasks were divided.
std::vector<std::pair<std::string, std::string>> provenance_of(
    const std::string& import, const std::vector<std::string>& sources,
    const std::string& division);

/// Commits the data file and returns its summary.
ImportSummary finish(DatasetWriter* writer, const ImportCommon& options, std::string division,
                     std::vector<std::string> notes);

}  // namespace kshot::data
