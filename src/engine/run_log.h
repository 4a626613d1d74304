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

/// What a validation measures, beyond what decides.
struct ValidationDetail {
  ValidationReport report;
  std::optional<metrics::Estimate> accuracy, mse, nll;
};

class RunLog {
 public:
  /// `resumed_at`: what was written of later steps is dropped.
  RunLog(const std::filesystem::path& folder, std::optional<std::uint64_t> resumed_at);

  void add(const TrainReport& r);
  void add(const ValidationDetail& v);

 private:
  io::JsonLinesWriter lines_;
  io::EventWriter events_;
};

}  // namespace kshot
