// Command-line options that describe the format of a text table. `import table` and `adapt` share
// them.
#pragma once

#include <string>

#include "io/table.h"

namespace CLI {
class App;
}

namespace kshot::cli {

/// The values of these options as texts.
struct TextOptions {
  std::string delimiter_text, decimal, thousands, missing_marks;
  bool has_missing_marks = false;

  /// Returns the delimiter, or 0 where none was given. Throws Error for an option that is not
  /// valid.
  char delimiter() const;
  /// Returns `base` with the given options in place of its own values.
  io::TextFormat format(io::TextFormat base) const;
};

void add_text_options(CLI::App& command, TextOptions& options);

}  // namespace kshot::cli
