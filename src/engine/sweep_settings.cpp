// The settings of a sweep: the keys that it varies, and their values.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <sstream>

#include "config/schema.h"
#include "config/toml_text.h"
#include "kshot/error.h"
#include "kshot/random.h"
#include "kshot/sweep.h"

namespace kshot {
namespace {

constexpr std::size_t most_runs = 100000;

/// A value as `--set` takes it, which may also stand within single quotes of a shell.
std::string toml_value(const toml::node& node) {
  if (const auto number = node.value_exact<double>()) return schema::number_text(*number);
  if (const auto text = node.value_exact<std::string>()) {
    if (text->find_first_of("\"\\'\n\t\r") == std::string::npos) return "\"" + *text + "\"";
  }
  if (const toml::array* list = node.as_array()) {
    std::string text;
    for (const toml::node& value : *list) text += (text.empty() ? "" : ", ") + toml_value(value);
    return "[" + text + "]";
  }
  std::ostringstream text;
  node.visit([&](const auto& value) { text << value; });
  return text.str();
}

[[noreturn]] void refuse(const std::string& origin, const std::string& key) {
  throw Error(
      fmt::format("{}: {}: expected a list of values such as [1, 2, 5], or a range such as "
                  "{{ low = 1e-4, high = 1e-2, log = true }}",
                  origin, key));
}

void check_range(const SweepAxis& axis, const std::string& origin) {
  if (!(std::isfinite(axis.low) && std::isfinite(axis.high) && axis.low < axis.high) ||
      (axis.log && axis.low <= 0.0)) {
    throw Error(fmt::format("{}: {}: expected a range from a number to a larger one{}", origin,
                            axis.key, axis.log ? ", both above 0 for a logarithmic scale" : ""));
  }
}

SweepAxis range_axis(const toml::table& table, const std::string& key, const std::string& origin) {
  SweepAxis axis{.key = key, .values = {}};
  for (const auto& [name, node] : table) {
    if (name != "low" && name != "high" && name != "log") refuse(origin, key);
  }
  const auto low = table["low"].value<double>(), high = table["high"].value<double>();
  if (!low || !high || (table.contains("log") && !table["log"].is_boolean())) refuse(origin, key);
  axis.low = *low;
  axis.high = *high;
  axis.log = table["log"].value_or(false);
  axis.whole = table["low"].is_integer() && table["high"].is_integer();
  check_range(axis, origin);
  return axis;
}

/// Adds the axes of a table whose keys may be dotted.
void add_axes(const toml::table& table, const std::string& prefix, const std::string& origin,
              std::vector<SweepAxis>& axes) {
  for (const auto& [name, node] : table) {
    const std::string key = prefix + std::string(name.str());
    if (const toml::array* list = node.as_array()) {
      SweepAxis axis{.key = key, .values = {}};
      for (const toml::node& value : *list) axis.values.push_back(toml_value(value));
      if (axis.values.empty()) refuse(origin, key);
      axes.push_back(std::move(axis));
    } else if (const toml::table* inner = node.as_table()) {
      if (inner->contains("low") || inner->contains("high")) {
        axes.push_back(range_axis(*inner, key, origin));
      } else {
        add_axes(*inner, key + ".", origin, axes);
      }
    } else {
      refuse(origin, key);
    }
  }
}

std::optional<double> number_of(std::string_view text) {
  double value = 0.0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (fault != std::errc() || end != text.data() + text.size() || text.empty()) return {};
  return value;
}

/// Parses "low:high" or "low:high:log".
std::optional<SweepAxis> parse_range(const std::string& key, std::string_view text) {
  std::vector<std::string_view> parts;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(':', at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  if (parts.size() < 2 || parts.size() > 3 || (parts.size() == 3 && parts[2] != "log")) return {};
  const auto low = number_of(parts[0]), high = number_of(parts[1]);
  if (!low || !high) return {};
  const auto whole = [](std::string_view part) {
    return part.find_first_not_of("-0123456789") == std::string_view::npos;
  };
  return SweepAxis{.key = key,
                   .values = {},
                   .low = *low,
                   .high = *high,
                   .log = parts.size() == 3,
                   .whole = whole(parts[0]) && whole(parts[1])};
}

/// Draws a value for a random search.
std::string draw(const SweepAxis& axis, RandomStream& random) {
  if (!axis.values.empty()) {
    return axis.values[random.below(static_cast<std::uint32_t>(axis.values.size()))];
  }
  const auto u = static_cast<double>(random.uniform());
  // A whole number has the interval of length one about it.
  const double low = axis.whole ? axis.low - 0.5 : axis.low;
  const double high = axis.whole ? axis.high + 0.5 : axis.high;
  const double value = axis.log
                           ? std::exp(std::log(std::max(low, axis.whole ? 0.5 : low)) * (1.0 - u) +
                                      std::log(high) * u)
                           : low + (high - low) * u;
  if (axis.whole) {
    return fmt::format("{}", std::lround(std::clamp(std::round(value), axis.low, axis.high)));
  }
  // Four digits are enough to tell values apart. A number with a fraction keeps it.
  double short_value = 0.0;
  const std::string text = fmt::format("{:.4g}", value);
  std::from_chars(text.data(), text.data() + text.size(), short_value);
  return schema::number_text(std::clamp(short_value, axis.low, axis.high));
}

}  // namespace

SweepSettings SweepSettings::load(const std::filesystem::path& file) {
  return parse(read_toml_file(file), file.string());
}

SweepSettings SweepSettings::parse(const std::string& text, const std::string& origin) {
  const toml::table table = read_toml(text, origin);
  SweepSettings s;
  const auto whole = [&](const char* key, const toml::node& node, std::int64_t least) {
    const auto value = node.value_exact<std::int64_t>();
    if (!value || *value < least || *value > 1000000000) {
      throw Error(
          fmt::format("{}: {}: expected a whole number of at least {}", origin, key, least));
    }
    return *value;
  };
  for (const auto& [name, node] : table) {
    const std::string key(name.str());
    if (key == "random") {
      s.random = static_cast<int>(whole("random", node, 1));
    } else if (key == "seed") {
      s.seed = static_cast<std::uint64_t>(whole("seed", node, 0));
    } else if (key == "halving") {
      s.halving = static_cast<int>(whole("halving", node, 2));
    } else if (key == "first_steps") {
      s.first_steps = static_cast<int>(whole("first_steps", node, 1));
    } else if (key == "set" && node.is_table()) {
      add_axes(*node.as_table(), "", origin, s.axes);
    } else {
      throw Error(fmt::format(
          "{}: unknown key \"{}\"; expected random, seed, halving, first_steps or [set]", origin,
          key));
    }
  }
  return s;
}

void SweepSettings::add_axis(const std::string& text) {
  const std::size_t equals = text.find('=');
  const std::string origin = "--vary " + text;
  if (equals == std::string::npos || equals == 0) {
    throw Error(fmt::format("{}: expected KEY=[VALUE, ...] or KEY=LOW:HIGH[:log]", origin));
  }
  const std::string key = text.substr(0, equals), value = text.substr(equals + 1);
  std::optional<SweepAxis> axis = parse_range(key, value);
  if (!axis) {
    if (!value.starts_with("[")) {
      throw Error(fmt::format("{}: expected KEY=[VALUE, ...] or KEY=LOW:HIGH[:log]", origin));
    }
    std::vector<SweepAxis> found;
    add_axes(read_toml("list = " + value, origin), "", origin, found);
    axis = std::move(found.at(0));
    axis->key = key;
  }
  if (axis->values.empty()) check_range(*axis, origin);
  axes.push_back(std::move(*axis));
}

std::vector<std::vector<std::string>> SweepSettings::runs() const {
  if (axes.empty()) {
    throw Error(
        "a sweep without keys to vary; expected --vary, or [set] in "
        "the file of --space");
  }
  for (std::size_t i = 0; i < axes.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (axes[i].key == axes[j].key) {
        throw Error(fmt::format("{}: varied twice; expected one list or range", axes[i].key));
      }
    }
  }
  std::vector<std::vector<std::string>> all;
  if (random > 0) {
    if (static_cast<std::size_t>(random) > most_runs) {
      throw Error(fmt::format("a sweep of {} runs; expected at most {}", random, most_runs));
    }
    for (int run = 0; run < random; ++run) {
      std::vector<std::string> values;
      for (std::size_t i = 0; i < axes.size(); ++i) {
        RandomStream stream({.seed = seed, .step = i, .task = static_cast<std::uint32_t>(run)});
        values.push_back(draw(axes[i], stream));
      }
      all.push_back(std::move(values));
    }
    return all;
  }
  all.emplace_back();
  for (const SweepAxis& axis : axes) {
    if (axis.values.empty()) {
      throw Error(
          fmt::format("{}: a range has infinitely many values; expected a "
                      "list, or a random search (--random RUNS)",
                      axis.key));
    }
    std::vector<std::vector<std::string>> longer;
    if (all.size() * axis.values.size() > most_runs) {
      throw Error(fmt::format("a sweep of more than {} runs; expected fewer", most_runs));
    }
    for (const std::vector<std::string>& one : all) {
      for (const std::string& value : axis.values) {
        longer.push_back(one);
        longer.back().push_back(value);
      }
    }
    all = std::move(longer);
  }
  return all;
}

}  // namespace kshot
