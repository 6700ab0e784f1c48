#include "parallel/placement.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "parallel/placement_choice.hpp"
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
  const std::span<const std::int32_t> places = replicated.places_of(0);
  EXPECT_EQ(std::vector<std::int32_t>(places.begin(), places.end()),
            std::vector<std::int32_t>({0, 3, 4}));
  EXPECT_EQ(replicated.places_of(2).size(), 1u);
  // Of 7 rows an expert: 3, 2 and 2 of expert 0's, all of another's.
  EXPECT_EQ(replicated.balanced_rows(21, 0), 3);
  EXPECT_EQ(replicated.balanced_rows(21, 4), 2);
  EXPECT_EQ(replicated.balanced_rows(21, 1), 7);
}

TEST(Placement, an_order_with_repeats_gives_replicas_but_one_on_a_rank) {
  const std::vector<std::int64_t> order = {0, 1, 0, 2, 0, 1};
  const auto experts = [&](int num_ranks, int rank) {
    const Placement placement = Placement::in_order_of(order, num_ranks);
    EXPECT_EQ(placement.num_experts(), 3);
    const std::span<const std::int64_t> held = placement.experts_of(rank);
    return std::vector<std::int64_t>(held.begin(), held.end());
  };
  using Experts = std::vector<std::int64_t>;
  EXPECT_EQ(experts(1, 0), Experts({0, 1, 2}));
  EXPECT_EQ(experts(2, 0), Experts({0, 1}));
  EXPECT_EQ(experts(2, 1), Experts({2, 0, 1}));
  EXPECT_EQ(experts(3, 1), Experts({0, 2}));
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

// Rows that differ widely from expert to expert, the same for the same seed.
std::vector<std::int64_t> made_up_rows(std::int64_t num_experts, std::uint64_t seed) {
  std::vector<std::int64_t> rows;
  std::uint64_t state = seed * 2654435761 + 1;
  for (std::int64_t expert = 0; expert < num_experts; ++expert) {
    state = state * 6364136223846793005 + 1442695040888963407;
    const auto draw = static_cast<std::int64_t>(state >> 54);  // below 1024
    rows.push_back(draw * draw / 1024);
  }
  return rows;
}

TEST(Placement, a_balanced_one_gives_ranks_alike_loads) {
  const std::vector<std::int64_t> rows = {10, 9, 1, 0};
  const Placement now = Placement::contiguous(4, 2);
  EXPECT_DOUBLE_EQ(rank_imbalance(now, rows), 1.9);
  const Placement then = balanced_placement(now, rows, 0);
  EXPECT_DOUBLE_EQ(rank_imbalance(then, rows), 1.0);
  // Only if the exchange is worth it: it takes 0.9 of the mean off the fullest rank.
  EXPECT_DOUBLE_EQ(rank_imbalance(balanced_placement(now, rows, 0.95), rows), 1.9);
  EXPECT_DOUBLE_EQ(rank_imbalance(balanced_placement(now, rows, 0.85), rows), 1.0);
  EXPECT_DOUBLE_EQ(rank_imbalance(now, std::vector<std::int64_t>(4)), 1.0);
}

TEST(Placement, a_balanced_one_keeps_places_and_moves_what_helps) {
  for (const int num_ranks : {1, 2, 3, 5})
    for (const std::int64_t num_experts : {3, 8, 17, 64})
      for (std::uint64_t seed = 0; seed < 8; ++seed) {
        const std::vector<std::int64_t> rows = made_up_rows(num_experts, seed);
        const Placement now = Placement::contiguous(num_experts, num_ranks);
        const Placement then = balanced_placement(now, rows, 0);
        const double before = rank_imbalance(now, rows), after = rank_imbalance(then, rows);
        EXPECT_LE(after, before);
        // With several experts a rank there is always something to exchange for.
        if (num_ranks > 1 && num_experts >= 8 * num_ranks) {
          EXPECT_LT(after, 1.1) << num_ranks;
        }
        for (int rank = 0; rank < num_ranks; ++rank) {
          EXPECT_EQ(then.num_places_of(rank), now.num_places_of(rank));
          for (std::int64_t expert : now.experts_of(rank))
            if (then.rank_of_expert(expert) == rank) {
              EXPECT_EQ(then.place_of_expert()[static_cast<std::size_t>(expert)],
                        now.place_of_expert()[static_cast<std::size_t>(expert)]);
            }
        }
        const Placement again = balanced_placement(then, rows, 0);
        EXPECT_TRUE(std::ranges::equal(again.place_of_expert(), then.place_of_expert()));
      }
}

// An expert with half of all rows: with a place more on the other rank both have as many.
TEST(PlacementChoice, gives_replicas_to_the_experts_with_the_most_rows) {
  const std::vector<std::int64_t> rows = {10, 80, 20, 50};
  const std::vector<std::int64_t> order = order_with_replicas(rows, 2, 1);
  EXPECT_EQ(order.size(), 5u);
  EXPECT_EQ(std::ranges::count(order, 1), 2);
  const Placement placement = Placement::in_order_of(order, 2);
  EXPECT_EQ(placement.places_of(1).size(), 2u);
  // 40 + 50 against 40 + 20 + 10, of 160 in all; without replicas at best 80 + 0 against ... 90.
  EXPECT_DOUBLE_EQ(rank_imbalance(placement, rows), 2 * 90.0 / 160);
}

TEST(PlacementChoice, evens_out_what_no_permutation_can) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed)
    for (const int num_ranks : {2, 3, 8}) {
      std::vector<std::int64_t> rows = made_up_rows(24, seed);
      rows[5] = 3 * std::accumulate(rows.begin(), rows.end(), std::int64_t{0});  // 3/4 of all
      const std::vector<std::int64_t> order = order_with_replicas(rows, num_ranks, num_ranks - 1);
      EXPECT_EQ(std::ranges::count(order, 5), num_ranks);
      EXPECT_LT(rank_imbalance(Placement::in_order_of(order, num_ranks), rows), 1.35);
      EXPECT_GT(
          rank_imbalance(balanced_placement(Placement::contiguous(24, num_ranks), rows, 0), rows),
          1.45);
    }
}

// What was placed for equal loads, once one expert has half of all rows and another none.
TEST(PlacementChoice, gives_replicas_to_what_has_become_hot_and_takes_those_of_others) {
  for (const int num_ranks : {2, 3, 4, 8})
    for (const std::int64_t num_experts : {8, 17, 64})
      for (const std::int64_t num_replicas : {1, 3, 9})
        for (std::uint64_t seed = 0; seed < 4; ++seed) {
          SCOPED_TRACE(testing::Message() << num_experts << " experts, " << num_replicas
                                          << " replicas, " << num_ranks << " ranks, " << seed);
          std::vector<std::int64_t> rows = made_up_rows(num_experts, seed);
          rows[5] = std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
          rows[0] = 0;
          const std::vector<std::int64_t> alike(rows.size(), 1);
          const Placement now = Placement::in_order_of(
              order_with_replicas(alike, num_ranks, num_replicas), num_ranks);
          const Placement then = balanced_placement(now, rows, 0);
          const double after = rank_imbalance(then, rows);
          const double from_scratch = rank_imbalance(
              Placement::in_order_of(order_with_replicas(rows, num_ranks, num_replicas), num_ranks),
              rows);
          EXPECT_LE(after, rank_imbalance(now, rows));
          EXPECT_LE(after, 1.0001 * from_scratch);
          if (num_ranks > 2) {
            EXPECT_GT(then.places_of(5).size(), 1u);
          }
          for (int rank = 0; rank < num_ranks; ++rank) {
            const std::span<const std::int64_t> had = now.experts_of(rank),
                                                has = then.experts_of(rank);
            ASSERT_EQ(has.size(), had.size());
            for (std::size_t i = 0; i < had.size(); ++i)
              if (std::ranges::find(has, had[i]) != has.end()) {
                EXPECT_EQ(has[i], had[i]);
              }
          }
          const Placement again = balanced_placement(then, rows, 0);
          EXPECT_TRUE(std::ranges::equal(again.places_by_expert(), then.places_by_expert()));
        }
}

}  // namespace
}  // namespace switchyard
