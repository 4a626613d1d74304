// Parses a configuration. The input is TOML, then a zero byte, then the arguments of --set, one per
// line.
#include "fuzz/target.h"
#include "kshot/config.h"

KSHOT_FUZZ_TARGET(config) {
  using namespace kshot;
  const auto end = bytes.find('\0');
  const std::string text(bytes.substr(0, end));
  std::vector<std::string> overrides;
  std::string_view rest = end == std::string_view::npos ? "" : bytes.substr(end + 1);
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    overrides.emplace_back(line);
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
  }
  Config config;
  if (!fuzz::accepts("", [&] { config = Config::parse(text, "my.toml", overrides); })) return;
  fuzz::accepts("my.toml", [&] { config.check_data("my.toml"); });
  fuzz::require(Config::parse(config.to_toml(), "again.toml") == config,
                "a configuration is written and read back the same");
}
