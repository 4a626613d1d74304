// Generated weights of softmax heads (head_wave.h) from linear encoders and decoders: what LEO does
// on features. Three things make it fast.
//
//   The decoder's half for the means is never applied in the latent loop: logits x . D_m z are
//   (x D_m) . z, with x D_m taken once a task, and the loss's gradient in the means is a sum of
//   rows x, so that its pull-back is a sum of rows of x D_m.
//   Gradients by the decoder and the encoder stay sums of products of rows (what the tasks' inner
//   loops leave behind), multiplied out once, by the reduction.
//   Slopes of the deviations and gradients in the weights stay between a latent step and its
//   adjoint, so that both cost two products with the deviations' half of the decoder, and no
//   exponential is taken twice.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "backend/cpu/generator.h"
#include "backend/cpu/head_wave.h"
#include "backend/cpu/row_encoder.h"

namespace kshot::backend::cpu {

class HeadGenerator final : public LatentGenerator, private SharedGradient {
 public:
  static bool serves(const GeneratorSpec& spec);
  HeadGenerator(HeadWave& wave, const GeneratorSpec& spec);

  Block gradients(std::size_t width) override;
  void encode(const SharedVector& theta, const Dropout& dropout, Block statistics) override;
  void encode_pullback(const SharedVector& theta, const Dropout& dropout, Block g_statistics,
                       Block g_theta) override;
  void decode(const SharedVector& theta, const Latents& at, Block weights) override;
  void decode_pullback(const SharedVector& theta, const Latents& at, Block g_weights, Block g_z,
                       Block g_theta) override;
  void decode_tangent(const SharedVector& theta, const Latents& at, Block z_dot,
                      Block weights_dot) override;
  void decode_pullback_tangent(const SharedVector& theta, const Latents& at, Block z_dot,
                               Block g_weights, Block g_weights_dot, Block h_z, double a,
                               Block h_theta) override;
  void loss_gradient(const SharedVector& theta, const Latents& at, const Wave::Pass& pass,
                     Block g_z) override;
  void loss_hessian_vector(const SharedVector& theta, const Latents& at, const Wave::Pass& pass,
                           Block z_dot, Block h_z, double a, Block h_theta) override;

 private:
  /// Rows of floats, `stride` apart.
  struct Rows {
    AlignedFloats values = {};
    std::size_t stride = 0;
    Rows() = default;
    Rows(std::size_t rows, std::size_t row_stride)
        : values(rows * row_stride), stride(row_stride) {}
    float* row(std::size_t r) { return values.data() + r * stride; }
    const float* row(std::size_t r) const { return values.data() + r * stride; }
    std::size_t rows() const { return stride == 0 ? 0 : values.size() / stride; }
  };
  /// A matrix for each task as a sum of outer products: sum over k of left[k]^T right[k].
  struct OuterSums {
    Rows left, right;                ///< task t's terms begin at row t * room
    std::size_t room = 0;            ///< terms a task
    std::vector<std::size_t> terms;  ///< those that there are, [tasks]
    /// A new term: scale * right beside the left side that is returned, to be filled in.
    float* add(std::size_t task, const float* from, float scale);
    void add(std::size_t task, const float* l, const float* r, float scale) {
      std::copy_n(l, left.stride, add(task, r, scale));
    }
  };
  /// What else there is of one task's gradient by the shared networks.
  struct TaskGradient {
    /// Of the means: right sides to the support rows as they are.
    Rows features;
    bool by_features = false;     ///< there are any
    std::vector<float> relation;  ///< multiplied out (settle()); begins with room for the encoder
  };
  /// What a decode and the loss's gradient leave for what follows, for all tasks.
  struct Kept {
    Rows z, z_mean;      ///< [latents]; [groups], mean over the group's latents
    Rows slope;          ///< [latents]: share std' eps
    Rows w_noise;        ///< [groups]: the weights without D_m z
    Rows g_w;            ///< [groups]: the loss's gradient in the weights
    Rows logits, delta;  ///< [groups], of the support rows
    Rows x, codes;       ///< support rows under dropout, and these times D_m
    bool noise = false, dropped = false;
  };

  std::size_t count() const { return static_cast<std::size_t>(wave_.count()); }
  std::size_t latent_rows() const { return count() * groups_ * latents_; }
  std::size_t group_rows() const { return count() * groups_; }
  std::size_t support(std::size_t task) const {
    return static_cast<std::size_t>(head_.rows_of(Set::support, static_cast<int>(task)));
  }
  const float* vector_of(Block block, std::size_t task) const {
    return head_.task_vector(block, static_cast<int>(task));
  }
  /// c (+)= a b, over as many rows as are asked for; b has c's stride.
  void multiply(std::size_t m, const Rows& a, std::size_t k, const float* b, Rows& c,
                bool accumulate);
  /// to [rows, columns] = all terms of these tasks.
  void outer(std::size_t rows, std::size_t columns, const OuterSums& sums,
             std::span<const int> tasks, float* to);

  void pack(const SharedVector& theta);
  Kept& kept(int number);
  void take_latents(Block z, Rows& rows, Rows& means) const;
  void put_latents(Block z);
  Kept& forward(const Latents& at);
  Kept& gradient_in_weights(const Latents& at, const Wave::Pass& pass);
  void take_codes(Kept& k, const Wave::Pass& pass);
  const float* x_of(const Kept& k, std::size_t task) const;
  const float* codes_of(const Kept& k, std::size_t task) const;
  void logits(const Kept& k, std::size_t task, const Rows& w, const Rows& z_mean, float* to) const;
  void sum_rows(const Kept& k, std::size_t task, const float* delta, Rows& g);
  void add_second_order(const Kept& k, Block h_z, double a, Block h_theta);
  /// Tangents of the latents, and of the weights but for D_m z_dot, into z_dot_ ... w_dot_.
  void tangent(const Kept& k, Block z_dot);
  /// g_u_ = slope g, g [groups].
  void pull_to_exponents(const Kept& k, const Rows& g);
  /// g_z_ = g_u_ D_s + share g_mean_.
  void pull_to_latents(const Kept& k);
  void take_weights(Block weights, Rows& rows) const;

  void clear() override;
  void sum(std::span<const int> tasks, float* to) override;
  void encode_rows(const Dropout& dropout);
  void settle();

  HeadWave& head_;
  Products& products_;
  std::size_t rows_;       ///< support rows of a task, at most
  std::size_t p_, l_;      ///< strides of features and latents
  std::size_t s_;          ///< stride of support rows in logits
  float share_;            ///< 1 / C
  std::size_t width_ = 0;  ///< of the gradient's block
  RowEncoder encoder_;
  std::uint64_t version_ = 0;          ///< of what is packed
  const float* means_ = nullptr;       ///< D_m [P][l_], as it lies in theta or copied
  const float* deviations_ = nullptr;  ///< D_s
  Rows means_t_, deviations_t_;        ///< [L][p_]
  Rows copied_;                        ///< of both where rows of D are not whole vectors
  std::deque<Kept> kept_;              ///< by Latents::activations
  Kept other_;                         ///< of decodes without a number
  const Kept* last_ = nullptr;         ///< of the last decode
  Rows codes_;                         ///< x D_m of the support rows, for this load and theta:
  std::uint64_t codes_load_ = 0, codes_version_ = 0;
  // of the last encode
  Rows x_;
  std::vector<int> rows_of_, group_;
  const float* statistics_ = nullptr;
  std::uint64_t encode_load_ = 0, encode_version_ = 0;
  // scratch
  Rows u_, g_u_, g_z_, g_mean_, z_dot_, z_dot_mean_, w_dot_, g_dot_, logits_dot_, delta_dot_;
  Rows scaled_, eps_, g_statistics_, g_codes_;
  AlignedFloats below_, outer_;
  OuterSums deviations_sum_, means_sum_, encoder_sum_;
  std::vector<TaskGradient> gradient_;  ///< [tasks]
  std::vector<GatherIndex> terms_;
  bool related_ = false;  ///< encoder_ holds more of it
};

}  // namespace kshot::backend::cpu
