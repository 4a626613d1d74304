// The map from support rows of several tasks to the statistics of their latents
// (backend/generator.h), and its pull-back.
//
// Pairs of rows are never stored as inputs. The relation network's first layer splits,
//   W [e_i; e_j] = W_a e_i + W_b e_j,
// so that it is two products of n rows. The mean over partners and over a group's rows is taken
// before the last layer, which is linear. Between these two layers, pairs pass in chunks.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "backend/cpu/shared_network.h"
#include "backend/generator.h"

namespace kshot::backend::cpu {

/// The encoder and the relation network on rows of several tasks.
class RowEncoder {
 public:
  /// For at most `tasks` tasks of `groups` groups with `rows` rows each.
  RowEncoder(Products& products, const GeneratorSpec& spec, int tasks, int groups, int rows);

  /// Packs the weights of the encoder and the relation network.
  void pack(const float* theta);

  int in_stride() const { return encoder_.in_stride(); }
  /// Stride of a group's statistics (m, then u).
  int out_stride() const { return out_stride_; }

  /// Returns the statistics [tasks * groups, out_stride] of the rows x [rows, in_stride], which lie
  /// task after task. rows_of[t] is the number of rows of task t, and group[r] the group of row r,
  /// counted over all tasks. x must stay valid until pullback.
  const float* forward(const float* x, const std::vector<int>& rows_of,
                       const std::vector<int>& group);
  /// Computes the gradient by both networks from that by the last forward's statistics. It is held
  /// in its parts until the next forward; add_gradient multiplies it out.
  void pullback(const float* g_statistics);
  /// g_theta += task t's part of the gradient. Without `encoder`, the encoder's part is left to the
  /// caller, who multiplies code_gradients() [rows, codes] by x.
  void add_gradient(std::size_t task, float* g_theta, bool encoder = true);
  const float* code_gradients() const { return g_codes_.data(); }
  int code_stride() const { return encoder_.out_stride(); }

 private:
  /// One row with all its partners.
  struct Row {
    int first = 0, partners = 0;  ///< first row and number of rows of the row's task
    std::size_t task = 0;
  };
  void pairs(std::size_t first, std::size_t last);
  void relation_pullback(const float* g_statistics);
  void add_halves(std::size_t task, float* g_relation);
  std::size_t chunk_end(std::size_t first) const;

  Products& products_;
  const GeneratorSpec& spec_;
  int groups_;  ///< groups per task
  SharedNetwork encoder_;
  // The relation network in its three parts: the first layer (its halves), the middle, and the last
  // layer.
  struct Relation {
    SharedNetwork middle, last;
    std::size_t middle_offset = 0, last_offset = 0;  ///< offsets of their weights
    int hidden = 0, hidden_stride = 0;
    bool has_bias = false;
    AlignedFloats packed[2] = {};      ///< halves of the first layer, [L][hidden_stride]
    AlignedFloats transposed[2] = {};  ///< [hidden][code stride]
    AlignedFloats bias = {};           ///< [hidden_stride]
    AlignedFloats half[2] = {};  ///< output of each half of the first layer, [rows][hidden_stride]
    AlignedFloats g_half[2] = {};
    AlignedFloats pair = {}, g_pair = {};  ///< [pairs of a chunk, hidden_stride]
    AlignedFloats mean = {};               ///< mean over pairs, [groups][hidden_stride]
    AlignedFloats scratch = {};
    /// The middle's gradients per task, used where the pairs take more than one chunk.
    std::vector<std::vector<float>> middle_gradient = {};
  };
  std::optional<Relation> relation_;
  int most_pairs_ = 0;
  int out_stride_ = 0;
  AlignedFloats statistics_, g_codes_;
  // Values of the last forward.
  const float* x_ = nullptr;
  const float* codes_ = nullptr;
  std::size_t rows_ = 0, all_groups_ = 0;
  std::vector<Row> row_;
  std::vector<int> rows_of_, first_of_, first_pair_;  ///< per task
  std::vector<int> group_;
  std::vector<float> share_;  ///< 1 / (rows of the group)
};

}  // namespace kshot::backend::cpu
