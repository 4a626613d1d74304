#include "engine/row_exchange.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace kshot {
namespace {

/// Appends a row to a message: a flag whether there is one, then its numbers.
void append(Communicator::Bytes& to, bool there, std::span<const double> row) {
  to.push_back(there ? std::byte{1} : std::byte{0});
  if (!there) return;
  const auto bytes = std::as_bytes(row);
  to.insert(to.end(), bytes.begin(), bytes.end());
}

/// Reads what append has written and moves `at` behind it.
bool take(const Communicator::Bytes& from, std::size_t& at, std::span<double> row) {
  if (at >= from.size()) throw std::logic_error("rows of other tasks");
  if (from[at++] == std::byte{0}) return false;
  if (from.size() - at < row.size_bytes()) throw std::logic_error("rows of other tasks");
  std::memcpy(row.data(), from.data() + at, row.size_bytes());
  at += row.size_bytes();
  return true;
}

}  // namespace

RowExchange::RowExchange(TaskMemory& memory, Communicator* ranks, const backend::TaskShares& shares,
                         std::span<const std::uint32_t> tasks, std::uint64_t since,
                         std::uint64_t step)
    : memory_(memory),
      ranks_(ranks),
      shares_(shares),
      tasks_(tasks.begin(), tasks.end()),
      since_(since),
      step_(step),
      width_(memory.layout().width()) {
  if (ranks_ == nullptr) return;
  const std::size_t own = shares_.count();
  known_.resize(own);
  kept_.resize(own);
  rows_.resize(own * width_);
  std::vector<Communicator::Bytes> to(static_cast<std::size_t>(shares_.size));
  std::vector<double> row(width_);
  each([&](int computes, int keeps, std::size_t position) {
    if (keeps != shares_.rank) return;
    const bool there = memory_.recall(tasks_[position], since_, row);
    append(to[static_cast<std::size_t>(computes)], there, row);
  });
  const std::vector<Communicator::Bytes> from =
      ranks_->all_to_all(to, "per-task state before a step");
  std::vector<std::size_t> at(from.size(), 0);
  each([&](int computes, int keeps, std::size_t position) {
    if (computes != shares_.rank) return;
    const auto r = static_cast<std::size_t>(keeps);
    const std::size_t i = position - shares_.first();
    known_[i] = take(from[r], at[r], std::span(rows_).subspan(i * width_, width_)) ? 1 : 0;
  });
}

template <class Visit>
void RowExchange::each(const Visit& visit) const {
  const backend::TaskShares owners = memory_.layout().owners();
  for (int r = 0; r < shares_.size; ++r) {
    for (std::size_t p = shares_.first(r); p < shares_.first(r + 1); ++p) {
      visit(r, owners.rank_of(tasks_[p]), p);
    }
  }
}

bool RowExchange::recall(std::size_t position, std::span<double> row) const {
  if (ranks_ == nullptr) return memory_.recall(tasks_[position], since_, row);
  const std::size_t i = position - shares_.first();
  if (known_[i] == 0) return false;
  std::ranges::copy(std::span(rows_).subspan(i * width_, width_), row.begin());
  return true;
}

void RowExchange::keep(std::size_t position, std::span<const double> row) {
  if (ranks_ == nullptr) return memory_.keep(tasks_[position], step_, row);
  const std::size_t i = position - shares_.first();
  kept_[i] = 1;
  std::ranges::copy(row, rows_.begin() + static_cast<std::ptrdiff_t>(i * width_));
}

void RowExchange::finish() {
  if (ranks_ == nullptr) return;
  std::vector<Communicator::Bytes> to(static_cast<std::size_t>(shares_.size));
  each([&](int computes, int keeps, std::size_t position) {
    if (computes != shares_.rank) return;
    const std::size_t i = position - shares_.first();
    append(to[static_cast<std::size_t>(keeps)], kept_[i] != 0,
           std::span(rows_).subspan(i * width_, width_));
  });
  const std::vector<Communicator::Bytes> from =
      ranks_->all_to_all(to, "per-task state after a step");
  std::vector<std::size_t> at(from.size(), 0);
  std::vector<double> row(width_);
  each([&](int computes, int keeps, std::size_t position) {
    if (keeps != shares_.rank) return;
    const auto r = static_cast<std::size_t>(computes);
    if (take(from[r], at[r], row)) memory_.keep(tasks_[position], step_, row);
  });
}

}  // namespace kshot
