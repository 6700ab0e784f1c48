#include "experts/dispatch/dispatch_bytes.hpp"

#include <algorithm>
#include <tuple>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

struct Node {
  std::int64_t num_ranks = 0;
  std::int64_t num_experts = 0;
  double of_ranks = 0;  // sum over its ranks of the chance that a token has an expert there
};

std::vector<Node> nodes_of(const Placement& placement, std::int64_t top_k,
                           std::span<const int> node_of_rank) {
  std::vector<Node> nodes;
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    const auto at = static_cast<std::size_t>(node_of_rank[static_cast<std::size_t>(rank)]);
    if (at >= nodes.size()) nodes.resize(at + 1);
    Node& node = nodes[at];
    const std::int64_t num_held = placement.num_places_of(rank);
    ++node.num_ranks;
    node.num_experts += num_held;
    node.of_ranks += chance_of(num_held, placement.num_experts(), top_k);
  }
  return nodes;
}

}  // namespace

double chance_of(std::int64_t num_held, std::int64_t num_experts, std::int64_t top_k) {
  double none = 1;
  for (std::int64_t j = 0; j < top_k; ++j)
    none *= static_cast<double>(std::max<std::int64_t>(0, num_experts - num_held - j)) /
            static_cast<double>(num_experts - j);
  return 1 - none;
}

std::vector<DispatchRows> dispatch_rows(const Placement& placement, std::int64_t top_k,
                                        std::int64_t ranks_per_node) {
  expect(ranks_per_node >= 1, "nodes of ranks");
  std::vector<int> nodes;
  for (int rank = 0; rank < placement.num_ranks(); ++rank)
    nodes.push_back(static_cast<int>(rank / ranks_per_node));
  return dispatch_rows(placement, top_k, nodes);
}

std::vector<DispatchRows> dispatch_rows(const Placement& placement, std::int64_t top_k,
                                        std::span<const int> node_of_rank) {
  expect(std::ssize(node_of_rank) == placement.num_ranks() && top_k <= placement.num_experts(),
         "a node for each rank, choices of experts");
  const std::vector<Node> nodes = nodes_of(placement, top_k, node_of_rank);
  const auto num_ranks = static_cast<double>(placement.num_ranks());
  const auto choices_per_expert =
      static_cast<double>(top_k) / static_cast<double>(placement.num_experts());
  DispatchRows rows{.kind = DispatchKind::all_to_all};
  DispatchRows gathered{.kind = DispatchKind::all_gather};
  DispatchRows passed{.kind = DispatchKind::hierarchical};
  double hits = 0;  // nodes that have an expert of a token
  for (const Node& node : nodes)
    hits += chance_of(node.num_experts, placement.num_experts(), top_k);
  for (const Node& node : nodes) {
    const auto size = static_cast<double>(node.num_ranks);
    const double share = size / num_ranks;  // of the ranks, over which the mean goes
    const auto experts = static_cast<double>(node.num_experts);
    rows.between_nodes +=
        share * choices_per_expert * (static_cast<double>(placement.num_experts()) - experts);
    rows.within_node += share * choices_per_expert * experts * (1 - 1 / size);
    gathered.between_nodes += share * (num_ranks - size);
    gathered.within_node += share * (size - 1);
    passed.between_nodes +=
        share * (hits - chance_of(node.num_experts, placement.num_experts(), top_k));
    // The tokens of all ranks, each passed on by one rank of the node, which keeps its own part.
    passed.within_node += node.of_ranks * (1 - 1 / size);
  }
  return {rows, gathered, passed};
}

DispatchKind least_rows(const std::vector<DispatchRows>& kinds) {
  const auto by_cost = [](const DispatchRows& each) {
    return std::tuple(each.between_nodes, each.within_node);
  };
  return std::ranges::min_element(kinds, {}, by_cost)->kind;
}

}  // namespace switchyard
