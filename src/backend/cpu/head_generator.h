// Generated weights of softmax heads (head_wave.h) with linear encoders and decoders: LEO on
// features. Three things make it fast.
//
//   1. The decoder's half for the means, D_m, is never applied in the latent loop. The logits
//      x . D_m z are (x D_m) . z, and x D_m is computed once per task. The loss's gradient by the
//      means is a sum of rows x, so that its pull-back is a sum of rows of x D_m.
//   2. Gradients by the decoder and the encoder stay sums of outer products of rows, to which the
//      tasks' inner loops append terms. The reduction multiplies them out once.
//   3. Slopes of the deviations and gradients by the weights are kept from a latent step to its
//      adjoint. Each of the two costs two products with the deviations' half of the decoder, D_s,
//      and no exponential is computed twice.
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

/// LEO's generator on the blocks of a HeadWave.
class HeadGenerator final : public LatentGenerator, private SharedGradient {
 public:
  static bool supports(const GeneratorSpec& spec);
  HeadGenerator(HeadWave& wave, const GeneratorSpec& spec);

 protected:
  Block do_gradients(std::size_t width) override;
  void do_encode(const SharedVector& theta, const Dropout& dropout, Block statistics) override;
  void do_encode_pullback(const SharedVector& theta, const Dropout& dropout, Block g_statistics,
                          Block g_theta) override;
  void do_decode(const SharedVector& theta, const Latents& latents, Block weights) override;
  void do_decode_pullback(const SharedVector& theta, const Latents& latents, Block g_weights,
                          Block g_z, Block g_theta) override;
  void do_decode_tangent(const SharedVector& theta, const Latents& latents, Block z_dot,
                         Block weights_dot) override;
  void do_decode_pullback_tangent(const SharedVector& theta, const Latents& latents, Block z_dot,
                                  Block g_weights, Block g_weights_dot, Block h_z, double a,
                                  Block h_theta) override;
  void do_loss_gradient(const SharedVector& theta, const Latents& latents, const Wave::Pass& pass,
                        Block g_z) override;
  void do_loss_hessian_vector(const SharedVector& theta, const Latents& latents,
                              const Wave::Pass& pass, Block z_dot, Block h_z, double a,
                              Block h_theta) override;

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
  /// One matrix per task as a sum of outer products: sum over k of left[k]^T right[k].
  struct OuterSums {
    Rows left, right;                ///< task t's terms begin at row t * room
    std::size_t room = 0;            ///< allocated terms per task
    std::vector<std::size_t> terms;  ///< number of terms in use, [tasks]
    /// Appends a term whose right side is scale * from. Returns its left side for the caller to
    /// fill.
    float* add(std::size_t task, const float* from, float scale);
    void add(std::size_t task, const float* l, const float* r, float scale) {
      std::copy_n(l, left.stride, add(task, r, scale));
    }
  };
  /// The other parts of one task's gradient by the shared networks.
  struct TaskGradient {
    /// Right sides of D_m's outer products whose left sides are the support rows without dropout.
    Rows features;
    bool by_features = false;  ///< true if there are any
    /// The relation network's part, multiplied out by multiply_out_relation(). Starts with the
    /// (unused) place of the encoder.
    std::vector<float> relation;
  };
  /// The results of a decode and of the loss's gradient that later operations use, for all tasks.
  struct Kept {
    Rows z, z_mean;      ///< [latents]; [groups], mean over the group's latents
    Rows slope;          ///< [latents]: share std' eps
    Rows w_noise;        ///< [groups]: the weights without D_m z
    Rows g_w;            ///< [groups]: the loss's gradient by the weights
    Rows logits, delta;  ///< [groups], for the support rows
    Rows x, codes;       ///< support rows under dropout, and their product with D_m
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
  /// c (+)= a b over m rows. The stride of b is that of c.
  void multiply(std::size_t m, const Rows& a, std::size_t k, const float* b, Rows& c,
                bool accumulate);
  /// to [rows, columns] = the sum of all terms of these tasks.
  void outer(std::size_t rows, std::size_t columns, const OuterSums& sums,
             std::span<const int> tasks, float* to);

  /// Packs the encoder's weights, and takes the decoder's halves, of a theta that has changed.
  void pack(const SharedVector& theta);
  /// The values kept under a number, or unnumbered_ for a negative number.
  Kept& kept(int number);
  /// Copies latents from a block to `rows`, and their mean over each group to `means`.
  void take_latents(Block z, Rows& rows, Rows& means) const;
  /// Copies g_z_ to a block of latents.
  void put_latents(Block z);
  /// Computes the slopes and the weights without D_m z. With `reuse_last_decode`, the last decode's
  /// are used.
  Kept& forward(const Latents& latents);
  /// Decodes, computes the loss of the support rows, and its gradient by the weights.
  Kept& gradient_in_weights(const Latents& latents, const Wave::Pass& pass);
  /// Computes x D_m of the support rows, unless it is already known for this load and theta.
  void take_codes(Kept& k, const Wave::Pass& pass);
  const float* x_of(const Kept& k, std::size_t task) const;
  const float* codes_of(const Kept& k, std::size_t task) const;
  void logits(const Kept& k, std::size_t task, const Rows& w, const Rows& z_mean, float* to) const;
  void sum_rows(const Kept& k, std::size_t task, const float* delta, Rows& g);
  void add_second_order(const Kept& k, Block h_z, double a, Block h_theta);
  /// Writes the tangents of the latents to z_dot_ and z_dot_mean_, and those of the weights without
  /// D_m z_dot to w_dot_.
  void tangent(const Kept& k, Block z_dot);
  /// g_u_ = slope g, with g [groups].
  void pull_to_exponents(const Kept& k, const Rows& g);
  /// g_z_ = g_u_ D_s + share g_mean_.
  void pull_to_latents(const Kept& k);
  void take_weights(Block weights, Rows& rows) const;

  void clear() override;
  void sum(std::span<const int> tasks, float* to) override;
  void encode_rows(const Dropout& dropout);
  void multiply_out_relation();

  HeadWave& head_;
  Products& products_;
  std::size_t rows_;       ///< largest number of support rows of a task
  std::size_t p_, l_;      ///< strides of features and of latents
  std::size_t s_;          ///< stride of support rows in logits
  float share_;            ///< 1 / C
  std::size_t width_ = 0;  ///< width of the gradient's block
  RowEncoder encoder_;
  std::uint64_t version_ = 0;          ///< version of the packed weights
  const float* means_ = nullptr;       ///< D_m [P][l_], in theta or copied
  const float* deviations_ = nullptr;  ///< D_s
  Rows means_t_, deviations_t_;        ///< [L][p_]
  Rows copied_;                 ///< copies of D_m and D_s, where rows of D are not whole vectors
  std::deque<Kept> kept_;       ///< by Latents::activations
  Kept unnumbered_;             ///< for decodes without a number
  const Kept* last_ = nullptr;  ///< values of the last decode
  Rows codes_;                  ///< x D_m of the support rows, for the load and the theta below
  std::uint64_t codes_load_ = 0, codes_version_ = 0;
  // Values of the last encode.
  Rows x_;
  std::vector<int> rows_of_, group_;
  const float* statistics_ = nullptr;
  std::uint64_t encode_load_ = 0, encode_version_ = 0;
  // Scratch.
  Rows u_, g_u_, g_z_, g_mean_, z_dot_, z_dot_mean_, w_dot_, g_dot_, logits_dot_, delta_dot_;
  Rows scaled_, eps_, g_statistics_, g_codes_;
  AlignedFloats below_, outer_;
  OuterSums deviations_sum_, means_sum_, encoder_sum_;
  std::vector<TaskGradient> gradient_;  ///< [tasks]
  std::vector<GatherIndex> terms_;
  bool encoder_holds_relation_ = false;  ///< encoder_ holds a part of the gradient
};

}  // namespace kshot::backend::cpu
