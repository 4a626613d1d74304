// How many rows or classes a task has: one number, or a range that every task draws its own from.
#pragma once

namespace kshot {

/// The whole numbers from `least` to `most`, both included. A plain number stands for the range
/// that holds it alone.
struct CountRange {
  int least = 0, most = 0;

  constexpr CountRange() = default;
  constexpr CountRange(int number) : least(number), most(number) {}    ///< one number
  constexpr CountRange(int low, int high) : least(low), most(high) {}  ///< a range

  constexpr bool fixed() const { return least == most; }  ///< whether it holds one number
  bool operator==(const CountRange&) const = default;
};

}  // namespace kshot
