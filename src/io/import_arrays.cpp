#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "io/import_common.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

const std::vector<std::string> feature_names = {"x", "X", "data", "images", "features", "arr_0"};
const std::vector<std::string> label_names = {"y", "Y", "labels", "label", "targets", "target"};

/// Shape of an example and, for images stored [H, W, C], that its channels are to be brought first.
struct ExampleLayout {
  FeatureShape shape;
  bool channels_last = false;
};

ExampleLayout example_layout(std::span<const std::size_t> dims, ArrayLayout wanted,
                             const std::string& origin, const std::string& whole) {
  const auto fail = [&](const std::string& why) {
    return Error(fmt::format("{}: shape {}: {}", origin, whole, why));
  };
  for (const std::size_t dim : dims) {
    if (dim == 0 || dim > (std::size_t{1} << 24)) throw fail("an example is empty or too large");
  }
  const auto dim = [&](std::size_t i) { return static_cast<int>(dims[i]); };
  switch (dims.size()) {
    case 1:
      return {{.channels = dim(0)}, false};
    case 2:
      return {{1, dim(0), dim(1), true}, false};
    case 3: {
      const auto few = [&](std::size_t i) { return dims[i] == 1 || dims[i] == 3; };
      bool last = wanted == ArrayLayout::hwc;
      if (wanted == ArrayLayout::automatic) {
        if (few(0) == few(2)) {
          throw fail("which axis are the channels? expected --layout hwc or --layout chw");
        }
        last = few(2);
      }
      return last ? ExampleLayout{{dim(2), dim(0), dim(1), true}, true}
                  : ExampleLayout{{dim(0), dim(1), dim(2), true}, false};
    }
    default:
      throw fail(
          "expected examples that are vectors [d] or images [H, W], [H, W, C], [C, H, W], "
          "behind an axis of classes and one of examples, or one of examples with labels");
  }
}

/// A class and the rows of the array that belong to it.
struct ArrayClass {
  std::string name;
  std::optional<Split> split;
  std::vector<std::size_t> rows;
};

std::optional<std::size_t> parse_index(const std::string& text) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

template <typename T>
void reorder(std::span<const T> from, const ExampleLayout& layout, std::span<T> to) {
  if (!layout.channels_last) {
    std::ranges::copy(from, to.begin());
    return;
  }
  const auto channels = static_cast<std::size_t>(layout.shape.channels);
  const std::size_t area = from.size() / channels;
  for (std::size_t c = 0; c < channels; ++c) {
    for (std::size_t p = 0; p < area; ++p) to[c * area + p] = from[p * channels + c];
  }
}

/// Classes in order of their index: from labels, or the array's first axis.
std::vector<ArrayClass> collect_classes(const Tensor& x, const std::optional<Tensor>& labels) {
  std::vector<ArrayClass> out;
  if (!labels) {
    const std::size_t per_class = x.shape[1];
    for (std::size_t c = 0; c < x.shape[0]; ++c) {
      ArrayClass entry{fmt::format("{}", c), {}, {}};
      for (std::size_t k = 0; k < per_class; ++k) entry.rows.push_back(c * per_class + k);
      out.push_back(std::move(entry));
    }
    return out;
  }
  if (labels->size() != x.shape[0]) {
    throw Error(fmt::format("{}: shape {}; expected one label for each of the {} rows of {}",
                            labels->origin, shape_text(labels->shape), x.shape[0], x.origin));
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
    out.push_back({fmt::format("{}", label), {}, std::move(members)});
  }
  return out;
}

/// Names and splits of the classes.
void name_classes(const SplitOptions& options, const Tensor& x, std::vector<ArrayClass>* classes,
                  std::vector<std::string>* notes) {
  if (!options.table.empty()) {
    std::map<std::string, GroupRow> by_key;
    bool splits = true;
    for (GroupRow& row : read_group_table(options.table)) {
      if (!parse_index(row.key)) {
        throw Error(
            fmt::format("{}: first column holds '{}'; expected the index of a class, from 0",
                        row.where, row.key));
      }
      splits = splits && row.split.has_value();
      by_key[fmt::format("{}", *parse_index(row.key))] = std::move(row);
    }
    std::size_t used = 0;
    for (ArrayClass& entry : *classes) {
      const auto found = by_key.find(entry.name);
      if (found == by_key.end()) {
        throw Error(
            fmt::format("{}: no row for class {} of {}; expected one for each of its {} "
                        "classes",
                        options.table.string(), entry.name, x.origin, classes->size()));
      }
      ++used;
      entry.name = found->second.name;
      entry.split = found->second.split;
    }
    if (used != by_key.size()) {
      throw Error(fmt::format("{}: {} classes; expected the {} that {} has", options.table.string(),
                              by_key.size(), classes->size(), x.origin));
    }
    if (splits && options.lists.empty() && options.fractions.empty()) return;
  }
  std::vector<std::string> names;
  for (const ArrayClass& entry : *classes) names.push_back(entry.name);
  SplitOptions rest = options;
  rest.table.clear();  // its splits, if any, give way to lists or fractions
  const auto splits = assign_splits(rest, names, "classes", notes);
  for (std::size_t c = 0; c < classes->size(); ++c) (*classes)[c].split = splits[c];
}

}  // namespace

ImportSummary import_arrays(const ArraysImport& options) {
  const ArrayReference reference = parse_array_reference(options.source);
  const Tensor x = read_array(reference, feature_names);
  std::optional<Tensor> labels;
  std::vector<std::string> sources{options.source};
  if (!options.labels.empty()) {
    labels = read_array(parse_array_reference(options.labels), label_names);
    sources.push_back(options.labels);
  } else if (reference.file.extension() == ".npz") {
    labels = find_array({reference.file, ""}, label_names);
  }
  const std::size_t leading = labels ? 1 : 2;
  if (x.shape.size() <= leading || x.size() == 0) {
    throw Error(fmt::format(
        "{}: shape {}; expected [classes, examples, ...], or [examples, ...] with --labels",
        x.origin, shape_text(x.shape)));
  }
  const ExampleLayout layout = example_layout(std::span(x.shape).subspan(leading), options.layout,
                                              x.origin, shape_text(x.shape));
  const auto d = static_cast<std::size_t>(layout.shape.size());
  if (options.standardise && layout.shape.spatial) {
    throw Error(fmt::format("{}: --standardise is for vectors; these are images", x.origin));
  }

  std::vector<std::string> notes;
  std::vector<ArrayClass> classes = collect_classes(x, labels);
  name_classes(options.splits, x, &classes, &notes);
  std::vector<std::optional<Split>> splits;
  for (const ArrayClass& entry : classes) splits.push_back(entry.split);
  require_training(splits, "class", x.origin);

  DatasetHeader header;
  header.kind = GroupKind::classes;
  header.input = layout.shape;
  const bool bytes =
      layout.shape.spatial && (x.dtype == Tensor::DType::u8 || x.dtype == Tensor::DType::boolean);
  header.element = bytes ? Element::u8 : Element::f32;
  header.preprocessing.input = layout.shape;
  header.provenance = provenance_of("arrays", sources, options.splits);

  std::vector<float> values;
  if (!bytes) {
    values = x.to_f32();
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(values[i])) {
        throw Error(fmt::format("{}: {} in row {}, element {}; expected finite numbers", x.origin,
                                values[i], i / d, i % d));
      }
    }
  }
  if (!layout.shape.spatial) {
    Preprocessing& preprocessing = header.preprocessing;
    preprocessing.kind = Preprocessing::Kind::table;
    ColumnStatistics statistics(d);
    if (options.standardise) {
      for (const ArrayClass& entry : classes) {
        if (entry.split != Split::train) continue;
        for (const std::size_t row : entry.rows) {
          for (std::size_t i = 0; i < d; ++i) statistics.add(i, values[row * d + i]);
        }
      }
    }
    for (std::size_t i = 0; i < d; ++i) {
      Preprocessing::Column column;
      column.name = fmt::format("x{}", i);
      if (options.standardise) {
        column.mean = statistics.mean(i);
        column.std = statistics.deviation(i);
      }
      preprocessing.columns.push_back(std::move(column));
    }
  }

  DatasetWriter writer(options.output, header);
  std::vector<float> row_values(d);
  std::vector<std::uint8_t> row_bytes(d);
  for (const ArrayClass& entry : classes) {
    if (!entry.split) continue;
    writer.begin_group(entry.name, *entry.split);
    for (const std::size_t row : entry.rows) {
      if (bytes) {
        const auto* pixels = reinterpret_cast<const std::uint8_t*>(x.bytes.data()) + row * d;
        reorder<std::uint8_t>({pixels, d}, layout, row_bytes);
        if (x.dtype == Tensor::DType::boolean) {
          for (std::uint8_t& pixel : row_bytes) pixel = pixel != 0 ? 255 : 0;
        }
        writer.add(std::span<const std::uint8_t>(row_bytes));
      } else {
        reorder<float>({values.data() + row * d, d}, layout, row_values);
        if (options.standardise) {
          for (std::size_t i = 0; i < d; ++i) {
            const auto& column = header.preprocessing.columns[i];
            row_values[i] = static_cast<float>((row_values[i] - column.mean) / column.std);
          }
        }
        writer.add(std::span<const float>(row_values));
      }
    }
  }
  return finish(&writer, options, std::move(notes));
}

}  // namespace kshot::io
