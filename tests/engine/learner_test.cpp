// A call with many tasks, and a task that was adapted earlier, give the same predictions as each
// task alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "engine/engine_cases.h"
#include "kshot/kshot.h"
#include "support/class_files.h"
#include "support/error_text.h"
#include "support/put_file.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

/// The storage of one task.
struct Rows {
  std::vector<float> support_x, query_x, values;
  std::vector<std::int32_t> labels;
  TaskRows view() const { return {{.x = support_x, .labels = labels, .values = values}, query_x}; }
};

std::vector<float> numbers(std::mt19937& random, std::size_t count) {
  std::uniform_real_distribution<float> uniform(-2.0f, 2.0f);
  std::vector<float> values(count);
  for (float& v : values) v = uniform(random);
  return values;
}

/// Tasks of different sizes: 1 to 7 support rows and 1 to 5 query rows.
std::vector<Rows> regression_tasks(std::size_t count) {
  std::mt19937 random(7);
  std::vector<Rows> tasks(count);
  for (std::size_t i = 0; i < count; ++i) {
    tasks[i].support_x = numbers(random, 1 + i % 7);
    tasks[i].values = numbers(random, 1 + i % 7);
    tasks[i].query_x = numbers(random, 1 + i % 5);
  }
  return tasks;
}

/// Tasks of 2 to 4 classes of vectors of six numbers. Each class has its own centre.
std::vector<Rows> class_tasks(std::size_t count) {
  std::mt19937 random(7);
  std::vector<Rows> tasks(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t ways = 2 + i % 3;
    const std::size_t shots = 1 + i % 2;
    for (std::size_t row = 0; row < ways * shots; ++row) {
      tasks[i].labels.push_back(static_cast<std::int32_t>(row % ways));
    }
    tasks[i].support_x = numbers(random, 6 * ways * shots);
    tasks[i].query_x = numbers(random, 6 * (1 + i % 4));
  }
  return tasks;
}

std::vector<TaskRows> views(const std::vector<Rows>& tasks) {
  std::vector<TaskRows> all;
  for (const Rows& task : tasks) all.push_back(task.view());
  return all;
}

void expect_near(const std::vector<double>& a, const std::vector<double>& b, const char* what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (std::size_t i = 0; i < a.size(); ++i) {
    // In float, the order of summation depends on the padding of a wave.
    EXPECT_NEAR(a[i], b[i], 2e-5 * (1.0 + std::abs(b[i]))) << what << " " << i;
  }
}

void expect_same(const Prediction& many, const Prediction& one) {
  EXPECT_EQ(many.rows, one.rows);
  EXPECT_EQ(many.outputs, one.outputs);
  EXPECT_EQ(many.samples, one.samples);
  EXPECT_EQ(many.inner_steps, one.inner_steps);
  EXPECT_EQ(many.classification, one.classification);
  EXPECT_FALSE(many.diverged);
  EXPECT_EQ(many.noise_std, one.noise_std);
  expect_near(many.raw, one.raw, "raw");
  expect_near(many.mean, one.mean, "mean");
  expect_near(many.std, one.std, "std");
  expect_near(many.predictive_std, one.predictive_std, "predictive_std");
  expect_near(many.entropy, one.entropy, "entropy");
  expect_near(many.mutual_information, one.mutual_information, "mutual_information");
}

class ManyTasks : public testing::Test {
 protected:
  Learner learner(const Config& config, const std::vector<std::string>& overrides = {}) const {
    std::filesystem::remove_all(folder_ / "run");
    Trainer(config, {.run_folder = folder_ / "run", .device = "cpu"}).run();
    return Learner(folder_ / "run", {.device = "cpu", .threads = 2, .overrides = overrides});
  }
  TempFolder folder_;
};

TEST_F(ManyTasks, AreWhatEachIsAlone) {
  const std::vector<Rows> tasks = regression_tasks(41);
  std::vector<Config> configs = {small_config("maml"), small_config("meta_sgd")};
  for (const char* head : {"alpaca", "dkt", "r2d2"}) configs.push_back(head_config(head));
  for (const Config& config : configs) {
    const Learner l = learner(config);
    SCOPED_TRACE(config.to_toml());
    const std::vector<Prediction> many = l.predict_many(views(tasks));
    ASSERT_EQ(many.size(), tasks.size());
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      SCOPED_TRACE(i);
      expect_same(many[i], l.predict(tasks[i].view().support, tasks[i].query_x));
      EXPECT_TRUE(many[i].adapted.empty());
    }
  }
}

TEST_F(ManyTasks, MayDifferInTheirClasses) {
  write_class_file(folder_ / "c.kshot", {.input = {6, 1, 1, false}});
  const std::vector<Rows> tasks = class_tasks(41);
  for (const char* head : {"protonet", "bayes_protonet", "r2d2"}) {
    SCOPED_TRACE(head);
    const Learner l = learner(class_head_config(head, folder_ / "c.kshot"));
    const std::vector<Prediction> many = l.predict_many(views(tasks));
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      SCOPED_TRACE(i);
      EXPECT_EQ(many[i].outputs, static_cast<int>(2 + i % 3));
      expect_same(many[i], l.predict(tasks[i].view().support, tasks[i].query_x));
    }
  }
}

TEST_F(ManyTasks, DrawTheirSamplesByTheirNumber) {
  const std::vector<Rows> tasks = regression_tasks(41);
  const Learner l = learner(small_config("abml"), {"evaluate.samples=4"});
  const std::vector<Prediction> many = l.predict_many(views(tasks));
  EXPECT_EQ(many[0].samples, 4);
  expect_same(many[0], l.predict(tasks[0].view().support, tasks[0].query_x));
  const std::vector<Prediction> first =
      l.predict_many(std::span<const TaskRows>(views(tasks)).first(3));
  for (std::size_t i = 0; i < 3; ++i) expect_same(many[i], first[i]);
  // The samples of a task depend on its index in the list, so that two equal tasks get different
  // samples.
  const std::vector<TaskRows> twice = {tasks[0].view(), tasks[0].view()};
  const std::vector<Prediction> two = l.predict_many(twice);
  EXPECT_NE(two[0].raw, two[1].raw);
}

TEST_F(ManyTasks, OneThatDivergesIsMarkedAlone) {
  std::vector<Rows> tasks = regression_tasks(20);
  tasks[6].values.assign(tasks[6].values.size(), 3e38f);
  const Learner l = learner(small_config("maml"));
  EXPECT_THROW(l.predict(tasks[6].view().support, tasks[6].query_x), Error);
  const std::vector<Prediction> many = l.predict_many(views(tasks));
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    EXPECT_EQ(many[i].diverged, i == 6) << i;
    EXPECT_EQ(std::isnan(many[i].mean[0]), i == 6) << i;
  }
  EXPECT_EQ(many[6].rows, static_cast<int>(tasks[6].query_x.size()));
}

TEST_F(ManyTasks, WhatDoesNotFitNamesTheTask) {
  const Learner l = learner(small_config("maml"));
  std::vector<Rows> tasks = regression_tasks(4);
  EXPECT_TRUE(l.predict_many({}).empty());
  tasks[2].values.pop_back();
  EXPECT_THAT(error_text([&] { l.predict_many(views(tasks)); }),
              StartsWith("task 2: support rows: 2 target numbers, expected 3"));
  EXPECT_THAT(error_text([&] { l.check(tasks[2].view().support); }),
              StartsWith("support rows: 2 target numbers, expected 3"));
  EXPECT_NO_THROW(l.check(tasks[1].view().support));
  tasks = regression_tasks(4);
  tasks[3].query_x.clear();
  EXPECT_THAT(error_text([&] { l.predict_many(views(tasks)); }),
              StartsWith("task 3: query rows: "));
  tasks = regression_tasks(4);
  tasks[1].support_x[0] = std::nanf("");
  EXPECT_THAT(error_text([&] { l.predict_many(views(tasks)); }),
              StartsWith("task 1: support rows: expected finite numbers"));
}

TEST_F(ManyTasks, TakeTheCalibrationOfThatTask) {
  const std::vector<Rows> tasks = regression_tasks(9);
  learner(small_config("abml"));
  EvaluatorOptions options;
  options.device = "cpu";
  options.split = Split::validation;
  const RunCalibration fitted = Evaluator(folder_ / "run", options).calibrate();
  put_file(folder_ / "run" / calibration_file, fitted.to_json());
  ASSERT_NE(fitted.value, 1.0);
  const Learner plain(folder_ / "run", {.device = "cpu", .threads = 2});
  const Learner l(folder_ / "run", {.device = "cpu", .threads = 2, .calibrated = true});
  const std::vector<Prediction> many = l.predict_many(views(tasks));
  const std::vector<Prediction> before = plain.predict_many(views(tasks));
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    SCOPED_TRACE(i);
    // The calibration scales the noise and the deviations of the samples from their mean by one
    // factor.
    expect_near(many[i].mean, before[i].mean, "mean");
    EXPECT_NEAR(many[i].noise_std, before[i].noise_std * std::sqrt(fitted.value), 1e-9);
    for (std::size_t k = 0; k < many[i].std.size(); ++k) {
      EXPECT_NEAR(many[i].std[k], before[i].std[k] * std::sqrt(fitted.value), 1e-6);
    }
  }
  expect_same(many[0], l.predict(tasks[0].view().support, tasks[0].query_x));
}

void expect_equal(const Prediction& a, const Prediction& b) {
  EXPECT_EQ(a.rows, b.rows);
  EXPECT_EQ(a.outputs, b.outputs);
  EXPECT_EQ(a.samples, b.samples);
  EXPECT_EQ(a.inner_steps, b.inner_steps);
  EXPECT_EQ(a.classification, b.classification);
  EXPECT_EQ(a.noise_std, b.noise_std);
  EXPECT_EQ(a.raw, b.raw);
  EXPECT_EQ(a.mean, b.mean);
  EXPECT_EQ(a.std, b.std);
  EXPECT_EQ(a.predictive_std, b.predictive_std);
  EXPECT_EQ(a.entropy, b.entropy);
  EXPECT_EQ(a.mutual_information, b.mutual_information);
  ASSERT_EQ(a.adapted.size(), b.adapted.size());
  for (std::size_t i = 0; i < a.adapted.size(); ++i) {
    EXPECT_EQ(a.adapted[i].name, b.adapted[i].name);
    EXPECT_EQ(a.adapted[i].values, b.adapted[i].values);
  }
}

/// A fixture with a learner after a short training, on one of the backends.
class AdaptedOnce : public testing::TestWithParam<const char*> {
 protected:
  Learner learner(const Config& config, const std::vector<std::string>& overrides = {}) const {
    std::filesystem::remove_all(folder_ / "run");
    Trainer(config, {.run_folder = folder_ / "run", .device = GetParam(), .threads = 1}).run();
    return Learner(folder_ / "run", {.device = GetParam(), .threads = 1, .overrides = overrides});
  }
  /// Predicts the query sets of the task itself and of two other tasks, so that their sizes differ.
  static void expect_predictions(const Learner& l, const std::vector<Rows>& tasks) {
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      SCOPED_TRACE(i);
      const SupportRows support = tasks[i].view().support;
      const AdaptedTask task = l.adapt(support);
      for (const std::size_t other : {i, (i + 1) % tasks.size(), (i + 2) % tasks.size(), i}) {
        const Prediction direct = l.predict(support, tasks[other].query_x);
        expect_equal(task.predict(tasks[other].query_x), direct);
      }
    }
  }
  /// AdaptedTasks gives the bits of predict_many, for the tasks' own query sets and for those of
  /// other tasks.
  static void expect_many(const Learner& l, const std::vector<Rows>& tasks, int number = 0) {
    std::vector<SupportRows> supports;
    for (const Rows& task : tasks) supports.push_back(task.view().support);
    const AdaptedTasks many = l.adapt_many(supports, number);
    ASSERT_EQ(many.size(), tasks.size());
    EXPECT_GT(many.bytes_per_task(), 0u);
    for (const std::size_t other : {std::size_t{0}, std::size_t{2}, std::size_t{0}}) {
      std::vector<TaskRows> direct = views(tasks);
      std::vector<std::span<const float>> queries;
      for (std::size_t i = 0; i < tasks.size(); ++i) {
        direct[i].query_x = tasks[(i + other) % tasks.size()].query_x;
        queries.push_back(direct[i].query_x);
      }
      const std::vector<Prediction> expected = l.predict_many(direct, number);
      const std::vector<Prediction> found = many.predict(queries);
      ASSERT_EQ(found.size(), expected.size());
      for (std::size_t i = 0; i < tasks.size(); ++i) {
        SCOPED_TRACE(i);
        expect_equal(found[i], expected[i]);
      }
    }
  }
  TempFolder folder_;
};

INSTANTIATE_TEST_SUITE_P(Backends, AdaptedOnce, testing::Values("reference", "cpu"));

TEST_P(AdaptedOnce, PredictsWhatPredictDoesForValues) {
  const std::vector<Rows> tasks = regression_tasks(9);
  const std::vector<std::string> local = {"abml.estimator=local", "abml.support_in_outer=true",
                                          "abml.inner_data=all"};
  std::vector<Config> configs = {small_config("maml"),        small_config("maml", learned_noise),
                                 small_config("meta_sgd"),    small_config("abml"),
                                 small_config("abml", local), small_config("abml", learned_noise),
                                 small_config("hvi"),         leo_points()};
  for (const char* head : {"alpaca", "dkt", "r2d2"}) configs.push_back(head_config(head));
  configs.push_back(head_config("dkt", {"dkt.kernel=linear"}));
  for (const Config& config : configs) {
    SCOPED_TRACE(config.to_toml());
    const Learner l = learner(config, config.algorithm == AlgorithmKind::leo
                                          ? std::vector<std::string>{"evaluate.samples=3"}
                                          : std::vector<std::string>{});
    EXPECT_EQ(l.device().substr(0, 3), std::string(GetParam()).substr(0, 3));
    expect_predictions(l, tasks);
    expect_many(l, regression_tasks(41));
  }
}

TEST_P(AdaptedOnce, PredictsWhatPredictDoesForClasses) {
  write_class_file(folder_ / "c.kshot", {.input = {6, 1, 1, false}});
  for (const char* head : {"protonet", "bayes_protonet", "r2d2"}) {
    SCOPED_TRACE(head);
    const Learner l = learner(class_head_config(head, folder_ / "c.kshot"));
    expect_predictions(l, class_tasks(9));
    expect_many(l, class_tasks(41));
  }
  SCOPED_TRACE("cosines");
  expect_predictions(
      learner(class_head_config("protonet", folder_ / "c.kshot", {"protonet.metric=cosine"})),
      class_tasks(9));
  SCOPED_TRACE("leo");
  std::vector<Rows> tasks = class_tasks(9);
  std::erase_if(tasks, [](const Rows& t) {
    return *std::max_element(t.labels.begin(), t.labels.end()) != 2;
  });
  expect_predictions(learner(leo_head(folder_ / "c.kshot")), tasks);
}

/// The statistics of norm layers come from the query rows (batch), or from the support rows at the
/// adapted weights (support).
TEST_P(AdaptedOnce, PredictsWhatPredictDoesUnderNormLayers) {
  write_class_file(folder_ / "c.kshot", {.input = {1, 16, 16, true}});
  std::mt19937 random(7);
  std::vector<Rows> tasks(3);
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    tasks[i].support_x = numbers(random, std::size_t{256} * 6);
    tasks[i].labels = {0, 1, 2, 2, 1, 0};
    tasks[i].query_x = numbers(random, 256 * (2 + i));
  }
  for (const char* algorithm : {"maml", "protonet"}) {
    for (const char* statistics : {"batch", "support"}) {
      SCOPED_TRACE(std::string(algorithm) + " " + statistics);
      const Config config = Config::parse(std::string("algorithm = \"") + algorithm + R"("
seed = 3
network = { type = "conv4", filters = 4, image = [16, 16], classes = )" +
                                              (algorithm == std::string("maml") ? "3" : "0") + R"( }
data = { source = "file", ways = 3, shots = 2, queries = 3 }
train = { steps = 2, meta_batch = 2, validate_every = 0 }
loss.type = "cross_entropy"
)",
                                          "test", {"data.path=" + (folder_ / "c.kshot").string()});
      const Learner l = learner(config, {std::string("evaluate.norm_statistics=") + statistics});
      expect_predictions(l, tasks);
      expect_many(l, tasks);
    }
  }
}

/// In tasks of one size, no wave has padding beyond a task's own rows. Each task therefore has the
/// same bits as alone.
TEST_P(AdaptedOnce, ManyTasksOfOneSizeHaveTheBitsOfEach) {
  std::mt19937 random(5);
  std::vector<Rows> tasks(37);
  std::vector<SupportRows> supports;
  std::vector<std::span<const float>> queries;
  for (Rows& task : tasks) {
    task = {numbers(random, 4), numbers(random, 3), numbers(random, 4), {}};
    supports.push_back(task.view().support);
    queries.push_back(task.query_x);
  }
  for (const Config& config : {small_config("maml"), head_config("alpaca"), head_config("dkt")}) {
    SCOPED_TRACE(config.to_toml());
    const Learner l = learner(config);
    const std::vector<Prediction> many = l.adapt_many(supports).predict(queries);
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      SCOPED_TRACE(i);
      Prediction alone = l.adapt(supports[i]).predict(queries[i]);
      alone.adapted.clear();
      expect_equal(many[i], alone);
    }
  }
}

TEST_P(AdaptedOnce, ManyTasksDrawTheirSamplesByTheirNumber) {
  const Learner l = learner(small_config("abml"), {"evaluate.samples=4"});
  expect_many(l, regression_tasks(20), 11);
  EXPECT_THAT(error_text([&] { l.adapt_many({}, -1); }), StartsWith("number of the first task"));
}

TEST_P(AdaptedOnce, ManyTasksKeepTheirRowsAndTheirLearner) {
  std::vector<Rows> tasks = regression_tasks(20);
  const std::vector<Rows> again = regression_tasks(20);
  std::optional<Learner> l = learner(small_config("maml"));
  std::vector<SupportRows> supports;
  for (const Rows& task : tasks) supports.push_back(task.view().support);
  const std::vector<Prediction> expected = l->predict_many(views(tasks));
  AdaptedTasks many = l->adapt_many(supports);
  const std::size_t number = std::string(GetParam()) == "reference" ? 8 : 4;
  EXPECT_EQ(many.bytes_per_task(), number * l->network().size());
  tasks.clear();
  l.reset();
  const AdaptedTasks moved = std::move(many);
  std::vector<std::span<const float>> queries;
  for (const Rows& task : again) queries.push_back(task.query_x);
  const std::vector<Prediction> found = moved.predict(queries);
  for (std::size_t i = 0; i < again.size(); ++i) expect_equal(found[i], expected[i]);
}

TEST_P(AdaptedOnce, WhatDoesNotFitAmongManyNamesTheTask) {
  std::vector<Rows> tasks = regression_tasks(9);
  const Learner l = learner(small_config("maml"));
  const auto supports = [&] {
    std::vector<SupportRows> all;
    for (const Rows& task : tasks) all.push_back(task.view().support);
    return all;
  };
  EXPECT_TRUE(l.adapt_many({}).predict({}).empty());
  EXPECT_EQ(l.adapt_many({}).bytes_per_task(), 0u);
  const AdaptedTasks many = l.adapt_many(supports());
  std::vector<std::span<const float>> queries;
  for (const Rows& task : tasks) queries.push_back(task.query_x);
  EXPECT_THAT(error_text([&] { many.predict(std::span(queries).first(8)); }),
              StartsWith("query rows: got the rows of 8 tasks, expected 9"));
  queries[3] = {};
  EXPECT_THAT(error_text([&] { many.predict(queries); }),
              StartsWith("task 3: query rows: 0 numbers"));
  tasks[4].values.assign(tasks[4].values.size(), 3e38f);
  queries[3] = tasks[3].query_x;
  if (std::string(GetParam()) != "reference") {  // Double precision holds these numbers.
    const std::vector<Prediction> marked = l.adapt_many(supports()).predict(queries);
    for (std::size_t i = 0; i < tasks.size(); ++i) EXPECT_EQ(marked[i].diverged, i == 4) << i;
  }
  tasks[5].values.pop_back();
  EXPECT_THAT(error_text([&] { l.adapt_many(supports()); }),
              StartsWith("task 5: support rows: 5 target numbers, expected 6"));
}

TEST_P(AdaptedOnce, PredictsFromThePriorAlone) {
  for (const char* head : {"alpaca", "dkt"}) {
    SCOPED_TRACE(head);
    const Learner l = learner(head_config(head));
    const std::vector<float> query = {-1.0f, 2.0f};
    expect_equal(l.adapt({}).predict(query), l.predict({}, query));
  }
}

TEST_P(AdaptedOnce, KeepsItsRowsAndItsLearner) {
  std::vector<Rows> tasks = regression_tasks(1);
  const std::vector<float> query = {0.5f, -1.0f};
  std::optional<Learner> l = learner(head_config("r2d2"));
  const Prediction direct = l->predict(tasks[0].view().support, query);
  AdaptedTask task = l->adapt(tasks[0].view().support);
  tasks.clear();
  l.reset();
  const AdaptedTask moved = std::move(task);
  expect_equal(moved.predict(query), direct);
  ASSERT_FALSE(moved.adapted().empty());
  EXPECT_EQ(moved.adapted()[0].values, direct.adapted[0].values);
  EXPECT_TRUE(moved.samples().empty());
}

TEST_P(AdaptedOnce, GivesTheNetworkOfEverySample) {
  const std::vector<Rows> tasks = regression_tasks(3);
  const Learner l = learner(leo_points(), {"evaluate.samples=3"});
  const AdaptedTask task = l.adapt(tasks[2].view().support);
  const std::vector<std::vector<AdaptedTensor>> samples = task.samples();
  ASSERT_EQ(samples.size(), 3u);
  // The expected outputs are those of a hidden layer of ReLU units and a linear layer.
  const Prediction p = task.predict(tasks[2].query_x);
  for (std::size_t s = 0; s < samples.size(); ++s) {
    const std::vector<AdaptedTensor>& t = samples[s];
    ASSERT_EQ(t.size(), 4u);
    EXPECT_EQ(t[0].name, "theta.layers.0.weight");
    for (std::size_t row = 0; row < tasks[2].query_x.size(); ++row) {
      double y = t[3].values[0];
      for (std::size_t h = 0; h < t[1].values.size(); ++h) {
        const double pre = t[0].values[h] * tasks[2].query_x[row] + t[1].values[h];
        y += t[2].values[h] * std::max(pre, 0.0);
      }
      const double raw = p.raw[s * tasks[2].query_x.size() + row];
      EXPECT_NEAR(raw, y, 1e-5 * (1.0 + std::abs(y))) << s << " " << row;
    }
  }
  EXPECT_NE(samples[0][0].values, samples[1][0].values);
}

TEST_P(AdaptedOnce, WhatDoesNotFitIsSaid) {
  std::vector<Rows> tasks = regression_tasks(4);
  const Learner l = learner(small_config("maml"));
  const AdaptedTask task = l.adapt(tasks[3].view().support);
  EXPECT_THAT(error_text([&] { task.predict({}); }), StartsWith("query rows: 0 numbers"));
  tasks[2].values.pop_back();
  EXPECT_THAT(error_text([&] { l.adapt(tasks[2].view().support); }),
              StartsWith("support rows: 2 target numbers, expected 3"));
  tasks[1].values.assign(tasks[1].values.size(), 3e38f);
  if (std::string(GetParam()) == "reference") return;  // Double precision holds these numbers.
  const AdaptedTask diverged = l.adapt(tasks[1].view().support);
  EXPECT_THAT(error_text([&] { diverged.predict(tasks[1].query_x); }),
              StartsWith("the adaptation diverged"));
}

}  // namespace
}  // namespace kshot::test
