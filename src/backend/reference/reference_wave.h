// A wave of the reference backend: one task, double, plain loops that follow the formulas.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "backend/host.h"
#include "backend/reference/layers.h"
#include "backend/reference/split_layers.h"

namespace kshot::backend {

class ReferenceGenerator;
class ReferenceLinearAlgebra;

class ReferenceWave final : public HostWave<double> {
 public:
  ReferenceWave(std::shared_ptr<const Network> network, const Loss& loss, const WaveShape& shape)
      : HostWave(std::move(network), loss, shape) {}

  int capacity() const override { return 1; }
  int rows(Set set) const override { return shape_.rows(set); }

  std::unique_ptr<Generator> generator(const GeneratorSpec& spec) override;
  std::unique_ptr<LinearAlgebra> linear_algebra() override;

  void sum_tasks(std::span<const Block> blocks, Block loss, double* out, double* losses,
                 char* diverged) override;

 protected:
  Block make_weights() override { return make_block(network_->size()); }
  Block make_block(std::size_t width) override {
    blocks_.emplace_back(width, 0.0);
    return {static_cast<int>(blocks_.size()) - 1};
  }

  void do_broadcast(Block dst, const SharedVector& src) override {
    Values& d = at(dst);
    std::copy_n(host<double>(src).data(), d.size(), d.begin());
  }
  void do_fill(Block dst, double value) override { std::ranges::fill(at(dst), value); }
  void do_copy(Block dst, Block src) override { at(dst) = at(src); }
  void do_axpy(Block y, double a, Block x) override;
  void do_multiply_add(Block y, double a, Block x1, Block x2) override;
  void do_multiply_fold(Block y, double a, Block x1, Block x2) override;
  void do_exponential(Block dst, Block src) override;
  void do_normal(Block dst, const RandomKey& key) override;
  void do_mean_square(Block value, double weight, Block a, Block b, Block g_b) override;
  void do_rate_multiply(Block dst, const Rate& rate, Block x) override;
  void do_rate_step(Block dst, Block src, const Rate& rate, Block grad) override;
  void do_row_count(Block dst, Set set) override {
    const std::size_t support = set == Set::query ? 0 : support_.rows;
    const std::size_t query = set == Set::support ? 0 : query_.rows;
    at(dst)[0] = static_cast<double>(support + query);
  }
  void do_apply(Block dst, Function f, Block src) override;
  void do_scale_by(Block y, Block scalar) override {
    const double a = at(scalar)[0];
    for (double& value : at(y)) value *= a;
  }
  void do_adam_step(const AdamBlocks& blocks, const AdamRule& rule) override;
  void do_upload(Block dst, const double* host, std::size_t stride) override {
    Values& d = at(dst);
    std::copy_n(host + first_ * stride, d.size(), d.begin());
  }

  void do_sample(Block phi, Block eps, Block mu, Block sigma, const RandomKey* key) override;
  void do_sample_pullback(Block g_mu, Block g_s, double a, Block g, Block eps,
                          Block sigma) override;
  void do_sample_direction(Block u, Block v_mu, Block v_s, Block eps, Block sigma) override;
  void do_kl(const KlTerms& terms, Block value, Block g_mu, Block g_s, Block gp_mu,
             Block gp_s) override;
  void do_kl_hvp(const KlTerms& terms, Block v_mu, Block v_s, Block r_mu, Block r_s, Block rp_mu,
                 Block rp_s) override;

  void do_gradient(const Pass& pass, Block grad, bool accumulate, Block loss) override;
  void do_output_pullback(const Pass& pass, Block g_outputs, Block grad, bool accumulate) override;
  void do_hessian_vector(const Pass& pass, Block direction, Block hv, bool accumulate,
                         Block grad) override;
  void do_value(const Pass& pass, Block loss, Block outputs, NormStatistics statistics) override;
  void do_split_gradient(const SplitPass& pass, Block g_mean, Block g_spread, bool accumulate,
                         Block loss) override;
  void do_split_hessian_vector(const SplitPass& pass, Block u_mean, Block u_spread, Block h_mean,
                               Block h_spread) override;
  void do_split_value(const SplitPass& pass, Block loss, Block outputs,
                      NormStatistics statistics) override;
  void do_download(Block src, std::span<double> values) const override {
    std::ranges::copy(at(src), values.begin());
  }
  void do_load(const TaskBatch& batch, int first, int count, std::uint32_t global_first) override;

 private:
  friend class ReferenceGenerator;
  friend class ReferenceLinearAlgebra;
  using Values = std::vector<double>;

  Values& at(Block block) { return blocks_.at(static_cast<std::size_t>(block.id)); }
  const Values& at(Block block) const { return blocks_.at(static_cast<std::size_t>(block.id)); }
  const reference::DataSet& data(Set set) const {
    if (set == Set::all && !shape_.with_all) throw std::logic_error("wave opened without Set::all");
    return set == Set::support ? support_ : set == Set::query ? query_ : all_;
  }
  /// The rows of a pass, with dropout applied.
  const reference::DataSet& data(const Pass& pass) {
    if (!pass.dropout) return data(pass.set);
    dropped_ = data(pass.set);
    drop(pass.dropout, dropped_.x);
    return dropped_;
  }
  void drop(const Dropout& dropout, Values& x) const {
    if (!dropout) return;
    RandomKey key = dropout.key;
    key.task = global_first_;
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = uniform_element(key, i) < dropout.rate ? 0.0 : x[i] / (1.0 - dropout.rate);
    }
  }
  int targets() const { return shape_.targets > 0 ? shape_.targets : network_->outputs(); }
  double factor(const Scale& scale) const;
  std::vector<reference::LayerNoise> row_noise(const SplitPass& pass, Set set) const;
  void put_value(const Pass& pass, const Values& out, Block loss, Block outputs);
  double rate_at(const Rate& rate, std::size_t i) const {
    if (!rate.vector) return rate.value;
    return host<double>(*rate.vector).data()[i % rate.vector->size()];
  }

  std::vector<Values> blocks_;
  reference::DataSet support_, query_, all_, dropped_;
  std::size_t first_ = 0;  ///< index of the task in the batch
};

}  // namespace kshot::backend
