// The program as a user sees it: its output, its files and its exit codes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "cli/fixture.h"
#include "io/npy.h"
#include "io/safetensors.h"
#include "kshot/evaluator.h"
#include "kshot/random.h"
#include "support/class_files.h"
#include "support/put_file.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST_F(Cli, EveryCommandHasHelpWithExamples) {
  const Outcome all = kshot({"--help"});
  EXPECT_EQ(all.status, 0);
  for (const char* command :
       {"train", "evaluate", "adapt", "report", "compare", "plan", "inspect", "devices", "config",
        "verify", "demo", "import", "embed", "calibrate"}) {
    EXPECT_THAT(all.out, HasSubstr(command));
    const Outcome help = kshot({command, "--help"});
    EXPECT_EQ(help.status, 0) << command;
    EXPECT_THAT(help.out, HasSubstr("Example"));
    EXPECT_THAT(help.out, HasSubstr("kshot " + std::string(command)));
  }
  EXPECT_THAT(kshot({"--version"}).out, StartsWith("kshot "));
}

TEST_F(Cli, WrongUsageIsOneLineAndStatus2) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{},
                                             {"trian", "c.toml"},
                                             {"train"},
                                             {"train", "c.toml", "--treads", "2"},
                                             {"train", "c.toml", "--threads", "-1"},
                                             {"train", "c.toml", "--threads", "two"},
                                             {"train", "--resume", "run", "--out", "other"},
                                             {"evaluate"},
                                             {"embed"},
                                             {"embed", "run"},
                                             {"evaluate", "run", "--norm", "layer"},
                                             {"verify", "case", "--precision", "f16"},
                                             {"config"},
                                             {"config", "c.toml", "--reference"},
                                             {"compare", "one"}}) {
    expect_one_line(kshot(arguments), testing::PrintToString(arguments));
  }
  EXPECT_THAT(kshot({"trian", "c.toml"}).error,
              testing::AllOf(HasSubstr("unknown command 'trian'"), HasSubstr("train")));
  EXPECT_EQ(files(), std::set<std::string>{"c.toml"});
}

TEST_F(Cli, BadInputIsOneLineThatNamesIt) {
  put_file(folder_ / "key.toml", std::string(maml) + "lerning_rate = 1\n");
  put_file(folder_ / "broken.toml", "algorithm = \n");
  put_file(folder_ / "file", "not a folder");
  put_file(folder_ / "nan.csv", "x,y\n1,nan\n");
  const std::set<std::string> before = files();
  struct Bad {
    std::vector<std::string> arguments;
    std::string expected;
  };
  for (const Bad& bad :
       std::vector<Bad>{{{"train", "missing.toml"}, "missing.toml"},
                        {{"train", "key.toml"}, "lerning_rate"},
                        {{"train", "broken.toml"}, "broken.toml"},
                        {{"train", "c.toml", "--set", "inner.stepps=3"}, "inner.steps"},
                        {{"train", "c.toml", "--set", "inner.steps=many"}, "inner.steps"},
                        {{"train", "c.toml", "--set", "train.meta_batch=0"}, "train.meta_batch"},
                        {{"train", "c.toml", "--set", "loss.type=cross_entropy"}, "loss"},
                        {{"train", "c.toml", "--set", "network.layers=2,8,1"}, "2"},
                        {{"train", "c.toml", "--set", "inner.adapt=head.*"}, "head.*"},
                        {{"train", "c.toml", "--device", "cuda"}, "cuda"},
                        {{"train", "c.toml", "--device", "gpu"}, "gpu"},
                        {{"train", "c.toml", "--out", "file/run"}, "file/run"},
                        {{"train", "c.toml", "--out", "file"}, "file"},
                        {{"train", "--resume", "nowhere"}, "nowhere"},
                        {{"evaluate", "nowhere"}, "nowhere"},
                        {{"evaluate", "c.toml"}, "c.toml"},
                        {{"adapt", "nowhere", "--support", "a", "--query", "b"}, "nowhere"},
                        {{"embed", "nowhere", "--out", "f.kshot"}, "nowhere"},
                        {{"report", "nowhere"}, "nowhere"},
                        {{"compare", "nowhere", "either"}, "nowhere"},
                        {{"plan", "missing.toml"}, "missing.toml"},
                        {{"inspect", "nothing.npz"}, "nothing.npz"},
                        {{"inspect", "c.toml"}, "c.toml"},
                        {{"config", "--template", "mamll"}, "mamll"},
                        {{"verify", "nowhere"}, "case.toml"},
                        {{"verify", "nowhere", "--device", "simt"}, "case.toml"}}) {
    const Outcome outcome = kshot(bad.arguments);
    expect_one_line(outcome, testing::PrintToString(bad.arguments));
    EXPECT_THAT(outcome.error, HasSubstr(bad.expected));
  }
  EXPECT_EQ(files(), before) << "something was left behind";
}

TEST_F(Cli, AnUnwritableFolderIsSaidBeforeAnyWork) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write anywhere";
  fs::create_directory(folder_ / "locked");
  fs::permissions(folder_ / "locked", fs::perms::owner_read | fs::perms::owner_exec);
  const Outcome outcome = kshot({"train", "c.toml", "--out", "locked/run"});
  fs::permissions(folder_ / "locked", fs::perms::owner_all);
  expect_one_line(outcome, "locked");
  EXPECT_THAT(outcome.error, HasSubstr("locked/run"));
}

TEST_F(Cli, AFullDiskIsOneLineAndLeavesNoHalfFile) {
  Program program(folder_.path(), {"config", "--template", "maml"}, "/dev/full");
  EXPECT_EQ(program.wait(), 2);
  EXPECT_THAT(program.error(), HasSubstr("standard output"));

  // Files may not grow beyond 2 blocks of the shell (at most 2 kB), so that the checkpoint does not
  // fit.
  put_file(folder_ / "limited.sh", "trap '' XFSZ\nulimit -f 2\nexec " KSHOT_CLI
                                   " train c.toml --out run >stdout.txt 2>stderr.txt\n");
  const std::string command = "cd '" + folder_.path().string() + "' && sh limited.sh";
  const int status = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 2);
  const std::string error = slurp(folder_ / "stderr.txt");
  EXPECT_THAT(error, HasSubstr("last.safetensors"));
  EXPECT_FALSE(fs::exists(folder_ / "run")) << "so that the same command works once there is room";
}

TEST_F(Cli, ConfigurationsPrintAsTheyAreRead) {
  const Outcome resolved = kshot({"config", "c.toml", "--set", "inner.steps=7"});
  EXPECT_EQ(resolved.status, 0) << resolved.error;
  EXPECT_THAT(resolved.out, HasSubstr("steps = 7"));
  put_file(folder_ / "resolved.toml", resolved.out);
  EXPECT_EQ(kshot({"config", "resolved.toml"}).out, resolved.out);
  for (const char* algorithm : {"maml", "meta_sgd", "abml", "leo", "hvi", "protonet", "r2d2",
                                "bayes_protonet", "alpaca", "dkt"}) {
    put_file(folder_ / "starter.toml", kshot({"config", "--template", algorithm}).out);
    EXPECT_EQ(kshot({"config", "starter.toml"}).status, 0) << algorithm;
  }
}

/// Features [classes, examples, 6] around one centre per class.
io::NpyArray features(std::size_t classes, std::size_t examples) {
  RandomStream random({.seed = 4, .purpose = Purpose::user});
  std::vector<double> x;
  for (std::size_t c = 0; c < classes; ++c) {
    std::vector<double> centre;
    for (int i = 0; i < 6; ++i) centre.push_back(2.0 * random.normal());
    for (std::size_t e = 0; e < examples; ++e) {
      for (const double at : centre) x.push_back(at + random.normal());
    }
  }
  return io::NpyArray::from(std::span<const double>(x), {classes, examples, 6});
}

TEST_F(Cli, LeoOnFeatures) {
  io::write_npy(folder_ / "x.npy", features(20, 9));
  ASSERT_EQ(kshot({"import", "arrays", "x.npy", "-o", "f.kshot"}).status, 0);
  put_file(folder_ / "leo.toml", R"(algorithm = "leo"
leo = { ways = 3, dim = 6, latent = 4, latent_steps = 2, finetune_steps = 2, dropout_rate = 0.2 }
data = { source = "file", path = "f.kshot", ways = 3, shots = 2, queries = 4, unit_length = true }
evaluate.episodes = 40
[optimizer]
clip_value = 0.1
clip_norm = 0.1
clip_norm_of = "tensor"
nan_guard = true
[train]
steps = 12
meta_batch = 10
validate_every = 6
validation_episodes = 16
)");
  const Outcome train = kshot({"train", "leo.toml", "--out", "a", "--threads", "2", "--quiet"});
  ASSERT_EQ(train.status, 0) << train.error;
  ASSERT_EQ(kshot({"train", "leo.toml", "--out", "b", "--set", "train.steps=5", "--quiet"}).status,
            0);
  ASSERT_EQ(
      kshot({"train", "--resume", "b", "--set", "train.steps=12", "--threads", "1", "--quiet"})
          .status,
      0);
  EXPECT_EQ(tensors("a/last.safetensors"), tensors("b/last.safetensors")) << "bit for bit";
  EXPECT_TRUE(tensors("a/last.safetensors").contains("theta.relation.1.weight"));

  const Outcome evaluate = kshot({"evaluate", "a", "--device", "reference"});
  ASSERT_EQ(evaluate.status, 0) << evaluate.error;
  EXPECT_THAT(evaluate.out, HasSubstr("leo, 4 steps"));
  EXPECT_THAT(evaluate.out, HasSubstr("nearest centroid"));
  EXPECT_EQ(kshot({"evaluate", "a", "--set", "data.shots=4"}).status, 0)
      << "another number of shots";

  // One new task, whose classes are in any order.
  const io::NpyArray rows = features(3, 2);
  io::write_npz(folder_ / "support.npz",
                {{"x", io::NpyArray::from(std::span<const double>(rows.to_f64()), {6, 6})},
                 {"y", io::NpyArray::from(
                           std::span<const double>(std::vector<double>{2, 2, 0, 0, 1, 1}), {6})}});
  io::write_npz(folder_ / "query.npz",
                {{"x", io::NpyArray::from(std::span<const double>(rows.to_f64()), {6, 6})}});
  const Outcome adapt = kshot({"adapt", "a", "--support", "support.npz", "--query", "query.npz"});
  ASSERT_EQ(adapt.status, 0) << adapt.error;
  EXPECT_EQ(tensors("adapted/adapted.safetensors").at("theta.head.weight").shape,
            (std::vector<std::size_t>{3, 6}));
  // A class with too few rows gives a message of one line.
  io::write_npz(folder_ / "support.npz",
                {{"x", io::NpyArray::from(std::span<const double>(rows.to_f64()), {6, 6})},
                 {"y", io::NpyArray::from(
                           std::span<const double>(std::vector<double>{2, 2, 2, 0, 1, 1}), {6})}});
  const Outcome uneven =
      kshot({"adapt", "a", "--support", "support.npz", "--query", "query.npz", "--out", "uneven"});
  expect_one_line(uneven, "classes of different size");
  EXPECT_THAT(uneven.error, HasSubstr("support rows, expected 2 as every class"));

  EXPECT_EQ(kshot({"report", "a", "--quick"}).status, 0);
  EXPECT_EQ(kshot({"compare", "a", "b"}).status, 0);
  EXPECT_THAT(kshot({"plan", "leo.toml"}).out, HasSubstr("tasks"));
}

TEST_F(Cli, ImagesToFeaturesToLeo) {
  write_class_file(folder_ / "i.kshot", {});
  put_file(folder_ / "classifier.toml", R"(algorithm = "maml"
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
path = "i.kshot"
episodes = "minibatch"
queries = 16
[train]
steps = 30
meta_batch = 2
validate_every = 15
validation_episodes = 4
[evaluate]
episodes = 5
)");
  ASSERT_EQ(kshot({"train", "classifier.toml", "--out", "c"}).status, 0);
  const Outcome evaluated = kshot({"evaluate", "c"});
  EXPECT_EQ(evaluated.status, 0) << evaluated.error;
  EXPECT_THAT(evaluated.out, testing::Not(HasSubstr("nearest centroid")));
  const Outcome reported = kshot({"report", "c"});
  EXPECT_EQ(reported.status, 0) << reported.error;
  const Outcome embedded = kshot({"embed", "c", "--out", "f.kshot"});
  ASSERT_EQ(embedded.status, 0) << embedded.error;
  EXPECT_THAT(embedded.out, HasSubstr("72 features of 300 examples"));
  EXPECT_THAT(kshot({"inspect", "f.kshot"}).out,
              testing::AllOf(HasSubstr("inputs 72"), HasSubstr("norm statistics of 160")));

  put_file(folder_ / "leo.toml", R"(algorithm = "leo"
leo = { ways = 3, dim = 72, latent = 8, latent_steps = 2, finetune_steps = 1 }
data = { source = "file", path = "f.kshot", ways = 3, queries = 5, unit_length = true }
train = { steps = 5, meta_batch = 4, validate_every = 0 }
evaluate.episodes = 20
)");
  ASSERT_EQ(kshot({"train", "leo.toml", "--out", "leo"}).status, 0);
  EXPECT_THAT(kshot({"evaluate", "leo"}).out, HasSubstr("nearest centroid"));
  const Outcome compared = kshot({"compare", "c", "leo"});
  EXPECT_EQ(compared.status, 0) << compared.error;

  const std::set<std::string> before = files();
  const auto refused = [&](const std::vector<std::string>& arguments, const char* expected) {
    const Outcome outcome = kshot(arguments);
    expect_one_line(outcome, testing::PrintToString(arguments));
    EXPECT_THAT(outcome.error, HasSubstr(expected));
  };
  refused({"embed", "leo", "--out", "g.kshot"}, "expected a run of another algorithm");
  refused({"embed", "c", "--data", "f.kshot", "--out", "g.kshot"}, "the network takes images");
  refused({"embed", "c", "--out", "i.kshot"}, "is an input of this command");
  refused({"evaluate", "leo", "--set", "data.path=i.kshot"}, "72");
  refused({"evaluate", "leo", "--shots", "16"}, "data.shots = 16");
  refused({"evaluate", "c", "--steps", "1"}, "evaluate.steps = 1");
  EXPECT_EQ(files(), before) << "something was left behind";
}

TEST_F(Cli, LeoGeneratesANetwork) {
  put_file(folder_ / "leo.toml", R"(algorithm = "leo"
loss.type = "mse"
network.layers = [1, 8, 1]
leo = { latent = 4, latent_steps = 2, finetune_steps = 1, latent_lr_init = 0.0001, finetune_lr_init = 0.0001, kl = "analytic" }
data = { source = "sine_line", shots = 5, queries = 5, noise_std = 0.3 }
evaluate = { episodes = 30, samples = 4 }
[train]
steps = 6
meta_batch = 20
validate_every = 3
validation_episodes = 16
)");
  const Outcome train = kshot({"train", "leo.toml", "--out", "a", "--quiet"});
  ASSERT_EQ(train.status, 0) << train.error;
  const Outcome evaluate = kshot({"evaluate", "a"});
  ASSERT_EQ(evaluate.status, 0) << evaluate.error;
  EXPECT_THAT(evaluate.out, HasSubstr("leo, 3 steps"));
  const Outcome report = kshot({"report", "a", "--out", "r.html"});
  ASSERT_EQ(report.status, 0) << report.error;
  EXPECT_THAT(slurp(folder_ / "r.html"), HasSubstr("Task 1"));
}

TEST_F(Cli, FromTrainingToComparison) {
  const Outcome train = kshot({"train", "c.toml", "--out", "a", "--threads", "2"});
  ASSERT_EQ(train.status, 0) << train.error;
  EXPECT_THAT(train.error, HasSubstr("kshot evaluate a"));
  EXPECT_EQ(train.error.find('\r'), std::string::npos) << "plain lines in a pipe";
  ASSERT_EQ(kshot({"train", "c.toml", "--out", "b", "--set", "inner.steps=1", "--quiet"}).status,
            0);
  expect_one_line(kshot({"train", "c.toml", "--out", "a", "--quiet"}), "a run is not overwritten");

  const Outcome evaluate = kshot({"evaluate", "a", "--steps", "3", "--episodes", "20"});
  ASSERT_EQ(evaluate.status, 0) << evaluate.error;
  EXPECT_THAT(evaluate.out, HasSubstr("maml, 3 steps"));
  EXPECT_THAT(evaluate.out, HasSubstr("support mean"));
  const auto json = nlohmann::json::parse(slurp(folder_ / "a" / "evaluation.json"));
  EXPECT_EQ(json.at("episodes"), 20);
  EXPECT_EQ(json.at("steps").size(), 4u);
  const Outcome one_thread =
      kshot({"evaluate", "a", "--steps", "3", "--episodes", "20", "--threads", "1"});
  EXPECT_EQ(one_thread.out, evaluate.out);

  const Outcome report = kshot({"report", "a", "--quick"});
  ASSERT_EQ(report.status, 0) << report.error;
  EXPECT_THAT(slurp(folder_ / "a" / "report.html"), HasSubstr("<svg"));
  const Outcome compare = kshot({"compare", "a", "b"});
  ASSERT_EQ(compare.status, 0) << compare.error;
  EXPECT_THAT(compare.out, HasSubstr("inner.steps:  a = 2  b = 1"));
  EXPECT_THAT(slurp(folder_ / "comparison.html"), HasSubstr("<svg"));
  const Outcome inspect = kshot({"inspect", "a"});
  EXPECT_EQ(inspect.status, 0) << inspect.error;
  EXPECT_THAT(inspect.out, HasSubstr("theta.layers.0.weight"));
}

TEST_F(Cli, SeveralNumbersOfShotsAreOneTableAndOnePlot) {
  ASSERT_EQ(kshot({"train", "c.toml", "--out", "run", "--set", "data.shots=1,5", "--quiet"}).status,
            0);
  const Outcome all = kshot({"evaluate", "run", "--shots", "5,1,2", "--episodes", "30"});
  ASSERT_EQ(all.status, 0) << all.error;
  EXPECT_THAT(all.out, testing::ContainsRegex("\n1 +maml.*\n +support mean(.|\n)*\n2 +maml"
                                              "(.|\n)*\n5 +maml"));
  const std::string text = slurp(folder_ / "run" / "evaluation-shots.json");
  const ShotsEvaluation read = ShotsEvaluation::from_json(text);
  ASSERT_EQ(read.by_shots.size(), 3u);
  EXPECT_EQ(read.to_json(), text);
  // The numbers equal those of a separate evaluation.
  const Outcome two = kshot({"evaluate", "run", "--shots", "2", "--episodes", "30"});
  ASSERT_EQ(two.status, 0) << two.error;
  const Evaluation alone = Evaluation::from_json(slurp(folder_ / "run" / "evaluation.json"));
  EXPECT_EQ(read.by_shots[1].second.last().mse->mean, alone.last().mse->mean);
  EXPECT_EQ(alone.support, CountRange(2));
  EXPECT_THAT(slurp(folder_ / "run" / "evaluation-shots.html"), HasSubstr("Error against shots"));
  EXPECT_EQ(kshot({"report", "run"}).status, 0);

  for (const char* wrong : {"1,x", "1,,2", "-1,2", "1,2,1", "1.5,2"}) {
    const Outcome refused = kshot({"evaluate", "run", std::string("--shots=") + wrong});
    expect_one_line(refused, wrong);
    EXPECT_THAT(refused.error, HasSubstr("--shots"));
  }
}

TEST_F(Cli, HviTrainsResumesEvaluatesAdaptsAndCompares) {
  put_file(folder_ / "h.toml", R"(algorithm = "hvi"
network.layers = [1, 12, 1]
loss = { type = "gaussian_nll", noise_std = 0.3 }
inner = { steps = 3, learning_rate = 0.01 }
hvi = { bound = "vb", samples = 2 }
data = { shots = 4, queries = 5, tasks = 40 }
[train]
steps = 20
meta_batch = 16
validate_every = 10
validation_episodes = 20
[evaluate]
episodes = 30
samples = 6
)");
  const Outcome plan = kshot({"plan", "h.toml", "--set", "data.tasks=1000000"});
  ASSERT_EQ(plan.status, 0) << plan.error;
  EXPECT_THAT(plan.out, HasSubstr("1000000 tasks"));
  ASSERT_EQ(kshot({"train", "h.toml", "--out", "h", "--quiet", "--set", "train.steps=12"}).status,
            0);
  EXPECT_TRUE(fs::exists(folder_ / "h" / "tasks.store"));
  ASSERT_EQ(kshot({"train", "--resume", "h", "--quiet", "--set", "train.steps=20"}).status, 0);
  const Outcome evaluate = kshot({"evaluate", "h", "--steps", "5"});
  ASSERT_EQ(evaluate.status, 0) << evaluate.error;
  EXPECT_THAT(evaluate.out, AllOf(HasSubstr("hvi, 5 steps"), HasSubstr("in 90 % band")));
  put_file(folder_ / "support.csv", "x,y\n-1,0.5\n0.5,1.5\n2,-1\n");
  put_file(folder_ / "query.csv", "x,y\n0,1\n1,0.25\n");
  const Outcome adapt = kshot({"adapt", "h", "--support", "support.csv", "--query", "query.csv"});
  ASSERT_EQ(adapt.status, 0) << adapt.error;
  EXPECT_TRUE(tensors("adapted/adapted.safetensors").contains("log_sigma.layers.1.bias"));
  ASSERT_EQ(kshot({"train", "c.toml", "--out", "m", "--quiet"}).status, 0);
  const Outcome report = kshot({"report", "h", "--out", "r.html"});
  ASSERT_EQ(report.status, 0) << report.error;
  EXPECT_THAT(slurp(folder_ / "r.html"), HasSubstr("<svg"));
  const Outcome compare = kshot({"compare", "h", "m"});
  ASSERT_EQ(compare.status, 0) << compare.error;

  // The store belongs to another program, and the meta-batch has more tasks than there are.
  put_file(folder_ / "h" / "tasks.store", "something else");
  expect_one_line(kshot({"train", "--resume", "h", "--quiet", "--set", "train.steps=30"}),
                  "not a task store");
  expect_one_line(kshot({"train", "h.toml", "--out", "few", "--set", "data.tasks=15"}),
                  "there are 15");
}

TEST_F(Cli, ReportRefusesRecordsThatAreNotItsOwn) {
  ASSERT_EQ(kshot({"train", "c.toml", "--out", "run", "--quiet"}).status, 0);
  const std::string metrics = slurp(folder_ / "run" / "metrics.jsonl");
  for (const char* line :
       {"{\"kind\": 5}", "{\"kind\": \"train\", \"task_loss\": \"low\"}", "[]"}) {
    put_file(folder_ / "run" / "metrics.jsonl", metrics + line + "\n");
    const Outcome outcome = kshot({"report", "run", "--out", "r.html"});
    expect_one_line(outcome, line);
    EXPECT_THAT(outcome.error, HasSubstr("metrics.jsonl"));
  }
}

TEST_F(Cli, AFullReportShowsNewTasks) {
  ASSERT_EQ(kshot({"train", "c.toml", "--out", "run", "--quiet"}).status, 0);
  const Outcome report = kshot({"report", "run", "--out", "r.html"});
  ASSERT_EQ(report.status, 0) << report.error;
  const std::string html = slurp(folder_ / "r.html");
  for (const char* part :
       {"Task 3", "prior", "10 shots", "Error against shots", "Error against inner steps"}) {
    EXPECT_THAT(html, HasSubstr(part));
  }
}

TEST_F(Cli, AdaptsToATaskFromFiles) {
  ASSERT_EQ(kshot({"train", "c.toml", "--out", "run", "--quiet"}).status, 0);
  put_file(folder_ / "support.csv", "x,y\n-1,0.5\n0.5,1.5\n2,-1\n");
  put_file(folder_ / "query.csv", "x,y\n0,1\n1,0.25\n");
  const Outcome outcome =
      kshot({"adapt", "run", "--support", "support.csv", "--query", "query.csv"});
  ASSERT_EQ(outcome.status, 0) << outcome.error;
  EXPECT_THAT(outcome.out, HasSubstr("mean squared error"));
  const auto arrays = io::read_npz(folder_ / "adapted" / "predictions.npz");
  const std::vector<double> p = arrays.at("prediction").to_f64();
  ASSERT_EQ(p.size(), 2u);
  // The CSV file has the same predictions, and so has a network with the adapted weights.
  std::istringstream csv(slurp(folder_ / "adapted" / "predictions.csv"));
  std::string line;
  std::getline(csv, line);
  EXPECT_EQ(line, "row,y,y_true");
  const auto w = tensors("adapted/adapted.safetensors");
  const auto w0 = w.at("theta.layers.0.weight").to_f64(), b0 = w.at("theta.layers.0.bias").to_f64();
  const auto w1 = w.at("theta.layers.1.weight").to_f64(), b1 = w.at("theta.layers.1.bias").to_f64();
  for (std::size_t i = 0; i < 2; ++i) {
    std::getline(csv, line);
    EXPECT_NEAR(std::stod(line.substr(line.find(',') + 1)), p[i], 1e-5);
    double expected = b1[0];
    for (std::size_t h = 0; h < 12; ++h) {
      expected += w1[h] * std::max(0.0, w0[h] * static_cast<double>(i) + b0[h]);
    }
    EXPECT_NEAR(p[i], expected, 1e-4);
  }
  // Arrays with the same rows give the same predictions.
  const std::vector<double> x = {-1, 0.5, 2}, y = {0.5, 1.5, -1}, q = {0, 1};
  using Doubles = std::span<const double>;
  io::write_npz(folder_ / "support.npz", {{"x", io::NpyArray::from(Doubles(x), {3, 1})},
                                          {"y", io::NpyArray::from(Doubles(y), {3})}});
  io::write_npz(folder_ / "query.npz", {{"x", io::NpyArray::from(Doubles(q), {2, 1})}});
  ASSERT_EQ(
      kshot({"adapt", "run", "--support", "support.npz", "--query", "query.npz", "--out", "again"})
          .status,
      0);
  EXPECT_EQ(io::read_npz(folder_ / "again" / "predictions.npz").at("prediction").to_f64(), p);

  for (const auto& [text, expected] :
       std::map<std::string, std::string>{{"x\n1\n", "no targets"},
                                          {"x,y\n1,apple\n", "apple"},
                                          {"x,y\n", ""},
                                          {"x,z,y\n1,2,3\n", "features"}}) {
    put_file(folder_ / "bad.csv", text);
    const Outcome bad =
        kshot({"adapt", "run", "--support", "bad.csv", "--query", "query.csv", "--out", "bad"});
    expect_one_line(bad, text);
    EXPECT_THAT(bad.error, HasSubstr("bad.csv"));
    EXPECT_THAT(bad.error, HasSubstr(expected));
    EXPECT_FALSE(fs::exists(folder_ / "bad"));
  }
}

std::uint64_t step_of(const fs::path& checkpoint) {
  const io::SafeTensors content = io::read_safetensors(checkpoint);
  return nlohmann::json::parse(content.metadata.at("state")).at("step").get<std::uint64_t>();
}

/// Waits until the training has written a checkpoint after its first step. Returns false on a
/// timeout.
bool wait_for_steps(const fs::path& run) {
  for (int i = 0; i < 6000; ++i) {
    const fs::path checkpoint = run / "last.safetensors";
    if (fs::exists(checkpoint) && step_of(checkpoint) > 0) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

/// A run that a signal stops at some step and that is resumed to a later step equals a run that
/// never stopped.
class CliSignal : public Cli, public testing::WithParamInterface<int> {};

TEST_P(CliSignal, StoppedRunGoesOnBitForBit) {
  const int signal = GetParam();
  const std::vector<std::string> settings = {"--quiet", "--set", "train.checkpoint_every=50",
                                             "--set", "train.validate_every=0"};
  std::vector<std::string> arguments = {"train",   "c.toml", "--out",
                                        "stopped", "--set",  "train.steps=1000000000"};
  arguments.insert(arguments.end(), settings.begin(), settings.end());
  Program program(folder_.path(), arguments);
  ASSERT_TRUE(wait_for_steps(folder_ / "stopped")) << program.error();
  program.signal(signal);
  EXPECT_EQ(program.wait(), signal == SIGKILL ? -SIGKILL : 128 + signal);
  const fs::path checkpoint = folder_ / "stopped" / "last.safetensors";
  const std::uint64_t stopped_at = step_of(checkpoint);
  EXPECT_GT(stopped_at, 0u);
  const std::string steps = "train.steps=" + std::to_string(stopped_at + 30);
  const Outcome resumed = kshot({"train", "--resume", "stopped", "--set", steps, "--quiet"});
  ASSERT_EQ(resumed.status, 0) << resumed.error;
  EXPECT_EQ(step_of(checkpoint), stopped_at + 30);
  arguments = {"train", "c.toml", "--out", "straight", "--set", steps};
  arguments.insert(arguments.end(), settings.begin(), settings.end());
  ASSERT_EQ(kshot(arguments).status, 0);
  EXPECT_EQ(tensors("stopped/last.safetensors"), tensors("straight/last.safetensors"));
}

INSTANTIATE_TEST_SUITE_P(All, CliSignal, testing::Values(SIGINT, SIGTERM, SIGHUP, SIGKILL),
                         [](const auto& parameter) {
                           return parameter.param == SIGINT    ? "Interrupt"
                                  : parameter.param == SIGTERM ? "Terminate"
                                  : parameter.param == SIGHUP  ? "HangUp"
                                                               : "Kill";
                         });

TEST_F(Cli, VerifyExitsByTheResult) {
  const fs::path shared = fs::path(KSHOT_SHARED_DIR) / "cases" / "maml_mlp_relu_1step";
  if (!fs::exists(shared)) GTEST_SKIP() << "the shared cases are not here: " << shared;
  fs::create_directory(folder_ / "case");
  for (const char* name : {"case.toml", "inputs.npz", "expected.npz"}) {
    fs::copy_file(shared / name, folder_ / "case" / name);
  }
  const Outcome good = kshot({"verify", "case"});
  EXPECT_EQ(good.status, 0) << good.error;
  EXPECT_THAT(good.out, HasSubstr("grad.theta.layers.2.bias"));
  EXPECT_EQ(kshot({"verify", "case", "--device", "cpu", "--precision", "f32"}).status, 0);
  for (const char* device : {"cuda:99", "tpu"}) {
    expect_one_line(kshot({"verify", "case", "--device", device}), device);
  }
  expect_one_line(kshot({"verify", "case", "--precision", "f32"}), "reference in f32");
  // The written file is a case's expected.npz, but it must not replace the one that is read.
  expect_one_line(kshot({"verify", "case", "--out", "case/expected.npz"}), "an input");
  EXPECT_EQ(kshot({"verify", "case", "--out", "result.npz"}).status, 0);
  fs::copy_file(folder_ / "result.npz", folder_ / "case" / "expected.npz",
                fs::copy_options::overwrite_existing);
  EXPECT_EQ(kshot({"verify", "case"}).status, 0);
  auto arrays = io::read_npz(folder_ / "case" / "expected.npz");
  const double loss = arrays.at("loss").to_f64()[0] * 1.001;
  arrays.insert_or_assign("loss", io::NpyArray::from(std::span<const double>(&loss, 1), {}));
  io::write_npz(folder_ / "case" / "expected.npz", arrays);
  const Outcome bad = kshot({"verify", "case"});
  EXPECT_EQ(bad.status, 1);
  EXPECT_THAT(bad.out, HasSubstr("OUT OF TOLERANCE"));
  put_file(folder_ / "case" / "inputs.npz", "no zip");
  expect_one_line(kshot({"verify", "case"}), "damaged inputs");
}

TEST_F(Cli, PlanAndDevices) {
  const Outcome plan = kshot({"plan", "c.toml", "--gflops", "10"});
  EXPECT_EQ(plan.status, 0) << plan.error;
  // There are 24 multiply-adds per example. Two inner gradients and two Hessian-vector products use
  // 4 rows, and the outer gradient uses 5: 48 * (2 * 4 * 9 + 5 * 3) = 4176.
  EXPECT_THAT(plan.out, HasSubstr("4.18 kFLOP"));
  EXPECT_EQ(kshot({"plan", "c.toml"}).status, 0);
  const Outcome devices = kshot({"devices"});
  EXPECT_THAT(devices.out, HasSubstr("reference"));
  EXPECT_THAT(devices.out, HasSubstr("cuda"));
}

TEST_F(Cli, DemoWritesItsReport) {
  const Outcome demo = kshot({"demo", "--seconds", "2", "--out", "d"});
  ASSERT_EQ(demo.status, 0) << demo.error;
  EXPECT_THAT(demo.out, HasSubstr("d/report.html"));
  const std::string html = slurp(folder_ / "d" / "report.html");
  EXPECT_THAT(demo.out, testing::ContainsRegex("\n +1  ABML .*\n +1  MAML .*\n +1  ALPACA .*\n"
                                               " +5  ABML "));
  for (const char* part :
       {"ABML", "MAML", "ALPACA", "10 shots", "Coverage", "Error against shots"}) {
    EXPECT_THAT(html, HasSubstr(part));
  }
  EXPECT_EQ(
      html.find("http://") == std::string::npos || html.find("src=\"http") == std::string::npos,
      true)
      << "self-contained";
}

}  // namespace
}  // namespace kshot::test
