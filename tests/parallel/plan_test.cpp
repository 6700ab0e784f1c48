// The group that only plans: bytes by the documented formulas, values of a balanced world, and the
// store and the gradient reduction on a device without memory.
#include <gtest/gtest.h>

#include <vector>

#include "parallel/gradient_sync.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

class PlanTest : public ::testing::Test {
 protected:
  double wire_bytes() { return device_->profile().total_work().wire_bytes; }

  std::unique_ptr<Device> device_ = make_plan_device();
};

TEST_F(PlanTest, EachExchangeRecordsItsBytes) {
  const std::unique_ptr<Group> group = make_plan_group("expert", 1, 4, *device_);
  const Tensor whole(*device_, Purpose::workspace, DType::f32, {1000});
  const Tensor staging(*device_, Purpose::communication, DType::f32, {750});
  const auto bytes_of = [&](auto&& exchange) {
    device_->profile().reset();
    exchange();
    return wire_bytes();
  };
  EXPECT_EQ(bytes_of([&] { group->all_reduce(whole, ReduceOp::sum); }), 2 * 4000 * 3 / 4);
  EXPECT_EQ(bytes_of([&] { group->reduce_scatter(whole, staging); }), 4000 * 3 / 4);
  EXPECT_EQ(bytes_of([&] { group->all_gather(whole); }), 4000 * 3 / 4);
  EXPECT_EQ(bytes_of([&] { group->broadcast(whole, 0); }), 4000 * 3 / 4);
  EXPECT_EQ(bytes_of([&] { group->send_receive(whole, 2, whole, 0); }), 4000);
  EXPECT_EQ(bytes_of([&] { group->send_receive(whole, 1, whole, 1); }), 0);
  const Tensor rows(*device_, Purpose::workspace, DType::bf16, {10, 64});
  const std::vector<std::int64_t> send_rows = {1, 5, 0, 4};  // 5 stay here
  const std::vector<std::int64_t> recv_rows = {0, 5, 3, 2};
  EXPECT_EQ(bytes_of([&] { group->all_to_all_v(rows, send_rows, rows, recv_rows); }), 5 * 64 * 2);
}

TEST_F(PlanTest, WorkGoesToTheCurrentPart) {
  const std::unique_ptr<Group> group = make_plan_group("expert", 0, 2, *device_);
  const Tensor whole(*device_, Purpose::workspace, DType::f32, {100});
  const Profile::Scope scope(device_->profile(), Part::combine);
  group->all_gather(whole);
  EXPECT_EQ(device_->profile().work(Part::combine).wire_bytes, 200);
  EXPECT_EQ(device_->profile().work(Part::other).wire_bytes, 0);
}

TEST_F(PlanTest, ASingleRankSendsNothing) {
  const std::unique_ptr<Group> group = make_plan_group("expert", 0, 1, *device_);
  const Tensor whole(*device_, Purpose::workspace, DType::f32, {100});
  group->all_reduce(whole, ReduceOp::sum);
  group->all_gather(whole);
  EXPECT_EQ(wire_bytes(), 0);
}

TEST_F(PlanTest, ValuesOfTheBalancedWorld) {
  const std::unique_ptr<Group> group = make_plan_group("data", 2, 3, *device_);
  const std::vector<std::int64_t> mine = {7, 8};
  std::vector<std::int64_t> all(6);
  group->all_gather_values(mine, all);
  EXPECT_EQ(all, (std::vector<std::int64_t>{7, 8, 7, 8, 7, 8}));
  std::vector<double> values = {1.5, 2.0};
  group->all_reduce_values(values, ReduceOp::sum);
  EXPECT_EQ(values, (std::vector<double>{4.5, 6.0}));
  group->all_reduce_values(values, ReduceOp::max);
  EXPECT_EQ(values, (std::vector<double>{4.5, 6.0}));
}

// Of 4,096 ranks, 5 numbers: 12 rounds, and everybody's numbers come to everybody.
TEST_F(PlanTest, ControlIsCountedBesideTensors) {
  const std::unique_ptr<Group> group = make_plan_group("world", 7, 4096, *device_);
  const std::unique_ptr<Group> alone = make_plan_group("alone", 0, 1, *device_);
  device_->profile().reset();
  std::vector<double> values(5);
  group->all_reduce_values(values, ReduceOp::max);
  alone->all_reduce_values(values, ReduceOp::max);
  const Work work = device_->profile().total_work();
  EXPECT_EQ(work.control_bytes, 5 * 8 * 4095);
  EXPECT_EQ(work.control_messages, 12);
  EXPECT_EQ(work.wire_bytes, 0);
}

TEST_F(PlanTest, SubgroupsKnowTheirPlaces) {
  const std::unique_ptr<Group> group = make_plan_group("world", 5, 6, *device_);
  const std::unique_ptr<Group> part = group->subgroup("part", {{0, 2, 4}, {3, 5, 1}});
  EXPECT_EQ(part->size(), 3);
  EXPECT_EQ(part->rank(), 1);
  EXPECT_THROW(group->subgroup("part", {{0, 2, 4}}), InternalError);
}

TEST_F(PlanTest, AMeshOfAThousandRanks) {
  const Mesh mesh(*device_, 777, 1024, {.expert = 64});
  EXPECT_EQ(mesh.degree(Axis::world), 1024);
  EXPECT_EQ(mesh.index(Axis::expert), 777 % 64);
  EXPECT_EQ(mesh.degree(Axis::expert_data), 16);
  EXPECT_EQ(mesh.index(Axis::expert_data), 777 / 64);
}

// 4 ranks, expert 2: 1000 dense elements over 4 replicas, 600 of this rank's experts over 2.
TEST_F(PlanTest, GradientsAndMemoryOfAStep) {
  const Mesh mesh(*device_, 3, 4, {.expert = 2});
  ParameterStore store(*device_, mesh);
  Parameter& dense = store.add({.name = "dense", .global_shape = {10, 100}});
  Parameter& experts = store.add({.name = "experts",
                                  .global_shape = {4, 300},
                                  .slice = Slice(0, {{2, 4}}),
                                  .replicas = Axis::expert_data});
  store.allocate();
  store.initialize(1);
  ASSERT_EQ(store.buckets().size(), 2u);
  EXPECT_EQ(store.buckets()[0].axis, Axis::expert_data);  // added last: complete first
  EXPECT_EQ(store.buckets()[0].part, 304);                // 300 rounded up to a multiple of 16
  EXPECT_EQ(store.buckets()[1].part, 256);                // 250 likewise
  EXPECT_EQ(store.num_global_elements(), 1000 + 1200);
  const std::int64_t numel = 2 * 304 + 4 * 256;
  EXPECT_EQ(device_->memory().live(Purpose::parameter), numel * 4);
  EXPECT_EQ(device_->memory().live(Purpose::gradient), numel * 4);

  GradientSync sync(store);
  EXPECT_EQ(device_->memory().live(Purpose::communication), (304 + 3 * 256) * 4);
  device_->profile().reset();
  sync.arm();
  sync.ready(experts);
  sync.ready(dense);
  sync.finish();
  EXPECT_EQ(device_->profile().work(Part::reduction).wire_bytes, (304 + 3 * 256) * 4);
  device_->profile().reset();
  sync.gather_values();
  EXPECT_EQ(wire_bytes(), (304 + 3 * 256) * 4);
}

}  // namespace
}  // namespace switchyard
