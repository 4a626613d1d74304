#include "backend/cpu/linear_algebra.h"

namespace kshot::backend::cpu {

void CpuLinearAlgebra::do_product(const Matrix& c, double factor, const Operand& a,
                                  const Operand& b, bool accumulate) {
  if (wave_.run_tasks() == 1) {
    return HostLinearAlgebra::do_product(c, factor, a, b, accumulate);
  }
  const auto row = [](const Operand& o) { return o.transposed ? 1 : o.matrix.columns; };
  const auto column = [](const Operand& o) { return o.transposed ? o.matrix.columns : 1; };
  for (int r = 0; r < runs(); ++r) {
    LaneGemm g;
    g.m = c.rows;
    g.n = c.columns;
    g.k = a.columns();
    g.a[0] = run_data(a.matrix.block, r);
    g.a_row = row(a);
    g.a_col = column(a);
    g.b[0] = run_data(b.matrix.block, r);
    g.b_row = row(b);
    g.b_col = column(b);
    g.c = run_data(c.block, r);
    g.c_row = c.columns;
    g.c_col = 1;
    if (accumulate || factor != 1.0) {
      if (!accumulate) {
        const auto elements =
            static_cast<std::size_t>(c.rows) * static_cast<std::size_t>(c.columns);
        wave_.kernels().fill(g.c, 0.0f, elements);
      }
      g.base = g.c;
      g.scale = static_cast<float>(factor);
    }
    wave_.kernels().lane_gemm(g);
  }
}

}  // namespace kshot::backend::cpu
