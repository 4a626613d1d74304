// Reads CSV and TSV files (RFC 4180: quoted fields, doubled quotes, line breaks within quotes).
#pragma once

#include <filesystem>
#include <functional>

#include "io/table.h"

namespace kshot::io {

/// Reads a UTF-8 table whose first line names its columns. Every column is text.
///
/// With `delimiter` 0, the delimiter is the one of comma, semicolon, tab and bar that cuts the
/// header and the first rows into equally many fields. Table::notes reports a delimiter that is not
/// the usual one (a tab for names ending in .tsv, else a comma). A first column without a name
/// becomes Table::row_index, "Unnamed: 0".
///
/// Throws Error with file and line for rows of another length, open quotes, text that is not UTF-8,
/// other columns without a name or with the same name, a file without rows, and where several
/// delimiters fit. `interrupt` is called now and then; an exception that it throws is passed on.
Table read_csv(const std::filesystem::path& path, char delimiter = 0, const TextFormat& format = {},
               const std::function<void()>& interrupt = {});
/// Reads a table of names (classes, tasks, columns). Where several delimiters fit, the usual one is
/// taken, because the commands have no delimiter option for such tables.
Table read_name_table(const std::filesystem::path& path);
Table parse_csv(std::string_view text, const std::string& origin, char delimiter = 0,
                const TextFormat& format = {}, char usual_delimiter = ',',
                bool ask_delimiter = true, const std::function<void()>& interrupt = {});

}  // namespace kshot::io
