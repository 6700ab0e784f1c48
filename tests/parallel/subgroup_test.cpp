// Groups made from groups: membership, order, and independence of each other.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "tensor/error.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard {
namespace {

using test::world;
using Partition = std::vector<std::vector<int>>;

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

std::vector<std::int64_t> members_of(Group& group, int world_rank) {
  std::vector<std::int64_t> members(index(group.size()), -1);
  const std::int64_t mine = world_rank;
  group.all_gather_values({&mine, 1}, members);
  return members;
}

TEST(SubgroupTest, MembersAreOrderedAsListed) {
  const int size = world().size();
  const int rank = world().rank();
  std::vector<int> reversed;
  for (int p = size - 1; p >= 0; --p) reversed.push_back(p);
  const std::unique_ptr<Group> all = world().subgroup("reversed", {reversed});
  EXPECT_EQ(all->name(), "reversed");
  EXPECT_EQ(all->size(), size);
  EXPECT_EQ(all->rank(), size - 1 - rank);
  EXPECT_EQ(members_of(*all, rank), std::vector<std::int64_t>(reversed.begin(), reversed.end()));
}

TEST(SubgroupTest, PartsOfUnevenSizes) {
  const int size = world().size();
  const int rank = world().rank();
  Partition partition(2);  // the last rank alone, the others together, in reverse
  partition[0] = {size - 1};
  for (int p = size - 2; p >= 0; --p) partition[1].push_back(p);
  const std::unique_ptr<Group> group = world().subgroup("part", partition);
  const bool is_last = rank == size - 1;
  EXPECT_EQ(group->size(), is_last ? 1 : size - 1);
  EXPECT_EQ(group->rank(), is_last ? 0 : size - 2 - rank);
  double sum = rank + 1;
  group->all_reduce_values({&sum, 1}, ReduceOp::sum);
  EXPECT_EQ(sum, is_last ? size : size * (size - 1) / 2);
}

// Exchanges of a group, its subgroup and the subgroup's subgroup at once.
TEST(SubgroupTest, GroupsDoNotDisturbEachOther) {
  const int size = world().size();
  const int rank = world().rank();
  Partition parity(size > 1 ? 2 : 1);
  for (int p = 0; p < size; ++p) parity[index(p % 2)].push_back(p);
  const std::unique_ptr<Group> half = world().subgroup("parity", parity);
  Partition singles;
  for (int p = 0; p < half->size(); ++p) singles.push_back({p});
  const std::unique_ptr<Group> alone = half->subgroup("alone", singles);
  EXPECT_EQ(alone->size(), 1);

  const std::unique_ptr<Device> device = make_cpu_device();
  const std::int64_t numel = 100000;
  std::vector<float> over_world(index(numel), 1.0f);
  std::vector<float> over_half(index(numel), static_cast<float>(rank + 1));
  std::vector<float> over_one(index(numel), static_cast<float>(rank + 5));
  std::vector<Event> events;
  const auto start = [&](Group& group, std::vector<float>& data) {
    events.push_back(group.start_all_reduce(view_of(*device, data.data(), {numel}), ReduceOp::sum));
  };
  // Odd ranks start the two in the other order: only the order within a group is prescribed.
  if (rank % 2 == 0) start(world(), over_world);
  start(*half, over_half);
  if (rank % 2 == 1) start(world(), over_world);
  start(*alone, over_one);
  for (bool done = false; !done;) {
    done = true;
    for (Event& event : events) done = event.test() && done;
  }
  float sum_of_half = 0;
  for (int p = rank % 2; p < size; p += 2) sum_of_half += static_cast<float>(p + 1);
  for (std::int64_t i = 0; i < numel; ++i) {
    ASSERT_EQ(over_world[index(i)], static_cast<float>(size));
    ASSERT_EQ(over_half[index(i)], sum_of_half);
    ASSERT_EQ(over_one[index(i)], static_cast<float>(rank + 5));
  }
}

TEST(SubgroupTest, APartitionListsEachRankOnce) {
  const int size = world().size();
  std::vector<int> all;
  for (int p = 0; p < size; ++p) all.push_back(p);
  EXPECT_THROW(world().subgroup("twice", {all, {0}}), InternalError);
  EXPECT_THROW(world().subgroup("outside", {all, {size}}), InternalError);
  all.pop_back();
  EXPECT_THROW(world().subgroup("missing", {all}), InternalError);
}

}  // namespace
}  // namespace switchyard
