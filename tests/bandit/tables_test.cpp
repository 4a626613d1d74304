// The mushroom, shuttle and adult tables as contextual bandits, on small files of the same form.
#include "bandit/tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <vector>

#include "io/npy.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot::bandit {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

void write(const fs::path& file, std::size_t rows, const std::vector<double>& values) {
  std::vector<std::size_t> shape = {rows};
  if (values.size() != rows) shape.push_back(values.size() / rows);
  io::write_npy(file, io::NpyArray::from(std::span<const double>(values), shape));
}

/// One round of an environment. Rewards and mean rewards are per arm.
struct Drawn {
  std::vector<float> context;
  std::vector<double> rewards, means;
};
Drawn draw(const Environment& e, int trial, std::uint64_t step) {
  Drawn d{std::vector<float>(static_cast<std::size_t>(e.context_size())),
          std::vector<double>(static_cast<std::size_t>(e.arms())),
          std::vector<double>(static_cast<std::size_t>(e.arms()))};
  e.round(3, trial, step, {d.context, d.rewards, d.means});
  return d;
}

class TableFiles : public ::testing::Test {
 protected:
  test::TempFolder folder_;
};

TEST_F(TableFiles, AMushroomPaysByItsLabelAndByChance) {
  write(folder_ / "mushroom_X.npy", 4, {1, 0, 0, 1, 1, 1, 0, 0});
  write(folder_ / "mushroom_y.npy", 4, {0, 1, 0, 1});
  const auto e = make_table(read_table("mushroom", folder_.path()));
  EXPECT_EQ(e->name(), "mushroom");
  EXPECT_EQ(e->context_size(), 2);
  ASSERT_EQ(e->arms(), 2);
  int poisonous = 0, lucky = 0;
  for (int trial = 0; trial < 1000; ++trial) {
    std::set<std::vector<float>> rows;
    for (std::uint64_t step = 0; step < 4; ++step) {
      const Drawn d = draw(*e, trial, step);
      rows.insert(d.context);
      EXPECT_EQ(d.rewards[0], 0.0);
      EXPECT_EQ(d.means[0], 0.0);
      const bool edible =
          d.context == std::vector<float>{1, 0} || d.context == std::vector<float>{1, 1};
      if (edible) {
        EXPECT_EQ(d.rewards[1], 5.0);
        EXPECT_EQ(d.means[1], 5.0);
        continue;
      }
      EXPECT_EQ(d.means[1], -15.0);
      EXPECT_TRUE(d.rewards[1] == 5.0 || d.rewards[1] == -35.0) << d.rewards[1];
      ++poisonous;
      lucky += d.rewards[1] == 5.0;
    }
    ASSERT_EQ(rows.size(), 4u) << "every row once before any comes again";
  }
  // The expected share is one half. The tolerance is four standard deviations.
  EXPECT_NEAR(lucky, 0.5 * poisonous, 2.0 * std::sqrt(poisonous));
}

TEST_F(TableFiles, AnArmOfTheRowsOwnClassPaysOne) {
  // The second column is constant. The labels are any three numbers.
  write(folder_ / "shuttle_X.npy", 3, {1, 7, 3, 7, 5, 7});
  write(folder_ / "shuttle_y.npy", 3, {4, 1, 9});
  const auto e = make_table(read_table("shuttle", folder_.path()));
  ASSERT_EQ(e->arms(), 3);
  ASSERT_EQ(e->context_size(), 2);
  const double unit = std::sqrt(1.5);  // for 1, 3, 5, standardized
  for (std::uint64_t step = 0; step < 6; ++step) {
    const Drawn d = draw(*e, 0, step);
    EXPECT_EQ(d.context[1], 0.0f);
    const auto x = static_cast<double>(d.context[0]);
    // Rows 1, 3 and 5 have the labels 4, 1 and 9.
    const std::size_t own = x < -0.5 ? 1 : x < 0.5 ? 0 : 2;
    EXPECT_NEAR(std::abs(x), own == 0 ? 0.0 : unit, 1e-6);
    for (std::size_t arm = 0; arm < 3; ++arm) {
      EXPECT_EQ(d.means[arm], arm == own ? 1.0 : 0.0);
      EXPECT_EQ(d.rewards[arm], d.means[arm]);
    }
  }
}

TEST_F(TableFiles, CategoriesBecomeOneNumberEach) {
  write(folder_ / "adult_numeric.npy", 2, {0, 1});
  write(folder_ / "adult_categorical.npy", 2, {8, 2, 5, 2});
  write(folder_ / "adult_y.npy", 2, {0, 1});
  const TableOptions t = read_table("adult", folder_.path());
  // The numeric column stays as it is. The categories 5 and 8 take two columns, and the category 2
  // takes one.
  EXPECT_EQ(t.context_size, 4);
  EXPECT_THAT(t.contexts, ElementsAre(0, 0, 1, 1, 1, 1, 0, 1));
}

TEST_F(TableFiles, FilesThatDoNotFitAreNamed) {
  EXPECT_THAT(error_text([&] { read_table("shuttle", folder_.path()); }),
              HasSubstr("shuttle_X.npy"));
  write(folder_ / "shuttle_X.npy", 3, {1, 2, 3});
  write(folder_ / "shuttle_y.npy", 2, {0, 1});
  EXPECT_THAT(error_text([&] { read_table("shuttle", folder_.path()); }),
              HasSubstr("3 rows, expected 2 as the labels have"));
  write(folder_ / "shuttle_y.npy", 3, {0, 0, 0});
  EXPECT_THAT(error_text([&] { make_table(read_table("shuttle", folder_.path())); }),
              HasSubstr("at least 2 classes"));
  write(folder_ / "shuttle_X.npy", 3, {1, 2, std::nan("")});
  write(folder_ / "shuttle_y.npy", 3, {0, 1, 0});
  EXPECT_THAT(error_text([&] { make_table(read_table("shuttle", folder_.path())); }),
              HasSubstr("expected finite numbers"));
}

}  // namespace
}  // namespace kshot::bandit
