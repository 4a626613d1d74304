// The operations on small matrices (LinearAlgebra), on every backend and layout, for tasks of
// different size. Values are tested against formulas that are written out here, and pull-backs
// against central differences of these formulas. The tests are one file because they share one
// fixture and one plain matrix type (Plain).
#include "backend/linear_algebra.h"

#include <functional>

#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

using backend::Block;
using backend::LinearAlgebra;
using backend::LossKind;
using backend::Matrix;
using backend::Scale;
using backend::Set;
using backend::Side;
using backend::transposed;

/// Networks for the two layouts of the CPU backend: tasks of a small perceptron lie in SIMD lanes,
/// and tasks of any other network are stored one by one.
std::vector<std::shared_ptr<const Network>> system_networks() {
  return {std::make_shared<const Network>(Network::mlp({2, 7, 3}, LayerType::relu)),
          std::make_shared<const Network>(
              Network({1, 5, 4, true}, {conv_layer(5, 3, 1, 1), layer(LayerType::relu),
                                        layer(LayerType::mean), linear_layer(3)}))};
}

/// One matrix per task, [tasks, rows * columns].
struct Values {
  int rows = 0, columns = 0;
  Numbers all;
  std::size_t size() const {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  }
};

/// One task's matrix, in the formulas of this file.
struct Plain {
  int rows = 0, columns = 0;
  Numbers e;
  Plain(int r, int c) : rows(r), columns(c), e(static_cast<std::size_t>(r * c), 0.0) {}
  Plain(const Values& v, int task) : rows(v.rows), columns(v.columns) {
    const auto first = v.all.begin() + static_cast<std::ptrdiff_t>(v.size()) * task;
    e.assign(first, first + static_cast<std::ptrdiff_t>(v.size()));
  }
  double& operator()(int i, int j) { return e[static_cast<std::size_t>(i * columns + j)]; }
  double operator()(int i, int j) const { return e[static_cast<std::size_t>(i * columns + j)]; }
  Plain transpose() const {
    Plain t(columns, rows);
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) t(j, i) = (*this)(i, j);
    }
    return t;
  }
};
Plain operator*(const Plain& a, const Plain& b) {
  Plain c(a.rows, b.columns);
  for (int i = 0; i < a.rows; ++i) {
    for (int j = 0; j < b.columns; ++j) {
      for (int k = 0; k < a.columns; ++k) c(i, j) += a(i, k) * b(k, j);
    }
  }
  return c;
}

class LinearAlgebraTest : public ::testing::TestWithParam<std::tuple<std::string, int>> {
 protected:
  static constexpr int ways = 4, support = 5, query = 6;

  void SetUp() override {
    backend_ = open_backend(std::get<0>(GetParam()));
    open(LossKind::cross_entropy);
  }
  void open(LossKind loss) {
    const auto network = system_networks()[static_cast<std::size_t>(std::get<1>(GetParam()))];
    Rows rows{1, support, query, ways, loss == LossKind::cross_entropy};
    problem_ = make_problem(network, loss, tasks_, 23, rows);
    runner_ = std::make_unique<Runner>(*backend_, problem_);
    algebra_ = runner_->wave().linear_algebra();
  }
  LinearAlgebra& la() { return *algebra_; }
  double tolerance() const {
    return backend_->precision() == backend::Precision::f64 ? 1e-12 : 1e-5;
  }

  Values random(int rows, int columns, std::uint32_t use, double scale = 1.0) const {
    RandomStream s = stream(19, 200 + use);
    return {rows, columns, normals(s, static_cast<std::size_t>(tasks_ * rows * columns), scale)};
  }
  /// Positive definite matrices a = b b^T + I with random b.
  Values positive(int n, std::uint32_t use) const {
    const Values b = random(n, n, use);
    Values a{n, n, {}};
    for (int t = 0; t < tasks_; ++t) {
      Plain m = Plain(b, t) * Plain(b, t).transpose();
      for (int i = 0; i < n; ++i) m(i, i) += 1.0;
      for (const double v : m.e) a.all.push_back(static_cast<float>(v));
    }
    return a;
  }

  /// Uploads the inputs, calls body(matrices) for every wave and returns the matrices whose indices
  /// are in `taken`.
  std::vector<Values> run(const std::vector<Values>& inputs,
                          const std::function<void(const std::vector<Matrix>&)>& body,
                          const std::vector<std::size_t>& taken) {
    std::vector<Matrix> m;
    for (const Values& v : inputs) m.push_back(la().matrix(v.rows, v.columns));
    std::vector<Values> results;
    for (const std::size_t i : taken) results.push_back({inputs[i].rows, inputs[i].columns, {}});
    runner_->for_each_wave([&](int) {
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        if (inputs[i].size() > 0) runner_->put(m[i].block, inputs[i].all);
      }
      body(m);
      for (std::size_t r = 0; r < taken.size(); ++r) {
        runner_->take(m[taken[r]].block, inputs[taken[r]].size(), results[r].all);
      }
    });
    return results;
  }
  /// Expects that the matrix of each task is want(task).
  void expect(const Values& got, const std::function<Plain(int task)>& want,
              double within = 0.0) const {
    Numbers all;
    for (int t = 0; t < tasks_; ++t) {
      const Plain p = want(t);
      ASSERT_EQ(p.e.size(), got.size());
      all.insert(all.end(), p.e.begin(), p.e.end());
    }
    EXPECT_TRUE(close_rows(got.all, all, got.size(), within > 0.0 ? within : tolerance()));
  }
  /// Expects got = base + the gradient of f(task, matrix) at `at`, by central differences.
  void expect_gradient(const Values& got, const Values& base, const Values& at,
                       const std::function<double(int task, const Plain& at)>& f) const {
    expect(
        got,
        [&](int t) {
          Plain g(base, t), x(at, t);
          for (std::size_t i = 0; i < x.e.size(); ++i) {
            const double before = x.e[i];
            x.e[i] = before + 1e-5;
            const double above = f(t, x);
            x.e[i] = before - 1e-5;
            const double difference = (above - f(t, x)) / 2e-5;
            // A difference that is only the rounding of an exact zero (in a task of one class)
            // counts as zero.
            if (std::abs(difference) > 1e-9) g.e[i] += difference;
            x.e[i] = before;
          }
          return g;
        },
        difference_tolerance(*backend_));
  }
  int own_rows(Set set, int t) const {
    const auto task = static_cast<std::size_t>(t);
    return set == Set::support ? problem_.single.support_n[task] : problem_.single.query_n[task];
  }
  int own_ways(int t) const { return problem_.single.ways[static_cast<std::size_t>(t)]; }
  static double inner(const Plain& a, const Plain& b) {
    return std::inner_product(a.e.begin(), a.e.end(), b.e.begin(), 0.0);
  }

  int tasks_ = 19;
  std::unique_ptr<backend::Backend> backend_;
  Problem problem_;
  std::unique_ptr<Runner> runner_;
  std::unique_ptr<LinearAlgebra> algebra_;
};

TEST_P(LinearAlgebraTest, RowsAndClassesOfTheTasks) {
  const std::vector<Values> blank = {random(support, ways, 0), random(query, ways, 1),
                                     random(query, 1, 2), random(support + query, 1, 3),
                                     random(1, ways, 4)};
  const auto got = run(blank,
                       [&](auto& m) {
                         la().targets(m[0], Set::support);
                         la().targets(m[1], Set::query);
                         la().row_indicator(m[2], Set::query);
                         la().row_indicator(m[3], Set::all);
                         la().class_indicator(m[4]);
                       },
                       {0, 1, 2, 3, 4});
  const auto one_hot = [&](Set set, const std::vector<std::int32_t>& labels, int t) {
    const int rows = runner_->wave().rows(set);
    Plain y(rows, ways);
    for (int i = 0; i < own_rows(set, t); ++i) {
      y(i, labels[static_cast<std::size_t>(t * rows + i)]) = 1.0;
    }
    return y;
  };
  expect(got[0], [&](int t) { return one_hot(Set::support, problem_.single.support_label, t); });
  expect(got[1], [&](int t) { return one_hot(Set::query, problem_.single.query_label, t); });
  const auto ones = [&](int t) {
    Plain p(support + query, 1);
    for (int i = 0; i < own_rows(Set::support, t); ++i) p(i, 0) = 1.0;
    for (int i = 0; i < own_rows(Set::query, t); ++i) p(support + i, 0) = 1.0;
    return p;
  };
  expect(got[2], [&](int t) {
    Plain p(query, 1);
    for (int i = 0; i < query; ++i) p(i, 0) = ones(t)(support + i, 0);
    return p;
  });
  expect(got[3], ones);
  expect(got[4], [&](int t) {
    Plain p(1, ways);
    for (int m = 0; m < own_ways(t); ++m) p(0, m) = 1.0;
    return p;
  });
}

TEST_P(LinearAlgebraTest, RealTargets) {
  open(LossKind::mse);
  const auto got =
      run({random(query, ways, 0)}, [&](auto& m) { la().targets(m[0], Set::query); }, {0});
  expect(got[0], [&](int t) {
    Plain y(query, ways);
    for (int i = 0; i < own_rows(Set::query, t); ++i) {
      for (int j = 0; j < ways; ++j) {
        y(i, j) =
            problem_.twice.query_value64[static_cast<std::size_t>((t * query + i) * ways + j)];
      }
    }
    return y;
  });
}

TEST_P(LinearAlgebraTest, PartsAreCopied) {
  const Values dst = random(4, 5, 0), src = random(3, 6, 1);
  const auto got = run({dst, src},
                       [&](auto& m) {
                         la().copy_part(m[0], m[1], {1, 2, 0, 3, 3, 2});
                       },
                       {0});
  expect(got[0], [&](int t) {
    Plain p(dst, t);
    const Plain from(src, t);
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 2; ++j) p(1 + i, 2 + j) = from(i, 3 + j);
    }
    return p;
  });
}

TEST_P(LinearAlgebraTest, ProductsOfFactorsAndTransposes) {
  struct Sizes {
    int rows, depth, columns;
  };
  // The last three sizes have more than one tile of rows, terms or columns of the CPU kernel.
  std::vector<Sizes> sizes = {{4, 0, 3}, {4, 1, 3}, {4, 7, 3}, {9, 70, 19}};
  if (!std::get<0>(GetParam()).starts_with("simt")) {
    sizes.insert(sizes.end(), {{5, 600, 2}, {6, 300, 19}, {9, 257, 8}});
  }
  for (const auto& [rows, depth, columns] : sizes) {
    for (const bool left : {false, true}) {
      for (const bool right : {false, true}) {
        for (const bool accumulate : {false, true}) {
          const Values c = random(rows, columns, 0);
          const Values a = left ? random(depth, rows, 1) : random(rows, depth, 1);
          const Values b = right ? random(columns, depth, 2) : random(depth, columns, 2);
          const auto got = run({c, a, b},
                               [&](auto& m) {
                                 la().product(m[0], 0.75, {m[1], left}, {m[2], right}, accumulate);
                               },
                               {0});
          expect(got[0], [&](int t) {
            const Plain x = left ? Plain(a, t).transpose() : Plain(a, t);
            const Plain y = right ? Plain(b, t).transpose() : Plain(b, t);
            Plain p = x * y;
            for (std::size_t i = 0; i < p.e.size(); ++i) {
              p.e[i] = 0.75 * p.e[i] + (accumulate ? Plain(c, t).e[i] : 0.0);
            }
            return p;
          });
        }
      }
    }
  }
}

TEST_P(LinearAlgebraTest, ProductsByElementRowColumnAndScalar) {
  const Values dst = random(4, 3, 0), x = random(4, 3, 1);
  for (const auto& [rows, columns] : {std::pair{4, 3}, {1, 3}, {4, 1}, {1, 1}}) {
    for (const bool accumulate : {false, true}) {
      const Values y = random(rows, columns, 2);
      const auto want = [&](int t) {
        Plain p(4, 3);
        const Plain left(x, t), right(y, t);
        for (int i = 0; i < 4; ++i) {
          for (int j = 0; j < 3; ++j) {
            p(i, j) = -0.5 * left(i, j) * right(y.rows == 1 ? 0 : i, y.columns == 1 ? 0 : j) +
                      (accumulate ? Plain(dst, t)(i, j) : 0.0);
          }
        }
        return p;
      };
      expect(run({dst, x, y}, [&](auto& m) { la().multiply(m[0], -0.5, m[1], m[2], accumulate); },
                 {0})[0],
             want);
      if (accumulate) continue;
      expect(run({x, y}, [&](auto& m) { la().multiply(m[0], -0.5, m[0], m[1]); }, {0})[0], want);
    }
  }
}

TEST_P(LinearAlgebraTest, SharedParametersAreNoWeights) {
  // The number of a head's parameters is independent of the number of the network's weights.
  const backend::Shared shared = backend_->shared(5);
  const Numbers values = {0.5, -1.0, 2.0, 3.0, -4.0};
  shared->upload(values);
  const Values before = random(5, 1, 0);
  const auto got =
      run({before}, [&](auto& m) { runner_->wave().broadcast(m[0].block, *shared); }, {0});
  expect(got[0], [&](int) {
    Plain p(5, 1);
    p.e = values;
    return p;
  });
}

TEST_P(LinearAlgebraTest, SumsOverRowsColumnsAndBoth) {
  const Values x = random(4, 3, 1), y = random(4, 3, 2);
  for (const auto& [rows, columns] : {std::pair{4, 1}, {1, 3}, {1, 1}}) {
    for (const bool product : {false, true}) {
      for (const bool accumulate : {false, true}) {
        const Values dst = random(rows, columns, 0);
        const auto got =
            run({dst, x, y},
                [&](auto& m) { la().sum(m[0], 0.5, m[1], product ? m[2] : Matrix{}, accumulate); },
                {0});
        expect(
            got[0],
            [&](int t) {
              Plain p(dst.rows, dst.columns);
              if (accumulate) p = Plain(dst, t);
              for (int i = 0; i < 4; ++i) {
                for (int j = 0; j < 3; ++j) {
                  p(dst.rows == 1 ? 0 : i, dst.columns == 1 ? 0 : j) +=
                      0.5 * Plain(x, t)(i, j) * (product ? Plain(y, t)(i, j) : 1.0);
                }
              }
              return p;
            },
            // The tolerance covers the rounding of about ten terms of order one, whose sum may
            // cancel to thousandths.
            50.0 * tolerance());
      }
    }
  }
}

TEST_P(LinearAlgebraTest, DiagonalsOfWholeAndPaddedSystems) {
  const Values a = random(query, query, 0), s = random(1, 1, 1);
  for (const bool padded : {false, true}) {
    const auto got =
        run({a, s},
            [&](auto& m) {
              la().add_diagonal(m[0], 2.0, m[1], padded ? std::optional(Set::query) : std::nullopt);
            },
            {0});
    expect(got[0], [&](int t) {
      Plain p(a, t);
      for (int i = 0; i < query; ++i) {
        const bool own = !padded || i < own_rows(Set::query, t);
        p(i, i) = own ? p(i, i) + 2.0 * Plain(s, t)(0, 0) : 1.0;
      }
      return p;
    });
  }
}

TEST_P(LinearAlgebraTest, Trace) {
  const Values a = random(5, 5, 0), start = random(1, 1, 1);
  for (const bool accumulate : {false, true}) {
    const auto got =
        run({start, a}, [&](auto& m) { la().trace(m[0], -0.5, m[1], accumulate); }, {0});
    expect(got[0], [&](int t) {
      Plain p(1, 1);
      if (accumulate) p = Plain(start, t);
      for (int i = 0; i < 5; ++i) p(0, 0) -= 0.5 * Plain(a, t)(i, i);
      return p;
    });
  }
}

TEST_P(LinearAlgebraTest, CholeskySolvesAndDeterminant) {
  struct Sizes {
    int n, vectors;
  };
  std::vector<Sizes> sizes = {{1, 3}, {2, 3}, {6, 3}, {17, 3}};
  // The larger sizes have more than one panel of the CPU kernels.
  if (!std::get<0>(GetParam()).starts_with("simt")) {
    sizes.insert(sizes.end(), {{33, 9}, {70, 41}});
  }
  for (const auto& [size, vectors] : sizes) {
    SCOPED_TRACE(size);
    const int n = size;
    const Values a = positive(n, 0), zero = {1, 1, Numbers(static_cast<std::size_t>(tasks_), 0.0)};
    const Values left = random(n, vectors, 1), right = random(vectors, n, 2),
                 blank = random(n, n, 3);
    const auto got = run({a, blank, zero, zero, left, right, left, right},
                         [&](auto& m) {
                           la().cholesky(m[1], m[0], m[2]);
                           la().log_determinant(m[3], 0.5, m[1]);
                           la().solve_triangular(m[1], Side::left, m[4]);
                           la().solve_triangular(m[1], Side::right, m[5]);
                           la().solve_triangular(transposed(m[1]), Side::left, m[6]);
                           la().solve_triangular(transposed(m[1]), Side::right, m[7]);
                         },
                         {1, 2, 3, 4, 5, 6, 7});
    // The factor is checked by its definition, and the solutions by multiplying back.
    const double within = 20.0 * tolerance();
    const auto l = [&](int t) { return Plain(got[0], t); };
    const auto product = [&](const std::function<Plain(int)>& f) {
      Values v{n, n, {}};
      v.rows = f(0).rows, v.columns = f(0).columns;
      for (int t = 0; t < tasks_; ++t) {
        const Plain p = f(t);
        v.all.insert(v.all.end(), p.e.begin(), p.e.end());
      }
      return v;
    };
    expect(
        product([&](int t) { return l(t) * l(t).transpose(); }), [&](int t) { return Plain(a, t); },
        within);
    expect(got[1], [](int) { return Plain(1, 1); });
    expect(
        got[2],
        [&](int t) {
          Plain d(1, 1);
          for (int i = 0; i < n; ++i) {
            EXPECT_GT(l(t)(i, i), 0.0);
            for (int j = i + 1; j < n; ++j) EXPECT_EQ(l(t)(i, j), 0.0);
            d(0, 0) += std::log(l(t)(i, i));
          }
          return d;
        },
        within);
    expect(
        product([&](int t) { return l(t) * Plain(got[3], t); }),
        [&](int t) { return Plain(left, t); }, within);
    expect(
        product([&](int t) { return Plain(got[4], t) * l(t); }),
        [&](int t) { return Plain(right, t); }, within);
    expect(
        product([&](int t) { return l(t).transpose() * Plain(got[5], t); }),
        [&](int t) { return Plain(left, t); }, within);
    expect(
        product([&](int t) { return Plain(got[6], t) * l(t).transpose(); }),
        [&](int t) { return Plain(right, t); }, within);
  }
}

TEST_P(LinearAlgebraTest, SingularSystemsAreJitteredWithinABound) {
  // Task 1 mod 3 has rank one, with an exact zero as its second pivot. Task 2 mod 3 is not positive
  // definite.
  const int n = 4;
  Values a = positive(n, 0);
  for (int t = 0; t < tasks_; ++t) {
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        double& e = a.all[static_cast<std::size_t>((t * n + i) * n + j)];
        if (t % 3 == 1) e = 4.0;
        if (t % 3 == 2) e = i == j ? (i == 2 ? -1.0 : 1.0) : 0.0;
      }
    }
  }
  const Values zero = {1, 1, Numbers(static_cast<std::size_t>(tasks_), 0.0)};
  const auto got =
      run({a, random(n, n, 1), zero}, [&](auto& m) { la().cholesky(m[1], m[0], m[2]); }, {1, 2});
  const double largest =
      // The third and last jitter: each is ten times the one before.
      4.0 * 100.0 * backend::cholesky_jitter(backend_->precision());
  for (int t = 0; t < tasks_; ++t) {
    const Plain l(got[0], t);
    EXPECT_EQ(Plain(got[1], t)(0, 0), t % 3 == 0 ? 0.0 : 1.0) << "task " << t;
    if (t % 3 == 2) {
      EXPECT_TRUE(std::ranges::any_of(l.e, [](double v) { return std::isnan(v); }));
      continue;
    }
    const Plain back = l * l.transpose();
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        EXPECT_NEAR(back(i, j), Plain(a, t)(i, j),
                    20.0 * tolerance() + (i == j && t % 3 == 1 ? 1.01 * largest : 0.0));
      }
    }
  }
}

TEST_P(LinearAlgebraTest, FactorsAreUnpacked) {
  const int n = 5;
  const Values f = random(n, n, 0, 0.5), g = random(n, n, 1), start = random(n, n, 2);
  const auto got = run({f, random(n, n, 3), g, start},
                       [&](auto& m) {
                         la().unpack_factor(m[1], m[0]);
                         la().unpack_factor_pullback(m[3], m[1], m[2]);
                       },
                       {1, 3});
  const auto factor = [](const Plain& x) {
    Plain l(x.rows, x.rows);
    for (int i = 0; i < x.rows; ++i) {
      for (int j = 0; j < i; ++j) l(i, j) = x(i, j);
      l(i, i) = std::exp(x(i, i));
    }
    return l;
  };
  expect(got[0], [&](int t) { return factor(Plain(f, t)); });
  expect_gradient(got[1], start, f,
                  [&](int t, const Plain& x) { return inner(Plain(g, t), factor(x)); });
}

TEST_P(LinearAlgebraTest, DistancesAndTheirPullback) {
  const Values a = random(5, 3, 0), b = random(4, 3, 1), w = random(4, 3, 2), g = random(5, 4, 3);
  const Values start_a = random(5, 3, 4), start_b = random(4, 3, 5), start_w = random(4, 3, 6);
  for (const bool weighted : {false, true}) {
    const auto got = run({a, b, w, g, start_a, start_b, start_w, random(5, 4, 7)},
                         [&](auto& m) {
                           const Matrix weight = weighted ? m[2] : Matrix{};
                           la().distances(m[7], m[0], m[1], weight);
                           la().distances_pullback(m[3], m[0], m[1], weight, m[4], {}, {});
                           la().distances_pullback(m[3], m[0], m[1], weight, {}, m[5], m[6]);
                         },
                         {7, 4, 5, 6});
    const auto distance = [&](const Plain& x, const Plain& y, const Plain& v) {
      Plain d(x.rows, y.rows);
      for (int i = 0; i < x.rows; ++i) {
        for (int m = 0; m < y.rows; ++m) {
          for (int j = 0; j < x.columns; ++j) {
            d(i, m) += v(m, j) * (x(i, j) - y(m, j)) * (x(i, j) - y(m, j));
          }
        }
      }
      return d;
    };
    const auto weights = [&](int t) {
      Plain v(w, t);
      if (!weighted) std::ranges::fill(v.e, 1.0);
      return v;
    };
    expect(got[0], [&](int t) { return distance(Plain(a, t), Plain(b, t), weights(t)); });
    expect_gradient(got[1], start_a, a, [&](int t, const Plain& x) {
      return inner(Plain(g, t), distance(x, Plain(b, t), weights(t)));
    });
    expect_gradient(got[2], start_b, b, [&](int t, const Plain& x) {
      return inner(Plain(g, t), distance(Plain(a, t), x, weights(t)));
    });
    expect_gradient(got[3], start_w, Values{4, 3, weighted ? w.all : Numbers(w.all.size(), 1.0)},
                    [&](int t, const Plain& x) {
                      return inner(Plain(g, t), distance(Plain(a, t), Plain(b, t), x));
                    });
  }
}

TEST_P(LinearAlgebraTest, PullbacksOfAMatrixWithItself) {
  const Values z = random(4, 3, 0), g = random(4, 4, 1), start = random(4, 3, 2);
  const auto got = run({z, g, start, start},
                       [&](auto& m) {
                         la().distances_pullback(m[1], m[0], m[0], {}, m[2], m[2], {});
                         la().cosines_pullback(m[1], m[0], m[0], m[3], m[3]);
                       },
                       {2, 3});
  expect_gradient(got[0], start, z, [&](int t, const Plain& x) {
    double sum = 0.0;
    for (int i = 0; i < 4; ++i) {
      for (int m = 0; m < 4; ++m) {
        for (int j = 0; j < 3; ++j) {
          sum += Plain(g, t)(i, m) * (x(i, j) - x(m, j)) * (x(i, j) - x(m, j));
        }
      }
    }
    return sum;
  });
  expect_gradient(got[1], start, z, [&](int t, const Plain& x) {
    const Plain p = x * x.transpose();
    double sum = 0.0;
    for (int i = 0; i < 4; ++i) {
      for (int m = 0; m < 4; ++m) {
        sum += Plain(g, t)(i, m) * p(i, m) /
               (std::sqrt(p(i, i)) * std::sqrt(p(m, m)) + backend::cosine_epsilon);
      }
    }
    return sum;
  });
}

TEST_P(LinearAlgebraTest, CosinesAndTheirPullback) {
  Values a = random(5, 3, 0);
  const Values b = random(4, 3, 1), start_a = random(5, 3, 4), start_b = random(4, 3, 5);
  Values g = random(5, 4, 3);
  // A row of zeros, like a row beyond a task's own rows, has cosine zero and gets no gradient.
  for (int t = 0; t < tasks_; ++t) {
    for (int j = 0; j < 3; ++j) a.all[static_cast<std::size_t>((t * 5 + 4) * 3 + j)] = 0.0;
    for (int m = 0; m < 4; ++m) g.all[static_cast<std::size_t>((t * 5 + 4) * 4 + m)] = 0.0;
  }
  const auto got = run({a, b, g, start_a, start_b, random(5, 4, 7)},
                       [&](auto& m) {
                         la().cosines(m[5], m[0], m[1]);
                         la().cosines_pullback(m[2], m[0], m[1], m[3], {});
                         la().cosines_pullback(m[2], m[0], m[1], {}, m[4]);
                       },
                       {5, 3, 4});
  const auto cosine = [&](const Plain& x, const Plain& y) {
    Plain c = x * y.transpose();
    const Plain xx = x * x.transpose(), yy = y * y.transpose();
    for (int i = 0; i < x.rows; ++i) {
      for (int m = 0; m < y.rows; ++m) {
        c(i, m) /= std::sqrt(xx(i, i)) * std::sqrt(yy(m, m)) + backend::cosine_epsilon;
      }
    }
    return c;
  };
  expect(got[0], [&](int t) { return cosine(Plain(a, t), Plain(b, t)); });
  expect_gradient(got[1], start_a, a, [&](int t, const Plain& x) {
    return inner(Plain(g, t), cosine(x, Plain(b, t)));
  });
  expect_gradient(got[2], start_b, b, [&](int t, const Plain& x) {
    return inner(Plain(g, t), cosine(Plain(a, t), x));
  });
}

TEST_P(LinearAlgebraTest, CrossEntropyOverATasksOwnClasses) {
  const Values logits = random(query, ways, 0, 3.0), start = random(1, 1, 1);
  const auto got =
      run({logits, random(query, ways, 2), start, random(query, ways, 3)},
          [&](auto& m) {
            la().targets(m[1], Set::query);
            la().cross_entropy(m[2], Set::query, {0.5, Scale::By::query}, m[0], m[1], m[3]);
          },
          {2, 3});
  const auto loss = [&](int t, const Plain& x) {
    double sum = 0.0;
    for (int i = 0; i < own_rows(Set::query, t); ++i) {
      double total = 0.0;
      for (int m = 0; m < own_ways(t); ++m) total += std::exp(x(i, m));
      sum += std::log(total) -
             x(i, problem_.single.query_label[static_cast<std::size_t>(t * query + i)]);
    }
    return 0.5 * sum / own_rows(Set::query, t);
  };
  expect(got[0], [&](int t) {
    Plain l(start, t);
    l(0, 0) += loss(t, Plain(logits, t));
    return l;
  });
  const Values none{query, ways, Numbers(logits.all.size(), 0.0)};
  expect_gradient(got[1], none, logits, loss);
}

TEST_P(LinearAlgebraTest, SquaredErrorAndGaussianDensity) {
  open(LossKind::mse);
  const Values mean = random(support, ways, 0), start = random(1, 1, 1);
  Values variance = random(support, ways, 2);
  for (double& v : variance.all) v = static_cast<float>(0.25 + std::exp(0.5 * v));
  const Values blank = random(support, ways, 3);
  const Scale scale{0.25, Scale::By::support};
  const auto got = run({mean, variance, blank, start, start, blank, blank, blank},
                       [&](auto& m) {
                         la().targets(m[2], Set::support);
                         la().squared_error(m[3], Set::support, scale, m[0], m[2], m[5]);
                         la().gaussian_nll(m[4], Set::support, scale, m[0], m[1], m[2], m[6], m[7]);
                       },
                       {3, 4, 5, 6, 7});
  const auto sum = [&](int t, const Plain& x, const auto& f) {
    double total = 0.0;
    const int rows = own_rows(Set::support, t);
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < ways; ++j) {
        const double y =
            problem_.twice.support_value64[static_cast<std::size_t>((t * support + i) * ways + j)];
        total += 0.25 / rows * f(i, j, x(i, j) - y);
      }
    }
    return total;
  };
  const auto squared = [&](int t, const Plain& x) {
    return sum(t, x, [](int, int, double error) { return error * error / ways; });
  };
  const auto density = [&](int t, const Plain& x, const Plain& v) {
    return sum(t, x, [&](int i, int j, double error) {
      return 0.5 * error * error / v(i, j) + 0.5 * std::log(2.0 * 3.14159265358979323846 * v(i, j));
    });
  };
  const auto added = [&](int t, double value) {
    Plain l(start, t);
    l(0, 0) += value;
    return l;
  };
  expect(got[0], [&](int t) { return added(t, squared(t, Plain(mean, t))); });
  expect(got[1], [&](int t) { return added(t, density(t, Plain(mean, t), Plain(variance, t))); });
  const Values none{support, ways, Numbers(mean.all.size(), 0.0)};
  expect_gradient(got[2], none, mean, squared);
  expect_gradient(got[3], none, mean,
                  [&](int t, const Plain& x) { return density(t, x, Plain(variance, t)); });
  expect_gradient(got[4], none, variance,
                  [&](int t, const Plain& x) { return density(t, Plain(mean, t), x); });
}

TEST_P(LinearAlgebraTest, WrongShapesAreRefused) {
  const Matrix a = la().matrix(3, 2), b = la().matrix(3, 4), c = la().matrix(2, 4);
  EXPECT_THROW(la().product(c, 1.0, a, b), std::logic_error);
  EXPECT_NO_THROW(la().product(c, 1.0, transposed(a), b));
  EXPECT_THROW(la().product(a, 1.0, a, la().matrix(2, 2)), std::logic_error);
  EXPECT_THROW(la().multiply(a, 1.0, a, b), std::logic_error);
  EXPECT_THROW(la().cholesky(la().matrix(3, 3), a, la().matrix(1, 1)), std::logic_error);
  EXPECT_THROW(la().copy_part(b, a, {0, 3, 0, 0, 3, 2}), std::logic_error);
  EXPECT_THROW(la().targets(a, Set::all), std::logic_error);
  EXPECT_THROW(la().distances({}, a, b, {}), std::logic_error);
}

TEST_P(LinearAlgebraTest, ClassesAreChecked) {
  const auto load = [&](TaskBatch batch, bool every_class) {
    auto wave = backend_->open(problem_.network, problem_.loss,
                               {support, query, false, false, ways, every_class});
    const int count = std::min(wave->capacity(), problem_.tasks);
    wave->load(batch, 0, count, 0);
  };
  const bool twice = backend_->precision() == backend::Precision::f64;
  TaskBatch batch = twice ? problem_.twice : problem_.single;
  EXPECT_NO_THROW(load(batch, false));
  batch.ways[0] = ways + 1;
  EXPECT_THROW(load(batch, false), Error);
  batch.ways[0] = 0;
  EXPECT_THROW(load(batch, false), Error);
  batch.ways[0] = 1;  // Task 0 has labels of all classes.
  batch.support_label[0] = 2;
  EXPECT_THROW(load(batch, false), Error);
  batch = twice ? problem_.twice : problem_.single;
  for (int i = 0; i < support; ++i) batch.support_label[static_cast<std::size_t>(i)] = i % 3;
  try {
    load(batch, true);
    ADD_FAILURE() << "class 3 of task 0 has no support row";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("class 3 of task 0 has no support row"),
              std::string::npos)
        << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, LinearAlgebraTest, ::testing::ValuesIn(backends_and_layouts()),
                         layout_test_name);

}  // namespace
}  // namespace kshot::testing
