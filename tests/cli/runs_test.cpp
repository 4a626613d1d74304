// Run folders that two programs must not share, data files that must not be exchanged, and results
// that state their conditions.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "cli/fixture.h"
#include "support/class_files.h"

namespace kshot::test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* classes = R"(algorithm = "maml"
inner = { steps = 1, learning_rate = 0.01 }
loss.type = "cross_entropy"
data = { source = "file", path = "i.kshot", ways = 3, shots = 1, queries = 5 }
evaluate.episodes = 20
[network]
type = "sequential"
input = [1, 6, 6]
layers = [ { type = "flatten" }, { type = "linear", out = 3 } ]
[train]
steps = 2
meta_batch = 4
validate_every = 1
validation_episodes = 4
)";

/// Writes a file of classes whose splits have different numbers of examples per class.
void write_uneven(const fs::path& path, int train_rows, int validation_rows, int test_rows) {
  data::DatasetHeader header;
  header.kind = data::GroupKind::classes;
  header.input = {1, 6, 6, true};
  header.element = data::Element::f32;
  header.preprocessing.input = header.input;
  data::DatasetWriter writer(path, header);
  RandomStream stream({3, Purpose::user, 0, 0, 0, 0});
  int number = 0;
  for (const auto& [split, rows] :
       std::vector<std::pair<Split, int>>{{Split::train, train_rows},
                                          {Split::validation, validation_rows},
                                          {Split::test, test_rows}}) {
    for (int c = 0; c < 4 && rows > 0; ++c) {
      writer.begin_group("class " + std::to_string(number++), split);
      for (int r = 0; r < rows; ++r) {
        std::vector<float> x(36);
        for (float& v : x) v = stream.normal();
        writer.add(x);
      }
    }
  }
  writer.commit();
}

/// Starts six trainings at the same time. Their seeds differ.
std::vector<std::unique_ptr<Program>> start_six(const TempFolder& folder,
                                                const std::vector<std::string>& more) {
  std::vector<std::unique_ptr<Program>> programs;
  for (int i = 0; i < 6; ++i) {
    std::vector<std::string> words = {
        "train", "c.toml", "--quiet", "--threads", "1", "--set", "seed=" + std::to_string(i + 1)};
    words.insert(words.end(), more.begin(), more.end());
    programs.push_back(std::make_unique<Program>(folder.path(), words, "out" + std::to_string(i),
                                                 "err" + std::to_string(i)));
  }
  return programs;
}

/// Checks that only one run has written here: configuration, record and checkpoint have the same
/// seed.
void expect_one_run(const fs::path& run) {
  const json record = json::parse(slurp(run / "run.json"));
  const std::string seed = "seed = " + std::to_string(record.at("seed").get<int>()) + "\n";
  EXPECT_EQ(record.at("sessions").size(), 1u) << run;
  EXPECT_THAT(slurp(run / "config.toml"), HasSubstr(seed));
  EXPECT_THAT(io::read_safetensors(run / "last.safetensors").metadata.at("config"),
              HasSubstr(seed));
  std::istringstream lines(slurp(run / "metrics.jsonl"));
  int last = 0, events = 0;
  for (std::string line; std::getline(lines, line);) {
    const json entry = json::parse(line);
    if (entry.at("kind") != "train") continue;
    EXPECT_GT(entry.at("step"), last) << run << ": metrics of two runs";
    last = entry.at("step");
  }
  for (const auto& entry : fs::directory_iterator(run)) {
    events += entry.path().filename().string().starts_with("events.");
  }
  EXPECT_EQ(events, 1) << run;
}

TEST_F(Cli, OfSixTrainingsInOneFolderOneRuns) {
  std::vector<std::unique_ptr<Program>> programs = start_six(folder_, {"--out", "run"});
  int good = 0;
  for (const auto& program : programs) {
    const int status = program->wait();
    good += status == 0;
    if (status == 0) continue;
    expect_one_line({status, program->out(), program->error()}, "another one was first");
    EXPECT_THAT(program->error(), AnyOf(HasSubstr("another training is running in it"),
                                        HasSubstr("already holds a run")));
  }
  EXPECT_EQ(good, 1);
  expect_one_run(folder_ / "run");
}

TEST_F(Cli, SixTrainingsWithoutAFolderGetSix) {
  for (const auto& program : start_six(folder_, {}))
    EXPECT_EQ(program->wait(), 0) << program->error();
  int runs = 0;
  for (const auto& entry : fs::directory_iterator(folder_ / "runs")) {
    expect_one_run(entry.path());
    ++runs;
  }
  EXPECT_EQ(runs, 6);
}

TEST_F(Cli, ALiveRunIsLeftAlone) {
  Program live(folder_.path(),
               {"train", "c.toml", "--out", "run", "--quiet", "--set", "train.steps=1000000000",
                "--set", "train.checkpoint_every=1000000000", "--set", "train.validate_every=0",
                "--set", "train.log_every=1000000000"},
               "live.txt", "live-error.txt");
  for (int i = 0; i < 6000 && !fs::exists(folder_ / "run" / "metrics.jsonl"); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  const std::string record = slurp(folder_ / "run" / "run.json");
  ASSERT_NE(record, "") << live.error();
  const std::set<std::string> before = files();
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"train", "--resume", "run"},
                                             {"train", "--resume", "run", "--set", "train.steps=5"},
                                             {"train", "c.toml", "--out", "run"},
                                             {"train", "c.toml", "--out", "./run/../run"}}) {
    const Outcome outcome = kshot(command);
    expect_one_line(outcome, testing::PrintToString(command));
    EXPECT_THAT(outcome.error, HasSubstr("another training is running in it"));
  }
  EXPECT_EQ(slurp(folder_ / "run" / "run.json"), record);
  EXPECT_EQ(files(), before);
  // The lock ends with its process, however the process ends.
  live.signal(SIGKILL);
  EXPECT_EQ(live.wait(), -SIGKILL);
  const Outcome resumed = kshot({"train", "--resume", "run", "--quiet", "--set", "train.steps=5"});
  EXPECT_EQ(resumed.status, 0) << resumed.error;
}

TEST_F(Cli, ARunThatFailsInItsFirstStepLeavesNothing) {
  for (const std::vector<std::string>& out :
       std::vector<std::vector<std::string>>{{"--out", "run"}, {}}) {
    std::vector<std::string> command = {"train", "c.toml", "--set", "inner.learning_rate=1e30"};
    command.insert(command.end(), out.begin(), out.end());
    for (int i = 0; i < 2; ++i) {
      const Outcome outcome = kshot(command);
      EXPECT_EQ(outcome.status, 2);
      EXPECT_THAT(outcome.error, AllOf(HasSubstr("step 1: "), HasSubstr("inner.learning_rate")));
      EXPECT_THAT(outcome.error, Not(HasSubstr("optimizer.learning_rate"))) << "no step was made";
      EXPECT_EQ(files(), std::set<std::string>{"c.toml"});
    }
  }
  // Other files in the folder stay.
  fs::create_directory(folder_ / "run");
  put_file(folder_ / "run" / "notes.txt", "mine");
  EXPECT_EQ(kshot({"train", "c.toml", "--out", "run", "--set", "inner.learning_rate=1e30"}).status,
            2);
  EXPECT_EQ(files(), (std::set<std::string>{"c.toml", "run", "run/notes.txt"}));
}

TEST_F(Cli, FilesOfOtherProgramsInARunFolderAreLeftAlone) {
  for (const char* name : {"run.json", "tasks.store", "run.lock", "metrics.jsonl", "config.toml"}) {
    fs::remove_all(folder_ / "run");
    fs::create_directory(folder_ / "run");
    put_file(folder_ / "run" / name, "{\"mine\": 1}");
    const Outcome outcome = kshot({"train", "c.toml", "--out", "run", "--quiet"});
    expect_one_line(outcome, name);
    EXPECT_THAT(outcome.error, AllOf(HasSubstr(name), HasSubstr("choose another folder")));
    EXPECT_EQ(slurp(folder_ / "run" / name), "{\"mine\": 1}");
    EXPECT_EQ(files(), (std::set<std::string>{"c.toml", "run", "run/" + std::string(name)}));
  }
  // A run that fails removes its own event files and no others.
  fs::remove_all(folder_ / "run");
  fs::create_directory(folder_ / "run");
  const std::string events = "events.out.tfevents.1700000000.host.1";
  put_file(folder_ / "run" / events, "mine");
  EXPECT_EQ(kshot({"train", "c.toml", "--out", "run", "--set", "inner.learning_rate=1e30"}).status,
            2);
  EXPECT_EQ(files(), (std::set<std::string>{"c.toml", "run", "run/" + events}));
  // Files that a killed training left before its first checkpoint do not block the next training.
  put_file(folder_ / "run" / "run.lock", "123\n");
  put_file(folder_ / "run" / "run.json",
           "{\n  \"algorithm\": \"maml\",\n  \"sessions\": [\n  ]\n}\n");
  const Outcome trained = kshot({"train", "c.toml", "--out", "run", "--quiet"});
  EXPECT_EQ(trained.status, 0) << trained.error;
}

TEST_F(Cli, DivergenceAfterAStepNamesTheMetaRate) {
  const Outcome outcome = kshot({"train", "c.toml", "--out", "run", "--set",
                                 "optimizer.learning_rate=1e30", "--set", "optimizer.clip_norm=0"});
  EXPECT_EQ(outcome.status, 2);
  EXPECT_THAT(outcome.error, HasSubstr("likely cause: optimizer.learning_rate is too large"));
  EXPECT_TRUE(fs::exists(folder_ / "run" / "metrics.jsonl"));
}

/// A fixture whose configuration trains on the file of classes i.kshot.
class CliClasses : public Cli {
 protected:
  void SetUp() override {
    put_file(folder_ / "c.toml", classes);
    write_class_file(folder_ / "i.kshot", {});
  }
  void train(const std::vector<std::string>& more = {}) {
    std::vector<std::string> command = {"train", "c.toml", "--out", "run"};
    command.insert(command.end(), more.begin(), more.end());
    trained_ = kshot(command);
    ASSERT_EQ(trained_.status, 0) << trained_.error;
  }
  json evaluation() const { return json::parse(slurp(folder_ / "run" / "evaluation.json")); }
  Outcome trained_;
};

TEST_F(CliClasses, AChangedDataFileIsRefused) {
  train();
  ASSERT_EQ(kshot({"evaluate", "run"}).status, 0);
  const std::string checksum = evaluation().at("data").at("checksum");
  EXPECT_FALSE(evaluation().at("data").contains("trained_on"));
  // The same file under another path is accepted.
  fs::copy_file(folder_ / "i.kshot", folder_ / "moved.kshot");
  EXPECT_EQ(kshot({"evaluate", "run", "--set", "data.path=moved.kshot"}).status, 0);
  // A file with another split would test on other classes.
  write_class_file(folder_ / "i.kshot", {.train = 7, .test = 5});
  const std::string before = slurp(folder_ / "run" / "evaluation.json");
  const std::vector<std::string> resume = {"train", "--resume", "run", "--set", "train.steps=4"};
  for (const std::vector<std::string>& command :
       {{"evaluate", "run"}, {"report", "run", "--out", "r.html"}, resume}) {
    if (command.front() == "report") fs::remove(folder_ / "run" / "evaluation.json");
    const Outcome outcome = kshot(command);
    EXPECT_EQ(outcome.status, 2) << testing::PrintToString(command);
    EXPECT_THAT(outcome.error,
                AllOf(HasSubstr("is not the data file of the training"), HasSubstr(checksum),
                      HasSubstr("8 train, 3 validation, 4 test classes"),
                      HasSubstr("7 train, 3 validation, 5 test classes"),
                      HasSubstr("--allow-changed-data")));
    EXPECT_FALSE(fs::exists(folder_ / "r.html"));
  }
  const Outcome allowed = kshot({"evaluate", "run", "--allow-changed-data"});
  ASSERT_EQ(allowed.status, 0) << allowed.error;
  EXPECT_THAT(allowed.out, HasSubstr("data file changed: trained on " + checksum));
  EXPECT_EQ(evaluation().at("data").at("trained_on"), checksum);
  fs::remove(folder_ / "run" / "evaluation.json");
  const Outcome report = kshot({"report", "run", "--out", "r.html", "--allow-changed-data"});
  ASSERT_EQ(report.status, 0) << report.error;
  EXPECT_EQ(evaluation().at("data").at("trained_on"), checksum);
  EXPECT_THAT(slurp(folder_ / "r.html"), HasSubstr("data file changed"));
  std::vector<std::string> forced = resume;
  forced.emplace_back("--allow-changed-data");
  EXPECT_EQ(kshot(forced).status, 0);
  const json sessions = json::parse(slurp(folder_ / "run" / "run.json")).at("sessions");
  EXPECT_EQ(sessions.at(0).at("data").at("changed"), false);
  EXPECT_EQ(sessions.at(1).at("data").at("changed"), true);
}

TEST_F(CliClasses, ARunIsEvaluatedAndResumedFromAnyFolder) {
  train();
  fs::create_directories(folder_ / "deep" / "er");
  const fs::path elsewhere = folder_ / "deep/er";
  const Outcome evaluated = run(elsewhere, {"evaluate", "../../run", "--out", "e.json"});
  ASSERT_EQ(evaluated.status, 0) << evaluated.error;
  EXPECT_THAT(evaluated.error, HasSubstr("as in training"));
  const Outcome resumed =
      run(elsewhere, {"train", "--resume", "../../run", "--set", "train.steps=4"});
  EXPECT_EQ(resumed.status, 0) << resumed.error;
  // Where the file is missing, the message says which paths were tried.
  fs::remove(folder_ / "i.kshot");
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"evaluate", "../../run"}, {"train", "--resume", "../../run"}}) {
    const Outcome outcome = run(elsewhere, command);
    expect_one_line(outcome, testing::PrintToString(command));
    EXPECT_THAT(outcome.error, AllOf(HasSubstr((folder_ / "i.kshot").string()),
                                     HasSubstr("--set data.path=FILE")));
  }
  const Outcome missing = run(elsewhere, {"train", "../../c.toml"});
  expect_one_line(missing, "a relative path");
  EXPECT_THAT(missing.error, AllOf(HasSubstr("data.path"), HasSubstr(elsewhere.string())));
}

TEST_F(CliClasses, OnlySplitsThatAreUsedAreChecked) {
  write_uneven(folder_ / "i.kshot", 6, 5, 20);
  // The validation classes are too small for the queries.
  const Outcome refused = kshot({"train", "c.toml", "--out", "run"});
  expect_one_line(refused, "validation is asked for");
  EXPECT_THAT(refused.error, HasSubstr("validation class"));
  train({"--set", "train.validate_every=0"});
  // The training classes are too small for more shots, but the test classes are not.
  const Outcome evaluated = kshot({"evaluate", "run", "--shots", "10"});
  EXPECT_EQ(evaluated.status, 0) << evaluated.error;
  EXPECT_THAT(evaluated.out, HasSubstr("10 shots per class"));
  for (const char* split : {"train", "validation"}) {
    const Outcome outcome = kshot({"evaluate", "run", "--shots", "10", "--split", split});
    expect_one_line(outcome, split);
    EXPECT_THAT(outcome.error, HasSubstr(std::string(split) + " class"));
  }
}

TEST_F(CliClasses, WithoutTestOrValidationClassesTheAdviceFits) {
  write_uneven(folder_ / "i.kshot", 6, 6, 0);
  train();
  EXPECT_THAT(trained_.error, HasSubstr("next: kshot evaluate run --split validation"));
  EXPECT_EQ(kshot({"evaluate", "run", "--split", "validation"}).status, 0);
  write_uneven(folder_ / "i.kshot", 6, 0, 0);
  fs::remove_all(folder_ / "run");
  train();
  EXPECT_THAT(trained_.error, AllOf(HasSubstr("next: kshot evaluate run --split train"),
                                    HasSubstr("no validation split")));
  const Outcome patience = kshot({"train", "c.toml", "--out", "p", "--set", "train.patience=3"});
  expect_one_line(patience, "validations that never come");
  EXPECT_THAT(patience.error, HasSubstr("train.patience = 3"));
}

TEST_F(CliClasses, ResultsSayWhatTheyHoldFor) {
  train();
  const Outcome evaluated = kshot({"evaluate", "run", "--split", "train", "--steps", "2"});
  ASSERT_EQ(evaluated.status, 0) << evaluated.error;
  const std::string conditions =
      "20 train episodes (seed 1000): 3-way, 1 shot per class, 3 support and 15 query rows, 2 "
      "inner "
      "steps, 1 sample";
  EXPECT_THAT(evaluated.out, HasSubstr(conditions));
  ASSERT_EQ(kshot({"report", "run", "--quick"}).status, 0);
  const std::string page = slurp(folder_ / "run" / "report.html");
  EXPECT_THAT(page, AllOf(HasSubstr("train episodes"), HasSubstr(conditions)));
  EXPECT_THAT(page, Not(HasSubstr("test episodes")));
  // Every episode is in the JSON file, and the mean is the mean of these.
  const json result = evaluation();
  EXPECT_EQ(result.at("shots"), json({1, 1}));
  EXPECT_EQ(result.at("inner_steps"), 2);
  EXPECT_EQ(result.at("scored").size(), 20u);
  for (const char* list : {"steps", "baselines"}) {
    for (const json& score : result.at(list)) {
      double sum = 0.0;
      for (const double accuracy : score.at("per_episode").at("accuracy")) sum += accuracy;
      EXPECT_EQ(score.at("per_episode").at("accuracy").size(), 20u);
      EXPECT_NEAR(sum / 20.0, score.at("accuracy").at("mean"), 1e-12);
    }
  }
  // The other run has the same episodes first, and different ones later.
  fs::copy(folder_ / "run", folder_ / "other");
  const Outcome same = kshot({"compare", "run", "other"});
  ASSERT_EQ(same.status, 0) << same.error;
  EXPECT_THAT(same.out, AllOf(HasSubstr(conditions), HasSubstr("train accuracy")));
  EXPECT_THAT(same.error, Not(HasSubstr("not comparable")));
  ASSERT_EQ(kshot({"evaluate", "other", "--shots", "5"}).status, 0);
  const Outcome differs = kshot({"compare", "run", "other"});
  ASSERT_EQ(differs.status, 0) << differs.error;
  EXPECT_THAT(differs.error, AllOf(HasSubstr("not comparable"), HasSubstr("5 shots per class")));
  EXPECT_THAT(slurp(folder_ / "comparison.html"), HasSubstr("not comparable"));
}

TEST_F(CliClasses, PathsNeedNotBeUtf8) {
  const std::string run = "run-\xff\xfe", config = "c-\xff.toml";
  fs::copy_file(folder_ / "c.toml", folder_ / config);
  const auto good = [&](const std::vector<std::string>& command) {
    const Outcome outcome = kshot(command);
    EXPECT_EQ(outcome.status, 0) << outcome.error;
  };
  good({"train", config, "--out", run});
  good({"train", config, "--quiet"});
  good({"train", "--resume", run, "--set", "train.steps=4"});
  good({"evaluate", run});
  good({"evaluate", run, "--out", "e-\xff.json"});
  good({"report", run});
  good({"compare", run, "runs/c-\xff", "--out", "c-\xff.html"});
  good({"inspect", run});
  good({"config", config, "--out", "d-\xff.toml"});
  EXPECT_TRUE(json::accept(slurp(folder_ / run / "run.json")));
  EXPECT_TRUE(json::accept(slurp(folder_ / run / "evaluation.json")));
  fs::copy_file(folder_ / "i.kshot", folder_ / "i-\xff.kshot");
  const Outcome data = kshot({"evaluate", run, "--set", "data.path=i-\xff.kshot"});
  expect_one_line(data, "a configuration is UTF-8 text");
}

}  // namespace
}  // namespace kshot::test
