// Which columns of a table are numbers, percentages, dates or categories, and what an import says
// about it.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/table.h"

namespace kshot::io {

/// A text column with more distinct values than this share of its values (and more than
/// `few_categories`) is refused: it is nearly always an identifier or a number in another notation.
inline constexpr double largest_distinct_share = 0.5;
inline constexpr std::size_t few_categories = 3;
/// One-hot columns of more categories are nearly always an identifier by mistake.
inline constexpr std::size_t most_categories = 1000;

/// Number for a column of numbers, percent where every value has the sign, category where no value
/// is a number. Throws Error with advice for a column without values, for a mixture, for text that
/// is probably a number or a date in another notation, for whole numbers that double precision
/// cannot hold, and for too many distinct values.
Reading choose_reading(const Table& table, std::size_t column);
/// The same for a numeric target: never a category.
Reading choose_target_reading(const Table& table, std::size_t column);

/// Throws Error where `names`, the distinct labels of a target column, are too few or too many.
void check_labels(const Table& table, std::size_t column, const std::vector<std::string>& names);

/// ", 3 of 120 values missing ('NA')", or nothing.
std::string missing_text(const Table& table, std::size_t column);
/// "numeric", with whatever deserves a second look: leading zeros, a count of the rows.
std::string number_text(const Table& table, std::size_t column, Reading reading);
/// "3 categories: a, b, c".
std::string names_text(const std::vector<std::string>& names, const char* what);

/// Two of the names that differ in the case of letters alone, if there are such.
std::optional<std::pair<std::string, std::string>> same_but_for_case(
    const std::vector<std::string>& names);

/// "NAME: TEXT" for each column, runs of columns with the same text in one line where there are
/// many columns.
std::vector<std::string> reading_lines(const std::vector<std::pair<std::string, std::string>>& all);

}  // namespace kshot::io
