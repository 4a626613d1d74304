#include "backend/row_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <span>
#include <type_traits>

#include "kshot/error.h"

namespace kshot::backend {
namespace {

/// One set of a batch: its arrays, and the largest number of rows per task.
struct RowArrays {
  const char* name;
  int rows;
  const std::vector<std::int32_t>& counts;
  const std::vector<std::int32_t>& labels;
  const std::vector<float>& x;
  const std::vector<float>& values;
  const std::vector<double>& x64;
  const std::vector<double>& values64;
};

RowArrays arrays_of(const TaskBatch& batch, Set set) {
  if (set == Set::support) {
    return {"support",       batch.shape().support, batch.support_n,   batch.support_label,
            batch.support_x, batch.support_value,   batch.support_x64, batch.support_value64};
  }
  return {"query",       batch.shape().query, batch.query_n,   batch.query_label,
          batch.query_x, batch.query_value,   batch.query_x64, batch.query_value64};
}

const char* target_name(TargetKind kind) {
  return kind == TargetKind::label ? "labels" : "values";
}

void check_shape(const TaskBatch& batch, const RowLimits& limits) {
  const TaskShape& shape = batch.shape();
  const int targets = limits.shape.targets > 0 ? limits.shape.targets : limits.network.outputs();
  if (shape.input.size() != limits.network.input().size() || shape.outputs != targets) {
    throw Error(fmt::format("task batch: rows of {} inputs and {} outputs, expected {} and {}",
                            shape.input.size(), shape.outputs, limits.network.input().size(),
                            targets));
  }
  const TargetKind expected =
      limits.loss == LossKind::cross_entropy ? TargetKind::label : TargetKind::value;
  if (shape.target != expected) {
    throw Error(fmt::format("task batch: targets are {}, expected {} for this loss",
                            target_name(shape.target), target_name(expected)));
  }
  if (shape.support > limits.shape.support || shape.query > limits.shape.query) {
    throw Error(fmt::format(
        "task batch: tasks of up to {} support and {} query rows, expected at most {} and {}",
        shape.support, shape.query, limits.shape.support, limits.shape.query));
  }
}

/// Checks the lengths of the arrays. They are public members, so a caller may have set other
/// lengths than the batch's shape says.
void check_lengths(const TaskBatch& batch, const RowArrays& set) {
  const auto check = [&](const char* what, std::size_t got, std::size_t per_task) {
    const std::size_t expected = count_of(batch.tasks()) * per_task;
    if (got == expected) return;
    throw Error(fmt::format("task batch: {} {} {}, expected {} for {} tasks", got, set.name, what,
                            expected, batch.tasks()));
  };
  const TaskShape& shape = batch.shape();
  const std::size_t rows = count_of(set.rows);
  check("row counts", set.counts.size(), 1);
  check("features", batch.is_double() ? set.x64.size() : set.x.size(),
        rows * count_of(shape.input.size()));
  if (shape.target == TargetKind::label) {
    check("labels", set.labels.size(), rows);
  } else {
    check("target values", batch.is_double() ? set.values64.size() : set.values.size(),
          rows * count_of(shape.outputs));
  }
}

void check_ways(const TaskBatch& batch, int t, std::size_t global) {
  if (const int ways = batch.ways_of(t); ways < 1 || ways > batch.shape().outputs) {
    throw Error(
        fmt::format("task {}: {} classes, expected 1 to {}", global, ways, batch.shape().outputs));
  }
}

void check_count(const RowArrays& set, int t, std::size_t global) {
  const std::int32_t valid = set.counts[count_of(t)];
  if (valid < 0 || valid > set.rows) {
    throw Error(
        fmt::format("task {}: {} {} rows, expected 0 to {}", global, valid, set.name, set.rows));
  }
}

/// The labels of the valid rows of task `t` of the batch. The task's count must have been checked.
std::span<const std::int32_t> labels_of(const RowArrays& set, int t) {
  return std::span(set.labels)
      .subspan(count_of(t) * count_of(set.rows), count_of(set.counts[count_of(t)]));
}

void check_labels(const TaskBatch& batch, const RowArrays& set, int t, std::size_t global) {
  const int ways = batch.ways_of(t);
  const std::span<const std::int32_t> labels = labels_of(set, t);
  for (std::size_t row = 0; row < labels.size(); ++row) {
    if (labels[row] < 0 || labels[row] >= ways) {
      throw Error(fmt::format("task {}, {} row {}: label {}, expected a class index from 0 to {}",
                              global, set.name, row, labels[row], ways - 1));
    }
  }
}

/// Throws Error where a class of a task has no support row. The task's labels must have been
/// checked.
void check_every_class(const TaskBatch& batch, const RowArrays& support, int t,
                       std::size_t global) {
  std::vector<char> seen(count_of(batch.ways_of(t)), 0);
  for (const std::int32_t label : labels_of(support, t)) seen[count_of(label)] = 1;
  const auto missing = std::ranges::find(seen, 0);
  if (missing == seen.end()) return;
  throw Error(fmt::format(
      "class {} of task {} has no support row: expected at least one row of each of its {} classes",
      missing - seen.begin(), global, seen.size()));
}

/// Whether all values are finite. Exponents are compared as integers, so that the compiler
/// vectorizes the loop without fast-math.
template <typename T>
bool finite(std::span<const T> values) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr Bits exponent = std::bit_cast<Bits>(std::numeric_limits<T>::infinity());
  Bits found = 0;
  for (const T v : values) {
    found |= static_cast<Bits>((std::bit_cast<Bits>(v) & exponent) == exponent);
  }
  return found == 0;
}

}  // namespace

void check_rows(const TaskBatch& batch, int first, int count, std::uint32_t global_first,
                const RowLimits& limits) {
  if (count < 1 || count > limits.tasks || first < 0 || first > batch.tasks() - count) {
    throw Error(
        fmt::format("task batch: tasks {} to {} asked for, expected 1 to {} tasks of its {}", first,
                    std::int64_t{first} + count - 1, limits.tasks, batch.tasks()));
  }
  check_shape(batch, limits);
  const RowArrays sets[] = {arrays_of(batch, Set::support), arrays_of(batch, Set::query)};
  for (const RowArrays& set : sets) check_lengths(batch, set);
  if (!batch.ways.empty() && batch.ways.size() != count_of(batch.tasks())) {
    throw Error(fmt::format("task batch: {} numbers of classes, expected {} or none",
                            batch.ways.size(), batch.tasks()));
  }
  for (int t = first; t < first + count; ++t) {
    const std::size_t global = std::size_t{global_first} + count_of(t - first);
    for (const RowArrays& set : sets) check_count(set, t, global);
    if (batch.shape().target != TargetKind::label) continue;
    check_ways(batch, t, global);
    for (const RowArrays& set : sets) check_labels(batch, set, t, global);
    if (limits.shape.every_class) check_every_class(batch, sets[0], t, global);
  }
}

std::vector<char> find_not_finite(const TaskBatch& batch, int first, int count) {
  const TaskShape& shape = batch.shape();
  std::vector<char> flags;
  for (int t = 0; t < count; ++t) {
    bool all = true;
    for (const Set which : {Set::support, Set::query}) {
      const RowArrays set = arrays_of(batch, which);
      const auto check = [&](const auto& numbers, int width) {
        const std::size_t per_row = count_of(width);
        const std::size_t start = count_of(first + t) * count_of(set.rows) * per_row;
        const std::size_t valid = count_of(set.counts[count_of(first + t)]);
        all = all && finite(std::span(numbers).subspan(start, valid * per_row));
      };
      batch.is_double() ? check(set.x64, shape.input.size()) : check(set.x, shape.input.size());
      if (shape.target == TargetKind::label) continue;
      batch.is_double() ? check(set.values64, shape.outputs) : check(set.values, shape.outputs);
    }
    if (all) continue;
    flags.resize(count_of(count), 0);
    flags[count_of(t)] = 1;
  }
  return flags;
}

}  // namespace kshot::backend
