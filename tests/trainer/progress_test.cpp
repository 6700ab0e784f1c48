#include "trainer/run/progress.hpp"

#include <gtest/gtest.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <limits>
#include <sstream>

#include "tests/support/temporary_folder.hpp"
#include "trainer/number_text.hpp"
#include "trainer/run/rank_log.hpp"

namespace switchyard::test {
namespace {

TEST(RunProgress, CountsDurationsAndBytes) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(987), "987");
  EXPECT_EQ(format_count(1900), "1.9k");
  EXPECT_EQ(format_count(999960), "1.0M");
  EXPECT_EQ(format_count(3.2e9), "3.2B");
  EXPECT_EQ(format_duration(42), "00:42");
  EXPECT_EQ(format_duration(59.7), "01:00");
  EXPECT_EQ(format_duration(3723), "1:02:03");
  EXPECT_EQ(format_duration(-1), "--:--");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::quiet_NaN()), "--:--");
  EXPECT_EQ(format_bytes(3.0 * (std::int64_t{1} << 50)), "3.0 PiB");
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1.5 * 1024 * 1024), "1.5 MiB");
}

TEST(RunProgress, ReadsBytesAsPeopleWriteThem) {
  EXPECT_EQ(parse_bytes("1000"), 1000);
  EXPECT_EQ(parse_bytes("512GiB"), std::int64_t{512} << 30);
  EXPECT_EQ(parse_bytes("64G"), std::int64_t{64} << 30);
  EXPECT_EQ(parse_bytes("1.5TB"), 1'500'000'000'000);
  EXPECT_EQ(parse_bytes("2ki"), 2048);
  EXPECT_EQ(parse_bytes("7B"), 7);
  for (const char* text : {"", "G", "-1", "12X", "1GG", "1 G", "nan", "inf", "9E", "99999999P"})
    EXPECT_EQ(parse_bytes(text), std::nullopt) << text;
}

TEST(RunProgress, UnitsKeepColumnsNarrow) {
  EXPECT_EQ(flop_unit(99'999e9).name, "GFLOP");
  EXPECT_EQ(flop_unit(100'000e9).name, "TFLOP");
  EXPECT_EQ(flop_unit(1.7e19).name, "PFLOP");
  EXPECT_EQ(flop_unit(1e40).name, "ZFLOP");
  EXPECT_EQ(byte_unit(0).name, "MB");
  EXPECT_EQ(byte_unit(2.3e15).name, "TB");
  EXPECT_EQ(time_unit(101).name, "s");
}

TEST(RunProgress, TheLine) {
  EXPECT_EQ(format_progress_line({120, 300, 3.4123, 1900, 0.41, 1.084, 42.0}),
            "step 120/300  loss 3.412  1.9k tok/s  41% of peak  balance 1.08  ETA 00:42");
  EXPECT_EQ(format_progress_line({1, 3, 9.01, 10, {}, 1, {}}),
            "step 1/3  loss 9.010  10 tok/s  balance 1.00");
  EXPECT_EQ(format_progress_line({.step = 1,
                                  .num_steps = 3,
                                  .loss = 9.01,
                                  .tokens_per_second = 10,
                                  .balance = 1.5,
                                  .balance_layer = 7}),
            "step 1/3  loss 9.010  10 tok/s  balance 1.50 layer 7");
}

TEST(RunProgress, RatesLeaveOutTheFirstStepsAndForgetOldOnes) {
  RateWindow window(2, 3);
  window.add(100, 10);
  EXPECT_DOUBLE_EQ(window.tokens_per_second(), 10);  // better than nothing
  window.add(100, 10);
  window.add(100, 1);
  EXPECT_DOUBLE_EQ(window.tokens_per_second(), 100);
  EXPECT_DOUBLE_EQ(window.seconds_per_step(), 1);
  for (int i = 0; i < 3; ++i) window.add(100, 2);
  EXPECT_DOUBLE_EQ(window.tokens_per_second(), 50);
}

RunProgress::Step step_of(std::int64_t step, double seconds) {
  return {.step = step, .loss = 2, .balance = 1, .num_tokens = 100, .seconds = seconds};
}

std::int64_t num_lines(const std::string& text) {
  return std::count(text.begin(), text.end(), '\n');
}

TEST(RunProgress, PlainLinesComeNowAndThen) {
  std::ostringstream out;
  RunProgress progress(out, {}, 1, 100, 10);
  for (std::int64_t step = 1; step <= 100; ++step) progress.step(step_of(step, 1));
  progress.finish();
  // The first, then one each ten seconds; the last is among those or of its own.
  EXPECT_GE(num_lines(out.str()), 10);
  EXPECT_LE(num_lines(out.str()), 12);
  EXPECT_EQ(out.str().find('\r'), std::string::npos);
  EXPECT_EQ(out.str().rfind("step 1/100", 0), 0u);
  EXPECT_NE(out.str().find("step 100/100"), std::string::npos);
}

TEST(RunProgress, ATerminalHasOneLineRewritten) {
  std::ostringstream out;
  {
    RunProgress progress(
        out, [] { return 80; }, 1, 2000);
    progress.step(step_of(999, 3));
    progress.note("saved");
    progress.step(step_of(1000, 0.5));
  }
  EXPECT_EQ(num_lines(out.str()), 2);  // the note's and the end
  EXPECT_NE(out.str().find("\rstep 1000/2000"), std::string::npos);
  EXPECT_NE(out.str().find("\rsaved\nstep 999/2000"), std::string::npos) << out.str();
}

TEST(RunProgress, ANarrowTerminalHasTheLineWithoutItsLesserParts) {
  const ProgressLine line{120, 300, 3.4123, 1900, 0.41, 1.084, 42.0};
  EXPECT_EQ(format_progress_line(line, 74), format_progress_line(line));
  EXPECT_EQ(format_progress_line(line, 73),
            "step 120/300  loss 3.412  1.9k tok/s  41% of peak  ETA 00:42");
  EXPECT_EQ(format_progress_line(line, 50), "step 120/300  loss 3.412  1.9k tok/s  ETA 00:42");
  EXPECT_EQ(format_progress_line(line, 40), "step 120/300  loss 3.412  ETA 00:42");
  EXPECT_EQ(format_progress_line(line, 25), "step 120/300  loss 3.412");
  EXPECT_EQ(format_progress_line(line, 12), "step 120/300");
  EXPECT_EQ(format_progress_line(line, 6), "step 1");
}

// The window is made narrower while a long line stands there, then wider.
TEST(RunProgress, FollowsTheWindow) {
  std::ostringstream out;
  int columns = 200;
  RunProgress progress(
      out, [&columns] { return columns; }, 1, 2000);
  progress.step(step_of(1, 1));
  columns = 30;
  for (std::int64_t step = 2; step < 5; ++step) progress.step(step_of(step, 1));
  progress.note("a note");
  std::istringstream written(out.str());
  std::string line;
  std::getline(written, line, '\r');
  std::getline(written, line, '\r');
  EXPECT_GT(line.size(), 50u);
  while (std::getline(written, line, '\r')) {
    line = line.substr(line.find('\n') + 1);
    EXPECT_LE(line.size(), 29u) << line;
  }
  columns = 200;
  out.str("");
  progress.step(step_of(5, 1));
  EXPECT_GT(out.str().size(), 50u);
}

TEST(RunProgress, AsksTheTerminalForItsColumns) {
  int leader = -1;
  int follower = -1;
  winsize size{.ws_row = 24, .ws_col = 41, .ws_xpixel = 0, .ws_ypixel = 0};
  ASSERT_EQ(::openpty(&leader, &follower, nullptr, nullptr, &size), 0);
  EXPECT_EQ(terminal_columns(follower), 41);
  size.ws_col = 133;
  ASSERT_EQ(::ioctl(leader, TIOCSWINSZ, &size), 0);
  EXPECT_EQ(terminal_columns(follower), 133);
  size.ws_col = 0;
  ASSERT_EQ(::ioctl(leader, TIOCSWINSZ, &size), 0);
  EXPECT_EQ(terminal_columns(follower), 80);
  ::close(leader);
  ::close(follower);
}

TEST(RunProgress, Summary) {
  RunSummary summary;
  summary.first_step = 100;
  summary.last_step = 300;
  summary.num_steps = 300;
  summary.loss = 3.25;
  summary.validation_loss = 3.5;
  summary.num_tokens = 1200000;
  summary.seconds = 125;
  summary.tokens_per_second = 9600;
  summary.peak_share = 0.41;
  summary.memory_bytes = std::int64_t{3} << 30;
  summary.checkpoint = "runs/tiny/checkpoints/step-00000300";
  summary.next = {"switchyard eval tiny.yaml"};
  const std::string text = format_summary(summary);
  for (const char* part : {"done after step 300 of 300 in 02:05", "step 100", "3.2500", "3.5000",
                           "1.2M, 9.6k a second, 41% of peak", "3.0 GiB", "step-00000300",
                           "switchyard eval tiny.yaml"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  summary.last_step = 200;
  EXPECT_EQ(format_summary(summary).rfind("stopped after step 200 of 300", 0), 0u);
  // A finished run that is started again has no loss and no rate to show.
  summary.first_step = summary.last_step = 300;
  EXPECT_EQ(format_summary(summary),
            "done at step 300 of 300, without a step now; a larger train.num_steps goes on\n"
            "  checkpoint      runs/tiny/checkpoints/step-00000300\n"
            "  next            switchyard eval tiny.yaml\n");
}

TEST(RankLog, LinesGoToTheRanksFileAndWarningsOfRankZeroToStderr) {
  const TemporaryFolder folder;
  ::testing::internal::CaptureStderr();
  for (int rank = 0; rank < 2; ++rank) {
    RankLog log(folder.path(), rank);
    log.info("{} braces are text");
    log.warning("look here " + std::to_string(rank));
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "warning: look here 0\n");
  const std::string text = contents_of(folder / "rank-1.log");
  EXPECT_NE(text.find("info {} braces are text\n"), std::string::npos) << text;
  EXPECT_NE(text.find("warning look here 1\n"), std::string::npos) << text;
  { RankLog(folder.path(), 1).error("again"); }
  EXPECT_EQ(num_lines(contents_of(folder / "rank-1.log")), 3);
}

}  // namespace
}  // namespace switchyard::test
