#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/episode_stream.h"
#include "episodes/sample.h"
#include "episodes/sources.h"
#include "kshot/error.h"

namespace kshot {
namespace {

class TableSource final : public EpisodeSource {
 public:
  TableSource(std::shared_ptr<const io::Dataset> data, const TableEpisodes& episodes)
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
    const std::int64_t wanted = std::int64_t{episodes_.shots} + episodes_.queries;
    for (std::size_t g = 0; g < header.groups.size(); ++g) {
      const io::Group& task = header.groups[g];
      groups_[static_cast<std::size_t>(task.split)].push_back(static_cast<std::uint32_t>(g));
      if (task.rows < (episodes_.variable_size ? 2 : wanted)) {
        throw Error(fmt::format(
            "{}: {} task '{}' has {} rows; {}", file, split_name(task.split), task.name, task.rows,
            episodes_.variable_size
                ? std::string("expected at least 2, one for support and one for query")
                : fmt::format("data.shots = {} and data.queries = {} need {} (or "
                              "data.variable_size = true)",
                              episodes_.shots, episodes_.queries, wanted)));
      }
    }
    if (groups_[0].empty()) throw Error(fmt::format("{}: has no train tasks", file));
  }

  TaskShape shape() const override {
    return {.input = data_->header().input,
            .outputs = data_->header().outputs,
            .target = data_->header().target,
            .support = episodes_.shots,
            .query = episodes_.queries};
  }

  void fill(const TaskId& id, const TaskSlot& slot) const override {
    const auto& groups = groups_[static_cast<std::size_t>(id.split)];
    if (groups.empty()) {
      throw Error(fmt::format("{}: has no {} tasks", data_->path().string(), split_name(id.split)));
    }
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
        episodes_.variable_size ? " at most" : "", groups_[0].size(), groups_[1].size(),
        groups_[2].size());
  }

  std::uint64_t training_tasks() const override { return groups_[0].size(); }
  double training_rows() const override {
    double rows = 0.0;
    for (const std::uint32_t g : groups_[0]) rows += data_->header().groups[g].rows;
    return rows / static_cast<double>(groups_[0].size());
  }

  bool has(Split split) const override { return !groups_[static_cast<std::size_t>(split)].empty(); }

  std::string preprocessing() const override { return data_->header().preprocessing.to_json(); }

 private:
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
  std::array<std::vector<std::uint32_t>, 3> groups_;
};

}  // namespace

std::unique_ptr<EpisodeSource> make_table_source(std::shared_ptr<const io::Dataset> data,
                                                 const TableEpisodes& episodes) {
  return std::make_unique<TableSource>(std::move(data), episodes);
}

}  // namespace kshot
