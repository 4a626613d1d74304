// Random numbers: Philox against its known answers, normal numbers that are bit for bit the same on
// every backend, and their distribution.
#include <set>

#include "backend/contracted.h"
#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

TEST(Philox, KnownAnswers) {
  // Source: Random123 1.14, tests/kat_vectors, philox4x32 with 10 rounds.
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, EveryPartOfAKeyMakesAnotherCounterOrKey) {
  const RandomKey base{7, Purpose::noise_inner, 3, 5, 2, 1};
  std::vector<RandomKey> keys(7, base);
  keys[1].seed += 1;
  keys[2].seed += std::uint64_t{1} << 32;
  keys[3].purpose = Purpose::noise_outer;
  keys[4].step += 1;
  keys[5].task += 1;
  keys[6].inner_step += 1;
  keys.push_back(base);
  keys.back().sample += 1;
  // Adjacent fields must not collide: (inner step 1, sample 0) and (inner step 0, sample (1 << 16)
  // - 1).
  keys.push_back({7, Purpose::noise_inner, 3, 5, 1, 0xffff});
  std::set<std::pair<std::array<std::uint32_t, 4>, std::array<std::uint32_t, 2>>> seen;
  for (const RandomKey& key : keys) seen.insert({key.counter(0), key.key()});
  EXPECT_EQ(seen.size(), keys.size());
}

/// The counter has 16 bits for the inner step, 16 for the sample and 28 for the step. Higher bits
/// change the key. Keys without higher bits must keep the numbers that they have always had.
TEST(Philox, StepsAndSamplesBeyondTheCountersBitsHaveNumbersOfTheirOwn) {
  const RandomKey base{7, Purpose::noise_inner, 0, 5, 0, 0};
  std::vector<RandomKey> keys;
  for (const std::uint32_t n : {0u, 1u, 65535u, 65536u, 65537u, 100000u, 131072u, ~0u}) {
    for (const std::uint32_t s : {0u, 1u, 65535u, 65536u, 65537u, 131072u, ~0u}) {
      for (const std::uint64_t step :
           {std::uint64_t{0}, (std::uint64_t{1} << 28) - 1, std::uint64_t{1} << 28,
            (std::uint64_t{1} << 28) + 1, std::uint64_t{1} << 32, (std::uint64_t{1} << 60) - 1}) {
        RandomKey key = base;
        key.inner_step = n;
        key.sample = s;
        key.step = step;
        keys.push_back(key);
      }
    }
  }
  std::set<std::pair<std::array<std::uint32_t, 4>, std::array<std::uint32_t, 2>>> seen;
  std::set<std::array<float, 3>> normals;
  for (const RandomKey& key : keys) {
    seen.insert({key.counter(0), key.key()});
    normals.insert({normal_element(key, 0), normal_element(key, 1), normal_element(key, 2)});
    if (key.inner_step <= 65535 && key.sample <= 65535 && key.step < (1u << 28)) {
      EXPECT_EQ(key.key(), base.key()) << "recorded numbers stay";
    }
  }
  EXPECT_EQ(seen.size(), keys.size());
  EXPECT_EQ(normals.size(), keys.size());
}

/// A backend draws the same numbers as the host function, also for steps and samples beyond the
/// counter's bits.
TEST(Philox, ABackendDrawsTheSameBeyondTheCountersBits) {
  for (const std::string& name : backend_names()) {
    SCOPED_TRACE(name);
    const auto backend = open_backend(name);
    const auto network = std::make_shared<const Network>(Network::mlp({1, 2, 1}, LayerType::tanh));
    const auto wave = backend->open(network, {backend::LossKind::mse, 1.0}, {1, 1});
    const Problem p =
        make_problem(network, backend::LossKind::mse, 1, 3, {.least = 1, .support = 1, .query = 1});
    wave->load(p.batch(*backend), 0, 1, 9);
    const backend::Block block = wave->block(40);
    const RandomKey of_wave{11, Purpose::noise_latent, 3, 0, 65536 + 2, 3 * 65536 + 1};
    wave->normal(block, of_wave);
    Numbers got(40);
    wave->download(block, got);
    RandomKey key = of_wave;
    key.task = 9;
    for (std::size_t e = 0; e < got.size(); ++e) EXPECT_EQ(got[e], normal_element(key, e)) << e;
  }
}

TEST(ProductSum, IsRoundedTwiceWhereverItIsCompiled) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("fma")) GTEST_SKIP() << "no fused multiply-add here";
#endif
  RandomStream random = stream(5);
  int told_apart = 0;
  for (int i = 0; i < 1000; ++i) {
    const float a = random.normal(), b = random.normal(), c = random.normal();
    // A product of two floats is exact in double, so that it is rounded once. The sum is rounded
    // next.
    const auto product = static_cast<float>(static_cast<double>(a) * static_cast<double>(b));
    const auto want = static_cast<float>(static_cast<double>(product) + static_cast<double>(c));
    EXPECT_EQ(product_sum(a, b, c), want);
    EXPECT_EQ(contracted::product_sum(a, b, c), want);
    told_apart += contracted::plain(a, b, c) != want;
  }
  EXPECT_GT(told_apart, 100) << "the file is compiled so that a plain a * b + c is one operation";
}

TEST(Philox, EveryElementHasItsOwnWord) {
  std::set<std::pair<std::uint32_t, int>> seen;
  for (std::uint64_t e = 0; e < 4096; ++e) {
    const NoiseAddress at = noise_address(e);
    EXPECT_LT(at.quad, 1024u);  // No counter value is wasted.
    seen.insert({at.quad, at.word});
  }
  EXPECT_EQ(seen.size(), 4096u);
}

TEST(BoxMuller, IsItsFormula) {
  RandomStream random = stream(1);
  const auto check = [](std::uint32_t a, std::uint32_t b) {
    const double u = (static_cast<double>(a >> 9) + 0.5) * 0x1p-23;
    const double angle = 2.0 * M_PI * static_cast<double>(static_cast<std::int32_t>(b)) * 0x1p-32;
    const double radius = std::sqrt(-2.0 * std::log(u));
    const NormalPair got = box_muller(a, b);
    // In float, the error is a few units in the last place of the radius, which is at most 5.77.
    EXPECT_NEAR(got.cosine, radius * std::cos(angle), 2e-6) << a << " " << b;
    EXPECT_NEAR(got.sine, radius * std::sin(angle), 2e-6) << a << " " << b;
    EXPECT_LE(std::hypot(got.cosine, got.sine), 5.77);
  };
  const std::uint32_t edges[] = {0,          1,          511,        512,        0x1fffffff,
                                 0x20000000, 0x3fffffff, 0x40000000, 0x7fffffff, 0x80000000,
                                 0xa0000000, 0xc0000000, 0xffffffff};
  for (const std::uint32_t a : edges) {
    for (const std::uint32_t b : edges) check(a, b);
  }
  for (int i = 0; i < 20000; ++i) {
    const std::uint32_t a = random.word();
    check(a, random.word());
  }
}

TEST(Normals, HaveTheMomentsOfTheStandardNormal) {
  const RandomKey key{11, Purpose::noise_inner, 0, 0, 0, 0};
  const std::size_t n = 1 << 20;
  double sum[5] = {}, lag[65] = {};
  std::size_t beyond[2] = {};
  std::vector<double> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = normal_element(key, i);
    double power = 1.0;
    for (double& s : sum) {
      s += power;
      power *= x[i];
    }
    beyond[0] += std::abs(x[i]) > 1.959963985 ? 1 : 0;
    beyond[1] += std::abs(x[i]) > 3.290526731 ? 1 : 0;
    for (const std::size_t d : {1, 16, 32, 48, 64}) {
      if (i >= d) lag[d] += x[i] * x[i - d];
    }
  }
  const double count = static_cast<double>(n), sd = 1.0 / std::sqrt(count);
  // Each tolerance is five standard errors. The variances of the moments of N(0, 1) are 1, 2, 15
  // and 96.
  EXPECT_NEAR(sum[1] / count, 0.0, 5 * sd);
  EXPECT_NEAR(sum[2] / count, 1.0, 5 * std::sqrt(2.0) * sd);
  EXPECT_NEAR(sum[3] / count, 0.0, 5 * std::sqrt(15.0) * sd);
  EXPECT_NEAR(sum[4] / count, 3.0, 5 * std::sqrt(96.0) * sd);
  EXPECT_NEAR(static_cast<double>(beyond[0]) / count, 0.05, 5 * std::sqrt(0.05) * sd);
  EXPECT_NEAR(static_cast<double>(beyond[1]) / count, 0.001, 5 * std::sqrt(0.001) * sd);
  for (const std::size_t d : {1, 16, 32, 48, 64}) {
    EXPECT_NEAR(lag[d] / count, 0.0, 5 * sd) << "lag " << d;
  }
}

TEST(Stream, IsUniformAndUnbiased) {
  RandomStream random = stream(2);
  const std::uint32_t sides = 6;
  const int n = 120000;
  std::array<int, 6> seen{};
  double sum = 0.0;
  for (int i = 0; i < n; ++i) {
    ++seen[random.below(sides)];
    const float u = random.uniform();
    ASSERT_GE(u, 0.0f);
    ASSERT_LT(u, 1.0f);
    sum += u;
  }
  double chi2 = 0.0;
  for (const int s : seen) chi2 += std::pow(s - n / 6.0, 2) / (n / 6.0);
  EXPECT_LT(chi2, 25.7);  // 5 degrees of freedom, p = 1e-4
  EXPECT_NEAR(sum / n, 0.5, 5.0 / std::sqrt(12.0 * n));
}

class NoiseTest : public ::testing::TestWithParam<std::string> {};

TEST_P(NoiseTest, EveryBackendDrawsTheSameBits) {
  const auto backend = open_backend(GetParam());
  for (const NamedNetwork& named : chosen_networks()) {
    if (!takes(*backend, *named.network)) continue;
    SCOPED_TRACE(named.name);
    const Problem problem = make_problem(named.network, backend::LossKind::mse, 19, 4);
    const std::size_t width = problem.width();
    Runner runner(*backend, problem);
    backend::Wave& wave = runner.wave();
    const backend::Block phi = wave.weights(), eps = wave.weights(), mu = wave.weights(),
                         sigma = wave.weights();
    const std::uint32_t offset = 0x80000000u;  // The global index uses all 32 bits.
    const RandomKey of_wave{0x123456789abcdefull, Purpose::noise_outer, 1234567, 0, 4321, 65535};
    for (int first = 0; first < problem.tasks; first += wave.capacity()) {
      const int count = std::min(wave.capacity(), problem.tasks - first);
      wave.load(problem.batch(*backend), first, count, offset + static_cast<std::uint32_t>(first));
      wave.fill(mu, 0.0);
      wave.fill(sigma, 1.0);
      wave.sample(phi, eps, mu, sigma, &of_wave);
      Numbers got(static_cast<std::size_t>(count) * width), drawn(got.size());
      wave.download(phi, got);
      wave.download(eps, drawn);
      for (std::size_t i = 0; i < got.size(); ++i) {
        RandomKey key = of_wave;
        key.task =
            offset + static_cast<std::uint32_t>(first) + static_cast<std::uint32_t>(i / width);
        ASSERT_EQ(drawn[i], normal_element(key, i % width)) << "element " << i;
        ASSERT_EQ(got[i], drawn[i]);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, NoiseTest, ::testing::ValuesIn(backend_names()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace kshot::testing
