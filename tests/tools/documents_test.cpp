// The documents about own data, followed word for word. Their `sh` and `toml` blocks are taken from
// the text and run in an empty folder, one after the other, as a reader would. The test writes
// small data under the names that the documents use.
//
// - An `sh` block is run by bash. Every command must succeed.
// - A `toml` block whose first line is a comment with a file name (`# birds.toml`) is saved under
//   this name. A block that names an algorithm is a whole configuration, and the test trains on it.
//   Any other block is a part of a configuration. Its keys must fit the last whole configuration.
// - `<!-- not run: REASON -->` on the line before a block leaves it out.
//
// `kshot` is a script here, which shortens trainings: it adds --set train.steps=3 where a command
// names no number of steps.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "cli/program.h"
#include "data/files.h"
#include "io/npy.h"
#include "support/class_files.h"
#include "support/put_file.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

namespace fs = std::filesystem;

struct Block {
  std::string language, text;
  /// The line of the fence, from 1.
  int line = 0;
  /// True where a "not run" comment precedes the block.
  bool left_out = false;
  /// The reason in this comment.
  std::string reason = {};
};

std::vector<Block> blocks_of(const std::string& markdown) {
  std::vector<Block> blocks;
  std::istringstream lines(markdown);
  std::string before;  // the last line that is not blank
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (!line.starts_with("```")) {
      if (!line.empty()) before = line;
      continue;
    }
    Block block{.language = line.substr(3), .text = {}, .line = number};
    const std::string mark = "<!-- not run:";
    if (before.starts_with(mark)) {
      block.left_out = true;
      const auto first = before.find_first_not_of(' ', mark.size());
      const auto end = before.find("-->");
      if (first < end && end != std::string::npos) block.reason = before.substr(first, end - first);
    }
    before.clear();
    while (std::getline(lines, line) && line != "```") {
      ++number;
      block.text += line + "\n";
    }
    ++number;
    blocks.push_back(std::move(block));
  }
  return blocks;
}

/// "key = value" lines of TOML as arguments of --set, with their tables as prefixes and without
/// comments.
std::string as_overrides(const std::string& toml) {
  std::string arguments, table;
  std::istringstream lines(toml);
  for (std::string line; std::getline(lines, line);) {
    line = line.substr(0, line.find('#'));
    const auto end = line.find_last_not_of(' ');
    if (end == std::string::npos) continue;
    line.resize(end + 1);
    if (line.front() == '[') {
      table = line.substr(1, line.size() - 2) + ".";
    } else {
      arguments += " --set '" + table + line + "'";
    }
  }
  return arguments;
}

constexpr const char* short_kshot = R"(#!/bin/bash
# kshot with short trainings. {0} is the program.
extra=()
if [[ $1 == train && "$*" != *--resume* ]]; then
  [[ "$*" == *train.steps=* ]] || extra+=(--set train.steps=3)
  extra+=(--set train.validation_episodes=4 --set evaluate.episodes=12)
  # the stand-in for Omniglot has 30 training classes
  if grep -qs '^classes = 4112' "$2"; then extra+=(--set network.classes=30 --set data.queries=8); fi
fi
[[ $1 == demo && "$*" != *--seconds* ]] && extra+=(--seconds 2)
exec '{0}' "$@" "${{extra[@]}}"
)";

class Documents : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (std::system("bash --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "no bash";
    for (const char* name : {"configs", "tools"}) {
      fs::create_directory_symlink(fs::path(KSHOT_SOURCE_DIR) / name, home() / name);
    }
    fs::create_directories(folder_ / "bin");
    put_file(folder_ / "bin" / "kshot", fmt::format(short_kshot, KSHOT_CLI));
    fs::permissions(folder_ / "bin" / "kshot", fs::perms::owner_all);
    fs::create_symlink(folder_ / "bin" / "kshot", home() / "kshot");
    write_birds();
    write_omniglot();
    write_arrays();
    write_tables();
  }

  /// The reader's folder. It has the files that the documents presuppose, and nothing else.
  fs::path home() const {
    const fs::path path = folder_ / "home";
    fs::create_directories(path);
    return path;
  }

  /// Runs a script. Returns an empty text where it succeeded.
  std::string failure(const std::string& script) const {
    put_file(folder_ / "block.sh", script);
    const int status = std::system(
        fmt::format("cd '{1}' && PATH='{0}/bin':\"$PATH\" bash -eu -o pipefail -x '{0}/block.sh' "
                    ">'{0}/out' 2>'{0}/error' </dev/null",
                    folder_.path().string(), home().string())
            .c_str());
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
    return fmt::format("{}\n{}", slurp(folder_ / "out"), slurp(folder_ / "error"));
  }

  std::string follow(const Block& block) {
    if (block.language == "sh") return failure(block.text);
    const bool whole = block.text.find("algorithm = ") != std::string::npos;
    std::string name = "block.toml";
    if (block.text.starts_with("# ")) {
      const std::string first = block.text.substr(2, block.text.find('\n') - 2);
      if (first.ends_with(".toml") && first.find(' ') == std::string::npos) name = first;
    }
    if (!whole) {
      // A part of a configuration overrides the last whole one, or a starter file.
      if (whole_.empty()) {
        whole_ = "starter.toml";
        const std::string none = failure("kshot config --template maml --out starter.toml");
        if (!none.empty()) return none;
      }
      return failure(fmt::format("kshot config '{}'{}", whole_, as_overrides(block.text)));
    }
    put_file(home() / name, block.text);
    whole_ = name;
    if (name != "block.toml") return failure("kshot config " + name);
    return failure("kshot train block.toml --out \"$(mktemp -d)/run\"");
  }

  // ---- data ----

  static std::string picture(int kind, int example, bool jpeg) {
    Picture p{32, 32, 3, {}};
    for (int i = 0; i < 32 * 32 * 3; ++i) {
      p.pixels.push_back(static_cast<std::uint8_t>(i * (kind + 1) / 7 + example * 13));
    }
    return jpeg ? jpeg_bytes(p) : png_bytes(p);
  }

  void write_birds() const {
    std::map<std::string, std::string> archive;
    for (int kind = 0; kind < 50; ++kind) {
      const std::string bird = kind == 0   ? "robin"
                               : kind == 1 ? "wren"
                                           : fmt::format("bird{}", kind);
      for (int i = 1; i <= 6; ++i) {
        const bool jpeg = i % 2 == 1;
        const std::string name = fmt::format("birds/{}/{:04}.{}", bird, i, jpeg ? "jpg" : "png");
        archive[name] = picture(kind, i, jpeg);
        write_text(home() / name, archive[name]);
      }
    }
    write_zip(home() / "birds.zip", archive);
  }

  void write_omniglot() const {
    std::string lists[3];
    for (const char* archive : {"images_background", "images_evaluation"}) {
      std::map<std::string, std::string> files;
      const std::string alphabet = archive[7] == 'b' ? "Greek" : "Tengwar";
      for (int c = 1; c <= 9; ++c) {
        const std::string character = fmt::format("{}/character{:02}", alphabet, c);
        for (int i = 1; i <= 20; ++i) {
          Picture p = plain(105, 105, 1, 255);
          for (int k = 0; k < 40; ++k) {
            p.pixels[static_cast<std::size_t>((c * 911 + i * 17 + k * 105) % (105 * 105))] = 0;
          }
          files[fmt::format("{}/{}/{:04}_{:02}.png", archive, character, c, i)] = png1_bytes(p);
        }
        for (const char* rotation : {"000", "090", "180", "270"}) {
          lists[c % 3] += fmt::format("{}/rot{}\n", character, rotation);
        }
      }
      write_zip(home() / fmt::format("{}.zip", archive), files);
    }
    write_text(home() / "vinyals_train.txt", lists[0]);
    write_text(home() / "vinyals_val.txt", lists[1]);
    write_text(home() / "vinyals_test.txt", lists[2]);
    // The data on which docs/embeddings.md trains, and other pictures of the same size.
    fs::create_directories(home() / "data");
    ClassFile images{.input = {1, 28, 28, true}, .train = 30, .validation = 8, .test = 8};
    write_class_file(home() / "data" / "omniglot.kshot", images);
    images.train = images.validation = images.test = 5;
    write_class_file(home() / "photos.kshot", images);
  }

  void write_arrays() const {
    RandomStream random({5, Purpose::user, 0, 0, 0, 0});
    const auto numbers = [&](std::size_t n) {
      std::vector<float> x(n);
      for (float& v : x) v = random.normal();
      return x;
    };
    const auto bytes = [&](std::size_t n) {
      std::vector<std::uint8_t> x(n);
      for (std::uint8_t& v : x) v = static_cast<std::uint8_t>(random.below(256));
      return x;
    };
    io::write_npy(home() / "intents.npy",
                  io::Tensor::from(std::span<const float>(numbers(12 * 8 * 6)), {12, 8, 6}));
    std::string table = "index\tname\tsplit\n";
    for (int c = 0; c < 12; ++c) {
      table += fmt::format("{}\tintent {}\t{}\n", c, c, c < 6 ? "train" : c < 9 ? "val" : "test");
    }
    write_text(home() / "intents.tsv", table);
    std::vector<std::int64_t> labels(60);
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int64_t>(i % 10);
    const auto y = io::Tensor::from(std::span<const std::int64_t>(labels), {60});
    io::write_npz(
        home() / "faces.npz",
        {{"x", io::Tensor::from(std::span<const std::uint8_t>(bytes(60 * 64)), {60, 8, 8})},
         {"y", y}});
    io::write_npz(home() / "cifar.npz",
                  {{"images", io::Tensor::from(std::span<const std::uint8_t>(bytes(60 * 192)),
                                               {60, 8, 8, 3})},
                   {"fine", y}});
  }

  void write_tables() const {
    std::string patients = "patient,age,ward,score\n";
    std::string visits = "clinic,age,weight,outcome\n";
    for (int p = 0; p < 20; ++p) {
      for (int r = 0; r < 16; ++r) {
        const int age = 20 + (p * 7 + r * 5) % 60;
        patients += fmt::format("p{:02},{}.5,{},{}\n", p, age, r % 3 == 0 ? "north" : "south",
                                0.02 * age + 0.1 * (r % 4));
        visits += fmt::format("c{:02},{},{},{}\n", p, age, r % 5 == 0 ? "" : std::to_string(50 + r),
                              r % 2 == 0 ? "well" : "ill");
      }
    }
    write_text(home() / "patients.csv", patients);
    write_text(home() / "visits.csv", visits);
    write_text(home() / "support.csv",
               "age,ward,score\n31,north,0.9\n54,south,1.3\n70,south,1.5\n");
    write_text(home() / "query.csv", "age,ward\n44,north\n62,south\n");
  }

  TempFolder folder_;
  /// The file of the last whole configuration.
  std::string whole_;
};

TEST_P(Documents, AreFollowed) {
  const fs::path document = fs::path(KSHOT_SOURCE_DIR) / "docs" / GetParam();
  int followed = 0;
  for (const Block& block : blocks_of(slurp(document))) {
    if (block.language != "sh" && block.language != "toml") continue;
    SCOPED_TRACE(fmt::format("docs/{}:{}", GetParam(), block.line));
    if (block.left_out) {
      EXPECT_FALSE(block.reason.empty()) << "a block that is not run needs a reason";
      continue;
    }
    EXPECT_EQ(follow(block), "") << block.text;
    ++followed;
  }
  EXPECT_GE(followed, 3) << "no blocks were found";
}

INSTANTIATE_TEST_SUITE_P(Docs, Documents,
                         testing::Values("quickstart.md", "own-data.md", "embeddings.md"),
                         [](const auto& parameter) {
                           std::string name = parameter.param;
                           name.resize(name.find('.'));
                           std::erase(name, '-');
                           return name;
                         });

TEST(DocumentBlocks, AreFound) {
  const std::vector<Block> blocks = blocks_of(
      "text\n```sh\nkshot a\n```\n\n<!-- not run: RUN is no name -->\n```sh\nkshot b RUN\n```\n"
      "<!-- not run: -->\n```toml\nx = 1\n```\n");
  ASSERT_EQ(blocks.size(), 3u);
  EXPECT_EQ(blocks[0].text, "kshot a\n");
  EXPECT_EQ(blocks[0].line, 2);
  EXPECT_FALSE(blocks[0].left_out);
  EXPECT_TRUE(blocks[1].left_out);
  EXPECT_EQ(blocks[1].reason, "RUN is no name ");
  EXPECT_TRUE(blocks[2].left_out);
  EXPECT_EQ(blocks[2].reason, "");
  EXPECT_EQ(as_overrides("[data]   # where\nsource = \"file\"\n\n[train]\nsteps = 3 # few\n"),
            " --set 'data.source = \"file\"' --set 'train.steps = 3'");
}

}  // namespace
}  // namespace kshot::test
