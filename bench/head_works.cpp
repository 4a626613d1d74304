// Works of the kernels for closed-form heads: small matrices per task, from 5-way 5-shot tasks with
// 15 queries per class and 64 features.
#include <algorithm>
#include <cstddef>
#include <utility>

#include "bench/kernel_works.h"
#include "kernels/linear_algebra.h"
#include "kernels/similarity.h"
#include "kernels/task_matrix.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

/// Sizes of the tasks, and their matrices.
struct HeadProblem {
  const char* name = "5way_5shot_64";
  int tasks = 4096, support = 25, query = 75, features = 64, ways = 5;

  static std::size_t area(int rows, int columns) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  }
  std::size_t all(int rows, int columns) const {
    return static_cast<std::size_t>(tasks) * area(rows, columns);
  }
  TaskMatrix<float> out(Arena& a, int rows, int columns) const {
    return {a.zeros(all(rows, columns)), rows, columns, area(rows, columns)};
  }
  TaskMatrix<const float> in(Arena& a, int rows, int columns, float low = -1.0f,
                             float high = 1.0f) const {
    return {a.uniform(all(rows, columns), low, high), rows, columns, area(rows, columns)};
  }
  /// Identity matrices. They are their own factors and inverses.
  TaskMatrix<const float> identity(Arena& a, int n) const {
    std::vector<float> values(all(n, n), 0.0f);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t of_task = i % area(n, n);
      if (of_task / static_cast<std::size_t>(n) == of_task % static_cast<std::size_t>(n)) {
        values[i] = 1.0f;
      }
    }
    return {a.upload(values), n, n, area(n, n)};
  }
  MatrixLoss<float> loss_of(Arena& a, float scale) const {
    return {out(a, 1, 1),       {scale, nullptr},   {tasks, query, nullptr},
            in(a, query, ways), in(a, query, ways), out(a, query, ways)};
  }
};

class HeadWorks : public WorkList {
 public:
  explicit HeadWorks(bool smoke) : WorkList(smoke) {
    if (smoke) p_ = {"tiny", 2, 3, 4, 5, 2};
    rows_and_classes();
    elements();
    systems();
    similarities();
    losses();
  }

 private:
  using WorkList::add;
  /// Adds a work. `numbers` and `flops` are per task.
  void add(const char* launcher, double numbers, double flops, std::function<Run(Arena&)> prepare) {
    add(launcher, p_.name, p_.tasks, numbers * p_.tasks, flops * p_.tasks, std::move(prepare));
  }

  void rows_and_classes() {
    const HeadProblem& p = p_;
    const double numbers = p.query * p.ways;
    add("one_hot", numbers + p.query, numbers, [p](Arena& a) -> Run {
      return [dst = p.out(a, p.query, p.ways), labels = a.labels(p.all(p.query, 1), p.ways),
              rows = RowExtent{p.tasks, p.query, nullptr}](cudaStream_t s) {
        one_hot(dst, labels, rows, s);
      };
    });
    add("row_indicator", p.query, p.query, [p](Arena& a) -> Run {
      return [dst = p.out(a, p.query, 1), own = RowsOfTask{a.labels(p.all(1, 1), p.query)},
              tasks = p.tasks](cudaStream_t s) { row_indicator(dst, own, tasks, s); };
    });
    add("class_indicator", p.ways, p.ways, [p](Arena& a) -> Run {
      return [dst = p.out(a, 1, p.ways), ways = a.labels(p.all(1, 1), p.ways),
              tasks = p.tasks](cudaStream_t s) { class_indicator(dst, ways, tasks, s); };
    });
  }

  void elements() {
    const HeadProblem& p = p_;
    const double numbers = p.support * p.features;
    add("copy_matrix", 2 * numbers, 0, [p](Arena& a) -> Run {
      return [dst = p.out(a, p.support, p.features + 1), src = p.in(a, p.support, p.features),
              rows = p.support, columns = p.features,
              tasks = p.tasks](cudaStream_t s) { copy_matrix(dst, src, rows, columns, tasks, s); };
    });
    add("multiply_elements", 2 * numbers + p.features, 2 * numbers, [p](Arena& a) -> Run {
      return [dst = p.out(a, p.support, p.features), x = p.in(a, p.support, p.features),
              y = p.in(a, 1, p.features), tasks = p.tasks](cudaStream_t s) {
        multiply_elements(dst, 0.5f, x, y, false, tasks, s);
      };
    });
    const std::pair<const char*, std::pair<int, int>> sums[] = {
        {"sum_elements/over_rows", {1, p.features}},
        {"sum_elements/over_columns", {p.support, 1}},
        {"sum_elements/all", {1, 1}}};
    for (const auto& [name, shape] : sums) {
      add(name, 2 * numbers, 2 * numbers, [p, shape = shape](Arena& a) -> Run {
        return [dst = p.out(a, shape.first, shape.second), x = p.in(a, p.support, p.features),
                y = p.in(a, p.support, p.features), tasks = p.tasks](cudaStream_t s) {
          sum_elements(dst, 1.0f, x, y, false, tasks, s);
        };
      });
    }
  }

  void systems() {
    const HeadProblem& p = p_;
    const int n = p.support;
    const double square = n * n;
    add("add_diagonal", 2 * n, 2 * n, [p, n](Arena& a) -> Run {
      return [m = p.out(a, n, n), s1 = p.in(a, 1, 1), tasks = p.tasks](cudaStream_t s) {
        add_diagonal(m, small, s1, {}, tasks, s);
      };
    });
    add("trace", n, n, [p, n](Arena& a) -> Run {
      return [dst = p.out(a, 1, 1), m = p.in(a, n, n), tasks = p.tasks](cudaStream_t s) {
        trace(dst, 1.0f, m, false, tasks, s);
      };
    });
    add("cholesky", 2 * square, square * n / 3, [p, n](Arena& a) -> Run {
      return [l = p.out(a, n, n), m = p.identity(a, n), jittered = p.out(a, 1, 1),
              tasks = p.tasks](cudaStream_t s) {
        cholesky(l, m, jittered, {1e-6f, 10.0f, 3}, tasks, s);
      };
    });
    for (const int columns : {p.ways, p.features}) {
      const char* const name =
          columns == p.ways ? "solve_triangular/targets" : "solve_triangular/features";
      add(name, square + 2.0 * n * columns, square * columns, [p, n, columns](Arena& a) -> Run {
        const TaskVectors<float> x{a.uniform(p.all(n, columns)), HeadProblem::area(n, columns),
                                   columns, columns, 1};
        return [x, l = p.identity(a, n), tasks = p.tasks](cudaStream_t s) {
          solve_triangular(x, l, false, tasks, s);
        };
      });
    }
    add("log_determinant", n, 10 * n, [p, n](Arena& a) -> Run {
      return [dst = p.out(a, 1, 1), l = p.identity(a, n), tasks = p.tasks](cudaStream_t s) {
        log_determinant(dst, 1.0f, l, tasks, s);
      };
    });
    const int d = p.features + 1;
    const double factor = d * d;
    add("unpack_factor", 1.5 * factor, 0, [p, d](Arena& a) -> Run {
      return [l = p.out(a, d, d), f = p.in(a, d, d), tasks = p.tasks](cudaStream_t s) {
        unpack_factor(l, f, tasks, s);
      };
    });
    add("unpack_factor_pullback", 1.5 * factor, factor / 2, [p, d](Arena& a) -> Run {
      return [g_f = p.out(a, d, d), l = p.in(a, d, d), g = p.in(a, d, d, -small, small),
              tasks = p.tasks](cudaStream_t s) { unpack_factor_pullback(g_f, l, g, tasks, s); };
    });
  }

  void similarities() {
    const HeadProblem& p = p_;
    const double pairs = p.query * p.ways, rows = (p.query + p.ways) * p.features;
    const double macs = pairs * p.features;
    add("distances", rows + pairs, 3 * macs, [p](Arena& a) -> Run {
      return [dst = p.out(a, p.query, p.ways), x = p.in(a, p.query, p.features),
              y = p.in(a, p.ways, p.features),
              tasks = p.tasks](cudaStream_t s) { distances(dst, x, y, {}, tasks, s); };
    });
    add("distances_pullback", 3 * rows + pairs, 6 * macs, [p](Arena& a) -> Run {
      return [g = p.in(a, p.query, p.ways, -small, small), x = p.in(a, p.query, p.features),
              y = p.in(a, p.ways, p.features), g_x = p.out(a, p.query, p.features),
              g_y = p.out(a, p.ways, p.features), tasks = p.tasks](cudaStream_t s) {
        distances_pullback(g, x, y, {}, g_x, g_y, {}, tasks, s);
      };
    });
    add("cosines", rows + pairs, 6 * macs, [p](Arena& a) -> Run {
      return [dst = p.out(a, p.query, p.ways), x = p.in(a, p.query, p.features),
              y = p.in(a, p.ways, p.features),
              tasks = p.tasks](cudaStream_t s) { cosines(dst, x, y, 1e-8f, tasks, s); };
    });
    add("cosines_pullback", 3 * rows + pairs, 20 * macs, [p](Arena& a) -> Run {
      return [g = p.in(a, p.query, p.ways, -small, small), x = p.in(a, p.query, p.features),
              y = p.in(a, p.ways, p.features), g_x = p.out(a, p.query, p.features),
              g_y = p.out(a, p.ways, p.features), tasks = p.tasks](cudaStream_t s) {
        cosines_pullback(g, x, y, 1e-8f, g_x, g_y, tasks, s);
      };
    });
  }

  void losses() {
    const HeadProblem& p = p_;
    const double numbers = p.query * p.ways;
    add("matrix_loss/cross_entropy", 3 * numbers, 30 * numbers, [p](Arena& a) -> Run {
      return [loss = p.loss_of(a, small)](cudaStream_t s) { cross_entropy(loss, nullptr, s); };
    });
    add("matrix_loss/squared_error", 3 * numbers, 5 * numbers, [p](Arena& a) -> Run {
      return [loss = p.loss_of(a, small)](cudaStream_t s) { squared_error(loss, s); };
    });
    add("matrix_loss/gaussian_nll", 5 * numbers, 15 * numbers, [p](Arena& a) -> Run {
      return
          [loss = p.loss_of(a, small), variance = p.in(a, p.query, p.ways, 0.5f, 1.0f),
           g = p.out(a, p.query, p.ways)](cudaStream_t s) { gaussian_nll(loss, variance, g, s); };
    });
  }

  HeadProblem p_;
};

}  // namespace

std::vector<KernelWork> head_works(bool smoke) {
  return HeadWorks(smoke).take();
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
