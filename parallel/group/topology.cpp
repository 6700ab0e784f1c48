#include "parallel/group/topology.hpp"

#include <algorithm>
#include <numeric>

#include "tensor/error.hpp"

namespace switchyard {

Topology::Topology(int num_ranks, int rank)
    : rank_(rank),
      host_of_rank_(static_cast<std::size_t>(num_ranks), 0),
      names_(1),
      ranks_of_host_(1, std::vector<int>(static_cast<std::size_t>(num_ranks))) {
  std::iota(ranks_of_host_[0].begin(), ranks_of_host_[0].end(), 0);
}

Topology::Topology(std::span<const std::int64_t> hosts, std::span<const std::string> names,
                   int rank)
    : rank_(rank) {
  expect(hosts.size() == names.size() && rank >= 0 && static_cast<std::size_t>(rank) < hosts.size(),
         "a host and a name for each rank");
  std::vector<std::int64_t> seen;
  for (std::size_t p = 0; p < hosts.size(); ++p) {
    const auto place = std::find(seen.begin(), seen.end(), hosts[p]);
    const std::size_t host = static_cast<std::size_t>(place - seen.begin());
    if (place == seen.end()) {
      seen.push_back(hosts[p]);
      names_.push_back(names[p]);
      ranks_of_host_.emplace_back();
    }
    host_of_rank_.push_back(static_cast<int>(host));
    ranks_of_host_[host].push_back(static_cast<int>(p));
  }
}

int Topology::local_rank() const {
  const std::vector<int>& local = local_ranks();
  return static_cast<int>(std::find(local.begin(), local.end(), rank_) - local.begin());
}

Topology Topology::of_members(std::span<const int> members, int index) const {
  std::vector<std::int64_t> hosts;
  std::vector<std::string> names;
  for (const int member : members) {
    hosts.push_back(host_of(member));
    names.push_back(name_of(host_of(member)));
  }
  return Topology(hosts, names, index);
}

}  // namespace switchyard
