#include "parallel/group/mpi_topology.hpp"

#include <mpi.h>

#include <algorithm>
#include <array>

#include "parallel/group/mpi_call.hpp"

namespace switchyard::mpi {

namespace {

// The lowest rank that shares memory with this one; -1 where MPI cannot tell.
std::int64_t first_rank_of_host(MPI_Comm communicator, int rank) {
  MPI_Comm host = MPI_COMM_NULL;
  const int code =
      MPI_Comm_split_type(communicator, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &host);
  if (code != MPI_SUCCESS || host == MPI_COMM_NULL) return -1;
  int first = rank;
  check(MPI_Bcast(&first, 1, MPI_INT, 0, host), "MPI_Bcast");
  check(MPI_Comm_free(&host), "MPI_Comm_free");
  return first;
}

std::vector<std::string> host_names(MPI_Comm communicator, int num_ranks) {
  std::array<char, MPI_MAX_PROCESSOR_NAME> mine{};
  int length = 0;
  check(MPI_Get_processor_name(mine.data(), &length), "MPI_Get_processor_name");
  std::vector<char> all(mine.size() * static_cast<std::size_t>(num_ranks));
  const int count = static_cast<int>(mine.size());
  check(MPI_Allgather(mine.data(), count, MPI_CHAR, all.data(), count, MPI_CHAR, communicator),
        "MPI_Allgather");
  std::vector<std::string> names;
  for (std::size_t begin = 0; begin < all.size(); begin += mine.size()) {
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(begin);
    names.emplace_back(first, std::find(first, first + count, '\0'));
  }
  return names;
}

// hosts[rank]: the first rank whose host has the same name.
std::vector<std::int64_t> hosts_by_name(const std::vector<std::string>& names) {
  std::vector<std::int64_t> hosts;
  for (const std::string& name : names)
    hosts.push_back(std::find(names.begin(), names.end(), name) - names.begin());
  return hosts;
}

}  // namespace

Topology find_topology(int handle) {
  const MPI_Comm communicator = MPI_Comm_f2c(handle);
  int rank = 0;
  int num_ranks = 0;
  check(MPI_Comm_rank(communicator, &rank), "MPI_Comm_rank");
  check(MPI_Comm_size(communicator, &num_ranks), "MPI_Comm_size");
  const std::vector<std::string> names = host_names(communicator, num_ranks);
  const std::int64_t mine = first_rank_of_host(communicator, rank);
  std::vector<std::int64_t> hosts(static_cast<std::size_t>(num_ranks));
  check(MPI_Allgather(&mine, 1, MPI_INT64_T, hosts.data(), 1, MPI_INT64_T, communicator),
        "MPI_Allgather");
  const bool is_told = std::find(hosts.begin(), hosts.end(), -1) == hosts.end();
  return Topology(is_told ? hosts : hosts_by_name(names), names, rank);
}

}  // namespace switchyard::mpi
