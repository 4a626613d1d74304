// The import of tables: standardization, categories, missing values, splits, and new rows in the
// stored encoding.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "data/files.h"
#include "data/import.h"
#include "data/imports.h"
#include "io/csv.h"
#include "io/npy.h"
#include "support/error_text.h"

namespace kshot::data {
namespace {

using test::error_text;
using test::row;
using test::write_text;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::HasSubstr;

// Tasks b and a are for training, and task c is for testing. In training, the dose has mean 3 and
// standard deviation 2 (1, 1, 5, 5), and the score has mean 20 and standard deviation 10.
constexpr const char* patients =
    "patient,dose,ward,score,part\n"
    "b,1,north,10,train\n"
    "a,1,south,30,train\n"
    "b,5,north,30,train\n"
    "a,5,south,10,train\n"
    "c,7,east,20,test\n"
    "c,3,north,40,test\n"
    "c,1,south,50,test\n";

class TableImports : public test::Imports<TableImport, import_table> {
 protected:
  TableImports() {
    options_.source = (folder_ / "t.csv").string();
    options_.task = "patient";
    options_.targets = {"score"};
    options_.split_column = "part";
    write(patients);
  }
  void write(const std::string& text) { write_text(folder_ / "t.csv", text); }
  using Imports::fault;
  std::string fault(const std::string& text) {
    write(text);
    return fault();
  }
};

TEST_F(TableImports, StandardisedWithTheTrainingTasksAndOneHot) {
  const auto data = import();
  const DatasetHeader& header = data->header();
  EXPECT_EQ(header.kind, GroupKind::tasks);
  EXPECT_EQ(header.target, TargetKind::value);
  EXPECT_EQ(header.outputs, 1);
  // The columns are the dose, ward = north and ward = south.
  EXPECT_EQ(header.input, (FeatureShape{.channels = 3}));
  ASSERT_EQ(header.groups.size(), 3u);
  EXPECT_EQ(header.groups[0].name, "b");
  EXPECT_EQ(header.groups[2].split, Split::test);
  EXPECT_EQ(header.groups[2].rows, 3u);
  EXPECT_THAT(row(*data, 0), ElementsAre(-1, 1, 0));  // The order is task b, then a, then c.
  EXPECT_THAT(row(*data, 1), ElementsAre(1, 1, 0));
  EXPECT_THAT(row(*data, 2), ElementsAre(-1, 0, 1));
  EXPECT_THAT(row(*data, 4), ElementsAre(2, 0, 0));  // No training task has this ward.
  EXPECT_FLOAT_EQ(data->value(0)[0], -1.0f);
  EXPECT_FLOAT_EQ(data->value(6)[0], 3.0f);
  EXPECT_THAT(summary_.notes, ElementsAre(HasSubstr("1 values belong to categories")));
}

TEST_F(TableImports, NewRowsAreEncodedWithTheStoredStatistics) {
  const auto data = import();
  const Preprocessing stored = Preprocessing::from_json(
      Preprocessing::from_json(data->header().preprocessing.to_json(), "x").to_json(), "x");
  // The new table has another column order and an extra column, but no target.
  const io::Table fresh = io::parse_csv("ward,extra,dose\nsouth,9,4\n", "new.csv");
  const EncodedTable encoded = encode_table(stored, fresh, false);
  EXPECT_THAT(encoded.x, ElementsAre(FloatEq(0.5f), 0, 1));
  EXPECT_THAT(error_text([&] { encode_table(stored, fresh, true); }),
              AllOf(HasSubstr("new.csv: no column 'score'"), HasSubstr("ward, extra, dose")));
  EXPECT_THAT(error_text([&] {
                encode_table(stored, io::parse_csv("ward,dose\nsouth,\n", "new.csv"), false);
              }),
              AllOf(HasSubstr("new.csv, line 2"), HasSubstr("'dose' has no value")));
}

TEST_F(TableImports, RawTargetsStay) {
  options_.raw_targets = true;
  EXPECT_EQ(import()->value(0)[0], 10.0f);
}

TEST_F(TableImports, RawInputsStay) {
  options_.raw_inputs = true;
  const auto data = import();
  std::vector<float> row(static_cast<std::size_t>(data->header().input.size()));
  data->read(0, row);
  EXPECT_EQ(row[0], 1.0f) << "the dose of the first row";
  const auto stored = data->header().preprocessing;
  std::size_t numeric = 0;
  for (const auto& column : stored.columns) {
    if (!column.categories.empty()) continue;
    ++numeric;
    EXPECT_EQ(column.mean, 0.0);
    EXPECT_EQ(column.std, 1.0);
  }
  EXPECT_GT(numeric, 0u);
  options_.missing = data::MissingRule::mean;
  EXPECT_THAT(error_text([&] { import(); }),
              AllOf(HasSubstr("--raw-inputs"), HasSubstr("--missing mean")));
}

TEST_F(TableImports, Classification) {
  write("patient,dose,answer,part\na,1,10,train\na,2,9,train\nb,2,9,test\nb,3,100,test\n");
  options_.targets = {"answer"};
  options_.classification = true;
  const auto data = import();
  EXPECT_EQ(data->header().outputs, 3);
  EXPECT_THAT(data->header().preprocessing.labels, ElementsAre("9", "10", "100"));
  EXPECT_EQ(data->label(0), 1);
  EXPECT_EQ(data->label(3), 2);
  EXPECT_THAT(
      error_text([&] {
        encode_table(data->header().preprocessing, io::parse_csv("dose,answer\n1,11\n", "new.csv"),
                     true);
      }),
      AllOf(HasSubstr("new.csv, line 2"), HasSubstr("label '11'"), HasSubstr("9, 10, 100")));
}

TEST_F(TableImports, MissingValuesByRule) {
  const std::string holes =
      "patient,dose,ward,score,part\na,1,n,10,train\na,NA,n,20,train\na,5,,20,train\n"
      "a,3,s,30,train\nb,?,n,15,test\nb,1,n,15,test\n";
  EXPECT_THAT(fault(holes),
              AllOf(HasSubstr("t.csv, line 3"), HasSubstr("'dose'"), HasSubstr("--missing")));
  options_.missing = MissingRule::mean;  // The doses are 1, 5, 3.
  auto data = import();
  EXPECT_EQ(data->header().rows(), 6u);
  EXPECT_EQ(data->header().preprocessing.columns[0].mean, 3.0);
  EXPECT_THAT(row(*data, 1), ElementsAre(0, 1, 0));
  EXPECT_EQ(row(*data, 2)[1] + row(*data, 2)[2], 0.0f);

  options_.missing = MissingRule::drop;  // The doses are 1, 3.
  data = import();
  EXPECT_EQ(data->header().rows(), 3u);
  EXPECT_EQ(data->header().preprocessing.columns[0].mean, 2.0);
  EXPECT_EQ(data->header().groups[1].rows, 1u);
  EXPECT_THAT(summary_.notes, ElementsAre(HasSubstr("3 rows with missing values")));
}

TEST_F(TableImports, AMissingTargetIsNeverInvented) {
  const std::string text = "patient,dose,score,part\na,1,10,train\na,2,,train\n";
  EXPECT_THAT(fault(text), AllOf(HasSubstr("line 3"), HasSubstr("target column 'score'")));
  options_.missing = MissingRule::mean;
  EXPECT_THAT(fault(), HasSubstr("target column 'score'"));
  options_.missing = MissingRule::drop;
  EXPECT_EQ(import()->header().rows(), 1u);
}

TEST_F(TableImports, FaultsNameLineAndColumn) {
  const std::string head = "patient,dose,score,part\na,1,10,train\n";
  EXPECT_THAT(fault(head + "a,two,3,train\n"),
              AllOf(HasSubstr("t.csv, line 3"), HasSubstr("'dose' holds 'two'"),
                    HasSubstr("--categorical dose")));
  EXPECT_THAT(fault(head + "a,inf,3,train\n"),
              AllOf(HasSubstr("line 3"), HasSubstr("expected a finite number")));
  EXPECT_THAT(fault(head + "a,2,high,train\n"),
              AllOf(HasSubstr("line 3"), HasSubstr("'score' holds 'high'"), HasSubstr("number")));
  EXPECT_THAT(fault(head + ",2,3,train\n"), HasSubstr("task column 'patient' has no value"));
  EXPECT_THAT(fault(head + "a,2,3,test\n"),
              AllOf(HasSubstr("line 3"), HasSubstr("task 'a' is in test here and in train")));
  EXPECT_THAT(fault(head + "b,2,3,later\n"), AllOf(HasSubstr("line 3"), HasSubstr("'later'")));
  EXPECT_THAT(fault("patient,dose,score,part\na,1,10,test\n"), HasSubstr("no task for training"));
  EXPECT_THAT(fault("patient,dose,score,part\na,,10,train\n"),
              HasSubstr("column 'dose' has no values"));
  options_.targets = {"scores"};
  EXPECT_THAT(fault(head), AllOf(HasSubstr("no column 'scores' (--target)"),
                                 HasSubstr("patient, dose, score, part")));
  options_.targets = {"score", "score"};
  EXPECT_THAT(fault(), HasSubstr("given twice"));
  options_.targets = {"score"};
  options_.ignore = {"dose"};
  EXPECT_THAT(fault(), HasSubstr("no columns left as features"));
  options_.ignore.clear();
  options_.categorical = {"score"};
  EXPECT_THAT(fault(), HasSubstr("--categorical score"));
  options_.categorical.clear();
  options_.targets.clear();
  EXPECT_THAT(fault(), HasSubstr("no target"));
  options_.source = (folder_ / "none.csv").string();
  EXPECT_THAT(fault(), HasSubstr("none.csv"));
}

TEST_F(TableImports, NumbersCanBeCategories) {
  options_.categorical = {"dose"};
  const auto data = import();
  EXPECT_THAT(data->header().preprocessing.columns[0].categories, ElementsAre("1", "5"));
}

TEST_F(TableImports, SplitsFromAListATableOrShares) {
  options_.split_column.clear();
  options_.ignore = {"part"};
  write_text(folder_ / "train.txt", "a\nc\n");
  options_.splits.lists = {{Split::train, folder_ / "train.txt"}};
  auto data = import();
  EXPECT_EQ(data->header().groups.size(), 2u);  // Task b is left out.
  EXPECT_THAT(summary_.notes, ::testing::Contains(HasSubstr("1 tasks that are in no split (b)")));
  options_.splits.lists.clear();
  write_text(folder_ / "tasks.tsv", "patient\tsplit\na\tval\nb\ttrain\nc\ttest\n");
  options_.splits.table = folder_ / "tasks.tsv";
  data = import();
  EXPECT_EQ(data->header().groups[1].split, Split::validation);
  write_text(folder_ / "tasks.tsv", "patient\tsplit\na\tval\nd\ttrain\n");
  EXPECT_THAT(fault(), AllOf(HasSubstr("tasks.tsv, line 3"), HasSubstr("'d' is not among")));
  options_.splits.table.clear();
  options_.splits.fractions = {0.34, 0.33, 0.33};
  data = import();
  EXPECT_EQ(data->header().split_groups(Split::test).size(), 1u);
}

TEST_F(TableImports, ArraysOfRowsTasksAndTargets) {
  const std::vector<float> x = {0, 1, 2, 1, 4, 1, 6, 3};  // [4, 2]
  const std::vector<std::int32_t> subject = {3, 3, 12, 12};
  const std::vector<double> y = {1, 2, 3, 4, 5, 6, 7, 8};  // [4, 2]
  io::write_npy(folder_ / "x.npy", io::Tensor::from(std::span<const float>(x), {4, 2}));
  io::write_npy(folder_ / "s.npy", io::Tensor::from(std::span<const std::int32_t>(subject), {4}));
  io::write_npy(folder_ / "y.npy", io::Tensor::from(std::span<const double>(y), {4, 2}));
  write_text(folder_ / "columns.tsv", "column\tname\n0\tage\n1\tsex\n");
  write_text(folder_ / "tasks.tsv", "subject\tsplit\n3\ttrain\n12\tval\n");
  TableImport options;
  options.output = options_.output;
  options.source = (folder_ / "x.npy").string();
  options.task = (folder_ / "s.npy").string();
  options.targets = {(folder_ / "y.npy").string()};
  options.columns = folder_ / "columns.tsv";
  options.splits.table = folder_ / "tasks.tsv";
  options_ = options;
  auto data = import();
  EXPECT_EQ(data->header().outputs, 2);
  EXPECT_EQ(data->header().preprocessing.columns[1].name, "sex");
  EXPECT_EQ(data->header().groups[1].name, "12");
  // The first value is (4 - 1) / 1. The second column, sex, is constant in training.
  EXPECT_THAT(row(*data, 2), ElementsAre(3, 0));
  EXPECT_THAT(std::vector<float>(data->value(2).begin(), data->value(2).end()), ElementsAre(3, 3));

  options_.targets = {(folder_ / "y.npy:1").string()};
  data = import();
  EXPECT_EQ(data->header().outputs, 1);
  EXPECT_EQ(data->header().preprocessing.targets[0].mean, 3.0);
  options_.targets = {(folder_ / "y.npy:2").string()};
  EXPECT_THAT(fault(), AllOf(HasSubstr("y.npy:2"), HasSubstr("expected 0 to 1")));
  write_text(folder_ / "columns.tsv", "column\tname\n0\tage\n");
  options_.targets = options.targets;
  EXPECT_THAT(fault(), AllOf(HasSubstr("columns.tsv: 1 names; expected 2")));
  options_.columns.clear();
  io::write_npy(folder_ / "s.npy",
                io::Tensor::from(std::span<const std::int32_t>(subject).first(3), {3}));
  EXPECT_THAT(fault(), AllOf(HasSubstr("s.npy"), HasSubstr("expected [4]")));
}

TEST_F(TableImports, WithoutATaskColumnAllIsOneTrainingTask) {
  write("a,b,y\n1,2,3\n2,1,4\n");
  options_.task.clear();
  options_.split_column.clear();
  options_.targets = {"y"};
  const auto data = import();
  ASSERT_EQ(data->header().groups.size(), 1u);
  EXPECT_EQ(data->header().groups[0].split, Split::train);
  EXPECT_EQ(data->header().groups[0].name, "t");
}

}  // namespace
}  // namespace kshot::data
