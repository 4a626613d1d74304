// Metrics of a run as JSON lines and TensorBoard events.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "io/json_lines.h"
#include "io/tfevents.h"
#include "kshot/trainer.h"
#include "metrics/metrics.h"

namespace kshot {

/// The measurements of a validation, beside the one that decides.
struct ValidationDetail {
  ValidationReport report;
  std::optional<metrics::Estimate> accuracy, mse, nll;
};

/// Writes the metrics of one run.
class RunLog {
 public:
  /// Where `resumed_at` is given, the entries of later steps are dropped.
  RunLog(const std::filesystem::path& folder, std::optional<std::uint64_t> resumed_at);

  void add(const TrainReport& r);
  void add(const ValidationDetail& v);

 private:
  io::JsonLinesWriter lines_;
  io::EventWriter events_;
};

}  // namespace kshot
