#include "episodes/sources.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <variant>

#include "base/episode_recipe.h"
#include "base/text.h"
#include "episodes/wheel.h"
#include "kshot/error.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;

/// The tasks of another source, with every example scaled to unit length.
class UnitLength final : public EpisodeSource {
 public:
  explicit UnitLength(std::unique_ptr<EpisodeSource> source) : source_(std::move(source)) {
    const EpisodeRecipe* const recipe = source_->recipe();
    if (!recipe) return;
    recipe_ = *recipe;
    std::get<ClassRecipe>(recipe_->method).unit_length = true;
  }
  TaskShape shape() const override { return source_->shape(); }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    source_->fill(id, slot);
    const auto d = static_cast<std::size_t>(shape().input.size());
    const auto scale = [d](std::span<float> x, std::int32_t rows) {
      scale_to_unit_length(x.first(static_cast<std::size_t>(rows) * d), d);
    };
    scale(slot.support_x, *slot.support_n);
    scale(slot.query_x, *slot.query_n);
  }
  std::string describe() const override { return source_->describe() + ", rows of unit length"; }
  std::uint64_t training_tasks() const override { return source_->training_tasks(); }
  double training_rows() const override { return source_->training_rows(); }
  bool has(Split split) const override { return source_->has(split); }
  std::string preprocessing() const override { return source_->preprocessing(); }
  const EpisodeRecipe* recipe() const override { return recipe_ ? &*recipe_ : nullptr; }

 private:
  std::unique_ptr<EpisodeSource> source_;
  std::optional<EpisodeRecipe> recipe_;  ///< set if the source draws classes
};

/// Makes the source without the options data.unit_length and data.tasks.
std::unique_ptr<EpisodeSource> plain_source(const Config& config,
                                            std::shared_ptr<const data::Dataset> file,
                                            std::span<const Split> used) {
  const Config::DataTable& data = config.data;
  if (data.source == DataKind::wheel) {
    return make_wheel_source({.support = data.shots,
                              .query = data.queries,
                              .noise_std = data.noise_std,
                              .all_arms = data.all_arms,
                              .problems = data.problems});
  }
  if (data.source != DataKind::file) {
    SinusoidOptions options;
    if (data.source == DataKind::sine_line) options.line_share = 0.5;
    options.line_limit = data.line_limit;
    options.support = data.shots;
    options.query = data.queries;
    options.amplitude_low = data.amplitude_low;
    options.amplitude_high = data.amplitude_high;
    options.x_low = data.x_low;
    options.x_high = data.x_high;
    options.noise_std = data.noise_std;
    return make_sinusoid(options);
  }
  const data::DatasetHeader& header = file->header();
  if (header.kind == data::GroupKind::classes) {
    if (config.loss.type != LossType::cross_entropy) {
      throw Error(fmt::format("loss.type: {} holds classes; expected cross_entropy", data.path));
    }
    if (data.variable_size) {
      throw Error(
          fmt::format("data.variable_size: {} holds classes; expected a file of tasks", data.path));
    }
    if (data.episodes == Episodes::minibatch) {
      return make_minibatch_source(std::move(file), data.queries.most, used);
    }
    if (data.stratified || data.small_tasks != SmallTasks::refuse) {
      throw Error(fmt::format("data.{}: {} holds classes; expected a file of tasks",
                              data.stratified ? "stratified" : "small_tasks", data.path));
    }
    const ClassEpisodes episodes{
        .ways = episode_ways(config), .shots = data.shots, .queries = data.queries};
    if (data.permute == Permute::none) return make_class_source(std::move(file), episodes, used);
    return make_permuted_source(
        std::move(file), {episodes, data.permute == Permute::pixels, data.pixel_swaps}, used);
  }
  if (data.episodes == Episodes::minibatch) {
    throw Error(
        fmt::format("data.episodes: {} holds tasks; expected a file of classes", data.path));
  }
  if (data.permute != Permute::none) {
    throw Error(fmt::format("data.permute: {} holds tasks; expected a file of classes", data.path));
  }
  if (data.tasks > 0) {
    throw Error(fmt::format("data.tasks = {}: {} holds tasks of its own; expected 0", data.tasks,
                            data.path));
  }
  const bool labels = header.target == TargetKind::label;
  if (labels != (config.loss.type == LossType::cross_entropy)) {
    throw Error(fmt::format("loss.type: the targets of {} are {}; expected {}", data.path,
                            labels ? "labels" : "numbers",
                            labels ? "cross_entropy" : "mse or gaussian_nll"));
  }
  if (labels && data.ways != CountRange(0) && data.ways != CountRange(header.outputs)) {
    throw Error(
        fmt::format("data.ways = {}: {} has {} labels; expected {}, or 0 for its own number",
                    count_text(data.ways), data.path, header.outputs, header.outputs));
  }
  return make_table_source(std::move(file),
                           {.shots = data.shots,
                            .queries = data.queries,
                            .stratified = labels && data.stratified,
                            .variable_size = data.variable_size,
                            .skip_small = data.small_tasks == SmallTasks::skip},
                           used);
}

}  // namespace

void scale_to_unit_length(std::span<float> rows, std::size_t width) {
  for (std::size_t first = 0; first < rows.size(); first += width) {
    const std::span<float> row = rows.subspan(first, width);
    const float factor = unit_length_factor(row);
    for (float& x : row) x *= factor;
  }
}

std::shared_ptr<const data::Dataset> open_data(const Config& config) {
  const std::string& path = config.data.path;
  if (config.data.source != DataKind::file) return nullptr;
  if (path.empty()) throw Error("data.path: expected a data file written by `kshot import`");
  std::error_code ignored;
  if (const fs::path file = path; file.is_relative() && !fs::exists(file, ignored)) {
    throw Error(
        fmt::format("data.path = \"{}\": no such file in {}, where kshot was started; expected "
                    "a data file written by `kshot import`",
                    path, fs::current_path(ignored).string()));
  }
  return data::Dataset::open(path);
}

std::unique_ptr<EpisodeSource> make_source(const Config& config, std::span<const Split> used) {
  return make_source(config, open_data(config), used);
}

std::unique_ptr<EpisodeSource> make_source(const Config& config,
                                           std::shared_ptr<const data::Dataset> data,
                                           std::span<const Split> used) {
  auto source = plain_source(config, std::move(data), used);
  if (config.data.source == DataKind::file && config.data.unit_length) {
    source = std::make_unique<UnitLength>(std::move(source));
  }
  if (config.data.tasks == 0) return source;
  return make_fixed_source(std::move(source), static_cast<std::uint32_t>(config.data.tasks));
}

}  // namespace kshot
