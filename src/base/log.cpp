#include "base/log.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "base/text.h"

namespace kshot {
namespace {

std::atomic<LogLevel> g_level{LogLevel::info};
/// Guards the terminal: the progress line and all other output.
std::mutex g_mutex;
Progress* g_progress = nullptr;  // the object that has a line on the terminal

/// Writes as much as possible. Failures are ignored, because there is no other place to report
/// them.
void write_all(int descriptor, std::string_view data) {
  while (!data.empty()) {
    const ssize_t written = ::write(descriptor, data.data(), data.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    data.remove_prefix(static_cast<std::size_t>(written));
  }
}

/// A duration as "0:07", "12:34" or "3:05:00".
std::string duration_text(double seconds) {
  const auto whole = std::llround(std::clamp(seconds, 0.0, 3.6e9));
  const long long hours = whole / 3600;
  const long long minutes = whole / 60 % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, whole % 60);
  return fmt::format("{}:{:02}", minutes, whole % 60);
}

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xc0) == 0x80;
}

/// The first `columns` characters of UTF-8 text.
std::string_view first_columns(std::string_view text, std::size_t columns) {
  std::size_t end = 0;
  while (end < text.size() && columns > 0) {
    ++end;
    while (end < text.size() && is_continuation(text[end])) ++end;
    --columns;
  }
  return text.substr(0, end);
}

std::size_t terminal_columns(int descriptor) {
  winsize size{};
  if (::ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

bool is_terminal(int descriptor) {
  const char* kind = std::getenv("TERM");
  return ::isatty(descriptor) == 1 && (kind == nullptr || std::string_view(kind) != "dumb");
}

}  // namespace

void write_log_line(std::string_view line) {
  const std::scoped_lock lock(g_mutex);
  if (g_progress != nullptr) g_progress->clear_locked();
  write_all(STDERR_FILENO, line);
  if (g_progress != nullptr) g_progress->draw_locked(g_progress->screen_);
}

void set_log_level(LogLevel level) {
  g_level = level;
}

void log_info(std::string_view message) {
  if (g_level.load() <= LogLevel::info) write_log_line(printable(message) + '\n');
}

void log_warning(std::string_view message) {
  if (g_level.load() <= LogLevel::warning) {
    write_log_line("warning: " + printable(message) + '\n');
  }
}

Progress::Progress(std::uint64_t total, std::string unit, Options options)
    : total_(total),
      unit_(std::move(unit)),
      options_(std::move(options)),
      terminal_(is_terminal(options_.descriptor)),
      done_(options_.start) {
  if (!options_.now) options_.now = Clock::now;
  begin_ = last_shown_ = options_.now();
}

Progress::~Progress() {
  if (finished_ || !terminal_ || !shown_) return;
  const std::scoped_lock lock(g_mutex);
  write_all(options_.descriptor, "\n");
  if (g_progress == this) g_progress = nullptr;
}

std::string Progress::line(Clock::time_point now) const {
  const double elapsed = std::chrono::duration<double>(now - begin_).count();
  std::string line;
  if (total_ > 0) {
    const double share = std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
    if (terminal_) {
      constexpr std::size_t kBar = 20;
      const auto filled = static_cast<std::size_t>(share * kBar);
      line = fmt::format("[{}{}] ", std::string(filled, '#'), std::string(kBar - filled, '.'));
    }
    line += fmt::format("{:3}% {}/{} {}  {}", static_cast<int>(share * 100), done_, total_, unit_,
                        duration_text(elapsed));
    if (done_ > options_.start && done_ < total_) {
      const double rate = static_cast<double>(done_ - options_.start) / std::max(elapsed, 1e-9);
      line += ", " + duration_text(static_cast<double>(total_ - done_) / rate) + " left";
    }
  } else {
    line = fmt::format("{} {}  {}", done_, unit_, duration_text(elapsed));
  }
  if (!text_.empty()) line += "  " + text_;
  return line;
}

void Progress::clear_locked() const {
  write_all(options_.descriptor, "\r\x1b[K");
}

void Progress::draw_locked(std::string_view line) const {
  // The last column stays empty, because some terminals wrap there.
  write_all(options_.descriptor, first_columns(line, terminal_columns(options_.descriptor) - 1));
}

void Progress::show(Clock::time_point now) {
  const std::string next = line(now);
  const std::scoped_lock lock(g_mutex);
  if (terminal_) {
    g_progress = this;
    screen_ = next;
    clear_locked();
    draw_locked(screen_);
  } else {
    write_all(options_.descriptor, next + '\n');
  }
  shown_ = fresh_ = true;
  last_shown_ = now;
}

void Progress::update(std::uint64_t done, std::string_view text) {
  done_ = done;
  text_ = text;
  fresh_ = false;
  const Clock::time_point now = options_.now();
  const auto period = terminal_ ? options_.terminal_period : options_.plain_period;
  if (shown_ && now - last_shown_ < period) return;
  show(now);
}

void Progress::finish() {
  if (std::exchange(finished_, true)) return;
  if (!fresh_) show(options_.now());
  if (!terminal_) return;
  const std::scoped_lock lock(g_mutex);
  write_all(options_.descriptor, "\n");
  if (g_progress == this) g_progress = nullptr;
}

}  // namespace kshot
