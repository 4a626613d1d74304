// Reading CSV text: quotes, delimiters, encodings, numbers, dates, missing values, and the messages
// for faults.
#include "io/csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <clocale>

#include "support/error_text.h"

namespace kshot::io {
namespace {

using test::error_text;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Csv, QuotesLineBreaksBlanksAndByteOrderMark) {
  const Table table = parse_csv(
      "\xef\xbb\xbf"
      "name, score ,note\r\n\"Smith, J.\",1.5,\"said \"\"no\"\"\"\r\n\r\nB,,\"two\nlines\"\nC,3,x",
      "t.csv");
  ASSERT_EQ(table.columns.size(), 3u);
  EXPECT_EQ(table.columns[1].name, "score");
  EXPECT_EQ(table.rows, 3u);
  EXPECT_THAT(table.columns[0].text, ElementsAre("Smith, J.", "B", "C"));
  EXPECT_THAT(table.columns[2].text, ElementsAre("said \"no\"", "two\nlines", "x"));
  EXPECT_TRUE(table.missing(1, 1));
  EXPECT_THAT(table.lines, ElementsAre(2u, 4u, 6u));
  EXPECT_EQ(table.location(2), "t.csv, line 6");
}

TEST(Csv, FaultsNameFileAndLine) {
  const auto fault = [](const char* text) { return error_text([&] { parse_csv(text, "t.csv"); }); };
  EXPECT_THAT(fault("a,b\n1,2\n3\n"), HasSubstr("t.csv, line 3: 1 fields; expected 2"));
  EXPECT_THAT(fault("a,b\n1,2,3\n"), HasSubstr("t.csv, line 2: 3 fields"));
  EXPECT_THAT(fault("a,a\n1,2\n"), HasSubstr("two columns are named 'a'"));
  EXPECT_THAT(fault("a,\n1,2\n"), HasSubstr("column 2 has no name"));
  EXPECT_THAT(fault("a,b\n1,\"2\n"), HasSubstr("line 2: a quote is opened and not closed"));
  EXPECT_THAT(fault("a,b\n1,\"2\"x\n"), HasSubstr("line 2: text after a closing quote"));
  EXPECT_THAT(fault(""), HasSubstr("empty"));
  EXPECT_THAT(fault("a,b\n"), HasSubstr("no rows"));
  EXPECT_THAT(error_text([] { parse_csv(std::string_view("a\n\0\n", 4), "t.csv"); }),
              HasSubstr("binary"));
}

TEST(Csv, ExcelsLineForTheSeparatorIsNamed) {
  for (const char* text : {"sep=;\na;b\n1;2\n", "sep=,\na,b\n1,2\n", "sep=\t\na\tb\n1\t2\n"}) {
    EXPECT_THAT(error_text([&] { parse_csv(text, "t.csv"); }),
                AllOf(HasSubstr("t.csv, line 1: 'sep="), HasSubstr("remove the line")))
        << text;
  }
}

TEST(Csv, NumbersDoNotHangOnTheLocale) {
  EXPECT_EQ(parse_number(" 1.5e3 "), 1500.0);
  EXPECT_EQ(parse_number("+2"), 2.0);
  EXPECT_EQ(parse_number("1,5"), std::nullopt);
  EXPECT_EQ(parse_number("+-2"), std::nullopt);
  EXPECT_EQ(parse_number("2 kg"), std::nullopt);
  EXPECT_EQ(parse_number(""), std::nullopt);
  for (const char* text : {"", " ", "NA", "n/a", "NaN", "null", "None", "?"}) {
    EXPECT_TRUE(is_missing(text)) << text;
  }
  EXPECT_FALSE(is_missing("0"));
  EXPECT_FALSE(is_missing("nano"));
}

TEST(Csv, TheDelimiterIsTheOneThatFits) {
  for (const char* delimiter : {",", ";", "\t", "|"}) {
    const std::string d = delimiter;
    const Table table = parse_csv("a" + d + "b\n1.5" + d + "x\n2" + d + "y\n", "t.csv");
    EXPECT_EQ(table.columns.size(), 2u) << d;
    EXPECT_EQ(table.notes.size(), d == "," ? 0u : 1u) << d;
  }
  EXPECT_EQ(parse_csv("a;b\n1,5;2,5\n", "t.csv").columns[1].text[0], "2,5");
  EXPECT_EQ(parse_csv("a;b\n\"x,y\";2\n", "t.csv").columns[0].text[0], "x,y");
  EXPECT_EQ(parse_csv("text\none, two\n", "t.csv", '\t').columns.size(), 1u);
  EXPECT_THAT(parse_csv("a;b\n1;2\n", "t.csv").notes,
              ElementsAre(HasSubstr("t.csv: fields are separated by ';'")));
  EXPECT_EQ(parse_csv("a;b\n1;2\n", "t.csv", ';').notes.size(), 0u);
  const auto fault = [](const char* text) { return error_text([&] { parse_csv(text, "t.csv"); }); };
  EXPECT_THAT(fault("a,b;c\n1,5;2\n"), HasSubstr("by ',' or by ';'; expected --delimiter"));
  for (const char* bad : {"", ";;", "\"", "\n", "\xe2\x82\xac"}) {
    EXPECT_THAT(error_text([&] { parse_delimiter(bad); }), HasSubstr("--delimiter"));
  }
}

TEST(Csv, ARowIndexBlankLinesAndLineEnds) {
  const Table table = parse_csv(",a\n0,1\n1,2\n", "t.csv");
  EXPECT_EQ(table.row_index, 0u);
  EXPECT_EQ(table.columns[0].name, "Unnamed: 0");
  EXPECT_EQ(parse_csv("\"\",a\nr1,1\n", "t.csv").row_index, 0u) << "as R writes it";
  EXPECT_EQ(parse_csv("Unnamed: 0,a\n0,1\n", "t.csv").row_index, 0u);
  EXPECT_EQ(parse_csv("a,b\r1,2\r3,4\r", "t.csv").rows, 2u);
  EXPECT_EQ(parse_csv("a,b\n1,2\n   \n\n3,4\n \n", "t.csv").rows, 2u);
  const Table one = parse_csv("a\n1\n\n3\n\n", "t.csv");
  EXPECT_THAT(one.columns[0].text, ElementsAre("1", "", "3"));
  EXPECT_THAT(one.lines, ElementsAre(2u, 3u, 4u));
}

TEST(Csv, OtherEncodingsAreRefused) {
  const auto fault = [](std::string_view text) {
    return error_text([&] { parse_csv(text, "t.csv"); });
  };
  for (const char* bad : {"caf\xe9", "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe2\x82"}) {
    EXPECT_THAT(fault(std::string("a,b\n1,2\nx,") + bad + "\n"),
                testing::AllOf(HasSubstr("t.csv, line 3"), HasSubstr("UTF-8")));
    EXPECT_THAT(fault(std::string("a,") + bad + "\n1,2\n"), HasSubstr("t.csv, line 1"));
  }
  EXPECT_THAT(fault("\xff\xfe"
                    "a"),
              HasSubstr("UTF-16"));
  EXPECT_EQ(parse_csv("a,caf\xc3\xa9\n1,\xf0\x9f\x98\x80\n", "t.csv").rows, 1u);
}

TEST(Csv, NumbersInTheNotationThatIsAskedFor) {
  TextFormat german;
  german.decimal = ',';
  german.thousands = ".";
  EXPECT_EQ(parse_number("1.027,5", german), 1027.5);
  EXPECT_EQ(parse_number("-12.345.678", german), -12345678.0);
  EXPECT_EQ(parse_number("1,5", german), 1.5);
  for (const char* bad : {"1.5", "1.02", "1234.567", "1.0275", ".500", "1.027.5", "1,5,5"}) {
    EXPECT_EQ(parse_number(bad, german), std::nullopt) << bad;
  }
  TextFormat comma;
  comma.decimal = ',';
  EXPECT_EQ(parse_number("1.5", comma), std::nullopt);
  EXPECT_EQ(parse_number("1,5e3", comma), 1500.0);
  TextFormat english;
  english.thousands = ",";
  EXPECT_EQ(parse_number("1,027", english), 1027.0);
  EXPECT_EQ(parse_number("1,027.25", english), 1027.25);
  EXPECT_EQ(parse_number("1,5", english), std::nullopt);
  TextFormat french;
  french.decimal = ',';
  french.thousands = parse_thousands_mark("\xe2\x80\xaf");
  EXPECT_EQ(parse_number("12\xe2\x80\xaf"
                         "345,5",
                         french),
            12345.5);
  EXPECT_EQ(parse_cell("12 %", Reading::percent, {}), 12.0);
  EXPECT_EQ(parse_cell("12", Reading::percent, {}), std::nullopt);
  EXPECT_EQ(parse_number("nan"), std::nullopt);
}

TEST(Csv, DatesAreDays) {
  EXPECT_EQ(parse_date("1970-01-02"), 1.0);
  EXPECT_EQ(parse_date("2024-02-29T12:00"), 19782.5);
  EXPECT_EQ(parse_date("2000-01-01 06:00:00.000Z"), 10957.25);
  EXPECT_EQ(parse_date("2000-01-01T00:00:00+06:00"), 10956.75);
  EXPECT_EQ(parse_date("2000-01-01T00:00:00-0600"), 10957.25);
  for (const char* bad : {"2023-02-29", "2024-13-01", "31.05.2024", "2024-5-1", "2024-05-01T25:00",
                          "2024-05-01Tx", "2024-05-01T10:00+99", "", "2024"}) {
    EXPECT_EQ(parse_date(bad), std::nullopt) << bad;
  }
}

TEST(Csv, MissingMarksAreThoseThatAreGiven) {
  TextFormat format;
  format.missing_marks = parse_missing_marks("-, n.d.");
  EXPECT_TRUE(is_missing(" - ", format));
  EXPECT_TRUE(is_missing("n.d.", format));
  EXPECT_TRUE(is_missing("  ", format));
  EXPECT_FALSE(is_missing("None", format));
  format.missing_marks = parse_missing_marks("");
  EXPECT_FALSE(is_missing("nan", format));
}

}  // namespace
}  // namespace kshot::io
