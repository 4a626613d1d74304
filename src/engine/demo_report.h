// How trained sinusoid runs adapt to new tasks: the figures of `kshot demo`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "metrics/report.h"

namespace kshot {

/// A run to be shown under a name ("ABML"). The name keeps one colour through the report.
struct DemoRun {
  std::string name;
  std::filesystem::path run;  ///< run folder or checkpoint of a sinusoid configuration
};

struct DemoReportOptions {
  std::string device = "auto";
  int threads = 0;
  std::vector<int> shots = {1, 5, 10};  ///< support points, ascending
  int tasks = 4;                        ///< drawn as panels
  int episodes = 500;                   ///< behind every mean
  int samples = 50;                     ///< posterior samples of a prediction
  int steps = 10;           ///< error is shown up to so many inner steps, or training's if more
  std::uint64_t seed = 77;  ///< of the tasks that are drawn
};

/// Adds to `report`: for some new tasks the true function, the support points and every run's prior
/// and adapted predictions with their 50, 90 and 95 % bands; error against shots (after as many
/// inner steps as in training) and against inner steps; coverage of the bands; a table beside the
/// baselines; cards with the headline numbers; diverged episodes. All runs see the same tasks; test
/// episodes are those of Evaluator. Throws Error where a run is not of sinusoids.
void add_adaptation(report::Report& report, std::span<const DemoRun> runs,
                    const DemoReportOptions& options = {});

}  // namespace kshot
