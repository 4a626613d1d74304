#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <unordered_map>

#include "base/text.h"
#include "data/column_reading.h"
#include "data/import_common.h"
#include "io/csv.h"
#include "kshot/error.h"

namespace kshot::data {
namespace {

/// Reads the columns of an array [rows] or [rows, d], or the one column that the reference names.
/// `rows` = 0 allows any number of rows.
std::vector<io::Table::Column> array_columns(const std::string& text, const std::string& prefix,
                                             std::size_t rows, std::string* origin = nullptr) {
  const ArrayReference reference = parse_array_reference(text);
  const io::Tensor array = read_array(reference, {"x", "X", "data", "features", "arr_0"});
  if (array.shape.empty() || array.shape.size() > 2 || array.size() == 0 ||
      (rows > 0 && array.shape[0] != rows)) {
    throw Error(fmt::format(
        "{}: shape {}; expected {}", array.origin, io::shape_text(array.shape),
        rows > 0 ? fmt::format("[{0}] or [{0}, columns]", rows) : "[rows] or [rows, columns]"));
  }
  const std::size_t count = array.shape.size() == 2 ? array.shape[1] : 1;
  std::vector<double> numbers(array.size());
  read_numbers(array, 0, numbers, count);
  std::vector<io::Table::Column> out;
  for (std::size_t c = 0; c < count; ++c) {
    io::Table::Column column;
    column.name = count == 1 ? prefix : fmt::format("{}{}", prefix, c);
    column.numeric = true;
    column.numbers.resize(array.shape[0]);
    for (std::size_t row = 0; row < array.shape[0]; ++row) {
      column.numbers[row] = numbers[row * count + c];
    }
    out.push_back(std::move(column));
  }
  if (!is_npz(reference.file) && !reference.part.empty()) {
    std::size_t index = count;
    std::from_chars(reference.part.data(), reference.part.data() + reference.part.size(), index);
    if (index >= count) {
      throw Error(
          fmt::format("{}: no column '{}'; expected 0 to {}", text, reference.part, count - 1));
    }
    out = {std::move(out[index])};
  }
  if (origin != nullptr) *origin = array.origin;
  return out;
}

/// The source as a table, and the roles of the columns that are not features.
struct Input {
  io::Table table;
  std::optional<std::size_t> task, split;
  std::vector<std::size_t> targets;
  std::set<std::size_t> categorical, dates;
  std::set<std::size_t> other;  ///< columns for task, split and targets, and ignored columns
};

/// Returns the indices of a column of the table, or of the columns that an array adds to it.
std::vector<std::size_t> resolve(io::Table* table, const std::string& text,
                                 const std::string& prefix, const std::string& key) {
  if (!is_array_file(text)) return {table->require(text, key)};
  std::vector<std::size_t> out;
  for (io::Table::Column& column : array_columns(text, prefix, table->rows)) {
    if (table->find(column.name)) {
      throw Error(
          fmt::format("{}: column name '{}' is taken by {}", text, column.name, table->origin));
    }
    out.push_back(table->columns.size());
    table->columns.push_back(std::move(column));
  }
  return out;
}

/// Gives the columns of an array the names of a table of names, one per column.
void name_columns(const std::filesystem::path& file, io::Table* table) {
  const io::Table names = io::read_name_table(file);
  const std::size_t name = names.require("name", "--columns");
  if (names.rows != table->columns.size()) {
    throw Error(fmt::format("{}: {} names; expected {}, one for each column of {}", file.string(),
                            names.rows, table->columns.size(), table->origin));
  }
  for (std::size_t c = 0; c < names.rows; ++c) table->columns[c].name = names.columns[name].text[c];
}

io::Table read_source(const TableImport& options) {
  if (options.table) return *options.table;
  if (!is_array_file(options.source)) {
    if (!options.columns.empty()) {
      throw Error("--columns: only for arrays; a CSV table has its column names in its first line");
    }
    return io::read_csv(options.source, options.delimiter, options.format, options.interrupt);
  }
  io::Table table;
  table.columns = array_columns(options.source, "x", 0, &table.origin);
  table.rows = table.columns.front().numbers.size();
  if (!options.columns.empty()) name_columns(options.columns, &table);
  table.format = options.format;
  return table;
}

void choose_task(const TableImport& options, Input* in) {
  if (options.task.empty()) return;
  const auto task = resolve(&in->table, options.task, "task", "--task");
  if (task.size() != 1) {
    throw Error(fmt::format("--task {}: {} columns; expected one", options.task, task.size()));
  }
  in->task = task.front();
  in->other.insert(task.front());
}

void choose_targets(const TableImport& options, Input* in) {
  for (const std::string& target : options.targets) {
    const std::string prefix =
        options.targets.size() == 1 ? std::string("y") : fmt::format("y{}_", in->targets.size());
    for (const std::size_t column : resolve(&in->table, target, prefix, "--target")) {
      if (!in->other.insert(column).second) {
        throw Error(
            fmt::format("--target {}: this column is given twice, or is also the task", target));
      }
      in->targets.push_back(column);
    }
  }
  if (options.classification && in->targets.size() != 1) {
    throw Error(fmt::format("--classification: {} targets; expected one column of labels",
                            in->targets.size()));
  }
}

void choose_split_and_ignored(const TableImport& options, Input* in) {
  if (!options.split_column.empty()) {
    if (!in->task) throw Error("--split-column: needs --task as well");
    in->split = in->table.require(options.split_column, "--split-column");
    in->other.insert(*in->split);
  }
  for (const std::string& name : options.ignore) {
    in->other.insert(in->table.require(name, "--ignore"));
  }
}

void choose_categories_and_dates(const TableImport& options, Input* in) {
  const auto feature = [&](const std::string& name, const std::string& option) {
    const std::size_t column = in->table.require(name, option);
    if (in->other.contains(column)) {
      throw Error(fmt::format(
          "{} {}: this column is the task, a target or ignored; expected a feature", option, name));
    }
    return column;
  };
  for (const std::string& name : options.categorical) {
    in->categorical.insert(feature(name, "--categorical"));
  }
  for (const std::string& name : options.dates) {
    const std::size_t column = feature(name, "--date");
    if (in->categorical.contains(column) || in->table.columns[column].numeric) {
      throw Error(fmt::format(
          "--date {}: it is {}; expected a column of dates such as 2024-05-31", name,
          in->categorical.contains(column) ? "also --categorical" : "a column of numbers"));
    }
    in->dates.insert(column);
  }
}

Input read_input(const TableImport& options) {
  Input in;
  in.table = read_source(options);
  if (options.targets.empty()) {
    throw Error("import table: no target; expected --target COLUMN or --target FILE.npy");
  }
  choose_task(options, &in);
  choose_targets(options, &in);
  for (std::size_t k = 0; k < options.categorical_arrays.size(); ++k) {
    for (const std::size_t column : resolve(&in.table, options.categorical_arrays[k],
                                            fmt::format("c{}_", k), "--categorical-array")) {
      in.categorical.insert(column);
    }
  }
  choose_split_and_ignored(options, &in);
  choose_categories_and_dates(options, &in);
  if (in.table.row_index && !in.categorical.contains(*in.table.row_index) &&
      !in.dates.contains(*in.table.row_index)) {
    in.other.insert(*in.table.row_index);
  }
  return in;
}

/// The tasks, in the order of their first rows.
struct Tasks {
  std::vector<std::string> names;
  std::vector<std::size_t> of_row;
};

constexpr std::size_t no_task = std::numeric_limits<std::size_t>::max();

Tasks find_tasks(const Input& in, MissingRule rule, std::vector<std::string>* notes) {
  Tasks out;
  out.of_row.assign(in.table.rows, 0);
  if (!in.task) {
    out.names = {printable(std::filesystem::path(in.table.origin).stem().string())};
    return out;
  }
  std::unordered_map<std::string, std::size_t> index;
  std::size_t dropped = 0;
  for (std::size_t row = 0; row < in.table.rows; ++row) {
    if (in.table.missing(*in.task, row)) {
      if (rule != MissingRule::drop) {
        throw Error(fmt::format(
            "{}: task column '{}' has no value; expected one (--missing-marks says what counts as "
            "missing, --missing drop leaves such rows out)",
            in.table.location(row), in.table.columns[*in.task].name));
      }
      out.of_row[row] = no_task;
      ++dropped;
      continue;
    }
    std::string name = in.table.cell(*in.task, row);
    const auto [entry, fresh] = index.emplace(name, out.names.size());
    if (fresh) out.names.push_back(std::move(name));
    out.of_row[row] = entry->second;
  }
  std::optional<std::pair<std::string, std::string>> twins;
  io::distinct_names(out.names, in.table.format, &twins);  // "01" and "1", if all names are numbers
  if (!twins) twins = same_but_for_case(out.names);
  if (twins) {
    notes->push_back(
        fmt::format("tasks '{}' and '{}' are two tasks, because names of tasks are compared "
                    "exactly as they are written",
                    twins->first, twins->second));
  }
  if (dropped > 0) notes->push_back(fmt::format("{} rows without a task left out", dropped));
  return out;
}

std::vector<std::optional<Split>> task_splits(const Input& in, const TableImport& options,
                                              const Tasks& tasks, std::vector<std::string>* notes,
                                              std::string* how) {
  if (!in.task) {
    *how = "not at all: one task, for training";
    return {Split::train};
  }
  if (!in.split) return divide_tasks(options.splits, tasks.names, notes, how);
  *how = fmt::format("by the column '{}' of {}", in.table.columns[*in.split].name, in.table.origin);
  std::vector<std::optional<Split>> out(tasks.names.size());
  const io::Table::Column& column = in.table.columns[*in.split];
  for (std::size_t row = 0; row < in.table.rows; ++row) {
    if (tasks.of_row[row] == no_task) continue;
    const auto split = split_from_name(in.table.cell(*in.split, row));
    if (!split) {
      throw Error(
          fmt::format("{}: column '{}' holds '{}'; expected train, validation (val) or test",
                      in.table.location(row), column.name, in.table.cell(*in.split, row)));
    }
    std::optional<Split>& have = out[tasks.of_row[row]];
    if (have && *have != *split) {
      throw Error(
          fmt::format("{}: task '{}' is in {} here and in {} above; expected one split per "
                      "task",
                      in.table.location(row), tasks.names[tasks.of_row[row]], split_name(*split),
                      split_name(*have)));
    }
    have = split;
  }
  return out;
}

/// Copies some rows of the table.
io::Table select_rows(const io::Table& table, const std::vector<std::size_t>& rows) {
  io::Table out;
  out.origin = table.origin;
  out.unit = table.unit;
  out.format = table.format;
  out.row_index = table.row_index;
  out.rows = rows.size();
  for (const io::Table::Column& column : table.columns) {
    io::Table::Column kept{column.name, column.numeric, {}, {}};
    for (const std::size_t row : rows) {
      if (column.numeric) {
        kept.numbers.push_back(column.numbers[row]);
      } else {
        kept.text.push_back(column.text[row]);
      }
    }
    out.columns.push_back(std::move(kept));
  }
  for (const std::size_t row : rows) {
    out.lines.push_back(table.lines.empty() ? row : table.lines[row]);
  }
  return out;
}

/// What is known of each row that stays in the table.
struct TaskRows {
  std::vector<std::size_t> task;  ///< index of the row's task
  std::vector<bool> training;     ///< true: the task is in the training split
};

/// Removes the rows whose task is in no split from the table.
TaskRows keep_rows_in_splits(const Tasks& tasks, const std::vector<std::optional<Split>>& splits,
                             io::Table* table) {
  TaskRows out;
  std::vector<std::size_t> kept;
  for (std::size_t row = 0; row < table->rows; ++row) {
    const std::size_t task = tasks.of_row[row];
    if (task == no_task || !splits[task]) continue;
    kept.push_back(row);
    out.task.push_back(task);
    out.training.push_back(splits[task] == Split::train);
  }
  *table = select_rows(*table, kept);
  return out;
}

/// Fits the preprocessing to the training rows.
class Fit {
 public:
  Fit(const Input& in, const TableImport& options, const std::vector<bool>& training,
      std::vector<std::string>* notes)
      : in_(in), table_(in.table), options_(options), counts_(training), notes_(notes) {
    if (options.missing != MissingRule::drop) return;
    // Under the rule "drop", an incomplete row is excluded from all statistics.
    for (std::size_t c = 0; c < table_.columns.size(); ++c) {
      const bool target = std::ranges::find(in.targets, c) != in.targets.end();
      if (in.other.contains(c) && !target) continue;
      for (std::size_t row = 0; row < table_.rows; ++row) {
        if (counts_[row] && table_.missing(c, row)) counts_[row] = false;
      }
    }
  }

  Preprocessing run() {
    Preprocessing out;
    out.kind = Preprocessing::Kind::table;
    out.missing = options_.missing;
    out.format = options_.format;
    out.named_columns = !is_array_file(options_.source) || !options_.columns.empty();
    int features = 0;
    for (std::size_t c = 0; c < table_.columns.size(); ++c) {
      if (in_.other.contains(c)) continue;
      if (options_.interrupt) options_.interrupt();
      out.columns.push_back(feature(c));
      features += out.columns.back().features();
    }
    if (out.columns.empty()) {
      throw Error(fmt::format("{}: no columns left as features", table_.origin));
    }
    out.input = {.channels = features};
    if (options_.classification) {
      const std::size_t c = in_.targets.front();
      out.label_column = table_.columns[c].name;
      out.labels = names(c, std::vector<bool>(table_.rows, true));
      check_labels(table_, c, out.labels);
      readings_[c] = "the target, " + names_text(out.labels, "labels") + missing_text(table_, c);
    } else {
      for (const std::size_t c : in_.targets) out.targets.push_back(target(c));
    }
    return out;
  }

  /// Describes how each column is read, in the table's order. Call it after run().
  std::vector<std::string> readings() const {
    std::vector<std::pair<std::string, std::string>> all;
    for (std::size_t c = 0; c < table_.columns.size(); ++c) {
      const auto found = readings_.find(c);
      all.emplace_back(table_.columns[c].name,
                       found != readings_.end() ? found->second
                       : c == in_.task          ? "tells the tasks apart"
                       : c == in_.split         ? "tells the splits apart"
                       : c == table_.row_index ? "ignored: a first column without a name counts as "
                                                 "row numbers"
                                               : "ignored");
    }
    return reading_lines(all);
  }

 private:
  Preprocessing::Column feature(std::size_t c) {
    Preprocessing::Column column;
    column.name = table_.columns[c].name;
    column.reading = in_.dates.contains(c)         ? io::Reading::date
                     : in_.categorical.contains(c) ? io::Reading::category
                                                   : choose_reading(table_, c);
    if (column.reading == io::Reading::category) {
      column.categories = names(c, counts_);
      column.reading = io::Reading::number;
      if (column.categories.size() > most_categories) {
        throw Error(fmt::format(
            "{}: column '{}' has {} categories; expected at most {} (--ignore {} leaves it out)",
            table_.origin, column.name, column.categories.size(), most_categories, column.name));
      }
      if (column.categories.empty()) no_values(c);
      readings_[c] = names_text(column.categories, "categories") + missing_text(table_, c);
      return column;
    }
    const ColumnStatistics statistics = measure(c, column.reading);
    if (statistics.count(0) == 0) no_values(c);
    if (!options_.raw_inputs) {
      column.mean = statistics.mean(0);
      column.std = statistics.deviation(0);
    }
    if (statistics.constant(0)) {
      notes_->push_back(fmt::format("column '{}' is constant in the training tasks", column.name));
    }
    readings_[c] = number_text(table_, c, column.reading) + missing_text(table_, c);
    return column;
  }

  Preprocessing::Target target(std::size_t c) {
    Preprocessing::Target out;
    out.name = table_.columns[c].name;
    out.reading = choose_target_reading(table_, c);
    const ColumnStatistics statistics = measure(c, out.reading);
    if (!options_.raw_targets) {
      out.mean = statistics.mean(0);
      out.std = statistics.deviation(0);
    } else if (std::max(std::abs(statistics.low(0)), std::abs(statistics.high(0))) * 0x1p-23 >
               (statistics.high(0) - statistics.low(0)) * 1e-3) {
      notes_->push_back(
          fmt::format("target '{}' runs from {} to {}: stored as float32, nearby values become "
                      "equal (without --raw-targets they are kept apart)",
                      out.name, statistics.low(0), statistics.high(0)));
    }
    readings_[c] = "a target, " + number_text(table_, c, out.reading) + missing_text(table_, c);
    return out;
  }

  /// Mean and standard deviation of a column over the rows in `counts_`.
  ColumnStatistics measure(std::size_t c, io::Reading reading) const {
    ColumnStatistics statistics(1);
    for (std::size_t row = 0; row < table_.rows; ++row) {
      if (!counts_[row] || table_.missing(c, row)) continue;
      statistics.add(0, table_.number(c, row, reading));
    }
    return statistics;
  }

  /// Returns the distinct names of a column, and notes two spellings of one number.
  std::vector<std::string> names(std::size_t c, const std::vector<bool>& rows) {
    std::vector<std::string> cells;
    for (std::size_t row = 0; row < table_.rows; ++row) {
      if (rows[row] && !table_.missing(c, row)) cells.push_back(table_.cell(c, row));
    }
    std::optional<std::pair<std::string, std::string>> merged;
    std::vector<std::string> out = io::distinct_names(cells, table_.format, &merged);
    if (merged) {
      notes_->push_back(fmt::format("column '{}' reads as numbers: '{}' and '{}' are the same",
                                    table_.columns[c].name, merged->first, merged->second));
    }
    if (const auto twins = same_but_for_case(out)) {
      notes_->push_back(
          fmt::format("column '{}': '{}' and '{}' differ only in upper and lower case, and are "
                      "read as different names",
                      table_.columns[c].name, twins->first, twins->second));
    }
    return out;
  }

  [[noreturn]] void no_values(std::size_t c) const {
    throw Error(fmt::format(
        "{}: column '{}' has no values in the training tasks; expected at least one, or "
        "--ignore {}",
        table_.origin, table_.columns[c].name, table_.columns[c].name));
  }

  const Input& in_;
  const io::Table& table_;
  const TableImport& options_;
  std::vector<bool> counts_;
  std::vector<std::string>* notes_;
  std::map<std::size_t, std::string> readings_;
};

DatasetHeader header_of(const TableImport& options, Preprocessing preprocessing,
                        const std::string& how) {
  DatasetHeader header;
  header.kind = GroupKind::tasks;
  header.element = Element::f32;
  header.preprocessing = std::move(preprocessing);
  header.input = header.preprocessing.input;
  header.target = options.classification ? TargetKind::label : TargetKind::value;
  header.outputs = static_cast<int>(options.classification ? header.preprocessing.labels.size()
                                                           : header.preprocessing.targets.size());
  std::vector<std::string> sources{options.source};
  for (const std::string& target : options.targets) {
    if (is_array_file(target)) sources.push_back(target);
  }
  header.provenance = provenance_of("table", sources, how);
  return header;
}

/// The rows of each task in the encoded table. Throws Error where no training task has a row.
std::vector<std::vector<std::size_t>> group_by_task(const EncodedTable& encoded,
                                                    const TaskRows& rows, std::size_t tasks,
                                                    const std::string& origin) {
  std::vector<std::vector<std::size_t>> out(tasks);
  bool trains = false;
  for (std::size_t k = 0; k < encoded.rows; ++k) {
    out[rows.task[encoded.source[k]]].push_back(k);
    trains = trains || rows.training[encoded.source[k]];
  }
  if (!trains) throw Error(fmt::format("{}: no complete row in any training task", origin));
  return out;
}

void write_task(const EncodedTable& encoded, const std::vector<std::size_t>& rows,
                const DatasetHeader& header, DatasetWriter* writer) {
  const auto d = static_cast<std::size_t>(header.input.size());
  const auto outputs = static_cast<std::size_t>(header.outputs);
  for (const std::size_t k : rows) {
    writer->add(std::span<const float>(encoded.x.data() + k * d, d));
    if (header.target == TargetKind::value) {
      writer->add_value({encoded.values.data() + k * outputs, outputs});
    } else {
      writer->add_label(encoded.labels[k]);
    }
  }
}

}  // namespace

ImportSummary import_table(const TableImport& options) {
  if (options.raw_inputs && options.missing == MissingRule::mean) {
    throw Error(
        "--raw-inputs and --missing mean: the mean can replace a missing value in standardised "
        "columns only; expected --missing error or drop");
  }
  std::vector<std::string> notes;
  Input in = read_input(options);
  notes.insert(notes.end(), in.table.notes.begin(), in.table.notes.end());
  const Tasks tasks = find_tasks(in, options.missing, &notes);
  std::string how;
  const auto splits = task_splits(in, options, tasks, &notes, &how);
  require_training(splits, "task", in.table.origin);
  const TaskRows rows = keep_rows_in_splits(tasks, splits, &in.table);

  Fit fit(in, options, rows.training, &notes);
  const DatasetHeader header = header_of(options, fit.run(), how);
  if (options.interrupt) options.interrupt();
  const EncodedTable encoded = encode_table(header.preprocessing, in.table, true);
  if (encoded.rows < in.table.rows) {
    notes.push_back(
        fmt::format("{} rows with missing values left out", in.table.rows - encoded.rows));
  }
  if (encoded.unseen > 0) {
    notes.push_back(fmt::format(
        "{} values belong to categories that no training task has; they are encoded as zeros",
        encoded.unseen));
  }
  const auto rows_of = group_by_task(encoded, rows, tasks.names.size(), in.table.origin);

  DatasetWriter writer(options.output, header);
  for (std::size_t task = 0; task < tasks.names.size(); ++task) {
    if (!splits[task]) continue;
    if (options.interrupt) options.interrupt();
    if (rows_of[task].empty()) {
      notes.push_back(fmt::format("task '{}' has no complete row: left out", tasks.names[task]));
      continue;
    }
    writer.begin_group(tasks.names[task], *splits[task]);
    write_task(encoded, rows_of[task], header, &writer);
  }
  ImportSummary summary = finish(&writer, options, std::move(how), std::move(notes));
  summary.columns = fit.readings();
  return summary;
}

}  // namespace kshot::data
