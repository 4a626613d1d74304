#include "cli/task_rows.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/log.h"
#include "data/import_common.h"
#include "io/csv.h"
#include "io/npy.h"
#include "kshot/error.h"

namespace kshot::cli {
namespace {

namespace fs = std::filesystem;
using data::MissingRule;
using data::Preprocessing;

/// Returns the names x0, x1, ... that kshot gives to features without names.
std::vector<Preprocessing::Column> unnamed_columns(std::size_t count) {
  std::vector<Preprocessing::Column> columns(count);
  for (std::size_t i = 0; i < count; ++i) columns[i].name = fmt::format("x{}", i);
  return columns;
}

/// Keeps the rows that `keep` marks.
void select(Rows& rows, const std::vector<bool>& keep, std::size_t inputs, std::size_t outputs) {
  Rows out;
  for (std::size_t i = 0; i < keep.size(); ++i) {
    if (!keep[i]) continue;
    const auto part = [&](const std::vector<float>& from, std::size_t width) {
      return std::span(from).subspan(i * width, width);
    };
    const auto x = part(rows.x, inputs);
    out.x.insert(out.x.end(), x.begin(), x.end());
    if (!rows.labels.empty()) out.labels.push_back(rows.labels[i]);
    if (!rows.values.empty()) {
      const auto values = part(rows.values, outputs);
      out.values.insert(out.values.end(), values.begin(), values.end());
    }
    out.source.push_back(rows.source[i]);
  }
  rows.x = std::move(out.x);
  rows.labels = std::move(out.labels);
  rows.values = std::move(out.values);
  rows.source = std::move(out.source);
}

}  // namespace

std::string Rows::location(std::size_t row) const {
  return lines.empty() ? fmt::format("{}, row {}", file, source[row])
                       : fmt::format("{}, line {}", file, lines[source[row]]);
}

RowReader::RowReader(const Learner& learner, TaskFileOptions options)
    : inputs_(static_cast<std::size_t>(learner.network().input().size())),
      outputs_(static_cast<std::size_t>(learner.outputs())),
      classify_(learner.config().loss.type == LossType::cross_entropy),
      options_(std::move(options)) {
  if (!learner.preprocessing().empty()) {
    preprocessing_ = Preprocessing::from_json(learner.preprocessing(), "checkpoint");
  }
  if (preprocessing_.kind == Preprocessing::Kind::none) {
    if (preprocessing_.input.channels == 0) preprocessing_.input = learner.network().input();
    if (!preprocessing_.input.spatial) {
      preprocessing_.kind = Preprocessing::Kind::table;
      preprocessing_.columns = unnamed_columns(inputs_);
      preprocessing_.standardised = false;
      preprocessing_.named_columns = false;
    }
  }
  if (!classify_ && preprocessing_.targets.empty()) {
    for (std::size_t i = 0; i < outputs_; ++i) {
      preprocessing_.targets.push_back({outputs_ == 1 ? "y" : fmt::format("y{}", i)});
    }
  }
  if (!classify_ && preprocessing_.targets.size() != outputs_) {
    throw Error(
        fmt::format("checkpoint: {} targets in its preprocessing, but the network has {} outputs",
                    preprocessing_.targets.size(), outputs_));
  }
  if (options_.missing == MissingRule::mean && !preprocessing_.standardised) {
    throw Error(
        "--missing mean: the run's training data were not standardised, so that their means are "
        "not known; expected error or drop");
  }
  if (options_.layout != data::ArrayLayout::automatic && !preprocessing_.input.spatial) {
    throw Error("--layout: the run takes vectors, which have no channels; expected no --layout");
  }
  format_ = options_.text.format(preprocessing_.format);
  if (options_.missing) {
    preprocessing_.missing = *options_.missing;
  } else if (preprocessing_.missing == MissingRule::drop) {
    preprocessing_.missing =
        MissingRule::error;  // no row is lost unless --missing drop asks for it
  }
}

Rows RowReader::read_support(const fs::path& file) {
  Rows rows = read(file, Role::support);
  if (!rows.has_targets) {
    throw Error(fmt::format("{}: the support rows have no {}: expected {}", rows.file,
                            classify_ ? "labels" : "targets", target_hint(file)));
  }
  require_targets(rows);
  return rows;
}

Rows RowReader::read_query(const fs::path& file) {
  Rows rows = read(file, Role::query);
  const bool known =
      classify_ ? std::ranges::any_of(rows.labels, [](const auto& l) { return !l.empty(); })
                : std::ranges::any_of(rows.values, [](float v) { return !std::isnan(v); });
  rows.has_targets = rows.has_targets && known;
  return rows;
}

Rows RowReader::read(const fs::path& file, Role role) {
  Rows rows = data::is_npz(file) ? read_arrays(file) : read_table(file, role);
  if (rows.source.empty()) throw Error(fmt::format("{}: no rows", rows.file));
  check_width(rows.x.size(), rows.source.size(), rows.file);
  const auto bad = std::ranges::find_if(rows.x, [](float v) { return !std::isfinite(v); });
  if (bad != rows.x.end()) {
    throw Error(
        fmt::format("{}: expected finite numbers",
                    rows.location(static_cast<std::size_t>(bad - rows.x.begin()) / inputs_)));
  }
  return rows;
}

std::string RowReader::label_column() const {
  return preprocessing_.label_column.empty() ? "label" : preprocessing_.label_column;
}

std::string RowReader::target_hint(const fs::path& file) const {
  if (data::is_npz(file)) return "an array y";
  if (classify_) return fmt::format("a column \"{}\"", label_column());
  std::vector<std::string> names;
  for (const Preprocessing::Target& target : preprocessing_.targets) names.push_back(target.name);
  return fmt::format("columns {}", fmt::join(names, ", "));
}

void RowReader::require_targets(Rows& rows) const {
  std::vector<bool> keep(rows.source.size(), true);
  std::size_t left_out = 0;
  for (std::size_t i = 0; i < keep.size(); ++i) {
    if (classify_) {
      keep[i] = !rows.labels[i].empty();
    } else {
      for (std::size_t o = 0; o < outputs_; ++o) {
        keep[i] = keep[i] && !std::isnan(rows.values[i * outputs_ + o]);
      }
    }
    if (keep[i]) continue;
    if (preprocessing_.missing != MissingRule::drop) {
      throw Error(fmt::format(
          "{}: the support row has no {}; expected one (--missing drop leaves such rows out, "
          "--missing-marks says what counts as missing)",
          rows.location(i), classify_ ? "label" : "target"));
    }
    ++left_out;
  }
  if (left_out == 0) return;
  log_info(fmt::format("{}: {} rows without a {} left out", rows.file, left_out,
                       classify_ ? "label" : "target"));
  select(rows, keep, inputs_, outputs_);
  if (rows.source.empty()) throw Error(fmt::format("{}: no complete row", rows.file));
}

// ---- CSV

Rows RowReader::read_table(const fs::path& file, Role role) {
  io::Table table = io::read_csv(file, options_.text.delimiter(), format_);
  for (const std::string& note : table.notes) log_info(note);
  Rows rows;
  rows.file = file.string();
  rows.lines = table.lines;
  if (preprocessing_.kind == Preprocessing::Kind::table) {
    read_columns(std::move(table), role, rows);
  } else if (preprocessing_.kind == Preprocessing::Kind::image) {
    read_pictures(table, file, rows);
  } else {
    throw Error(
        fmt::format("{}: the run was trained on arrays of images; expected an .npz with "
                    "an array x",
                    rows.file));
  }
  return rows;
}

void RowReader::read_pictures(const io::Table& table, const fs::path& file, Rows& rows) const {
  const std::size_t column = table.require("file", "images");
  for (std::size_t row = 0; row < table.rows; ++row) {
    const std::string name = table.cell(column, row);
    if (name.empty()) {
      throw Error(fmt::format("{}: column 'file' is empty; expected the path of a picture",
                              table.location(row)));
    }
    const fs::path image =
        fs::path(name).is_absolute() ? fs::path(name) : file.parent_path() / name;
    const std::vector<float> pixels = data::encode_image(preprocessing_, image);
    rows.x.insert(rows.x.end(), pixels.begin(), pixels.end());
    rows.source.push_back(row);
  }
  read_table_targets(table, rows);
}

void RowReader::read_columns(io::Table table, Role role, Rows& rows) {
  const bool named = std::ranges::all_of(preprocessing_.columns, [&](const auto& column) {
    return table.find(column.name).has_value();
  });
  if (!named && !preprocessing_.named_columns) name_features(table, role);
  encode(table, rows);
  read_table_targets(table, rows);
}

void RowReader::name_features(io::Table& table, Role role) {
  const auto is_target = [&](const std::string& name) {
    if (classify_) return name == label_column();
    return std::ranges::any_of(preprocessing_.targets,
                               [&](const auto& target) { return target.name == name; });
  };
  const std::size_t column_count = preprocessing_.columns.size();
  std::vector<std::size_t> features;
  std::vector<std::string> names;
  std::string given;  // a column with the name of a training feature
  for (std::size_t c = 0; c < table.columns.size(); ++c) {
    const std::string& name = table.columns[c].name;
    if (c == table.row_index || is_target(name)) continue;
    features.push_back(c);
    names.push_back(name);
    if (std::ranges::any_of(preprocessing_.columns, [&](const auto& column) {
          return column_count > 1 && column.name == name;
        })) {
      given = name;
    }
  }
  if (table.row_index) {
    log_info(fmt::format("{}: the first column has no name: taken for row numbers and left out",
                         table.origin));
  }
  if (features.size() != column_count) {
    throw Error(fmt::format("{}: {} features per row ({}), the network takes {}", table.origin,
                            features.size(), table.column_names(), column_count));
  }
  if (!given.empty()) {
    throw Error(
        fmt::format("{}: column '{}' has a name of the training data, others have not; "
                    "expected all of {} to {}, or none of them",
                    table.origin, given, preprocessing_.columns.front().name,
                    preprocessing_.columns.back().name));
  }
  if (role == Role::support || feature_names_.empty()) {
    feature_names_ = names;
    if (column_count > 1) {
      log_info(fmt::format("{}: columns are taken in their order: {} as {}, ..., {} as {}",
                           table.origin, names.front(), preprocessing_.columns.front().name,
                           names.back(), preprocessing_.columns.back().name));
    }
  } else if (column_count > 1) {
    for (std::size_t i = 0; i < column_count; ++i) {
      features[i] = table.require(feature_names_[i], "a feature of the support file");
    }
  }
  for (std::size_t i = 0; i < column_count; ++i) {
    table.columns[features[i]].name = preprocessing_.columns[i].name;
  }
}

void RowReader::read_table_targets(const io::Table& table, Rows& rows) const {
  if (classify_) {
    const std::optional<std::size_t> column = table.find(label_column());
    if (!column) return;
    rows.has_targets = true;
    for (const std::size_t row : rows.source) {
      rows.labels.push_back(table.missing(*column, row) ? "" : table.cell(*column, row));
    }
    return;
  }
  std::vector<std::size_t> columns;
  for (const Preprocessing::Target& target : preprocessing_.targets) {
    const std::optional<std::size_t> column = table.find(target.name);
    if (!column) return;
    columns.push_back(*column);
  }
  rows.has_targets = true;
  for (const std::size_t row : rows.source) {
    for (std::size_t o = 0; o < outputs_; ++o) {
      const Preprocessing::Target& target = preprocessing_.targets[o];
      rows.values.push_back(
          table.missing(columns[o], row)
              ? std::numeric_limits<float>::quiet_NaN()
              : target.encode(table.number(columns[o], row, target.reading), table.location(row)));
    }
  }
}

void RowReader::encode(const io::Table& table, Rows& rows) const {
  data::EncodedTable encoded = data::encode_table(preprocessing_, table, false);
  if (encoded.unseen > 0) {
    log_warning(fmt::format(
        "{}: {} values belong to categories that no training task has; they are encoded as zeros",
        table.origin, encoded.unseen));
  }
  if (encoded.rows < table.rows) {
    log_info(fmt::format("{}: {} rows with missing values left out", table.origin,
                         table.rows - encoded.rows));
  }
  rows.x = std::move(encoded.x);
  rows.source = std::move(encoded.source);
}

void RowReader::check_width(std::size_t numbers, std::size_t rows,
                            const std::string& location) const {
  if (numbers != rows * inputs_) {
    throw Error(fmt::format("{}: {} features per row, the network takes {}", location,
                            numbers / rows, inputs_));
  }
}

// ---- npz

Rows RowReader::read_arrays(const fs::path& file) const {
  const std::vector<std::string> names = io::npz_names(file);
  const auto has = [&](const char* name) { return std::ranges::find(names, name) != names.end(); };
  if (!has("x")) {
    throw Error(fmt::format("{}: expected an array \"x\"; it holds {}", file.string(),
                            names.empty() ? "nothing" : fmt::format("{}", fmt::join(names, ", "))));
  }
  const io::Tensor x = io::read_npz_array(file, "x");
  if (x.shape.empty()) {
    throw Error(
        fmt::format("{}: shape {}; expected [rows, ...]", x.origin, io::shape_text(x.shape)));
  }
  Rows rows;
  rows.file = file.string();
  if (x.size() == 0) throw Error(fmt::format("{}: no rows", rows.file));
  if (preprocessing_.input.spatial) {
    read_images(x, rows);
  } else {
    read_vectors(x, rows);
  }
  if (has("y")) read_array_targets(io::read_npz_array(file, "y"), x.shape[0], rows);
  return rows;
}

void RowReader::read_images(const io::Tensor& x, Rows& rows) const {
  const data::ImageArray images(preprocessing_, x, 1, options_.layout);
  if (preprocessing_.kind == Preprocessing::Kind::none && x.dtype == io::Tensor::DType::u8) {
    log_warning(
        fmt::format("{}: the run does not record the units of its images: bytes are "
                    "divided by 255",
                    x.origin));
  }
  const auto d = static_cast<std::size_t>(preprocessing_.input.size());
  rows.x.resize(images.rows() * d);
  for (std::size_t row = 0; row < images.rows(); ++row) {
    images.read(row, std::span(rows.x).subspan(row * d, d));
    rows.source.push_back(row);
  }
}

void RowReader::read_vectors(const io::Tensor& x, Rows& rows) const {
  const std::size_t columns = preprocessing_.columns.size();
  const std::size_t width = x.shape.size() == 1 ? 1 : x.shape.size() == 2 ? x.shape[1] : 0;
  if (width == 0 || (width != columns && width != inputs_)) {
    throw Error(fmt::format(
        "{}: shape {}; expected [rows, {}]{}", x.origin, io::shape_text(x.shape), columns,
        columns == inputs_ ? ""
                           : fmt::format(", one number per column of the training table, or the "
                                         "network's [rows, {}]",
                                         inputs_)));
  }
  std::vector<double> numbers(x.size());
  data::read_numbers(x, 0, numbers, width);
  if (width != columns) {
    log_info(
        fmt::format("{}: rows of {} numbers are taken as the network's own inputs (the "
                    "training table has {} columns)",
                    x.origin, width, columns));
    for (std::size_t row = 0; row < x.shape[0]; ++row) rows.source.push_back(row);
    rows.x.assign(numbers.begin(), numbers.end());
    return;
  }
  io::Table table;
  table.origin = x.origin;
  table.rows = x.shape[0];
  for (std::size_t c = 0; c < width; ++c) {
    io::Table::Column column;
    column.name = preprocessing_.columns[c].name;
    column.numeric = true;
    for (std::size_t row = 0; row < table.rows; ++row) {
      column.numbers.push_back(numbers[row * width + c]);
    }
    table.columns.push_back(std::move(column));
  }
  encode(table, rows);
}

void RowReader::read_array_targets(const io::Tensor& y, std::size_t count, Rows& rows) const {
  const std::size_t expected = classify_ ? count : count * outputs_;
  if (y.shape.empty() || y.shape[0] != count || y.size() != expected) {
    throw Error(fmt::format(
        "{}: shape {}; expected {} for the {} rows of x", y.origin, io::shape_text(y.shape),
        classify_ ? fmt::format("({},)", count) : fmt::format("({}, {})", count, outputs_), count));
  }
  rows.has_targets = true;
  const std::vector<double> numbers = y.to_f64();
  if (!classify_) {
    for (const std::size_t row : rows.source) {
      for (std::size_t o = 0; o < outputs_; ++o) {
        const double value = numbers[row * outputs_ + o];
        rows.values.push_back(std::isnan(value)
                                  ? std::numeric_limits<float>::quiet_NaN()
                                  : preprocessing_.targets[o].encode(
                                        value, fmt::format("{}, row {}", y.origin, row)));
      }
    }
    return;
  }
  const bool nan = std::ranges::any_of(numbers, [](double v) { return std::isnan(v); });
  const std::vector<std::int64_t> whole = nan ? std::vector<std::int64_t>() : y.to_i64();
  for (const std::size_t row : rows.source) {
    const double value = numbers[row];
    if (!nan) {
      rows.labels.push_back(std::to_string(whole[row]));
    } else if (std::isnan(value)) {
      rows.labels.emplace_back();
    } else if (std::trunc(value) != value || std::abs(value) >= 0x1p53) {
      throw Error(fmt::format("{}: {} in row {}; expected a whole number", y.origin, value, row));
    } else {
      rows.labels.push_back(fmt::format("{:.0f}", value));
    }
  }
}

}  // namespace kshot::cli
