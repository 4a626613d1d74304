#include "engine/task_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "base/episode_stream.h"
#include "engine/checkpoint.h"
#include "episodes/sample.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;

std::string identity(const TaskMemory::Layout& layout, const std::string& run_id) {
  std::string text = fmt::format("run {}, {}", run_id,
                                 layout.precision == backend::Precision::f64 ? "f64" : "f32");
  for (const MemoryGroup& group : layout.groups) {
    text += fmt::format(", {} [{}]", group.name, group.width);
  }
  if (layout.ranks > 1) text += fmt::format(", rank {} of {}", layout.rank, layout.ranks);
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
      first_(layout_.owners().first()),
      end_(first_ + layout_.owners().count()),
      store_(io::RowStore::in_memory(end_ - first_, layout_.row_bytes())) {}

TaskMemory::TaskMemory(Layout layout, const fs::path& folder, const std::string& run_id)
    : layout_(std::move(layout)),
      first_(layout_.owners().first()),
      end_(first_ + layout_.owners().count()),
      store_(io::RowStore::create(folder / file_name(layout_.rank, layout_.ranks), end_ - first_,
                                  layout_.row_bytes(), identity(layout_, run_id))) {}

TaskMemory::TaskMemory(Layout layout, const fs::path& folder, const std::string& run_id,
                       std::uint64_t step)
    : layout_(std::move(layout)),
      first_(layout_.owners().first()),
      end_(first_ + layout_.owners().count()),
      store_(io::RowStore::open(folder / file_name(layout_.rank, layout_.ranks), end_ - first_,
                                layout_.row_bytes(), identity(layout_, run_id), step)) {}

std::string TaskMemory::file_name(int rank, int ranks) {
  return ranks == 1 ? memory_file : fmt::format("tasks-{}-of-{}.store", rank, ranks);
}

void TaskMemory::divide_again(Layout layout, int before, const fs::path& folder,
                              const std::string& run_id, std::uint64_t step) {
  Layout old = layout;
  old.ranks = before;
  std::vector<std::unique_ptr<TaskMemory>> from;
  for (old.rank = 0; old.rank < before; ++old.rank) {
    from.push_back(std::make_unique<TaskMemory>(old, folder, run_id, step));
  }
  for (layout.rank = 0; layout.rank < layout.ranks; ++layout.rank) {
    TaskMemory to(layout, folder, run_id);
    for (std::uint64_t task = to.first_; task < to.end_; ++task) {
      const TaskMemory& of = *from[static_cast<std::size_t>(old.owners().rank_of(task))];
      const io::RowStore::State state = of.store_->newest(of.row_of(task));
      if (state.step == 0) continue;
      to.store_->write(to.row_of(task), state.step, state.data);
      of.store_->check();
    }
    to.sync();
    to.commit(step);
  }
}

void TaskMemory::remove_others(const fs::path& folder, int ranks) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!is_memory_file(name)) continue;
    const bool ours =
        ranks == 1 ? name == memory_file : name.ends_with(fmt::format("-of-{}.store", ranks));
    if (!ours) fs::remove(entry.path(), ignored);
  }
}

std::uint64_t TaskMemory::row_of(std::uint64_t task) const {
  if (task < first_ || task >= end_) throw std::logic_error("a task of another rank");
  return task - first_;
}

bool TaskMemory::recall(std::uint64_t task, std::uint64_t since, std::span<double> row) const {
  const io::RowStore::State state = store_->newest(row_of(task));
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
    store_->write(row_of(task), step, std::as_bytes(row));
    return;
  }
  thread_local std::vector<float> single;
  single.resize(row.size());
  std::ranges::transform(row, single.begin(), [](double v) { return static_cast<float>(v); });
  store_->write(row_of(task), step, std::as_bytes(std::span<const float>(single)));
}

std::vector<std::uint32_t> draw_members(std::uint64_t seed, std::uint64_t step, std::uint64_t tasks,
                                        int count) {
  // No task of the meta-batch has this number.
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
