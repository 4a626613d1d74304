#include "backend/cuda/cuda_generator.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

#include "backend/cuda/cuda_vector.h"
#include "backend/cuda/factored_gradient.h"
#include "backend/cuda/shared_network.h"
#include "kernels/decoder.h"
#include "kernels/latent.h"
#include "kernels/product.h"
#include "kernels/relation.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using backend::Block;
using backend::count_of;
using backend::Dropout;
using backend::SharedVector;

/// A linear layer of the relation network: its sizes and the offsets of its parameters in the
/// shared vector.
struct Linear {
  int in = 0, out = 0;
  std::size_t weight = 0;
  std::optional<std::size_t> bias;

  Linear(const Network& network, std::size_t layer, std::size_t first) {
    const Layer& of = network.layers()[layer];
    const auto offset = [&](int tensor) {
      return first + network.parameters()[count_of(tensor)].offset;
    };
    in = of.in.size();
    out = of.out.size();
    weight = offset(of.weight);
    if (of.bias >= 0) bias = offset(of.bias);
  }
  template <class T>
  T* bias_in(T* theta) const {
    return bias ? theta + *bias : nullptr;
  }
};

/// The relation network. Its first layer splits into one half for each row of a pair,
///   W [e_i; e_j] = W_a e_i + W_b e_j.
/// Its last layer is linear, and comes after all averages.
template <class T>
struct Relation {
  Linear first, middle, last;
  DeviceMemory<T> half[2];  ///< [tasks, rows, first.out]
  DeviceMemory<std::uint32_t> open;
  DeviceMemory<T> row_mean;    ///< mean over partners, [tasks, rows, middle.out]
  DeviceMemory<T> group_mean;  ///< [tasks, groups, middle.out]
  // Buffers of the pull-back.
  DeviceMemory<T> g_half[2], g_row_mean, g_group_mean;

  Relation(const backend::GeneratorSpec& spec, std::size_t tasks, std::size_t rows,
           std::size_t groups)
      : first(checked(*spec.relation), 0, spec.relation_begin()),
        middle(*spec.relation, 2, spec.relation_begin()),
        last(*spec.relation, 4, spec.relation_begin()) {
    for (DeviceMemory<T>& h : half) h = DeviceMemory<T>(tasks * rows * count_of(first.out));
    open = DeviceMemory<std::uint32_t>(tasks * rows * rows * count_of(open_words(middle.out)));
    row_mean = DeviceMemory<T>(tasks * rows * count_of(middle.out));
    group_mean = DeviceMemory<T>(tasks * groups * count_of(middle.out));
  }
  void reserve_pullback() {
    for (int side = 0; side < 2; ++side) g_half[side].reserve(half[side].size());
    g_row_mean.reserve(row_mean.size());
    g_group_mean.reserve(group_mean.size());
  }

 private:
  static const Network& checked(const Network& network) {
    using enum LayerType;
    const LayerType expected[] = {linear, relu, linear, relu, linear};
    const auto type_of = [](const Layer& layer) { return layer.type; };
    if (!std::ranges::equal(network.layers(), expected, {}, type_of)) {
      throw std::logic_error("a relation network has three linear layers, with relu between");
    }
    return network;
  }
};

template <class T>
class CudaGenerator final : public backend::Generator {
 public:
  CudaGenerator(CudaWave<T>& wave, const backend::GeneratorSpec& spec)
      : Generator(wave, spec),
        wave_(wave),
        spec_(spec),
        rows_(wave.rows(backend::Set::support)),
        groups_(spec.by_label ? wave.outputs_of_network() : 1),
        latent_(static_cast<int>(spec.latent())),
        weights_(static_cast<int>(spec.weights())),
        encoder_(spec.encoder, count_of(wave.capacity()) * count_of(rows_)),
        decoder_(spec.decoder, count_of(wave.capacity()) * count_of(groups_ * spec.latents)) {
    const std::size_t tasks = count_of(wave.capacity());
    members_ = DeviceMemory<std::int32_t>(tasks * count_of(groups_));
    if (spec.relation) relation_.emplace(spec_, tasks, count_of(rows_), count_of(groups_));
    const std::vector<T> offset(spec.offset.begin(), spec.offset.end());
    offset_ = DeviceMemory<T>(offset.size());
    wave.stream().to_device(offset_.data(), offset.data(), offset.size());
  }

  void take_memory(const backend::WaveDemand& demand) {
    reserve_encoder_input(demand.encoder_dropout);
    reserve_encoder_pullback();
    if (relation_) relation_->reserve_pullback();
    encoder_.reserve_backward(false);
    decoder_.reserve_backward(demand.decoder_tangents);
    reserve_decoded(g_out_);
    if (demand.decoder_tangents) reserve_decoder_tangents();
    const backend::GeneratorSpec::GradientDemand& terms = spec_.gradient_demand;
    if (terms.width == 0) return;
    FactoredGradient<T>& gradient = wave_.factored(gradients(terms.width));
    if (relation_) gradient.reserve(matrices_.last, 1);
    for (std::size_t m = matrices_.decoder; m < matrices_.end; ++m) {
      gradient.reserve(m, terms.pullbacks + 2 * terms.pullback_tangents);
    }
  }

 protected:
  Block do_gradients(std::size_t width) override {
    gradients_.push_back(wave_.factored_block(make_gradient(width)));
    return gradients_.back();
  }

  void do_encode(const SharedVector& theta, const Dropout& dropout, Block statistics) override {
    for (const Block gradient : gradients_) wave_.factored(gradient).invalidate();
    count_groups();
    const T* const w = wave_.shared(theta);
    const T* const codes = encoder_.forward(w, encoder_input(dropout), all_rows(), stream());
    encoded_ = wave_.loads();
    codes_ = codes;
    T* const to = wave_.at(statistics, statistics_width());
    if (!relation_) {
      group_mean(to, codes, grouping(), 2 * latent_, stream());
      return;
    }
    Relation<T>& r = *relation_;
    for (const std::size_t side : {0u, 1u}) {
      Product<T> p;
      p.m = static_cast<int>(all_rows());
      p.n = r.first.out;
      p.k = latent_;
      p.first = {{codes, count_of(latent_)}, half_weight(w, side, true)};
      p.c = r.half[side].data();
      p.c_row = count_of(p.n);
      p.bias = side == 0 ? r.first.bias_in(w) : nullptr;
      multiply_matrices(p, stream());
    }
    pairs_forward(r.row_mean.data(), pairs(w), stream());
    group_mean(r.group_mean.data(), r.row_mean.data(), grouping(), r.middle.out, stream());
    Product<T> p;
    p.m = wave_.count() * groups_;
    p.n = r.last.out;
    p.k = r.last.in;
    p.first = {{r.group_mean.data(), count_of(p.k)}, {w + r.last.weight, 1, count_of(p.k)}};
    p.c = to;
    p.c_row = count_of(p.n);
    p.bias = r.last.bias_in(w);
    multiply_matrices(p, stream());
  }

  void do_encode_pullback(const SharedVector& theta, const Dropout& /*dropout*/, Block g_statistics,
                          Block g_theta) override {
    if (encoded_ != wave_.loads()) throw std::logic_error("encode_pullback without encode");
    const T* const w = wave_.shared(theta);
    const T* const g = wave_.at(g_statistics, statistics_width());
    FactoredGradient<T>& to = wave_.factored(g_theta);
    reserve_encoder_pullback();
    if (relation_) {
      relation_pullback(w, g, to);
    } else {
      group_mean_pullback(g_codes_.data(), g, grouping(), 2 * latent_, stream());
    }
    encoder_.backward({g_codes_.data(), nullptr}, {}, stream());
    encoder_.add_gradient(to, matrices_.encoder, wave_.count(), wave_.stream());
  }

  void do_sample(Block z, Block statistics, Block eps) override {
    latents<T>(wave_.at(z, latents_width()), wave_.at(statistics, statistics_width()),
               wave_.at_or_null(eps, latents_width()), least(), latent_size(), stream());
  }
  void do_sample_pullback(Block g_statistics, Block statistics, Block eps, Block g_z) override {
    latents_pullback<T>(wave_.at(g_statistics, statistics_width()),
                        wave_.at(statistics, statistics_width()),
                        wave_.at_or_null(eps, latents_width()), wave_.at(g_z, latents_width()),
                        least(), latent_size(), stream());
  }
  void do_kl(Kl kind, double weight, Block statistics, Block z, Block eps, Block value,
             Block g_statistics) override {
    T* const to = wave_.at(value, 1);
    T* const g = wave_.at(g_statistics, statistics_width());
    const T* const from = wave_.at(statistics, statistics_width());
    const T by = static_cast<T>(weight);
    if (kind == Kl::analytic) {
      return analytic_kl<T>(to, g, by, from, least(), latent_size(), stream());
    }
    sampled_kl<T>(to, g, by, from, wave_.at(z, latents_width()), wave_.at(eps, latents_width()),
                  least(), latent_size(), stream());
  }

  void do_decode(const SharedVector& theta, const Latents& latents, Block weights) override {
    decoded_weights(wave_.at(weights, weights_width()), decoded(theta, latents), stream());
  }

  void do_decode_pullback(const SharedVector& theta, const Latents& latents, Block g_weights,
                          Block g_z, Block g_theta) override {
    const Decoded<T> d = decoded(theta, latents);
    const T* const g_w = wave_.at(g_weights, weights_width());
    FactoredGradient<T>* const to = g_theta ? &wave_.factored(g_theta) : nullptr;
    reserve_decoded(g_out_);
    // The gradient is written to its place in the factored gradient, so that it need not be copied.
    T* const g_out = to ? to->place_of_g(last_of_decoder(), 0) : g_out_.data();
    decoded_pullback<T>({g_out, nullptr}, d, nullptr, {g_w, nullptr}, stream());
    decoder_.backward({g_out, nullptr}, {wave_.at_or_null(g_z, latents_width()), nullptr},
                      stream());
    if (to) decoder_.add_gradient_copy(*to, matrices_.decoder, wave_.count(), wave_.stream());
  }

  void do_decode_tangent(const SharedVector& theta, const Latents& latents, Block z_dot,
                         Block weights_dot) override {
    const Decoded<T> d = decoded(theta, latents);
    const T* const out_dot = decoder_.tangent(wave_.at(z_dot, latents_width()), stream());
    decoded_tangent(wave_.at(weights_dot, weights_width()), d, out_dot, stream());
  }

  void do_decode_pullback_tangent(const SharedVector& theta, const Latents& latents, Block z_dot,
                                  Block g_weights, Block g_weights_dot, Block h_z, double a,
                                  Block h_theta) override {
    const Decoded<T> d = decoded(theta, latents);
    const T* const out_dot = decoder_.tangent(wave_.at(z_dot, latents_width()), stream());
    reserve_decoder_tangents();
    FactoredGradient<T>& to = wave_.factored(h_theta);
    // The gradients are written to their places in the factored gradient. The terms of the tangent
    // have them in this order.
    T* const g_dot = to.place_of_g(last_of_decoder(), 0);
    T* const g = to.place_of_g(last_of_decoder(), 1);
    decoded_pullback<T>(
        {g, g_dot}, d, out_dot,
        {wave_.at(g_weights, weights_width()), wave_.at(g_weights_dot, weights_width())}, stream());
    decoder_.backward({g, g_dot}, {g_z_.data(), wave_.at(h_z, latents_width())}, stream());
    decoder_.add_gradient_tangent(to, matrices_.decoder, static_cast<T>(a), wave_.count(),
                                  wave_.stream());
  }

 private:
  cudaStream_t stream() const { return wave_.stream().get(); }
  static T least() { return static_cast<T>(backend::least_std); }
  std::size_t all_rows() const { return count_of(wave_.count()) * count_of(rows_); }
  std::size_t code_width() const { return count_of(relation_ ? latent_ : 2 * latent_); }
  std::size_t statistics_width() const { return count_of(groups_ * 2 * latent_); }
  std::size_t latents_width() const { return count_of(groups_ * spec_.latents * latent_); }
  std::size_t weights_width() const { return count_of(groups_ * weights_); }
  LatentSize latent_size() const { return {wave_.count(), groups_, spec_.latents, latent_}; }

  Grouping grouping() const {
    const auto rows = wave_.support_rows();
    return {spec_.by_label ? rows.labels : nullptr, members_.data(), groups_, rows.extent};
  }
  /// Counts the rows of each group on the device. Once per load, the host checks the counts from
  /// its own labels, without waiting for the stream.
  void count_groups() {
    count_members(members_.data(), grouping(), stream());
    if (checked_ == wave_.loads()) return;
    const auto counts = wave_.support_counts(), labels = wave_.support_labels();
    const std::size_t stride = labels.size() / counts.size();
    std::vector<std::size_t> members(count_of(groups_));
    for (std::size_t task = 0; task < counts.size(); ++task) {
      std::ranges::fill(members, std::size_t{0});
      const auto own = count_of(counts[task]);
      for (std::size_t row = 0; row < own; ++row) {
        ++members[spec_.by_label ? count_of(labels[task * stride + row]) : 0];
      }
      for (std::size_t g = 0; g < members.size(); ++g) spec_.check_group(g, members[g]);
    }
    checked_ = wave_.loads();
  }

  /// The encoder's input: the rows' features, joined with the targets where these are encoded too.
  /// With dropout, the features lie in the generator's own memory.
  const T* encoder_input(const Dropout& dropout) {
    const auto rows = wave_.support_rows();
    const T* x = rows.x;
    reserve_encoder_input(static_cast<bool>(dropout));
    if (dropout) {
      RandomKey key = dropout.key;
      key.task = wave_.global_first();
      drop(dropped_.data(), x, dropout.rate, key, {wave_.count(), rows_ * rows.features}, stream());
      x = dropped_.data();
    }
    if (spec_.by_label) return x;
    join_rows(joined_.data(), x, rows.features, rows.values, rows.targets, rows.extent, stream());
    return joined_.data();
  }

  /// W_a or W_b, [first.out, L], as a part of [first.out, 2 L]. With `across`, its transpose.
  Matrix<T> half_weight(const T* w, std::size_t side, bool across) const {
    const T* const data = w + relation_->first.weight + side * count_of(latent_);
    const std::size_t row = 2 * count_of(latent_);
    return across ? Matrix<T>{data, 1, row} : Matrix<T>{data, row, 1};
  }
  Pairs<T> pairs(const T* w) {
    Relation<T>& r = *relation_;
    Pairs<T> p;
    p.left = r.half[0].data();
    p.right = r.half[1].data();
    p.weight = w + r.middle.weight;
    p.bias = r.middle.bias_in(w);
    p.inputs = r.middle.in;
    p.outputs = r.middle.out;
    p.rows = wave_.support_rows().extent;
    p.open = r.open.data();
    return p;
  }

  /// A gradient by the shared networks that has no terms yet.
  std::unique_ptr<FactoredGradient<T>> make_gradient(std::size_t width) {
    auto made = std::make_unique<FactoredGradient<T>>(width, spec_.size(), wave_.capacity());
    matrices_.encoder = encoder_.add_matrices(*made, 0, rows_);
    if (relation_) {
      const Relation<T>& r = *relation_;
      for (const std::size_t side : {0u, 1u}) {
        matrices_.half[side] = made->add_matrix(
            {rows_, r.first.out, latent_, r.first.weight + side * count_of(latent_),
             2 * count_of(latent_), side == 0 ? r.first.bias : std::nullopt});
      }
      made->add_matrix({r.middle.out, r.middle.in, r.middle.weight, r.middle.bias});
      matrices_.last = made->add_matrix(
          {groups_, r.last.out, r.last.in, r.last.weight, count_of(r.last.in), r.last.bias});
    }
    matrices_.decoder =
        decoder_.add_matrices(*made, spec_.decoder_begin(), groups_ * spec_.latents);
    matrices_.end = made->matrices();
    return made;
  }

  /// Computes the gradient by the codes from that by the statistics, and adds the weights'
  /// gradients to `to`.
  void relation_pullback(const T* w, const T* g, FactoredGradient<T>& to) {
    Relation<T>& r = *relation_;
    r.reserve_pullback();
    const auto hidden = count_of(r.last.in);
    // The statistics' gradient belongs to the caller, who may change it, so it is copied.
    to.add_copy(matrices_.last, {g, r.group_mean.data(), T(1), true}, wave_.count(),
                wave_.stream());

    Product<T> back;
    back.m = wave_.count() * groups_;
    back.n = r.last.in;
    back.k = r.last.out;
    back.first = {{g, count_of(back.k)}, {w + r.last.weight, hidden, 1}};
    back.c = r.g_group_mean.data();
    back.c_row = hidden;
    multiply_matrices(back, stream());

    T* const g_mean = r.g_row_mean.data();
    group_mean_pullback(g_mean, r.g_group_mean.data(), grouping(), r.middle.out, stream());
    to.add(pairs(w), g_mean, wave_.stream());
    pairs_input_gradient(r.g_half[0].data(), r.g_half[1].data(), g_mean, pairs(w), stream());

    for (const std::size_t side : {0u, 1u}) {
      to.add(matrices_.half[side], {r.g_half[side].data(), codes_, T(1), side == 0}, wave_.count(),
             wave_.stream());
    }
    Product<T> p;
    p.m = static_cast<int>(all_rows());
    p.n = latent_;
    p.k = r.first.out;
    p.first = {{r.g_half[0].data(), count_of(p.k)}, half_weight(w, 0, false)};
    p.second = {{r.g_half[1].data(), count_of(p.k)}, half_weight(w, 1, false)};
    p.c = g_codes_.data();
    p.c_row = count_of(latent_);
    multiply_matrices(p, stream());
  }

  /// The decoder's outputs for these latents. With `reuse_last_decode`, those of the last decode.
  Decoded<T> decoded(const SharedVector& theta, const Latents& latents) {
    if (!latents.reuse_last_decode) {
      out_ = decoder_.forward(
          wave_.shared(theta) + spec_.decoder_begin(), wave_.at(latents.z, latents_width()),
          count_of(wave_.count()) * count_of(groups_ * spec_.latents), stream());
    }
    Decoded<T> d;
    d.out = out_;
    d.eps = wave_.at_or_null(latents.eps, count_of(groups_ * spec_.latents * weights_));
    d.offset = offset_.data();
    d.least = least();
    d.size = {wave_.count(), groups_, spec_.latents, weights_};
    return d;
  }
  std::size_t most_rows() const { return count_of(wave_.capacity()) * count_of(rows_); }
  std::size_t last_of_decoder() const { return matrices_.end - 1; }
  void reserve_encoder_input(bool dropout) {
    if (dropout) dropped_.reserve(most_rows() * count_of(wave_.support_rows().features));
    if (!spec_.by_label) joined_.reserve(most_rows() * count_of(spec_.encoder->input().size()));
  }
  void reserve_encoder_pullback() { g_codes_.reserve(most_rows() * code_width()); }
  void reserve_decoded(DeviceMemory<T>& outputs) const {
    outputs.reserve(count_of(wave_.capacity()) * count_of(groups_ * spec_.latents * 2 * weights_));
  }
  void reserve_decoder_tangents() {
    decoder_.reserve_tangent();
    g_z_.reserve(count_of(wave_.capacity()) * latents_width());
  }

  CudaWave<T>& wave_;
  backend::GeneratorSpec spec_;
  int rows_, groups_, latent_, weights_;  ///< support rows, N, L, P
  SharedNetwork<T> encoder_, decoder_;
  std::optional<Relation<T>> relation_;
  /// Numbers of the matrices in a gradient. The decoder's matrices are the last ones.
  struct {
    std::size_t encoder = 0, half[2] = {}, last = 0, decoder = 0, end = 0;
  } matrices_;
  std::vector<Block> gradients_;
  DeviceMemory<std::int32_t> members_;  ///< [tasks, groups]
  DeviceMemory<T> offset_;
  DeviceMemory<T> dropped_, joined_, g_codes_;
  DeviceMemory<T> g_out_, g_z_;
  const T* codes_ = nullptr;  ///< codes of the last encode
  const T* out_ = nullptr;    ///< outputs of the last decode
  /// Load numbers of the last check and of the last encode.
  std::uint64_t checked_ = 0, encoded_ = 0;
};

}  // namespace

template <class T>
std::unique_ptr<backend::Generator> make_generator(CudaWave<T>& wave,
                                                   const backend::GeneratorSpec& spec) {
  return std::make_unique<CudaGenerator<T>>(wave, spec);
}

template <class T>
void take_generator_memory(CudaWave<T>& wave, const backend::WaveDemand& demand) {
  CudaGenerator<T>(wave, *demand.generator).take_memory(demand);
}

template void take_generator_memory(CudaWave<float>&, const backend::WaveDemand&);
template void take_generator_memory(CudaWave<double>&, const backend::WaveDemand&);
template std::unique_ptr<backend::Generator> make_generator(CudaWave<float>&,
                                                            const backend::GeneratorSpec&);
template std::unique_ptr<backend::Generator> make_generator(CudaWave<double>&,
                                                            const backend::GeneratorSpec&);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
