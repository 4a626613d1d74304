// Out-of-distribution query rows: the rows that each kind makes from a task, and a run whose
// predictions must tell them apart.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "data/dataset.h"
#include "engine/engine_cases.h"
#include "engine/ood_rows.h"
#include "episodes/sources.h"
#include "kshot/ood.h"
#include "support/class_files.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

using test::error_text;
using test::TempFolder;
using test::write_class_file;
using testing::HasSubstr;

/// Three-way tasks of small images.
Config images(const std::filesystem::path& file, const std::vector<std::string>& more = {}) {
  std::vector<std::string> overrides = {"data.path=" + file.string()};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return Config::parse(R"(
algorithm = "protonet"
data = { source = "file", ways = 3, shots = 2, queries = 4 }
network = { type = "sequential", input = [1, 6, 6], layers = [ { type = "flatten" }, { type = "linear", out = 8 } ] }
)",
                       "test", overrides);
}

class OodRows : public testing::Test {
 protected:
  void SetUp() override {
    write_class_file(file_, {.test = 5});
    data_ = data::Dataset::open(file_);
  }
  OodTask draw(const std::string& kind) const {
    return OodTasks(images(file_), data_, kind, Split::test).draw(1, Split::test, 3);
  }
  /// The class of a row of the file. All rows are different.
  std::size_t class_of(std::span<const float> row) const {
    const std::vector<float> all = test::all_rows(*data_);
    for (std::size_t at = 0; at < all.size(); at += 36) {
      if (std::ranges::equal(row, std::span(all).subspan(at, 36))) return at / 36 / 20;
    }
    return 1000;
  }
  TempFolder folder_;
  std::filesystem::path file_ = folder_ / "c.kshot";
  std::shared_ptr<const data::Dataset> data_;
};

TEST_F(OodRows, OpenSetsHaveRowsOfClassesOutsideTheSupportSet) {
  const OodTask t = draw("open_set");
  ASSERT_EQ(t.support_x.size(), 6 * 36u);
  ASSERT_EQ(t.in_x.size(), 12 * 36u);
  ASSERT_EQ(t.out_x.size(), 8 * 36u) << "the five test classes leave two";
  EXPECT_EQ(t.ways, 3);
  std::set<std::size_t> known, other;
  for (std::size_t row = 0; row < 6; ++row) {
    known.insert(class_of(std::span(t.support_x).subspan(row * 36, 36)));
  }
  for (std::size_t row = 0; row < 12; ++row) {
    EXPECT_TRUE(known.contains(class_of(std::span(t.in_x).subspan(row * 36, 36))));
    EXPECT_EQ(t.in_labels[row], static_cast<std::int32_t>(row / 4));
  }
  for (std::size_t row = 0; row < 8; ++row) {
    other.insert(class_of(std::span(t.out_x).subspan(row * 36, 36)));
  }
  EXPECT_EQ(other.size(), 2u);
  for (const std::size_t c : other) {
    EXPECT_LT(c, 1000u);
    EXPECT_FALSE(known.contains(c));
  }
}

TEST_F(OodRows, ATurnByNinetyDegreesMovesPixels) {
  const OodTask t = draw("rotate=90");
  ASSERT_EQ(t.out_x.size(), t.in_x.size());
  for (std::size_t row = 0; row < 12; ++row) {
    const std::span<const float> from = std::span(t.in_x).subspan(row * 36, 36);
    const std::span<const float> to = std::span(t.out_x).subspan(row * 36, 36);
    const auto differs = [&](bool left) {
      float most = 0.0f;
      for (std::size_t y = 0; y < 6; ++y) {
        for (std::size_t x = 0; x < 6; ++x) {
          const float expected = left ? from[x * 6 + (5 - y)] : from[(5 - x) * 6 + y];
          most = std::max(most, std::abs(to[y * 6 + x] - expected));
        }
      }
      return most;
    };
    EXPECT_LT(std::min(differs(true), differs(false)), 1e-5f);
  }
}

TEST_F(OodRows, PermutedNoisyAndShiftedRows) {
  const OodTask permuted = draw("permute");
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < 36; ++i) {
    const auto at =
        std::ranges::find(permuted.in_x.begin(), permuted.in_x.begin() + 36, permuted.out_x[i]);
    order.push_back(static_cast<std::size_t>(at - permuted.in_x.begin()));
  }
  for (std::size_t i = 0; i < permuted.in_x.size(); ++i) {
    EXPECT_EQ(permuted.out_x[i], permuted.in_x[i - i % 36 + order[i % 36]]) << "one for all rows";
  }
  EXPECT_FALSE(std::ranges::is_sorted(order));
  std::ranges::sort(order);
  for (std::size_t i = 0; i < 36; ++i) EXPECT_EQ(order[i], i);

  const OodTask noisy = draw("noise=0.5");
  double squares = 0.0, sum = 0.0, all = 0.0;
  for (std::size_t i = 0; i < noisy.in_x.size(); ++i) {
    const double d = static_cast<double>(noisy.out_x[i]) - static_cast<double>(noisy.in_x[i]);
    squares += d * d / static_cast<double>(noisy.in_x.size());
  }
  std::vector<float> rows = noisy.support_x;
  rows.insert(rows.end(), noisy.in_x.begin(), noisy.in_x.end());
  for (const float v : rows) sum += static_cast<double>(v) / static_cast<double>(rows.size());
  for (const float v : rows) {
    const double d = static_cast<double>(v) - sum;
    all += d * d / static_cast<double>(rows.size());
  }
  // There are 432 numbers, so that the relative standard deviation of their standard deviation is
  // 3.4 %.
  EXPECT_NEAR(std::sqrt(squares / all), 0.5, 0.06);

  const OodTask shifted = draw("shift=3");
  for (std::size_t i = 0; i < 36; ++i) {
    float low = shifted.in_x[i], high = low;
    for (const std::vector<float>* x : {&shifted.support_x, &shifted.in_x}) {
      for (std::size_t at = i; at < x->size(); at += 36) {
        low = std::min(low, (*x)[at]);
        high = std::max(high, (*x)[at]);
      }
    }
    EXPECT_NEAR(shifted.out_x[i] - shifted.in_x[i], 3.0f * (high - low), 1e-4f);
  }
}

TEST_F(OodRows, AnotherFileGivesItsQueryRows) {
  write_class_file(folder_ / "other.kshot", {.train = 3, .validation = 0, .test = 0});
  const auto other = data::Dataset::open(folder_ / "other.kshot");
  const OodTask t = draw((folder_ / "other.kshot").string());
  const std::vector<float> all = test::all_rows(*other);
  for (std::size_t row = 0; row < 12; ++row) {
    const std::span<const float> x = std::span(t.out_x).subspan(row * 36, 36);
    bool found = false;
    for (std::size_t at = 0; at < all.size() && !found; at += 36) {
      found = std::ranges::equal(x, std::span(all).subspan(at, 36));
    }
    EXPECT_TRUE(found) << row;
  }
}

TEST_F(OodRows, KindsThatDoNotFitSaySo) {
  const auto text = [&](const Config& config, std::shared_ptr<const data::Dataset> data,
                        const std::string& kind) {
    return error_text([&] { OodTasks(config, std::move(data), kind, Split::test); });
  };
  EXPECT_THAT(text(images(file_), data_, "blur"), HasSubstr("expected one of open_set, rotate"));
  EXPECT_THAT(text(images(file_), data_, "noise=-1"), HasSubstr("a number above 0"));
  EXPECT_THAT(text(images(file_), data_, "permute=2"), HasSubstr("takes no number"));
  EXPECT_THAT(text(images(file_, {"data.ways=5"}), data_, "open_set"),
              HasSubstr("expected fewer ways"));
  EXPECT_THAT(text(images(file_, {"data.ways=[2,3]"}), data_, "open_set"),
              HasSubstr("data.ways varies"));
  const Config sines = test::small_config("maml");
  EXPECT_THAT(text(sines, nullptr, "open_set"), HasSubstr("a file of classes"));
  EXPECT_THAT(text(sines, nullptr, "rotate"), HasSubstr("not images"));
  EXPECT_THAT(text(sines, nullptr, "permute"), HasSubstr("one input"));
  write_class_file(folder_ / "wide.kshot", {.input = {1, 7, 7, true}});
  EXPECT_THAT(text(images(file_), data_, (folder_ / "wide.kshot").string()),
              HasSubstr("49 inputs"));
}

TEST_F(OodRows, AClassifierTellsNoiseAndUnknownClassesApart) {
  const Config config = images(file_, {"train.steps=20", "train.meta_batch=8",
                                       "train.validate_every=0", "evaluate.episodes=80"});
  Trainer(config, std::shared_ptr<const EpisodeSource>(make_source(config, data_)),
          {.run_folder = folder_ / "run", .device = "cpu", .threads = 1})
      .run();
  const EvaluatorOptions options{.device = "cpu", .threads = 1};
  const OodEvaluation open = evaluate_ood(folder_ / "run", "open_set", options);
  EXPECT_EQ(open.in_rows, 80 * 12u);
  EXPECT_EQ(open.out_rows, 80 * 8u);
  ASSERT_EQ(open.scores.size(), 3u) << "a point method has no mutual information";
  for (const OodScore& s : open.scores) {
    EXPECT_GT(s.auroc.value, 0.8) << s.name;
    EXPECT_LE(s.auroc.low, s.auroc.value);
    EXPECT_GE(s.auroc.high, s.auroc.value);
  }
  EXPECT_FALSE(open.out_shift.has_value());
  const OodEvaluation noise = evaluate_ood(folder_ / "run", "noise=4", options);
  ASSERT_TRUE(noise.in_shift && noise.out_shift);
  EXPECT_GT(noise.in_shift->accuracy.mean, noise.out_shift->accuracy.mean);
  EXPECT_THAT(noise.table(), HasSubstr("distance to prototypes"));
  const std::vector<OodEvaluation> back = ood_from_json(ood_to_json({open, noise}), "test");
  ASSERT_EQ(back.size(), 2u);
  EXPECT_EQ(back[0].table(), open.table());
  EXPECT_EQ(back[1].table(), noise.table());
  EXPECT_EQ(back[1].scores[2].out_counts, noise.scores[2].out_counts);
}

TEST(OodRegression, RowsFarFromThePointsAreToldApart) {
  TempFolder folder;
  const Config config = test::small_config("maml", {"evaluate.episodes=50"});
  Trainer(config, std::shared_ptr<const EpisodeSource>(make_source(config, nullptr)),
          {.run_folder = folder / "run", .device = "cpu", .threads = 1})
      .run();
  const OodEvaluation e = evaluate_ood(folder / "run", "shift", {.device = "cpu", .threads = 1});
  ASSERT_EQ(e.scores.size(), 2u);
  EXPECT_EQ(e.scores[0].name, "predictive variance");
  EXPECT_EQ(e.scores[0].auroc.value, 0.5) << "a point method has the same variance everywhere";
  EXPECT_EQ(e.scores[1].name, "distance to support");
  EXPECT_GT(e.scores[1].auroc.value, 0.8);
  EXPECT_EQ(e.in_rows, 250u);
}

}  // namespace
}  // namespace kshot
