// What a step tells of the experts' load is counted over all ranks, micro-steps and layers.
#include "trainer/load_statistics.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/routing/balance.hpp"
#include "kernels/routing/routing_figures.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {
namespace {

constexpr std::int64_t num_experts = 4;
const std::vector<Placement> in_order = {Placement::contiguous(num_experts, 1)};

// The counts of one layer and micro-batch of this rank.
void add(const Tensor& loads, std::int64_t layer, std::vector<std::int32_t> rows,
         std::int64_t num_dropped) {
  std::int64_t num_slots = num_dropped;
  for (const std::int32_t count : rows) num_slots += count;
  kernels::add_expert_load(view_of(*loads->device, rows.data(), {num_experts}), num_slots,
                           loads.view()[layer].slice_rows(0, num_experts + 1));
}

TEST(LoadStatistics, AreThoseOfAllRanksMicroStepsAndLayers) {
  const std::unique_ptr<Device> device = make_cpu_device();
  const Tensor loads(*device, Purpose::workspace, DType::i64, {2, num_experts + 3});
  // In the second layer every rank sends its first micro-batch to an expert of its own.
  std::vector<std::int32_t> own(num_experts);
  own[static_cast<std::size_t>(world().rank())] = 10;
  add(loads, 0, {5, 5, 5, 5}, 0);
  add(loads, 1, own, 6);
  add(loads, 0, {5, 5, 5, 5}, 0);
  add(loads, 1, {2, 0, 0, 0}, 2);
  world().all_reduce(loads, ReduceOp::sum);
  std::int64_t* const second = loads.view()[1].as<std::int64_t>();
  second[num_experts + 1] = 3;  // rows to other hosts
  second[num_experts + 2] = std::llround(40 * 0.75 / kernels::entropy_unit);
  const ExpertLoad found = read_load(loads, in_order, 40);
  const double ranks = world().size();
  // Expert 0 of the second layer: 10 rows of rank 0, and 2 of each.
  EXPECT_DOUBLE_EQ(found.max_over_mean, (10 + 2 * ranks) * 4 / (12 * ranks));
  EXPECT_DOUBLE_EQ(found.dropped_fraction, 8.0 / (20 + 20 + 10 + 6 + 2 + 2));
  EXPECT_EQ(found.by_layer, (std::vector<double>{1, found.max_over_mean}));
  EXPECT_EQ(found.worst, 1);
  const LayerLoad& layer = found.layers.at(1);
  EXPECT_EQ(layer.rows[0], 10 + 2 * world().size());
  EXPECT_EQ(layer.num_idle, 4 - world().size());
  EXPECT_EQ(layer.of_ranks.fullest, 1);  // one rank has all experts
  EXPECT_DOUBLE_EQ(layer.dropped_fraction, 8.0 / 20);
  EXPECT_DOUBLE_EQ(layer.far_fraction, 3 / (12 * ranks));
  EXPECT_NEAR(layer.entropy, 0.75, 1e-6);
  double squares = 0;
  for (const std::int64_t rows : layer.rows)
    squares += std::pow(static_cast<double>(rows) / (3 * ranks) - 1, 2);
  EXPECT_NEAR(layer.variation, std::sqrt(squares / 4), 1e-12);
  // Places in another order: the first has expert 3.
  const std::vector<Placement> moved = {in_order[0], Placement(num_experts, {{3, 1}, {0, 2}})};
  EXPECT_EQ(read_load(loads, moved, 40).layers.at(1).rows[3], 10 + 2 * world().size());
  const ExpertLoad first = read_load(loads->slice_rows(0, 1), in_order, 40);
  EXPECT_DOUBLE_EQ(first.max_over_mean, 1);
  EXPECT_DOUBLE_EQ(first.dropped_fraction, 0);
}

// Places of experts 3, 1 | 0, 2 with 1, 2 | 6, 3 rows: 3 and 9 rows, and 6 in the mean.
TEST(LoadStatistics, RowsOfRanksFollowTheirPlaces) {
  const std::vector<std::int64_t> rows = {1, 2, 6, 3};
  const RowsOfRanks found = rows_of_ranks(rows, Placement(num_experts, {{3, 1}, {0, 2}}));
  EXPECT_DOUBLE_EQ(found.fullest, 1.5);
  EXPECT_DOUBLE_EQ(found.first, 0.5);
  const std::vector<RowsOfRanks> layers = {found, {.fullest = 2, .first = 2}};
  EXPECT_DOUBLE_EQ(mean_of(layers).fullest, 1.75);
  EXPECT_DOUBLE_EQ(mean_of(layers).first, 1.25);
  EXPECT_DOUBLE_EQ(mean_of({}).fullest, 1);
  EXPECT_DOUBLE_EQ(rows_of_ranks(std::vector<std::int64_t>(4), in_order[0]).fullest, 1);
}

TEST(LoadStatistics, AModelWithoutExpertsIsBalanced) {
  EXPECT_EQ(read_load({}, in_order, 1).max_over_mean, 1);
  EXPECT_EQ(read_load({}, in_order, 1).dropped_fraction, 0);
  EXPECT_TRUE(read_load({}, in_order, 1).by_layer.empty());
}

}  // namespace
}  // namespace switchyard::test
