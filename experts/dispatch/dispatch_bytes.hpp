// What tokens on their way to experts cost on the wire, by kind of dispatch, before anything runs:
// the formulas of docs/parallelism.md for choices that are alike likely.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "experts/config.hpp"
#include "parallel/placement.hpp"

namespace switchyard {

// Sent by a rank for one token, as a mean over the ranks: in rows of a token.
struct DispatchRows {
  DispatchKind kind = DispatchKind::all_to_all;
  double between_nodes = 0;
  double within_node = 0;
};

// How likely one of `num_held` of num_experts experts is among top_k different ones.
double chance_of(std::int64_t num_held, std::int64_t num_experts, std::int64_t top_k);

// Of every kind. nodes: that of each rank of the placement, from 0 on.
std::vector<DispatchRows> dispatch_rows(const Placement& placement, std::int64_t top_k,
                                        std::span<const int> nodes);
// Nodes are as many neighbouring ranks.
std::vector<DispatchRows> dispatch_rows(const Placement& placement, std::int64_t top_k,
                                        std::int64_t ranks_per_node);
// The kind with the fewest rows between nodes, of several such the one with the fewest within.
DispatchKind least_rows(const std::vector<DispatchRows>& kinds);

}  // namespace switchyard
