#include "backend/cpu/feature_wave.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace kshot::backend::cpu {
namespace {

/// Largest system for which the tasks' systems are solved side by side in the lanes of a vector.
/// Larger systems are solved one by one, with the vector along their rows.
constexpr int lane_system = 64;

}  // namespace

bool FeatureWave::supports(const Network& network, const WaveShape& shape) {
  return shape.targets > 0 && !shape.with_all && network.is_plain_mlp() &&
         std::ranges::any_of(network.layers(),
                             [](const Layer& l) { return l.type == LayerType::linear; });
}

FeatureWave::FeatureWave(const Kernels& kernels, std::shared_ptr<const Network> network,
                         const Loss& loss, const WaveShape& shape)
    : CpuWave(kernels, std::move(network), loss, shape),
      in_lanes_(std::min(shape.support, network_outputs_) <= lane_system),
      products_(kernels),
      values_(network_->size()) {
  for (const Set set : {Set::support, Set::query}) {
    const int most = capacity() * rows(set);
    auto& here = rows_[set == Set::query];
    here = std::make_unique<Rows>(products_, network_, most);
    here->g = AlignedFloats(product(most, here->network.out_stride()));
    here->target.resize(product(most, targets()));
  }
  rows_of(Set::query).network.share_weights(rows_of(Set::support).network);
}

Block FeatureWave::make_block(std::size_t width) {
  // A task's noise is drawn in runs of 64.
  const std::size_t own = in_lanes_ ? width : (width + 63) / 64 * 64;
  return store(own * count_of(capacity()), width, false);
}

FeatureWave::Strides FeatureWave::strides(Block block, int task) const {
  const std::size_t t = count_of(task);
  if (in_lanes_) return {t, count_of(capacity())};
  return {t * run_floats(block), 1};
}

void FeatureWave::require_weights(Block block) const {
  if (std::ranges::find(value_blocks_, block.id) != value_blocks_.end()) return;
  throw std::logic_error("a shared network's weights are those that were broadcast last");
}

void FeatureWave::require_gradient(Block block) const {
  if (gradient_ && block.id == gradient_.id) return;
  throw std::logic_error("a shared network's gradient is that of the last passes");
}

// ---- rows ----

void FeatureWave::do_load(const TaskBatch& batch, int first, int count,
                          std::uint32_t global_first) {
  count_ = count;
  global_first_ = global_first;
  batch_first_ = first;
  gradient_ = {};
  kept_.clear();
  support_n_.clear();
  query_n_.clear();
  for (int t = 0; t < capacity(); ++t) {
    // Lanes without a task repeat the last one.
    const std::size_t task = count_of(first + std::min(t, count - 1));
    support_n_.push_back(batch.support_n[task]);
    query_n_.push_back(batch.query_n[task]);
  }
  load_rows(batch, Set::support);
  load_rows(batch, Set::query);
}

void FeatureWave::load_rows(const TaskBatch& batch, Set set) {
  const bool support = set == Set::support;
  const auto& x = support ? batch.support_x : batch.query_x;
  const auto& x64 = support ? batch.support_x64 : batch.query_x64;
  const auto& value = support ? batch.support_value : batch.query_value;
  const auto& value64 = support ? batch.support_value64 : batch.query_value64;
  const auto& label = support ? batch.support_label : batch.query_label;
  const std::size_t most = count_of(support ? batch.shape().support : batch.shape().query);
  const std::size_t inputs = count_of(network_->input().size());
  const std::size_t outputs = count_of(targets());
  Rows& here = rows_of(set);
  here.forwarded = here.pulled = false;
  here.first.assign(1, 0);
  for (int t = 0; t < count_; ++t) here.first.push_back(here.first.back() + task_rows(set, t));
  const std::size_t rows = count_of(here.first.back());
  const std::size_t stride = count_of(here.network.in_stride());
  // Where all tasks have all their rows in unpadded floats, the batch already has this layout.
  const bool copied = batch.is_double() || stride != inputs || rows != most * count_of(count_);
  if (!copied) {
    here.x = x.data() + count_of(batch_first_) * most * inputs;
  } else {
    if (here.copies.size() == 0) {
      here.copies = AlignedFloats(count_of(capacity() * this->rows(set)) * stride);
    }
    here.x = here.copies.data();
  }
  for (int t = 0; t < count_; ++t) {
    const std::size_t task = count_of(batch_first_ + t);
    for (int r = 0; r < task_rows(set, t); ++r) {
      const std::size_t from = task * most + count_of(r);
      const std::size_t at = count_of(here.first[count_of(t)] + r);
      if (copied && batch.is_double()) {
        std::transform(x64.begin() + static_cast<std::ptrdiff_t>(from * inputs),
                       x64.begin() + static_cast<std::ptrdiff_t>((from + 1) * inputs),
                       here.copies.data() + at * stride,
                       [](double v) { return static_cast<float>(v); });
      } else if (copied) {
        std::copy_n(x.data() + from * inputs, inputs, here.copies.data() + at * stride);
      }
      for (std::size_t o = 0; o < outputs; ++o) {
        here.target[at * outputs + o] = labelled() ? (count_of(label[from]) == o ? 1.0f : 0.0f)
                                        : batch.is_double()
                                            ? static_cast<float>(value64[from * outputs + o])
                                            : value[from * outputs + o];
      }
    }
  }
}

void FeatureWave::read_support(int task, int row, float* x, float* target) const {
  const Rows& here = rows_of(Set::support);
  const int at = here.first[count_of(task)] + row;
  std::copy_n(here.x + product(at, here.network.in_stride()), network_->input().size(), x);
  std::copy_n(here.target.data() + product(at, targets()), targets(), target);
}

void FeatureWave::put_targets(Set set, Block dst) {
  const Rows& here = rows_of(set);
  to_block(here, here.target.data(), count_of(targets()), count_of(targets()), rows(set), dst);
}

void FeatureWave::to_block(const Rows& rows, const float* from, std::size_t stride,
                           std::size_t width, int most, Block dst) {
  const std::size_t lanes = count_of(capacity());
  if (in_lanes_ && same_rows(rows) && rows.first[1] == most) {
    for (int r = 0; r < most; ++r) {
      kernels_.transpose(at(dst) + count_of(r) * width * lanes, static_cast<std::ptrdiff_t>(lanes),
                         from + count_of(r) * stride,
                         static_cast<std::ptrdiff_t>(count_of(most) * stride), capacity(),
                         static_cast<int>(width));
    }
    return;
  }
  for (int task = 0; task < capacity(); ++task) {
    const std::size_t t = count_of(std::min(task, count_ - 1));
    const int own = rows.first[t + 1] - rows.first[t];
    const float* row = from + count_of(rows.first[t]) * stride;
    const Strides s = strides(dst, task);
    float* out = at(dst) + s.first;
    for (int r = 0; r < most; ++r, row += stride) {
      for (std::size_t e = 0; e < width; ++e, out += s.step) *out = r < own ? row[e] : 0.0f;
    }
  }
}

bool FeatureWave::same_rows(const Rows& rows) const {
  if (count_ < capacity()) return false;
  for (std::size_t t = 1; t < rows.first.size(); ++t) {
    if (rows.first[t] - rows.first[t - 1] != rows.first[1]) return false;
  }
  return true;
}

void FeatureWave::from_block(const Rows& rows, Block src, std::size_t width, float* to,
                             std::size_t stride) const {
  const std::size_t lanes = count_of(capacity());
  if (in_lanes_ && same_rows(rows)) {
    const int whole = rows.first[1];
    for (int r = 0; r < whole; ++r) {
      kernels_.transpose(to + count_of(r) * stride,
                         static_cast<std::ptrdiff_t>(count_of(whole) * stride),
                         at(src) + count_of(r) * width * lanes, static_cast<std::ptrdiff_t>(lanes),
                         static_cast<int>(width), capacity());
    }
    return;
  }
  for (int task = 0; task < count_; ++task) {
    const std::size_t t = count_of(task);
    const Strides s = strides(src, task);
    const float* in = at(src) + s.first;
    for (int r = rows.first[t]; r < rows.first[t + 1]; ++r) {
      float* row = to + count_of(r) * stride;
      for (std::size_t e = 0; e < width; ++e, in += s.step) row[e] = *in;
    }
  }
}

// ---- blocks ----

void FeatureWave::do_fill(Block dst, double value) {
  if (!storage(dst).weights) return CpuWave::do_fill(dst, value);
  if (value != 0.0) throw std::logic_error("a shared network's gradient is filled with zero alone");
  gradient_ = dst;
  std::erase(value_blocks_, dst.id);
  kept_.clear();
  for (const auto& here : rows_) here->pulled = false;
}

void FeatureWave::do_broadcast(Block dst, const SharedVector& src) {
  const auto& vector = host<float>(src);
  if (!storage(dst).weights) {
    if (in_lanes_) return kernels_.broadcast(at(dst), vector.data(), src.size());
    for (int t = 0; t < capacity(); ++t) write(dst, t, vector.data());
    return;
  }
  if (values_of_ != &src || values_version_ != vector.version()) {
    keep_gradient();
    values_of_ = &src;
    values_version_ = vector.version();
    std::copy_n(vector.data(), values_.size(), values_.data());
    rows_of(Set::support).network.pack(values_.data());
    value_blocks_.clear();
    for (const auto& here : rows_) here->forwarded = false;
  }
  if (dst.id == gradient_.id) gradient_ = {};
  if (std::ranges::find(value_blocks_, dst.id) == value_blocks_.end()) {
    value_blocks_.push_back(dst.id);
  }
}

void FeatureWave::read(Block src, int task, float* to) const {
  if (!storage(src).weights) {
    const Strides s = strides(src, task);
    const float* from = at(src) + s.first;
    for (std::size_t e = 0; e < storage(src).width; ++e) to[e] = from[e * s.step];
    return;
  }
  if (gradient_ && src.id == gradient_.id) {
    std::fill_n(to, values_.size(), 0.0f);
    return add_gradient(task, task + 1, to);
  }
  require_weights(src);
  std::ranges::copy(values_, to);
}

void FeatureWave::write(Block dst, int task, const float* from) {
  if (storage(dst).weights) throw std::logic_error("a shared network's weights are broadcast");
  const Strides s = strides(dst, task);
  float* to = at(dst) + s.first;
  for (std::size_t e = 0; e < storage(dst).width; ++e) to[e * s.step] = from[e];
}

// ---- network ----

const float* FeatureWave::drop(Rows& rows, const Dropout& dropout) {
  if (rows.dropped.size() == 0)
    rows.dropped = AlignedFloats(rows.g.size() / count_of(rows.network.out_stride()) *
                                 count_of(rows.network.in_stride()));
  const std::size_t inputs = count_of(network_->input().size());
  const std::size_t stride = count_of(rows.network.in_stride());
  std::vector<float> factors;
  for (std::size_t t = 0; t < count_of(count_); ++t) {
    factors.resize(count_of(rows.first[t + 1] - rows.first[t]) * inputs);
    dropout_factors(dropout, global_first_ + static_cast<std::uint32_t>(t), factors);
    const float* factor = factors.data();
    for (int r = rows.first[t]; r < rows.first[t + 1]; ++r) {
      const float* from = rows.x + count_of(r) * stride;
      float* to = rows.dropped.data() + count_of(r) * stride;
      for (std::size_t i = 0; i < inputs; ++i) to[i] = from[i] * *factor++;
    }
  }
  return rows.dropped.data();
}

void FeatureWave::forward(Rows& rows, const Pass& pass) {
  require_weights(pass.weights);
  DropoutMask mask;
  if (const Dropout& d = pass.dropout) mask = {d.rate, d.key.key(), d.key.counter(0)};
  if (rows.forwarded && rows.mask == mask) return;
  if (rows.pulled) keep_gradient();
  const float* x = pass.dropout ? drop(rows, pass.dropout) : rows.x;
  rows.network.forward(x, rows.first.back());
  rows.forwarded = true;
  rows.mask = mask;
}

void FeatureWave::do_value(const Pass& pass, Block loss, Block outputs,
                           NormStatistics /*statistics*/) {
  if (loss) throw std::logic_error("a network of features has no loss");
  Rows& here = rows_of(pass.set);
  forward(here, pass);
  if (!outputs) return;
  to_block(here, here.network.outputs(), count_of(here.network.out_stride()),
           count_of(network_outputs_), rows(pass.set), outputs);
}

void FeatureWave::do_output_pullback(const Pass& pass, Block g_outputs, Block grad,
                                     bool accumulate) {
  if (!accumulate) fill(grad, 0.0);
  Rows& here = rows_of(pass.set);
  forward(here, pass);
  require_gradient(grad);
  if (here.pulled) throw std::logic_error("a set's outputs are pulled back once into a gradient");
  from_block(here, g_outputs, count_of(network_outputs_), here.g.data(),
             count_of(here.network.out_stride()));
  here.network.backward(here.g.data(), false);
  here.pulled = true;
}

void FeatureWave::do_gradient(const Pass& /*pass*/, Block /*grad*/, bool /*accumulate*/,
                              Block /*loss*/) {
  throw std::logic_error("a network of features has no loss");
}
void FeatureWave::do_hessian_vector(const Pass& /*pass*/, Block /*direction*/, Block /*hv*/,
                                    bool /*accumulate*/, Block /*grad*/) {
  throw std::logic_error("a network of features has no loss");
}

// ---- the reduction ----

void FeatureWave::keep_gradient() {
  if (!rows_[0]->pulled && !rows_[1]->pulled) return;
  const std::size_t size = values_.size();
  std::vector<float> kept(count_of(count_) * size);
  for (int t = 0; t < count_; ++t) add_gradient(t, t + 1, kept.data() + count_of(t) * size);
  kept_ = std::move(kept);
  for (const auto& here : rows_) here->pulled = false;
}

void FeatureWave::add_gradient(int first, int last, float* flat) const {
  for (int t = first; t < last && !kept_.empty(); ++t) {
    const float* own = kept_.data() + count_of(t) * values_.size();
    for (std::size_t e = 0; e < values_.size(); ++e) flat[e] += own[e];
  }
  for (const auto& here : rows_) {
    if (!here->pulled) continue;
    const int from = here->first[count_of(first)];
    here->network.add_gradient(flat, from, here->first[count_of(last)] - from);
  }
}

void FeatureWave::sum_valid(std::span<const Block> blocks, const char* diverged, float* out) const {
  for (const Block b : blocks) {
    const std::size_t width = storage(b).width;
    std::fill_n(out, width, 0.0f);
    if (storage(b).weights) {
      require_gradient(b);
      // Neighbouring tasks that did not diverge take one product together.
      for (int t = 0; t < count_;) {
        int last = t;
        while (last < count_ && !diverged[last]) ++last;
        if (last > t) add_gradient(t, last, out);
        t = last + 1;
      }
    } else {
      for (int t = 0; t < count_; ++t) {
        if (diverged[t]) continue;
        const Strides s = strides(b, t);
        const float* from = at(b) + s.first;
        for (std::size_t e = 0; e < width; ++e) out[e] += from[e * s.step];
      }
    }
    out += width;
  }
}

void FeatureWave::sum_tasks(std::span<const Block> blocks, Block loss, float* out, double* losses,
                            char* diverged) {
  const auto loss_of = [&](int t) { return at(loss)[strides(loss, t).first]; };
  for (int t = 0; t < count_; ++t) diverged[t] = !std::isfinite(loss_of(t));
  sum_valid(blocks, diverged, out);
  std::size_t width = 0;
  for (const Block b : blocks) width += storage(b).width;
  // Where the sum is finite, all its terms are finite.
  if (!all_finite(out, width)) {
    std::vector<float> flat;
    for (int t = 0; t < count_; ++t) {
      for (const Block b : blocks) {
        flat.resize(storage(b).width);
        read(b, t, flat.data());
        diverged[t] = diverged[t] || !all_finite(flat.data(), flat.size());
      }
    }
    sum_valid(blocks, diverged, out);
  }
  for (int t = 0; t < count_; ++t) {
    losses[t] = diverged[t] ? 0.0 : static_cast<double>(loss_of(t));
  }
}

void FeatureWave::pattern(const Scale& scale, std::size_t run, float* out) const {
  for (int lane = 0; lane < capacity(); ++lane) {
    out[lane] = factor(scale, in_lanes_ ? lane : static_cast<int>(run));
  }
}
void FeatureWave::draw_weights(Block /*phi*/, Block /*eps*/, Block /*mu*/, Block /*sigma*/,
                               const RandomKey& /*key*/) {
  throw std::logic_error("a shared network's weights are not drawn");
}
const float* FeatureWave::shared_rates(const SharedVector& /*rates*/, bool& /*splat*/) {
  throw std::logic_error("a shared network's weights take no inner steps");
}
void FeatureWave::add_value(float* value, const float* sums) {
  for (int lane = 0; lane < capacity(); ++lane) value[in_lanes_ ? lane : 0] += sums[lane];
}

}  // namespace kshot::backend::cpu
