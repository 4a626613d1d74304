// Reading, overriding and checking a configuration, all by the schema.
#include "kshot/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "config_schema.h"
#include "engine/toml_text.h"
#include "episodes/wheel.h"
#include "io/table.h"
#include "kshot/error.h"

namespace kshot {
namespace {

using schema::Key;

/// Where a message about a key points to: "FILE:LINE", "--set" or the origin alone.
using Locate = std::function<std::string(std::string_view path)>;

[[noreturn]] void fail(const std::string& where, const std::string& path, const std::string& what) {
  throw Error(fmt::format("{}: {}: {}", where, path, what));
}

// ---- did you mean ----

/// Edit distance with swapped neighbours counted once (optimal string alignment).
int edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<int>> d(a.size() + 1, std::vector<int>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = static_cast<int>(i);
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int change = d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      d[i][j] = std::min({change, d[i - 1][j] + 1, d[i][j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

/// How far a written name is from a key: 0 the same, 1 a part of it or its initials ("num_steps",
/// "lr"), else the edit distance.
int name_distance(std::string_view written, std::string_view key) {
  const int distance = edit_distance(written, key);
  if (distance <= 1) return distance;
  const auto holds = [](std::string_view all, std::string_view part) {
    return part.size() >= 3 && all.find(part) != std::string_view::npos;
  };
  if (holds(written, key) || holds(key, written)) return 1;
  std::string initials;
  for (std::size_t i = 0; i < key.size(); ++i) {
    if (i == 0 || key[i - 1] == '_') initials += key[i];
  }
  return initials.size() > 1 && written == initials ? 1 : distance;
}

/// Nearest of `names` that are near enough to have been meant; several where they are as near.
std::vector<std::string> nearest(std::string_view written, const std::set<std::string>& names,
                                 int farthest = 3) {
  const int limit = std::min(farthest, std::max<int>(1, static_cast<int>(written.size()) / 3));
  int best = limit;
  std::vector<std::string> result;
  for (const std::string& name : names) {
    // A path is known by its last part.
    const int distance = name_distance(written, name.substr(name.rfind('.') + 1));
    if (distance > best) continue;
    if (distance < best) result.clear();
    best = distance;
    result.push_back(name);
  }
  return result;
}

bool is_table(std::string_view name) {
  return !name.empty() && std::any_of(schema::tables().begin(), schema::tables().end(),
                                      [&](const auto& table) { return table.name == name; });
}

const Key* find_key(std::string_view path) {
  const auto& keys = schema::keys();
  const auto found =
      std::find_if(keys.begin(), keys.end(), [&](const Key& key) { return key.path() == path; });
  return found == keys.end() ? nullptr : &*found;
}

std::string unknown_key(std::string_view table, std::string_view name) {
  std::set<std::string> here, elsewhere;
  std::vector<std::string> listed;
  for (const Key& key : schema::keys()) {
    if (key.table == table) {
      if (here.insert(key.path()).second) listed.emplace_back(key.name);
    } else {
      elsewhere.insert(key.path());
    }
  }
  // The very name in another table says more than a similar one in this.
  auto meant = nearest(name, elsewhere, 0);
  if (meant.empty()) meant = nearest(name, here);
  if (meant.empty()) meant = nearest(name, elsewhere);
  if (!meant.empty()) {
    return fmt::format("unknown key; did you mean {}?", schema::alternatives(meant));
  }
  return fmt::format("unknown key; expected one of {}", schema::alternatives(listed));
}

std::string unknown_table(std::string_view name) {
  std::set<std::string> names;
  std::vector<std::string> listed;
  for (const auto& table : schema::tables()) {
    if (*table.name == '\0') continue;
    names.insert(table.name);
    listed.push_back(fmt::format("[{}]", table.name));
  }
  auto meant = nearest(name, names);
  for (std::string& table : meant) table = fmt::format("[{}]", table);
  if (!meant.empty()) {
    return fmt::format("unknown table; did you mean {}?", schema::alternatives(meant));
  }
  return fmt::format("unknown table; expected one of {}", schema::alternatives(listed));
}

// ---- one value ----

std::string got(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::string:
      return "the string " + schema::quote(node.as_string()->get());
    case toml::node_type::integer:
      return fmt::format("{}", node.as_integer()->get());
    case toml::node_type::floating_point:
      return schema::number_text(node.as_floating_point()->get());
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

std::optional<int> as_int(const toml::node& node) {
  const auto* value = node.as_integer();
  if (value == nullptr || value->get() < std::numeric_limits<int>::min() ||
      value->get() > std::numeric_limits<int>::max()) {
    return std::nullopt;
  }
  return static_cast<int>(value->get());
}

/// Reads nodes into a Config. Types are checked here, ranges by check_values.
class ValueReader {
 public:
  /// `file` is empty for a value of --set, which has no lines.
  ValueReader(std::string where, std::string file)
      : where_(std::move(where)), file_(std::move(file)) {}

  void read(const Key& key, const toml::node& node, Config& config) const {
    std::visit([&](auto slot) { assign(key, node, slot); }, key.slot(config));
  }

 private:
  [[noreturn]] void mismatch(const std::string& path, const std::string& expected,
                             const toml::node& node) const {
    fail(line_of(node), path, fmt::format("expected {}, got {}", expected, got(node)));
  }

  std::string line_of(const toml::node& node) const {
    return file_.empty() ? where_ : fmt::format("{}:{}", file_, node.source().begin.line);
  }

  void assign(const Key& key, const toml::node& node, int* value) const {
    const auto number = as_int(node);
    if (!number && node.is_integer()) mismatch(key.path(), "an integer below 2^31", node);
    if (!number) mismatch(key.path(), schema::expected(key), node);
    *value = *number;
  }

  void assign(const Key& key, const toml::node& node, std::uint64_t* value) const {
    const auto* number = node.as_integer();
    if (number == nullptr || number->get() < 0) mismatch(key.path(), schema::expected(key), node);
    *value = static_cast<std::uint64_t>(number->get());
  }

  void assign(const Key& key, const toml::node& node, double* value) const {
    const auto number = node.value<double>();
    if (!node.is_number() || !number) mismatch(key.path(), schema::expected(key), node);
    *value = *number;
  }

  void assign(const Key& key, const toml::node& node, bool* value) const {
    if (!node.is_boolean()) mismatch(key.path(), schema::expected(key), node);
    *value = node.as_boolean()->get();
  }

  void assign(const Key& key, const toml::node& node, std::string* value) const {
    if (!node.is_string()) mismatch(key.path(), schema::expected(key), node);
    // Names of files end at such a character, and so would the message.
    if (node.as_string()->get().find('\0') != std::string::npos) {
      mismatch(key.path(), "text without the character of code 0", node);
    }
    *value = node.as_string()->get();
  }

  void assign(const Key& key, const toml::node& node, const schema::EnumField& field) const {
    if (!node.is_string() || !field.set(field.value, node.as_string()->get())) {
      mismatch(key.path(), schema::expected(key), node);
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
    if (!least || !most) mismatch(key.path(), schema::expected(key), node);
    if (*least > *most) {
      fail(line_of(node), key.path(),
           fmt::format("expected the least number first, got [{}, {}]", *least, *most));
    }
    *value = {*least, *most};
  }

  template <class F>
  void each(const Key& key, const toml::node& node, F&& item) const {
    if (!node.is_array()) mismatch(key.path(), schema::expected(key), node);
    std::size_t index = 0;
    for (const toml::node& element : *node.as_array()) {
      item(element, fmt::format("{}[{}]", key.path(), index++));
    }
  }

  void assign(const Key& key, const toml::node& node, std::vector<int>* value) const {
    value->clear();
    each(key, node, [&](const toml::node& element, const std::string& path) {
      const auto number = as_int(element);
      if (!number) mismatch(path, schema::expected_item(key), element);
      value->push_back(*number);
    });
  }

  void assign(const Key& key, const toml::node& node, std::vector<std::string>* value) const {
    value->clear();
    each(key, node, [&](const toml::node& element, const std::string& path) {
      if (!element.is_string()) mismatch(path, schema::expected_item(key), element);
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
    for (const LayerType candidate : schema::layer_types()) {
      types.emplace_back(layer_name(candidate));
      if (type != nullptr && type->is_string() && type->as_string()->get() == types.back()) {
        result.type = candidate;
        known = true;
      }
    }
    if (type == nullptr) {
      fail(line_of(table), path, fmt::format("no type; expected {}", schema::alternatives(types)));
    }
    if (!known) mismatch(path + ".type", schema::alternatives(types), *type);
    const std::string name = layer_name(result.type);

    std::set<std::string> taken = {"type"};
    for (const schema::LayerKey& key : schema::layer_keys()) {
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
                                      schema::alternatives({taken.begin(), taken.end()}, " and "))
                        : fmt::format("did you mean {}?", schema::alternatives(meant));
      fail(line_of(node), fmt::format("{}.{}", path, key), "unknown key; " + what);
    }
    return result;
  }

  std::string where_, file_;
};

// ---- the file and what --set changes in it ----

bool is_toml_value(std::string_view text) {
  try {
    return parse_toml("v = " + std::string(text)).size() == 1;
  } catch (const toml::parse_error&) {
    return false;
  } catch (const BrokenToml&) {
    return false;
  }
}

/// Puts quotes around the bare words of a list or inline table: [head.*, "x"] -> ["head.*", "x"].
std::string quote_bare_words(std::string_view text) {
  constexpr std::string_view stops = " \t[]{},=\"'";
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    if (text[i] == '"' || text[i] == '\'') {
      std::size_t end = i + 1;
      while (end < text.size() && text[end] != text[i]) {
        end += text[i] == '"' && text[end] == '\\' ? 2 : 1;
      }
      end = std::min(end + 1, text.size());
      result += text.substr(i, end - i);
      i = end;
    } else if (stops.find(text[i]) != std::string_view::npos) {
      result += text[i++];
    } else {
      const std::size_t end = std::min(text.find_first_of(stops, i), text.size());
      const std::string_view word = text.substr(i, end - i);
      const std::string_view rest = io::trimmed_view(text.substr(end));
      const bool is_key = !rest.empty() && rest.front() == '=';
      result += is_key || is_toml_value(word) ? std::string(word) : schema::quote(word);
      i = end;
    }
  }
  return result;
}

/// The value of `--set key=text` as TOML; bare words become strings where the key's type asks.
std::string override_toml(const Key& key, std::string_view text) {
  Config config;
  const schema::Slot slot = key.slot(config);
  const bool quoted = text.front() == '"' || text.front() == '\'';
  if (std::holds_alternative<std::string*>(slot) ||
      std::holds_alternative<schema::EnumField>(slot)) {
    return quoted ? std::string(text) : schema::quote(text);
  }
  const bool list = std::holds_alternative<std::vector<int>*>(slot) ||
                    std::holds_alternative<std::vector<std::string>*>(slot) ||
                    std::holds_alternative<std::vector<LayerSpec>*>(slot);
  if (std::holds_alternative<CountRange*>(slot) && text.front() != '[' &&
      text.find(',') != std::string_view::npos) {
    return fmt::format("[{}]", text);
  }
  if (list)
    return quote_bare_words(text.front() == '[' ? std::string(text) : fmt::format("[{}]", text));
  return is_toml_value(text) ? std::string(text) : schema::quote(text);
}

struct Entry {
  const toml::node* node;
  bool overridden;
};

/// Keys of a file by path, and those of --set over them.
class Document {
 public:
  Document(const std::string& text, std::string origin) : origin_(std::move(origin)) {
    file_ = read_toml(text, origin_);
    for (const auto& [key, node] : file_) {
      const std::string name(key.str());
      if (is_table(name)) {
        if (!node.is_table()) {
          unknown_[line(node)] = fmt::format("{}:{}: {}: expected a table, [{}], got {}", origin_,
                                             line(node), name, name, got(node));
          continue;
        }
        tables_[name] = fmt::format("{}:{}", origin_, line(node));
        for (const auto& [sub, value] : *node.as_table()) add(name, std::string(sub.str()), value);
      } else if (node.is_table() && find_key(name) == nullptr) {
        unknown_[line(node)] =
            fmt::format("{}:{}: [{}]: {}", origin_, line(node), name, unknown_table(name));
      } else {
        add("", name, node);
      }
    }
  }

  void set(const std::string& text) {
    const auto equals = text.find('=');
    const std::string path(io::trimmed_view(std::string_view(text).substr(0, equals)));
    const std::string_view value =
        equals == std::string::npos ? ""
                                    : io::trimmed_view(std::string_view(text).substr(equals + 1));
    if (path.empty() || value.empty()) {
      throw Error(fmt::format("--set {}: expected table.key=value", schema::quote(text)));
    }
    const Key* key = find_key(path);
    if (key == nullptr) {
      const auto dot = path.find('.');
      const std::string table = dot == std::string::npos ? "" : path.substr(0, dot);
      if (is_table(path)) {
        fail("--set", path, fmt::format("a table; expected {}.key=value", path));
      }
      fail("--set", path,
           table.empty() || is_table(table)
               ? unknown_key(table, path.substr(dot == std::string::npos ? 0 : dot + 1))
               : unknown_table(table));
    }
    try {
      sets_.push_back(parse_toml("v = " + override_toml(*key, value)));
    } catch (const toml::parse_error& error) {
      fail("--set", path,
           fmt::format("not a TOML value: {} ({})", schema::quote(value),
                       one_line(error.description())));
    } catch (const BrokenToml&) {
      fail("--set", path, fmt::format("not a TOML value: {}", schema::quote(value)));
    }
    if (sets_.back().size() != 1) fail("--set", path, "expected one value");
    entries_[path] = {sets_.back().get("v"), true};
  }

  /// The Config of the file alone, or of the file and all of --set.
  Config read(bool with_overrides) const {
    Config config;
    const auto read_key = [&](const Key& key) {
      const auto found = find(key.path(), with_overrides);
      // Conditions look at keys that come earlier in the list alone.
      if (!found || !schema::applies(key, config)) return;
      ValueReader(found->overridden ? "--set" : origin_, found->overridden ? "" : origin_)
          .read(key, *found->node, config);
    };
    // The algorithm comes first: an unknown one explains an unknown table.
    const auto& keys = schema::keys();
    read_key(keys.front());
    schema::set_defaults(config);
    if (!unknown_.empty()) throw Error(unknown_.begin()->second);
    std::for_each(keys.begin() + 1, keys.end(), read_key);
    return config;
  }

  /// Keys and tables that do nothing here are errors: whoever wrote them expects an effect. But
  /// what the file says for its own choice of algorithm, schedule, ... may stay when --set changes
  /// that.
  void check_applicable(const Config& config) const {
    const Config from_file = sets_.empty() ? config : read(false);
    for (const auto& [name, where] : tables_) {
      const schema::Table& table = schema::table(name);
      if (!schema::applies(table, config) && !schema::applies(table, from_file)) {
        throw Error(fmt::format("{}: [{}]: {}", where, name, misplaced(table, config)));
      }
    }
    for (const auto& [path, entry] : entries_) {
      const Config& base = entry.overridden ? config : from_file;
      if (applies_somehow(path, config) || applies_somehow(path, base)) continue;
      const auto dot = path.find('.');
      const schema::Table& table =
          schema::table(dot == std::string::npos ? "" : path.substr(0, dot));
      if (!schema::applies(table, config)) fail(locate(path), path, misplaced(table, config));
      const auto [text, now] = explain(path, config);
      fail(locate(path), path, fmt::format("applies to {} alone; {}", text, now));
    }
  }

  /// Of keys without a default.
  void check_required(const Config& config) const {
    for (const Key& key : schema::keys()) {
      if (!key.required || find(key.path(), true) || !schema::applies(key, config)) continue;
      fail(locate(key.path()), key.path(),
           fmt::format("required with {}: expected {}", describe(key.when), schema::expected(key)));
    }
  }

  std::string locate(std::string_view path) const {
    if (const auto found = find(path, true)) {
      return found->overridden ? "--set" : fmt::format("{}:{}", origin_, line(*found->node));
    }
    const auto table = tables_.find(std::string(path.substr(0, path.find('.'))));
    return table == tables_.end() ? origin_ : table->second;
  }

 private:
  static std::uint32_t line(const toml::node& node) { return node.source().begin.line; }

  static std::string describe(const schema::When& when) { return schema::describe(when); }

  /// Why a table does not apply.
  static std::string misplaced(const schema::Table& table, const Config& config) {
    if (schema::holds(table.when, config)) {
      return fmt::format("does not apply with {}", describe(table.unless));
    }
    return fmt::format("applies to {} alone; {}", describe(table.when), here(table.when, config));
  }

  /// "here algorithm = "maml"", for the first condition that does not hold.
  static std::string here(const schema::When& when, const Config& config) {
    for (const schema::Condition& condition : when) {
      if (!schema::holds({condition}, config)) {
        return fmt::format("here {} = {}", condition.key,
                           schema::quote(schema::selector(config, condition.key)));
      }
    }
    return {};
  }

  void add(const std::string& table, const std::string& name, const toml::node& node) {
    const std::string path = table.empty() ? name : fmt::format("{}.{}", table, name);
    if (find_key(path) == nullptr) {
      unknown_[line(node)] =
          fmt::format("{}:{}: {}: {}", origin_, line(node), path, unknown_key(table, name));
      return;
    }
    entries_[path] = {&node, false};
    file_entries_[path] = {&node, false};
  }

  std::optional<Entry> find(std::string_view path, bool with_overrides) const {
    const auto& entries = with_overrides ? entries_ : file_entries_;
    const auto found = entries.find(std::string(path));
    if (found == entries.end()) return std::nullopt;
    return found->second;
  }

  static bool applies_somehow(const std::string& path, const Config& config) {
    return std::any_of(schema::keys().begin(), schema::keys().end(), [&](const Key& key) {
      return key.path() == path && schema::applies(key, config);
    });
  }

  /// What `path` applies to, and what holds instead.
  static std::pair<std::string, std::string> explain(const std::string& path,
                                                     const Config& config) {
    schema::When all;
    for (const Key& key : schema::keys()) {
      if (key.path() != path) continue;
      if (all.empty()) {
        // A key's own condition is narrower than its table's on the same selector.
        std::ranges::copy_if(
            schema::table(key.table).when, std::back_inserter(all),
            [&](const schema::Condition& outer) {
              return std::ranges::none_of(
                  key.when, [&](const schema::Condition& inner) { return inner.key == outer.key; });
            });
        all.insert(all.end(), key.when.begin(), key.when.end());
      } else {
        // Keys of one name differ in the values of their last condition alone.
        const auto& values = key.when.back().values;
        all.back().values.insert(all.back().values.end(), values.begin(), values.end());
      }
    }
    return {describe(all), here(all, config)};
  }

  std::string origin_;
  toml::table file_;
  std::list<toml::table> sets_;  // entries point into these
  std::map<std::string, Entry> entries_, file_entries_;
  std::map<std::string, std::string> tables_;     // where each table stands
  std::map<std::uint32_t, std::string> unknown_;  // messages by line
};

// ---- checks of a whole Config ----

void check_key(const Key& key, Config& config, const Locate& locate) {
  const std::string path = key.path();
  const auto mismatch = [&](const std::string& value) {
    fail(locate(path), path, fmt::format("expected {}, got {}", schema::expected(key), value));
  };
  const auto number = [&](double value) {
    if (!key.range.contains(value)) mismatch(schema::value_text(key, config));
  };
  const auto items = [&](std::size_t count) {
    if (count < static_cast<std::size_t>(key.min_items) ||
        count > static_cast<std::size_t>(key.max_items)) {
      mismatch(schema::value_text(key, config));
    }
  };
  std::visit(
      [&](auto slot) {
        using T = decltype(slot);
        if constexpr (std::is_same_v<T, int*> || std::is_same_v<T, double*> ||
                      std::is_same_v<T, std::uint64_t*>) {
          number(static_cast<double>(*slot));
          // TOML integers are signed: what is beyond could not be written to a file.
          if constexpr (std::is_same_v<T, std::uint64_t*>) {
            if (*slot > std::numeric_limits<std::int64_t>::max()) {
              mismatch(schema::value_text(key, config));
            }
          }
        } else if constexpr (std::is_same_v<T, CountRange*>) {
          // A Config filled in code may have the ends in the wrong order.
          if (slot->least > slot->most) mismatch(schema::value_text(key, config));
          number(slot->least);
          number(slot->most);
        } else if constexpr (std::is_same_v<T, std::string*>) {
          const auto& words = key.choices;
          if (!words.empty() && std::find(words.begin(), words.end(), *slot) == words.end()) {
            mismatch("the string " + schema::quote(*slot));
          }
          if (key.required && slot->empty()) mismatch("an empty string");
        } else if constexpr (std::is_same_v<T, std::vector<int>*>) {
          items(slot->size());
          for (std::size_t i = 0; i < slot->size(); ++i) {
            if (key.range.contains((*slot)[i])) continue;
            fail(locate(path), fmt::format("{}[{}]", path, i),
                 fmt::format("expected {}, got {}", schema::expected_item(key), (*slot)[i]));
          }
        } else if constexpr (std::is_same_v<T, std::vector<std::string>*> ||
                             std::is_same_v<T, std::vector<LayerSpec>*>) {
          items(slot->size());
        }
      },
      key.slot(config));
}

void check_network(const Config& config, const Locate& locate) {
  const auto& table = config.network;
  const auto too_large = [](const std::vector<int>& sizes) {
    double product = 1.0;
    for (const int size : sizes) product *= size;
    return product > std::numeric_limits<int>::max();
  };
  if (table.type == "conv4") {
    constexpr int least = 16;
    if (table.downsample == "pool" && (table.image[0] < least || table.image[1] < least)) {
      fail(locate("network.image"), "network.image",
           fmt::format("expected a height and width of at least {0} with network.downsample = "
                       "\"pool\" (each of four blocks halves the image), got [{1}, {2}]",
                       least, table.image[0], table.image[1]));
    }
    if (too_large({std::max(table.in_channels, table.filters), table.image[0], table.image[1]})) {
      fail(locate("network.image"), "network.image",
           "too large: expected channels x height x width below 2^31");
    }
  } else if (table.type == "sequential") {
    if (table.input.size() == 2) {
      fail(locate("network.input"), "network.input",
           fmt::format("expected [channels, height, width] or [features], got [{}, {}]",
                       table.input[0], table.input[1]));
    }
    if (too_large(table.input)) {
      fail(locate("network.input"), "network.input", "too large: expected less than 2^31 numbers");
    }
  }

  std::optional<Network> network;
  try {
    network = config.make_network();
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", locate("network.layers"), error.what()));
  }
  if (network->size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    fail(locate("network.type"), "network",
         fmt::format("{} weights, expected at most {}", network->size(),
                     std::numeric_limits<int>::max()));
  }
  const bool head = is_closed_form(config.algorithm);
  if (table.type == "conv4" && table.classes == 0 && !head) {
    fail(locate("network.classes"), "network.classes",
         fmt::format("0 (no linear layer) is for algorithms with a closed-form head; expected at "
                     "least 1 with algorithm = {}",
                     schema::quote(schema::selector(config, "algorithm"))));
  }
  try {
    if (config.algorithm != AlgorithmKind::leo && !head) network->match(config.inner.adapt);
  } catch (const Error& error) {
    fail(locate("inner.adapt"), "inner.adapt", error.what());
  }
  if (config.loss.type == LossType::cross_entropy && !head && network->outputs() < 2) {
    fail(locate("loss.type"), "loss.type",
         "cross_entropy expects a network with at least 2 outputs (classes), got 1");
  }
}

void check_hvi(const Config& config, const Locate& locate) {
  if (config.inner.adapt != std::vector<std::string>{"*"}) {
    fail(locate("inner.adapt"), "inner.adapt",
         "a posterior of hvi is over all weights; expected [\"*\"]");
  }
  const Bound bound = config.hvi.bound;
  const bool divides = bound == Bound::mcallester || bound == Bound::seeger;
  if (divides && config.hvi.tasks == 1) {
    fail(locate("hvi.tasks"), "hvi.tasks",
         "expected at least 2 with hvi.bound = \"mcallester\" or \"seeger\", got 1");
  }
  if (bound == Bound::mcallester && config.hvi.task_size == 1) {
    fail(locate("hvi.task_size"), "hvi.task_size",
         "expected at least 2 with hvi.bound = \"mcallester\", got 1");
  }
  if (bound == Bound::seeger && config.loss.type == LossType::gaussian_nll &&
      config.loss.noise == NoiseKind::learned) {
    fail(
        locate("loss.noise"), "loss.noise",
        "hvi.bound = \"seeger\" takes the root of the loss, which learned noise can make negative; "
        "expected \"fixed\", or another hvi.bound");
  }
  // sqrt(2 e er) asks for er >= 0; the density of a Gaussian of this width reaches 1
  constexpr double narrowest = 0.39894228040143268;
  if (bound == Bound::seeger && config.loss.type == LossType::gaussian_nll &&
      config.loss.noise_std < narrowest) {
    fail(locate("loss.noise_std"), "loss.noise_std",
         fmt::format("hvi.bound = \"seeger\" takes the root of the loss, which gaussian_nll makes "
                     "negative below {:.3g}, got {}",
                     narrowest, config.loss.noise_std));
  }
}

/// Which losses a closed-form head has, and whether it needs support rows.
void check_head(const Config& config, const Locate& locate) {
  std::vector<LossType> losses = {LossType::cross_entropy};
  std::string expected = "\"cross_entropy\"";
  if (config.algorithm == AlgorithmKind::r2d2) {
    losses.push_back(LossType::mse);
    expected += " or \"mse\"";
  }
  if (config.algorithm == AlgorithmKind::alpaca || config.algorithm == AlgorithmKind::dkt) {
    losses = {LossType::gaussian_nll};
    expected = "\"gaussian_nll\"";
  }
  if (std::ranges::find(losses, config.loss.type) == losses.end()) {
    fail(locate("loss.type"), "loss.type",
         fmt::format("expected {} with algorithm = {}, got {}", expected,
                     schema::quote(schema::selector(config, "algorithm")),
                     schema::quote(schema::selector(config, "loss.type"))));
  }
}

/// Numbers of rows and classes of the episodes.
void check_counts(const Config& config, const Locate& locate) {
  const Config::DataTable& data = config.data;
  if (data.episodes == Episodes::minibatch) {
    if (data.queries.fixed()) return;
    fail(locate("data.queries"), "data.queries",
         "expected one number with data.episodes = \"minibatch\", got a range");
  }
  const std::string algorithm = schema::quote(schema::selector(config, "algorithm"));
  if (data.shots.least == 0 && !has_prior(config.algorithm)) {
    fail(locate("data.shots"), "data.shots",
         fmt::format("expected at least 1 with algorithm = {} (0 is for bayes_protonet, alpaca and "
                     "dkt), got {}",
                     algorithm, data.shots.fixed() ? "0" : "a range from 0"));
  }
  const bool of_latents = config.algorithm == AlgorithmKind::leo &&
                          config.loss.type == LossType::cross_entropy &&
                          config.leo.latents == Latents::per_example;
  if (!data.shots.fixed() && of_latents) {
    fail(locate("data.shots"), "data.shots",
         "expected one number with leo.latents = \"per_example\", which gives a class as many "
         "latents as it has support examples (leo.latents = \"one\" takes a range), got a range");
  }
  if (config.data.source != DataKind::file || config.loss.type != LossType::cross_entropy) return;
  if (data.ways != CountRange(0) && data.ways.least < 2) {
    fail(locate("data.ways"), "data.ways",
         fmt::format("expected at least 2 classes, or 0, got {}", data.ways.least));
  }
  if (!data.ways.fixed() && !is_closed_form(config.algorithm)) {
    fail(locate("data.ways"), "data.ways",
         fmt::format("expected one number with algorithm = {}, whose network has as many outputs "
                     "as an episode has classes, got a range (closed-form heads take one)",
                     algorithm));
  }
  if (data.permute == Permute::none) return;
  for (const auto& [path, range] :
       {std::pair("data.ways", data.ways), std::pair("data.shots", data.shots),
        std::pair("data.queries", data.queries)}) {
    if (range.fixed()) continue;
    fail(locate(path), path, "expected one number with data.permute, got a range");
  }
}

void check_config(Config config, const Locate& locate) {
  for (const Key& key : schema::keys()) {
    if (schema::applies(key, config)) check_key(key, config, locate);
  }
  check_network(config, locate);

  if (config.algorithm == AlgorithmKind::leo && config.make_network().input().spatial) {
    fail(locate("network.type"), "network.type",
         "leo generates networks that act on vectors, got one that acts on images");
  }

  const auto ordered = [&](const char* low_path, double low, const char* high_path, double high) {
    if (low <= high) return;
    fail(locate(low_path), low_path,
         fmt::format("expected at most {} = {}, got {}", high_path, high, low));
  };
  if (config.data.source != DataKind::file) {
    ordered("data.amplitude_low", config.data.amplitude_low, "data.amplitude_high",
            config.data.amplitude_high);
    ordered("data.x_low", config.data.x_low, "data.x_high", config.data.x_high);
  }
  if (config.algorithm == AlgorithmKind::hvi) check_hvi(config, locate);
  if (is_closed_form(config.algorithm)) check_head(config, locate);
  check_counts(config, locate);
  if (config.evaluate.samples == 0) {
    fail(locate("evaluate.samples"), "evaluate.samples", "expected -1 or at least 1, got 0");
  }
  if (config.train.patience > 0 && config.train.validate_every == 0) {
    fail(locate("train.patience"), "train.patience",
         "counts validations, but train.validate_every = 0 asks for none; expected 0");
  }
}

}  // namespace

Config Config::load(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  return parse(read_toml_file(file), file.string(), overrides);
}

Config Config::parse(const std::string& text, const std::string& origin,
                     const std::vector<std::string>& overrides) {
  Document document(text, origin);
  for (const std::string& assignment : overrides) document.set(assignment);
  Config config = document.read(true);
  document.check_applicable(config);
  document.check_required(config);
  check_config(config, [&](std::string_view path) { return document.locate(path); });
  return config;
}

void Config::check(const std::string& origin) const {
  check_config(*this, [&](std::string_view) { return origin; });
}

void Config::check_data(const std::string& origin) const {
  const Network built = make_network();
  if (data.episodes == Episodes::minibatch) {
    if (algorithm != AlgorithmKind::maml || inner.steps != 0) {
      fail(origin, "data.episodes",
           "\"minibatch\" has no support rows to adapt to; expected algorithm = \"maml\" and "
           "inner.steps = 0");
    }
    return;
  }
  if (data.source != DataKind::file) {
    const char* const name = data.source == DataKind::sinusoid    ? "sinusoid"
                             : data.source == DataKind::sine_line ? "sine_line"
                                                                  : "wheel";
    const int inputs = data.source == DataKind::wheel ? wheel_inputs : 1;
    if (loss.type == LossType::cross_entropy) {
      fail(origin, "data.source",
           fmt::format("{} gives numbers, but loss.type = \"cross_entropy\" needs class labels; "
                       "expected data.source = \"file\" and a data.path, or loss.type = \"mse\"",
                       name));
    }
    const std::string expected = fmt::format("{} input{}", inputs, inputs > 1 ? "s" : "");
    if (is_closed_form(algorithm) && built.input().size() != inputs) {
      fail(origin, "network",
           fmt::format("expected {} for data.source = \"{}\", got {}", expected, name,
                       built.input().size()));
    }
    if (!is_closed_form(algorithm) && (built.input().size() != inputs || built.outputs() != 1)) {
      fail(origin, "network",
           fmt::format("expected {} and 1 output for data.source = \"{}\", got {} and {}", expected,
                       name, built.input().size(), built.outputs()));
    }
  } else if (loss.type == LossType::cross_entropy && !is_closed_form(algorithm) &&
             episode_ways(*this) != CountRange(built.outputs())) {
    fail(origin, "data.ways",
         fmt::format("expected the network's number of outputs, {}, got {}", built.outputs(),
                     data.ways.most));
  }
}

bool is_closed_form(AlgorithmKind algorithm) {
  switch (algorithm) {
    case AlgorithmKind::maml:
    case AlgorithmKind::meta_sgd:
    case AlgorithmKind::abml:
    case AlgorithmKind::leo:
    case AlgorithmKind::hvi:
      return false;
    case AlgorithmKind::protonet:
    case AlgorithmKind::r2d2:
    case AlgorithmKind::bayes_protonet:
    case AlgorithmKind::alpaca:
    case AlgorithmKind::dkt:
      return true;
  }
  return false;
}

bool has_prior(AlgorithmKind algorithm) {
  return algorithm == AlgorithmKind::bayes_protonet || algorithm == AlgorithmKind::alpaca ||
         algorithm == AlgorithmKind::dkt;
}

CountRange episode_ways(const Config& config) {
  if (config.data.ways != CountRange(0)) return config.data.ways;
  return is_closed_form(config.algorithm) ? 5 : config.make_network().outputs();
}

Network Config::make_network() const {
  if (algorithm == AlgorithmKind::leo && loss.type == LossType::cross_entropy) {
    LayerSpec head;
    head.out = leo.ways;
    head.name = "head";
    head.bias = false;
    return Network({leo.dim, 1, 1, false}, {head});
  }
  if (network.type == "conv4") {
    return Network::conv4({.in_channels = network.in_channels,
                           .height = network.image.at(0),
                           .width = network.image.at(1),
                           .filters = network.filters,
                           .classes = network.classes,
                           .stride_downsample = network.downsample == "stride",
                           .batch_norm = network.norm == "batch",
                           .mean_head = network.head == "mean"});
  }
  if (network.type == "sequential") {
    const auto& in = network.input;
    const bool image = in.size() == 3;
    if (!image && in.size() != 1) throw Error("network.input: expected [C, H, W] or [d]");
    return Network(image ? FeatureShape{in[0], in[1], in[2], true} : FeatureShape{in[0]},
                   network.sequential);
  }
  return Network::mlp(network.layers,
                      network.activation == "tanh" ? LayerType::tanh : LayerType::relu);
}

}  // namespace kshot
