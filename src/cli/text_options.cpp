#include "cli/text_options.h"

#include <CLI/CLI.hpp>

#include "kshot/error.h"

namespace kshot::cli {

char TextOptions::delimiter() const {
  return delimiter_text.empty() ? '\0' : io::parse_delimiter(delimiter_text);
}

io::TextFormat TextOptions::format(io::TextFormat base) const {
  if (!decimal.empty()) base.decimal = io::parse_decimal_mark(decimal);
  if (!thousands.empty()) base.thousands = io::parse_thousands_mark(thousands);
  if (has_missing_marks) base.missing_marks = io::parse_missing_marks(missing_marks);
  if (base.thousands == std::string(1, base.decimal)) {
    throw Error("--decimal and --thousands: expected two different characters");
  }
  return base;
}

void add_text_options(CLI::App& command, TextOptions& options) {
  command
      .add_option("--delimiter", options.delimiter_text,
                  "Character between the fields of CSV files. By default it is found, and printed "
                  "where it is not a comma (.tsv: tab)")
      ->type_name("CHARACTER");
  command.add_option("--decimal", options.decimal, "Decimal mark of CSV files, . or ,")
      ->type_name("MARK");
  command
      .add_option(
          "--thousands", options.thousands,
          "Mark between groups of three digits in CSV files, as in 1,027; or the word space")
      ->type_name("MARK");
  command
      .add_option_function<std::string>(
          "--missing-marks",
          [&options](const std::string& text) {
            options.missing_marks = text;
            options.has_missing_marks = true;
          },
          "Texts that stand for a missing value, besides an empty field, exactly as written "
          "(a,b,...). Default: NA, N/A, NaN, null, none and ?, in upper or lower case")
      ->type_name("MARKS");
}

}  // namespace kshot::cli
