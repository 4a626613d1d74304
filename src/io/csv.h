// CSV and TSV files (RFC 4180: quoted fields, doubled quotes, line breaks within quotes).
#pragma once

#include <filesystem>

#include "io/preprocessing.h"

namespace kshot::io {

/// Reads a table whose first line names its columns; every column is text. `delimiter` 0: a tab for
/// names ending in .tsv, else a comma. Throws Error with file and line for rows of another length,
/// open quotes, columns without a name or with the same name, a file without rows.
Table read_csv(const std::filesystem::path& path, char delimiter = 0);
Table parse_csv(std::string_view text, const std::string& origin, char delimiter = ',');

}  // namespace kshot::io
