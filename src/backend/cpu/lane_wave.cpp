// The lane wave: its rows, its blocks, and the operations of a wave in terms of its passes.
#include "backend/cpu/lane_wave.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "backend/cpu/activation_of.h"

namespace kshot::backend::cpu {

LaneWave::LaneWave(const Kernels& kernels, std::shared_ptr<const Network> network, const Loss& loss,
                   const WaveShape& shape)
    : CpuWave(kernels, std::move(network), loss, shape), lanes_(kernels.lanes) {
  int widest_rows = std::max(shape.support, shape.query);
  if (shape.with_all) widest_rows = shape.support + shape.query;
  for (std::size_t i = 0; i < network_->layers().size(); ++i) {
    const Layer& layer = network_->layers()[i];
    if (layer.type == LayerType::flatten) continue;  // vectors are already flat
    if (gates(i)) {
      steps_.back().gated = true;
      steps_.back().slope = layer.type == LayerType::relu ? 0.0f : static_cast<float>(leaky_slope);
    } else if (layer.type == LayerType::linear) {
      Step step;
      step.in = layer.in.size();
      step.out = layer.out.size();
      step.weight = network_->parameters()[static_cast<std::size_t>(layer.weight)].offset;
      step.has_bias = layer.bias >= 0;
      if (step.has_bias) {
        step.bias = network_->parameters()[static_cast<std::size_t>(layer.bias)].offset;
      }
      steps_.push_back(std::move(step));
    } else {
      Step step;
      step.activation = activation_of(layer.type);
      step.is_activation = true;
      step.in = step.out = layer.in.size();
      steps_.push_back(std::move(step));
    }
  }
  std::size_t widest = 0;
  for (Step& step : steps_) {
    const std::size_t floats = size(step.out, widest_rows);
    step.y_dot = AlignedFloats(floats);
    widest = std::max({widest, floats, size(step.in, widest_rows)});
  }
  for (AlignedFloats& b : delta_dot_) b = AlignedFloats(widest);
  std::size_t slot_bytes = 0;
  for (const Step& step : steps_) slot_bytes += 2 * sizeof(float) * size(step.out, shape.support);
  slots_ = static_cast<int>(std::min<std::size_t>(
      kept_activation_bytes / std::max<std::size_t>(slot_bytes, 1), most_slots));
  allocate_rows(PassRows::support);
  allocate_rows(PassRows::query);
  if (shape.with_all) allocate_rows(PassRows::all);
  weight_ = AlignedFloats(size(1, shape.support + shape.query));
}

Block LaneWave::make_block(std::size_t width) {
  // The linear algebra of a head needs its matrices in lanes.
  if (width >= wide && shape_.targets == 0) return store_by_task(width);
  return store(width * static_cast<std::size_t>(lanes_), width, false);
}

void LaneWave::read(Block src, int task, float* to) const {
  const Strides s = strides(src, task);
  const float* from = at(src) + s.first;
  for (std::size_t e = 0; e < storage(src).width; ++e) to[e] = from[e * s.step];
}

void LaneWave::write(Block dst, int task, const float* from) {
  const Strides s = strides(dst, task);
  float* to = at(dst) + s.first;
  for (std::size_t e = 0; e < storage(dst).width; ++e) to[e * s.step] = from[e];
}

void LaneWave::read_support(int task, int row, float* x, float* target) const {
  const auto n = static_cast<std::size_t>(rows(Set::support));
  const auto at = [&](std::size_t i) {
    return (i * n + static_cast<std::size_t>(row)) * static_cast<std::size_t>(lanes_) +
           static_cast<std::size_t>(task);
  };
  for (std::size_t i = 0; i < static_cast<std::size_t>(network_->input().size()); ++i) {
    x[i] = data_[0].x.data()[at(i)];
  }
  for (std::size_t o = 0; o < static_cast<std::size_t>(targets()); ++o) {
    target[o] = data_[0].target.data()[at(o)];
  }
}

void LaneWave::do_gradient(const Pass& pass, Block grad, bool accumulate, Block loss) {
  const Place place = values_of(pass);
  loss_and_delta(place, pass.scale, at(loss), true, false);
  backward(place, at(pass.weights), nullptr, true,
           {at(grad), accumulate ? at(grad) : nullptr, 1.0f}, {});
}

void LaneWave::do_output_pullback(const Pass& pass, Block g_outputs, Block grad, bool accumulate) {
  const Place place = values_of(pass);
  take_outputs(pass.set, g_outputs, steps_.back().delta[place.store].data());
  backward(place, at(pass.weights), nullptr, true,
           {at(grad), accumulate ? at(grad) : nullptr, 1.0f}, {});
}

void LaneWave::do_gradient_step(const Pass& pass, Block dst, Block src, const Rate& rate,
                                Block scratch) {
  if (rate.vector != nullptr) return Wave::do_gradient_step(pass, dst, src, rate, scratch);
  const Place place = values_of(pass);
  loss_and_delta(place, pass.scale, nullptr, true, false);
  backward(place, at(pass.weights), nullptr, true,
           {at(dst), at(src), -static_cast<float>(rate.value)}, {});
}

void LaneWave::do_hessian_step(const Pass& pass, Block dst, Block v, const Rate& rate, Block grad,
                               Block scratch) {
  if (rate.vector != nullptr) return Wave::do_hessian_step(pass, dst, v, rate, grad, scratch);
  tangent_pass(pass, at(v), {at(grad), nullptr, 1.0f},
               {at(dst), at(v), -static_cast<float>(rate.value)});
}

void LaneWave::do_value(const Pass& pass, Block loss, Block outputs,
                        NormStatistics /*statistics*/) {
  take_input(pass);
  const Place place = own_place(pass_rows(pass.set));
  forward(place, at(pass.weights), nullptr, true);
  if (loss) loss_and_delta(place, pass.scale, at(loss), false, false);
  if (!outputs) return;
  put_outputs(pass.set, steps_.back().y[place.store].data(), outputs);
}

void LaneWave::do_split_gradient(const SplitPass& pass, Block g_mean, Block g_spread,
                                 bool accumulate, Block loss) {
  const LaneSplit::Rows rows = split_rows(pass);
  split_->gradient(rows, {at(pass.mean), at(pass.spread)}, {at(g_mean), at(g_spread)}, accumulate,
                   at(loss));
}

void LaneWave::do_split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread,
                                       Block h_mean, Block h_spread) {
  const LaneSplit::Rows rows = split_rows(pass);
  split_->hessian_vector(rows, {at(pass.mean), at(pass.spread)}, {at(u_mean), at(u_spread)},
                         {at(h_mean), at(h_spread)});
}

void LaneWave::do_split_value(const SplitPass& pass, Block loss, Block outputs,
                              NormStatistics /*statistics*/) {
  const LaneSplit::Rows rows = split_rows(pass);
  const float* z = split_->forward(rows, {at(pass.mean), at(pass.spread)}, nullptr);
  if (loss) {
    LaneLoss g = rows.loss;
    g.z = z;
    g.loss = at(loss);
    kernels_.lane_loss(g);
  }
  if (outputs) put_outputs(pass.set, z, outputs);
}

void LaneWave::sum_tasks(std::span<const Block> blocks, Block loss, float* out, double* losses,
                         char* diverged) {
  float keep[max_lanes];
  for (int lane = 0; lane < lanes_; ++lane) keep[lane] = lane < count_ ? 1.0f : 0.0f;
  for (const Block b : blocks) {
    if (storage(b).layout != Layout::tasks) {
      kernels_.lane_finite(at(b), storage(b).width, keep);
      continue;
    }
    for (int lane = 0; lane < count_; ++lane) {
      const float* run = task_run(b, lane);
      const auto finite = [](float x) { return std::isfinite(x); };
      if (!std::all_of(run, run + storage(b).width, finite)) keep[lane] = 0.0f;
    }
  }
  kernels_.lane_finite(at(loss), 1, keep);
  bool all = true;
  for (int lane = 0; lane < lanes_; ++lane) {
    all = all && keep[lane] != 0.0f;
    if (lane >= count_) continue;
    diverged[lane] = keep[lane] == 0.0f;
    losses[lane] = diverged[lane] ? 0.0 : static_cast<double>(at(loss)[lane]);
  }
  for (const Block b : blocks) {
    const std::size_t width = storage(b).width;
    if (storage(b).layout == Layout::tasks) {
      sum_runs(b, keep, out);
      out += width;
      continue;
    }
    if (!all) kernels_.lane_mask(at(b), keep, width);
    kernels_.lane_tree_sum(out, at(b), width);
    out += width;
  }
}

void LaneWave::do_load(const TaskBatch& batch, int first, int count, std::uint32_t global_first) {
  count_ = count;
  global_first_ = global_first;
  batch_first_ = first;
  support_n_.assign(static_cast<std::size_t>(lanes_), 0);
  query_n_.assign(static_cast<std::size_t>(lanes_), 0);
  for (int lane = 0; lane < lanes_; ++lane) {
    const auto task = static_cast<std::size_t>(first + std::min(lane, count - 1));
    support_n_[static_cast<std::size_t>(lane)] = batch.support_n[task];
    query_n_[static_cast<std::size_t>(lane)] = batch.query_n[task];
  }
  const int s = batch.shape().support;
  const int q = batch.shape().query;
  load_rows(batch, true, s, data_[0], 0);
  load_rows(batch, false, q, data_[1], 0);
  if (shape_.with_all) {
    // Each task's query rows follow its own support rows.
    load_rows(batch, true, s, data_[2], 0);
    load_rows(batch, false, q, data_[2], 1);
  }
  joined_ = false;
  std::fill_n(kept_, places, -1);
}

LaneWave::Strides LaneWave::strides(Block block, int task) const {
  const auto t = static_cast<std::size_t>(task);
  if (storage(block).layout == Layout::tasks) return {t * storage(block).width, 1};
  return {t, static_cast<std::size_t>(lanes_)};
}

void LaneWave::sum_runs(Block block, const float* keep, float* out) {
  const std::size_t width = storage(block).width;
  for (int lane = 0; lane < lanes_; ++lane) {
    if (keep[lane] == 0.0f) std::fill_n(task_run(block, lane), width, 0.0f);
  }
  for (int apart = 1; apart < lanes_; apart *= 2) {
    for (int lane = 0; lane < count_; lane += 2 * apart) {
      float* left = task_run(block, lane);
      const float* right = task_run(block, lane + apart);
      for (std::size_t e = 0; e < width; ++e) left[e] += right[e];
    }
  }
  std::copy_n(task_run(block, 0), width, out);
}

bool LaneWave::gates(std::size_t i) const {
  const auto& layers = network_->layers();
  return (layers[i].type == LayerType::relu || layers[i].type == LayerType::leaky_relu) && i > 0 &&
         layers[i - 1].type == LayerType::linear && i + 1 < layers.size() &&
         layers[i + 1].type == LayerType::linear;
}

int LaneWave::rows_in(PassRows set) const {
  return set == PassRows::support ? shape_.support
         : set == PassRows::query ? shape_.query
                                  : shape_.support + shape_.query;
}

void LaneWave::allocate_rows(PassRows set) {
  const int n = rows_in(set);
  for (Step& step : steps_) {
    step.y[static_cast<int>(set)] = AlignedFloats(size(step.out, n));
    step.delta[static_cast<int>(set)] = AlignedFloats(size(step.out, n));
  }
  Data& data = data_[static_cast<int>(set)];
  data.x = AlignedFloats(size(network_->input().size(), n));
  data.target = AlignedFloats(size(targets(), n));
  data.valid = AlignedFloats(size(1, n));
}

void LaneWave::clear(Data& data) {
  for (AlignedFloats* a : {&data.x, &data.target, &data.valid}) {
    std::fill_n(a->data(), a->size(), 0.0f);
  }
}

void LaneWave::load_rows(const TaskBatch& batch, bool support, int batch_rows, Data& data,
                         int offset) {
  if (offset == 0) clear(data);
  const auto& x = support ? batch.support_x : batch.query_x;
  const auto& x64 = support ? batch.support_x64 : batch.query_x64;
  const auto& value = support ? batch.support_value : batch.query_value;
  const auto& value64 = support ? batch.support_value64 : batch.query_value64;
  const auto& label = support ? batch.support_label : batch.query_label;
  const int inputs = network_->input().size();
  const auto n = data.valid.size() / static_cast<std::size_t>(lanes_);
  const auto lanes = static_cast<std::size_t>(lanes_);
  for (int lane = 0; lane < lanes_; ++lane) {
    const std::size_t task = task_of(lane);
    const auto at = static_cast<std::size_t>(lane);
    const int valid = support ? support_n_[at] : query_n_[at];
    const int start = offset == 0 ? 0 : support_n_[at];
    for (int row = 0; row < valid; ++row) {
      const std::size_t r = static_cast<std::size_t>(start + row);
      const std::size_t from =
          task * static_cast<std::size_t>(batch_rows) + static_cast<std::size_t>(row);
      for (int i = 0; i < inputs; ++i) {
        const std::size_t e = from * static_cast<std::size_t>(inputs) + static_cast<std::size_t>(i);
        data.x.data()[(static_cast<std::size_t>(i) * n + r) * lanes + at] =
            batch.is_double() ? static_cast<float>(x64[e]) : x[e];
      }
      for (int o = 0; o < targets(); ++o) {
        float target = 0.0f;
        if (loss_.kind == LossKind::cross_entropy) {
          target = label[from] == o ? 1.0f : 0.0f;
        } else {
          const std::size_t e =
              from * static_cast<std::size_t>(targets()) + static_cast<std::size_t>(o);
          target = batch.is_double() ? static_cast<float>(value64[e]) : value[e];
        }
        data.target.data()[(static_cast<std::size_t>(o) * n + r) * lanes + at] = target;
      }
      data.valid.data()[r * lanes + at] = 1.0f;
    }
  }
}

LaneSplit::Rows LaneWave::split_rows(const SplitPass& pass) {
  if (!split_) {
    const int most = std::max(shape_.support, shape_.query);
    split_ = std::make_unique<LaneSplit>(kernels_, *network_,
                                         shape_.with_all ? shape_.support + shape_.query : most);
  }
  LaneSplit::Rows r;
  r.set = pass.set;
  r.rows = rows(pass.set);
  r.x = data_[static_cast<int>(pass.set)].x.data();
  r.loss = loss_args(pass_rows(pass.set), pass.scale);
  r.support = shape_.support;
  r.query = shape_.query;
  std::copy(support_n_.begin(), support_n_.end(), r.support_n.begin());
  std::copy(query_n_.begin(), query_n_.end(), r.query_n.begin());
  split_->take_noise(pass.estimator, *pass.noise, *this, r);
  return r;
}

std::unique_ptr<Wave> make_lane_wave(const Kernels& kernels, std::shared_ptr<const Network> network,
                                     const Loss& loss, const WaveShape& shape) {
  return std::make_unique<LaneWave>(kernels, std::move(network), loss, shape);
}

}  // namespace kshot::backend::cpu
