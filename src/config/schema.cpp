// Functions on the lists of keys and tables: which keys apply, which values are expected, and
// values as text.
#include "config/schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kshot::schema {
namespace {

/// Returns "a list of one or more strings", "a list of 2 integers, each from 1 to 9".
std::string list_text(const Key& key, const char* items) {
  std::string count;
  if (key.min_items == key.max_items) {
    count = fmt::format("{} ", key.min_items);
  } else if (key.max_items != std::numeric_limits<int>::max()) {
    count = fmt::format("{} to {} ", key.min_items, key.max_items);
  } else if (key.min_items == 1) {
    count = "one or more ";
  } else if (key.min_items > 1) {
    count = fmt::format("at least {} ", key.min_items);
  }
  std::string text = fmt::format("a list of {}{}", count, items);
  if (std::isfinite(key.range.low)) text += ", each" + range_text(key.range);
  return text;
}

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

template <class T, class F>
std::string join(const std::vector<T>& items, F&& text) {
  std::string result = "[";
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) result += ", ";
    result += text(items[i]);
  }
  return result + "]";
}

}  // namespace

std::string range_text(const Range& range) {
  const bool low = std::isfinite(range.low);
  const bool high = std::isfinite(range.high);
  if (low && high && !range.open_low && !range.open_high) {
    return fmt::format(" from {} to {}", range.low, range.high);
  }
  std::string text;
  if (low) text += fmt::format(" {} {}", range.open_low ? "above" : "of at least", range.low);
  if (low && high) text += " and";
  if (high) text += fmt::format(" {} {}", range.open_high ? "below" : "at most", range.high);
  return text;
}

bool Range::contains(double value) const {
  if (std::isnan(value) || std::isinf(value)) return false;
  return (open_low ? value > low : value >= low) && (open_high ? value < high : value <= high);
}

std::string Key::path() const {
  return *table == '\0' ? std::string(name) : fmt::format("{}.{}", table, name);
}

const Table& table(std::string_view name) {
  return *std::find_if(tables().begin(), tables().end(),
                       [&](const Table& entry) { return entry.name == name; });
}

std::string selector(const Config& config, std::string_view path) {
  const auto key = std::find_if(keys().begin(), keys().end(),
                                [&](const Key& entry) { return entry.path() == path; });
  Config copy = config;
  const Slot slot = key->slot(copy);
  if (const auto* field = std::get_if<EnumField>(&slot)) return field->get(field->value);
  return *std::get<std::string*>(slot);
}

bool holds(const When& when, const Config& config) {
  return std::all_of(when.begin(), when.end(), [&](const Condition& condition) {
    const std::string value = selector(config, condition.key);
    return std::find(condition.values.begin(), condition.values.end(), value) !=
           condition.values.end();
  });
}

bool applies(const Table& table, const Config& config) {
  return holds(table.when, config) && (table.unless.empty() || !holds(table.unless, config));
}

bool applies(const Key& key, const Config& config) {
  return applies(table(key.table), config) && holds(key.when, config);
}

void set_defaults(Config& config) {
  switch (config.algorithm) {
    case AlgorithmKind::leo:
    case AlgorithmKind::protonet:
    case AlgorithmKind::r2d2:
    case AlgorithmKind::bayes_protonet:
      config.loss.type = LossType::cross_entropy;
      break;
    case AlgorithmKind::alpaca:
    case AlgorithmKind::dkt:
      config.loss.type = LossType::gaussian_nll;
      break;
    default:
      break;
  }
}

std::vector<std::string> choices(const Key& key) {
  Config config;
  const Slot slot = key.slot(config);
  const auto* field = std::get_if<EnumField>(&slot);
  return field != nullptr ? field->names() : key.choices;
}

std::string alternatives(const std::vector<std::string>& words, const char* last) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? last : ", ";
    text += words[i];
  }
  return text;
}

std::string expected(const Key& key) {
  Config config;
  const std::vector<std::string> words = choices(key);
  if (words.size() == 1) return words.front();
  if (!words.empty()) return alternatives(words);
  const std::string range = range_text(key.range);
  return std::visit(
      Overloaded{
          [&](int*) { return "an integer" + range; },
          [&](std::uint64_t*) { return "an integer" + range; },
          [&](double*) { return "a number" + range; },
          [](bool*) { return std::string("true or false"); },
          [](std::string*) { return std::string("a string"); },
          [&](CountRange*) { return "an integer" + range + ", or a range [least, most]"; },
          [&](std::vector<int>*) { return list_text(key, "integers"); },
          [&](std::vector<std::string>*) { return list_text(key, "strings"); },
          [](std::vector<LayerSpec>*) {
            return std::string("a list of tables such as { type = \"linear\", out = 5 }");
          },
          [](const EnumField&) { return std::string(); },
      },
      key.slot(config));
}

std::string expected(const LayerKey& key) {
  return "an integer" +
         range_text({.low = static_cast<double>(key.low), .high = static_cast<double>(key.high)});
}

std::string expected_item(const Key& key) {
  Config config;
  return std::holds_alternative<std::vector<int>*>(key.slot(config))
             ? "an integer" + range_text(key.range)
             : "a string";
}

std::string describe(const When& when) {
  std::vector<std::string> parts;
  for (const Condition& condition : when) {
    std::vector<std::string> values;
    for (const auto& value : condition.values) values.push_back(quote(value));
    parts.push_back(fmt::format("{} = {}", condition.key, alternatives(values)));
  }
  return alternatives(parts, " and ");
}

std::string number_text(double value) {
  std::string text = fmt::format("{}", value);
  // TOML tells floats from integers by these characters.
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

std::string quote(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        result += "\\\"";
        break;
      case '\\':
        result += "\\\\";
        break;
      case '\n':
        result += "\\n";
        break;
      case '\t':
        result += "\\t";
        break;
      case '\r':
        result += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          result += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          result += c;
        }
    }
  }
  return result + "\"";
}

std::string layer_text(const LayerSpec& layer) {
  std::string text = fmt::format("{{ type = \"{}\"", layer_name(layer.type));
  for (const LayerKey& key : layer_keys()) {
    if (std::find(key.types.begin(), key.types.end(), layer.type) == key.types.end()) continue;
    text += fmt::format(", {} = {}", key.name, layer.*key.field);
  }
  return text + " }";
}

std::string value_text(const Key& key, const Config& config) {
  Config copy = config;
  return std::visit(
      Overloaded{
          [](const int* value) { return fmt::format("{}", *value); },
          [](const std::uint64_t* value) { return fmt::format("{}", *value); },
          [](const double* value) { return number_text(*value); },
          [](const bool* value) { return std::string(*value ? "true" : "false"); },
          [](const std::string* value) { return quote(*value); },
          [](const CountRange* value) {
            return value->fixed() ? fmt::format("{}", value->most)
                                  : fmt::format("[{}, {}]", value->least, value->most);
          },
          [](const std::vector<int>* value) {
            return join(*value, [](int item) { return fmt::format("{}", item); });
          },
          [](const std::vector<std::string>* value) { return join(*value, quote); },
          [](const std::vector<LayerSpec>* value) { return join(*value, layer_text); },
          [](const EnumField& field) { return quote(field.get(field.value)); },
      },
      key.slot(copy));
}

}  // namespace kshot::schema
