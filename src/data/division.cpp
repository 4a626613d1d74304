#include "data/division.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <unordered_map>

#include "base/text.h"
#include "io/atomic_file.h"
#include "io/csv.h"
#include "kshot/error.h"
#include "kshot/random.h"

namespace kshot::data {
namespace {

constexpr std::array default_shares = {0.64, 0.16, 0.2};

std::string trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\r") - first + 1));
}

/// Returns the lines of a text file that are not blank, with their numbers from 1. Line ends may be
/// those of Unix, Windows or old Macs. A byte order mark is skipped.
std::vector<std::pair<std::size_t, std::string>> text_lines(const std::filesystem::path& path) {
  const std::string whole = io::read_file(path);
  std::string_view text = whole;
  const bool utf16 = text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff");
  if (!utf16 && text.find('\0') != std::string_view::npos) {
    throw Error(
        fmt::format("{}: binary data; expected text, one name per line", printable(path.string())));
  }
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  if (utf16) {
    throw Error(fmt::format("{}: the text is UTF-16; expected UTF-8", printable(path.string())));
  }
  std::vector<std::pair<std::size_t, std::string>> out;
  std::size_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find_first_of("\r\n", at), text.size());
    ++number;
    std::string line = trimmed(text.substr(at, end - at));
    if (!line.empty()) out.emplace_back(number, std::move(line));
    at = end + (text.substr(end).starts_with("\r\n") ? 2 : 1);
  }
  return out;
}

/// Returns the words of a name in lower case, without words that say nothing about the split.
std::vector<std::string> significant_words(std::string_view name) {
  static const std::set<std::string> fillers = {
      "meta", "set",  "sets",  "data",   "dataset", "split",    "splits", "image",   "images",
      "img",  "imgs", "photo", "photos", "picture", "pictures", "class",  "classes", "folder"};
  std::vector<std::string> out;
  std::string word;
  const auto end_word = [&] {
    if (word.starts_with("meta") && word.size() > 4) word.erase(0, 4);
    for (const std::string_view suffix : {"set", "data"}) {
      if (word.size() > suffix.size() && word.ends_with(suffix)) {
        const std::string rest = word.substr(0, word.size() - suffix.size());
        if (split_from_name(rest)) word = rest;
      }
    }
    if (!word.empty() && !fillers.contains(word)) out.push_back(word);
    word.clear();
  };
  for (const char c : lower_case(name)) {
    const bool letter = (c >= 'a' && c <= 'z') || (c & 0x80) != 0;
    if (letter) word += c;
    if (!letter) end_word();
  }
  end_word();
  return out;
}

std::vector<double> checked_shares(const SplitOptions& options) {
  std::vector<double> shares = options.fractions;
  if (shares.empty()) shares.assign(default_shares.begin(), default_shares.end());
  const auto valid = [](double share) { return std::isfinite(share) && share >= 0; };
  if (shares.size() != 3 || !std::ranges::all_of(shares, valid) ||
      std::abs(std::accumulate(shares.begin(), shares.end(), 0.0) - 1.0) > 1e-6) {
    throw Error(fmt::format(
        "--fractions {}: expected three shares of train, validation and test that add up to 1",
        fmt::join(shares, ",")));
  }
  return shares;
}

/// Divides by shares of a seeded shuffle. Throws Error where a share above 0 gets nothing.
std::vector<Split> random_splits(const SplitOptions& options, std::size_t count,
                                 const std::string& what) {
  const std::vector<double> shares = checked_shares(options);
  // The sizes are differences of rounded cumulative sums, so that they add up to `count`.
  std::vector<std::size_t> sizes(3);
  std::size_t before = 0;
  double sum = 0.0;
  for (std::size_t s = 0; s < 3; ++s) {
    sum += shares[s];
    const auto upto =
        std::min(count, static_cast<std::size_t>(std::llround(sum * static_cast<double>(count))));
    sizes[s] = upto - before;
    before = upto;
  }
  for (std::size_t s = 0; s < 3; ++s) {
    if (shares[s] > 0 && sizes[s] == 0) {
      throw Error(
          fmt::format("--fractions {}: with {} {}, none is left for {}; expected other shares "
                      "or a split list (--split)",
                      fmt::join(shares, ","), count, what, split_name(static_cast<Split>(s))));
    }
  }
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  RandomKey key;
  key.seed = options.seed;
  key.purpose = Purpose::user;
  RandomStream stream(key);
  for (std::size_t i = count; i > 1; --i) {
    std::swap(order[i - 1], order[stream.below(static_cast<std::uint32_t>(i))]);
  }
  std::vector<Split> out(count);
  std::size_t at = 0;
  for (std::size_t s = 0; s < 3; ++s) {
    for (std::size_t k = 0; k < sizes[s]; ++k) out[order[at++]] = static_cast<Split>(s);
  }
  return out;
}

std::string random_how(const SplitOptions& options) {
  return fmt::format(
      "at random with seed {}, in shares of {} for train, validation and test{}", options.seed,
      fmt::join(checked_shares(options), ", "),
      options.fractions.empty() ? " (neither a list, a table nor a folder divides them)" : "");
}

[[noreturn]] void unknown_name(const std::string& location, const std::string& name,
                               const std::vector<std::string>& names, const std::string& what) {
  throw Error(fmt::format("{}: '{}' is not among the data's {} {} ('{}', ...)", location, name,
                          names.size(), what, names.empty() ? "" : names.front()));
}

/// Returns the splits that the lists give to each of `names`. A listed name that several entries
/// have applies to all of them.
std::vector<std::vector<Split>> listed_splits(const SplitOptions& options,
                                              const std::vector<std::string>& names,
                                              const std::string& what) {
  std::unordered_map<std::string, std::vector<std::size_t>> index;
  for (std::size_t g = 0; g < names.size(); ++g) index[names[g]].push_back(g);
  std::vector<std::vector<Split>> out(names.size());
  for (const ListedName& entry : read_split_lists(options)) {
    const auto found = index.find(entry.name);
    if (found == index.end()) unknown_name(entry.location, entry.name, names, what);
    for (const std::size_t g : found->second) out[g].push_back(entry.split);
  }
  return out;
}

/// Throws Error where one class is in two splits, or twice in one. Entries with equal keys are one
/// class.
void refuse_shared(const std::vector<NamedClass>& classes, const std::string& source,
                   const std::string& advice) {
  std::map<std::string, const NamedClass*> seen;
  std::vector<std::string> shared;
  std::string first;
  for (const NamedClass& entry : classes) {
    if (entry.splits.empty()) continue;
    const auto [before, fresh] = seen.emplace(entry.key, &entry);
    if (fresh && entry.splits.size() == 1) continue;
    if (shared.empty()) {
      const NamedClass& other = *before->second;
      first = fresh ? fmt::format("class '{}' is in {} and in {}", entry.name,
                                  split_name(entry.splits[0]), split_name(entry.splits[1]))
                    : fmt::format("class '{}' is in {} ('{}') and in {} ('{}')", entry.key,
                                  split_name(other.splits[0]), other.name,
                                  split_name(entry.splits[0]), entry.name);
    }
    shared.push_back(entry.key);
  }
  if (shared.empty()) return;
  throw Error(fmt::format(
      "{}: {}{}; expected every class in one split, once{} "
      "(--allow-shared-classes takes them as they are)",
      source, first, shared.size() > 1 ? fmt::format(", and {} more", shared.size() - 1) : "",
      advice));
}

/// Removes classes with too few examples, and notes them.
void leave_out_small(std::size_t min_examples, std::vector<NamedClass>* classes,
                     std::vector<std::string>* notes) {
  std::vector<std::string> small;
  std::erase_if(*classes, [&](const NamedClass& entry) {
    if (entry.examples >= min_examples) return false;
    small.push_back(fmt::format("{}: {}", entry.name, entry.examples));
    return true;
  });
  if (small.empty()) return;
  notes->push_back(fmt::format("left out: {} classes with fewer than {} examples ({})",
                               small.size(), min_examples, name_some(small)));
}

}  // namespace

std::optional<Split> split_from_name(std::string_view name) {
  static const std::map<std::string, Split, std::less<>> words = {
      {"train", Split::train},
      {"training", Split::train},
      {"trn", Split::train},
      {"tr", Split::train},
      {"val", Split::validation},
      {"va", Split::validation},
      {"valid", Split::validation},
      {"validation", Split::validation},
      {"validate", Split::validation},
      {"dev", Split::validation},
      {"devel", Split::validation},
      {"development", Split::validation},
      {"test", Split::test},
      {"testing", Split::test},
      {"tst", Split::test},
      {"te", Split::test},
      {"holdout", Split::test},
      {"heldout", Split::test},
      {"eval", Split::test},
      {"evaluation", Split::test}};
  const auto found = words.find(lower_case(trimmed(name)));
  if (found == words.end()) return {};
  return found->second;
}

std::optional<Split> split_from_folder(std::string_view name) {
  const std::string text = lower_case(name);
  if (text == "images_background") return Split::train;
  if (text == "images_evaluation") return Split::test;
  const std::vector<std::string> words = significant_words(name);
  if (words.size() != 1) return {};
  if (words[0] == "base" || words[0] == "seen") return Split::train;
  if (words[0] == "novel" || words[0] == "unseen") return Split::test;
  return split_from_name(words[0]);
}

bool mentions_split(std::string_view name) {
  static const std::set<std::string> words = {"train", "training",   "trainval", "val",
                                              "valid", "validation", "test",     "testing"};
  return std::ranges::any_of(significant_words(name),
                             [](const std::string& word) { return words.contains(word); });
}

bool names_division(const std::string& name) {
  static const std::set<std::string> words = {"partition", "subset", "fold", "phase", "role"};
  const std::string text = lower_case(trimmed(name));
  const std::vector<std::string> parts = significant_words(text);
  return text == "set" || text.find("split") != std::string::npos || mentions_split(text) ||
         std::ranges::any_of(parts, [](const std::string& part) {
           return words.contains(part) || part == "istrain" || part == "istest";
         });
}

std::string name_some(const std::vector<std::string>& names, std::size_t most) {
  std::string out;
  for (std::size_t i = 0; i < std::min(most, names.size()); ++i) {
    out += (i > 0 ? ", " : "") + printable(names[i]);
  }
  if (names.size() > most) out += fmt::format(" and {} more", names.size() - most);
  return out;
}

std::string lists_how(const SplitOptions& options) {
  std::string out = "by the lists ";
  for (const auto& [split, path] : options.lists) {
    out += fmt::format("{}{}={}", out.ends_with(' ') ? "" : ", ", split_name(split), path.string());
  }
  return out;
}

std::vector<ListedName> read_split_lists(const SplitOptions& options) {
  std::vector<ListedName> out;
  std::unordered_map<std::string, std::vector<ListedName>> seen;
  for (const auto& [split, path] : options.lists) {
    const auto lines = text_lines(path);
    if (lines.empty()) {
      throw Error(fmt::format("{}: empty; expected one name per line", path.string()));
    }
    for (const auto& [number, line] : lines) {
      ListedName entry{split, line, fmt::format("{}, line {}", path.string(), number)};
      // `ls -d */` writes folders with a trailing slash, and `find` writes them with a leading
      // "./".
      while (entry.name.starts_with("./") && entry.name.size() > 2) entry.name.erase(0, 2);
      while (entry.name.size() > 1 && entry.name.back() == '/') entry.name.pop_back();
      auto& before = seen[entry.name];
      if (!before.empty() && !options.allow_shared) {
        throw Error(
            fmt::format("{}: '{}' is already in {}; expected every name once "
                        "(--allow-shared-classes allows repeated classes)",
                        entry.location, entry.name, before.front().location));
      }
      const bool listed = std::ranges::any_of(
          before, [&](const ListedName& other) { return other.split == entry.split; });
      before.push_back(entry);
      if (!listed) out.push_back(std::move(entry));
    }
  }
  return out;
}

namespace {

/// Returns the column `split` of a table (in any case of letters). If the table divides, throws
/// Error where another column looks like one.
std::optional<std::size_t> find_split_column(const io::Table& table, bool divides) {
  for (std::size_t c = 1; c < table.columns.size(); ++c) {
    if (lower_case(trimmed(table.columns[c].name)) == "split") return c;
  }
  if (!divides) return {};
  for (std::size_t c = 1; c < table.columns.size(); ++c) {
    std::set<Split> found;
    bool all = true;
    for (const std::string& text : table.columns[c].text) {
      const auto split = split_from_name(text);
      all = all && split.has_value();
      if (split) found.insert(*split);
    }
    if (all && found.size() > 1) {
      throw Error(
          fmt::format("{}: column '{}' holds train, validation and test; expected it to be "
                      "called 'split'",
                      table.origin, table.columns[c].name));
    }
    if (names_division(table.columns[c].name)) {
      throw Error(
          fmt::format("{}: column '{}' may divide the classes or tasks; expected it to be called "
                      "'split' and to "
                      "hold train, validation (val) or test, or --fractions or --split lists",
                      table.origin, table.columns[c].name));
    }
  }
  return {};
}

}  // namespace

std::vector<GroupRow> read_group_table(const SplitOptions& options) {
  const io::Table table = io::read_name_table(options.table);
  const bool divides = options.lists.empty() && options.fractions.empty();
  const auto split_column = find_split_column(table, divides);
  std::optional<std::size_t> name_column;
  for (std::size_t c = 1; c < table.columns.size(); ++c) {
    const std::string name = lower_case(trimmed(table.columns[c].name));
    if (name == "name" || name == "class") name_column = c;
  }
  if (!name_column && table.columns.size() > 1 && split_column != 1) name_column = 1;
  std::vector<GroupRow> out;
  std::unordered_map<std::string, std::string> seen;
  for (std::size_t row = 0; row < table.rows; ++row) {
    GroupRow entry;
    entry.location = table.location(row);
    entry.key = trimmed(table.columns[0].text[row]);
    entry.name = name_column ? trimmed(table.columns[*name_column].text[row]) : entry.key;
    const auto [first, fresh] = seen.emplace(entry.key, entry.location);
    if (!fresh) {
      throw Error(fmt::format("{}: '{}' is already in {}; expected every {} once", entry.location,
                              entry.key, first->second, table.columns[0].name));
    }
    if (split_column) {
      const std::string& text = table.columns[*split_column].text[row];
      entry.split = split_from_name(text);
      if (!entry.split) {
        throw Error(
            fmt::format("{}: column 'split' holds '{}'; expected train, validation (val) or test",
                        entry.location, text));
      }
    }
    out.push_back(std::move(entry));
  }
  return out;
}

Division divide_classes(const SplitOptions& options, const std::string& source,
                        std::size_t min_examples, const std::string& given_how,
                        const std::string& advice, std::vector<NamedClass>* classes) {
  Division out;
  std::vector<std::string> names;
  for (const NamedClass& entry : *classes) names.push_back(entry.name);
  const bool by_lists = !options.lists.empty();
  if (by_lists) {  // before small classes are left out, because a list may name them
    auto splits = listed_splits(options, names, "classes");
    for (std::size_t c = 0; c < classes->size(); ++c) (*classes)[c].splits = std::move(splits[c]);
  }
  leave_out_small(min_examples, classes, &out.notes);
  if (classes->empty()) {
    throw Error(fmt::format("{}: no class has {} examples (--min-examples)", source, min_examples));
  }
  if (by_lists) {
    out.how = lists_how(options);
  } else if (options.fractions.empty() && !given_how.empty()) {
    for (NamedClass& entry : *classes) {
      if (entry.given) entry.splits = {*entry.given};
    }
    out.how = given_how;
  } else {
    const auto splits = random_splits(options, classes->size(), "classes");
    for (std::size_t c = 0; c < classes->size(); ++c) (*classes)[c].splits = {splits[c]};
    out.how = random_how(options);
  }
  if (!options.allow_shared) refuse_shared(*classes, source, advice);
  std::vector<std::string> left;
  bool training = false;
  for (const NamedClass& entry : *classes) {
    if (entry.splits.empty()) left.push_back(entry.name);
    training = training || std::ranges::count(entry.splits, Split::train) > 0;
  }
  if (left.size() == classes->size()) {
    throw Error(fmt::format("{}: no class is left for any split", source));
  }
  if (!left.empty()) {
    out.notes.push_back(fmt::format("left out: {} classes that are in no split ({})", left.size(),
                                    name_some(left)));
  }
  if (!training) {
    out.notes.emplace_back("no class is for training: the file serves evaluation alone");
  }
  return out;
}

std::vector<std::optional<Split>> divide_tasks(const SplitOptions& options,
                                               const std::vector<std::string>& names,
                                               std::vector<std::string>* notes, std::string* how) {
  std::vector<std::optional<Split>> out(names.size());
  if (!options.lists.empty()) {
    const auto splits = listed_splits(options, names, "tasks");
    for (std::size_t g = 0; g < names.size(); ++g) {
      if (!splits[g].empty()) out[g] = splits[g].front();
    }
    *how = lists_how(options);
  } else if (!options.table.empty()) {
    std::unordered_map<std::string, std::size_t> index;
    for (std::size_t g = 0; g < names.size(); ++g) index.emplace(names[g], g);
    for (const GroupRow& row : read_group_table(options)) {
      if (!row.split) {
        throw Error(fmt::format("{}: no column 'split'", options.table.string()));
      }
      const auto found = index.find(row.key);
      if (found == index.end()) unknown_name(row.location, row.key, names, "tasks");
      out[found->second] = row.split;
    }
    *how = fmt::format("by the column 'split' of {}", options.table.string());
  } else {
    const auto splits = random_splits(options, names.size(), "tasks");
    std::ranges::copy(splits, out.begin());
    *how = random_how(options);
  }
  std::vector<std::string> left;
  for (std::size_t g = 0; g < names.size(); ++g) {
    if (!out[g]) left.push_back(names[g]);
  }
  if (!left.empty()) {
    notes->push_back(
        fmt::format("left out: {} tasks that are in no split ({})", left.size(), name_some(left)));
  }
  return out;
}

void require_training(const std::vector<std::optional<Split>>& splits, const std::string& what,
                      const std::string& source) {
  if (std::ranges::find(splits, std::optional(Split::train)) == splits.end()) {
    throw Error(fmt::format("{}: no {} for training; expected at least one", source, what));
  }
}

}  // namespace kshot::data
