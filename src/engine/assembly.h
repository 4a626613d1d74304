// What training, evaluation and adaptation are put together from.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "algorithms/algorithm.h"
#include "backend/backend.h"
#include "engine/checkpoint.h"
#include "kshot/config.h"
#include "kshot/episode.h"

namespace kshot {

/// A configuration's network and algorithm on a backend, and room for the parameters.
struct Assembly {
  Config config;
  std::shared_ptr<const Network> network;
  std::unique_ptr<backend::Backend> backend;
  std::unique_ptr<Algorithm> algorithm;
  std::vector<backend::Shared> parameters;  ///< in the order of algorithm->groups()
};

/// The configuration with what a closed-form head takes from the tasks: its number of target values
/// where the configuration leaves it to the episodes.
Config with_head_outputs(Config config, const TaskShape& shape);
/// The key that says how many outputs a closed-form head has, and its value; 0: any number. An
/// empty key for other algorithms.
std::pair<const char*, int> head_outputs(const Config& config);
/// Parameters are left zero. `precision`: as backend::make_backend takes it.
Assembly assemble(const Config& config, const std::string& device, int threads,
                  std::optional<backend::Precision> precision = {});
void load_parameters(Assembly& assembly, const Checkpoint& checkpoint);

/// "cpu (...)".
std::string device_text(const backend::Backend& backend);
SourceInfo describe(const EpisodeSource& source);
/// Throws Error where the episodes do not fit the network or the loss.
void check_fit(const Config& config, const Network& network, const EpisodeSource& source);
/// Throws Error where training on such tasks takes more memory than the machine has, by a count of
/// the least that it takes.
void check_training_memory(const Assembly& assembly, const TaskShape& shape);

/// For prediction: new tasks come without labels for their queries, so the inner loop of
/// abml.inner_data = "all" runs on the support set alone.
Config prediction_config(Config config);
/// As [evaluate] says, with what it leaves to training filled in.
PredictOptions predict_options(const Config& config, const Algorithm& algorithm);

bool is_classification(const Config& config);
/// Standard deviation of the observation noise of the predictive distribution. With gaussian_nll it
/// is the loss's own; where that is learned, as the parameters are now. A Bayesian model with
/// squared error has sqrt(outputs / 2), because the exponential of that loss is the density of
/// N(prediction, outputs / 2). Else it is 0: for a point without a distribution, and for
/// closed-form heads, which have their own variance.
double predictive_noise(const Assembly& assembly);
/// Observation noise that a closed-form head has learned (alpaca, dkt): standard deviations
/// [outputs], or empty where there is none.
std::vector<double> head_noise(const Assembly& assembly, int outputs);

}  // namespace kshot
