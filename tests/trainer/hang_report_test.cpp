// The words of a hang: who is to blame, from the states of four ranks in groups of two and four.
#include "trainer/watch/hang_report.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

namespace switchyard {
namespace {

using Health = RankView::Health;
constexpr std::int64_t second = 1'000'000'000;
constexpr std::int64_t now = 1000 * second;
constexpr std::uint8_t world = 0;
constexpr std::uint8_t expert = 1;

void set_name(GroupState& group, const char* name, int leader, int size) {
  std::strncpy(group.name.data(), name, group.name.size() - 1);
  group.leader = leader;
  group.size = size;
}

// Ranks 0 and 1 are one expert group, 2 and 3 the other. All are in step 120.
std::vector<RankView> four_ranks() {
  std::vector<RankView> views(4);
  for (int rank = 0; rank < 4; ++rank) {
    LogState state;
    state.rank = rank;
    state.num_ranks = 4;
    state.process = 100 + rank;
    state.section = RunSection::step;
    state.place = {.num_changes = 1, .step = 120, .layer = 4, .part = Part::experts};
    state.num_groups = 2;
    set_name(state.groups[world], "world", 0, 4);
    set_name(state.groups[expert], "expert", rank / 2 * 2, 2);
    views[static_cast<std::size_t>(rank)] = {.state = state, .host = rank < 2 ? "a" : "b"};
  }
  return views;
}

LogState& state_of(std::vector<RankView>& views, int rank) {
  return *views[static_cast<std::size_t>(rank)].state;
}

void enter(LogState& state, std::uint8_t group, std::uint64_t sequence, Operation operation,
           std::int64_t sent, std::int64_t received, bool waits) {
  CollectiveRecord record{.number = ++state.num_entered,
                          .sequence = sequence,
                          .bytes_sent = sent,
                          .bytes_received = received,
                          .entered = now - 60 * second,
                          .waited = waits ? now - 60 * second : 0,
                          .left = 0,
                          .step = 120,
                          .layer = 5,
                          .group = group,
                          .operation = operation,
                          .part = Part::dispatch,
                          .backward = false};
  state.ring[record.number % LogState::num_records] = record;
  state.groups[group].num_entered = sequence;
  state.is_waiting = waits;
  if (waits) state.waiting = record;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(HangReport, NamesTheRankThatHasNotEntered) {
  std::vector<RankView> views = four_ranks();
  for (const int rank : {0, 1, 2})
    enter(state_of(views, rank), world, 7, Operation::all_to_all, 64, 64, true);
  state_of(views, 3).groups[world].num_entered = 6;
  const HangReport report = explain_hang(views, now, 61);
  EXPECT_EQ(report.culprits, std::vector<int>{3});
  EXPECT_EQ(report.headline,
            "rank 3 (b) has not entered all_to_all dispatch, layer 5, step 120 (group world of 4); "
            "ranks 0, 1, 2 wait since 60.0 s");
  EXPECT_TRUE(has(report.text, "hang: no progress for 61.0 s\n")) << report.text;
  EXPECT_TRUE(has(report.text,
                  "process 103 is alive, outside of any collective, at experts, layer "
                  "4, step 120"))
      << report.text;
}

TEST(HangReport, AStoppedRankIsNamedThoughItHasEntered) {
  std::vector<RankView> views = four_ranks();
  for (const int rank : {0, 1, 2, 3})
    enter(state_of(views, rank), world, 7, Operation::all_reduce, 64, 64, true);
  views[2].health = Health::stopped;
  const HangReport report = explain_hang(views, now, 61);
  EXPECT_EQ(report.culprits, std::vector<int>{2});
  EXPECT_TRUE(has(report.headline, "rank 2 (b) has entered but does not complete all_reduce"))
      << report.headline;
  EXPECT_TRUE(has(report.headline, "ranks 0, 1, 3 wait")) << report.headline;
  EXPECT_TRUE(has(report.text, "process 102 is stopped")) << report.text;
}

// Rank 3 is gone; only rank 2 waits for it, ranks 0 and 1 wait for rank 2.
TEST(HangReport, FollowsTheChainToItsEnd) {
  std::vector<RankView> views = four_ranks();
  enter(state_of(views, 2), expert, 9, Operation::all_to_all, 64, 64, true);
  for (const int rank : {0, 1})
    enter(state_of(views, rank), world, 7, Operation::all_reduce, 64, 64, true);
  views[3].health = Health::silent;
  const HangReport report = explain_hang(views, now, 61);
  EXPECT_EQ(report.culprits, std::vector<int>{3});
  EXPECT_TRUE(has(report.text, "gives no sign of life")) << report.text;
  EXPECT_TRUE(has(report.text, "group expert of 2")) << report.text;
}

TEST(HangReport, ARankWithoutAWordHasNotStarted) {
  std::vector<RankView> views = four_ranks();
  for (const int rank : {0, 1, 2})
    enter(state_of(views, rank), world, 7, Operation::barrier, 0, 0, true);
  views[3].state.reset();
  const HangReport report = explain_hang(views, now, 61);
  EXPECT_EQ(report.culprits, std::vector<int>{3});
  EXPECT_TRUE(has(report.headline, "rank 3 (b) has not entered barrier")) << report.headline;
  EXPECT_TRUE(has(report.text, "has not opened the run's folder")) << report.text;
}

TEST(HangReport, OtherCountsOrAnotherOperationDiffer) {
  std::vector<RankView> views = four_ranks();
  for (const int rank : {0, 1, 2})
    enter(state_of(views, rank), world, 7, Operation::all_reduce, 64, 64, true);
  enter(state_of(views, 3), world, 7, Operation::all_reduce, 128, 128, true);
  HangReport report = explain_hang(views, now, 61);
  EXPECT_TRUE(report.culprits.empty());
  EXPECT_TRUE(has(report.headline, "rank 3 (b) differs: it entered all_reduce")) << report.headline;
  EXPECT_TRUE(has(report.headline, "of 128 bytes where rank 0 (a) entered")) << report.headline;
  EXPECT_EQ(report.explained_by, (std::vector<int>{0, 3}));

  enter(state_of(views, 3), world, 7, Operation::barrier, 64, 64, true);
  state_of(views, 3).ring[1] = {};
  report = explain_hang(views, now, 61);
  EXPECT_TRUE(has(report.headline, "rank 3 (b) differs: it entered barrier")) << report.headline;
}

TEST(HangReport, CountsOfAnAllToAllThatDoNotAddUp) {
  std::vector<RankView> views = four_ranks();
  for (const int rank : {0, 1, 2, 3})
    enter(state_of(views, rank), world, 7, Operation::all_to_all, 64, rank == 1 ? 96 : 64, true);
  const HangReport report = explain_hang(views, now, 61);
  EXPECT_TRUE(has(report.headline, "its ranks send 256 bytes and expect 288")) << report.headline;
  EXPECT_TRUE(has(report.text, "  rank 1 (a) sends 64 bytes and expects 96; it waits\n"))
      << report.text;
  EXPECT_TRUE(has(report.text, "  rank 2 (b) sends 64 bytes and expects 64; it waits\n"))
      << report.text;
  EXPECT_EQ(report.explained_by, (std::vector<int>{0, 1, 2, 3}));
}

TEST(HangReport, RanksThatWaitInDifferentCollectives) {
  std::vector<RankView> views = four_ranks();
  enter(state_of(views, 0), world, 7, Operation::all_reduce, 64, 64, true);
  enter(state_of(views, 1), expert, 3, Operation::all_to_all, 64, 64, true);
  enter(state_of(views, 2), world, 7, Operation::all_reduce, 64, 64, true);
  enter(state_of(views, 3), world, 7, Operation::all_reduce, 64, 64, true);
  const HangReport report = explain_hang(views, now, 61);
  EXPECT_TRUE(report.culprits.empty());
  EXPECT_TRUE(has(report.text, "rank 1 (a) has not entered all_reduce")) << report.text;
  EXPECT_TRUE(has(report.text, "rank 0 (a) has not entered all_to_all")) << report.text;
  EXPECT_EQ(report.explained_by, (std::vector<int>{0, 1}));
}

TEST(HangReport, NothingButTheNetwork) {
  std::vector<RankView> views = four_ranks();
  for (const int rank : {0, 1, 2, 3})
    enter(state_of(views, rank), world, 7, Operation::all_reduce, 64, 64, true);
  const HangReport report = explain_hang(views, now, 61);
  EXPECT_TRUE(report.culprits.empty());
  EXPECT_TRUE(has(report.headline, "look at the network")) << report.headline;
}

TEST(HangReport, ALostRankIsDescribedByItsLastWord) {
  std::vector<RankView> views = four_ranks();
  views[1].health = Health::gone;
  const HangReport report = explain_loss(views, std::vector{1});
  EXPECT_EQ(report.headline,
            "rank 1 (a) died without a word (process 101) at experts, layer 4, step 120: killed "
            "(kill -9, out of memory) or crashed");
}

TEST(HangReport, ListsOfRanks) {
  EXPECT_EQ(join_ranks(std::vector{4}), "rank 4");
  EXPECT_EQ(join_ranks(std::vector{0, 1, 2}), "ranks 0, 1, 2");
  std::vector<int> many(32);
  for (int i = 0; i < 32; ++i) many[static_cast<std::size_t>(i)] = i;
  many.push_back(40);
  EXPECT_EQ(join_ranks(many), "ranks 0-31, 40");
}

}  // namespace
}  // namespace switchyard
