// Which ranks of a group share a host: a plain value that every group carries. Hosts are numbered
// by their first rank; a host's ranks are ascending. Exchanges between ranks of one host go through
// memory, others through the network, which is slower by an order of magnitude: a hierarchical
// exchange groups ranks by ranks_of(host), and memory and cores are shared by the ranks of a host.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace switchyard {

class Topology {
 public:
  // All ranks on one host: a plan, a process without MPI.
  Topology(int num_ranks, int rank);
  // hosts[rank]: any number that ranks of one host have in common and no others; names[rank]: that
  // host's name; `rank`: this one.
  Topology(std::span<const std::int64_t> hosts, std::span<const std::string> names, int rank);

  int num_ranks() const { return static_cast<int>(host_of_rank_.size()); }
  int num_hosts() const { return static_cast<int>(ranks_of_host_.size()); }
  int host_of(int rank) const { return host_of_rank_[static_cast<std::size_t>(rank)]; }
  const std::string& name_of(int host) const { return names_[static_cast<std::size_t>(host)]; }
  const std::vector<int>& ranks_of(int host) const {
    return ranks_of_host_[static_cast<std::size_t>(host)];
  }
  bool share_host(int rank, int other) const { return host_of(rank) == host_of(other); }

  // Of this rank.
  int host() const { return host_of(rank_); }
  const std::vector<int>& local_ranks() const { return ranks_of(host()); }
  int num_local_ranks() const { return static_cast<int>(local_ranks().size()); }
  int local_rank() const;  // this rank's index in local_ranks()

  // ranks_of(host) of all hosts: the argument of Group::subgroup() for groups within hosts.
  const std::vector<std::vector<int>>& partition() const { return ranks_of_host_; }
  // The topology of a subgroup: members are ranks of this group; the subgroup numbers them in the
  // order given. `index`: this rank's place among them.
  Topology of_members(std::span<const int> members, int index) const;

 private:
  int rank_ = 0;
  std::vector<int> host_of_rank_;
  std::vector<std::string> names_;  // of each host
  std::vector<std::vector<int>> ranks_of_host_;
};

}  // namespace switchyard
