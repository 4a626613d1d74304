#include "engine/task_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "base/episode_stream.h"
#include "episodes/sample.h"

namespace kshot {
namespace {

std::string identity(const TaskMemory::Layout& layout, const std::string& run_id) {
  std::string text = fmt::format("run {}, {}", run_id,
                                 layout.precision == backend::Precision::f64 ? "f64" : "f32");
  for (const MemoryGroup& group : layout.groups) {
    text += fmt::format(", {} [{}]", group.name, group.width);
  }
  return text;
}

}  // namespace

std::size_t TaskMemory::Layout::width() const {
  std::size_t sum = 0;
  for (const MemoryGroup& group : groups) sum += group.width;
  return sum;
}

std::size_t TaskMemory::Layout::row_bytes() const {
  return width() * (precision == backend::Precision::f64 ? sizeof(double) : sizeof(float));
}

TaskMemory::TaskMemory(Layout layout)
    : layout_(std::move(layout)),
      store_(io::RowStore::in_memory(layout_.tasks, layout_.row_bytes())) {}

TaskMemory::TaskMemory(Layout layout, const std::filesystem::path& file, const std::string& run_id)
    : layout_(std::move(layout)),
      store_(io::RowStore::create(file, layout_.tasks, layout_.row_bytes(),
                                  identity(layout_, run_id))) {}

TaskMemory::TaskMemory(Layout layout, const std::filesystem::path& file, const std::string& run_id,
                       std::uint64_t step)
    : layout_(std::move(layout)),
      store_(io::RowStore::open(file, layout_.tasks, layout_.row_bytes(), identity(layout_, run_id),
                                step)) {}

bool TaskMemory::recall(std::uint64_t task, std::uint64_t since, std::span<double> row) const {
  const io::RowStore::State state = store_->newest(task);
  if (state.step <= since) return false;
  const auto read = [&](const auto* values) { std::copy_n(values, row.size(), row.begin()); };
  if (layout_.precision == backend::Precision::f64) {
    read(reinterpret_cast<const double*>(state.data.data()));
  } else {
    read(reinterpret_cast<const float*>(state.data.data()));
  }
  store_->check();
  return true;
}

void TaskMemory::keep(std::uint64_t task, std::uint64_t step, std::span<const double> row) {
  if (!std::ranges::all_of(row, [](double v) { return std::isfinite(v); })) return;
  if (layout_.precision == backend::Precision::f64) {
    store_->write(task, step, std::as_bytes(row));
    return;
  }
  thread_local std::vector<float> single;
  single.resize(row.size());
  std::ranges::transform(row, single.begin(), [](double v) { return static_cast<float>(v); });
  store_->write(task, step, std::as_bytes(std::span<const float>(single)));
}

std::vector<std::uint32_t> draw_members(std::uint64_t seed, std::uint64_t step, std::uint64_t tasks,
                                        int count) {
  // no task of the meta-batch has this number
  RandomStream stream = episode_stream({.seed = seed, .step = step, .task = 0xffffffffu});
  std::vector<std::uint32_t> members(static_cast<std::size_t>(count));
  sample_without_replacement(stream, static_cast<std::uint32_t>(tasks), members);
  return members;
}

std::string new_run_id() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", device(), device());
}

}  // namespace kshot
