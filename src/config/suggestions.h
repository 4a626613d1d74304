// Keys and tables by their names, and what a name that is none of them was meant to be.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "config/schema.h"

namespace kshot::schema {

/// Nearest of `names` that are near enough to have been meant; several where they are as near. A
/// name that is a path is known by its last part.
std::vector<std::string> nearest(std::string_view written, const std::set<std::string>& names,
                                 int farthest = 3);

bool is_table(std::string_view name);
/// The key "table.name"; null where there is none.
const Key* find_key(std::string_view path);

/// "unknown key; did you mean inner.steps?"
std::string unknown_key(std::string_view table, std::string_view name);
/// "unknown table; expected one of [network], ..."
std::string unknown_table(std::string_view name);

}  // namespace kshot::schema
