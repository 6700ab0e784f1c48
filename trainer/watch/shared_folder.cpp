#include "trainer/watch/shared_folder.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <random>
#include <thread>

#include "data/files/atomic_file.hpp"
#include "parallel/group/collective_error.hpp"
#include "trainer/agreement.hpp"

namespace switchyard {

namespace {

// Clients of network file systems remember for that long what a folder held.
constexpr std::chrono::seconds patience(5);

bool is_seen_in_time(const std::string& path) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (::access(path.c_str(), F_OK) != 0) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

}  // namespace

std::vector<std::string> hosts_apart(Group& world, const std::string& folder) {
  const Topology& topology = world.topology();
  if (topology.num_hosts() == 1) return {};
  // A name that no folder of another host holds by chance.
  std::string mark = fmt::format("{}/.shared-{:08x}-{}", folder, std::random_device()(), getpid());
  world.broadcast_text(mark, 0);
  run_together(world, [&] {
    if (world.rank() == 0) write_file_atomically(mark, "");
  });
  const std::int64_t mine = topology.local_rank() != 0 || is_seen_in_time(mark) ? 1 : 0;
  std::vector<std::int64_t> seen(static_cast<std::size_t>(world.size()));
  world.all_gather_values({&mine, 1}, seen);
  if (world.rank() == 0) {
    std::error_code ignored;
    std::filesystem::remove(mark, ignored);
  }
  std::vector<std::string> apart;
  for (int host = 0; host < topology.num_hosts(); ++host)
    if (seen[static_cast<std::size_t>(topology.ranks_of(host).front())] == 0)
      apart.push_back(topology.name_of(host));
  return apart;
}

void require_shared(Group& world, const std::string& key, const std::string& folder) {
  const std::vector<std::string> apart = hosts_apart(world, folder);
  if (apart.empty()) return;
  const Topology& topology = world.topology();
  throw Collective<IoError>(
      fmt::format("{}: {} of host {} is another folder on {}: name one that all hosts share (NFS, "
                  "Lustre, ...), "
                  "as docs/hosts.md explains",
                  key, folder, topology.name_of(topology.host_of(0)), fmt::join(apart, ", ")));
}

}  // namespace switchyard
