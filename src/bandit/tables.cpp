#include "bandit/tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "io/npy.h"
#include "kshot/error.h"

namespace kshot::bandit {
namespace {

namespace fs = std::filesystem;

/// The matrix [rows, columns] of a file. A vector in the file becomes [rows, 1].
struct Columns {
  std::size_t rows = 0, width = 0;
  std::vector<double> values;

  explicit Columns(const fs::path& file) {
    const io::NpyArray array = io::read_npy(file);
    if (array.shape.empty() || array.shape.size() > 2 || array.size() == 0) {
      throw Error(fmt::format("{}: expected an array [rows] or [rows, columns], got {}",
                              file.string(), io::shape_text(array.shape)));
    }
    rows = array.shape[0];
    width = array.size() / rows;
    values = array.to_f64();
  }
};

/// Returns the labels numbered 0, 1, ... in the order of their values.
std::vector<int> labels_of(const fs::path& file) {
  const std::vector<std::int64_t> values = io::read_npy(file).to_i64();
  std::vector<std::int64_t> sorted = values;
  std::ranges::sort(sorted);
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  if (sorted.size() > 1000) {
    throw Error(fmt::format("{}: {} different labels, expected at most 1000", file.string(),
                            sorted.size()));
  }
  std::vector<int> labels;
  labels.reserve(values.size());
  for (const std::int64_t v : values) {
    labels.push_back(static_cast<int>(std::ranges::lower_bound(sorted, v) - sorted.begin()));
  }
  return labels;
}

/// A table in columns, [columns][rows].
using Table = std::vector<std::vector<float>>;

/// Appends the columns of `from`, standardised. A column of 0 and 1 is not changed.
void add_measurements(Table& table, const Columns& from) {
  for (std::size_t c = 0; c < from.width; ++c) {
    double sum = 0.0, squares = 0.0;
    bool binary = true;
    for (std::size_t r = 0; r < from.rows; ++r) {
      const double v = from.values[r * from.width + c];
      sum += v;
      binary = binary && (v == 0.0 || v == 1.0);
    }
    const double mean = sum / static_cast<double>(from.rows);
    for (std::size_t r = 0; r < from.rows; ++r) {
      const double d = from.values[r * from.width + c] - mean;
      squares += d * d;
    }
    const double std = std::sqrt(squares / static_cast<double>(from.rows));
    const double shift = binary ? 0.0 : mean, scale = binary || std == 0.0 ? 1.0 : 1.0 / std;
    std::vector<float>& column = table.emplace_back();
    for (std::size_t r = 0; r < from.rows; ++r) {
      column.push_back(static_cast<float>((from.values[r * from.width + c] - shift) * scale));
    }
  }
}

/// Appends one column of 0 and 1 per category that occurs in a column of `from`.
void add_categories(Table& table, const Columns& from) {
  for (std::size_t c = 0; c < from.width; ++c) {
    std::vector<double> codes;
    for (std::size_t r = 0; r < from.rows; ++r) codes.push_back(from.values[r * from.width + c]);
    std::vector<double> sorted = codes;
    std::ranges::sort(sorted);
    sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
    for (const double code : sorted) {
      std::vector<float>& column = table.emplace_back();
      for (const double own : codes) column.push_back(own == code ? 1.0f : 0.0f);
    }
  }
}

}  // namespace

TableOptions read_table(const std::string& name, const fs::path& folder) {
  const auto file = [&](const char* what) { return folder / fmt::format("{}_{}.npy", name, what); };
  Table table;
  if (name == "adult") {
    add_measurements(table, Columns(file("numeric")));
    add_categories(table, Columns(file("categorical")));
  } else {
    add_measurements(table, Columns(file("X")));
  }
  TableOptions options;
  options.name = name;
  options.mushroom = name == "mushroom";
  options.labels = labels_of(file("y"));
  options.context_size = static_cast<int>(table.size());
  for (const std::vector<float>& column : table) {
    if (column.size() != options.labels.size()) {
      throw Error(fmt::format("{}: {} rows, expected {} as the labels have",
                              folder.string() + "/" + name, column.size(), options.labels.size()));
    }
  }
  options.contexts.reserve(table.size() * options.labels.size());
  for (std::size_t r = 0; r < options.labels.size(); ++r) {
    for (const std::vector<float>& column : table) options.contexts.push_back(column[r]);
  }
  return options;
}

}  // namespace kshot::bandit
