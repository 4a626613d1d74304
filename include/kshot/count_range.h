// How many rows or classes a task has: one number, or a range that every task draws its own from.
#pragma once

namespace kshot {

/// The whole numbers from `least` to `most`, both included. A plain number converts to the range
/// that holds only this number.
struct CountRange {
  int least = 0,  ///< Smallest number.
      most = 0;   ///< Largest number.

  constexpr CountRange() = default;
  constexpr CountRange(int number) : least(number), most(number) {}    ///< One number.
  constexpr CountRange(int low, int high) : least(low), most(high) {}  ///< From `low` to `high`.

  constexpr bool fixed() const { return least == most; }  ///< True if the range holds one number.
  bool operator==(const CountRange&) const = default;
};

}  // namespace kshot
