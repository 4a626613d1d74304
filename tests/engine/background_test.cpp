// A background thread runs jobs in order, accepts a bounded number of them, and loses no error.
#include "base/background.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

namespace kshot {
namespace {

TEST(Background, DoesJobsInOrderAndWaitsForThem) {
  std::vector<int> done;
  const std::thread::id here = std::this_thread::get_id();
  {
    Background background;
    background.wait();  // There is nothing to wait for.
    for (int i = 0; i < 5; ++i) {
      background.submit([&, i] {
        EXPECT_NE(std::this_thread::get_id(), here);
        done.push_back(i);
      });
    }
    background.wait();
    EXPECT_EQ(done, (std::vector<int>{0, 1, 2, 3, 4}));
    background.submit([&] { done.push_back(5); });
  }
  EXPECT_EQ(done.size(), 6u) << "the destructor finishes";
}

TEST(Background, HoldsWhoIsTooFast) {
  std::atomic<bool> go{false};
  std::atomic<int> given{0};
  Background background;
  std::thread giver([&] {
    for (int i = 0; i < 4; ++i) {
      background.submit([&] {
        while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      });
      ++given;
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LE(given, 2);
  go = true;
  giver.join();
  background.wait();
  EXPECT_EQ(given, 4);
}

TEST(Background, AnErrorComesOutOnceAndStopsWhatFollows) {
  Background background;
  bool ran = false;
  background.submit([] { throw std::runtime_error("disk"); });
  background.finish();
  EXPECT_THROW(background.submit([&] { ran = true; }), std::runtime_error);
  EXPECT_NO_THROW(background.wait());
  EXPECT_FALSE(ran);
  background.submit([&] { ran = true; });
  background.wait();
  EXPECT_TRUE(ran);
  background.submit([] { throw std::runtime_error("disk"); });
  EXPECT_THROW(background.wait(), std::runtime_error);
}

}  // namespace
}  // namespace kshot
