// Ranks that are threads of one process. They implement the protocol of Communicator without MPI.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kshot/communicator.h"

namespace kshot::test {

/// The state that the threads share. Each thread deposits its bytes, waits for the others, and
/// reads theirs.
class Meeting {
 public:
  explicit Meeting(int size) : slots_(static_cast<std::size_t>(size)) {}
  /// The bytes of all ranks, by rank. Throws std::runtime_error where a rank does not arrive within
  /// 60 seconds.
  std::vector<std::vector<std::byte>> exchange(int rank, std::span<const std::byte> mine) {
    std::unique_lock lock(mutex_);
    slots_[static_cast<std::size_t>(rank)].assign(mine.begin(), mine.end());
    wait(lock);
    std::vector<std::vector<std::byte>> all = slots_;
    wait(lock);  // No rank deposits new bytes before all have read.
    return all;
  }

 private:
  void wait(std::unique_lock<std::mutex>& lock) {
    const std::size_t turn = turn_;
    if (++here_ == slots_.size()) {
      here_ = 0;
      ++turn_;
      all_here_.notify_all();
      return;
    }
    if (!all_here_.wait_for(lock, std::chrono::seconds(60), [&] { return turn_ != turn; })) {
      throw std::runtime_error("a rank did not arrive within 60 seconds");
    }
  }

  std::mutex mutex_;
  std::condition_variable all_here_;
  std::vector<std::vector<std::byte>> slots_;
  std::size_t here_ = 0, turn_ = 0;
};

/// A rank that is a thread of this process.
class ThreadRank final : public Communicator {
 public:
  ThreadRank(std::shared_ptr<Meeting> meeting, int rank, int size)
      : Communicator(rank, size, rank, size), meeting_(std::move(meeting)) {}
  std::string describe() const override { return "threads"; }

 protected:
  void gather_equal(std::span<const std::byte> mine, std::span<std::byte> all,
                    const char*) override {
    put(meeting_->exchange(rank(), mine), all);
  }
  void gather_varied(std::span<const std::byte> mine, std::span<const std::size_t> sizes,
                     std::span<std::byte> all, const char*) override {
    const auto parts = meeting_->exchange(rank(), mine);
    for (std::size_t r = 0; r < parts.size(); ++r) {
      if (parts[r].size() != sizes[r])
        throw std::logic_error("a rank sent another number of bytes than it announced");
    }
    put(parts, all);
  }
  void scatter_varied(std::span<const std::byte> to, std::span<const std::size_t> to_sizes,
                      std::span<std::byte> from, std::span<const std::size_t> from_sizes,
                      const char*) override {
    // Every rank sends all its bytes to all ranks, with their sizes in front.
    std::vector<std::byte> mine(to_sizes.size_bytes());
    std::memcpy(mine.data(), to_sizes.data(), mine.size());
    mine.insert(mine.end(), to.begin(), to.end());
    const auto parts = meeting_->exchange(rank(), mine);
    std::size_t at = 0;
    for (std::size_t r = 0; r < parts.size(); ++r) {
      std::vector<std::size_t> sizes(to_sizes.size());
      std::memcpy(sizes.data(), parts[r].data(), to_sizes.size_bytes());
      std::size_t offset = to_sizes.size_bytes();
      for (int q = 0; q < rank(); ++q) offset += sizes[static_cast<std::size_t>(q)];
      const std::size_t size = sizes[static_cast<std::size_t>(rank())];
      if (size != from_sizes[r])
        throw std::logic_error("a rank sent another number of bytes than it announced");
      if (size > 0) std::memcpy(from.data() + at, parts[r].data() + offset, size);
      at += size;
    }
  }

 private:
  static void put(const std::vector<std::vector<std::byte>>& parts, std::span<std::byte> all) {
    std::size_t at = 0;
    for (const auto& part : parts) {
      if (!part.empty()) std::memcpy(all.data() + at, part.data(), part.size());
      at += part.size();
    }
    if (at != all.size())
      throw std::logic_error("a rank sent another number of bytes than it announced");
  }

  std::shared_ptr<Meeting> meeting_;
};

/// Runs `act(ranks)` on `size` threads, one per rank. With one rank, `act` gets null. Returns the
/// message of what each rank threw, or an empty string for a rank that threw nothing.
inline std::vector<std::string> on_ranks(
    int size, const std::function<void(const std::shared_ptr<Communicator>& ranks)>& act) {
  std::vector<std::string> errors(static_cast<std::size_t>(size));
  if (size == 1) {
    act(nullptr);
    return errors;
  }
  const auto meeting = std::make_shared<Meeting>(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        act(std::make_shared<ThreadRank>(meeting, rank, size));
      } catch (const std::exception& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

}  // namespace kshot::test
