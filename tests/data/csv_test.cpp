#include "io/csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <clocale>

#include "support/error_text.h"

namespace kshot::io {
namespace {

using test::error_text;
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
  EXPECT_EQ(table.where(2), "t.csv, line 6");
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

}  // namespace
}  // namespace kshot::io
