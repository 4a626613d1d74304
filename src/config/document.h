// A configuration as text: a TOML file, and the changes of --set.
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

/// The keys of a file by path, and the keys of --set, which override them. Every function throws
/// Error that names the place of the fault.
class Document {
 public:
  /// `origin` names the text in messages.
  Document(const std::string& text, std::string origin);
  Document(const Document&) = delete;  // entries point into the document
  Document& operator=(const Document&) = delete;

  /// Overrides one key by "table.key=value".
  void set(const std::string& text);

  /// Returns the Config of the file alone, or of the file and all of --set.
  Config read(bool with_overrides) const;

  /// Throws Error for keys and tables that do not apply, because their author expects an effect.
  /// Keys that apply to the file's own choice of algorithm, schedule, ... may stay when --set
  /// changes this choice.
  void check_applicable(const Config& config) const;

  /// Throws Error for a key that applies, has no default and is not given.
  void check_required(const Config& config) const;

  /// Returns "FILE:LINE" of a key or of its table, or the file alone; "--set" for a key that was
  /// overridden.
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
  std::map<std::string, std::string> tables_;     // "FILE:LINE" of each table
  std::map<std::uint32_t, std::string> unknown_;  // messages by line
};

}  // namespace kshot::schema
