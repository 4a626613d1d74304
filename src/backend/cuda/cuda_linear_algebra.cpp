#include "backend/cuda/cuda_linear_algebra.h"

#include <optional>
#include <type_traits>

#include "kernels/linear_algebra.h"
#include "kernels/product.h"
#include "kernels/similarity.h"
#include "kernels/task_matrix.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

using backend::Operand;
using backend::Scale;
using backend::Set;
using backend::Side;
using TasksMatrix = backend::Matrix;  // product.h also has a Matrix

/// Each operation is one or two launches on the wave's stream. No operation waits or allocates
/// memory.
template <class T>
class CudaLinearAlgebra final : public backend::LinearAlgebra {
 public:
  explicit CudaLinearAlgebra(CudaWave<T>& wave) : LinearAlgebra(wave), wave_(wave) {}

 protected:
  void do_targets(const TasksMatrix& dst, Set set) override {
    const auto rows = wave_.target_rows(set);
    if (rows.labels) return cuda::one_hot(out(dst), rows.labels, rows.extent, stream());
    const int columns = dst.columns;
    cuda::own_rows(wave_.at(dst.block), rows.values, columns, rows.extent, stream());
  }
  void do_row_indicator(const TasksMatrix& dst, Set set) override {
    cuda::row_indicator(out(dst), rows_of(set), tasks(), stream());
  }
  void do_class_indicator(const TasksMatrix& dst) override {
    cuda::class_indicator(out(dst), wave_.ways(), tasks(), stream());
  }

  void do_copy_part(const TasksMatrix& dst, const TasksMatrix& src, const Part& part) override {
    TaskMatrix<T> to = out(dst);
    TaskMatrix<const T> from = in(src);
    to.data += part.dst_row * dst.columns + part.dst_column;
    from.data += part.src_row * src.columns + part.src_column;
    cuda::copy_matrix(to, from, part.rows, part.columns, tasks(), stream());
  }
  void do_product(const TasksMatrix& c, double factor, const Operand& a, const Operand& b,
                  bool accumulate) override {
    Product<T> p;
    p.m = c.rows;
    p.n = c.columns;
    p.k = a.columns();
    p.batch = tasks();
    p.first = {operand(a), operand(b)};
    p.c = wave_.at(c.block);
    p.c_row = static_cast<std::size_t>(c.columns);
    p.c_batch = wave_.width(c.block);
    p.alpha = static_cast<T>(factor);
    p.accumulate = accumulate;
    cuda::multiply_matrices(p, stream());
  }
  void do_multiply(const TasksMatrix& dst, double factor, const TasksMatrix& x,
                   const TasksMatrix& y, bool accumulate) override {
    cuda::multiply_elements(out(dst), static_cast<T>(factor), in(x), in(y), accumulate, tasks(),
                            stream());
  }
  void do_sum(const TasksMatrix& dst, double factor, const TasksMatrix& x, const TasksMatrix& y,
              bool accumulate) override {
    cuda::sum_elements(out(dst), static_cast<T>(factor), in(x), in(y), accumulate, tasks(),
                       stream());
  }

  void do_add_diagonal(const TasksMatrix& a, double factor, const TasksMatrix& s,
                       std::optional<Set> rows) override {
    cuda::add_diagonal(out(a), static_cast<T>(factor), in(s), rows ? rows_of(*rows) : RowsOfTask{},
                       tasks(), stream());
  }
  void do_trace(const TasksMatrix& dst, double factor, const TasksMatrix& a,
                bool accumulate) override {
    cuda::trace(out(dst), static_cast<T>(factor), in(a), accumulate, tasks(), stream());
  }
  void do_cholesky(const TasksMatrix& l, const TasksMatrix& a,
                   const TasksMatrix& jittered) override {
    constexpr auto precision =
        std::is_same_v<T, double> ? backend::Precision::f64 : backend::Precision::f32;
    const Jitter<T> jitter{static_cast<T>(backend::cholesky_jitter(precision)), T(10),
                           backend::cholesky_jitters};
    cuda::cholesky(out(l), in(a), out(jittered), jitter, tasks(), stream());
  }
  void do_solve_triangular(const Operand& l, Side side, const TasksMatrix& x) override {
    // x l^-1 = (l^-T x^T)^T: from the right, every row is a vector, and the factor is transposed.
    TaskVectors<T> vectors{wave_.at(x.block), wave_.width(x.block), x.columns, x.columns, 1};
    if (side == Side::right) {
      vectors.count = x.rows;
      vectors.element = 1;
      vectors.vector = x.columns;
    }
    cuda::solve_triangular(vectors, in(l.matrix), l.transposed != (side == Side::right), tasks(),
                           stream());
  }
  void do_log_determinant(const TasksMatrix& dst, double factor, const TasksMatrix& l) override {
    cuda::log_determinant(out(dst), static_cast<T>(factor), in(l), tasks(), stream());
  }
  void do_unpack_factor(const TasksMatrix& l, const TasksMatrix& f) override {
    cuda::unpack_factor(out(l), in(f), tasks(), stream());
  }
  void do_unpack_factor_pullback(const TasksMatrix& g_f, const TasksMatrix& l,
                                 const TasksMatrix& g_l) override {
    cuda::unpack_factor_pullback(out(g_f), in(l), in(g_l), tasks(), stream());
  }

  void do_distances(const TasksMatrix& dst, const TasksMatrix& a, const TasksMatrix& b,
                    const TasksMatrix& w) override {
    cuda::distances(out(dst), in(a), in(b), in(w), tasks(), stream());
  }
  void do_distances_pullback(const TasksMatrix& g, const TasksMatrix& a, const TasksMatrix& b,
                             const TasksMatrix& w, const TasksMatrix& g_a, const TasksMatrix& g_b,
                             const TasksMatrix& g_w) override {
    cuda::distances_pullback(in(g), in(a), in(b), in(w), out(g_a), out(g_b), out(g_w), tasks(),
                             stream());
  }
  void do_cosines(const TasksMatrix& dst, const TasksMatrix& a, const TasksMatrix& b) override {
    cuda::cosines(out(dst), in(a), in(b), static_cast<T>(backend::cosine_epsilon), tasks(),
                  stream());
  }
  void do_cosines_pullback(const TasksMatrix& g, const TasksMatrix& a, const TasksMatrix& b,
                           const TasksMatrix& g_a, const TasksMatrix& g_b) override {
    cuda::cosines_pullback(in(g), in(a), in(b), static_cast<T>(backend::cosine_epsilon), out(g_a),
                           out(g_b), tasks(), stream());
  }

  void do_cross_entropy(const TasksMatrix& loss, Set set, const Scale& scale,
                        const TasksMatrix& logits, const TasksMatrix& y,
                        const TasksMatrix& g_logits) override {
    cuda::cross_entropy(loss_of(loss, set, scale, logits, y, g_logits), wave_.ways(), stream());
  }
  void do_squared_error(const TasksMatrix& loss, Set set, const Scale& scale,
                        const TasksMatrix& outputs, const TasksMatrix& y,
                        const TasksMatrix& g_outputs) override {
    cuda::squared_error(loss_of(loss, set, scale, outputs, y, g_outputs), stream());
  }
  void do_gaussian_nll(const TasksMatrix& loss, Set set, const Scale& scale,
                       const TasksMatrix& mean, const TasksMatrix& variance, const TasksMatrix& y,
                       const TasksMatrix& g_mean, const TasksMatrix& g_variance) override {
    cuda::gaussian_nll(loss_of(loss, set, scale, mean, y, g_mean), in(variance), out(g_variance),
                       stream());
  }

 private:
  int tasks() const { return wave_.count(); }
  cudaStream_t stream() const { return wave_.stream().get(); }

  TaskMatrix<T> out(const TasksMatrix& m) {
    if (!m) return {};
    return {wave_.at(m.block), m.rows, m.columns, wave_.width(m.block)};
  }
  TaskMatrix<const T> in(const TasksMatrix& m) const {
    if (!m) return {};
    return {wave_.data(m.block), m.rows, m.columns, wave_.width(m.block)};
  }
  Matrix<T> operand(const Operand& o) const {
    Matrix<T> factor{wave_.data(o.matrix.block), static_cast<std::size_t>(o.matrix.columns), 1,
                     wave_.width(o.matrix.block)};
    if (o.transposed) std::swap(factor.row, factor.column);
    return factor;
  }
  RowsOfTask rows_of(Set set) const {
    if (set != Set::all) return {wave_.target_rows(set).extent.counts};
    return {wave_.target_rows(Set::support).extent.counts,
            wave_.target_rows(Set::query).extent.counts, wave_.rows(Set::support)};
  }
  MatrixLoss<T> loss_of(const TasksMatrix& loss, Set set, const Scale& scale,
                        const TasksMatrix& outputs, const TasksMatrix& y, const TasksMatrix& g) {
    return {out(loss), wave_.task_scale(scale), wave_.target_rows(set).extent, in(outputs), in(y),
            out(g)};
  }

  CudaWave<T>& wave_;
};

}  // namespace

template <class T>
std::unique_ptr<backend::LinearAlgebra> make_linear_algebra(CudaWave<T>& wave) {
  return std::make_unique<CudaLinearAlgebra<T>>(wave);
}

template std::unique_ptr<backend::LinearAlgebra> make_linear_algebra(CudaWave<float>&);
template std::unique_ptr<backend::LinearAlgebra> make_linear_algebra(CudaWave<double>&);

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
