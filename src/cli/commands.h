// The commands behind the command line, free of its parser. Each throws kshot::Error, or returns
// the exit status.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/text_options.h"
#include "kshot/evaluator.h"

namespace kshot::cli {

/// Exit statuses: 0 done, 1 a verification out of tolerance, 2 an error, 128 + n stopped by
/// signal n.
inline constexpr int error_status = 2;

struct Machine {
  std::string device = "auto";
  int threads = 0;  ///< 0: all cores
};

struct TrainArguments {
  std::string config, resume, out;
  std::vector<std::string> set;
  Machine machine;
  bool quiet = false, allow_changed_data = false;
  std::string command;  ///< as typed, for the record
};
int run_train(const TrainArguments& arguments);

struct EvaluateArguments {
  std::string run, split = "test", out;
  std::vector<std::string> set;
  int episodes = -1, steps = -2, samples = -1;  ///< below their range: as configured
  std::string shots;                            ///< "5" or "1,2,5"; empty: as configured
  long long seed = -1;
  std::string norm;
  bool no_baselines = false, quiet = false, allow_changed_data = false, calibrated = false;
  double confidence = 0.95;      ///< calibrate: of the thresholds
  std::vector<std::string> ood;  ///< evaluate: kinds of rows out of distribution
  Machine machine;
};
int run_evaluate(const EvaluateArguments& arguments);

/// What evaluation and calibration have in common, with `overrides` in the order of the options.
EvaluatorOptions evaluator_options(const EvaluateArguments& arguments);
/// Fits a temperature or a variance factor; `split` and `out` are used as in run_evaluate.
int run_calibrate(const EvaluateArguments& arguments);
struct BanditArguments {
  std::string config, out = "bandit.json";
  std::vector<std::string> set;
  bool quiet = false, reference = false;
  Machine machine;
};
int run_bandit(const BanditArguments& arguments);

struct SweepArguments {
  std::string config, space, out = "sweep", shard;  ///< shard: "2/8"; empty: all runs
  std::vector<std::string> set, vary;
  int random = 0, halving = 0, first_steps = 0;  ///< 0: as the file says
  long long seed = -1;
  int jobs = 0, threads = 1;
  bool collect = false, quiet = false;
  std::string device = "auto";
};
int run_sweep_command(const SweepArguments& arguments);

struct AdaptArguments {
  std::string run, query, out = "adapted";
  std::string support;  ///< empty: from the prior alone
  std::vector<std::string> set;
  int steps = -2, samples = -1;
  TextOptions text;  ///< of both CSV files; by default as the training table was written
  bool calibrated = false;
  std::optional<double> max_risk, min_confidence, level;  ///< decisions, where they are asked for
  std::string missing, layout;  ///< error, mean or drop; hwc or chw; empty: as in training
  Machine machine;
};
int run_adapt(const AdaptArguments& arguments);

struct ReportArguments {
  std::string run, out;
  bool quick = false;  ///< only what the run folder holds
  bool allow_changed_data = false;
  Machine machine;
};
int run_report(const ReportArguments& arguments);

struct CompareArguments {
  std::vector<std::string> runs;
  std::string out;
};
int run_compare(const CompareArguments& arguments);

struct PlanArguments {
  std::string config;
  std::vector<std::string> set;
  double gflops = 0.0;  ///< assumed rate of all cores; 0: measured in a short probe
  Machine machine;
};
int run_plan(const PlanArguments& arguments);

/// `classes`: list every class of a data file.
int run_inspect(const std::string& file, bool values, bool classes);
int run_devices();

struct ConfigArguments {
  std::string config, starter, out;  ///< out: empty for standard output
  std::vector<std::string> set;
  bool reference = false;
};
int run_config(const ConfigArguments& arguments);

struct DemoArguments {
  std::string out = "demo";
  double seconds = 110.0;  ///< of training, both methods together
  Machine machine;
};
int run_demo(const DemoArguments& arguments);

struct VerifyArguments {
  std::string folder, precision, out;
  Machine machine{.device = "reference"};
};
int run_verify(const VerifyArguments& arguments);

}  // namespace kshot::cli
