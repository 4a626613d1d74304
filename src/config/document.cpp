#include "config/document.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <variant>
#include <vector>

#include "config/suggestions.h"
#include "config/value_reader.h"
#include "io/table.h"
#include "kshot/error.h"

namespace kshot::schema {
namespace {

std::uint32_t line(const toml::node& node) {
  return node.source().begin.line;
}

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
      result += is_key || is_toml_value(word) ? std::string(word) : quote(word);
      i = end;
    }
  }
  return result;
}

/// Returns the value of `--set key=text` as TOML. Bare words become strings where the key's type
/// asks for strings.
std::string override_toml(const Key& key, std::string_view text) {
  Config config;
  const Slot slot = key.slot(config);
  const bool quoted = text.front() == '"' || text.front() == '\'';
  if (std::holds_alternative<std::string*>(slot) || std::holds_alternative<EnumField>(slot)) {
    return quoted ? std::string(text) : quote(text);
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
  return is_toml_value(text) ? std::string(text) : quote(text);
}

/// Returns "here algorithm = "maml"" for the first condition that does not hold.
std::string failed_condition_text(const When& when, const Config& config) {
  for (const Condition& condition : when) {
    if (!holds({condition}, config)) {
      return fmt::format("here {} = {}", condition.key, quote(selector(config, condition.key)));
    }
  }
  return {};
}

/// Returns the reason why a table does not apply.
std::string misplaced(const Table& table, const Config& config) {
  if (holds(table.when, config)) {
    return fmt::format("does not apply with {}", describe(table.unless));
  }
  return fmt::format("applies to {} alone; {}", describe(table.when),
                     failed_condition_text(table.when, config));
}

bool applies_somehow(const std::string& path, const Config& config) {
  return std::any_of(keys().begin(), keys().end(),
                     [&](const Key& key) { return key.path() == path && applies(key, config); });
}

/// Returns the conditions under which the key `path` applies, and the choice in `config` that
/// breaks them.
std::pair<std::string, std::string> explain(const std::string& path, const Config& config) {
  When all;
  for (const Key& key : keys()) {
    if (key.path() != path) continue;
    if (all.empty()) {
      // A key's own condition is narrower than its table's on the same selector.
      std::ranges::copy_if(
          table(key.table).when, std::back_inserter(all), [&](const Condition& outer) {
            return std::ranges::none_of(
                key.when, [&](const Condition& inner) { return inner.key == outer.key; });
          });
      all.insert(all.end(), key.when.begin(), key.when.end());
    } else {
      // Keys of one name differ only in the values of their last condition.
      const auto& values = key.when.back().values;
      all.back().values.insert(all.back().values.end(), values.begin(), values.end());
    }
  }
  return {describe(all), failed_condition_text(all, config)};
}

}  // namespace

Document::Document(const std::string& text, std::string origin) : origin_(std::move(origin)) {
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

void Document::set(const std::string& text) {
  const auto equals = text.find('=');
  const std::string path(io::trimmed_view(std::string_view(text).substr(0, equals)));
  const std::string_view value = equals == std::string::npos
                                     ? ""
                                     : io::trimmed_view(std::string_view(text).substr(equals + 1));
  if (path.empty() || value.empty()) {
    throw Error(fmt::format("--set {}: expected table.key=value", quote(text)));
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
         fmt::format("not a TOML value: {} ({})", quote(value), one_line(error.description())));
  } catch (const BrokenToml&) {
    fail("--set", path, fmt::format("not a TOML value: {}", quote(value)));
  }
  if (sets_.back().size() != 1) fail("--set", path, "expected one value");
  entries_[path] = {sets_.back().get("v"), true};
}

Config Document::read(bool with_overrides) const {
  Config config;
  const auto read_key = [&](const Key& key) {
    const auto found = find(key.path(), with_overrides);
    // Conditions refer only to keys that come earlier in the list.
    if (!found || !applies(key, config)) return;
    ValueReader(found->overridden ? "--set" : origin_, found->overridden ? "" : origin_)
        .read(key, *found->node, config);
  };
  // The algorithm comes first: an unknown one explains an unknown table.
  const std::vector<Key>& all = keys();
  read_key(all.front());
  set_defaults(config);
  if (!unknown_.empty()) throw Error(unknown_.begin()->second);
  std::for_each(all.begin() + 1, all.end(), read_key);
  return config;
}

void Document::check_applicable(const Config& config) const {
  const Config from_file = sets_.empty() ? config : read(false);
  for (const auto& [name, origin] : tables_) {
    const Table& table = schema::table(name);
    if (!applies(table, config) && !applies(table, from_file)) {
      throw Error(fmt::format("{}: [{}]: {}", origin, name, misplaced(table, config)));
    }
  }
  for (const auto& [path, entry] : entries_) {
    const Config& base = entry.overridden ? config : from_file;
    if (applies_somehow(path, config) || applies_somehow(path, base)) continue;
    const auto dot = path.find('.');
    const Table& table = schema::table(dot == std::string::npos ? "" : path.substr(0, dot));
    if (!applies(table, config)) fail(locate(path), path, misplaced(table, config));
    const auto [text, now] = explain(path, config);
    fail(locate(path), path, fmt::format("applies to {} alone; {}", text, now));
  }
}

void Document::check_required(const Config& config) const {
  for (const Key& key : keys()) {
    if (!key.required || find(key.path(), true) || !applies(key, config)) continue;
    fail(locate(key.path()), key.path(),
         fmt::format("required with {}: expected {}", describe(key.when), expected(key)));
  }
}

std::string Document::locate(std::string_view path) const {
  if (const auto found = find(path, true)) {
    return found->overridden ? "--set" : fmt::format("{}:{}", origin_, line(*found->node));
  }
  const auto table = tables_.find(std::string(path.substr(0, path.find('.'))));
  return table == tables_.end() ? origin_ : table->second;
}

void Document::add(const std::string& table, const std::string& name, const toml::node& node) {
  const std::string path = table.empty() ? name : fmt::format("{}.{}", table, name);
  if (find_key(path) == nullptr) {
    unknown_[line(node)] =
        fmt::format("{}:{}: {}: {}", origin_, line(node), path, unknown_key(table, name));
    return;
  }
  entries_[path] = {&node, false};
  file_entries_[path] = {&node, false};
}

std::optional<Document::Entry> Document::find(std::string_view path, bool with_overrides) const {
  const auto& entries = with_overrides ? entries_ : file_entries_;
  const auto found = entries.find(std::string(path));
  if (found == entries.end()) return std::nullopt;
  return found->second;
}

}  // namespace kshot::schema
