// The groups of every legal mesh on this number of ranks: who is in them, in which order.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "parallel/mesh.hpp"
#include "tensor/error.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard {
namespace {

using test::world;
using Ranks = std::vector<std::int64_t>;

Ranks members_of(Group& group) {
  Ranks members(static_cast<std::size_t>(group.size()), -1);
  const std::int64_t mine = world().rank();
  group.all_gather_values({&mine, 1}, members);
  return members;
}

// first, first + step, ...: `count` of them.
Ranks ranks_from(int first, int step, int count) {
  Ranks ranks;
  for (int i = 0; i < count; ++i) ranks.push_back(first + i * step);
  return ranks;
}

void check_axis(const Mesh& mesh, Axis axis, const Ranks& members) {
  SCOPED_TRACE(name_of(axis));
  Group& group = mesh.group(axis);
  EXPECT_EQ(group.name(), name_of(axis));
  EXPECT_EQ(members_of(group), members);
  EXPECT_EQ(mesh.degree(axis), static_cast<int>(members.size()));
  EXPECT_EQ(members[static_cast<std::size_t>(mesh.index(axis))], world().rank());
}

// Every legal mesh: expert and ring x ulysses divide the ranks.
template <class Body>
void for_each_mesh(int size, Body body) {
  for (int expert = 1; expert <= size; ++expert)
    for (int ring = 1; ring <= size; ++ring)
      for (int ulysses = 1; ring * ulysses <= size; ++ulysses) {
        if (size % expert != 0 || size % (ring * ulysses) != 0) continue;
        SCOPED_TRACE(testing::Message()
                     << "expert " << expert << ", ring " << ring << " x " << ulysses);
        ParallelConfig config;
        config.context = ring * ulysses;
        config.expert = expert;
        config.context_split.ring = ring;
        config.context_split.ulysses = ulysses;
        body(config);
      }
}

TEST(MeshTest, EveryLegalMeshHasItsGroups) {
  const int size = world().size();
  const int rank = world().rank();
  for_each_mesh(size, [&](const ParallelConfig& config) {
    const int expert = static_cast<int>(config.expert);
    const int context = static_cast<int>(config.context);
    const int ring = static_cast<int>(config.context_split.ring);
    const int ulysses = static_cast<int>(config.context_split.ulysses);
    const Mesh mesh(world(), config);
    EXPECT_EQ(mesh.config().data, size / context);
    EXPECT_EQ(&mesh.group(Axis::world), &world());
    check_axis(mesh, Axis::world, ranks_from(0, 1, size));
    check_axis(mesh, Axis::dense_replica, ranks_from(0, 1, size));
    check_axis(mesh, Axis::data, ranks_from(rank % context, context, size / context));
    check_axis(mesh, Axis::pipeline, {rank});
    const int first = rank / context * context;  // of this rank's sequence
    check_axis(mesh, Axis::context, ranks_from(first, 1, context));
    check_axis(mesh, Axis::context_ring, ranks_from(first + rank % ulysses, ulysses, ring));
    check_axis(mesh, Axis::context_ulysses, ranks_from(rank / ulysses * ulysses, 1, ulysses));
    EXPECT_EQ(mesh.index(Axis::context),
              mesh.index(Axis::context_ring) * ulysses + mesh.index(Axis::context_ulysses));
    check_axis(mesh, Axis::expert, ranks_from(rank / expert * expert, 1, expert));
    check_axis(mesh, Axis::expert_data, ranks_from(rank % expert, expert, size / expert));
  });
}

// The planned mesh of a rank agrees with the real one about places and sizes.
TEST(MeshTest, ThePlannedMeshIsTheRealOne) {
  const int size = world().size();
  const std::unique_ptr<Device> plan = make_plan_device();
  for_each_mesh(size, [&](const ParallelConfig& config) {
    const Mesh real(world(), config);
    const Mesh planned(*plan, world().rank(), size, config);
    for (int i = 0; i < num_axes; ++i) {
      const Axis axis = static_cast<Axis>(i);
      EXPECT_EQ(planned.degree(axis), real.degree(axis)) << name_of(axis);
      EXPECT_EQ(planned.index(axis), real.index(axis)) << name_of(axis);
    }
  });
}

TEST(MeshTest, AnIllegalMeshThrowsOnEveryRankBeforeAnyExchange) {
  ParallelConfig config;
  config.data = world().size() + 1;
  EXPECT_THROW(Mesh(world(), config), ConfigError);
  config.data = 0;
  config.expert = world().size() + 1;
  EXPECT_THROW(Mesh(world(), config), ConfigError);
}

}  // namespace
}  // namespace switchyard
