#include "backend/reference/reference_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "backend/dense_kernels_impl.h"
#include "backend/host.h"
#include "backend/host_linear_algebra.h"
#include "backend/reference/generator.h"
#include "backend/reference/reference_wave.h"
#include "kshot/error.h"

namespace kshot::backend {

using reference::DataSet;
using reference::Dual;

// ---- generated weights ----

/// reference::GeneratorMath on the blocks of a wave.
class ReferenceGenerator final : public Generator {
 public:
  ReferenceGenerator(ReferenceWave& wave, const GeneratorSpec& spec)
      : Generator(wave, spec), wave_(wave), spec_(spec), math_(spec_, wave.network_outputs_) {}

 protected:
  void do_encode(const SharedVector& theta, const Dropout& dropout, Block statistics) override {
    at(statistics) = math_.encode(weights(theta), rows(dropout));
  }
  void do_encode_pullback(const SharedVector& theta, const Dropout& dropout, Block g_statistics,
                          Block g_theta) override {
    math_.encode_pullback(weights(theta), rows(dropout), at(g_statistics), at(g_theta));
  }

  void do_sample(Block z, Block statistics, Block eps) override {
    at(z) = math_.sample(at(statistics), noise(eps));
  }
  void do_sample_pullback(Block g_statistics, Block statistics, Block eps, Block g_z) override {
    math_.sample_pullback(at(statistics), noise(eps), at(g_z), at(g_statistics));
  }
  void do_kl(Kl kind, double weight, Block statistics, Block z, Block eps, Block value,
             Block g_statistics) override {
    at(value)[0] += kind == Kl::sampled
                        ? math_.sampled_kl(weight, at(statistics), at(z), at(eps), at(g_statistics))
                        : math_.analytic_kl(weight, at(statistics), at(g_statistics));
  }

  void do_decode(const SharedVector& theta, const Latents& l, Block to) override {
    at(to) = math_.decode<double>(weights(theta), at(l.z), noise(l.eps));
  }
  void do_decode_pullback(const SharedVector& theta, const Latents& l, Block g_weights, Block g_z,
                          Block g_theta) override {
    const auto g =
        math_.decode_pullback<double>(weights(theta), at(l.z), noise(l.eps), at(g_weights));
    if (g_z) at(g_z) = g.z;
    if (!g_theta) return;
    for (std::size_t i = 0; i < g.decoder.size(); ++i) {
      at(g_theta)[spec_.decoder_begin() + i] += g.decoder[i];
    }
  }
  void do_decode_tangent(const SharedVector& theta, const Latents& l, Block z_dot,
                         Block weights_dot) override {
    const auto w =
        math_.decode<Dual>(constants(weights(theta)), dual(at(l.z), at(z_dot)), noise(l.eps));
    for (std::size_t i = 0; i < w.size(); ++i) at(weights_dot)[i] = w[i].tangent;
  }
  void do_decode_pullback_tangent(const SharedVector& theta, const Latents& l, Block z_dot,
                                  Block g_weights, Block g_weights_dot, Block h_z, double a,
                                  Block h_theta) override {
    const auto g =
        math_.decode_pullback<Dual>(constants(weights(theta)), dual(at(l.z), at(z_dot)),
                                    noise(l.eps), dual(at(g_weights), at(g_weights_dot)));
    for (std::size_t i = 0; i < g.z.size(); ++i) {
      at(h_z)[i] = g.z[i].tangent;
    }
    for (std::size_t i = 0; i < g.decoder.size(); ++i) {
      at(h_theta)[spec_.decoder_begin() + i] += a * g.decoder[i].tangent;
    }
  }

 private:
  using Values = std::vector<double>;

  Values& at(Block block) { return wave_.at(block); }
  const Values* noise(Block eps) { return eps ? &at(eps) : nullptr; }
  static const double* weights(const SharedVector& theta) { return host<double>(theta).data(); }
  /// The weights of the shared networks as dual numbers without tangents.
  const Dual* constants(const double* theta) {
    constants_.assign(theta, theta + spec_.size());
    return constants_.data();
  }
  static std::vector<Dual> dual(const Values& value, const Values& tangent) {
    std::vector<Dual> result(value.size());
    for (std::size_t i = 0; i < value.size(); ++i) result[i] = {value[i], tangent[i]};
    return result;
  }
  DataSet rows(const Dropout& dropout) {
    DataSet set = wave_.support_;
    wave_.drop(dropout, set.x);
    return set;
  }

  ReferenceWave& wave_;
  GeneratorSpec spec_;
  reference::GeneratorMath math_;
  std::vector<Dual> constants_;
};

std::unique_ptr<Generator> ReferenceWave::generator(const GeneratorSpec& spec) {
  return std::make_unique<ReferenceGenerator>(*this, spec);
}

// ---- small matrices ----

class ReferenceLinearAlgebra final : public HostLinearAlgebra<double> {
 public:
  explicit ReferenceLinearAlgebra(ReferenceWave& wave)
      : HostLinearAlgebra(wave, Precision::f64, Dense<double, 1, ReferenceLinearAlgebra>::table()),
        wave_(wave) {}

 protected:
  double* run_data(Block block, int /*run*/) override { return wave_.at(block).data(); }
  DenseCounts counts(int /*run*/) const override {
    DenseCounts c;
    c.support[0] = static_cast<int>(wave_.support_.rows);
    c.query[0] = static_cast<int>(wave_.query_.rows);
    c.ways[0] = wave_.task_ways(0);
    c.support_rows = wave_.rows(Set::support);
    return c;
  }
  void do_targets(const Matrix& dst, Set set) override {
    const DataSet& data = wave_.data(set);
    std::vector<double>& to = wave_.at(dst.block);
    std::ranges::fill(to, 0.0);
    std::ranges::copy(data.values, to.begin());
    for (std::size_t row = 0; row < data.labels.size(); ++row) {
      to[row * static_cast<std::size_t>(dst.columns) + static_cast<std::size_t>(data.labels[row])] =
          1.0;
    }
  }

 private:
  ReferenceWave& wave_;
};

std::unique_ptr<LinearAlgebra> ReferenceWave::linear_algebra() {
  return std::make_unique<ReferenceLinearAlgebra>(*this);
}

namespace {

class ReferenceBackend final : public HostBackend<double> {
 public:
  explicit ReferenceBackend(int threads) : threads_(threads) {}
  std::string name() const override { return "reference"; }
  std::string description() const override {
    return fmt::format("double, one task a wave, plain loops, {} thread{}", threads_,
                       threads_ == 1 ? "" : "s");
  }
  Precision precision() const override { return Precision::f64; }
  int concurrency() const override { return threads_; }
  std::unique_ptr<Wave> open(std::shared_ptr<const Network> network, const Loss& loss,
                             const WaveShape& shape) override {
    return std::make_unique<ReferenceWave>(std::move(network), loss, shape);
  }

 private:
  int threads_;
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend(int threads) {
  const int all = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return std::make_unique<ReferenceBackend>(threads > 0 ? threads : all);
}

}  // namespace kshot::backend
