// Imports of the real data sets, where they are available, against known numbers.
#include <gtest/gtest.h>

#include <filesystem>
#include <vector>

#include "data/import.h"
#include "episodes/sources.h"
#include "support/temp_folder.h"

namespace kshot::data {
namespace {

using test::TempFolder;

class SharedData : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(root_)) GTEST_SKIP() << "no shared data beside the repository";
  }
  const std::filesystem::path root_ = std::filesystem::path(KSHOT_SHARED_DIR) / "data";
  TempFolder folder_;
};

/// The accuracy of the class whose mean support example is nearest.
double nearest_centroid(const EpisodeSource& source, Split split, int episodes) {
  const TaskShape shape = source.shape();
  const auto d = static_cast<std::size_t>(shape.input.size());
  TaskBatch batch(shape, 1);
  std::int64_t right = 0;
  std::int64_t all = 0;
  for (int e = 0; e < episodes; ++e) {
    batch.draw(source, {.seed = 1, .split = split}, static_cast<std::uint32_t>(e), 1);
    std::vector<float> centroid(static_cast<std::size_t>(shape.outputs) * d, 0.0f);
    for (std::size_t r = 0; r < static_cast<std::size_t>(shape.support); ++r) {
      float* to = &centroid[static_cast<std::size_t>(batch.support_label[r]) * d];
      for (std::size_t i = 0; i < d; ++i) to[i] += batch.support_x[r * d + i];
    }
    const float scale = static_cast<float>(shape.outputs) / static_cast<float>(shape.support);
    for (float& v : centroid) v *= scale;
    for (std::size_t r = 0; r < static_cast<std::size_t>(shape.query); ++r) {
      float best = 0.0f;
      int label = -1;
      for (int c = 0; c < shape.outputs; ++c) {
        float distance = 0.0f;
        for (std::size_t i = 0; i < d; ++i) {
          const float v = batch.query_x[r * d + i] - centroid[static_cast<std::size_t>(c) * d + i];
          distance += v * v;
        }
        if (label < 0 || distance < best) {
          best = distance;
          label = c;
        }
      }
      right += label == batch.query_label[r] ? 1 : 0;
      ++all;
    }
  }
  return static_cast<double>(right) / static_cast<double>(all);
}

TEST_F(SharedData, Omniglot) {
  OmniglotImport options;
  options.sources = {root_ / "omniglot/images_background.zip",
                     root_ / "omniglot/images_evaluation.zip"};
  options.splits.lists = {{Split::train, root_ / "omniglot/vinyals_val.txt"},
                          {Split::test, root_ / "omniglot/vinyals_test.txt"}};
  options.output = folder_ / "o.kshot";
  import_omniglot(options);
  const auto data = Dataset::open(options.output);
  EXPECT_EQ(data->header().split_groups(Split::train).size(), 172u * 4u);
  EXPECT_EQ(data->header().split_groups(Split::test).size(), 423u * 4u);
  for (const Group& group : data->header().groups) ASSERT_EQ(group.rows, 20u);
  // An independent program with its own PNG reader and exact area averages gives 43.6 % and 71.6 %
  // (+- 0.7 %) for raw pixels, nearest centroid and 600 episodes.
  const auto one = make_class_source(data, {.ways = 5, .shots = 1, .queries = 15});
  EXPECT_NEAR(nearest_centroid(*one, Split::test, 600), 0.436, 0.02);
  const auto five = make_class_source(data, {.ways = 5, .shots = 5, .queries = 15});
  EXPECT_NEAR(nearest_centroid(*five, Split::test, 600), 0.716, 0.02);
}

TEST_F(SharedData, Leaves) {
  ArraysImport options;
  options.source = (root_ / "leaves100/leaves100.npy").string();
  options.splits.table = root_ / "leaves100/classes.tsv";
  options.standardise = true;
  options.output = folder_ / "l.kshot";
  import_arrays(options);
  const auto data = Dataset::open(options.output);
  EXPECT_EQ(data->header().input.size(), 192);
  EXPECT_EQ(data->header().split_groups(Split::train).size(), 64u);
  EXPECT_EQ(data->header().split_groups(Split::validation).size(), 16u);
  EXPECT_EQ(data->header().split_groups(Split::test).size(), 20u);
  const auto source = make_class_source(data, {.ways = 5, .shots = 1, .queries = 15});
  // An independent program gives 95.8 %. The interval of 300 episodes is about 0.6 %.
  EXPECT_NEAR(nearest_centroid(*source, Split::test, 300), 0.958, 0.02);
}

TEST_F(SharedData, Intents) {
  ArraysImport options;
  options.source = (root_ / "clinc150/clinc150_lsa256.npy").string();
  options.splits.table = root_ / "clinc150/classes.tsv";
  options.output = folder_ / "c.kshot";
  import_arrays(options);
  const auto data = Dataset::open(options.output);
  EXPECT_EQ(data->header().split_groups(Split::train).size(), 90u);
  EXPECT_EQ(data->header().split_groups(Split::validation).size(), 15u);
  EXPECT_EQ(data->header().groups[0].name, "alarm");
  EXPECT_EQ(data->header().groups[0].rows, 150u);
}

TEST_F(SharedData, Patients) {
  const auto at = [&](const char* file) { return (root_ / "parkinsons" / file).string(); };
  TableImport options;
  options.source = at("x.npy");
  options.task = at("subject.npy");
  options.targets = {at("y_motor_total.npy")};
  options.columns = at("columns.tsv");
  options.splits.table = at("tasks.tsv");
  options.output = folder_ / "p.kshot";
  import_table(options);
  const auto data = Dataset::open(options.output);
  EXPECT_EQ(data->header().input.size(), 19);
  EXPECT_EQ(data->header().outputs, 2);
  EXPECT_EQ(data->header().split_groups(Split::train).size(), 28u);
  EXPECT_EQ(data->header().split_groups(Split::validation).size(), 4u);
  // Over the training rows, every feature has mean 0 and standard deviation 1.
  double sum = 0.0;
  double square = 0.0;
  std::uint64_t rows = 0;
  std::vector<float> x(19);
  for (const std::uint32_t g : data->header().split_groups(Split::train)) {
    const Group& task = data->header().groups[g];
    for (std::uint64_t r = task.first; r < task.first + task.rows; ++r) {
      data->read(r, x);
      sum += x[3];
      square += static_cast<double>(x[3]) * x[3];
      ++rows;
    }
  }
  EXPECT_NEAR(sum / static_cast<double>(rows), 0.0, 1e-5);
  EXPECT_NEAR(square / static_cast<double>(rows), 1.0, 1e-5);
}

TEST_F(SharedData, BanditTables) {
  const auto at = [&](const char* file) { return (root_ / "bandit" / file).string(); };
  TableImport options;
  options.source = at("adult_numeric.npy");
  options.categorical_arrays = {at("adult_categorical.npy")};
  options.targets = {at("adult_y.npy")};
  options.classification = true;
  options.output = folder_ / "a.kshot";
  import_table(options);
  const auto data = Dataset::open(options.output);
  EXPECT_EQ(data->header().rows(), 48842u);
  EXPECT_EQ(data->header().input.size(), 6 + 9 + 16 + 7 + 15 + 6 + 5 + 2 + 42);
}

}  // namespace
}  // namespace kshot::data
