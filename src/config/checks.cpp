#include "config/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "kshot/error.h"

namespace kshot::schema {
namespace {

void check_key(const Key& key, Config& config, const Locate& locate) {
  const std::string path = key.path();
  const auto mismatch = [&](const std::string& value) {
    fail(locate(path), path, fmt::format("expected {}, got {}", expected(key), value));
  };
  const auto number = [&](double value) {
    if (!key.range.contains(value)) mismatch(value_text(key, config));
  };
  const auto items = [&](std::size_t count) {
    if (count < static_cast<std::size_t>(key.min_items) ||
        count > static_cast<std::size_t>(key.max_items)) {
      mismatch(value_text(key, config));
    }
  };
  std::visit(
      [&](auto slot) {
        using T = decltype(slot);
        if constexpr (std::is_same_v<T, int*> || std::is_same_v<T, double*> ||
                      std::is_same_v<T, std::uint64_t*>) {
          number(static_cast<double>(*slot));
          // TOML integers are signed: a larger number could not be written to a file.
          if constexpr (std::is_same_v<T, std::uint64_t*>) {
            if (*slot > std::numeric_limits<std::int64_t>::max()) {
              mismatch(value_text(key, config));
            }
          }
        } else if constexpr (std::is_same_v<T, CountRange*>) {
          // A Config filled in code may have the ends in the wrong order.
          if (slot->least > slot->most) mismatch(value_text(key, config));
          number(slot->least);
          number(slot->most);
        } else if constexpr (std::is_same_v<T, std::string*>) {
          const auto& words = key.choices;
          if (!words.empty() && std::find(words.begin(), words.end(), *slot) == words.end()) {
            mismatch("the string " + quote(*slot));
          }
          if (key.required && slot->empty()) mismatch("an empty string");
        } else if constexpr (std::is_same_v<T, std::vector<int>*>) {
          items(slot->size());
          for (std::size_t i = 0; i < slot->size(); ++i) {
            if (key.range.contains((*slot)[i])) continue;
            fail(locate(path), fmt::format("{}[{}]", path, i),
                 fmt::format("expected {}, got {}", expected_item(key), (*slot)[i]));
          }
        } else if constexpr (std::is_same_v<T, std::vector<std::string>*> ||
                             std::is_same_v<T, std::vector<LayerSpec>*>) {
          items(slot->size());
        }
      },
      key.slot(config));
}

void check_network(const Config& config, const Locate& locate) {
  const auto& table = config.network;
  const auto too_large = [](const std::vector<int>& sizes) {
    double product = 1.0;
    for (const int size : sizes) product *= size;
    return product > std::numeric_limits<int>::max();
  };
  if (table.type == "conv4") {
    constexpr int least = 16;
    if (table.downsample == "pool" && (table.image[0] < least || table.image[1] < least)) {
      fail(locate("network.image"), "network.image",
           fmt::format("expected a height and width of at least {0} with network.downsample = "
                       "\"pool\" (each of four blocks halves the image), got [{1}, {2}]",
                       least, table.image[0], table.image[1]));
    }
    if (too_large({std::max(table.in_channels, table.filters), table.image[0], table.image[1]})) {
      fail(locate("network.image"), "network.image",
           "too large: expected channels x height x width below 2^31");
    }
  } else if (table.type == "sequential") {
    if (table.input.size() == 2) {
      fail(locate("network.input"), "network.input",
           fmt::format("expected [channels, height, width] or [features], got [{}, {}]",
                       table.input[0], table.input[1]));
    }
    if (too_large(table.input)) {
      fail(locate("network.input"), "network.input", "too large: expected less than 2^31 numbers");
    }
  }

  std::optional<Network> network;
  try {
    network = config.make_network();
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", locate("network.layers"), error.what()));
  }
  if (network->size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    fail(locate("network.type"), "network",
         fmt::format("{} weights, expected at most {}", network->size(),
                     std::numeric_limits<int>::max()));
  }
  const bool head = is_closed_form(config.algorithm);
  if (table.type == "conv4" && table.classes == 0 && !head) {
    fail(locate("network.classes"), "network.classes",
         fmt::format("0 (no linear layer) is for algorithms with a closed-form head; expected at "
                     "least 1 with algorithm = {}",
                     quote(selector(config, "algorithm"))));
  }
  try {
    if (config.algorithm != AlgorithmKind::leo && !head) network->match(config.inner.adapt);
  } catch (const Error& error) {
    fail(locate("inner.adapt"), "inner.adapt", error.what());
  }
  if (config.loss.type == LossType::cross_entropy && !head && network->outputs() < 2) {
    fail(locate("loss.type"), "loss.type",
         "cross_entropy expects a network with at least 2 outputs (classes), got 1");
  }
}

void check_hvi(const Config& config, const Locate& locate) {
  if (config.inner.adapt != std::vector<std::string>{"*"}) {
    fail(locate("inner.adapt"), "inner.adapt",
         "a posterior of hvi is over all weights; expected [\"*\"]");
  }
  const Bound bound = config.hvi.bound;
  const bool divides = bound == Bound::mcallester || bound == Bound::seeger;
  if (divides && config.hvi.tasks == 1) {
    fail(locate("hvi.tasks"), "hvi.tasks",
         "expected at least 2 with hvi.bound = \"mcallester\" or \"seeger\", got 1");
  }
  if (bound == Bound::mcallester && config.hvi.task_size == 1) {
    fail(locate("hvi.task_size"), "hvi.task_size",
         "expected at least 2 with hvi.bound = \"mcallester\", got 1");
  }
  if (bound == Bound::seeger && config.loss.type == LossType::gaussian_nll &&
      config.loss.noise == NoiseKind::learned) {
    fail(
        locate("loss.noise"), "loss.noise",
        "hvi.bound = \"seeger\" takes the root of the loss, which learned noise can make negative; "
        "expected \"fixed\", or another hvi.bound");
  }
  // sqrt(2 e er) needs er >= 0. The density of a Gaussian with this standard deviation reaches 1,
  // so that a narrower one can make the loss negative.
  constexpr double narrowest = 0.39894228040143268;
  if (bound == Bound::seeger && config.loss.type == LossType::gaussian_nll &&
      config.loss.noise_std < narrowest) {
    fail(locate("loss.noise_std"), "loss.noise_std",
         fmt::format("hvi.bound = \"seeger\" takes the root of the loss, which gaussian_nll makes "
                     "negative below {:.3g}, got {}",
                     narrowest, config.loss.noise_std));
  }
}

/// Checks what the outer loss of the predictive distribution needs.
void check_abml(const Config& config, const Locate& locate) {
  if (config.abml.outer_loss != AbmlOuter::predictive) return;
  const auto need = [&](bool holds, const char* key, const char* expected) {
    if (holds) return;
    fail(locate(key), key, fmt::format("abml.outer_loss = \"predictive\" needs {}", expected));
  };
  need(config.loss.type == LossType::gaussian_nll, "loss.type", "\"gaussian_nll\"");
  need(config.loss.noise == NoiseKind::fixed, "loss.noise", "\"fixed\"");
  need(config.abml.estimator == Estimator::weight, "abml.estimator", "\"weight\"");
  need(config.abml.samples_outer > 1, "abml.samples_outer", "at least 2 samples");
}

/// Checks that the closed-form head has the loss.
void check_head(const Config& config, const Locate& locate) {
  std::vector<LossType> losses = {LossType::cross_entropy};
  std::string expected = "\"cross_entropy\"";
  if (config.algorithm == AlgorithmKind::r2d2) {
    losses.push_back(LossType::mse);
    expected += " or \"mse\"";
  }
  if (config.algorithm == AlgorithmKind::alpaca || config.algorithm == AlgorithmKind::dkt) {
    losses = {LossType::gaussian_nll};
    expected = "\"gaussian_nll\"";
  }
  if (std::ranges::find(losses, config.loss.type) == losses.end()) {
    fail(locate("loss.type"), "loss.type",
         fmt::format("expected {} with algorithm = {}, got {}", expected,
                     quote(selector(config, "algorithm")), quote(selector(config, "loss.type"))));
  }
}

/// Checks the numbers of rows and classes of the episodes.
void check_counts(const Config& config, const Locate& locate) {
  const Config::DataTable& data = config.data;
  if (data.episodes == Episodes::minibatch) {
    if (data.queries.fixed()) return;
    fail(locate("data.queries"), "data.queries",
         "expected one number with data.episodes = \"minibatch\", got a range");
  }
  const std::string algorithm = quote(selector(config, "algorithm"));
  // ABML's posterior stays at its prior where a task has no support rows.
  const bool prior_predictive =
      has_prior(config.algorithm) || (config.algorithm == AlgorithmKind::abml &&
                                      (!data.shots.fixed() || config.evaluate.steps == 0));
  if (data.shots.least == 0 && !prior_predictive) {
    fail(locate("data.shots"), "data.shots",
         fmt::format("expected at least 1 with algorithm = {} ({}), got {}", algorithm,
                     config.algorithm == AlgorithmKind::abml
                         ? "or a range from 0, or 0 with evaluate.steps = 0"
                         : "0 is for bayes_protonet, alpaca and dkt",
                     data.shots.fixed() ? "0" : "a range from 0"));
  }
  const bool of_latents = config.algorithm == AlgorithmKind::leo &&
                          config.loss.type == LossType::cross_entropy &&
                          config.leo.latents == Latents::per_example;
  if (!data.shots.fixed() && of_latents) {
    fail(locate("data.shots"), "data.shots",
         "expected one number with leo.latents = \"per_example\", which gives a class as many "
         "latents as it has support examples (leo.latents = \"one\" takes a range), got a range");
  }
  if (config.data.source != DataKind::file || config.loss.type != LossType::cross_entropy) return;
  if (data.ways != CountRange(0) && data.ways.least < 2) {
    fail(locate("data.ways"), "data.ways",
         fmt::format("expected at least 2 classes, or 0, got {}", data.ways.least));
  }
  if (!data.ways.fixed() && !is_closed_form(config.algorithm)) {
    fail(locate("data.ways"), "data.ways",
         fmt::format("expected one number with algorithm = {}, whose network has as many outputs "
                     "as an episode has classes, got a range (closed-form heads take one)",
                     algorithm));
  }
  if (data.permute == Permute::none) return;
  for (const auto& [path, range] :
       {std::pair("data.ways", data.ways), std::pair("data.shots", data.shots),
        std::pair("data.queries", data.queries)}) {
    if (range.fixed()) continue;
    fail(locate(path), path, "expected one number with data.permute, got a range");
  }
}

}  // namespace

void check_config(Config config, const Locate& locate) {
  for (const Key& key : keys()) {
    if (applies(key, config)) check_key(key, config, locate);
  }
  check_network(config, locate);

  if (config.algorithm == AlgorithmKind::leo && config.make_network().input().spatial) {
    fail(locate("network.type"), "network.type",
         "leo generates networks that act on vectors, got one that acts on images");
  }

  const auto ordered = [&](const char* low_path, double low, const char* high_path, double high) {
    if (low <= high) return;
    fail(locate(low_path), low_path,
         fmt::format("expected at most {} = {}, got {}", high_path, high, low));
  };
  if (config.data.source != DataKind::file) {
    ordered("data.amplitude_low", config.data.amplitude_low, "data.amplitude_high",
            config.data.amplitude_high);
    ordered("data.x_low", config.data.x_low, "data.x_high", config.data.x_high);
  }
  if (config.algorithm == AlgorithmKind::hvi) check_hvi(config, locate);
  if (config.algorithm == AlgorithmKind::abml) check_abml(config, locate);
  if (is_closed_form(config.algorithm)) check_head(config, locate);
  check_counts(config, locate);
  if (config.evaluate.samples == 0) {
    fail(locate("evaluate.samples"), "evaluate.samples", "expected -1 or at least 1, got 0");
  }
  if (config.train.patience > 0 && config.train.validate_every == 0) {
    fail(locate("train.patience"), "train.patience",
         "counts validations, but train.validate_every = 0 asks for none; expected 0");
  }
}

}  // namespace kshot::schema
