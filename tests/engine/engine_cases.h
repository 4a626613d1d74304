// Configurations and sources that the engine's tests share. They are small, so that a step takes
// almost no time.
#pragma once

#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "kshot/kshot.h"

namespace kshot::test {

inline Config small_config(const std::string& algorithm,
                           const std::vector<std::string>& overrides = {}) {
  std::string text = "algorithm = \"" + algorithm + R"("
seed = 3
network.layers = [1, 12, 1]
inner = { steps = 2, learning_rate = 0.005 }
data = { shots = 4, queries = 5 }
optimizer.clip_norm = 5.0
evaluate.episodes = 40
[train]
steps = 14
meta_batch = 20
validate_every = 4
validation_episodes = 19
log_every = 3
)";
  if (algorithm == "abml") text += "[abml]\nsamples_inner = 2\nsamples_outer = 3\n";
  if (algorithm == "hvi") {
    text += "[hvi]\nbound = \"vb\"\nsamples = 2\njoint_steps = 3\n";
  }
  return Config::parse(text, "test", overrides);
}

/// Overrides that make the observation noise learned.
inline const std::vector<std::string> learned_noise = {"loss.type=gaussian_nll",
                                                       "loss.noise_std=0.5", "loss.noise=learned"};

/// An algorithm with a closed-form head on sinusoids: alpaca, dkt or r2d2.
inline Config head_config(const std::string& algorithm,
                          const std::vector<std::string>& overrides = {}) {
  return Config::parse("algorithm = \"" + algorithm + "\"\n" +
                           (algorithm == "r2d2" ? "loss.type = \"mse\"\n" : "") + R"(
seed = 3
network = { layers = [1, 12, 5], activation = "tanh" }
data = { shots = 4, queries = 5, noise_std = 0.25 }
optimizer.clip_norm = 5.0
evaluate.episodes = 40
[train]
steps = 14
meta_batch = 20
validate_every = 4
validation_episodes = 19
log_every = 3
)",
                       "test", overrides);
}

/// An algorithm with a closed-form head on classes of vectors of six numbers: protonet,
/// bayes_protonet or r2d2.
inline Config class_head_config(const std::string& algorithm, const std::filesystem::path& file,
                                std::vector<std::string> overrides = {}) {
  overrides.push_back("data.path=" + file.string());
  return Config::parse("algorithm = \"" + algorithm + "\"\n" + R"(
seed = 3
network = { type = "linear", layers = [6, 4] }
data = { source = "file", ways = 3, shots = 2, queries = 3 }
evaluate.episodes = 40
[train]
steps = 14
meta_batch = 20
validate_every = 4
validation_episodes = 19
log_every = 3
)",
                       "test", overrides);
}

/// LEO that generates all weights of a small network, on sinusoids.
inline Config leo_points(const std::vector<std::string>& overrides = {}) {
  return Config::parse(R"(
algorithm = "leo"
seed = 3
loss.type = "mse"
network.layers = [1, 6, 1]
data = { source = "sinusoid", shots = 4, queries = 5 }
train = { steps = 14, meta_batch = 20 }
[leo]
latent = 4
latent_steps = 2
finetune_steps = 1
encoder_layers = [8]
decoder_layers = [8]
)",
                       "test", overrides);
}

/// LEO that generates a head for vectors of six numbers, on a file of classes.
inline Config leo_head(const std::filesystem::path& file, std::vector<std::string> overrides = {}) {
  overrides.push_back("data.path=" + file.string());
  return Config::parse(R"(
algorithm = "leo"
seed = 3
leo = { ways = 3, dim = 6, latent = 4, latent_steps = 2, finetune_steps = 1 }
data = { source = "file", ways = 3, shots = 2, queries = 3 }
train = { steps = 14, meta_batch = 20 }
)",
                       "test", overrides);
}

inline std::map<std::string, io::Tensor> tensors(const std::filesystem::path& checkpoint) {
  return io::read_safetensors(checkpoint).tensors;
}

/// Trains on one thread in the folder `name` of `parent`, which it returns.
inline std::filesystem::path train_run(const std::filesystem::path& parent, const Config& config,
                                       const std::string& name = "run",
                                       const std::string& device = "cpu") {
  Trainer(config, {.run_folder = parent / name, .device = device, .threads = 1}).run();
  return parent / name;
}

/// A stop callback that stops a training after `steps` steps of this session.
inline std::function<bool()> stop_after(int steps) {
  return [left = steps]() mutable { return left-- == 0; };
}

/// A source of sinusoids. In every step of `split`, the task number `bad` has a target that is not
/// finite.
class Spoilt final : public EpisodeSource {
 public:
  Spoilt(Split split, std::uint32_t bad) : split_(split), bad_(bad) {
    SinusoidOptions options;
    options.support = 4;
    options.query = 5;
    good_ = make_sinusoid(options);
  }
  TaskShape shape() const override { return good_->shape(); }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    good_->fill(id, slot);
    if (id.split == split_ && id.task == bad_) {
      slot.support_value[0] = std::numeric_limits<float>::infinity();
    }
  }
  std::string describe() const override { return "spoilt sinusoids"; }

 private:
  std::unique_ptr<EpisodeSource> good_;
  Split split_;
  std::uint32_t bad_;
};

}  // namespace kshot::test
