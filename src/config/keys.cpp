// The list of all keys of a configuration. schema.h says what reads this list.
#include "config/limits.h"
#include "config/names.h"
#include "config/schema.h"

namespace kshot::schema {
namespace {

Range at_least(double low) {
  return {.low = low};
}
Range above(double low) {
  return {.low = low, .open_low = true};
}
Range between(double low, double high) {
  return {.low = low, .high = high};
}

// These macros give a key the name of its field.
#define KSHOT_KEY(key) .name = #key, .slot = [](Config& c) -> Slot { return slot_of(c.key); }
#define KSHOT_TABLE_KEY(tab, key) \
  .table = #tab, .name = #key, .slot = [](Config& c) -> Slot { return slot_of(c.tab.key); }

// Limits far beyond any meta-batch, set of rows or number of samples that a machine can compute. A
// larger number is a typing error, and would look like a program that hangs.
constexpr int most_tasks = 1 << 20;
constexpr int most_rows = 1 << 20;
constexpr int most_samples = 1 << 16;
constexpr int most_episodes = 1 << 24;

const char* const head_ways =
    "Largest number of classes of a task; 0: as many as the episodes have.";
const char* const head_outputs = "Target values of a row; 0: as many as the episodes have.";

std::vector<Key> top_keys() {
  return {
      {KSHOT_KEY(algorithm),
       .doc = "What is meta-trained. First-order MAML is `maml` with `inner.order = \"first\"`; "
              "ANIL is `maml` with `inner.adapt = [\"head.*\"]`."},
      {KSHOT_KEY(seed), .range = at_least(0),
       .doc = "Seed of everything random: initial weights, episodes, samples. The same seed gives "
              "the same bits on the same backend, whatever the number of threads."},
  };
}

std::vector<Key> loss_keys() {
  return {
      {KSHOT_TABLE_KEY(loss, type),
       .doc = "`cross_entropy` for classes (the default of `leo`, `protonet`, `bayes_protonet` and "
              "`r2d2`); `mse`: mean over outputs of the squared error; `gaussian_nll`: negative "
              "log density of the target under a Gaussian of standard deviation `noise_std`, "
              "summed over outputs (the default of `alpaca` and `dkt`, whose predictive variance "
              "is their own)."},
      {KSHOT_TABLE_KEY(loss, noise_std), .range = above(0),
       .when = {{"loss.type", {"gaussian_nll"}}}, .unit = "target units",
       .doc = "Standard deviation of the observation noise, or its start with `noise = "
              "\"learned\"`; not used by `alpaca` and `dkt`, which learn theirs."},
      {KSHOT_TABLE_KEY(loss, noise),
       .when = {{"loss.type", {"gaussian_nll"}}, {"algorithm", inner_loop_algorithms()}},
       .doc =
           "`fixed`: the noise stays at `noise_std`; `learned`: its logarithm (`log_noise` in a "
           "checkpoint) is learned with the initial weights and shared by all tasks. An inner "
           "step is proportional to `1/noise_std^2` either way: where the noise falls, inner "
           "steps grow. Predictions, likelihoods and bands use the learned value. Not with "
           "`hvi.bound = \"seeger\"`. On a GPU, small perceptrons of `abml` with learned noise run "
           "operation by operation: the kernel that runs a whole inner loop takes fixed noise."},
  };
}

std::vector<Key> network_keys() {
  const When conv4 = {{"network.type", {"conv4"}}};
  const When sequential = {{"network.type", {"sequential"}}};
  const When closed_form = {{"algorithm", closed_form_algorithms()}};
  return {
      {KSHOT_TABLE_KEY(network, type), .choices = {"mlp", "linear", "conv4", "sequential"},
       .doc = "`mlp`: fully connected; `linear`: one linear layer, the softmax head on embeddings; "
              "`conv4`: the four-block convolutional network of the few-shot literature; "
              "`sequential`: any list of layers."},
      {KSHOT_TABLE_KEY(network, layers), .range = between(1, largest_size), .min_items = 2,
       .when = {{"network.type", {"mlp"}}}, .unit = "units",
       .doc = "Width of every layer, input and output included."},
      {KSHOT_TABLE_KEY(network, layers), .range = between(1, largest_size), .min_items = 2,
       .max_items = 2, .required = true, .when = {{"network.type", {"linear"}}}, .unit = "units",
       .doc = "`[inputs, outputs]`."},
      {KSHOT_TABLE_KEY(network, activation), .choices = {"relu", "tanh"},
       .when = {{"network.type", {"mlp"}}},
       .doc = "Activation between layers; none after the last."},
      {KSHOT_TABLE_KEY(network, in_channels), .range = between(1, largest_size), .when = conv4,
       .unit = "channels", .doc = "Channels of an image: 1 grey, 3 RGB."},
      {KSHOT_TABLE_KEY(network, image), .range = between(1, largest_size), .min_items = 2,
       .max_items = 2, .when = conv4, .unit = "pixels",
       .doc = "`[height, width]`. The four blocks halve both, so that each is at least 16 with "
              "`downsample = \"pool\"`."},
      {KSHOT_TABLE_KEY(network, filters), .range = between(1, largest_size), .when = conv4,
       .unit = "channels", .doc = "Number of channels of every block."},
      {KSHOT_TABLE_KEY(network, classes), .range = between(0, largest_size), .when = conv4,
       .unit = "classes",
       .doc = "Outputs; for classification the ways of an episode. 0 ends the network before its "
              "linear layer, for algorithms with a closed-form head."},
      {KSHOT_TABLE_KEY(network, downsample), .choices = {"stride", "pool"}, .when = conv4,
       .doc = "Convolution with stride 2, or stride 1 and a 2x2 max-pool at the block's end."},
      {KSHOT_TABLE_KEY(network, norm), .choices = {"batch", "none"}, .when = conv4,
       .doc = "`batch`: batch norm over the rows of a set (biased variance, epsilon 1e-5, affine); "
              "`none`: no norm layers."},
      {KSHOT_TABLE_KEY(network, head), .choices = {"mean", "flatten"}, .when = conv4,
       .doc = "Input of the linear head: the mean over the positions of the last map, or the whole "
              "map."},
      {KSHOT_TABLE_KEY(network, input), .range = between(1, largest_size), .min_items = 1,
       .max_items = 3, .required = true, .when = sequential, .unit = "features",
       .doc = "`[channels, height, width]` of an image, or `[d]` of a vector."},
      {.table = "network",
       .name = "layers",
       .slot = [](Config& c) -> Slot { return slot_of(c.network.sequential); },
       .min_items = 1,
       .required = true,
       .when = sequential,
       .doc = "The layers, first to last, each `{ type = ..., ... }`; see below."},
      {KSHOT_TABLE_KEY(network, input_dropout), .range = {.low = 0, .high = 1, .open_high = true},
       .when = closed_form,
       .doc = "Share of the input features that is dropped in training, drawn anew for the support "
              "and the query rows of every task. The other features are divided by one minus this "
              "share. No feature is dropped in prediction."},
  };
}

std::vector<Key> inner_keys() {
  const When own_loop = {{"algorithm", {"maml", "meta_sgd", "abml", "hvi"}}};
  return {
      {KSHOT_TABLE_KEY(inner, steps), .range = between(0, 100000), .when = own_loop,
       .unit = "inner steps", .doc = "Gradient steps on the support set (K)."},
      {KSHOT_TABLE_KEY(inner, learning_rate), .range = at_least(0), .when = own_loop,
       .doc = "Step size (alpha); for `meta_sgd`, and for `abml` with learned rates "
              "(`abml.rates`), the value that the learned rates start from."},
      {KSHOT_TABLE_KEY(inner, order),
       .doc = "`second` differentiates through the inner steps; `first` takes every inner gradient "
              "as a constant."},
      {KSHOT_TABLE_KEY(inner, adapt), .min_items = 1, .when = own_loop,
       .doc = "Globs (`*`, `?`) over parameter names. Only these parameters are adapted in the "
              "inner loop; the others are only meta-learned. `[\"*\"]`: all."},
  };
}

std::vector<Key> meta_sgd_keys() {
  return {
      {KSHOT_TABLE_KEY(meta_sgd, rates), .doc = "One learned rate per weight, or one per tensor."},
      {KSHOT_TABLE_KEY(meta_sgd, per_step), .doc = "Separate rates for every inner step."},
  };
}

std::vector<Key> abml_keys() {
  return {
      {KSHOT_TABLE_KEY(abml, kl_weight_inner), .range = at_least(0),
       .doc = "Weight of KL(posterior || prior) in the inner objective. The inner loop is stable "
              "only while `inner.learning_rate` x this / (support rows x prior variance) < 2."},
      {KSHOT_TABLE_KEY(abml, kl_weight_outer), .range = at_least(0),
       .doc = "Weight of KL(posterior || prior) in the outer objective."},
      {KSHOT_TABLE_KEY(abml, kl_warmup), .range = between(0, 1000000000), .unit = "meta-steps",
       .doc = "Meta-steps over which the weight of the outer KL grows linearly to "
              "`kl_weight_outer`; 0: it has its value from the first step on."},
      {KSHOT_TABLE_KEY(abml, differentiate_prior),
       .doc = "Whether the meta-gradient includes the path on which the meta-parameters enter the "
              "inner KL as the prior."},
      {KSHOT_TABLE_KEY(abml, support_in_outer), .when = {{"abml.outer_loss", {"elbo"}}},
       .doc = "`true`: the outer loss is over support and query rows; `false`: over query rows "
              "alone."},
      {KSHOT_TABLE_KEY(abml, gamma_shape), .range = at_least(0),
       .doc = "a0 of the Gamma hyper-prior on every weight's precision."},
      {KSHOT_TABLE_KEY(abml, gamma_rate), .range = at_least(0),
       .doc = "b0 of the Gamma hyper-prior."},
      {KSHOT_TABLE_KEY(abml, hyper_prior_weight), .range = at_least(0),
       .doc = "Weight of the hyper-prior's negative log density; 1 / (training tasks x rows per "
              "task) makes the objective the ELBO per example."},
      {KSHOT_TABLE_KEY(abml, samples_inner), .range = between(1, most_samples), .unit = "samples",
       .doc = "Monte Carlo samples of every inner step (S)."},
      {KSHOT_TABLE_KEY(abml, samples_outer), .range = between(1, most_samples), .unit = "samples",
       .doc = "Monte Carlo samples of the outer loss (S')."},
      {KSHOT_TABLE_KEY(abml, log_sigma_init), .range = between(-20, 5), .unit = "log weight units",
       .doc = "Initial log standard deviation of every weight."},
      {KSHOT_TABLE_KEY(abml, estimator),
       .doc = "How samples are drawn: `weight`, one draw per weight and sample; `flipout`, the "
              "same draw decorrelated between examples by random signs (Wen et al. 2018); `local`, "
              "a draw of every example's pre-activations (Kingma et al. 2015; exact for linear "
              "layers, for convolutions an approximation)."},
      {KSHOT_TABLE_KEY(abml, inner_data),
       .doc = "Rows of the inner loop: the support rows, or support and query rows together."},
      {KSHOT_TABLE_KEY(abml, outer_loss),
       .doc =
           "`elbo`: the mean loss of the posterior samples; `predictive`: the negative log "
           "likelihood of the query rows under a Gaussian with the samples' mean, and with their "
           "variance plus that of the noise. Under `elbo` nothing rewards a posterior that is as "
           "wide as the error of its mean; under `predictive` bands become right. `predictive` is "
           "for `loss.type = \"gaussian_nll\"` with fixed noise and `estimator = \"weight\"`; it "
           "takes 2 or more outer samples (10 serve well), and query rows alone."},
      {KSHOT_TABLE_KEY(abml, predictive_after), .range = between(0, 1000000000),
       .when = {{"abml.outer_loss", {"predictive"}}}, .unit = "meta-steps",
       .doc = "Meta-steps at the start whose outer loss is the mean loss of the samples over the "
              "query rows, as with `elbo`. Where the variance may grow before the mean has learned "
              "to adapt, it explains everything, and the mean learns little."},
      {KSHOT_TABLE_KEY(abml, inner_step),
       .doc =
           "Direction of the inner steps. `gradient`: the gradient of the loss per row; "
           "`natural`: the natural gradient of the loss summed over rows, in which the step of a "
           "mean is multiplied by the weight's variance, and that of a log standard deviation by "
           "1/2. Natural steps take a larger `inner.learning_rate`, from 0.01 to 1. On a GPU they "
           "run operation by operation."},
      {KSHOT_TABLE_KEY(abml, rates),
       .doc = "Inner step sizes: `fixed`, `inner.learning_rate` for all weights; `layer`, one "
              "learned rate per tensor; `weight`, one learned rate per weight. Means and log "
              "standard deviations have learned rates of their own, which begin at "
              "`inner.learning_rate` and are learned at `optimizer.learning_rate` times that (with "
              "`sgd` times its square). On a GPU, small perceptrons with learned rates run "
              "operation by operation: the kernel that runs a whole inner loop takes fixed rates."},
  };
}

std::vector<Key> leo_keys() {
  const When head = {{"loss.type", {"cross_entropy"}}};
  const When generated_network = {{"loss.type", {"mse", "gaussian_nll"}}};
  return {
      {KSHOT_TABLE_KEY(leo, ways), .range = between(2, largest_size), .when = head,
       .unit = "classes", .doc = "Classes of an episode (N): outputs of the generated head."},
      {KSHOT_TABLE_KEY(leo, dim), .range = between(1, largest_size), .when = head,
       .unit = "features", .doc = "Features of a row: inputs of the generated head."},
      {KSHOT_TABLE_KEY(leo, latent), .range = between(1, 1 << 14), .unit = "numbers",
       .doc = "Length of a latent (L)."},
      {KSHOT_TABLE_KEY(leo, latent_steps), .range = between(0, 100000), .unit = "inner steps",
       .doc = "Gradient steps over the latents. With 0 here and `finetune_steps = 0` only the "
              "generator adapts to a task."},
      {KSHOT_TABLE_KEY(leo, finetune_steps), .range = between(0, 100000), .unit = "inner steps",
       .doc = "Gradient steps over the weights, after those over the latents."},
      {KSHOT_TABLE_KEY(leo, latents), .when = head,
       .doc = "Latents of a class: `per_example`, one per support row, whose heads are averaged "
              "(the authors' code), or `one` (the paper)."},
      {KSHOT_TABLE_KEY(leo, relation),
       .doc = "`true`: the relation network sees every pair of support rows; `false`: the encoder "
              "alone gives the statistics of the latents."},
      {KSHOT_TABLE_KEY(leo, encoder_layers), .range = between(1, 1 << 14),
       .when = generated_network, .unit = "units",
       .doc = "Hidden layers of the encoder of (x, y) pairs."},
      {KSHOT_TABLE_KEY(leo, decoder_layers), .range = between(1, 1 << 14),
       .when = generated_network, .unit = "units",
       .doc = "Hidden layers of the decoder, which gives the network's weights."},
      {KSHOT_TABLE_KEY(leo, deterministic),
       .doc = "Train without noise in latents and weights, and without KL."},
      {KSHOT_TABLE_KEY(leo, kl), .doc = "KL of the latents from N(0, 1): `sampled`, the log ratio "
                                        "at the drawn latents, or `analytic`, the closed form."},
      {KSHOT_TABLE_KEY(leo, kl_weight), .range = at_least(0), .doc = "Weight of that KL."},
      {KSHOT_TABLE_KEY(leo, encoder_penalty), .range = at_least(0),
       .doc = "Weight of the mean squared distance between the latents before and after the latent "
              "steps."},
      {KSHOT_TABLE_KEY(leo, l2_weight), .range = at_least(0),
       .doc = "Weight of half the squared norm of all matrices."},
      {KSHOT_TABLE_KEY(leo, orthogonality_weight), .range = at_least(0),
       .doc =
           "Weight of the penalty that keeps the columns of the decoder's last matrix orthogonal: "
           "the mean squared difference between their cosines and those of orthogonal columns."},
      {KSHOT_TABLE_KEY(leo, dropout_rate), .range = {.low = 0, .high = 1, .open_high = true},
       .when = head,
       .doc = "Share of the features that is dropped in training (1 - keep probability), drawn "
              "anew for the encoder and for every use of the head."},
      {KSHOT_TABLE_KEY(leo, decoder_offset),
       .doc =
           "Standard deviation of the weights where the decoder gives 0; negative: sqrt(2 / (fan "
           "in + fan out)) of the weight's tensor."},
      {KSHOT_TABLE_KEY(leo, latent_lr_init), .range = at_least(0),
       .doc = "Initial value of the learned step sizes over the latents."},
      {KSHOT_TABLE_KEY(leo, finetune_lr_init), .range = at_least(0),
       .doc = "Initial value of the learned step sizes over the weights."},
  };
}

std::vector<Key> hvi_keys() {
  return {
      {KSHOT_TABLE_KEY(hvi, bound),
       .doc = "The objective: `vb`, the hierarchical evidence lower bound, or a PAC-Bayes bound. "
              "Cross-entropy is unbounded, so that none is a certificate."},
      {KSHOT_TABLE_KEY(hvi, tasks), .range = at_least(0), .unit = "tasks",
       .doc = "Number of training tasks in the bound (n). 0: as many as the data have, or "
              "`train.meta_batch` where tasks are drawn anew."},
      {KSHOT_TABLE_KEY(hvi, task_size), .range = at_least(0), .unit = "examples",
       .doc = "Number of rows of a task in the bound (m). 0: as many as a training task has, where "
              "the data say it, else the support rows of a step."},
      {KSHOT_TABLE_KEY(hvi, kappa_prior), .range = above(0),
       .doc = "Standard deviation of the hyper-prior on the prior's parameters."},
      {KSHOT_TABLE_KEY(hvi, kappa_posterior), .range = at_least(0),
       .doc = "Standard deviation of the hyper-posterior, from which one sample is drawn per step. "
              "0: a point; its KL is then the squared norm alone."},
      {KSHOT_TABLE_KEY(hvi, delta), .range = {.low = 0, .high = 1, .open_low = true},
       .doc = "The bounds hold with probability 1 - `delta`."},
      {KSHOT_TABLE_KEY(hvi, hyper_kl),
       .doc = "Constant terms of the KL of the hyper-posterior: `full`, once per parameter, which "
              "is the KL; `per_model`, once (the authors' code, because in a large network they "
              "would outweigh the tasks' own KL)."},
      {KSHOT_TABLE_KEY(hvi, samples), .range = between(1, most_samples), .unit = "samples",
       .doc = "Monte Carlo samples of every posterior step (S)."},
      {KSHOT_TABLE_KEY(hvi, log_sigma_init), .range = between(-20, 5), .unit = "log weight units",
       .doc = "Initial log standard deviation of every weight of the prior."},
      {KSHOT_TABLE_KEY(hvi, joint_steps), .range = at_least(1), .unit = "meta-steps",
       .doc = "Where tasks are drawn anew: the number of steps on one meta-batch, whose posteriors "
              "start at the prior."},
  };
}

std::vector<Key> closed_form_keys() {
  const When head = {{"loss.type", {"cross_entropy"}}};
  return {
      {KSHOT_TABLE_KEY(protonet, metric),
       .doc = "Comparison of a query row with the mean of a class: the squared Euclidean distance "
              "or the cosine, times a learned scale."},
      {KSHOT_TABLE_KEY(protonet, ways), .range = between(0, largest_size), .unit = "classes",
       .doc = head_ways},
      {KSHOT_TABLE_KEY(r2d2, ways), .range = between(0, largest_size), .when = head,
       .unit = "classes", .doc = head_ways},
      {KSHOT_TABLE_KEY(bayes_protonet, ways), .range = between(0, largest_size), .unit = "classes",
       .doc = head_ways},
      {KSHOT_TABLE_KEY(alpaca, outputs), .range = between(0, largest_size), .unit = "numbers",
       .doc = head_outputs},
      {KSHOT_TABLE_KEY(dkt, kernel),
       .doc = "Kernel on features: `linear`, `rbf` with a learned length, or `cosine`; each times "
              "a learned amplitude."},
      {KSHOT_TABLE_KEY(dkt, objective),
       .doc = "`predictive`: density of the query rows given the support rows; `marginal`: "
              "marginal likelihood of support and query rows together."},
      {KSHOT_TABLE_KEY(dkt, outputs), .range = between(0, largest_size), .unit = "numbers",
       .doc = head_outputs},
  };
}

std::vector<Key> data_keys() {
  const When sinusoid = {{"data.source", {"sinusoid", "sine_line"}}};
  const When sine_line = {{"data.source", {"sine_line"}}};
  const When wheel = {{"data.source", {"wheel"}}};
  const When noisy = {{"data.source", {"sinusoid", "sine_line", "wheel"}}};
  const When file = {{"data.source", {"file"}}};
  const When few_shot = {{"data.episodes", {"few_shot"}}};
  return {
      {KSHOT_TABLE_KEY(data, source),
       .doc = "`sinusoid`: y = amplitude sin(x - phase) with phase in [0, pi]; `sine_line`: the "
              "same, but each task is with probability one half a line y = slope x + intercept; "
              "`wheel`: rewards of a wheel bandit (docs/bandits.md); `file`: a data file that "
              "`kshot import` wrote."},
      {KSHOT_TABLE_KEY(data, path), .required = true, .when = file,
       .doc = "The data file. A relative path starts at the folder in which kshot is started."},
      {KSHOT_TABLE_KEY(data, episodes),
       .when = {{"data.source", {"file"}}, {"loss.type", {"cross_entropy"}}},
       .doc =
           "File of classes: `few_shot` draws N-way K-shot episodes; `minibatch` draws `queries` "
           "examples of all training classes with their own labels and no support, for a plain "
           "classifier (`maml` with `inner.steps = 0`) whose features `kshot embed` writes. A "
           "tenth of each class's examples is held out for validation and test."},
      {KSHOT_TABLE_KEY(data, ways), .range = between(0, largest_size),
       .when = {{"data.source", {"file"}},
                {"loss.type", {"cross_entropy"}},
                {"data.episodes", {"few_shot"}}},
       .unit = "classes",
       .doc = "Classes of an episode (N). 0: as many as the network has outputs, or 5 with a "
              "closed-form head. In a file of tasks it is the number of labels. With a closed-form "
              "head it may be a range, `[2, 20]`, from which every task draws its own number."},
      {KSHOT_TABLE_KEY(data, shots), .range = between(0, most_rows), .when = few_shot,
       .unit = "examples",
       .doc = "Support examples per class in a file of classes, and support rows elsewhere. From a "
              "range, `[1, 10]`, every task draws its own number. `bayes_protonet`, `alpaca` and "
              "`dkt` take 0 and predict from the learned prior."},
      {KSHOT_TABLE_KEY(data, queries), .range = between(1, most_rows), .unit = "examples",
       .doc = "Query examples per class in a file of classes, and query rows elsewhere. A number "
              "or a range."},
      {KSHOT_TABLE_KEY(data, stratified),
       .when = {{"data.source", {"file"}},
                {"loss.type", {"cross_entropy"}},
                {"data.episodes", {"few_shot"}}},
       .doc = "File of tasks with labels: `shots` and `queries` count the rows of each class that "
              "the task has, as for a file of classes."},
      {KSHOT_TABLE_KEY(data, variable_size),
       .when = {{"data.source", {"file"}}, {"data.episodes", {"few_shot"}}},
       .doc = "File of tasks: take as many rows as a task has, up to `shots` and `queries`; "
              "`false`: every task must have that many."},
      {KSHOT_TABLE_KEY(data, small_tasks),
       .when = {{"data.source", {"file"}}, {"data.episodes", {"few_shot"}}},
       .doc = "File of tasks: what becomes of a task that has too few rows. `refuse`: an error "
              "names it; `skip`: no episodes are drawn from it, and the number of such tasks is "
              "said."},
      {KSHOT_TABLE_KEY(data, unit_length), .when = file,
       .doc = "Divide every example's features by their Euclidean length (embeddings)."},
      {KSHOT_TABLE_KEY(data, tasks), .range = at_least(0), .when = few_shot, .unit = "tasks",
       .doc = "Number of training tasks, which the seed fixes with all their rows. 0: every task "
              "is drawn anew. A file of tasks has its own."},
      {KSHOT_TABLE_KEY(data, permute),
       .when = {{"data.source", {"file"}}, {"data.episodes", {"few_shot"}}},
       .doc = "File of classes: every task has the same classes, with its own permutation of their "
              "`labels` or of some `pixels` (Amit & Meir 2018); `none`: every task draws classes."},
      {KSHOT_TABLE_KEY(data, pixel_swaps), .range = between(1, most_rows),
       .when = {{"data.source", {"file"}}, {"data.permute", {"pixels"}}}, .unit = "swaps",
       .doc = "Number of swaps of two pixels that make up a task's permutation."},
      {KSHOT_TABLE_KEY(data, amplitude_low), .when = sinusoid,
       .doc = "Least amplitude. Amplitudes are uniform."},
      {KSHOT_TABLE_KEY(data, amplitude_high), .when = sinusoid, .doc = "Largest amplitude."},
      {KSHOT_TABLE_KEY(data, line_limit), .range = at_least(0), .when = sine_line,
       .doc = "Slopes and intercepts of lines are uniform between minus and plus this number."},
      {KSHOT_TABLE_KEY(data, x_low), .when = sinusoid, .doc = "Least input. Inputs are uniform."},
      {KSHOT_TABLE_KEY(data, x_high), .when = sinusoid, .doc = "Largest input."},
      {KSHOT_TABLE_KEY(data, noise_std), .range = at_least(0), .when = noisy,
       .doc = "Standard deviation of Gaussian noise on the targets; `wheel`: on the rewards, which "
              "the literature gives 0.01 (some codes 0.05)."},
      {KSHOT_TABLE_KEY(data, problems), .range = between(0, most_tasks), .when = wheel,
       .unit = "problems",
       .doc = "Number of problems from which training tasks are drawn, each time with new rows. "
              "The seed fixes the problems. 0: every task is a new problem."},
      {KSHOT_TABLE_KEY(data, all_arms), .when = wheel,
       .doc =
           "`false`: a row is a context, one arm and its reward. `true`: every context gives one "
           "row per arm, and `shots` and `queries` count contexts."},
  };
}

std::vector<Key> optimizer_keys() {
  const When adam = {{"optimizer.type", {"adam"}}};
  const When step = {{"optimizer.schedule", {"step"}}};
  return {
      {KSHOT_TABLE_KEY(optimizer, type), .doc = "Rule of the meta-update."},
      {KSHOT_TABLE_KEY(optimizer, learning_rate), .range = at_least(0),
       .doc = "Step size of the meta-update, before the schedule."},
      {KSHOT_TABLE_KEY(optimizer, momentum), .range = {.low = 0, .high = 1, .open_high = true},
       .when = {{"optimizer.type", {"sgd"}}}, .doc = "Heavy-ball momentum; 0: plain SGD."},
      {KSHOT_TABLE_KEY(optimizer, beta1), .range = {.low = 0, .high = 1, .open_high = true},
       .when = adam, .doc = "Decay of the gradient's running mean."},
      {KSHOT_TABLE_KEY(optimizer, beta2), .range = {.low = 0, .high = 1, .open_high = true},
       .when = adam, .doc = "Decay of the squared gradient's running mean."},
      {KSHOT_TABLE_KEY(optimizer, epsilon), .range = above(0), .when = adam,
       .doc = "Added to the denominator."},
      {KSHOT_TABLE_KEY(optimizer, weight_decay), .range = at_least(0),
       .doc = "This times the parameters is added to the meta-gradient after clipping: an L2 "
              "penalty on all meta-parameters (PyTorch's `weight_decay` of Adam and SGD). 0: off."},
      {KSHOT_TABLE_KEY(optimizer, schedule),
       .doc =
           "`constant`; `cosine` from `learning_rate` to `final_learning_rate` at `train.steps`; "
           "`step`: times `decay_factor` every `decay_every` steps."},
      {KSHOT_TABLE_KEY(optimizer, final_learning_rate), .range = at_least(0),
       .when = {{"optimizer.schedule", {"cosine"}}},
       .doc = "Learning rate at the end of the cosine."},
      {KSHOT_TABLE_KEY(optimizer, decay_every), .range = at_least(1), .when = step,
       .unit = "meta-steps", .doc = "Steps between two decays."},
      {KSHOT_TABLE_KEY(optimizer, decay_factor), .range = {.low = 0, .high = 1, .open_low = true},
       .when = step, .doc = "Factor of each decay."},
      {KSHOT_TABLE_KEY(optimizer, clip_value), .range = at_least(0),
       .doc = "Every entry of the meta-gradient is clipped to at most this size, before "
              "`clip_norm`. 0: off."},
      {KSHOT_TABLE_KEY(optimizer, clip_norm), .range = at_least(0),
       .doc = "The meta-gradient is scaled down to at most this norm. 0: off."},
      {KSHOT_TABLE_KEY(optimizer, clip_norm_of),
       .doc = "Whether `clip_norm` limits the norm of all parameters together, or of each tensor "
              "by itself."},
      {KSHOT_TABLE_KEY(optimizer, nan_guard),
       .doc = "A step with diverged tasks uses 1e-4 times the parameters as its gradient, as in "
              "the code of LEO's authors. It is counted and logged, and never stops the run."},
  };
}

std::vector<Key> train_keys() {
  return {
      {KSHOT_TABLE_KEY(train, steps), .range = at_least(0), .unit = "meta-steps",
       .doc = "Number of meta-updates."},
      {KSHOT_TABLE_KEY(train, meta_batch), .range = between(1, most_tasks), .unit = "tasks",
       .doc = "Tasks of one meta-update (T)."},
      {KSHOT_TABLE_KEY(train, validate_every), .range = at_least(0), .unit = "meta-steps",
       .doc = "Steps between validations; 0: never."},
      {KSHOT_TABLE_KEY(train, validation_episodes), .range = between(1, most_episodes),
       .unit = "episodes", .doc = "Episodes of one validation, the same every time."},
      {KSHOT_TABLE_KEY(train, patience), .range = at_least(0), .unit = "validations",
       .doc = "Stop after this many validations without a better one. 0: never."},
      {KSHOT_TABLE_KEY(train, time_limit), .range = at_least(0), .unit = "seconds",
       .doc = "Stop after this time of training. 0: no limit."},
      {KSHOT_TABLE_KEY(train, max_diverged), .range = between(0, 1), .unit = "share of tasks",
       .doc = "Stop with an error when a larger share of a step's tasks diverges. Up to this "
              "share, diverged tasks are left out, counted and reported."},
      {KSHOT_TABLE_KEY(train, log_every), .range = at_least(1), .unit = "meta-steps",
       .doc = "Steps between lines of the metrics log."},
      {KSHOT_TABLE_KEY(train, checkpoint_every), .range = at_least(1), .unit = "meta-steps",
       .doc = "Steps between checkpoints; one is also written at the end and on interruption."},
  };
}

std::vector<Key> evaluate_keys() {
  const When inner_loop = {{"algorithm", inner_loop_algorithms()}};
  return {
      {KSHOT_TABLE_KEY(evaluate, episodes), .range = between(1, most_episodes), .unit = "episodes",
       .doc = "Test episodes."},
      {KSHOT_TABLE_KEY(evaluate, steps), .range = between(-1, 100000), .when = inner_loop,
       .unit = "inner steps",
       .doc = "Inner steps of evaluation; -1: as in training. For `leo` the steps over the latents "
              "come first, then those over the weights."},
      {KSHOT_TABLE_KEY(evaluate, samples), .range = between(-1, most_samples),
       .when = {{"algorithm", {"abml", "leo", "hvi"}}}, .unit = "samples",
       .doc = "Posterior samples of a prediction; -1: `abml.samples_outer`, for `leo` 1, for `hvi` "
              "10 (or `hvi.samples` where that is more). For `leo`, 1 is the prediction without "
              "noise. More samples are drawn only where the generator makes a whole network."},
      {KSHOT_TABLE_KEY(evaluate, seed), .range = at_least(0), .doc = "Seed of the test episodes."},
      {KSHOT_TABLE_KEY(evaluate, norm_statistics), .choices = {"batch", "support"},
       .doc = "Statistics of norm layers for queries: of the query set (transductive), or of the "
              "support set, so that queries can come one at a time. Without norm layers both are "
              "the same."},
      {KSHOT_TABLE_KEY(evaluate, bins), .range = between(1, 1000), .unit = "bins",
       .doc = "Bins of equal width of the calibration errors and of the parts of the Brier score."},
      {KSHOT_TABLE_KEY(evaluate, edges), .choices = {"right", "left"},
       .doc = "Which edge belongs to a bin: `right` makes them (low, high], as scikit-learn does; "
              "`left` makes them [low, high), as netcal does."},
      {KSHOT_TABLE_KEY(evaluate, risk), .range = between(0, 1), .unit = "share of answers",
       .doc = "The share of wrong answers at which the coverage is reported."},
  };
}

#undef KSHOT_KEY
#undef KSHOT_TABLE_KEY

}  // namespace

const std::vector<Key>& keys() {
  static const std::vector<Key> list = [] {
    std::vector<Key> all;
    for (const auto section :
         {top_keys, loss_keys, network_keys, inner_keys, meta_sgd_keys, abml_keys, leo_keys,
          hvi_keys, closed_form_keys, data_keys, optimizer_keys, train_keys, evaluate_keys}) {
      const std::vector<Key> some = section();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }();
  return list;
}

}  // namespace kshot::schema
