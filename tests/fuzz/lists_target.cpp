// Reads lists and tables of classes, and divides names by them.
#include "data/division.h"
#include "fuzz/target.h"

KSHOT_FUZZ_TARGET(lists) {
  using namespace kshot;
  const std::uint8_t choice = fuzz::take_byte(&bytes);
  const std::vector<std::string> names = {"robin", "wren", "crow", "0", "1"};
  data::SplitOptions options;
  std::vector<std::string> notes;
  std::string how;
  if (choice % 2 == 0) {
    const auto half = bytes.size() / 2;
    const auto first = fuzz::input("names.txt", bytes.substr(0, half));
    const auto second = fuzz::input("more-names.txt", bytes.substr(half));
    options.lists = {{Split::train, first}, {Split::test, second}};
    fuzz::accepts("names.txt", [&] { data::read_split_lists(options); });
    fuzz::accepts("", [&] { data::divide_tasks(options, names, &notes, &how); });
    return;
  }
  options.table = fuzz::input("classes.csv", bytes);
  fuzz::accepts("classes.csv", [&] { data::read_group_table(options); });
  fuzz::accepts("", [&] { data::divide_tasks(options, names, &notes, &how); });
}
