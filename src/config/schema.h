// The configuration's schema: every key once, with its place in Config, its type, range, default
// and documentation. Reading, checking, `--set`, writing back, the starter file and
// docs/configuration.md all walk this list; a new key is one entry in keys.cpp.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "kshot/config.h"

namespace kshot::schema {

/// A field of an enum type, seen through the names of its values.
struct EnumField {
  void* value;
  const char* (*get)(const void* value);
  bool (*set)(void* value, std::string_view name);  ///< false: no such name
  std::vector<std::string> (*names)();
};

/// Where a key's value lives in a Config. The alternative is the key's type.
using Slot =
    std::variant<int*, std::uint64_t*, double*, bool*, std::string*, CountRange*, std::vector<int>*,
                 std::vector<std::string>*, std::vector<LayerSpec>*, EnumField>;

/// Allowed numbers; for lists, of every element, and for ranges, of both ends.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool open_low = false;   ///< low itself is not allowed
  bool open_high = false;  ///< high itself is not allowed
  bool contains(double value) const;
};

/// Holds where the key `key` (read earlier in the list) has one of `values`.
struct Condition {
  const char* key;
  std::vector<std::string> values;
};

/// All must hold; none: always.
using When = std::vector<Condition>;

struct Key {
  const char* table = "";  ///< "" at the top of the file
  const char* name = "";
  Slot (*slot)(Config&) = nullptr;
  Range range = {};
  std::vector<std::string> choices = {};  ///< of a string key; an enum's come from its names
  int min_items = 0;                      ///< of a list
  int max_items = std::numeric_limits<int>::max();
  bool required = false;  ///< no default where the key applies
  When when = {};         ///< beside its table's condition
  const char* unit = "";
  const char* doc = "";

  std::string path() const;  ///< "inner.steps"
};

struct Table {
  const char* name;
  When when;
  const char* doc;
  When unless = {};  ///< where all of these hold it does not apply either
};

/// A key of one entry of a sequential network's `layers`.
struct LayerKey {
  const char* name;
  int LayerSpec::*field;
  std::vector<LayerType> types;  ///< layers that take it
  int low, high;
  bool required;
  const char* doc;
};

/// Keys in the order of reading, writing and documenting. One name may stand several times with
/// conditions that exclude each other (network.layers).
const std::vector<Key>& keys();
const std::vector<Table>& tables();
const std::vector<LayerKey>& layer_keys();
const std::vector<LayerType>& layer_types();

const Table& table(std::string_view name);
/// Value of the enum or string key `path`, which conditions ask for.
std::string selector(const Config& config, std::string_view path);
bool holds(const When& when, const Config& config);
bool applies(const Table& table, const Config& config);
/// The table's conditions and the key's own.
bool applies(const Key& key, const Config& config);
/// Defaults that hang on config.algorithm.
void set_defaults(Config& config);
std::vector<std::string> choices(const Key& key);

/// "an integer of at least 1", "maml, meta_sgd or abml": completes "expected ...".
std::string expected(const Key& key);
/// The same for one element of a list.
std::string expected_item(const Key& key);
/// " from 0 to 1", " of at least 1", " above 0 and below 1": what a number must be.
std::string range_text(const Range& range);
/// network.type = "mlp" or "linear" and loss.type = "mse".
std::string describe(const When& when);
/// `a, b or c`.
std::string alternatives(const std::vector<std::string>& words, const char* last = " or ");
/// Key's value as TOML.
std::string value_text(const Key& key, const Config& config);
/// A number as TOML: shortest text that reads back to the same, always recognisable as a float.
std::string number_text(double value);
/// A TOML basic string; also how messages show strings, as it never breaks the line.
std::string quote(std::string_view text);
std::string layer_text(const LayerSpec& layer);
/// "an integer from 1 to 1024".
std::string expected(const LayerKey& key);

}  // namespace kshot::schema
