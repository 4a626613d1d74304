#include "io/import_common.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <numeric>
#include <unordered_map>

#include "io/atomic_file.h"
#include "io/csv.h"
#include "io/npy.h"
#include "kshot/error.h"
#include "kshot/random.h"

namespace kshot::io {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return out;
}

std::string trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\r") - first + 1));
}

/// Lines of a text file that are not blank, with their numbers from 1.
std::vector<std::pair<std::size_t, std::string>> text_lines(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  std::vector<std::pair<std::size_t, std::string>> out;
  std::size_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    ++number;
    std::string line = trimmed(std::string_view(text).substr(at, end - at));
    if (!line.empty()) out.emplace_back(number, std::move(line));
    at = end + 1;
  }
  return out;
}

}  // namespace

std::optional<Split> split_from_name(std::string_view name) {
  const std::string text = lower(trimmed(name));
  if (text == "train" || text == "training") return Split::train;
  if (text == "val" || text == "valid" || text == "validation") return Split::validation;
  if (text == "test") return Split::test;
  return {};
}

std::vector<ListedName> read_split_lists(const SplitOptions& options) {
  std::vector<ListedName> out;
  std::unordered_map<std::string, std::string> seen;
  for (const auto& [split, path] : options.lists) {
    const auto lines = text_lines(path);
    if (lines.empty()) {
      throw Error(fmt::format("{}: empty; expected one name a line", path.string()));
    }
    for (const auto& [number, line] : lines) {
      ListedName entry{split, line, fmt::format("{}, line {}", path.string(), number)};
      const auto [first, fresh] = seen.emplace(entry.name, entry.where);
      if (!fresh) {
        throw Error(fmt::format("{}: '{}' is already in {}; expected every name once", entry.where,
                                entry.name, first->second));
      }
      out.push_back(std::move(entry));
    }
  }
  return out;
}

std::vector<GroupRow> read_group_table(const std::filesystem::path& path) {
  const Table table = read_name_table(path);
  const auto split_column = table.find("split");
  std::optional<std::size_t> name_column;
  for (std::size_t c = 1; c < table.columns.size(); ++c) {
    const std::string& name = table.columns[c].name;
    if (name == "name" || name == "class") name_column = c;
  }
  if (!name_column && table.columns.size() > 1 && split_column != 1) name_column = 1;
  std::vector<GroupRow> out;
  std::unordered_map<std::string, std::string> seen;
  for (std::size_t row = 0; row < table.rows; ++row) {
    GroupRow entry;
    entry.where = table.where(row);
    entry.key = trimmed(table.columns[0].text[row]);
    entry.name = name_column ? trimmed(table.columns[*name_column].text[row]) : entry.key;
    const auto [first, fresh] = seen.emplace(entry.key, entry.where);
    if (!fresh) {
      throw Error(fmt::format("{}: '{}' is already in {}; expected every {} once", entry.where,
                              entry.key, first->second, table.columns[0].name));
    }
    if (split_column) {
      const std::string& text = table.columns[*split_column].text[row];
      entry.split = split_from_name(text);
      if (!entry.split) {
        throw Error(
            fmt::format("{}: column 'split' holds '{}'; expected train, validation (val) or test",
                        entry.where, text));
      }
    }
    out.push_back(std::move(entry));
  }
  return out;
}

std::vector<std::optional<Split>> fraction_splits(const SplitOptions& options, std::size_t count,
                                                  const std::string& what) {
  std::vector<double> shares = options.fractions;
  if (shares.empty()) shares = {0.64, 0.16, 0.2};
  const auto valid = [](double share) { return std::isfinite(share) && share >= 0; };
  if (shares.size() != 3 || !std::ranges::all_of(shares, valid) ||
      std::abs(std::accumulate(shares.begin(), shares.end(), 0.0) - 1.0) > 1e-6) {
    throw Error(fmt::format(
        "--fractions {}: expected three shares of train, validation and test that add up to 1",
        fmt::join(shares, ",")));
  }
  // Shares of the whole by rounded cumulative sums; what is wanted gets at least one where it can.
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
          fmt::format("--fractions {}: of {} {} none is left for {}; expected other shares "
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
  std::vector<std::optional<Split>> out(count);
  std::size_t at = 0;
  for (std::size_t s = 0; s < 3; ++s) {
    for (std::size_t k = 0; k < sizes[s]; ++k) out[order[at++]] = static_cast<Split>(s);
  }
  return out;
}

std::vector<std::optional<Split>> assign_splits(const SplitOptions& options,
                                                const std::vector<std::string>& names,
                                                const std::string& what,
                                                std::vector<std::string>* notes) {
  if (options.lists.empty() && options.table.empty()) {
    return fraction_splits(options, names.size(), what);
  }
  std::unordered_map<std::string, std::size_t> index;
  for (std::size_t g = 0; g < names.size(); ++g) index.emplace(names[g], g);
  std::vector<std::optional<Split>> out(names.size());
  const auto assign = [&](const std::string& name, Split split, const std::string& where) {
    const auto found = index.find(name);
    if (found == index.end()) {
      throw Error(fmt::format("{}: '{}' is not among the data's {} {} ('{}', ...)", where, name,
                              names.size(), what, names.front()));
    }
    out[found->second] = split;
  };
  if (!options.lists.empty()) {
    for (const ListedName& entry : read_split_lists(options)) {
      assign(entry.name, entry.split, entry.where);
    }
  } else {
    for (const GroupRow& row : read_group_table(options.table)) {
      if (!row.split) {
        throw Error(fmt::format("{}: no column 'split'", options.table.string()));
      }
      assign(row.key, *row.split, row.where);
    }
  }
  const auto left = std::ranges::count_if(out, [](const auto& split) { return !split; });
  if (left > 0) notes->push_back(fmt::format("{} {} are in no split and left out", left, what));
  return out;
}

void require_training(const std::vector<std::optional<Split>>& splits, const std::string& what,
                      const std::string& source) {
  if (std::ranges::find(splits, std::optional(Split::train)) == splits.end()) {
    throw Error(fmt::format("{}: no {} for training; expected at least one", source, what));
  }
}

ArrayReference parse_array_reference(const std::string& text) {
  const std::string folded = lower(text);
  for (const char* suffix : {".npz:", ".npy:"}) {
    const auto at = folded.rfind(suffix);
    if (at != std::string::npos) return {text.substr(0, at + 4), text.substr(at + 5)};
  }
  return {text, ""};
}

bool is_array_file(const std::string& reference) {
  const std::filesystem::path file = parse_array_reference(reference).file;
  return lower(file.extension().string()) == ".npy" || is_npz(file);
}

bool is_npz(const std::filesystem::path& file) {
  return lower(file.extension().string()) == ".npz";
}

std::optional<Tensor> find_array(const ArrayReference& reference,
                                 const std::vector<std::string>& usual_names) {
  const std::vector<std::string> names = npz_names(reference.file);
  std::vector<std::string> wanted = usual_names;
  if (!reference.part.empty()) wanted = {reference.part};
  for (const std::string& name : wanted) {
    if (std::ranges::find(names, name) != names.end()) return read_npz_array(reference.file, name);
  }
  return {};
}

Tensor read_array(const ArrayReference& reference, const std::vector<std::string>& usual_names) {
  if (!is_npz(reference.file)) return read_npy(reference.file);
  if (auto found = find_array(reference, usual_names)) return std::move(*found);
  const std::vector<std::string> names = npz_names(reference.file);
  if (reference.part.empty() && names.size() == 1) {
    return read_npz_array(reference.file, names.front());
  }
  throw Error(fmt::format(
      "{}: expected {}; it holds {}", reference.file.string(),
      reference.part.empty()
          ? fmt::format("an array called {} (or name one: {}:NAME)", fmt::join(usual_names, ", "),
                        reference.file.filename().string())
          : fmt::format("an array called '{}'", reference.part),
      names.empty() ? "nothing" : fmt::format("{}", fmt::join(names, ", "))));
}

double ColumnStatistics::deviation(std::size_t column) const {
  if (constant(column)) return 1.0;
  const double deviation = std::sqrt(square_[column] / static_cast<double>(n_[column]));
  return deviation > 0.0 ? deviation : 1.0;  // differences whose squares are not numbers
}

std::string header_text(std::string name) {
  if (is_utf8(name)) return name;
  for (char& c : name) {
    if (static_cast<unsigned char>(c) >= 0x80) c = '?';
  }
  return name;
}

std::vector<std::pair<std::string, std::string>> provenance_of(
    const std::string& import, const std::vector<std::string>& sources,
    const SplitOptions& splits) {
  std::vector<std::pair<std::string, std::string>> out{
      {"program", "kshot " KSHOT_VERSION},
      {"import", import},
      {"sources", header_text(fmt::format("{}", fmt::join(sources, ", ")))}};
  if (!splits.lists.empty()) {
    std::string lists;
    for (const auto& [split, path] : splits.lists) {
      lists += fmt::format("{}{}={}", lists.empty() ? "" : ", ", split_name(split), path.string());
    }
    out.emplace_back("splits", header_text(lists));
  } else if (!splits.table.empty()) {
    out.emplace_back("splits", header_text(splits.table.string()));
  } else if (splits.fractions.size() == 3) {
    out.emplace_back("splits", fmt::format("fractions {} with seed {}",
                                           fmt::join(splits.fractions, ","), splits.seed));
  }
  return out;
}

ImportSummary finish(DatasetWriter* writer, const ImportCommon& options,
                     std::vector<std::string> notes) {
  ImportSummary summary;
  summary.output = options.output;
  summary.header = writer->commit();
  summary.bytes = std::filesystem::file_size(options.output);
  summary.notes = std::move(notes);
  return summary;
}

}  // namespace kshot::io
