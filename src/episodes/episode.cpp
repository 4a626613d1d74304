#include "kshot/episode.h"

#include <algorithm>

#include "kshot/error.h"

namespace kshot {
namespace {

struct RowSizes {
  std::size_t support_x, query_x, support_value, query_value, support_label, query_label;
};

/// Returns the number of elements of each array for one task.
RowSizes row_sizes(const TaskShape& shape) {
  const auto features = static_cast<std::size_t>(shape.input.size());
  const auto support = static_cast<std::size_t>(shape.support);
  const auto query = static_cast<std::size_t>(shape.query);
  const bool values = shape.target == TargetKind::value;
  const std::size_t outputs = values ? static_cast<std::size_t>(shape.outputs) : 0;
  return {.support_x = support * features,
          .query_x = query * features,
          .support_value = support * outputs,
          .query_value = query * outputs,
          .support_label = values ? 0 : support,
          .query_label = values ? 0 : query};
}

template <typename T>
std::span<T> part(std::vector<T>& all, int task, std::size_t size) {
  return std::span<T>(all).subspan(static_cast<std::size_t>(task) * size, size);
}

}  // namespace

const char* split_name(Split split) {
  switch (split) {
    case Split::train:
      return "train";
    case Split::validation:
      return "validation";
    case Split::test:
      return "test";
  }
  return "?";
}

TaskBatch::TaskBatch(const TaskShape& shape, int tasks, bool double_precision)
    : shape_(shape), tasks_(tasks), double_(double_precision) {
  if (tasks < 0 || shape.input.size() <= 0 || shape.outputs <= 0 || shape.support < 0 ||
      shape.query < 0) {
    throw Error("task batch: sizes must not be negative, inputs and outputs at least 1");
  }
  const RowSizes rows = row_sizes(shape);
  const auto count = static_cast<std::size_t>(tasks);
  if (double_) {
    support_x64.resize(count * rows.support_x);
    query_x64.resize(count * rows.query_x);
    support_value64.resize(count * rows.support_value);
    query_value64.resize(count * rows.query_value);
  } else {
    support_x.resize(count * rows.support_x);
    query_x.resize(count * rows.query_x);
    support_value.resize(count * rows.support_value);
    query_value.resize(count * rows.query_value);
  }
  support_label.resize(count * rows.support_label);
  query_label.resize(count * rows.query_label);
  support_n.assign(count, shape.support);
  query_n.assign(count, shape.query);
  if (shape.ways_vary) ways.assign(count, shape.outputs);
}

TaskSlot TaskBatch::slot(int t) {
  if (double_) throw Error("task batch: slots are for single precision");
  if (t < 0 || t >= tasks_) throw Error("task batch: slot outside the batch");
  const RowSizes rows = row_sizes(shape_);
  const auto index = static_cast<std::size_t>(t);
  return {.support_x = part(support_x, t, rows.support_x),
          .query_x = part(query_x, t, rows.query_x),
          .support_value = part(support_value, t, rows.support_value),
          .query_value = part(query_value, t, rows.query_value),
          .support_label = part(support_label, t, rows.support_label),
          .query_label = part(query_label, t, rows.query_label),
          .support_n = &support_n[index],
          .query_n = &query_n[index],
          .ways = ways.empty() ? nullptr : &ways[index]};
}

void TaskBatch::draw(const EpisodeSource& source, TaskId id, std::uint32_t first,
                     std::span<const std::uint32_t> members) {
  if (double_) throw Error("task batch: members are drawn in single precision");
  if (members.size() > static_cast<std::size_t>(tasks_)) {
    throw Error("task batch: more tasks drawn than it has slots");
  }
  for (std::size_t t = 0; t < members.size(); ++t) {
    id.member = members[t];
    fill(source, id, first, static_cast<int>(t));
  }
}

void TaskBatch::fill(const EpisodeSource& source, TaskId id, std::uint32_t first, int t) {
  const TaskSlot target = slot(t);
  *target.support_n = shape_.support;
  *target.query_n = shape_.query;
  if (target.ways != nullptr) *target.ways = shape_.outputs;
  id.task = first + static_cast<std::uint32_t>(t);
  source.fill(id, target);
}

void TaskBatch::draw(const EpisodeSource& source, TaskId id, std::uint32_t first, int count) {
  if (count < 0 || count > tasks_) throw Error("task batch: more tasks drawn than it has slots");
  if (double_) {  // tasks are drawn in single precision, one at a time, and widened
    const RowSizes rows = row_sizes(shape_);
    TaskBatch one(shape_, 1);
    for (int t = 0; t < count; ++t) {
      one.draw(source, id, first + static_cast<std::uint32_t>(t), 1);
      std::ranges::copy(one.support_x, part(support_x64, t, rows.support_x).begin());
      std::ranges::copy(one.query_x, part(query_x64, t, rows.query_x).begin());
      std::ranges::copy(one.support_value, part(support_value64, t, rows.support_value).begin());
      std::ranges::copy(one.query_value, part(query_value64, t, rows.query_value).begin());
      std::ranges::copy(one.support_label, part(support_label, t, rows.support_label).begin());
      std::ranges::copy(one.query_label, part(query_label, t, rows.query_label).begin());
      support_n[static_cast<std::size_t>(t)] = one.support_n[0];
      query_n[static_cast<std::size_t>(t)] = one.query_n[0];
      if (!ways.empty()) ways[static_cast<std::size_t>(t)] = one.ways[0];
    }
    return;
  }
  for (int t = 0; t < count; ++t) fill(source, id, first, t);
}

}  // namespace kshot
