// Episodes are functions of their TaskId, stay within their split, and hold the rows that the
// source promises.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "base/episode_recipe.h"
#include "base/episode_stream.h"
#include "data/episode_files.h"
#include "episodes/sample.h"
#include "episodes/sources.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

using data::Dataset;
using data::DatasetHeader;
using data::DatasetWriter;
using test::class_file;
using test::error_text;
using test::task_file;
using test::TempFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;

// ---- streams ----

TEST(Streams, AreReadInAnyOrder) {
  const RandomKey key = episode_key({.seed = 3, .step = 8, .task = 2}, 5);
  RandomStream words(key), normals(key), uniforms(key), integers(key);
  for (std::uint32_t i = 0; i < 21; ++i) {
    const std::uint32_t word = stream_word(key, i);
    EXPECT_EQ(words.word(), word);
    EXPECT_EQ(normals.normal(), stream_normal(key, i));
    EXPECT_EQ(uniforms.uniform(), uniform_of(word));
    EXPECT_EQ(integers.below(10), below_of(word, 10).value);
  }
}

TEST(Streams, WordsThatWouldMakeSomeIntegersLikelierAreDrawnAgain) {
  constexpr std::uint32_t n = 3u << 30;  // A quarter of the 2^32 words is left over.
  std::uint32_t again = 0;
  constexpr std::uint32_t words = 1u << 16;
  for (std::uint32_t i = 0; i < words; ++i) {
    const Below drawn = below_of(i * 65537u, n);
    EXPECT_LT(drawn.value, n);
    if (drawn.again) ++again;
  }
  EXPECT_EQ(again, words / 4);
}

// ---- recipes ----

TEST(Recipes, OfSourcesThatDrawThemselves) {
  SinusoidOptions options;
  options.noise_std = 0.25;
  const auto source = make_sinusoid(options);
  ASSERT_NE(source->recipe(), nullptr);
  EXPECT_EQ(std::get<SinusoidOptions>(source->recipe()->method).noise_std, 0.25);
  EXPECT_EQ(source->recipe()->shape.query, options.query);
  EXPECT_EQ(make_fixed_source(make_sinusoid(options), 3)->recipe(), nullptr)
      << "its training tasks are not a sinusoid's";
}

// ---- sinusoids ----

TEST(Sinusoid, HalfOfSineLineIsLines) {
  Config config = Config::parse("data = { source = 'sine_line', shots = 3, queries = 4 }");
  const auto source = make_source(config);
  EXPECT_THAT(source->describe(), HasSubstr("lines"));
  constexpr int tasks = 1000;
  TaskBatch batch(source->shape(), tasks);
  batch.draw(*source, {.seed = 3}, 0, tasks);
  int lines = 0;
  for (int t = 0; t < tasks; ++t) {
    const TaskSlot slot = batch.slot(t);
    const double slope =
        (slot.query_value[1] - slot.query_value[0]) / (slot.query_x[1] - slot.query_x[0]);
    const double intercept = slot.query_value[0] - slope * slot.query_x[0];
    bool line = true;
    for (std::size_t i = 0; i < 3; ++i) {
      line = line && std::abs(slot.support_value[i] - slope * slot.support_x[i] - intercept) < 1e-3;
    }
    if (!line) continue;
    ++lines;
    EXPECT_LE(std::abs(slope), 3.0 + 1e-2);
    EXPECT_LE(std::abs(intercept), 3.0 + 1e-2);
  }
  // 500 lines of 1,000 tasks are expected. The tolerance is five standard deviations.
  EXPECT_NEAR(lines, 500, 80);
}

TEST(UnitLength, ScalesRows) {
  std::vector<float> rows = {3, 4, 0, 0, -2, 0};
  scale_to_unit_length(rows, 2);
  EXPECT_THAT(rows, ::testing::ElementsAre(::testing::FloatEq(0.6f), ::testing::FloatEq(0.8f), 0, 0,
                                           -1, 0));
}

TEST(Sinusoid, PointsLieOnASinusoidOfTheRanges) {
  const auto source = make_sinusoid({.support = 10, .query = 15});
  TaskBatch batch(source->shape(), 2000);
  batch.draw(*source, {.seed = 3}, 0, 2000);
  double largest = 0.0;
  double smallest_phase = 10.0;
  double largest_phase = -10.0;
  for (int t = 0; t < 2000; ++t) {
    const TaskSlot slot = batch.slot(t);
    EXPECT_EQ(*slot.support_n, 10);
    EXPECT_EQ(*slot.query_n, 15);
    // y = u sin x + v cos x. Two points give u and v, and the other points must agree.
    const auto x = [&](std::size_t i) { return static_cast<double>(slot.query_x[i]); };
    const auto y = [&](std::size_t i) { return static_cast<double>(slot.query_value[i]); };
    std::size_t j = 1;
    while (std::abs(std::sin(x(j) - x(0))) < 0.2 && j + 1 < 15) ++j;
    const double determinant = std::sin(x(0) - x(j));
    if (std::abs(determinant) < 0.2) continue;
    const double u = (y(0) * std::cos(x(j)) - y(j) * std::cos(x(0))) / determinant;
    const double v = (std::sin(x(0)) * y(j) - std::sin(x(j)) * y(0)) / determinant;
    for (std::size_t i = 0; i < 10; ++i) {
      const double at = slot.support_x[i];
      ASSERT_NEAR(slot.support_value[i], u * std::sin(at) + v * std::cos(at), 2e-4) << t;
      ASSERT_GE(at, -5.0);
      ASSERT_LE(at, 5.0);
    }
    const double amplitude = std::hypot(u, v);
    const double phase = std::atan2(-v, u);
    EXPECT_GT(amplitude, 0.1 - 1e-3);
    EXPECT_LT(amplitude, 5.0 + 1e-3);
    largest = std::max(largest, amplitude);
    smallest_phase = std::min(smallest_phase, phase);
    largest_phase = std::max(largest_phase, phase);
  }
  EXPECT_GT(largest, 4.9);
  EXPECT_LT(smallest_phase, 0.05);
  EXPECT_GT(largest_phase, 3.09);
}

TEST(Sinusoid, SineIsAccurateOverTheAllowedRange) {
  SinusoidOptions options{.support = 1, .query = 100000};
  options.amplitude_low = options.amplitude_high = 1.0;
  options.phase_low = options.phase_high = 0.0;
  for (const double reach : {5.0, 8000.0}) {
    options.x_low = -reach;
    options.x_high = reach;
    const auto source = make_sinusoid(options);
    TaskBatch batch(source->shape(), 1);
    batch.draw(*source, {}, 0, 1);
    double worst = 0.0;
    for (std::size_t i = 0; i < 100000; ++i) {
      const double want = std::sin(static_cast<double>(batch.query_x[i]));
      worst = std::max(worst, std::abs(batch.query_value[i] - want));
    }
    EXPECT_LT(worst, 2e-7) << reach;
  }
}

TEST(Sinusoid, MoreShotsLeaveQueryAndEarlierShotsAlone) {
  const auto few = make_sinusoid({.support = 5, .query = 7});
  const auto many = make_sinusoid({.support = 10, .query = 7});
  TaskBatch a(few->shape(), 1);
  TaskBatch b(many->shape(), 1);
  a.draw(*few, {.seed = 1, .split = Split::test}, 4, 1);
  b.draw(*many, {.seed = 1, .split = Split::test}, 4, 1);
  EXPECT_EQ(a.query_x, b.query_x);
  EXPECT_EQ(a.query_value, b.query_value);
  b.support_x.resize(5);
  EXPECT_EQ(a.support_x, b.support_x);
}

TEST(Sinusoid, NoiseHasTheAskedDeviation) {
  const auto clean = make_sinusoid({.support = 1, .query = 20000});
  const auto noisy = make_sinusoid({.support = 1, .query = 20000, .noise_std = 0.5});
  TaskBatch a(clean->shape(), 1);
  TaskBatch b(noisy->shape(), 1);
  a.draw(*clean, {}, 0, 1);
  b.draw(*noisy, {}, 0, 1);
  EXPECT_EQ(a.query_x, b.query_x);
  double sum = 0.0;
  double square = 0.0;
  for (std::size_t i = 0; i < 20000; ++i) {
    const double noise = b.query_value[i] - a.query_value[i];
    sum += noise;
    square += noise * noise;
  }
  EXPECT_NEAR(sum / 20000, 0.0, 4 * 0.5 / std::sqrt(20000.0));
  EXPECT_NEAR(std::sqrt(square / 20000), 0.5, 4 * 0.5 / std::sqrt(40000.0));
}

TEST(Sinusoid, BadOptionsNameTheKey) {
  EXPECT_THAT(error_text([] { make_sinusoid({.support = -1}); }), HasSubstr("data.shots"));
  EXPECT_THAT(error_text([] { make_sinusoid({.x_low = 2, .x_high = 1}); }),
              HasSubstr("data.x_low"));
  EXPECT_THAT(error_text([] { make_sinusoid({.x_high = 1e6}); }), HasSubstr("8192"));
  EXPECT_THAT(error_text([] { make_sinusoid({.noise_std = -1}); }), HasSubstr("data.noise_std"));
  EXPECT_THAT(error_text([] { make_sinusoid({.noise_std = 1e39}); }),
              AllOf(HasSubstr("data.noise_std = 1e+39"), HasSubstr("expected at most 1e+30")));
  EXPECT_THAT(error_text([] { make_sinusoid({.amplitude_low = -1e39}); }),
              HasSubstr("data.amplitude_low"));
}

// ---- streams and samples ----

TEST(EpisodeStream, IdsDoNotShareNumbers) {
  std::set<std::vector<std::uint32_t>> seen;
  int count = 0;
  for (const std::uint64_t seed : {0, 1, 2, 1000}) {
    for (const Split split : {Split::train, Split::validation, Split::test}) {
      for (std::uint64_t step = 0; step < 3; ++step) {
        for (std::uint32_t task = 0; task < 3; ++task) {
          for (std::uint32_t part = 0; part < 2; ++part) {
            RandomStream stream = episode_stream({seed, split, step, task}, part);
            seen.insert({stream.word(), stream.word(), stream.word(), stream.word()});
            ++count;
          }
        }
      }
    }
  }
  EXPECT_EQ(seen.size(), static_cast<std::size_t>(count));
}

TEST(Sample, WithoutReplacementAndUniform) {
  constexpr int draws = 30000;
  std::map<std::vector<std::uint32_t>, int> counts;
  for (std::uint32_t t = 0; t < draws; ++t) {
    RandomStream stream = episode_stream({.seed = 9, .task = t});
    std::vector<std::uint32_t> out(2);
    sample_without_replacement(stream, 4, out);
    ++counts[out];
  }
  ASSERT_EQ(counts.size(), 12u);  // ordered pairs of 4
  double chi = 0.0;
  for (const auto& [pair, count] : counts) {
    const double want = draws / 12.0;
    chi += (count - want) * (count - want) / want;
  }
  EXPECT_LT(chi, 31.3);  // 99.9 % quantile of chi-square with 11 degrees of freedom
}

// ---- classes ----

TEST(ClassEpisodes, LabelsFollowClassesAndNothingRepeats) {
  TempFolder folder;
  const auto source =
      make_class_source(class_file(folder / "c.kshot"), {.ways = 5, .shots = 2, .queries = 3});
  const TaskShape shape = source->shape();
  EXPECT_EQ(shape.support, 10);
  EXPECT_EQ(shape.query, 15);
  EXPECT_EQ(shape.outputs, 5);
  EXPECT_TRUE(source->has(Split::test));
  TaskBatch batch(shape, 300);
  std::map<int, int> uses;
  for (const auto& [split, low, high] :
       {std::tuple{Split::train, 0, 12}, std::tuple{Split::validation, 12, 18},
        std::tuple{Split::test, 18, 23}}) {
    batch.draw(*source, {.seed = 2, .split = split, .step = 7}, 0, 300);
    for (int t = 0; t < 300; ++t) {
      const TaskSlot slot = batch.slot(t);
      std::map<int, int> label_of;
      std::set<std::pair<int, int>> rows;
      for (std::size_t n = 0; n < 5; ++n) {
        const int cls = static_cast<int>(slot.support_x[n * 2 * 2]);
        EXPECT_GE(cls, low);
        EXPECT_LT(cls, high);
        EXPECT_TRUE(label_of.emplace(cls, static_cast<int>(n)).second) << "class drawn twice";
        ++uses[cls];
        for (std::size_t k = 0; k < 2; ++k) {
          const std::size_t at = n * 2 + k;
          EXPECT_EQ(static_cast<int>(slot.support_x[at * 2]), cls);
          EXPECT_EQ(slot.support_label[at], static_cast<int>(n));
          rows.emplace(cls, static_cast<int>(slot.support_x[at * 2 + 1]));
        }
        for (std::size_t k = 0; k < 3; ++k) {
          const std::size_t at = n * 3 + k;
          EXPECT_EQ(static_cast<int>(slot.query_x[at * 2]), cls);
          EXPECT_EQ(slot.query_label[at], static_cast<int>(n));
          rows.emplace(cls, static_cast<int>(slot.query_x[at * 2 + 1]));
        }
      }
      EXPECT_EQ(rows.size(), 25u) << "an example is in the episode twice";
    }
  }
  // 300 episodes take 5 of 12 classes: 125 uses per class, with a standard deviation of 8.5.
  for (int c = 0; c < 12; ++c) EXPECT_NEAR(uses[c], 125, 43) << c;
}

TEST(ClassEpisodes, TheSameIdIsTheSameEpisodeInAnyBatchAndThread) {
  TempFolder folder;
  const auto source =
      make_class_source(class_file(folder / "c.kshot"), {.ways = 3, .shots = 1, .queries = 4});
  TaskBatch whole(source->shape(), 64);
  whole.draw(*source, {.seed = 5, .step = 11}, 0, 64);
  std::vector<TaskBatch> single(64);
  std::vector<std::thread> threads;
  for (int w = 0; w < 4; ++w) {
    threads.emplace_back([&, w] {
      for (int t = 63 - w; t >= 0; t -= 4) {
        auto& batch = single[static_cast<std::size_t>(t)];
        batch = TaskBatch(source->shape(), 1);
        batch.draw(*source, {.seed = 5, .step = 11}, static_cast<std::uint32_t>(t), 1);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (int t = 0; t < 64; ++t) {
    const TaskSlot slot = whole.slot(t);
    const auto& one = single[static_cast<std::size_t>(t)];
    EXPECT_TRUE(std::ranges::equal(slot.support_x, one.support_x));
    EXPECT_TRUE(std::ranges::equal(slot.query_x, one.query_x));
  }
  TaskBatch wide(source->shape(), 2, true);
  wide.draw(*source, {.seed = 5, .step = 11}, 6, 2);
  EXPECT_TRUE(std::ranges::equal(whole.slot(7).query_x, std::span(wide.query_x64).subspan(24)));
  EXPECT_TRUE(
      std::ranges::equal(whole.slot(7).query_label, std::span(wide.query_label).subspan(12)));
}

TEST(ClassEpisodes, TooFewNamesSplitAndCounts) {
  TempFolder folder;
  const auto data = class_file(folder / "c.kshot");
  EXPECT_THAT(error_text([&] { make_class_source(data, {.ways = 6, .shots = 1, .queries = 1}); }),
              AllOf(HasSubstr("c.kshot"), HasSubstr("5 test classes"), HasSubstr("data.ways = 6")));
  EXPECT_THAT(error_text([&] { make_class_source(data, {.ways = 5, .shots = 6, .queries = 15}); }),
              AllOf(HasSubstr("train class 'class 0' has 20 examples"), HasSubstr("need 21")));
  EXPECT_THAT(error_text([&] { make_table_source(data, {}); }), HasSubstr("expected tasks"));
}

// ---- a finite number of training tasks ----

TEST(Minibatches, OwnLabelsOfAllTrainingClassesAndATenthHeldOut) {
  TempFolder folder;
  // Class c of 12 has 20 + c % 3 examples (c, r). The last two of each are held out.
  const auto source = make_minibatch_source(class_file(folder / "c.kshot", 20), 40);
  const TaskShape shape = source->shape();
  EXPECT_EQ(shape.support, 0);
  EXPECT_EQ(shape.query, 40);
  EXPECT_EQ(shape.outputs, 12);
  EXPECT_TRUE(source->has(Split::validation));
  TaskBatch batch(shape, 200);
  std::map<std::pair<float, float>, int> learnt, held;
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    batch.draw(*source, {.seed = 5, .split = split}, 0, 200);
    for (int t = 0; t < 200; ++t) {
      const TaskSlot slot = batch.slot(t);
      // 24 examples are held out, which are fewer than the rows of a minibatch.
      ASSERT_EQ(*slot.query_n, split == Split::train ? 40 : 24);
      std::set<std::pair<float, float>> here;
      for (std::size_t i = 0; i < static_cast<std::size_t>(*slot.query_n); ++i) {
        const std::pair row{slot.query_x[2 * i], slot.query_x[2 * i + 1]};
        EXPECT_EQ(static_cast<float>(slot.query_label[i]), row.first);
        EXPECT_TRUE(here.insert(row).second) << "drawn twice";
        ++(split == Split::train ? learnt : held)[row];
      }
    }
  }
  EXPECT_EQ(held.size(), 24u);
  EXPECT_EQ(learnt.size(), 12u * 19u);  // 18, 19 and 20 in turn
  for (const auto& [row, count] : held) {
    EXPECT_FALSE(learnt.contains(row));
    const int rows = 20 + static_cast<int>(row.first) % 3;
    EXPECT_GE(row.second, static_cast<float>(rows - 2));
  }
  // There are 200 minibatches of 40 of 228 examples, so that each example occurs about 35 times.
  for (const auto& [row, count] : learnt) EXPECT_NEAR(count, 35.1, 30.0);
}

TEST(Minibatches, SmallClassesHoldNothingOut) {
  TempFolder folder;
  const auto source = make_minibatch_source(class_file(folder / "c.kshot", 5), 8);
  EXPECT_FALSE(source->has(Split::validation));
  EXPECT_FALSE(source->has(Split::test));
  EXPECT_THAT(error_text([&] { make_minibatch_source(class_file(folder / "c.kshot", 5), 100); }),
              AllOf(HasSubstr("72 train examples"), HasSubstr("data.queries = 100")));
}

TEST(Minibatches, OnlySplitsThatAreUsedAreChecked) {
  TempFolder folder;
  // The 228 training examples are fewer than the rows of a minibatch. The examples of the test
  // split suffice.
  const auto data = class_file(folder / "c.kshot", 20);
  EXPECT_THAT(error_text([&] { make_minibatch_source(data, 300, std::array{Split::train}); }),
              HasSubstr("228 train examples"));
  const auto source = make_minibatch_source(data, 300, std::array{Split::test});
  EXPECT_FALSE(source->has(Split::train));
  EXPECT_TRUE(source->has(Split::test));
  TaskBatch batch(source->shape(), 1);
  batch.draw(*source, {.split = Split::test}, 0, 1);
  EXPECT_EQ(*batch.slot(0).query_n, 24);
  EXPECT_THAT(error_text([&] { batch.draw(*source, {.split = Split::train}, 0, 1); }),
              HasSubstr("228 train examples"));
}

TEST(FixedTasks, AMemberIsTheSameEveryTimeAndOthersDiffer) {
  const auto source = make_fixed_source(make_sinusoid({.support = 4, .query = 3}), 50);
  EXPECT_EQ(source->training_tasks(), 50u);
  TaskBatch a(source->shape(), 3), b(source->shape(), 3);
  const std::vector<std::uint32_t> members = {7, 49, 8}, turned = {8, 7, 49};
  a.draw(*source, {.seed = 4, .step = 1}, 0, members);
  b.draw(*source, {.seed = 4, .step = 99}, 16, turned);
  for (const auto& [i, j] : {std::pair{0, 1}, std::pair{1, 2}, std::pair{2, 0}}) {
    EXPECT_TRUE(std::ranges::equal(a.slot(i).support_x, b.slot(j).support_x));
    EXPECT_TRUE(std::ranges::equal(a.slot(i).query_value, b.slot(j).query_value));
  }
  EXPECT_FALSE(std::ranges::equal(a.slot(0).support_x, a.slot(1).support_x));
  EXPECT_FALSE(std::ranges::equal(a.slot(0).support_x, a.slot(2).support_x));
}

TEST(FixedTasks, WithoutAMemberOneOfThemIsDrawn) {
  const auto source = make_fixed_source(make_sinusoid({.support = 2, .query = 1}), 5);
  TaskBatch known(source->shape(), 5), drawn(source->shape(), 200);
  known.draw(*source, {.seed = 4}, 0, std::vector<std::uint32_t>{0, 1, 2, 3, 4});
  drawn.draw(*source, {.seed = 4, .step = 3}, 0, 200);
  std::vector<int> turns(5, 0);
  for (int t = 0; t < 200; ++t) {
    for (int m = 0; m < 5; ++m) {
      turns[static_cast<std::size_t>(m)] +=
          std::ranges::equal(drawn.slot(t).support_x, known.slot(m).support_x);
    }
  }
  EXPECT_EQ(std::accumulate(turns.begin(), turns.end(), 0), 200);
  // The standard deviation is 5.7. The tolerance is six of them.
  for (const int n : turns) EXPECT_NEAR(n, 40, 34);
  // Test tasks are those of the wrapped source, without a finite number.
  const auto plain = make_sinusoid({.support = 2, .query = 1});
  TaskBatch a(source->shape(), 1), b(source->shape(), 1);
  a.draw(*source, {.seed = 4, .split = Split::test, .step = 2}, 9, 1);
  b.draw(*plain, {.seed = 4, .split = Split::test, .step = 2}, 9, 1);
  EXPECT_EQ(a.support_x, b.support_x);
}

TEST(PermutedTasks, SameClassesOtherLabels) {
  TempFolder folder;
  const auto source =
      make_permuted_source(class_file(folder / "c.kshot"), {{.ways = 5, .shots = 3, .queries = 4}});
  std::set<int> classes;
  std::set<std::vector<int>> permutations;
  TaskBatch batch(source->shape(), 100);
  for (const Split split : {Split::train, Split::test}) {
    batch.draw(*source, {.seed = 2, .split = split}, 0, 100);
    for (int t = 0; t < 100; ++t) {
      const TaskSlot slot = batch.slot(t);
      std::map<int, int> label_of;
      std::set<std::pair<int, int>> rows;
      const auto look = [&](float cls, float row, std::int32_t label, bool query) {
        classes.insert(static_cast<int>(cls));
        EXPECT_EQ(label_of.emplace(static_cast<int>(cls), label).first->second, label);
        EXPECT_TRUE(rows.emplace(static_cast<int>(cls), static_cast<int>(row)).second);
        // A quarter of the 20 to 22 rows is reserved for the queries of new tasks.
        const int kept_from = 20 + static_cast<int>(cls) % 3 - 5;
        EXPECT_EQ(static_cast<int>(row) >= kept_from, query && split == Split::test);
      };
      for (std::size_t i = 0; i < 15; ++i) {
        look(slot.support_x[2 * i], slot.support_x[2 * i + 1], slot.support_label[i], false);
      }
      for (std::size_t i = 0; i < 20; ++i) {
        look(slot.query_x[2 * i], slot.query_x[2 * i + 1], slot.query_label[i], true);
      }
      std::set<int> labels;
      std::vector<int> permutation;
      for (const auto& [cls, label] : label_of) {
        labels.insert(label);
        permutation.push_back(label);
      }
      EXPECT_EQ(labels, (std::set<int>{0, 1, 2, 3, 4}));
      permutations.insert(permutation);
    }
  }
  EXPECT_EQ(classes.size(), 5u) << "the classes are the environment's";
  for (const int c : classes) EXPECT_LT(c, 12) << "training classes";
  EXPECT_GT(permutations.size(), 60u) << "of 120";
  EXPECT_THAT(error_text([&] {
                make_permuted_source(class_file(folder / "d.kshot"),
                                     {{.ways = 5, .shots = 12, .queries = 5}});
              }),
              AllOf(HasSubstr("do not fit train tasks"), HasSubstr("at most 16 together")));
}

TEST(PermutedTasks, OnlySplitsThatAreUsedAreChecked) {
  TempFolder folder;
  // A class has 20 examples. Five are reserved for the queries of new tasks, and all other rows
  // come from the other 15.
  const auto data = class_file(folder / "c.kshot");
  const auto source = [&](int shots, int queries, std::vector<Split> used) {
    return make_permuted_source(data, {{.ways = 5, .shots = shots, .queries = queries}}, used);
  };
  const auto many_queries = source(3, 10, {Split::train});
  EXPECT_TRUE(many_queries->has(Split::train));
  EXPECT_FALSE(many_queries->has(Split::validation));
  EXPECT_THAT(error_text([&] {
                source(3, 10, {Split::train, Split::validation});
              }),
              AllOf(HasSubstr("validation tasks"), HasSubstr("shots and 5 queries)")));
  TaskBatch batch(many_queries->shape(), 1);
  EXPECT_THAT(error_text([&] { batch.draw(*many_queries, {.split = Split::test}, 0, 1); }),
              HasSubstr("test tasks"));
  EXPECT_THAT(error_text([&] { source(13, 4, {Split::train}); }), HasSubstr("train tasks"));
  // A test task takes its query rows from the reserved ones, so that 13 shots are available next to
  // them.
  const auto many_shots = source(13, 4, {Split::test});
  EXPECT_FALSE(many_shots->has(Split::train));
  TaskBatch tests(many_shots->shape(), 20);
  tests.draw(*many_shots, {.seed = 3, .split = Split::test}, 0, 20);
  for (int t = 0; t < 20; ++t) {
    const TaskSlot slot = tests.slot(t);
    std::set<std::pair<float, float>> rows;
    for (std::size_t i = 0; i < 65; ++i) {
      const float kept_from =
          15.0f + static_cast<float>(static_cast<int>(slot.support_x[2 * i]) % 3);
      EXPECT_LT(slot.support_x[2 * i + 1], kept_from);
      EXPECT_TRUE(rows.emplace(slot.support_x[2 * i], slot.support_x[2 * i + 1]).second);
    }
    for (std::size_t i = 0; i < 20; ++i) {
      EXPECT_TRUE(rows.emplace(slot.query_x[2 * i], slot.query_x[2 * i + 1]).second);
    }
  }
  EXPECT_THAT(error_text([&] { source(0, 4, {Split::test}); }), HasSubstr("data.shots = 0"));
}

TEST(PermutedTasks, OnePermutationOfPixelsATask) {
  TempFolder folder;
  DatasetHeader header;
  header.kind = data::GroupKind::classes;
  header.input = {.channels = 40};
  header.preprocessing.kind = data::Preprocessing::Kind::table;
  DatasetWriter writer(folder / "p.kshot", header);
  for (int c = 0; c < 3; ++c) {
    writer.begin_group("c" + std::to_string(c), Split::train);
    // Pixel p of every row is 1000 row + p.
    for (int r = 0; r < 8; ++r) {
      std::vector<float> x;
      for (int p = 0; p < 40; ++p) x.push_back(static_cast<float>(1000 * (8 * c + r) + p));
      writer.add(x);
    }
  }
  writer.commit();
  PermutedEpisodes options{{.ways = 2, .shots = 2, .queries = 2}, true, 3};
  const auto source = make_permuted_source(Dataset::open(folder / "p.kshot"), options);
  TaskBatch batch(source->shape(), 20);
  batch.draw(*source, {.seed = 2}, 0, 20);
  std::set<std::vector<int>> orders;
  for (int t = 0; t < 20; ++t) {
    const TaskSlot slot = batch.slot(t);
    const auto order = [&](std::span<const float> x, std::size_t row) {
      std::vector<int> pixels;
      for (std::size_t p = 0; p < 40; ++p) {
        pixels.push_back(static_cast<int>(x[row * 40 + p]) % 1000);
      }
      return pixels;
    };
    const std::vector<int> first = order(slot.support_x, 0);
    for (std::size_t row = 0; row < 4; ++row) {
      EXPECT_EQ(order(slot.support_x, row), first);
      EXPECT_EQ(order(slot.query_x, row), first);
    }
    EXPECT_EQ(std::set<int>(first.begin(), first.end()).size(), 40u);
    int moved = 0;
    for (int p = 0; p < 40; ++p) moved += first[static_cast<std::size_t>(p)] != p;
    EXPECT_LE(moved, 6) << "three swaps";
    orders.insert(first);
    EXPECT_EQ(slot.support_label[3], 1) << "labels stay";
  }
  EXPECT_GT(orders.size(), 18u);
}

// ---- tables ----

TEST(TableEpisodes, TasksOfDifferentSize) {
  TempFolder folder;
  const auto source = make_table_source(task_file(folder / "t.kshot"),
                                        {.shots = 8, .queries = 6, .variable_size = true});
  EXPECT_EQ(source->training_tasks(), 3u);
  EXPECT_FALSE(source->has(Split::test));
  TaskBatch batch(source->shape(), 200);
  batch.draw(*source, {.seed = 1}, 0, 200);
  std::map<int, int> uses;
  const std::vector<std::pair<int, int>> want = {{8, 6}, {8, 4}, {3, 1}};
  for (int t = 0; t < 200; ++t) {
    const TaskSlot slot = batch.slot(t);
    const int task = static_cast<int>(slot.support_x[0]);
    ASSERT_LT(task, 3);
    ++uses[task];
    EXPECT_EQ(*slot.support_n, want[static_cast<std::size_t>(task)].first);
    EXPECT_EQ(*slot.query_n, want[static_cast<std::size_t>(task)].second);
    std::set<int> rows;
    const auto check = [&](std::span<float> x, std::span<float> y, int n) {
      for (std::size_t k = 0; k < static_cast<std::size_t>(n); ++k) {
        EXPECT_EQ(static_cast<int>(x[2 * k]), task);
        EXPECT_EQ(y[k], static_cast<float>(100 * task) + x[2 * k + 1]);
        EXPECT_TRUE(rows.insert(static_cast<int>(x[2 * k + 1])).second) << "a row twice";
      }
    };
    check(slot.support_x, slot.support_value, *slot.support_n);
    check(slot.query_x, slot.query_value, *slot.query_n);
  }
  for (int t = 0; t < 3; ++t) EXPECT_NEAR(uses[t], 66.7, 27) << t;
  batch.draw(*source, {.seed = 1, .split = Split::validation}, 0, 1);
  EXPECT_EQ(batch.support_x[0], 3.0f);
  EXPECT_THAT(error_text([&] { batch.draw(*source, {.split = Split::test}, 0, 1); }),
              AllOf(HasSubstr("t.kshot"), HasSubstr("no test tasks")));
}

TEST(TableEpisodes, SmallTasksAreErrorsUnlessAllowed) {
  TempFolder folder;
  const auto data = task_file(folder / "t.kshot");
  EXPECT_THAT(error_text([&] { make_table_source(data, {.shots = 3, .queries = 2}); }),
              AllOf(HasSubstr("train task 't2' has 4 rows"), HasSubstr("data.shots = 3"),
                    HasSubstr("data.variable_size = true")));
  const auto source = make_table_source(data, {.shots = 3, .queries = 1});
  TaskBatch batch(source->shape(), 50);
  batch.draw(*source, {}, 0, 50);
  for (int t = 0; t < 50; ++t) EXPECT_EQ(*batch.slot(t).support_n, 3);
}

TEST(TableEpisodes, Labels) {
  TempFolder folder;
  const auto source =
      make_table_source(task_file(folder / "t.kshot", true), {.shots = 2, .queries = 2});
  EXPECT_EQ(source->shape().target, TargetKind::label);
  TaskBatch batch(source->shape(), 20);
  batch.draw(*source, {}, 0, 20);
  for (int t = 0; t < 20; ++t) {
    const TaskSlot slot = batch.slot(t);
    for (std::size_t k = 0; k < 2; ++k) {
      EXPECT_EQ(slot.query_label[k], static_cast<int>(slot.query_x[2 * k + 1]) % 3);
    }
  }
}

// ---- from a configuration ----

TEST(MakeSource, MismatchesNameTheKey) {
  TempFolder folder;
  class_file(folder / "c.kshot");
  task_file(folder / "t.kshot");
  task_file(folder / "l.kshot", true);
  Config config;
  const auto fault = [&] { return error_text([&] { make_source(config); }); };
  EXPECT_EQ(make_source(config)->shape().support, config.data.shots.most);

  config.data.source = DataKind::file;
  EXPECT_THAT(fault(), HasSubstr("data.path"));
  config.data.path = (folder / "none.kshot").string();
  EXPECT_THAT(fault(), AllOf(HasSubstr("none.kshot"), HasSubstr("No such file")));
  config.data.path = (folder / "c.kshot").string();
  config.data.queries = 3;
  EXPECT_THAT(fault(), AllOf(HasSubstr("loss.type"), HasSubstr("expected cross_entropy")));
  config.loss.type = LossType::cross_entropy;
  config.network.layers = {2, 5};
  EXPECT_EQ(make_source(config)->shape().outputs, 5) << "the network's outputs";
  config.data.variable_size = true;
  EXPECT_THAT(fault(), HasSubstr("data.variable_size"));
  config.data.path = (folder / "t.kshot").string();
  EXPECT_THAT(fault(), AllOf(HasSubstr("loss.type"), HasSubstr("expected mse")));
  config.loss.type = LossType::mse;
  EXPECT_EQ(make_source(config)->shape().target, TargetKind::value);
  config.data.path = (folder / "l.kshot").string();
  config.loss.type = LossType::cross_entropy;
  config.data.ways = 5;
  EXPECT_THAT(fault(), AllOf(HasSubstr("data.ways = 5"), HasSubstr("has 3 labels")));
  config.data.ways = 0;
  EXPECT_EQ(make_source(config)->shape().outputs, 3) << "the file's own number";
}

TEST(TableEpisodes, AMemberIsATaskOfTheFileWithRowsOfEachStep) {
  TempFolder folder;
  const auto source = make_table_source(task_file(folder / "t.kshot"),
                                        {.shots = 3, .queries = 2, .variable_size = true});
  EXPECT_EQ(source->training_tasks(), 3u);
  EXPECT_DOUBLE_EQ(source->training_rows(), (30.0 + 12.0 + 4.0) / 3.0);
  TaskBatch batch(source->shape(), 3), later(source->shape(), 3);
  const std::vector<std::uint32_t> members = {2, 0, 1};
  batch.draw(*source, {.seed = 1, .step = 1}, 0, members);
  later.draw(*source, {.seed = 1, .step = 2}, 0, members);
  for (int t = 0; t < 3; ++t) {
    for (TaskBatch* b : {&batch, &later}) {
      EXPECT_EQ(b->slot(t).support_x[0], static_cast<float>(members[static_cast<std::size_t>(t)]));
    }
  }
  EXPECT_FALSE(std::ranges::equal(batch.slot(1).support_x, later.slot(1).support_x));
}

}  // namespace
}  // namespace kshot
