// Command-line options that say how a text table is written; `import table` and `adapt` share them.
#pragma once

#include <string>

#include "io/table.h"

namespace CLI {
class App;
}

namespace kshot::cli {

struct TextOptions {
  std::string delimiter_text, decimal, thousands, missing_marks;
  bool has_missing_marks = false;

  /// 0 where none was given. Throws Error for an option that is not valid.
  char delimiter() const;
  /// `base` with what was given in its place.
  io::TextFormat format(io::TextFormat base) const;
};

void add_text_options(CLI::App& command, TextOptions& options);

}  // namespace kshot::cli
