// Episodes of coming waves, drawn on threads of their own while a device computes.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "kshot/episode.h"

namespace kshot {

/// A sequence of waves: all waves() waves of each step, step after step.
struct WaveSequence {
  const EpisodeSource* source = nullptr;
  std::uint64_t seed = 0;
  int tasks = 0;  ///< tasks of a step, from task `first` of its meta-batch on
  int wave_tasks = 0;
  int first = 0;
  bool operator==(const WaveSequence&) const = default;
  int waves() const { return (tasks + wave_tasks - 1) / wave_tasks; }
  /// Draws the tasks of wave `wave` of a step and returns their number.
  int draw(TaskBatch& batch, std::uint64_t step, int wave) const;
};

/// Draws the waves of a sequence ahead of their use. Only one thread may call begin. Several
/// threads may call take.
class EpisodesAhead {
 public:
  /// `depth` is the largest number of waves that are drawn before they are taken.
  EpisodesAhead(const TaskShape& shape, int wave_tasks, int threads, int depth);
  ~EpisodesAhead();
  EpisodesAhead(const EpisodesAhead&) = delete;
  EpisodesAhead& operator=(const EpisodesAhead&) = delete;

  /// Says that the waves of `step` will be taken next, each once. They are being drawn already
  /// where the step before belongs to the same sequence and all its waves were taken. The source
  /// must outlive this object.
  void begin(const WaveSequence& sequence, std::uint64_t step);
  /// Calls use(batch, tasks) for wave `wave` of the current step as soon as the wave is drawn.
  /// Throws what the source or `use` throws. Every other call for this step then throws the same
  /// exception, so that no thread waits for a wave that cannot come.
  void take(int wave, const std::function<void(const TaskBatch& batch, int tasks)>& use);

 private:
  /// Wave number `ordinal` since the sequence's start lies in slot ordinal % depth.
  struct Slot {
    enum class State { free, drawing, ready } state = State::free;
    TaskBatch batch;
    int tasks = 0;
    std::exception_ptr error;
  };
  void loop();
  /// Stops the threads and waits for them.
  void end();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Slot> slots_;
  std::optional<WaveSequence> sequence_;
  std::uint64_t start_ = 0;     ///< the sequence's first step
  std::uint64_t step_ = 0;      ///< the current step
  std::uint64_t next_ = 0;      ///< ordinal of the wave that is drawn next
  int taken_ = 0;               ///< number of waves of step_ that were taken
  std::exception_ptr failure_;  ///< the exception that stopped step_
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace kshot
