#include <fmt/format.h>

#include <utility>

#include "base/episode_stream.h"
#include "episodes/sources.h"

namespace kshot {
namespace {

class FixedSource final : public EpisodeSource {
 public:
  FixedSource(std::unique_ptr<EpisodeSource> source, std::uint32_t tasks)
      : source_(std::move(source)), tasks_(tasks) {}

  TaskShape shape() const override { return source_->shape(); }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    if (id.split != Split::train) return source_->fill(id, slot);
    // This part lies beyond the parts that any source uses.
    RandomStream draw = episode_stream(id, 0xffff);
    const std::uint32_t drawn = draw.below(tasks_);
    const std::uint32_t member = id.member >= 0 ? static_cast<std::uint32_t>(id.member) : drawn;
    source_->fill({.seed = id.seed, .split = Split::train, .step = 0, .task = member}, slot);
  }
  std::string describe() const override {
    return fmt::format("{}; {} fixed training tasks", source_->describe(), tasks_);
  }
  std::uint64_t training_tasks() const override { return tasks_; }
  bool has(Split split) const override { return source_->has(split); }
  std::string preprocessing() const override { return source_->preprocessing(); }

 private:
  std::unique_ptr<EpisodeSource> source_;
  std::uint32_t tasks_;
};

}  // namespace

std::unique_ptr<EpisodeSource> make_fixed_source(std::unique_ptr<EpisodeSource> source,
                                                 std::uint32_t tasks) {
  return std::make_unique<FixedSource>(std::move(source), tasks);
}

}  // namespace kshot
