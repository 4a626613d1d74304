// Defines a source of tasks and meta-trains on it: lines y = a x + b, from five points each.
#include <cstdio>

#include "kshot/kshot.h"

struct Lines final : kshot::EpisodeSource {
  kshot::TaskShape shape() const override {
    return {.input = {.channels = 1},
            .outputs = 1,
            .target = kshot::TargetKind::value,
            .support = 5,
            .query = 10};
  }
  void fill(const kshot::TaskId& id, const kshot::TaskSlot& slot) const override {
    // The stream depends on the split, so that no split sees the tasks of another one.
    const auto part = static_cast<std::uint32_t>(id.split);
    kshot::RandomStream random({.seed = id.seed, .step = id.step, .task = id.task, .sample = part});
    const float a = random.normal(), b = random.normal();
    for (float& x : slot.support_x) x = random.uniform(-1.0f, 1.0f);
    for (float& x : slot.query_x) x = random.uniform(-1.0f, 1.0f);
    for (std::size_t i = 0; i < 5; ++i) slot.support_value[i] = a * slot.support_x[i] + b;
    for (std::size_t i = 0; i < 10; ++i) slot.query_value[i] = a * slot.query_x[i] + b;
  }
  std::string describe() const override { return "lines"; }
};

int main() {
  const kshot::Config config = kshot::Config::parse(
      "network.layers = [1, 40, 1]\ninner.steps = 5\ninner.learning_rate = 0.05\n"
      "optimizer.learning_rate = 0.01\noptimizer.clip_norm = 1.0\ntrain.steps = 1000\n");
  kshot::Trainer trainer(config, std::make_shared<Lines>());
  const kshot::TrainResult result = trainer.run();
  std::printf("mean squared error after adapting: %.4f\n", result.best.value);
}
