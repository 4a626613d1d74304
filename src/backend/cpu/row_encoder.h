// Support rows of several tasks to the statistics of their latents (backend/generator.h), and back.
//
// No pair of rows is ever written down. The relation network's first layer splits,
//   W [e_i; e_j] = W_a e_i + W_b e_j,
// so that it is two products of n rows; and what is averaged over partners and over a group's rows
// is averaged before the last layer, which is linear. Between them pairs pass in chunks.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "backend/cpu/shared_network.h"
#include "backend/generator.h"

namespace kshot::backend::cpu {

class RowEncoder {
 public:
  /// For at most `tasks` tasks of `groups` groups with `rows` rows each.
  RowEncoder(Products& products, const GeneratorSpec& spec, int tasks, int groups, int rows);

  /// Packs the weights of the encoder and the relation network.
  void pack(const float* theta);

  int in_stride() const { return encoder_.in_stride(); }
  /// Of a group's statistics (m, then u).
  int out_stride() const { return out_stride_; }

  /// Rows of the tasks, one task after another: rows_of[t] each, as many in all as `group` has
  /// entries: a row's group, counted over all tasks. x [rows, in_stride] must stay until pullback.
  /// [tasks * groups, out_stride].
  const float* forward(const float* x, const std::vector<int>& rows_of,
                       const std::vector<int>& group);
  /// g_theta += the gradient of both networks, from that of the last forward's statistics.
  void pullback(const float* g_statistics, float* g_theta);

 private:
  /// One row with all its partners.
  struct Row {
    int first = 0, partners = 0;  ///< of its task
  };
  void pairs(std::size_t first, std::size_t last);
  std::size_t chunk_end(std::size_t first) const;

  Products& products_;
  const GeneratorSpec& spec_;
  int groups_;  ///< of a task
  SharedNetwork encoder_;
  // The relation network in its three parts.
  struct Relation {
    SharedNetwork middle, last;
    std::size_t middle_at = 0, last_at = 0;  ///< their weights
    int hidden = 0, hidden_stride = 0;
    bool has_bias = false;
    AlignedFloats packed[2] = {};      ///< halves of the first layer, [L][hidden_stride]
    AlignedFloats transposed[2] = {};  ///< [hidden][code stride]
    AlignedFloats bias = {};           ///< [hidden_stride]
    AlignedFloats half[2] = {};        ///< of each row
    AlignedFloats g_half[2] = {};
    AlignedFloats pair = {}, g_pair = {};  ///< [pairs of a chunk, hidden_stride]
    AlignedFloats mean = {};               ///< of each group
    AlignedFloats scratch = {};
  };
  std::optional<Relation> relation_;
  int most_pairs_ = 0;
  int out_stride_ = 0;
  AlignedFloats statistics_, g_codes_;
  // of the last forward
  const float* x_ = nullptr;
  const float* codes_ = nullptr;
  std::size_t rows_ = 0, all_groups_ = 0;
  std::vector<Row> row_;
  std::vector<int> group_;
  std::vector<float> share_;  ///< 1 / rows of a group
};

}  // namespace kshot::backend::cpu
