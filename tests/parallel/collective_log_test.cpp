// The log of collectives: what it keeps, what another reader sees, and what it costs.
#include "parallel/group/collective_log.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>

namespace switchyard {
namespace {

TEST(CollectiveLog, NotesEnteringWaitingAndLeaving) {
  CollectiveLog log;
  const std::uint8_t world = log.add_group("world", 0, 4);
  const std::uint8_t expert = log.add_group("expert", 2, 2);
  EXPECT_NE(world, expert);
  EXPECT_EQ(log.add_group("expert", 2, 2), expert);
  log.place() = {
      .num_changes = 0, .step = 12, .layer = 3, .part = Part::dispatch, .backward = true};

  CollectiveRecord first = log.enter(expert, Operation::all_to_all, 10, 20);
  CollectiveRecord second = log.enter(world, Operation::all_reduce, 8, 8);
  LogState state = log.read();
  EXPECT_FALSE(state.is_waiting);
  EXPECT_EQ(state.groups[expert].num_entered, 1u);
  EXPECT_EQ(state.num_entered, 2u);

  log.wait(first);
  state = log.read();
  ASSERT_TRUE(state.is_waiting);
  EXPECT_EQ(state.waiting.operation, Operation::all_to_all);
  EXPECT_EQ(state.waiting.bytes_received, 20);
  EXPECT_EQ(state.waiting.step, 12);
  EXPECT_EQ(state.waiting.layer, 3);
  EXPECT_EQ(state.waiting.part, Part::dispatch);
  EXPECT_TRUE(state.waiting.backward);

  const std::uint64_t progress = state.progress();
  log.leave(first);
  log.leave(second);
  state = log.read();
  EXPECT_FALSE(state.is_waiting);
  EXPECT_EQ(state.progress(), progress + 2);
  ASSERT_NE(state.find(expert, 1), nullptr);
  EXPECT_GE(state.find(expert, 1)->left, state.find(expert, 1)->waited);
  EXPECT_EQ(state.find(expert, 2), nullptr);
}

TEST(CollectiveLog, KeepsTheLastOnes) {
  CollectiveLog log;
  const std::uint8_t world = log.add_group("world", 0, 2);
  CollectiveRecord oldest = log.enter(world, Operation::all_gather, 1, 1);
  for (std::size_t i = 0; i < LogState::num_records; ++i)
    CollectiveLog::Scope(log, world, Operation::barrier, 0);
  log.wait(oldest);
  const LogState state = log.read();
  EXPECT_EQ(state.find(world, 1), nullptr);
  EXPECT_EQ(state.waiting.sequence, 1u);  // what is waited for is known all the same
  log.leave(oldest);
  EXPECT_EQ(log.read().find(world, LogState::num_records + 1)->operation, Operation::barrier);
}

// A stopped process does not answer, but its memory can be read; a killed one is gone.
TEST(CollectiveLog, IsReadFromAnotherProcess) {
  int channel[2];
  ASSERT_EQ(::pipe(channel), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    CollectiveLog log;
    log.set_rank(3, 4);
    const std::uint8_t world = log.add_group("world", 0, 4);
    CollectiveRecord record = log.enter(world, Operation::broadcast, 5, 5);
    log.wait(record);
    const LogState state = log.read();
    if (::write(channel[1], &state, sizeof state) != sizeof state) ::_exit(1);
    for (;;) ::pause();
  }
  LogState known;
  char* to = reinterpret_cast<char*>(&known);
  for (std::size_t got = 0; got < sizeof known;) {
    const ssize_t count = ::read(channel[0], to + got, sizeof known - got);
    ASSERT_GT(count, 0);
    got += static_cast<std::size_t>(count);
  }
  EXPECT_EQ(process_state(known), ProcessState::running);
  ::kill(child, SIGSTOP);
  int status = 0;
  ::waitpid(child, &status, WUNTRACED);
  EXPECT_EQ(process_state(known), ProcessState::stopped);
  const std::optional<LogState> live = read_live(known);
  ASSERT_TRUE(live);
  EXPECT_EQ(live->rank, 3);
  EXPECT_TRUE(live->is_waiting);
  EXPECT_EQ(live->waiting.operation, Operation::broadcast);
  LogState other = known;
  other.process_start += 1;  // another process that was given the same number
  EXPECT_FALSE(read_live(other));
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  EXPECT_EQ(process_state(known), ProcessState::gone);
  EXPECT_FALSE(read_live(known));
}

// A step of a small model has some hundreds of collectives: a fifth of a percent of 20 ms is 40 us.
TEST(CollectiveLog, CostsFarLessThanACollective) {
  CollectiveLog log;
  const std::uint8_t world = log.add_group("world", 0, 2);
  constexpr int count = 100'000;
  double best = 1e9;
  for (int trial = 0; trial < 5; ++trial) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < count; ++i) CollectiveLog::Scope(log, world, Operation::barrier, 0);
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - start;
    best = std::min(best, taken.count() / count);
  }
  RecordProperty("nanoseconds", static_cast<int>(best));
  std::printf("%.0f ns a collective, entered, waited for and left\n", best);
  EXPECT_LT(best, 2000);
}

}  // namespace
}  // namespace switchyard
