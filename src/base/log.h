// Messages and progress for the user, on standard error.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace kshot {

enum class LogLevel { info, warning, off };

/// Sets the level below which messages are dropped. The initial level is info.
void set_log_level(LogLevel level);
/// Print one line per message. They may be called from any thread, and never break a progress line.
void log_info(std::string_view message);
void log_warning(std::string_view message);  ///< adds "warning: " before the message

/// Progress of a long job. On a terminal, one line with a bar is rewritten in place. In a pipe or a
/// file, plain lines are written less often. Only one object may exist at a time.
class Progress {
 public:
  using Clock = std::chrono::steady_clock;
  struct Options {
    std::uint64_t start = 0;  ///< where a resumed job begins; excluded from the estimate
    int descriptor = 2;
    std::chrono::milliseconds terminal_period{100};
    std::chrono::milliseconds plain_period{10000};
    std::function<Clock::time_point()> now;  ///< clock for tests
  };

  /// `total` is the number of units of work ("steps", "tasks"), or 0 where it is not known.
  Progress(std::uint64_t total, std::string unit) : Progress(total, std::move(unit), Options()) {}
  Progress(std::uint64_t total, std::string unit, Options options);
  /// Ends the line if finish() was not called, for example because an exception is passing.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Reports that `done` units of `total` are done. `text` (losses, speed) is shown after the bar.
  /// A call is cheap while it is not yet time to show anything. Only one thread may call it at a
  /// time.
  void update(std::uint64_t done, std::string_view text = {});
  /// Shows the last state regardless of the period, and ends the line.
  void finish();

  bool terminal() const { return terminal_; }

 private:
  friend void write_log_line(std::string_view line);
  std::string line(Clock::time_point now) const;
  void show(Clock::time_point now);
  void clear_locked() const;
  void draw_locked(std::string_view line) const;

  std::uint64_t total_;
  std::string unit_;
  Options options_;
  bool terminal_ = false;
  bool finished_ = false;
  bool fresh_ = false;  ///< the last output shows the current state
  bool shown_ = false;  ///< something is on the screen or was printed
  std::uint64_t done_ = 0;
  std::string text_;
  std::string screen_;  ///< the line that is on the terminal now
  Clock::time_point begin_, last_shown_;
};

}  // namespace kshot
