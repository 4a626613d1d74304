// The single wave: its rows, its blocks, and the operations of a wave in terms of its passes.
#include "backend/cpu/single_wave.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace kshot::backend::cpu {

SingleWave::SingleWave(const Kernels& kernels, std::shared_ptr<const Network> network,
                       const Loss& loss, const WaveShape& shape)
    : CpuWave(kernels, std::move(network), loss, shape) {
  max_rows_ = std::max(shape.support, shape.query);
  if (shape.with_all) max_rows_ = shape.support + shape.query;
  plan_weights();
  plan_groups();
  plan_steps();
  const Geometry& input = groups_.front().geometry;
  target_stride_ = shape.targets > 0 ? pad(shape.targets) : groups_.back().geometry.stride;
  for (int s = 0; s < 3; ++s) {
    if (s == 2 && !shape.with_all) continue;
    const auto n = static_cast<std::size_t>(rows(static_cast<Set>(s)));
    data_[s].x = AlignedFloats(n * input.row_floats());
    data_[s].target = AlignedFloats(n * static_cast<std::size_t>(target_stride_));
  }
  canonical_ = AlignedFloats((network_->size() + 63) / 64 * 64);
}

void SingleWave::do_broadcast(Block dst, const SharedVector& src) {
  if (!storage(dst).weights) {  // for example a head's parameters
    std::copy_n(host<float>(src).data(), src.size(), at(dst));
    return;
  }
  const AlignedFloats& values = placed(src);
  std::copy_n(values.data(), values.size(), at(dst));
}

void SingleWave::read(Block src, int /*task*/, float* to) const {
  const Storage& s = storage(src);
  const float* from = at(src);
  if (!s.weights) {
    std::copy_n(from, s.width, to);
  } else {
    for (std::size_t e = 0; e < s.width; ++e) to[e] = from[place_[e]];
  }
}

void SingleWave::write(Block dst, int /*task*/, const float* from) {
  const Storage& s = storage(dst);
  float* to = at(dst);
  if (!s.weights) {
    std::copy_n(from, s.width, to);
  } else {
    for (std::size_t e = 0; e < s.width; ++e) to[place_[e]] = from[e];
  }
}

void SingleWave::read_support(int /*task*/, int row, float* x, float* target) const {
  const Geometry& g = groups_.front().geometry;
  std::copy_n(data_[0].x.data() + g.offset(row, 0, 0), g.channels, x);
  std::copy_n(data_[0].target.data() + row * target_stride_, targets(), target);
}

void SingleWave::put_targets(Set set, Block dst) {
  float* to = at(dst);
  for (int r = 0; r < rows(set); ++r, to += targets()) {
    const float* from = data_[static_cast<int>(set)].target.data() + r * target_stride_;
    if (r < task_rows(set, 0)) {
      std::copy_n(from, targets(), to);
    } else {
      std::fill_n(to, targets(), 0.0f);
    }
  }
}

void SingleWave::do_gradient(const Pass& pass, Block grad, bool accumulate, Block loss) {
  take_input(pass);
  forward(pass.set, at(pass.weights), nullptr, false);
  loss_and_delta(pass, at(loss), true, false);
  backward(pass.set, at(pass.weights), nullptr, at(grad), nullptr, accumulate);
}

void SingleWave::do_output_pullback(const Pass& pass, Block g_outputs, Block grad,
                                    bool accumulate) {
  if (task_rows(pass.set, 0) == 0) {  // without rows there are no batch statistics
    if (!accumulate) fill(grad, 0.0);
    return;
  }
  take_input(pass);
  forward(pass.set, at(pass.weights), nullptr, false);
  take_outputs(pass.set, at(g_outputs));
  backward(pass.set, at(pass.weights), nullptr, at(grad), nullptr, accumulate);
}

void SingleWave::do_hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                                   Block grad) {
  take_input(pass);
  forward(pass.set, at(pass.weights), at(direction), false);
  loss_and_delta(pass, nullptr, true, true);
  backward(pass.set, at(pass.weights), at(direction), at(grad), at(hv), accumulate);
}

void SingleWave::do_value(const Pass& pass, Block loss, Block outputs, NormStatistics statistics) {
  const bool given = statistics == NormStatistics::support && pass.set != Set::support;
  take_input(pass);
  if (given) forward(Set::support, at(pass.weights), nullptr, false);
  forward(pass.set, at(pass.weights), nullptr, given);
  if (loss) loss_and_delta(pass, at(loss), false, false);
  if (outputs) put_outputs(pass.set, at(outputs));
}

void SingleWave::do_split_gradient(const SplitPass& pass, Block g_mean, Block g_spread,
                                   bool accumulate, Block loss) {
  take_input({pass.set, {}, {}});
  const Spread spread = take_noise(pass, pass.set, {}, g_spread);
  forward(pass.set, at(pass.mean), nullptr, false, &spread);
  loss_and_delta({pass.set, {}, pass.scale}, at(loss), true, false);
  backward(pass.set, at(pass.mean), nullptr, at(g_mean), nullptr, accumulate, &spread);
}

void SingleWave::do_split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread,
                                         Block h_mean, Block h_spread) {
  take_input({pass.set, {}, {}});
  const Spread spread = take_noise(pass, pass.set, u_spread, h_spread);
  forward(pass.set, at(pass.mean), at(u_mean), false, &spread);
  loss_and_delta({pass.set, {}, pass.scale}, nullptr, true, true);
  backward(pass.set, at(pass.mean), at(u_mean), nullptr, at(h_mean), false, &spread);
}

void SingleWave::do_split_value(const SplitPass& pass, Block loss, Block outputs,
                                NormStatistics statistics) {
  const bool given = statistics == NormStatistics::support && pass.set != Set::support;
  take_input({pass.set, {}, {}});
  if (given) {
    const Spread spread = take_noise(pass, Set::support, {}, {});
    forward(Set::support, at(pass.mean), nullptr, false, &spread);
  }
  const Spread spread = take_noise(pass, pass.set, {}, {});
  forward(pass.set, at(pass.mean), nullptr, given, &spread);
  if (loss) loss_and_delta({pass.set, {}, pass.scale}, at(loss), false, false);
  if (outputs) put_outputs(pass.set, at(outputs));
}

void SingleWave::sum_tasks(std::span<const Block> blocks, Block loss, float* out, double* losses,
                           char* diverged) {
  float keep[max_lanes];
  std::fill_n(keep, max_lanes, 1.0f);
  for (const Block b : blocks) kernels_.lane_finite(at(b), block_vectors(b), keep);
  diverged[0] = !std::isfinite(at(loss)[0]) ||
                std::any_of(keep, keep + kernels_.lanes, [](float k) { return k == 0.0f; });
  losses[0] = diverged[0] ? 0.0 : static_cast<double>(at(loss)[0]);
  for (const Block b : blocks) {
    const std::size_t width = storage(b).width;
    if (diverged[0]) {
      std::fill_n(out, width, 0.0f);
    } else {
      const float* from = at(b);
      if (storage(b).weights) {
        for (std::size_t e = 0; e < width; ++e) out[e] = from[place_[e]];
      } else {
        std::copy_n(from, width, out);
      }
    }
    out += width;
  }
}

void SingleWave::do_load(const TaskBatch& batch, int first, int count, std::uint32_t global_first) {
  count_ = count;
  global_first_ = global_first;
  batch_first_ = first;
  const auto task = static_cast<std::size_t>(first);
  support_n_ = {batch.support_n[task]};
  query_n_ = {batch.query_n[task]};
  load_rows(batch, true, data_[0], 0);
  load_rows(batch, false, data_[1], 0);
  if (shape_.with_all) {
    load_rows(batch, true, data_[2], 0);
    load_rows(batch, false, data_[2], support_n_[0]);
  }
}

void SingleWave::draw_weights(Block phi, Block eps, Block mu, Block sigma, const RandomKey& key) {
  kernels_.noise_single(noise_key(key, global_first_), canonical_.data(), network_->size());
  scatter(at(eps), canonical_.data());
  kernels_.reparameterise(at(phi), at(mu), at(sigma), at(eps), block_vectors(phi));
}

const AlignedFloats& SingleWave::placed(const SharedVector& shared) {
  const auto& vector = host<float>(shared);
  Placed& entry = placed_[&shared];
  if (entry.values.size() == 0) entry.values = AlignedFloats(layout_size_);
  if (!entry.valid || entry.version != vector.version()) {
    scatter(entry.values.data(), vector.data());
    entry.version = vector.version();
    entry.valid = true;
  }
  return entry.values;
}

void SingleWave::load_rows(const TaskBatch& batch, bool support, Data& data, int start) {
  const auto& x = support ? batch.support_x : batch.query_x;
  const auto& x64 = support ? batch.support_x64 : batch.query_x64;
  const auto& value = support ? batch.support_value : batch.query_value;
  const auto& value64 = support ? batch.support_value64 : batch.query_value64;
  const auto& label = support ? batch.support_label : batch.query_label;
  const auto batch_rows =
      static_cast<std::size_t>(support ? batch.shape().support : batch.shape().query);
  const int valid = support ? support_n_[0] : query_n_[0];
  const Geometry& g = groups_.front().geometry;
  const auto inputs = static_cast<std::size_t>(network_->input().size());
  const auto outputs = static_cast<std::size_t>(targets());
  const auto stride = static_cast<std::size_t>(target_stride_);
  for (int row = 0; row < valid; ++row) {
    const std::size_t from =
        static_cast<std::size_t>(batch_first_) * batch_rows + static_cast<std::size_t>(row);
    std::size_t e = from * inputs;
    if (g.pixels() == 1 && !batch.is_double()) {
      std::copy_n(x.data() + e, inputs, data.x.data() + g.offset(start + row, 0, 0));
    }
    for (int c = 0; c < g.channels && (g.pixels() > 1 || batch.is_double()); ++c) {
      for (int y = 0; y < g.height; ++y) {
        float* to = data.x.data() + g.offset(start + row, y, 0) + c;
        for (int i = 0; i < g.width; ++i, ++e) {
          to[i * g.stride] = batch.is_double() ? static_cast<float>(x64[e]) : x[e];
        }
      }
    }
    float* target = data.target.data() + static_cast<std::size_t>(start + row) * stride;
    for (std::size_t o = 0; o < outputs; ++o) {
      if (loss_.kind == LossKind::cross_entropy) {
        target[o] = static_cast<std::size_t>(label[from]) == o ? 1.0f : 0.0f;
      } else {
        const std::size_t v = from * outputs + o;
        target[o] = batch.is_double() ? static_cast<float>(value64[v]) : value[v];
      }
    }
  }
}

std::unique_ptr<Wave> make_single_wave(const Kernels& kernels,
                                       std::shared_ptr<const Network> network, const Loss& loss,
                                       const WaveShape& shape) {
  return std::make_unique<SingleWave>(kernels, std::move(network), loss, shape);
}

}  // namespace kshot::backend::cpu
