// Text from outside, in the form in which messages show it.
#include "base/text.h"

#include <gtest/gtest.h>

#include <string>

namespace kshot {
namespace {

TEST(Text, KnowsUtf8) {
  for (const char* text :
       {"", "plain", "Zürich", "日本語", "🎲", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(is_utf8(text)) << text;
  }
  for (const char* text : {"\xff", "\xc3", "a\x80", "Z\xfcrich", "\xc0\xaf", "\xe0\x9f\xbf",
                           "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xe6\x97"}) {
    EXPECT_FALSE(is_utf8(text)) << printable(text);
  }
}

TEST(Text, IsPrintedOnOneLine) {
  EXPECT_EQ(printable("robin, Zürich 日本"), "robin, Zürich 日本");
  EXPECT_EQ(printable("a\nb\r\n\tc"), "a\\nb\\r\\n\\tc");
  EXPECT_EQ(printable(std::string_view("\0\x1b[31m\x7f", 7)), "\\x00\\x1b[31m\\x7f");
  EXPECT_EQ(printable("Z\xfcrich \xc3"), "Z\\xfcrich \\xc3");
}

}  // namespace
}  // namespace kshot
