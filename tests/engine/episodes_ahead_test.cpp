// Episodes that are drawn ahead equal episodes that are drawn on demand, whichever thread takes
// them and whatever happened before.
#include "engine/episodes_ahead.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace kshot::test {
namespace {

/// A source of sinusoids that counts its draws. The first task of the step `bad` fails.
class Source final : public EpisodeSource {
 public:
  TaskShape shape() const override { return good_->shape(); }
  std::string describe() const override { return "counted"; }
  void fill(const TaskId& id, const TaskSlot& slot) const override {
    ++drawn;
    if (id.step == bad && id.task == 0) throw std::runtime_error("cannot be drawn");
    good_->fill(id, slot);
  }
  std::atomic<std::uint64_t> bad{~std::uint64_t{0}};
  mutable std::atomic<int> drawn{0};

 private:
  std::unique_ptr<EpisodeSource> good_ = make_sinusoid({});
};

constexpr int wave_tasks = 4;

/// Takes a step's waves in order and compares them with draws on demand.
void hold(EpisodesAhead& ahead, const WaveSequence& sequence, std::uint64_t step) {
  ahead.begin(sequence, step);
  for (int wave = 0; wave < sequence.waves(); ++wave) {
    TaskBatch want(sequence.source->shape(), wave_tasks);
    const int count = sequence.draw(want, step, wave);
    ahead.take(wave, [&](const TaskBatch& batch, int tasks) {
      ASSERT_EQ(tasks, count);
      const auto of = static_cast<std::ptrdiff_t>(count) * batch.shape().support;
      EXPECT_TRUE(
          std::equal(batch.support_x.begin(), batch.support_x.begin() + of, want.support_x.begin()))
          << "step " << step << ", wave " << wave;
      EXPECT_EQ(batch.support_value[0], want.support_value[0]);
    });
  }
}

TEST(EpisodesAhead, AreThoseOfTheStep) {
  Source source;
  EpisodesAhead ahead(source.shape(), wave_tasks, 3, 4);
  const WaveSequence ten{&source, 7, 10, wave_tasks};
  for (std::uint64_t step = 3; step < 9; ++step) hold(ahead, ten, step);
  hold(ahead, ten, 2);  // an earlier step
  hold(ahead, ten, 20);
  hold(ahead, {&source, 8, 10, wave_tasks}, 21);  // another seed
  // These are more waves than are held at the same time.
  hold(ahead, {&source, 8, 33, wave_tasks}, 22);
  hold(ahead, {&source, 8, 33, wave_tasks}, 23);
}

TEST(EpisodesAhead, AreDrawnBeforeTheyAreAskedForAndNotWithoutEnd) {
  Source source;
  EpisodesAhead ahead(source.shape(), wave_tasks, 1, 4);
  const WaveSequence sequence{&source, 7, 8, wave_tasks};
  ahead.begin(sequence, 0);
  for (int i = 0; i < 2000 && source.drawn < 16; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(source.drawn, 16) << "two steps: as many waves as are held";
}

TEST(EpisodesAhead, AnErrorComesOutWhereItsWaveIsTakenAndTheNextStepWorks) {
  Source source;
  EpisodesAhead ahead(source.shape(), wave_tasks, 2, 4);
  const WaveSequence sequence{&source, 7, 10, wave_tasks};
  source.bad = 1;
  hold(ahead, sequence, 0);
  ahead.begin(sequence, 1);
  EXPECT_THROW(ahead.take(0, [](const TaskBatch&, int) {}), std::runtime_error);
  source.bad = 99;
  hold(ahead, sequence, 2);
  ahead.begin(sequence, 3);
  EXPECT_THROW(ahead.take(0, [](const TaskBatch&, int) { throw std::logic_error("user"); }),
               std::logic_error);
  hold(ahead, sequence, 4);
}

/// A thread that waits for a wave whose slot holds a failed wave must not wait forever.
TEST(EpisodesAhead, AnErrorReachesWhoeverWaitsForALaterWave) {
  for (const bool by_use : {false, true}) {
    SCOPED_TRACE(by_use);
    Source source;
    if (!by_use) source.bad = 1;  // The first wave of step 1 fails.
    constexpr int depth = 2;
    EpisodesAhead ahead(source.shape(), wave_tasks, 2, depth);
    const WaveSequence sequence{&source, 7, 4 * wave_tasks, wave_tasks};
    ahead.begin(sequence, 1);
    ahead.take(1, [](const TaskBatch&, int) {});
    std::atomic<bool> waits{false};
    std::thread waiter([&] {
      waits = true;
      EXPECT_THROW(ahead.take(depth, [](const TaskBatch&, int) {}), std::runtime_error);
    });
    while (!waits) std::this_thread::yield();
    // By now the thread most likely waits.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_THROW(ahead.take(0, [](const TaskBatch&, int) { throw std::runtime_error("user"); }),
                 std::runtime_error);
    waiter.join();
    source.bad = 99;
    hold(ahead, sequence, 2);
  }
}

TEST(EpisodesAhead, SeveralTakers) {
  Source source;
  EpisodesAhead ahead(source.shape(), wave_tasks, 3, 5);
  const WaveSequence sequence{&source, 7, 400, wave_tasks};
  std::atomic<int> tasks{0};
  for (std::uint64_t step = 0; step < 3; ++step) {
    ahead.begin(sequence, step);
    std::atomic<int> next{0};
    std::vector<std::thread> takers;
    for (int i = 0; i < 4; ++i) {
      takers.emplace_back([&] {
        for (int wave = next++; wave < sequence.waves(); wave = next++) {
          ahead.take(wave, [&](const TaskBatch&, int count) { tasks += count; });
        }
      });
    }
    for (std::thread& taker : takers) taker.join();
  }
  EXPECT_EQ(tasks, 3 * 400);
}

}  // namespace
}  // namespace kshot::test
