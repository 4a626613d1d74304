// The texts that are made from the schema: a complete configuration, the starter file and the
// reference.
#include <fmt/format.h>

#include <algorithm>

#include "config/schema.h"
#include "kshot/error.h"

namespace kshot {
namespace {

using schema::Key;

std::string code(std::string_view text) {
  return fmt::format("`{}`", text);
}

/// Returns the allowed values: `"first"` or `"second"`; an integer of at least 1.
std::string values_text(const Key& key) {
  const auto words = schema::choices(key);
  if (!words.empty()) {
    std::vector<std::string> quoted;
    quoted.reserve(words.size());
    for (const auto& word : words) quoted.push_back(code(schema::quote(word)));
    return schema::alternatives(quoted);
  }
  return schema::expected(key);
}

/// Returns a text for a cell of a Markdown table.
std::string cell(std::string text) {
  for (std::size_t i = 0; (i = text.find('|', i)) != std::string::npos; i += 2) {
    text.insert(i, "\\");
  }
  return text;
}

std::string applies_text(const schema::When& when) {
  if (when.empty()) return "";
  std::vector<std::string> parts;
  for (const auto& condition : when) {
    std::vector<std::string> values;
    for (const auto& value : condition.values) values.push_back(schema::quote(value));
    parts.push_back(code(fmt::format("{} = {}", condition.key, schema::alternatives(values))));
  }
  return schema::alternatives(parts, " and ");
}

/// Returns comment lines of at most 100 columns.
std::string comment(const std::string& text) {
  constexpr std::size_t width = 98;
  std::string result, line;
  const auto flush = [&] {
    if (!line.empty()) result += "# " + line + "\n";
    line.clear();
  };
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t end = std::min(text.find(' ', i), text.size());
    const std::string word = text.substr(i, end - i);
    if (!line.empty() && line.size() + 1 + word.size() > width) flush();
    line += (line.empty() ? "" : " ") + word;
    i = end + 1;
  }
  flush();
  return result;
}

/// Returns the configuration of a starter file, with values by which the algorithm learns
/// sinusoids. All other values are the schema's defaults.
Config starter(const std::string& algorithm) {
  Config config;
  const Key& key = schema::keys().front();
  const auto field = std::get<schema::EnumField>(key.slot(config));
  if (!field.set(field.value, algorithm)) {
    throw Error(fmt::format("algorithm: expected {}, got the string {}", schema::expected(key),
                            schema::quote(algorithm)));
  }
  config.data.shots = 10;
  config.data.queries = 10;
  config.optimizer.clip_norm = 10.0;  // the first meta-gradients through several steps are large
  if (config.algorithm == AlgorithmKind::abml) {
    // alpha w / (n sigma^2) = 0.001 * 0.1 / (10 * exp(-8)) = 0.03: far inside the stable range.
    config.loss.type = LossType::gaussian_nll;
    config.loss.noise_std = 0.3;
    config.inner.steps = 5;
    config.inner.learning_rate = 0.001;
    config.abml.kl_weight_inner = 0.1;
  }
  if (config.algorithm == AlgorithmKind::leo) {
    config.leo.latent = 16;
    config.leo.latent_lr_init = 0.1;
  }
  if (is_closed_form(config.algorithm)) {
    schema::set_defaults(config);
    config.network.layers = {1, 64, 64, 32};  // 32 features
    config.network.activation = "tanh";
    config.optimizer.learning_rate = 2e-3;
    config.optimizer.schedule = ScheduleKind::cosine;
    if (config.algorithm == AlgorithmKind::r2d2) config.loss.type = LossType::mse;
  }
  if (config.algorithm == AlgorithmKind::protonet ||
      config.algorithm == AlgorithmKind::bayes_protonet) {
    // Sinusoids have no classes: grey images of 28 x 28 in the features of four blocks.
    config.network.type = "conv4";
    config.network.classes = 0;
    config.network.head = "flatten";
    config.optimizer.learning_rate = 1e-3;
    config.data.source = DataKind::file;
    config.data.path = "classes.kshot";
  }
  if (config.algorithm == AlgorithmKind::hvi) {
    config.loss.type = LossType::gaussian_nll;
    config.loss.noise_std = 0.3;
    config.inner.steps = 100;  // steps of Adam on a new task's posterior
    config.inner.learning_rate = 0.03;
    config.hvi.bound = Bound::vb;
    config.hvi.log_sigma_init = -3.0;
    config.data.tasks = 1000;
    config.evaluate.samples = 10;
  }
  return config;
}

}  // namespace

std::string Config::to_toml() const {
  std::string text;
  for (const schema::Table& table : schema::tables()) {
    if (!schema::applies(table, *this)) continue;
    if (*table.name != '\0') text += fmt::format("\n[{}]\n", table.name);
    for (const Key& key : schema::keys()) {
      if (std::string_view(key.table) != table.name || !schema::applies(key, *this)) continue;
      text += fmt::format("{} = {}\n", key.name, schema::value_text(key, *this));
    }
  }
  return text;
}

std::string config_template(const std::string& algorithm) {
  const Config config = starter(algorithm);
  std::string text = comment(fmt::format(
      "A starting point for {} on {}. Every key that {} knows is here; a key behind a # "
      "belongs to another choice, which the line above it names.",
      algorithm,
      config.data.source == DataKind::file ? "a file of classes (kshot import)" : "sinusoids",
      algorithm));
  for (const schema::Table& table : schema::tables()) {
    if (!schema::applies(table, config)) continue;
    if (*table.name != '\0') text += fmt::format("\n{}[{}]\n", comment(table.doc), table.name);
    for (const Key& key : schema::keys()) {
      if (std::string_view(key.table) != table.name) continue;
      const bool active = schema::applies(key, config);
      // The file leaves out keys of other algorithms.
      const bool foreign =
          std::any_of(key.when.begin(), key.when.end(), [&](const auto& condition) {
            return std::string_view(condition.key) == "algorithm" &&
                   !schema::holds({condition}, config);
          });
      if (foreign) continue;
      std::string doc = key.doc;
      if (!active) doc += fmt::format(" With {}.", schema::describe(key.when));
      const std::string expected = schema::expected(key);
      // "true or false" and "a string" would only repeat what the value shows.
      if (expected != "true or false" && expected != "a string" && expected != "a number") {
        doc += fmt::format(" Expected: {}.", expected);
      }
      text += fmt::format("\n{}{}{} = {}\n", comment(doc), active ? "" : "# ", key.name,
                          key.required && !active ? "..." : schema::value_text(key, config));
    }
  }
  return text;
}

std::string configuration_reference() {
  const Config defaults;
  std::string text =
      "<!-- Written by `kshot config --reference` from src/config/keys.cpp; edit that. "
      "-->\n"
      "# Configuration\n\n"
      "A run is described by one TOML file. Every key has a default unless it says *required*. "
      "`config.toml` in the run folder has all keys that apply. `kshot config --template maml` "
      "writes "
      "a commented file to start from.\n\n"
      "A key that is unknown, of the wrong type, out of range, or not used with the choice made "
      "(for example `[abml]` with `algorithm = \"maml\"`) is an error that names file, line, key "
      "and "
      "what was expected.\n\n"
      "`--set table.key=value` on the command line changes a key of the file and may be given "
      "several times. Strings need no quotes, and lists need no brackets:\n\n"
      "```sh\n"
      "kshot train run.toml --set inner.steps=3 --set algorithm=meta_sgd\n"
      "kshot train run.toml --set network.layers=1,64,64,1 --set 'inner.adapt=head.*'\n"
      "```\n\n"
      "Where `--set` changes a choice (algorithm, network type, schedule, ...), the keys that the "
      "file has for its own choice are ignored.\n";
  for (const schema::Table& table : schema::tables()) {
    const bool top = *table.name == '\0';
    text += fmt::format("\n## {}\n\n{}", top ? "Top level" : fmt::format("`[{}]`", table.name),
                        table.doc);
    if (!table.when.empty()) text += fmt::format(" With {}.", applies_text(table.when));
    if (!table.unless.empty()) text += fmt::format(" Not with {}.", applies_text(table.unless));
    text +=
        "\n\n| key | value | default | unit | with | meaning |\n"
        "|---|---|---|---|---|---|\n";
    for (const Key& key : schema::keys()) {
      if (std::string_view(key.table) != table.name) continue;
      text += fmt::format("| `{}` | {} | {} | {} | {} | {} |\n", key.name, values_text(key),
                          key.required ? "*required*" : code(schema::value_text(key, defaults)),
                          key.unit, applies_text(key.when), cell(key.doc));
    }
    if (std::string_view(table.name) != "network") continue;
    text +=
        "\n### Layers of a sequential network\n\n"
        "Weights are named by position, `layers.3.weight`. `norm`, `mean`, `flatten`, `relu`, "
        "`tanh` and `leaky_relu` (slope 0.01) have no key but `type`.\n\n"
        "```toml\n"
        "[network]\n"
        "type = \"sequential\"\n"
        "input = [1, 28, 28]\n"
        "layers = [\n"
        "  { type = \"conv\", out = 32, kernel = 3, padding = 1 }, { type = \"norm\" },\n"
        "  { type = \"relu\" }, { type = \"max_pool\", size = 2 },\n"
        "  { type = \"flatten\" }, { type = \"linear\", out = 5 },\n"
        "]\n"
        "```\n\n"
        "| key | layers | value | default | meaning |\n"
        "|---|---|---|---|---|\n";
    for (const schema::LayerKey& key : schema::layer_keys()) {
      std::vector<std::string> layers;
      for (const LayerType type : key.types) layers.push_back(code(layer_name(type)));
      const LayerSpec spec;
      text += fmt::format("| `{}` | {} | {} | {} | {} |\n", key.name, schema::alternatives(layers),
                          schema::expected(key),
                          key.required ? "*required*" : code(fmt::format("{}", spec.*key.field)),
                          key.doc);
    }
  }
  return text;
}

}  // namespace kshot
