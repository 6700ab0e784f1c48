#include "parallel/cores.hpp"

#include <fmt/core.h>
#include <sched.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <thread>

namespace switchyard {

namespace {

// Processors of one core have the same list of siblings; without that file each is a core.
std::string core_of(int processor) {
  std::ifstream file(
      fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", processor));
  std::string siblings;
  return std::getline(file, siblings) ? siblings : std::to_string(processor);
}

std::vector<int> allowed_processors() {
  std::vector<int> processors;
  // The kernel refuses a mask that is too short for the machine.
  for (int num_bits = 1024; num_bits <= (1 << 18); num_bits *= 4) {
    cpu_set_t* const set = CPU_ALLOC(num_bits);
    const std::size_t bytes = CPU_ALLOC_SIZE(num_bits);
    const bool done = sched_getaffinity(0, bytes, set) == 0;
    for (int i = 0; done && i < num_bits; ++i)
      if (CPU_ISSET_S(i, bytes, set)) processors.push_back(i);
    CPU_FREE(set);
    if (done) break;
  }
  return processors;
}

std::int64_t fingerprint(const std::vector<int>& processors) {
  std::uint64_t hash = 14695981039346656037ull;  // FNV-1a
  for (const int processor : processors)
    hash = (hash ^ static_cast<std::uint64_t>(processor + 1)) * 1099511628211ull;
  return static_cast<std::int64_t>(hash);
}

}  // namespace

Cores Cores::of_this_process() {
  Cores result{.processors = allowed_processors()};
  std::set<std::string> distinct;
  for (const int processor : result.processors) distinct.insert(core_of(processor));
  result.num_cores = static_cast<int>(distinct.size());
  if (result.num_cores == 0)
    result.num_cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return result;
}

std::string Cores::text() const {
  std::string text;
  for (std::size_t i = 0; i < processors.size();) {
    std::size_t last = i;
    while (last + 1 < processors.size() && processors[last + 1] == processors[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ",", processors[i]);
    if (last > i) text += fmt::format("-{}", processors[last]);
    i = last + 1;
  }
  return text;
}

int num_cores_for_rank(Group& world) {
  const Cores cores = Cores::of_this_process();
  const std::int64_t mine = fingerprint(cores.processors);
  std::vector<std::int64_t> all(static_cast<std::size_t>(world.size()));
  world.all_gather_values({&mine, 1}, all);
  int num_sharing = 0;
  for (const int rank : world.topology().local_ranks())
    num_sharing += all[static_cast<std::size_t>(rank)] == mine ? 1 : 0;
  return std::max(1, cores.num_cores / num_sharing);
}

}  // namespace switchyard
