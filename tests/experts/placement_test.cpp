#include "experts/placement.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace switchyard {
namespace {

TEST(ExpertPlacement, every_expert_has_one_rank_and_blocks_are_as_equal_as_can_be) {
  for (std::int64_t num_experts = 1; num_experts <= 17; ++num_experts)
    for (int num_ranks = 1; num_ranks <= 9; ++num_ranks) {
      const ExpertPlacement placement{num_experts, num_ranks};
      std::int64_t next = 0, most = 0, least = num_experts;
      for (int rank = 0; rank < num_ranks; ++rank) {
        EXPECT_EQ(placement.first_expert(rank), next);
        next += placement.num_local_experts(rank);
        most = std::max(most, placement.num_local_experts(rank));
        least = std::min(least, placement.num_local_experts(rank));
      }
      EXPECT_EQ(next, num_experts);
      EXPECT_LE(most - least, 1);
      EXPECT_EQ(most, placement.max_local_experts());
    }
}

TEST(ExpertPlacement, fewer_experts_than_ranks_leave_ranks_without) {
  const ExpertPlacement placement{2, 4};
  EXPECT_EQ(placement.num_local_experts(0), 0);
  EXPECT_EQ(placement.num_local_experts(1), 1);
  EXPECT_EQ(placement.num_local_experts(2), 0);
  EXPECT_EQ(placement.num_local_experts(3), 1);
}

TEST(ExpertPlacement, most_rows_follow_from_different_choices) {
  EXPECT_EQ(max_rows_received({8, 4}, 10, 1), 40);
  EXPECT_EQ(max_rows_received({8, 4}, 10, 2), 80);
  EXPECT_EQ(max_rows_received({8, 4}, 10, 3), 80);  // two experts a rank
  EXPECT_EQ(max_rows_received({5, 4}, 10, 3), 80);
  EXPECT_EQ(max_rows_received({3, 4}, 10, 3), 40);
  EXPECT_EQ(max_rows_received({8, 1}, 10, 3), 30);
}

}  // namespace
}  // namespace switchyard
