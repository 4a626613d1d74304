// A configuration as it is written: a TOML file, and what --set changes in it.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "config/schema.h"
#include "config/toml_text.h"
#include "kshot/config.h"

namespace kshot::schema {

/// Keys of a file by path, and those of --set over them. Every function throws Error with the place
/// of what is wrong.
class Document {
 public:
  /// `origin` names the text in messages.
  Document(const std::string& text, std::string origin);
  Document(const Document&) = delete;  // its entries point into itself
  Document& operator=(const Document&) = delete;

  /// Takes one "table.key=value".
  void set(const std::string& text);

  /// The Config of the file alone, or of the file and all of --set.
  Config read(bool with_overrides) const;

  /// Keys and tables that do nothing here are errors: whoever wrote them expects an effect. But
  /// what the file says for its own choice of algorithm, schedule, ... may stay when --set changes
  /// that.
  void check_applicable(const Config& config) const;

  /// Of keys without a default.
  void check_required(const Config& config) const;

  /// "FILE:LINE" of a key, of its table, or the file alone; "--set" where it was overridden.
  std::string locate(std::string_view path) const;

 private:
  struct Entry {
    const toml::node* node;
    bool overridden;
  };

  void add(const std::string& table, const std::string& name, const toml::node& node);
  std::optional<Entry> find(std::string_view path, bool with_overrides) const;

  std::string origin_;
  toml::table file_;
  std::list<toml::table> sets_;  // entries point into these
  std::map<std::string, Entry> entries_, file_entries_;
  std::map<std::string, std::string> tables_;     // where each table stands
  std::map<std::uint32_t, std::string> unknown_;  // messages by line
};

}  // namespace kshot::schema
