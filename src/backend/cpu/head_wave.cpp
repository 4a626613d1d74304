#include "backend/cpu/head_wave.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "backend/cpu/head_generator.h"

namespace kshot::backend::cpu {
bool HeadWave::supports(const Network& network, const Loss& loss, const WaveShape& shape) {
  const Layer& layer = network.layers().front();
  return shape.generated && loss.kind == LossKind::cross_entropy && network.layers().size() == 1 &&
         layer.type == LayerType::linear && layer.bias < 0 && !layer.in.spatial;
}

HeadWave::HeadWave(const Kernels& kernels, std::shared_ptr<const Network> network, const Loss& loss,
                   const WaveShape& shape)
    : CpuWave(kernels, std::move(network), loss, shape), products_(kernels) {
  features_ = network_->input().size();
  stride_ = padded(features_);
  rows_ = shape.support + shape.query;
  dropped_ = AlignedFloats(product(rows_, stride_));
  for (int s = 0; s < 3; ++s) {
    if (s == 2 && !shape.with_all) continue;
    target_[s] = AlignedFloats(product(tasks * classes(), row_stride(static_cast<Set>(s))));
  }
  const std::size_t logits = product(classes(), padded(rows_));
  for (AlignedFloats* a : {&z_, &z_dot_, &delta_, &delta_dot_}) *a = AlignedFloats(logits);
  weight_ = AlignedFloats(static_cast<std::size_t>(padded(rows_)));
  rates_ = AlignedFloats(product(classes(), stride_));
}

Block HeadWave::make_block(std::size_t width) {
  // Noise is drawn in runs of 64.
  return store((width + 63) / 64 * 64 * tasks, width, false);
}
Block HeadWave::make_weights() {
  return store(product(tasks * classes(), stride_), network_->size(), true);
}

Block HeadWave::shared_gradient(std::size_t width, SharedGradient& gradient) {
  if (source_ != nullptr) throw std::logic_error("a wave has one shared gradient");
  source_ = &gradient;
  shared_gradient_ = note(store(0, width, false), width, false);
  return shared_gradient_;
}

const float* HeadWave::features_of(Set set, int task) const {
  return rows_of_set_[task][set == Set::query];
}

/// Copies the rows of features where they are not floats, are not whole vectors, or must lie with
/// one set behind the other.
void HeadWave::copy_rows(const TaskBatch& batch) {
  if (x_.size() == 0) x_ = AlignedFloats(product(tasks * rows_, stride_));
  const auto inputs = static_cast<std::size_t>(features_);
  for (int t = 0; t < count_; ++t) {
    float* to = x_.data() + product(t * rows_, stride_);
    const auto take = [&](const auto& x, const auto& x64, Set set, int most) {
      rows_of_set_[t][set == Set::query] = to;
      std::size_t from = product(batch_first_ + t, most) * inputs;
      for (int r = 0; r < task_rows(set, t); ++r, from += inputs, to += stride_) {
        for (std::size_t i = 0; i < inputs; ++i) {
          to[i] = batch.is_double() ? static_cast<float>(x64[from + i]) : x[from + i];
        }
      }
    };
    take(batch.support_x, batch.support_x64, Set::support, batch.shape().support);
    take(batch.query_x, batch.query_x64, Set::query, batch.shape().query);
  }
}

void HeadWave::do_load(const TaskBatch& batch, int first, int count, std::uint32_t global_first) {
  count_ = count;
  global_first_ = global_first;
  batch_first_ = first;
  ++loads_;
  support_n_.clear();
  query_n_.clear();
  const bool copied = batch.is_double() || stride_ != features_ || target_[2].size() > 0;
  for (int t = 0; t < tasks; ++t) {
    const auto task = static_cast<std::size_t>(first + std::min(t, count - 1));
    support_n_.push_back(batch.support_n[task]);
    query_n_.push_back(batch.query_n[task]);
    if (t >= count) continue;
    for (AlignedFloats& target : target_) {
      const auto set = static_cast<std::size_t>(target.size()) / tasks;
      std::fill_n(target.data() + static_cast<std::size_t>(t) * set, set, 0.0f);
    }
    const auto take = [&](const auto& x, const auto& label, Set set, int most) {
      const std::size_t from = task * static_cast<std::size_t>(most);
      const int row_first = set == Set::support ? 0 : task_rows(Set::support, t);
      if (!copied) {
        rows_of_set_[t][set == Set::query] = x.data() + from * static_cast<std::size_t>(features_);
      }
      for (int r = 0; r < task_rows(set, t); ++r) {
        const int c = t * classes() + static_cast<int>(label[from + static_cast<std::size_t>(r)]);
        target_[static_cast<int>(set)]
            .data()[product(c, row_stride(set)) + static_cast<std::size_t>(r)] = 1.0f;
        if (target_[2].size() > 0) {
          target_[2]
              .data()[product(c, row_stride(Set::all)) + static_cast<std::size_t>(row_first + r)] =
              1.0f;
        }
      }
    };
    take(batch.support_x, batch.support_label, Set::support, batch.shape().support);
    take(batch.query_x, batch.query_label, Set::query, batch.shape().query);
  }
  if (copied) copy_rows(batch);
}

void HeadWave::do_fill(Block dst, double value) {
  if (dst.id != shared_gradient_.id) return CpuWave::do_fill(dst, value);
  if (value != 0.0) throw std::logic_error("a shared gradient is filled with zero alone");
  source_->clear();
}

void HeadWave::do_multiply_fold(Block y, double a, Block x1, Block x2) {
  if (x1.id != shared_gradient_.id && x2.id != shared_gradient_.id) {
    return CpuWave::do_multiply_fold(y, a, x1, x2);
  }
  std::vector<float> left(storage(x1).width), right(left.size());
  const auto factor = static_cast<float>(a);
  const std::size_t width = storage(y).width;
  for (int t = 0; t < count_; ++t) {
    read(x1, t, left.data());
    read(x2, t, right.data());
    float* to = task_vector(y, t);
    for (std::size_t e = 0; e < left.size(); ++e) to[e % width] += factor * left[e] * right[e];
  }
}

void HeadWave::pad_rows(const float* flat, float* to) const {
  for (int c = 0; c < classes(); ++c) {
    std::copy_n(flat + product(c, features_), features_, to + product(c, stride_));
  }
}

void HeadWave::do_broadcast(Block dst, const SharedVector& src) {
  for (int t = 0; t < tasks; ++t) write(dst, t, host<float>(src).data());
}

void HeadWave::read(Block src, int task, float* to) const {
  if (src.id == shared_gradient_.id) return source_->sum(std::array{task}, to);
  const float* from = task_vector(src, task);
  if (!storage(src).weights) {
    std::copy_n(from, storage(src).width, to);
    return;
  }
  for (int c = 0; c < classes(); ++c) {
    std::copy_n(from + product(c, stride_), features_, to + product(c, features_));
  }
}

void HeadWave::write(Block dst, int task, const float* from) {
  float* to = task_vector(dst, task);
  if (storage(dst).weights) {
    pad_rows(from, to);
  } else {
    std::copy_n(from, storage(dst).width, to);
  }
}

void HeadWave::read_support(int task, int row, float* x, float* target) const {
  std::copy_n(features_of(Set::support, task) + product(row, stride_), features_, x);
  for (int c = 0; c < classes(); ++c) {
    target[c] = target_[0].data()[product(task * classes() + c, row_stride(Set::support)) +
                                  static_cast<std::size_t>(row)];
  }
}

void HeadWave::put_targets(Set set, Block dst) {
  for (int t = 0; t < count_; ++t) {
    float* to = task_vector(dst, t);
    for (int r = 0; r < rows(set); ++r) {
      for (int c = 0; c < classes(); ++c) {
        *to++ =
            target_[static_cast<int>(set)]
                .data()[product(t * classes() + c, row_stride(set)) + static_cast<std::size_t>(r)];
      }
    }
  }
}

void HeadWave::do_normal(Block dst, const RandomKey& key) {
  for (int t = 0; t < count_; ++t) {
    kernels_.noise_single(noise_key(key, global_first_ + static_cast<std::uint32_t>(t)),
                          task_vector(dst, t), storage(dst).width);
  }
}

// ---- network ----

void HeadWave::drop(const Dropout& dropout, int task, int rows, const float* x, float* to) {
  const auto inputs = static_cast<std::size_t>(features_);
  factors_.resize(static_cast<std::size_t>(rows) * inputs);
  dropout_factors(dropout, global_first_ + static_cast<std::uint32_t>(task), factors_);
  for (int r = 0; r < rows; ++r) {
    const float* factor = factors_.data() + static_cast<std::size_t>(r) * inputs;
    for (std::size_t i = 0; i < inputs; ++i) {
      to[product(r, stride_) + i] = x[product(r, stride_) + i] * factor[i];
    }
  }
}

const float* HeadWave::pass_rows(const Pass& pass, int task) {
  const float* x = features_of(pass.set, task);
  if (!pass.dropout) return x;
  drop(pass.dropout, task, task_rows(pass.set, task), x, dropped_.data());
  return dropped_.data();
}

void HeadWave::logits(const float* w, int task, Set set, const float* x, float* z) {
  Dots d;
  d.m = task_rows(set, task);
  d.n = classes();
  d.k = stride_;
  d.a = x;
  d.a_row = stride_;
  d.b = w;
  d.b_row = stride_;
  d.c = z;
  d.c_row = 1;
  d.c_col = row_stride(set);
  kernels_.dots(d);
}

void HeadWave::logits_loss(const Pass& pass, int task, float* z, float* z_dot, float* delta,
                           float* delta_dot, float* loss) {
  const int stride = row_stride(pass.set);
  const int valid = task_rows(pass.set, task);
  std::fill_n(weight_.data(), valid, factor(pass.scale, task));
  std::fill_n(weight_.data() + valid, stride - valid, 0.0f);
  for (int c = 0; c < classes(); ++c) {
    const std::size_t pads = product(c, stride) + static_cast<std::size_t>(valid);
    std::fill_n(z + pads, stride - valid, 0.0f);
    if (z_dot != nullptr) std::fill_n(z_dot + pads, stride - valid, 0.0f);
  }
  float sums[max_lanes] = {};
  LaneLoss g{};
  g.type = LossType::cross_entropy;
  g.outputs = classes();
  g.rows = stride / kernels_.lanes;
  g.z = z;
  g.target = target_[static_cast<int>(pass.set)].data() + product(task * classes(), stride);
  g.weight = weight_.data();
  g.loss = loss != nullptr ? sums : nullptr;
  g.delta = delta;
  g.z_dot = z_dot;
  g.delta_dot = delta_dot;
  kernels_.lane_loss(g);
  if (loss == nullptr) return;
  double total = 0.0;
  for (int i = 0; i < kernels_.lanes; ++i) total += static_cast<double>(sums[i]);
  *loss += static_cast<float>(total);
}

void HeadWave::weight_gradient(const Pass& pass, int task, const float* delta, const float* x,
                               Block to, bool accumulate) {
  products_.multiply(classes(), stride_, task_rows(pass.set, task), delta,
                     static_cast<std::size_t>(row_stride(pass.set)), 1, x,
                     static_cast<std::size_t>(stride_), task_vector(to, task),
                     static_cast<std::size_t>(stride_), accumulate);
}

void HeadWave::do_gradient(const Pass& pass, Block grad, bool accumulate, Block loss) {
  for (int t = 0; t < count_; ++t) {
    const float* x = pass_rows(pass, t);
    logits(task_vector(pass.weights, t), t, pass.set, x, z_.data());
    logits_loss(pass, t, z_.data(), nullptr, delta_.data(), nullptr,
                loss ? task_vector(loss, t) : nullptr);
    weight_gradient(pass, t, delta_.data(), x, grad, accumulate);
  }
}

void HeadWave::do_output_pullback(const Pass& pass, Block g_outputs, Block grad, bool accumulate) {
  for (int t = 0; t < count_; ++t) {
    const float* g = task_vector(g_outputs, t);
    for (int r = 0; r < task_rows(pass.set, t); ++r) {
      for (int c = 0; c < classes(); ++c) {
        delta_.data()[product(c, row_stride(pass.set)) + static_cast<std::size_t>(r)] = *g++;
      }
    }
    weight_gradient(pass, t, delta_.data(), pass_rows(pass, t), grad, accumulate);
  }
}

void HeadWave::do_hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                                 Block grad) {
  for (int t = 0; t < count_; ++t) {
    const float* x = pass_rows(pass, t);
    logits(task_vector(pass.weights, t), t, pass.set, x, z_.data());
    logits(task_vector(direction, t), t, pass.set, x, z_dot_.data());
    logits_loss(pass, t, z_.data(), z_dot_.data(), delta_.data(), delta_dot_.data(), nullptr);
    weight_gradient(pass, t, delta_dot_.data(), x, hv, accumulate);
    if (grad) weight_gradient(pass, t, delta_.data(), x, grad, false);
  }
}

void HeadWave::do_value(const Pass& pass, Block loss, Block outputs,
                        NormStatistics /*statistics*/) {
  const int most = rows(pass.set);
  for (int t = 0; t < count_; ++t) {
    logits(task_vector(pass.weights, t), t, pass.set, pass_rows(pass, t), z_.data());
    if (loss) {
      logits_loss(pass, t, z_.data(), nullptr, nullptr, nullptr, task_vector(loss, t));
    }
    if (!outputs) continue;
    float* to = task_vector(outputs, t);
    for (int r = 0; r < most; ++r) {
      for (int c = 0; c < classes(); ++c) {
        *to++ = r < task_rows(pass.set, t)
                    ? z_.data()[product(c, row_stride(pass.set)) + static_cast<std::size_t>(r)]
                    : 0.0f;
      }
    }
  }
}

// ---- the reduction ----

void HeadWave::sum_tasks(std::span<const Block> blocks, Block loss, float* out, double* losses,
                         char* diverged) {
  std::vector<float> flat;
  std::size_t width = 0;
  for (const Block b : blocks) width += storage(b).width;
  for (int t = 0; t < count_; ++t) diverged[t] = !std::isfinite(*task_vector(loss, t));
  const auto sum = [&] {
    std::vector<int> valid;
    for (int t = 0; t < count_; ++t) {
      if (!diverged[t]) valid.push_back(t);
    }
    float* to = out;
    for (const Block b : blocks) {
      const std::size_t n = storage(b).width;
      if (b.id == shared_gradient_.id) {
        source_->sum(valid, to);
      } else {
        std::fill_n(to, n, 0.0f);
        flat.resize(n);
        for (const int t : valid) {
          read(b, t, flat.data());
          for (std::size_t i = 0; i < n; ++i) to[i] += flat[i];
        }
      }
      to += n;
    }
  };
  sum();
  // Where the sum is finite, all its terms are finite.
  if (!all_finite(out, width)) {
    for (int t = 0; t < count_; ++t) {
      for (const Block b : blocks) {
        flat.resize(storage(b).width);
        read(b, t, flat.data());
        diverged[t] = diverged[t] || !all_finite(flat.data(), flat.size());
      }
    }
    sum();
  }
  for (int t = 0; t < count_; ++t) {
    losses[t] = diverged[t] ? 0.0 : static_cast<double>(*task_vector(loss, t));
  }
}

std::unique_ptr<Generator> HeadWave::generator(const GeneratorSpec& spec) {
  if (HeadGenerator::supports(spec)) return std::make_unique<HeadGenerator>(*this, spec);
  return CpuWave::generator(spec);
}

void HeadWave::pattern(const Scale& scale, std::size_t run, float* out) const {
  std::fill_n(out, kernels_.lanes, factor(scale, static_cast<int>(run)));
}

void HeadWave::draw_weights(Block phi, Block eps, Block mu, Block sigma, const RandomKey& key) {
  std::vector<float> flat((network_->size() + 63) / 64 * 64);
  for (int t = 0; t < count_; ++t) {
    kernels_.noise_single(noise_key(key, global_first_ + static_cast<std::uint32_t>(t)),
                          flat.data(), network_->size());
    write(eps, t, flat.data());
  }
  kernels_.reparameterise(at(phi), at(mu), at(sigma), at(eps), block_vectors(phi));
}

const float* HeadWave::shared_rates(const SharedVector& rates, bool& splat) {
  splat = false;
  const auto& vector = host<float>(rates);
  if (rates_of_ != &rates || rates_version_ != vector.version()) {
    pad_rows(vector.data(), rates_.data());
    rates_of_ = &rates;
    rates_version_ = vector.version();
  }
  return rates_.data();
}

void HeadWave::add_value(float* value, const float* sums) {
  for (int i = 0; i < kernels_.lanes; ++i) value[0] += sums[i];
}

}  // namespace kshot::backend::cpu
