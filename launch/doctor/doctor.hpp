// What `switchyard doctor` finds out about the machines of a job, and how it says so. Every check
// is collective over the world and leaves the same findings on all ranks; rank 0 prints. A check
// measures, judges by limits that stand beside it, and names one remedy.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/group/group.hpp"
#include "parallel/group/transport.hpp"

namespace switchyard::doctor {

enum class Grade : std::uint8_t { ok, warn, fail };
std::string name_of(Grade grade);

struct Finding {
  Grade grade = Grade::ok;
  std::string what;    // "memory"
  std::string text;    // what was found
  std::string remedy;  // one; empty when ok
};

struct Host {
  std::string name;
  std::vector<int> ranks;
  int num_cores = 0;  // that any of its ranks may use
  std::int64_t memory_bytes = 0;
  std::int64_t available_bytes = 0;
};

// One direction between two ranks, with the other ranks silent.
struct Link {
  int from = 0;
  int to = 0;
  bool within_host = false;
  double latency_seconds = 0;
  double bytes_per_second = 0;
};

struct AllToAll {
  std::int64_t bytes = 0;       // that a rank sends to each other rank
  double bytes_per_second = 0;  // that a rank sends to others, all at once; the slowest rank
};

struct Disk {
  std::string host;
  double write_bytes_per_second = 0;  // fsync included
  double read_bytes_per_second = 0;
};

struct Diagnosis {
  std::vector<Finding> findings;
  std::vector<Host> hosts;
  std::vector<Link> links;
  AllToAll all_to_all;
  std::vector<Disk> disks;

  void add(Grade grade, std::string what, std::string text, std::string remedy = "");
  Grade worst() const;
  bool is_oversubscribed = false;  // timings say little then
};

void check_hosts(Group& world, Diagnosis& diagnosis);  // hosts, cores, binding, threads, memory
void check_processors(Group& world, Diagnosis& diagnosis);  // instruction sets
void check_cards(Group& world, Diagnosis& diagnosis);
void check_transport(Group& world, Diagnosis& diagnosis);  // what moves bytes, copies within a host
void check_links(Group& world, Diagnosis& diagnosis);      // latency, bandwidth, all-to-all
// By which kind of dispatch tokens would reach their experts soonest over the links measured
// before, if so many experts of a layer were spread over all ranks.
struct ExpertLayer {
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
};
void check_dispatch(Group& world, const ExpertLayer& layer, Diagnosis& diagnosis);
// Shared or not, speed, locks, renames. The folder exists.
void check_folder(Group& world, const std::string& folder, Diagnosis& diagnosis);

std::string to_text(const Diagnosis& diagnosis, int num_ranks);
std::string to_json(const Diagnosis& diagnosis);

// What the checks share. Collective: the text of each of these ranks, on all ranks.
std::vector<std::string> texts_of(Group& world, const std::vector<int>& ranks,
                                  const std::string& mine);
// The first rank of each host.
std::vector<int> first_ranks(const Topology& topology);
std::string list_of(std::vector<std::string> names, std::size_t most = 4);  // "a, b and 3 more"
std::string rate_text(double bytes_per_second);                             // "5.12 GB/s"
std::string count_text(std::int64_t count, const std::string& noun);        // "1 rank", "2 ranks"
std::string size_text(std::int64_t bytes);                                  // "23.5 GiB"

}  // namespace switchyard::doctor
