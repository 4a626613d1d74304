// The configuration of a run: every key of the TOML file as a typed member. src/config/keys.cpp has
// the list of keys with their names, ranges and meanings. Reading, checking, `--set`, writing and
// docs/configuration.md all use that list.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kshot/count_range.h"
#include "kshot/network.h"

namespace kshot {

/// The algorithms, by their names in a configuration.
enum class AlgorithmKind {
  maml,            ///< MAML; first-order MAML and ANIL by options of [inner].
  meta_sgd,        ///< Meta-SGD: MAML with learned inner learning rates.
  abml,            ///< Amortized Bayesian meta-learning.
  leo,             ///< Latent embedding optimization.
  hvi,             ///< Hierarchical variational inference with a posterior per training task.
  protonet,        ///< Prototypical networks.
  r2d2,            ///< Ridge regression on features.
  bayes_protonet,  ///< Gaussian classes with a learned prior on their means.
  alpaca,          ///< Bayesian linear regression on features.
  dkt              ///< Deep kernel transfer: a Gaussian process on features.
};
/// True if the algorithm fits a head to a task's support features in closed form. Then the outputs
/// of [network] are features, of any number, and there is no inner loop.
bool is_closed_form(AlgorithmKind algorithm);
/// True if the algorithm predicts a task without support rows from a learned prior.
bool has_prior(AlgorithmKind algorithm);
struct Config;
/// Number of classes of an episode that is drawn from a file of classes: data.ways. Where data.ways
/// is 0, it is the network's number of outputs, or 5 for a closed-form head.
CountRange episode_ways(const Config& config);
/// Order of the meta-gradient.
enum class Order {
  first,  ///< Every inner gradient counts as a constant.
  second  ///< The meta-gradient differentiates through the inner steps.
};
/// The loss of a row.
enum class LossType {
  cross_entropy,  ///< Cross-entropy of class labels.
  mse,            ///< Squared error, mean over outputs.
  gaussian_nll    ///< Negative log density of a Gaussian, summed over outputs.
};
/// The observation noise of gaussian_nll.
enum class NoiseKind {
  fixed,   ///< The noise stays at loss.noise_std.
  learned  ///< The noise is learned with the initial weights, and all tasks share it.
};
/// The learned inner learning rates of Meta-SGD.
enum class RateKind {
  weight,  ///< One learning rate per weight.
  layer    ///< One learning rate per tensor.
};
/// The inner learning rates of ABML.
enum class AbmlRates {
  fixed,  ///< inner.learning_rate for all weights.
  layer,  ///< One learned rate per tensor.
  weight  ///< One learned rate per weight.
};
/// The inner step of ABML.
enum class AbmlStep {
  gradient,  ///< Along the gradient of the mean loss in (mu, log sigma).
  natural    ///< Along the natural gradient of the summed loss: sigma^2 dmu, dlog_sigma / 2.
};
/// The outer loss of ABML.
enum class AbmlOuter {
  elbo,       ///< The mean loss of posterior samples.
  predictive  ///< The negative log likelihood of the posterior predictive distribution.
};
/// The rule of the meta-update.
enum class OptimizerKind {
  adam,  ///< Adam.
  sgd    ///< Gradient descent with momentum.
};
/// The schedule of the outer learning rate.
enum class ScheduleKind {
  constant,  ///< The rate stays the same.
  cosine,    ///< A half cosine that ends at final_learning_rate at train.steps.
  step       ///< The rate is multiplied by decay_factor every decay_every steps.
};
/// The source of the episodes.
enum class DataKind {
  sinusoid,   ///< Sinusoid regression (SinusoidOptions).
  sine_line,  ///< Sinusoids and lines, each with probability one half.
  wheel,      ///< Rewards of wheel bandits.
  file        ///< A data file that `kshot import` wrote.
};
/// How samples of Gaussian weights are drawn (docs/estimators.md).
enum class Estimator {
  weight,   ///< One draw per weight and sample.
  flipout,  ///< The same draw, decorrelated between examples by random signs.
  local     ///< A draw of the pre-activations of every example.
};
/// The rows that the inner loop of ABML sees.
enum class InnerData {
  support,  ///< The support rows.
  all       ///< Support and query rows together.
};
/// The latents of a class in LEO.
enum class Latents {
  per_example,  ///< One latent per support row; the generated heads are averaged.
  one           ///< One latent per class.
};
/// The KL of LEO's latents from N(0, 1).
enum class LatentKl {
  sampled,  ///< The log ratio of the densities at the drawn latents.
  analytic  ///< The closed form.
};
/// The vectors whose norm optimizer.clip_norm limits.
enum class ClipNormOf {
  all,    ///< The gradient of all parameters together.
  tensor  ///< The gradient of each tensor by itself.
};
/// The objective of HVI.
enum class Bound {
  vb,          ///< The hierarchical evidence lower bound.
  mcallester,  ///< McAllester's PAC-Bayes bound.
  seeger,      ///< Seeger's PAC-Bayes bound.
  pentina      ///< The PAC-Bayes bound of Pentina and Lampert.
};
/// How the constant terms of HVI's hyper-KL count.
enum class HyperKl {
  full,      ///< Once per parameter: the exact KL.
  per_model  ///< Once in all, as in the authors' code.
};
/// How tasks are made of a file of classes.
enum class Permute {
  none,    ///< Every task draws its classes.
  labels,  ///< Every task has the same classes and its own permutation of their labels.
  pixels   ///< Every task has the same classes and its own permutation of some pixels.
};
/// The kind of episodes of a file of classes.
enum class Episodes {
  few_shot,  ///< N-way K-shot episodes.
  minibatch  ///< Query examples of all training classes with their own labels, without support.
};
/// What happens to a task of a file that has too few rows.
enum class SmallTasks {
  refuse,  ///< An error names the task.
  skip     ///< No episodes are drawn from the task.
};
/// The comparison of a query row with a prototype.
enum class Metric {
  euclidean,  ///< Minus the squared Euclidean distance.
  cosine      ///< The cosine.
};
/// The kernel of DKT on features.
enum class Kernel {
  linear,  ///< The dot product.
  rbf,     ///< The Gaussian kernel with a learned length scale.
  cosine   ///< The cosine.
};
/// The objective of DKT.
enum class ProcessObjective {
  predictive,  ///< Density of the query rows given the support rows.
  marginal     ///< Marginal likelihood of support and query rows together.
};

/// Members have the names of the TOML keys, and tables are nested structs. docs/configuration.md
/// has the range of every key.
struct Config {
  AlgorithmKind algorithm = AlgorithmKind::maml;  ///< The algorithm that is meta-trained.
  std::uint64_t seed = 1;                         ///< Seed of weights, episodes and samples.
  /// [network]: the layers, or one of the built-in networks.
  struct NetworkTable {
    std::string type = "mlp";                  ///< mlp | linear | conv4 | sequential
    std::vector<int> layers = {1, 40, 40, 1};  ///< mlp, linear: widths, from input to output.
    std::string activation = "relu";           ///< mlp: relu | tanh
    int in_channels = 1;                       ///< conv4: channels of an image.
    std::vector<int> image = {28, 28};         ///< conv4: height and width, pixels.
    int filters = 64;                          ///< conv4: channels of every block.
    int classes = 5;                           ///< conv4: outputs; 0: no linear layer.
    std::string downsample = "stride";         ///< conv4: stride | pool
    std::string norm = "batch";                ///< conv4: batch | none
    std::string head = "mean";                 ///< conv4: mean | flatten
    std::vector<int> input;                    ///< sequential: [C, H, W] or [d].
    std::vector<LayerSpec> sequential;         ///< sequential: key `layers`, a list of tables.
    double input_dropout = 0.0;  ///< Closed-form heads: share of the inputs dropped in training.
    bool operator==(const NetworkTable&) const = default;
  } network;  ///< Table [network].
  /// [loss]: the loss of a row.
  struct LossTable {
    LossType type = LossType::mse;       ///< The loss.
    double noise_std = 1.0;              ///< gaussian_nll: standard deviation, target units.
    NoiseKind noise = NoiseKind::fixed;  ///< gaussian_nll: learned noise starts at noise_std.
    bool operator==(const LossTable&) const = default;
  } loss;  ///< Table [loss].
  /// [inner]: the inner loop.
  struct InnerTable {
    int steps = 1;                           ///< Number of gradient steps (K).
    double learning_rate = 0.01;             ///< Step size, or the start of learned rates.
    Order order = Order::second;             ///< Order of the meta-gradient.
    std::vector<std::string> adapt = {"*"};  ///< Globs over the names of the adapted tensors.
    bool operator==(const InnerTable&) const = default;
  } inner;  ///< Table [inner].
  /// [meta_sgd]: learned inner learning rates.
  struct MetaSgdTable {
    RateKind rates = RateKind::weight;  ///< One rate per weight or per tensor.
    bool per_step = false;              ///< True: every inner step has its own rates.
    bool operator==(const MetaSgdTable&) const = default;
  } meta_sgd;  ///< Table [meta_sgd].
  /// [abml]: amortized Bayesian meta-learning.
  struct AbmlTable {
    double kl_weight_inner = 1.0;  ///< Weight of the KL in the inner objective.
    double kl_weight_outer = 1.0;  ///< Weight of the KL in the outer objective.
    /// Meta-steps over which the weight of the outer KL grows linearly to kl_weight_outer; 0: it
    /// has its value from the first step on.
    int kl_warmup = 0;
    bool differentiate_prior = true;            ///< Differentiate by the prior in the inner KL.
    bool support_in_outer = true;               ///< The outer loss has the support rows too.
    double gamma_shape = 2.0;                   ///< a0 of the Gamma hyper-prior on the precisions.
    double gamma_rate = 0.2;                    ///< b0 of the Gamma hyper-prior.
    double hyper_prior_weight = 0.0;            ///< Weight of the hyper-prior; 0: none.
    int samples_inner = 5;                      ///< Samples per inner step (S).
    int samples_outer = 5;                      ///< Samples of the outer loss (S').
    double log_sigma_init = -4.0;               ///< Initial log standard deviation of every weight.
    Estimator estimator = Estimator::weight;    ///< How samples are drawn.
    InnerData inner_data = InnerData::support;  ///< Rows of the inner loop.
    AbmlRates rates = AbmlRates::fixed;         ///< Inner learning rates.
    AbmlStep inner_step = AbmlStep::gradient;   ///< Direction of the inner steps.
    AbmlOuter outer_loss = AbmlOuter::elbo;     ///< What the outer loss measures.
    int predictive_after = 0;                   ///< Meta-steps with `elbo` before `predictive`.
    bool operator==(const AbmlTable&) const = default;
  } abml;  ///< Table [abml].

  /// [leo]: latent embedding optimization. With loss.type = cross_entropy the generator makes a
  /// softmax head on features ("head" below), and there is no [network]. With another loss it makes
  /// all weights of [network].
  struct LeoTable {
    int ways = 5;            ///< Head: classes of an episode (N).
    int dim = 640;           ///< Head: features of a row.
    int latent = 64;         ///< Length of a latent (L).
    int latent_steps = 5;    ///< Gradient steps over the latents.
    int finetune_steps = 5;  ///< Gradient steps over the weights, after the latent steps.
    Latents latents = Latents::per_example;  ///< Head: latents of a class.
    bool relation = true;  ///< The relation network sees every pair of support rows.
    std::vector<int> encoder_layers = {32};  ///< [network]: widths of the encoder's hidden layers.
    std::vector<int> decoder_layers = {32};  ///< [network]: widths of the decoder's hidden layers.
    bool deterministic = false;              ///< Train without noise and without KL.
    LatentKl kl = LatentKl::sampled;         ///< How the KL of the latents is computed.
    double kl_weight = 0.001;                ///< Weight of this KL.
    double encoder_penalty = 1e-9;           ///< Weight of the squared change of the latents.
    double l2_weight = 1e-8;                 ///< Weight of half the squared norm of all matrices.
    double orthogonality_weight = 1e-3;      ///< Weight of the penalty on the decoder's columns.
    double dropout_rate = 0.0;               ///< Head: share of the features dropped in training.
    /// Standard deviation of the weights where the decoder gives 0. Negative:
    /// sqrt(2 / (fan in + fan out)) of the weight's tensor.
    double decoder_offset = -1.0;
    double latent_lr_init = 1.0;      ///< Initial learned step size over the latents.
    double finetune_lr_init = 0.001;  ///< Initial learned step size over the weights.
    bool operator==(const LeoTable&) const = default;
  } leo;  ///< Table [leo].
  /// [hvi]: hierarchical variational inference.
  struct HviTable {
    Bound bound = Bound::mcallester;  ///< The objective.
    /// Training tasks in the bound (n). 0: as many as the data have, or train.meta_batch where
    /// tasks are drawn anew.
    int tasks = 0;
    /// Rows of a task in the bound (m). 0: as many rows as the task's own set has, where the data
    /// say it, else the support rows of a step.
    int task_size = 0;
    double kappa_prior = 100.0;        ///< Standard deviation of the hyper-prior.
    double kappa_posterior = 0.001;    ///< Standard deviation of the hyper-posterior; 0: a point.
    double delta = 0.1;                ///< The bounds hold with probability 1 - delta.
    HyperKl hyper_kl = HyperKl::full;  ///< How the constant terms of the hyper-KL count.
    int samples = 1;                   ///< Samples per posterior step (S).
    double log_sigma_init = -4.0;      ///< Initial log standard deviation of the prior.
    int joint_steps = 30;              ///< Steps on one meta-batch, where tasks are drawn anew.
    bool operator==(const HviTable&) const = default;
  } hvi;  ///< Table [hvi].

  /// [protonet]: nearest prototype.
  struct ProtonetTable {
    int ways = 0;  ///< Largest number of classes of a task; 0: as many as the episodes have.
    Metric metric = Metric::euclidean;  ///< Comparison of a row with a prototype.
    bool operator==(const ProtonetTable&) const = default;
  } protonet;  ///< Table [protonet].
  /// [r2d2]: ridge regression.
  struct R2d2Table {
    int ways = 0;  ///< cross_entropy: largest number of classes; 0: as many as the episodes have.
    bool operator==(const R2d2Table&) const = default;
  } r2d2;  ///< Table [r2d2].
  /// [bayes_protonet]: Gaussian classes with a learned prior.
  struct BayesProtonetTable {
    int ways = 0;  ///< Largest number of classes of a task; 0: as many as the episodes have.
    bool operator==(const BayesProtonetTable&) const = default;
  } bayes_protonet;  ///< Table [bayes_protonet].
  /// [alpaca]: Bayesian linear regression.
  struct AlpacaTable {
    int outputs = 0;  ///< Target values of a row; 0: as many as the episodes have.
    bool operator==(const AlpacaTable&) const = default;
  } alpaca;  ///< Table [alpaca].
  /// [dkt]: a Gaussian process.
  struct DktTable {
    int outputs = 0;              ///< Target values of a row; 0: as many as the episodes have.
    Kernel kernel = Kernel::rbf;  ///< Kernel on features, times a learned amplitude.
    ProcessObjective objective = ProcessObjective::predictive;  ///< The objective.
    bool operator==(const DktTable&) const = default;
  } dkt;  ///< Table [dkt].
  /// [data]: where the episodes come from. Every task draws its own number from a CountRange.
  struct DataTable {
    DataKind source = DataKind::sinusoid;    ///< The source of the episodes.
    std::string path;                        ///< file: a data file that `kshot import` wrote.
    Episodes episodes = Episodes::few_shot;  ///< File of classes: kind of episodes.
    CountRange ways = 0;       ///< Classification: classes of an episode (N); 0: see episode_ways.
    CountRange shots = 1;      ///< Support rows; of a file of classes, support examples per class.
    CountRange queries = 15;   ///< Query rows; of a file of classes, query examples per class.
    bool unit_length = false;  ///< file: divide every example's features by their length.
    bool stratified = false;   ///< File of tasks with labels: shots and queries are per label.
    bool variable_size = false;  ///< File of tasks: all rows of a task, up to shots and queries.
    SmallTasks small_tasks = SmallTasks::refuse;  ///< File of tasks: tasks with too few rows.
    int tasks = 0;  ///< Number of training tasks, which the seed fixes; 0: new tasks in every step.
    Permute permute = Permute::none;  ///< File of classes: permutation that makes a task.
    int pixel_swaps = 200;            ///< permute = "pixels": swaps of two pixels in a permutation.
    double amplitude_low = 0.1,       ///< sinusoid, sine_line: least amplitude.
        amplitude_high = 5.0;         ///< sinusoid, sine_line: largest amplitude.
    double line_limit = 3.0;          ///< sine_line: largest size of slopes and intercepts.
    double x_low = -5.0,              ///< sinusoid, sine_line: least input.
        x_high = 5.0;                 ///< sinusoid, sine_line: largest input.
    double noise_std = 0.0;           ///< sinusoid, sine_line, wheel: noise of the targets.
    int problems = 64;      ///< wheel: number of training problems; 0: a new one for every task.
    bool all_arms = false;  ///< wheel: every context gives one row per arm.
    bool operator==(const DataTable&) const = default;
  } data;  ///< Table [data].
  /// [optimizer]: the outer loop.
  struct OptimizerTable {
    OptimizerKind type = OptimizerKind::adam;  ///< The rule of the meta-update.
    double learning_rate = 1e-3;               ///< Step size, before the schedule.
    double momentum = 0.9;                     ///< sgd: heavy-ball momentum; 0: plain SGD.
    double beta1 = 0.9,                        ///< adam: decay of the gradient's running mean.
        beta2 = 0.999,   ///< adam: decay of the squared gradient's running mean.
        epsilon = 1e-8;  ///< adam: added to the denominator.
    ScheduleKind schedule = ScheduleKind::constant;  ///< Schedule of the learning rate.
    double final_learning_rate = 0.0;                ///< cosine: learning rate at train.steps.
    int decay_every = 10000;                         ///< step: number of steps between two decays.
    double decay_factor = 0.5;                       ///< step: factor of each decay.
    double weight_decay = 0.0;  ///< This times the parameters is added to the meta-gradient.
    double clip_value = 0.0;    ///< Largest size of an entry of the meta-gradient; 0: off.
    double clip_norm = 0.0;     ///< Largest norm of the meta-gradient; 0: off.
    ClipNormOf clip_norm_of = ClipNormOf::all;  ///< The vectors whose norm clip_norm limits.
    /// True: a step with diverged tasks uses 1e-4 times the parameters as its gradient.
    bool nan_guard = false;
    bool operator==(const OptimizerTable&) const = default;
  } optimizer;  ///< Table [optimizer].
  /// [train]: length, validation and logging.
  struct TrainTable {
    int steps = 10000;              ///< Number of meta-steps.
    int meta_batch = 32;            ///< Tasks per meta-step (T).
    int validate_every = 500;       ///< Meta-steps between two validations; 0: never.
    int validation_episodes = 200;  ///< Episodes per validation.
    int patience = 0;         ///< Stop after this many validations without a better one; 0: never.
    double time_limit = 0.0;  ///< Stop after this many seconds of training; 0: no limit.
    double max_diverged = 0.5;    ///< Largest share of diverged tasks in a step.
    int log_every = 50;           ///< Meta-steps between two lines of the metrics log.
    int checkpoint_every = 1000;  ///< Meta-steps between two checkpoints.
    bool operator==(const TrainTable&) const = default;
  } train;  ///< Table [train].
  /// [evaluate]: test episodes and predictions.
  struct EvaluateTable {
    int episodes = 600;  ///< Number of test episodes.
    int steps = -1;      ///< Inner steps; -1: as in training.
    /// Posterior samples of a prediction. -1: abml.samples_outer; for leo 1; for hvi 10, or
    /// hvi.samples where that is more.
    int samples = -1;
    std::uint64_t seed = 1000;              ///< Seed of the test episodes.
    std::string norm_statistics = "batch";  ///< batch | support: rows of the norm statistics.
    int bins = 15;                          ///< Number of bins of the calibration errors.
    std::string edges = "right";            ///< right | left: which edge belongs to a bin.
    double risk = 0.05;  ///< Share of wrong answers at which coverage is reported.
    bool operator==(const EvaluateTable&) const = default;
  } evaluate;  ///< Table [evaluate].

  /// Reads a TOML file. `overrides` are "table.key=value" in TOML syntax (bare words are strings).
  /// Throws Error that names the file, the key, what was expected and, for a misspelt key, the key
  /// that was probably meant.
  static Config load(const std::filesystem::path& file,
                     const std::vector<std::string>& overrides = {});
  /// Reads TOML from a text. Messages name `origin` in place of a file.
  static Config parse(const std::string& text, const std::string& origin = "configuration",
                      const std::vector<std::string>& overrides = {});
  /// Returns TOML with every key that applies and its value. `parse` makes the same Config of this
  /// text.
  std::string to_toml() const;
  /// Makes the network that [network] describes. Throws Error for layers that do not fit each
  /// other.
  Network make_network() const;
  /// Checks a Config that was filled in code: ranges, required keys, and that [network], [loss] and
  /// [inner] fit. `load` and `parse` call this function. Throws Error that begins with `origin`.
  void check(const std::string& origin = "configuration") const;
  /// Checks that [data] fits [network] and [loss], as far as this is known before the data are
  /// read. `check` leaves this out, because `kshot verify` and the caller's own source need no
  /// [data].
  void check_data(const std::string& origin = "configuration") const;

  bool operator==(const Config&) const = default;
};

/// The text of docs/configuration.md: every key with its type, range, default and meaning.
std::string configuration_reference();
/// Returns a commented starter file for an algorithm ("maml", "abml", ...). It trains on sinusoids
/// and runs as it is; for protonet and bayes_protonet, which need classes, it names a data file to
/// put in. Throws Error for another name.
std::string config_template(const std::string& algorithm);

}  // namespace kshot
