// Episodes of every size: each episode draws its own numbers of classes and rows from ranges.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "data/episode_files.h"
#include "episodes/draw_count.h"
#include "episodes/sources.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

using test::class_file;
using test::error_text;
using test::task_file;
using test::TempFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(DrawCount, EveryNumberIsAsLikelyAndTheOthersDoNotMatter) {
  std::map<int, int> seen, together;
  for (std::uint32_t t = 0; t < 4000; ++t) {
    const TaskId id{.seed = 5, .step = 2, .task = t};
    const int shots = draw_count(id, shots_part, {1, 4});
    ++seen[shots];
    ++together[4 * (shots - 1) + draw_count(id, queries_part, {1, 4}) - 1];
    EXPECT_EQ(draw_count(id, shots_part, 7), 7);
  }
  ASSERT_EQ(seen.size(), 4u);
  for (const auto& [shots, times] : seen) EXPECT_NEAR(times, 1000, 120) << shots;
  ASSERT_EQ(together.size(), 16u) << "shots and queries are drawn apart";
  for (const auto& [pair, times] : together) EXPECT_NEAR(times, 250, 70) << pair;
}

TEST(EpisodeSizes, OfClasses) {
  const TempFolder folder;
  const auto data = class_file(folder / "c.kshot");
  const auto source = make_class_source(data, {.ways = {2, 4}, .shots = {0, 3}, .queries = {1, 2}});
  EXPECT_EQ(source->recipe(), nullptr) << "a recipe's tasks all have one size";
  const TaskShape shape = source->shape();
  EXPECT_EQ(shape.outputs, 4);
  EXPECT_EQ(shape.support, 12);
  EXPECT_EQ(shape.query, 8);
  EXPECT_TRUE(shape.ways_vary);
  EXPECT_THAT(source->describe(), HasSubstr("2 to 4-way 0 to 3-shot, 1 to 2 queries"));
  TaskBatch batch(shape, 300);
  batch.draw(*source, {.seed = 1}, 0, 300);
  ASSERT_EQ(batch.ways.size(), 300u);
  std::set<std::string> sizes;
  for (int t = 0; t < 300; ++t) {
    const TaskSlot slot = batch.slot(t);
    const int ways = *slot.ways;
    ASSERT_EQ(*slot.support_n % ways, 0);
    ASSERT_EQ(*slot.query_n % ways, 0);
    const int shots = *slot.support_n / ways, queries = *slot.query_n / ways;
    sizes.insert(fmt::format("{} {} {}", ways, shots, queries));
    std::set<int> classes;
    for (int row = 0; row < *slot.query_n; ++row) {
      const auto at = static_cast<std::size_t>(row);
      EXPECT_EQ(slot.query_label[at], row / queries) << "class by class, without gaps";
      classes.insert(static_cast<int>(slot.query_x[2 * at]));
    }
    EXPECT_EQ(classes.size(), static_cast<std::size_t>(ways));
    for (int row = 0; row < *slot.support_n; ++row) {
      EXPECT_EQ(slot.support_label[static_cast<std::size_t>(row)], row / shots);
    }
  }
  EXPECT_EQ(sizes.size(), 3u * 4u * 2u) << "every combination";
}

TEST(EpisodeSizes, ShotsLeaveTheQueriesAsTheyAre) {
  const TempFolder folder;
  const auto data = class_file(folder / "c.kshot");
  const auto few = make_class_source(data, {.ways = 3, .shots = 1, .queries = {1, 4}});
  const auto many = make_class_source(data, {.ways = 3, .shots = {2, 5}, .queries = {1, 4}});
  SinusoidOptions one, several;
  one.support = 1;
  one.query = several.query = {2, 9};
  several.support = {0, 10};
  const std::pair<std::unique_ptr<EpisodeSource>, std::unique_ptr<EpisodeSource>> sinusoids = {
      make_sinusoid(one), make_sinusoid(several)};
  for (const auto& [a, b] : {std::pair(few.get(), many.get()),
                             std::pair(sinusoids.first.get(), sinusoids.second.get())}) {
    TaskBatch first(a->shape(), 40), second(b->shape(), 40);
    first.draw(*a, {.seed = 3}, 0, 40);
    second.draw(*b, {.seed = 3}, 0, 40);
    EXPECT_EQ(first.query_n, second.query_n);
    std::set<int> support;
    for (int t = 0; t < 40; ++t) {
      const auto rows = static_cast<std::size_t>(first.query_n[static_cast<std::size_t>(t)]);
      const auto width = static_cast<std::size_t>(a->shape().input.size());
      EXPECT_TRUE(std::ranges::equal(first.slot(t).query_x.first(rows * width),
                                     second.slot(t).query_x.first(rows * width)));
      support.insert(*second.slot(t).support_n);
    }
    EXPECT_GT(support.size(), 3u);
  }
}

TEST(EpisodeSizes, AClassMustHaveTheMostThatIsAskedFor) {
  const TempFolder folder;
  const auto data = class_file(folder / "c.kshot");
  EXPECT_THAT(error_text([&] {
                make_class_source(data, {.ways = 5, .shots = {1, 6}, .queries = 15});
              }),
              AllOf(HasSubstr("'class 0' has 20 examples"), HasSubstr("data.shots = 1 to 6"),
                    HasSubstr("need 21")));
  EXPECT_THAT(error_text([&] {
                make_class_source(data, {.ways = {2, 6}, .shots = 1, .queries = 1});
              }),
              AllOf(HasSubstr("5 test classes"), HasSubstr("data.ways = 2 to 6")));
}

TEST(EpisodeSizes, OfTasks) {
  const TempFolder folder;
  const auto source = make_table_source(
      task_file(folder / "t.kshot"), {.shots = {1, 5}, .queries = {2, 3}, .variable_size = true});
  TaskBatch batch(source->shape(), 300);
  batch.draw(*source, {.seed = 2}, 0, 300);
  std::set<std::pair<int, int>> sizes;
  for (int t = 0; t < 300; ++t) {
    const TaskSlot slot = batch.slot(t);
    const bool small = static_cast<int>(slot.support_x[0]) == 2;  // the task of four rows
    if (small) {
      EXPECT_LE(*slot.support_n, 3);
      EXPECT_LE(*slot.support_n + *slot.query_n, 4);
    } else {
      sizes.insert({*slot.support_n, *slot.query_n});
    }
  }
  EXPECT_EQ(sizes.size(), 5u * 2u);
}

/// A file of tasks with labels 0 and 1 and different numbers of rows per class. x is (task, row).
std::shared_ptr<const data::Dataset> unbalanced_file(const std::filesystem::path& path) {
  data::DatasetHeader header;
  header.kind = data::GroupKind::tasks;
  header.input = {.channels = 2};
  header.target = TargetKind::label;
  header.outputs = 2;
  data::DatasetWriter writer(path, header);
  const std::vector<std::pair<int, int>> sizes = {{30, 6}, {9, 40}, {3, 20}, {12, 1}, {8, 8}};
  for (std::size_t t = 0; t < sizes.size(); ++t) {
    writer.begin_group("t" + std::to_string(t), t < 4 ? Split::train : Split::test);
    const auto [zeros, ones] = sizes[t];
    for (int r = 0; r < zeros + ones; ++r) {
      writer.add(std::vector<float>{static_cast<float>(t), static_cast<float>(r)});
      writer.add_label(r < zeros ? 0 : 1);
    }
  }
  writer.commit();
  return data::Dataset::open(path);
}

TEST(StratifiedTables, HaveTheirShotsOfEachClass) {
  const TempFolder folder;
  const auto data = unbalanced_file(folder / "u.kshot");
  const auto source = make_table_source(
      data, {.shots = {1, 3}, .queries = 2, .stratified = true, .skip_small = true});
  // Task 2 has too few zeros and task 3 has too few ones.
  EXPECT_EQ(source->training_tasks(), 2u);
  EXPECT_THAT(source->describe(), AllOf(HasSubstr("of each class: 2 train"),
                                        HasSubstr("; 2, 0 and 0 with too few rows are left out")));
  EXPECT_EQ(source->shape().support, 6);
  EXPECT_EQ(source->shape().query, 4);
  TaskBatch batch(source->shape(), 100);
  batch.draw(*source, {.seed = 4}, 0, 100);
  std::set<int> tasks, shots_seen;
  for (int t = 0; t < 100; ++t) {
    const TaskSlot slot = batch.slot(t);
    tasks.insert(static_cast<int>(slot.support_x[0]));
    const int shots = *slot.support_n / 2;
    shots_seen.insert(shots);
    ASSERT_EQ(*slot.query_n, 4);
    std::set<int> rows;
    const auto check = [&](std::span<const float> x, std::span<const std::int32_t> labels, int n,
                           int of_each) {
      for (int k = 0; k < n; ++k) {
        const auto at = static_cast<std::size_t>(k);
        EXPECT_EQ(labels[at], k / of_each);
        const int row = static_cast<int>(x[2 * at + 1]);
        EXPECT_EQ(labels[at], row < (x[2 * at] == 0.0f ? 30 : 9) ? 0 : 1) << "the row's own label";
        EXPECT_TRUE(rows.insert(row).second) << "a row twice";
      }
    };
    check(slot.support_x, slot.support_label, *slot.support_n, shots);
    check(slot.query_x, slot.query_label, *slot.query_n, 2);
  }
  EXPECT_EQ(tasks, (std::set<int>{0, 1}));
  EXPECT_EQ(shots_seen, (std::set<int>{1, 2, 3}));
}

TEST(StratifiedTables, SayWhichTaskIsTooSmall) {
  const TempFolder folder;
  const auto data = unbalanced_file(folder / "u.kshot");
  EXPECT_THAT(
      error_text([&] { make_table_source(data, {.shots = 3, .queries = 2, .stratified = true}); }),
      AllOf(HasSubstr("train task 't2' has 3 rows of class 0"), HasSubstr("data.shots = 3"),
            HasSubstr("data.small_tasks = \"skip\"")));
  EXPECT_THAT(error_text([&] {
                make_table_source(
                    data, {.shots = 50, .queries = 2, .stratified = true, .skip_small = true});
              }),
              HasSubstr("all 4 train tasks have too few rows"));
  // With variable_size, a class gives as many rows as it has. One of them is for the query.
  const auto source = make_table_source(
      data,
      {.shots = 3, .queries = 2, .stratified = true, .variable_size = true, .skip_small = true});
  EXPECT_EQ(source->training_tasks(), 3u) << "a class of one row has none for the query";
  EXPECT_THAT(
      error_text([&] { make_table_source(task_file(folder / "t.kshot"), {.stratified = true}); }),
      AllOf(HasSubstr("data.stratified"), HasSubstr("expected labels")));
}

}  // namespace
}  // namespace kshot
