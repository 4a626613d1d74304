// The commands of the command line as functions, without the parser. Each function throws
// kshot::Error, or returns the exit status.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/text_options.h"
#include "kshot/evaluator.h"

namespace kshot::cli {

/// Exit status of an error. The others: 0 done, 1 a verification out of tolerance, 128 + n stopped
/// by signal n.
inline constexpr int error_status = 2;

/// The options that choose what computes.
struct Machine {
  std::string device = "auto";
  int threads = 0;  ///< 0: all cores
};

/// The options of a command have the names of the command line; an empty text stands for an option
/// that was not given.
struct TrainArguments {
  std::string config, resume, out;
  std::vector<std::string> set;
  Machine machine;
  bool quiet = false, allow_changed_data = false;
  std::string command;  ///< the command line as typed, for run.json
};
int run_train(const TrainArguments& arguments);

struct EvaluateArguments {
  std::string run, split = "test", out;
  std::vector<std::string> set;
  int episodes = -1, steps = -2, samples = -1;  ///< these values, out of range: as configured
  std::string shots;                            ///< "5" or "1,2,5"; empty: as configured
  long long seed = -1;
  std::string norm;
  bool no_baselines = false, quiet = false, allow_changed_data = false, calibrated = false;
  double confidence = 0.95;      ///< calibrate: confidence of the thresholds
  std::vector<std::string> ood;  ///< evaluate: kinds of rows out of distribution
  Machine machine;
};
int run_evaluate(const EvaluateArguments& arguments);

/// The options that evaluation and calibration have in common, with `overrides` in the order of the
/// command line's options.
EvaluatorOptions evaluator_options(const EvaluateArguments& arguments);
/// Fits a temperature or a variance factor. `split` and `out` are used as in run_evaluate.
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
  int random = 0, halving = 0, first_steps = 0;  ///< 0: the value of the file `space`
  long long seed = -1;
  int jobs = 0, threads = 1;
  bool collect = false, quiet = false;
  std::string device = "auto";
};
int run_sweep_command(const SweepArguments& arguments);

struct AdaptArguments {
  std::string run, query, out = "adapted";
  std::string support;  ///< empty: predict from the prior alone
  std::vector<std::string> set;
  int steps = -2, samples = -1;
  TextOptions text;  ///< format of both CSV files; by default that of the training table
  bool calibrated = false;
  std::optional<double> max_risk, min_confidence, level;  ///< decisions; absent: none
  std::string missing, layout;  ///< error, mean or drop; hwc or chw; empty: as in training
  Machine machine;
};
int run_adapt(const AdaptArguments& arguments);

struct ReportArguments {
  std::string run, out;
  bool quick = false;  ///< show only what the run folder holds
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
  double gflops = 0.0;  ///< assumed speed of all cores, GFLOP/s; 0: measure it in a short probe
  Machine machine;
};
int run_plan(const PlanArguments& arguments);

/// Prints the content of a file. `values` prints the numbers of tensors, `classes` lists every
/// class of a data file.
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
  double seconds = 110.0;  ///< training time of all methods together
  Machine machine;
};
int run_demo(const DemoArguments& arguments);

struct VerifyArguments {
  std::string folder, precision, out;
  Machine machine{.device = "reference"};
};
int run_verify(const VerifyArguments& arguments);

}  // namespace kshot::cli
