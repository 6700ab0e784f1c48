#include "trainer/run/meters/restart_history.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tensor/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace switchyard::test {
namespace {

class RestartsTest : public ::testing::Test {
 protected:
  std::optional<RestartMetrics> start(std::int64_t step, double time,
                                      const std::string& checkpoint = "") {
    return RestartHistory(folder_.path(), step, false, time).begin(step, checkpoint, time);
  }
  void end(int code, const std::string& reason) {
    write_contents(folder_ / "exit.json",
                   nlohmann::json{{"code", code}, {"reason", reason}}.dump());
  }
  // A checkpoint whose last file was written at `seconds`.
  std::string checkpoint(const std::string& name, std::int64_t seconds) {
    const std::string path = folder_ / name;
    std::filesystem::create_directory(path);
    write_contents(path + "/manifest.json", "{}");
    const timespec times[2] = {{.tv_sec = seconds, .tv_nsec = 0},
                               {.tv_sec = seconds, .tv_nsec = 0}};
    EXPECT_EQ(::utimensat(AT_FDCWD, (path + "/manifest.json").c_str(), times, 0), 0);
    return path;
  }

  TemporaryFolder folder_;
};

TEST_F(RestartsTest, TheFirstStartIsNoRestart) {
  EXPECT_FALSE(start(0, 1000));
}

TEST_F(RestartsTest, AFinishedRunThatGoesOnIsNoRestart) {
  start(0, 1000);
  end(0, "done");
  EXPECT_FALSE(start(40, 2000));
}

TEST_F(RestartsTest, AStoppedRunSaysWhyAndHowLongItWaited) {
  start(0, 1000);
  end(16, "SIGUSR1");
  const auto restart = start(12, 1100.5, checkpoint("step-12", 1060));
  ASSERT_TRUE(restart);
  EXPECT_EQ(restart->restarts, 1);
  EXPECT_EQ(restart->step, 12);
  EXPECT_EQ(restart->lost_steps, 0);
  EXPECT_DOUBLE_EQ(restart->lost_seconds, 40.5);
  EXPECT_EQ(restart->reason, "SIGUSR1");
}

TEST_F(RestartsTest, AKilledRunLeavesNoWordAndLosesStepsSinceTheCheckpoint) {
  start(0, 1000);
  end(16, "SIGUSR1");
  start(5, 1050, checkpoint("step-5", 1040));  // trains: the last word of the first start is gone
  EXPECT_FALSE(std::filesystem::exists(folder_ / "exit.json"));
  write_contents(folder_ / "metrics.jsonl", to_json(StepMetrics{.step = 10}) + "\n" +
                                                to_json(StepMetrics{.step = 13}) +
                                                "\n{\"step\": 14, \"lo");
  const auto restart = start(10, 1300, checkpoint("step-10", 1200));
  ASSERT_TRUE(restart);
  EXPECT_EQ(restart->restarts, 2);
  EXPECT_EQ(restart->lost_steps, 3);
  EXPECT_DOUBLE_EQ(restart->lost_seconds, 100);
  EXPECT_NE(restart->reason.find("without a word"), std::string::npos);
}

// From the same checkpoint twice: the second counts from the first, so that the sum is the truth.
TEST_F(RestartsTest, LostSecondsAddUp) {
  start(0, 1000);
  const std::string path = checkpoint("step-5", 1010);
  EXPECT_DOUBLE_EQ(start(5, 1030, path)->lost_seconds, 20);
  EXPECT_DOUBLE_EQ(start(5, 1045, path)->lost_seconds, 15);
  // The other host's clock is ahead.
  EXPECT_DOUBLE_EQ(start(9, 1050, checkpoint("step-9", 2000))->lost_seconds, 0);
}

TEST_F(RestartsTest, ThreeRestartsWithoutProgressAndNoFourth) {
  start(7, 1000);
  for (int restart = 1; restart <= 3; ++restart) EXPECT_EQ(start(7, 1000)->restarts, restart);
  end(1, "rank 3: a fault");
  try {
    start(7, 1000);
    FAIL() << "a fourth restart";
  } catch (const ProgressError& error) {
    EXPECT_EQ(error.code(), ExitCode::no_progress);
    EXPECT_NE(std::string(error.what()).find("step 7"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("rank 3: a fault"), std::string::npos);
  }
  // Whoever starts it now has read that.
  EXPECT_EQ(start(7, 1000)->restarts, 5);
}

TEST_F(RestartsTest, ProgressClearsTheCount) {
  for (std::int64_t step = 0; step < 12; ++step) {
    const auto restart = start(step / 3, 1000);  // three starts from each step
    if (step > 0) {
      EXPECT_EQ(restart->restarts, step);
    }
  }
}

// No memory left for the model, say: begin() is never reached.
TEST_F(RestartsTest, StartsKilledInTheirSetupCount) {
  for (int starts = 0; starts < 4; ++starts)
    RestartHistory(folder_.path(), 20, false, 1000 + starts);
  EXPECT_THROW(RestartHistory(folder_.path(), 20, false, 1004), ProgressError);
  const auto restart = start(20, 1010);
  EXPECT_EQ(restart->restarts, 5);
  EXPECT_DOUBLE_EQ(restart->lost_seconds, 10);  // of all the starts in between
}

TEST_F(RestartsTest, AThirdRestartThatSavedIsFollowedByMore) {
  for (int starts = 0; starts < 4; ++starts) start(0, 1000);
  EXPECT_EQ(start(15, 1000)->restarts, 4);
  EXPECT_EQ(start(15, 1000)->restarts, 5);
}

// The newest checkpoint is damaged, an earlier one is restored, and the run gets on all the same.
TEST_F(RestartsTest, ADamagedNewestCheckpointHidesNoProgress) {
  for (std::int64_t step = 100; step < 110; ++step)
    RestartHistory(folder_.path(), 120, false, 1000).begin(step, "", 1000);
}

TEST_F(RestartsTest, ARunBegunAnewForgets) {
  for (int count = 0; count < 10; ++count)
    EXPECT_FALSE(RestartHistory(folder_.path(), 7, true, 1000).begin(0, "", 1000));
  EXPECT_EQ(start(0, 1000)->restarts, 1);
}

TEST_F(RestartsTest, ADamagedRecordIsAFirstStart) {
  write_contents(folder_ / "restarts.json", "{\"restarts\": ");
  EXPECT_FALSE(start(3, 1000));
  write_contents(folder_ / "restarts.json", "{\"restarts\": \"many\", \"first_step\": null}");
  EXPECT_EQ(start(3, 1000)->restarts, 1);
}

}  // namespace
}  // namespace switchyard::test
