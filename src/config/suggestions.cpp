#include "config/suggestions.h"

#include <fmt/format.h>

#include <algorithm>

#include "config/schema.h"

namespace kshot::schema {
namespace {

/// Returns the edit distance, in which a swap of neighbours counts once (optimal string alignment).
int edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<int>> d(a.size() + 1, std::vector<int>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = static_cast<int>(i);
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int change = d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      d[i][j] = std::min({change, d[i - 1][j] + 1, d[i][j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

/// Returns the distance of a written name from a key: 0 for the same name, 1 where one contains the
/// other ("num_steps") or for initials ("lr"), else the edit distance.
int name_distance(std::string_view written, std::string_view key) {
  const int distance = edit_distance(written, key);
  if (distance <= 1) return distance;
  const auto holds = [](std::string_view all, std::string_view part) {
    return part.size() >= 3 && all.find(part) != std::string_view::npos;
  };
  if (holds(written, key) || holds(key, written)) return 1;
  std::string initials;
  for (std::size_t i = 0; i < key.size(); ++i) {
    if (i == 0 || key[i - 1] == '_') initials += key[i];
  }
  return initials.size() > 1 && written == initials ? 1 : distance;
}

}  // namespace

std::vector<std::string> nearest(std::string_view written, const std::set<std::string>& names,
                                 int farthest) {
  const int limit = std::min(farthest, std::max<int>(1, static_cast<int>(written.size()) / 3));
  int best = limit;
  std::vector<std::string> result;
  for (const std::string& name : names) {
    // Only the last part of a path counts.
    const int distance = name_distance(written, name.substr(name.rfind('.') + 1));
    if (distance > best) continue;
    if (distance < best) result.clear();
    best = distance;
    result.push_back(name);
  }
  return result;
}

bool is_table(std::string_view name) {
  return !name.empty() && std::any_of(tables().begin(), tables().end(),
                                      [&](const auto& table) { return table.name == name; });
}

const Key* find_key(std::string_view path) {
  const std::vector<Key>& all = keys();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Key& key) { return key.path() == path; });
  return found == all.end() ? nullptr : &*found;
}

std::string unknown_key(std::string_view table, std::string_view name) {
  std::set<std::string> here, elsewhere;
  std::vector<std::string> listed;
  for (const Key& key : keys()) {
    if (key.table == table) {
      if (here.insert(key.path()).second) listed.emplace_back(key.name);
    } else {
      elsewhere.insert(key.path());
    }
  }
  // A key of exactly this name in another table is more likely meant than a key of this table with
  // a similar name.
  auto meant = nearest(name, elsewhere, 0);
  if (meant.empty()) meant = nearest(name, here);
  if (meant.empty()) meant = nearest(name, elsewhere);
  if (!meant.empty()) {
    return fmt::format("unknown key; did you mean {}?", alternatives(meant));
  }
  return fmt::format("unknown key; expected one of {}", alternatives(listed));
}

std::string unknown_table(std::string_view name) {
  std::set<std::string> names;
  std::vector<std::string> listed;
  for (const auto& table : tables()) {
    if (*table.name == '\0') continue;
    names.insert(table.name);
    listed.push_back(fmt::format("[{}]", table.name));
  }
  auto meant = nearest(name, names);
  for (std::string& table : meant) table = fmt::format("[{}]", table);
  if (!meant.empty()) {
    return fmt::format("unknown table; did you mean {}?", alternatives(meant));
  }
  return fmt::format("unknown table; expected one of {}", alternatives(listed));
}

}  // namespace kshot::schema
