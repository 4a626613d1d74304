#include <fmt/format.h>

#include <algorithm>
#include <limits>
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

class MinibatchSource final : public EpisodeSource {
 public:
  MinibatchSource(std::shared_ptr<const data::Dataset> data, int rows, std::span<const Split> used)
      : data_(std::move(data)), rows_(rows) {
    const std::string file = data_->path().string();
    const data::DatasetHeader& header = data_->header();
    if (header.kind != data::GroupKind::classes) {
      throw Error(fmt::format("{}: holds tasks; expected classes to make minibatches of", file));
    }
    classes_ = header.split_groups(Split::train);
    if (classes_.size() < 2) {
      throw Error(fmt::format("{}: {} train classes; a classifier needs at least 2", file,
                              classes_.size()));
    }
    std::uint64_t kept = 0, held = 0;
    for (const std::uint32_t g : classes_) {
      const data::Group& group = header.groups[g];
      kept += group.rows - held_out(group);
      held += held_out(group);
      training_ends_.push_back(kept);
      held_out_ends_.push_back(held);
    }
    if (kept > std::numeric_limits<std::uint32_t>::max()) {
      throw Error(fmt::format("{}: {} train examples, expected fewer than 2^32", file, kept));
    }
    if (static_cast<std::uint64_t>(rows_) > kept) {
      training_fault_ =
          fmt::format("{}: {} train examples to learn from; data.queries = {} needs {}", file, kept,
                      rows_, rows_);
      if (std::ranges::find(used, Split::train) != used.end()) throw Error(training_fault_);
    }
  }

  TaskShape shape() const override {
    return {.input = data_->header().input,
            .outputs = static_cast<int>(classes_.size()),
            .target = TargetKind::label,
            .support = 0,
            .query = rows_};
  }

  void fill(const TaskId& id, const TaskSlot& slot) const override {
    const bool training = id.split == Split::train;
    if (training && !training_fault_.empty()) throw Error(training_fault_);
    const std::vector<std::uint64_t>& ends = training ? training_ends_ : held_out_ends_;
    if (ends.back() == 0) {
      throw Error(fmt::format("{}: no class has the 10 examples of which one is held out",
                              data_->path().string()));
    }
    const auto d = static_cast<std::size_t>(data_->header().input.size());
    thread_local std::vector<std::uint32_t> chosen;
    chosen.resize(std::min<std::uint64_t>(static_cast<std::uint64_t>(rows_), ends.back()));
    *slot.query_n = static_cast<std::int32_t>(chosen.size());
    RandomStream stream = episode_stream(id);
    sample_without_replacement(stream, static_cast<std::uint32_t>(ends.back()), chosen);
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      // The class whose range of examples contains this one.
      const auto found = std::ranges::upper_bound(ends, std::uint64_t{chosen[i]});
      const auto c = static_cast<std::size_t>(found - ends.begin());
      const data::Group& group = data_->header().groups[classes_[c]];
      const std::uint64_t within = chosen[i] - (c > 0 ? ends[c - 1] : 0);
      // The last examples of a class are held out.
      const std::uint64_t first = training ? 0 : group.rows - held_out(group);
      data_->read(group.first + first + within, slot.query_x.subspan(i * d, d));
      slot.query_label[i] = static_cast<std::int32_t>(c);
    }
    data_->check();
  }

  std::string describe() const override {
    return fmt::format("minibatches of {} from {}: {} classes, {} examples and {} held out", rows_,
                       data_->path().filename().string(), classes_.size(), training_ends_.back(),
                       held_out_ends_.back());
  }
  bool has(Split split) const override {
    return split == Split::train ? training_fault_.empty() : held_out_ends_.back() > 0;
  }
  std::string preprocessing() const override { return data_->header().preprocessing.to_json(); }

 private:
  static std::uint32_t held_out(const data::Group& group) { return group.rows / 10; }

  std::shared_ptr<const data::Dataset> data_;
  int rows_;
  std::vector<std::uint32_t> classes_;  ///< groups of the file, in the order of the labels
  /// Cumulative numbers of training and held-out examples, up to and including each class.
  std::vector<std::uint64_t> training_ends_, held_out_ends_;
  std::string training_fault_;  ///< why no training minibatches can be drawn; empty if they can
};

}  // namespace

std::unique_ptr<EpisodeSource> make_minibatch_source(std::shared_ptr<const data::Dataset> data,
                                                     int rows, std::span<const Split> used) {
  return std::make_unique<MinibatchSource>(std::move(data), rows, used);
}

}  // namespace kshot
