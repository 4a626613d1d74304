// Dual numbers: a value and its derivative along one direction. A formula that is written on a
// scalar type T computes its tangent with T = Dual. The code of a gradient with T = Dual computes a
// Hessian-vector product (forward over reverse, Pearlmutter 1994).
#pragma once

#include <cmath>

namespace kshot::backend::reference {

struct Dual {
  double value = 0.0;
  double tangent = 0.0;

  Dual() = default;
  Dual(double v) : value(v) {}  // NOLINT(google-explicit-constructor): constants have no tangent
  Dual(double v, double t) : value(v), tangent(t) {}

  Dual& operator+=(const Dual& b) { return *this = {value + b.value, tangent + b.tangent}; }
  Dual& operator-=(const Dual& b) { return *this = {value - b.value, tangent - b.tangent}; }
};

inline Dual operator+(const Dual& a, const Dual& b) {
  return {a.value + b.value, a.tangent + b.tangent};
}
inline Dual operator-(const Dual& a, const Dual& b) {
  return {a.value - b.value, a.tangent - b.tangent};
}
inline Dual operator*(const Dual& a, const Dual& b) {
  return {a.value * b.value, a.tangent * b.value + a.value * b.tangent};
}
inline Dual operator/(const Dual& a, const Dual& b) {
  const double quotient = a.value / b.value;
  return {quotient, (a.tangent - quotient * b.tangent) / b.value};
}
inline Dual exp(const Dual& a) {
  const double e = std::exp(a.value);
  return {e, e * a.tangent};
}
inline Dual log(const Dual& a) {
  return {std::log(a.value), a.tangent / a.value};
}
inline Dual sqrt(const Dual& a) {
  const double root = std::sqrt(a.value);
  return {root, a.tangent / (2.0 * root)};
}
inline Dual tanh(const Dual& a) {
  const double t = std::tanh(a.value);
  return {t, (1.0 - t * t) * a.tangent};
}

/// The value that decides branches: the sign in relu, the largest element of a window.
inline double primal(double a) {
  return a;
}
inline double primal(const Dual& a) {
  return a.value;
}

}  // namespace kshot::backend::reference
