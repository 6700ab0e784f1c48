#include "trainer/watch/stop_signal.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

TEST(StopSignal, TheFirstSignalIsARequest) {
  for (const auto& [signal, name] : {std::pair(SIGUSR1, "SIGUSR1"), std::pair(SIGTERM, "SIGTERM"),
                                     std::pair(SIGINT, "SIGINT"), std::pair(SIGHUP, "SIGHUP")}) {
    const StopSignal stop;
    EXPECT_FALSE(stop.requested());
    EXPECT_EQ(stop.name(), "");
    ::raise(signal);
    EXPECT_TRUE(stop.requested());
    EXPECT_EQ(stop.name(), name);
  }
}

TEST(StopSignal, AHangupThatIsIgnoredStaysIgnored) {
  ::signal(SIGHUP, SIG_IGN);
  {
    const StopSignal stop;
    ::raise(SIGHUP);
    EXPECT_FALSE(stop.requested());
  }
  EXPECT_EQ(::signal(SIGHUP, SIG_DFL), SIG_IGN);
}

TEST(StopSignal, ARepetitionAtOnceIsTheSameRequest) {
  const StopSignal stop(60000);
  ::raise(SIGTERM);
  ::raise(SIGUSR1);
  EXPECT_EQ(stop.name(), "SIGTERM");
}

TEST(StopSignalDeathTest, TheSecondSignalEndsTheProcess) {
  EXPECT_EXIT(
      {
        const StopSignal stop(0);
        ::raise(SIGUSR1);
        ::raise(SIGTERM);
        ::_exit(0);
      },
      ::testing::ExitedWithCode(16), "stopped at once by a second signal");
}

TEST(StopSignal, ASaveIsFinishedBeforeTheSecondSignalCounts) {
  StopSignal stop(0);
  ::raise(SIGUSR1);
  for (int save = 0; save < 2; ++save) {
    const StopSignal::Saving saving(stop);
    ::raise(SIGTERM);
  }
  EXPECT_EQ(stop.name(), "SIGUSR1");
}

TEST(StopSignal, TheFirstSignalMayComeWhileSaving) {
  StopSignal stop(0);
  const StopSignal::Saving saving(stop);
  ::raise(SIGTERM);
  EXPECT_EQ(stop.name(), "SIGTERM");
}

TEST(StopSignalDeathTest, OneMoreSignalGivesUpTheSave) {
  EXPECT_EXIT(
      {
        StopSignal stop(0);
        ::raise(SIGUSR1);
        const StopSignal::Saving saving(stop);
        ::raise(SIGTERM);
        ::raise(SIGTERM);
        ::_exit(0);
      },
      ::testing::ExitedWithCode(16), "saved first(.|\n)*the checkpoint was given up");
}

TEST(StopSignalDeathTest, AfterASaveTheSecondSignalEndsTheProcess) {
  EXPECT_EXIT(
      {
        StopSignal stop(0);
        ::raise(SIGUSR1);
        { const StopSignal::Saving saving(stop); }
        ::raise(SIGTERM);
        ::_exit(0);
      },
      ::testing::ExitedWithCode(16), "nothing was saved");
}

TEST(StopSignalDeathTest, AfterItsLifeSignalsHaveTheirDefaultAction) {
  EXPECT_EXIT(
      {
        { const StopSignal stop; }
        ::raise(SIGTERM);
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

TEST(StopSignal, OneAtATime) {
  const StopSignal stop;
  EXPECT_THROW(StopSignal(), InternalError);
}

}  // namespace
}  // namespace switchyard
