#include <fmt/core.h>

#include <algorithm>
#include <vector>

#include "experts/dispatch/dispatch_bytes.hpp"
#include "launch/doctor/doctor.hpp"

namespace switchyard::doctor {

namespace {

// Of the links of one sort: the slowest one, for which all ranks wait; 0: there is none.
double slowest_rate(const std::vector<Link>& links, bool within_host) {
  double slowest = 0;
  for (const Link& link : links)
    if (link.within_host == within_host && (slowest == 0 || link.bytes_per_second < slowest))
      slowest = link.bytes_per_second;
  return slowest;
}

}  // namespace

// What a rank sends to other hosts shares their link with what its host's other ranks send.
void check_dispatch(Group& world, const ExpertLayer& layer, Diagnosis& diagnosis) {
  if (world.size() == 1) return;
  const Topology& topology = world.topology();
  std::vector<int> nodes;
  for (int rank = 0; rank < world.size(); ++rank) nodes.push_back(topology.host_of(rank));
  std::size_t most_ranks = 0;
  for (int host = 0; host < topology.num_hosts(); ++host)
    most_ranks = std::max(most_ranks, topology.ranks_of(host).size());
  const double within = slowest_rate(diagnosis.links, true),
               between = slowest_rate(diagnosis.links, false) / static_cast<double>(most_ranks);
  const std::vector<DispatchRows> kinds =
      dispatch_rows(Placement::contiguous(layer.num_experts, world.size()), layer.top_k, nodes);
  const auto seconds = [&](const DispatchRows& rows) {
    return (rows.within_node > 0 ? rows.within_node / within : 0) +
           (rows.between_nodes > 0 ? rows.between_nodes / between : 0);
  };
  const DispatchRows& best = *std::ranges::min_element(kinds, {}, seconds);
  std::string text;
  for (const DispatchRows& each : kinds)
    text += fmt::format("{}{} {:.2f}", text.empty() ? "" : ", ", name_of(each.kind),
                        seconds(each) / seconds(kinds.front()));
  diagnosis.add(
      Grade::ok, "dispatch",
      fmt::format("{} experts, top {}, on all {} ranks: {} (time of tokens to experts at the "
                  "rates above, all_to_all 1: {})",
                  layer.num_experts, layer.top_k, world.size(), name_of(best.kind), text));
}

}  // namespace switchyard::doctor
