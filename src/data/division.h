// Divides the classes or tasks of an import into train, validation and test.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/import.h"

namespace kshot::data {

/// Returns the split that a word of a table names: "train", "training", "val", "valid",
/// "validation", "dev", "test", "testing", "eval" and similar words, in any case.
std::optional<Split> split_from_name(std::string_view name);

/// Returns the split that a folder above class folders names. It knows the words of
/// split_from_name, these words with "meta", "set", "data", "images" or a number beside them
/// ("meta-train", "testset", "val2017"), and "base", "novel", "images_background",
/// "images_evaluation".
std::optional<Split> split_from_folder(std::string_view name);
/// Returns true for a name that contains a word like "train" or "test" ("my_train_v2").
bool mentions_split(std::string_view name);

/// A line of a split list.
struct ListedName {
  Split split;
  std::string name;
  std::string location;  ///< "FILE, line 3"
};
/// Returns all names of all lists, in order. Throws Error for an empty list. A name that is listed
/// twice is an Error too, unless `options.allow_shared`: then the result has the name once per
/// split.
std::vector<ListedName> read_split_lists(const SplitOptions& options);

/// Describes the lists: "by the lists train=a.txt, test=b.txt".
std::string lists_how(const SplitOptions& options);

/// Returns true for the name of a column or array that seems to divide classes: "partition",
/// "is_test", "fold".
bool names_division(const std::string& name);

/// A row of the table in SplitOptions::table.
struct GroupRow {
  std::string key, name, location;
  std::optional<Split> split;  ///< empty if the table has no column `split`
};
/// Reads SplitOptions::table. Throws Error for a table that seems to divide by a column other than
/// `split`, unless lists or fractions divide.
std::vector<GroupRow> read_group_table(const SplitOptions& options);

/// A class, and the splits that divide_classes gives it.
struct NamedClass {
  std::string name;
  std::string key;  ///< equal for entries that are the same class; mostly the name
  std::size_t examples = 0;
  std::size_t index = 0;       ///< the caller's index: left-out classes disappear from the list
  std::optional<Split> given;  ///< the split that a folder or a table of the data states
  std::vector<Split> splits;   ///< the result; empty if the class is left out
};

/// Describes a division for the user.
struct Division {
  std::string how;  ///< "by the lists train=a.txt, test=b.txt"
  std::vector<std::string> notes;
};

/// Gives every class its splits: by the lists if there are any, else by the fractions, else by
/// `given` (which `given_how` describes). Where nothing is given, the classes are divided at random
/// in shares of 0.64, 0.16 and 0.2. Classes with fewer than `min_examples` examples are left out.
///
/// Throws Error for a class that would be in two splits or twice in one (unless
/// `options.allow_shared`; `advice` is added to the message), for a share that gets no class, and
/// where no class is left. `source` is used in messages.
Division divide_classes(const SplitOptions& options, const std::string& source,
                        std::size_t min_examples, const std::string& given_how,
                        const std::string& advice, std::vector<NamedClass>* classes);

/// Returns the split of each task of `names`, or nothing for a task that is left out. The lists
/// decide if there are any, else the table (by key), else the fractions. `how` is set as in
/// Division.
std::vector<std::optional<Split>> divide_tasks(const SplitOptions& options,
                                               const std::vector<std::string>& names,
                                               std::vector<std::string>* notes, std::string* how);

/// Throws Error unless at least one split is train.
void require_training(const std::vector<std::optional<Split>>& splits, const std::string& what,
                      const std::string& source);

/// Returns "a, b, c and 12 more".
std::string name_some(const std::vector<std::string>& names, std::size_t most = 8);

}  // namespace kshot::data
