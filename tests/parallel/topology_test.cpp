// Which ranks share a host: the value, and what MPI finds on this machine. Several hosts are tested
// with network namespaces in tests/hosts.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <numeric>

#include "parallel/cores.hpp"
#include "parallel/group/transport.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard {
namespace {

TEST(Topology, NumbersHostsByTheirFirstRank) {
  const std::vector<std::int64_t> hosts = {7, 3, 7, 7, 9, 3};
  const std::vector<std::string> names = {"a", "b", "a", "a", "c", "b"};
  const Topology topology(hosts, names, 3);
  EXPECT_EQ(topology.num_ranks(), 6);
  ASSERT_EQ(topology.num_hosts(), 3);
  const std::vector<std::vector<int>> expected = {{0, 2, 3}, {1, 5}, {4}};
  EXPECT_EQ(topology.partition(), expected);
  EXPECT_EQ(topology.name_of(1), "b");
  EXPECT_EQ(topology.host_of(5), 1);
  EXPECT_EQ(topology.host(), 0);
  EXPECT_EQ(topology.local_rank(), 2);
  EXPECT_EQ(topology.num_local_ranks(), 3);
  EXPECT_TRUE(topology.share_host(0, 3));
  EXPECT_FALSE(topology.share_host(0, 1));
}

TEST(Topology, OfASubgroup) {
  const std::vector<std::int64_t> hosts = {0, 0, 2, 2};
  const std::vector<std::string> names = {"a", "a", "b", "b"};
  const Topology whole(hosts, names, 2);
  const std::array<int, 3> members = {3, 1, 2};
  const Topology part = whole.of_members(members, 2);
  ASSERT_EQ(part.num_hosts(), 2);
  EXPECT_EQ(part.name_of(0), "b");
  EXPECT_EQ(part.ranks_of(0), (std::vector<int>{0, 2}));
  EXPECT_EQ(part.ranks_of(1), (std::vector<int>{1}));
  EXPECT_EQ(part.local_rank(), 1);
}

TEST(Topology, OnOneHost) {
  const Topology topology(4, 3);
  EXPECT_EQ(topology.num_hosts(), 1);
  EXPECT_EQ(topology.num_local_ranks(), 4);
  EXPECT_EQ(topology.local_rank(), 3);
}

TEST(Topology, OfTheWorldAsMpiFindsIt) {
  Group& world = test::world();
  const Topology& topology = world.topology();
  ASSERT_EQ(topology.num_ranks(), world.size());
  ASSERT_EQ(topology.num_hosts(), 1);
  EXPECT_EQ(topology.local_rank(), world.rank());
  std::array<char, 256> name{};
  ASSERT_EQ(gethostname(name.data(), name.size() - 1), 0);
  EXPECT_EQ(topology.name_of(0), name.data());
  std::vector<std::vector<int>> halves(world.size() > 1 ? 2 : 1);
  for (int p = 0; p < world.size(); ++p)
    halves[static_cast<std::size_t>(p) % halves.size()].push_back(p);
  const std::unique_ptr<Group> half = world.subgroup("half", halves);
  EXPECT_EQ(half->topology().num_ranks(), half->size());
  EXPECT_EQ(half->topology().local_rank(), half->rank());
}

TEST(Cores, AreSharedOutWithinAHost) {
  const Cores cores = Cores::of_this_process();
  ASSERT_GE(cores.num_cores, 1);
  EXPECT_GE(static_cast<int>(cores.processors.size()), cores.num_cores);
  Cores some;
  some.processors = {0, 1, 2, 5, 8, 9};
  EXPECT_EQ(some.text(), "0-2,5,8-9");
  // The tests' ranks are not bound: all may use the same processors.
  Group& world = test::world();
  EXPECT_EQ(num_cores_for_rank(world), std::max(1, cores.num_cores / world.size()));
}

TEST(Transport, IsTold) {
  const Transport transport = find_transport();
  EXPECT_NE(transport.library.find("MPI"), std::string::npos) << transport.library;
  if (test::world().size() == 1 || transport.layer != "ob1") return;
  EXPECT_TRUE(transport.has("self"));
  EXPECT_TRUE(transport.has("vader") || transport.has("sm"));
  EXPECT_FALSE(transport.has("tcp"));  // tests/support/mpiexec.sh leaves it out
}

}  // namespace
}  // namespace switchyard
