#include "config/value_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "config/suggestions.h"
#include "kshot/error.h"

namespace kshot::schema {

void fail(const std::string& origin, const std::string& path, const std::string& what) {
  throw Error(fmt::format("{}: {}: {}", origin, path, what));
}

std::string got(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::string:
      return "the string " + quote(node.as_string()->get());
    case toml::node_type::integer:
      return fmt::format("{}", node.as_integer()->get());
    case toml::node_type::floating_point:
      return number_text(node.as_floating_point()->get());
    case toml::node_type::boolean:
      return node.as_boolean()->get() ? "true" : "false";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::table:
      return "a table";
    default:
      return "a date or time";
  }
}

namespace {

std::optional<int> as_int(const toml::node& node) {
  const auto* value = node.as_integer();
  if (value == nullptr || value->get() < std::numeric_limits<int>::min() ||
      value->get() > std::numeric_limits<int>::max()) {
    return std::nullopt;
  }
  return static_cast<int>(value->get());
}

/// Assigns a node to a slot of any type.
struct Assignment {
  const std::string& origin;
  const std::string& file;

  [[noreturn]] void mismatch(const std::string& path, const std::string& expected,
                             const toml::node& node) const {
    fail(line_of(node), path, fmt::format("expected {}, got {}", expected, got(node)));
  }

  std::string line_of(const toml::node& node) const {
    return file.empty() ? origin : fmt::format("{}:{}", file, node.source().begin.line);
  }

  void assign(const Key& key, const toml::node& node, int* value) const {
    const auto number = as_int(node);
    if (!number && node.is_integer()) mismatch(key.path(), "an integer below 2^31", node);
    if (!number) mismatch(key.path(), expected(key), node);
    *value = *number;
  }

  void assign(const Key& key, const toml::node& node, std::uint64_t* value) const {
    const auto* number = node.as_integer();
    if (number == nullptr || number->get() < 0) mismatch(key.path(), expected(key), node);
    *value = static_cast<std::uint64_t>(number->get());
  }

  void assign(const Key& key, const toml::node& node, double* value) const {
    const auto number = node.value<double>();
    if (!node.is_number() || !number) mismatch(key.path(), expected(key), node);
    *value = *number;
  }

  void assign(const Key& key, const toml::node& node, bool* value) const {
    if (!node.is_boolean()) mismatch(key.path(), expected(key), node);
    *value = node.as_boolean()->get();
  }

  void assign(const Key& key, const toml::node& node, std::string* value) const {
    if (!node.is_string()) mismatch(key.path(), expected(key), node);
    // The system ends file names at such a character, and the message would end there too.
    if (node.as_string()->get().find('\0') != std::string::npos) {
      mismatch(key.path(), "text without the character of code 0", node);
    }
    *value = node.as_string()->get();
  }

  void assign(const Key& key, const toml::node& node, const EnumField& field) const {
    if (!node.is_string() || !field.set(field.value, node.as_string()->get())) {
      mismatch(key.path(), expected(key), node);
    }
  }

  void assign(const Key& key, const toml::node& node, CountRange* value) const {
    const toml::array* const ends = node.as_array();
    if (ends == nullptr) {
      int number = 0;
      assign(key, node, &number);
      *value = number;
      return;
    }
    const auto least = ends->size() == 2 ? as_int(*ends->get(0)) : std::nullopt;
    const auto most = ends->size() == 2 ? as_int(*ends->get(1)) : std::nullopt;
    if (!least || !most) mismatch(key.path(), expected(key), node);
    if (*least > *most) {
      fail(line_of(node), key.path(),
           fmt::format("expected the least number first, got [{}, {}]", *least, *most));
    }
    *value = {*least, *most};
  }

  template <class F>
  void each(const Key& key, const toml::node& node, F&& item) const {
    if (!node.is_array()) mismatch(key.path(), expected(key), node);
    std::size_t index = 0;
    for (const toml::node& element : *node.as_array()) {
      item(element, fmt::format("{}[{}]", key.path(), index++));
    }
  }

  void assign(const Key& key, const toml::node& node, std::vector<int>* value) const {
    value->clear();
    each(key, node, [&](const toml::node& element, const std::string& path) {
      const auto number = as_int(element);
      if (!number) mismatch(path, expected_item(key), element);
      value->push_back(*number);
    });
  }

  void assign(const Key& key, const toml::node& node, std::vector<std::string>* value) const {
    value->clear();
    each(key, node, [&](const toml::node& element, const std::string& path) {
      if (!element.is_string()) mismatch(path, expected_item(key), element);
      value->push_back(element.as_string()->get());
    });
  }

  void assign(const Key& key, const toml::node& node, std::vector<LayerSpec>* value) const {
    value->clear();
    each(key, node, [&](const toml::node& element, const std::string& path) {
      if (!element.is_table()) {
        mismatch(path, "a table such as { type = \"linear\", out = 5 }", element);
      }
      value->push_back(layer(*element.as_table(), path));
    });
  }

  LayerSpec layer(const toml::table& table, const std::string& path) const {
    LayerSpec result;
    std::vector<std::string> types;
    bool known = false;
    const toml::node* type = table.get("type");
    for (const LayerType candidate : layer_types()) {
      types.emplace_back(layer_name(candidate));
      if (type != nullptr && type->is_string() && type->as_string()->get() == types.back()) {
        result.type = candidate;
        known = true;
      }
    }
    if (type == nullptr) {
      fail(line_of(table), path, fmt::format("no type; expected {}", alternatives(types)));
    }
    if (!known) mismatch(path + ".type", alternatives(types), *type);
    const std::string name = layer_name(result.type);

    std::set<std::string> taken = {"type"};
    for (const LayerKey& key : layer_keys()) {
      const bool takes =
          std::find(key.types.begin(), key.types.end(), result.type) != key.types.end();
      if (!takes) continue;
      taken.insert(key.name);
      const toml::node* node = table.get(key.name);
      const std::string expected = schema::expected(key);
      if (node == nullptr) {
        if (key.required) {
          fail(line_of(table), fmt::format("{}.{}", path, key.name),
               fmt::format("required in a {} layer: {}", name, expected));
        }
        continue;
      }
      const auto number = as_int(*node);
      if (!number || *number < key.low || *number > key.high) {
        mismatch(fmt::format("{}.{}", path, key.name), expected, *node);
      }
      result.*key.field = *number;
    }
    for (const auto& [written, node] : table) {
      const std::string key(written.str());
      if (taken.count(key) > 0) continue;
      const auto meant = nearest(key, taken);
      const std::string what =
          meant.empty() ? fmt::format("a {} layer takes {}", name,
                                      alternatives({taken.begin(), taken.end()}, " and "))
                        : fmt::format("did you mean {}?", alternatives(meant));
      fail(line_of(node), fmt::format("{}.{}", path, key), "unknown key; " + what);
    }
    return result;
  }
};

}  // namespace

ValueReader::ValueReader(std::string origin, std::string file)
    : origin_(std::move(origin)), file_(std::move(file)) {}

void ValueReader::read(const Key& key, const toml::node& node, Config& config) const {
  const Assignment assignment{origin_, file_};
  std::visit([&](auto slot) { assignment.assign(key, node, slot); }, key.slot(config));
}

}  // namespace kshot::schema
