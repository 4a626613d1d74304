// The order of sums over tasks, which does not depend on who computes a task.
//
// Tasks are the leaves of a binary tree over their indices. Node (level, index) is the sum of the
// tasks [index << level, (index + 1) << level). Where one half of a node has no tasks, because the
// meta-batch ends before it, the node is equal to its other half. Sums of up to 16 tasks
// (`run_level`) are in the backend's precision, larger sums in double. A rank computes the nodes
// that its tasks fill. The root follows from the nodes of all ranks, and its bits do not depend on
// the number of ranks.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace kshot::backend {

/// Level of the nodes of 16 tasks.
constexpr int run_level = 4;
/// Number of tasks that are summed in the backend's precision.
constexpr int run_tasks = 1 << run_level;

/// A meta-batch, or a number of episodes, divided among ranks. Every rank has a range of whole
/// units of `unit` tasks, which is a power of two up to 16. A plain number of tasks converts to a
/// TaskShares in which one rank has all tasks.
struct TaskShares {
  TaskShares() = default;
  TaskShares(std::size_t tasks) : total(tasks) {}  // NOLINT(google-explicit-constructor)
  TaskShares(std::size_t tasks, std::size_t unit_tasks, int of_rank, int ranks)
      : total(tasks), unit(unit_tasks), rank(of_rank), size(ranks) {}

  std::size_t total = 0, unit = run_tasks;
  int rank = 0, size = 1;

  /// The first task of rank `r`, or total for r = size.
  std::size_t first(int r) const {
    const std::size_t units = (total + unit - 1) / unit;
    const std::size_t begin =
        units * static_cast<std::size_t>(r) / static_cast<std::size_t>(size) * unit;
    return std::min(begin, total);
  }
  std::size_t count(int r) const { return first(r + 1) - first(r); }
  std::size_t first() const { return first(rank); }
  std::size_t count() const { return count(rank); }
  /// The rank that has task `task`.
  int rank_of(std::size_t task) const {
    int r = 0;
    for (int step = std::bit_ceil(static_cast<unsigned>(size)); step > 0; step /= 2) {
      if (r + step < size && first(r + step) <= task) r += step;
    }
    return r;
  }
  /// Whether this rank has the last tasks of the meta-batch.
  bool last() const { return first(rank + 1) == total; }
  bool operator==(const TaskShares&) const = default;
};

/// Whether ranks exchange their nodes of `width` doubles in pieces: each rank gets the same columns
/// of all nodes, adds them up, and sends the sums to all. Then the exchange grows with the width
/// and not with the number of ranks. Small vectors are sent whole to all ranks, which takes one
/// exchange less. Both ways add in the same order and give the same bits.
inline bool exchanged_in_pieces(int ranks, std::size_t width) {
  return ranks > 2 && width * sizeof(double) >= (std::size_t{64} << 10);
}

/// Nodes of a task tree. They are pushed in ascending order, and two of them are added as soon as
/// both are halves of one node. combine(level, a, b) computes a = a + b, which becomes a node of
/// `level`.
template <class Value>
class TaskTree {
 public:
  struct Node {
    int level = 0;
    std::uint64_t index = 0;
    Value value;
  };

  void clear() { nodes_.clear(); }
  const std::vector<Node>& nodes() const { return nodes_; }
  std::vector<Node>& nodes() { return nodes_; }

  template <class Combine>
  void push(int level, std::uint64_t index, Value value, const Combine& combine) {
    nodes_.push_back({level, index, std::move(value)});
    merge(combine);
  }
  /// Adds the last two nodes while they are the halves of one node.
  template <class Combine>
  void merge(const Combine& combine) {
    while (nodes_.size() > 1) {
      Node& left = nodes_[nodes_.size() - 2];
      Node& right = nodes_.back();
      if (left.level != right.level || left.index + 1 != right.index || left.index % 2 != 0) return;
      join(left, right, combine);
    }
  }
  /// Adds the remaining nodes after the last task. The missing nodes to the right of the last one
  /// have no tasks.
  template <class Combine>
  void close(const Combine& combine) {
    while (nodes_.size() > 1) {
      Node& left = nodes_[nodes_.size() - 2];
      Node& right = nodes_.back();
      if (left.level < right.level || left.index % 2 != 0) return;
      right.index >>= left.level - right.level;
      right.level = left.level;
      if (left.index + 1 != right.index) return;
      join(left, right, combine);
    }
  }

 private:
  template <class Combine>
  void join(Node& left, Node& right, const Combine& combine) {
    combine(left.level + 1, left.value, right.value);
    ++left.level;
    left.index >>= 1;
    nodes_.pop_back();
  }

  std::vector<Node> nodes_;
};

/// The position of a node in the tree, without its value.
struct TreePlace {
  int level = 0;
  std::uint64_t index = 0;
  bool operator==(const TreePlace&) const = default;
};

/// The positions of the nodes that rank `r` has after its last task, if its leaves are nodes of
/// `leaf_level`.
inline std::vector<TreePlace> places_of(const TaskShares& shares, int r, int leaf_level) {
  struct Nothing {};
  TaskTree<Nothing> tree;
  const auto nothing = [](int, Nothing, Nothing) {};
  const std::size_t last = shares.first(r + 1);
  const std::size_t leaf = std::size_t{1} << leaf_level;
  for (std::size_t task = shares.first(r); task < last; task += leaf) {
    tree.push(leaf_level, task >> leaf_level, {}, nothing);
  }
  if (last == shares.total) tree.close(nothing);
  std::vector<TreePlace> places;
  for (const auto& node : tree.nodes()) places.push_back({node.level, node.index});
  return places;
}

}  // namespace kshot::backend
