// TensorBoard event files: checksums, the wire format, and files of resumed runs.
#include "io/tfevents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "io/atomic_file.h"
#include "io/crc32c.h"
#include "kshot/error.h"
#include "support/error_text.h"
#include "support/temp_folder.h"

namespace kshot::io {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::TempFolder;
using ::testing::StartsWith;

TEST(Crc32c, PublishedValues) {
  // The values are those of RFC 3720 B.4, and the usual check value.
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string ascending;
  for (int i = 0; i < 32; ++i) ascending += static_cast<char>(i);
  EXPECT_EQ(crc32c(ascending), 0x46dd794eu);
  EXPECT_EQ(crc32c(ascending.substr(5), crc32c(ascending.substr(0, 5))), 0x46dd794eu);
}

// The records of a TFRecord file. The test fails where lengths or checksums are wrong.
std::vector<std::string> records(const fs::path& path) {
  const std::string bytes = read_file(path);
  const auto masked = [](std::string_view data) {
    const std::uint32_t crc = crc32c(data);
    return static_cast<std::uint32_t>((crc >> 15 | crc << 17) + 0xa282ead8u);
  };
  std::vector<std::string> found;
  std::size_t at = 0;
  while (at < bytes.size()) {
    std::uint64_t length = 0;
    std::uint32_t length_crc = 0;
    std::uint32_t data_crc = 0;
    EXPECT_LE(at + 16, bytes.size());
    std::memcpy(&length, bytes.data() + at, 8);
    std::memcpy(&length_crc, bytes.data() + at + 8, 4);
    EXPECT_LE(at + 16 + length, bytes.size());
    const std::string data = bytes.substr(at + 12, length);
    std::memcpy(&data_crc, bytes.data() + at + 12 + length, 4);
    EXPECT_EQ(length_crc, masked(bytes.substr(at, 8)));
    EXPECT_EQ(data_crc, masked(data));
    found.push_back(data);
    at += 16 + length;
  }
  return found;
}

TEST(EventWriter, WritesTheWireFormat) {
  const TempFolder folder;
  EventWriter writer(folder / "run/events");
  EXPECT_THAT(writer.path().filename().string(), StartsWith("events.out.tfevents."));
  writer.scalar("loss", 300, 1.5, 1.0);
  writer.flush();
  const auto found = records(writer.path());
  ASSERT_EQ(found.size(), 3u);
  // The first record has step: 0 and file_version: "brain.Event:2", after nine bytes of wall time.
  EXPECT_EQ(found[0].substr(9), std::string("\x10\x00\x1a\x0d", 4) + "brain.Event:2");
  // The second record has session_log{status: START}.
  EXPECT_EQ(found[1].substr(9), std::string("\x10\x00\x3a\x02\x08\x01", 6));
  // The third record has wall_time 1.0, step 300 and summary{value{tag "loss", simple_value 1.5}}.
  EXPECT_EQ(found[2], std::string("\x09\0\0\0\0\0\0\xf0\x3f"
                                  "\x10\xac\x02"
                                  "\x2a\x0d\x0a\x0b"
                                  "\x0a\x04loss"
                                  "\x15\0\0\xc0\x3f",
                                  27));
}

TEST(EventWriter, AResumedRunGetsALaterFileThatVoidsWhatItRepeats) {
  const TempFolder folder;
  std::string first;
  {
    EventWriter writer(folder.path());
    first = writer.path().filename();
  }
  const EventWriter writer(folder.path(), 5);
  EXPECT_GT(writer.path().filename().string(), first);
  const auto found = records(writer.path());
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[1].substr(9), std::string("\x10\x05\x3a\x02\x08\x01"));
}

TEST(EventWriter, ALaterFileEvenIfTheClockWentBack) {
  const TempFolder folder;
  write_file_atomic(folder / "events.out.tfevents.4000000000.host.1", "");
  EXPECT_THAT(EventWriter(folder.path()).path().filename().string(),
              StartsWith("events.out.tfevents.4000000001."));
}

TEST(EventWriter, NamesPathAndReason) {
  const TempFolder folder;
  write_file_atomic(folder / "file", "");
  EXPECT_EQ(error_text([&] { EventWriter writer(folder / "file/run"); }),
            "cannot create the folder " + (folder / "file/run").string() + ": Not a directory");
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    EventWriter writer(folder.path());
    const rlimit limit{200, 200};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    for (int i = 0; i < 10; ++i) writer.scalar("loss", i, i);
    const std::string text = error_text([&] { writer.flush(); });
    ::_exit(text == "cannot write " + writer.path().string() + ": File too large" ? 0 : 1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace kshot::io
