// The memory that the processes of this host can still get: the smallest of what the host has, what
// the control groups of a container or a Slurm job allow, and what ulimit allows a process. The
// check before training, `doctor` and `plan` all ask here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace switchyard {

struct MemoryLimit {
  std::string name;            // "the host's memory", "ulimit -v", ...; empty: none is known
  std::string remedy;          // what would give more
  std::int64_t total = 0;      // bytes
  std::int64_t available = 0;  // of them still to be had
};

struct AvailableMemory {
  MemoryLimit shared;              // by all processes of the host
  std::optional<MemoryLimit> own;  // that each process has for itself
  // Of the bytes that a process maps, used or not; among `own`, too.
  std::optional<MemoryLimit> address_space;

  // The limit that binds each of num_ranks on this host, `available` being what one of them gets.
  MemoryLimit for_each_of(int num_ranks) const;
};

// `root` stands before /proc/self, /proc/meminfo and the folders of control groups; a test has its
// own. Files that do not exist set no limit.
//
// Control groups, version 2 (memory.max and memory.high) and version 1 (memory.limit_in_bytes): the
// process's own and all above it. Cached files, which the system gives back, count as available:
// what MemAvailable is for the host, https://docs.kernel.org/admin-guide/cgroup-v2.html#memory.
// ulimit -v and -d: less what the process has mapped, and 128 MiB that libraries will map.
AvailableMemory available_memory(const std::string& root = "");

}  // namespace switchyard
