#include "engine/ood_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <numbers>
#include <system_error>

#include "episodes/sample.h"
#include "episodes/sources.h"
#include "kshot/error.h"
#include "kshot/random.h"

namespace kshot {
namespace {

constexpr const char* kinds = "open_set, rotate, noise, permute, shift, or a data file (.kshot)";

/// The number after "noise=", or `otherwise` where there is none.
double amount_of(const std::string& kind, std::string_view text, double otherwise) {
  if (text.empty()) return otherwise;
  double value = 0.0;
  const auto [end, fault] = std::from_chars(text.data() + 1, text.data() + text.size(), value);
  if (fault != std::errc() || end != text.data() + text.size() || !(value > 0.0) ||
      !std::isfinite(value)) {
    throw Error(fmt::format("--ood {}: expected a number above 0 after \"=\"", kind));
  }
  return value;
}

std::size_t size_of(int n) {
  return static_cast<std::size_t>(n);
}

/// Rotates an image about its centre, with bilinear interpolation. A pixel from outside has the
/// value of the nearest border pixel.
void turn(std::span<const float> from, std::span<float> to, const FeatureShape& shape,
          double degrees) {
  const int h = shape.height, w = shape.width;
  const double angle = degrees * std::numbers::pi / 180.0;
  const double c = std::cos(angle), s = std::sin(angle);
  const double cy = 0.5 * (h - 1), cx = 0.5 * (w - 1);
  for (int y = 0; y < h; ++y) {
    for (int x = 0; x < w; ++x) {
      const double fy = std::clamp(cy + s * (x - cx) + c * (y - cy), 0.0, h - 1.0);
      const double fx = std::clamp(cx + c * (x - cx) - s * (y - cy), 0.0, w - 1.0);
      const int y0 = std::min(static_cast<int>(fy), std::max(h - 2, 0));
      const int x0 = std::min(static_cast<int>(fx), std::max(w - 2, 0));
      const int y1 = std::min(y0 + 1, h - 1), x1 = std::min(x0 + 1, w - 1);
      const double ry = fy - y0, rx = fx - x0;
      for (int channel = 0; channel < shape.channels; ++channel) {
        const auto at = [&](int row, int column) {
          return static_cast<double>(from[size_of((channel * h + row) * w + column)]);
        };
        to[size_of((channel * h + y) * w + x)] =
            static_cast<float>((1.0 - ry) * ((1.0 - rx) * at(y0, x0) + rx * at(y0, x1)) +
                               ry * ((1.0 - rx) * at(y1, x0) + rx * at(y1, x1)));
      }
    }
  }
}

/// Standard deviation of all inputs of a task's rows.
double input_std(const OodTask& task) {
  double n = 0.0, sum = 0.0, squares = 0.0;
  for (const std::vector<float>* rows : {&task.support_x, &task.in_x}) {
    for (const float v : *rows) {
      n += 1.0;
      sum += static_cast<double>(v);
      squares += static_cast<double>(v) * static_cast<double>(v);
    }
  }
  return std::sqrt(std::max(0.0, squares / n - sum / n * (sum / n)));
}

/// Range of each input over a task's rows.
std::vector<double> input_ranges(const OodTask& task, std::size_t inputs) {
  std::vector<double> ranges;
  for (std::size_t i = 0; i < inputs; ++i) {
    float low = task.in_x[i], high = low;
    for (const std::vector<float>* rows : {&task.support_x, &task.in_x}) {
      for (std::size_t at = i; at < rows->size(); at += inputs) {
        low = std::min(low, (*rows)[at]);
        high = std::max(high, (*rows)[at]);
      }
    }
    ranges.push_back(static_cast<double>(high - low));
  }
  return ranges;
}

/// Draws one task of a source into a batch of its own.
TaskBatch drawn(const EpisodeSource& source, std::uint64_t seed, Split split, int episode) {
  TaskBatch batch(source.shape(), 1);
  batch.draw(source, {.seed = seed, .split = split}, static_cast<std::uint32_t>(episode), 1);
  return batch;
}

}  // namespace

OodTasks::OodTasks(const Config& config, std::shared_ptr<const data::Dataset> data,
                   const std::string& kind, Split split) {
  const std::size_t equals = kind.ends_with(".kshot") ? std::string::npos : kind.find('=');
  const std::string name = kind.substr(0, equals);
  const std::string amount = equals == std::string::npos ? "" : kind.substr(equals);
  const auto refuse_amount = [&] {
    if (!amount.empty()) throw Error(fmt::format("--ood {}: {} takes no number", kind, name));
  };
  if (name == "open_set") {
    refuse_amount();
    kind_ = Kind::open_set;
    prepare_open_set(config, data, split);
    return;
  }
  const std::array splits = {split};
  source_ = make_source(config, data, splits);
  input_ = source_->shape().input;
  if (name == "rotate") {
    kind_ = Kind::rotate;
    amount_ = amount_of(kind, amount, 0.0);
    if (!input_.spatial) {
      throw Error(
          fmt::format("--ood {}: the inputs ({}) are not images", kind, source_->describe()));
    }
    description_ = amount_ > 0.0 ? fmt::format("images turned by {} degrees, either way", amount_)
                                 : "images turned by 15 to 45 degrees, either way";
  } else if (name == "noise") {
    kind_ = Kind::noise;
    amount_ = amount_of(kind, amount, 1.0);
    description_ = fmt::format(
        "inputs with Gaussian noise of {} standard deviations of the task's inputs", amount_);
  } else if (name == "permute") {
    refuse_amount();
    kind_ = Kind::permute;
    if (input_.size() < 2) {
      throw Error(
          fmt::format("--ood {}: a row has only one input, so that there is no other order", kind));
    }
    description_ = "inputs in another order";
  } else if (name == "shift") {
    kind_ = Kind::shift;
    amount_ = amount_of(kind, amount, 2.0);
    description_ =
        fmt::format("inputs moved by {} times their range over the task's rows", amount_);
  } else if (kind.ends_with(".kshot")) {
    kind_ = Kind::file;
    prepare_file(config, kind);
  } else {
    throw Error(fmt::format("--ood {}: expected one of {}", kind, kinds));
  }
}
OodTasks::~OodTasks() = default;

void OodTasks::prepare_open_set(const Config& config,
                                const std::shared_ptr<const data::Dataset>& data, Split split) {
  if (!data || data->header().kind != data::GroupKind::classes ||
      config.data.permute != Permute::none || config.data.episodes != Episodes::few_shot) {
    throw Error("--ood open_set: expected a run on a file of classes, in few-shot episodes");
  }
  const CountRange ways = episode_ways(config);
  const int classes = static_cast<int>(data->header().split_groups(split).size());
  if (!ways.fixed()) {
    throw Error(
        fmt::format("--ood open_set: data.ways varies; expected one number (--set "
                    "data.ways={})",
                    ways.least));
  }
  known_ways_ = ways.most;
  const int others = std::min(known_ways_, classes - known_ways_);
  if (others < 1) {
    throw Error(
        fmt::format("--ood open_set: the {} split has {} classes, and a task of data.ways = {} "
                    "uses all of them; expected fewer ways",
                    split_name(split), classes, known_ways_));
  }
  Config wider = config;
  wider.data.ways = known_ways_ + others;
  const std::array splits = {split};
  source_ = make_source(wider, data, splits);
  input_ = source_->shape().input;
  description_ = fmt::format("rows of {} classes that the support set does not have", others);
}

void OodTasks::prepare_file(const Config& config, const std::string& file) {
  Config other = config;
  other.data.source = DataKind::file;
  other.data.path = file;
  const std::shared_ptr<const data::Dataset> data = open_data(other);
  for (const Split split : {Split::test, Split::validation, Split::train}) {
    if (data->header().split_groups(split).empty()) continue;
    other_split_ = split;
    break;
  }
  const std::array splits = {other_split_};
  other_ = make_source(other, data, splits);
  const FeatureShape& theirs = other_->shape().input;
  if (theirs.size() != input_.size() || (theirs.spatial && input_.spatial && theirs != input_)) {
    throw Error(fmt::format("--ood {}: its rows have {} inputs, but those of the run have {}", file,
                            theirs.size(), input_.size()));
  }
  description_ =
      fmt::format("query rows of {} ({} split)", std::filesystem::path(file).filename().string(),
                  split_name(other_split_));
}

OodTask OodTasks::draw(std::uint64_t seed, Split split, int episode) const {
  const TaskBatch batch = drawn(*source_, seed, split, episode);
  const std::size_t d = size_of(input_.size());
  std::size_t support = size_of(batch.support_n[0]), query = size_of(batch.query_n[0]);
  OodTask task;
  task.ways = batch.ways_of(0);
  const bool labels = batch.shape().target == TargetKind::label;
  if (kind_ == Kind::open_set) {
    // The rows are ordered class by class.
    const auto classes = static_cast<std::size_t>(task.ways);
    const auto known = static_cast<std::size_t>(known_ways_);
    const std::size_t all = query;
    support = support / classes * known;
    query = query / classes * known;
    task.out_x.assign(batch.query_x.begin() + static_cast<std::ptrdiff_t>(query * d),
                      batch.query_x.begin() + static_cast<std::ptrdiff_t>(all * d));
    task.ways = known_ways_;
  }
  const auto first = [](const auto& values, std::size_t count) {
    using Values = std::decay_t<decltype(values)>;
    return Values(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count));
  };
  task.support_x = first(batch.support_x, support * d);
  task.in_x = first(batch.query_x, query * d);
  if (labels) {
    task.support_labels = first(batch.support_label, support);
    task.in_labels = first(batch.query_label, query);
  } else {
    task.support_values = first(batch.support_value, support * size_of(batch.shape().outputs));
  }
  if (kind_ == Kind::file) {
    const TaskBatch theirs = drawn(*other_, seed, other_split_, episode);
    task.out_x = first(theirs.query_x, std::min(query, size_of(theirs.query_n[0])) * d);
  } else if (kind_ != Kind::open_set) {
    change(task, seed, episode);
  }
  return task;
}

void OodTasks::change(OodTask& task, std::uint64_t seed, int episode) const {
  const std::size_t d = size_of(input_.size());
  RandomStream random({.seed = seed,
                       .purpose = Purpose::user,
                       .task = static_cast<std::uint32_t>(episode),
                       .inner_step = 1});
  task.out_x = task.in_x;
  if (kind_ == Kind::rotate) {
    for (std::size_t at = 0; at < task.in_x.size(); at += d) {
      const double degrees =
          amount_ > 0.0 ? amount_ : static_cast<double>(random.uniform(15.0f, 45.0f));
      turn(std::span<const float>(task.in_x).subspan(at, d), std::span(task.out_x).subspan(at, d),
           input_, random.below(2) == 0 ? degrees : -degrees);
    }
  } else if (kind_ == Kind::noise) {
    const double std = amount_ * input_std(task);
    for (float& v : task.out_x) v += static_cast<float>(std) * random.normal();
  } else if (kind_ == Kind::permute) {
    std::vector<std::uint32_t> order(d);
    sample_without_replacement(random, static_cast<std::uint32_t>(d), order);
    for (std::size_t i = 0; i < task.out_x.size(); ++i) {
      task.out_x[i] = task.in_x[i - i % d + order[i % d]];
    }
  } else {
    const std::vector<double> ranges = input_ranges(task, d);
    for (std::size_t i = 0; i < task.out_x.size(); ++i) {
      task.out_x[i] += static_cast<float>(amount_ * ranges[i % d]);
    }
  }
}

}  // namespace kshot
