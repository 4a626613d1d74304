// Latent embedding optimisation (Rusu et al., ICLR 2019). Networks that all tasks share encode the
// support rows to latents z, and decode these to the task's weights. The inner loop moves z, and
// then moves the weights for a few steps (fine-tuning). docs/mathematics.md has the objective.
//
//   z_0 ~ q(z | support),  w_k = decode(z_k),  z_{k+1} = z_k - latent_lr * J_k^T g_k,
// where g_k is the gradient of the support loss at w_k, and J_k = dw_k/dz_k. With v = dL/dz_{k+1}
// and u = latent_lr * v, the adjoint differentiates S = <u, J_k^T g_k>, which is the derivative of
// the loss along u:
//   v <- v - dS/dz_k,  dL/dtheta -= dS/dtheta,  dL/dlatent_lr -= v * J_k^T g_k.
// This is the tangent of (gradient, pull-back) along u: forward over reverse. The loop therefore
// keeps only z_k, w_k, the gradient in z_k and the noise. Fine-tuning is the loop of Adaptation,
// started at the decoded weights.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "algorithms/adaptation.h"
#include "algorithms/common.h"
#include "algorithms/factories.h"
#include "algorithms/observation_noise.h"
#include "backend/generator.h"
#include "kshot/random.h"

namespace kshot {
namespace {

using backend::Block;
using backend::Generator;
using backend::GeneratorSpec;
using backend::Scale;
using backend::Set;
using backend::Shared;
using backend::Wave;

/// Values of the algorithm that its programs read. prepare() sets them.
struct LeoShared {
  explicit LeoShared(const ObservationNoise& of_config) : noise(of_config) {}
  Shared theta;        ///< the shared networks, then latent_lr [L], finetune_lr [P]
  Shared latent_lr;    ///< [L]
  Shared finetune_lr;  ///< [D]: one rate per weight
  /// The rates of the steps: latent_lr and finetune_lr, each multiplied by kappa where the noise is
  /// learned (observation_noise.h).
  backend::Rate latent_rate, finetune_rate;
  ObservationNoise noise;
};

struct LeoSpec {
  GeneratorSpec generator;
  Config::LeoTable table;
  bool second_order = true;
  bool head = true;
  std::size_t width = 0;  ///< length of the vector of all meta-learned parameters
};

class LeoProgram final : public TaskProgram {
 public:
  LeoProgram(std::unique_ptr<Wave> wave, const GeneratorSpec& generator, std::size_t groups,
             const LeoSpec& spec, const LeoShared& shared)
      : wave_(std::move(wave)),
        generator_(wave_->generator(generator)),
        spec_(spec),
        shared_(shared),
        latents_(static_cast<std::size_t>(generator.latents)),
        z_width_(groups * latents_ * generator.latent()),
        eps_width_(groups * latents_ * generator.weights()),
        weights_(groups * generator.weights()),
        finetune_(*wave_, weights_, finetune_spec()) {
    const std::size_t statistics = groups * 2 * generator.latent();
    statistics_ = wave_->block(statistics);
    g_statistics_ = wave_->block(statistics);
    eps_latent_ = wave_->block(z_width_);
    for (Block* b : {&v_z_, &u_z_, &h_z_}) *b = wave_->block(z_width_);
    v_ = wave_->weights();
    loss_ = wave_->block(1);
    g_theta_ = generator_->gradients(spec_.width);
    g_latent_lr_ = wave_->block(generator.latent());
    g_finetune_lr_ = wave_->weights();
    gradients_ = {g_theta_, g_latent_lr_, g_finetune_lr_};
    if (!shared_.noise.learned()) return;
    target_noise_.emplace(*wave_, shared_.noise);
    gradients_.push_back(target_noise_->gradient());
    latent_scratch_ = wave_->block(generator.latent());
    weights_scratch_ = wave_->weights();
  }

  Wave& wave() override { return *wave_; }

  void meta_gradient(const StepContext& context) override {
    const Config::LeoTable& t = spec_.table;
    const bool noise = !t.deterministic;
    for (const Block b : {loss_, g_statistics_, g_theta_, g_latent_lr_, g_finetune_lr_}) {
      wave_->fill(b, 0.0);
    }
    encode(context, noise, 0);
    for (int k = 0; k < t.latent_steps; ++k) {
      const auto from = static_cast<std::size_t>(k);
      latent_step(context, k, from, from + 1, noise, 0);
    }
    const auto last = static_cast<std::size_t>(t.latent_steps);
    decode(context, t.latent_steps, last, noise, 0, finetune_.start());
    finetune_.adapt_from_start(context, finetune_rates(), t.finetune_steps, true);

    Wave::Pass query{Set::query, finetune_.current().mu, {1.0, Scale::By::query}};
    query.dropout = dropout(context, t.dropout_rate, pass_key(t.latent_steps + t.finetune_steps));
    wave_->gradient(query, v_, false, loss_);
    if (target_noise_) {
      target_noise_->begin();
      target_noise_->outer(loss_, {&v_, 1});
    }
    v_ = finetune_.adjoint(context, finetune_rates(), {v_, {}}, {}, {&g_finetune_lr_, 1}).mu;
    generator_->decode_pullback(*shared_.theta, latents(last, true), v_, v_z_, g_theta_);
    for (int k = t.latent_steps - 1; k >= 0; --k) adjoint_step(context, k);
    if (target_noise_) add_inner_noise();

    if (t.encoder_penalty > 0.0) {
      wave_->mean_square(loss_, t.encoder_penalty, iterates_[last].z, iterates_[0].z, v_z_);
    }
    if (noise && t.kl_weight > 0.0) {
      generator_->kl(t.kl == LatentKl::sampled ? Generator::Kl::sampled : Generator::Kl::analytic,
                     t.kl_weight, statistics_, iterates_[0].z, eps_latent_, loss_, g_statistics_);
    }
    generator_->sample_pullback(g_statistics_, statistics_, noise ? eps_latent_ : Block{}, v_z_);
    generator_->encode_pullback(*shared_.theta, dropout(context, t.dropout_rate, 0), g_statistics_,
                                g_theta_);
  }
  std::span<const Block> gradients() const override { return gradients_; }
  Block loss() const override { return loss_; }
  void metrics(std::span<double> values) override {
    if (target_noise_) target_noise_->metrics(values, 1);
  }

  void outputs_after_gradient(const std::function<void(int, Block)>& visit) override {
    outputs(backend::NormStatistics::batch);
    visit(0, outputs_);
  }

  void predict(const StepContext& of_step, const PredictOptions& options,
               const std::function<void(int, int, Block)>& visit) override {
    adapt_samples(of_step, options, [&](int step, int sample) {
      outputs(options.statistics);
      visit(step, sample, outputs_);
    });
  }
  /// Returns the weights of every sample.
  AdaptedState adapt(const StepContext& of_step, const PredictOptions& options) override {
    PredictOptions last = options;
    last.every_step = false;
    AdaptedState samples;
    adapt_samples(of_step, last, [&](int, int) {
      samples.push_back(download(*wave_, finetune_.current().mu, weights_));
    });
    return samples;
  }
  void predict_adapted(const AdaptedState& state, const StepContext& /*context*/,
                       const PredictOptions& options,
                       const std::function<void(int, int, Block)>& visit) override {
    for (std::size_t sample = 0; sample < state.size(); ++sample) {
      finetune_.resume(std::span(state).subspan(sample, 1));
      outputs(options.statistics);
      visit(options.steps, static_cast<int>(sample), outputs_);
    }
  }
  std::vector<NamedBlock> adapted() const override { return {{"theta", finetune_.current().mu}}; }

 private:
  /// The state after k latent steps, the noise and weights of its decode, and the loss's gradient
  /// by z.
  struct Iterate {
    Block z, eps, weights, g;
  };

  /// Adapts the samples one after another. visit(step, sample) is called for the steps that the
  /// options ask for, while finetune_.current() is the weights.
  void adapt_samples(const StepContext& of_step, const PredictOptions& options,
                     const std::function<void(int step, int sample)>& visit) {
    StepContext context = of_step;
    context.dropout = false;
    // The latent steps come first. A single sample uses the means of latents and weights.
    const int in_latents = std::min(options.steps, spec_.table.latent_steps);
    const bool noise = options.samples > 1;
    for (int sample = 0; sample < options.samples; ++sample) {
      const auto see = [&](int step) {
        if (options.every_step || step == options.steps) visit(step, sample);
      };
      encode(context, noise, sample);
      for (int k = 0; k <= in_latents; ++k) {
        // Two iterates alternate.
        const auto slot = static_cast<std::size_t>(k % 2);
        if (k < in_latents) latent_step(context, k, slot, 1 - slot, noise, sample);
        if (k < in_latents && !options.every_step) continue;
        decode(context, k, slot, noise, sample, finetune_.start());
        finetune_.adapt_from_start(context, finetune_rates(), 0, false);
        if (k < in_latents) see(k);
      }
      finetune_.adapt_from_start(context, finetune_rates(), options.steps - in_latents, false,
                                 [&](int step) { see(in_latents + step); });
    }
  }

  AdaptationSpec finetune_spec() const {
    AdaptationSpec s;
    s.steps = spec_.table.finetune_steps;
    s.second_order = spec_.second_order;
    // A weight is the mean of C decoded ones, which all move by the same step.
    s.scale = inner_scale();
    s.scale->factor /= static_cast<double>(latents_);
    s.dropout_rate = spec_.table.dropout_rate;
    s.first_key = pass_key(spec_.table.latent_steps);
    return s;
  }
  /// The inner loss of a head is the sum over the support set. That of a network is the mean.
  Scale inner_scale() const { return spec_.head ? Scale{} : Scale{1.0, Scale::By::support}; }
  /// The dropout key of a classification. Key 0 is that of the encoder.
  static std::uint32_t pass_key(int pass) { return static_cast<std::uint32_t>(pass) + 1; }

  RatePlan finetune_rates() const { return {{shared_.finetune_rate}}; }
  backend::Rate latent_rate() const { return shared_.latent_rate; }
  Iterate& iterate(std::size_t index) {
    while (iterates_.size() <= index) {
      iterates_.push_back({wave_->block(z_width_), wave_->block(eps_width_), wave_->weights(),
                           wave_->block(z_width_)});
    }
    return iterates_[index];
  }
  /// `again` says that the last decode was of this iterate.
  Generator::Latents latents(std::size_t slot, bool reuse_last_decode = false) const {
    return {iterates_[slot].z, noise_ ? iterates_[slot].eps : Block{}, reuse_last_decode,
            static_cast<int>(slot)};
  }

  void encode(const StepContext& context, bool noise, int sample) {
    noise_ = noise;
    generator_->encode(*shared_.theta, dropout(context, spec_.table.dropout_rate, 0), statistics_);
    if (noise) {
      if (context.noise_latent != nullptr) {
        wave_->upload(eps_latent_, context.noise_latent, z_width_);
      } else {
        wave_->normal(eps_latent_, context.key(Purpose::noise_latent, 0, sample));
      }
    }
    generator_->sample(iterate(0).z, statistics_, noise ? eps_latent_ : Block{});
  }

  /// Draws or uploads the noise of decode k.
  void draw_noise(const StepContext& context, int k, const Iterate& at, bool noise, int sample) {
    if (!noise) return;
    if (context.noise_decoder != nullptr) {
      wave_->upload(at.eps, context.noise_decoder + static_cast<std::size_t>(k) * eps_width_,
                    (static_cast<std::size_t>(spec_.table.latent_steps) + 1) * eps_width_);
    } else {
      wave_->normal(at.eps, context.key(Purpose::noise_decoder, k, sample));
    }
  }
  /// Computes the weights of iterate `slot` with the noise of decode k.
  void decode(const StepContext& context, int k, std::size_t slot, bool noise, int sample,
              Block weights) {
    draw_noise(context, k, iterate(slot), noise, sample);
    generator_->decode(*shared_.theta, latents(slot), weights);
  }

  Wave::Pass support_pass(const StepContext& context, int k, Block weights) const {
    Wave::Pass pass{Set::support, weights, inner_scale()};
    pass.dropout = dropout(context, spec_.table.dropout_rate, pass_key(k));
    return pass;
  }

  /// Takes latent step k from iterate `from` to iterate `to`.
  void latent_step(const StepContext& context, int k, std::size_t from, std::size_t to, bool noise,
                   int sample) {
    const Iterate next = iterate(to);
    const Iterate at = iterate(from);
    draw_noise(context, k, at, noise, sample);
    generator_->loss_gradient(*shared_.theta, latents(from), support_pass(context, k, at.weights),
                              at.g);
    wave_->rate_step(next.z, at.z, latent_rate(), at.g);
  }

  /// Turns v_z_ = dL/dz_{k+1} into dL/dz_k.
  void adjoint_step(const StepContext& context, int k) {
    const auto slot = static_cast<std::size_t>(k);
    const Iterate& at = iterates_[slot];
    wave_->multiply_fold(g_latent_lr_, -1.0, v_z_, at.g);
    if (!spec_.second_order) return;
    wave_->rate_multiply(u_z_, latent_rate(), v_z_);
    generator_->loss_hessian_vector(*shared_.theta, latents(slot),
                                    support_pass(context, k, at.weights), u_z_, h_z_, -1.0,
                                    g_theta_);
    wave_->axpy(v_z_, -1.0, h_z_);
  }

  /// Turns the gradients by kappa times the rates into those by the rates, and adds the path
  /// through both loops to the gradient of the noise (observation_noise.h).
  void add_inner_noise() {
    if (spec_.second_order) {
      target_noise_->inner(shared_.latent_rate, g_latent_lr_, latent_scratch_);
      target_noise_->inner(shared_.finetune_rate, g_finetune_lr_, weights_scratch_);
    }
    wave_->scale_by(g_latent_lr_, target_noise_->kappa());
    wave_->scale_by(g_finetune_lr_, target_noise_->kappa());
  }

  void outputs(backend::NormStatistics statistics) {
    outputs_ = wave_->outputs(Set::query);
    wave_->value({Set::query, finetune_.current().mu, {}}, {}, outputs_, statistics);
  }

  std::unique_ptr<Wave> wave_;
  std::unique_ptr<Generator> generator_;
  const LeoSpec& spec_;
  const LeoShared& shared_;
  std::size_t latents_, z_width_, eps_width_, weights_;
  Adaptation finetune_;
  bool noise_ = false;  ///< the current adaptation draws noise
  std::vector<Iterate> iterates_;
  Block statistics_, g_statistics_, eps_latent_;
  Block v_z_, u_z_, h_z_;
  Block v_;
  Block loss_, outputs_;
  Block g_theta_, g_latent_lr_, g_finetune_lr_;
  std::optional<TaskNoise> target_noise_;
  Block latent_scratch_, weights_scratch_;
  std::vector<Block> gradients_;
};

LayerSpec linear(std::string name, int out, bool bias) {
  LayerSpec spec;
  spec.name = std::move(name);
  spec.out = out;
  spec.bias = bias;
  return spec;
}

/// A perceptron with ReLU between layers and none after the last. A single layer has the bare name;
/// several are numbered.
std::shared_ptr<const Network> perceptron(const std::string& name, int inputs,
                                          const std::vector<int>& outputs, bool bias) {
  std::vector<LayerSpec> layers;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (i > 0) layers.emplace_back().type = LayerType::relu;
    layers.push_back(
        linear(outputs.size() > 1 ? fmt::format("{}.{}", name, i) : name, outputs[i], bias));
  }
  return std::make_shared<const Network>(FeatureShape{inputs, 1, 1, false}, layers);
}

class Leo final : public Algorithm {
 public:
  Leo(const Config& config, std::shared_ptr<const Network> network)
      : network_(std::move(network)),
        loss_(make_loss(config)),
        shared_(ObservationNoise(config, *network_)) {
    const Config::LeoTable& t = config.leo;
    spec_.table = t;
    spec_.second_order = config.inner.order == Order::second;
    spec_.head = config.loss.type == LossType::cross_entropy;
    groups_count_ = spec_.head ? static_cast<std::size_t>(t.ways) : 1;
    const std::size_t weights = network_->size() / groups_count_;
    GeneratorSpec& g = spec_.generator;
    const int statistics = 2 * t.latent;
    const int code = t.relation ? t.latent : statistics;
    // The authors' networks for a head have no biases; perceptrons on (x, y) pairs need them.
    const bool bias = !spec_.head;
    std::vector<int> encoder = {code}, decoder = {2 * static_cast<int>(weights)};
    int inputs = network_->input().size();
    if (!spec_.head) {
      inputs += network_->outputs();
      encoder.insert(encoder.begin(), t.encoder_layers.begin(), t.encoder_layers.end());
      decoder.insert(decoder.begin(), t.decoder_layers.begin(), t.decoder_layers.end());
    }
    g.encoder = perceptron("encoder", inputs, encoder, bias);
    if (t.relation) {
      g.relation = perceptron("relation", statistics, {statistics, statistics, statistics}, bias);
    }
    g.decoder = perceptron("decoder", t.latent, decoder, bias);
    g.by_label = spec_.head;
    set_offsets();
    set_group();
    if (shared_.noise.learned()) groups_.push_back(shared_.noise.group());
  }

  std::string name() const override { return "leo"; }
  const std::vector<ParameterGroup>& groups() const override { return groups_; }
  int steps() const override { return spec_.table.latent_steps + spec_.table.finetune_steps; }
  /// A generated head is predicted from the means, and a network by samples where they are
  /// requested.
  bool bayesian() const override { return !spec_.head; }

  /// Matrices start Glorot-uniform, as in the authors' code, and biases at zero. Where a network is
  /// generated, the matrices that lead to statistics and weights start small, because their outputs
  /// include exponents and targets are of any size.
  std::vector<std::vector<double>> initial(std::uint64_t seed) const override {
    std::vector<double> values(groups_[0].size, 0.0);
    for (std::size_t i = 0; i < groups_[0].tensors.size(); ++i) {
      const ParameterTensor& t = groups_[0].tensors[i];
      const bool rates = i + 2 >= groups_[0].tensors.size();
      const double rate = i + 2 == groups_[0].tensors.size() ? spec_.table.latent_lr_init
                                                             : spec_.table.finetune_lr_init;
      RandomStream stream({seed, Purpose::initialisation, 0, static_cast<std::uint32_t>(i), 0, 0});
      for (std::size_t e = 0; e < t.size; ++e) {
        if (rates) {
          values[t.offset + e] = rate;
        } else if (t.shape.size() == 2) {
          const bool exponents = i == statistics_matrix_ || i == decoder_matrix_;
          const double gain = !spec_.head && exponents ? 0.01 : 1.0;
          const double bound = gain * std::sqrt(6.0 / (t.shape[0] + t.shape[1]));
          values[t.offset + e] = bound * (2.0 * stream.uniform() - 1.0);
        }
      }
    }
    if (!spec_.head) {
      // The mean of the generated weights starts at the initial weights of an ordinary network.
      const std::vector<double> weights = network_->initial_weights(seed);
      std::ranges::copy(
          weights, values.begin() +
                       static_cast<std::ptrdiff_t>(groups_[0].tensors[decoder_matrix_ + 1].offset));
    }
    std::vector<std::vector<double>> all = {std::move(values)};
    if (shared_.noise.learned()) all.push_back(shared_.noise.initial());
    return all;
  }

  std::vector<std::size_t> gradient_widths() const override {
    std::vector<std::size_t> widths = {groups_[0].size, spec_.generator.latent(), network_->size()};
    if (shared_.noise.learned()) widths.push_back(1);
    return widths;
  }

  void prepare(backend::Backend& backend, std::span<const Shared> parameters,
               const StepContext& /*context*/) override {
    shared_.theta = parameters[0];
    if (!shared_.latent_lr) {
      shared_.latent_lr = backend.shared(latent_index_.size());
      shared_.finetune_lr = backend.shared(finetune_index_.size());
    }
    backend.gather(*shared_.latent_lr, *shared_.theta, latent_index_);
    backend.gather(*shared_.finetune_lr, *shared_.theta, finetune_index_);
    shared_.latent_rate = {0.0, shared_.latent_lr.get()};
    shared_.finetune_rate = {0.0, shared_.finetune_lr.get()};
    if (!shared_.noise.learned()) return;
    shared_.noise.prepare(backend, parameters.back());
    backend::Rate* const rates[] = {&shared_.latent_rate, &shared_.finetune_rate};
    const std::size_t widths[] = {latent_index_.size(), finetune_index_.size()};
    for (std::size_t i = 0; i < 2; ++i) {
      *rates[i] = shared_.noise.scaled(backend, {rates[i], 1}, widths[i], i).front();
    }
  }

  std::unique_ptr<TaskProgram> open(backend::Backend& backend,
                                    const TaskShape& shape) const override {
    GeneratorSpec generator = spec_.generator;
    if (spec_.head && spec_.table.latents == Latents::per_example) {
      generator.latent_per_row = true;
      generator.latents = std::max(1, shape.support / spec_.table.ways);
    }
    return std::make_unique<LeoProgram>(
        backend.open(network_, loss_, {shape.support, shape.query, false, true}), generator,
        groups_count_, spec_, shared_);
  }

  void finish(backend::Backend& backend, std::span<const Shared> parameters,
              std::span<const Shared> means, std::span<const Shared> gradients,
              backend::Sum outside) const override {
    backend::SharedVector& g = *gradients[0];
    backend.assign(g, *means[0]);
    backend.scatter_add(g, *means[1], latent_index_, true);
    backend.scatter_add(g, *means[2], finetune_index_, true);
    if (shared_.noise.learned()) backend.assign(*gradients[1], *means[3]);
    if (spec_.table.l2_weight > 0.0) {
      backend.l2_penalty(*parameters[0], matrices_, spec_.table.l2_weight, g, outside);
    }
    if (spec_.table.orthogonality_weight > 0.0) {
      const ParameterTensor& last = decoder_matrix();
      backend.column_orthogonality(
          *parameters[0], last.offset, static_cast<std::size_t>(last.shape[0]),
          static_cast<std::size_t>(last.shape[1]), spec_.table.orthogonality_weight, g, outside);
    }
  }

  std::vector<std::string> metrics() const override {
    if (!shared_.noise.learned()) return {};
    return {TaskNoise::metric};
  }
  std::string divergence_hint() const override {
    return "the learned step sizes are too large for this loss (lower leo.latent_lr_init, "
           "leo.finetune_lr_init or optimizer.learning_rate, or clip the gradients)";
  }

 private:
  /// The decoder's last matrix.
  const ParameterTensor& decoder_matrix() const { return groups_[0].tensors[decoder_matrix_]; }

  /// Sets each weight's standard deviation where the decoder gives u = 0: leo.decoder_offset, or
  /// that of Glorot's initialisation, sqrt(2 / (fan_in + fan_out)), where leo.decoder_offset is
  /// negative.
  void set_offsets() {
    const double given = spec_.table.decoder_offset;
    const std::size_t weights = network_->size() / groups_count_;
    spec_.generator.offset.assign(weights, given);
    if (given >= 0.0) return;
    const std::vector<ParameterTensor>& tensors = network_->parameters();
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const ParameterTensor& t = tensors[i];
      // A bias has the fans of its layer. A network that begins with a norm has no layer before it.
      // The vector's own length then counts as the number of inputs.
      const ParameterTensor& w = t.shape.size() > 1 || i == 0 ? t : tensors[i - 1];
      double fans = w.shape[0];
      for (std::size_t d = 1; d < w.shape.size(); ++d) fans += w.shape[d];
      for (std::size_t e = 0; e < t.size && t.offset + e < weights; ++e) {
        spec_.generator.offset[t.offset + e] = std::sqrt(2.0 / fans);
      }
    }
  }

  void set_group() {
    ParameterGroup group;
    group.name = "theta";
    const auto add = [&](const std::string& name, std::vector<int> shape, std::size_t size) {
      group.tensors.push_back({name, std::move(shape), group.size, size});
      group.size += size;
    };
    const GeneratorSpec& g = spec_.generator;
    for (const Network* network : {g.encoder.get(), g.relation.get(), g.decoder.get()}) {
      if (network == nullptr) continue;
      for (const ParameterTensor& t : network->parameters()) {
        if (t.shape.size() == 2) {
          (network == g.decoder.get() ? decoder_matrix_ : statistics_matrix_) =
              group.tensors.size();
        }
        const std::size_t offset = group.size;
        add(t.name, t.shape, t.size);
        if (t.shape.size() != 2) continue;
        if (matrices_.empty() || matrices_.back().offset + matrices_.back().size != offset) {
          matrices_.push_back({offset, 0});
        }
        matrices_.back().size += t.size;
      }
    }
    const auto index = [&](std::vector<std::uint32_t>& to, std::size_t width, std::size_t period) {
      for (std::size_t i = 0; i < width; ++i) {
        to.push_back(static_cast<std::uint32_t>(group.size + i % period));
      }
    };
    index(latent_index_, g.latent(), g.latent());
    add("latent_lr", {static_cast<int>(g.latent())}, g.latent());
    index(finetune_index_, network_->size(), g.weights());
    add("finetune_lr", {static_cast<int>(g.weights())}, g.weights());
    spec_.width = group.size;
    groups_.push_back(std::move(group));
  }

  std::shared_ptr<const Network> network_;
  backend::Loss loss_;
  LeoSpec spec_;
  std::size_t groups_count_ = 1;
  std::vector<ParameterGroup> groups_;
  /// Indices of the last matrix before the statistics and of the last matrix of the decoder.
  std::size_t statistics_matrix_ = 0, decoder_matrix_ = 0;
  /// Offset in theta of the rate of each element.
  std::vector<std::uint32_t> latent_index_, finetune_index_;
  std::vector<backend::Backend::Segment> matrices_;  ///< contiguous runs of matrices
  LeoShared shared_;
};

}  // namespace

std::unique_ptr<Algorithm> make_leo(const Config& config, std::shared_ptr<const Network> network) {
  return std::make_unique<Leo>(config, std::move(network));
}

}  // namespace kshot
