// `config`: prints a configuration with all its keys, a starter file, or the reference of all keys.
#include <fmt/format.h>

#include <cstdio>

#include "cli/commands.h"
#include "io/output_file.h"
#include "kshot/config.h"
#include "kshot/error.h"

namespace kshot::cli {

int run_config(const ConfigArguments& a) {
  const int asked = !a.config.empty() + !a.starter.empty() + a.reference;
  if (asked != 1) throw Error("config: expected a configuration, --template or --reference");
  std::string text;
  if (a.reference) {
    text = configuration_reference();
  } else if (!a.starter.empty()) {
    text = config_template(a.starter);
  } else {
    text = Config::load(a.config, a.set).to_toml();
  }
  if (a.out.empty()) {
    std::fputs(text.c_str(), stdout);
  } else {
    io::OutputFile(a.out, io::OutputKind::text, {a.config}).write(text);
    fmt::print("{}\n", a.out);
  }
  return 0;
}

}  // namespace kshot::cli
