#include "data/preprocessing.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/episode_arithmetic.h"
#include "io/json_text.h"
#include "kshot/error.h"

namespace kshot::data {
namespace {

using nlohmann::json;

constexpr std::pair<MissingRule, const char*> missing_rules[] = {
    {MissingRule::error, "error"}, {MissingRule::mean, "mean"}, {MissingRule::drop, "drop"}};

constexpr std::pair<Preprocessing::Kind, const char*> kinds[] = {
    {Preprocessing::Kind::none, "none"},
    {Preprocessing::Kind::image, "image"},
    {Preprocessing::Kind::array, "array"},
    {Preprocessing::Kind::table, "table"}};

constexpr std::pair<ImageFit, const char*> fits[] = {
    {ImageFit::exact, "exact"}, {ImageFit::squeeze, "squeeze"}, {ImageFit::crop, "crop"}};
constexpr std::pair<io::Background, const char*> backgrounds[] = {
    {io::Background::stored, "stored"},
    {io::Background::white, "white"},
    {io::Background::black, "black"}};

constexpr std::pair<io::Reading, const char*> readings[] = {{io::Reading::number, "number"},
                                                            {io::Reading::percent, "percent"},
                                                            {io::Reading::date, "date"}};

template <typename Value, std::size_t n>
const char* name_of(const std::pair<Value, const char*> (&names)[n], Value sought) {
  for (const auto& [value, name] : names) {
    if (value == sought) return name;
  }
  return "?";
}
/// Finds a value by its name. Throws Error for an unknown name, which a newer version may have
/// written.
template <typename Value, std::size_t n>
Value value_of(const std::pair<Value, const char*> (&names)[n], const std::string& sought) {
  for (const auto& [value, name] : names) {
    if (name == sought) return value;
  }
  throw Error(fmt::format("unknown word '{}'", sought));
}

[[noreturn]] void missing_value(const io::Table& table, std::size_t column, std::size_t row) {
  const std::string mark = table.columns[column].numeric ? "" : table.cell(column, row);
  throw Error(fmt::format(
      "{}: column '{}' has no value{}; expected one, or a rule for missing values (--missing "
      "mean|drop)",
      table.location(row), table.columns[column].name,
      mark.empty() ? "" : fmt::format(" ('{}' counts as missing: --missing-marks)", mark)));
}

}  // namespace

const char* missing_rule_name(MissingRule rule) {
  return name_of(missing_rules, rule);
}

namespace {

template <typename Scale>
float scaled_by(const Scale& scale, double value, const std::string& location) {
  const double result = (value - scale.mean) / scale.std;
  if (!(std::abs(result) <= std::numeric_limits<float>::max())) {
    throw Error(
        fmt::format("{}: column '{}' holds {}; the training rows have mean {} and standard "
                    "deviation {}; expected a value closer to the mean",
                    location, scale.name, value, scale.mean, scale.std));
  }
  return static_cast<float>(result);
}

}  // namespace

float Preprocessing::Column::encode(double value, const std::string& location) const {
  return scaled_by(*this, value, location);
}

float Preprocessing::Target::encode(double value, const std::string& location) const {
  return scaled_by(*this, value, location);
}

std::string Preprocessing::to_json() const {
  json out{{"kind", name_of(kinds, kind)},
           {"input", {input.channels, input.height, input.width}},
           {"spatial", input.spatial}};
  if (kind == Kind::image) {
    out["inverted"] = inverted;
    out["background"] = name_of(backgrounds, background);
    out["fit"] = name_of(fits, fit);
  }
  if (kind == Kind::array) {
    out["bytes"] = bytes;
    if (!bytes) out["range"] = {low, high};
  }
  if (kind == Kind::table) {
    out["missing"] = missing_rule_name(missing);
    out["standardised"] = standardised;
    out["named_columns"] = named_columns;
    if (format.decimal != '.') out["decimal"] = std::string(1, format.decimal);
    if (!format.thousands.empty()) out["thousands"] = format.thousands;
    if (format.missing_marks) out["missing_marks"] = *format.missing_marks;
    out["columns"] = json::array();
    for (const Column& column : columns) {
      json entry{{"name", column.name}};
      if (column.categories.empty()) {
        entry["mean"] = column.mean;
        entry["std"] = column.std;
        if (column.reading != io::Reading::number)
          entry["reading"] = name_of(readings, column.reading);
      } else {
        entry["categories"] = column.categories;
      }
      out["columns"].push_back(std::move(entry));
    }
  }
  if (!targets.empty()) {
    out["targets"] = json::array();
    for (const Target& target : targets) {
      json entry{{"name", target.name}, {"mean", target.mean}, {"std", target.std}};
      if (target.reading != io::Reading::number)
        entry["reading"] = name_of(readings, target.reading);
      out["targets"].push_back(std::move(entry));
    }
  }
  if (!labels.empty()) {
    out["label_column"] = label_column;
    out["labels"] = labels;
  }
  return out.dump();
}

Preprocessing Preprocessing::from_json(std::string_view text, const std::string& origin) {
  try {
    const json in = io::parse_json(text);
    Preprocessing out;
    out.kind = value_of(kinds, in.at("kind").get<std::string>());
    const json& shape = in.at("input");
    out.input = {io::whole_number<int>(shape.at(0)), io::whole_number<int>(shape.at(1)),
                 io::whole_number<int>(shape.at(2)), in.at("spatial").get<bool>()};
    out.inverted = in.value("inverted", false);
    out.background = value_of(backgrounds, in.value("background", "stored"));
    out.fit = value_of(fits, in.value("fit", "squeeze"));
    out.bytes = in.value("bytes", false);
    if (in.contains("range")) {
      out.low = in["range"].at(0);
      out.high = in["range"].at(1);
    }
    out.missing = value_of(missing_rules, in.value("missing", "error"));
    out.standardised = in.value("standardised", true);
    out.format.decimal = in.value("decimal", ".").at(0);
    out.format.thousands = in.value("thousands", "");
    if (in.contains("missing_marks")) {
      out.format.missing_marks = in["missing_marks"].get<std::vector<std::string>>();
    }
    // True if all names are x0, x1, ... Files of version 0.1 do not store `named_columns`.
    bool generated = true;
    for (const json& entry : in.value("columns", json::array())) {
      Column column;
      column.name = entry.at("name");
      column.categories = entry.value("categories", std::vector<std::string>());
      column.mean = entry.value("mean", 0.0);
      column.std = entry.value("std", 1.0);
      column.reading = value_of(readings, entry.value("reading", "number"));
      generated = generated && column.name == fmt::format("x{}", out.columns.size());
      out.columns.push_back(std::move(column));
    }
    out.named_columns = in.value("named_columns", !generated);
    for (const json& entry : in.value("targets", json::array())) {
      out.targets.push_back({entry.at("name"), entry.at("mean"), entry.at("std"),
                             value_of(readings, entry.value("reading", "number"))});
    }
    out.label_column = in.value("label_column", "");
    out.labels = in.value("labels", std::vector<std::string>());
    return out;
  } catch (const std::exception& error) {
    throw Error(fmt::format("{}: the description of its preprocessing cannot be read ({})", origin,
                            error.what()));
  }
}

namespace {

/// The places of the columns and targets in a table that encode_table reads.
struct EncodingPlan {
  struct Source {
    std::size_t column;
    io::NameIndex categories;
  };
  std::vector<Source> sources;
  std::vector<std::size_t> targets;
  std::size_t features = 0;
  bool classification;
  io::NameIndex labels;

  EncodingPlan(const Preprocessing& preprocessing, const io::Table& table, bool with_targets)
      : classification(!preprocessing.labels.empty()), labels(preprocessing.labels) {
    std::unordered_map<std::string_view, std::size_t> by_name;
    for (std::size_t c = 0; c < table.columns.size(); ++c) {
      by_name.emplace(table.columns[c].name, c);
    }
    for (const Preprocessing::Column& column : preprocessing.columns) {
      const auto found = by_name.find(column.name);
      sources.push_back(
          {found != by_name.end() ? found->second : table.require(column.name, "a feature"),
           io::NameIndex(column.categories)});
      features += static_cast<std::size_t>(column.features());
    }
    if (!with_targets) return;
    if (classification) {
      targets.push_back(table.require(preprocessing.label_column, "the target"));
    } else {
      for (const auto& target : preprocessing.targets) {
        targets.push_back(table.require(target.name, "a target"));
      }
    }
  }
};

/// Returns true if the row must be left out.
bool drops_row(const Preprocessing& preprocessing, const io::Table& table, const EncodingPlan& plan,
               std::size_t row) {
  bool drop = false;
  for (const EncodingPlan::Source& source : plan.sources) {
    if (!table.missing(source.column, row)) continue;
    if (preprocessing.missing == MissingRule::error) missing_value(table, source.column, row);
    drop = drop || preprocessing.missing == MissingRule::drop;
  }
  for (const std::size_t target : plan.targets) {
    if (!table.missing(target, row)) continue;
    // A mean in the place of a target would be an invented answer. Dropping the row is therefore
    // the only rule.
    if (preprocessing.missing != MissingRule::drop) {
      const std::string mark = table.columns[target].numeric ? "" : table.cell(target, row);
      throw Error(fmt::format(
          "{}: target column '{}' has no value{}; expected one (--missing drop leaves such rows "
          "out)",
          table.location(row), table.columns[target].name,
          mark.empty() ? "" : fmt::format(" ('{}' counts as missing: --missing-marks)", mark)));
    }
    drop = true;
  }
  return drop;
}

}  // namespace

EncodedTable encode_table(const Preprocessing& preprocessing, const io::Table& table,
                          bool with_targets) {
  const EncodingPlan plan(preprocessing, table, with_targets);
  EncodedTable out;
  std::vector<float> x(plan.features);
  for (std::size_t row = 0; row < table.rows; ++row) {
    if (drops_row(preprocessing, table, plan, row)) continue;
    std::fill(x.begin(), x.end(), 0.0f);
    std::size_t at = 0;
    for (std::size_t c = 0; c < plan.sources.size(); ++c) {
      const Preprocessing::Column& column = preprocessing.columns[c];
      const EncodingPlan::Source& source = plan.sources[c];
      if (table.missing(source.column, row)) {
        // MissingRule::mean: the feature stays 0, which is the mean after standardisation.
      } else if (column.categories.empty()) {
        x[at] =
            column.encode(table.number(source.column, row, column.reading), table.location(row));
      } else if (const auto found =
                     source.categories.find(table.cell(source.column, row), table.format)) {
        x[at + *found] = 1.0f;
      } else {
        ++out.unseen;
      }
      at += static_cast<std::size_t>(column.features());
    }
    if (plan.classification && !plan.targets.empty()) {
      const std::string label = table.cell(plan.targets[0], row);
      const auto found = plan.labels.find(label, table.format);
      if (!found) {
        throw Error(fmt::format("{}: column '{}' holds the label '{}'; expected one of {}",
                                table.location(row), preprocessing.label_column, label,
                                fmt::join(preprocessing.labels, ", ")));
      }
      out.labels.push_back(static_cast<std::int32_t>(*found));
    } else {
      for (std::size_t t = 0; t < plan.targets.size(); ++t) {
        const auto& target = preprocessing.targets[t];
        const double value = table.number(plan.targets[t], row, target.reading);
        out.values.push_back(target.encode(value, table.location(row)));
      }
    }
    out.x.insert(out.x.end(), x.begin(), x.end());
    out.source.push_back(row);
    ++out.rows;
  }
  return out;
}

io::Image prepare_image(const Preprocessing& preprocessing, io::Image picture,
                        const std::string& name) {
  const FeatureShape& shape = preprocessing.input;
  if (preprocessing.fit == ImageFit::exact &&
      (picture.height != shape.height || picture.width != shape.width)) {
    throw Error(
        fmt::format("{}: {} x {} pixels; expected {} x {} (width x height), the size of all "
                    "pictures of the training data",
                    name, picture.width, picture.height, shape.width, shape.height));
  }
  if (preprocessing.fit == ImageFit::crop) {
    picture = io::crop_image(picture, shape.height, shape.width);
  }
  if (preprocessing.inverted) {
    for (std::uint8_t& pixel : picture.pixels) pixel = static_cast<std::uint8_t>(255 - pixel);
  }
  if (preprocessing.fit != ImageFit::exact) {
    picture = io::resize_image(picture, shape.height, shape.width);
  }
  return picture;
}

std::vector<float> encode_image(const Preprocessing& preprocessing,
                                const std::filesystem::path& file) {
  const io::Image image = prepare_image(
      preprocessing, io::read_image(file, preprocessing.input.channels, preprocessing.background),
      file.string());
  std::vector<float> out(image.pixels.size());
  std::ranges::transform(image.pixels, out.begin(), stored_number);
  return out;
}

void read_numbers(const io::Tensor& x, std::size_t first, std::span<double> out,
                  std::size_t columns) {
  x.to_f64(first, out);
  const bool wide = x.dtype == io::Tensor::DType::i64 || x.dtype == io::Tensor::DType::u64;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double v = out[i];
    const char* expected = nullptr;
    if (std::abs(v) > std::numeric_limits<float>::max()) {
      expected = "a finite number within the range of float32";
    } else if (wide && std::abs(v) >= 0x1p53) {
      expected = "whole numbers below 2^53, which double precision holds exactly";
    }
    if (expected != nullptr) {
      throw Error(fmt::format("{}: {} in row {}, element {}; expected {}", x.origin, v,
                              (first + i) / columns, (first + i) % columns, expected));
    }
  }
}

ImageArray::ImageArray(const Preprocessing& preprocessing, const io::Tensor& x, std::size_t leading,
                       ArrayLayout layout)
    : preprocessing_(preprocessing), x_(x) {
  const FeatureShape& in = preprocessing.input;
  const auto c = static_cast<std::size_t>(in.channels), h = static_cast<std::size_t>(in.height),
             w = static_cast<std::size_t>(in.width);
  channels_ = c;
  area_ = h * w;
  rows_ = 1;
  for (std::size_t i = 0; i < std::min(leading, x.shape.size()); ++i) rows_ *= x.shape[i];
  const std::vector<std::size_t> shape(
      x.shape.begin() + static_cast<std::ptrdiff_t>(std::min(leading, x.shape.size())),
      x.shape.end());
  const bool plain = c == 1 && shape == std::vector<std::size_t>{h, w};
  const bool last = layout != ArrayLayout::chw && shape == std::vector<std::size_t>{h, w, c};
  const bool first = layout != ArrayLayout::hwc && shape == std::vector<std::size_t>{c, h, w};
  if (!plain && !last && !first) {
    const std::string hwc = fmt::format("[{}, {}, {}] (height, width, channels)", h, w, c);
    const std::string chw = fmt::format("[{}, {}, {}] (channels, height, width)", c, h, w);
    throw Error(fmt::format("{}: shape {}; expected examples of {}{}", x.origin,
                            io::shape_text(x.shape),
                            c == 1 ? fmt::format("[{}, {}] (height, width), ", h, w) : "",
                            layout == ArrayLayout::hwc   ? hwc
                            : layout == ArrayLayout::chw ? chw
                                                         : hwc + " or " + chw));
  }
  if (last && first && c > 1 && area_ > 1) {
    throw Error(
        fmt::format("{}: shape {}: which axis are the channels? expected --layout hwc or "
                    "--layout chw",
                    x.origin, io::shape_text(x.shape)));
  }
  channels_last_ = last && !first && !plain;
  check_units();
}

void ImageArray::check_units() const {
  using DType = io::Tensor::DType;
  const bool bytes = x_.dtype == DType::u8 || x_.dtype == DType::boolean;
  if (preprocessing_.kind == Preprocessing::Kind::none) return;  // the units were not recorded
  const bool unit = preprocessing_.kind != Preprocessing::Kind::array || preprocessing_.bytes;
  if (unit && bytes) return;
  const bool real = x_.dtype == DType::f16 || x_.dtype == DType::f32 || x_.dtype == DType::f64;
  double low = 0.0, high = 1.0;
  if (!unit) {
    // The imported numbers were kept. Their range, widened on both sides by its own width, tells
    // whether whole numbers have other units, such as bytes instead of numbers in [0, 1].
    const double width = preprocessing_.high - preprocessing_.low;
    low = preprocessing_.low - width;
    high = preprocessing_.high + width;
    if (real || width == 0.0) return;
  }
  std::vector<double> numbers(channels_ * area_);
  for (std::size_t row = 0; row < rows_; ++row) {
    read_numbers(x_, row * numbers.size(), numbers, numbers.size());
    for (const double v : numbers) {
      if (!(v < low || v > high)) continue;  // read() reports NaN
      throw Error(fmt::format(
          "{}: {} in row {} ({}); {}", x_.origin, v, row, io::dtype_name(x_.dtype),
          unit
              ? "the run was trained on pixels: expected bytes (uint8), or numbers from 0 to 1"
              : fmt::format("the run was trained on numbers from {} to {}: expected the same units",
                            preprocessing_.low, preprocessing_.high)));
    }
  }
}

void ImageArray::read(std::size_t row, std::span<std::uint8_t> out) const {
  const auto* from = reinterpret_cast<const std::uint8_t*>(x_.bytes.data()) + row * out.size();
  const bool invert = preprocessing_.kind == Preprocessing::Kind::image && preprocessing_.inverted;
  for (std::size_t c = 0; c < channels_; ++c) {
    for (std::size_t p = 0; p < area_; ++p) {
      std::uint8_t v = channels_last_ ? from[p * channels_ + c] : from[c * area_ + p];
      if (x_.dtype == io::Tensor::DType::boolean) v = v != 0 ? 255 : 0;
      out[c * area_ + p] = invert ? static_cast<std::uint8_t>(255 - v) : v;
    }
  }
}

void ImageArray::read(std::size_t row, std::span<float> out) const {
  const bool unit = preprocessing_.kind != Preprocessing::Kind::array || preprocessing_.bytes;
  if (unit && (x_.dtype == io::Tensor::DType::u8 || x_.dtype == io::Tensor::DType::boolean)) {
    std::vector<std::uint8_t> pixels(out.size());
    read(row, std::span<std::uint8_t>(pixels));
    std::ranges::transform(pixels, out.begin(), stored_number);
    return;
  }
  std::vector<double> numbers(out.size());
  read_numbers(x_, row * out.size(), numbers, out.size());
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (std::isnan(numbers[i])) {
      throw Error(
          fmt::format("{}: nan in row {}, element {}; expected finite numbers", x_.origin, row, i));
    }
  }
  for (std::size_t c = 0; c < channels_; ++c) {
    for (std::size_t p = 0; p < area_; ++p) {
      out[c * area_ + p] =
          static_cast<float>(numbers[channels_last_ ? p * channels_ + c : c * area_ + p]);
    }
  }
}

}  // namespace kshot::data
