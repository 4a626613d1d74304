#include "config/facts.h"

#include "config/schema.h"

namespace kshot {

std::vector<std::pair<std::string, std::string>> config_facts(const Config& config) {
  std::vector<std::pair<std::string, std::string>> facts;
  for (const schema::Key& key : schema::keys()) {
    if (schema::applies(key, config)) {
      facts.emplace_back(key.path(), schema::value_text(key, config));
    }
  }
  return facts;
}

std::vector<ConfigDifference> differences(const Config& first, const Config& second) {
  std::vector<ConfigDifference> found;
  for (const schema::Key& key : schema::keys()) {
    const bool in_first = schema::applies(key, first);
    const bool in_second = schema::applies(key, second);
    if (!in_first && !in_second) continue;
    ConfigDifference d{key.path(), in_first ? schema::value_text(key, first) : "(absent)",
                       in_second ? schema::value_text(key, second) : "(absent)"};
    if (d.first != d.second) found.push_back(std::move(d));
  }
  return found;
}

}  // namespace kshot
