// No command replaces an input or a file that kshot did not write. Each command makes the folders
// that it needs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "cli/fixture.h"
#include "io/npy.h"
#include "support/class_files.h"

namespace kshot::test {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* patients = "patient,x,score\na,1,2\na,2,3\nb,1,4\nb,2,5\nc,3,1\nc,1,1\n";
const std::vector<std::string> table_options = {"--task", "patient",     "--target",
                                                "score",  "--fractions", "1,0,0"};

std::vector<std::string> joined(std::vector<std::string> words,
                                const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST_F(Cli, ImportsLeaveTheirSourcesAlone) {
  put_file(folder_ / "t.csv", patients);
  fs::create_symlink("t.csv", folder_ / "link.kshot");
  fs::create_hard_link(folder_ / "t.csv", folder_ / "hard.kshot");
  const std::vector<double> x(24, 1.0);
  io::write_npy(folder_ / "x.npy", io::NpyArray::from(std::span(x), {4, 3, 2}));
  const std::string arrays = slurp(folder_ / "x.npy");
  put_file(folder_ / "b.zip", "PK");
  for (const char* out : {"t.csv", "./t.csv", "link.kshot", "hard.kshot", "x.npy", "b.zip"}) {
    for (const std::vector<std::string>& command :
         {joined({"import", "table", "t.csv", "-o", out}, table_options),
          {"import", "arrays", "x.npy", "-o", out},
          {"import", "images", "b.zip", "-o", out},
          {"import", "omniglot", "b.zip", "-o", out}}) {
      const Outcome outcome = kshot(command);
      expect_one_line(outcome, testing::PrintToString(command));
      EXPECT_THAT(outcome.error, HasSubstr("cannot write " + std::string(out)));
    }
  }
  EXPECT_EQ(slurp(folder_ / "t.csv"), patients);
  EXPECT_EQ(slurp(folder_ / "x.npy"), arrays);
  EXPECT_EQ(slurp(folder_ / "b.zip"), "PK");
}

TEST_F(Cli, ImportsMakeFoldersAndSayWhatTheyReplace) {
  put_file(folder_ / "t.csv", patients);
  const std::vector<std::string> command =
      joined({"import", "table", "t.csv", "-o", "data/deep/t.kshot"}, table_options);
  const Outcome first = kshot(command);
  ASSERT_EQ(first.status, 0) << first.error;
  EXPECT_THAT(first.error, Not(HasSubstr("replaced")));
  const Outcome again = kshot(command);
  ASSERT_EQ(again.status, 0) << again.error;
  EXPECT_THAT(again.error, HasSubstr("replaced data/deep/t.kshot"));
  put_file(folder_ / "bad.csv", "patient,x,score\na,1,apple\n");
  expect_one_line(kshot(joined({"import", "table", "bad.csv", "-o", "new/t.kshot"}, table_options)),
                  "a failed import");
  EXPECT_FALSE(fs::exists(folder_ / "new"));
}

TEST_F(Cli, CommandsOnRunsReplaceOnlyTheirOwn) {
  ASSERT_EQ(kshot({"train", "c.toml", "--out", "run", "--quiet"}).status, 0);
  fs::copy(folder_ / "run", folder_ / "run2");
  put_file(folder_ / "support.csv", "x,y\n-1,0.5\n0.5,1.5\n2,-1\n");
  put_file(folder_ / "query.csv", "x,y\n0,1\n1,0.25\n");
  const std::vector<std::string> adapt = {"adapt",   "run",       "--support", "support.csv",
                                          "--query", "query.csv", "--out"};
  struct Command {
    std::vector<std::string> words;
    /// `file` is the file that shows if something was replaced.
    std::string out, file;
  };
  for (const Command& c :
       std::vector<Command>{{{"evaluate", "run", "--quiet", "--out"}, "new/e.json", "new/e.json"},
                            {{"report", "run", "--quick", "--out"}, "new/r.html", "new/r.html"},
                            {{"compare", "run", "run2", "--out"}, "new/c.html", "new/c.html"},
                            {adapt, "new/adapted", "new/adapted/predictions.csv"}}) {
    const Outcome first = kshot(joined(c.words, {c.out}));
    ASSERT_EQ(first.status, 0) << first.error;
    EXPECT_THAT(first.error, Not(HasSubstr("replaced")));
    const Outcome again = kshot(joined(c.words, {c.out}));
    ASSERT_EQ(again.status, 0) << again.error;
    EXPECT_THAT(again.error, HasSubstr("replaced " + c.file));
    put_file(folder_ / c.file, "mine");
    const Outcome foreign = kshot(joined(c.words, {c.out}));
    expect_one_line(foreign, c.file);
    EXPECT_THAT(foreign.error, HasSubstr("cannot write " + c.file));
    EXPECT_EQ(slurp(folder_ / c.file), "mine");
    for (const char* kept : {"run/best.safetensors", "run/config.toml", "c.toml"}) {
      if (c.words.front() == "adapt") break;
      const std::string before = slurp(folder_ / kept);
      expect_one_line(kshot(joined(c.words, {kept})), kept);
      EXPECT_EQ(slurp(folder_ / kept), before);
    }
  }
  // The default outputs follow the same rule.
  put_file(folder_ / "run" / "evaluation.json", "mine");
  expect_one_line(kshot({"evaluate", "run", "--quiet"}), "evaluation.json");
  EXPECT_EQ(slurp(folder_ / "run" / "evaluation.json"), "mine");
}

TEST_F(Cli, ConfigurationsAreNeverReplaced) {
  const Outcome written =
      kshot({"config", "c.toml", "--set", "inner.steps=7", "--out", "a/b.toml"});
  ASSERT_EQ(written.status, 0) << written.error;
  EXPECT_EQ(slurp(folder_ / "a" / "b.toml"),
            kshot({"config", "c.toml", "--set", "inner.steps=7"}).out);
  for (const char* out : {"c.toml", "a/b.toml"}) {
    expect_one_line(kshot({"config", "c.toml", "--out", out}), out);
    expect_one_line(kshot({"config", "--template", "maml", "--out", out}), out);
  }
  EXPECT_EQ(slurp(folder_ / "c.toml"), maml);
}

TEST_F(Cli, EmbedReplacesOnlyItsOwn) {
  write_class_file(folder_ / "i.kshot", {});
  put_file(folder_ / "classifier.toml", R"(algorithm = "maml"
inner.steps = 0
[network]
type = "sequential"
input = [1, 6, 6]
layers = [ { type = "flatten" }, { type = "linear", out = 4 }, { type = "relu" }, { type = "linear", out = 8 } ]
[loss]
type = "cross_entropy"
[data]
source = "file"
path = "i.kshot"
episodes = "minibatch"
[train]
steps = 1
meta_batch = 1
)");
  const Outcome trained = kshot({"train", "classifier.toml", "--out", "run", "--quiet"});
  ASSERT_EQ(trained.status, 0) << trained.error;
  fs::create_symlink("i.kshot", folder_ / "link.kshot");
  const std::string before = slurp(folder_ / "i.kshot");
  expect_one_line(kshot({"embed", "run", "--out", "link.kshot"}), "through a link");
  EXPECT_EQ(slurp(folder_ / "i.kshot"), before);
  // A user's own table of classes has the header that embed writes.
  put_file(folder_ / "f.tsv", "index\tname\tsplit\n0\ta\ttrain\n");
  expect_one_line(kshot({"embed", "run", "--out", "f.npz", "--quiet"}), "f.tsv");
  EXPECT_FALSE(fs::exists(folder_ / "f.npz"));
  for (const char* out : {"new/f.npz", "new/f.kshot"}) {
    ASSERT_EQ(kshot({"embed", "run", "--out", out, "--quiet"}).status, 0);
    const Outcome again = kshot({"embed", "run", "--out", out, "--quiet"});
    ASSERT_EQ(again.status, 0) << again.error;
    EXPECT_THAT(again.error, HasSubstr("replaced " + std::string(out)));
  }
}

}  // namespace
}  // namespace kshot::test
