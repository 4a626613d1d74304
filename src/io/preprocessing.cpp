#include "io/preprocessing.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "io/image.h"
#include "kshot/error.h"

namespace kshot::io {
namespace {

using nlohmann::json;

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

constexpr std::pair<MissingRule, const char*> missing_rules[] = {
    {MissingRule::error, "error"}, {MissingRule::mean, "mean"}, {MissingRule::drop, "drop"}};

[[noreturn]] void missing_value(const Table& table, std::size_t column, std::size_t row) {
  throw Error(fmt::format(
      "{}: column '{}' has no value; expected one, or a rule for missing values (--missing "
      "mean|drop)",
      table.where(row), table.columns[column].name));
}

/// A cell as a finite number; it must not be missing.
double cell_number(const Table& table, std::size_t column, std::size_t row) {
  const Table::Column& cells = table.columns[column];
  double value = 0.0;
  if (cells.numeric) {
    value = cells.numbers[row];
  } else if (const auto parsed = parse_number(cells.text[row])) {
    value = *parsed;
  } else {
    throw Error(fmt::format("{}: column '{}' holds '{}'; expected a number", table.where(row),
                            cells.name, cells.text[row]));
  }
  if (!std::isfinite(value) || std::abs(value) > std::numeric_limits<float>::max()) {
    throw Error(fmt::format("{}: column '{}' holds {}; expected a finite number", table.where(row),
                            cells.name, value));
  }
  return value;
}

std::unordered_map<std::string, int> index_of(const std::vector<std::string>& names) {
  std::unordered_map<std::string, int> out;
  for (std::size_t i = 0; i < names.size(); ++i) out.emplace(names[i], static_cast<int>(i));
  return out;
}

}  // namespace

const char* missing_rule_name(MissingRule rule) {
  for (const auto& [value, name] : missing_rules) {
    if (value == rule) return name;
  }
  return "?";
}

std::optional<double> parse_number(std::string_view text) {
  text = trim(text);
  if (text.size() > 1 && text.front() == '+' && text[1] != '-') text.remove_prefix(1);
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

bool is_missing(std::string_view text) {
  text = trim(text);
  if (text.size() > 4) return false;
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return lower.empty() || lower == "na" || lower == "n/a" || lower == "nan" || lower == "null" ||
         lower == "none" || lower == "?";
}

std::optional<std::size_t> Table::find(std::string_view name) const {
  for (std::size_t c = 0; c < columns.size(); ++c) {
    if (columns[c].name == name) return c;
  }
  return {};
}

std::size_t Table::require(std::string_view name, std::string_view key) const {
  if (const auto index = find(name)) return *index;
  std::string names;
  for (const Column& column : columns) {
    if (names.size() > 200) {
      names += ", ...";
      break;
    }
    names += (names.empty() ? "" : ", ") + column.name;
  }
  throw Error(
      fmt::format("{}: no column '{}' ({}); its columns are: {}", origin, name, key, names));
}

std::string Table::where(std::size_t row) const {
  return fmt::format("{}, {} {}", origin, unit, lines.empty() ? row : lines[row]);
}

std::string Table::cell(std::size_t column, std::size_t row) const {
  const Column& cells = columns[column];
  return cells.numeric ? fmt::format("{}", cells.numbers[row]) : std::string(trim(cells.text[row]));
}

bool Table::missing(std::size_t column, std::size_t row) const {
  const Column& cells = columns[column];
  return cells.numeric ? std::isnan(cells.numbers[row]) : is_missing(cells.text[row]);
}

std::string Preprocessing::to_json() const {
  json out{{"kind", kind == Kind::table   ? "table"
                    : kind == Kind::image ? "image"
                                          : "none"},
           {"input", {input.channels, input.height, input.width}},
           {"spatial", input.spatial}};
  if (kind == Kind::image) out["inverted"] = inverted;
  if (kind == Kind::table) {
    out["missing"] = missing_rule_name(missing);
    out["columns"] = json::array();
    for (const Column& column : columns) {
      json entry{{"name", column.name}};
      if (column.categories.empty()) {
        entry["mean"] = column.mean;
        entry["std"] = column.std;
      } else {
        entry["categories"] = column.categories;
      }
      out["columns"].push_back(std::move(entry));
    }
  }
  if (!targets.empty()) {
    out["targets"] = json::array();
    for (const Target& target : targets) {
      out["targets"].push_back({{"name", target.name}, {"mean", target.mean}, {"std", target.std}});
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
    const json in = json::parse(text);
    Preprocessing out;
    const std::string kind = in.at("kind");
    out.kind = kind == "table" ? Kind::table : kind == "image" ? Kind::image : Kind::none;
    const json& shape = in.at("input");
    out.input = {shape.at(0), shape.at(1), shape.at(2), in.at("spatial")};
    out.inverted = in.value("inverted", false);
    const std::string missing = in.value("missing", "error");
    for (const auto& [rule, name] : missing_rules) {
      if (missing == name) out.missing = rule;
    }
    for (const json& entry : in.value("columns", json::array())) {
      Column column;
      column.name = entry.at("name");
      column.categories = entry.value("categories", std::vector<std::string>());
      column.mean = entry.value("mean", 0.0);
      column.std = entry.value("std", 1.0);
      out.columns.push_back(std::move(column));
    }
    for (const json& entry : in.value("targets", json::array())) {
      out.targets.push_back({entry.at("name"), entry.at("mean"), entry.at("std")});
    }
    out.label_column = in.value("label_column", "");
    out.labels = in.value("labels", std::vector<std::string>());
    return out;
  } catch (const json::exception& error) {
    throw Error(fmt::format("{}: the description of its preprocessing cannot be read ({})", origin,
                            error.what()));
  }
}

EncodedTable encode_table(const Preprocessing& preprocessing, const Table& table,
                          bool with_targets) {
  struct Source {
    std::size_t column;
    std::unordered_map<std::string, int> categories;
  };
  std::vector<Source> sources;
  int features = 0;
  for (const Preprocessing::Column& column : preprocessing.columns) {
    sources.push_back({table.require(column.name, "a feature"), index_of(column.categories)});
    features += column.features();
  }
  const bool classification = !preprocessing.labels.empty();
  const auto labels = index_of(preprocessing.labels);
  std::vector<std::size_t> targets;
  if (with_targets && classification) {
    targets.push_back(table.require(preprocessing.label_column, "the target"));
  } else if (with_targets) {
    for (const auto& target : preprocessing.targets) {
      targets.push_back(table.require(target.name, "a target"));
    }
  }

  EncodedTable out;
  std::vector<float> x(static_cast<std::size_t>(features));
  for (std::size_t row = 0; row < table.rows; ++row) {
    std::fill(x.begin(), x.end(), 0.0f);
    bool drop = false;
    std::size_t unseen = 0;
    std::size_t at = 0;
    for (std::size_t c = 0; c < sources.size() && !drop; ++c) {
      const Preprocessing::Column& column = preprocessing.columns[c];
      const Source& source = sources[c];
      if (table.missing(source.column, row)) {
        if (preprocessing.missing == MissingRule::error) missing_value(table, source.column, row);
        drop = preprocessing.missing == MissingRule::drop;
      } else if (column.categories.empty()) {
        const double value = cell_number(table, source.column, row);
        x[at] = static_cast<float>((value - column.mean) / column.std);
      } else {
        const auto found = source.categories.find(table.cell(source.column, row));
        if (found == source.categories.end()) {
          ++unseen;
        } else {
          x[at + static_cast<std::size_t>(found->second)] = 1.0f;
        }
      }
      at += static_cast<std::size_t>(column.features());
    }
    for (const std::size_t target : targets) {
      if (!table.missing(target, row)) continue;
      // A mean target would be an invented answer: only dropping the row is a rule here.
      if (preprocessing.missing != MissingRule::drop) {
        throw Error(fmt::format(
            "{}: target column '{}' has no value; expected one (--missing drop leaves such rows "
            "out)",
            table.where(row), table.columns[target].name));
      }
      drop = true;
    }
    if (drop) continue;
    if (classification && !targets.empty()) {
      const std::string label = table.cell(targets[0], row);
      const auto found = labels.find(label);
      if (found == labels.end()) {
        throw Error(fmt::format("{}: column '{}' holds the label '{}'; expected one of {}",
                                table.where(row), preprocessing.label_column, label,
                                fmt::join(preprocessing.labels, ", ")));
      }
      out.labels.push_back(found->second);
    } else {
      for (std::size_t t = 0; t < targets.size(); ++t) {
        const auto& target = preprocessing.targets[t];
        out.values.push_back(
            static_cast<float>((cell_number(table, targets[t], row) - target.mean) / target.std));
      }
    }
    out.x.insert(out.x.end(), x.begin(), x.end());
    out.source.push_back(row);
    out.unseen += unseen;
    ++out.rows;
  }
  return out;
}

std::vector<float> encode_image(const Preprocessing& preprocessing,
                                const std::filesystem::path& file) {
  const FeatureShape& shape = preprocessing.input;
  Image image = read_image(file, shape.channels);
  image = resize_image(image, shape.height, shape.width);
  std::vector<float> out(image.pixels.size());
  std::ranges::transform(image.pixels, out.begin(), [&](std::uint8_t pixel) {
    return static_cast<float>(preprocessing.inverted ? 255 - pixel : pixel) * (1.0f / 255.0f);
  });
  return out;
}

}  // namespace kshot::io
