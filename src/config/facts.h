// Configurations as flat lists of keys and values, to show and to compare.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kshot/config.h"

namespace kshot {

/// Every key that applies, dotted, with its value as TOML.
std::vector<std::pair<std::string, std::string>> config_facts(const Config& config);

struct ConfigDifference {
  std::string key;
  std::string first, second;  ///< as TOML; "(absent)" where the key does not apply
};
std::vector<ConfigDifference> differences(const Config& first, const Config& second);

}  // namespace kshot
