#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/episode_recipe.h"
#include "base/episode_stream.h"
#include "base/text.h"
#include "episodes/draw_count.h"
#include "episodes/sample.h"
#include "episodes/sources.h"
#include "episodes/split_groups.h"
#include "kshot/error.h"

namespace kshot {
namespace {

class ClassSource final : public EpisodeSource {
 public:
  ClassSource(std::shared_ptr<const data::Dataset> data, const ClassEpisodes& episodes,
              std::span<const Split> used)
      : data_(std::move(data)), episodes_(episodes) {
    const std::string file = data_->path().string();
    const data::DatasetHeader& header = data_->header();
    if (header.kind != data::GroupKind::classes) {
      throw Error(fmt::format("{}: holds tasks; expected classes to make episodes of", file));
    }
    if (episodes_.ways.least < 2 || episodes_.ways.most > most_ways || episodes_.shots.least < 0 ||
        episodes_.queries.least < 1) {
      throw Error(
          fmt::format("data.ways = {}, data.shots = {}, data.queries = {}: expected 2 to {} "
                      "ways, at least 0 shots and 1 query",
                      count_text(episodes_.ways), count_text(episodes_.shots),
                      count_text(episodes_.queries), most_ways));
    }
    splits_ = take_groups(header, used,
                          [this](Split split, const auto& groups) { return fault(split, groups); });
    if (!episodes_.fixed()) return;  // all tasks of a recipe have equal sizes
    ClassRecipe recipe{.ways = episodes_.ways.most,
                       .shots = episodes_.shots.most,
                       .queries = episodes_.queries.most,
                       .features = static_cast<std::size_t>(header.input.size()),
                       .element = header.element == data::Element::u8 ? ClassRecipe::Element::u8
                                                                      : ClassRecipe::Element::f32,
                       .stored = data_->stored(),
                       .check_stored = [data = data_] { data->check(); },
                       .groups = {}};
    for (std::size_t split = 0; split < splits_.groups.size(); ++split) {
      for (const std::uint32_t g : splits_.groups[split]) {
        recipe.groups[split].push_back({header.groups[g].first, header.groups[g].rows});
      }
    }
    recipe_ = EpisodeRecipe{shape(), std::move(recipe)};
  }

  TaskShape shape() const override { return episodes_.shape(data_->header().input); }

  void fill(const TaskId& id, const TaskSlot& slot) const override {
    const auto& groups = splits_.groups[static_cast<std::size_t>(id.split)];
    if (groups.empty()) throw Error(splits_.faults[static_cast<std::size_t>(id.split)]);
    const auto draw = [&](SizePart part, const CountRange& range) {
      return static_cast<std::size_t>(draw_count(id, part, range));
    };
    const std::size_t ways = draw(ways_part, episodes_.ways);
    const std::size_t shots = draw(shots_part, episodes_.shots);
    const std::size_t queries = draw(queries_part, episodes_.queries);
    if (slot.ways != nullptr) *slot.ways = static_cast<std::int32_t>(ways);
    *slot.support_n = static_cast<std::int32_t>(ways * shots);
    *slot.query_n = static_cast<std::int32_t>(ways * queries);
    const auto d = static_cast<std::size_t>(data_->header().input.size());
    thread_local std::vector<std::uint32_t> chosen;
    thread_local std::vector<std::uint32_t> rows;
    chosen.resize(ways);
    rows.resize(shots + queries);
    RandomStream classes = episode_stream(id, 0);
    sample_without_replacement(classes, static_cast<std::uint32_t>(groups.size()), chosen);
    for (std::size_t n = 0; n < ways; ++n) {
      const data::Group& group = data_->header().groups[groups[chosen[n]]];
      // Each class has its own stream and draws query examples first, so that more shots change
      // nothing else.
      RandomStream examples = episode_stream(id, static_cast<std::uint32_t>(n) + 1);
      sample_without_replacement(examples, group.rows, rows);
      const auto read = [&](std::size_t k, std::span<float> x) {
        if (k + 2 < rows.size()) data_->prefetch(group.first + rows[k + 2]);
        data_->read(group.first + rows[k], x);
      };
      for (std::size_t k = 0; k < queries; ++k) {
        const std::size_t at = n * queries + k;
        read(k, slot.query_x.subspan(at * d, d));
        slot.query_label[at] = static_cast<std::int32_t>(n);
      }
      for (std::size_t k = 0; k < shots; ++k) {
        const std::size_t at = n * shots + k;
        read(queries + k, slot.support_x.subspan(at * d, d));
        slot.support_label[at] = static_cast<std::int32_t>(n);
      }
    }
    data_->check();
  }

  std::string describe() const override {
    return fmt::format(
        "{}-way {}-shot, {} queries a class, from {}: {} train, {} validation, {} "
        "test classes",
        count_text(episodes_.ways), count_text(episodes_.shots), count_text(episodes_.queries),
        data_->path().filename().string(), splits_.counts[0], splits_.counts[1], splits_.counts[2]);
  }

  const EpisodeRecipe* recipe() const override { return recipe_ ? &*recipe_ : nullptr; }

  bool has(Split split) const override {
    return !splits_.groups[static_cast<std::size_t>(split)].empty();
  }

  std::string preprocessing() const override { return data_->header().preprocessing.to_json(); }

 private:
  /// Largest number of ways: the parts of the stream below those of the sizes, minus the part for
  /// the classes.
  static constexpr int most_ways = static_cast<int>(ways_part) - 1;

  /// Returns the reason why no episodes can be drawn from a split, or an empty text.
  std::string fault(Split split, const std::vector<std::uint32_t>& groups) const {
    const std::string file = data_->path().string();
    const data::DatasetHeader& header = data_->header();
    if (groups.empty()) return fmt::format("{}: has no {} classes", file, split_name(split));
    if (groups.size() < static_cast<std::size_t>(episodes_.ways.most)) {
      return fmt::format("{}: {} {} classes; data.ways = {} needs at least as many", file,
                         groups.size(), split_name(split), count_text(episodes_.ways));
    }
    const std::int64_t needed = std::int64_t{episodes_.shots.most} + episodes_.queries.most;
    for (const std::uint32_t g : groups) {
      if (header.groups[g].rows >= needed) continue;
      return fmt::format(
          "{}: {} class '{}' has {} examples; data.shots = {} and data.queries = {} need {}", file,
          split_name(split), header.groups[g].name, header.groups[g].rows,
          count_text(episodes_.shots), count_text(episodes_.queries), needed);
    }
    return {};
  }

  std::shared_ptr<const data::Dataset> data_;
  ClassEpisodes episodes_;
  SplitGroups splits_;
  std::optional<EpisodeRecipe> recipe_;
};

}  // namespace

std::unique_ptr<EpisodeSource> make_class_source(std::shared_ptr<const data::Dataset> data,
                                                 const ClassEpisodes& episodes,
                                                 std::span<const Split> used) {
  return std::make_unique<ClassSource>(std::move(data), episodes, used);
}

}  // namespace kshot
