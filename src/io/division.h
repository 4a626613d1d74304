// How the classes or tasks of an import are divided into train, validation and test.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/import.h"

namespace kshot::io {

/// The split that a word of a table names: "train", "training", "val", "valid", "validation",
/// "dev", "test", "testing", "eval" and others like them, in any case.
std::optional<Split> split_from_name(std::string_view name);

/// The split that a folder above class folders names: as split_from_name, also with "meta", "set",
/// "data", "images" or a number beside the word ("meta-train", "testset", "val2017"), and "base",
/// "novel", "images_background", "images_evaluation".
std::optional<Split> split_from_folder(std::string_view name);
/// True for a name that holds a word like "train" or "test" among others ("my_train_v2").
bool mentions_split(std::string_view name);

/// A line of a split list.
struct ListedName {
  Split split;
  std::string name;
  std::string where;  ///< "FILE, line 3"
};
/// All names of all lists, in order. Throws Error for an empty list, and for a name listed twice
/// unless `options.allow_shared`; then a name is there once per split.
std::vector<ListedName> read_split_lists(const SplitOptions& options);

/// "by the lists train=a.txt, test=b.txt".
std::string lists_how(const SplitOptions& options);

/// True for the name of a column or array that seems to divide classes: "partition", "is_test",
/// "fold".
bool names_division(const std::string& name);

/// A row of SplitOptions::table.
struct GroupRow {
  std::string key, name, where;
  std::optional<Split> split;  ///< none: the table has no column `split`
};
/// Throws Error for a table that seems to divide by another column than `split`, unless lists or
/// fractions divide.
std::vector<GroupRow> read_group_table(const SplitOptions& options);

/// A class on its way to its splits.
struct NamedClass {
  std::string name;
  std::string key;  ///< what classes that are the same have in common; mostly the name
  std::size_t examples = 0;
  std::size_t index = 0;       ///< the caller's: classes that are left out disappear from the list
  std::optional<Split> given;  ///< what the data say, by a folder or a table
  std::vector<Split> splits;   ///< the outcome; empty: left out
};

/// What was done, for the user.
struct Division {
  std::string how;  ///< "by the lists train=a.txt, test=b.txt"
  std::vector<std::string> notes;
};

/// Gives every class its splits: by the lists, by the fractions, else by what is `given` (which
/// `given_how` describes), and where nothing is given at random in shares of 0.64, 0.16 and 0.2.
/// Classes with fewer than `min_examples` examples are left out. Throws Error for a class that
/// would be in two splits or twice in one (unless `options.allow_shared`; `advice` is added to its
/// message), for a share that gets no class, and where nothing is left. `source` is for messages.
Division divide_classes(const SplitOptions& options, const std::string& source,
                        std::size_t min_examples, const std::string& given_how,
                        const std::string& advice, std::vector<NamedClass>* classes);

/// The split of each task of `names`, none for what is left out: by the lists, else the table (by
/// key), else the fractions. `how` is set as in Division.
std::vector<std::optional<Split>> divide_tasks(const SplitOptions& options,
                                               const std::vector<std::string>& names,
                                               std::vector<std::string>* notes, std::string* how);

/// Throws Error unless there is a training task.
void require_training(const std::vector<std::optional<Split>>& splits, const std::string& what,
                      const std::string& source);

/// "a, b, c and 12 more".
std::string name_some(const std::vector<std::string>& names, std::size_t most = 8);

}  // namespace kshot::io
