// Configurations as flat lists of keys and values, for pages and comparisons.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kshot/config.h"

namespace kshot {

/// Returns the path ("inner.steps") of every key that applies, with its value as TOML.
std::vector<std::pair<std::string, std::string>> config_facts(const Config& config);

/// A key whose values differ between two configurations.
struct ConfigDifference {
  std::string key;
  std::string first, second;  ///< values as TOML; "(absent)" where the key does not apply
};
/// Returns the keys whose values differ.
std::vector<ConfigDifference> differences(const Config& first, const Config& second);

}  // namespace kshot
