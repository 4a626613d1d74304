// Works of the kernels for generated weights (LEO on 640 features, with the sizes of the results:
// 64 latents, 5 ways) and for noise by rows (flipout and local). Bytes and operations are those of
// the comments at the head of the kernel files.
#include <fmt/format.h>

#include <utility>

#include "bench/kernel_works.h"
#include "kernels/decoder.h"
#include "kernels/factors.h"
#include "kernels/product.h"
#include "kernels/reduction.h"
#include "kernels/relation.h"
#include "kernels/row_noise.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {
namespace {

class Works : public WorkList {
 public:
  explicit Works(bool smoke) : WorkList(smoke) {
    products();
    factors();
    pairs();
    groups();
    latents();
    decoded();
    row_noise();
  }

 private:
  void products();
  void factors();
  void pairs();
  void groups();
  void latents();
  void decoded();
  void row_noise();
};

constexpr float least = 1e-10f;

/// The three products of a layer that all tasks share, from [rows of all tasks, in] to [rows of all
/// tasks, out].
void Works::products() {
  struct Case {
    const char* problem;
    int tasks, rows, in, out;
  };
  const std::vector<Case> cases =
      smoke_ ? std::vector<Case>{{"tiny", 2, 3, 7, 5}}
             : std::vector<Case>{{"encoder_640x64_5rows", 4096, 5, 640, 64},
                                 {"decoder_64x1280_5rows", 4096, 5, 64, 1280},
                                 {"encoder_640x64_25rows", 1024, 25, 640, 64}};
  for (const Case& c : cases) {
    const int all_rows = c.tasks * c.rows;
    const std::size_t x_count = count_of(all_rows, c.in), y_count = count_of(all_rows, c.out),
                      weights = count_of(c.in, c.out), in = count_of(c.in), out = count_of(c.out);
    const double flops = 2.0 * static_cast<double>(x_count) * c.out;
    const auto numbers = static_cast<double>(x_count + y_count + weights);
    add("multiply_matrices", fmt::format("{}_forward", c.problem), c.tasks, numbers, flops,
        [=](Arena& a) -> Run {
          Product<float> p;
          p.m = all_rows, p.n = c.out, p.k = c.in;
          p.first = {{a.uniform(x_count), in}, {a.uniform(weights), 1, in}};
          p.c = a.zeros(y_count), p.c_row = out;
          p.bias = a.uniform(out);
          return [=](cudaStream_t s) { multiply_matrices(p, s); };
        });
    add("multiply_matrices", fmt::format("{}_input_gradient", c.problem), c.tasks, numbers, flops,
        [=](Arena& a) -> Run {
          Product<float> p;
          p.m = all_rows, p.n = c.in, p.k = c.out;
          p.first = {{a.uniform(y_count), out}, {a.uniform(weights), in}};
          p.c = a.zeros(x_count), p.c_row = in;
          return [=](cudaStream_t s) { multiply_matrices(p, s); };
        });
    // One gradient per task, which is added to the gradient there.
    const std::size_t of_task = weights + out;
    const std::size_t gradients = count_of(c.tasks) * of_task;
    add("multiply_matrices", fmt::format("{}_weight_gradient", c.problem), c.tasks,
        static_cast<double>(x_count + y_count + 2 * gradients), flops, [=](Arena& a) -> Run {
          Product<float> p;
          p.m = c.out, p.n = c.in, p.k = c.rows;
          p.batch = c.tasks;
          p.first = {{a.uniform(y_count), 1, out, out * count_of(c.rows)},
                     {a.uniform(x_count), in, 1, in * count_of(c.rows)}};
          p.c = a.zeros(gradients), p.c_row = in, p.c_batch = of_task;
          p.row_sums = p.c + weights;
          p.alpha = small;
          p.accumulate = true;
          return [=](cudaStream_t s) { multiply_matrices(p, s); };
        });
  }
}

/// The gradient of a shared layer over all terms of a meta-gradient, from the factors of each term.
void Works::factors() {
  struct Case {
    const char* problem;
    int tasks, terms, rows, in, out;
  };
  const std::vector<Case> cases =
      smoke_ ? std::vector<Case>{{"tiny", 18, 2, 3, 7, 5}}
             : std::vector<Case>{{"encoder_640x64_5rows", 4096, 1, 5, 640, 64},
                                 {"decoder_64x1280_11terms_5rows", 4096, 11, 5, 64, 1280}};
  for (const Case& c : cases) {
    const FactorSize size{c.tasks, c.rows, c.out, c.in};
    const int runs = (c.tasks + run_tasks - 1) / run_tasks;
    const std::size_t g_count = count_of(c.tasks, c.rows, c.out),
                      x_count = count_of(c.tasks, c.rows, c.in), weights = count_of(c.out, c.in),
                      stride = weights + count_of(c.out);
    const auto term = static_cast<double>(g_count + x_count);
    const auto flags = [=](Arena& a) { return a.labels(count_of(c.tasks), 1); };
    add("keep_factors", c.problem, c.tasks, 2 * term, 0, [=](Arena& a) -> Run {
      return [=, diverged = flags(a), g = a.zeros(g_count), x = a.zeros(x_count),
              from = FactorPair<float>{a.uniform(g_count), a.uniform(x_count), 1.0f, true}](
                 cudaStream_t s) { keep_factors<float>(diverged, g, x, from, size, s); };
    });
    add("sum_factors", c.problem, c.tasks,
        c.terms * term + static_cast<double>(runs) * static_cast<double>(stride),
        2.0 * c.terms * static_cast<double>(g_count) * c.in, [=](Arena& a) -> Run {
          FactorSums<float> p;
          p.count = c.terms;
          for (int k = 0; k < c.terms; ++k) {
            p.pairs[k] = {a.uniform(g_count), a.uniform(x_count), 1.0f, true};
          }
          p.size = size;
          p.diverged = flags(a);
          p.sums = a.zeros(count_of(runs) * stride);
          p.bias_sums = p.sums + weights;
          p.stride = stride;
          p.row = count_of(c.in);
          return [=](cudaStream_t s) { sum_factors(p, s); };
        });
    add("merge_diverged", c.problem, c.tasks, 2.0 * c.tasks, 0, [=](Arena& a) -> Run {
      return [=, diverged = flags(a), also = flags(a)](cudaStream_t s) {
        merge_diverged(diverged, also, c.tasks, s);
      };
    });
    add("clear_columns", c.problem, c.tasks, static_cast<double>(runs) * c.out, 0,
        [=](Arena& a) -> Run {
          return [=, sums = a.zeros(count_of(runs) * stride)](cudaStream_t s) {
            clear_columns(sums, stride, runs, weights, stride, s);
          };
        });
  }
}

void Works::pairs() {
  struct Case {
    const char* problem;
    int tasks, rows, width;
  };
  const std::vector<Case> cases =
      smoke_ ? std::vector<Case>{{"tiny", 2, 3, 5}}
             : std::vector<Case>{{"128x128_5rows", 4096, 5, 128}, {"128x128_25rows", 256, 25, 128}};
  for (const Case& c : cases) {
    const std::size_t features = count_of(c.tasks, c.rows, c.width),
                      weights = count_of(c.width, c.width), width = count_of(c.width),
                      words = count_of(c.tasks * c.rows, c.rows, open_words(c.width));
    const auto make = [=](Arena& a) {
      Pairs<float> p;
      p.left = a.uniform(features), p.right = a.uniform(features);
      p.weight = a.uniform(weights, -0.1f, 0.1f), p.bias = a.uniform(width);
      p.inputs = c.width, p.outputs = c.width;
      p.rows = {c.tasks, c.rows, nullptr};
      // Half of the bits are set, for the gradients.
      p.open = a.upload(std::vector<std::uint32_t>(words, 0x5a5a5a5au));
      return p;
    };
    const auto n = static_cast<double>(features), all = static_cast<double>(weights),
               bits = static_cast<double>(words);
    const double product = 2.0 * n * c.rows * c.width;  // operations of the pairs times a matrix
    add("pairs_forward", c.problem, c.tasks, 3 * n + all + bits, product, [=](Arena& a) -> Run {
      return
          [=, p = make(a), mean = a.zeros(features)](cudaStream_t s) { pairs_forward(mean, p, s); };
    });
    add("pairs_input_gradient", c.problem, c.tasks, 5 * n + all + bits, 2 * product,
        [=](Arena& a) -> Run {
          return [=, p = make(a), g_left = a.zeros(features), g_right = a.zeros(features),
                  g_mean = a.uniform(features)](cudaStream_t s) {
            pairs_input_gradient(g_left, g_right, g_mean, p, s);
          };
        });
    const std::size_t gradients = count_of(c.tasks) * (weights + width);
    add("pairs_weight_gradient", c.problem, c.tasks,
        3 * n + bits + 2 * static_cast<double>(gradients), product, [=](Arena& a) -> Run {
          float* const g = a.zeros(gradients);
          return [=, p = make(a), g_mean = a.uniform(features, -small, small)](cudaStream_t s) {
            pairs_weight_gradient<float>({g, weights + width}, {g + weights, weights + width},
                                         g_mean, p, s);
          };
        });
    const int runs = (c.tasks + run_tasks - 1) / run_tasks;
    const std::size_t sums = count_of(runs) * (weights + width);
    add("pairs_run_gradient", c.problem, c.tasks, 3 * n + bits + static_cast<double>(sums), product,
        [=](Arena& a) -> Run {
          float* const g = a.zeros(sums);
          return [=, p = make(a), g_mean = a.uniform(features, -small, small),
                  diverged = a.labels(count_of(c.tasks), 1)](cudaStream_t s) {
            pairs_run_gradient<float>({g, weights + width}, {g + weights, weights + width}, g_mean,
                                      p, diverged, s);
          };
        });
  }
}

void Works::groups() {
  const int tasks = smoke_ ? 2 : 4096, rows = smoke_ ? 4 : 25, width = smoke_ ? 3 : 128,
            groups = smoke_ ? 2 : 5, joined = smoke_ ? 2 : 16;
  const std::string problem = smoke_ ? "tiny" : "5way_25rows_128";
  const std::size_t features = count_of(tasks, rows, width), all_rows = count_of(tasks, rows),
                    members = count_of(tasks, groups), means = members * count_of(width);
  const auto make = [=](Arena& a) {
    Grouping grouping;
    grouping.labels = a.labels(all_rows, groups);
    grouping.members =
        a.upload(std::vector<std::int32_t>(members, static_cast<std::int32_t>(rows / groups)));
    grouping.groups = groups;
    grouping.rows = {tasks, rows, nullptr};
    return grouping;
  };
  const auto n = static_cast<double>(features), mean = static_cast<double>(means),
             labels = static_cast<double>(all_rows);
  add("count_members", problem, tasks, labels + static_cast<double>(members), labels,
      [=](Arena& a) -> Run {
        return [=, grouping = make(a), to = a.labels(members, 1)](cudaStream_t s) {
          count_members(to, grouping, s);
        };
      });
  add("group_mean", problem, tasks, n + mean + labels, n, [=](Arena& a) -> Run {
    return [=, grouping = make(a), to = a.zeros(means), x = a.uniform(features)](cudaStream_t s) {
      group_mean<float>(to, x, grouping, width, s);
    };
  });
  add("group_mean_pullback", problem, tasks, n + mean + labels, n, [=](Arena& a) -> Run {
    return [=, grouping = make(a), to = a.zeros(features), g = a.uniform(means)](cudaStream_t s) {
      group_mean_pullback<float>(to, g, grouping, width, s);
    };
  });
  const std::size_t x_count = all_rows * count_of(joined);
  add("join_rows", problem, tasks, 2.0 * static_cast<double>(x_count + all_rows), 0,
      [=](Arena& a) -> Run {
        return [=, to = a.zeros(x_count + all_rows), x = a.uniform(x_count),
                y = a.uniform(all_rows)](cudaStream_t s) {
          join_rows<float>(to, x, joined, y, 1, {tasks, rows, nullptr}, s);
        };
      });
}

void Works::latents() {
  const LatentSize size = smoke_ ? LatentSize{2, 3, 2, 4} : LatentSize{16384, 5, 1, 64};
  const std::string problem = smoke_ ? "tiny" : "5way_64";
  const auto tasks = count_of(size.tasks);
  const std::size_t of_group = count_of(size.tasks, size.groups, size.width),
                    n = of_group * count_of(size.latents);
  const auto s_numbers = 2.0 * static_cast<double>(of_group), numbers = static_cast<double>(n);
  add("latents", problem, size.tasks, s_numbers + 2 * numbers, 12 * numbers, [=](Arena& a) -> Run {
    return [=, z = a.zeros(n), statistics = a.uniform(2 * of_group), eps = a.uniform(n)](
               cudaStream_t s) { cuda::latents<float>(z, statistics, eps, least, size, s); };
  });
  add("latents_pullback", problem, size.tasks, 3 * s_numbers + 2 * numbers, 14 * numbers,
      [=](Arena& a) -> Run {
        return [=, g = a.zeros(2 * of_group), statistics = a.uniform(2 * of_group),
                eps = a.uniform(n), g_z = a.uniform(n, -small, small)](cudaStream_t s) {
          latents_pullback<float>(g, statistics, eps, g_z, least, size, s);
        };
      });
  add("sampled_kl", problem, size.tasks, 3 * s_numbers + 2 * numbers, 25 * numbers,
      [=](Arena& a) -> Run {
        return [=, value = a.zeros(tasks), g = a.zeros(2 * of_group),
                statistics = a.uniform(2 * of_group), z = a.uniform(n),
                eps = a.uniform(n)](cudaStream_t s) {
          sampled_kl<float>(value, g, small, statistics, z, eps, least, size, s);
        };
      });
  add("analytic_kl", problem, size.tasks, 3 * s_numbers, 20 * static_cast<double>(of_group),
      [=](Arena& a) -> Run {
        return [=, value = a.zeros(tasks), g = a.zeros(2 * of_group),
                statistics = a.uniform(2 * of_group)](cudaStream_t s) {
          analytic_kl<float>(value, g, small, statistics, least, size, s);
        };
      });
}

void Works::decoded() {
  const LatentSize size = smoke_ ? LatentSize{2, 3, 2, 4} : LatentSize{4096, 5, 1, 640};
  const std::string problem = smoke_ ? "tiny" : "5way_640";
  const std::size_t w_count = count_of(size.tasks, size.groups, size.width),
                    n = w_count * count_of(size.latents);
  const auto make = [=](Arena& a) {
    Decoded<float> d;
    d.out = a.uniform(2 * n);
    d.eps = a.uniform(n);
    d.offset = a.uniform(count_of(size.width), 0.0f);
    d.least = least;
    d.size = size;
    return d;
  };
  const auto numbers = static_cast<double>(n), weights = static_cast<double>(w_count);
  add("decoded_weights", problem, size.tasks, 3 * numbers + weights, 12 * numbers,
      [=](Arena& a) -> Run {
        return [=, d = make(a), w = a.zeros(w_count)](cudaStream_t s) { decoded_weights(w, d, s); };
      });
  add("decoded_tangent", problem, size.tasks, 4 * numbers + weights, 13 * numbers,
      [=](Arena& a) -> Run {
        // The derivative by the mean is 1, so that the value of the mean is not read.
        return [=, d = make(a), w_dot = a.zeros(w_count), out_dot = a.uniform(2 * n)](
                   cudaStream_t s) { decoded_tangent<float>(w_dot, d, out_dot, s); };
      });
  for (const bool tangent : {false, true}) {
    add("decoded_pullback", problem + (tangent ? "_tangent" : ""), size.tasks,
        (tangent ? 7 : 4) * numbers + (tangent ? 2 : 1) * weights, (tangent ? 16 : 12) * numbers,
        [=](Arena& a) -> Run {
          const Tangent<float> g_out{a.zeros(2 * n), tangent ? a.zeros(2 * n) : nullptr};
          const Tangent<const float> g_w{a.uniform(w_count),
                                         tangent ? a.uniform(w_count) : nullptr};
          return [=, d = make(a), out_dot = tangent ? a.uniform(2 * n) : nullptr](cudaStream_t s) {
            decoded_pullback<float>(g_out, d, out_dot, g_w, s);
          };
        });
  }
}

void Works::row_noise() {
  struct Case {
    const char* problem;
    int tasks, rows;
    SignSize size;
  };
  // The problems are the hidden layer of the small network and conv4's first block.
  const std::vector<Case> cases =
      smoke_ ? std::vector<Case>{{"tiny", 2, 3, {5, 4}}}
             : std::vector<Case>{{"mlp_40_10rows", 16384, 10, {40, 1}},
                                 {"conv4_block1_5rows", 512, 5, {64, 14 * 14}}};
  for (const Case& c : cases) {
    const RowExtent rows{c.tasks, c.rows, nullptr};
    const int features = c.size.channels * c.size.positions;
    const std::size_t n = count_of(c.tasks, c.rows, features);
    for (const bool tangent : {false, true}) {
      const std::string problem = fmt::format("{}{}", c.problem, tangent ? "_tangent" : "");
      const auto result = [=](Arena& a) {
        return Tangent<float>{a.zeros(n), tangent ? a.zeros(n) : nullptr};
      };
      const auto argument = [=](Arena& a, float low, float high) {
        return Tangent<const float>{a.uniform(n, low, high),
                                    tangent ? a.uniform(n, low, high) : nullptr};
      };
      const auto numbers = static_cast<double>(n) * (tangent ? 2 : 1);
      // A pass over features in [-most, most) and variances.
      const auto add_pass = [&](const char* launcher, double each, double flops, float most,
                                auto launch) {
        add(launcher, problem, c.tasks, each * numbers, flops * numbers, [=](Arena& a) -> Run {
          return
              [=, y = result(a), x = argument(a, -most, most),
               variance = argument(a, 0.5f, 1.0f)](cudaStream_t s) { launch(y, x, variance, s); };
        });
      };
      using In = Tangent<const float>;
      using Out = Tangent<float>;
      RowNoise<float> noise;
      noise.width = count_of(features);
      add_pass("multiply_signs", 2, 8, 1.0f, [=](Out y, In x, In, cudaStream_t s) {
        multiply_signs(y, x, false, noise, c.size, rows, s);
      });
      add_pass("deviate", 3, 70, 1.0f, [=](Out y, In, In variance, cudaStream_t s) {
        deviate(y, variance, noise, features, rows, s);
      });
      add_pass("deviate_pullback", 3, 75, 1.0f, [=](Out g_v, In g, In variance, cudaStream_t s) {
        deviate_pullback(g_v, g, variance, noise, features, rows, s);
      });
      add_pass("square", 2, 2, 1.0f,
               [=](Out y, In x, In, cudaStream_t s) { square(y, x, features, rows, s); });
      add_pass("square_pullback", 4, 3, small, [=](Out g_x, In g, In x, cudaStream_t s) {
        square_pullback(g_x, g, x, features, rows, s);
      });
    }
  }
}

}  // namespace

std::vector<KernelWork> generator_works(bool smoke) {
  return Works(smoke).take();
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
