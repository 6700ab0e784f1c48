// Which ranks of an expert group share a node, for tokens that go there once (token_delivery.hpp).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/group/group.hpp"

namespace switchyard {

// The nodes of a group's ranks, and who stands for whom.
class NodeMap {
 public:
  // ranks_per_node: neighbouring ranks of the group that share a node; 0: those that share a host.
  NodeMap(const Group& group, std::int64_t ranks_per_node);

  int num_nodes() const { return static_cast<int>(ranks_of_node_.size()); }
  int node_of(int rank) const { return node_of_rank_[static_cast<std::size_t>(rank)]; }
  std::span<const int> ranks_of(int node) const {
    return ranks_of_node_[static_cast<std::size_t>(node)];
  }
  // The rank of `node` that takes what `source` sends there; of its own node the source itself.
  int proxy(int source, int node) const;
  // The ranks whose tokens `rank` takes for its node, ascending.
  std::vector<int> sources_of(int rank) const;

 private:
  std::vector<int> node_of_rank_;
  std::vector<int> place_in_node_;
  std::vector<std::vector<int>> ranks_of_node_;
};

}  // namespace switchyard
