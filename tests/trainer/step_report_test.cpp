// The one exchange of a step's small numbers.
#include "trainer/step_report.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/mpi_test.hpp"
#include "tests/support/recorded_group.hpp"

namespace switchyard::test {
namespace {

// Terms whose sum depends on the order.
double term(int rank) {
  return std::pow(-3.0, rank) * (0.1 + 1e-3 * rank) + (rank == 1 ? 1e16 : 0);
}

HostFigures figures_of(int rank) {
  HostFigures figures;
  figures.spilled_bytes = 10.0 * rank;
  figures.maxima = {.max_rows = 7.0 - rank,
                    .memory_bytes = 1e9 + rank,
                    .stop_signal = rank == 1 ? 10.0 : 0.0,
                    .spill_wait_seconds = 0.5 * rank,
                    .spill_copy_seconds = 3};
  figures.computed_seconds = 0.25 * (rank + 1);
  return figures;
}

// Writes what kernels would find, and what the host knows of; the second time in the same report.
void exchange(StepReport& report, double squared_norm) {
  const int rank = world().rank();
  for (int time = 0; time < 2; ++time) {
    report.begin();
    kernels::write_figures(std::vector<double>{term(rank), 1, 2}, report.losses());
    kernels::write_figures({&squared_norm, 1}, report.squared_norm().slice_rows(0, 1));
    report.exchange(figures_of(rank), {.balance_weight = 0.5, .z_weight = 0.25, .clip_norm = 1});
  }
}

std::vector<float> decision_of(const StepReport& report) {
  const std::span<const float> decision = report.decision().span<float>();
  return {decision.begin(), decision.end()};
}

TEST(StepReport, AddsUpInRankOrderAndTakesTheLargest) {
  const int size = world().size();
  const std::unique_ptr<Device> device = make_cpu_device();
  StepReport report(*device, world());
  exchange(report, world().rank() + 0.5);
  const GatheredReport result = report.read();
  double cross_entropy = term(0);
  for (int rank = 1; rank < size; ++rank) cross_entropy += term(rank);
  EXPECT_EQ(std::bit_cast<std::uint64_t>(result.sums.cross_entropy),
            std::bit_cast<std::uint64_t>(cross_entropy));
  EXPECT_EQ(result.sums.balance, size);
  EXPECT_EQ(result.sums.z, 2 * size);
  EXPECT_EQ(result.sums.squared_gradient_norm[0], size * size * 0.5);
  EXPECT_EQ(result.sums.spilled_bytes, 5.0 * size * (size - 1));
  EXPECT_EQ(result.maxima.max_rows, 7);
  EXPECT_EQ(result.maxima.memory_bytes, 1e9 + size - 1);
  EXPECT_EQ(result.maxima.stop_signal, size > 1 ? 10 : 0);
  EXPECT_EQ(result.maxima.spill_wait_seconds, 0.5 * (size - 1));
  EXPECT_EQ(result.maxima.spill_copy_seconds, 3);
  ASSERT_EQ(std::ssize(result.computed_seconds), size);
  for (int rank = 0; rank < size; ++rank)
    EXPECT_EQ(result.computed_seconds[static_cast<std::size_t>(rank)], 0.25 * (rank + 1));
}

TEST(StepReport, TheDeviceDecidesWhatTheHostReads) {
  const std::unique_ptr<Device> device = make_cpu_device();
  StepReport report(*device, world());
  exchange(report, 1.0);
  const GatheredReport result = report.read();
  const int size = world().size();
  EXPECT_EQ(result.loss, result.sums.cross_entropy + 0.5 * size + 0.25 * 2 * size);
  EXPECT_EQ(result.gradient_norm, std::sqrt(size));
  EXPECT_EQ(decision_of(report), (std::vector<float>{static_cast<float>(1 / std::sqrt(size)), 1}));
}

TEST(StepReport, WhatIsNotANumberOnOneRankIsNoneOnAll) {
  const std::unique_ptr<Device> device = make_cpu_device();
  StepReport report(*device, world());
  const bool is_last = world().rank() == world().size() - 1;
  exchange(report, is_last ? std::numeric_limits<double>::quiet_NaN() : 1);
  EXPECT_TRUE(std::isnan(report.read().gradient_norm));
  EXPECT_EQ(decision_of(report).at(1), 0);
}

TEST(StepReport, ReadsNothingOfAPlan) {
  const std::unique_ptr<Device> device = make_plan_device();
  const std::unique_ptr<Group> ranks = make_plan_group("world", 1, 4096, *device);
  StepReport report(*device, *ranks);
  report.begin();
  report.exchange(figures_of(1), {});
  EXPECT_EQ(report.read().loss, 0);
  EXPECT_EQ(std::ssize(report.read().computed_seconds), 4096);
  const Work work = device->profile().total_work();
  EXPECT_EQ(work.control_bytes, 14 * 8 * 4095);
  EXPECT_EQ(work.control_messages, 12);
}

TEST(StepReport, IsOneExchange) {
  StartLog log(1);
  RecordedGroup ranks(world(), log);
  const std::unique_ptr<Device> device = make_cpu_device();
  StepReport report(*device, ranks);
  report.begin();
  report.exchange(figures_of(world().rank()), {});
  report.read();
  ASSERT_EQ(log.starts.size(), 1u);
  EXPECT_EQ(log.starts[0].what, "all_gather world " + std::to_string(112 * world().size()));
}

}  // namespace
}  // namespace switchyard::test
