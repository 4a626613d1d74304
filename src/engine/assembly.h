// The parts that training, evaluation and adaptation share: network, algorithm, backend,
// parameters.
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

/// Returns the configuration with the number of target values of a closed-form head filled in from
/// the tasks, where the configuration leaves it to the episodes.
Config with_head_outputs(Config config, const TaskShape& shape);
/// The key that gives a closed-form head's number of outputs, and its value (0: any number). The
/// key is empty for other algorithms.
std::pair<const char*, int> head_outputs(const Config& config);
/// Makes an Assembly whose parameters are zero. `precision` is that of backend::make_backend.
Assembly assemble(const Config& config, const std::string& device, int threads,
                  std::optional<backend::Precision> precision = {});
void load_parameters(Assembly& assembly, const Checkpoint& checkpoint);

/// Name and description of a backend: "cpu (...)".
std::string device_text(const backend::Backend& backend);
SourceInfo describe(const EpisodeSource& source);
/// Throws Error where the episodes do not fit the network or the loss.
void check_fit(const Config& config, const Network& network, const EpisodeSource& source);
/// Throws Error where training on such tasks takes more memory than the machine has. The count is
/// the least that it takes.
void check_training_memory(const Assembly& assembly, const TaskShape& shape);

/// The configuration for prediction. New tasks come without labels for their queries, so that the
/// inner loop of abml.inner_data = "all" runs on the support set alone.
Config prediction_config(Config config);
/// Options as [evaluate] says, with the values of training where it leaves them open.
PredictOptions predict_options(const Config& config, const Algorithm& algorithm);

bool is_classification(const Config& config);
/// True where a layer of the network has batch statistics.
bool has_norm(const Network& network);
/// Standard deviation of the observation noise of the predictive distribution. With gaussian_nll it
/// is the noise of the loss; a learned noise is read from the current parameters. A Bayesian model
/// with squared error has sqrt(outputs / 2), because the exponential of that loss is the density of
/// N(prediction, outputs / 2). Otherwise it is 0: a point prediction has no distribution, and
/// closed-form heads have their own variance.
double predictive_noise(const Assembly& assembly);
/// Observation noise that a closed-form head has learned (alpaca, dkt): standard deviations
/// [outputs], or empty where there is none.
std::vector<double> head_noise(const Assembly& assembly, int outputs);

}  // namespace kshot
