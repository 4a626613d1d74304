#include "bandit/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <span>
#include <sstream>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include "bandit/tables.h"
#include "config/schema.h"
#include "config/toml_text.h"
#include "config/value_reader.h"
#include "io/table.h"
#include "kshot/error.h"

namespace kshot::bandit {
namespace {

using AgentSettings = Settings::AgentSettings;
using Names = std::vector<std::string>;
using Slot = std::variant<int*, double*, bool*, std::string*, std::vector<int>*,
                          std::vector<double>*, std::vector<std::string>*>;

/// A key of the file (T = Settings) or of an [[agent]] (T = AgentSettings).
template <class T>
struct Key {
  const char* name;
  Slot (*slot)(T&);
  Names of = {};  ///< environments or types of agents that have the key; empty: all
  schema::Range range = {};
  Names choices = {};  ///< allowed values of a string
  const char* doc = "";
};

#define KSHOT_BANDIT_KEY(T, key) .name = #key, .slot = [](T& s) -> Slot { return &s.key; }

constexpr int most = 1 << 20;
const Names environment_names = {"wheel", "mushroom", "shuttle", "adult"};
const Names agent_types = {"uniform", "linear_ts", "epsilon_greedy", "neural_linear", "run"};

const std::vector<Key<Settings>>& file_keys() {
  static const std::vector<Key<Settings>> keys = {
      {KSHOT_BANDIT_KEY(Settings, environment), .choices = environment_names,
       .doc = "What is played."},
      {KSHOT_BANDIT_KEY(Settings, trials), .range = {.low = 1, .high = most},
       .doc = "Trials, played side by side."},
      {KSHOT_BANDIT_KEY(Settings, steps), .range = {.low = 1, .high = 1e9},
       .doc = "Rounds of a trial."},
      {KSHOT_BANDIT_KEY(Settings, last_steps), .range = {.low = 1, .high = 1e9},
       .doc = "Simple regret is the mean over so many rounds at the end."},
      {KSHOT_BANDIT_KEY(Settings, seed), .range = {.low = 0},
       .doc = "Seed of contexts, rewards and agents. Contexts and rewards are the same for every "
              "agent."},
      {KSHOT_BANDIT_KEY(Settings, delta), .of = {"wheel"},
       .range = {.low = 0, .high = 1, .open_low = true, .open_high = true},
       .doc = "Radii of the inner region; each is an environment of its own."},
      {KSHOT_BANDIT_KEY(Settings, noise_std), .of = {"wheel"}, .range = {.low = 0, .high = 1e6},
       .doc = "Standard deviation of the rewards; some codes have 0.05."},
      {KSHOT_BANDIT_KEY(Settings, folder), .of = {"mushroom", "shuttle", "adult"},
       .doc = "Folder of the table's files (mushroom_X.npy, ...)."},
  };
  return keys;
}

const std::vector<Key<AgentSettings>>& agent_keys() {
  using A = AgentSettings;
  static const std::vector<Key<AgentSettings>> keys = {
      {KSHOT_BANDIT_KEY(A, type), .choices = agent_types,
       .doc = "`uniform`: any arm; `linear_ts`: Bayesian linear regression per arm, Thompson "
              "sampling; `epsilon_greedy`: ridge regression per arm; `neural_linear`: Bayesian "
              "linear regression per arm on the last hidden layer of a network that is trained as "
              "the trial goes; `run`: a meta-trained run."},
      {KSHOT_BANDIT_KEY(A, name), .doc = "Name in tables; by default the type, or the run's "
                                         "algorithm. Agents have different names."},
      {KSHOT_BANDIT_KEY(A, initial_pulls),
       .of = {"linear_ts", "epsilon_greedy", "neural_linear", "run"},
       .range = {.low = -1, .high = 1000},
       .doc = "How often every arm is pulled in turn before the agent chooses; -1: 0 for `run`, 2 "
              "for the others."},
      {KSHOT_BANDIT_KEY(A, prior_shape), .of = {"linear_ts", "neural_linear"},
       .range = {.low = 1, .high = 1e9},
       .doc = "a0 of the inverse gamma prior of the noise variance."},
      {KSHOT_BANDIT_KEY(A, prior_rate), .of = {"linear_ts", "neural_linear"},
       .range = {.low = 0, .high = 1e9, .open_low = true}, .doc = "b0 of that prior."},
      {KSHOT_BANDIT_KEY(A, lambda), .of = {"linear_ts", "epsilon_greedy", "neural_linear"},
       .range = {.low = 0, .high = 1e9, .open_low = true},
       .doc = "Precision of the prior over weights, in units of the noise's."},
      {KSHOT_BANDIT_KEY(A, epsilon), .of = {"epsilon_greedy"}, .range = {.low = 0, .high = 1},
       .doc = "Probability of a random arm."},
      {KSHOT_BANDIT_KEY(A, hidden), .of = {"neural_linear"}, .range = {.low = 1, .high = 4096},
       .doc = "Width of every hidden layer."},
      {KSHOT_BANDIT_KEY(A, run), .of = {"run"}, .doc = "Run folder or checkpoint."},
      {KSHOT_BANDIT_KEY(A, greedy), .of = {"run"},
       .doc = "The largest mean prediction instead of Thompson sampling."},
      {KSHOT_BANDIT_KEY(A, rounds), .of = {"run"}, .range = {.low = 1, .high = 1000},
       .doc = "Rounds between two adaptations. The first ones come after 1, 2, 4, ... rounds."},
      {KSHOT_BANDIT_KEY(A, growth), .of = {"run"}, .range = {.low = 0, .high = 1},
       .doc = "Rounds between two adaptations, at least, as a share of the rounds so far."},
      {KSHOT_BANDIT_KEY(A, rows), .of = {"run"}, .range = {.low = 1, .high = most},
       .doc = "Most rows to adapt to; of more, a random subset."},
      {KSHOT_BANDIT_KEY(A, set), .of = {"run"},
       .doc = "Changes to the run's configuration, as `--set` takes them."},
  };
  return keys;
}

/// An agent with the name that the file gives it.
class NamedAgent final : public Agent {
 public:
  NamedAgent(std::string name, std::unique_ptr<Agent> agent)
      : name_(std::move(name)), agent_(std::move(agent)) {}

  std::string name() const override { return name_; }
  void begin(const Problem& problem) override { agent_->begin(problem); }
  int rounds_ahead(std::uint64_t step) const override { return agent_->rounds_ahead(step); }
  int initial_pulls() const override { return agent_->initial_pulls(); }
  void choose(const Rounds& rounds, std::span<int> arms) override { agent_->choose(rounds, arms); }
  void observe(const Rounds& rounds, std::span<const int> arms,
               std::span<const double> rewards) override {
    agent_->observe(rounds, arms, rewards);
  }
  std::uint64_t failures() const override { return agent_->failures(); }
  std::string remark(std::uint64_t failures) const override { return agent_->remark(failures); }

 private:
  std::string name_;
  std::unique_ptr<Agent> agent_;
};

/// Makes the agent that the settings describe, with the default name of its type.
std::unique_ptr<Agent> make_agent(const AgentSettings& a, const std::string& device) {
  const int pulls = a.initial_pulls >= 0 ? a.initial_pulls : a.type == "run" ? 0 : 2;
  if (a.type == "uniform") return make_uniform();
  if (a.type == "linear_ts") {
    return make_linear_thompson({a.prior_shape, a.prior_rate, a.lambda, pulls});
  }
  if (a.type == "epsilon_greedy") return make_epsilon_greedy({a.epsilon, a.lambda, pulls});
  if (a.type == "neural_linear") {
    return make_neural_linear({.hidden = a.hidden,
                               .prior_shape = a.prior_shape,
                               .prior_rate = a.prior_rate,
                               .lambda = a.lambda,
                               .initial_pulls = pulls});
  }
  return make_run_agent({.run = a.run,
                         .name = a.name,  // the agent's remark has this name too
                         .greedy = a.greedy,
                         .rounds = a.rounds,
                         .growth = a.growth,
                         .rows = a.rows,
                         .initial_pulls = pulls,
                         .device = device,
                         .overrides = a.set});
}

bool applies(const Names& of, const std::string& name) {
  return of.empty() || std::ranges::find(of, name) != of.end();
}

template <class T>
std::string expected(const Key<T>& key) {
  T settings;
  return std::visit(
      [&](auto* value) -> std::string {
        using V = std::remove_pointer_t<decltype(value)>;
        if constexpr (std::is_same_v<V, int>) return "an integer" + schema::range_text(key.range);
        if constexpr (std::is_same_v<V, double>) return "a number" + schema::range_text(key.range);
        if constexpr (std::is_same_v<V, bool>) return "true or false";
        if constexpr (std::is_same_v<V, std::string>) {
          return key.choices.empty() ? "a string" : schema::alternatives(key.choices);
        }
        if constexpr (std::is_same_v<V, std::vector<int>>) {
          return "a list, each an integer" + schema::range_text(key.range);
        }
        if constexpr (std::is_same_v<V, std::vector<double>>) {
          return "a list, each a number" + schema::range_text(key.range);
        }
        return "a list of strings";
      },
      key.slot(settings));
}

/// Reads a value of the file. Returns false where the key expects another value.
bool read(const toml::node& node, const schema::Range& range, int& value) {
  const auto* number = node.as_integer();
  if (number == nullptr || number->get() < std::numeric_limits<int>::min() ||
      number->get() > std::numeric_limits<int>::max()) {
    return false;
  }
  value = static_cast<int>(number->get());
  return range.contains(value);
}
bool read(const toml::node& node, const schema::Range& range, double& value) {
  const auto number = node.value<double>();
  if (!node.is_number() || !number || !std::isfinite(*number)) return false;
  value = *number;
  return range.contains(value);
}
bool read(const toml::node& node, const schema::Range&, bool& value) {
  if (!node.is_boolean()) return false;
  value = node.as_boolean()->get();
  return true;
}
bool read(const toml::node& node, const schema::Range&, std::string& value) {
  if (!node.is_string() || node.as_string()->get().find('\0') != std::string::npos) return false;
  value = node.as_string()->get();
  return true;
}
template <class V>
bool read(const toml::node& node, const schema::Range& range, std::vector<V>& value) {
  if (!node.is_array() || node.as_array()->empty()) return false;
  value.clear();
  for (const toml::node& element : *node.as_array()) {
    V item{};
    if (!read(element, range, item)) return false;
    value.push_back(std::move(item));
  }
  return true;
}

/// Reads one file. Errors name the line.
class Reader {
 public:
  explicit Reader(std::string origin) : origin_(std::move(origin)) {}

  /// Throws Error at a node. A value of --set has no line.
  [[noreturn]] void fail(const toml::node& node, const std::string& what) const {
    if (!node.source().begin) throw Error(fmt::format("--set {}", what));
    throw Error(fmt::format("{}:{}: {}", origin_, node.source().begin.line, what));
  }

  /// Reads the keys of a table. `selector` is the value of the key that the other keys depend on,
  /// and `what` names this key. The key `skip` is read elsewhere.
  template <class T>
  void keys(const toml::table& table, const std::vector<Key<T>>& list, const std::string& path,
            const std::string& selector, const char* what, const char* skip, T& settings) const {
    for (const auto& [written, node] : table) {
      const std::string name(written.str());
      if (name == skip) continue;
      const auto key = std::ranges::find_if(list, [&](const Key<T>& k) { return name == k.name; });
      if (key == list.end()) {
        Names names;
        for (const Key<T>& k : list) {
          if (applies(k.of, selector)) names.emplace_back(k.name);
        }
        fail(node, fmt::format("{}{}: unknown key; expected one of {}", path, name,
                               schema::alternatives(names)));
      }
      if (!applies(key->of, selector)) {
        fail(node, fmt::format("{}{}: applies to {} = {} alone; here it is {}", path, name, what,
                               schema::alternatives(key->of), schema::quote(selector)));
      }
      value(node, *key, path, settings);
    }
  }

  template <class T>
  void value(const toml::node& node, const Key<T>& key, const std::string& path,
             T& settings) const {
    const bool good = std::visit(
        [&](auto* slot) {
          if (!read(node, key.range, *slot)) return false;
          if constexpr (std::is_same_v<decltype(slot), std::string*>) {
            return key.choices.empty() || applies(key.choices, *slot);
          }
          return true;
        },
        key.slot(settings));
    if (!good) {
      fail(node, fmt::format("{}{}: expected {}, got {}", path, key.name, expected(key),
                             schema::got(node)));
    }
  }

 private:
  std::string origin_;
};

void override_with(toml::table& table, const std::string& text) {
  const auto equals = text.find('=');
  const std::string key(io::trimmed_view(std::string_view(text).substr(0, equals)));
  const std::string value(equals == std::string::npos
                              ? ""
                              : io::trimmed_view(std::string_view(text).substr(equals + 1)));
  const auto known = std::ranges::any_of(file_keys(), [&](const auto& k) { return key == k.name; });
  if (key.empty() || value.empty() || !known) {
    Names names;
    for (const auto& k : file_keys()) names.emplace_back(k.name);
    throw Error(fmt::format("--set {}: expected KEY=VALUE with one of {}", schema::quote(text),
                            schema::alternatives(names)));
  }
  Settings settings;
  const auto k = std::ranges::find_if(file_keys(), [&](const auto& f) { return key == f.name; });
  const Slot slot = k->slot(settings);
  const bool bare = std::holds_alternative<std::string*>(slot) && value.front() != '"';
  const bool list = std::holds_alternative<std::vector<double>*>(slot) && value.front() != '[';
  const std::string written = bare   ? schema::quote(value)
                              : list ? fmt::format("[{}]", value)
                                     : value;
  const toml::table parsed = read_toml(fmt::format("{} = {}", key, written), "--set");
  if (parsed.size() != 1) throw Error(fmt::format("--set {}: expected one value", key));
  table.insert_or_assign(key, *parsed.get(key));
}

Settings read_settings(const toml::table& table, const std::string& origin) {
  const Reader reader(origin);
  Settings settings;
  if (const toml::node* node = table.get("environment")) {
    reader.value(*node, file_keys().front(), "", settings);
  }
  reader.keys(table, file_keys(), "", settings.environment, "environment", "agent", settings);
  if (settings.environment != "wheel" && settings.folder.empty()) {
    throw Error(
        fmt::format("{}: folder: required with environment = {}: expected the folder of "
                    "its files",
                    origin, schema::quote(settings.environment)));
  }
  const toml::node* const agents = table.get("agent");
  if (agents == nullptr || !agents->is_array_of_tables()) {
    throw Error(fmt::format("{}: agent: expected one [[agent]] or more", origin));
  }
  std::set<std::string> names;
  for (const toml::node& node : *agents->as_array()) {
    const toml::table& entry = *node.as_table();
    AgentSettings agent;
    const toml::node* const type = entry.get("type");
    if (type == nullptr) {
      reader.fail(entry, "agent.type: required: expected " + schema::alternatives(agent_types));
    }
    reader.value(*type, agent_keys().front(), "agent.", agent);
    reader.keys(entry, agent_keys(), "agent.", agent.type, "agent.type", "type", agent);
    if (agent.type == "run" && agent.run.empty()) {
      reader.fail(entry, "agent.run: required with type = \"run\": expected a run folder");
    }
    settings.agents.push_back(std::move(agent));
  }
  return settings;
}

}  // namespace

Settings Settings::parse(const std::string& text, const std::string& origin,
                         const std::vector<std::string>& overrides) {
  toml::table table = read_toml(text, origin);
  for (const std::string& assignment : overrides) override_with(table, assignment);
  Settings settings = read_settings(table, origin);
  std::ostringstream written;
  written << table;
  settings.text = written.str();
  return settings;
}

Settings Settings::load(const std::filesystem::path& file,
                        const std::vector<std::string>& overrides) {
  return parse(read_toml_file(file), file.string(), overrides);
}

std::vector<std::unique_ptr<Environment>> Settings::environments() const {
  std::vector<std::unique_ptr<Environment>> result;
  if (environment == "wheel") {
    for (const double d : delta) result.push_back(make_wheel({d, noise_std}));
  } else {
    result.push_back(make_table(read_table(environment, folder)));
  }
  return result;
}

std::unique_ptr<Agent> Settings::agent(const AgentSettings& a, const std::string& device) const {
  std::unique_ptr<Agent> agent = make_agent(a, device);
  if (a.name.empty()) return agent;
  return std::make_unique<NamedAgent>(a.name, std::move(agent));
}

std::string settings_reference() {
  std::string text = "| key | value | applies to | meaning |\n|---|---|---|---|\n";
  const auto add = [&](const auto& list, const char* path) {
    for (const auto& key : list) {
      text += fmt::format("| `{}{}` | {} | {} | {} |\n", path, key.name, expected(key),
                          key.of.empty() ? "all" : schema::alternatives(key.of, " and "), key.doc);
    }
  };
  add(file_keys(), "");
  add(agent_keys(), "agent.");
  return text;
}

}  // namespace kshot::bandit
