// `adapt` without a support file: algorithms with a prior predict from the prior alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "cli/program.h"
#include "data/dataset.h"
#include "data/files.h"
#include "io/npy.h"
#include "kshot/learner.h"
#include "support/class_files.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class AdaptFromThePrior : public testing::Test {
 protected:
  Outcome kshot(const std::vector<std::string>& arguments) const {
    return run(folder_.path(), arguments);
  }
  void train(const std::string& configuration) const {
    write_text(folder_ / "c.toml",
               configuration + "[train]\nsteps = 2\nmeta_batch = 4\nvalidate_every = 0\n");
    const Outcome trained = kshot({"train", "c.toml", "--out", "run", "--quiet"});
    ASSERT_EQ(trained.status, 0) << trained.error;
  }
  std::vector<std::string> predictions() const {
    std::istringstream text(slurp(folder_ / "adapted/predictions.csv"));
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }
  /// Imports fifteen tasks of four rows with the additional arguments `more`.
  void import_patients(const std::vector<std::string>& more) const {
    std::string table = "patient,age,score,answer\n";
    for (int p = 0; p < 15; ++p) {
      for (int r = 0; r < 4; ++r) {
        table += "p" + std::to_string(p) + "," + std::to_string(20 + (7 * p + 11 * r) % 50) + "," +
                 std::to_string(p - 3 * r) + "," + ((p + r) % 3 == 0 ? "no" : "yes") + "\n";
      }
    }
    write_text(folder_ / "patients.csv", table);
    std::vector<std::string> words = {"import", "table",   "patients.csv", "-o",   "p.kshot",
                                      "--task", "patient", "--fractions",  "1,0,0"};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome imported = kshot(words);
    ASSERT_EQ(imported.status, 0) << imported.error;
  }

  TempFolder folder_;
};

TEST_F(AdaptFromThePrior, NumbersAreTheLearnersInTheUnitsOfTheTable) {
  for (const char* algorithm : {"alpaca", "dkt"}) {
    SCOPED_TRACE(algorithm);
    import_patients({"--target", "score", "--ignore", "answer"});
    std::filesystem::remove_all(folder_ / "run");
    train(std::string("algorithm = \"") + algorithm + R"("
network.layers = [1, 4, 3]
data = { source = "file", path = "p.kshot", shots = 2, queries = 2 }
)");
    write_text(folder_ / "q.csv", "age\n30\n55\n");
    const Outcome outcome = kshot({"adapt", "run", "--query", "q.csv"});
    ASSERT_EQ(outcome.status, 0) << outcome.error;
    EXPECT_THAT(outcome.out, StartsWith("predicted from the prior alone, 2 rows predicted"));
    const auto data = data::Dataset::open(folder_ / "p.kshot");
    const data::Preprocessing& preprocessing = data->header().preprocessing;
    const std::vector<float> x = {preprocessing.columns[0].encode(30, ""),
                                  preprocessing.columns[0].encode(55, "")};
    const Prediction expected = Learner(folder_ / "run").predict({}, x);
    const io::NpyArray mean = io::read_npz(folder_ / "adapted/predictions.npz").at("prediction");
    const io::NpyArray std = io::read_npz(folder_ / "adapted/predictions.npz").at("prediction_std");
    const auto& target = preprocessing.targets[0];
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_DOUBLE_EQ(mean.to_f64()[i], expected.mean[i] * target.std + target.mean);
      EXPECT_DOUBLE_EQ(std.to_f64()[i], expected.predictive_std[i] * target.std);
    }
    EXPECT_EQ(predictions().size(), 3u);
  }
}

TEST_F(AdaptFromThePrior, ClassesOfATableHaveTheirNames) {
  import_patients({"--target", "answer", "--classification", "--ignore", "score"});
  train(R"(algorithm = "bayes_protonet"
network.layers = [1, 4, 3]
data = { source = "file", path = "p.kshot", ways = 2, shots = 2, queries = 2 }
loss.type = "cross_entropy"
)");
  write_text(folder_ / "q.csv", "age,answer\n30,no\n55,yes\n41,\n");
  const Outcome outcome = kshot({"adapt", "run", "--query", "q.csv"});
  ASSERT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_THAT(outcome.out, HasSubstr("2 of 3 rows have targets"));
  ASSERT_EQ(predictions().size(), 4u);
  EXPECT_EQ(predictions()[0], "row,prediction,probability,p(no),p(yes),entropy,label");
  // No class has a row, so that all are equally likely.
  EXPECT_THAT(predictions()[2], AllOf(HasSubstr(",0.5,0.5,0.5,"), HasSubstr(",yes")));
}

TEST_F(AdaptFromThePrior, ClassesWithoutNamesAreNumberedAndThatIsSaid) {
  write_class_file(folder_ / "c.kshot", {.input = {6, 1, 1, false}});
  train(R"(algorithm = "bayes_protonet"
network = { type = "linear", layers = [6, 4] }
data = { source = "file", path = "c.kshot", ways = 4, shots = 2, queries = 3 }
)");
  write_text(folder_ / "q.csv", "a,b,c,d,e,f,label\n1,2,3,4,5,6,cat\n");
  Outcome outcome = kshot({"adapt", "run", "--query", "q.csv"});
  ASSERT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_THAT(outcome.error, AllOf(HasSubstr("the 4 classes have no names"),
                                   HasSubstr("columns are taken in their order"),
                                   HasSubstr("labels of the query rows are left out")));
  EXPECT_EQ(predictions()[0], "row,prediction,probability,p(0),p(1),p(2),p(3),entropy");
  EXPECT_THAT(predictions()[1], HasSubstr(",0.25,0.25,0.25,0.25,0.25,"));
  outcome = kshot({"adapt", "run", "--query", "q.csv", "--set", "data.ways=2", "--out", "two"});
  ASSERT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_THAT(slurp(folder_ / "two/predictions.csv"), HasSubstr("p(0),p(1),entropy"));
}

TEST_F(AdaptFromThePrior, OthersNeedSupportRows) {
  write_class_file(folder_ / "c.kshot", {.input = {6, 1, 1, false}});
  write_text(folder_ / "q.csv", "a,b,c,d,e,f\n1,2,3,4,5,6\n");
  for (const std::string algorithm : {"maml", "protonet"}) {
    std::filesystem::remove_all(folder_ / "run");
    train("algorithm = \"" + algorithm + R"("
network = { type = "linear", layers = [6, 3] }
data = { source = "file", path = "c.kshot", ways = 3, shots = 2, queries = 3 }
loss.type = "cross_entropy"
)");
    const Outcome outcome = kshot({"adapt", "run", "--query", "q.csv"});
    EXPECT_EQ(outcome.status, 2);
    EXPECT_THAT(outcome.error, AllOf(StartsWith("kshot: --support: "), HasSubstr("support rows"),
                                     Not(HasSubstr("\n\n"))));
    EXPECT_FALSE(std::filesystem::exists(folder_ / "adapted"));
  }
}

}  // namespace
}  // namespace kshot::test
