#include "backend/host_linear_algebra.h"

namespace kshot::backend {

template <typename T>
DenseOperand<T> HostLinearAlgebra<T>::operand(const Operand& o, int run) {
  const auto stride = static_cast<std::size_t>(o.matrix.columns);
  return {data(o.matrix, run), o.rows(), o.columns(), o.transposed ? 1 : stride,
          o.transposed ? stride : 1};
}

template <typename T>
void HostLinearAlgebra<T>::do_row_indicator(const Matrix& dst, Set set) {
  for (int r = 0; r < runs(); ++r) kernels_.row_indicator(out(dst, r), counts(r), set);
}

template <typename T>
void HostLinearAlgebra<T>::do_class_indicator(const Matrix& dst) {
  for (int r = 0; r < runs(); ++r) kernels_.class_indicator(out(dst, r), counts(r));
}

template <typename T>
void HostLinearAlgebra<T>::do_copy_part(const Matrix& dst, const Matrix& src, const Part& part) {
  for (int r = 0; r < runs(); ++r) kernels_.copy_part(out(dst, r), in(src, r), part);
}

template <typename T>
void HostLinearAlgebra<T>::do_product(const Matrix& c, double factor, const Operand& a,
                                      const Operand& b, bool accumulate) {
  for (int r = 0; r < runs(); ++r) {
    kernels_.product(out(c, r), static_cast<T>(factor), operand(a, r), operand(b, r), accumulate);
  }
}

template <typename T>
void HostLinearAlgebra<T>::do_multiply(const Matrix& dst, double factor, const Matrix& x,
                                       const Matrix& y, bool accumulate) {
  for (int r = 0; r < runs(); ++r) {
    kernels_.multiply(out(dst, r), static_cast<T>(factor), in(x, r), in(y, r), accumulate);
  }
}

template <typename T>
void HostLinearAlgebra<T>::do_sum(const Matrix& dst, double factor, const Matrix& x,
                                  const Matrix& y, bool accumulate) {
  for (int r = 0; r < runs(); ++r) {
    kernels_.sum(out(dst, r), static_cast<T>(factor), in(x, r), in(y, r), accumulate);
  }
}

template <typename T>
void HostLinearAlgebra<T>::do_add_diagonal(const Matrix& a, double factor, const Matrix& s,
                                           std::optional<Set> rows) {
  for (int r = 0; r < runs(); ++r) {
    kernels_.add_diagonal(out(a, r), static_cast<T>(factor), data(s, r), counts(r),
                          rows ? &*rows : nullptr);
  }
}

template <typename T>
void HostLinearAlgebra<T>::do_trace(const Matrix& dst, double factor, const Matrix& a,
                                    bool accumulate) {
  for (int r = 0; r < runs(); ++r) {
    kernels_.trace(data(dst, r), static_cast<T>(factor), in(a, r), accumulate);
  }
}

template <typename T>
void HostLinearAlgebra<T>::do_cholesky(const Matrix& l, const Matrix& a, const Matrix& jittered) {
  for (int r = 0; r < runs(); ++r) {
    kernels_.cholesky(out(l, r), in(a, r), static_cast<T>(cholesky_jitter(precision_)),
                      data(jittered, r));
  }
}

template <typename T>
void HostLinearAlgebra<T>::do_solve_triangular(const Operand& l, Side side, const Matrix& x) {
  // x l^-1 = (l^-T x^T)^T: from the right, every row is a vector and the factor is transposed.
  const bool left = side == Side::left;
  const Operand factor(l.matrix, left ? l.transposed : !l.transposed);
  const auto columns = static_cast<std::size_t>(x.columns);
  for (int r = 0; r < runs(); ++r) {
    kernels_.solve_triangular(operand(factor, r), data(x, r), left ? x.columns : x.rows,
                              left ? columns : 1, left ? 1 : columns);
  }
}

template <typename T>
void HostLinearAlgebra<T>::do_log_determinant(const Matrix& dst, double factor, const Matrix& l) {
  for (int r = 0; r < runs(); ++r) {
    kernels_.log_determinant(data(dst, r), static_cast<T>(factor), in(l, r));
  }
}

template <typename T>
void HostLinearAlgebra<T>::do_unpack_factor(const Matrix& l, const Matrix& f) {
  for (int r = 0; r < runs(); ++r) kernels_.unpack_factor(out(l, r), in(f, r));
}

template <typename T>
void HostLinearAlgebra<T>::do_unpack_factor_pullback(const Matrix& g_f, const Matrix& l,
                                                     const Matrix& g_l) {
  for (int r = 0; r < runs(); ++r) {
    kernels_.unpack_factor_pullback(out(g_f, r), in(l, r), in(g_l, r));
  }
}

template <typename T>
void HostLinearAlgebra<T>::do_distances(const Matrix& dst, const Matrix& a, const Matrix& b,
                                        const Matrix& w) {
  for (int r = 0; r < runs(); ++r) kernels_.distances(out(dst, r), in(a, r), in(b, r), in(w, r));
}

template <typename T>
void HostLinearAlgebra<T>::do_distances_pullback(const Matrix& g, const Matrix& a, const Matrix& b,
                                                 const Matrix& w, const Matrix& g_a,
                                                 const Matrix& g_b, const Matrix& g_w) {
  for (int r = 0; r < runs(); ++r) {
    kernels_.distances_pullback(in(g, r), in(a, r), in(b, r), in(w, r), out(g_a, r), out(g_b, r),
                                out(g_w, r));
  }
}

template <typename T>
void HostLinearAlgebra<T>::do_cosines(const Matrix& dst, const Matrix& a, const Matrix& b) {
  for (int r = 0; r < runs(); ++r) kernels_.cosines(out(dst, r), in(a, r), in(b, r));
}

template <typename T>
void HostLinearAlgebra<T>::do_cosines_pullback(const Matrix& g, const Matrix& a, const Matrix& b,
                                               const Matrix& g_a, const Matrix& g_b) {
  for (int r = 0; r < runs(); ++r) {
    kernels_.cosines_pullback(in(g, r), in(a, r), in(b, r), out(g_a, r), out(g_b, r));
  }
}

namespace {

/// The per-task factor of a Scale, for task l of a run.
double factor(const Scale& scale, const DenseCounts& counts, int l) {
  switch (scale.by) {
    case Scale::By::one:
      break;
    case Scale::By::support:
      return scale.factor / counts.support[l];
    case Scale::By::query:
      return scale.factor / counts.query[l];
    case Scale::By::all:
      return scale.factor / (counts.support[l] + counts.query[l]);
  }
  return scale.factor;
}

}  // namespace

template <typename T>
DenseLoss<T> HostLinearAlgebra<T>::loss_of(const Matrix& loss, Set set, const Scale& scale,
                                           const Matrix& outputs, const Matrix& y, const Matrix& g,
                                           const DenseCounts& sizes, int run) {
  DenseLoss<T> args;
  args.outputs = data(outputs, run);
  args.y = data(y, run);
  args.loss = data(loss, run);
  args.g_outputs = data(g, run);
  args.rows = outputs.rows;
  args.columns = outputs.columns;
  args.set = set;
  for (int l = 0; l < kernels_.lanes; ++l) {
    args.scale[l] = static_cast<T>(factor(scale, sizes, l));
  }
  return args;
}

template <typename T>
void HostLinearAlgebra<T>::do_cross_entropy(const Matrix& loss, Set set, const Scale& scale,
                                            const Matrix& logits, const Matrix& y,
                                            const Matrix& g_logits) {
  for (int r = 0; r < runs(); ++r) {
    const DenseCounts sizes = counts(r);
    kernels_.cross_entropy(loss_of(loss, set, scale, logits, y, g_logits, sizes, r), sizes);
  }
}

template <typename T>
void HostLinearAlgebra<T>::do_squared_error(const Matrix& loss, Set set, const Scale& scale,
                                            const Matrix& outputs, const Matrix& y,
                                            const Matrix& g_outputs) {
  for (int r = 0; r < runs(); ++r) {
    const DenseCounts sizes = counts(r);
    kernels_.squared_error(loss_of(loss, set, scale, outputs, y, g_outputs, sizes, r), sizes);
  }
}

template <typename T>
void HostLinearAlgebra<T>::do_gaussian_nll(const Matrix& loss, Set set, const Scale& scale,
                                           const Matrix& mean, const Matrix& variance,
                                           const Matrix& y, const Matrix& g_mean,
                                           const Matrix& g_variance) {
  for (int r = 0; r < runs(); ++r) {
    const DenseCounts sizes = counts(r);
    DenseLoss<T> args = loss_of(loss, set, scale, mean, y, g_mean, sizes, r);
    args.variance = data(variance, r);
    args.g_variance = data(g_variance, r);
    kernels_.gaussian_nll(args, sizes);
  }
}

template class HostLinearAlgebra<float>;
template class HostLinearAlgebra<double>;

}  // namespace kshot::backend
