// What moves messages during a computation: who asks the exchanges, when, and what becomes of their
// failures. And the memory that context attention takes, which depends on a rank's own positions.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>

#include "parallel/context/context_attention.hpp"
#include "parallel/group/exchange_progress.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

using namespace std::chrono_literals;

struct Watch {
  std::atomic<int> num_tests = 0;
  std::atomic<int> tests_to_finish = 1'000'000;
  std::atomic<bool> fails = false;
  std::atomic<std::thread::id> tester{};
};

class WatchedExchange final : public Event::Pending {
 public:
  explicit WatchedExchange(Watch& watch) : watch_(watch) {}
  bool test() override {
    watch_.tester = std::this_thread::get_id();
    if (watch_.fails) throw std::runtime_error("the wire is cut");
    return ++watch_.num_tests >= watch_.tests_to_finish;
  }
  void wait_host() override { std::this_thread::sleep_for(20ms); }

 private:
  Watch& watch_;
};

ImmediateStream compute;

Event watched(Watch& watch) {
  return Event(std::make_unique<WatchedExchange>(watch));
}

TEST(ExchangeProgressTest, PollsAskBothExchangesAndTheOthers) {
  Watch first, second;
  Event one = watched(first);
  Event other = watched(second);
  int num_outer = 0;
  ExchangeProgress progress(Progress::poll, compute);
  progress.during(
      one, other, [&] { ++num_outer; },
      [](const ExchangeProgress::Poll& poll) {
        for (int block = 0; block < 5; ++block) poll();
      });
  EXPECT_EQ(first.num_tests, 5);
  EXPECT_EQ(second.num_tests, 5);
  EXPECT_EQ(num_outer, 5);
  EXPECT_EQ(first.tester.load(), std::this_thread::get_id());
}

TEST(ExchangeProgressTest, AThreadFinishesThemWithoutAPoll) {
  Watch first, second;
  first.tests_to_finish = second.tests_to_finish = 10;
  Event one = watched(first);
  Event other = watched(second);
  ExchangeProgress progress(Progress::thread, compute);
  progress.during(one, other, {}, [&](const ExchangeProgress::Poll& poll) {
    while (first.num_tests < 10 || second.num_tests < 10) std::this_thread::sleep_for(1ms);
    poll();  // empty inside is fine
  });
  EXPECT_NE(first.tester.load(), std::this_thread::get_id());
  EXPECT_TRUE(one.test());
  EXPECT_TRUE(other.test());
}

// Polls of others wait for the thread to leave MPI: never both at once.
TEST(ExchangeProgressTest, TheThreadAndPollsTakeTurns) {
  Watch watch;
  std::atomic<bool> inside = false;
  class Exclusive final : public Event::Pending {
   public:
    Exclusive(std::atomic<bool>& inside, Watch& watch) : inside_(inside), watch_(watch) {}
    bool test() override {
      EXPECT_FALSE(inside_.exchange(true));
      std::this_thread::sleep_for(100us);
      inside_ = false;
      ++watch_.num_tests;
      return false;
    }
    void wait_host() override {}

   private:
    std::atomic<bool>& inside_;
    Watch& watch_;
  };
  Event one(std::make_unique<Exclusive>(inside, watch));
  Event nothing;
  ExchangeProgress progress(Progress::thread, compute);
  int num_outer = 0;
  progress.during(
      one, nothing,
      [&] {
        EXPECT_FALSE(inside.exchange(true));
        std::this_thread::sleep_for(100us);
        inside = false;
        ++num_outer;
      },
      [&](const ExchangeProgress::Poll& poll) {
        while (watch.num_tests < 20 || num_outer < 20) poll();
      });
  EXPECT_GE(num_outer, 20);
}

TEST(ExchangeProgressTest, NoneLeavesExchangesAlone) {
  Watch watch;
  Event one = watched(watch);
  Event nothing;
  ExchangeProgress progress(Progress::none, compute);
  progress.during(one, nothing, {}, [](const ExchangeProgress::Poll& poll) {
    if (poll) poll();
  });
  EXPECT_EQ(watch.num_tests, 0);
}

TEST(ExchangeProgressTest, FailuresReachTheCaller) {
  for (const Progress kind : {Progress::poll, Progress::thread}) {
    Watch watch;
    Event one = watched(watch);
    Event nothing;
    ExchangeProgress progress(kind, compute);
    EXPECT_THROW(progress.during(one, nothing, {},
                                 [&](const ExchangeProgress::Poll& poll) {
                                   watch.fails = true;
                                   for (int i = 0; i < 50; ++i) {
                                     poll();
                                     std::this_thread::sleep_for(1ms);
                                   }
                                 }),
                 std::runtime_error);
    // And one of the computation leaves the events to their owner.
    Watch other;
    Event again = watched(other);
    EXPECT_THROW(progress.during(again, nothing, {},
                                 [](const ExchangeProgress::Poll&) {
                                   throw std::logic_error("the computation failed");
                                 }),
                 std::logic_error);
    const int num_tests = other.num_tests;
    std::this_thread::sleep_for(5ms);
    EXPECT_EQ(other.num_tests, num_tests);
  }
}

TEST(ExchangeProgressTest, WaitingIsCounted) {
  Watch watch;
  ExchangeProgress progress(Progress::poll, compute);
  Event one = watched(watch);
  progress.wait(one);
  EXPECT_GE(progress.wait_seconds(), 0.02);
  progress.reset_wait_seconds();
  EXPECT_EQ(progress.wait_seconds(), 0);
}

TEST(ExchangeProgressTest, ByName) {
  EXPECT_EQ(choice_of<Progress>("thread"), Progress::thread);
  EXPECT_EQ(choice_of<Progress>("poll"), Progress::poll);
  EXPECT_EQ(choice_of<Progress>("magic"), std::nullopt);
}

struct Memory {
  std::int64_t communication = 0;
  std::int64_t all = 0;
};

Memory memory_of(std::int64_t length, int num_ranks, std::int64_t window) {
  const std::unique_ptr<Device> device = make_plan_device();
  ParallelConfig config;
  config.context = num_ranks;
  const kernels::KeyPattern pattern(window);
  const Mesh mesh(*device, 1, num_ranks, config);
  const SequenceSplit split(length, num_ranks, 1, SequenceLayout::zigzag, false);
  const ContextAttention attention(*device, mesh, {1, 8, 2, 64, 0.125f}, DType::bf16, split,
                                   {&pattern, 1});
  const MemoryLedger& memory = device->memory();
  return {memory.live(Purpose::communication), memory.live_total()};
}

// Two blocks of keys and values in bf16 and four of their gradients in fp32, 2 n d each.
TEST(ContextMemoryTest, TheRingHoldsSixBlocksWhateverTheNumberOfRanks) {
  const std::int64_t n = 4096;
  const std::int64_t d = 2 * 64;
  for (const int ranks : {2, 4, 16})
    EXPECT_EQ(memory_of(n * ranks, ranks, 0).communication, 2 * n * 2 * d * 2 + 4 * n * 2 * d * 4);
  EXPECT_EQ(memory_of(n * 2, 2, 0).all, memory_of(n * 16, 16, 0).all);
}

// Keys and values of its positions and of the halo of its two segments, and their gradients; and
// the halo's rows once more on their way in and out.
TEST(ContextMemoryTest, AWindowHoldsItsHaloWhateverTheLength) {
  const std::int64_t halo = 2 * 511;
  const std::int64_t d = 2 * 64;
  for (const std::int64_t n : {4096, 65536})
    for (const int ranks : {4, 16})
      EXPECT_EQ(memory_of(n * ranks, ranks, 512).communication,
                (n + halo) * 2 * d * (2 + 4) + 2 * halo * 2 * d * 4);
}

}  // namespace
}  // namespace switchyard
