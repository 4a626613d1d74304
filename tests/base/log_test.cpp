// Progress and messages on a pipe and on a terminal.
#include "base/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>

namespace kshot {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// A clock that only the test advances.
struct Clock {
  Progress::Clock::time_point time{};
  Progress::Options options(int descriptor) {
    Progress::Options result;
    result.descriptor = descriptor;
    result.now = [this] { return time; };
    return result;
  }
};

// The bytes that have arrived at the reading end so far.
std::string drain(int descriptor) {
  ::fcntl(descriptor, F_SETFL, O_NONBLOCK);
  std::string text;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(descriptor, buffer, sizeof(buffer))) > 0;) {
    text.append(buffer, static_cast<std::size_t>(got));
  }
  return text;
}

class Pipe : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(::pipe(ends_), 0); }
  void TearDown() override {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  std::string output() { return drain(ends_[0]); }
  int ends_[2] = {-1, -1};
  Clock clock_;
};

TEST_F(Pipe, PlainLinesNotTooOften) {
  Progress progress(200, "steps", clock_.options(ends_[1]));
  EXPECT_FALSE(progress.terminal());
  progress.update(1, "loss 2.5");
  EXPECT_EQ(output(), "  0% 1/200 steps  0:00, 0:00 left  loss 2.5\n");
  for (int i = 2; i < 50; ++i) {
    clock_.time += 200ms;
    progress.update(static_cast<std::uint64_t>(i), "loss 2");
  }
  EXPECT_EQ(output(), "");
  clock_.time += 400ms;
  progress.update(50, "loss 1");
  EXPECT_EQ(output(), " 25% 50/200 steps  0:10, 0:30 left  loss 1\n");
  clock_.time += 1s;
  progress.update(200, "loss 0.5");
  EXPECT_EQ(output(), "");
  progress.finish();
  EXPECT_EQ(output(), "100% 200/200 steps  0:11  loss 0.5\n");
  progress.finish();
  EXPECT_EQ(output(), "");
}

TEST_F(Pipe, FinishDoesNotRepeatWhatWasShown) {
  Progress progress(2, "files", clock_.options(ends_[1]));
  progress.update(2);
  EXPECT_EQ(output(), "100% 2/2 files  0:00\n");
  progress.finish();
  EXPECT_EQ(output(), "");
}

TEST_F(Pipe, AResumedJobIsEstimatedFromWhereItBegan) {
  Progress::Options options = clock_.options(ends_[1]);
  options.start = 900;
  Progress progress(1000, "steps", options);
  clock_.time += 10s;
  progress.update(950);
  EXPECT_EQ(output(), " 95% 950/1000 steps  0:10, 0:10 left\n");
}

TEST_F(Pipe, UnknownTotal) {
  Progress progress(0, "images", clock_.options(ends_[1]));
  clock_.time += 3700s;
  progress.update(12345);
  EXPECT_EQ(output(), "12345 images  1:01:40\n");
}

class Terminal : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("TERM", "xterm", 1);
    master_ = ::posix_openpt(O_RDWR | O_NOCTTY);
    if (master_ < 0 || ::grantpt(master_) != 0 || ::unlockpt(master_) != 0) {
      GTEST_SKIP() << "no pseudo-terminals here";
    }
    slave_ = ::open(::ptsname(master_), O_RDWR | O_NOCTTY);
    ASSERT_GE(slave_, 0);
    termios mode{};
    ASSERT_EQ(::tcgetattr(slave_, &mode), 0);
    ::cfmakeraw(&mode);
    ASSERT_EQ(::tcsetattr(slave_, TCSANOW, &mode), 0);
    set_columns(120);
  }
  void TearDown() override {
    ::close(slave_);
    ::close(master_);
  }
  void set_columns(unsigned short columns) {
    winsize size{};
    size.ws_row = 24;
    size.ws_col = columns;
    ASSERT_EQ(::ioctl(master_, TIOCSWINSZ, &size), 0);
  }
  std::string output() { return drain(master_); }
  int master_ = -1;
  int slave_ = -1;
  Clock clock_;
};

const char kClear[] = "\r\x1b[K";

TEST_F(Terminal, OneLineRewrittenInPlace) {
  Progress progress(200, "steps", clock_.options(slave_));
  EXPECT_TRUE(progress.terminal());
  clock_.time += 10s;
  progress.update(50, "loss 1");
  EXPECT_EQ(output(), std::string(kClear) +
                          "[#####...............]  25% 50/200 steps  0:10, 0:30 left  loss 1");
  clock_.time += 50ms;
  progress.update(51, "loss 1");
  EXPECT_EQ(output(), "");
  clock_.time += 50ms;
  progress.update(200, "loss 0.5");
  EXPECT_EQ(output(),
            std::string(kClear) + "[####################] 100% 200/200 steps  0:10  loss 0.5");
  progress.finish();
  EXPECT_EQ(output(), "\n");
}

TEST_F(Terminal, NeverWiderThanTheTerminal) {
  set_columns(40);
  Progress progress(200, "steps", clock_.options(slave_));
  progress.update(200, "\xc3\xa9\xc3\xa9\xc3\xa9");
  EXPECT_EQ(output(), std::string(kClear) + "[####################] 100% 200/200 ste");
  clock_.time += 1s;
  set_columns(51);
  progress.update(200, "\xc3\xa9\xc3\xa9\xc3\xa9");
  EXPECT_EQ(output(),
            std::string(kClear) + "[####################] 100% 200/200 steps  0:01  \xc3\xa9");
}

TEST_F(Terminal, AnErrorOnTheWayEndsTheLine) {
  {
    Progress progress(200, "steps", clock_.options(slave_));
    progress.update(50);
    output();
  }
  EXPECT_EQ(output(), "\n");
}

TEST_F(Terminal, ADumbTerminalGetsPlainLines) {
  ::setenv("TERM", "dumb", 1);
  Progress progress(2, "steps", clock_.options(slave_));
  ::setenv("TERM", "xterm", 1);
  EXPECT_FALSE(progress.terminal());
}

TEST_F(Terminal, MessagesStandAboveTheProgressLine) {
  const int saved = ::dup(STDERR_FILENO);
  ASSERT_EQ(::dup2(slave_, STDERR_FILENO), STDERR_FILENO);
  {
    Progress progress(0, "steps", clock_.options(STDERR_FILENO));
    progress.update(7);
    log_warning("task 3 diverged");
    progress.finish();
    log_info("done");
    set_log_level(LogLevel::warning);
    log_info("not seen");
    set_log_level(LogLevel::info);
  }
  ::dup2(saved, STDERR_FILENO);
  ::close(saved);
  const std::string line = "7 steps  0:00";
  EXPECT_EQ(output(), kClear + line + kClear + "warning: task 3 diverged\n" + line + "\ndone\n");
}

}  // namespace
}  // namespace kshot
