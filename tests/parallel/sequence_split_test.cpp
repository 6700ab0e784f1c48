// Who holds which positions: for every split, all of them once; the hand-worked layouts; what is
// refused and with which words; and that zigzag gives every rank the same work at every step.
#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/context/sequence_split.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

using Segments = std::vector<PositionRange>;
using enum SequenceLayout;

TEST(SequenceSplitTest, OneRankHoldsOneSegment) {
  EXPECT_EQ(SequenceSplit(17).segments(0), (Segments{{0, 17}}));
  EXPECT_EQ(SequenceSplit(17, 1, 1, zigzag, false).segments(0), (Segments{{0, 17}}));
}

TEST(SequenceSplitTest, ZigzagPairsEarlyAndLateChunks) {
  const SequenceSplit split(24, 3, 1, zigzag, false);
  EXPECT_EQ(split.segments(0), (Segments{{0, 4}, {20, 4}}));
  EXPECT_EQ(split.segments(1), (Segments{{4, 4}, {16, 4}}));
  EXPECT_EQ(split.segments(2), (Segments{{8, 8}}));  // chunks 2 and 3 are neighbours
  EXPECT_EQ(split.positions(1), (std::vector<std::int32_t>{4, 5, 6, 7, 16, 17, 18, 19}));
}

TEST(SequenceSplitTest, UlyssesRanksShareTheChunksOfTheirRingRank) {
  const SequenceSplit split(24, 2, 3, zigzag, false);
  EXPECT_EQ(split.ring_segments(0), (Segments{{0, 6}, {18, 6}}));
  EXPECT_EQ(split.segments(0), (Segments{{0, 4}}));
  EXPECT_EQ(split.segments(1), (Segments{{4, 2}, {18, 2}}));
  EXPECT_EQ(split.segments(2), (Segments{{20, 4}}));
  EXPECT_EQ(split.segments(3), (Segments{{6, 4}}));
}

TEST(SequenceSplitTest, ContiguousChunksFollowTheRanks) {
  const SequenceSplit split(12, 2, 2, contiguous, false);
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(split.segments(rank), (Segments{{3 * rank, 3}}));
}

TEST(SequenceSplitTest, EverySplitHoldsEveryPositionOnceAndEvenly) {
  for (const SequenceLayout layout : {zigzag, contiguous})
    for (int ring = 1; ring <= 5; ++ring)
      for (int ulysses = 1; ulysses <= 4; ++ulysses)
        for (const std::int64_t length : {40, 41, 59, 120, 127}) {
          const SequenceSplit split(length, ring, ulysses, layout, true);
          std::vector<int> holders(static_cast<std::size_t>(length), 0);
          for (int rank = 0; rank < split.num_ranks(); ++rank) {
            const std::vector<std::int32_t> positions = split.positions(rank);
            EXPECT_TRUE(std::is_sorted(positions.begin(), positions.end()));
            EXPECT_LE(split.segments(rank).size(), 2u);
            EXPECT_EQ(std::ssize(positions), split.num_local(rank));
            EXPECT_GE(split.num_local(rank), length / split.num_ranks() - 1);
            EXPECT_LE(split.num_local(rank), split.max_local());
            for (const std::int32_t p : positions) ++holders[static_cast<std::size_t>(p)];
          }
          EXPECT_EQ(std::count(holders.begin(), holders.end(), 1), length);
        }
}

// With c = L / (2 P): c (2 c + 1) scored pairs at step 0 and 2 c^2 at every other, on every rank.
TEST(SequenceSplitTest, ZigzagIsBalancedAtEveryStepOfTheRing) {
  constexpr int num_ranks = 4;
  constexpr std::int64_t c = 4;
  const SequenceSplit split(2 * num_ranks * c, num_ranks, 1, zigzag, false);
  for (int rank = 0; rank < num_ranks; ++rank)
    for (int step = 0; step < num_ranks; ++step) {
      const Segments keys = split.segments((rank - step + num_ranks) % num_ranks);
      std::int64_t num_pairs = 0;
      for (const std::int32_t p : split.positions(rank)) num_pairs += count_before(keys, p + 1);
      EXPECT_EQ(num_pairs, step == 0 ? c * (2 * c + 1) : 2 * c * c);
    }
}

std::string refusal(std::int64_t length, std::int64_t ring, std::int64_t ulysses,
                    SequenceLayout layout, bool pad) {
  try {
    const SequenceSplit split(length, ring, ulysses, layout, pad);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(SequenceSplitTest, UnequalSplitsAreRefusedWithTheLegalChoices) {
  EXPECT_EQ(refusal(1000, 3, 2, zigzag, false),
            "parallel.context: ring 3 x ulysses 2 = 6 ranks cannot share 1000 positions equally; "
            "the zigzag layout needs a multiple of 6: make model.sequence_length 996 or 1002, or "
            "set parallel.context.pad to true");
  EXPECT_EQ(refusal(1004, 4, 1, zigzag, false),
            "parallel.context: ring 4 x ulysses 1 = 4 ranks cannot share 1004 positions equally; "
            "the zigzag layout needs a multiple of 8: make model.sequence_length 1000 or 1008, or "
            "set parallel.context.pad to true, or parallel.context.layout to contiguous");
  EXPECT_EQ(refusal(1001, 1, 4, contiguous, false),
            "parallel.context: ring 1 x ulysses 4 = 4 ranks cannot share 1001 positions equally; "
            "the contiguous layout needs a multiple of 4: make model.sequence_length 1000 or 1004, "
            "or set parallel.context.pad to true");
  EXPECT_EQ(refusal(1000, 3, 2, zigzag, true), "accepted");
  EXPECT_EQ(refusal(3, 4, 1, contiguous, true),
            "parallel.context: ring 4 x ulysses 1 = 4 ranks cannot share 3 positions; every rank "
            "must hold at least one, so use at most 1 ranks");
}

TEST(SequenceSplitTest, LayoutsByName) {
  EXPECT_EQ(choice_of<SequenceLayout>("zigzag"), zigzag);
  EXPECT_EQ(choice_of<SequenceLayout>("contiguous"), contiguous);
  EXPECT_EQ(choice_of<SequenceLayout>("striped"), std::nullopt);
}

TEST(SegmentsTest, CountsSlicesAndJoins) {
  const Segments segments = {{2, 3}, {10, 4}};
  EXPECT_EQ(num_positions(segments), 7);
  EXPECT_EQ(count_before(segments, 2), 0);
  EXPECT_EQ(count_before(segments, 4), 2);
  EXPECT_EQ(count_before(segments, 7), 3);
  EXPECT_EQ(count_before(segments, 12), 5);
  EXPECT_EQ(count_before(segments, 99), 7);
  EXPECT_EQ(slice_of(segments, 1, 5), (Segments{{3, 2}, {10, 2}}));
  EXPECT_EQ(slice_of(segments, 3, 7), (Segments{{10, 4}}));
  EXPECT_EQ(joined({{8, 2}, {0, 3}, {2, 4}, {6, 0}, {10, 1}}), (Segments{{0, 6}, {8, 3}}));
}

}  // namespace
}  // namespace switchyard
