// Messages and progress for whoever runs kshot, on standard error.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace kshot::io {

enum class LogLevel { info, warning, off };

/// Messages below the level are dropped. Starts at info.
void set_log_level(LogLevel level);
/// One line each; safe from any thread, and never in the middle of a progress line.
void log_info(std::string_view message);
void log_warning(std::string_view message);  ///< with "warning: " before it

/// Progress of a long job: on a terminal one line that is rewritten in place, with a bar; in a pipe
/// or a file plain lines, less often. One at a time.
class Progress {
 public:
  using Clock = std::chrono::steady_clock;
  struct Options {
    std::uint64_t start = 0;  ///< where a resumed job begins; not counted in the estimate
    int descriptor = 2;
    std::chrono::milliseconds terminal_period{100};
    std::chrono::milliseconds plain_period{10000};
    std::function<Clock::time_point()> now;  ///< for tests
  };

  /// `total` units of work ("steps", "tasks"); 0 where it is not known.
  Progress(std::uint64_t total, std::string unit) : Progress(total, std::move(unit), Options()) {}
  Progress(std::uint64_t total, std::string unit, Options options);
  /// Ends the line, if finish() was not called (an error is passing).
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` units of `total` are done; `text` (losses, speed) is shown behind. Cheap when it is not
  /// yet time to show anything. From one thread at a time.
  void update(std::uint64_t done, std::string_view text = {});
  /// Shows the last state, whatever the time, and ends the line.
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
  bool fresh_ = false;  ///< what was shown last is the state now
  bool shown_ = false;  ///< something is on the screen or was printed
  std::uint64_t done_ = 0;
  std::string text_;
  std::string screen_;  ///< the line on the terminal now
  Clock::time_point begin_, last_shown_;
};

}  // namespace kshot::io
