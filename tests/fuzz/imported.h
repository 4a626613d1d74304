// Helpers for fuzz targets that run a whole import.
#pragma once

#include <cmath>
#include <vector>

#include "data/dataset.h"
#include "data/import.h"
#include "fuzz/target.h"

namespace kshot::fuzz {

/// Reads everything that a data file holds.
inline void read_all(const data::Dataset& dataset) {
  const data::DatasetHeader& header = dataset.header();
  const std::uint64_t rows = header.rows();
  std::vector<float> x(static_cast<std::size_t>(header.input.size()));
  for (std::uint64_t row = 0; row < rows; ++row) {
    dataset.prefetch(row);
    dataset.read(row, x);
    if (header.kind != data::GroupKind::tasks) continue;
    if (header.target == TargetKind::label) {
      static_cast<void>(dataset.label(row));
    } else {
      require(dataset.value(row).size() == static_cast<std::size_t>(header.outputs),
              "a target has all outputs");
      static_cast<void>(dataset.value(row).back());
    }
  }
  std::size_t groups = 0;
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    groups += header.split_groups(split).size();
  }
  require(groups == header.groups.size(), "every group is in one split");
}

/// Runs an import to a new file. After a success, the file must open and hold only finite numbers.
/// After a failure, there must be no file.
template <typename Options, typename Import>
void check_import(Options& options, Import&& import) {
  static const std::filesystem::path output = input("folder", "").parent_path() / "imported.kshot";
  options.output = output;
  std::filesystem::remove(output);
  if (!accepts("", import)) {
    require(!std::filesystem::exists(output), "a failed import leaves no file");
    return;
  }
  const auto dataset = data::Dataset::open(output);
  read_all(*dataset);
  const data::DatasetHeader& header = dataset->header();
  std::vector<float> x(static_cast<std::size_t>(header.input.size()));
  for (std::uint64_t row = 0; row < header.rows(); ++row) {
    dataset->read(row, x);
    for (const float value : x) require(std::isfinite(value), "imported features are finite");
    if (header.kind != data::GroupKind::tasks || header.target == TargetKind::label) continue;
    for (const float value : dataset->value(row)) {
      require(std::isfinite(value), "imported targets are finite");
    }
  }
}

}  // namespace kshot::fuzz
