// The configuration's schema: a list of all keys, each with its field of Config, its type, range,
// default and documentation. Reading, checking, `--set`, writing, the starter file and
// docs/configuration.md all use this list. A new key is one entry in keys.cpp.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "kshot/config.h"

namespace kshot::schema {

/// A field of an enum type, which is read and written by the names of its values.
struct EnumField {
  void* value;
  const char* (*get)(const void* value);
  bool (*set)(void* value, std::string_view name);  ///< false: no such name
  std::vector<std::string> (*names)();
};

/// Pointer to a key's value in a Config. The alternative of the variant is the key's type.
using Slot =
    std::variant<int*, std::uint64_t*, double*, bool*, std::string*, CountRange*, std::vector<int>*,
                 std::vector<std::string>*, std::vector<LayerSpec>*, EnumField>;

/// Allowed numbers of a key, of every element of a list, or of both ends of a CountRange.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool open_low = false;   ///< low itself is not allowed
  bool open_high = false;  ///< high itself is not allowed
  bool contains(double value) const;
};

/// A condition that holds where `key`, which is earlier in the list, has one of `values`.
struct Condition {
  const char* key;
  std::vector<std::string> values;
};

/// Conditions that must all hold. Empty: always true.
using When = std::vector<Condition>;

/// A key of the configuration.
struct Key {
  const char* table = "";  ///< name of its table; "" at the top of the file
  const char* name = "";
  Slot (*slot)(Config&) = nullptr;
  Range range = {};
  std::vector<std::string> choices = {};  ///< values of a string key; enums have their names
  int min_items = 0;                      ///< least length of a list
  int max_items = std::numeric_limits<int>::max();
  bool required = false;  ///< true: the key has no default where it applies
  When when = {};         ///< conditions in addition to the table's
  const char* unit = "";
  const char* doc = "";

  std::string path() const;  ///< "inner.steps"
};

/// A table of the configuration. It applies where `when` holds and `unless` does not.
struct Table {
  const char* name;
  When when;
  const char* doc;
  When unless = {};  ///< conditions that together exclude the table; empty: nothing excludes it
};

/// A key of one entry of a sequential network's `layers`.
struct LayerKey {
  const char* name;
  int LayerSpec::*field;
  std::vector<LayerType> types;  ///< layers that have the key
  int low, high;
  bool required;
  const char* doc;
};

/// The keys in the order of reading, writing and documenting. Several keys may have one name if
/// their conditions exclude each other (network.layers).
const std::vector<Key>& keys();
const std::vector<Table>& tables();
const std::vector<LayerKey>& layer_keys();
const std::vector<LayerType>& layer_types();

const Table& table(std::string_view name);
/// Returns the value of the enum or string key `path`, for conditions.
std::string selector(const Config& config, std::string_view path);
bool holds(const When& when, const Config& config);
bool applies(const Table& table, const Config& config);
/// True if the table's conditions and the key's own conditions hold.
bool applies(const Key& key, const Config& config);
/// Sets the defaults that depend on config.algorithm.
void set_defaults(Config& config);
std::vector<std::string> choices(const Key& key);

/// Returns a text that completes "expected ...": "an integer of at least 1", "maml, meta_sgd or
/// abml".
std::string expected(const Key& key);
/// Returns the text of `expected` for one element of a list.
std::string expected_item(const Key& key);
/// Returns the condition on a number: " from 0 to 1", " of at least 1", " above 0 and below 1".
std::string range_text(const Range& range);
/// Returns a text such as: network.type = "mlp" or "linear" and loss.type = "mse".
std::string describe(const When& when);
/// Returns "a, b or c".
std::string alternatives(const std::vector<std::string>& words, const char* last = " or ");
/// Returns the key's value as TOML.
std::string value_text(const Key& key, const Config& config);
/// Returns a number as TOML: the shortest text that gives the same number, always in the form of a
/// float.
std::string number_text(double value);
/// Returns a TOML basic string. Messages show strings in this form too, because it has no line
/// breaks.
std::string quote(std::string_view text);
std::string layer_text(const LayerSpec& layer);
/// Returns "an integer from 1 to 1024".
std::string expected(const LayerKey& key);

}  // namespace kshot::schema
