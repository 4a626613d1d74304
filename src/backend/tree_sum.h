// Sums of vectors over tasks in the order of task_tree.h, and the exchange of their nodes between
// ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "backend/task_tree.h"
#include "kshot/communicator.h"

namespace kshot::backend {

/// TaskTree's combine for statistics, which are in double from the first task on.
inline constexpr auto add_doubles = [](int, double& a, double b) { a += b; };

/// Nodes are vectors in double. Those of at most 16 tasks hold numbers of T, the backend's
/// precision, and are added in it.
template <typename T>
class TreeSum {
 public:
  using Vector = std::vector<double>;

  void clear() {
    for (auto& node : tree_.nodes()) spare_.push_back(std::move(node.value));
    tree_.clear();
  }
  bool empty() const { return tree_.nodes().empty(); }

  void push(int level, std::uint64_t index, std::span<const T> values) {
    push_pieces(level, index, values.size(),
                [&](const auto& put) { put(0, values.size(), values.data()); });
  }
  /// A node of `width` elements that come piece by piece: each(put) calls put(first, count, T
  /// values).
  template <class Each>
  void push_pieces(int level, std::uint64_t index, std::size_t width, const Each& each) {
    Vector v = new_vector(width);
    each([&](std::size_t first, std::size_t count, const T* values) {
      double* const to = v.data() + first;
      for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<double>(values[i]);
    });
    tree_.push(level, index, std::move(v), combine());
  }
  void close() { tree_.close(combine()); }

  /// The sum of all tasks, once nothing is missing; zeros of `width` where there are no tasks.
  const Vector& root(std::size_t width) {
    if (empty()) tree_.nodes().push_back({0, 0, Vector(width, 0.0)});
    if (tree_.nodes().size() != 1) throw std::logic_error("reduction: tasks are missing");
    return tree_.nodes().front().value;
  }

  /// From this rank's nodes, which are all of its share, to the root of all ranks.
  void exchange(Communicator& ranks, const TaskShares& shares, std::size_t width) {
    if (!exchanged_in_pieces(shares.size, width)) {
      Vector mine;
      for (const auto& node : tree_.nodes()) {
        mine.insert(mine.end(), node.value.begin(), node.value.end());
      }
      fold(ranks.all_gather(mine, "sums over tasks"), shares, width);
      return;
    }
    const auto piece = [&](int r) {
      return width * static_cast<std::size_t>(r) / static_cast<std::size_t>(shares.size);
    };
    std::vector<Communicator::Bytes> to(static_cast<std::size_t>(shares.size));
    for (int r = 0; r < shares.size; ++r) {
      for (const auto& node : tree_.nodes()) {
        const auto bytes =
            std::as_bytes(std::span(node.value).subspan(piece(r), piece(r + 1) - piece(r)));
        to[static_cast<std::size_t>(r)].insert(to[static_cast<std::size_t>(r)].end(), bytes.begin(),
                                               bytes.end());
      }
    }
    std::vector<Vector> parts;
    for (const Communicator::Bytes& bytes : ranks.all_to_all(to, "pieces of sums over tasks")) {
      parts.emplace_back(bytes.size() / sizeof(double));
      if (!bytes.empty()) std::memcpy(parts.back().data(), bytes.data(), bytes.size());
    }
    const std::size_t own = piece(shares.rank + 1) - piece(shares.rank);
    fold(parts, shares, own);
    const Vector mine = this->root(own);
    const std::vector<Vector> whole =
        ranks.all_gather(std::span<const double>(mine), "sums over tasks");
    Vector root(width, 0.0);
    std::size_t at = 0;
    for (const Vector& part : whole) {
      if (at + part.size() > width) throw std::logic_error("reduction: pieces of another size");
      std::copy(part.begin(), part.end(), root.begin() + static_cast<std::ptrdiff_t>(at));
      at += part.size();
    }
    tree_.clear();
    tree_.nodes().push_back({0, 0, std::move(root)});
  }

 private:
  /// all[r]: the nodes of rank r, one after another.
  void fold(const std::vector<Vector>& all, const TaskShares& shares, std::size_t width) {
    clear();
    spare_.clear();  // of another width
    for (int r = 0; r < shares.size; ++r) {
      const Vector& of = all[static_cast<std::size_t>(r)];
      const auto places =
          places_of(shares, r, std::countr_zero(static_cast<unsigned>(shares.unit)));
      if (of.size() != places.size() * width) throw std::logic_error("reduction: other tasks");
      for (std::size_t n = 0; n < places.size(); ++n) {
        const auto first = of.begin() + static_cast<std::ptrdiff_t>(n * width);
        tree_.push(places[n].level, places[n].index,
                   Vector(first, first + static_cast<std::ptrdiff_t>(width)), combine());
      }
    }
    tree_.close(combine());
  }
  Vector new_vector(std::size_t size) {
    if (spare_.empty()) return Vector(size);
    Vector v = std::move(spare_.back());
    spare_.pop_back();
    v.resize(size);
    return v;
  }
  auto combine() {
    return [this](int level, Vector& a, Vector& b) {
      double* const __restrict to = a.data();
      const double* const __restrict from = b.data();
      if (level <= run_level) {
        for (std::size_t i = 0; i < a.size(); ++i) {
          to[i] = static_cast<double>(static_cast<T>(to[i]) + static_cast<T>(from[i]));
        }
      } else {
        for (std::size_t i = 0; i < a.size(); ++i) to[i] += from[i];
      }
      spare_.push_back(std::move(b));
    };
  }

  TaskTree<Vector> tree_;
  std::vector<Vector> spare_;
};

}  // namespace kshot::backend
