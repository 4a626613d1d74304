// tools/kill_test.py in its short form: trainings that are killed or find the disk full resume bit
// for bit.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <string>

#include "cli/program.h"
#include "support/put_file.h"
#include "support/temp_folder.h"

namespace kshot::test {
namespace {

using testing::HasSubstr;

Outcome kill_test(const TempFolder& folder, const std::string& arguments) {
  const int status =
      std::system(fmt::format("'{1}/tools/kill_test.py' {2} >'{0}/out' 2>'{0}/error'",
                              folder.path().string(), KSHOT_SOURCE_DIR, arguments)
                      .c_str());
  return {WEXITSTATUS(status), slurp(folder / "out"), slurp(folder / "error")};
}

TEST(KillTest, KilledTrainingsGoOnBitForBit) {
  if (std::system("python3 --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "no python3";
  const TempFolder folder;
  const Outcome outcome = kill_test(folder, fmt::format("--program '{}'", KSHOT_CLI));
  EXPECT_EQ(outcome.status, 0) << outcome.out << outcome.error;
  for (const char* part : {"maml: 6 kills", "hvi: 6 kills", "leo: 6 kills", "leo: 2 full disks"}) {
    EXPECT_THAT(outcome.out, HasSubstr(part));
  }
}

TEST(KillTest, AProgramThatForgetsIsFound) {
  if (std::system("python3 --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "no python3";
  const TempFolder folder;
  // On a resume, this program trains with another seed instead, as if the state were lost.
  put_file(folder / "forgetful", fmt::format(R"(#!/bin/bash
if [[ "$*" == *--resume* ]]; then
  for run in "$@"; do :; done
  sed 's/seed = 7/seed = 8/' "$(dirname "$run")/maml.toml" >"$run.toml"
  rm -r "$run"
  exec '{0}' train --quiet "$run.toml" --out "$run"
fi
exec '{0}' "$@"
)",
                                             KSHOT_CLI));
  std::filesystem::permissions(folder / "forgetful", std::filesystem::perms::owner_all);
  const Outcome outcome =
      kill_test(folder, fmt::format("--program '{}' --only maml --kills 4 --full 0",
                                    (folder / "forgetful").string()));
  EXPECT_EQ(outcome.status, 1) << outcome.out;
  EXPECT_THAT(outcome.error, HasSubstr("differ"));
}

}  // namespace
}  // namespace kshot::test
