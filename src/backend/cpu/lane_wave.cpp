// Plain multi-layer perceptrons, W tasks in the lanes of a vector. Every number is a vector of W,
// so a transpose is a change of strides, tasks of different size are a mask in the loss, and all of
// forward, backward and their tangents are one small matrix product (lane_gemm).
//
// Activations are [feature][row][W], weights [out][in][W] in the flat order.
#include <algorithm>
#include <cmath>
#include <utility>

#include "backend/cpu/cpu_wave.h"
#include "backend/cpu/lane_split.h"

namespace kshot::backend::cpu {
namespace {

/// The rows of one pass: those of a Set, or `joint`, the rows of the support set, padding and all,
/// then those of the query set. Where no layer mixes rows, one pass over both sets does the work of
/// two with half the traffic of weights.
enum class PassRows { support, query, all, joint };
PassRows rows_of(Set set) {
  return set == Set::support ? PassRows::support
         : set == Set::query ? PassRows::query
                             : PassRows::all;
}

/// Activations of the last inner steps are kept for the adjoint, up to this size a wave: about what
/// reading them back costs less than computing them again, next to the iterates in the cache.
constexpr std::size_t kept_activation_bytes = std::size_t{768} << 10;
constexpr int most_slots = 16;
constexpr int places = 4 + most_slots;

class LaneWave final : public CpuWave {
 public:
  /// The estimator `weight` by passes of its own, the others as they are composed.
  class Sampled final : public GaussianPasses {
   public:
    explicit Sampled(LaneWave& wave) : GaussianPasses(wave), lanes_(wave) {}
    void gradient(const GaussianPass& pass, double a, Block g_mu, Block g_s, Block loss) override {
      if (pass.estimator != Estimator::weight) {
        return GaussianPasses::gradient(pass, a, g_mu, g_s, loss);
      }
      lanes_.sampled_gradient(pass, a, g_mu, g_s, loss);
    }
    void hessian_vector(const GaussianPass& pass, double a, Block v_mu, Block v_s, Block r_mu,
                        Block r_s) override {
      if (pass.estimator != Estimator::weight) {
        return GaussianPasses::hessian_vector(pass, a, v_mu, v_s, r_mu, r_s);
      }
      lanes_.sampled_hessian_vector(pass, a, v_mu, v_s, r_mu, r_s);
    }

   private:
    LaneWave& lanes_;
  };

  LaneWave(const Kernels& kernels, std::shared_ptr<const Network> network, const Loss& loss,
           const WaveShape& shape)
      : CpuWave(kernels, std::move(network), loss, shape), lanes_(kernels.lanes) {
    int widest_rows = std::max(shape.support, shape.query);
    if (shape.with_all) widest_rows = shape.support + shape.query;
    for (std::size_t i = 0; i < network_->layers().size(); ++i) {
      const Layer& layer = network_->layers()[i];
      if (layer.type == LayerType::flatten) continue;  // vectors are flat already
      if (gates(i)) {
        steps_.back().gated = true;
        steps_.back().slope =
            layer.type == LayerType::relu ? 0.0f : static_cast<float>(leaky_slope);
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
        step.activation = layer.type == LayerType::relu   ? Activation::relu
                          : layer.type == LayerType::tanh ? Activation::tanh
                                                          : Activation::leaky_relu;
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
    make_room(PassRows::support);
    make_room(PassRows::query);
    if (shape.with_all) make_room(PassRows::all);
    weight_ = AlignedFloats(size(1, shape.support + shape.query));
  }

  int capacity() const override { return lanes_; }
  Block block(std::size_t width) override {
    // the linear algebra of a head wants its matrices in lanes
    if (width >= wide && shape_.targets == 0) return store_by_task(width);
    return store(width * static_cast<std::size_t>(lanes_), width, false);
  }
  Block weights() override {
    return store(network_->size() * static_cast<std::size_t>(lanes_), network_->size(), true);
  }

  void broadcast(Block dst, const SharedVector& src) override {
    kernels_.broadcast(at(dst), host<float>(src).data(), src.size());
  }
  void read(Block src, int task, float* to) const override {
    const Strides s = strides(src, task);
    const float* from = at(src) + s.first;
    for (std::size_t e = 0; e < storage(src).width; ++e) to[e] = from[e * s.step];
  }
  void write(Block dst, int task, const float* from) override {
    const Strides s = strides(dst, task);
    float* to = at(dst) + s.first;
    for (std::size_t e = 0; e < storage(dst).width; ++e) to[e * s.step] = from[e];
  }
  void read_support(int task, int row, float* x, float* target) const override {
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

  void put_targets(Set set, Block dst) override {
    put_rows(set, targets(), data_[static_cast<int>(set)].target.data(), dst);
  }

  void gradient(const Pass& pass, Block grad, bool accumulate, Block loss) override {
    const Place place = values_of(pass);
    loss_and_delta(place, pass.scale, at(loss), true, false);
    backward(place, at(pass.weights), nullptr, true,
             {at(grad), accumulate ? at(grad) : nullptr, 1.0f}, {});
  }
  void output_pullback(const Pass& pass, Block g_outputs, Block grad, bool accumulate) override {
    const Place place = values_of(pass);
    take_outputs(pass.set, g_outputs, steps_.back().delta[place.store].data());
    backward(place, at(pass.weights), nullptr, true,
             {at(grad), accumulate ? at(grad) : nullptr, 1.0f}, {});
  }

  void gradient_step(const Pass& pass, Block dst, Block src, const Rate& rate,
                     Block scratch) override {
    if (rate.vector != nullptr) return Wave::gradient_step(pass, dst, src, rate, scratch);
    const Place place = values_of(pass);
    loss_and_delta(place, pass.scale, nullptr, true, false);
    backward(place, at(pass.weights), nullptr, true,
             {at(dst), at(src), -static_cast<float>(rate.value)}, {});
  }

  void hessian_step(const Pass& pass, Block dst, Block v, const Rate& rate, Block grad,
                    Block scratch) override {
    if (rate.vector != nullptr) return Wave::hessian_step(pass, dst, v, rate, grad, scratch);
    tangent_pass(pass, at(v), {at(grad), nullptr, 1.0f},
                 {at(dst), at(v), -static_cast<float>(rate.value)});
  }

  void hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                      Block grad) override {
    tangent_pass(pass, at(direction), {at(grad), nullptr, 1.0f},
                 {at(hv), accumulate ? at(hv) : nullptr, 1.0f});
  }

  // The weight estimator keeps sigma eps of a draw rather than eps: that is all its sample, its
  // direction and its pull-back need, and the pull-back is applied where the products that make
  // the weight gradient write.
  void sampled_gradient(const GaussianPass& pass, double a, Block g_mu, Block g_s, Block loss) {
    const float* const shift = draw_shift(pass, {}, {});
    const Target target{at(g_mu), at(g_mu), static_cast<float>(a), at(g_s), shift};
    // with the support set, the other set is the query
    const Place place = own_place(pass.and_support ? PassRows::joint : rows_of(pass.set));
    if (pass.and_support) join_sets();
    input_ = data_[place.store].x.data();
    forward(place, phi_.data(), nullptr, true);
    loss_and_delta(place, pass.scale, at(loss), true, false);
    backward(place, phi_.data(), nullptr, true, target, {});
  }

  void sampled_hessian_vector(const GaussianPass& pass, double a, Block v_mu, Block v_s, Block r_mu,
                              Block r_s) {
    const float* const shift = draw_shift(pass, v_mu, v_s);
    take_input({pass.set, {}, {}});
    const Place place = own_place(rows_of(pass.set));
    forward(place, phi_.data(), u_.data(), true);
    loss_and_delta(place, pass.scale, nullptr, true, true);
    backward(place, phi_.data(), u_.data(), true, {},
             {at(r_mu), at(r_mu), static_cast<float>(a), at(r_s), shift});
  }

  void value(const Pass& pass, Block loss, Block outputs, NormStatistics /*statistics*/) override {
    take_input(pass);
    const Place place = own_place(rows_of(pass.set));
    forward(place, at(pass.weights), nullptr, true);
    if (loss) loss_and_delta(place, pass.scale, at(loss), false, false);
    if (!outputs) return;
    put_outputs(pass.set, steps_.back().y[place.store].data(), outputs);
  }

  void split_gradient(const SplitPass& pass, Block g_mean, Block g_spread, bool accumulate,
                      Block loss) override {
    const LaneSplit::Rows rows = split_rows(pass);
    split_->gradient(rows, {at(pass.mean), at(pass.spread)}, {at(g_mean), at(g_spread)}, accumulate,
                     at(loss));
  }
  void split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread, Block h_mean,
                            Block h_spread) override {
    const LaneSplit::Rows rows = split_rows(pass);
    split_->hessian_vector(rows, {at(pass.mean), at(pass.spread)}, {at(u_mean), at(u_spread)},
                           {at(h_mean), at(h_spread)});
  }
  void split_value(const SplitPass& pass, Block loss, Block outputs,
                   NormStatistics /*statistics*/) override {
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

  void sum_tasks(std::span<const Block> blocks, Block loss, float* out, double* losses,
                 char* diverged) override {
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

 protected:
  std::unique_ptr<GaussianPasses> make_gaussian_passes() override {
    return std::make_unique<Sampled>(*this);
  }
  void do_load(const TaskBatch& batch, int first, int count, std::uint32_t global_first) override {
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
      // each task's query rows follow its own support rows
      load_rows(batch, true, s, data_[2], 0);
      load_rows(batch, false, q, data_[2], 1);
    }
    joined_ = false;
    std::fill_n(kept_, places, -1);
  }
  void pattern(const Scale& scale, std::size_t /*run*/, float* out) const override {
    for (int lane = 0; lane < lanes_; ++lane) out[lane] = factor(scale, lane);
  }
  void draw_weights(Block phi, Block eps, Block mu, Block sigma, const RandomKey& key) override {
    kernels_.noise_lanes(noise_key(key, global_first_), at(eps), nullptr, at(phi), at(mu),
                         at(sigma), storage(eps).width);
  }
  const float* shared_rates(const SharedVector& rates, bool& splat) override {
    splat = true;
    return host<float>(rates).data();
  }
  void add_value(float* value, const float* sums) override {
    for (int lane = 0; lane < lanes_; ++lane) value[lane] += sums[lane];
  }

 private:
  struct Step {
    bool is_activation = false;
    Activation activation = Activation::relu;
    bool gated = false;  ///< a linear layer with the piecewise linear activation that follows it
    float slope = 0.0f;  ///< of that activation, where its argument is negative
    int in = 0, out = 0;
    std::size_t weight = 0, bias = 0;
    bool has_bias = false;
    // Of the last pass on each set; delta is the loss's derivative by y.
    AlignedFloats y[places], delta[places];
    AlignedFloats y_dot;
  };
  struct Data {
    AlignedFloats x;       ///< [inputs][rows][W]
    AlignedFloats target;  ///< [outputs][rows][W]
    AlignedFloats valid;   ///< [rows][W], 1 or 0
  };

  /// Where a task's element e lies: first + e * step.
  struct Strides {
    std::size_t first, step;
  };
  Strides strides(Block block, int task) const {
    const auto t = static_cast<std::size_t>(task);
    if (storage(block).layout == Layout::tasks) return {t * storage(block).width, 1};
    return {t, static_cast<std::size_t>(lanes_)};
  }

  /// The tree of lane_tree_sum over runs; those that are not kept count as zero.
  void sum_runs(Block block, const float* keep, float* out) {
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

  std::size_t size(int features, int n) const {
    return static_cast<std::size_t>(features) * static_cast<std::size_t>(n) *
           static_cast<std::size_t>(lanes_);
  }
  /// The batch's task in a lane; lanes beyond the last task repeat it.
  std::size_t task_of(int lane) const {
    return static_cast<std::size_t>(batch_first_ + std::min(lane, count_ - 1));
  }

  /// True where layer i is a piecewise linear activation between two linear layers: the products
  /// around it apply it and its derivative to what they write.
  bool gates(std::size_t i) const {
    const auto& layers = network_->layers();
    return (layers[i].type == LayerType::relu || layers[i].type == LayerType::leaky_relu) &&
           i > 0 && layers[i - 1].type == LayerType::linear && i + 1 < layers.size() &&
           layers[i + 1].type == LayerType::linear;
  }

  /// Rows of a pass in its buffers: the largest number over tasks.
  int rows_in(PassRows set) const {
    return set == PassRows::support ? shape_.support
           : set == PassRows::query ? shape_.query
                                    : shape_.support + shape_.query;
  }

  /// Buffers of a set's rows, without tangents.
  void make_room(PassRows set) {
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

  /// Where a pass's activations lie: a set's own store, or one of those kept for the adjoint.
  struct Place {
    PassRows rows;
    int store;
  };
  static Place own_place(PassRows rows) { return {rows, static_cast<int>(rows)}; }
  Place place_of(const Pass& pass) {
    const PassRows own = rows_of(pass.set);
    if (pass.set != Set::support || pass.activations < 0 || slots_ == 0) return own_place(own);
    const Place place{own, 4 + pass.activations % slots_};
    for (Step& step : steps_) {
      if (step.y[place.store].size() != 0) break;
      step.y[place.store] = AlignedFloats(size(step.out, rows(pass.set)));
      step.delta[place.store] = AlignedFloats(size(step.out, rows(pass.set)));
    }
    return place;
  }
  void keep(const Place& place, int number) { kept_[place.store] = place.store < 4 ? -1 : number; }

  /// Forward pass of a gradient: values at the place where the pass keeps its activations.
  Place values_of(const Pass& pass) {
    take_input(pass);
    const Place place = place_of(pass);
    keep(place, pass.activations);
    forward(place, at(pass.weights), nullptr, true);
    return place;
  }

  void join_sets() {
    if (joined_) return;
    joined_ = true;
    Data& joint = data_[static_cast<int>(PassRows::joint)];
    if (joint.x.size() == 0) make_room(PassRows::joint);
    const auto join = [&](AlignedFloats Data::*part, int features) {
      float* out = (joint.*part).data();
      for (int f = 0; f < features; ++f) {
        for (const Set set : {Set::support, Set::query}) {
          const std::size_t row_floats = size(1, rows(set));
          const float* from = (data_[static_cast<int>(set)].*part).data();
          std::copy_n(from + static_cast<std::size_t>(f) * row_floats, row_floats, out);
          out += row_floats;
        }
      }
    };
    join(&Data::x, network_->input().size());
    join(&Data::target, targets());
    join(&Data::valid, 1);
  }

  static void clear(Data& data) {
    for (AlignedFloats* a : {&data.x, &data.target, &data.valid}) {
      std::fill_n(a->data(), a->size(), 0.0f);
    }
  }

  /// Rows of the support or query set; with `offset` 1 they follow the task's support rows.
  void load_rows(const TaskBatch& batch, bool support, int batch_rows, Data& data, int offset) {
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
          const std::size_t e =
              from * static_cast<std::size_t>(inputs) + static_cast<std::size_t>(i);
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

  /// Where a gradient goes: out = P, or base + scale * P; nowhere without `out`. With `shift` (base
  /// is `out` then) out_s += scale * P * shift as well.
  struct Target {
    float* out = nullptr;
    const float* base = nullptr;
    float scale = 1.0f;
    float* out_s = nullptr;
    const float* shift = nullptr;
  };

  /// Sampled weights into phi_ and, where given, the direction of (v_mu, v_s) into u_; returns
  /// sigma eps, as drawn now or kept from an earlier pass.
  const float* draw_shift(const GaussianPass& pass, Block v_mu, Block v_s) {
    const std::size_t width = network_->size();
    const std::size_t floats = width * static_cast<std::size_t>(lanes_);
    if (phi_.size() == 0) phi_ = AlignedFloats(floats);
    if (v_mu && u_.size() == 0) u_ = AlignedFloats(floats);
    if (!pass.kept && !shift_) shift_ = weights();
    const Block to = pass.kept ? pass.kept : shift_;
    float* const shift = at(to);
    bool sampled = false;
    if (!pass.kept || !pass.drawn) {
      if (pass.noise.weights == nullptr) {
        kernels_.noise_lanes(noise_key(pass.noise.key, global_first_), nullptr, shift, phi_.data(),
                             at(pass.mu), at(pass.sigma), width);
        sampled = true;
      } else {
        upload(to, pass.noise.weights, pass.noise.weights_stride);
        kernels_.multiply(shift, at(pass.sigma), width);
      }
    }
    if (!sampled || v_mu) {
      kernels_.shifted(phi_.data(), v_mu ? u_.data() : nullptr, at(pass.mu), at(v_mu), at(v_s),
                       shift, width);
    }
    return shift;
  }

  void tangent_pass(const Pass& pass, const float* w_dot, const Target& grad, const Target& hv) {
    take_input(pass);
    const Place place = place_of(pass);
    const bool fresh = kept_[place.store] != pass.activations || pass.activations < 0;
    forward(place, at(pass.weights), w_dot, fresh);
    loss_and_delta(place, pass.scale, nullptr, fresh, true);
    backward(place, at(pass.weights), w_dot, fresh, grad, hv);
    keep(place, pass.activations);
  }

  /// The rows that a pass reads: the set's own, or a copy of them under dropout.
  void take_input(const Pass& pass) {
    const AlignedFloats& x = data_[static_cast<int>(pass.set)].x;
    input_ = x.data();
    if (!pass.dropout) return;
    if (dropped_.size() < x.size()) dropped_ = AlignedFloats(x.size());
    const auto inputs = static_cast<std::size_t>(network_->input().size());
    const auto n = static_cast<std::size_t>(rows(pass.set));
    const auto lanes = static_cast<std::size_t>(lanes_);
    std::vector<float> factors(n * inputs);
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      dropout_factors(pass.dropout, global_first_ + static_cast<std::uint32_t>(lane), factors);
      for (std::size_t i = 0; i < inputs; ++i) {
        for (std::size_t r = 0; r < n; ++r) {
          const std::size_t e = (i * n + r) * lanes + lane;
          dropped_.data()[e] = x.data()[e] * factors[r * inputs + i];
        }
      }
    }
    input_ = dropped_.data();
  }

  /// Values (where `fresh`; else those of the last pass serve) and, with w_dot, their tangents.
  void forward(const Place& place, const float* w, const float* w_dot, bool fresh) {
    const auto lanes = static_cast<std::size_t>(lanes_);
    const int n = rows_in(place.rows);
    const float* x = input_;
    const float* x_dot = nullptr;  // the data have no tangent
    for (Step& step : steps_) {
      float* const y = step.y[place.store].data();
      if (step.is_activation) {
        const std::size_t count = size(step.out, n);
        if (fresh) kernels_.act(step.activation, y, x, count);
        if (x_dot != nullptr) {
          kernels_.act_tangent(step.activation, step.y_dot.data(), y, x_dot, count);
        }
      } else {
        LaneGemm g;
        g.m = step.out;
        g.n = n;
        g.k = step.in;
        g.a_row = step.in;
        g.a_col = 1;
        g.b[0] = x;
        g.b_row = n;
        g.b_col = 1;
        g.c_row = n;
        g.c_col = 1;
        g.slope = step.slope;
        if (fresh) {
          g.a[0] = w + step.weight * lanes;
          g.c = y;
          g.bias = step.has_bias ? w + step.bias * lanes : nullptr;
          g.rectify = step.gated;
          kernels_.lane_gemm(g);
        }
        if (w_dot != nullptr) {
          g.rectify = false;
          g.gate = step.gated ? y : nullptr;
          g.a[0] = w_dot + step.weight * lanes;
          g.bias = step.has_bias ? w_dot + step.bias * lanes : nullptr;
          g.c = step.y_dot.data();
          if (x_dot != nullptr) {
            g.products = 2;
            g.a[1] = w + step.weight * lanes;
            g.b[1] = x_dot;
          }
          kernels_.lane_gemm(g);
        }
      }
      x = y;
      if (w_dot != nullptr) x_dot = step.y_dot.data();
    }
  }

  /// Calls visit(task's lane, element of [columns][rows][W], index in [rows, columns], valid) for
  /// every element of a set; `valid` is false in rows beyond the task's own.
  template <typename F>
  void visit_rows(Set set, int columns, const F& visit) const {
    const int n = rows(set);
    for (int r = 0; r < n; ++r) {
      for (int o = 0; o < columns; ++o) {
        for (int lane = 0; lane < lanes_; ++lane) {
          visit(lane,
                static_cast<std::size_t>(o * n + r) * static_cast<std::size_t>(lanes_) +
                    static_cast<std::size_t>(lane),
                static_cast<std::size_t>(r * columns + o), r < task_rows(set, lane));
        }
      }
    }
  }
  /// Outputs [outputs][rows][W] to a block [rows, outputs], zero beyond the task's rows.
  void put_outputs(Set set, const float* z, Block to) { put_rows(set, network_outputs_, z, to); }
  void put_rows(Set set, int columns, const float* z, Block to) {
    float* const out = at(to);
    Strides s[max_lanes];
    for (int lane = 0; lane < lanes_; ++lane) s[lane] = strides(to, lane);
    visit_rows(set, columns, [&](int lane, std::size_t from, std::size_t e, bool valid) {
      out[s[lane].first + e * s[lane].step] = valid ? z[from] : 0.0f;
    });
  }
  /// The other way, for the gradient of a loss in the outputs.
  void take_outputs(Set set, Block from, float* delta) const {
    const float* const in = at(from);
    Strides s[max_lanes];
    for (int lane = 0; lane < lanes_; ++lane) s[lane] = strides(from, lane);
    visit_rows(set, network_outputs_, [&](int lane, std::size_t to, std::size_t e, bool valid) {
      delta[to] = valid ? in[s[lane].first + e * s[lane].step] : 0.0f;
    });
  }

  /// The rows of a split pass, and their noise.
  LaneSplit::Rows split_rows(const SplitPass& pass) {
    if (!split_) {
      const int most = std::max(shape_.support, shape_.query);
      split_ = std::make_unique<LaneSplit>(kernels_, *network_,
                                           shape_.with_all ? shape_.support + shape_.query : most);
    }
    LaneSplit::Rows r;
    r.set = pass.set;
    r.rows = rows(pass.set);
    r.x = data_[static_cast<int>(pass.set)].x.data();
    r.loss = loss_args(rows_of(pass.set), pass.scale);
    r.support = shape_.support;
    r.query = shape_.query;
    std::copy(support_n_.begin(), support_n_.end(), r.support_n.begin());
    std::copy(query_n_.begin(), query_n_.end(), r.query_n.begin());
    for (int lane = 0; lane < lanes_; ++lane) {
      r.task[static_cast<std::size_t>(lane)] = task_of(lane);
    }
    split_->take_noise(pass.estimator, *pass.noise, global_first_, r);
    return r;
  }

  /// Targets and weights of a set's rows.
  LaneLoss loss_args(PassRows set, const Scale& factors) {
    const int s = static_cast<int>(set);
    const int n = rows_in(set);
    float scale[max_lanes];
    pattern(factors, 0, scale);
    const float* valid = data_[s].valid.data();
    for (int r = 0; r < n; ++r) {
      for (int lane = 0; lane < lanes_; ++lane) {
        const std::ptrdiff_t e = static_cast<std::ptrdiff_t>(r) * lanes_ + lane;
        weight_.data()[e] = valid[e] * scale[lane];
      }
    }
    LaneLoss g{};
    g.type = loss_type();
    g.outputs = network_outputs_;
    g.rows = n;
    g.coefficient = loss_coefficient();
    g.constant = loss_constant();
    g.target = data_[s].target.data();
    g.weight = weight_.data();
    return g;
  }

  /// Losses of the last forward pass; delta at the output, and its tangent into delta_dot_[0].
  void loss_and_delta(const Place& place, const Scale& factors, float* loss, bool delta,
                      bool tangent) {
    Step& last = steps_.back();
    LaneLoss g = loss_args(place.rows, factors);
    g.z = last.y[place.store].data();
    g.loss = loss;
    if (delta) g.delta = last.delta[place.store].data();
    if (tangent) {
      g.z_dot = last.y_dot.data();
      g.delta_dot = delta_dot_[0].data();
    }
    kernels_.lane_loss(g);
  }

  /// From delta at the output: the gradient into `grad`, and with w_dot its tangent into `hv`.
  void backward(const Place& place, const float* w, const float* w_dot, bool fresh,
                const Target& grad, const Target& hv) {
    const auto lanes = static_cast<std::size_t>(lanes_);
    const int n = rows_in(place.rows);
    const bool tangent = w_dot != nullptr;
    int now = 0;  // which of delta_dot_ is the current one
    for (std::size_t i = steps_.size(); i-- > 0;) {
      Step& step = steps_[i];
      const bool first = i == 0;
      const float* x = first ? input_ : steps_[i - 1].y[place.store].data();
      const float* x_dot = first ? nullptr : steps_[i - 1].y_dot.data();
      const float* const delta = step.delta[place.store].data();
      float* const delta_in = first ? nullptr : steps_[i - 1].delta[place.store].data();
      float* const delta_dot = delta_dot_[now].data();
      if (step.is_activation) {
        if (first) break;
        const std::size_t count = size(step.out, n);
        if (tangent) {
          kernels_.act_backward_tangent(step.activation, delta_dot, step.y[place.store].data(),
                                        step.y_dot.data(), delta, delta_dot, count);
        }
        if (fresh) {
          kernels_.act_backward(step.activation, delta_in, step.y[place.store].data(), delta,
                                count);
        }
        continue;
      }
      // dW[out][in] = sum_rows delta[out][row] x[in][row]
      LaneGemm g;
      g.m = step.out;
      g.n = step.in;
      g.k = n;
      g.a_row = n;
      g.a_col = 1;
      g.b_row = 1;
      g.b_col = n;
      g.c_row = step.in;
      g.c_col = 1;
      const auto product = [&](const Target& target) {
        const std::size_t weight = step.weight * lanes;
        g.c = target.out + weight;
        g.base = target.base == nullptr ? nullptr : target.base + weight;
        g.scale = target.scale;
        const bool shifted = target.shift != nullptr;
        g.shift = shifted ? target.shift + weight : nullptr;
        g.c_s = shifted ? target.out_s + weight : nullptr;
        g.rows = {};
        if (step.has_bias) {
          const std::size_t bias = step.bias * lanes;
          g.rows.c = target.out + bias;
          g.rows.base = target.base == nullptr ? nullptr : target.base + bias;
          g.rows.shift = shifted ? target.shift + bias : nullptr;
          g.rows.c_s = shifted ? target.out_s + bias : nullptr;
        }
        kernels_.lane_gemm(g);
      };
      g.b[0] = x;
      if (grad.out != nullptr) {
        g.a[0] = delta;
        product(grad);
      }
      if (tangent) {
        g.a[0] = delta_dot;
        if (x_dot != nullptr) {
          g.products = 2;
          g.a[1] = delta;
          g.b[1] = x_dot;
        }
        product(hv);
      }
      if (first) break;
      // dx[in][row] = sum_out W[out][in] delta[out][row]
      LaneGemm back;
      back.m = step.in;
      back.n = n;
      back.k = step.out;
      back.a_row = 1;
      back.a_col = step.in;
      back.b_row = n;
      back.b_col = 1;
      back.c_row = n;
      back.c_col = 1;
      back.a[0] = w + step.weight * lanes;
      if (const Step& below = steps_[i - 1]; below.gated) {
        back.gate = below.y[place.store].data();
        back.slope = below.slope;
      }
      if (fresh) {
        back.b[0] = delta;
        back.c = delta_in;
        kernels_.lane_gemm(back);
      }
      if (tangent) {
        back.b[0] = delta_dot;
        back.products = 2;
        back.a[1] = w_dot + step.weight * lanes;
        back.b[1] = delta;
        back.c = delta_dot_[1 - now].data();
        kernels_.lane_gemm(back);
        now = 1 - now;
      }
    }
  }

  int lanes_;
  std::vector<Step> steps_;
  Data data_[4];
  int slots_ = 0;
  int kept_[places] = {};  ///< the number whose activations a place holds, or -1
  bool joined_ = false;    ///< data_[joint] is of the tasks at hand
  AlignedFloats weight_;
  AlignedFloats delta_dot_[2];
  AlignedFloats phi_, u_;         ///< of Gaussian weights, [D][W]; made when first asked for
  Block shift_;                   ///< sigma eps, where the pass keeps none; likewise
  const float* input_ = nullptr;  ///< of the pass at hand
  AlignedFloats dropped_;
  std::unique_ptr<LaneSplit> split_;  ///< where an estimator asks for it
};

}  // namespace

std::unique_ptr<Wave> make_lane_wave(const Kernels& kernels, std::shared_ptr<const Network> network,
                                     const Loss& loss, const WaveShape& shape) {
  return std::make_unique<LaneWave>(kernels, std::move(network), loss, shape);
}

}  // namespace kshot::backend::cpu
