// Defines an episode source: classification of points on rings, with tasks of different size and
// two splits. The program trains on it, evaluates the run beside baselines, and predicts on a new
// task.
#include <cmath>
#include <cstdio>

#include "kshot/kshot.h"

/// A task: three rings around a centre, one class per ring. The gap between the rings differs from
/// task to task.
class Rings final : public kshot::EpisodeSource {
 public:
  kshot::TaskShape shape() const override {
    return {.input = {.channels = 2},
            .outputs = 3,
            .target = kshot::TargetKind::label,
            .support = 15,
            .query = 30};
  }
  // Called from several threads at once, so that everything in a task must follow from its id.
  void fill(const kshot::TaskId& id, const kshot::TaskSlot& slot) const override {
    kshot::RandomStream random({.seed = id.seed,
                                .purpose = kshot::Purpose::user,
                                .step = id.step,
                                .task = id.task,
                                .sample = static_cast<std::uint32_t>(id.split)});
    const float gap = random.uniform(0.5f, 1.5f), x0 = random.normal(), y0 = random.normal();
    // 6 to 15 support rows. The library never reads the rows beyond them.
    const int rows = 6 + static_cast<int>(random.below(10));
    *slot.support_n = rows;
    const auto draw = [&](std::span<float> x, std::span<std::int32_t> label, int count) {
      for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
        label[i] = static_cast<std::int32_t>(i % 3);
        const float radius = gap * (static_cast<float>(label[i]) + 0.5f) + 0.1f * random.normal();
        const float angle = random.uniform(0.0f, 6.2831853f);
        x[2 * i] = x0 + radius * std::cos(angle);
        x[2 * i + 1] = y0 + radius * std::sin(angle);
      }
    };
    draw(slot.support_x, slot.support_label, rows);
    draw(slot.query_x, slot.query_label, shape().query);
  }
  bool has(kshot::Split split) const override { return split != kshot::Split::validation; }
  std::string describe() const override { return "points on three rings"; }
};

int main(int argc, char** argv) try {
  const std::string run = argc > 1 ? argv[1] : "runs/rings";
  const kshot::Config config = kshot::Config::parse(R"(
    loss.type = "cross_entropy"
    network.layers = [2, 40, 40, 3]
    inner = { steps = 5, learning_rate = 0.2 }
    train.steps = 1000
    evaluate.episodes = 300)");
  const auto rings = std::make_shared<Rings>();
  kshot::Trainer(config, rings, {.run_folder = run}).run();
  std::printf("%s\n", kshot::Evaluator(run, rings).run().table().c_str());
  const float x[] = {0.5f, 0, 0, 0.5f, 1.5f, 0, 0, 1.5f, 2.5f, 0, 0, 2.5f};
  const std::int32_t labels[] = {0, 0, 1, 1, 2, 2};
  const float query[] = {-0.5f, 0};
  const kshot::Prediction p = kshot::Learner(run).predict({x, labels}, query);
  std::printf("probabilities: %.3f %.3f %.3f\n", p.mean[0], p.mean[1], p.mean[2]);
} catch (const kshot::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
