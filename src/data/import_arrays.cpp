#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <initializer_list>
#include <map>

#include "data/import_common.h"
#include "io/npy.h"
#include "kshot/error.h"

namespace kshot::data {
namespace {

const std::vector<std::string> feature_names = {"x", "X", "data", "images", "features", "arr_0"};
const std::vector<std::string> label_names = {"y", "Y", "labels", "label", "targets", "target"};

/// Shape of an example. For images with a channel axis, also the place of this axis.
struct ExampleLayout {
  FeatureShape shape;
  ArrayLayout layout = ArrayLayout::automatic;
};

ExampleLayout example_layout(std::span<const std::size_t> dims, ArrayLayout requested,
                             const std::string& origin, const std::string& whole) {
  const auto fail = [&](const std::string& why) {
    return Error(fmt::format("{}: shape {}: {}", origin, whole, why));
  };
  std::size_t size = 1;
  for (const std::size_t dim : dims) {
    size = dim > (std::size_t{1} << 24) ? 0 : size * dim;
    if (size == 0 || size > (std::size_t{1} << 24)) throw fail("an example is empty or too large");
  }
  const auto dim = [&](std::size_t i) { return static_cast<int>(dims[i]); };
  const std::size_t rank = requested == ArrayLayout::vectors ? 1
                           : requested == ArrayLayout::hw    ? 2
                                                             : 3;
  if (requested != ArrayLayout::automatic && dims.size() != rank) {
    throw fail(fmt::format("--layout says that an example has {} ax{}; here it has {}", rank,
                           rank == 1 ? "is" : "es", dims.size()));
  }
  switch (dims.size()) {
    case 1:
      return {{.channels = dim(0)}};
    case 2:
      return {{1, dim(0), dim(1), true}};
    case 3: {
      const auto few = [&](std::size_t i) { return dims[i] == 1 || dims[i] == 3; };
      bool last = requested == ArrayLayout::hwc;
      if (requested == ArrayLayout::automatic) {
        if (few(0) == few(2)) {
          throw fail("which axis are the channels? expected --layout hwc or --layout chw");
        }
        last = few(2);
      }
      return last ? ExampleLayout{{dim(2), dim(0), dim(1), true}, ArrayLayout::hwc}
                  : ExampleLayout{{dim(0), dim(1), dim(2), true}, ArrayLayout::chw};
    }
    default:
      throw fail(
          "expected examples that are vectors [d] or images [H, W], [H, W, C], [C, H, W], "
          "behind an axis of classes and one of examples, or one of examples with labels");
  }
}

/// A class and its rows in the array.
struct ArrayClass {
  std::string name;
  std::optional<Split> given;  ///< the split that the table of the classes states
  std::vector<std::size_t> rows;
  std::vector<Split> splits{};
  bool in(Split split) const { return std::ranges::find(splits, split) != splits.end(); }
};

std::optional<std::size_t> parse_index(const std::string& text) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

/// Returns the classes in order of their index, taken from the labels or from the array's first
/// axis.
std::vector<ArrayClass> collect_classes(const io::Tensor& x,
                                        const std::optional<io::Tensor>& labels) {
  std::vector<ArrayClass> out;
  if (!labels) {
    const std::size_t per_class = x.shape[1];
    for (std::size_t c = 0; c < x.shape[0]; ++c) {
      ArrayClass entry{fmt::format("{}", c), {}, {}, {}};
      for (std::size_t k = 0; k < per_class; ++k) entry.rows.push_back(c * per_class + k);
      out.push_back(std::move(entry));
    }
    return out;
  }
  if (labels->size() != x.shape[0] || labels->shape[0] != x.shape[0]) {
    throw Error(fmt::format("{}: shape {}; expected one label for each of the {} rows of {}",
                            labels->origin, io::shape_text(labels->shape), x.shape[0], x.origin));
  }
  std::map<std::int64_t, std::vector<std::size_t>> rows;
  const std::vector<std::int64_t> values = labels->to_i64();
  for (std::size_t row = 0; row < values.size(); ++row) {
    if (values[row] < 0) {
      throw Error(fmt::format("{}: label {} at row {}; expected 0 or more", labels->origin,
                              values[row], row));
    }
    rows[values[row]].push_back(row);
  }
  for (auto& [label, members] : rows) {
    out.push_back({fmt::format("{}", label), {}, std::move(members), {}});
  }
  return out;
}

/// Sets the names and, where the table has them, the splits of the classes. Returns true if all
/// have a split.
bool name_classes(const SplitOptions& options, const io::Tensor& x,
                  std::vector<ArrayClass>* classes) {
  std::map<std::string, GroupRow> by_key;
  bool splits = true;
  for (GroupRow& row : read_group_table(options)) {
    if (!parse_index(row.key)) {
      throw Error(fmt::format("{}: first column holds '{}'; expected the index of a class, from 0",
                              row.location, row.key));
    }
    splits = splits && row.split.has_value();
    by_key[fmt::format("{}", *parse_index(row.key))] = std::move(row);
  }
  for (ArrayClass& entry : *classes) {
    const auto found = by_key.find(entry.name);
    if (found == by_key.end()) {
      throw Error(
          fmt::format("{}: no row for class {} of {}; expected one for each of its {} "
                      "classes",
                      options.table.string(), entry.name, x.origin, classes->size()));
    }
    entry.name = found->second.name;
    entry.given = found->second.split;
  }
  if (classes->size() != by_key.size()) {
    throw Error(fmt::format("{}: {} classes; expected the {} that {} has", options.table.string(),
                            by_key.size(), classes->size(), x.origin));
  }
  return splits;
}

/// Names the classes, divides them into splits, and removes the classes that are left out. Returns
/// a description of the division.
std::string divide(const ArraysImport& options, const io::Tensor& x,
                   std::vector<ArrayClass>* classes, std::vector<std::string>* notes) {
  const SplitOptions& splits = options.splits;
  std::string how;
  if (!splits.table.empty() && name_classes(splits, x, classes)) {
    how = fmt::format("by the column 'split' of {}", splits.table.string());
    if (!splits.lists.empty() || !splits.fractions.empty()) {
      notes->push_back(fmt::format("the column 'split' of {} is not used: {} divides",
                                   splits.table.string(),
                                   splits.lists.empty() ? "--fractions" : "--split"));
    }
  }
  std::vector<NamedClass> named;
  for (const ArrayClass& entry : *classes) {
    named.push_back({entry.name, entry.name, entry.rows.size(), named.size(), entry.given, {}});
  }
  const Division division = divide_classes(splits, x.origin, options.min_examples, how, "", &named);
  notes->insert(notes->end(), division.notes.begin(), division.notes.end());
  std::vector<ArrayClass> kept;
  for (const NamedClass& entry : named) {
    kept.push_back(std::move((*classes)[entry.index]));
    kept.back().splits = entry.splits;
  }
  *classes = std::move(kept);
  return division.how;
}

/// Notes that an array without labels is read as [classes, examples, ...]. Throws Error where it is
/// more likely that the labels are missing.
void check_unlabelled(const io::Tensor& x, ArrayLayout layout, std::vector<std::string>* notes) {
  const std::vector<std::size_t>& shape = x.shape;
  const auto few = [](std::size_t dim) { return dim == 1 || dim == 3 || dim == 4; };
  const bool bytes = x.dtype == io::Tensor::DType::u8 || x.dtype == io::Tensor::DType::boolean;
  const bool pictures = (shape.size() == 3 && (bytes || (shape[1] == shape[2] && shape[1] >= 8))) ||
                        (shape.size() == 4 && (few(shape[3]) || shape[1] == 1 || shape[1] == 3));
  if (layout == ArrayLayout::automatic && pictures) {
    throw Error(fmt::format(
        "{}: shape {} without labels may be {} images or {} classes of {} examples; expected "
        "--labels for images, or --layout {} for [classes, examples, {}]",
        x.origin, io::shape_text(shape), shape[0], shape[0], shape[1],
        shape.size() == 3 ? "vectors" : "hw", shape.size() == 3 ? "d" : "height, width"));
  }
  notes->push_back(fmt::format("no labels: shape {} is read as {} classes of {} examples each",
                               io::shape_text(shape), shape[0], shape[1]));
}

/// Notes the arrays of an archive that the import does not use. If nothing else divides the
/// classes, throws Error for an array that seems to divide them.
void note_unused(const ArraysImport& options, const std::filesystem::path& file,
                 std::initializer_list<const io::Tensor*> used, std::vector<std::string>* notes) {
  const SplitOptions& splits = options.splits;
  const bool divided = !splits.lists.empty() || !splits.fractions.empty() || !splits.table.empty();
  std::vector<std::string> unused;
  for (const std::string& name : io::npz_names(file)) {
    const std::string origin = file.string() + ": " + name;
    if (std::ranges::any_of(used, [&](const io::Tensor* t) { return t && t->origin == origin; })) {
      continue;
    }
    // Arrays such as "x_test" and "labels_train" are other data, and not a division of these data.
    const bool data = std::ranges::any_of(
        std::array{"x", "y", "X", "Y", "data", "images", "features", "labels", "targets"},
        [&](const std::string_view word) { return name.starts_with(word); });
    if (!divided && !data && names_division(name)) {
      throw Error(
          fmt::format("{} may divide the classes; expected --classes TABLE with a column 'split', "
                      "--split lists, "
                      "or --fractions A,B,C, which divides them at random",
                      origin));
    }
    unused.push_back(name);
  }
  if (unused.empty()) return;
  notes->push_back(fmt::format("arrays that are not used: {}", name_some(unused)));
}

/// Reads a row of vectors. Throws Error for a number that is not finite.
void read_vector(const io::Tensor& x, std::size_t row, std::span<double> out) {
  read_numbers(x, row * out.size(), out, out.size());
  const auto bad = std::ranges::find_if(out, [](double v) { return std::isnan(v); });
  if (bad != out.end()) {
    throw Error(fmt::format("{}: nan in row {}, element {}; expected finite numbers", x.origin, row,
                            bad - out.begin()));
  }
}

/// Mean, standard deviation and range of every element over the classes of `split`, or over the
/// classes of all splits if it is empty.
ColumnStatistics measure(const io::Tensor& x, const std::vector<ArrayClass>& classes, std::size_t d,
                         std::optional<Split> split) {
  ColumnStatistics statistics(d);
  std::vector<double> row_values(d);
  for (const ArrayClass& entry : classes) {
    if (split && !entry.in(*split)) continue;
    for (const std::size_t row : entry.rows) {
      read_vector(x, row, row_values);
      for (std::size_t i = 0; i < d; ++i) statistics.add(i, row_values[i]);
    }
  }
  return statistics;
}

/// Describes vectors as columns x0, x1, ..., and notes values that float32 cannot tell apart.
void describe_vectors(const io::Tensor& x, const std::vector<ArrayClass>& classes, bool standardise,
                      Preprocessing* out, std::vector<std::string>* notes) {
  out->kind = Preprocessing::Kind::table;
  out->named_columns = false;
  out->standardised = standardise;
  const auto d = static_cast<std::size_t>(out->input.size());
  const ColumnStatistics statistics =
      measure(x, classes, d, standardise ? std::optional(Split::train) : std::nullopt);
  std::size_t constant = 0;
  bool coarse = false;
  for (std::size_t i = 0; i < d; ++i) {
    Preprocessing::Column column;
    column.name = fmt::format("x{}", i);
    const double low = statistics.low(i), high = statistics.high(i);
    if (standardise) {
      column.mean = statistics.mean(i);
      column.std = statistics.deviation(i);
      constant += statistics.constant(i) ? 1 : 0;
    } else if (!coarse && high > low &&
               std::max(std::abs(low), std::abs(high)) * 0x1p-23 > (high - low) * 1e-3) {
      coarse = true;
      notes->push_back(
          fmt::format("{} runs from {} to {}: stored as float32, nearby values become equal "
                      "(--standardise keeps them apart)",
                      column.name, low, high));
    }
    out->columns.push_back(std::move(column));
  }
  notes->push_back(
      fmt::format("{} vectors, {}", io::dtype_name(x.dtype),
                  standardise ? "standardised over the training classes" : "numbers as they are"));
  if (constant > 0) {
    notes->push_back(
        fmt::format("{} of {} elements are constant in the training classes: 0", constant, d));
  }
}

/// Describes the units of images, and the range of numbers that are kept as they are.
void describe_images(const io::Tensor& x, const ExampleLayout& layout, Preprocessing* out,
                     std::vector<std::string>* notes) {
  out->kind = Preprocessing::Kind::array;
  out->bytes = x.dtype == io::Tensor::DType::u8 || x.dtype == io::Tensor::DType::boolean;
  const std::string axes = layout.layout == ArrayLayout::hwc   ? "[height, width, channels]"
                           : layout.layout == ArrayLayout::chw ? "[channels, height, width]"
                                                               : "[height, width]";
  if (out->bytes) {
    notes->push_back(fmt::format("images {} of {}: {} become [0, 1]", axes, io::dtype_name(x.dtype),
                                 x.dtype == io::Tensor::DType::u8 ? "0 to 255" : "false and true"));
    return;
  }
  const auto d = static_cast<std::size_t>(out->input.size());
  std::vector<double> numbers(d);
  ColumnStatistics range(1);
  for (std::size_t row = 0; row < x.size() / d; ++row) {
    read_vector(x, row, numbers);
    for (const double v : numbers) range.add(0, v);
  }
  out->low = range.low(0);
  out->high = range.high(0);
  notes->push_back(fmt::format("images {} of {}: numbers from {} to {} as they are", axes,
                               io::dtype_name(x.dtype), out->low, out->high));
}

void write_rows(const io::Tensor& x, std::size_t leading, const ExampleLayout& layout,
                const std::vector<ArrayClass>& classes, const DatasetHeader& header,
                DatasetWriter* writer, const std::function<void()>& interrupt) {
  constexpr std::size_t rows_between_interrupts = 1024;
  const Preprocessing& preprocessing = header.preprocessing;
  const auto d = static_cast<std::size_t>(layout.shape.size());
  std::optional<ImageArray> images;
  if (layout.shape.spatial) images.emplace(preprocessing, x, leading, layout.layout);
  std::vector<float> row_values(d);
  std::vector<std::uint8_t> row_bytes(d);
  std::vector<double> numbers(d);
  const auto write_row = [&](std::size_t row) {
    if (preprocessing.bytes) {
      images->read(row, std::span<std::uint8_t>(row_bytes));
      writer->add(std::span<const std::uint8_t>(row_bytes));
      return;
    }
    if (images) {
      images->read(row, std::span<float>(row_values));
    } else {
      read_vector(x, row, numbers);
      for (std::size_t i = 0; i < d; ++i) {
        row_values[i] =
            preprocessing.columns[i].encode(numbers[i], fmt::format("{}: row {}", x.origin, row));
      }
    }
    writer->add(std::span<const float>(row_values));
  };
  for (const ArrayClass& entry : classes) {
    for (const Split split : entry.splits) {
      writer->begin_group(entry.name, split);
      for (std::size_t i = 0; i < entry.rows.size(); ++i) {
        if (interrupt && i % rows_between_interrupts == 0) interrupt();
        write_row(entry.rows[i]);
      }
    }
  }
}

}  // namespace

ImportSummary import_arrays(const ArraysImport& options) {
  const ArrayReference reference = parse_array_reference(options.source);
  for (const std::string& text : {options.source, options.labels}) {
    const ArrayReference part = parse_array_reference(text);
    if (part.part.empty() || is_npz(part.file)) continue;
    throw Error(fmt::format("{}: a .npy file holds one array; expected {} alone", text,
                            part.file.string()));
  }
  const io::Tensor x = read_array(reference, feature_names);
  std::optional<io::Tensor> labels;
  std::vector<std::string> notes;
  std::vector<std::string> sources{options.source};
  if (!options.labels.empty()) {
    labels = read_array(parse_array_reference(options.labels), label_names);
    sources.push_back(options.labels);
  } else if (is_npz(reference.file)) {
    labels = find_array({reference.file, ""}, label_names);
    if (labels) notes.push_back(fmt::format("labels from {}", labels->origin));
  }
  if (is_npz(reference.file)) {
    note_unused(options, reference.file, {&x, labels ? &*labels : nullptr}, &notes);
  }
  const std::size_t leading = labels ? 1 : 2;
  if (x.shape.size() <= leading || x.size() == 0) {
    throw Error(fmt::format(
        "{}: shape {}; expected [classes, examples, ...], or [examples, ...] with --labels",
        x.origin, io::shape_text(x.shape)));
  }
  if (!labels) check_unlabelled(x, options.layout, &notes);
  const ExampleLayout layout = example_layout(std::span(x.shape).subspan(leading), options.layout,
                                              x.origin, io::shape_text(x.shape));
  if (options.standardise && layout.shape.spatial) {
    throw Error(fmt::format("{}: --standardise is for vectors; these are images", x.origin));
  }
  std::vector<ArrayClass> classes = collect_classes(x, labels);
  std::string how = divide(options, x, &classes, &notes);
  if (options.standardise &&
      std::ranges::none_of(classes, [](const ArrayClass& c) { return c.in(Split::train); })) {
    throw Error(
        fmt::format("{}: --standardise takes the mean and the standard deviation of the training "
                    "classes; expected at least one training class",
                    x.origin));
  }

  DatasetHeader header;
  header.kind = GroupKind::classes;
  header.input = layout.shape;
  header.preprocessing.input = layout.shape;
  if (layout.shape.spatial) {
    describe_images(x, layout, &header.preprocessing, &notes);
  } else {
    describe_vectors(x, classes, options.standardise, &header.preprocessing, &notes);
  }
  header.element = header.preprocessing.bytes ? Element::u8 : Element::f32;
  header.provenance = provenance_of("arrays", sources, how);
  DatasetWriter writer(options.output, header);
  write_rows(x, leading, layout, classes, header, &writer, options.interrupt);
  return finish(&writer, options, std::move(how), std::move(notes));
}

}  // namespace kshot::data
