#include "engine/predictor.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include "kshot/stop.h"

namespace kshot {
namespace {

/// Runs actions in the order of their numbers, in whatever order they arrive.
class InOrder {
 public:
  explicit InOrder(int first) : next_(first) {}
  void put(int number, std::function<void()> action) {
    const std::lock_guard lock(mutex_);
    waiting_.emplace(number, std::move(action));
    for (auto it = waiting_.find(next_); it != waiting_.end(); it = waiting_.find(next_)) {
      const std::function<void()> run = std::move(it->second);
      waiting_.erase(it);
      ++next_;
      if (run) run();
    }
  }

 private:
  std::mutex mutex_;
  std::map<int, std::function<void()>> waiting_;
  int next_;
};

/// The first `rows` rows of a task's part of an array over tasks.
template <typename T>
std::span<const T> rows_of(const std::vector<T>& all, int slot, int stride_rows, int rows,
                           int width) {
  const auto w = static_cast<std::size_t>(width);
  return std::span<const T>(all).subspan(
      static_cast<std::size_t>(slot) * static_cast<std::size_t>(stride_rows) * w,
      static_cast<std::size_t>(rows) * w);
}

}  // namespace

std::span<const float> EpisodePrediction::support_x() const {
  const TaskShape& s = batch->shape();
  return rows_of(batch->support_x, slot, s.support,
                 batch->support_n[static_cast<std::size_t>(slot)], s.input.size());
}
std::span<const float> EpisodePrediction::query_x() const {
  const TaskShape& s = batch->shape();
  return rows_of(batch->query_x, slot, s.query, rows, s.input.size());
}
std::span<const std::int32_t> EpisodePrediction::support_labels() const {
  return rows_of(batch->support_label, slot, batch->shape().support,
                 batch->support_n[static_cast<std::size_t>(slot)], 1);
}
std::span<const std::int32_t> EpisodePrediction::query_labels() const {
  return rows_of(batch->query_label, slot, batch->shape().query, rows, 1);
}
std::span<const float> EpisodePrediction::support_values() const {
  const TaskShape& s = batch->shape();
  return rows_of(batch->support_value, slot, s.support,
                 batch->support_n[static_cast<std::size_t>(slot)], s.outputs);
}
std::span<const float> EpisodePrediction::query_values() const {
  const TaskShape& s = batch->shape();
  return rows_of(batch->query_value, slot, s.query, rows, s.outputs);
}

std::vector<EpisodePrediction> predict_wave(TaskProgram& program, const TaskBatch& batch, int first,
                                            int count, const StepContext& context,
                                            const PredictOptions& options,
                                            const AdaptedState* adapted) {
  const auto outputs = static_cast<std::size_t>(batch.shape().outputs);
  std::vector<EpisodePrediction> predictions(static_cast<std::size_t>(count));
  for (int t = 0; t < count; ++t) {
    EpisodePrediction& p = predictions[static_cast<std::size_t>(t)];
    p.episode = first + t;
    p.batch = &batch;
    p.slot = t;
    p.rows = batch.query_n[static_cast<std::size_t>(t)];
    p.outputs_n = batch.ways_of(t);
    p.diverged = !program.wave().rows_finite(t);
  }
  std::vector<double> all;
  const auto samples = static_cast<std::size_t>(options.samples);
  const auto take = [&](int step, int sample, backend::Block block) {
    const auto stride =
        static_cast<std::size_t>(program.wave().rows(backend::Set::query)) * outputs;
    all.resize(static_cast<std::size_t>(count) * stride);
    program.wave().download(block, all);
    const auto slot = static_cast<std::size_t>(options.every_step ? step : 0);
    for (std::size_t t = 0; t < predictions.size(); ++t) {
      EpisodePrediction& p = predictions[t];
      const auto own = static_cast<std::size_t>(p.outputs_n);
      const auto rows = static_cast<std::size_t>(p.rows);
      if (p.outputs.size() <= slot) p.outputs.resize(slot + 1);
      p.outputs[slot].resize(samples * rows * own);
      for (std::size_t row = 0; row < rows; ++row) {
        // Classes that the episode does not have are left out.
        const std::span<const double> values =
            std::span(all).subspan(t * stride + row * outputs, own);
        const std::size_t at = (static_cast<std::size_t>(sample) * rows + row) * own;
        std::ranges::copy(values, p.outputs[slot].begin() + static_cast<std::ptrdiff_t>(at));
        p.diverged =
            p.diverged || !std::ranges::all_of(values, [](double v) { return std::isfinite(v); });
      }
    }
  };
  if (adapted != nullptr) {
    program.predict_adapted(*adapted, context, options, take);
  } else {
    program.predict(context, options, take);
  }
  if (const backend::Block variance = program.predictive_variance()) {
    const auto stride =
        static_cast<std::size_t>(program.wave().rows(backend::Set::query)) * outputs;
    all.resize(static_cast<std::size_t>(count) * stride);
    program.wave().download(variance, all);
    for (std::size_t t = 0; t < predictions.size(); ++t) {
      EpisodePrediction& p = predictions[t];
      const std::span<const double> values =
          std::span(all).subspan(t * stride, static_cast<std::size_t>(p.rows) * outputs);
      for (const double v : values) p.std.push_back(std::sqrt(v));
      p.diverged =
          p.diverged || !std::ranges::all_of(p.std, [](double v) { return std::isfinite(v); });
    }
  }
  const backend::Block covariance =
      options.covariance ? program.predictive_covariance() : backend::Block{};
  if (covariance) {
    const auto width = static_cast<std::size_t>(program.wave().rows(backend::Set::query));
    all.resize(static_cast<std::size_t>(count) * width * width);
    program.wave().download(covariance, all);
    for (std::size_t t = 0; t < predictions.size(); ++t) {
      EpisodePrediction& p = predictions[t];
      const auto rows = static_cast<std::size_t>(p.rows);
      for (std::size_t row = 0; row < rows; ++row) {
        const auto values = std::span(all).subspan((t * width + row) * width, rows);
        p.covariance.insert(p.covariance.end(), values.begin(), values.end());
      }
    }
  }
  return predictions;
}

void predict_in_order(Scheduler& scheduler, std::span<const backend::Shared> parameters,
                      const EpisodeSource& source, const EpisodeRange& range, int begin, int end,
                      const PredictOptions& options,
                      const std::function<std::function<void()>(const EpisodePrediction&)>& work,
                      const std::function<bool()>& stop) {
  StepContext context;
  context.seed = range.seed;
  InOrder order(begin);
  scheduler.for_each_wave(parameters, source, range.seed, range.split, begin, end,
                          [&](TaskProgram& program, const TaskBatch& batch, int first, int count) {
                            if (stop && stop()) throw Stopped();
                            for (const EpisodePrediction& prediction :
                                 predict_wave(program, batch, first, count, context, options)) {
                              order.put(prediction.episode, work(prediction));
                            }
                          });
}

}  // namespace kshot
