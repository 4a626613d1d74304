// The configuration of a run: every key of the TOML file as a member with a type. Names, ranges,
// defaults and the meaning of each key are written once, in src/config/keys.cpp. Reading, checking,
// `--set`, writing and docs/configuration.md, which documents every key, all use that list.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kshot/count_range.h"
#include "kshot/network.h"

namespace kshot {

enum class AlgorithmKind {
  maml,
  meta_sgd,
  abml,
  leo,
  hvi,
  protonet,
  r2d2,
  bayes_protonet,
  alpaca,
  dkt
};
/// Whether the algorithm fits a head to a task's support features in closed form. Then the outputs
/// of [network] are features, of any number, and there is no inner loop.
bool is_closed_form(AlgorithmKind algorithm);
/// Whether the algorithm predicts a task without support rows from a learned prior.
bool has_prior(AlgorithmKind algorithm);
struct Config;
/// Number of classes of an episode that is drawn from a file of classes: data.ways. Where data.ways
/// is 0, it is the network's number of outputs, or 5 for a closed-form head.
CountRange episode_ways(const Config& config);
enum class Order { first, second };
enum class LossType { cross_entropy, mse, gaussian_nll };
enum class NoiseKind { fixed, learned };
enum class RateKind { weight, layer };  ///< one learning rate per weight, or per tensor
enum class AbmlRates { fixed, layer, weight };
enum class OptimizerKind { adam, sgd };
enum class ScheduleKind { constant, cosine, step };
enum class DataKind { sinusoid, sine_line, wheel, file };
enum class Estimator { weight, flipout, local };  ///< docs/estimators.md
enum class InnerData { support, all };
enum class Latents { per_example, one };
enum class LatentKl { sampled, analytic };
enum class ClipNormOf { all, tensor };
enum class Bound { vb, mcallester, seeger, pentina };
enum class HyperKl { full, per_model };
enum class Permute { none, labels, pixels };
enum class Episodes { few_shot, minibatch };
enum class SmallTasks { refuse, skip };
enum class Metric { euclidean, cosine };
enum class Kernel { linear, rbf, cosine };
enum class ProcessObjective { predictive, marginal };

/// Members have the names of the TOML keys, and tables are nested structs (docs/configuration.md).
struct Config {
  AlgorithmKind algorithm = AlgorithmKind::maml;
  std::uint64_t seed = 1;
  /// [network]: the layers, or one of the built-in networks.
  struct NetworkTable {
    std::string type = "mlp";                  ///< mlp | linear | conv4 | sequential
    std::vector<int> layers = {1, 40, 40, 1};  ///< mlp, linear
    std::string activation = "relu";           ///< mlp: relu | tanh
    int in_channels = 1;                       ///< conv4
    std::vector<int> image = {28, 28};         ///< conv4: height, width
    int filters = 64;                          ///< conv4
    int classes = 5;                           ///< conv4; 0: no linear layer (closed-form heads)
    std::string downsample = "stride";         ///< conv4: stride | pool
    std::string norm = "batch";                ///< conv4: batch | none
    std::string head = "mean";                 ///< conv4: mean | flatten
    std::vector<int> input;                    ///< sequential: [C, H, W] or [d]
    std::vector<LayerSpec> sequential;         ///< sequential: key `layers`, a list of tables
    double input_dropout = 0.0;                ///< closed-form heads: share dropped in training
    bool operator==(const NetworkTable&) const = default;
  } network;
  /// [loss]: the loss of a row.
  struct LossTable {
    LossType type = LossType::mse;
    double noise_std = 1.0;
    NoiseKind noise = NoiseKind::fixed;  ///< gaussian_nll: learned starts at noise_std
    bool operator==(const LossTable&) const = default;
  } loss;
  /// [inner]: the inner loop.
  struct InnerTable {
    int steps = 1;
    double learning_rate = 0.01;
    Order order = Order::second;
    std::vector<std::string> adapt = {"*"};
    bool operator==(const InnerTable&) const = default;
  } inner;
  /// [meta_sgd]: learned inner learning rates.
  struct MetaSgdTable {
    RateKind rates = RateKind::weight;
    bool per_step = false;
    bool operator==(const MetaSgdTable&) const = default;
  } meta_sgd;
  /// [abml]: amortized Bayesian meta-learning.
  struct AbmlTable {
    double kl_weight_inner = 1.0;
    double kl_weight_outer = 1.0;
    bool differentiate_prior = true;
    bool support_in_outer = true;
    double gamma_shape = 2.0;  ///< a0
    double gamma_rate = 0.2;   ///< b0
    double hyper_prior_weight = 0.0;
    int samples_inner = 5;  ///< S
    int samples_outer = 5;  ///< S'
    double log_sigma_init = -4.0;
    Estimator estimator = Estimator::weight;
    InnerData inner_data = InnerData::support;
    AbmlRates rates = AbmlRates::fixed;
    bool operator==(const AbmlTable&) const = default;
  } abml;

  /// With loss.type = cross_entropy the generator makes a softmax head on features ("head"), and
  /// there is no [network]. With another loss it makes all weights of [network].
  struct LeoTable {
    int ways = 5;     ///< head: N
    int dim = 640;    ///< head: features of a row
    int latent = 64;  ///< L
    int latent_steps = 5;
    int finetune_steps = 5;
    Latents latents = Latents::per_example;  ///< head
    bool relation = true;
    std::vector<int> encoder_layers = {32};  ///< [network]: hidden units of the encoder ...
    std::vector<int> decoder_layers = {32};  ///< ... and of the decoder
    bool deterministic = false;
    LatentKl kl = LatentKl::sampled;
    double kl_weight = 0.001;
    double encoder_penalty = 1e-9;
    double l2_weight = 1e-8;
    double orthogonality_weight = 1e-3;
    double dropout_rate = 0.0;     ///< head: share of the features that is dropped
    double decoder_offset = -1.0;  ///< negative: sqrt(2 / (fan in + fan out))
    double latent_lr_init = 1.0;
    double finetune_lr_init = 0.001;
    bool operator==(const LeoTable&) const = default;
  } leo;
  /// [hvi]: hierarchical variational inference.
  struct HviTable {
    Bound bound = Bound::mcallester;
    int tasks = 0;      ///< n of the bound; 0: as many as the data have
    int task_size = 0;  ///< m of the bound; 0: as many rows as the task's own set has
    double kappa_prior = 100.0;
    double kappa_posterior = 0.001;
    double delta = 0.1;
    HyperKl hyper_kl = HyperKl::full;
    int samples = 1;  ///< S
    double log_sigma_init = -4.0;
    int joint_steps = 30;  ///< steps on one meta-batch, where tasks are drawn anew
    bool operator==(const HviTable&) const = default;
  } hvi;

  /// [protonet]: nearest prototype. In this and the next four tables, `ways` is the largest number
  /// of classes of a task, `outputs` the target values of a row. 0: as many as the episodes have.
  struct ProtonetTable {
    int ways = 0;
    Metric metric = Metric::euclidean;
    bool operator==(const ProtonetTable&) const = default;
  } protonet;
  /// [r2d2]: ridge regression.
  struct R2d2Table {
    int ways = 0;  ///< cross_entropy
    bool operator==(const R2d2Table&) const = default;
  } r2d2;
  /// [bayes_protonet]: Gaussian classes with a learned prior.
  struct BayesProtonetTable {
    int ways = 0;
    bool operator==(const BayesProtonetTable&) const = default;
  } bayes_protonet;
  /// [alpaca]: Bayesian linear regression.
  struct AlpacaTable {
    int outputs = 0;
    bool operator==(const AlpacaTable&) const = default;
  } alpaca;
  /// [dkt]: a Gaussian process.
  struct DktTable {
    int outputs = 0;
    Kernel kernel = Kernel::rbf;
    ProcessObjective objective = ProcessObjective::predictive;
    bool operator==(const DktTable&) const = default;
  } dkt;
  /// [data]: where the episodes come from.
  struct DataTable {
    DataKind source = DataKind::sinusoid;
    std::string path;                        ///< file: a data file that `kshot import` wrote
    Episodes episodes = Episodes::few_shot;  ///< file of classes
    // Every task draws its own number from a range.
    CountRange ways = 0;   ///< classification; 0: see episode_ways
    CountRange shots = 1;  ///< support examples of a class (file of classes), support rows (else)
    CountRange queries = 15;     ///< query examples of a class, query rows
    bool unit_length = false;    ///< file: every example's features divided by their length
    bool stratified = false;     ///< file of tasks with labels: shots and queries of each label
    bool variable_size = false;  ///< file of tasks: all rows of a task, up to shots and queries
    SmallTasks small_tasks = SmallTasks::refuse;  ///< file of tasks: those with too few rows
    int tasks = 0;  ///< fixed training tasks; 0: new in every step (a file of tasks has its own)
    Permute permute = Permute::none;                   ///< file of classes
    int pixel_swaps = 200;                             ///< permute = "pixels"
    double amplitude_low = 0.1, amplitude_high = 5.0;  ///< sinusoid
    double line_limit = 3.0;                           ///< sine_line
    double x_low = -5.0, x_high = 5.0;                 ///< sinusoid
    double noise_std = 0.0;                            ///< sinusoid, wheel
    int problems = 64;      ///< wheel: number of training problems; 0: a new one for every task
    bool all_arms = false;  ///< wheel: every context gives a row per arm
    bool operator==(const DataTable&) const = default;
  } data;
  /// [optimizer]: the outer loop.
  struct OptimizerTable {
    OptimizerKind type = OptimizerKind::adam;
    double learning_rate = 1e-3;
    double momentum = 0.9;
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
    ScheduleKind schedule = ScheduleKind::constant;
    double final_learning_rate = 0.0;  ///< cosine: reached at train.steps
    int decay_every = 10000;           ///< step
    double decay_factor = 0.5;         ///< step
    double weight_decay = 0.0;         ///< this times the parameters is added to the meta-gradient
    double clip_value = 0.0;           ///< 0: off
    double clip_norm = 0.0;            ///< 0: off
    ClipNormOf clip_norm_of = ClipNormOf::all;
    bool nan_guard = false;
    bool operator==(const OptimizerTable&) const = default;
  } optimizer;
  /// [train]: length, validation and logging.
  struct TrainTable {
    int steps = 10000;
    int meta_batch = 32;
    int validate_every = 500;  ///< 0: never
    int validation_episodes = 200;
    int patience = 0;           ///< validations without improvement before stopping; 0: off
    double time_limit = 0.0;    ///< seconds of training; 0: none
    double max_diverged = 0.5;  ///< largest share of diverged tasks in a step
    int log_every = 50;
    int checkpoint_every = 1000;
    bool operator==(const TrainTable&) const = default;
  } train;
  /// [evaluate]: test episodes and predictions.
  struct EvaluateTable {
    int episodes = 600;
    int steps = -1;    ///< inner steps; -1: as in training
    int samples = -1;  ///< posterior samples; -1: as in training
    std::uint64_t seed = 1000;
    std::string norm_statistics = "batch";  ///< batch | support
    int bins = 15;                          ///< number of bins of the calibration errors
    std::string edges = "right";            ///< right | left: which edge belongs to a bin
    double risk = 0.05;                     ///< the risk at which coverage is reported
    bool operator==(const EvaluateTable&) const = default;
  } evaluate;

  /// Reads a TOML file. `overrides` are "table.key=value" in TOML syntax (bare words are strings).
  /// Throws Error naming file, key, what was expected and, for a misspelt key, what was meant.
  static Config load(const std::filesystem::path& file,
                     const std::vector<std::string>& overrides = {});
  /// Reads TOML from a text. Messages call it `origin`, where they would name a file.
  static Config parse(const std::string& text, const std::string& origin = "configuration",
                      const std::vector<std::string>& overrides = {});
  /// TOML with every key that applies and its value. `parse` reads it back to the same Config.
  std::string to_toml() const;
  /// The network that [network] describes. Throws Error for layers that do not fit each other.
  Network make_network() const;
  /// Checks a Config that was filled in code: ranges, required keys, and that [network], [loss] and
  /// [inner] fit. `load` and `parse` do it themselves. Throws Error that begins with `origin`.
  void check(const std::string& origin = "configuration") const;
  /// Checks that [data] fits [network] and [loss], as far as it is known before the data are read.
  /// `check` does not, because `kshot verify` and a source of one's own need no [data].
  void check_data(const std::string& origin = "configuration") const;

  bool operator==(const Config&) const = default;
};

/// The text of docs/configuration.md: every key with its type, range, default and meaning.
std::string configuration_reference();
/// A commented starter file for an algorithm ("maml", "abml", ...), which trains on sinusoids and
/// runs as it is. Throws Error for another name.
std::string config_template(const std::string& algorithm);

}  // namespace kshot
