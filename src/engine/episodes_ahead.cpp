#include "engine/episodes_ahead.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "kshot/error.h"

namespace kshot {

int WaveSequence::draw(TaskBatch& batch, std::uint64_t step, int wave) const {
  const int before = wave * wave_tasks, count = std::min(wave_tasks, tasks - before);
  batch.draw(*source, {seed, Split::train, step}, static_cast<std::uint32_t>(first + before),
             count);
  return count;
}

EpisodesAhead::EpisodesAhead(const TaskShape& shape, int wave_tasks, int threads, int depth)
    : slots_(static_cast<std::size_t>(depth)) {
  for (Slot& slot : slots_) slot.batch = TaskBatch(shape, wave_tasks);
  try {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { loop(); });
  } catch (const std::system_error& error) {
    end();  // the destructor of an object whose constructor throws never runs
    throw Error(fmt::format("cannot start thread {} of {} that draw episodes: {}",
                            threads_.size() + 1, threads, error.code().message()));
  }
}

EpisodesAhead::~EpisodesAhead() {
  end();
}

void EpisodesAhead::end() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void EpisodesAhead::begin(const WaveSequence& sequence, std::uint64_t step) {
  std::unique_lock lock(mutex_);
  const bool complete = sequence_ && taken_ == sequence_->waves();
  taken_ = 0;
  failure_ = nullptr;
  if (complete && *sequence_ == sequence && step == step_ + 1) {
    step_ = step;
    return;
  }
  // The waves that are being drawn are of no use.
  sequence_.reset();
  changed_.wait(lock, [&] {
    return std::ranges::none_of(slots_,
                                [](const Slot& s) { return s.state == Slot::State::drawing; });
  });
  for (Slot& slot : slots_) slot.state = Slot::State::free;
  sequence_ = sequence;
  start_ = step_ = step;
  next_ = 0;
  changed_.notify_all();
}

void EpisodesAhead::take(int wave,
                         const std::function<void(const TaskBatch& batch, int tasks)>& use) {
  std::unique_lock lock(mutex_);
  const auto waves = static_cast<std::uint64_t>(sequence_->waves());
  const std::uint64_t ordinal = (step_ - start_) * waves + static_cast<std::uint64_t>(wave);
  Slot& slot = slots_[ordinal % slots_.size()];
  // Waves are taken in ascending order, so that no other thread waits for this slot's next wave
  // before.
  changed_.wait(lock,
                [&] { return failure_ || (next_ > ordinal && slot.state == Slot::State::ready); });
  // A slot that failed is not drawn again, so that threads that wait for a later wave in it must be
  // told. A step whose waves were not all taken is the last one of its sequence (begin).
  const auto fail = [&](const std::exception_ptr& error) {
    if (!failure_) failure_ = error;
    changed_.notify_all();
    std::rethrow_exception(error);
  };
  if (failure_) std::rethrow_exception(failure_);
  if (slot.error) fail(slot.error);
  lock.unlock();
  try {
    use(slot.batch, slot.tasks);
  } catch (...) {
    lock.lock();
    fail(std::current_exception());
  }
  lock.lock();
  slot.state = Slot::State::free;
  ++taken_;
  changed_.notify_all();
}

void EpisodesAhead::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] {
      return stop_ || (sequence_ && slots_[next_ % slots_.size()].state == Slot::State::free);
    });
    if (stop_) return;
    const std::uint64_t ordinal = next_++;
    const WaveSequence sequence = *sequence_;
    const auto waves = static_cast<std::uint64_t>(sequence.waves());
    const std::uint64_t step = start_ + ordinal / waves;
    Slot& slot = slots_[ordinal % slots_.size()];
    slot.state = Slot::State::drawing;
    slot.error = nullptr;
    lock.unlock();
    std::exception_ptr error;
    int tasks = 0;
    try {
      tasks = sequence.draw(slot.batch, step, static_cast<int>(ordinal % waves));
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    slot.tasks = tasks;
    slot.error = error;
    slot.state = Slot::State::ready;
    changed_.notify_all();
  }
}

}  // namespace kshot
