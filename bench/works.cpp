#include "works.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "base/prefetch.h"
#include "kshot/random.h"

namespace kshot::bench {
namespace {

constexpr int ways = 5;

Work sinusoid_maml(int steps) {
  Work work;
  work.name = fmt::format("sinusoid_maml_k{}", steps);
  work.config.inner.steps = steps;
  work.config.inner.learning_rate = 0.01;
  work.support = work.query = 10;
  work.tasks = {64, 256, 1024, 4096, 16384, 65536};
  work.gpu_tasks = {256, 1024, 4096, 16384, 65536, 262144};
  return work;
}

Work sinusoid_abml() {
  Work work = sinusoid_maml(5);
  work.name = "sinusoid_abml_k5_s10";
  work.config.algorithm = AlgorithmKind::abml;
  work.config.loss.type = LossType::gaussian_nll;
  work.config.loss.noise_std = 1.0;
  work.config.abml.kl_weight_inner = 0.1;
  work.config.abml.samples_inner = work.config.abml.samples_outer = 10;
  work.config.abml.log_sigma_init = -3.0;
  work.tasks = {16, 64, 256, 1024, 4096};
  work.gpu_tasks = {256, 1024, 4096, 16384, 65536};
  return work;
}

Work conv4_maml(int steps, int query) {
  Work work;
  work.name = fmt::format("conv4_maml_k{}_q{}", steps, query);
  work.config.network.type = "conv4";
  work.config.loss.type = LossType::cross_entropy;
  work.config.inner.steps = steps;
  work.config.inner.learning_rate = 0.4;
  work.config.data.ways = ways;
  work.config.data.shots = 1;
  work.config.data.queries = query / ways;
  work.support = ways;
  work.query = query;
  work.tasks = {4, 16, 32, 64};
  work.gpu_tasks = {16, 64, 256, 1024, 4096};
  return work;
}

Work leo(int shots, int tasks) {
  Work work;
  work.name = fmt::format("leo_5w{}s_t{}", shots, tasks);
  work.config.algorithm = AlgorithmKind::leo;
  work.config.loss.type = LossType::cross_entropy;
  work.support = ways * shots;
  work.query = 75;
  work.tasks = work.gpu_tasks = {tasks};
  return work;
}

Work head(std::string name, AlgorithmKind algorithm, int support, int query) {
  Work work;
  work.name = std::move(name);
  work.config.algorithm = algorithm;
  work.config.loss.type = LossType::cross_entropy;
  work.support = support;
  work.query = query;
  work.tasks = {64, 256, 1024, 4096};
  work.gpu_tasks = {1024, 4096, 16384};
  return work;
}

Work sinusoid_alpaca() {
  Work work = head("sinusoid_alpaca", AlgorithmKind::alpaca, 10, 10);
  work.config.loss.type = LossType::gaussian_nll;
  work.config.network.layers = {1, 64, 64, 32};
  work.config.network.activation = "tanh";
  work.config.alpaca.outputs = 1;
  return work;
}

Work embedding_r2d2() {
  Work work = head("embedding_r2d2_5w5s", AlgorithmKind::r2d2, 25, 75);
  work.config.network.type = "linear";
  work.config.network.layers = {640, 256};
  work.config.r2d2.ways = ways;
  return work;
}

Work conv4_protonet() {
  Work work = head("conv4_protonet_20w1s", AlgorithmKind::protonet, 20, 100);
  work.config.network.type = "conv4";
  work.config.network.classes = 0;
  work.config.network.head = "flatten";
  work.config.protonet.ways = 20;
  work.tasks = {2, 8, 16};
  work.gpu_tasks = {16, 64, 256};
  return work;
}

Work chembl_dkt() {
  Work work = head("chembl_dkt_n16", AlgorithmKind::dkt, 16, 32);
  work.config.loss.type = LossType::gaussian_nll;
  work.config.network.layers = {512, 256, 64};
  work.config.dkt.outputs = 1;
  return work;
}

/// Tasks with rows of unit length and labels in the order of classes, which follow from the task's
/// id. The source has so few rows that drawing one is a copy, as from a file of features.
class FeatureSource final : public EpisodeSource {
 public:
  FeatureSource(int dim, int support, int query) : dim_(dim), support_(support), query_(query) {
    const auto d = static_cast<std::size_t>(dim);
    features_.resize(stored * d);
    RandomStream random({.seed = 1, .purpose = Purpose::user});
    for (std::size_t row = 0; row < stored; ++row) {
      float sum = 0.0f;
      for (std::size_t i = row * d; i < (row + 1) * d; ++i) {
        features_[i] = random.uniform(-1.0f, 1.0f);
        sum += features_[i] * features_[i];
      }
      for (std::size_t i = row * d; i < (row + 1) * d; ++i) features_[i] /= std::sqrt(sum);
    }
  }

  TaskShape shape() const override {
    return {.input = {.channels = dim_},
            .outputs = ways,
            .target = TargetKind::label,
            .support = support_,
            .query = query_};
  }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    RandomStream random(
        {.seed = id.seed, .purpose = Purpose::episode, .step = id.step, .task = id.task});
    copy(random, support_, slot.support_x, slot.support_label);
    copy(random, query_, slot.query_x, slot.query_label);
  }
  std::string describe() const override { return "random features"; }

 private:
  static constexpr std::size_t stored = 4096;

  void copy(RandomStream& random, int rows, std::span<float> x,
            std::span<std::int32_t> labels) const {
    const auto d = static_cast<std::size_t>(dim_);
    const auto draw = [&] {
      const float* from = features_.data() + random.below(stored) * d;
      prefetch(from, d * sizeof(float));
      return from;
    };
    const float* next[2] = {draw(), draw()};
    for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
      const float* const from = std::exchange(next[row % 2], draw());
      std::copy_n(from, d, x.begin() + static_cast<std::ptrdiff_t>(row * d));
      labels[row] = static_cast<std::int32_t>(static_cast<int>(row) / (rows / ways));
    }
  }

  int dim_, support_, query_;
  std::vector<float> features_;
};

/// Tasks with rows of 512 bits and one target per row, like molecules with an activity. The rows
/// follow from the task's id.
class MoleculeSource final : public EpisodeSource {
 public:
  MoleculeSource(int support, int query) : support_(support), query_(query) {
    bits_.resize(stored * width);
    activity_.resize(stored);
    RandomStream random({.seed = 1, .purpose = Purpose::user});
    for (float& bit : bits_) bit = random.below(16) == 0 ? 1.0f : 0.0f;
    for (float& y : activity_) y = random.uniform(-1.7f, 1.7f);
  }

  TaskShape shape() const override {
    return {.input = {.channels = static_cast<int>(width)},
            .outputs = 1,
            .target = TargetKind::value,
            .support = support_,
            .query = query_};
  }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    RandomStream random(
        {.seed = id.seed, .purpose = Purpose::episode, .step = id.step, .task = id.task});
    copy(random, support_, slot.support_x, slot.support_value);
    copy(random, query_, slot.query_x, slot.query_value);
  }
  std::string describe() const override { return "random molecules"; }

 private:
  static constexpr std::size_t stored = 4096, width = 512;

  void copy(RandomStream& random, int rows, std::span<float> x, std::span<float> y) const {
    for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
      const std::size_t molecule = random.below(stored);
      std::copy_n(bits_.begin() + static_cast<std::ptrdiff_t>(molecule * width), width,
                  x.begin() + static_cast<std::ptrdiff_t>(row * width));
      y[row] = activity_[molecule];
    }
  }

  int support_, query_;
  std::vector<float> bits_, activity_;
};

/// Tasks whose classes are some of 64 random binary 28x28 images; an example is the image of its
/// class. For timing, the content of an image does not matter, but its path to the task does.
class GlyphSource final : public EpisodeSource {
 public:
  GlyphSource(int outputs, int support, int query)
      : ways_(outputs), support_(support), query_(query) {
    images_.resize(classes * pixels);
    RandomStream random({.seed = 1, .purpose = Purpose::user});
    for (float& pixel : images_) pixel = random.below(10) == 0 ? 1.0f : 0.0f;
  }

  TaskShape shape() const override {
    return {.input = {.channels = 1, .height = 28, .width = 28, .spatial = true},
            .outputs = ways_,
            .target = TargetKind::label,
            .support = support_,
            .query = query_};
  }

  void fill(const TaskId& id, const TaskSlot& slot) const override {
    RandomStream random(
        {.seed = id.seed, .purpose = Purpose::episode, .step = id.step, .task = id.task});
    std::vector<std::size_t> chosen(static_cast<std::size_t>(ways_));
    for (std::size_t way = 0; way < chosen.size(); ++way) {
      const auto end = chosen.begin() + static_cast<std::ptrdiff_t>(way);
      do {
        chosen[way] = random.below(classes);
      } while (std::find(chosen.begin(), end, chosen[way]) != end);
    }
    copy(chosen, support_, slot.support_x, slot.support_label);
    copy(chosen, query_, slot.query_x, slot.query_label);
  }

  std::string describe() const override { return "random images"; }

 private:
  static constexpr std::size_t classes = 64, pixels = 28 * 28;

  void copy(const std::vector<std::size_t>& chosen, int rows, std::span<float> x,
            std::span<std::int32_t> labels) const {
    for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
      const std::size_t way = row % chosen.size();
      std::copy_n(images_.begin() + static_cast<std::ptrdiff_t>(chosen[way] * pixels), pixels,
                  x.begin() + static_cast<std::ptrdiff_t>(row * pixels));
      labels[row] = static_cast<std::int32_t>(way);
    }
  }

  int ways_, support_, query_;
  std::vector<float> images_;
};

}  // namespace

std::vector<Work> works() {
  std::vector<Work> all;
  for (int steps : {1, 2, 5, 10, 20, 50}) all.push_back(sinusoid_maml(steps));
  all.push_back(sinusoid_abml());
  for (auto [steps, query] : {std::pair{1, 5}, {1, 75}, {5, 75}}) {
    all.push_back(conv4_maml(steps, query));
  }
  all.push_back(leo(1, 12));
  all.push_back(leo(5, 48));
  all.push_back(sinusoid_alpaca());
  all.push_back(embedding_r2d2());
  all.push_back(conv4_protonet());
  all.push_back(chembl_dkt());
  return all;
}

std::unique_ptr<EpisodeSource> make_source(const Work& work) {
  if (work.config.network.type == "conv4") {
    const bool head = work.config.algorithm == AlgorithmKind::protonet;
    return std::make_unique<GlyphSource>(head ? work.config.protonet.ways : ways, work.support,
                                         work.query);
  }
  if (work.config.algorithm == AlgorithmKind::r2d2) {
    return std::make_unique<FeatureSource>(work.config.network.layers[0], work.support, work.query);
  }
  if (work.config.algorithm == AlgorithmKind::dkt) {
    return std::make_unique<MoleculeSource>(work.support, work.query);
  }
  if (work.config.algorithm == AlgorithmKind::leo) {
    return std::make_unique<FeatureSource>(work.config.leo.dim, work.support, work.query);
  }
  return make_sinusoid({.support = work.support, .query = work.query});
}

double floor_flops(const Work& work) {
  const Config& config = work.config;
  if (config.algorithm == AlgorithmKind::leo) {
    // For each latent and each decoding, only the half of the decoder that gives the standard
    // deviations is needed: forward, pull-back, their tangents, and two products for the weights in
    // a second-order step. The product of x with the half of the means is computed once. For the
    // pairs of the relation network, only the middle layer is needed.
    const Config::LeoTable& t = config.leo;
    const double half = static_cast<double>(t.dim) * t.latent;
    const double square = 4.0 * t.latent * t.latent;
    const double rows = work.support;
    const double decoder = rows * half * (6.0 * t.latent_steps + 3.0) + 3.0 * rows * half;
    const double encoder = rows * half * 2.0 + square * 3.0 * (rows * rows + rows + ways);
    const double query = work.query * static_cast<double>(t.dim) * ways * 2.0;
    return 2.0 * (decoder + encoder + query);
  }
  if (is_closed_form(config.algorithm)) {
    // This counts the network's forward pass and gradient over all rows, and the head's Gram matrix
    // and its adjoint, which are most of the head.
    const double rows = work.support + work.query;
    const double gram = rows * work.support * config.make_network().outputs();
    return 2.0 * (3.0 * rows * config.make_network().forward_macs() + 3.0 * gram);
  }
  const bool bayesian = config.algorithm == AlgorithmKind::abml;
  const double inner_samples = bayesian ? config.abml.samples_inner : 1;
  const double outer_samples = bayesian ? config.abml.samples_outer : 1;
  const double outer_rows =
      work.query + (bayesian && config.abml.support_in_outer ? work.support : 0);
  const double forward = 2.0 * config.make_network().forward_macs();
  return forward * (config.inner.steps * inner_samples * work.support * (3.0 + 6.0) +
                    outer_samples * outer_rows * 3.0);
}

}  // namespace kshot::bench
