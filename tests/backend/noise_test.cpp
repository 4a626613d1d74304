// Random numbers: Philox against its known answers, normals bit for bit the same on every backend,
// and their distribution.
#include <set>

#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

TEST(Philox, KnownAnswers) {
  // Random123 1.14, tests/kat_vectors, philox4x32 with 10 rounds
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
  // neighbours across fields must not meet: (inner step 1, sample 0) and (0, 1 << 16 - 1)
  keys.push_back({7, Purpose::noise_inner, 3, 5, 1, 0xffff});
  std::set<std::pair<std::array<std::uint32_t, 4>, std::array<std::uint32_t, 2>>> seen;
  for (const RandomKey& key : keys) seen.insert({key.counter(0), key.key()});
  EXPECT_EQ(seen.size(), keys.size());
}

TEST(Philox, EveryElementHasItsOwnWord) {
  std::set<std::pair<std::uint32_t, int>> seen;
  for (std::uint64_t e = 0; e < 4096; ++e) {
    const NoiseAddress at = noise_address(e);
    EXPECT_LT(at.quad, 1024u);  // none is wasted
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
    // float: a few units in the last place of the radius, at most 5.77
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
  // five standard errors each; variances of the moments of N(0, 1): 1, 2, 15, 96
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
    const std::uint32_t offset = 0x80000000u;  // the global index has all 32 bits
    backend::Noise noise;
    noise.key = {0x123456789abcdefull, Purpose::noise_outer, 1234567, 0, 4321, 65535};
    for (int first = 0; first < problem.tasks; first += wave.capacity()) {
      const int count = std::min(wave.capacity(), problem.tasks - first);
      wave.load(problem.batch(*backend), first, count, offset + static_cast<std::uint32_t>(first));
      wave.fill(mu, 0.0);
      wave.fill(sigma, 1.0);
      wave.sample(phi, eps, mu, sigma, &noise);
      Numbers got(static_cast<std::size_t>(count) * width), drawn(got.size());
      wave.download(phi, got);
      wave.download(eps, drawn);
      for (std::size_t i = 0; i < got.size(); ++i) {
        RandomKey key = noise.key;
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
