#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/episode_stream.h"
#include "episodes/sample.h"
#include "episodes/sources.h"
#include "kshot/error.h"

namespace kshot {
namespace {

class PermutedSource final : public EpisodeSource {
 public:
  PermutedSource(std::shared_ptr<const data::Dataset> data, const PermutedEpisodes& options,
                 std::span<const Split> used)
      : data_(std::move(data)), options_(options), episodes_(options.episodes) {
    const std::string file = data_->path().string();
    const std::vector<std::uint32_t> all = data_->header().split_groups(Split::train);
    if (episodes_.shots.most < 1 || episodes_.queries.most < 1) {
      throw Error(fmt::format(
          "data.shots = {}, data.queries = {}: expected at least 1 of each for permuted tasks",
          episodes_.shots.most, episodes_.queries.most));
    }
    if (episodes_.ways.most < 2 || static_cast<std::size_t>(episodes_.ways.most) > all.size()) {
      throw Error(fmt::format("{}: {} train classes; data.ways = {} needs at least as many", file,
                              all.size(), episodes_.ways.most));
    }
    // The classes are a part of the environment: they are equal for every seed and split.
    RandomStream draw({0, Purpose::episode, 0, 0, 0, 0xffff});
    std::vector<std::uint32_t> chosen(static_cast<std::size_t>(episodes_.ways.most));
    sample_without_replacement(draw, static_cast<std::uint32_t>(all.size()), chosen);
    std::ranges::sort(chosen);
    for (const std::uint32_t c : chosen) classes_.push_back(all[c]);
    for (const Split split : all_splits) {
      std::string& fault = faults_[static_cast<std::size_t>(split)];
      fault = fault_of(split);
      if (!fault.empty() && std::ranges::find(used, split) != used.end()) throw Error(fault);
    }
  }

  TaskShape shape() const override { return episodes_.shape(data_->header().input); }

  void fill(const TaskId& id, const TaskSlot& slot) const override {
    const std::string& fault = faults_[static_cast<std::size_t>(id.split)];
    if (!fault.empty()) throw Error(fault);
    const auto ways = static_cast<std::size_t>(episodes_.ways.most);
    const auto shots = static_cast<std::size_t>(episodes_.shots.most);
    const auto queries = static_cast<std::size_t>(episodes_.queries.most);
    const auto d = static_cast<std::size_t>(data_->header().input.size());
    thread_local std::vector<std::uint32_t> labels, order, rows, held;
    permutations(id, d, labels, order);
    for (std::size_t n = 0; n < ways; ++n) {
      const data::Group& group = data_->header().groups[classes_[n]];
      const std::uint32_t kept = held_out(group);
      RandomStream examples = episode_stream(id, static_cast<std::uint32_t>(n) + 1);
      // The last drawn rows are support rows. Validation and test tasks take their query rows
      // from the reserved examples. The other examples may then be too few for shots + queries.
      rows.resize(std::min<std::size_t>(shots + queries, group.rows - kept));
      sample_without_replacement(examples, group.rows - kept, rows);
      held.assign(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(rows.size() - shots));
      if (id.split != Split::train) {
        held.resize(queries);
        sample_without_replacement(examples, kept, held);
        for (std::uint32_t& row : held) row += group.rows - kept;
      }
      for (std::size_t k = 0; k < queries; ++k) {
        const std::size_t at = n * queries + k;
        read(group.first + held[k], order, slot.query_x.subspan(at * d, d));
        slot.query_label[at] = static_cast<std::int32_t>(labels[n]);
      }
      for (std::size_t k = 0; k < shots; ++k) {
        const std::size_t at = n * shots + k;
        read(group.first + rows[rows.size() - shots + k], order, slot.support_x.subspan(at * d, d));
        slot.support_label[at] = static_cast<std::int32_t>(labels[n]);
      }
    }
    data_->check();
  }

  std::string describe() const override {
    return fmt::format("{} classes of {} with permuted {}, {} shots and {} queries a class",
                       episodes_.ways.most, data_->path().filename().string(),
                       options_.pixels ? fmt::format("pixels ({} swaps)", options_.pixel_swaps)
                                       : std::string("labels"),
                       episodes_.shots.most, episodes_.queries.most);
  }
  bool has(Split split) const override { return faults_[static_cast<std::size_t>(split)].empty(); }
  std::string preprocessing() const override { return data_->header().preprocessing.to_json(); }

 private:
  static std::uint32_t held_out(const data::Group& group) {
    return static_cast<std::uint32_t>(group.rows / 4);
  }

  /// Returns the reason why no tasks of a split can be drawn, or an empty text.
  std::string fault_of(Split split) const {
    const std::int64_t shots = episodes_.shots.most, queries = episodes_.queries.most;
    const bool training = split == Split::train;
    for (const std::uint32_t g : classes_) {
      const data::Group& group = data_->header().groups[g];
      const std::int64_t kept = held_out(group), others = group.rows - kept;
      if (training ? shots + queries <= others : shots <= others && queries <= kept) continue;
      return fmt::format(
          "{}: class '{}' has {} examples, {} of them held out for the queries of new tasks; "
          "data.shots = {} and data.queries = {} do not fit {} tasks (expected {})",
          data_->path().string(), group.name, group.rows, kept, shots, queries, split_name(split),
          training ? fmt::format("at most {} together", others)
                   : fmt::format("at most {} shots and {} queries", others, kept));
    }
    return {};
  }

  /// Draws a label for each class, and the source of each pixel (empty: no pixel moves).
  void permutations(const TaskId& id, std::size_t pixels, std::vector<std::uint32_t>& labels,
                    std::vector<std::uint32_t>& order) const {
    RandomStream stream = episode_stream(id, 0);
    labels.resize(static_cast<std::size_t>(episodes_.ways.most));
    order.clear();
    if (!options_.pixels) {
      sample_without_replacement(stream, static_cast<std::uint32_t>(episodes_.ways.most), labels);
      return;
    }
    std::iota(labels.begin(), labels.end(), 0u);
    order.resize(pixels);
    std::iota(order.begin(), order.end(), 0u);
    const auto n = static_cast<std::uint32_t>(pixels);
    for (int i = 0; i < options_.pixel_swaps; ++i) {
      const std::uint32_t a = stream.below(n);
      std::swap(order[a], order[stream.below(n)]);
    }
  }

  void read(std::uint64_t row, const std::vector<std::uint32_t>& order, std::span<float> x) const {
    if (order.empty()) return data_->read(row, x);
    thread_local std::vector<float> plain;
    plain.resize(x.size());
    data_->read(row, plain);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = plain[order[i]];
  }

  std::shared_ptr<const data::Dataset> data_;
  PermutedEpisodes options_;
  ClassEpisodes episodes_;
  std::vector<std::uint32_t> classes_;
  std::array<std::string, 3> faults_;
};

}  // namespace

std::unique_ptr<EpisodeSource> make_permuted_source(std::shared_ptr<const data::Dataset> data,
                                                    const PermutedEpisodes& options,
                                                    std::span<const Split> used) {
  return std::make_unique<PermutedSource>(std::move(data), options, used);
}

}  // namespace kshot
