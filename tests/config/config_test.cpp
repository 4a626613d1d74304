// Configurations: reading TOML and --set, messages, checks, writing, and the generated template and
// reference. It is one file because it tests one interface, Config, and much of its length is
// tables of texts and messages.
#include "kshot/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "config/schema.h"
#include "kshot/error.h"
#include "support/error_text.h"

namespace kshot {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    Config::parse(text, "run.toml", overrides);
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "no error";
}

std::string slurp(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

// ---- reading ----

TEST(Config, EmptyTextGivesTheDefaults) {
  EXPECT_EQ(Config::parse(""), Config());
}

TEST(Config, ReadsEveryTypeOfValue) {
  const Config config = Config::parse(R"(
algorithm = "abml"
seed = 9223372036854775807
[network]
layers = [1, 20, 2]
activation = "tanh"
[loss]
type = "gaussian_nll"
noise_std = 1           # an integer is a number too
[inner]
steps = 0
learning_rate = 2.5e-3
order = "first"
adapt = ["layers.1.*"]
[abml]
differentiate_prior = false
inner_data = "all"
[train]
time_limit = 1_200
)");
  EXPECT_EQ(config.algorithm, AlgorithmKind::abml);
  EXPECT_EQ(config.seed, 9223372036854775807ull);
  EXPECT_THAT(config.network.layers, ElementsAre(1, 20, 2));
  EXPECT_EQ(config.network.activation, "tanh");
  EXPECT_EQ(config.loss.type, LossType::gaussian_nll);
  EXPECT_EQ(config.loss.noise_std, 1.0);
  EXPECT_EQ(config.inner.steps, 0);
  EXPECT_EQ(config.inner.learning_rate, 2.5e-3);
  EXPECT_EQ(config.inner.order, Order::first);
  EXPECT_THAT(config.inner.adapt, ElementsAre("layers.1.*"));
  EXPECT_FALSE(config.abml.differentiate_prior);
  EXPECT_EQ(config.abml.inner_data, InnerData::all);
  EXPECT_EQ(config.train.time_limit, 1200.0);
}

TEST(Config, ReadsASequentialNetwork) {
  const Config config = Config::parse(R"(
[network]
type = "sequential"
input = [2, 8, 8]
layers = [
  { type = "conv", out = 4, kernel = 5, stride = 2, padding = 2 },
  { type = "relu" },
  { type = "max_pool" },
  { type = "flatten" },
  { type = "linear", out = 3 },
]
[loss]
type = "cross_entropy"
)");
  ASSERT_EQ(config.network.sequential.size(), 5u);
  LayerSpec conv;
  conv.type = LayerType::conv;
  conv.out = 4;
  conv.kernel = 5;
  conv.stride = conv.padding = 2;
  EXPECT_EQ(config.network.sequential[0], conv);
  EXPECT_EQ(config.network.sequential[2].type, LayerType::max_pool);
  EXPECT_EQ(config.network.sequential[2].size, 2);
  const Network network = config.make_network();
  EXPECT_EQ(network.input().size(), 128);
  EXPECT_EQ(network.outputs(), 3);
  EXPECT_EQ(network.size(), 2u * 4 * 25 + 4 + 16 * 3 + 3);
}

TEST(Config, MakesEveryNetwork) {
  EXPECT_EQ(Config().make_network().size(), 1u * 40 + 40 + 40 * 40 + 40 + 40 + 1);
  EXPECT_EQ(Config::parse("[network]\ntype = 'linear'\nlayers = [640, 5]").make_network().size(),
            640u * 5 + 5);
  // docs/mathematics.md states this number for 28x28 images with one channel, 64 filters, 5 classes
  // and the head `mean`.
  EXPECT_EQ(Config::parse("[network]\ntype = 'conv4'").make_network().size(), 112261u);
}

TEST(Config, LoadReadsAFileAndNamesIt) {
  const auto file = std::filesystem::path(::testing::TempDir()) / "kshot_config_test.toml";
  std::ofstream(file) << "seed = 7\n[inner]\nsteps = 3\n";
  const Config config = Config::load(file, {"inner.steps=4"});
  EXPECT_EQ(config.seed, 7u);
  EXPECT_EQ(config.inner.steps, 4);
  std::ofstream(file) << "";
  EXPECT_EQ(Config::load(file), Config());
  std::ofstream(file) << "seed = 7\n[inner]\nsteps = 'x'\n";
  try {
    Config::load(file);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), StartsWith(file.string() + ":3: inner.steps: "));
  }
  std::filesystem::remove(file);
  EXPECT_THROW(
      {
        try {
          Config::load(file);
        } catch (const Error& error) {
          EXPECT_THAT(error.what(), HasSubstr("No such file"));
          EXPECT_THAT(error.what(), StartsWith(file.string()));
          throw;
        }
      },
      Error);
  EXPECT_THROW(Config::load(::testing::TempDir()), Error);
  EXPECT_THAT(test::error_text([] { Config::load("/dev/zero"); }),
              HasSubstr("/dev/zero: more than 16777216 bytes"));
}

// ---- messages ----

struct Message {
  const char* text;
  const char* want;
};

class Messages : public ::testing::TestWithParam<Message> {};

TEST_P(Messages, NamesPlaceKeyAndWhatWasExpected) {
  EXPECT_EQ(error_of(GetParam().text), GetParam().want);
}

INSTANTIATE_TEST_SUITE_P(
    Keys, Messages,
    ::testing::Values(
        Message{"[inner]\nstesp = 3",
                "run.toml:2: inner.stesp: unknown key; did you mean inner.steps?"},
        Message{"[inner]\nnum_steps = 3",
                "run.toml:2: inner.num_steps: unknown key; did you mean inner.steps?"},
        Message{"[inner]\nlr = 3",
                "run.toml:2: inner.lr: unknown key; did you mean inner.learning_rate?"},
        Message{"[inner]\nmomentum = 0.1",
                "run.toml:2: inner.momentum: unknown key; did you mean optimizer.momentum?"},
        Message{"\nlearning_rate = 0.1",
                "run.toml:2: learning_rate: unknown key; did you mean inner.learning_rate or "
                "optimizer.learning_rate?"},
        Message{"[inner]\nqqqqqq = 3",
                "run.toml:2: inner.qqqqqq: unknown key; expected one of steps, learning_rate, "
                "order or adapt"},
        Message{"[optimiser]\ntype = 'sgd'",
                "run.toml:1: [optimiser]: unknown table; did you mean [optimizer]?"},
        Message{"[qqqqqq]",
                "run.toml:1: [qqqqqq]: unknown table; expected one of [network], [loss], [inner], "
                "[meta_sgd], [abml], [leo], [hvi], [protonet], [r2d2], [bayes_protonet], [alpaca], "
                "[dkt], [data], [optimizer], [train] or [evaluate]"},
        Message{"inner = 3", "run.toml:1: inner: expected a table, [inner], got 3"},
        // The first line with an unknown name is reported, not the first name in alphabetical
        // order.
        Message{"[train]\nstep = 1\n[data]\nshot = 1",
                "run.toml:2: train.step: unknown key; did you mean train.steps?"},
        Message{"algorithm = \"vae\"\n[vae]\nbound = \"vb\"",
                "run.toml:1: algorithm: expected maml, meta_sgd, abml, leo, hvi, protonet, r2d2, "
                "bayes_protonet, alpaca or dkt, got the string "
                "\"vae\""},
        Message{"algorithm = \"abml\"\n[abml]\nrates = \"tensor\"",
                "run.toml:3: abml.rates: expected fixed, layer or weight, got the string "
                "\"tensor\""},
        Message{"algorithm = \"abml\"\nloss.type = \"mse\"\nabml.outer_loss = \"predictive\"",
                "run.toml:2: loss.type: abml.outer_loss = \"predictive\" needs \"gaussian_nll\""},
        Message{"algorithm = \"abml\"\nloss.type = \"gaussian_nll\"\n[abml]\nouter_loss = "
                "\"predictive\"\nsamples_outer = 1",
                "run.toml:5: abml.samples_outer: abml.outer_loss = \"predictive\" needs at least 2 "
                "samples"},
        Message{"algorithm = \"abml\"\n[abml]\npredictive_after = 5",
                "run.toml:3: abml.predictive_after: applies to algorithm = \"abml\" and "
                "abml.outer_loss = \"predictive\" alone; here abml.outer_loss = \"elbo\""},
        Message{"algorithm = \"abml\"\n[abml]\nestimator = \"flip\"",
                "run.toml:3: abml.estimator: expected weight, flipout or local, got the string "
                "\"flip\""},
        Message{
            "algorithm = \"maml\"\n\n[abml]\nsamples_inner = 5",
            "run.toml:3: [abml]: applies to algorithm = \"abml\" alone; here algorithm = \"maml\""},
        Message{"[evaluate]\nsamples = 5",
                "run.toml:2: evaluate.samples: applies to algorithm = \"abml\", \"leo\" or \"hvi\" "
                "alone; here "
                "algorithm = \"maml\""},
        Message{"[network]\nfilters = 32",
                "run.toml:2: network.filters: applies to network.type = \"conv4\" alone; here "
                "network.type = \"mlp\""},
        Message{"[network]\ntype = 'conv4'\nlayers = [1, 2]",
                "run.toml:3: network.layers: applies to network.type = \"mlp\", \"linear\" or "
                "\"sequential\" alone; here network.type = \"conv4\""},
        Message{"[loss]\nnoise_std = 0.1",
                "run.toml:2: loss.noise_std: applies to loss.type = \"gaussian_nll\" alone; here "
                "loss.type = \"mse\""},
        Message{"[loss]\nnoise = 'learned'",
                "run.toml:2: loss.noise: applies to loss.type = \"gaussian_nll\" and algorithm = "
                "\"maml\", \"meta_sgd\", \"abml\", \"leo\" or \"hvi\" alone; here loss.type = "
                "\"mse\""},
        Message{"algorithm = 'alpaca'\n[loss]\nnoise = 'learned'",
                "run.toml:3: loss.noise: applies to loss.type = \"gaussian_nll\" and algorithm = "
                "\"maml\", \"meta_sgd\", \"abml\", \"leo\" or \"hvi\" alone; here algorithm = "
                "\"alpaca\""},
        Message{"algorithm = 'hvi'\nloss = { type = 'gaussian_nll', noise = 'learned' }\n[hvi]\n"
                "bound = 'seeger'",
                "run.toml:2: loss.noise: hvi.bound = \"seeger\" takes the root of the loss, which "
                "learned noise can make negative; expected \"fixed\", or another hvi.bound"},
        Message{"loss = { type = 'gaussian_nll', noise = 'free' }",
                "run.toml:1: loss.noise: expected fixed or learned, got the string \"free\""},
        Message{"[optimizer]\nmomentum = 0.5",
                "run.toml:2: optimizer.momentum: applies to optimizer.type = \"sgd\" alone; here "
                "optimizer.type = \"adam\""},
        Message{
            "[data]\nsource = 'file'\npath = 'a'\nways = 5",
            "run.toml:4: data.ways: applies to data.source = \"file\", loss.type = "
            "\"cross_entropy\" and data.episodes = \"few_shot\" alone; here loss.type = \"mse\""}));

INSTANTIATE_TEST_SUITE_P(
    Types, Messages,
    ::testing::Values(
        Message{"seed = -1", "run.toml:1: seed: expected an integer of at least 0, got -1"},
        Message{"[inner]\nsteps = 'three'",
                "run.toml:2: inner.steps: expected an integer from 0 to 100000, got the string "
                "\"three\""},
        Message{"[inner]\nsteps = 2.0",
                "run.toml:2: inner.steps: expected an integer from 0 to 100000, got 2.0"},
        Message{"[train]\nmeta_batch = 3000000000",
                "run.toml:2: train.meta_batch: expected an integer below 2^31, got 3000000000"},
        Message{"[inner]\nlearning_rate = '0.1'",
                "run.toml:2: inner.learning_rate: expected a number of at least 0, got the string "
                "\"0.1\""},
        Message{"algorithm = 'abml'\n[abml]\nsupport_in_outer = 1",
                "run.toml:3: abml.support_in_outer: expected true or false, got 1"},
        Message{"algorithm = true",
                "run.toml:1: algorithm: expected maml, meta_sgd, abml, leo, hvi, protonet, r2d2, "
                "bayes_protonet, alpaca or dkt, got true"},
        Message{"[network]\ntype = 5",
                "run.toml:2: network.type: expected mlp, linear, conv4 or sequential, got 5"},
        Message{"[network]\ntype = \"re\\nsnet\"",
                "run.toml:2: network.type: expected mlp, linear, conv4 or sequential, got the "
                "string \"re\\nsnet\""},
        Message{"[network]\nlayers = 4",
                "run.toml:2: network.layers: expected a list of at least 2 integers, each from 1 "
                "to 1048576, got 4"},
        Message{"[network]\nlayers = [1, 'a']",
                "run.toml:2: network.layers[1]: expected an integer from 1 to 1048576, got the "
                "string \"a\""},
        Message{
            "[network]\nlayers = [{type = 'relu'}]",
            "run.toml:2: network.layers[0]: expected an integer from 1 to 1048576, got a table"},
        Message{"[inner]\nadapt = 'head.*'",
                "run.toml:2: inner.adapt: expected a list of one or more strings, got the string "
                "\"head.*\""},
        Message{"[inner]\nadapt = [1]", "run.toml:2: inner.adapt[0]: expected a string, got 1"},
        Message{"seed = 2020-01-01",
                "run.toml:1: seed: expected an integer of at least 0, got a date or time"}));

INSTANTIATE_TEST_SUITE_P(
    Ranges, Messages,
    ::testing::Values(
        Message{"[inner]\nsteps = -1",
                "run.toml:2: inner.steps: expected an integer from 0 to 100000, got -1"},
        Message{"[inner]\nlearning_rate = nan",
                "run.toml:2: inner.learning_rate: expected a number of at least 0, got nan"},
        Message{"[inner]\nlearning_rate = inf",
                "run.toml:2: inner.learning_rate: expected a number of at least 0, got inf"},
        Message{"[loss]\ntype = 'gaussian_nll'\nnoise_std = 0",
                "run.toml:3: loss.noise_std: expected a number above 0, got 0.0"},
        Message{
            "[optimizer]\nbeta1 = 1.0",
            "run.toml:2: optimizer.beta1: expected a number of at least 0 and below 1, got 1.0"},
        Message{"[train]\nmax_diverged = 1.5",
                "run.toml:2: train.max_diverged: expected a number from 0 to 1, got 1.5"},
        Message{"[network]\nlayers = [5]",
                "run.toml:2: network.layers: expected a list of at least 2 integers, each from 1 "
                "to 1048576, got [5]"},
        Message{"[network]\nlayers = [5, 0, 1]",
                "run.toml:2: network.layers[1]: expected an integer from 1 to 1048576, got 0"},
        Message{"[inner]\nadapt = []",
                "run.toml:2: inner.adapt: expected a list of one or more strings, got []"},
        Message{"algorithm = 'abml'\n[evaluate]\nsamples = 0",
                "run.toml:3: evaluate.samples: expected -1 or at least 1, got 0"}));

// A value that no machine can process is a mistake. It is refused, because the program would seem
// to hang.
INSTANTIATE_TEST_SUITE_P(
    Absurd, Messages,
    ::testing::Values(
        Message{
            "[train]\nmeta_batch = 50000000",
            "run.toml:2: train.meta_batch: expected an integer from 1 to 1048576, got 50000000"},
        Message{"[train]\nvalidation_episodes = 100000000",
                "run.toml:2: train.validation_episodes: expected an integer from 1 to 16777216, "
                "got 100000000"},
        Message{"[evaluate]\nepisodes = 2000000000",
                "run.toml:2: evaluate.episodes: expected an integer from 1 to 16777216, got "
                "2000000000"},
        Message{"algorithm = 'abml'\n[evaluate]\nsamples = 1000000",
                "run.toml:3: evaluate.samples: expected an integer from -1 to 65536, got 1000000"},
        Message{"algorithm = 'abml'\n[abml]\nsamples_inner = 100000",
                "run.toml:3: abml.samples_inner: expected an integer from 1 to 65536, got 100000"},
        Message{"algorithm = 'abml'\n[abml]\nsamples_outer = 100000",
                "run.toml:3: abml.samples_outer: expected an integer from 1 to 65536, got 100000"},
        Message{"algorithm = 'hvi'\n[hvi]\nsamples = 100000",
                "run.toml:3: hvi.samples: expected an integer from 1 to 65536, got 100000"},
        Message{"[data]\nshots = 2000000",
                "run.toml:2: data.shots: expected an integer from 0 to 1048576, or a "
                "range [least, most], got 2000000"},
        Message{"[data]\nqueries = 2000000",
                "run.toml:2: data.queries: expected an integer from 1 to 1048576, or a "
                "range [least, most], got 2000000"}));

INSTANTIATE_TEST_SUITE_P(
    Together, Messages,
    ::testing::Values(
        Message{"[network]\ntype = 'linear'",
                "run.toml:1: network.layers: required with network.type = \"linear\": expected a "
                "list of 2 integers, each from 1 to 1048576"},
        Message{"[network]\ntype = 'linear'\nlayers = [3, 4, 5]",
                "run.toml:3: network.layers: expected a list of 2 integers, each from 1 to "
                "1048576, got [3, 4, 5]"},
        Message{"[network]\ntype = 'sequential'\nlayers = [{type = 'linear', out = 5}]",
                "run.toml:1: network.input: required with network.type = \"sequential\": expected "
                "a list of 1 to 3 integers, each from 1 to 1048576"},
        Message{"[network]\ntype = 'sequential'\ninput = [3, 4]\nlayers = [{type = 'norm'}]",
                "run.toml:3: network.input: expected [channels, height, width] or [features], got "
                "[3, 4]"},
        Message{"[network]\ntype = 'sequential'\ninput = [60000, 60000, 60000]\nlayers = [{type = "
                "'mean'}]",
                "run.toml:3: network.input: too large: expected less than 2^31 numbers"},
        Message{"[network]\ntype = 'conv4'\nimage = [28]",
                "run.toml:3: network.image: expected a list of 2 integers, each from 1 to 1048576, "
                "got [28]"},
        Message{
            "[network]\ntype = 'conv4'\nimage = [15, 28]\ndownsample = 'pool'",
            "run.toml:3: network.image: expected a height and width of at least 16 with "
            "network.downsample = \"pool\" (each of four blocks halves the image), got [15, 28]"},
        Message{"[data]\nsource = 'file'",
                "run.toml:1: data.path: required with data.source = \"file\": expected a string"},
        Message{"[data]\nsource = 'file'\npath = ''",
                "run.toml:3: data.path: expected a string, got an empty string"},
        Message{"[loss]\ntype = 'cross_entropy'",
                "run.toml:2: loss.type: cross_entropy expects a network with at least 2 outputs "
                "(classes), got 1"},
        Message{"[data]\nx_low = 6",
                "run.toml:2: data.x_low: expected at most data.x_high = 5, got 6"},
        Message{
            "[data]\namplitude_high = 0.05",
            "run.toml:1: data.amplitude_low: expected at most data.amplitude_high = 0.05, got 0.1"},
        Message{"[train]\npatience = 5\nvalidate_every = 0",
                "run.toml:2: train.patience: counts validations, but train.validate_every = 0 asks "
                "for none; expected 0"}));

TEST(ConfigText, NamesEndAtNoZeroByte) {
  EXPECT_THAT(error_of("[data]\nsource = \"file\"\npath = \"a.kshot\\u0000b\""),
              AllOf(StartsWith("run.toml:3: data.path: expected text without"),
                    HasSubstr("a.kshot\\u0000b")));
}

TEST(ConfigText, WhatIsNotTomlNamesTheLine) {
  EXPECT_THAT(error_of("[inner]\nsteps = 3\nsteps = 4"), StartsWith("run.toml:3: not TOML: "));
  EXPECT_THAT(error_of("[inner]\n\nsteps = three"), StartsWith("run.toml:3: not TOML: "));
  EXPECT_THAT(error_of("[inner\nsteps = 3"), StartsWith("run.toml:1: not TOML: "));
  EXPECT_THAT(error_of("seed = 9223372036854775808"), StartsWith("run.toml:1: not TOML: "));
  EXPECT_THAT(error_of("# \xff\xfe"), StartsWith("run.toml:1: not TOML: "));
}

std::string sequential(const std::string& layers, const std::string& input = "[1, 8, 8]") {
  return "[network]\ntype = 'sequential'\ninput = " + input + "\nlayers = " + layers;
}

TEST(ConfigLayers, Messages) {
  EXPECT_EQ(error_of(sequential("[3]")),
            "run.toml:4: network.layers[0]: expected a table such as { type = \"linear\", out = 5 "
            "}, got 3");
  EXPECT_EQ(error_of(sequential("[\n{out = 3}]")),
            "run.toml:5: network.layers[0]: no type; expected conv, norm, max_pool, mean, flatten, "
            "linear, relu, tanh or leaky_relu");
  EXPECT_EQ(error_of(sequential("[{type = 'mean'},\n{type = 'dense', out = 3}]")),
            "run.toml:5: network.layers[1].type: expected conv, norm, max_pool, mean, flatten, "
            "linear, relu, tanh or leaky_relu, got the string \"dense\"");
  EXPECT_EQ(error_of(sequential("[{type = 'conv', out = 3, kernal = 3}]")),
            "run.toml:4: network.layers[0].kernal: unknown key; did you mean kernel?");
  EXPECT_EQ(error_of(sequential("[{type = 'relu', slope = 0.1}]")),
            "run.toml:4: network.layers[0].slope: unknown key; a relu layer takes type");
  EXPECT_EQ(error_of(sequential("[{type = 'linear', out = 3, kernel = 3}]")),
            "run.toml:4: network.layers[0].kernel: unknown key; a linear layer takes out and type");
  EXPECT_EQ(
      error_of(sequential("[{type = 'conv'}]")),
      "run.toml:4: network.layers[0].out: required in a conv layer: an integer from 1 to 1048576");
  EXPECT_EQ(error_of(sequential("[{type = 'conv', out = 3, stride = 0}]")),
            "run.toml:4: network.layers[0].stride: expected an integer from 1 to 1024, got 0");
  EXPECT_EQ(error_of(sequential("[]")),
            "run.toml:4: network.layers: expected a list of tables such as { type = \"linear\", "
            "out = 5 }, got []");
}

TEST(ConfigLayers, LayersThatDoNotFitNameTheLine) {
  EXPECT_THAT(error_of(sequential("[{type = 'conv', out = 3}]", "[8]")),
              StartsWith("run.toml:4: network.layers[0] (conv): "));
  EXPECT_THAT(error_of(sequential("[{type = 'conv', out = 3}]")),
              StartsWith("run.toml:4: network.layers: the last layer"));
}

TEST(ConfigChecks, ANetworkThatFitsNowhere) {
  EXPECT_EQ(error_of("[network]\nlayers = [1048576, 1048576, 2]"),
            "run.toml:1: network: 1099514773506 weights, expected at most 2147483647");
}

TEST(ConfigChecks, AGlobThatMatchesNothing) {
  EXPECT_THAT(error_of("[inner]\nadapt = [\"*\", \"head.*\"]"),
              StartsWith("run.toml:2: inner.adapt: \"head.*\" matches no parameter"));
}

// ---- --set ----

TEST(Leo, HeadOrNetwork) {
  const Config head = Config::parse("algorithm = 'leo'\n[leo]\nways = 7\ndim = 30");
  EXPECT_EQ(head.loss.type, LossType::cross_entropy) << "the default of leo";
  EXPECT_EQ(head.make_network().size(), 7u * 30u) << "no biases";
  EXPECT_EQ(Config::parse(head.to_toml()), head);
  EXPECT_EQ(head.to_toml().find("[network]"), std::string::npos);
  const Config network = Config::parse("algorithm = 'leo'\nloss.type = 'mse'\nleo.latent = 8");
  EXPECT_EQ(network.make_network().size(), 1761u);
  EXPECT_EQ(Config::parse(network.to_toml()), network);
  EXPECT_EQ(error_of("algorithm = 'leo'\n[network]\nlayers = [1, 1]"),
            "run.toml:2: [network]: does not apply with algorithm = \"leo\" and loss.type = "
            "\"cross_entropy\"");
  EXPECT_EQ(
      error_of("algorithm = 'leo'\n[inner]\nsteps = 3"),
      "run.toml:3: inner.steps: applies to algorithm = \"maml\", \"meta_sgd\", \"abml\" or \"hvi\" "
      "alone; here algorithm = \"leo\"");
  EXPECT_THAT(error_of("algorithm = 'leo'\nloss.type = 'mse'\nleo.ways = 5"),
              HasSubstr("leo.ways: applies to"));
  EXPECT_THAT(
      error_of("algorithm = 'alpaca'\nnetwork.input_dropout = 1"),
      HasSubstr("network.input_dropout: expected a number of at least 0 and below 1, got 1"));
  EXPECT_THAT(error_of("network.input_dropout = 0.5"), HasSubstr("network.input_dropout"));
  EXPECT_THAT(error_of("algorithm = 'leo'\nleo.dropout_rate = 1"),
              HasSubstr("leo.dropout_rate: expected a number of at least 0 and below 1, got 1"));
}

TEST(Override, GoesOverTheFileAndTheLastWins) {
  const Config config = Config::parse("[inner]\nsteps = 3", "run.toml",
                                      {"inner.steps=4", "seed = 12 ", "inner.steps=5"});
  EXPECT_EQ(config.inner.steps, 5);
  EXPECT_EQ(config.seed, 12u);
}

TEST(Override, BareWordsAreStrings) {
  const Config config =
      Config::parse("", "run.toml",
                    {"algorithm=abml", "inner.order=\"first\"", "data.source=file",
                     "data.path=/my data/2024, = \"#1\".kshot", "network.activation='tanh'",
                     "abml.support_in_outer=false"});
  EXPECT_EQ(config.algorithm, AlgorithmKind::abml);
  EXPECT_EQ(config.inner.order, Order::first);
  EXPECT_EQ(config.data.path, "/my data/2024, = \"#1\".kshot");
  EXPECT_EQ(config.network.activation, "tanh");
  EXPECT_FALSE(config.abml.support_in_outer);
}

TEST(Override, APathOfDigitsIsAString) {
  const Config config = Config::parse("", "run.toml", {"data.source=file", "data.path=2024"});
  EXPECT_EQ(config.data.path, "2024");
}

TEST(Override, ListsWithAndWithoutBracketsAndQuotes) {
  for (const char* adapt : {"layers.0.*,layers.2.bias", "[layers.0.*, layers.2.bias]",
                            "[\"layers.0.*\", 'layers.2.bias']", "\"layers.0.*\",layers.2.bias"}) {
    const Config config = Config::parse("", "run.toml", {std::string("inner.adapt=") + adapt});
    EXPECT_THAT(config.inner.adapt, ElementsAre("layers.0.*", "layers.2.bias")) << adapt;
  }
  for (const char* layers : {"1,64,2", "[1, 64, 2]"}) {
    const Config config = Config::parse("", "run.toml", {std::string("network.layers=") + layers});
    EXPECT_THAT(config.network.layers, ElementsAre(1, 64, 2)) << layers;
  }
}

TEST(Override, LayersAsTables) {
  for (const char* layers :
       {"{type=linear,out=7},{type=leaky_relu},{type=linear,out=2}",
        "[{type = \"linear\", out = 7}, {type=leaky_relu}, { type = linear, out=2 }]"}) {
    const Config config = Config::parse(
        "", "run.toml",
        {"network.type=sequential", "network.input=4", std::string("network.layers=") + layers});
    ASSERT_EQ(config.network.sequential.size(), 3u) << layers;
    EXPECT_EQ(config.network.sequential[0].out, 7);
    EXPECT_EQ(config.network.sequential[1].type, LayerType::leaky_relu);
    EXPECT_EQ(config.make_network().outputs(), 2);
  }
}

TEST(Override, Messages) {
  EXPECT_EQ(error_of("", {"inner.steps"}), "--set \"inner.steps\": expected table.key=value");
  EXPECT_EQ(error_of("", {"=3"}), "--set \"=3\": expected table.key=value");
  EXPECT_EQ(error_of("", {"inner.steps="}), "--set \"inner.steps=\": expected table.key=value");
  EXPECT_EQ(error_of("", {"inner.setps=3"}),
            "--set: inner.setps: unknown key; did you mean inner.steps?");
  EXPECT_EQ(error_of("", {"iner.steps=3"}),
            "--set: iner.steps: unknown table; did you mean [inner]?");
  EXPECT_EQ(error_of("", {"inner={steps=3}"}), "--set: inner: a table; expected inner.key=value");
  EXPECT_EQ(error_of("", {"steps=3"}),
            "--set: steps: unknown key; did you mean evaluate.steps, inner.steps or train.steps?");
  EXPECT_EQ(error_of("[inner]\nsteps = 3", {"inner.steps=three"}),
            "--set: inner.steps: expected an integer from 0 to 100000, got the string \"three\"");
  EXPECT_EQ(error_of("", {"inner.steps=-3"}),
            "--set: inner.steps: expected an integer from 0 to 100000, got -3");
  EXPECT_EQ(
      error_of("", {"inner.steps=3\nseed = 4"}),
      "--set: inner.steps: expected an integer from 0 to 100000, got the string \"3\\nseed = 4\"");
  EXPECT_EQ(error_of("", {"algorithm=vae"}),
            "--set: algorithm: expected maml, meta_sgd, abml, leo, hvi, protonet, r2d2, "
            "bayes_protonet, alpaca or dkt, got the string \"vae\"");
  EXPECT_EQ(error_of("", {"abml.samples_inner=3"}),
            "--set: abml.samples_inner: applies to algorithm = \"abml\" alone; here algorithm = "
            "\"maml\"");
  EXPECT_EQ(
      error_of("", {"network.layers=1,x,1"}),
      "--set: network.layers[1]: expected an integer from 1 to 1048576, got the string \"x\"");
  EXPECT_THAT(error_of("", {"network.layers=[1,2"}),
              StartsWith("--set: network.layers: not a TOML value: \"[1,2\""));
  EXPECT_THAT(error_of("", {"inner.adapt=head.*"}),
              StartsWith("--set: inner.adapt: \"head.*\" matches no parameter"));
  EXPECT_EQ(error_of("", {"train.max_diverged=yes"}),
            "--set: train.max_diverged: expected a number from 0 to 1, got the string \"yes\"");
}

TEST(Override, WhatTheFileSaysForItsOwnChoiceIsLeftAside) {
  const std::string text = R"(
algorithm = "abml"
[loss]
type = "gaussian_nll"
noise_std = 0.3
[abml]
samples_inner = 9
[optimizer]
schedule = "cosine"
final_learning_rate = 1e-5
[evaluate]
samples = 20
)";
  const Config config = Config::parse(
      text, "run.toml", {"algorithm=maml", "optimizer.schedule=constant", "loss.type=mse"});
  // No keys of the other choices are left, so that the resolved file reads back to the same
  // configuration.
  EXPECT_EQ(config, Config());
  // A key that --set itself gives must apply. So must a key of the file that does not belong to one
  // of its own choices.
  EXPECT_THAT(error_of(text, {"algorithm=maml", "abml.samples_inner=3"}),
              StartsWith("--set: abml.samples_inner: applies to"));
  EXPECT_THAT(error_of("[optimizer]\nmomentum = 0.5", {"algorithm=abml"}),
              StartsWith("run.toml:2: optimizer.momentum: applies to"));
}

// ---- writing ----

TEST(ToToml, ReadsBackToTheSame) {
  const char* texts[] = {
      "",
      "algorithm = 'meta_sgd'\nseed = 9223372036854775807\n[meta_sgd]\nrates = 'layer'\nper_step = "
      "true\n[inner]\nlearning_rate = 0.1\nadapt = ['layers.0.*', 'layers.2.bias']\norder = "
      "'first'",
      "algorithm = 'abml'\n[abml]\nkl_weight_inner = 0.30000000000000004\nhyper_prior_weight = "
      "1e-300\nlog_sigma_init = -5\ninner_data = 'all'\n[loss]\ntype = 'gaussian_nll'\nnoise_std = "
      "0.1\n[evaluate]\nsamples = 30\nnorm_statistics = 'support'",
      "[network]\ntype = 'conv4'\nimage = [84, 84]\nin_channels = 3\nnorm = 'none'\nhead = "
      "'flatten'\n[loss]\ntype = 'cross_entropy'\n[data]\nsource = 'file'\npath = \"a \\\"b\\\" "
      "\\\\ \\t \\u0001 \\u007f \xc3\xa9 'c'.kshot\"\nways = 20",
      "[network]\ntype = 'linear'\nlayers = [640, 5]\n[optimizer]\ntype = 'sgd'\nmomentum = "
      "0.5\nschedule = 'step'\ndecay_every = 7\n[data]\nsource = 'file'\npath = 'x'\nvariable_size "
      "= true",
      "[network]\ntype = 'sequential'\ninput = [2, 11, 9]\nlayers = [{type = 'conv', out = 5, "
      "kernel = 5, stride = 2, padding = 2}, {type = 'norm'}, {type = 'leaky_relu'}, {type = "
      "'max_pool', size = 3}, {type = 'mean'}, {type = 'linear', out = 1}]\n[optimizer]\nschedule "
      "= 'cosine'\nfinal_learning_rate = 1e20",
  };
  for (const char* text : texts) {
    const Config config = Config::parse(text);
    const std::string written = config.to_toml();
    SCOPED_TRACE(written);
    EXPECT_EQ(Config::parse(written), config);
    EXPECT_EQ(Config::parse(written).to_toml(), written);
  }
}

TEST(Config, CharactersOutsideAsciiStandInQuotesAndCommentsAlone) {
  const std::string e = "\xC3\xA9";
  const std::string what =
      "not TOML: a character outside ASCII stands outside of quotes and comments";
  const std::vector<std::string> stray = {"\xC2\xA1 = 1", "seed = " + e,  "seed =\xC2\xA0 1",
                                          e + "a.b = 1",  "a = 'x' " + e, "a = '''\"''''' " + e};
  for (const std::string& text : stray) {
    EXPECT_EQ(error_of(text), "run.toml:1: " + what) << text;
  }
  EXPECT_EQ(error_of("# " + e + "\nseed = 1 # " + e + "\n\n[" + e + "]"), "run.toml:4: " + what);
  EXPECT_EQ(error_of("a = \"\"\"\n'\"\"\" " + e), "run.toml:2: " + what);

  const std::string file = "[data]\nsource = 'file' # " + e + "\npath = ";
  for (const char* quotes : {"'", "\"", "'''", "\"\"\""}) {
    EXPECT_EQ(Config::parse(file + quotes + e + quotes).data.path, e) << quotes;
  }
  EXPECT_EQ(Config::parse(file + "\"a\\\" " + e + "\"").data.path, "a\" " + e);
  EXPECT_EQ(Config::parse("\xEF\xBB\xBFseed = 3").seed, 3u) << "a byte order mark";
  EXPECT_THAT(error_of("a = '" + e + "\nb = " + e), StartsWith("run.toml:1: not TOML: "));
  EXPECT_EQ(Config::parse(file + "'x'", "run.toml", {"data.path=" + e}).data.path, e);
  EXPECT_THAT(error_of("", {"seed=" + e}), StartsWith("--set: seed: expected an integer"));
}

TEST(Ranges, AreANumberOrTwo) {
  const auto shots = [](const std::string& text, const std::vector<std::string>& overrides = {}) {
    return Config::parse("[data]\nshots = " + text, "run.toml", overrides).data.shots;
  };
  EXPECT_EQ(shots("7"), CountRange(7, 7));
  EXPECT_EQ(shots("[1, 10]"), CountRange(1, 10));
  EXPECT_EQ(shots("[3, 3]"), CountRange(3));
  EXPECT_EQ(shots("7", {"data.shots=1,10"}), CountRange(1, 10));
  EXPECT_EQ(shots("7", {"data.shots=[2,4]"}), CountRange(2, 4));
  EXPECT_EQ(shots("[1, 10]", {"data.shots=5"}), CountRange(5));
  const Config config = Config::parse("[data]\nshots = [1, 10]\nqueries = [3, 4]");
  EXPECT_THAT(config.to_toml(), HasSubstr("shots = [1, 10]\nqueries = [3, 4]\n"));
  EXPECT_EQ(Config::parse(config.to_toml()), config);

  const std::string expected =
      "run.toml:2: data.shots: expected an integer from 0 to 1048576, or a range [least, most], "
      "got ";
  for (const char* text :
       {"[1]", "[1, 2, 3]", "[]", "[1.0, 2]", "[-1, 2]", "[1, 2000000]", "true"}) {
    EXPECT_THAT(error_of(std::string("[data]\nshots = ") + text), StartsWith(expected)) << text;
  }
  EXPECT_EQ(error_of("[data]\nshots = [10, 1]"),
            "run.toml:2: data.shots: expected the least number first, got [10, 1]");
  EXPECT_THAT(error_of("[data]\nshots = [0, 5]"),
              HasSubstr("data.shots: expected at least 1 with algorithm = \"maml\""));
  Config filled;
  filled.data.queries = {9, 3};
  try {
    filled.check();
    FAIL() << "the ends are in the wrong order";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("data.queries"));
  }
}

TEST(Ranges, AreRefusedWhereATaskCannotHaveItsOwnNumber) {
  const std::string file = "[data]\nsource = 'file'\npath = 'x'\n";
  const std::string classes = "[loss]\ntype = 'cross_entropy'\n[network]\nlayers = [4, 5]\n";
  EXPECT_THAT(error_of(classes + file + "ways = [2, 5]"),
              HasSubstr("data.ways: expected one number with algorithm = \"maml\""));
  EXPECT_EQ(Config::parse("algorithm = 'protonet'\n" + file + "ways = [2, 5]").data.ways,
            CountRange(2, 5));
  EXPECT_THAT(error_of(classes + file + "ways = 1"), HasSubstr("data.ways: expected at least 2"));
  EXPECT_THAT(error_of(classes + file + "permute = 'labels'\nshots = [1, 5]"),
              HasSubstr("data.shots: expected one number with data.permute"));
  EXPECT_THAT(error_of(classes + file + "episodes = 'minibatch'\nqueries = [1, 5]"),
              HasSubstr("data.queries: expected one number"));
  const std::string leo = "algorithm = 'leo'\n" + file + "shots = [1, 5]\n[leo]\nlatents = ";
  EXPECT_THAT(error_of(leo + "'per_example'"), HasSubstr("data.shots: expected one number"));
  EXPECT_EQ(Config::parse(leo + "'one'").data.shots, CountRange(1, 5));
}

TEST(ToToml, HoldsTheKeysThatApplyAndNoOther) {
  const std::string text = Config().to_toml();
  EXPECT_THAT(text,
              StartsWith("algorithm = \"maml\"\nseed = 1\n\n[network]\ntype = \"mlp\"\nlayers = "
                         "[1, 40, 40, 1]\nactivation = \"relu\"\n\n[loss]\ntype = \"mse\"\n"));
  for (const char* absent : {"[abml]", "[meta_sgd]", "filters", "momentum", "ways", "path"}) {
    EXPECT_EQ(text.find(absent), std::string::npos) << absent;
  }
}

// Every key comes back after a write and a read, when its value is not the default. No key is bound
// to a wrong field.
TEST(ToToml, EveryKeyIsBoundToItsOwnField) {
  for (const schema::Key& key : schema::keys()) {
    Config config;
    std::visit(
        [](auto slot) {
          using T = decltype(slot);
          if constexpr (std::is_same_v<T, int*> || std::is_same_v<T, std::uint64_t*>) {
            *slot += 1;
          } else if constexpr (std::is_same_v<T, double*>) {
            *slot += 0.25;
          } else if constexpr (std::is_same_v<T, bool*>) {
            *slot = !*slot;
          } else if constexpr (std::is_same_v<T, std::string*>) {
            *slot += "x";
          } else if constexpr (std::is_same_v<T, schema::EnumField>) {
            const auto names = slot.names();
            if (names.size() > 1) {
              const bool first = slot.get(slot.value) == names.front();
              EXPECT_TRUE(slot.set(slot.value, first ? names.back() : names.front()));
            }
          } else if constexpr (std::is_same_v<T, CountRange*>) {
            slot->most += 1;
          } else {
            slot->emplace_back();
          }
        },
        key.slot(config));
    if (schema::choices(key).size() != 1) {
      EXPECT_NE(config, Config()) << key.path();
    }
    int changed = 0;
    for (const schema::Key& other : schema::keys()) {
      if (schema::value_text(other, config) != schema::value_text(other, Config())) ++changed;
    }
    // network.layers of mlp and network.layers of linear share one field.
    const int sharing =
        key.path() == "network.layers" && !key.when.empty() && key.when[0].values[0] != "sequential"
            ? 2
            : 1;
    EXPECT_EQ(changed, schema::choices(key).size() == 1 ? 0 : sharing) << key.path();
  }
}

TEST(Schema, DefaultsAreInRange) {
  for (const schema::Key& key : schema::keys()) {
    Config config;
    const schema::Slot slot = key.slot(config);
    if (const auto* number = std::get_if<double*>(&slot)) {
      EXPECT_TRUE(key.range.contains(**number)) << key.path();
    }
    if (const auto* number = std::get_if<int*>(&slot)) {
      EXPECT_TRUE(key.range.contains(**number)) << key.path();
    }
    if (const auto* range = std::get_if<CountRange*>(&slot)) {
      EXPECT_TRUE(key.range.contains((*range)->least)) << key.path();
      EXPECT_TRUE(key.range.contains((*range)->most)) << key.path();
    }
    EXPECT_NE(std::string(key.doc), "") << key.path();
  }
}

// ---- checks of a Config made in code ----

TEST(Check, FindsWhatCodePutIn) {
  Config config;
  EXPECT_NO_THROW(config.check());
  config.inner.steps = -2;
  try {
    config.check("my program");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "my program: inner.steps: expected an integer from 0 to 100000, got -2");
  }
  config.inner.steps = 1;
  config.seed = 1ull << 63;
  EXPECT_THROW(config.check(), Error);
  config.seed = 1;
  config.network.type = "conv4";
  config.network.image = {28};
  EXPECT_THROW(config.check(), Error);
}

TEST(ClosedForm, TablesLossesAndWhatNeedsAPrior) {
  const auto head = [](const std::string& algorithm, const std::string& more = "") {
    return "algorithm = \"" + algorithm + "\"\n" + more;
  };
  EXPECT_EQ(Config::parse(head("protonet")).loss.type, LossType::cross_entropy);
  EXPECT_EQ(Config::parse(head("r2d2")).loss.type, LossType::cross_entropy);
  EXPECT_EQ(Config::parse(head("alpaca", "[alpaca]")).loss.type, LossType::gaussian_nll);
  EXPECT_EQ(error_of(head("alpaca", "[loss]\ntype = \"mse\"")),
            "run.toml:3: loss.type: expected \"gaussian_nll\" with algorithm = \"alpaca\", got "
            "\"mse\"");
  EXPECT_EQ(error_of(head("r2d2", "[loss]\ntype = \"gaussian_nll\"")),
            "run.toml:3: loss.type: expected \"cross_entropy\" or \"mse\" with algorithm = "
            "\"r2d2\", got \"gaussian_nll\"");
  EXPECT_THAT(error_of(head("dkt", "[inner]\nsteps = 2")),
              StartsWith("run.toml:2: [inner]: does not apply with algorithm = "));
  EXPECT_THAT(error_of(head("dkt", "[evaluate]\nsteps = 2")),
              StartsWith("run.toml:3: evaluate.steps: applies to algorithm = "));
  EXPECT_THAT(error_of(head("protonet", "[dkt]\nkernel = \"rbf\"")),
              StartsWith("run.toml:2: [dkt]: applies to algorithm = "));
  EXPECT_THAT(error_of(head("r2d2", "[loss]\ntype = \"mse\"\n[r2d2]\nways = 3")),
              StartsWith("run.toml:5: r2d2.ways: applies to"));
  EXPECT_EQ(Config::parse(head("dkt", "[data]\nshots = 0")).data.shots, 0);
  EXPECT_EQ(error_of("[data]\nshots = 0"),
            "run.toml:2: data.shots: expected at least 1 with algorithm = \"maml\" (0 is for "
            "bayes_protonet, alpaca and dkt), got 0");
  EXPECT_EQ(error_of(head("r2d2", "[data]\nshots = 0")),
            "run.toml:3: data.shots: expected at least 1 with algorithm = \"r2d2\" (0 is for "
            "bayes_protonet, alpaca and dkt), got 0");
  const std::string conv4 = "[network]\ntype = \"conv4\"\nclasses = 0\n";
  const Network network = Config::parse(head("protonet", conv4)).make_network();
  EXPECT_EQ(network.outputs(), 64);
  EXPECT_EQ(network.parameters().back().name, "blocks.3.norm.bias");
  EXPECT_THAT(
      error_of(conv4 + "[loss]\ntype = \"cross_entropy\""),
      StartsWith("run.toml:3: network.classes: 0 (no linear layer) is for algorithms with a "
                 "closed-form head"));
}

TEST(CheckData, HoldsDataAgainstNetworkAndLoss) {
  const auto message = [](const std::string& text) -> std::string {
    try {
      Config::parse(text).check_data("run.toml");
    } catch (const Error& error) {
      return error.what();
    }
    return "fits";
  };
  EXPECT_EQ(message(""), "fits");
  EXPECT_EQ(message("[network]\nlayers = [2, 3, 1]"),
            "run.toml: network: expected 1 input and 1 output for data.source = \"sinusoid\", got "
            "2 and 1");
  EXPECT_THAT(message("[network]\nlayers = [1, 3, 5]\n[loss]\ntype = 'cross_entropy'"),
              StartsWith("run.toml: data.source: sinusoid gives numbers, but loss.type"));
  const std::string classes =
      "[network]\ntype = 'conv4'\nclasses = 5\n[loss]\ntype = 'cross_entropy'\n[data]\nsource = "
      "'file'\npath = 'a'\nways = ";
  EXPECT_EQ(message(classes + "5"), "fits");
  EXPECT_EQ(message(classes + "20"),
            "run.toml: data.ways: expected the network's number of outputs, 5, got 20");
}

// ---- what is written for readers ----

TEST(Template, ReadsAndRunsForEveryAlgorithm) {
  for (const std::string& algorithm : schema::choices(schema::keys().front())) {
    const std::string text = config_template(algorithm);
    const Config config = Config::parse(text, "template");
    EXPECT_EQ(schema::selector(config, "algorithm"), algorithm);
    EXPECT_NO_THROW(config.check_data());
    EXPECT_EQ(config.data.shots, 10);
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
  }
  EXPECT_THROW(config_template("mamml"), Error);
}

TEST(Reference, NamesEveryKeyAndTable) {
  const std::string text = configuration_reference();
  for (const schema::Key& key : schema::keys()) {
    EXPECT_THAT(text, HasSubstr("| `" + std::string(key.name) + "` |"));
  }
}

TEST(Toml, TextsThatTheParserTakesForImpossibleAreRefused) {
  // toml++ asserts that no value begins with a character that ends a value.
  for (const char* text : {"seed = [}", "seed = [ 1, } ]", "[data]\npath = [}]"}) {
    EXPECT_THAT(error_of(text), ::testing::HasSubstr("not TOML")) << text;
  }
  // The parser does not report the line. The reported line is the one without which the text is not
  // broken.
  EXPECT_THAT(error_of("seed = [}"), StartsWith("run.toml:1: not TOML: "));
  EXPECT_THAT(error_of("[data]\npath = [}]"), StartsWith("run.toml:2: not TOML: "));
  EXPECT_THAT(error_of("seed = 1\n\n# a\nx = [\n  1,\n  }\n]\n[data]\nshots = 1\n"),
              StartsWith("run.toml:6: not TOML: "));
  EXPECT_THAT(error_of("seed = [\r\n}]\r\nx = 1\r\n"), StartsWith("run.toml:2: not TOML: "));
}

TEST(Reference, DocumentIsUpToDate) {
  const auto file = std::filesystem::path(KSHOT_SOURCE_DIR) / "docs" / "configuration.md";
  EXPECT_EQ(slurp(file), configuration_reference())
      << "write it anew: kshot config --reference > docs/configuration.md";
}

// ---- files of others ----

TEST(Cases, EveryCaseIsRead) {
  const auto folder = std::filesystem::path(KSHOT_SHARED_DIR) / "cases";
  if (!std::filesystem::is_directory(folder)) GTEST_SKIP() << folder << " is not here";
  const std::vector<std::string> known = schema::choices(schema::keys().front());
  int read = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const auto file = entry.path() / "case.toml";
    if (!std::filesystem::exists(file)) continue;
    SCOPED_TRACE(file.string());
    const Config config = Config::load(file);
    EXPECT_EQ(Config::parse(config.to_toml()), config);
    EXPECT_GT(config.make_network().size(), 0u);
    ++read;
  }
  EXPECT_GT(read, 0);
}

TEST(Cases, ConfigurationsOfTheRepositoryAreReadable) {
  const auto folder = std::filesystem::path(KSHOT_SOURCE_DIR) / "configs";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".toml") continue;
    SCOPED_TRACE(entry.path().string());
    EXPECT_NO_THROW(Config::load(entry.path()).check_data(entry.path().string()));
  }
}

}  // namespace
}  // namespace kshot
