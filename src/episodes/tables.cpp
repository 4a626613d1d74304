#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "base/episode_stream.h"
#include "base/text.h"
#include "episodes/draw_count.h"
#include "episodes/sample.h"
#include "episodes/sources.h"
#include "episodes/split_groups.h"
#include "kshot/error.h"

namespace kshot {
namespace {

class TableSource final : public EpisodeSource {
 public:
  TableSource(std::shared_ptr<const data::Dataset> data, const TableEpisodes& episodes,
              std::span<const Split> used)
      : data_(std::move(data)), episodes_(episodes) {
    const std::string file = data_->path().string();
    const data::DatasetHeader& header = data_->header();
    if (header.kind != data::GroupKind::tasks) {
      throw Error(fmt::format("{}: holds classes; expected tasks", file));
    }
    if (episodes_.shots.least < 0 || episodes_.queries.least < 1) {
      throw Error(fmt::format("data.shots = {}, data.queries = {}: expected at least 0 and 1",
                              count_text(episodes_.shots), count_text(episodes_.queries)));
    }
    if (episodes_.stratified) {
      if (header.target != TargetKind::label) {
        throw Error(
            fmt::format("data.stratified: the targets of {} are numbers; expected labels", file));
      }
      if (header.outputs >= static_cast<int>(ways_part)) {
        throw Error(fmt::format("data.stratified: {} has {} labels; expected fewer than {}", file,
                                header.outputs, static_cast<int>(ways_part)));
      }
      divide_by_class();
    }
    const auto keep = [this](std::uint32_t g) { return fault_of(g).empty(); };
    splits_ = take_groups(
        header, used, [this](Split split, const auto& groups) { return fault(split, groups); },
        episodes_.skip_small ? std::function<bool(std::uint32_t)>(keep) : nullptr);
  }

  TaskShape shape() const override {
    const data::DatasetHeader& header = data_->header();
    const int sets = episodes_.stratified ? header.outputs : 1;
    return {.input = header.input,
            .outputs = header.outputs,
            .target = header.target,
            .support = sets * episodes_.shots.most,
            .query = sets * episodes_.queries.most};
  }

  void fill(const TaskId& id, const TaskSlot& slot) const override {
    const auto& groups = splits_.groups[static_cast<std::size_t>(id.split)];
    if (groups.empty()) throw Error(splits_.faults[static_cast<std::size_t>(id.split)]);
    RandomStream tasks = episode_stream(id, 0);
    const std::size_t drawn_task = tasks.below(static_cast<std::uint32_t>(groups.size()));
    const bool given = id.split == Split::train && id.member >= 0;
    const std::uint32_t g = groups[given ? static_cast<std::size_t>(id.member) : drawn_task];
    const data::Group& task = data_->header().groups[g];
    const auto shots = static_cast<std::size_t>(draw_count(id, shots_part, episodes_.shots));
    const auto queries = static_cast<std::size_t>(draw_count(id, queries_part, episodes_.queries));
    Place place;
    if (!episodes_.stratified) {
      draw_rows(id, 1, task, {}, task.rows, shots, queries, slot, place);
    } else {
      std::uint32_t part = 1;
      for (const std::vector<std::uint32_t>& rows : by_class_[g]) {
        if (!rows.empty()) {
          draw_rows(id, part, task, rows, static_cast<std::uint32_t>(rows.size()), shots, queries,
                    slot, place);
        }
        ++part;
      }
    }
    *slot.support_n = static_cast<std::int32_t>(place.support);
    *slot.query_n = static_cast<std::int32_t>(place.query);
    data_->check();
  }

  std::string describe() const override {
    std::string text = fmt::format(
        "tasks of {}, {} support and {} query rows{}{}: {} train, {} validation, {} "
        "test tasks",
        data_->path().filename().string(), count_text(episodes_.shots),
        count_text(episodes_.queries), episodes_.stratified ? " of each class" : "",
        episodes_.variable_size ? " at most" : "", splits_.counts[0], splits_.counts[1],
        splits_.counts[2]);
    if (episodes_.skip_small) {
      text += fmt::format("; {}, {} and {} with too few rows are left out", splits_.skipped[0],
                          splits_.skipped[1], splits_.skipped[2]);
    }
    return text;
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
  /// Numbers of rows of a slot that are filled so far.
  struct Place {
    std::size_t support = 0, query = 0;
  };

  /// Sorts the rows of each task by class.
  void divide_by_class() {
    const data::DatasetHeader& header = data_->header();
    by_class_.resize(header.groups.size());
    for (std::size_t g = 0; g < by_class_.size(); ++g) {
      by_class_[g].resize(static_cast<std::size_t>(header.outputs));
      for (std::uint32_t row = 0; row < header.groups[g].rows; ++row) {
        const std::int32_t label = data_->label(header.groups[g].first + row);
        by_class_[g].at(static_cast<std::size_t>(label)).push_back(row);
      }
    }
    data_->check();
  }

  /// Returns the reason why a set of rows that are drawn together is too small, or an empty text.
  std::string too_few(std::size_t rows) const {
    const std::int64_t needed = std::int64_t{episodes_.shots.most} + episodes_.queries.most;
    const bool enough = static_cast<std::int64_t>(rows) >= (episodes_.variable_size ? 2 : needed);
    if (enough) return {};
    return episodes_.variable_size
               ? std::string("expected at least 2, one for support and one for query")
               : fmt::format(
                     "data.shots = {} and data.queries = {} need {} (or "
                     "data.variable_size = true)",
                     count_text(episodes_.shots), count_text(episodes_.queries), needed);
  }

  /// Returns the reason why no episodes can be drawn from a task ("'t2' has 4 rows; ..."), or an
  /// empty text.
  std::string fault_of(std::uint32_t g) const {
    const data::Group& task = data_->header().groups[g];
    if (!episodes_.stratified) {
      const std::string why = too_few(task.rows);
      return why.empty()
                 ? why
                 : fmt::format("'{}' has {} rows; {}", printable(task.name), task.rows, why);
    }
    std::size_t classes = 0;
    for (std::size_t c = 0; c < by_class_[g].size(); ++c) {
      const std::size_t rows = by_class_[g][c].size();
      if (rows == 0) continue;
      ++classes;
      const std::string why = too_few(rows);
      if (why.empty()) continue;
      return fmt::format("'{}' has {} rows of class {}; {}", printable(task.name), rows, c, why);
    }
    if (classes >= 2) return {};
    return fmt::format("'{}' has rows of {} class; data.stratified needs at least 2 classes",
                       printable(task.name), classes);
  }

  /// Returns the reason why no episodes can be drawn from a split, or an empty text.
  std::string fault(Split split, const std::vector<std::uint32_t>& groups) const {
    const std::string file = data_->path().string();
    if (groups.empty()) {
      const std::size_t all = data_->header().split_groups(split).size();
      return all == 0 ? fmt::format("{}: has no {} tasks", file, split_name(split))
                      : fmt::format(
                            "{}: all {} {} tasks have too few rows for data.shots = {} and "
                            "data.queries = {}",
                            file, all, split_name(split), count_text(episodes_.shots),
                            count_text(episodes_.queries));
    }
    for (const std::uint32_t g : groups) {
      const std::string why = fault_of(g);
      if (why.empty()) continue;
      return fmt::format("{}: {} task {}, or data.small_tasks = \"skip\" leaves such tasks out",
                         file, split_name(split), why);
    }
    return {};
  }

  /// Draws support and query rows without replacement from the rows `among` of a task (empty: from
  /// all). Writes them to the slot at `place`, and advances `place`.
  void draw_rows(const TaskId& id, std::uint32_t part, const data::Group& task,
                 std::span<const std::uint32_t> among, std::uint32_t count, std::size_t shots,
                 std::size_t queries, const TaskSlot& slot, Place& place) const {
    const std::size_t support = std::min<std::size_t>(shots, count - 1);
    const std::size_t query = std::min<std::size_t>(queries, count - support);
    thread_local std::vector<std::uint32_t> rows;
    rows.resize(support + query);
    RandomStream examples = episode_stream(id, part);
    sample_without_replacement(examples, count, rows);
    if (!among.empty()) {
      for (std::uint32_t& row : rows) row = among[row];
    }
    // Query rows come first. If the task has enough rows, more shots do not change them.
    const std::span<const std::uint32_t> drawn = rows;
    gather(task, drawn.first(query), place.query, slot.query_x, slot.query_value, slot.query_label);
    gather(task, drawn.subspan(query), place.support, slot.support_x, slot.support_value,
           slot.support_label);
    place.query += query;
    place.support += support;
  }

  /// Reads rows of a task into the rows of a slot, beginning at row `at`.
  void gather(const data::Group& task, std::span<const std::uint32_t> rows, std::size_t at,
              std::span<float> x, std::span<float> values, std::span<std::int32_t> labels) const {
    const auto d = static_cast<std::size_t>(data_->header().input.size());
    for (std::size_t k = 0; k < rows.size(); ++k) {
      const std::uint64_t row = task.first + rows[k];
      data_->read(row, x.subspan((at + k) * d, d));
      if (data_->header().target == TargetKind::label) {
        labels[at + k] = data_->label(row);
      } else {
        const std::span<const float> value = data_->value(row);
        std::ranges::copy(value, values.subspan((at + k) * value.size()).begin());
      }
    }
  }

  std::shared_ptr<const data::Dataset> data_;
  TableEpisodes episodes_;
  SplitGroups splits_;
  /// Rows of each class of each task, as [group][class][row]. Only if stratified.
  std::vector<std::vector<std::vector<std::uint32_t>>> by_class_;
};

}  // namespace

std::unique_ptr<EpisodeSource> make_table_source(std::shared_ptr<const data::Dataset> data,
                                                 const TableEpisodes& episodes,
                                                 std::span<const Split> used) {
  return std::make_unique<TableSource>(std::move(data), episodes, used);
}

}  // namespace kshot
