#include "backend/cpu/head_generator.h"

#include <cmath>

namespace kshot::backend::cpu {

namespace {

bool is_matrix(const Network& network) {
  return network.layers().size() == 1 && network.layers().front().type == LayerType::linear &&
         network.layers().front().bias < 0;
}

}  // namespace

bool HeadGenerator::supports(const GeneratorSpec& spec) {
  return spec.by_label && is_matrix(*spec.encoder) && is_matrix(*spec.decoder);
}

HeadGenerator::HeadGenerator(HeadWave& wave, const GeneratorSpec& spec)
    : LatentGenerator(wave, spec),
      head_(wave),
      products_(wave.products()),
      rows_(static_cast<std::size_t>(wave.largest_support())),
      p_(static_cast<std::size_t>(wave.stride())),
      l_(static_cast<std::size_t>(wave.padded(static_cast<int>(latent_)))),
      s_(static_cast<std::size_t>(wave.row_stride(Set::support))),
      share_(1.0f / static_cast<float>(latents_)),
      encoder_(products_, spec_, wave.capacity(), static_cast<int>(groups_),
               wave.largest_support()) {
  const auto tasks = static_cast<std::size_t>(wave.capacity());
  const std::size_t latents = tasks * groups_ * latents_, groups = tasks * groups_;
  for (Rows* r : {&means_t_, &deviations_t_}) *r = Rows(latent_, p_);
  if (l_ != latent_) copied_ = Rows(2 * weights_, l_);
  codes_ = Rows(tasks * rows_, l_);
  x_ = Rows(tasks * rows_, p_);
  for (Rows* r : {&u_, &g_u_}) *r = Rows(latents, p_);
  for (Rows* r : {&g_z_, &z_dot_}) *r = Rows(latents, l_);
  for (Rows* r : {&g_mean_, &z_dot_mean_}) *r = Rows(groups, l_);
  for (Rows* r : {&w_dot_, &g_dot_}) *r = Rows(groups, p_);
  for (Rows* r : {&logits_dot_, &delta_dot_}) *r = Rows(groups_, s_);
  g_codes_ = Rows(rows_, l_);
  scaled_ = Rows(2 * groups_, l_);
  eps_ = Rows(1, p_);
  g_statistics_ = Rows(groups, static_cast<std::size_t>(encoder_.out_stride()));
  below_ = AlignedFloats(p_);
  for (std::size_t i = 0; i < weights_; ++i) {
    below_.data()[i] = static_cast<float>(1.0 - spec_.offset[i]);
  }
  outer_ = AlignedFloats(std::max(weights_ * l_, latent_ * 2 * p_));
  gradient_.resize(tasks);
  for (OuterSums* sum : {&deviations_sum_, &means_sum_}) {
    sum->left.stride = p_;
    sum->right.stride = l_;
  }
  encoder_sum_.left.stride = static_cast<std::size_t>(encoder_.code_stride());
  encoder_sum_.right.stride = p_;
  for (OuterSums* sum : {&deviations_sum_, &means_sum_, &encoder_sum_}) sum->terms.resize(tasks);
  for (TaskGradient& g : gradient_) g.features = Rows(rows_, l_);
}

Block HeadGenerator::do_gradients(std::size_t width) {
  width_ = width;
  return head_.shared_gradient(width, *this);
}

float* HeadGenerator::OuterSums::add(std::size_t task, const float* from, float scale) {
  if (terms[task] == room) {
    const std::size_t more = std::max<std::size_t>(16, 2 * room);
    for (Rows* r : {&left, &right}) {
      Rows grown(terms.size() * more, r->stride);
      for (std::size_t t = 0; t < terms.size(); ++t) {
        if (terms[t] > 0) std::copy_n(r->row(t * room), terms[t] * r->stride, grown.row(t * more));
      }
      *r = grown;
    }
    room = more;
  }
  const std::size_t row = task * room + terms[task]++;
  float* to = right.row(row);
  for (std::size_t i = 0; i < right.stride; ++i) to[i] = scale * from[i];
  return left.row(row);
}

void HeadGenerator::multiply(std::size_t m, const Rows& a, std::size_t k, const float* b, Rows& c,
                             bool accumulate) {
  products_.multiply(static_cast<int>(m), static_cast<int>(c.stride), static_cast<int>(k), a.row(0),
                     a.stride, 1, b, c.stride, c.row(0), c.stride, accumulate);
}

void HeadGenerator::outer(std::size_t rows, std::size_t columns, const OuterSums& sums,
                          std::span<const int> tasks, float* to) {
  // All tasks take one pass over the result.
  terms_.clear();
  for (const int task : tasks) {
    const auto t = static_cast<std::size_t>(task);
    for (std::size_t row = t * sums.room; row < t * sums.room + sums.terms[t]; ++row) {
      terms_.push_back({static_cast<std::int32_t>(row * sums.left.stride),
                        static_cast<std::int32_t>(row * sums.right.stride)});
    }
  }
  const auto m = static_cast<int>(rows);
  const std::size_t stride = sums.right.stride;
  if (terms_.empty()) return void(std::fill_n(to, rows * columns, 0.0f));
  float* const product = stride == columns ? to : outer_.data();
  products_.multiply(m, static_cast<int>(stride), terms_, sums.left.row(0), 1, sums.right.row(0),
                     product, stride, false);
  if (product == to) return;
  for (std::size_t r = 0; r < rows; ++r)
    std::copy_n(product + r * stride, columns, to + r * columns);
}

void HeadGenerator::pack(const SharedVector& theta) {
  const auto& vector = host<float>(theta);
  if (version_ == vector.version()) return;
  version_ = vector.version();
  encoder_.pack(vector.data());
  const float* d = vector.data() + spec_.decoder_begin();
  const std::size_t half = weights_ * latent_;
  const auto p = static_cast<int>(weights_), l = static_cast<int>(latent_);
  const auto stride = static_cast<std::ptrdiff_t>(p_);
  products_.kernels().transpose(means_t_.row(0), stride, d, l, p, l);
  products_.kernels().transpose(deviations_t_.row(0), stride, d + half, l, p, l);
  means_ = d;
  deviations_ = d + half;
  if (l_ == latent_) return;
  for (std::size_t r = 0; r < 2 * weights_; ++r) {
    std::copy_n(d + r * latent_, latent_, copied_.row(r));
  }
  means_ = copied_.row(0);
  deviations_ = copied_.row(weights_);
}

// ---- encoding ----

/// The relation network's gradient stays in encoder_. Before encoder_ is used again, this function
/// multiplies the gradient out.
void HeadGenerator::multiply_out_relation() {
  for (std::size_t t = 0; encoder_holds_relation_ && t < gradient_.size(); ++t) {
    std::vector<float>& relation = gradient_[t].relation;
    relation.resize(spec_.decoder_begin(), 0.0f);
    if (t < rows_of_.size()) encoder_.add_gradient(t, relation.data(), false);
  }
  encoder_holds_relation_ = false;
}

void HeadGenerator::encode_rows(const Dropout& dropout) {
  multiply_out_relation();
  rows_of_.clear();
  group_.clear();
  std::vector<float> target(groups_);
  for (std::size_t t = 0; t < count(); ++t) {
    const auto task = static_cast<int>(t);
    const std::size_t first = group_.size();
    std::vector<std::size_t> members(groups_, 0);
    for (std::size_t r = 0; r < support(t); ++r) {
      head_.read_support(task, static_cast<int>(r), x_.row(first + r), target.data());
      const auto g = static_cast<std::size_t>(std::ranges::max_element(target) - target.begin());
      ++members[g];
      group_.push_back(static_cast<int>(t * groups_ + g));
    }
    for (std::size_t g = 0; g < groups_; ++g) spec_.check_group(g, members[g]);
    if (dropout) {
      head_.drop(dropout, task, static_cast<int>(support(t)), x_.row(first), x_.row(first));
    }
    rows_of_.push_back(static_cast<int>(support(t)));
  }
  statistics_ = encoder_.forward(x_.row(0), rows_of_, group_);
  encode_load_ = head_.loads();
  encode_version_ = version_;
}

void HeadGenerator::do_encode(const SharedVector& theta, const Dropout& dropout, Block statistics) {
  pack(theta);
  encode_rows(dropout);
  const std::size_t width = 2 * latent_;
  for (std::size_t g = 0; g < group_rows(); ++g) {
    std::copy_n(statistics_ + g * g_statistics_.stride, width,
                head_.task_vector(statistics, static_cast<int>(g / groups_)) + g % groups_ * width);
  }
}

void HeadGenerator::do_encode_pullback(const SharedVector& theta, const Dropout& dropout,
                                       Block g_statistics, Block /*g_theta*/) {
  pack(theta);
  if (encode_load_ != head_.loads() || encode_version_ != version_) encode_rows(dropout);
  multiply_out_relation();
  const std::size_t width = 2 * latent_;
  for (std::size_t g = 0; g < group_rows(); ++g) {
    std::copy_n(vector_of(g_statistics, g / groups_) + g % groups_ * width, width,
                g_statistics_.row(g));
  }
  encoder_.pullback(g_statistics_.row(0));
  encoder_holds_relation_ = spec_.relation != nullptr;
  std::size_t row = 0;
  for (std::size_t t = 0; t < count(); ++t) {
    for (std::size_t r = 0; r < support(t); ++r, ++row) {
      encoder_sum_.add(t, encoder_.code_gradients() + row * encoder_sum_.left.stride, x_.row(row),
                       1.0f);
    }
  }
}

// ---- decoding ----

HeadGenerator::Kept& HeadGenerator::kept(int number) {
  while (number >= 0 && kept_.size() <= static_cast<std::size_t>(number)) kept_.emplace_back();
  Kept& k = number >= 0 ? kept_[static_cast<std::size_t>(number)] : unnumbered_;
  if (k.z.rows() > 0) return k;
  const std::size_t groups = gradient_.size() * groups_;
  k.z = Rows(groups * latents_, l_);
  k.z_mean = Rows(groups, l_);
  k.slope = Rows(groups * latents_, p_);
  for (Rows* r : {&k.w_noise, &k.g_w}) *r = Rows(groups, p_);
  for (Rows* r : {&k.logits, &k.delta}) *r = Rows(groups, s_);
  return k;
}

void HeadGenerator::take_latents(Block z, Rows& rows, Rows& means) const {
  const std::size_t of_task = groups_ * latents_;
  std::fill_n(means.row(0), group_rows() * l_, 0.0f);
  for (std::size_t r = 0; r < latent_rows(); ++r) {
    const float* from = vector_of(z, r / of_task) + r % of_task * latent_;
    float* mean = means.row(r / latents_);
    float* to = rows.row(r);
    for (std::size_t i = 0; i < latent_; ++i) {
      to[i] = from[i];
      mean[i] += share_ * from[i];
    }
  }
}

void HeadGenerator::put_latents(Block z) {
  const std::size_t of_task = groups_ * latents_;
  for (std::size_t r = 0; r < latent_rows(); ++r) {
    std::copy_n(g_z_.row(r), latent_,
                head_.task_vector(z, static_cast<int>(r / of_task)) + r % of_task * latent_);
  }
}

void HeadGenerator::take_weights(Block weights, Rows& rows) const {
  for (std::size_t t = 0; t < count(); ++t) {
    std::copy_n(vector_of(weights, t), groups_ * p_, rows.row(t * groups_));
  }
}

HeadGenerator::Kept& HeadGenerator::forward(const Latents& latents) {
  Kept& k = kept(latents.activations);
  if (latents.reuse_last_decode && last_ == &k) return k;
  last_ = &k;
  k.noise = static_cast<bool>(latents.eps);
  take_latents(latents.z, k.z, k.z_mean);
  std::fill_n(k.w_noise.row(0), group_rows() * p_, 0.0f);
  if (!k.noise) return k;
  multiply(latent_rows(), k.z, latent_, deviations_t_.row(0), u_, false);
  const Kernels& kernels = products_.kernels();
  const std::size_t vectors = p_ / static_cast<std::size_t>(kernels.lanes);
  const std::size_t of_task = groups_ * latents_;
  for (std::size_t r = 0; r < latent_rows(); ++r) {
    const float* eps = vector_of(latents.eps, r / of_task) + r % of_task * weights_;
    if (p_ != weights_) {
      std::copy_n(eps, weights_, eps_.row(0));
      eps = eps_.row(0);
    }
    kernels.deviate(k.w_noise.row(r / latents_), k.slope.row(r), u_.row(r), eps, below_.data(),
                    static_cast<float>(least_std), share_, vectors);
  }
  return k;
}

void HeadGenerator::tangent(const Kept& k, Block z_dot) {
  take_latents(z_dot, z_dot_, z_dot_mean_);
  std::fill_n(w_dot_.row(0), group_rows() * p_, 0.0f);
  if (!k.noise) return;
  multiply(latent_rows(), z_dot_, latent_, deviations_t_.row(0), u_, false);
  const Kernels& kernels = products_.kernels();
  for (std::size_t r = 0; r < latent_rows(); ++r) {
    kernels.multiply_add(w_dot_.row(r / latents_), 1.0f, k.slope.row(r), u_.row(r),
                         p_ / static_cast<std::size_t>(kernels.lanes));
  }
}

void HeadGenerator::pull_to_exponents(const Kept& k, const Rows& g) {
  for (std::size_t r = 0; k.noise && r < latent_rows(); ++r) {
    products_.kernels().product(g_u_.row(r), 1.0f, k.slope.row(r), g.row(r / latents_), p_);
  }
}

void HeadGenerator::pull_to_latents(const Kept& k) {
  if (k.noise) {
    multiply(latent_rows(), g_u_, weights_, deviations_, g_z_, false);
  } else {
    std::fill_n(g_z_.row(0), latent_rows() * l_, 0.0f);
  }
  for (std::size_t r = 0; r < latent_rows(); ++r) {
    const float* from = g_mean_.row(r / latents_);
    float* to = g_z_.row(r);
    for (std::size_t i = 0; i < l_; ++i) to[i] += share_ * from[i];
  }
}

void HeadGenerator::do_decode(const SharedVector& theta, const Latents& latents, Block weights) {
  pack(theta);
  Latents fresh = latents;
  fresh.reuse_last_decode = false;
  const Kept& k = forward(fresh);
  std::copy_n(k.w_noise.row(0), group_rows() * p_, w_dot_.row(0));
  multiply(group_rows(), k.z_mean, latent_, means_t_.row(0), w_dot_, true);
  for (std::size_t t = 0; t < count(); ++t) {
    std::copy_n(w_dot_.row(t * groups_), groups_ * p_,
                head_.task_vector(weights, static_cast<int>(t)));
  }
}

void HeadGenerator::do_decode_pullback(const SharedVector& theta, const Latents& latents,
                                       Block g_weights, Block g_z, Block g_theta) {
  pack(theta);
  const Kept& k = forward(latents);
  take_weights(g_weights, g_dot_);
  pull_to_exponents(k, g_dot_);
  if (g_z) {
    multiply(group_rows(), g_dot_, weights_, means_, g_mean_, false);
    pull_to_latents(k);
    put_latents(g_z);
  }
  if (!g_theta) return;
  const std::size_t of_task = groups_ * latents_;
  for (std::size_t r = 0; k.noise && r < latent_rows(); ++r) {
    deviations_sum_.add(r / of_task, g_u_.row(r), k.z.row(r), 1.0f);
  }
  for (std::size_t g = 0; g < group_rows(); ++g) {
    means_sum_.add(g / groups_, g_dot_.row(g), k.z_mean.row(g), 1.0f);
  }
}

void HeadGenerator::do_decode_tangent(const SharedVector& theta, const Latents& latents,
                                      Block z_dot, Block weights_dot) {
  pack(theta);
  tangent(forward(latents), z_dot);
  multiply(group_rows(), z_dot_mean_, latent_, means_t_.row(0), w_dot_, true);
  for (std::size_t t = 0; t < count(); ++t) {
    std::copy_n(w_dot_.row(t * groups_), groups_ * p_,
                head_.task_vector(weights_dot, static_cast<int>(t)));
  }
}

void HeadGenerator::do_decode_pullback_tangent(const SharedVector& theta, const Latents& latents,
                                               Block z_dot, Block g_weights, Block g_weights_dot,
                                               Block h_z, double a, Block h_theta) {
  pack(theta);
  Kept& k = forward(latents);
  tangent(k, z_dot);
  take_weights(g_weights, k.g_w);
  take_weights(g_weights_dot, g_dot_);
  multiply(group_rows(), g_dot_, weights_, means_, g_mean_, false);
  add_second_order(k, h_z, a, h_theta);
  if (!h_theta) return;
  const auto scale = static_cast<float>(a);
  for (std::size_t g = 0; g < group_rows(); ++g) {
    means_sum_.add(g / groups_, g_dot_.row(g), k.z_mean.row(g), scale);
    means_sum_.add(g / groups_, k.g_w.row(g), z_dot_mean_.row(g), scale);
  }
}

/// Computes h_z and the deviations' part of h_theta. Inputs: k.g_w and its tangent g_dot_, g_mean_,
/// and u_, the tangent of the exponents.
void HeadGenerator::add_second_order(const Kept& k, Block h_z, double a, Block h_theta) {
  const Kernels& kernels = products_.kernels();
  const std::size_t vectors = p_ / static_cast<std::size_t>(kernels.lanes);
  for (std::size_t r = 0; k.noise && r < latent_rows(); ++r) {
    const std::size_t g = r / latents_;
    kernels.deviate_tangent(g_u_.row(r), k.slope.row(r), u_.row(r), k.g_w.row(g), g_dot_.row(g),
                            vectors);
  }
  pull_to_latents(k);
  put_latents(h_z);
  if (!h_theta) return;
  const auto scale = static_cast<float>(a);
  const std::size_t of_task = groups_ * latents_;
  for (std::size_t r = 0; k.noise && r < latent_rows(); ++r) {
    const std::size_t task = r / of_task;
    deviations_sum_.add(task, g_u_.row(r), k.z.row(r), scale);
    kernels.product(deviations_sum_.add(task, z_dot_.row(r), scale), 1.0f, k.slope.row(r),
                    k.g_w.row(r / latents_), p_);
  }
}

// ---- the loss in the latents ----

void HeadGenerator::take_codes(Kept& k, const Wave::Pass& pass) {
  k.dropped = static_cast<bool>(pass.dropout);
  const bool stand = codes_load_ == head_.loads() && codes_version_ == version_;
  if (!k.dropped && stand) return;
  if (k.dropped && k.x.rows() == 0) {
    k.x = Rows(codes_.rows(), p_);
    k.codes = Rows(codes_.rows(), l_);
  }
  for (std::size_t t = 0; t < count(); ++t) {
    const auto task = static_cast<int>(t);
    const int rows = head_.rows_of(Set::support, task);
    const float* x = head_.features_of(Set::support, task);
    if (k.dropped) head_.drop(pass.dropout, task, rows, x, k.x.row(t * rows_));
    products_.multiply(rows, static_cast<int>(l_), static_cast<int>(weights_), x_of(k, t), p_, 1,
                       means_, l_, (k.dropped ? k.codes : codes_).row(t * rows_), l_, false);
  }
  if (k.dropped) return;
  codes_load_ = head_.loads();
  codes_version_ = version_;
}

const float* HeadGenerator::x_of(const Kept& k, std::size_t task) const {
  return k.dropped ? k.x.row(task * rows_)
                   : head_.features_of(Set::support, static_cast<int>(task));
}

const float* HeadGenerator::codes_of(const Kept& k, std::size_t task) const {
  return (k.dropped ? k.codes : codes_).row(task * rows_);
}

/// to [class][row] = x . w + codes . z_mean.
void HeadGenerator::logits(const Kept& k, std::size_t task, const Rows& w, const Rows& z_mean,
                           float* to) const {
  Dots d;
  d.m = static_cast<int>(support(task));
  d.n = static_cast<int>(groups_);
  d.c = to;
  d.c_row = 1;
  d.c_col = static_cast<std::ptrdiff_t>(s_);
  d.k = static_cast<int>(l_);
  d.a = codes_of(k, task);
  d.b = z_mean.row(task * groups_);
  d.a_row = d.b_row = static_cast<std::ptrdiff_t>(l_);
  products_.kernels().dots(d);
  if (!k.noise) return;
  d.k = static_cast<int>(p_);
  d.a = x_of(k, task);
  d.b = w.row(task * groups_);
  d.a_row = d.b_row = static_cast<std::ptrdiff_t>(p_);
  d.accumulate = true;
  products_.kernels().dots(d);
}

/// Sums of rows, weighted by the gradient by the logits: those of x to g, those of codes to
/// g_mean_.
void HeadGenerator::sum_rows(const Kept& k, std::size_t task, const float* delta, Rows& g) {
  const auto n = static_cast<int>(groups_), rows = static_cast<int>(support(task));
  const std::size_t first = task * groups_;
  products_.multiply(n, static_cast<int>(p_), rows, delta, s_, 1, x_of(k, task), p_, g.row(first),
                     p_, false);
  products_.multiply(n, static_cast<int>(l_), rows, delta, s_, 1, codes_of(k, task), l_,
                     g_mean_.row(first), l_, false);
}

HeadGenerator::Kept& HeadGenerator::gradient_in_weights(const Latents& latents,
                                                        const Wave::Pass& pass) {
  Latents fresh = latents;
  fresh.reuse_last_decode = false;
  Kept& k = forward(fresh);
  take_codes(k, pass);
  for (std::size_t t = 0; t < count(); ++t) {
    float* z = k.logits.row(t * groups_);
    float* delta = k.delta.row(t * groups_);
    logits(k, t, k.w_noise, k.z_mean, z);
    head_.logits_loss(pass, static_cast<int>(t), z, nullptr, delta, nullptr, nullptr);
    sum_rows(k, t, delta, k.g_w);
  }
  return k;
}

void HeadGenerator::do_loss_gradient(const SharedVector& theta, const Latents& latents,
                                     const Wave::Pass& pass, Block g_z) {
  if (pass.set != Set::support) return Generator::do_loss_gradient(theta, latents, pass, g_z);
  pack(theta);
  const Kept& k = gradient_in_weights(latents, pass);
  pull_to_exponents(k, k.g_w);
  pull_to_latents(k);
  put_latents(g_z);
}

void HeadGenerator::do_loss_hessian_vector(const SharedVector& theta, const Latents& latents,
                                           const Wave::Pass& pass, Block z_dot, Block h_z, double a,
                                           Block h_theta) {
  if (pass.set != Set::support) {
    return Generator::do_loss_hessian_vector(theta, latents, pass, z_dot, h_z, a, h_theta);
  }
  pack(theta);
  Kept& k =
      latents.activations >= 0 ? kept(latents.activations) : gradient_in_weights(latents, pass);
  tangent(k, z_dot);
  const auto scale = static_cast<float>(a);
  for (std::size_t t = 0; t < count(); ++t) {
    const std::size_t first = t * groups_;
    logits(k, t, w_dot_, z_dot_mean_, logits_dot_.row(0));
    head_.logits_loss(pass, static_cast<int>(t), k.logits.row(first), logits_dot_.row(0),
                      k.delta.row(first), delta_dot_.row(0), nullptr);
    sum_rows(k, t, delta_dot_.row(0), g_dot_);
    if (!h_theta) continue;
    // Gradient by D_m: x_i (delta_dot_i . z + delta_i . z_dot), one row of latents per support row.
    const std::size_t floats = groups_ * l_;
    for (std::size_t i = 0; i < floats; ++i) {
      scaled_.row(0)[i] = scale * k.z_mean.row(first)[i];
      scaled_.row(groups_)[i] = scale * z_dot_mean_.row(first)[i];
    }
    TaskGradient& gradient = gradient_[t];
    const auto rows = static_cast<int>(support(t)), n = static_cast<int>(groups_);
    Rows& right = k.dropped ? g_codes_ : gradient.features;
    products_.multiply(rows, static_cast<int>(l_), n, delta_dot_.row(0), 1, s_, scaled_.row(0), l_,
                       right.row(0), l_, !k.dropped && gradient.by_features);
    gradient.by_features = gradient.by_features || !k.dropped;
    products_.multiply(rows, static_cast<int>(l_), n, k.delta.row(first), 1, s_,
                       scaled_.row(groups_), l_, right.row(0), l_, true);
    for (std::size_t r = 0; k.dropped && r < support(t); ++r) {
      means_sum_.add(t, x_of(k, t) + r * p_, right.row(r), 1.0f);
    }
  }
  add_second_order(k, h_z, a, h_theta);
}

// ---- the gradient by the shared networks ----

void HeadGenerator::clear() {
  for (OuterSums* sum : {&deviations_sum_, &means_sum_, &encoder_sum_}) {
    std::ranges::fill(sum->terms, 0);
  }
  for (TaskGradient& g : gradient_) {
    g.by_features = false;
    g.relation.clear();
  }
  encoder_holds_relation_ = false;
}

void HeadGenerator::sum(std::span<const int> tasks, float* to) {
  if (tasks.empty()) return void(std::fill_n(to, width_, 0.0f));
  const auto latents = static_cast<std::size_t>(spec_.encoder->outputs());
  outer(latents, weights_, encoder_sum_, tasks, to);
  const std::size_t at = spec_.relation_begin();
  std::fill(to + at, to + spec_.decoder_begin(), 0.0f);
  for (const int task : tasks) {
    const auto t = static_cast<std::size_t>(task);
    if (encoder_holds_relation_) encoder_.add_gradient(t, to, false);
    const std::vector<float>& relation = gradient_[t].relation;
    for (std::size_t i = at; i < relation.size(); ++i) to[i] += relation[i];
  }
  float* const means = to + spec_.decoder_begin();
  const std::size_t half = weights_ * latent_;
  // The support rows' terms join the others for this one product.
  const std::vector<std::size_t> terms = means_sum_.terms;
  for (const int task : tasks) {
    const auto t = static_cast<std::size_t>(task);
    const float* const x = head_.features_of(Set::support, task);
    for (std::size_t r = 0; gradient_[t].by_features && r < support(t); ++r) {
      means_sum_.add(t, x + r * p_, gradient_[t].features.row(r), 1.0f);
    }
  }
  outer(weights_, latent_, means_sum_, tasks, means);
  means_sum_.terms = terms;
  outer(weights_, latent_, deviations_sum_, tasks, means + half);
  std::fill(means + 2 * half, to + width_, 0.0f);
}

}  // namespace kshot::backend::cpu
