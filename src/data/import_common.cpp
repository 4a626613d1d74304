#include "data/import_common.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "io/npy.h"
#include "kshot/error.h"

namespace kshot::data {
namespace {}  // namespace

ArrayReference parse_array_reference(const std::string& text) {
  const std::string folded = lower_case(text);
  for (const char* suffix : {".npz:", ".npy:"}) {
    const auto at = folded.rfind(suffix);
    if (at != std::string::npos) return {text.substr(0, at + 4), text.substr(at + 5)};
  }
  return {text, ""};
}

bool is_array_file(const std::string& reference) {
  const std::filesystem::path file = parse_array_reference(reference).file;
  return lower_case(file.extension().string()) == ".npy" || is_npz(file);
}

bool is_npz(const std::filesystem::path& file) {
  return lower_case(file.extension().string()) == ".npz";
}

std::optional<io::Tensor> find_array(const ArrayReference& reference,
                                     const std::vector<std::string>& usual_names) {
  const std::vector<std::string> names = io::npz_names(reference.file);
  std::vector<std::string> candidates = usual_names;
  if (!reference.part.empty()) candidates = {reference.part};
  for (const std::string& name : candidates) {
    if (std::ranges::find(names, name) != names.end())
      return io::read_npz_array(reference.file, name);
  }
  return {};
}

io::Tensor read_array(const ArrayReference& reference,
                      const std::vector<std::string>& usual_names) {
  if (!is_npz(reference.file)) return io::read_npy(reference.file);
  if (auto found = find_array(reference, usual_names)) return std::move(*found);
  const std::vector<std::string> names = io::npz_names(reference.file);
  if (reference.part.empty() && names.size() == 1) {
    return io::read_npz_array(reference.file, names.front());
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
  // The square root is 0 or NaN where the squares of the differences underflow or overflow.
  return deviation > 0.0 ? deviation : 1.0;
}

void note_bad_pictures(const std::vector<std::string>& bad, std::vector<std::string>* notes) {
  constexpr std::size_t most = 100;
  if (bad.empty()) return;
  notes->push_back(fmt::format("left out: {} pictures that cannot be read", bad.size()));
  for (std::size_t i = 0; i < std::min(bad.size(), most); ++i) notes->push_back("  " + bad[i]);
  if (bad.size() > most) notes->push_back(fmt::format("  and {} more", bad.size() - most));
}

std::vector<std::pair<std::string, std::string>> provenance_of(
    const std::string& import, const std::vector<std::string>& sources,
    const std::string& division) {
  return {{"program", "kshot " KSHOT_VERSION},
          {"import", import},
          {"sources", fmt::format("{}", fmt::join(sources, ", "))},
          {"divided", division}};
}

ImportSummary finish(DatasetWriter* writer, const ImportCommon& options, std::string division,
                     std::vector<std::string> notes) {
  ImportSummary summary;
  summary.output = options.output;
  summary.header = writer->commit();
  summary.bytes = std::filesystem::file_size(options.output);
  summary.division = std::move(division);
  summary.notes = std::move(notes);
  return summary;
}

}  // namespace kshot::data
