// `demo`: trains ABML, MAML and a Bayesian linear head on the same sinusoids, with configurations
// that are part of the program, and writes a report.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "base/log.h"
#include "cli/commands.h"
#include "io/output_file.h"
#include "kshot/config.h"
#include "kshot/error.h"
#include "kshot/trainer.h"
#include "report/report_data.h"
#include "report/run_page.h"
#include "report/task_figures.h"

namespace kshot::cli {
namespace {

namespace fs = std::filesystem;

/// The tables that all methods share: the same tasks under a Gaussian likelihood. The number of
/// support points differs from task to task, so that the result holds for one point as for ten.
constexpr const char* common_keys = R"(
[data]
source = "sinusoid"
shots = {}
queries = 10
noise_std = 0.3

[optimizer]
learning_rate = {}
final_learning_rate = 1e-5
schedule = "cosine"
clip_norm = 10.0

[train]
meta_batch = 64
validate_every = 500
validation_episodes = 400
log_every = 100
checkpoint_every = 1000
)";

/// The network that ABML and MAML adapt, and the loss with the noise of the tasks.
constexpr const char* adapted = R"(
[network]
type = "mlp"
layers = [1, 40, 40, 1]
activation = "relu"

[loss]
type = "gaussian_nll"
noise_std = 0.3
)";

/// ABML learns from the likelihood of its predictive distribution, after it has learned to adapt.
constexpr const char* abml = R"(
[inner]
steps = 5
learning_rate = 0.001

[abml]
outer_loss = "predictive"
predictive_after = 1000
rates = "layer"
kl_weight_inner = 0.1
kl_weight_outer = 0.0
samples_inner = 2
samples_outer = 6
log_sigma_init = -3.0
gamma_shape = 2.0
gamma_rate = 0.2
hyper_prior_weight = 1e-6

[evaluate]
episodes = 1000
samples = 20
)";

constexpr const char* maml = R"(
[inner]
steps = 5
learning_rate = 0.001

[evaluate]
episodes = 1000
)";

/// The network of the features that the Bayesian linear head is fitted to.
constexpr const char* features = R"(
[network]
type = "mlp"
layers = [1, 64, 64, 32]
activation = "tanh"
)";

constexpr const char* alpaca = R"(
[evaluate]
episodes = 1000
)";

struct Method {
  const char* name;     ///< name of the algorithm and of the run folder
  const char* network;  ///< the tables [network] and [loss]
  const char* tables;
  const char* shots;
  double share;  ///< share of the training time
  int steps;
  double learning_rate;  ///< of the meta-update
};
constexpr std::array methods = {Method{"abml", adapted, abml, "[1, 10]", 0.6, 5000, 0.004},
                                Method{"maml", adapted, maml, "[1, 10]", 0.15, 6000, 0.002},
                                Method{"alpaca", features, alpaca, "[0, 10]", 0.25, 5000, 0.002}};

Config configuration(const Method& method, double seconds) {
  return Config::parse(fmt::format("algorithm = \"{}\"\nseed = 1\n{}{}{}", method.name,
                                   fmt::format(common_keys, method.shots, method.learning_rate),
                                   method.network, method.tables),
                       "demo",
                       {fmt::format("train.time_limit={}", seconds * method.share),
                        fmt::format("train.steps={}", method.steps)});
}

/// Returns a table with the error of each method for each number of points, and how often its bands
/// hold the target.
std::string coverage_table(const std::vector<report::ReportData>& runs) {
  std::string text = "points  method       MSE   in 50 % band   90 %   95 %\n";
  for (const int shots : {1, 5, 10}) {
    for (const report::ReportData& run : runs) {
      const auto found = std::ranges::find(run.by_shots, shots, &std::pair<int, Evaluation>::first);
      if (found == run.by_shots.end()) continue;
      const Score& s = found->second.last();
      text += fmt::format("{:>6}  {:<8}{:>8.3f}", shots, run.name, s.mse->mean);
      for (std::size_t i = 0; i < s.coverage.size(); ++i) {
        text += fmt::format("{:>{}.1f}", 100.0 * s.coverage[i].observed.mean, i == 0 ? 15 : 7);
      }
      text += "\n";
    }
  }
  return text;
}

}  // namespace

int run_demo(const DemoArguments& a) {
  const fs::path folder = a.out;
  io::OutputFile file(folder / "report.html", io::OutputKind::page);
  std::vector<report::ReportData> runs;
  for (const Method& method : methods) {
    TrainerOptions options;
    options.run_folder = folder / method.name;
    options.device = a.machine.device;
    options.threads = a.machine.threads;
    options.progress = true;
    options.command = "kshot demo";
    Trainer trainer(configuration(method, a.seconds), options);
    log_info(fmt::format("{} on sinusoids, up to 10 noisy points per task, device {}",
                         report::method_name(method.name), trainer.device()));
    trainer.run();
  }
  ReportOptions options;
  options.device = a.machine.device;
  options.threads = a.machine.threads;
  std::vector<const report::ReportData*> pieces;
  for (const Method& method : methods) {
    runs.push_back(report::read_run(folder / method.name));
    report::add_missing_evaluations(runs.back(), options);
  }
  for (const report::ReportData& run : runs) pieces.push_back(&run);
  report::Report page = report::run_page(pieces, report::task_figures(pieces, 4, options));
  page.title = "Bayesian few-shot regression";
  page.subtitle =
      "ABML, MAML and a Bayesian linear head (ALPACA) on sinusoids: every task is a new amplitude "
      "and phase";
  file.write(report::render(page));
  for (const report::ReportData& run : runs)
    std::fputs((run.evaluation->table() + "\n").c_str(), stdout);
  fmt::print("{}\n", coverage_table(runs));
  fmt::print("Open {}: learning curves, what is predicted from 1, 5 and 10 points, calibration.\n",
             file.path().string());
  fmt::print("Next: kshot config --template abml > my.toml, kshot train my.toml\n");
  return 0;
}

}  // namespace kshot::cli
