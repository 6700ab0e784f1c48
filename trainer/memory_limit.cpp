#include "trainer/memory_limit.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <span>
#include <sstream>
#include <string_view>
#include <vector>

namespace switchyard {

namespace {

// The number behind a key that begins a line: "MemTotal:   24567 kB", "inactive_file 4096".
std::optional<std::int64_t> number_behind(std::string_view key, const std::string& path) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    std::int64_t number = 0;
    std::istringstream rest(line.substr(key.size()));
    if (rest.peek() == ' ' || rest.peek() == '\t')
      if (rest >> number) return number;
  }
  return std::nullopt;
}

// The number that a file consists of; none for "max".
std::optional<std::int64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  std::int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

MemoryLimit memory_of_host(const std::string& root) {
  const std::string path = root + "/proc/meminfo";
  const std::int64_t total = number_behind("MemTotal:", path).value_or(0) * 1024;
  const std::int64_t available = number_behind("MemAvailable:", path).value_or(0) * 1024;
  if (total == 0) return {};
  return {"the host's memory", "use more hosts, or end other programs here", total, available};
}

// Version 1 writes 2^63 less a page for no limit.
constexpr std::int64_t v1_unlimited = std::int64_t{1} << 62;

bool has_word(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    if (list.substr(0, comma) == word) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

// Where the groups of one version that limit memory are seen, and which of them this process is in.
struct Membership {
  bool is_v2 = false;
  std::string mount;  // folder of the topmost group that is seen
  std::string path;   // from there to the own group: "" or "/job/step"
};

// The path of the own group, by the lines "4:cpu,memory:/job" (version 1) and "0::/job".
std::optional<std::string> own_group(const std::string& root, bool is_v2) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (is_v2 ? controllers.empty() : has_word(controllers, "memory"))
      return line.substr(second + 1);
  }
  return std::nullopt;
}

// Lines of mountinfo: "35 31 0:32 ROOT MOUNT rw,relatime ... - TYPE SOURCE OPTIONS". ROOT is the
// group at MOUNT: that of the container, where it sees no others.
std::vector<Membership> memberships(const std::string& root) {
  std::vector<Membership> all;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::string skipped, top, mount, type, source, options;
    std::istringstream(line) >> skipped >> skipped >> skipped >> top >> mount;
    std::istringstream(line.substr(dash + 3)) >> type >> source >> options;
    const bool is_v2 = type == "cgroup2";
    if (!is_v2 && (type != "cgroup" || !has_word(options, "memory"))) continue;
    const std::optional<std::string> own = own_group(root, is_v2);
    if (!own) continue;
    if (top == "/") top.clear();
    std::string path = own->starts_with(top) ? own->substr(top.size()) : "";
    // A group outside of what is seen, "/../other", has no folder here.
    if (path == "/" || path.starts_with("/..")) path.clear();
    all.push_back({is_v2, mount, path});
  }
  return all;
}

// What the two versions of control groups call their files and, in memory.stat, the cached bytes.
using Names = std::span<const std::string_view>;
constexpr std::array<std::string_view, 2> v2_limits{"memory.max", "memory.high"};
constexpr std::array<std::string_view, 1> v1_limits{"memory.limit_in_bytes"};
constexpr std::array<std::string_view, 3> v2_reclaimable{"inactive_file", "active_file",
                                                         "slab_reclaimable"};
constexpr std::array<std::string_view, 2> v1_reclaimable{"total_inactive_file",
                                                         "total_active_file"};

std::int64_t reclaimable_bytes(const std::string& folder, bool is_v2) {
  std::int64_t sum = 0;
  for (const std::string_view key : is_v2 ? Names(v2_reclaimable) : Names(v1_reclaimable))
    sum += number_behind(key, folder + "/memory.stat").value_or(0);
  return sum;
}

// Keeps the limit of one group if it leaves less than `least`.
void tighten(MemoryLimit& least, const std::string& folder, const std::string& group, bool is_v2) {
  const std::optional<std::int64_t> used =
      number_in(folder + (is_v2 ? "/memory.current" : "/memory.usage_in_bytes"));
  if (!used) return;
  const std::int64_t kept = std::max<std::int64_t>(0, *used - reclaimable_bytes(folder, is_v2));
  for (const std::string_view file : is_v2 ? Names(v2_limits) : Names(v1_limits)) {
    const std::optional<std::int64_t> limit = number_in(fmt::format("{}/{}", folder, file));
    if (!limit || *limit >= v1_unlimited) continue;
    const std::int64_t available = std::max<std::int64_t>(0, *limit - kept);
    if (least.total > 0 && available >= least.available) continue;
    least = {fmt::format("the control group {} ({})", group, file),
             "give the container or the job more memory (docker --memory, srun --mem)", *limit,
             available};
  }
}

MemoryLimit shared_memory(const std::string& root) {
  MemoryLimit least = memory_of_host(root);
  for (const Membership& membership : memberships(root)) {
    std::string path = membership.path;
    while (true) {
      tighten(least, root + membership.mount + path, path.empty() ? "/" : path, membership.is_v2);
      if (path.empty()) break;
      path.erase(path.rfind('/'));
    }
  }
  return least;
}

// What libraries map in the first steps beside tensors: oneDNN's code and stacks of threads took
// 120 MiB with one thread. Where that fails oneDNN crashes.
constexpr std::int64_t own_reserve = 128 << 20;

struct ProcessLimit {
  std::string_view limit;  // in /proc/self/limits, in bytes
  std::string_view used;   // in /proc/self/status, in KiB
  std::string_view option;
};
constexpr ProcessLimit address_space{"Max address space", "VmSize:", "-v"};
constexpr ProcessLimit data_size{"Max data size", "VmData:", "-d"};

// None if it is unlimited.
std::optional<MemoryLimit> limit_of_process(const ProcessLimit& kind, const std::string& root) {
  const auto limit = number_behind(kind.limit, root + "/proc/self/limits");
  if (!limit) return std::nullopt;
  const std::int64_t used = number_behind(kind.used, root + "/proc/self/status").value_or(0) * 1024;
  return MemoryLimit{fmt::format("ulimit {}", kind.option),
                     fmt::format("raise it: ulimit {} unlimited", kind.option), *limit,
                     std::max<std::int64_t>(0, *limit - used - own_reserve)};
}

}  // namespace

MemoryLimit AvailableMemory::for_each_of(int num_ranks) const {
  MemoryLimit each = shared;
  each.available /= std::max(num_ranks, 1);
  if (own && (each.total == 0 || own->available < each.available)) return *own;
  return each;
}

AvailableMemory available_memory(const std::string& root) {
  AvailableMemory memory{.shared = shared_memory(root),
                         .own = limit_of_process(data_size, root),
                         .address_space = limit_of_process(address_space, root)};
  if (memory.address_space &&
      (!memory.own || memory.address_space->available <= memory.own->available))
    memory.own = memory.address_space;
  return memory;
}

}  // namespace switchyard
