#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "base/episode_stream.h"
#include "episodes/sample.h"
#include "episodes/sources.h"
#include "episodes/split_groups.h"
#include "kshot/error.h"

namespace kshot {
namespace {

class TableSource final : public EpisodeSource {
 public:
  TableSource(std::shared_ptr<const io::Dataset> data, const TableEpisodes& episodes,
              std::span<const Split> used)
      : data_(std::move(data)), episodes_(episodes) {
    const std::string file = data_->path().string();
    const io::DatasetHeader& header = data_->header();
    if (header.kind != io::GroupKind::tasks) {
      throw Error(fmt::format("{}: holds classes; expected tasks", file));
    }
    if (episodes_.shots < 0 || episodes_.queries < 1) {
      throw Error(fmt::format("data.shots = {}, data.queries = {}: expected at least 0 and 1",
                              episodes_.shots, episodes_.queries));
    }
    splits_ = take_groups(header, used,
                          [this](Split split, const auto& groups) { return fault(split, groups); });
  }

  TaskShape shape() const override {
    return {.input = data_->header().input,
            .outputs = data_->header().outputs,
            .target = data_->header().target,
            .support = episodes_.shots,
            .query = episodes_.queries};
  }

  void fill(const TaskId& id, const TaskSlot& slot) const override {
    const auto& groups = splits_.groups[static_cast<std::size_t>(id.split)];
    if (groups.empty()) throw Error(splits_.faults[static_cast<std::size_t>(id.split)]);
    RandomStream tasks = episode_stream(id, 0);
    const std::size_t drawn_task = tasks.below(static_cast<std::uint32_t>(groups.size()));
    const bool given = id.split == Split::train && id.member >= 0;
    const io::Group& task =
        data_->header().groups[groups[given ? static_cast<std::size_t>(id.member) : drawn_task]];
    const std::size_t support =
        std::min<std::size_t>(static_cast<std::size_t>(episodes_.shots), task.rows - 1);
    const std::size_t query =
        std::min<std::size_t>(static_cast<std::size_t>(episodes_.queries), task.rows - support);
    thread_local std::vector<std::uint32_t> rows;
    rows.resize(support + query);
    RandomStream examples = episode_stream(id, 1);
    sample_without_replacement(examples, task.rows, rows);
    // Query rows first: where the task has enough, more shots leave them as they are.
    const std::span<const std::uint32_t> drawn = rows;
    gather(task, drawn.first(query), slot.query_x, slot.query_value, slot.query_label);
    gather(task, drawn.subspan(query), slot.support_x, slot.support_value, slot.support_label);
    *slot.support_n = static_cast<std::int32_t>(support);
    *slot.query_n = static_cast<std::int32_t>(query);
    data_->check();
  }

  std::string describe() const override {
    return fmt::format(
        "tasks of {}, {} support and {} query rows{}: {} train, {} validation, {} "
        "test tasks",
        data_->path().filename().string(), episodes_.shots, episodes_.queries,
        episodes_.variable_size ? " at most" : "", splits_.counts[0], splits_.counts[1],
        splits_.counts[2]);
  }

  std::uint64_t training_tasks() const override { return splits_.groups[0].size(); }
  double training_rows() const override {
    if (splits_.groups[0].empty()) return 0.0;
    double rows = 0.0;
    for (const std::uint32_t g : splits_.groups[0]) rows += data_->header().groups[g].rows;
    return rows / static_cast<double>(splits_.groups[0].size());
  }

  bool has(Split split) const override {
    return !splits_.groups[static_cast<std::size_t>(split)].empty();
  }

  std::string preprocessing() const override { return data_->header().preprocessing.to_json(); }

 private:
  /// Why no episodes can be drawn from a split; empty where they can.
  std::string fault(Split split, const std::vector<std::uint32_t>& groups) const {
    const std::string file = data_->path().string();
    if (groups.empty()) return fmt::format("{}: has no {} tasks", file, split_name(split));
    const std::int64_t wanted = std::int64_t{episodes_.shots} + episodes_.queries;
    for (const std::uint32_t g : groups) {
      const io::Group& task = data_->header().groups[g];
      if (task.rows >= (episodes_.variable_size ? 2 : wanted)) continue;
      return fmt::format("{}: {} task '{}' has {} rows; {}", file, split_name(split), task.name,
                         task.rows,
                         episodes_.variable_size
                             ? std::string("expected at least 2, one for support and one for query")
                             : fmt::format("data.shots = {} and data.queries = {} need {} (or "
                                           "data.variable_size = true)",
                                           episodes_.shots, episodes_.queries, wanted));
    }
    return {};
  }

  void gather(const io::Group& task, std::span<const std::uint32_t> rows, std::span<float> x,
              std::span<float> values, std::span<std::int32_t> labels) const {
    const auto d = static_cast<std::size_t>(data_->header().input.size());
    for (std::size_t k = 0; k < rows.size(); ++k) {
      const std::uint64_t row = task.first + rows[k];
      data_->read(row, x.subspan(k * d, d));
      if (data_->header().target == TargetKind::label) {
        labels[k] = data_->label(row);
      } else {
        const std::span<const float> value = data_->value(row);
        std::ranges::copy(value, values.subspan(k * value.size()).begin());
      }
    }
  }

  std::shared_ptr<const io::Dataset> data_;
  TableEpisodes episodes_;
  SplitGroups splits_;
};

}  // namespace

std::unique_ptr<EpisodeSource> make_table_source(std::shared_ptr<const io::Dataset> data,
                                                 const TableEpisodes& episodes,
                                                 std::span<const Split> used) {
  return std::make_unique<TableSource>(std::move(data), episodes, used);
}

}  // namespace kshot
