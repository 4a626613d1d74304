// Stand-in for Thrust's header of this name.
#pragma once

#include <cstddef>
#include <iterator>

namespace thrust {
inline namespace emulated {

/// value, value + 1, ...
template <class T>
class counting_iterator {
 public:
  using iterator_category = std::random_access_iterator_tag;
  using value_type = T;
  using difference_type = std::ptrdiff_t;
  using pointer = const T*;
  using reference = T;

  explicit counting_iterator(T value) : value_(value) {}
  T operator*() const { return value_; }
  counting_iterator operator+(difference_type n) const {
    return counting_iterator(static_cast<T>(value_ + static_cast<T>(n)));
  }
  difference_type operator-(const counting_iterator& other) const {
    return static_cast<difference_type>(value_) - static_cast<difference_type>(other.value_);
  }

 private:
  T value_;
};

template <class T>
counting_iterator<T> make_counting_iterator(T value) {
  return counting_iterator<T>(value);
}

}  // namespace emulated
}  // namespace thrust
