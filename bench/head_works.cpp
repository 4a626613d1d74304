// Closed-form heads: small matrices of each task, of 5-way 5-shot tasks with 15 queries of each
// class and 64 features.
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

class HeadWorks : public WorkList {
 public:
  explicit HeadWorks(bool smoke) : WorkList(smoke) {
    if (smoke) {
      problem_ = "tiny", tasks_ = 2, support_ = 3, query_ = 4, features_ = 5, ways_ = 2;
    }
    rows_and_classes();
    elements();
    systems();
    similarities();
    losses();
  }

 private:
  using WorkList::add;
  /// numbers, flops: of a task.
  void add(const char* launcher, double numbers, double flops, std::function<Run(Arena&)> prepare) {
    add(launcher, problem_, tasks_, numbers * tasks_, flops * tasks_, std::move(prepare));
  }
  std::size_t all(int rows, int columns) const { return count_of(tasks_, rows, columns); }
  TaskMatrix<float> out(Arena& a, int rows, int columns) const {
    return {a.zeros(all(rows, columns)), rows, columns, count_of(rows, columns)};
  }
  TaskMatrix<const float> in(Arena& a, int rows, int columns, float low = -1.0f,
                             float high = 1.0f) const {
    return {a.uniform(all(rows, columns), low, high), rows, columns, count_of(rows, columns)};
  }
  /// Identities, whose factors and inverses they are.
  TaskMatrix<const float> identity(Arena& a, int n) const {
    std::vector<float> values(all(n, n), 0.0f);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t of_task = i % count_of(n, n);
      if (of_task / static_cast<std::size_t>(n) == of_task % static_cast<std::size_t>(n)) {
        values[i] = 1.0f;
      }
    }
    return {a.upload(values), n, n, count_of(n, n)};
  }

  void rows_and_classes() {
    const double numbers = query_ * ways_;
    add("one_hot", numbers + query_, numbers, [this](Arena& a) -> Run {
      return [dst = out(a, query_, ways_), labels = a.labels(all(query_, 1), ways_),
              rows = RowExtent{tasks_, query_, nullptr}](cudaStream_t s) {
        one_hot(dst, labels, rows, s);
      };
    });
    add("row_indicator", query_, query_, [this](Arena& a) -> Run {
      return [dst = out(a, query_, 1), own = RowsOfTask{a.labels(all(1, 1), query_)},
              tasks = tasks_](cudaStream_t s) { row_indicator(dst, own, tasks, s); };
    });
    add("class_indicator", ways_, ways_, [this](Arena& a) -> Run {
      return [dst = out(a, 1, ways_), ways = a.labels(all(1, 1), ways_),
              tasks = tasks_](cudaStream_t s) { class_indicator(dst, ways, tasks, s); };
    });
  }

  void elements() {
    const double numbers = support_ * features_;
    add("copy_matrix", 2 * numbers, 0, [this](Arena& a) -> Run {
      return [this, dst = out(a, support_, features_ + 1), src = in(a, support_, features_),
              rows = support_, columns = features_,
              tasks = tasks_](cudaStream_t s) { copy_matrix(dst, src, rows, columns, tasks, s); };
    });
    add("multiply_elements", 2 * numbers + features_, 2 * numbers, [this](Arena& a) -> Run {
      return [dst = out(a, support_, features_), x = in(a, support_, features_),
              y = in(a, 1, features_), tasks = tasks_](cudaStream_t s) {
        multiply_elements(dst, 0.5f, x, y, false, tasks, s);
      };
    });
    const std::pair<const char*, std::pair<int, int>> sums[] = {
        {"sum_elements/over_rows", {1, features_}},
        {"sum_elements/over_columns", {support_, 1}},
        {"sum_elements/all", {1, 1}}};
    for (const auto& [name, shape] : sums) {
      add(name, 2 * numbers, 2 * numbers, [this, shape = shape](Arena& a) -> Run {
        return [dst = out(a, shape.first, shape.second), x = in(a, support_, features_),
                y = in(a, support_, features_),
                tasks = tasks_](cudaStream_t s) { sum_elements(dst, 1.0f, x, y, false, tasks, s); };
      });
    }
  }

  void systems() {
    const int n = support_;
    const double square = n * n;
    add("add_diagonal", 2 * n, 2 * n, [this, n](Arena& a) -> Run {
      return [m = out(a, n, n), s1 = in(a, 1, 1), tasks = tasks_](cudaStream_t s) {
        add_diagonal(m, small, s1, {}, tasks, s);
      };
    });
    add("trace", n, n, [this, n](Arena& a) -> Run {
      return [dst = out(a, 1, 1), m = in(a, n, n), tasks = tasks_](cudaStream_t s) {
        trace(dst, 1.0f, m, false, tasks, s);
      };
    });
    add("cholesky", 2 * square, square * n / 3, [this, n](Arena& a) -> Run {
      return [l = out(a, n, n), m = identity(a, n), jittered = out(a, 1, 1),
              tasks = tasks_](cudaStream_t s) {
        cholesky(l, m, jittered, {1e-6f, 10.0f, 3}, tasks, s);
      };
    });
    for (const int columns : {ways_, features_}) {
      const char* const name =
          columns == ways_ ? "solve_triangular/targets" : "solve_triangular/features";
      add(name, square + 2.0 * n * columns, square * columns, [this, n, columns](Arena& a) -> Run {
        const TaskVectors<float> x{a.uniform(all(n, columns)), count_of(n, columns), columns,
                                   columns, 1};
        return [x, l = identity(a, n), tasks = tasks_](cudaStream_t s) {
          solve_triangular(x, l, false, tasks, s);
        };
      });
    }
    add("log_determinant", n, 10 * n, [this, n](Arena& a) -> Run {
      return [dst = out(a, 1, 1), l = identity(a, n), tasks = tasks_](cudaStream_t s) {
        log_determinant(dst, 1.0f, l, tasks, s);
      };
    });
    const int d = features_ + 1;
    const double factor = d * d;
    add("unpack_factor", 1.5 * factor, 0, [this, d](Arena& a) -> Run {
      return [l = out(a, d, d), f = in(a, d, d), tasks = tasks_](cudaStream_t s) {
        unpack_factor(l, f, tasks, s);
      };
    });
    add("unpack_factor_pullback", 1.5 * factor, factor / 2, [this, d](Arena& a) -> Run {
      return [g_f = out(a, d, d), l = in(a, d, d), g = in(a, d, d, -small, small),
              tasks = tasks_](cudaStream_t s) { unpack_factor_pullback(g_f, l, g, tasks, s); };
    });
  }

  void similarities() {
    const double pairs = query_ * ways_, rows = (query_ + ways_) * features_;
    const double macs = pairs * features_;
    add("distances", rows + pairs, 3 * macs, [this](Arena& a) -> Run {
      return
          [dst = out(a, query_, ways_), x = in(a, query_, features_), y = in(a, ways_, features_),
           tasks = tasks_](cudaStream_t s) { distances(dst, x, y, {}, tasks, s); };
    });
    add("distances_pullback", 3 * rows + pairs, 6 * macs, [this](Arena& a) -> Run {
      return [g = in(a, query_, ways_, -small, small), x = in(a, query_, features_),
              y = in(a, ways_, features_), g_x = out(a, query_, features_),
              g_y = out(a, ways_, features_), tasks = tasks_](cudaStream_t s) {
        distances_pullback(g, x, y, {}, g_x, g_y, {}, tasks, s);
      };
    });
    add("cosines", rows + pairs, 6 * macs, [this](Arena& a) -> Run {
      return
          [dst = out(a, query_, ways_), x = in(a, query_, features_), y = in(a, ways_, features_),
           tasks = tasks_](cudaStream_t s) { cosines(dst, x, y, 1e-8f, tasks, s); };
    });
    add("cosines_pullback", 3 * rows + pairs, 20 * macs, [this](Arena& a) -> Run {
      return [g = in(a, query_, ways_, -small, small), x = in(a, query_, features_),
              y = in(a, ways_, features_), g_x = out(a, query_, features_),
              g_y = out(a, ways_, features_), tasks = tasks_](cudaStream_t s) {
        cosines_pullback(g, x, y, 1e-8f, g_x, g_y, tasks, s);
      };
    });
  }

  MatrixLoss<float> loss_of(Arena& a) const {
    return {out(a, 1, 1),         {small, nullptr},     {tasks_, query_, nullptr},
            in(a, query_, ways_), in(a, query_, ways_), out(a, query_, ways_)};
  }
  void losses() {
    const double numbers = query_ * ways_;
    add("matrix_loss/cross_entropy", 3 * numbers, 30 * numbers, [this](Arena& a) -> Run {
      return [loss = loss_of(a)](cudaStream_t s) { cross_entropy(loss, nullptr, s); };
    });
    add("matrix_loss/squared_error", 3 * numbers, 5 * numbers, [this](Arena& a) -> Run {
      return [loss = loss_of(a)](cudaStream_t s) { squared_error(loss, s); };
    });
    add("matrix_loss/gaussian_nll", 5 * numbers, 15 * numbers, [this](Arena& a) -> Run {
      return [loss = loss_of(a), variance = in(a, query_, ways_, 0.5f, 1.0f),
              g = out(a, query_, ways_)](cudaStream_t s) { gaussian_nll(loss, variance, g, s); };
    });
  }

  const char* problem_ = "5way_5shot_64";
  int tasks_ = 4096, support_ = 25, query_ = 75, features_ = 64, ways_ = 5;
};

}  // namespace

std::vector<KernelWork> head_works(bool smoke) {
  return HeadWorks(smoke).take();
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
