#include <fmt/format.h>

#include <algorithm>
#include <numeric>
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
  PermutedSource(std::shared_ptr<const io::Dataset> data, const PermutedEpisodes& options)
      : data_(std::move(data)), options_(options), episodes_(options.episodes) {
    const std::string file = data_->path().string();
    const std::vector<std::uint32_t> all = data_->header().split_groups(Split::train);
    if (episodes_.ways < 2 || static_cast<std::size_t>(episodes_.ways) > all.size()) {
      throw Error(fmt::format("{}: {} train classes; data.ways = {} needs at least as many", file,
                              all.size(), episodes_.ways));
    }
    // The classes belong to the environment: the same for every seed and split.
    RandomStream draw({0, Purpose::episode, 0, 0, 0, 0xffff});
    std::vector<std::uint32_t> chosen(static_cast<std::size_t>(episodes_.ways));
    sample_without_replacement(draw, static_cast<std::uint32_t>(all.size()), chosen);
    std::ranges::sort(chosen);
    for (const std::uint32_t c : chosen) classes_.push_back(all[c]);
    const std::int64_t shots = episodes_.shots;
    const std::int64_t queries = episodes_.queries;
    for (const std::uint32_t g : classes_) {
      const io::Group& group = data_->header().groups[g];
      const std::int64_t kept = held_out(group);
      if (shots < 1 || queries < 1 || shots + queries > group.rows - kept || queries > kept) {
        throw Error(fmt::format(
            "{}: class '{}' has {} examples, {} of them held out for the queries of new tasks; "
            "data.shots = {} and data.queries = {} do not fit (expected at most {} together, and "
            "{} queries)",
            file, group.name, group.rows, kept, shots, queries, group.rows - kept, kept));
      }
    }
  }

  TaskShape shape() const override { return episodes_.shape(data_->header().input); }

  void fill(const TaskId& id, const TaskSlot& slot) const override {
    const auto ways = static_cast<std::size_t>(episodes_.ways);
    const auto shots = static_cast<std::size_t>(episodes_.shots);
    const auto queries = static_cast<std::size_t>(episodes_.queries);
    const auto d = static_cast<std::size_t>(data_->header().input.size());
    thread_local std::vector<std::uint32_t> labels, order, rows, held;
    permutations(id, d, labels, order);
    for (std::size_t n = 0; n < ways; ++n) {
      const io::Group& group = data_->header().groups[classes_[n]];
      const std::uint32_t kept = held_out(group);
      RandomStream examples = episode_stream(id, static_cast<std::uint32_t>(n) + 1);
      rows.resize(shots + queries);
      sample_without_replacement(examples, group.rows - kept, rows);
      if (id.split != Split::train) {
        held.resize(queries);
        sample_without_replacement(examples, kept, held);
        for (std::size_t k = 0; k < queries; ++k) rows[k] = group.rows - kept + held[k];
      }
      for (std::size_t k = 0; k < shots + queries; ++k) {
        const bool query = k < queries;
        const std::size_t at = query ? n * queries + k : n * shots + (k - queries);
        const std::span<float> x = (query ? slot.query_x : slot.support_x).subspan(at * d, d);
        read(group.first + rows[k], order, x);
        (query ? slot.query_label : slot.support_label)[at] = static_cast<std::int32_t>(labels[n]);
      }
    }
    data_->check();
  }

  std::string describe() const override {
    return fmt::format("{} classes of {} with permuted {}, {} shots and {} queries a class",
                       episodes_.ways, data_->path().filename().string(),
                       options_.pixels ? fmt::format("pixels ({} swaps)", options_.pixel_swaps)
                                       : std::string("labels"),
                       episodes_.shots, episodes_.queries);
  }
  std::string preprocessing() const override { return data_->header().preprocessing.to_json(); }

 private:
  static std::uint32_t held_out(const io::Group& group) {
    return static_cast<std::uint32_t>(group.rows / 4);
  }

  /// A label for each class, and where each pixel is read from (empty: from its own place).
  void permutations(const TaskId& id, std::size_t pixels, std::vector<std::uint32_t>& labels,
                    std::vector<std::uint32_t>& order) const {
    RandomStream stream = episode_stream(id, 0);
    labels.resize(static_cast<std::size_t>(episodes_.ways));
    order.clear();
    if (!options_.pixels) {
      sample_without_replacement(stream, static_cast<std::uint32_t>(episodes_.ways), labels);
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

  std::shared_ptr<const io::Dataset> data_;
  PermutedEpisodes options_;
  ClassEpisodes episodes_;
  std::vector<std::uint32_t> classes_;
};

}  // namespace

std::unique_ptr<EpisodeSource> make_permuted_source(std::shared_ptr<const io::Dataset> data,
                                                    const PermutedEpisodes& options) {
  return std::make_unique<PermutedSource>(std::move(data), options);
}

}  // namespace kshot
