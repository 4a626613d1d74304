// Features of trained networks, against numbers that are computed here from the checkpoint's
// weights, and the plain classifier from which features may come.
#include "kshot/embedder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "backend/backend.h"
#include "base/feature_network.h"
#include "data/import.h"
#include "engine/engine_cases.h"
#include "io/npy.h"
#include "support/class_files.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::TempFolder;
using test::train_run;
using test::write_class_file;
using testing::AllOf;
using testing::HasSubstr;

/// A configuration for few-shot episodes of `file` and a network that is given as TOML.
Config few_shot(const fs::path& file, const std::string& algorithm, const std::string& network,
                const std::vector<std::string>& overrides = {}) {
  std::string text = "algorithm = \"" + algorithm + "\"\nseed = 3\n[network]\n" + network;
  text += R"([loss]
type = "cross_entropy"
[inner]
steps = 1
learning_rate = 0.1
[data]
source = "file"
path = ")" +
          file.string() +
          R"("
ways = 3
shots = 1
queries = 2
[train]
steps = 4
meta_batch = 4
validate_every = 0
[evaluate]
episodes = 20
)";
  return Config::parse(text, "test", overrides);
}

constexpr const char* small_conv = R"(type = "sequential"
input = [1, 6, 6]
layers = [ { type = "conv", out = 5, kernel = 3, padding = 1 }, { type = "norm" }, { type = "relu" },
           { type = "max_pool", size = 2 }, { type = "conv", out = 6, kernel = 3 }, { type = "norm" },
           { type = "flatten" }, { type = "linear", out = 3 } ]
)";

constexpr const char* small_mlp = R"(type = "mlp"
layers = [4, 7, 5, 3]
activation = "tanh"
)";

/// A configuration for a plain classifier of the training classes of `file`.
Config classifier(const fs::path& file, const std::vector<std::string>& overrides = {}) {
  const std::string text = R"(algorithm = "maml"
seed = 3
inner.steps = 0
[network]
type = "sequential"
input = [1, 6, 6]
layers = [ { type = "conv", out = 8, kernel = 3, stride = 2, padding = 1 }, { type = "norm" },
           { type = "relu" }, { type = "flatten" }, { type = "linear", out = 8 } ]
[loss]
type = "cross_entropy"
[data]
source = "file"
path = ")" + file.string() +
                           R"("
episodes = "minibatch"
queries = 32
[optimizer]
learning_rate = 0.02
[train]
steps = 60
meta_batch = 2
validate_every = 20
validation_episodes = 4
[evaluate]
episodes = 10
)";
  return Config::parse(text, "test", overrides);
}

std::vector<std::string> usable_devices() {
  std::vector<std::string> names = {"reference", "cpu"};
  for (const backend::DeviceInfo& d : backend::list_devices()) {
    if (d.usable && std::ranges::find(names, d.name) == names.end()) names.push_back(d.name);
  }
  return names;
}

std::vector<float> features(const fs::path& run, const std::string& device,
                            const std::vector<float>& x, int threads = 1) {
  return Embedder(run, {.device = device, .threads = threads}).embed(x);
}

TEST(Embedder, HiddenUnitsOfAnMlpByHand) {
  const TempFolder folder;
  const fs::path file = folder / "v.kshot";
  write_class_file(file, {.input = {.channels = 4}});
  const fs::path run = train_run(folder.path(), few_shot(file, "meta_sgd", small_mlp));
  const auto tensors = test::tensors(run / "last.safetensors");
  const auto data = data::Dataset::open(file);
  const std::vector<float> x = test::all_rows(*data);
  const auto layer = [&](const std::vector<double>& in, int number) {
    const std::string name = "theta.layers." + std::to_string(number);
    const std::vector<double> w = tensors.at(name + ".weight").to_f64();
    const std::vector<double> b = tensors.at(name + ".bias").to_f64();
    std::vector<double> out;
    for (std::size_t o = 0; o < b.size(); ++o) {
      double sum = b[o];
      for (std::size_t i = 0; i < in.size(); ++i) sum += w[o * in.size() + i] * in[i];
      out.push_back(std::tanh(sum));
    }
    return out;
  };
  for (const std::string& device : usable_devices()) {
    const std::vector<float> got = features(run, device, x);
    ASSERT_EQ(got.size(), data->header().rows() * 5);
    for (std::size_t row = 0; row < data->header().rows(); ++row) {
      std::vector<double> in(x.begin() + static_cast<long>(4 * row),
                             x.begin() + static_cast<long>(4 * row + 4));
      const std::vector<double> want = layer(layer(in, 0), 1);
      for (std::size_t i = 0; i < 5; ++i) {
        ASSERT_NEAR(static_cast<double>(got[5 * row + i]), want[i], 2e-6) << device << row;
      }
    }
  }
}

TEST(Embedder, NormLayersTakeTheStatisticsOfTrainingExamples) {
  const TempFolder folder;
  const fs::path file = folder / "i.kshot";
  // All 160 training examples are the reference set.
  write_class_file(file, {});
  const fs::path run = train_run(folder.path(), few_shot(file, "maml", R"(type = "sequential"
input = [1, 6, 6]
layers = [ { type = "norm" }, { type = "flatten" }, { type = "linear", out = 3 } ]
)"));
  const auto data = data::Dataset::open(file);
  const std::vector<float> x = test::all_rows(*data);
  const auto tensors = test::tensors(run / "last.safetensors");
  const double scale = tensors.at("theta.layers.0.weight").to_f64()[0];
  const double shift = tensors.at("theta.layers.0.bias").to_f64()[0];
  double sum = 0.0, squares = 0.0;
  const std::size_t n = 8 * 20 * 36;
  for (std::size_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]);
  for (std::size_t i = 0; i < n; ++i) {
    squares += std::pow(static_cast<double>(x[i]) - sum / static_cast<double>(n), 2);
  }
  const double mean = sum / static_cast<double>(n);
  const double deviation = std::sqrt(squares / static_cast<double>(n) + norm_epsilon);
  for (const char* device : {"reference", "cpu"}) {
    const std::vector<float> got = features(run, device, x);
    ASSERT_EQ(got.size(), x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      ASSERT_NEAR(static_cast<double>(got[i]),
                  (static_cast<double>(x[i]) - mean) / deviation * scale + shift, 1e-5)
          << device;
    }
  }
}

TEST(Embedder, FeaturesDoNotDependOnNeighboursThreadsOrDevice) {
  const TempFolder folder;
  const fs::path file = folder / "i.kshot";
  write_class_file(file, {});
  const std::vector<float> x = test::all_rows(*data::Dataset::open(file));
  for (const char* algorithm : {"maml", "abml"}) {
    std::vector<std::string> overrides;
    if (std::string(algorithm) == "abml") overrides = {"abml.samples_inner=1"};
    const fs::path run =
        train_run(folder.path(), few_shot(file, algorithm, small_conv, overrides), algorithm);
    const std::vector<float> all = features(run, "cpu", x);
    EXPECT_EQ(features(run, "cpu", x, 2), all);
    const Embedder embedder(run, {.device = "cpu", .threads = 1});
    const auto width = static_cast<std::size_t>(embedder.network().outputs());
    EXPECT_EQ(width, 6u);
    ASSERT_EQ(all.size(), x.size() / 36 * width);
    for (const std::size_t row : {0u, 17u, 123u, 299u}) {
      const std::vector<float> one = embedder.embed(std::span(x).subspan(36 * row, 36));
      for (std::size_t i = 0; i < width; ++i) EXPECT_EQ(one[i], all[row * width + i]) << row;
    }
    std::vector<float> reversed;
    for (std::size_t row = x.size() / 36; row-- > 0;) {
      reversed.insert(reversed.end(), x.begin() + static_cast<long>(36 * row),
                      x.begin() + static_cast<long>(36 * row + 36));
    }
    const std::vector<float> back = embedder.embed(reversed);
    const std::vector<float> reference = features(run, "reference", x);
    for (std::size_t row = 0; row < x.size() / 36; ++row) {
      for (std::size_t i = 0; i < width; ++i) {
        const float want = all[row * width + i];
        ASSERT_EQ(back[back.size() - (row + 1) * width + i], want) << row;
        ASSERT_NEAR(reference[row * width + i], want, 1e-4f * (1.0f + std::abs(want))) << row;
      }
    }
  }
}

TEST(Embedder, UnitLengthIsTheRunsOwn) {
  const TempFolder folder;
  const fs::path file = folder / "v.kshot";
  write_class_file(file, {.input = {.channels = 4}});
  const fs::path run =
      train_run(folder.path(), few_shot(file, "maml", small_mlp, {"data.unit_length=true"}));
  std::vector<float> x = test::all_rows(*data::Dataset::open(file));
  const std::vector<float> once = features(run, "cpu", x);
  for (float& v : x) v *= 3.0f;
  const std::vector<float> tripled = features(run, "cpu", x);
  for (std::size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(once[i], tripled[i], 1e-6f);
}

TEST(EmbedFile, KeepsClassesSplitsAndOrder) {
  const TempFolder folder;
  const fs::path file = folder / "i.kshot";
  write_class_file(file, {.rows = 21});
  const fs::path run = train_run(folder.path(), few_shot(file, "maml", small_conv));
  const Embedder embedder(run, {.device = "cpu", .threads = 1});
  const EmbeddedFile result = embed_file(embedder, file, folder / "f.kshot");
  EXPECT_EQ(result.rows, 15u * 21u);
  EXPECT_EQ(result.features, 6);
  const auto from = data::Dataset::open(file);
  const auto to = data::Dataset::open(folder / "f.kshot");
  EXPECT_EQ(to->header().input, (FeatureShape{.channels = 6}));
  ASSERT_EQ(to->header().groups.size(), from->header().groups.size());
  for (std::size_t g = 0; g < to->header().groups.size(); ++g) {
    const data::Group &a = from->header().groups[g], &b = to->header().groups[g];
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.split, b.split);
    EXPECT_EQ(a.first, b.first);
    EXPECT_EQ(a.rows, b.rows);
  }
  EXPECT_EQ(test::all_rows(*to), embedder.embed(test::all_rows(*from)));
  EXPECT_EQ(to->header().preprocessing.columns.size(), 6u);

  // An import of the written arrays gives the same features.
  const EmbeddedFile arrays = embed_file(embedder, file, folder / "f.npz");
  EXPECT_EQ(arrays.files, (std::vector<fs::path>{folder / "f.npz", folder / "f.tsv"}));
  data::ArraysImport import;
  import.output = folder / "again.kshot";
  import.source = (folder / "f.npz").string();
  import.splits.table = folder / "f.tsv";
  data::import_arrays(import);
  const auto again = data::Dataset::open(folder / "again.kshot");
  EXPECT_EQ(test::all_rows(*again), test::all_rows(*to));
  ASSERT_EQ(again->header().groups.size(), to->header().groups.size());
  for (std::size_t g = 0; g < to->header().groups.size(); ++g) {
    EXPECT_EQ(again->header().groups[g].name, to->header().groups[g].name);
    EXPECT_EQ(again->header().groups[g].split, to->header().groups[g].split);
  }
}

TEST(EmbedFile, ErrorsNameFileAndWhatWasExpected) {
  const TempFolder folder;
  const fs::path file = folder / "i.kshot";
  write_class_file(file, {});
  write_class_file(folder / "large.kshot", {.input = {1, 8, 8, true}});
  write_class_file(folder / "vectors.kshot", {.input = {.channels = 36}});
  const fs::path run = train_run(folder.path(), few_shot(file, "maml", small_conv));
  const Embedder embedder(run, {.device = "cpu", .threads = 1});
  const auto embed = [&](const char* data, const fs::path& out) {
    return error_text([&] { embed_file(embedder, folder / data, out); });
  };
  EXPECT_THAT(embed("large.kshot", folder / "o.kshot"),
              AllOf(HasSubstr("large.kshot"), HasSubstr("1 x 8 x 8"), HasSubstr("1 x 6 x 6")));
  EXPECT_THAT(embed("vectors.kshot", folder / "o.kshot"),
              AllOf(HasSubstr("vectors of 36"), HasSubstr("images 1 x 6 x 6")));
  EXPECT_THAT(embed("nothing.kshot", folder / "o.kshot"), HasSubstr("nothing.kshot"));
  EXPECT_THAT(embed("i.kshot", file), HasSubstr("it is an input of this command"));
  // The folder of the output is a file.
  for (const char* out : {"large.kshot/o.kshot", "large.kshot/o.npz"}) {
    EXPECT_THAT(embed("i.kshot", folder / out), HasSubstr("cannot write")) << out;
  }
  EXPECT_FALSE(fs::exists(folder / "o.kshot"));
  EXPECT_THAT(error_text([&] { embedder.embed(std::vector<float>(37)); }), HasSubstr("36 inputs"));

  data::DatasetHeader header;
  header.kind = data::GroupKind::tasks;
  header.input = {.channels = 36};
  header.target = TargetKind::value;
  header.outputs = 1;
  data::DatasetWriter writer(folder / "table.kshot", header);
  writer.begin_group("a", Split::train);
  writer.add(std::vector<float>(36));
  writer.add_value(std::vector<float>(1));
  writer.commit();
  EXPECT_THAT(embed("table.kshot", folder / "o.kshot"),
              AllOf(HasSubstr("table.kshot"), HasSubstr("expected a file of classes")));

  const auto open = [&](const fs::path& r, std::vector<std::string> overrides = {}) {
    return error_text([&] { Embedder(r, {.device = "cpu", .overrides = std::move(overrides)}); });
  };
  EXPECT_THAT(open(run, {"data.path=" + (folder / "moved.kshot").string()}),
              HasSubstr("moved.kshot"));
  const fs::path linear =
      train_run(folder.path(),
                few_shot(folder / "vectors.kshot", "maml", "type = \"linear\"\nlayers = [36, 3]\n"),
                "linear");
  EXPECT_THAT(open(linear), AllOf(HasSubstr("linear"), HasSubstr("expected a hidden layer")));
  const fs::path leo =
      train_run(folder.path(),
                Config::parse("algorithm = \"leo\"\nleo = { ways = 3, dim = 36, latent = 4 }\n"
                              "train = { steps = 1, meta_batch = 2, validate_every = 0 }\n"
                              "data = { source = \"file\", ways = 3, queries = 2, path = \"" +
                              (folder / "vectors.kshot").string() + "\" }\n"),
                "leo");
  EXPECT_THAT(open(leo), AllOf(HasSubstr("leo"), HasSubstr("expected a run of another algorithm")));
}

TEST(Classifier, LearnsTheTrainingClassesAndIsEvaluatedOnHeldOutExamples) {
  const TempFolder folder;
  const fs::path file = folder / "i.kshot";
  write_class_file(file, {});
  const Config config = classifier(file);
  config.check_data();
  const fs::path run = train_run(folder.path(), config);
  for (const char* device : {"cpu", "reference"}) {
    const Evaluation e = Evaluator(run, {.device = device}).run();
    EXPECT_EQ(e.shape.support, 0);
    EXPECT_EQ(e.shape.outputs, 8);
    EXPECT_TRUE(e.baselines.empty()) << "they would learn from no rows";
    ASSERT_TRUE(e.last().accuracy.has_value());
    EXPECT_GT(e.last().accuracy->mean, 0.9) << device;  // The chance rate is 1/8.
  }
  // The features also classify new classes, far better than chance (1/3), with one example per
  // class.
  embed_file(Embedder(run, {.device = "cpu"}), file, folder / "f.kshot");
  const fs::path head =
      train_run(folder.path(),
                few_shot(folder / "f.kshot", "maml", "type = \"linear\"\nlayers = [72, 3]\n",
                         {"inner.steps=3", "train.steps=20"}),
                "head");
  const Evaluation e = Evaluator(head, {.device = "cpu"}).run();
  EXPECT_GT(e.baselines[0].accuracy->mean, 0.8);
}

TEST(Classifier, EveryDeviceTakesTasksWithoutSupportRows) {
  const TempFolder folder;
  const fs::path file = folder / "v.kshot";
  write_class_file(file, {.input = {.channels = 4}});
  const Config config = Config::parse(R"(algorithm = "maml"
inner.steps = 0
network = { layers = [4, 6, 8] }
loss.type = "cross_entropy"
train = { steps = 3, meta_batch = 3, validate_every = 2, validation_episodes = 3 }
[data]
source = "file"
episodes = "minibatch"
queries = 10
path = ")" + file.string() + "\"\n");
  const auto weights = [&](const std::string& device) {
    Trainer trainer(config, {.device = device, .threads = 1});
    trainer.run();
    return trainer.parameters("theta");
  };
  const std::vector<double> expected = weights("reference");
  for (const std::string& device : usable_devices()) {
    const std::vector<double> got = weights(device);
    ASSERT_EQ(got.size(), expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], 1e-4) << device;
  }
}

TEST(Classifier, WhatDoesNotFitIsNamed) {
  const TempFolder folder;
  const fs::path file = folder / "i.kshot";
  write_class_file(file, {});
  const auto refused = [&](const std::vector<std::string>& overrides) {
    return error_text([&] {
      const Config config = classifier(file, overrides);
      config.check_data("c.toml");
      Trainer(config, {.device = "cpu"});
    });
  };
  EXPECT_THAT(refused({"inner.steps=1"}),
              AllOf(HasSubstr("data.episodes"), HasSubstr("inner.steps = 0")));
  EXPECT_THAT(refused({"algorithm=meta_sgd"}), HasSubstr("expected algorithm = \"maml\""));
  EXPECT_THAT(refused({"data.ways=5"}), HasSubstr("data.ways"));
  EXPECT_THAT(refused({"data.queries=200"}), HasSubstr("data.queries = 200"));
  EXPECT_THAT(refused({"evaluate.norm_statistics=support"}), HasSubstr("evaluate.norm_statistics"));
  write_class_file(folder / "more.kshot", {.train = 9});
  EXPECT_THAT(refused({"data.path=" + (folder / "more.kshot").string()}),
              AllOf(HasSubstr("8 outputs"), HasSubstr("9 classes")));
}

TEST(FeatureNetwork, IsTheLayersBeforeTheLastLinearOne) {
  const Network conv = Network::conv4({.height = 16, .width = 16, .filters = 3, .classes = 7});
  const Network body = feature_network(conv);
  EXPECT_EQ(body.outputs(), 3);
  EXPECT_EQ(body.input(), conv.input());
  ASSERT_EQ(body.parameters().size() + 2, conv.parameters().size());
  for (std::size_t i = 0; i < body.parameters().size(); ++i) {
    EXPECT_EQ(body.parameters()[i].name, conv.parameters()[i].name);
    EXPECT_EQ(body.parameters()[i].shape, conv.parameters()[i].shape);
    EXPECT_EQ(body.parameters()[i].offset, conv.parameters()[i].offset);
  }
  const Network mlp = feature_network(Network::mlp({3, 5, 2}, LayerType::tanh));
  EXPECT_EQ(mlp.outputs(), 5);
  EXPECT_EQ(mlp.layers().back().type, LayerType::tanh);
  EXPECT_THAT(error_text([] {
                feature_network(Network::mlp({3, 2}, LayerType::relu));
              }),
              HasSubstr("expected a hidden layer"));
}

}  // namespace
}  // namespace kshot
