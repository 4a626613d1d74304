#include "episodes/sources.h"

#include <fmt/format.h>

#include "kshot/error.h"

namespace kshot {

std::unique_ptr<EpisodeSource> make_source(const Config& config) {
  const Config::DataTable& data = config.data;
  if (data.source == DataKind::sinusoid) {
    SinusoidOptions options;
    options.support = data.shots;
    options.query = data.queries;
    options.amplitude_low = data.amplitude_low;
    options.amplitude_high = data.amplitude_high;
    options.x_low = data.x_low;
    options.x_high = data.x_high;
    options.noise_std = data.noise_std;
    return make_sinusoid(options);
  }
  if (data.path.empty()) {
    throw Error("data.path: expected a data file written by `kshot import`");
  }
  auto file = io::Dataset::open(data.path);
  const io::DatasetHeader& header = file->header();
  if (header.kind == io::GroupKind::classes) {
    if (config.loss.type != LossType::cross_entropy) {
      throw Error(fmt::format("loss.type: {} holds classes; expected cross_entropy", data.path));
    }
    if (data.variable_size) {
      throw Error(
          fmt::format("data.variable_size: {} holds classes; expected a file of tasks", data.path));
    }
    return make_class_source(std::move(file),
                             {.ways = data.ways, .shots = data.shots, .queries = data.queries});
  }
  const bool labels = header.target == TargetKind::label;
  if (labels != (config.loss.type == LossType::cross_entropy)) {
    throw Error(fmt::format("loss.type: the targets of {} are {}; expected {}", data.path,
                            labels ? "labels" : "numbers",
                            labels ? "cross_entropy" : "mse or gaussian_nll"));
  }
  if (labels && data.ways != header.outputs) {
    throw Error(fmt::format("data.ways = {}: {} has {} labels; expected {}", data.ways, data.path,
                            header.outputs, header.outputs));
  }
  return make_table_source(
      std::move(file),
      {.shots = data.shots, .queries = data.queries, .variable_size = data.variable_size});
}

}  // namespace kshot
