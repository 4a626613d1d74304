// Every backend refuses, with the same message, blocks whose width or kind does not fit an
// operation, and sets of rows that a wave does not have.
#include <gmock/gmock.h>

#include "backend/generator.h"
#include "support/backend_problems.h"

namespace kshot::testing {
namespace {

using backend::Block;
using backend::Set;
using ::testing::HasSubstr;

class BlockChecks : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    backend_ = open_backend(GetParam());
    problem_ =
        make_problem(std::make_shared<const Network>(Network::mlp({2, 7, 3}, LayerType::relu)),
                     backend::LossKind::mse, 2, 3);
    wave_ = backend_->open(problem_.network, problem_.loss, {5, 6, false, false, 0});
    wave_->load(problem_.batch(*backend_), 0, 1, 0);
  }

  /// Expects that the call throws std::logic_error with a message that contains `words`.
  template <typename Call>
  void refused(const std::string& words, const Call& call) {
    try {
      call();
      ADD_FAILURE() << "not refused: " << words;
    } catch (const std::logic_error& error) {
      EXPECT_THAT(error.what(), HasSubstr(words));
    }
  }

  std::unique_ptr<backend::Backend> backend_;
  Problem problem_;
  std::unique_ptr<backend::Wave> wave_;
};

TEST_P(BlockChecks, WidthsOfAnOperationAreTheSame) {
  backend::Wave& w = *wave_;
  const Block three = w.block(3), four = w.block(4), other = w.block(3), one = w.block(1);
  const Numbers before{1.0, 2.0, 3.0};
  w.upload(three, before.data(), 0);
  refused("copy: blocks of width 3 and 4", [&] { w.copy(three, four); });
  refused("axpy: blocks of width 3 and 4", [&] { w.axpy(three, 2.0, four); });
  refused("multiply_add: blocks of width 3 and 4",
          [&] { w.multiply_add(three, 1.0, other, four); });
  refused("exponential: blocks of width 3 and 4", [&] { w.exponential(three, four); });
  refused("rate_multiply: blocks of width 3 and 4", [&] { w.rate_multiply(three, {0.5}, four); });
  refused("rate_step: blocks of width 3 and 4", [&] { w.rate_step(three, other, {0.5}, four); });
  refused("apply: blocks of width 3 and 4",
          [&] { w.apply(three, backend::Function::reciprocal, four); });
  refused("mean_square: blocks of width 4 and 3",
          [&] { w.mean_square(one, 1.0, four, three, three); });
  refused("mean_square: a block of width 3, expected 1",
          [&] { w.mean_square(three, 1.0, three, other, other); });
  refused("multiply_fold: width 3 does not divide 4",
          [&] { w.multiply_fold(three, 1.0, four, four); });
  refused("scale_by: a block of width 4, expected 1", [&] { w.scale_by(three, four); });
  refused("row_count: a block of width 3, expected 1", [&] { w.row_count(three, Set::support); });
  refused("adam_step: blocks of width 3 and 4", [&] {
    w.adam_step({three, four, three, three, one}, {});
  });
  refused("adam_step: a block of width 3, expected 1", [&] {
    w.adam_step({three, three, three, three, three}, {});
  });
  refused("sample: blocks of width 3 and 4", [&] { w.sample(three, other, other, four, nullptr); });
  refused("kl: a block of width 3, expected 1", [&] {
    w.kl({three, three, three, three, {}}, three, three, three, {}, {});
  });
  Numbers after(3), more(4);
  w.download(three, after);
  EXPECT_EQ(after, before) << "nothing was computed";
  refused("download: room for 4 numbers, expected 1 tasks x 3", [&] { w.download(three, more); });
}

TEST_P(BlockChecks, SharedVectorsFitTheBlock) {
  backend::Wave& w = *wave_;
  const backend::Shared four = backend_->shared(4);
  const Block weights = w.weights(), six = w.block(6), eight = w.block(8);
  w.fill(eight, 1.0);
  w.rate_multiply(eight, {0.0, four.get()}, eight);  // The four rates repeat, which is allowed.
  refused("broadcast: a block of width 6, expected 4", [&] { w.broadcast(six, *four); });
  refused("rate_multiply: 4 rates for a block of width 6", [&] {
    w.rate_multiply(six, {0.0, four.get()}, six);
  });
  refused("rate_step: 4 rates for a block of width 45 (weights)", [&] {
    w.rate_step(weights, weights, {0.0, four.get()}, weights);
  });
}

TEST_P(BlockChecks, WeightsAreAKindOfTheirOwn) {
  backend::Wave& w = *wave_;
  const Block weights = w.weights(), as_wide = w.block(problem_.width()), one = w.block(1);
  EXPECT_EQ(w.width(weights), problem_.width());
  refused("copy: blocks of width 45 (weights) and 45", [&] { w.copy(weights, as_wide); });
  refused("normal: not for a block of weights", [&] { w.normal(weights, {}); });
  refused("gradient: a block of width 45 that is not of weights", [&] {
    w.gradient({Set::support, weights, {}}, as_wide, false, one);
  });
  refused("hessian_vector: a block of width 1 that is not of weights", [&] {
    w.hessian_vector({Set::support, weights, {}}, one, weights, false, {});
  });
  refused("value: a block of width 45 that is not of weights", [&] {
    w.value({Set::support, as_wide, {}}, one, {}, backend::NormStatistics::batch);
  });
}

TEST_P(BlockChecks, PassesHaveTheWavesSetsAndSizes) {
  backend::Wave& w = *wave_;
  const Block weights = w.weights(), g = w.weights(), one = w.block(1), two = w.block(2);
  refused("gradient: the wave was opened without Set::all", [&] {
    w.gradient({Set::all, weights, {}}, g, false, one);
  });
  refused("gradient: a block of width 2, expected 1", [&] {
    w.gradient({Set::support, weights, {}}, g, false, two);
  });
  refused("value: a block of width 15, expected 18", [&] {
    w.value({Set::query, weights, {}}, one, w.outputs(Set::support),
            backend::NormStatistics::batch);
  });
  refused("output_pullback: a block of width 18, expected 15", [&] {
    w.output_pullback({Set::support, weights, {}}, w.outputs(Set::query), g, false);
  });
  refused("a block that this wave did not make", [&] { w.fill({}, 0.0); });
  refused("a block that this wave did not make", [&] { w.fill({1000}, 0.0); });
}

TEST_P(BlockChecks, GeneratedWeightsHaveTheWidthsOfTheirNetworks) {
  backend::Wave& w = *wave_;
  const auto linear = [](std::vector<int> sizes) {
    return std::make_shared<const Network>(Network::mlp(sizes, LayerType::relu));
  };
  // All rows are one group. It has one latent of two numbers.
  backend::GeneratorSpec spec;
  spec.encoder = linear({5, 4});
  spec.decoder = linear({2, 90});
  spec.by_label = false;
  spec.offset = Numbers(45, 0.0);
  const auto generator = w.generator(spec);
  backend::Generator& g = *generator;
  ASSERT_EQ(spec.size(), 24u + 270u);
  const backend::Shared theta = backend_->shared(294), short_theta = backend_->shared(293);
  const Block statistics = w.block(4), z = w.block(2), eps = w.block(45), three = w.block(3);
  const Block weights = w.weights(), g_theta = g.gradients(294), one = w.block(1);
  refused("gradients: width 293, expected at least 294", [&] { g.gradients(293); });
  refused("encode: a shared vector of 293, expected at least 294",
          [&] { g.encode(*short_theta, {}, statistics); });
  refused("encode: a block of width 3, expected 4", [&] { g.encode(*theta, {}, three); });
  refused("encode_pullback: a gradient of width 3, expected at least 294",
          [&] { g.encode_pullback(*theta, {}, statistics, three); });
  refused("sample: a block of width 3, expected 2", [&] { g.sample(three, statistics, {}); });
  refused("sample_pullback: a block of width 2, expected 4",
          [&] { g.sample_pullback(z, statistics, {}, z); });
  refused("kl: a block of width 3, expected 1", [&] {
    g.kl(backend::Generator::Kl::analytic, 1.0, statistics, z, {}, three, statistics);
  });
  refused("decode: a block of width 3, expected 45", [&] {
    g.decode(*theta, {z, three}, weights);
  });
  refused("decode: a block of width 45 that is not of weights", [&] {
    g.decode(*theta, {z, {}}, eps);
  });
  refused("decode_pullback: a block of width 3, expected 2", [&] {
    g.decode_pullback(*theta, {z, eps}, weights, three, g_theta);
  });
  refused("decode_tangent: a block of width 4, expected 2", [&] {
    g.decode_tangent(*theta, {z, {}}, statistics, weights);
  });
  refused("decode_pullback_tangent: a gradient of width 1, expected at least 294", [&] {
    g.decode_pullback_tangent(*theta, {z, {}}, z, weights, weights, z, 1.0, one);
  });
  refused("loss_gradient: a block of width 3, expected 2", [&] {
    g.loss_gradient(*theta, {z, {}}, {Set::support, weights, {}}, three);
  });
  refused("loss_hessian_vector: a block of width 3, expected 2", [&] {
    g.loss_hessian_vector(*theta, {z, {}}, {Set::support, weights, {}}, three, z, 1.0, g_theta);
  });
}

INSTANTIATE_TEST_SUITE_P(Backends, BlockChecks, ::testing::ValuesIn(backend_names()),
                         [](const auto& of) { return of.param; });

}  // namespace
}  // namespace kshot::testing
