// Imports of data files.
#include "base/log.h"
#include "bindings.h"
#include "data/division.h"
#include "data/import.h"
#include "io/output_file.h"

namespace kshot::python {

using namespace nb::literals;

namespace {

nb::dict split_dict(const data::DatasetHeader& header, Split split) {
  nb::dict d;
  std::uint64_t rows = 0;
  const auto groups = header.split_groups(split);
  for (const std::uint32_t group : groups) rows += header.groups[group].rows;
  d["groups"] = groups.size();
  d["rows"] = rows;
  return d;
}

nb::dict to_dict(const data::ImportSummary& summary) {
  const data::DatasetHeader& header = summary.header;
  nb::dict d;
  d["output"] = summary.output;
  d["kind"] = header.kind == data::GroupKind::tasks ? "tasks" : "classes";
  const FeatureShape& input = header.input;
  d["input_shape"] = input.spatial
                         ? nb::object(nb::make_tuple(input.channels, input.height, input.width))
                         : nb::object(nb::make_tuple(input.size()));
  d["bytes"] = summary.bytes;
  d["division"] = summary.division;
  d["notes"] = summary.notes;
  d["columns"] = summary.columns;
  nb::dict splits;
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    splits[split_name(split)] = split_dict(header, split);
  }
  d["splits"] = splits;
  return d;
}

/// Reads the options of an import from the keyword arguments, and refuses those that are left.
class Keywords {
 public:
  explicit Keywords(const nb::dict& arguments)
      : left_(nb::steal<nb::dict>(PyDict_Copy(arguments.ptr()))) {}

  template <typename T>
  void take(const char* name, T& value) {
    if (!left_.contains(name)) return;
    const nb::object given = left_[name];
    nb::del(left_[name]);
    if (!nb::try_cast(given, value)) {
      throw nb::type_error((std::string(name) + ": unexpected type " +
                            nb::cast<std::string>(given.type().attr("__name__")))
                               .c_str());
    }
  }
  /// Reads one of several words. An absent keyword changes nothing.
  template <typename T>
  void take_word(const char* name, T& value, const std::map<std::string, T>& words) {
    std::string word;
    take(name, word);
    if (word.empty()) return;
    const auto found = words.find(word);
    if (found != words.end()) {
      value = found->second;
      return;
    }
    std::string expected;
    for (const auto& [known, ignored] : words) {
      expected += (expected.empty() ? "\"" : ", \"") + known + "\"";
    }
    throw nb::value_error(
        (std::string(name) + ": expected one of " + expected + ", got \"" + word + "\"").c_str());
  }
  void finish() const {
    if (left_.size() == 0) return;
    const std::string name = nb::cast<std::string>(nb::list(left_.keys())[0]);
    throw nb::type_error(("unexpected keyword argument \"" + name + "\"").c_str());
  }

 private:
  nb::dict left_;
};

void take_common(Keywords& keywords, data::ImportCommon& options) {
  std::map<std::string, std::vector<std::filesystem::path>> lists;
  keywords.take("splits", lists);
  for (const auto& [name, files] : lists) {
    const auto split = data::split_from_name(name);
    if (!split) {
      throw nb::value_error(
          ("splits: expected train, validation or test, got \"" + name + "\"").c_str());
    }
    for (const auto& file : files) options.splits.lists.emplace_back(*split, file);
  }
  keywords.take("fractions", options.splits.fractions);
  keywords.take("seed", options.splits.seed);
  keywords.take("allow_shared_classes", options.splits.allow_shared);
  if (!lists.empty() && !options.splits.fractions.empty()) {
    throw nb::value_error("fractions: expected without splits");
  }
}

void take_classes(Keywords& keywords, data::ClassImport& options) {
  take_common(keywords, options);
  keywords.take("min_examples", options.min_examples);
}

/// Runs an import. Ctrl-C ends the import without an output file.
template <typename Options>
nb::dict import_with(Options& options, const Keywords& keywords, bool progress,
                     data::ImportSummary (*import)(const Options&)) {
  keywords.finish();
  Interruption interruption;
  std::optional<Progress> bar;
  options.progress = [&](std::uint64_t done, std::uint64_t total) {
    if (!progress) return;
    if (!bar) bar.emplace(total, "classes");
    bar->update(done);
    if (done == total) bar->finish();
  };
  options.interrupt = [&] {
    if (interruption.stop()) throw Stopped();
  };
  return to_dict(interruption.run([&] {
    // The output is checked before the sources are read, so that a wrong name costs no time.
    io::OutputFile(options.output, io::OutputKind::data_file);
    return import(options);
  }));
}

nb::dict import_omniglot(const std::vector<std::filesystem::path>& sources,
                         const std::filesystem::path& output, bool progress,
                         const nb::dict& arguments) {
  data::OmniglotImport options;
  options.sources = sources;
  options.output = output;
  Keywords keywords(arguments);
  take_classes(keywords, options);
  keywords.take("size", options.size);
  keywords.take("skip_bad", options.skip_bad);
  return import_with(options, keywords, progress, data::import_omniglot);
}

nb::dict import_images(const std::filesystem::path& source, const std::filesystem::path& output,
                       bool progress, const nb::dict& arguments) {
  data::ImagesImport options;
  options.source = source;
  options.output = output;
  Keywords keywords(arguments);
  take_classes(keywords, options);
  keywords.take("height", options.height);
  keywords.take("width", options.width);
  keywords.take("grey", options.grey);
  keywords.take("crop", options.crop);
  keywords.take("invert", options.invert);
  keywords.take("skip_bad", options.skip_bad);
  keywords.take("by_folders", options.splits.by_folders);
  keywords.take_word("background", options.background,
                     {{"stored", io::Background::stored},
                      {"white", io::Background::white},
                      {"black", io::Background::black}});
  return import_with(options, keywords, progress, data::import_images);
}

nb::dict import_arrays(const std::string& source, const std::filesystem::path& output,
                       bool progress, const nb::dict& arguments) {
  data::ArraysImport options;
  options.source = source;
  options.output = output;
  Keywords keywords(arguments);
  take_classes(keywords, options);
  keywords.take("labels", options.labels);
  keywords.take("classes", options.splits.table);
  keywords.take("standardise", options.standardise);
  keywords.take_word("layout", options.layout,
                     {{"auto", data::ArrayLayout::automatic},
                      {"hwc", data::ArrayLayout::hwc},
                      {"chw", data::ArrayLayout::chw},
                      {"hw", data::ArrayLayout::hw},
                      {"vectors", data::ArrayLayout::vectors}});
  return import_with(options, keywords, progress, data::import_arrays);
}

void take_text_format(Keywords& keywords, data::TableImport& options) {
  std::string delimiter, decimal, thousands;
  std::optional<std::vector<std::string>> marks;
  keywords.take("delimiter", delimiter);
  keywords.take("decimal", decimal);
  keywords.take("thousands", thousands);
  keywords.take("missing_marks", marks);
  if (!delimiter.empty()) options.delimiter = io::parse_delimiter(delimiter);
  if (!decimal.empty()) options.format.decimal = io::parse_decimal_mark(decimal);
  if (!thousands.empty()) options.format.thousands = io::parse_thousands_mark(thousands);
  options.format.missing_marks = marks;
  if (options.format.thousands == std::string(1, options.format.decimal)) {
    throw Error("decimal and thousands: expected two different characters");
  }
}

/// Columns of a table in memory: (name, numbers) or (name, texts). A missing value is NaN, or an
/// empty text.
using Columns =
    std::vector<std::pair<std::string, std::variant<Doubles, std::vector<std::string>>>>;

io::Table to_table(const Columns& columns, const std::string& name, const io::TextFormat& format) {
  io::Table table;
  table.origin = name;
  table.format = format;
  for (const auto& [column_name, cells] : columns) {
    io::Table::Column column;
    column.name = column_name;
    if (const auto* numbers = std::get_if<Doubles>(&cells)) {
      column.numeric = true;
      column.numbers.assign(numbers->data(), numbers->data() + numbers->size());
      table.rows = column.numbers.size();
    } else {
      column.text = std::get<std::vector<std::string>>(cells);
      table.rows = column.text.size();
    }
    table.columns.push_back(std::move(column));
  }
  return table;
}

/// Encodes the rows of a frame for the network. Returns {x [rows, features], y, source [rows] (the
/// number in the frame of each row), unseen (values of unknown categories)}. y is labels [rows] or
/// values [rows, targets], and None without targets.
nb::dict encode_frame(const std::string& preprocessing, const Columns& columns,
                      const std::string& name, bool with_targets) {
  const auto described = data::Preprocessing::from_json(preprocessing, "checkpoint");
  data::EncodedTable encoded =
      data::encode_table(described, to_table(columns, name, described.format), with_targets);
  nb::dict d;
  const std::size_t rows = encoded.rows;
  const std::size_t targets = described.targets.size();
  const auto features = static_cast<std::size_t>(described.input.size());
  d["x"] = to_numpy(std::move(encoded.x), {rows, features});
  d["y"] = nb::none();
  if (with_targets && targets > 0) d["y"] = to_numpy(std::move(encoded.values), {rows, targets});
  if (with_targets && targets == 0) d["y"] = to_numpy(std::move(encoded.labels), {rows});
  std::vector<std::int64_t> source(encoded.source.begin(), encoded.source.end());
  d["source"] = to_numpy(std::move(source), {rows});
  d["unseen"] = encoded.unseen;
  return d;
}

nb::dict import_table(const std::string& source, const std::filesystem::path& output, bool progress,
                      const nb::dict& arguments, const std::optional<Columns>& columns) {
  data::TableImport options;
  options.source = source;
  options.output = output;
  Keywords keywords(arguments);
  take_common(keywords, options);
  take_text_format(keywords, options);
  keywords.take("task", options.task);
  keywords.take("targets", options.targets);
  keywords.take("classification", options.classification);
  keywords.take("tasks", options.splits.table);
  keywords.take("split_column", options.split_column);
  keywords.take("categorical", options.categorical);
  keywords.take("categorical_arrays", options.categorical_arrays);
  keywords.take("ignore", options.ignore);
  keywords.take("dates", options.dates);
  keywords.take("columns", options.columns);
  keywords.take("raw_targets", options.raw_targets);
  keywords.take("raw_inputs", options.raw_inputs);
  keywords.take_word("missing", options.missing,
                     {{"error", data::MissingRule::error},
                      {"mean", data::MissingRule::mean},
                      {"drop", data::MissingRule::drop}});
  if (columns) options.table = to_table(*columns, source, options.format);
  return import_with(options, keywords, progress, data::import_table);
}

}  // namespace

void bind_imports(nb::module_& m) {
  m.def("import_omniglot", &import_omniglot, "sources"_a, "output"_a, "progress"_a, "options"_a);
  m.def("import_images", &import_images, "source"_a, "output"_a, "progress"_a, "options"_a);
  m.def("import_arrays", &import_arrays, "source"_a, "output"_a, "progress"_a, "options"_a);
  m.def("import_table", &import_table, "source"_a, "output"_a, "progress"_a, "options"_a,
        "columns"_a.none() = nb::none());
  m.def("encode_frame", &encode_frame, "preprocessing"_a, "columns"_a, "name"_a, "with_targets"_a);
}

}  // namespace kshot::python
