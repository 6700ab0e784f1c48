// Pieces from a shared queue: each is done once, whoever takes it, and the call ends with the last.
#include "kernels/threads.hpp"

#include <gtest/gtest.h>
#include <omp.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace switchyard::kernels {
namespace {

class ThreadsTest : public testing::Test {
 protected:
  void TearDown() override { set_num_threads(before_); }
  int before_ = num_threads();
};

TEST_F(ThreadsTest, EveryPieceIsDoneOnce) {
  for (const int threads : {1, 2, 3, 5}) {
    set_num_threads(threads);
    for (std::int64_t num_pieces : {0, 1, 2, 3, 7, 64, 1000}) {
      std::vector<std::atomic<int>> done(static_cast<std::size_t>(num_pieces));
      for (int repeat = 0; repeat < 20; ++repeat) {
        for_each_piece(num_pieces, [&](std::int64_t piece, int thread) {
          ++done[static_cast<std::size_t>(piece)];
          EXPECT_TRUE(thread >= 0 && thread < threads);
        });
        for (const std::atomic<int>& count : done) EXPECT_EQ(count, repeat + 1);
      }
    }
  }
}

TEST_F(ThreadsTest, NoTwoPiecesHaveOneThreadAtATime) {
  set_num_threads(4);
  std::array<std::atomic<int>, 4> at_work{};
  for (int repeat = 0; repeat < 200; ++repeat)
    for_each_piece(
        16,
        [&](std::int64_t, int thread) {
          EXPECT_LT(thread, 3);
          EXPECT_EQ(++at_work[static_cast<std::size_t>(thread)], 1);
          --at_work[static_cast<std::size_t>(thread)];
        },
        3);
}

TEST_F(ThreadsTest, TheCallingThreadIsThreadZero) {
  set_num_threads(3);
  const std::thread::id caller = std::this_thread::get_id();
  for (int repeat = 0; repeat < 100; ++repeat)
    for_each_piece(8, [&](std::int64_t, int thread) {
      EXPECT_EQ(thread == 0, std::this_thread::get_id() == caller);
    });
}

// Both pieces wait for each other: they end only if another thread takes part.
TEST_F(ThreadsTest, OthersTakePart) {
  set_num_threads(2);
  std::mutex mutex;
  std::condition_variable arrival;
  int arrived = 0;
  for_each_piece(2, [&](std::int64_t, int) {
    std::unique_lock lock(mutex);
    ++arrived;
    arrival.notify_all();
    arrival.wait(lock, [&] { return arrived == 2; });
  });
  EXPECT_EQ(arrived, 2);
}

// The other thread is held up in its first piece until all others are done: fixed shares would
// never end.
TEST_F(ThreadsTest, AThreadThatIsHeldUpKeepsOnePieceOnly) {
  set_num_threads(2);
  constexpr int num_pieces = 64;
  std::atomic<int> done_by_caller = 0, done_by_other = 0;
  std::atomic<bool> other_has_come = false;
  for_each_piece(num_pieces, [&](std::int64_t, int thread) {
    if (thread == 0) {
      other_has_come.wait(false);
      if (++done_by_caller == num_pieces - 1) done_by_caller.notify_one();
      return;
    }
    other_has_come = true;
    other_has_come.notify_one();
    for (int done = done_by_caller; done < num_pieces - 1; done = done_by_caller)
      done_by_caller.wait(done);
    ++done_by_other;
  });
  EXPECT_EQ(done_by_caller, num_pieces - 1);
  EXPECT_EQ(done_by_other, 1);
}

TEST_F(ThreadsTest, PiecesOfAPieceAreDoneByItsThread) {
  set_num_threads(2);
  std::atomic<int> inner = 0;
  for_each_piece(6, [&](std::int64_t, int) {
    const std::thread::id here = std::this_thread::get_id();
    for_each_piece(5, [&](std::int64_t, int thread) {
      EXPECT_EQ(std::this_thread::get_id(), here);
      EXPECT_EQ(thread, 0);
      ++inner;
    });
  });
  EXPECT_EQ(inner, 30);
}

TEST_F(ThreadsTest, CallsOfTwoThreadsDoNotDisturbEachOther) {
  set_num_threads(3);
  std::array<std::atomic<std::int64_t>, 2> sums{};
  const auto add_up = [&](std::size_t who) {
    for (int repeat = 0; repeat < 500; ++repeat)
      for_each_piece(20, [&](std::int64_t piece, int) { sums[who] += piece; });
  };
  std::thread other(add_up, 1);
  add_up(0);
  other.join();
  EXPECT_EQ(sums[0], 500 * 190);
  EXPECT_EQ(sums[1], 500 * 190);
}

cpu_set_t allowed_processors() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  EXPECT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  return allowed;
}

void stay_on(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  EXPECT_EQ(sched_setaffinity(0, sizeof set, &set), 0);
}

// The system wakes a thread where it was, even if that is the caller's processor and another is
// idle.
TEST_F(ThreadsTest, AThreadThatWakesUpLeavesTheCallersProcessor) {
  const cpu_set_t allowed = allowed_processors();
  if (CPU_COUNT(&allowed) < 2) GTEST_SKIP() << "one processor";
  set_num_threads(2);
  constexpr int num_calls = 60;
  int num_apart = 0;
  for (int call = 0; call < num_calls; ++call) {
    const int here = sched_getcpu();
    std::array<int, 2> processors{};
    std::atomic<int> arrived = 0;
    for_each_piece(2, [&](std::int64_t, int thread) {
      processors[static_cast<std::size_t>(thread)] = sched_getcpu();
      ++arrived;
      while (arrived < 2) __builtin_ia32_pause();
      if (thread == 0) return;
      const cpu_set_t now = allowed_processors();
      EXPECT_TRUE(CPU_EQUAL(&now, &allowed));
      stay_on(here);
      EXPECT_EQ(sched_setaffinity(0, sizeof allowed, &allowed), 0);
    });
    num_apart += processors[0] != processors[1] ? 1 : 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // so that the other one sleeps
  }
  EXPECT_GE(num_apart, num_calls / 3);
}

double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// A thread with nothing to do leaves its core to others.
TEST_F(ThreadsTest, WaitingThreadsSleep) {
  set_num_threads(4);
  for_each_piece(64, [](std::int64_t, int) {});
  const double before = processor_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(processor_seconds() - before, 0.02);

  // So does the caller while others finish.
  for_each_piece(
      2, [](std::int64_t, int) { std::this_thread::sleep_for(std::chrono::milliseconds(100)); });
  EXPECT_LT(processor_seconds() - before, 0.04);
}

// With OMP_PROC_BIND and OMP_PLACES every thread has a place of its own.
TEST_F(ThreadsTest, ThreadsAreBoundAsOpenMpSays) {
  if (omp_get_proc_bind() == omp_proc_bind_false || omp_get_num_places() < 2) {
    RecordProperty("bound", "no");
    return;
  }
  set_num_threads(2);
  std::mutex mutex;
  std::condition_variable arrival;
  std::set<int> processors;
  int arrived = 0;
  for_each_piece(2, [&](std::int64_t, int thread) {
    cpu_set_t set;
    ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
    EXPECT_EQ(CPU_COUNT(&set), omp_get_place_num_procs(thread));
    std::unique_lock lock(mutex);
    processors.insert(sched_getcpu());
    ++arrived;
    arrival.notify_all();
    arrival.wait(lock, [&] { return arrived == 2; });
  });
  EXPECT_EQ(processors.size(), 2u);
}

}  // namespace
}  // namespace switchyard::kernels
