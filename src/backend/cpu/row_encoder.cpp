#include "backend/cpu/row_encoder.h"

#include <algorithm>
#include <stdexcept>

namespace kshot::backend::cpu {
namespace {

/// Largest number of pairs that pass the relation network in one chunk. The activations of the last
/// chunk stay for the pull-back: 2 MiB per layer for a hidden layer of 128.
constexpr int chunk_pairs = 4096;

LayerSpec layer_spec(const kshot::Layer& layer) {
  LayerSpec spec;
  spec.type = layer.type;
  spec.out = layer.out.size();
  spec.bias = layer.bias >= 0;
  return spec;
}

std::shared_ptr<const Network> part(const Network& network, std::size_t first, std::size_t last) {
  std::vector<LayerSpec> layers;
  for (std::size_t i = first; i < last; ++i) layers.push_back(layer_spec(network.layers()[i]));
  return std::make_shared<const Network>(network.layers()[first].in, layers);
}

}  // namespace

RowEncoder::RowEncoder(Products& products, const GeneratorSpec& spec, int tasks, int groups,
                       int rows)
    : products_(products),
      spec_(spec),
      groups_(groups),
      encoder_(products, spec.encoder, tasks * rows) {
  out_stride_ = products_.pad(2 * static_cast<int>(spec.latent()));
  statistics_ = AlignedFloats(product(tasks * groups, out_stride_));
  g_codes_ = AlignedFloats(product(tasks * rows, encoder_.out_stride()));
  if (!spec.relation) return;
  const Network& network = *spec.relation;
  const auto& layers = network.layers();
  if (layers.size() < 3 || layers.front().type != LayerType::linear ||
      layers.back().type != LayerType::linear) {
    throw std::logic_error("a relation network begins and ends with a linear layer");
  }
  most_pairs_ = std::max(std::min(chunk_pairs, tasks * rows * rows), rows);
  relation_.emplace(Relation{
      SharedNetwork(products_, part(network, 1, layers.size() - 1), most_pairs_),
      SharedNetwork(products_, part(network, layers.size() - 1, layers.size()), tasks * groups)});
  Relation& r = *relation_;
  r.hidden = layers.front().out.size();
  r.hidden_stride = products_.pad(r.hidden);
  r.has_bias = layers.front().bias >= 0;
  const auto& parameters = network.parameters();
  r.middle_offset = parameters[r.has_bias ? 2 : 1].offset;
  r.last_offset = parameters[static_cast<std::size_t>(layers.back().weight)].offset;
  const int code = encoder_.out_stride();
  for (int side = 0; side < 2; ++side) {
    r.packed[side] = AlignedFloats(product(static_cast<int>(spec.latent()), r.hidden_stride));
    r.transposed[side] = AlignedFloats(product(r.hidden, code));
    r.half[side] = AlignedFloats(product(tasks * rows, r.hidden_stride));
    r.g_half[side] = AlignedFloats(product(tasks * rows, r.hidden_stride));
  }
  r.bias = AlignedFloats(static_cast<std::size_t>(r.hidden_stride));
  r.pair = AlignedFloats(product(most_pairs_, r.hidden_stride));
  r.g_pair = AlignedFloats(product(most_pairs_, r.hidden_stride));
  r.mean = AlignedFloats(product(tasks * groups, r.hidden_stride));
  r.scratch = AlignedFloats(product(r.hidden, code));
}

void RowEncoder::pack(const float* theta) {
  encoder_.pack(theta);
  if (!relation_) return;
  Relation& r = *relation_;
  const float* w = theta + spec_.relation_begin();
  const auto latent = static_cast<int>(spec_.latent());
  for (int side = 0; side < 2; ++side) {
    const float* half = w + static_cast<std::ptrdiff_t>(side) * latent;
    products_.kernels().transpose(r.packed[side].data(), r.hidden_stride, half, 2 * latent,
                                  r.hidden, latent);
    for (int o = 0; o < r.hidden; ++o) {
      std::copy_n(half + static_cast<std::ptrdiff_t>(o) * 2 * latent, latent,
                  r.transposed[side].data() + product(o, encoder_.out_stride()));
    }
  }
  if (r.has_bias) std::copy_n(w + product(r.hidden, 2 * latent), r.hidden, r.bias.data());
  r.middle.pack(w + r.middle_offset);
  r.last.pack(w + r.last_offset);
}

std::size_t RowEncoder::chunk_end(std::size_t first) const {
  int pairs = 0;
  std::size_t last = first;
  while (last < rows_ && (last == first || pairs + row_[last].partners <= most_pairs_)) {
    pairs += row_[last++].partners;
  }
  return last;
}

/// The first layer's output for rows [first, last) with their partners.
void RowEncoder::pairs(std::size_t first, std::size_t last) {
  Relation& r = *relation_;
  const auto stride = static_cast<std::size_t>(r.hidden_stride);
  float* to = r.pair.data();
  for (std::size_t i = first; i < last; ++i) {
    const float* left = r.half[0].data() + i * stride;
    for (int p = 0; p < row_[i].partners; ++p) {
      const float* right = r.half[1].data() + static_cast<std::size_t>(row_[i].first + p) * stride;
      for (std::size_t h = 0; h < stride; ++h) to[h] = left[h] + right[h];
      to += stride;
    }
  }
}

const float* RowEncoder::forward(const float* x, const std::vector<int>& rows_of,
                                 const std::vector<int>& group) {
  x_ = x;
  rows_ = group.size();
  group_ = group;
  all_groups_ = rows_of.size() * static_cast<std::size_t>(groups_);
  rows_of_ = rows_of;
  row_.clear();
  first_of_.clear();
  first_pair_.clear();
  int next = 0, pair = 0;
  for (std::size_t t = 0; t < rows_of.size(); ++t) {
    first_of_.push_back(next);
    first_pair_.push_back(pair);
    pair += rows_of[t] * rows_of[t];
    for (int i = 0; i < rows_of[t]; ++i) row_.push_back({next, rows_of[t], t});
    next += rows_of[t];
  }
  share_.assign(all_groups_, 0.0f);
  for (const int g : group_) share_[static_cast<std::size_t>(g)] += 1.0f;
  for (float& s : share_) s = 1.0f / s;

  const auto rows = static_cast<int>(rows_);
  const auto groups = static_cast<int>(all_groups_);
  codes_ = encoder_.forward(x, rows);
  const auto average = [&](std::size_t row, const float* from, std::size_t stride, float scale,
                           float* to) {
    const auto g = static_cast<std::size_t>(group_[row]);
    scale *= share_[g];
    for (std::size_t h = 0; h < stride; ++h) to[g * stride + h] += scale * from[h];
  };
  if (!relation_) {
    const auto stride = static_cast<std::size_t>(out_stride_);
    std::fill_n(statistics_.data(), all_groups_ * stride, 0.0f);
    for (std::size_t i = 0; i < rows_; ++i) {
      average(i, codes_ + i * stride, stride, 1.0f, statistics_.data());
    }
    return statistics_.data();
  }
  Relation& r = *relation_;
  const auto stride = static_cast<std::size_t>(r.hidden_stride);
  for (int side = 0; side < 2; ++side) {
    if (side == 0 && r.has_bias) {
      for (std::size_t i = 0; i < rows_; ++i) {
        std::copy_n(r.bias.data(), stride, r.half[0].data() + i * stride);
      }
    }
    products_.multiply(rows, r.hidden_stride, static_cast<int>(spec_.latent()), codes_,
                       static_cast<std::size_t>(encoder_.out_stride()), 1, r.packed[side].data(),
                       stride, r.half[side].data(), stride, side == 0 && r.has_bias);
  }
  std::fill_n(r.mean.data(), all_groups_ * stride, 0.0f);
  for (std::size_t first = 0; first < rows_;) {
    const std::size_t last = chunk_end(first);
    pairs(first, last);
    int count = 0;
    for (std::size_t i = first; i < last; ++i) count += row_[i].partners;
    const float* y = r.middle.forward(r.pair.data(), count);
    for (std::size_t i = first; i < last; ++i) {
      for (int p = 0; p < row_[i].partners; ++p, y += stride) {
        average(i, y, stride, 1.0f / static_cast<float>(row_[i].partners), r.mean.data());
      }
    }
    first = last;
  }
  return r.last.forward(r.mean.data(), groups);
}

void RowEncoder::pullback(const float* g_statistics) {
  const auto code = static_cast<std::size_t>(encoder_.out_stride());
  float* const g_codes = g_codes_.data();
  if (!relation_) {
    for (std::size_t i = 0; i < rows_; ++i) {
      const auto g = static_cast<std::size_t>(group_[i]);
      for (std::size_t h = 0; h < code; ++h) {
        g_codes[i * code + h] = share_[g] * g_statistics[g * code + h];
      }
    }
  } else {
    relation_pullback(g_statistics);
  }
  encoder_.backward(g_codes, false);
}

/// Writes the gradient by the codes to g_codes_.
void RowEncoder::relation_pullback(const float* g_statistics) {
  const auto rows = static_cast<int>(rows_);
  const auto code = static_cast<std::size_t>(encoder_.out_stride());
  Relation& r = *relation_;
  const auto stride = static_cast<std::size_t>(r.hidden_stride);
  const float* g_mean = r.last.backward(g_statistics);
  for (AlignedFloats& g : r.g_half) std::fill_n(g.data(), rows_ * stride, 0.0f);
  const bool once = chunk_end(0) == rows_;  // then the forward pass's activations are still valid
  r.middle_gradient.resize(once ? 0 : rows_of_.size());
  for (std::vector<float>& g : r.middle_gradient) g.assign(r.last_offset - r.middle_offset, 0.0f);
  for (std::size_t first = 0; first < rows_;) {
    const std::size_t last = chunk_end(first);
    int count = 0;
    for (std::size_t i = first; i < last; ++i) {
      const auto g = static_cast<std::size_t>(group_[i]);
      const float scale = share_[g] / static_cast<float>(row_[i].partners);
      for (int p = 0; p < row_[i].partners; ++p, ++count) {
        float* to = r.g_pair.data() + static_cast<std::size_t>(count) * stride;
        for (std::size_t h = 0; h < stride; ++h) to[h] = scale * g_mean[g * stride + h];
      }
    }
    if (!once) {
      pairs(first, last);
      r.middle.forward(r.pair.data(), count);
    }
    const float* g = r.middle.backward(r.g_pair.data());
    int pair = 0;
    for (std::size_t i = first; !once && i < last;) {
      const std::size_t task = row_[i].task;
      int own = 0;  // the task's pairs in the chunk
      for (; i < last && row_[i].task == task; ++i) own += row_[i].partners;
      r.middle.add_gradient(r.middle_gradient[task].data(), pair, own);
      pair += own;
    }
    for (std::size_t i = first; i < last; ++i) {
      float* left = r.g_half[0].data() + i * stride;
      for (int p = 0; p < row_[i].partners; ++p, g += stride) {
        float* right = r.g_half[1].data() + static_cast<std::size_t>(row_[i].first + p) * stride;
        for (std::size_t h = 0; h < stride; ++h) {
          left[h] += g[h];
          right[h] += g[h];
        }
      }
    }
    first = last;
  }
  for (int side = 0; side < 2; ++side) {
    products_.multiply(rows, static_cast<int>(code), r.hidden, r.g_half[side].data(), stride, 1,
                       r.transposed[side].data(), code, g_codes_.data(), code, side == 1);
  }
}

void RowEncoder::add_gradient(std::size_t task, float* g_theta, bool encoder) {
  if (encoder) encoder_.add_gradient(g_theta, first_of_[task], rows_of_[task]);
  if (!relation_) return;
  Relation& r = *relation_;
  float* const g_relation = g_theta + spec_.relation_begin();
  add_halves(task, g_relation);
  float* const middle = g_relation + r.middle_offset;
  if (r.middle_gradient.empty()) {
    r.middle.add_gradient(middle, first_pair_[task], rows_of_[task] * rows_of_[task]);
  } else {
    const std::vector<float>& from = r.middle_gradient[task];
    for (std::size_t i = 0; i < from.size(); ++i) middle[i] += from[i];
  }
  r.last.add_gradient(g_relation + r.last_offset, static_cast<int>(task) * groups_, groups_);
}

/// Gradient of the first layer: its two halves, side by side in the rows of its matrix, and its
/// bias.
void RowEncoder::add_halves(std::size_t task, float* g_relation) {
  Relation& r = *relation_;
  const auto stride = static_cast<std::size_t>(r.hidden_stride);
  const auto code = static_cast<std::size_t>(encoder_.out_stride());
  const auto latent = static_cast<std::size_t>(spec_.latent());
  const auto first = static_cast<std::size_t>(first_of_[task]);
  const float* const codes = codes_ + first * code;
  for (std::size_t side = 0; side < 2; ++side) {
    const float* g = r.g_half[side].data() + first * stride;
    float* const to = g_relation + side * latent;
    if (latent == code) {
      products_.multiply(r.hidden, static_cast<int>(code), rows_of_[task], g, 1, stride, codes,
                         code, to, 2 * latent, true);
      continue;
    }
    products_.multiply(r.hidden, static_cast<int>(code), rows_of_[task], g, 1, stride, codes, code,
                       r.scratch.data(), code, false);
    for (std::size_t o = 0; o < static_cast<std::size_t>(r.hidden); ++o) {
      const float* from = r.scratch.data() + o * code;
      for (std::size_t l = 0; l < latent; ++l) to[o * 2 * latent + l] += from[l];
    }
  }
  if (!r.has_bias) return;
  float* to = g_relation + product(r.hidden, 2 * static_cast<int>(latent));
  for (std::size_t i = first; i < first + static_cast<std::size_t>(rows_of_[task]); ++i) {
    const float* from = r.g_half[0].data() + i * stride;
    for (std::size_t o = 0; o < static_cast<std::size_t>(r.hidden); ++o) to[o] += from[o];
  }
}

}  // namespace kshot::backend::cpu
