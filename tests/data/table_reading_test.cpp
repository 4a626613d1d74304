// How an import reads the columns of a table. It never guesses silently.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "data/column_reading.h"
#include "data/files.h"
#include "data/import.h"
#include "data/imports.h"
#include "io/npy.h"

namespace kshot::data {
namespace {

using test::row;
using test::write_text;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class TableReadings : public test::Imports<TableImport, import_table> {
 protected:
  TableReadings() {
    options_.source = (folder_ / "t.csv").string();
    options_.targets = {"y"};
  }
  /// Writes a table with a column `v` of these cells (quoted) and a target.
  void write_column(const std::vector<std::string>& cells) {
    std::string text = "v,y\n";
    for (std::size_t i = 0; i < cells.size(); ++i) {
      text += "\"" + cells[i] + "\"," + std::to_string(i % 3) + "\n";
    }
    write_text(folder_ / "t.csv", text);
  }
  std::string fault_of(const std::vector<std::string>& cells) {
    write_column(cells);
    return fault();
  }
};

TEST_F(TableReadings, OtherNotationsOfNumbersAreAskedEvenIfFewAreDistinct) {
  for (const char* cell : {"1,5", "1,027", "1.027,5", "1'027", "1 027", "$3", "\xe2\x82\xac 4,5",
                           "1\xc2\xa0"
                           "027",
                           "-1,5", "3,5%", "0x1F", "1,5e-3", "1,5E+10",
                           "\xe2\x88\x92"
                           "15"}) {
    EXPECT_THAT(fault_of({cell, cell, cell, cell, "abc", "abc"}),
                AllOf(HasSubstr("t.csv, line 2"), HasSubstr("column 'v'"), HasSubstr("looks like"),
                      HasSubstr("--decimal ,"), HasSubstr("--thousands"),
                      HasSubstr("--categorical v"), HasSubstr("--ignore v")))
        << cell;
  }
  EXPECT_THAT(fault_of({"1", "2", "2,5", "3"}),
              AllOf(HasSubstr("line 4"), HasSubstr("'2,5'"), HasSubstr("--decimal ,")));
  write_column({"1,5", "2", "2,5", "3"});
  options_.format.decimal = ',';
  EXPECT_EQ(import()->header().preprocessing.columns[0].mean, 2.25);
  EXPECT_THAT(summary_.columns, Contains("v: numeric"));
  options_.format = {};
  options_.categorical = {"v"};
  EXPECT_THAT(import()->header().preprocessing.columns[0].categories,
              ElementsAre("1,5", "2", "2,5", "3"));
}

TEST_F(TableReadings, NumbersWithAUnitAreNoCategories) {
  for (const auto& [first, second] :
       std::vector<std::pair<std::string, std::string>>{{"15kg", "16kg"},
                                                        {"37.5 \xc2\xb0"
                                                         "C",
                                                         "38 \xc2\xb0"
                                                         "C"},
                                                        {"1,5 EUR", "2 EUR"}}) {
    EXPECT_THAT(fault_of({first, second, first, second, first, second}),
                AllOf(HasSubstr("t.csv, line 2"), HasSubstr("column 'v' holds '" + first + "'"),
                      HasSubstr("without a unit"), HasSubstr("--categorical v")))
        << first;
  }
  // These are names that begin with a number.
  write_column({"1st", "2nd", "1st", "2nd", "1st", "2nd"});
  EXPECT_EQ(import()->header().input.channels, 2);
  write_column({"4x4", "2x2", "4x4", "2x2", "4x4", "2x2"});
  EXPECT_EQ(import()->header().input.channels, 2);
}

TEST_F(TableReadings, NoBreakSpacesCountAsSpaces) {
  write_column(
      {"1\xc2\xa0"
       "027",
       "2\xe2\x80\xaf"
       "000",
       "3 001"});
  options_.format.thousands = " ";
  EXPECT_NEAR(import()->header().preprocessing.columns[0].mean, 6028.0 / 3, 1e-9);
}

TEST_F(TableReadings, NamesThatDifferInCaseAloneAreSaid) {
  write_column({"North", "north", "North", "north", "South", "South"});
  EXPECT_EQ(import()->header().input.channels, 3);
  EXPECT_THAT(summary_.notes, Contains(AllOf(HasSubstr("'North' and 'north'"),
                                             HasSubstr("differ only in upper and lower case"))));
  write_column({"North", "South", "North", "South"});
  import();
  EXPECT_THAT(summary_.notes, Not(Contains(HasSubstr("upper and lower case"))));
}

TEST_F(TableReadings, TasksAreNamedAsWritten) {
  for (const auto& [first, second] : std::vector<std::pair<std::string, std::string>>{
           {"01", "1"}, {"1", "1.0"}, {"Anna", "anna"}}) {
    write_text(folder_ / "t.csv", "task,v,y\n" + first + ",1,2\n" + second + ",2,3\n");
    options_.task = "task";
    options_.splits.fractions = {1, 0, 0};
    EXPECT_EQ(import()->header().groups.size(), 2u);
    EXPECT_THAT(summary_.notes,
                Contains(AllOf(HasSubstr("'" + first + "'"), HasSubstr("'" + second + "'"),
                               HasSubstr("are two tasks"))));
  }
}

TEST_F(TableReadings, Percentages) {
  write_column({"12%", "7 %", "1.5%"});
  EXPECT_NEAR(import()->header().preprocessing.columns[0].mean, 20.5 / 3, 1e-12);
  EXPECT_THAT(summary_.columns, Contains(HasSubstr("v: percentages (12% is 12)")));
  EXPECT_THAT(fault_of({"12%", "0.07", "1%"}),
              AllOf(HasSubstr("line 2"), HasSubstr("'12%'"), HasSubstr("percent sign")));
}

TEST_F(TableReadings, DatesAndTimes) {
  for (const char* cell :
       {"2024-05-31", "2024-05-31 10:00:00", "2024-05-31T10:00Z", "31.05.2024", "5/31/2024",
        "05/31/24", "10:30", "10:30:15", "2024/05/31", "2024-05", "5/2024", "31 May 2024",
        "May 31, 2024", "Fri, Oct 3rd 10:30 am", "31-dec-24", "September 1"}) {
    EXPECT_THAT(fault_of({cell, cell, cell, cell}),
                AllOf(HasSubstr("line 2"), HasSubstr("looks like a date or time"),
                      HasSubstr("--date v"), HasSubstr("--ignore v")))
        << cell;
  }
  write_column({"May", "June", "May", "June", "March 1 ward", "March 1 ward"});
  EXPECT_EQ(import()->header().input.channels, 3) << "names, not dates";
  write_column({"20240531", "20240602", "20240601"});
  import();
  EXPECT_THAT(summary_.columns, Contains(HasSubstr("v: numeric, though all look like dates")));
  write_column({"20240531", "20240602", "20241301"});
  import();
  EXPECT_THAT(summary_.columns, Contains("v: numeric"));
  options_.dates = {"v"};
  write_column({"2024-05-31", "2024-06-02", "2024-06-01"});
  EXPECT_EQ(import()->header().preprocessing.columns[0].mean, 19875.0);
  EXPECT_THAT(summary_.columns, Contains(HasSubstr("v: dates, as days")));
  EXPECT_THAT(fault_of({"2024-05-31", "31.05.2024"}),
              AllOf(HasSubstr("line 3"), HasSubstr("expected a date such as 2024-05-31")));
  options_.categorical = {"v"};
  EXPECT_THAT(fault(), HasSubstr("also --categorical"));
}

TEST_F(TableReadings, IdentifiersAreNoCategories) {
  std::vector<std::string> cells;
  for (int i = 0; i < 20; ++i) cells.push_back("row" + std::to_string(i));
  EXPECT_THAT(fault_of(cells), AllOf(HasSubstr("20 distinct values in 20 rows"), HasSubstr("50 %"),
                                     HasSubstr("--ignore v"), HasSubstr("--categorical v")));
  for (int i = 0; i < 10; ++i) cells.push_back("row0");
  EXPECT_THAT(fault_of(cells), HasSubstr("20 distinct values in 30 rows"));
  for (int i = 0; i < 10; ++i) cells.push_back("row1");
  write_column(cells);  // The distinct values are exactly half of the rows.
  EXPECT_EQ(import()->header().input.channels, 20);
  EXPECT_THAT(summary_.columns, Contains(HasSubstr("v: 20 categories: row0, row1")));
  EXPECT_THAT(fault_of({"12345678901234567890", "12345678901234567891"}),
              AllOf(HasSubstr("line 2"), HasSubstr("beyond 2^53"), HasSubstr("--ignore v")));
  write_column({"0", "1", "2", "3", "4"});
  import();
  EXPECT_THAT(summary_.columns, Contains(HasSubstr("counts the rows (--ignore v")));
  write_column({"007", "12", "3"});
  import();
  EXPECT_THAT(summary_.columns, Contains(HasSubstr("'007' has leading zeros")));
}

TEST_F(TableReadings, ARowIndexIsIgnoredAndSaid) {
  write_text(folder_ / "t.csv", ",a,y\n0,5,1\n1,6,2\n2,8,1\n");
  EXPECT_EQ(import()->header().input.channels, 1);
  EXPECT_THAT(summary_.columns,
              ElementsAre(HasSubstr("Unnamed: 0: ignored: a first column without a name"),
                          "a: numeric", HasSubstr("y: a target, numeric")));
  options_.categorical = {"Unnamed: 0"};
  EXPECT_EQ(import()->header().input.channels, 4);
}

TEST_F(TableReadings, MissingMarksDecideWhatIsALabel) {
  write_text(folder_ / "t.csv", "v,y\n1,None\n2,some\n3,None\n4,some\n");
  options_.classification = true;
  EXPECT_THAT(fault(), AllOf(HasSubstr("1 labels, 2 of 4 values missing (marked 'None')"),
                             HasSubstr("--missing-marks")));
  options_.missing = MissingRule::drop;
  write_text(folder_ / "t.csv", "v,y\n1,None\n2,some\n3,None\n4,other\n");
  EXPECT_EQ(import()->header().rows(), 2u);
  EXPECT_THAT(summary_.columns, Contains(HasSubstr("2 of 4 values missing (marked 'None')")));
  options_.missing = MissingRule::error;
  options_.format.missing_marks = {"NA"};
  EXPECT_THAT(import()->header().preprocessing.labels, ElementsAre("None", "other", "some"));
}

TEST_F(TableReadings, SpellingsOfANumberAreOneLabelOrCategory) {
  write_text(folder_ / "t.csv", "v,y\n1,01\n2,1\n01,1.0\n2.0,2\n");
  options_.classification = true;
  options_.categorical = {"v"};
  const auto data = import();
  EXPECT_THAT(data->header().preprocessing.labels, ElementsAre("01", "2"));
  EXPECT_THAT(data->header().preprocessing.columns[0].categories, ElementsAre("1", "2"));
  EXPECT_EQ(data->label(2), 0);
  EXPECT_THAT(row(*data, 3), ElementsAre(0, 1));
  EXPECT_THAT(summary_.notes,
              ElementsAre(HasSubstr("'1' and '01' are the same"), HasSubstr("'01' and '1' are")));
}

TEST_F(TableReadings, NumbersAsLabelsAreAsked) {
  write_text(folder_ / "t.csv", "v,y\n1,1.5\n2,2.5\n3,1.7\n4,9\n5,8\n");
  options_.classification = true;
  EXPECT_THAT(fault(), AllOf(HasSubstr("5 labels in 5 rows"), HasSubstr("--classification")));
  options_.classification = false;
  write_text(folder_ / "t.csv", "v,y\n1,yes\n2,no\n3,yes\n");
  EXPECT_THAT(fault(), AllOf(HasSubstr("line 2"), HasSubstr("'yes'"),
                             HasSubstr("expected a number"), HasSubstr("--classification")));
  write_text(folder_ / "t.csv", "v,y\n1,\"1,5\"\n2,\"2,5\"\n");
  EXPECT_THAT(fault(), AllOf(HasSubstr("'1,5'"), HasSubstr("--decimal ,")));
}

TEST_F(TableReadings, ATableInAnotherNotation) {
  write_text(folder_ / "t.csv", "v;y\n1,5;10\n2,5;20\n");
  EXPECT_THAT(fault(), AllOf(HasSubstr("'1,5'"), HasSubstr("--decimal ,")));
  options_.format.decimal = ',';
  EXPECT_EQ(import()->header().preprocessing.columns[0].mean, 2.0);
  EXPECT_THAT(summary_.notes, Contains(HasSubstr("separated by ';'")));
  const Preprocessing stored =
      Preprocessing::from_json(import()->header().preprocessing.to_json(), "x");
  EXPECT_EQ(stored.format.decimal, ',');
}

TEST_F(TableReadings, ValuesFarFromTheTrainingRowsAreNoInfinities) {
  write_text(folder_ / "t.csv", "p,v,y,s\na,1e-30,1,train\na,2e-30,2,train\nb,1e20,3,test\n");
  options_.task = "p";
  options_.split_column = "s";
  EXPECT_THAT(fault(), AllOf(HasSubstr("line 4"), HasSubstr("column 'v'"), HasSubstr("mean")));
}

TEST_F(TableReadings, RawTargetsThatFloatsCannotHoldAreNoted) {
  write_text(folder_ / "t.csv", "v,y\n1,8589934592\n2,8589934593\n3,8589934600\n");
  options_.raw_targets = true;
  import();
  EXPECT_THAT(summary_.notes, Contains(HasSubstr("target 'y' runs from")));
  options_.raw_targets = false;
  import();
  EXPECT_THAT(summary_.notes, Not(Contains(HasSubstr("target 'y'"))));
}

TEST(ReadingLines, RunsOfManyColumnsAreOneLine) {
  std::vector<std::pair<std::string, std::string>> columns;
  for (int i = 0; i < 100; ++i) columns.emplace_back("x" + std::to_string(i), "numeric");
  columns.emplace_back("y", "a target, numeric");
  EXPECT_THAT(reading_lines(columns),
              ElementsAre("x0 to x99 (100 columns): numeric", "y: a target, numeric"));
}

}  // namespace
}  // namespace kshot::data
