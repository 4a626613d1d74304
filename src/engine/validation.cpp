#include "engine/validation.h"

#include <limits>
#include <utility>
#include <vector>

#include "engine/predictor.h"
#include "metrics/metrics.h"

namespace kshot {
namespace {

/// The contribution of one episode.
struct ValidationEpisode {
  bool diverged = false;  ///< true: the other members are empty
  // classification
  std::vector<double> probabilities;
  std::vector<std::int32_t> labels;
  std::size_t classes = 0;
  // regression
  std::vector<double> outputs, std, targets;
};
template <class Archive>
void fields(Archive& a, ValidationEpisode& e) {
  a(e.diverged, e.probabilities, e.labels, e.classes, e.outputs, e.std, e.targets);
}

}  // namespace

ValidationDetail validate(Scheduler& scheduler, const Assembly& assembly,
                          const EpisodeSource& source) {
  const Config& config = assembly.config;
  PredictOptions predict;
  predict.steps = assembly.algorithm->steps();
  predict.samples = assembly.algorithm->samples();
  predict.every_step = false;
  const bool classify = is_classification(config);
  const double noise = predictive_noise(assembly);
  const auto samples = static_cast<std::size_t>(predict.samples);
  metrics::ClassificationMetrics classification;
  metrics::RegressionMetrics regression;
  ValidationDetail detail;
  const auto work = [&](const EpisodePrediction& p) {
    ValidationEpisode e;
    e.diverged = p.diverged;
    if (p.diverged) return e;
    const std::vector<double>& raw = p.outputs.back();
    if (classify) {
      e.classes = static_cast<std::size_t>(p.outputs_n);
      e.probabilities.resize(raw.size() / samples);
      metrics::mean_softmax(raw, samples, static_cast<std::size_t>(p.rows), e.classes,
                            e.probabilities);
      e.labels.assign(p.query_labels().begin(), p.query_labels().end());
      return e;
    }
    e.outputs = raw;
    e.targets.assign(p.query_values().begin(), p.query_values().end());
    e.std = p.std;
    if (e.std.empty()) e.std.assign(e.targets.size(), noise);
    return e;
  };
  const auto take = [&](const ValidationEpisode& e) {
    if (e.diverged) {
      ++detail.report.diverged;
    } else if (classify) {
      classification.add_episode(e.probabilities, e.labels, e.classes);
    } else {
      regression.add_episode(e.outputs, samples, e.targets, e.std);
    }
  };
  predict_episodes(scheduler, assembly.parameters, source,
                   {config.seed, Split::validation, config.train.validation_episodes}, predict,
                   work, take);
  ValidationReport& r = detail.report;
  metrics::Estimate decisive{};
  if (classify) {
    detail.accuracy = decisive = classification.accuracy();
    detail.nll = classification.nll();
    r.metric = "accuracy";
  } else {
    detail.mse = decisive = regression.mse();
    if (regression.nll().count > 0) detail.nll = regression.nll();
    r.metric = "mse";
    if (config.loss.type == LossType::gaussian_nll) {
      decisive = regression.nll();
      r.metric = "nll";
    }
  }
  r.value = decisive.mean;
  r.half_width = decisive.half_width;
  r.nll = detail.nll ? detail.nll->mean : std::numeric_limits<double>::quiet_NaN();
  return detail;
}

}  // namespace kshot
