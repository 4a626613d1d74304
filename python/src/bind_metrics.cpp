// The metrics of kshot/metrics.h.
#include <type_traits>

#include "bindings.h"
#include "kshot/metrics.h"

namespace kshot::python {

using namespace nb::literals;

namespace {

/// Runs work without the interpreter's lock. An Error, which says what is wrong with an argument,
/// becomes a ValueError.
template <typename Work>
auto value_errors(const Work& work) {
  try {
    const nb::gil_scoped_release release;
    return work();
  } catch (const Error& error) {
    throw nb::value_error(error.what());
  }
}

/// Returns the column of one member as a NumPy array. Counts are int64.
template <typename T, typename Row>
nb::object column(const std::vector<Row>& rows, T Row::*member) {
  std::vector<std::conditional_t<std::is_same_v<T, std::size_t>, std::int64_t, T>> values;
  for (const Row& row : rows) values.emplace_back(row.*member);
  const std::size_t size = values.size();
  return to_numpy(std::move(values), {size});
}

nb::dict to_dict(ClassificationScores s) {
  nb::dict d;
  d["rows"] = s.rows;
  d["classes"] = s.classes;
  d["accuracy"] = s.accuracy;
  d["nll"] = s.nll;
  d["brier"] = s.brier;
  d["brier_reliability"] = s.brier_reliability;
  d["brier_resolution"] = s.brier_resolution;
  d["brier_uncertainty"] = s.brier_uncertainty;
  d["brier_within_bin"] = s.brier_within_bin;
  d["ece"] = s.ece;
  d["mce"] = s.mce;
  d["ece_equal_mass"] = s.ece_equal_mass;
  d["classwise_ece"] = s.classwise_ece;
  d["aurc"] = s.aurc;
  d["risk_at_coverage"] = s.risk_at_coverage;
  d["coverage_at_risk"] = s.coverage_at_risk;
  d["auroc"] = s.auroc;
  nb::dict bins;
  bins["low"] = column(s.reliability, &CalibrationBin::low);
  bins["high"] = column(s.reliability, &CalibrationBin::high);
  bins["count"] = column(s.reliability, &CalibrationBin::count);
  bins["confidence"] = column(s.reliability, &CalibrationBin::confidence);
  bins["accuracy"] = column(s.reliability, &CalibrationBin::accuracy);
  d["reliability"] = bins;
  nb::dict curve;
  curve["threshold"] = column(s.risk_coverage, &RiskCoveragePoint::threshold);
  curve["coverage"] = column(s.risk_coverage, &RiskCoveragePoint::coverage);
  curve["risk"] = column(s.risk_coverage, &RiskCoveragePoint::risk);
  d["risk_coverage"] = curve;
  return d;
}

nb::dict to_dict(RegressionScores s) {
  nb::dict d;
  d["rows"] = s.rows;
  d["mse"] = s.mse;
  d["nll"] = s.nll;
  d["crps"] = s.crps;
  d["sharpness"] = s.sharpness;
  d["levels"] = column(s.bands, &BandScore::level);
  d["coverage"] = column(s.bands, &BandScore::coverage);
  d["width"] = column(s.bands, &BandScore::width);
  d["pit_histogram"] =
      to_numpy(std::vector<std::int64_t>(s.pit_histogram.begin(), s.pit_histogram.end()),
               {s.pit_histogram.size()});
  const std::size_t rows = s.pit.size();
  d["pit"] = to_numpy(std::move(s.pit), {rows});
  return d;
}

}  // namespace

void bind_metrics(nb::module_& m) {
  m.def(
      "classification_scores",
      [](const Doubles& probabilities, const Labels& labels, std::size_t classes, std::size_t bins,
         const std::string& edges, double coverage, double risk) {
        return to_dict(value_errors([&] {
          return classification_scores(
              span_of(probabilities), span_of(labels), classes,
              {.bins = bins, .edges = edges, .coverage = coverage, .risk = risk});
        }));
      },
      "probabilities"_a, "labels"_a, "classes"_a, "bins"_a, "edges"_a, "coverage"_a, "risk"_a);
  m.def(
      "regression_scores",
      [](const Doubles& mean, const Doubles& std, const Doubles& y, std::vector<double> levels,
         std::size_t pit_bins) {
        return to_dict(value_errors([&] {
          return regression_scores(span_of(mean), span_of(std), span_of(y),
                                   {.levels = std::move(levels), .pit_bins = pit_bins});
        }));
      },
      "mean"_a, "std"_a, "y"_a, "levels"_a, "pit_bins"_a);
  m.def(
      "regression_scores_of_samples",
      [](const Doubles& samples, std::size_t sample_count, const Doubles& y,
         const Doubles& noise_std, std::vector<double> levels, std::size_t pit_bins) {
        return to_dict(value_errors([&] {
          return regression_scores_of_samples(span_of(samples), sample_count, span_of(y),
                                              span_of(noise_std),
                                              {.levels = std::move(levels), .pit_bins = pit_bins});
        }));
      },
      "samples"_a, "sample_count"_a, "y"_a, "noise_std"_a, "levels"_a, "pit_bins"_a);
  m.def(
      "detection_scores",
      [](const Doubles& inside, const Doubles& outside) {
        const DetectionScores s =
            value_errors([&] { return detection_scores(span_of(inside), span_of(outside)); });
        return std::tuple(s.auroc, s.aupr, s.fpr95);
      },
      "inside"_a, "outside"_a);
  m.def(
      "mean_interval",
      [](const Doubles& values, std::size_t resamples, double level, std::uint64_t seed) {
        const IntervalScore s = value_errors([&] {
          return mean_interval(span_of(values),
                               {.resamples = resamples, .level = level, .seed = seed});
        });
        return std::tuple(s.value, s.low, s.high);
      },
      "values"_a, "resamples"_a, "level"_a, "seed"_a);
}

}  // namespace kshot::python
