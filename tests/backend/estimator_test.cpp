// The network under Gaussian weights with all three estimators, on every backend. Values are tested
// against the formulas of docs/mathematics.md, which are written out here once more, derivatives
// against central differences, noise against random.h, and means over many draws against a closed
// form.
#include <optional>
#include "backend/row_noise.h"

#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

using backend::Block;
using backend::Estimator;
using backend::GaussianNoise;
using backend::GaussianPass;
using backend::LossKind;
using backend::NormStatistics;
using backend::RowNoiseLayout;
using backend::Scale;
using backend::Set;

constexpr Estimator all_estimators[] = {Estimator::weight, Estimator::flipout, Estimator::local};

const char* estimator_name(Estimator e) {
  return e == Estimator::weight ? "weight" : e == Estimator::flipout ? "flipout" : "local";
}

/// A point (mu, s) for each task. Both vectors are [tasks, D].
struct Point {
  Numbers mu, s;
};

Point random_point(const Problem& problem, std::uint64_t seed) {
  RandomStream random = stream(seed, 60);
  Point p{problem.weights, normals(random, problem.weights.size(), 0.3)};
  for (double& s : p.s) s = static_cast<float>(s - 1.2);
  return p;
}

GaussianNoise key_noise(Purpose purpose, std::uint32_t sample = 0) {
  GaussianNoise noise;
  noise.key = {77, purpose, 3, 0, purpose == Purpose::noise_inner ? 2u : 0u, sample};
  return noise;
}

/// Runs Gaussian passes over all tasks of a problem.
class GaussianRunner {
 public:
  GaussianRunner(backend::Backend& backend, const Problem& problem)
      : problem_(problem), runner_(backend, problem), wave_(runner_.wave()) {
    for (Block& b : blocks_) b = wave_.weights();
    loss_ = wave_.block(1);
  }
  Runner& runner() { return runner_; }

  /// The gradient by mu and then by s, [tasks, 2 D].
  Numbers gradient(const GaussianPass& what, const Point& at, double a, Numbers* loss = nullptr) {
    Numbers result;
    runner_.for_each_wave([&](int) {
      const GaussianPass pass = load(what, at);
      for (const int i : {2, 3}) wave_.fill(blocks_[i], 0.0);
      wave_.fill(loss_, 0.0);
      wave_.gaussian_passes().gradient(pass, a, blocks_[2], blocks_[3], loss_);
      take_pair(2, result);
      if (loss) runner_.take(loss_, 1, *loss);
    });
    return result;
  }
  /// H v with all its terms, [tasks, 2 D]. If `kept` is true, the pass uses the draw that an
  /// earlier gradient kept.
  Numbers hessian_vector(const GaussianPass& what, const Point& at, const Point& v, double a,
                         bool kept) {
    Numbers result;
    if (kept && !memory_made_) {
      memory_ = wave_.gaussian_passes().draw_memory(what.estimator);
      memory_made_ = true;
    }
    runner_.for_each_wave([&](int) {
      GaussianPass pass = load(what, at);
      for (const int i : {2, 3, 6, 7}) wave_.fill(blocks_[i], 0.0);
      pass.kept = kept ? memory_ : Block{};
      wave_.gaussian_passes().gradient(pass, 1.0, blocks_[6], blocks_[7], {});
      pass.drawn = kept;
      runner_.put(blocks_[4], v.mu);
      runner_.put(blocks_[5], v.s);
      wave_.gaussian_passes().hessian_vector(pass, a, blocks_[4], blocks_[5], blocks_[2],
                                             blocks_[3]);
      wave_.gaussian_passes().curvature(pass.estimator, a, blocks_[3], blocks_[7], blocks_[5]);
      take_pair(2, result);
    });
    return result;
  }
  /// Noise of all tasks for the passes that follow: noise of the weights, [tasks, D], and noise by
  /// rows for every layer, [tasks, rows, in or out]. A layer's array is empty where it has no such
  /// noise.
  struct Given {
    Numbers weights;
    std::vector<Numbers> in, out;
  };
  void give(Given given) { given_ = std::move(given); }

  Numbers value(const GaussianPass& what, const Point& at,
                NormStatistics statistics = NormStatistics::batch, Numbers* outputs = nullptr) {
    Numbers result;
    const auto width = static_cast<std::size_t>(wave_.rows(what.set)) *
                       static_cast<std::size_t>(problem_.network->outputs());
    runner_.for_each_wave([&](int) {
      const GaussianPass pass = load(what, at);
      wave_.fill(loss_, 0.0);
      wave_.gaussian_passes().value(pass, loss_, outputs ? wave_.outputs(what.set) : Block{},
                                    statistics);
      runner_.take(loss_, 1, result);
      if (outputs) runner_.take(wave_.outputs(what.set), width, *outputs);
    });
    return result;
  }
  /// Makes a pass of the first task alone. The wave then has had fewer tasks than it will have.
  void pass_of_first_task(const GaussianPass& what, const Point& at) {
    runner_.load(0, 1);
    wave_.fill(loss_, 0.0);
    wave_.gaussian_passes().value(load(what, at), loss_, {}, NormStatistics::batch);
  }

 private:
  GaussianPass load(GaussianPass pass, const Point& at) {
    runner_.put(blocks_[0], at.mu);
    runner_.put(blocks_[1], at.s);
    wave_.exponential(blocks_[1], blocks_[1]);
    pass.mu = blocks_[0];
    pass.sigma = blocks_[1];
    if (!given_) return pass;
    const auto put = [&](Block& to, const Numbers& from) {
      if (from.empty()) return;
      if (!to) to = wave_.block(from.size() / static_cast<std::size_t>(problem_.tasks));
      runner_.put(to, from);
    };
    if (!given_weights_) given_weights_ = wave_.weights();
    put(given_weights_, given_->weights);
    given_layers_.resize(given_->in.size());
    for (std::size_t l = 0; l < given_layers_.size(); ++l) {
      put(given_layers_[l].in, given_->in[l]);
      put(given_layers_[l].out, given_->out[l]);
    }
    pass.noise.weights = given_weights_;
    pass.noise.layers = given_layers_;
    return pass;
  }
  void take_pair(int first, Numbers& to) {
    Numbers mu, s;
    runner_.take(blocks_[first], problem_.width(), mu);
    runner_.take(blocks_[first + 1], problem_.width(), s);
    const auto width = static_cast<std::ptrdiff_t>(problem_.width());
    for (std::ptrdiff_t t = 0; t < wave_.count(); ++t) {
      to.insert(to.end(), mu.begin() + t * width, mu.begin() + (t + 1) * width);
      to.insert(to.end(), s.begin() + t * width, s.begin() + (t + 1) * width);
    }
  }

  const Problem& problem_;
  Runner runner_;
  backend::Wave& wave_;
  Block blocks_[8], loss_, memory_;
  bool memory_made_ = false;
  std::optional<Given> given_;
  Block given_weights_;
  std::vector<GaussianNoise::Layer> given_layers_;
};

// ---- the formulas, written out once more ----

/// The outputs of one task on one set under one sample, in double, row by row.
class PlainNetwork {
 public:
  PlainNetwork(const Problem& problem, std::size_t task, Estimator estimator, const Point& at,
               const GaussianNoise& noise)
      : network_(*problem.network),
        estimator_(estimator),
        layout_(backend::row_noise_layout(network_, estimator)),
        key_(noise.key),
        offset_(task * problem.width()),
        at_(at) {
    key_.task = static_cast<std::uint32_t>(task);
  }

  /// [rows][elements]
  using Maps = std::vector<Numbers>;

  /// Rows from `first_query` on are query rows.
  Maps outputs(Maps x, std::size_t first_query) const {
    for (std::size_t i = 0; i < network_.layers().size(); ++i) {
      x = layer(i, x, first_query);
    }
    return x;
  }

 private:
  double mu(int tensor, std::size_t e) const { return at_.mu[index(tensor, e)]; }
  double sigma(int tensor, std::size_t e) const { return std::exp(at_.s[index(tensor, e)]); }
  double shift(int tensor, std::size_t e) const {
    return sigma(tensor, e) * normal_element(key_, index(tensor, e) - offset_);
  }
  double sampled(int tensor, std::size_t e) const { return mu(tensor, e) + shift(tensor, e); }
  std::size_t index(int tensor, std::size_t e) const {
    return offset_ + network_.parameters()[static_cast<std::size_t>(tensor)].offset + e;
  }
  /// Key and offset of the noise of a row. Support rows and query rows have a random stream each.
  std::pair<RandomKey, std::size_t> row_at(std::size_t row, std::size_t first_query) const {
    const bool query = row >= first_query;
    return {backend::row_key(key_, query), (query ? row - first_query : row) * layout_.width};
  }

  Maps layer(std::size_t number, const Maps& in, std::size_t first_query) const {
    const Layer& l = network_.layers()[number];
    const auto out_size = static_cast<std::size_t>(l.out.size());
    Maps out(in.size(), Numbers(out_size, 0.0));
    if (l.type == LayerType::conv || l.type == LayerType::linear) {
      const RowNoiseLayout::Part& part = layout_.layers[number];
      const int kernel = l.type == LayerType::conv ? l.kernel : 1;
      const int stride = l.type == LayerType::conv ? l.stride : 1;
      const int padding = l.type == LayerType::conv ? l.padding : 0;
      for (std::size_t row = 0; row < in.size(); ++row) {
        const auto [stream_key, base] = row_at(row, first_query);
        for (int o = 0; o < l.out.channels; ++o) {
          const auto channel = static_cast<std::size_t>(o);
          for (int y = 0; y < l.out.height; ++y) {
            for (int x = 0; x < l.out.width; ++x) {
              const auto e = static_cast<std::size_t>((o * l.out.height + y) * l.out.width + x);
              double mean = 0.0, random = 0.0, variance = 0.0;
              for (int c = 0; c < l.in.channels; ++c) {
                for (int k = 0; k < kernel * kernel; ++k) {
                  const int iy = y * stride + k / kernel - padding;
                  const int ix = x * stride + k % kernel - padding;
                  if (iy < 0 || ix < 0 || iy >= l.in.height || ix >= l.in.width) continue;
                  const double v =
                      in[row][static_cast<std::size_t>((c * l.in.height + iy) * l.in.width + ix)];
                  const auto w =
                      static_cast<std::size_t>((o * l.in.channels + c) * kernel * kernel + k);
                  if (estimator_ == Estimator::weight) {
                    mean += sampled(l.weight, w) * v;
                    continue;
                  }
                  mean += mu(l.weight, w) * v;
                  if (estimator_ == Estimator::flipout) {
                    const double sign =
                        sign_element(stream_key, base + part.in + static_cast<std::size_t>(c));
                    random += shift(l.weight, w) * sign * v;
                  } else {
                    variance += std::pow(sigma(l.weight, w) * v, 2);
                  }
                }
              }
              if (estimator_ == Estimator::local) {
                variance += std::pow(sigma(l.bias, channel), 2);
                out[row][e] = mean + mu(l.bias, channel) +
                              std::sqrt(variance) * normal_element(stream_key, base + part.out + e);
              } else {
                if (estimator_ == Estimator::flipout) {
                  mean += random * sign_element(stream_key, base + part.out + channel);
                }
                out[row][e] = mean + sampled(l.bias, channel);
              }
            }
          }
        }
      }
      return out;
    }
    if (l.type == LayerType::norm || l.type == LayerType::mean) {
      const auto positions = static_cast<std::size_t>(l.in.height * l.in.width);
      for (std::size_t c = 0; c < static_cast<std::size_t>(l.in.channels); ++c) {
        double sum = 0.0, squares = 0.0;
        for (std::size_t row = 0; row < in.size(); ++row) {
          for (std::size_t p = 0; p < positions; ++p) {
            const double v = in[row][c * positions + p];
            sum += v;
            if (l.type == LayerType::mean) out[row][c] += v / static_cast<double>(positions);
          }
        }
        if (l.type == LayerType::mean) continue;
        const auto count = static_cast<double>(in.size() * positions);
        for (const Numbers& row : in) {
          for (std::size_t p = 0; p < positions; ++p) {
            squares += std::pow(row[c * positions + p] - sum / count, 2);
          }
        }
        for (std::size_t row = 0; row < in.size(); ++row) {
          for (std::size_t p = 0; p < positions; ++p) {
            const std::size_t e = c * positions + p;
            out[row][e] = (in[row][e] - sum / count) / std::sqrt(squares / count + norm_epsilon) *
                              sampled(l.weight, c) +
                          sampled(l.bias, c);
          }
        }
      }
      return out;
    }
    for (std::size_t row = 0; row < in.size(); ++row) {
      for (std::size_t e = 0; e < out_size; ++e) {
        const double v = in[row][e];
        out[row][e] = l.type == LayerType::relu         ? std::max(v, 0.0)
                      : l.type == LayerType::leaky_relu ? std::max(v, leaky_slope * v)
                      : l.type == LayerType::tanh       ? std::tanh(v)
                                                        : v;
      }
    }
    return out;
  }

  const Network& network_;
  Estimator estimator_;
  RowNoiseLayout layout_;
  RandomKey key_;
  std::size_t offset_;
  const Point& at_;
};

/// The valid rows of a task's set.
PlainNetwork::Maps plain_rows(const Problem& problem, std::size_t task, Set set) {
  PlainNetwork::Maps rows;
  const auto inputs = static_cast<std::size_t>(problem.network->input().size());
  const auto add = [&](const Numbers& x, int largest, int valid) {
    for (int r = 0; r < valid; ++r) {
      const auto first =
          x.begin() +
          static_cast<std::ptrdiff_t>(
              (task * static_cast<std::size_t>(largest) + static_cast<std::size_t>(r)) * inputs);
      rows.emplace_back(first, first + static_cast<std::ptrdiff_t>(inputs));
    }
  };
  const TaskBatch& b = problem.twice;
  if (set != Set::query) add(b.support_x64, b.shape().support, b.support_n[task]);
  if (set != Set::support) add(b.query_x64, b.shape().query, b.query_n[task]);
  return rows;
}

// ---- tests ----

class EstimatorTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { backend_ = open_backend(GetParam()); }
  double tolerance() const { return difference_tolerance(*backend_); }

  /// Calls body(problem, estimator, seed) for every chosen network and estimator.
  template <typename Body>
  void for_each_case(const Body& body, bool with_weight = true) {
    std::uint64_t seed = 0;
    for (const NamedNetwork& named : chosen_networks()) {
      const LossKind loss = all_losses[++seed % 3];
      if (!takes(*backend_, *named.network)) continue;
      const int tasks = named.network->is_plain_mlp() ? 18 : 2;
      const Problem problem = make_problem(named.network, loss, tasks, seed);
      for (const Estimator estimator : all_estimators) {
        if (estimator == Estimator::weight && !with_weight) continue;
        SCOPED_TRACE(named.name + ", " + loss_name(loss) + ", " + estimator_name(estimator));
        body(problem, estimator, seed);
      }
    }
  }

  std::unique_ptr<backend::Backend> backend_;
};

TEST_P(EstimatorTest, OutputsAreTheFormulas) {
  for_each_case([&](const Problem& problem, Estimator estimator, std::uint64_t seed) {
    for (const Layer& layer : problem.network->layers()) {
      // The other layers are covered by other networks.
      if (layer.type == LayerType::max_pool) return;
    }
    const Point at = random_point(problem, seed);
    GaussianRunner runner(*backend_, problem);
    const auto outputs = static_cast<std::size_t>(problem.network->outputs());
    for (const Set set : {Set::support, Set::query, Set::all}) {
      GaussianPass pass;
      pass.set = set;
      pass.estimator = estimator;
      pass.noise = key_noise(set == Set::all ? Purpose::noise_inner : Purpose::noise_outer, 5);
      Numbers got;
      runner.value(pass, at, NormStatistics::batch, &got);
      Numbers want(got.size(), 0.0);
      const std::size_t largest = got.size() / outputs / static_cast<std::size_t>(problem.tasks);
      for (std::size_t t = 0; t < static_cast<std::size_t>(problem.tasks); ++t) {
        const std::size_t first_query =
            set == Set::query ? 0 : static_cast<std::size_t>(problem.twice.support_n[t]);
        const PlainNetwork plain(problem, t, estimator, at, pass.noise);
        const auto rows = plain.outputs(plain_rows(problem, t, set), first_query);
        for (std::size_t r = 0; r < rows.size(); ++r) {
          for (std::size_t o = 0; o < outputs; ++o) {
            want[(t * largest + r) * outputs + o] = rows[r][o];
          }
        }
      }
      EXPECT_TRUE(close_rows(got, want, largest * outputs,
                             backend_->precision() == backend::Precision::f64 ? 1e-12 : 5e-5));
    }
  });
}

TEST_P(EstimatorTest, GradientIsTheDifferencesOfTheValue) {
  const auto reference = open_backend("reference");
  for_each_case([&](const Problem& problem, Estimator estimator, std::uint64_t seed) {
    const Point at = random_point(problem, seed);
    GaussianPass pass;
    pass.set = seed % 2 == 0 ? Set::query : Set::all;
    pass.and_support = pass.set == Set::query;
    pass.scale = {0.5, Scale::By::all};
    pass.estimator = estimator;
    pass.noise = key_noise(Purpose::noise_outer);
    Numbers loss;
    const Numbers got = GaussianRunner(*backend_, problem).gradient(pass, at, 2.0, &loss);

    GaussianRunner plain(*reference, problem);
    const auto value = [&](const Point& p) {
      GaussianPass one = pass;
      Numbers sum = plain.value(one, p);
      if (pass.and_support) {
        one.set = Set::support;
        const Numbers more = plain.value(one, p);
        for (std::size_t t = 0; t < sum.size(); ++t) sum[t] += more[t];
      }
      return sum;
    };
    EXPECT_TRUE(close_rows(loss, value(at), 1, tolerance()));
    const auto tasks = static_cast<std::size_t>(problem.tasks);
    const auto coordinates = chosen_coordinates(problem.width(), 16);
    const Numbers by_mu = central_differences(
        [&](const Numbers& x) {
          return value({x, at.s});
        },
        at.mu, tasks, coordinates, difference_step);
    const Numbers by_s = central_differences(
        [&](const Numbers& x) {
          return value({at.mu, x});
        },
        at.s, tasks, coordinates, difference_step);
    Numbers want;
    std::vector<std::size_t> both;
    for (const std::size_t c : coordinates) both.push_back(c);
    for (const std::size_t c : coordinates) both.push_back(problem.width() + c);
    const auto n = static_cast<std::ptrdiff_t>(coordinates.size());
    for (std::ptrdiff_t t = 0; t < problem.tasks; ++t) {
      want.insert(want.end(), by_mu.begin() + t * n, by_mu.begin() + (t + 1) * n);
      want.insert(want.end(), by_s.begin() + t * n, by_s.begin() + (t + 1) * n);
    }
    for (double& w : want) w *= 2.0;
    EXPECT_TRUE(close_rows(select(got, tasks, both), want, both.size(), tolerance()));
  });
}

TEST_P(EstimatorTest, HessianVectorIsTheDifferencesOfTheGradient) {
  const auto reference = open_backend("reference");
  for_each_case([&](const Problem& problem, Estimator estimator, std::uint64_t seed) {
    const Point at = random_point(problem, seed);
    RandomStream random = stream(seed, 61);
    const Point v{normals(random, at.mu.size()), normals(random, at.s.size())};
    GaussianPass pass;
    pass.set = seed % 2 == 0 ? Set::support : Set::all;
    pass.scale = {1.0, Scale::By::support};
    pass.estimator = estimator;
    pass.noise = key_noise(Purpose::noise_inner);
    // The step is shorter than elsewhere, because all weights move together and no unit may cross a
    // kink. Rounding is 1e-16 * 10 / 1e-8.
    const double length = 1e-8;
    GaussianRunner plain(*reference, problem);
    const auto step = [&](double h) {
      Point moved = at;
      for (std::size_t i = 0; i < at.mu.size(); ++i) {
        moved.mu[i] += h * v.mu[i];
        moved.s[i] += h * v.s[i];
      }
      return plain.gradient(pass, moved, 1.0);
    };
    Numbers want = step(length);
    const Numbers below = step(-length);
    for (std::size_t i = 0; i < want.size(); ++i) {
      want[i] = -0.5 * (want[i] - below[i]) / (2.0 * length);
    }
    GaussianRunner runner(*backend_, problem);
    for (const bool kept : {false, true}) {
      EXPECT_TRUE(close_rows(runner.hessian_vector(pass, at, v, -0.5, kept), want,
                             2 * problem.width(), tolerance()))
          << (kept ? "kept draw" : "drawn again");
    }
  });
}

TEST_P(EstimatorTest, ExplicitNoiseIsTakenRowByRow) {
  // Noise that is given as arrays must lead to the same bits as noise that the key draws.
  for_each_case(
      [&](const Problem& problem, Estimator estimator, std::uint64_t seed) {
        const Point at = random_point(problem, seed);
        const RowNoiseLayout layout = backend::row_noise_layout(*problem.network, estimator);
        const auto tasks = static_cast<std::size_t>(problem.tasks);
        const TaskShape& shape = problem.twice.shape();
        GaussianRunner runner(*backend_, problem);
        for (const bool support_first : {false, true}) {
          for (const Set set : {Set::support, Set::query, Set::all}) {
            GaussianPass pass;
            pass.set = set;
            pass.estimator = estimator;
            pass.noise = key_noise(Purpose::noise_outer);
            Numbers drawn;
            runner.value(pass, at, NormStatistics::batch, &drawn);
            const auto rows = static_cast<std::size_t>(shape.support + shape.query);
            Numbers weights(tasks * problem.width());
            std::vector<Numbers> in(layout.layers.size()), out(layout.layers.size());
            for (std::size_t t = 0; t < tasks; ++t) {
              RandomKey key = pass.noise.key;
              key.task = static_cast<std::uint32_t>(t);
              for (std::size_t i = 0; i < problem.width(); ++i) {
                weights[t * problem.width() + i] = normal_element(key, i);
              }
              const auto own = static_cast<std::size_t>(problem.twice.support_n[t]);
              const std::size_t skip = set == Set::query && !support_first ? 0 : own;
              for (std::size_t l = 0; l < layout.layers.size(); ++l) {
                const RowNoiseLayout::Part& part = layout.layers[l];
                for (std::size_t r = 0; r < rows; ++r) {
                  const bool query = r >= skip;
                  const RandomKey of_row = backend::row_key(key, query);
                  const std::size_t base = (query ? r - skip : r) * layout.width;
                  const auto number = [&](std::size_t e) {
                    return static_cast<double>(estimator == Estimator::flipout
                                                   ? sign_element(of_row, base + e)
                                                   : normal_element(of_row, base + e));
                  };
                  for (std::size_t i = 0; i < part.in_width; ++i) {
                    in[l].push_back(number(part.in + i));
                  }
                  for (std::size_t i = 0; i < part.out_width; ++i) {
                    out[l].push_back(number(part.out + i));
                  }
                }
              }
            }
            GaussianRunner other(*backend_, problem);
            other.give({weights, in, out});
            pass.noise.support_first = support_first;
            Numbers given;
            other.value(pass, at, NormStatistics::batch, &given);
            EXPECT_EQ(given, drawn);
          }
        }
      },
      false);
}

/// A pass over the query rows with drawn noise.
GaussianPass query_pass(Estimator estimator) {
  GaussianPass pass;
  pass.set = Set::query;
  pass.estimator = estimator;
  pass.noise = key_noise(Purpose::noise_outer);
  return pass;
}

TEST_P(EstimatorTest, SupportStatisticsAreThoseOfTheSupportsOwnNoise) {
  const auto reference = open_backend("reference");
  for_each_case([&](const Problem& problem, Estimator estimator, std::uint64_t seed) {
    const Point at = random_point(problem, seed);
    const GaussianPass pass = query_pass(estimator);
    Numbers got, want;
    GaussianRunner(*backend_, problem).value(pass, at, NormStatistics::support, &got);
    GaussianRunner(*reference, problem).value(pass, at, NormStatistics::support, &want);
    EXPECT_TRUE(
        close_rows(got, want, want.size() / static_cast<std::size_t>(problem.tasks), tolerance()));
  });
}

TEST_P(EstimatorTest, AWaveThatHadFewerTasksHasTheSameBits) {
  for_each_case([&](const Problem& problem, Estimator estimator, std::uint64_t seed) {
    const Point at = random_point(problem, seed);
    const GaussianPass pass = query_pass(estimator);
    const Numbers want = GaussianRunner(*backend_, problem).value(pass, at);
    GaussianRunner grown(*backend_, problem);
    grown.pass_of_first_task(pass, at);
    EXPECT_EQ(grown.value(pass, at), want);
  });
}

TEST_P(EstimatorTest, NoVarianceLeavesTheMean) {
  // sigma = e^-60 underflows in float. The test expects no NaN, and the gradients of the mean
  // network.
  const Problem problem =
      make_problem(std::make_shared<const Network>(Network::mlp({3, 6, 2}, LayerType::tanh)),
                   LossKind::mse, 18, 5);
  Point at = random_point(problem, 5);
  for (double& s : at.s) s = -60.0;
  const Numbers mean = Runner(*backend_, problem).gradient(problem.weights, Set::support, {});
  RandomStream random = stream(5, 62);
  const Point v{normals(random, at.mu.size()), normals(random, at.s.size())};
  for (const Estimator estimator : all_estimators) {
    SCOPED_TRACE(estimator_name(estimator));
    GaussianPass pass;
    pass.estimator = estimator;
    pass.noise = key_noise(Purpose::noise_inner);
    GaussianRunner runner(*backend_, problem);
    const Numbers got = runner.gradient(pass, at, 1.0);
    const std::size_t width = problem.width();
    Numbers by_mu;
    for (std::size_t t = 0; t < static_cast<std::size_t>(problem.tasks); ++t) {
      for (std::size_t i = 0; i < width; ++i) {
        by_mu.push_back(got[2 * t * width + i]);
        EXPECT_NEAR(got[(2 * t + 1) * width + i], 0.0, 1e-20);
      }
    }
    EXPECT_TRUE(close_rows(by_mu, mean, width, tolerance()));
    for (const double h : runner.hessian_vector(pass, at, v, 1.0, false)) {
      ASSERT_TRUE(std::isfinite(h));
    }
  }
}

/// A linear layer under Gaussian noise. With m = mu_w x + mu_b and v = sum sigma_w^2 x^2 +
/// sigma_b^2, E nll = ((m - y)^2 + v) / (2 noise^2) + const for every estimator.
TEST_P(EstimatorTest, MeanGradientIsTheClosedForm) {
  // On the emulator, 3000 draws take minutes.
  const int draws = backend_->name() == "simt" ? 300 : 3000;
  const Problem problem = make_problem(
      std::make_shared<const Network>(Network::mlp({4, 3}, LayerType::relu)),
      LossKind::gaussian_nll, backend_->precision() == backend::Precision::f64 ? 2 : 18, 8);
  const Point at = random_point(problem, 8);
  const auto tasks = static_cast<std::size_t>(problem.tasks);
  const std::size_t width = problem.width(), inputs = 4, outputs = 3;
  const double precision = 1.0 / (0.75 * 0.75);
  Numbers want(tasks * 2 * width, 0.0);
  for (std::size_t t = 0; t < tasks; ++t) {
    const auto rows = plain_rows(problem, t, Set::support);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      for (std::size_t o = 0; o < outputs; ++o) {
        const std::size_t bias = outputs * inputs + o;
        double m = at.mu[t * width + bias];
        for (std::size_t i = 0; i < inputs; ++i) {
          m += at.mu[t * width + o * inputs + i] * rows[r][i];
        }
        const auto row = t * static_cast<std::size_t>(problem.twice.shape().support) + r;
        const double error = m - problem.twice.support_value64[row * outputs + o];
        const auto add = [&](std::size_t e, double x) {
          want[2 * t * width + e] += precision * error * x;
          want[(2 * t + 1) * width + e] += precision * std::exp(2.0 * at.s[t * width + e]) * x * x;
        };
        for (std::size_t i = 0; i < inputs; ++i) add(o * inputs + i, rows[r][i]);
        add(bias, 1.0);
      }
    }
  }
  GaussianRunner runner(*backend_, problem);
  double total_variance[3] = {};
  for (const Estimator estimator : all_estimators) {
    SCOPED_TRACE(estimator_name(estimator));
    Numbers sum(want.size(), 0.0), squares(want.size(), 0.0);
    for (int d = 0; d < draws; ++d) {
      GaussianPass pass;
      pass.estimator = estimator;
      pass.noise = key_noise(Purpose::noise_inner, static_cast<std::uint32_t>(d));
      const Numbers g = runner.gradient(pass, at, 1.0);
      for (std::size_t i = 0; i < g.size(); ++i) {
        sum[i] += g[i];
        squares[i] += g[i] * g[i];
      }
    }
    for (std::size_t i = 0; i < want.size(); ++i) {
      const double mean = sum[i] / draws;
      const double variance = squares[i] / draws - mean * mean;
      total_variance[static_cast<int>(estimator)] += variance;
      // The bound is 5 standard errors: a correct estimator fails at one of 540 means with
      // probability 3e-4. Fewer draws have heavier tails, but every run has the same draws.
      ASSERT_NEAR(mean, want[i], 5.0 * std::sqrt(variance / draws) + 1e-6) << "element " << i;
    }
  }
  // The purpose of the estimators is less variance. The sets have 3 to 5 rows, which share their
  // noise in the weight estimator.
  EXPECT_LT(total_variance[1], 0.9 * total_variance[0]);
  EXPECT_LT(total_variance[2], 0.7 * total_variance[0]);
}

INSTANTIATE_TEST_SUITE_P(Backends, EstimatorTest, ::testing::ValuesIn(backend_names()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace kshot::testing
