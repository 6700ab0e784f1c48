// Rows by kind of dispatch against a count over all sets of choices.
#include "experts/dispatch/dispatch_bytes.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <set>

namespace switchyard {
namespace {

struct Counted {
  double between = 0, within = 0;
};

// Of every kind: the mean over source ranks and all sets of top_k experts.
std::vector<Counted> count(const Placement& placement, int top_k, int ranks_per_node) {
  std::vector<Counted> sums(3);
  double num_sets = 0;
  const int num_ranks = placement.num_ranks();
  for (unsigned set = 0; set < 1u << placement.num_experts(); ++set) {
    if (std::popcount(set) != top_k) continue;
    num_sets += num_ranks;
    for (int source = 0; source < num_ranks; ++source) {
      const int own = source / ranks_per_node;
      std::set<int> ranks, nodes;
      for (int e = 0; e < placement.num_experts(); ++e) {
        if ((set >> e & 1u) == 0) continue;
        const int rank =
            placement.rank_of(placement.place_of_expert()[static_cast<std::size_t>(e)]);
        ranks.insert(rank);
        nodes.insert(rank / ranks_per_node);
        if (rank / ranks_per_node != own)
          ++sums[0].between;
        else if (rank != source)
          ++sums[0].within;
      }
      for (int rank = 0; rank < num_ranks; ++rank)
        if (rank != source) ++(rank / ranks_per_node == own ? sums[1].within : sums[1].between);
      for (const int node : nodes) {
        if (node != own) ++sums[2].between;
        const int proxy = node * ranks_per_node + source % ranks_per_node;
        for (const int rank : ranks)
          if (rank / ranks_per_node == node && rank != proxy) ++sums[2].within;
      }
    }
  }
  for (Counted& sum : sums) {
    sum.between /= num_sets;
    sum.within /= num_sets;
  }
  return sums;
}

TEST(DispatchRows, AreTheMeanOverAllChoices) {
  for (const auto& [num_experts, num_ranks, ranks_per_node] :
       {std::tuple(8, 4, 2), std::tuple(6, 4, 2), std::tuple(5, 2, 1), std::tuple(9, 3, 3)})
    for (int top_k = 1; top_k <= 3; ++top_k) {
      SCOPED_TRACE(testing::Message()
                   << num_experts << " experts, " << num_ranks << " ranks, top " << top_k);
      const Placement placement = Placement::contiguous(num_experts, num_ranks);
      const std::vector<DispatchRows> rows = dispatch_rows(placement, top_k, ranks_per_node);
      const std::vector<Counted> wanted = count(placement, top_k, ranks_per_node);
      for (std::size_t kind = 0; kind < 3; ++kind) {
        EXPECT_NEAR(rows[kind].between_nodes, wanted[kind].between, 1e-12);
        EXPECT_NEAR(rows[kind].within_node, wanted[kind].within, 1e-12);
      }
    }
}

TEST(DispatchRows, NameTheKindWithTheFewestBetweenNodes) {
  const auto best = [](int num_experts, int num_ranks, int top_k, int ranks_per_node) {
    return least_rows(
        dispatch_rows(Placement::contiguous(num_experts, num_ranks), top_k, ranks_per_node));
  };
  EXPECT_EQ(best(64, 16, 8, 8), DispatchKind::hierarchical);  // two nodes
  EXPECT_EQ(best(64, 4, 1, 2), DispatchKind::all_to_all);     // nothing to share
  EXPECT_EQ(best(64, 2, 8, 2), DispatchKind::hierarchical);   // one node, both ranks have some
}

}  // namespace
}  // namespace switchyard
