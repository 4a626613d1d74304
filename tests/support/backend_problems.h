// Helpers that the tests of backends and algorithms share: every usable backend by name, problems
// (a network, a loss and tasks of different size) whose numbers are exact in float, a runner that
// applies one wave operation to all tasks, and central differences.
//
// Expected values are central differences of the reference backend's loss, never another backend's
// derivative. tests/backend/layers_test.cpp tests that loss against closed forms.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <numeric>
#include <ostream>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "kshot/episode.h"
#include "kshot/error.h"
#include "kshot/network.h"
#include "kshot/random.h"

namespace kshot::testing {

using Numbers = std::vector<double>;

/// The instruction sets for which the CPU backend is compiled.
inline constexpr const char* cpu_instruction_sets[] = {"portable", "avx2", "avx512"};

/// Opens a backend by its name in the tests. "cpu_avx2" is the CPU backend restricted to AVX2, and
/// "simt_f64" is the emulated CUDA backend in double precision. Other names are devices. Throws
/// what make_backend throws. The test fails where the opened backend is not the one that the name
/// asks for.
inline std::unique_ptr<backend::Backend> open_backend(const std::string& name, int threads = 1) {
  const bool cpu = name.starts_with("cpu_");
  if (const auto precision = name.find("_f"); !cpu && precision != name.npos) {
    const auto float_type =
        name.ends_with("64") ? backend::Precision::f64 : backend::Precision::f32;
    // Test names cannot hold a colon, so that "cuda0_f32" stands for the device "cuda:0".
    std::string device = name.substr(0, precision);
    if (device.starts_with("cuda")) device.insert(4, ":");
    auto backend = backend::make_backend(device, threads, float_type);
    EXPECT_EQ(backend->name(), device);
    EXPECT_EQ(backend->precision(), float_type);
    return backend;
  }
  if (!cpu) {
    auto backend = backend::make_backend(name, threads);
    EXPECT_EQ(backend->name(), name);
    return backend;
  }
  const std::string instruction_set = name.substr(4);
  const char* const before = std::getenv("KSHOT_ISA");
  const std::string saved = before != nullptr ? before : "";
  ::setenv("KSHOT_ISA", instruction_set.c_str(), 1);
  const auto restore = [&] {
    saved.empty() ? ::unsetenv("KSHOT_ISA") : ::setenv("KSHOT_ISA", saved.c_str(), 1);
  };
  try {
    auto backend = backend::make_backend("cpu", threads);
    restore();
    EXPECT_EQ(backend->name(), "cpu");
    EXPECT_NE(backend->description().find("cpu, " + instruction_set), std::string::npos)
        << backend->description();
    return backend;
  } catch (...) {
    restore();
    throw;
  }
}

/// All backends of this build that can run here: the CPU backend once per instruction set, the CUDA
/// backends in both precisions.
inline std::vector<std::string> find_backend_names() {
  std::vector<std::string> names;
  for (const backend::DeviceInfo& device : backend::list_devices()) {
    if (!device.usable) continue;
    if (device.name == "simt" || device.name.starts_with("cuda")) {
      std::string name = device.name;
      std::erase(name, ':');
      names.push_back(name + "_f32");
      names.push_back(name + "_f64");
      continue;
    }
    if (device.name != "cpu") {
      names.push_back(device.name);
      continue;
    }
    for (const std::string instruction_set : cpu_instruction_sets) {
      try {
        open_backend("cpu_" + instruction_set);
        names.push_back("cpu_" + instruction_set);
      } catch (const DeviceError&) {  // This processor lacks it.
      }
    }
  }
  return names;
}

/// Every instantiation of tests asks for the names, and every test is a process of its own. The
/// search opens backends, so that it is made once per process.
inline const std::vector<std::string>& backend_names() {
  static const std::vector<std::string> names = find_backend_names();
  return names;
}

/// True for the CUDA backend on the emulator. It runs each thread of a kernel by itself and is a
/// thousand times slower than a GPU.
inline bool emulated(const backend::Backend& b) {
  return b.name() == "simt";
}

/// True where the tests run a network on a backend. The emulator takes minutes for images. It
/// therefore runs only networks of linear layers and activations, and the smallest images. The
/// tests of the kernels (tests/simt) and the shared cases cover the rest.
inline bool takes(const backend::Backend& b, const Network& network) {
  if (!emulated(b)) return true;
  if (network.input().size() <= 40 && network.size() <= 100) return true;
  return std::ranges::all_of(network.layers(), [](const Layer& l) {
    return l.type == LayerType::linear || l.type == LayerType::flatten ||
           l.type == LayerType::relu || l.type == LayerType::tanh ||
           l.type == LayerType::leaky_relu;
  });
}

/// (backend, case) pairs for which `taken(case, backend)` is true. The other pairs are not
/// registered as tests at all, because a skipped test means that something is missing on this
/// machine.
template <class Case, class Taken>
std::vector<std::tuple<std::string, Case>> backends_with(const std::vector<Case>& cases,
                                                         const Taken& taken) {
  std::vector<std::tuple<std::string, Case>> all;
  for (const std::string& name : backend_names()) {
    const auto backend = open_backend(name);
    for (const Case& c : cases) {
      if (taken(c, *backend)) all.emplace_back(name, c);
    }
  }
  return all;
}

/// (backend, layout of a wave's tasks) pairs. The CPU backend has two layouts: tasks in SIMD lanes
/// (0, small perceptrons) and one task at a time (1). The other backends have one layout for all
/// networks.
inline std::vector<std::tuple<std::string, int>> backends_and_layouts() {
  return backends_with(std::vector<int>{0, 1}, [](int layout, const backend::Backend& b) {
    return layout == 0 || b.name() == "cpu";
  });
}

/// The names of tests over these pairs.
inline std::string layout_test_name(
    const ::testing::TestParamInfo<std::tuple<std::string, int>>& param) {
  return std::get<0>(param.param) + (std::get<1>(param.param) == 0 ? "_lanes" : "_single");
}

/// The first `count` tasks of a batch.
inline TaskBatch first_tasks(const TaskBatch& batch, int count) {
  TaskBatch first(batch.shape(), count, batch.is_double());
  const auto copy = [](const auto& from, auto& to) {
    std::copy_n(from.begin(), to.size(), to.begin());
  };
  copy(batch.support_x, first.support_x);
  copy(batch.query_x, first.query_x);
  copy(batch.support_value, first.support_value);
  copy(batch.query_value, first.query_value);
  copy(batch.support_x64, first.support_x64);
  copy(batch.query_x64, first.query_x64);
  copy(batch.support_value64, first.support_value64);
  copy(batch.query_value64, first.query_value64);
  copy(batch.support_label, first.support_label);
  copy(batch.query_label, first.query_label);
  copy(batch.support_n, first.support_n);
  copy(batch.query_n, first.query_n);
  copy(batch.ways, first.ways);
  return first;
}

inline RandomStream stream(std::uint64_t seed, std::uint32_t use = 0) {
  return RandomStream({seed, Purpose::user, 0, use, 0, 0});
}

/// n normal numbers that are exact in float.
inline Numbers normals(RandomStream& random, std::size_t n, double scale = 1.0) {
  Numbers x(n);
  for (double& v : x) v = static_cast<float>(scale * random.normal());
  return x;
}

inline int pick(RandomStream& random, int low, int high) {
  return low + static_cast<int>(random.below(static_cast<std::uint32_t>(high - low + 1)));
}

// ---- problems ----

/// A network with its name in the names of tests.
struct NamedNetwork {
  std::string name;
  std::shared_ptr<const Network> network;
};
inline void PrintTo(const NamedNetwork& n, std::ostream* out) {
  *out << n.name;
}

inline LayerSpec conv_layer(int out, int kernel, int stride, int padding) {
  LayerSpec spec;
  spec.type = LayerType::conv;
  spec.out = out;
  spec.kernel = kernel;
  spec.stride = stride;
  spec.padding = padding;
  return spec;
}
inline LayerSpec linear_layer(int out) {
  LayerSpec spec;
  spec.type = LayerType::linear;
  spec.out = out;
  return spec;
}
inline LayerSpec pool_layer(int size) {
  LayerSpec spec;
  spec.type = LayerType::max_pool;
  spec.size = size;
  return spec;
}
inline LayerSpec layer(LayerType type) {
  LayerSpec spec;
  spec.type = type;
  return spec;
}

/// Networks that cover every layer, every edge case of its shapes, and the combinations that
/// matter.
inline std::vector<NamedNetwork> chosen_networks() {
  using enum LayerType;
  std::vector<NamedNetwork> list;
  const auto add = [&](std::string name, Network network) {
    list.push_back({std::move(name), std::make_shared<const Network>(std::move(network))});
  };
  const auto sequential = [&](std::string name, FeatureShape input,
                              const std::vector<LayerSpec>& layers) {
    add(std::move(name), Network(input, layers));
  };
  const auto vector = [](int d) { return FeatureShape{d, 1, 1, false}; };
  const auto image = [](int c, int h, int w) { return FeatureShape{c, h, w, true}; };
  const LayerSpec normalise = layer(norm), flat = layer(flatten), average = layer(mean);
  add("mlp_relu", Network::mlp({2, 9, 7, 3}, relu));
  add("mlp_tanh", Network::mlp({1, 13, 5, 1}, tanh));
  add("mlp_leaky", Network::mlp({4, 6, 6, 6, 2}, leaky_relu));
  add("mlp_wide", Network::mlp({19, 33, 17}, relu));
  add("linear", Network::mlp({5, 4}, relu));
  sequential("vector_norm", vector(6), {linear_layer(8), normalise, layer(tanh), linear_layer(3)});
  sequential("vector_norm_first", vector(4),
             {normalise, linear_layer(5), layer(leaky_relu), normalise, linear_layer(2)});
  sequential("vector_flatten", vector(3),
             {flat, linear_layer(4), layer(relu), linear_layer(2), layer(tanh)});
  sequential("image_mlp", image(2, 3, 3), {flat, linear_layer(6), layer(relu), linear_layer(3)});
  sequential("conv_stride_odd", image(2, 9, 7),
             {conv_layer(5, 3, 2, 1), normalise, layer(relu), conv_layer(4, 2, 1, 0), layer(tanh),
              average, linear_layer(3)});
  sequential("conv_rgb_pool", image(3, 8, 8),
             {conv_layer(4, 3, 1, 1), normalise, layer(relu), pool_layer(2), conv_layer(3, 3, 1, 1),
              layer(relu), pool_layer(2), flat, linear_layer(4)});
  sequential(
      "conv_pool_drops", image(1, 11, 10),
      {conv_layer(3, 5, 1, 2), layer(leaky_relu), pool_layer(3), flat, normalise, linear_layer(3)});
  sequential("conv_stride_beyond_kernel", image(2, 10, 8),
             {conv_layer(6, 2, 3, 0), layer(tanh), flat, linear_layer(2)});
  sequential("conv_padding_beyond_input", image(1, 3, 2),
             {conv_layer(2, 5, 1, 3), layer(tanh), average, linear_layer(2)});
  sequential(
      "conv_pointwise", image(3, 4, 5),
      {conv_layer(4, 1, 1, 0), normalise, conv_layer(2, 1, 2, 0), layer(leaky_relu), average});
  sequential("image_norm_first", image(3, 5, 4),
             {normalise, pool_layer(2), conv_layer(3, 2, 1, 1), layer(tanh), normalise, average,
              linear_layer(2)});
  sequential("conv_ends_flat", image(1, 6, 6),
             {conv_layer(2, 3, 2, 0), layer(relu), conv_layer(3, 2, 1, 0), flat});
  Network::Conv4 conv4;
  conv4.filters = 5;
  conv4.height = 14;
  conv4.width = 13;
  conv4.classes = 4;
  add("conv4_stride", Network::conv4(conv4));
  conv4.batch_norm = false;
  conv4.mean_head = false;
  add("conv4_stride_plain_flat", Network::conv4(conv4));
  conv4 = {3, 18, 16, 3, 3, false, true, false};
  add("conv4_pool_rgb", Network::conv4(conv4));
  sequential("conv_tiny", image(2, 5, 4),
             {conv_layer(3, 3, 2, 1), normalise, layer(leaky_relu), conv_layer(2, 2, 1, 0),
              layer(tanh), average, linear_layer(3)});
  return list;
}

inline std::shared_ptr<const Network> named(const std::vector<NamedNetwork>& list,
                                            const std::string& name) {
  return std::ranges::find(list, name, &NamedNetwork::name)->network;
}

/// A random list of layers that fit together, with at most a few hundred weights.
inline NamedNetwork random_network(std::uint64_t seed) {
  using enum LayerType;
  RandomStream random = stream(seed, 1);
  const auto activation = [&] {
    return layer(std::array{relu, tanh, leaky_relu}[random.below(3)]);
  };
  std::vector<LayerSpec> layers;
  FeatureShape input{pick(random, 1, 6), 1, 1, false};
  bool weights = false;
  if (random.below(2) == 0) {
    input = {pick(random, 1, 3), pick(random, 3, 9), pick(random, 3, 9), true};
    FeatureShape shape = input;
    const int blocks = pick(random, 1, 2);
    for (int i = 0; i < blocks; ++i) {
      LayerSpec c = conv_layer(pick(random, 1, 4), pick(random, 1, 3), pick(random, 1, 2),
                               pick(random, 0, 1));
      c.kernel = std::min({c.kernel, shape.height, shape.width});
      layers.push_back(c);
      weights = true;
      if (random.below(2) == 0) layers.push_back(layer(norm));
      layers.push_back(activation());
      shape = Network(input,
                      [&] {
                        auto closed = layers;
                        closed.push_back(layer(flatten));
                        return closed;
                      }())
                  .layers()[layers.size() - 1]
                  .out;
      if (random.below(2) == 0 && std::min(shape.height, shape.width) >= 2) {
        layers.push_back(pool_layer(2));
        shape.height /= 2;
        shape.width /= 2;
      }
    }
    layers.push_back(layer(random.below(2) == 0 ? mean : flatten));
  }
  const int hidden = pick(random, 0, 2);
  for (int i = 0; i < hidden; ++i) {
    layers.push_back(linear_layer(pick(random, 1, 9)));
    if (random.below(4) == 0) layers.push_back(layer(norm));
    layers.push_back(activation());
    weights = true;
  }
  if (!weights || random.below(4) != 0) layers.push_back(linear_layer(pick(random, 1, 5)));
  return {"random_" + std::to_string(seed), std::make_shared<const Network>(input, layers)};
}

inline const char* loss_name(backend::LossKind kind) {
  switch (kind) {
    case backend::LossKind::cross_entropy:
      return "cross_entropy";
    case backend::LossKind::mse:
      return "mse";
    case backend::LossKind::gaussian_nll:
      break;
  }
  return "gaussian_nll";
}
inline constexpr backend::LossKind all_losses[] = {
    backend::LossKind::cross_entropy, backend::LossKind::mse, backend::LossKind::gaussian_nll};

/// A network, a loss and tasks of different size. All numbers are exact in float. Rows beyond a
/// task's own number hold NaN and labels out of range, because no operation may read them.
struct Problem {
  std::shared_ptr<const Network> network;
  backend::Loss loss;
  int tasks = 0;
  /// The same tasks in float and in double.
  TaskBatch single, twice;
  /// Weights, [tasks, D]. Each task has its own.
  Numbers weights;
  /// See backend::WaveShape::targets.
  int targets = 0;

  std::size_t width() const { return network->size(); }
  const TaskBatch& batch(const backend::Backend& b) const {
    return b.precision() == backend::Precision::f64 ? twice : single;
  }
};

/// Numbers of rows of the tasks of a problem. Task 0 has `support` and `query` rows. Each set of
/// the other tasks has at most as many and at least `least` rows.
struct Rows {
  int least = 3, support = 5, query = 6;
  /// For a head beside the network, which makes the predictions: the number of outputs of the
  /// tasks' targets, and if true, tasks have different numbers of classes.
  int targets = 0;
  bool ways_differ = false;
};

inline Problem make_problem(std::shared_ptr<const Network> network, backend::LossKind loss,
                            int tasks, std::uint64_t seed, Rows rows = {}) {
  Problem p;
  p.network = std::move(network);
  p.loss = {loss, 0.75};
  p.tasks = tasks;
  RandomStream random = stream(seed, 2);
  TaskShape shape;
  shape.input = p.network->input();
  p.targets = rows.targets;
  shape.outputs = rows.targets > 0 ? rows.targets : p.network->outputs();
  shape.target = loss == backend::LossKind::cross_entropy ? TargetKind::label : TargetKind::value;
  shape.support = rows.support;
  shape.query = rows.query;
  p.single = TaskBatch(shape, tasks);
  p.twice = TaskBatch(shape, tasks, true);
  if (rows.ways_differ) {
    for (int t = 0; t < tasks; ++t) {
      p.single.ways.push_back(t == 0 ? shape.outputs : pick(random, 1, shape.outputs));
    }
    p.twice.ways = p.single.ways;
  }
  const auto set = [&](int largest, auto& n, auto& x, auto& x64, auto& value, auto& value64,
                       auto& label) {
    const auto inputs = static_cast<std::size_t>(shape.input.size());
    const auto outputs = static_cast<std::size_t>(shape.outputs);
    x.assign(static_cast<std::size_t>(tasks * largest) * inputs,
             std::numeric_limits<float>::quiet_NaN());
    if (shape.target == TargetKind::value) {
      value.assign(static_cast<std::size_t>(tasks * largest) * outputs,
                   std::numeric_limits<float>::quiet_NaN());
    } else {
      label.assign(static_cast<std::size_t>(tasks * largest), 1 << 30);
    }
    for (int t = 0; t < tasks; ++t) {
      const int valid = t == 0 ? largest : pick(random, std::min(rows.least, largest), largest);
      n[static_cast<std::size_t>(t)] = valid;
      for (int r = 0; r < valid; ++r) {
        const auto row = static_cast<std::size_t>(t * largest + r);
        for (std::size_t i = 0; i < inputs; ++i) x[row * inputs + i] = random.normal();
        if (shape.target == TargetKind::label) {
          const int ways = rows.ways_differ ? p.single.ways[static_cast<std::size_t>(t)]
                                            : static_cast<int>(outputs);
          label[row] = static_cast<std::int32_t>(random.below(static_cast<unsigned>(ways)));
        } else {
          for (std::size_t i = 0; i < outputs; ++i) value[row * outputs + i] = random.normal();
        }
      }
    }
    x64.assign(x.begin(), x.end());
    value64.assign(value.begin(), value.end());
  };
  set(shape.support, p.single.support_n, p.single.support_x, p.twice.support_x64,
      p.single.support_value, p.twice.support_value64, p.single.support_label);
  set(shape.query, p.single.query_n, p.single.query_x, p.twice.query_x64, p.single.query_value,
      p.twice.query_value64, p.single.query_label);
  p.twice.support_n = p.single.support_n;
  p.twice.query_n = p.single.query_n;
  p.twice.support_label = p.single.support_label;
  p.twice.query_label = p.single.query_label;
  const Numbers initial = p.network->initial_weights(seed);
  for (int t = 0; t < tasks; ++t) {
    for (const double w : initial) {
      p.weights.push_back(static_cast<float>(w + 0.2 * random.normal()));
    }
  }
  return p;
}

// ---- one operation over all tasks ----

/// A wave of a backend that processes all tasks of a problem. Per-task vectors are [tasks, width].
class Runner {
 public:
  Runner(backend::Backend& backend, const Problem& problem)
      : problem_(problem),
        batch_(problem.batch(backend)),
        wave_(backend.open(
            problem.network, problem.loss,
            {batch_.shape().support, batch_.shape().query, true, false, problem.targets})) {
    for (backend::Block& b : blocks_) b = wave_->weights();
    loss_ = wave_->block(1);
  }

  backend::Wave& wave() { return *wave_; }
  backend::Block block(int i) const { return blocks_[i]; }

  void load(int first, int count) {
    wave_->load(batch_, first, count, static_cast<std::uint32_t>(first));
  }
  template <typename Body>
  void for_each_wave(const Body& body) {
    for (int first = 0; first < problem_.tasks; first += wave_->capacity()) {
      load(first, std::min(wave_->capacity(), problem_.tasks - first));
      body(first);
    }
  }
  void put(backend::Block to, const Numbers& from) {
    wave_->upload(to, from.data(), from.size() / static_cast<std::size_t>(problem_.tasks));
  }
  /// Appends the vectors of the loaded tasks to `to`, which grows wave by wave.
  void take(backend::Block from, std::size_t width, Numbers& to) {
    const std::size_t old = to.size();
    to.resize(old + static_cast<std::size_t>(wave_->count()) * width);
    wave_->download(from, std::span(to).subspan(old));
  }

  Numbers gradient(const Numbers& weights, backend::Set set, backend::Scale scale,
                   Numbers* loss = nullptr) {
    Numbers result;
    for_each_wave([&](int) {
      put(blocks_[0], weights);
      wave_->fill(loss_, 0.0);
      wave_->gradient({set, blocks_[0], scale}, blocks_[1], false, loss_);
      take(blocks_[1], problem_.width(), result);
      if (loss) take(loss_, 1, *loss);
    });
    return result;
  }
  Numbers hessian_vector(const Numbers& weights, const Numbers& direction, backend::Set set,
                         backend::Scale scale, Numbers* gradient = nullptr) {
    Numbers result;
    for_each_wave([&](int) {
      put(blocks_[0], weights);
      put(blocks_[1], direction);
      wave_->hessian_vector({set, blocks_[0], scale}, blocks_[1], blocks_[2], false,
                            gradient ? blocks_[3] : backend::Block{});
      take(blocks_[2], problem_.width(), result);
      if (gradient) take(blocks_[3], problem_.width(), *gradient);
    });
    return result;
  }
  /// Pull-back of output gradients [tasks, rows, outputs].
  Numbers output_pullback(const Numbers& weights, backend::Set set, const Numbers& g_outputs) {
    Numbers result;
    for_each_wave([&](int) {
      put(blocks_[0], weights);
      put(wave_->outputs(set), g_outputs);
      wave_->output_pullback({set, blocks_[0], {}}, wave_->outputs(set), blocks_[1], false);
      // The second pass accumulates, so that the result is twice the pull-back.
      wave_->output_pullback({set, blocks_[0], {}}, wave_->outputs(set), blocks_[1], true);
      take(blocks_[1], problem_.width(), result);
    });
    for (double& v : result) v *= 0.5;
    return result;
  }
  /// Losses, [tasks], and if `outputs` is given, the outputs, [tasks, rows, outputs].
  Numbers value(const Numbers& weights, backend::Set set, backend::Scale scale,
                backend::NormStatistics statistics = backend::NormStatistics::batch,
                Numbers* outputs = nullptr) {
    Numbers result;
    const auto width = static_cast<std::size_t>(wave_->rows(set)) *
                       static_cast<std::size_t>(problem_.network->outputs());
    for_each_wave([&](int) {
      put(blocks_[0], weights);
      wave_->fill(loss_, 0.0);
      wave_->value({set, blocks_[0], scale}, loss_,
                   outputs ? wave_->outputs(set) : backend::Block{}, statistics);
      take(loss_, 1, result);
      if (outputs) take(wave_->outputs(set), width, *outputs);
    });
    return result;
  }

 private:
  const Problem& problem_;
  const TaskBatch& batch_;
  std::unique_ptr<backend::Wave> wave_;
  backend::Block blocks_[4], loss_;
};

// ---- expected values ----

/// Coordinates at which derivatives are taken: all of a small network, and a seeded choice of a
/// larger one, because every coordinate costs two losses.
inline std::vector<std::size_t> chosen_coordinates(std::size_t width, std::size_t most = 64) {
  std::vector<std::size_t> all(width);
  std::iota(all.begin(), all.end(), std::size_t{0});
  if (width <= most) return all;
  RandomStream random = stream(width, 4);
  for (std::size_t i = 0; i < most; ++i) {
    std::swap(all[i], all[i + random.below(static_cast<std::uint32_t>(width - i))]);
  }
  all.resize(most);
  return all;
}

/// Derivatives by the given coordinates, [tasks, coordinates]. `f` maps [tasks, D] to [tasks], so
/// that one call moves a coordinate of all tasks.
template <typename F>
Numbers central_differences(const F& f, const Numbers& at, std::size_t tasks,
                            const std::vector<std::size_t>& coordinates, double h) {
  const std::size_t width = at.size() / tasks;
  Numbers result(tasks * coordinates.size());
  Numbers x = at;
  for (std::size_t c = 0; c < coordinates.size(); ++c) {
    const std::size_t i = coordinates[c];
    for (std::size_t t = 0; t < tasks; ++t) x[t * width + i] = at[t * width + i] + h;
    const Numbers above = f(x);
    for (std::size_t t = 0; t < tasks; ++t) x[t * width + i] = at[t * width + i] - h;
    const Numbers below = f(x);
    for (std::size_t t = 0; t < tasks; ++t) {
      x[t * width + i] = at[t * width + i];
      result[t * coordinates.size() + c] = (above[t] - below[t]) / (2.0 * h);
    }
  }
  return result;
}

/// The chosen coordinates of [tasks, D].
inline Numbers select(const Numbers& from, std::size_t tasks,
                      const std::vector<std::size_t>& coordinates) {
  const std::size_t width = from.size() / tasks;
  Numbers result;
  for (std::size_t t = 0; t < tasks; ++t) {
    for (const std::size_t i : coordinates) result.push_back(from[t * width + i]);
  }
  return result;
}

/// The derivative of a vector function along a direction.
template <typename F>
Numbers central_difference_along(const F& f, const Numbers& at, const Numbers& direction,
                                 double h) {
  Numbers above = at, below = at;
  for (std::size_t i = 0; i < at.size(); ++i) {
    above[i] += h * direction[i];
    below[i] -= h * direction[i];
  }
  Numbers result = f(above);
  const Numbers low = f(below);
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = (result[i] - low[i]) / (2.0 * h);
  return result;
}

/// Checks that `got` and `want` agree within tolerance * (largest |want| of the row), for rows of
/// `width` elements. A row is a task's whole vector, because elements that cancel to zero (such as
/// a bias before norm) carry the rounding of the others.
inline ::testing::AssertionResult close_rows(const Numbers& got, const Numbers& want,
                                             std::size_t width, double tolerance) {
  if (got.size() != want.size()) {
    return ::testing::AssertionFailure() << got.size() << " numbers, expected " << want.size();
  }
  for (std::size_t row = 0; row * width < want.size(); ++row) {
    double scale = 1e-8;
    for (std::size_t i = 0; i < width; ++i) {
      scale = std::max(scale, std::abs(want[row * width + i]));
    }
    for (std::size_t i = row * width; i < (row + 1) * width; ++i) {
      if (!(std::abs(got[i] - want[i]) <= tolerance * scale)) {
        return ::testing::AssertionFailure()
               << "task " << row << ", element " << i - row * width << ": " << got[i]
               << ", expected " << want[i] << " (scale " << scale << ", tolerance " << tolerance
               << ")";
      }
    }
  }
  return ::testing::AssertionSuccess();
}

/// Tolerance for closed forms of a few operations. It covers rounding alone.
inline double closed_form_tolerance(const backend::Backend& b) {
  return b.precision() == backend::Precision::f64 ? 1e-13 : 2e-6;
}

/// Tolerance for central differences with step 1e-6 of numbers of order 1 to 100. Rounding is 1e-16
/// * 100 / 1e-6 = 1e-8. Truncation is 1e-12 times a third derivative, which norm over few rows lets
/// reach 1e4. In float, the backend's own rounding adds 6e-8, amplified by tens of sums and a
/// division by norm's standard deviation.
inline constexpr double difference_step = 1e-6;
inline double difference_tolerance(const backend::Backend& b) {
  return b.precision() == backend::Precision::f64 ? 1e-6 : 1e-4;
}

}  // namespace kshot::testing
