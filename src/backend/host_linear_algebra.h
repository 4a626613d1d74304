// LinearAlgebra on blocks in host memory. It calls the kernels of a table (dense_kernels.h) once
// per run of tasks, where a run is a group of tasks whose elements are stored side by side.
#pragma once

#include "backend/dense_kernels.h"
#include "backend/linear_algebra.h"

namespace kshot::backend {

template <typename T>
class HostLinearAlgebra : public LinearAlgebra {
 public:
  HostLinearAlgebra(Wave& wave, Precision precision, const DenseKernels<T>& kernels)
      : LinearAlgebra(wave), precision_(precision), kernels_(kernels) {}

 protected:
  // ---- blocks and tasks, which the wave provides ----
  /// Number of runs that the wave's blocks consist of. Each run has kernels_.lanes tasks.
  virtual int runs() const { return 1; }
  /// The elements of a block for one run, element-major.
  virtual T* run_data(Block block, int run) = 0;
  /// The sizes of the tasks of a run.
  virtual DenseCounts counts(int run) const = 0;

  void do_row_indicator(const Matrix& dst, Set set) override;
  void do_class_indicator(const Matrix& dst) override;
  void do_copy_part(const Matrix& dst, const Matrix& src, const Part& part) override;
  void do_product(const Matrix& c, double factor, const Operand& a, const Operand& b,
                  bool accumulate) override;
  void do_multiply(const Matrix& dst, double factor, const Matrix& x, const Matrix& y,
                   bool accumulate) override;
  void do_sum(const Matrix& dst, double factor, const Matrix& x, const Matrix& y,
              bool accumulate) override;
  void do_add_diagonal(const Matrix& a, double factor, const Matrix& s,
                       std::optional<Set> rows) override;
  void do_trace(const Matrix& dst, double factor, const Matrix& a, bool accumulate) override;
  void do_cholesky(const Matrix& l, const Matrix& a, const Matrix& jittered) override;
  void do_solve_triangular(const Operand& l, Side side, const Matrix& x) override;
  void do_log_determinant(const Matrix& dst, double factor, const Matrix& l) override;
  void do_unpack_factor(const Matrix& l, const Matrix& f) override;
  void do_unpack_factor_pullback(const Matrix& g_f, const Matrix& l, const Matrix& g_l) override;
  void do_distances(const Matrix& dst, const Matrix& a, const Matrix& b, const Matrix& w) override;
  void do_distances_pullback(const Matrix& g, const Matrix& a, const Matrix& b, const Matrix& w,
                             const Matrix& g_a, const Matrix& g_b, const Matrix& g_w) override;
  void do_cosines(const Matrix& dst, const Matrix& a, const Matrix& b) override;
  void do_cosines_pullback(const Matrix& g, const Matrix& a, const Matrix& b, const Matrix& g_a,
                           const Matrix& g_b) override;
  void do_cross_entropy(const Matrix& loss, Set set, const Scale& scale, const Matrix& logits,
                        const Matrix& y, const Matrix& g_logits) override;
  void do_squared_error(const Matrix& loss, Set set, const Scale& scale, const Matrix& outputs,
                        const Matrix& y, const Matrix& g_outputs) override;
  void do_gaussian_nll(const Matrix& loss, Set set, const Scale& scale, const Matrix& mean,
                       const Matrix& variance, const Matrix& y, const Matrix& g_mean,
                       const Matrix& g_variance) override;

  Precision precision_;
  const DenseKernels<T>& kernels_;

 private:
  T* data(const Matrix& m, int run) { return m ? run_data(m.block, run) : nullptr; }
  DenseMatrix<T> out(const Matrix& m, int run) { return {data(m, run), m.rows, m.columns}; }
  DenseMatrix<const T> in(const Matrix& m, int run) { return {data(m, run), m.rows, m.columns}; }
  DenseOperand<T> operand(const Operand& o, int run);
  DenseLoss<T> loss_of(const Matrix& loss, Set set, const Scale& scale, const Matrix& outputs,
                       const Matrix& y, const Matrix& g, const DenseCounts& counts, int run);
};

}  // namespace kshot::backend
