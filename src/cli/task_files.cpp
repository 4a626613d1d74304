#include "cli/task_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include "io/csv.h"
#include "io/log.h"
#include "io/npy.h"
#include "kshot/error.h"

namespace kshot::cli {
namespace {

namespace fs = std::filesystem;
using io::Preprocessing;

/// One file: features, and targets as they stand in it.
struct Rows {
  std::string file;
  std::size_t rows = 0;
  std::vector<float> x;
  bool has_targets = false;
  std::vector<std::string> labels;  ///< classification
  std::vector<float> values;        ///< regression
};

class Reader {
 public:
  explicit Reader(const Learner& learner)
      : inputs_(static_cast<std::size_t>(learner.network().input().size())),
        outputs_(static_cast<std::size_t>(learner.outputs())),
        classify_(learner.config().loss.type == LossType::cross_entropy) {
    if (!learner.preprocessing().empty()) {
      preprocessing_ = Preprocessing::from_json(learner.preprocessing(), "checkpoint");
    }
    if (!classify_ && !preprocessing_.targets.empty() &&
        preprocessing_.targets.size() != outputs_) {
      throw Error(
          fmt::format("checkpoint: {} targets in its preprocessing, but the network has {} "
                      "outputs",
                      preprocessing_.targets.size(), outputs_));
    }
  }

  const Preprocessing& preprocessing() const { return preprocessing_; }
  bool classify() const { return classify_; }

  Rows read(const fs::path& file, bool need_targets) const {
    Rows rows = file.extension() == ".npz" ? read_arrays(file) : read_table(file);
    rows.file = file.string();
    if (rows.rows == 0) throw Error(fmt::format("{}: no rows", rows.file));
    if (need_targets && !rows.has_targets) {
      throw Error(fmt::format("{}: the support rows have no {}: expected {}", rows.file,
                              classify_ ? "labels" : "targets", target_hint(file)));
    }
    const auto bad = std::ranges::find_if(rows.x, [](float v) { return !std::isfinite(v); });
    if (bad != rows.x.end()) {
      throw Error(fmt::format("{}: row {}: expected finite numbers", rows.file,
                              static_cast<std::size_t>(bad - rows.x.begin()) / inputs_));
    }
    return rows;
  }

 private:
  std::string target_hint(const fs::path& file) const {
    if (file.extension() == ".npz") return "an array y";
    if (classify_) return fmt::format("a column \"{}\"", label_column());
    std::vector<std::string> names;
    for (std::size_t i = 0; i < outputs_; ++i) names.push_back(target_column(i));
    return fmt::format("columns {}", fmt::join(names, ", "));
  }
  std::string label_column() const {
    return preprocessing_.label_column.empty() ? "label" : preprocessing_.label_column;
  }
  std::string target_column(std::size_t i) const {
    if (!preprocessing_.targets.empty()) return preprocessing_.targets[i].name;
    return outputs_ == 1 ? "y" : fmt::format("y{}", i);
  }

  // ---- CSV

  Rows read_table(const fs::path& file) const {
    const io::Table table = io::read_csv(file);
    Rows rows;
    rows.rows = table.rows;
    if (preprocessing_.kind == Preprocessing::Kind::image) {
      read_images(table, file, rows);
    } else if (preprocessing_.kind == Preprocessing::Kind::table) {
      read_encoded(table, rows);
    } else {
      read_plain(table, rows);
    }
    return rows;
  }

  void read_images(const io::Table& table, const fs::path& file, Rows& rows) const {
    const std::size_t column = table.require("file", "images");
    for (const std::string& name : table.columns[column].text) {
      const fs::path image =
          fs::path(name).is_absolute() ? fs::path(name) : file.parent_path() / name;
      const std::vector<float> pixels = io::encode_image(preprocessing_, image);
      rows.x.insert(rows.x.end(), pixels.begin(), pixels.end());
    }
    read_labels(table, rows);
  }

  void read_encoded(const io::Table& table, Rows& rows) const {
    bool targets = !classify_;
    for (const Preprocessing::Target& target : preprocessing_.targets) {
      targets = targets && table.find(target.name).has_value();
    }
    targets = targets && !preprocessing_.targets.empty();
    Preprocessing inputs_alone = preprocessing_;
    inputs_alone.labels.clear();
    inputs_alone.label_column.clear();
    if (!targets) inputs_alone.targets.clear();
    // A row that is left out would no longer stand beside its label.
    if (inputs_alone.missing == io::MissingRule::drop) {
      inputs_alone.missing = io::MissingRule::error;
    }
    io::EncodedTable encoded = encode(inputs_alone, table, targets);
    rows.x = std::move(encoded.x);
    if (targets) {
      rows.has_targets = true;
      rows.values = std::move(encoded.values);
    }
    if (classify_) read_labels(table, rows);
    check_width(rows.x.size(), rows.rows, table.origin);
  }

  /// Without preprocessing: the columns that are not targets are the features, in their order.
  void read_plain(const io::Table& table, Rows& rows) const {
    std::vector<std::size_t> features, targets;
    for (std::size_t c = 0; c < table.columns.size(); ++c) {
      const std::string& name = table.columns[c].name;
      bool target = classify_ && name == label_column();
      for (std::size_t i = 0; !classify_ && i < outputs_; ++i) {
        target = target || name == target_column(i);
      }
      if (!target) features.push_back(c);
    }
    for (std::size_t row = 0; row < table.rows; ++row) {
      for (const std::size_t c : features) rows.x.push_back(number(table, c, row));
    }
    check_width(rows.x.size(), rows.rows, table.origin);
    if (classify_) {
      read_labels(table, rows);
      return;
    }
    for (std::size_t i = 0; i < outputs_; ++i) {
      const std::optional<std::size_t> c = table.find(target_column(i));
      if (!c) return;
      targets.push_back(*c);
    }
    rows.has_targets = true;
    for (std::size_t row = 0; row < table.rows; ++row) {
      for (const std::size_t c : targets) rows.values.push_back(number(table, c, row));
    }
  }

  static float number(const io::Table& table, std::size_t column, std::size_t row) {
    const std::string& text = table.columns[column].text[row];
    const std::optional<double> value = io::parse_number(text);
    if (!value || !std::isfinite(*value)) {
      throw Error(fmt::format("{}: column \"{}\": \"{}\": expected a number", table.where(row),
                              table.columns[column].name, text));
    }
    return static_cast<float>(*value);
  }

  void read_labels(const io::Table& table, Rows& rows) const {
    const std::optional<std::size_t> column = table.find(label_column());
    if (!column) return;
    rows.has_targets = true;
    rows.labels = table.columns[*column].text;
  }

  void check_width(std::size_t numbers, std::size_t rows, const std::string& where) const {
    if (numbers != rows * inputs_) {
      throw Error(fmt::format("{}: {} features a row, the network takes {}", where,
                              rows > 0 ? numbers / rows : 0, inputs_));
    }
  }

  // ---- npz

  Rows read_arrays(const fs::path& file) const {
    const auto arrays = io::read_npz(file);
    const auto x = arrays.find("x");
    if (x == arrays.end()) throw Error(fmt::format("{}: expected an array \"x\"", file.string()));
    const io::NpyArray& array = x->second;
    if (array.shape.empty()) {
      throw Error(fmt::format("{}: x has shape {}, expected [rows, ...]", file.string(),
                              io::shape_text(array.shape)));
    }
    Rows rows;
    rows.rows = array.shape[0];
    if (rows.rows == 0) throw Error(fmt::format("{}: no rows", file.string()));
    const std::size_t width = array.size() / rows.rows;
    if (preprocessing_.kind == Preprocessing::Kind::table &&
        width == preprocessing_.columns.size() && (width != inputs_ || array.shape.size() == 2)) {
      rows.x = encode_numbers(file, array, width);
    } else {
      rows.x = array.to_f32();
      const bool bytes = array.dtype == io::Tensor::DType::u8;
      if (bytes && preprocessing_.kind != Preprocessing::Kind::table) {
        for (float& v : rows.x) {
          v /= 255.0f;
          if (preprocessing_.inverted) v = 1.0f - v;
        }
      }
    }
    check_width(rows.x.size(), rows.rows, file.string() + ": x");
    if (const auto y = arrays.find("y"); y != arrays.end()) read_targets(file, y->second, rows);
    return rows;
  }

  /// Raw numbers in the order of the training table's columns.
  std::vector<float> encode_numbers(const fs::path& file, const io::NpyArray& array,
                                    std::size_t width) const {
    const std::vector<double> numbers = array.to_f64();
    io::Table table;
    table.origin = file.string() + ": x";
    table.rows = array.shape[0];
    for (std::size_t c = 0; c < width; ++c) {
      io::Table::Column column;
      column.name = preprocessing_.columns[c].name;
      column.numeric = true;
      for (std::size_t row = 0; row < table.rows; ++row) {
        column.numbers.push_back(numbers[row * width + c]);
      }
      table.columns.push_back(std::move(column));
    }
    Preprocessing inputs = preprocessing_;
    inputs.targets.clear();
    inputs.labels.clear();
    inputs.label_column.clear();
    if (inputs.missing == io::MissingRule::drop) inputs.missing = io::MissingRule::error;
    return encode(inputs, table, false).x;
  }

  static io::EncodedTable encode(const Preprocessing& inputs, const io::Table& table,
                                 bool targets) {
    io::EncodedTable encoded = io::encode_table(inputs, table, targets);
    if (encoded.unseen > 0) {
      io::log_warning(
          fmt::format("{}: {} values are of categories that no training task has: all zeros",
                      table.origin, encoded.unseen));
    }
    return encoded;
  }

  void read_targets(const fs::path& file, const io::NpyArray& y, Rows& rows) const {
    const std::size_t expected = classify_ ? rows.rows : rows.rows * outputs_;
    if (y.shape.empty() || y.shape[0] != rows.rows || y.size() != expected) {
      throw Error(fmt::format(
          "{}: y has shape {}, expected {} for the {} rows of x", file.string(),
          io::shape_text(y.shape),
          classify_ ? fmt::format("({})", rows.rows) : fmt::format("({}, {})", rows.rows, outputs_),
          rows.rows));
    }
    rows.has_targets = true;
    if (classify_) {
      for (const std::int64_t label : y.to_i64()) rows.labels.push_back(std::to_string(label));
      return;
    }
    const std::vector<double> raw = y.to_f64();
    for (std::size_t i = 0; i < raw.size(); ++i) {
      if (!std::isfinite(raw[i])) {
        throw Error(
            fmt::format("{}: y, row {}: expected finite numbers", file.string(), i / outputs_));
      }
      double value = raw[i];
      if (!preprocessing_.targets.empty()) {
        const Preprocessing::Target& t = preprocessing_.targets[i % outputs_];
        value = (value - t.mean) / t.std;
      }
      rows.values.push_back(static_cast<float>(value));
    }
  }

  std::size_t inputs_, outputs_;
  bool classify_;
  Preprocessing preprocessing_;
};

/// Label names by number: those of the training data where labels keep their meaning between
/// tasks, else the support set's own, sorted (as numbers where all are). `ways` 0: any number.
std::vector<std::string> label_names(const Preprocessing& preprocessing, const Rows& support,
                                     std::size_t ways) {
  if (!preprocessing.labels.empty()) return preprocessing.labels;
  std::vector<std::string> names = support.labels;
  const bool numeric = std::ranges::all_of(
      names, [](const std::string& n) { return io::parse_number(n).has_value(); });
  std::ranges::sort(names, [&](const std::string& a, const std::string& b) {
    return numeric ? *io::parse_number(a) < *io::parse_number(b) : a < b;
  });
  names.erase(std::unique(names.begin(), names.end()), names.end());
  if (ways == 0) return names;  // a closed-form head takes any number
  if (names.size() > ways) {
    throw Error(fmt::format("{}: {} classes, but the network was trained for {}", support.file,
                            names.size(), ways));
  }
  if (names.size() < 2) {
    throw Error(fmt::format("{}: only the class \"{}\"; expected 2 to {} classes", support.file,
                            names.front(), ways));
  }
  while (names.size() < ways) names.push_back(fmt::format("(unused {})", names.size()));
  return names;
}

std::vector<std::int32_t> numbered(const Rows& rows, const std::vector<std::string>& names) {
  std::vector<std::int32_t> labels;
  for (std::size_t i = 0; i < rows.labels.size(); ++i) {
    const auto found = std::ranges::find(names, rows.labels[i]);
    if (found == names.end()) {
      throw Error(fmt::format("{}: row {}: label \"{}\" is not one of {}", rows.file, i,
                              rows.labels[i], fmt::join(names, ", ")));
    }
    labels.push_back(static_cast<std::int32_t>(found - names.begin()));
  }
  return labels;
}

}  // namespace

TaskFiles read_task_files(const Learner& learner, const fs::path& support_file,
                          const fs::path& query_file) {
  const Reader reader(learner);
  Rows support = reader.read(support_file, true);
  Rows query = reader.read(query_file, false);
  TaskFiles task;
  task.support_x = std::move(support.x);
  task.query_x = std::move(query.x);
  task.query_has_targets = query.has_targets;
  const auto outputs = static_cast<std::size_t>(learner.outputs());
  if (reader.classify()) {
    task.label_names = label_names(reader.preprocessing(), support, outputs);
    task.support_labels = numbered(support, task.label_names);
    if (query.has_targets) task.query_labels = numbered(query, task.label_names);
    return task;
  }
  task.support_values = std::move(support.values);
  task.query_values = std::move(query.values);
  for (std::size_t i = 0; i < outputs; ++i) {
    const auto& targets = reader.preprocessing().targets;
    task.target_names.push_back(!targets.empty() ? targets[i].name
                                : outputs == 1   ? "y"
                                                 : fmt::format("y{}", i));
    task.target_scale.push_back(targets.empty() ? 1.0 : targets[i].std);
    task.target_shift.push_back(targets.empty() ? 0.0 : targets[i].mean);
  }
  return task;
}

}  // namespace kshot::cli
