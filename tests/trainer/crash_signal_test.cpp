#include "trainer/watch/crash_signal.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

// What a watchdog does: says what has happened, and lets the process die of it.
void tell_and_release(CrashSignal& crash) {
  while (!crash.has_come()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // for the stack
  std::fprintf(stderr, "%s\n%s", crash.describe().c_str(), crash.stack().c_str());
  crash.release();
}

// Told by another thread while this one is held for much longer than the test lasts.
template <typename F>
[[noreturn]] void crash_watched(const F& fail) {
  CrashSignal crash(600000);
  std::thread teller([&] { tell_and_release(crash); });
  fail();
  teller.join();
  ::_exit(0);
}

// Returns a sum so that no call is the last thing that a call does.
// NOLINTNEXTLINE(misc-no-recursion)
[[gnu::noinline]] int fill_stack(int depth) {
  volatile char room[4096] = {};
  room[depth % 4096] = 1;
  return depth < 0 ? 0 : fill_stack(depth + 1) + room[0];
}

TEST(CrashSignalDeathTest, TheProcessIsHeldAndThenDiesOfTheSignal) {
  const auto begun = std::chrono::steady_clock::now();
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT})
    EXPECT_EXIT(
        {
          const CrashSignal crash(100);
          ::raise(signal);
          ::_exit(0);
        },
        ::testing::KilledBySignal(signal), "");
  EXPECT_GE(std::chrono::steady_clock::now() - begun, std::chrono::milliseconds(500));
}

TEST(CrashSignalDeathTest, AnotherThreadTellsIt) {
  EXPECT_EXIT(crash_watched([] { std::abort(); }), ::testing::KilledBySignal(SIGABRT),
              "abort \\(SIGABRT\\)\n  #0 ");
}

TEST(CrashSignalDeathTest, AFullStackIsHeldOnAnother) {
  EXPECT_EXIT(crash_watched([] { ::_exit(fill_stack(0)); }), ::testing::KilledBySignal(SIGSEGV),
              "segmentation fault \\(SIGSEGV\\)\n  #0 ");
}

TEST(CrashSignal, TheActionsBeforeAreRestored) {
  struct sigaction before {};
  struct sigaction after {};
  ::sigaction(SIGFPE, nullptr, &before);
  {
    const CrashSignal crash;
    EXPECT_FALSE(crash.has_come());
    EXPECT_EQ(crash.stack(), "");
    EXPECT_THROW(CrashSignal(), InternalError);
  }
  ::sigaction(SIGFPE, nullptr, &after);
  EXPECT_EQ(before.sa_sigaction, after.sa_sigaction);
}

}  // namespace
}  // namespace switchyard
