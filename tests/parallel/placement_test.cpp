#include "parallel/placement.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

TEST(Placement, contiguous_blocks_are_as_equal_as_can_be_and_in_order) {
  for (std::int64_t num_experts = 0; num_experts <= 17; ++num_experts)
    for (int num_ranks = 1; num_ranks <= 9; ++num_ranks) {
      const Placement placement = Placement::contiguous(num_experts, num_ranks);
      EXPECT_EQ(placement.num_ranks(), num_ranks);
      EXPECT_EQ(placement.num_places(), num_experts);
      EXPECT_TRUE(placement.is_in_order());
      EXPECT_FALSE(placement.has_replicas());
      std::int64_t next = 0, most = 0, least = num_experts;
      for (int rank = 0; rank < num_ranks; ++rank) {
        EXPECT_EQ(placement.first_place(rank), next);
        for (const std::int64_t expert : placement.experts_of(rank)) EXPECT_EQ(expert, next++);
        most = std::max(most, placement.num_places_of(rank));
        least = std::min(least, placement.num_places_of(rank));
      }
      EXPECT_EQ(next, num_experts);
      EXPECT_LE(most - least, 1);
      EXPECT_EQ(most, placement.most_places());
    }
}

TEST(Placement, fewer_experts_than_ranks_leave_ranks_without) {
  const Placement placement = Placement::contiguous(2, 4);
  EXPECT_EQ(placement.num_places_of(0), 0);
  EXPECT_EQ(placement.num_places_of(1), 1);
  EXPECT_EQ(placement.num_places_of(2), 0);
  EXPECT_EQ(placement.num_places_of(3), 1);
}

TEST(Placement, says_permutations_uneven_ranks_and_replicas) {
  const Placement permuted(3, {{2}, {0, 1}});
  EXPECT_FALSE(permuted.is_in_order());
  EXPECT_FALSE(permuted.has_replicas());
  EXPECT_EQ(permuted.expert_at(0), 2);
  EXPECT_EQ(permuted.place_of_expert()[2], 0);
  EXPECT_EQ(permuted.place_of_expert()[1], 2);
  EXPECT_EQ(permuted.first_place(1), 1);

  const Placement replicated(3, {{0, 1}, {2, 0}, {0}});
  EXPECT_TRUE(replicated.has_replicas());
  EXPECT_EQ(replicated.num_places(), 5);
  EXPECT_EQ(replicated.most_places(), 2);
  EXPECT_EQ(replicated.place_of_expert()[0], 0);
  EXPECT_EQ(replicated.expert_at(4), 0);
}

TEST(Placement, refuses_experts_without_a_place_twice_on_a_rank_or_unknown) {
  EXPECT_THROW(Placement(3, {{0}, {1}}), InternalError);
  EXPECT_THROW(Placement(2, {{0, 0}, {1}}), InternalError);
  EXPECT_THROW(Placement(2, {{0, 1, 2}}), InternalError);
  EXPECT_THROW(Placement(0, {}), InternalError);
}

TEST(Placement, most_rows_follow_from_different_choices) {
  const auto most_rows = [](std::int64_t num_experts, int num_ranks, std::int64_t top_k) {
    return max_rows_received(Placement::contiguous(num_experts, num_ranks), 10, top_k);
  };
  EXPECT_EQ(most_rows(8, 4, 1), 40);
  EXPECT_EQ(most_rows(8, 4, 2), 80);
  EXPECT_EQ(most_rows(8, 4, 3), 80);  // two experts a rank
  EXPECT_EQ(most_rows(5, 4, 3), 80);
  EXPECT_EQ(most_rows(3, 4, 3), 40);
  EXPECT_EQ(most_rows(8, 1, 3), 30);
}

}  // namespace
}  // namespace switchyard
