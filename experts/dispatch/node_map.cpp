#include "experts/dispatch/node_map.hpp"

#include "tensor/error.hpp"

namespace switchyard {

NodeMap::NodeMap(const Group& group, std::int64_t ranks_per_node) {
  node_of_rank_.resize(static_cast<std::size_t>(group.size()));
  place_in_node_.resize(node_of_rank_.size());
  for (int rank = 0; rank < group.size(); ++rank) {
    const auto node = static_cast<std::size_t>(ranks_per_node > 0 ? rank / ranks_per_node
                                                                  : group.topology().host_of(rank));
    if (node >= ranks_of_node_.size()) ranks_of_node_.resize(node + 1);
    node_of_rank_[static_cast<std::size_t>(rank)] = static_cast<int>(node);
    place_in_node_[static_cast<std::size_t>(rank)] = static_cast<int>(ranks_of_node_[node].size());
    ranks_of_node_[node].push_back(rank);
  }
  for (const std::vector<int>& ranks : ranks_of_node_)
    expect(!ranks.empty(), "nodes that have ranks");
}

int NodeMap::proxy(int source, int node) const {
  const std::span<const int> ranks = ranks_of(node);
  return ranks[static_cast<std::size_t>(place_in_node_[static_cast<std::size_t>(source)]) %
               ranks.size()];
}

std::vector<int> NodeMap::sources_of(int rank) const {
  std::vector<int> sources;
  for (int source = 0; source < static_cast<int>(node_of_rank_.size()); ++source)
    if (proxy(source, node_of(rank)) == rank) sources.push_back(source);
  return sources;
}

}  // namespace switchyard
