// Finds keys and tables by their names, and suggests names for a misspelt one.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "config/schema.h"

namespace kshot::schema {

/// Returns the nearest of `names`, several where the distance is equal, and none where all are too
/// far away. Only the last part of a path is compared.
std::vector<std::string> nearest(std::string_view written, const std::set<std::string>& names,
                                 int farthest = 3);

bool is_table(std::string_view name);
/// Returns the key "table.name"; null where there is none.
const Key* find_key(std::string_view path);

/// Returns "unknown key; did you mean inner.steps?"
std::string unknown_key(std::string_view table, std::string_view name);
/// Returns "unknown table; expected one of [network], ..."
std::string unknown_table(std::string_view name);

}  // namespace kshot::schema
