// Decides which columns of a table are numbers, percentages, dates or categories, and describes the
// decision for the messages of an import.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/table.h"

namespace kshot::data {

/// A text column with more distinct values than this share of its values (and more than
/// `few_categories`) is refused: it is nearly always an identifier or a number in another notation.
inline constexpr double largest_distinct_share = 0.5;
inline constexpr std::size_t few_categories = 3;
/// A one-hot column with more categories is refused: it is nearly always an identifier by mistake.
inline constexpr std::size_t most_categories = 1000;

/// Chooses the reading of an input column: number for a column of numbers, percent where every
/// value has the percent sign, category where no value is a number. Throws Error with advice for a
/// column without values, for a mixture, for text that is probably a number or a date in another
/// notation, for whole numbers that double precision cannot hold, and for too many distinct values.
io::Reading choose_reading(const io::Table& table, std::size_t column);
/// Chooses the reading of a numeric target column as choose_reading does, but never category.
io::Reading choose_target_reading(const io::Table& table, std::size_t column);

/// Throws Error where `names`, the distinct labels of a target column, are too few or too many.
void check_labels(const io::Table& table, std::size_t column,
                  const std::vector<std::string>& names);

/// Returns ", 3 of 120 values missing ('NA')", or an empty string where no value is missing.
std::string missing_text(const io::Table& table, std::size_t column);
/// Returns "numeric" with remarks that deserve a second look, such as leading zeros or a count of
/// the rows.
std::string number_text(const io::Table& table, std::size_t column, io::Reading reading);
/// Returns "3 categories: a, b, c".
std::string names_text(const std::vector<std::string>& names, const char* what);

/// Returns two names that differ only in the case of letters, if there are any.
std::optional<std::pair<std::string, std::string>> same_but_for_case(
    const std::vector<std::string>& names);

/// Returns "NAME: TEXT" for each column. Where there are many columns, consecutive columns with
/// equal text share one line.
std::vector<std::string> reading_lines(const std::vector<std::pair<std::string, std::string>>& all);

}  // namespace kshot::data
