// Many tasks in one call give what each of them gives alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "engine/engine_cases.h"
#include "kshot/kshot.h"
#include "support/class_files.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

/// A task's own storage.
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

/// Tasks of different sizes: 1 to 7 support rows, 1 to 5 query rows.
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

/// Tasks of 2 to 4 classes with vectors of six numbers, each class at a place of its own.
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
    // Float arithmetic whose order of summation depends on the padding of a wave.
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
  // The samples of a task depend on its place in the list, so that equal tasks have other samples.
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

std::string message(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(ManyTasks, WhatDoesNotFitNamesTheTask) {
  const Learner l = learner(small_config("maml"));
  std::vector<Rows> tasks = regression_tasks(4);
  EXPECT_TRUE(l.predict_many({}).empty());
  tasks[2].values.pop_back();
  EXPECT_THAT(message([&] { l.predict_many(views(tasks)); }),
              StartsWith("task 2: support rows: 2 target numbers, expected 3"));
  EXPECT_THAT(message([&] { l.check(tasks[2].view().support); }),
              StartsWith("support rows: 2 target numbers, expected 3"));
  EXPECT_NO_THROW(l.check(tasks[1].view().support));
  tasks = regression_tasks(4);
  tasks[3].query_x.clear();
  EXPECT_THAT(message([&] { l.predict_many(views(tasks)); }), StartsWith("task 3: query rows: "));
  tasks = regression_tasks(4);
  tasks[1].support_x[0] = std::nanf("");
  EXPECT_THAT(message([&] { l.predict_many(views(tasks)); }),
              StartsWith("task 1: support rows: expected finite numbers"));
}

}  // namespace
}  // namespace kshot::test
