#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "backend/ordered_queue.h"
#include "base/sanitizers.h"
#include "kshot/error.h"

namespace kshot {
namespace {

TEST(ThreadPool, EveryItemOnceWhetherThreadsSleptOrNot) {
  ThreadPool pool(3);
  EXPECT_EQ(pool.workers(), 3);
  for (const auto pause : {std::chrono::microseconds(0), std::chrono::microseconds(2000)}) {
    for (int round = 0; round < 50; ++round) {
      std::vector<std::atomic<int>> seen(37);
      pool.run(seen.size(), [&](std::size_t worker, std::size_t item) {
        EXPECT_LT(worker, 3u);
        ++seen[item];
      });
      for (const auto& count : seen) ASSERT_EQ(count, 1);
      if (pause.count() > 0) std::this_thread::sleep_for(pause);
    }
  }
  pool.run(0, [](std::size_t, std::size_t) { FAIL() << "there is no item"; });
}

// The sanitizers need the address space.
#if !defined(KSHOT_ADDRESS_SANITIZER) && !defined(KSHOT_THREAD_SANITIZER)
TEST(ThreadPool, MoreThreadsThanTheSystemGivesAreAnErrorAndNoneStays) {
  const auto start_too_many = [] {
    rlimit limit{};
    ::getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = rlim_t{256} << 20;  // room for a few stacks
    ::setrlimit(RLIMIT_AS, &limit);
    try {
      const ThreadPool pool(1000);
    } catch (const Error& error) {
      std::fputs(error.what(), stderr);
      const auto threads = std::distance(std::filesystem::directory_iterator("/proc/self/task"),
                                         std::filesystem::directory_iterator{});
      std::_Exit(threads == 1 ? 3 : 4);
    }
    std::_Exit(5);
  };
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(start_too_many(), ::testing::ExitedWithCode(3), "cannot start thread .* of 1000");
}
#endif

TEST(ThreadPool, ThrowsTheFirstItemsErrorAndGoesOn) {
  ThreadPool pool(2);
  try {
    pool.run(8, [](std::size_t, std::size_t item) {
      if (item > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      throw std::runtime_error(std::to_string(item));
    });
    FAIL() << "expected an error";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "0");
  }
  std::atomic<int> items{0};
  pool.run(8, [&](std::size_t, std::size_t) { ++items; });
  EXPECT_EQ(items, 8);
}

TEST(OrderedQueue, CommitsInOrderAndLetsOthersGoOnMeanwhile) {
  backend::OrderedQueue<int> queue;
  queue.begin(4);
  std::vector<int> order;
  queue.put(1, 11, [](int&) { FAIL() << "the one before is missing"; });
  std::promise<void> begun, others_done;
  std::thread first([&] {
    queue.put(0, 10, [&](int& value) {
      if (order.empty()) {
        begun.set_value();
        others_done.get_future().wait();
      }
      order.push_back(value);
    });
  });
  begun.get_future().wait();
  // A commit is in progress, so that these calls leave their values in the queue.
  queue.take();
  queue.put(3, 13, [](int&) { FAIL() << "two commits at once"; });
  queue.put(2, 12, [](int&) { FAIL() << "two commits at once"; });
  others_done.set_value();
  first.join();
  EXPECT_EQ(order, (std::vector<int>{10, 11, 12, 13}));
  queue.check_complete();
}

}  // namespace
}  // namespace kshot
