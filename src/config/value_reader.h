// Reads one value of a configuration from TOML into the key's field of a Config.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "config/schema.h"
#include "config/toml_text.h"

namespace kshot::schema {

/// Returns the place of a key for messages: "FILE:LINE", "--set" or the origin alone.
using Locate = std::function<std::string(std::string_view path)>;

/// Throws Error "origin: path: what".
[[noreturn]] void fail(const std::string& origin, const std::string& path, const std::string& what);

/// Returns the text for a node in messages: "the string \"x\"", "a list", 3.
std::string got(const toml::node& node);

/// Reads nodes into a Config. Types are checked here, ranges by check_config.
class ValueReader {
 public:
  /// `file` is empty for a value of --set, which has no lines.
  ValueReader(std::string origin, std::string file);

  /// Throws Error where `node` is not of the key's type.
  void read(const Key& key, const toml::node& node, Config& config) const;

 private:
  std::string origin_, file_;
};

}  // namespace kshot::schema
