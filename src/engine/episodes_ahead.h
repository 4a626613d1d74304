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

/// Which waves come: all of `waves` waves of each step, step after step.
struct WaveSequence {
  const EpisodeSource* source = nullptr;
  std::uint64_t seed = 0;
  int tasks = 0;  ///< of a step, from task `first` of its meta-batch on
  int wave_tasks = 0;
  int first = 0;
  bool operator==(const WaveSequence&) const = default;
  int waves() const { return (tasks + wave_tasks - 1) / wave_tasks; }
  /// Draws tasks of wave `wave` of a step; returns how many.
  int draw(TaskBatch& batch, std::uint64_t step, int wave) const;
};

/// Not for several callers of begin; take may be called by several threads.
class EpisodesAhead {
 public:
  /// depth: waves that are drawn before anybody takes them, at most.
  EpisodesAhead(const TaskShape& shape, int wave_tasks, int threads, int depth);
  ~EpisodesAhead();
  EpisodesAhead(const EpisodesAhead&) = delete;
  EpisodesAhead& operator=(const EpisodesAhead&) = delete;

  /// The waves of `step` will be taken next, each once. Where the last step of the same sequence
  /// was the one before, they are under way already. The source must live as long as this.
  void begin(const WaveSequence& sequence, std::uint64_t step);
  /// use(batch, tasks) for wave `wave` of the step that was begun, once it is drawn. Throws what
  /// the source or `use` threw; then every other call for this step throws that too, so that nobody
  /// waits for a wave that cannot come.
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
  std::uint64_t step_ = 0;      ///< begun
  std::uint64_t next_ = 0;      ///< ordinal to be drawn next
  int taken_ = 0;               ///< waves of step_
  std::exception_ptr failure_;  ///< of step_
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace kshot
