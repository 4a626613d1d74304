// kernels/episodes.cu on the emulator, compared bit by bit with the `fill` of the sources on the
// host.
#include "kernels/episodes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/episode_recipe.h"
#include "base/episode_stream.h"
#include "episodes/sample.h"
#include "episodes/sources.h"
#include "simt/device_array.h"
#include "simt/orders.h"
#include "support/class_files.h"
#include "support/temp_folder.h"

namespace kshot::cuda {
namespace {

using simt::With;

/// The sets of a wave in device memory. Arrays that are not asked for are null.
template <class T>
struct Sets {
  Sets(const TaskShape& shape, int tasks, bool with_all)
      : support(shape, tasks, shape.support),
        query(shape, tasks, shape.query),
        all(shape, tasks, shape.support + shape.query) {
    arrays.tasks = tasks;
    arrays.support = shape.support;
    arrays.query = shape.query;
    const bool labels = shape.target == TargetKind::label;
    const auto set = [&](Set& s, bool present) {
      EpisodeSet<T> to;
      to.counts = s.counts.data();
      if (!present) return to;
      to.x = s.x.data();
      if (labels) {
        to.labels = s.labels.data();
      } else {
        to.values = s.values.data();
      }
      return to;
    };
    arrays.of_support = set(support, true);
    arrays.of_query = set(query, true);
    arrays.of_all = set(all, with_all);
  }
  struct Set {
    Set(const TaskShape& shape, int tasks, int rows)
        : x(static_cast<std::size_t>(tasks * rows * shape.input.size())),
          values(static_cast<std::size_t>(tasks * rows)),
          labels(static_cast<std::size_t>(tasks * rows)),
          counts(static_cast<std::size_t>(tasks)) {}
    DeviceArray<T> x, values;
    DeviceArray<std::int32_t> labels, counts;
  };
  Set support, query, all;
  EpisodeArrays<T> arrays;
};

/// Expects the same bits; each number of type T must be a float.
template <class T>
void expect_bits(const std::vector<T>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    const auto single = static_cast<float>(got[i]);
    ASSERT_EQ(static_cast<T>(single), got[i]) << i;
    ASSERT_EQ(std::memcmp(&single, &want[i], sizeof single), 0)
        << "element " << i << ": " << single << " and " << want[i];
  }
}

/// The support rows and then the query rows of each task.
template <class T>
std::vector<T> joined(const std::vector<T>& support, const std::vector<T>& query, int tasks) {
  std::vector<T> all;
  const auto part = [&](const std::vector<T>& of, int t) {
    const auto n = static_cast<std::ptrdiff_t>(of.size()) / tasks;
    all.insert(all.end(), of.begin() + t * n, of.begin() + (t + 1) * n);
  };
  for (int t = 0; t < tasks; ++t) {
    part(support, t);
    part(query, t);
  }
  return all;
}

/// Compares the sets with tasks that the source fills.
template <class T>
void expect_tasks(const Sets<T>& sets, const EpisodeSource& source, const TaskId& id,
                  bool with_all) {
  const TaskShape shape = source.shape();
  const int tasks = sets.arrays.tasks;
  TaskBatch want(shape, tasks);
  want.draw(source, id, id.task, tasks);
  expect_bits(sets.support.x.host(), want.support_x);
  expect_bits(sets.query.x.host(), want.query_x);
  EXPECT_EQ(sets.support.counts.host(), want.support_n);
  EXPECT_EQ(sets.query.counts.host(), want.query_n);
  for (const std::int32_t n : sets.all.counts.host()) EXPECT_EQ(n, shape.support + shape.query);
  if (with_all) expect_bits(sets.all.x.host(), joined(want.support_x, want.query_x, tasks));
  if (shape.target == TargetKind::label) {
    EXPECT_EQ(sets.support.labels.host(), want.support_label);
    EXPECT_EQ(sets.query.labels.host(), want.query_label);
    if (with_all) {
      EXPECT_EQ(sets.all.labels.host(), joined(want.support_label, want.query_label, tasks));
    }
  } else {
    expect_bits(sets.support.values.host(), want.support_value);
    expect_bits(sets.query.values.host(), want.query_value);
    if (with_all) {
      expect_bits(sets.all.values.host(), joined(want.support_value, want.query_value, tasks));
    }
  }
}

// The tasks of a meta-batch from number 7 on.
constexpr TaskId first_task{.seed = 11, .split = Split::train, .step = 5, .task = 7};

template <class T>
class Episodes : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Episodes, Scalars);

TYPED_TEST(Episodes, SinusoidsAndLinesAsOnTheHost) {
  using T = TypeParam;
  std::vector<SinusoidOptions> all(3);
  all[0].support = 3;
  all[0].query = 5;
  all[1].line_share = 0.5;  // with lines and noise; an odd number of points leaves half a pair
  all[1].noise_std = 0.3;
  all[1].support = 7;
  all[2].x_low = -3000.0;  // many periods
  all[2].x_high = 4000.0;
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    for (const SinusoidOptions& options : all) {
      const auto source = make_sinusoid(options);
      for (const bool with_all : {false, true}) {
        Sets<T> sets(source->shape(), 9, with_all);
        draw_sinusoids(sets.arrays, sinusoid_ranges(options), episode_key(first_task), nullptr);
        expect_tasks(sets, *source, first_task, with_all);
      }
    }
  }
}

/// The rows of a recipe and the groups of a split, as they are stored in the file.
struct Stored {
  Stored(const ClassRecipe& recipe, Split split)
      : bytes(std::vector<std::uint8_t>(
            reinterpret_cast<const std::uint8_t*>(recipe.stored.data()),
            reinterpret_cast<const std::uint8_t*>(recipe.stored.data()) + recipe.stored.size())),
        groups(of(recipe, split)) {}
  static std::vector<RowGroup> of(const ClassRecipe& recipe, Split split) {
    std::vector<RowGroup> all;
    for (const ClassRecipe::Group& g : recipe.groups[static_cast<std::size_t>(split)]) {
      all.push_back({static_cast<std::uint32_t>(g.first), g.rows});
    }
    return all;
  }
  DeviceArray<std::uint8_t> bytes;
  DeviceArray<RowGroup> groups;
};

TYPED_TEST(Episodes, ClassesAsOnTheHost) {
  using T = TypeParam;
  const test::TempFolder folder;
  struct Case {
    data::Element element;
    ClassEpisodes episodes;
    std::vector<std::uint32_t> rows;  ///< number of rows of each class
    FeatureShape input;
    bool with_all;
  };
  // Classes of different size; a draw of all classes and examples; more draws than a warp has
  // lanes.
  const std::vector<Case> cases = {
      {data::Element::u8, {3, 1, 4}, {5, 9, 70, 6, 8, 33}, {1, 5, 5, true}, true},
      {data::Element::f32, {4, 2, 3}, {5, 5, 5, 5}, {7, 1, 1, false}, false},
      {data::Element::f32, {2, 30, 20}, {400, 51, 50}, {3, 1, 1, false}, true},
      {data::Element::u8, {40, 1, 1}, std::vector<std::uint32_t>(43, 3), {2, 1, 1, false}, false},
  };
  int number = 0;
  for (const Case& c : cases) {
    SCOPED_TRACE(++number);
    const auto path = folder / (std::to_string(number) + ".kshot");
    data::DatasetHeader header;
    header.input = c.input;
    header.element = c.element;
    data::DatasetWriter writer(path, header);
    RandomStream noise({.seed = 3});
    const auto width = static_cast<std::size_t>(c.input.size());
    std::vector<std::uint8_t> pixels(width);
    std::vector<float> values(width);
    for (std::size_t g = 0; g < c.rows.size(); ++g) {
      writer.begin_group("g" + std::to_string(g), Split::train);
      for (std::uint32_t i = 0; i < c.rows[g]; ++i) {
        for (std::uint8_t& p : pixels) p = static_cast<std::uint8_t>(noise.word());
        for (float& v : values) v = noise.normal();
        if (i == 1) std::ranges::fill(values, 0.0f);
        c.element == data::Element::u8 ? writer.add(pixels) : writer.add(values);
      }
    }
    writer.commit();
    const auto source = make_class_source(data::Dataset::open(path), c.episodes);
    const EpisodeRecipe& recipe = *source->recipe();
    const auto& class_recipe = std::get<ClassRecipe>(recipe.method);
    Stored stored(class_recipe, Split::train);
    const ClassDraw draw{stored.groups.data(), static_cast<std::uint32_t>(stored.groups.size()),
                         class_recipe.ways, class_recipe.shots, class_recipe.queries};
    constexpr int tasks = 3;
    const TaskShape shape = source->shape();
    for (const simt::Settings& order : simt::all_orders()) {
      const With with(order);
      Sets<T> sets(shape, tasks, c.with_all);
      DeviceArray<std::uint32_t> rows(
          static_cast<std::size_t>(tasks * (shape.support + shape.query)));
      draw_classes(rows.data(), sets.arrays, draw, episode_key(first_task), nullptr);
      const int features = static_cast<int>(class_recipe.features);
      if (c.element == data::Element::u8) {
        gather_rows<T>(sets.arrays, stored.bytes.data(), nullptr, rows.data(), features, nullptr);
      } else {
        gather_rows<T>(sets.arrays, reinterpret_cast<const float*>(stored.bytes.data()), nullptr,
                       rows.data(), features, nullptr);
      }
      expect_tasks(sets, *source, first_task, c.with_all);
    }
  }
}

// With three billion examples, only seven in ten words can be used, so one lane walks through the
// stream.
TEST(EpisodeDraw, WordsThatMustBeDrawnAgain) {
  const std::vector<RowGroup> groups = {{5, 3'000'000'000u}, {17, 2'900'000'001u}, {9, 40u}};
  constexpr int ways = 2, shots = 3, queries = 36, tasks = 4;
  TaskShape shape{.input = {.channels = 1},
                  .outputs = ways,
                  .target = TargetKind::label,
                  .support = ways * shots,
                  .query = ways * queries};
  constexpr auto per_task = static_cast<std::size_t>(ways * (shots + queries));
  std::vector<std::uint32_t> want(tasks * per_task);
  int moved = 0;
  for (std::uint32_t t = 0; t < tasks; ++t) {
    TaskId id = first_task;
    id.task += t;
    std::vector<std::uint32_t> chosen(ways), rows(shots + queries);
    RandomStream classes = episode_stream(id, 0);
    sample_without_replacement(classes, 3, chosen);
    for (std::uint32_t n = 0; n < ways; ++n) {
      const RowGroup group = groups[chosen[n]];
      RandomStream examples = episode_stream(id, n + 1);
      sample_without_replacement(examples, group.rows, rows);
      const RandomKey key = episode_key(id, n + 1);
      for (std::uint32_t i = 0; i < rows.size(); ++i) {
        if (below_of(stream_word(key, i), group.rows - i).again) ++moved;
      }
      for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::size_t r =
            i < queries ? ways * shots + n * queries + i : n * shots + i - queries;
        want[t * per_task + r] = group.first + rows[i];
      }
    }
  }
  ASSERT_GT(moved, 0);
  for (const simt::Settings& order : simt::all_orders()) {
    const With with(order);
    Sets<float> sets(shape, tasks, false);
    DeviceArray<RowGroup> of(groups);
    DeviceArray<std::uint32_t> rows(want.size());
    draw_classes(rows.data(), sets.arrays, {of.data(), 3, ways, shots, queries},
                 episode_key(first_task), nullptr);
    EXPECT_EQ(rows.host(), want);
  }
}

}  // namespace
}  // namespace kshot::cuda
