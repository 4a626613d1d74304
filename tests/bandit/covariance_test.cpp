// The joint predictive covariance of the closed-form heads, from which a meta-trained agent draws.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "engine/assembly.h"
#include "engine/predictor.h"
#include "kshot/random.h"

namespace kshot {
namespace {

constexpr int query = 3, inputs = 7;

/// A task with `support` rows, of which the last one repeats query row 0, and with query rows. All
/// come from one random stream.
TaskBatch task(int support) {
  TaskBatch batch({{.channels = inputs}, 1, TargetKind::value, support, query}, 1);
  RandomStream stream({.seed = 3});
  const TaskSlot slot = batch.slot(0);
  for (float& x : slot.query_x) x = stream.normal();
  for (float& x : slot.support_x) x = stream.normal();
  for (float& y : slot.support_value) y = stream.normal();
  if (support > 0) {
    std::copy_n(slot.query_x.begin(), inputs, slot.support_x.end() - inputs);
  }
  return batch;
}

EpisodePrediction predict(Assembly& a, const TaskBatch& batch, int support) {
  TaskShape shape = batch.shape();
  shape.support = support;
  TaskBatch rows(shape, 1);
  std::copy_n(batch.support_x.begin(), rows.support_x.size(), rows.support_x.begin());
  std::copy_n(batch.support_value.begin(), rows.support_value.size(), rows.support_value.begin());
  rows.query_x = batch.query_x;
  const auto program = a.algorithm->open(*a.backend, shape);
  program->wave().load(rows, 0, 1, 0);
  PredictOptions options;
  options.covariance = true;
  return predict_wave(*program, rows, 0, 1, {}, options).front();
}

/// Observing the noisy value of query row 0 conditions the Gaussian over all query rows:
///   C' = C - c0 c0^T / (C_00 + noise), where c0 is the first column of C.
/// The head computes both sides, in one call without this row and one with it, in every form of its
/// system (no support rows, fewer rows than features, more rows than features).
TEST(PredictiveCovariance, ConditioningOnARowIsThatOfAGaussian) {
  for (const char* text : {"algorithm = \"alpaca\"", "algorithm = \"dkt\"",
                           "algorithm = \"dkt\"\ndkt.kernel = \"linear\"",
                           "algorithm = \"dkt\"\ndkt.kernel = \"cosine\""}) {
    const TaskShape shape{{.channels = inputs}, 1, TargetKind::value, 1, query};
    Assembly a =
        assemble(with_head_outputs(
                     Config::parse(std::string(text) + "\nnetwork.layers = [7, 9, 4]\n"), shape),
                 "reference", 1);
    const auto initial = a.algorithm->initial(5);
    for (std::size_t g = 0; g < initial.size(); ++g) a.parameters[g]->upload(initial[g]);
    a.algorithm->prepare(*a.backend, a.parameters, {});
    for (const int support : {1, 2, 12}) {
      const TaskBatch batch = task(support);
      const EpisodePrediction before = predict(a, batch, support - 1);
      const EpisodePrediction after = predict(a, batch, support);
      ASSERT_EQ(before.covariance.size(), 9u) << text;
      ASSERT_EQ(after.covariance.size(), 9u) << text;
      const std::vector<double>& c = before.covariance;
      const double noise = before.std[0] * before.std[0] - c[0];
      EXPECT_GT(noise, 0.0) << text;
      for (std::size_t i = 0; i < 3; ++i) {
        // The diagonal is the variance of the prediction without its noise.
        EXPECT_NEAR(before.std[i] * before.std[i] - noise, c[4 * i], 1e-9) << text << support;
        for (std::size_t j = 0; j < 3; ++j) {
          EXPECT_NEAR(after.covariance[3 * i + j],
                      c[3 * i + j] - c[3 * i] * c[3 * j] / (c[0] + noise), 1e-9)
              << text << ", " << support << " rows";
        }
      }
    }
  }
}

}  // namespace
}  // namespace kshot
