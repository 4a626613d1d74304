// The works of kernel_works.h: problems, bytes and operations of each kernel. The file is long
// because it has every kernel but those of generators, perceptrons and small matrices.
#include "bench/kernel_works.h"

#include <fmt/format.h>
#include <bit>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "kernels/activation.h"
#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/episodes.h"
#include "kernels/latent.h"
#include "kernels/linear.h"
#include "kernels/loss.h"
#include "kernels/norm.h"
#include "kernels/pool.h"
#include "kernels/reduction.h"
#include "kernels/scalar.h"
#include "kernels/shared_vector.h"
#include "kernels/step.h"
#include "kshot/random.h"

namespace kshot::cuda {
inline namespace KSHOT_PLATFORM {

// ---- arena ----

Arena::~Arena() {
  for (void* block : blocks_) cudaFree(block);
}

void* Arena::allocate(std::size_t bytes) {
  void* block = nullptr;
  KSHOT_CUDA_CHECK(cudaMalloc(&block, std::max<std::size_t>(bytes, 1)));
  blocks_.push_back(block);
  return block;
}

void* Arena::copy(const void* host, std::size_t bytes) {
  void* block = allocate(bytes);
  KSHOT_CUDA_CHECK(cudaMemcpy(block, host, bytes, cudaMemcpyHostToDevice));
  return block;
}

float* Arena::uniform(std::size_t count, float low, float high) {
  // The host draws at most 2^20 numbers, which are repeated, because gigabytes would take long.
  std::vector<float> some(std::min<std::size_t>(count, std::size_t{1} << 20));
  RandomStream stream({.seed = blocks_.size()});
  for (float& value : some) value = stream.uniform(low, high);
  auto* data = static_cast<float*>(allocate(count * sizeof(float)));
  for (std::size_t at = 0; at < count; at += some.size()) {
    KSHOT_CUDA_CHECK(cudaMemcpy(data + at, some.data(),
                                std::min(some.size(), count - at) * sizeof(float),
                                cudaMemcpyHostToDevice));
  }
  floats_.push_back({data, count});
  return data;
}

float* Arena::zeros(std::size_t count) {
  auto* data = static_cast<float*>(allocate(count * sizeof(float)));
  KSHOT_CUDA_CHECK(cudaMemset(data, 0, count * sizeof(float)));
  floats_.push_back({data, count});
  return data;
}

double* Arena::doubles(std::size_t count) {
  void* data = allocate(count * sizeof(double));
  KSHOT_CUDA_CHECK(cudaMemset(data, 0, count * sizeof(double)));
  return static_cast<double*>(data);
}

std::uint8_t* Arena::bytes(std::size_t count) {
  void* data = allocate(count);
  KSHOT_CUDA_CHECK(cudaMemset(data, 0, count));
  return static_cast<std::uint8_t*>(data);
}

std::int32_t* Arena::labels(std::size_t count, int below) {
  std::vector<std::int32_t> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = static_cast<std::int32_t>(i % static_cast<std::size_t>(below));
  }
  return upload(values);
}

std::size_t Arena::not_finite() const {
  std::size_t found = 0;
  for (const Floats& floats : floats_) {
    std::vector<float> host(floats.count);
    KSHOT_CUDA_CHECK(
        cudaMemcpy(host.data(), floats.data, host.size() * sizeof(float), cudaMemcpyDeviceToHost));
    found += static_cast<std::size_t>(
        std::count_if(host.begin(), host.end(), [](float x) { return !std::isfinite(x); }));
  }
  return found;
}

// ---- works ----

namespace {

/// A per-task vector of weights.
struct Vectors {
  const char* problem;
  Extent extent;
};

/// A layer's rows.
struct RowSet {
  const char* problem;
  int tasks, rows;
};

class Works : public WorkList {
 public:
  explicit Works(bool smoke) : WorkList(smoke) {
    // The widths are those of the small network's weights and of conv4-64's.
    if (smoke) {
      vectors_ = {{"tiny", {2, 1100}}};
    } else {
      vectors_ = {{"mlp", {16384, 1761}}, {"conv4", {512, 112325}}};
    }
    for (const Vectors& v : vectors_) {
      elementwise(v);
      latent(v);
      scalar(v);
      reduction(v);
    }
    linear();
    activation();
    loss();
    conv();
    norm();
    pool();
    shared();
    episodes();
  }

 private:
  using WorkList::add;
  /// Adds a pass over vectors of `extent`. `numbers` and `flops` are per element.
  void add(const std::string& launcher, const Vectors& v, double numbers, double flops,
           std::function<Run(Arena&)> prepare) {
    const auto count = static_cast<double>(v.extent.count());
    add(launcher, v.problem, v.extent.tasks, numbers * count, flops * count, std::move(prepare));
  }

  void elementwise(const Vectors& v);
  void latent(const Vectors& v);
  void scalar(const Vectors& v);
  void reduction(const Vectors& v);
  void linear();
  void activation();
  void loss();
  void conv();
  void conv(const std::string& problem, const ConvShape& shape, const RowExtent& rows);
  void conv(const std::string& problem, const ConvShape& shape, const RowExtent& rows,
            Arithmetic how);
  void norm();
  void pool();
  void shared();
  void episodes();
  void classes(const std::string& problem, int tasks, const ClassDraw& draw, int rows, int features,
               bool pixels);

  std::vector<Vectors> vectors_;
};

// The numbers per element are those of the table at the head of each kernel file.

void Works::elementwise(const Vectors& v) {
  const Extent e = v.extent;
  const std::size_t n = e.count();
  const auto width = static_cast<std::size_t>(e.width);
  add("broadcast", v, 1, 0, [=](Arena& a) -> Run {
    return [=, dst = a.zeros(n), src = a.uniform(width)](cudaStream_t s) {
      broadcast<float>(dst, src, e, s);
    };
  });
  add("fill", v, 1, 0, [=](Arena& a) -> Run {
    return [=, dst = a.zeros(n)](cudaStream_t s) { fill(dst, 1.0f, n, s); };
  });
  add("axpy", v, 3, 2, [=](Arena& a) -> Run {
    return
        [=, y = a.zeros(n), x = a.uniform(n)](cudaStream_t s) { axpy<float>(y, small, x, n, s); };
  });
  add("multiply_add", v, 4, 3, [=](Arena& a) -> Run {
    return [=, y = a.zeros(n), x1 = a.uniform(n), x2 = a.uniform(n)](cudaStream_t s) {
      multiply_add<float>(y, small, x1, x2, n, s);
    };
  });
  add("exponential", v, 2, 10, [=](Arena& a) -> Run {
    return [=, dst = a.zeros(n), src = a.uniform(n)](cudaStream_t s) {
      exponential<float>(dst, src, n, s);
    };
  });
  add("rate_multiply", v, 2, 1, [=](Arena& a) -> Run {
    return [=, dst = a.zeros(n), rate = a.uniform(width), x = a.uniform(n)](cudaStream_t s) {
      rate_multiply<float>(dst, {0.0f, rate}, x, e, s);
    };
  });
  add("rate_step", v, 3, 2, [=](Arena& a) -> Run {
    return [=, dst = a.zeros(n), src = a.uniform(n), g = a.uniform(n)](cudaStream_t s) {
      rate_step<float>(dst, src, {0.01f, nullptr}, g, e, s);
    };
  });
  add("draw_sample", v, 3, 67, [=](Arena& a) -> Run {
    return [=, phi = a.zeros(n), mu = a.uniform(n), sigma = a.uniform(n, 0.0f)](cudaStream_t s) {
      draw_sample<float>(phi, nullptr, mu, sigma, {}, e, s);
    };
  });
  add("sample", v, 4, 2, [=](Arena& a) -> Run {
    return [=, phi = a.zeros(n), eps = a.uniform(n), mu = a.uniform(n),
            sigma = a.uniform(n)](cudaStream_t s) { sample<float>(phi, eps, mu, sigma, n, s); };
  });
  add("sample_pullback", v, 7, 5, [=](Arena& a) -> Run {
    return [=, g_mu = a.zeros(n), g_s = a.zeros(n), g = a.uniform(n), eps = a.uniform(n),
            sigma = a.uniform(n)](cudaStream_t s) {
      sample_pullback<float>(g_mu, g_s, small, g, eps, sigma, n, s);
    };
  });
  add("sample_direction", v, 5, 3, [=](Arena& a) -> Run {
    return [=, u = a.zeros(n), v_mu = a.uniform(n), v_s = a.uniform(n), eps = a.uniform(n),
            sigma = a.uniform(n)](cudaStream_t s) {
      sample_direction<float>(u, v_mu, v_s, eps, sigma, n, s);
    };
  });
  const auto pair = [=](Arena& a) {
    return GaussianPair<float>{a.uniform(n), a.uniform(n), a.uniform(n), a.uniform(n), {small, {}}};
  };
  add("kl", v, 12, 40, [=](Arena& a) -> Run {
    return [=, q = pair(a), value = a.zeros(static_cast<std::size_t>(e.tasks)), g_mu = a.zeros(n),
            g_s = a.zeros(n), gp_mu = a.zeros(n),
            gp_s = a.zeros(n)](cudaStream_t s) { kl(q, value, g_mu, g_s, gp_mu, gp_s, e, s); };
  });
  add("kl_hvp", v, 14, 40, [=](Arena& a) -> Run {
    return [=, q = pair(a), v_mu = a.uniform(n), v_s = a.uniform(n), r_mu = a.zeros(n),
            r_s = a.zeros(n), rp_mu = a.zeros(n), rp_s = a.zeros(n)](cudaStream_t s) {
      kl_hvp<float>(q, v_mu, v_s, r_mu, r_s, rp_mu, rp_s, e, s);
    };
  });
}

void Works::latent(const Vectors& v) {
  const Extent e = v.extent;
  const std::size_t n = e.count();
  const auto tasks = static_cast<std::size_t>(e.tasks);
  // A fold to the whole width is a plain product.
  add("multiply_fold", v, 4, 3, [=](Arena& a) -> Run {
    return [=, y = a.zeros(n), x1 = a.uniform(n), x2 = a.uniform(n)](cudaStream_t s) {
      multiply_fold<float>(y, small, x1, x2, e, e.width, s);
    };
  });
  add("draw_normal", v, 1, 65, [=](Arena& a) -> Run {
    return [=, dst = a.zeros(n)](cudaStream_t s) { draw_normal(dst, {}, e, s); };
  });
  add("mean_square", v, 4, 5, [=](Arena& a) -> Run {
    return [=, value = a.zeros(tasks), x = a.uniform(n), y = a.uniform(n),
            g = a.zeros(n)](cudaStream_t s) { mean_square<float>(value, small, x, y, g, e, s); };
  });
  add("drop", v, 2, 15, [=](Arena& a) -> Run {
    return [=, dst = a.zeros(n), src = a.uniform(n)](cudaStream_t s) {
      drop<float>(dst, src, 0.3, {}, e, s);
    };
  });
}

void Works::scalar(const Vectors& v) {
  const Extent e = v.extent;
  const std::size_t n = e.count();
  const auto tasks = static_cast<std::size_t>(e.tasks);
  add("from_counts", v.problem, e.tasks, 2.0 * e.tasks, 0, [=](Arena& a) -> Run {
    return [=, dst = a.zeros(tasks), counts = a.labels(tasks, 10)](cudaStream_t s) {
      from_counts(dst, counts, e.tasks, s);
    };
  });
  const auto unary = [&](const char* launcher, double flops, auto function) {
    add(launcher, v, 2, flops, [=](Arena& a) -> Run {
      return [=, dst = a.zeros(n), src = a.uniform(n, 0.5f)](cudaStream_t s) {
        function(dst, src, n, s);
      };
    });
  };
  unary("reciprocal", 1, reciprocal<float>);
  unary("logarithm", 10, logarithm<float>);
  unary("square_root", 1, square_root<float>);
  add("scale_by", v, 2, 1, [=](Arena& a) -> Run {
    return [=, y = a.uniform(n), by = a.uniform(tasks)](cudaStream_t s) {
      scale_by<float>(y, by, e, s);
    };
  });
  add("adam_step", v, 7, 15, [=](Arena& a) -> Run {
    const TaskAdam<float> adam{
        a.uniform(n), a.uniform(n), a.zeros(n), a.zeros(n), a.uniform(tasks, 1.0f, 2.0f),
        1e-3f,        0.9f,         0.999f,     1e-8f};
    return [=](cudaStream_t s) { adam_step(adam, e, s); };
  });
}

void Works::reduction(const Vectors& v) {
  const Extent e = v.extent;
  const std::size_t n = e.count();
  const auto width = static_cast<std::size_t>(e.width);
  const int runs = (e.tasks + run_tasks - 1) / run_tasks;
  const double sums = static_cast<double>(count_of(runs, e.width));
  add("mark_diverged", v, 1, 1, [=](Arena& a) -> Run {
    return [=, flags = a.labels(static_cast<std::size_t>(e.tasks), 1),
            x = a.uniform(n)](cudaStream_t s) { mark_diverged<float>(flags, x, e, s); };
  });
  add("sum_runs", v.problem, e.tasks, static_cast<double>(n) + sums, static_cast<double>(n),
      [=](Arena& a) -> Run {
        return [=, to = a.zeros(count_of(runs, e.width)), x = a.uniform(n),
                flags = a.labels(static_cast<std::size_t>(e.tasks), 1)](cudaStream_t s) {
          sum_runs<float>(to, width, x, flags, e, s);
        };
      });
  const int levels = static_cast<int>(std::bit_width(static_cast<unsigned>(runs))) + 1;
  add("push_runs", v.problem, e.tasks, sums + sums / 2.0, sums, [=](Arena& a) -> Run {
    const RunTree tree{a.doubles(count_of(2 * levels, e.width)), width, levels, 0};
    return [=, from = a.uniform(count_of(runs, e.width))](cudaStream_t s) {
      push_runs<float>(tree, from, 0, runs, width, s);
    };
  });
  add("fold_nodes", v.problem, e.tasks, 6.0 * e.width, 2.0 * e.width, [=](Arena& a) -> Run {
    return [=, total = a.doubles(width), nodes = a.doubles(2 * width), merges = a.labels(2, 1)](
               cudaStream_t s) { fold_nodes(total, nodes, width, merges, 2, width, s); };
  });
  add("count_runs", v.problem, e.tasks, 2.0 * e.tasks, e.tasks, [=](Arena& a) -> Run {
    return
        [=, to = a.doubles(count_of(runs, 3)), loss = a.uniform(static_cast<std::size_t>(e.tasks)),
         flags = a.labels(static_cast<std::size_t>(e.tasks), 1)](cudaStream_t s) {
          count_runs<float>(to, loss, flags, e.tasks, s);
        };
  });
  add("mean_of_total", v.problem, e.tasks, 3.0 * e.width, e.width, [=](Arena& a) -> Run {
    return [=, mean = a.zeros(width), total = a.doubles(width), tasks = a.doubles(1)](
               cudaStream_t s) { mean_of_total<float>(mean, total, tasks, width, s); };
  });
}

// ---- layers ----

void Works::linear() {
  struct Case {
    const char* problem;
    int tasks, rows;
    LinearSize size;
  };
  const std::vector<Case> cases = smoke_
                                      ? std::vector<Case>{{"tiny", 2, 3, {7, 5}}}
                                      : std::vector<Case>{{"40x40_10rows", 16384, 10, {40, 40}},
                                                          {"head_64x5_75rows", 1024, 75, {64, 5}}};
  for (const Case& c : cases) {
    const RowExtent rows{c.tasks, c.rows, nullptr};
    const std::size_t weights = count_of(c.size.inputs, c.size.outputs),
                      stride = weights + static_cast<std::size_t>(c.size.outputs),
                      all = stride * static_cast<std::size_t>(c.tasks),
                      x_count = count_of(c.tasks, c.rows, c.size.inputs),
                      y_count = count_of(c.tasks, c.rows, c.size.outputs);
    const double macs = static_cast<double>(x_count) * c.size.outputs;
    for (const bool tangent : {false, true}) {
      const double twice = tangent ? 2 : 1;
      const std::string problem = c.problem + std::string(tangent ? "_tangent" : "");
      const auto features = [=](Arena& a, std::size_t count) {
        return Tangent<const float>{a.uniform(count), tangent ? a.uniform(count) : nullptr};
      };
      const auto outputs = [=](Arena& a, std::size_t count) {
        return Tangent<float>{a.zeros(count), tangent ? a.zeros(count) : nullptr};
      };
      struct Weights {
        TensorTangent<const float> weight, bias;
      };
      const auto parameters = [=](Arena& a) {
        Weights w;
        const float* value = a.uniform(all);
        w.weight.value = {value, stride}, w.bias.value = {value + weights, stride};
        if (tangent) {
          const float* dot = a.uniform(all);
          w.weight.dot = {dot, stride}, w.bias.dot = {dot + weights, stride};
        }
        return w;
      };
      const auto numbers = static_cast<double>(all + x_count + y_count) * twice;
      const double flops = 2 * macs * (tangent ? 3 : 1);
      add("linear_forward", problem, c.tasks, numbers, flops, [=](Arena& a) -> Run {
        return [=, y = outputs(a, y_count), x = features(a, x_count),
                w = parameters(a)](cudaStream_t s) {
          linear_forward<float>(y, x, w.weight, w.bias, c.size, rows, s);
        };
      });
      add("linear_input_gradient", problem, c.tasks, numbers, flops, [=](Arena& a) -> Run {
        return [=, g_in = outputs(a, x_count), g = features(a, y_count),
                w = parameters(a)](cudaStream_t s) {
          linear_input_gradient<float>(g_in, g, w.weight, c.size, rows, s);
        };
      });
      add("linear_weight_gradient", problem, c.tasks, numbers, flops, [=](Arena& a) -> Run {
        TensorTangent<float> g_weight, g_bias;
        float* value = a.zeros(all);
        g_weight.value = {value, stride}, g_bias.value = {value + weights, stride};
        if (tangent) {
          float* dot = a.zeros(all);
          g_weight.dot = {dot, stride}, g_bias.dot = {dot + weights, stride};
        }
        return [=, g = features(a, y_count), x = features(a, x_count)](cudaStream_t s) {
          linear_weight_gradient<float>(g_weight, g_bias, {}, g, x, c.size, rows, s);
        };
      });
    }
  }
}

void Works::activation() {
  const int tasks = smoke_ ? 2 : 512, features = smoke_ ? 50 : 5 * 64 * 14 * 14;
  const Vectors v{smoke_ ? "tiny" : "conv4_block1", {tasks, features}};
  const std::size_t n = v.extent.count();
  for (const auto& [name, function, cost] :
       {std::tuple{"relu", Activation::relu, 1.0}, {"tanh", Activation::tanh, 20.0}}) {
    const Vectors of{v.problem, v.extent};
    const std::string forward = fmt::format("activation_forward/{}", name),
                      backward = fmt::format("activation_backward/{}", name);
    const Activation f = function;
    add(forward, of, 4, 2 * cost, [=](Arena& a) -> Run {
      const Tangent<float> y{a.zeros(n), a.zeros(n)};
      const Tangent<const float> x{a.uniform(n), a.uniform(n)};
      return [=](cudaStream_t s) { activation_forward<float>(f, y, x, n, s); };
    });
    add(backward, of, 6, 3 * cost, [=](Arena& a) -> Run {
      const Tangent<float> g_in{a.zeros(n), a.zeros(n)};
      const Tangent<const float> g{a.uniform(n), a.uniform(n)}, x{a.uniform(n), a.uniform(n)};
      return [=](cudaStream_t s) { activation_backward<float>(f, g_in, g, x, n, s); };
    });
  }
}

void Works::loss() {
  const int tasks = smoke_ ? 2 : 8192, rows_each = smoke_ ? 4 : 75, ways = 5;
  const std::string problem = smoke_ ? "tiny" : "5way_75rows";
  const RowExtent rows{tasks, rows_each, nullptr};
  const std::size_t n = count_of(tasks, rows_each, ways), row_count = count_of(tasks, rows_each);
  const auto count = static_cast<double>(n);
  const auto add_loss = [&](const char* name, LossFunction function) {
    add(fmt::format("loss/{}", name), problem, tasks, 4 * count, 30 * count, [=](Arena& a) -> Run {
      LossTarget<float> target{.function = function};
      if (function == LossFunction::cross_entropy) {
        target.labels = a.labels(row_count, ways);
      } else {
        target.values = a.uniform(n);
      }
      const Tangent<const float> out{a.uniform(n), a.uniform(n)};
      const Tangent<float> g{a.zeros(n), a.zeros(n)};
      return [=, value = a.zeros(static_cast<std::size_t>(tasks)),
              row_loss = a.zeros(row_count)](cudaStream_t s) {
        kshot::cuda::loss<float>(target, out, ways, rows, {small, nullptr}, value, row_loss, g, s);
      };
    });
  };
  add_loss("cross_entropy", LossFunction::cross_entropy);
  add_loss("gaussian_nll", LossFunction::gaussian_nll);
  add("own_rows", problem, tasks, 2 * count, 0, [=](Arena& a) -> Run {
    return [=, dst = a.zeros(n), src = a.uniform(n)](cudaStream_t s) {
      own_rows<float>(dst, src, ways, rows, s);
    };
  });
}

ConvShape stride_2(int in_channels, int side, int out_channels) {
  const int out = (side + 2 - 3) / 2 + 1;
  return {in_channels, side, side, out_channels, out, out, 3, 2, 1};
}

void Works::conv() {
  if (smoke_) {
    conv("tiny", stride_2(3, 6, 4), {2, 2, nullptr});
    return;
  }
  int channels = 1, side = 28;
  for (int block = 1; block <= 4; ++block) {
    const ConvShape shape = stride_2(channels, side, 64);
    conv(fmt::format("conv4_block{}_5rows", block), shape, {512, 5, nullptr});
    if (block <= 2) conv(fmt::format("conv4_block{}_75rows", block), shape, {128, 75, nullptr});
    channels = 64, side = shape.out_height;
  }
}

void Works::conv(const std::string& problem, const ConvShape& c, const RowExtent& rows) {
  conv(problem, c, rows, Arithmetic::plain);
  int device = 0;
  if (cudaGetDevice(&device) == cudaSuccess && has_tensor_cores(device)) {
    conv(problem + "_split_tf32", c, rows, Arithmetic::split_tf32);
  }
}

void Works::conv(const std::string& problem, const ConvShape& c, const RowExtent& rows,
                 Arithmetic how) {
  const std::size_t x_count = count_of(rows.tasks, rows.rows, c.in_channels) *
                              count_of(c.in_height, c.in_width),
                    y_count = count_of(rows.tasks, rows.rows, c.out_channels) *
                              count_of(c.out_height, c.out_width),
                    stride = count_of(c.out_channels, c.in_channels, c.kernel * c.kernel),
                    weights = stride * static_cast<std::size_t>(rows.tasks),
                    biases = count_of(rows.tasks, c.out_channels);
  const double macs = static_cast<double>(y_count) * c.in_channels * c.kernel * c.kernel;
  const auto bias_stride = static_cast<std::size_t>(c.out_channels);
  for (const int products : {1, 2}) {  // 1: the value; 2: the tangent
    const std::string name = problem + (products == 2 ? "_tangent" : "");
    const double flops = 2 * macs * products;
    const auto factor = [=](Arena& a, std::size_t count, int which) {
      return which < products ? a.uniform(count) : nullptr;
    };
    const auto one = [=](Arena& a, std::size_t count, int which) {
      return ConvProduct<float>{factor(a, count, which), {factor(a, weights, which), stride}};
    };
    const auto numbers = static_cast<double>(products * (x_count + weights) + y_count);
    add("conv_forward", name, rows.tasks, numbers, flops, [=](Arena& a) -> Run {
      return [=, y = a.zeros(y_count), first = one(a, x_count, 0), second = one(a, x_count, 1),
              bias = a.uniform(biases)](cudaStream_t s) {
        conv_forward<float>(y, first, second, {bias, bias_stride}, c, rows, how, s);
      };
    });
    add("conv_input_gradient", name, rows.tasks,
        static_cast<double>(products * (y_count + weights) + x_count), flops, [=](Arena& a) -> Run {
          return [=, g = a.zeros(x_count), first = one(a, y_count, 0),
                  second = one(a, y_count, 1)](cudaStream_t s) {
            conv_input_gradient<float>(g, first, second, c, rows, how, s);
          };
        });
    const auto outer = [=](Arena& a, int which) {
      return ConvOuterProduct<float>{factor(a, y_count, which), factor(a, x_count, which)};
    };
    add("conv_weight_gradient", name, rows.tasks,
        static_cast<double>(products * (y_count + x_count) + weights), flops, [=](Arena& a) -> Run {
          return [=, g = a.zeros(weights), g_bias = a.zeros(biases), first = outer(a, 0),
                  second = outer(a, 1)](cudaStream_t s) {
            conv_weight_gradient<float>({g, stride}, {g_bias, bias_stride}, first, second, false, c,
                                        rows, how, s);
          };
        });
  }
}

void Works::norm() {
  const NormSize size = smoke_ ? NormSize{3, 7} : NormSize{64, 14 * 14};
  const RowExtent rows = smoke_ ? RowExtent{2, 2, nullptr} : RowExtent{512, 5, nullptr};
  const std::string problem = smoke_ ? "tiny" : "conv4_block1_5rows";
  const std::size_t n = count_of(rows.tasks, rows.rows, size.channels) *
                        static_cast<std::size_t>(size.positions),
                    channels = count_of(rows.tasks, size.channels);
  const auto stride = static_cast<std::size_t>(size.channels);
  const auto count = static_cast<double>(n);
  const auto tensor = [=](Arena& a) {
    return TaskTensor<const float>{a.uniform(channels), stride};
  };
  const auto gradient = [=](Arena& a) { return TaskTensor<float>{a.zeros(channels), stride}; };
  const auto add_norm = [&](const char* launcher, double numbers, double flops, auto launch,
                            auto make) {
    add(launcher, problem, rows.tasks, numbers * count, flops * count,
        [=](Arena& a) -> Run { return [=, pass = make(a)](cudaStream_t s) { launch(pass, s); }; });
  };
  add_norm(
      "norm_forward", 3, 8,
      [=](const auto& pass, cudaStream_t s) {
        norm_forward(pass, NormSource::batch, size, rows, s);
      },
      [=](Arena& a) {
        return NormForward<float>{a.uniform(n),      tensor(a),  tensor(a), a.zeros(channels),
                                  a.zeros(channels), a.zeros(n), a.zeros(n)};
      });
  add_norm(
      "norm_forward_tangent", 4, 10,
      [=](const auto& pass, cudaStream_t s) { norm_forward_tangent(pass, size, rows, s); },
      [=](Arena& a) {
        return NormForwardTangent<float>{a.uniform(n),      a.uniform(channels), a.uniform(n),
                                         tensor(a),         tensor(a),           tensor(a),
                                         a.zeros(channels), a.zeros(n),          a.zeros(n)};
      });
  const auto backward = [=](Arena& a) {
    return NormBackward<float>{a.uniform(n), a.uniform(n), a.uniform(channels), tensor(a),
                               a.zeros(n),   gradient(a),  gradient(a),         false};
  };
  add_norm(
      "norm_backward", 3, 9,
      [=](const auto& pass, cudaStream_t s) { norm_backward(pass, size, rows, s); }, backward);
  add_norm(
      "norm_backward_tangent", 6, 25,
      [=](const auto& pass, cudaStream_t s) { norm_backward_tangent(pass, size, rows, s); },
      [=](Arena& a) {
        return NormBackwardTangent<float>{backward(a),         a.uniform(n), a.uniform(n),
                                          a.uniform(channels), tensor(a),    a.zeros(n),
                                          gradient(a),         gradient(a),  false};
      });
}

void Works::pool() {
  const PoolSize size = smoke_ ? PoolSize{2, 5, 4, 2} : PoolSize{64, 28, 28, 2};
  const RowExtent rows = smoke_ ? RowExtent{2, 2, nullptr} : RowExtent{256, 5, nullptr};
  const std::string problem = smoke_ ? "tiny" : "conv4_block1_5rows";
  const std::size_t maps = count_of(rows.tasks, rows.rows, size.channels),
                    inputs = maps * count_of(size.height, size.width),
                    outputs = maps * count_of(size.height / size.size, size.width / size.size);
  const int positions = size.height * size.width;
  const auto in = static_cast<double>(inputs), out = static_cast<double>(outputs),
             map = static_cast<double>(maps);
  add("max_pool_forward", problem, rows.tasks, in + 1.25 * out, in, [=](Arena& a) -> Run {
    return [=, y = a.zeros(outputs), winner = a.bytes(outputs), x = a.uniform(inputs)](
               cudaStream_t s) { max_pool_forward<float>(y, winner, x, size, rows, s); };
  });
  add("max_pool_gather", problem, rows.tasks, 2.25 * out, 0, [=](Arena& a) -> Run {
    return [=, y = a.zeros(outputs), winner = a.bytes(outputs), x = a.uniform(inputs)](
               cudaStream_t s) { max_pool_gather<float>(y, winner, x, size, rows, s); };
  });
  add("max_pool_scatter", problem, rows.tasks, in + 1.25 * out, 0, [=](Arena& a) -> Run {
    return [=, g_x = a.zeros(inputs), winner = a.bytes(outputs), g_y = a.uniform(outputs)](
               cudaStream_t s) { max_pool_scatter<float>(g_x, winner, g_y, size, rows, s); };
  });
  add("mean_forward", problem, rows.tasks, in + map, in, [=](Arena& a) -> Run {
    return [=, y = a.zeros(maps), x = a.uniform(inputs)](cudaStream_t s) {
      mean_forward<float>(y, x, size.channels, positions, rows, s);
    };
  });
  add("mean_backward", problem, rows.tasks, in + map, in, [=](Arena& a) -> Run {
    return [=, g_x = a.zeros(inputs), g_y = a.uniform(maps)](cudaStream_t s) {
      mean_backward<float>(g_x, g_y, size.channels, positions, rows, s);
    };
  });
}

void Works::shared() {
  const int width = smoke_ ? 700 : 112325;
  const std::string problem = smoke_ ? "tiny" : "conv4";
  const auto n = static_cast<std::size_t>(width);
  const auto add_shared = [&](const char* launcher, double numbers, double flops,
                              std::function<Run(Arena&)> prepare) {
    add(launcher, problem, 1, numbers * width, flops * width, std::move(prepare));
  };
  add_shared("multiply", 3, 1, [=](Arena& a) -> Run {
    return [=, dst = a.uniform(n), src = a.uniform(n)](cudaStream_t s) {
      multiply<float>(dst, src, n, s);
    };
  });
  add_shared("squared_norm", 1, 2, [=](Arena& a) -> Run {
    return [=, sum = a.doubles(1), x = a.uniform(n)](cudaStream_t s) {
      squared_norm<float>(sum, 1.0, x, 0.0f, n, s);
    };
  });
  add_shared("guard", 2, 1, [=](Arena& a) -> Run {
    StepStatistics step{};
    step.status = static_cast<double>(StepStatus::guard);
    return [=, g = a.zeros(n), p = a.uniform(n), of = a.upload(std::vector<StepStatistics>{step})](
               cudaStream_t s) { guard<float>(g, p, 1e-4f, of, n, s); };
  });
  std::vector<std::uint32_t> order(n), first(n + 1);
  for (std::size_t i = 0; i < n; ++i) order[i] = static_cast<std::uint32_t>(n - 1 - i);
  for (std::size_t i = 0; i <= n; ++i) first[i] = static_cast<std::uint32_t>(i);
  add_shared("gather", 3, 0, [=](Arena& a) -> Run {
    return [=, dst = a.zeros(n), src = a.uniform(n), index = a.upload(order)](cudaStream_t s) {
      gather<float>(dst, src, index, n, s);
    };
  });
  // Groups of one element, as for rates per weight, give the largest number of sums.
  add_shared("gather_sum", 4, 1, [=](Arena& a) -> Run {
    return [=, dst = a.zeros(n), src = a.uniform(n), begin = a.upload(first),
            from = a.upload(order)](cudaStream_t s) {
      gather_sum<float>(dst, src, begin, from, n, false, s);
    };
  });
  add_shared("hyper_prior", 6, 20, [=](Arena& a) -> Run {
    return [=, sum = a.doubles(1), mu = a.uniform(n), s_ = a.uniform(n), g_mu = a.zeros(n),
            g_s = a.zeros(n)](cudaStream_t s) {
      hyper_prior<float>(sum, mu, s_, 2.0, 0.2, 1e-6, g_mu, g_s, n, s);
    };
  });
  add_shared("clip", 2, 3, [=](Arena& a) -> Run {
    return [=, x = a.uniform(n), segments = a.upload(std::vector<Segment>{{0, n}})](
               cudaStream_t s) { clip<float>(x, 10.0f, 1.0, segments, 1, s); };
  });
  const int rows = smoke_ ? 12 : 1280, columns = smoke_ ? 5 : 64;
  const double cells = static_cast<double>(rows) * columns;
  add("column_orthogonality", fmt::format("{}x{}", rows, columns), 1, 4 * cells,
      4 * cells * columns, [=](Arena& a) -> Run {
        return [=, value = a.doubles(1), d = a.uniform(count_of(rows, columns)),
                g = a.zeros(count_of(rows, columns)),
                scratch = a.doubles(count_of(columns, columns + 2))](cudaStream_t s) {
          column_orthogonality<float>(value, d, rows, columns, 1e-6, g, scratch, s);
        };
      });
  add_shared("optimizer_step", 7, 15, [=](Arena& a) -> Run {
    OptimizerArguments<float> step;
    step.parameters = a.uniform(n), step.gradient = a.uniform(n);
    step.first = a.zeros(n), step.second = a.zeros(n);
    step.rate = 1e-3f, step.beta1 = 0.9f, step.beta2 = 0.999f, step.epsilon = 1e-8f;
    step.correction1 = 0.1f, step.correction2 = 1e-3f;
    return [=](cudaStream_t s) { optimizer_step(step, n, s); };
  });
}

void Works::episodes() {
  const int tasks = smoke_ ? 2 : 4096;
  // The first problem has Omniglot's training classes, the second features of unit length.
  classes("5-way 1-shot, 28x28 u8", tasks, {nullptr, smoke_ ? 7u : 4112u, 5, 1, 15}, 20,
          smoke_ ? 9 : 784, true);
  classes("5-way 5-shot, 640 f32", tasks, {nullptr, smoke_ ? 6u : 64u, 5, 5, 15}, smoke_ ? 21 : 600,
          smoke_ ? 7 : 640, false);
  const int of_sinusoids = smoke_ ? 2 : 16384, points = 20;
  const SinusoidRanges ranges = sinusoid_ranges({});
  const auto n = count_of(of_sinusoids, points / 2);
  add("draw_sinusoids", "10 + 10 points", of_sinusoids, 4.0 * static_cast<double>(n), 0,
      [=](Arena& a) -> Run {
        const auto set = [&] {
          EpisodeSet<float> made;
          made.x = a.zeros(n);
          made.values = a.zeros(n);
          made.counts = a.labels(static_cast<std::size_t>(of_sinusoids), 1);
          return made;
        };
        EpisodeArrays<float> to{of_sinusoids, points / 2, points / 2, set(), set(), {}};
        to.of_all.counts = a.labels(static_cast<std::size_t>(of_sinusoids), 1);
        return [=](cudaStream_t s) { draw_sinusoids(to, ranges, {}, s); };
      });
}

void Works::classes(const std::string& problem, int tasks, const ClassDraw& draw, int rows,
                    int features, bool pixels) {
  const int support = draw.ways * draw.shots, query = draw.ways * draw.queries;
  const std::size_t stored = draw.group_count * static_cast<std::size_t>(rows);
  const auto width = static_cast<std::size_t>(features);
  const std::size_t examples = count_of(tasks, support + query);
  const auto arrays = [=](Arena& a, bool x) {
    const auto set = [&](int of_task) {
      EpisodeSet<float> made;
      if (x) made.x = a.zeros(count_of(tasks, of_task, features));
      made.labels = a.labels(count_of(tasks, of_task), 1);
      made.counts = a.labels(static_cast<std::size_t>(tasks), 1);
      return made;
    };
    EpisodeArrays<float> to{tasks, support, query, set(support), set(query), {}};
    to.of_all.counts = a.labels(static_cast<std::size_t>(tasks), 1);
    return to;
  };
  add("draw_classes", problem, tasks, 2.0 * static_cast<double>(examples), 0, [=](Arena& a) -> Run {
    std::vector<RowGroup> groups(draw.group_count);
    for (std::uint32_t g = 0; g < draw.group_count; ++g) {
      groups[g] = {g * static_cast<std::uint32_t>(rows), static_cast<std::uint32_t>(rows)};
    }
    ClassDraw of = draw;
    of.groups = a.upload(groups);
    std::vector<std::uint32_t> none(examples);
    return [=, to = arrays(a, false), taken = a.upload(none)](cudaStream_t s) {
      draw_classes(taken, to, of, {}, s);
    };
  });
  const double numbers = static_cast<double>(examples) * (features * (pixels ? 1.25 : 2.0) + 1.0);
  add("gather_rows", problem, tasks, numbers, 0, [=](Arena& a) -> Run {
    std::vector<std::uint32_t> taken(examples);  // scattered rows
    for (std::size_t i = 0; i < examples; ++i) {
      taken[i] = static_cast<std::uint32_t>(i * 7919 % stored);
    }
    const auto to = arrays(a, true);
    const std::uint32_t* const from = a.upload(taken);
    if (pixels) {
      return [=, x = a.bytes(stored * width)](cudaStream_t s) {
        gather_rows(to, x, nullptr, from, features, s);
      };
    }
    return [=, x = a.uniform(stored * width), factor = a.uniform(stored, 0.5f)](cudaStream_t s) {
      gather_rows(to, x, factor, from, features, s);
    };
  });
}

}  // namespace

std::vector<KernelWork> kernel_works(bool smoke) {
  std::vector<KernelWork> all = Works(smoke).take();
  for (std::vector<KernelWork> more :
       {generator_works(smoke), perceptron_works(smoke), head_works(smoke)}) {
    std::ranges::move(more, std::back_inserter(all));
  }
  return all;
}

}  // namespace KSHOT_PLATFORM
}  // namespace kshot::cuda
