// Prices and the event simulation, against sums done by hand on records made by hand.
#include <gtest/gtest.h>

#include <cmath>

#include "tensor/error.hpp"
#include "trainer/pricing/exchange_price.hpp"
#include "trainer/pricing/imbalance.hpp"
#include "trainer/pricing/kernel_price.hpp"
#include "trainer/pricing/step_prediction.hpp"
#include "trainer/pricing/step_simulation.hpp"

namespace switchyard::test {
namespace {

// A record of units that are told apart by their bytes, each with a price.
class Steps {
 public:
  explicit Steps(double slowdown) { prices_.overlap_slowdown = slowdown; }

  void compute(Part part, double seconds, std::int64_t times = 1, double lag = 0) {
    add(part, seconds, times, lag, false);
  }
  std::int64_t exchange(Part part, double seconds, std::string_view kind = "made") {
    return add(part, seconds, 1, 0, true, kind);
  }
  void wait(Part part, std::int64_t exchange) { record_.add_wait(exchange, {.part = part}); }
  StepTimes times(std::vector<SimulatedSpan>* spans = nullptr) const {
    return simulate(record_, prices_, spans);
  }

 private:
  std::int64_t add(Part part, double seconds, std::int64_t times, double lag, bool is_exchange,
                   std::string_view kind = "made") {
    WorkUnit unit;
    unit.kind = kind;
    unit.is_exchange = is_exchange;
    unit.bytes = static_cast<double>(prices_.seconds.size());
    prices_.seconds.push_back(seconds);
    prices_.lag.push_back(lag);
    return record_.add(unit, {.part = part, .times = times});
  }

  WorkRecord record_;
  UnitPrices prices_;
};

double part(const StepTimes& times, Part which) {
  return times.parts[static_cast<std::size_t>(which)];
}

TEST(Simulation, KernelsFollowEachOtherAndCountAsOftenAsTheyStand) {
  Steps steps(0.5);
  steps.compute(Part::attention, 2);
  steps.compute(Part::experts, 3, 4);
  const StepTimes times = steps.times();
  EXPECT_EQ(times.seconds, 14);
  EXPECT_EQ(part(times, Part::attention), 2);
  EXPECT_EQ(part(times, Part::experts), 12);
  EXPECT_EQ(times.wait_seconds(), 0);
}

// max(Tc, Tm) + k min(Tc, Tm), whichever is longer.
TEST(Simulation, ComputationAndExchangeSlowEachOtherDown) {
  for (const double k : {0.0, 0.25, 1.0})
    for (const auto& [compute, wires] : {std::pair{10.0, 4.0}, {4.0, 10.0}, {5.0, 5.0}}) {
      SCOPED_TRACE(k);
      Steps steps(k);
      const std::int64_t sent = steps.exchange(Part::reduction, wires);
      steps.compute(Part::attention, compute);
      steps.wait(Part::optimizer, sent);
      const StepTimes times = steps.times();
      EXPECT_DOUBLE_EQ(times.seconds, std::max(compute, wires) + k * std::min(compute, wires));
      EXPECT_DOUBLE_EQ(part(times, Part::optimizer), std::max(0.0, wires - compute));
      EXPECT_DOUBLE_EQ(times.exchange_seconds(), wires);
    }
}

// Two exchanges under way: the second begins when the first is done. By hand, k 0: the computation
// of 3 hides the first (2) and 1 of the second (4); of which 3 are left to wait for.
TEST(Simulation, ExchangesFollowEachOther) {
  Steps steps(0);
  const std::int64_t first = steps.exchange(Part::dispatch, 2);
  const std::int64_t second = steps.exchange(Part::dispatch, 4);
  steps.compute(Part::experts, 3);
  steps.wait(Part::combine, first);
  steps.compute(Part::experts, 1);
  steps.wait(Part::combine, second);
  std::vector<SimulatedSpan> spans;
  const StepTimes times = steps.times(&spans);
  EXPECT_DOUBLE_EQ(times.seconds, 6);
  EXPECT_DOUBLE_EQ(part(times, Part::combine), 2);
  EXPECT_DOUBLE_EQ(times.hidden_seconds(), 4);
  ASSERT_EQ(spans.size(), 4u);
  EXPECT_TRUE(spans.back().is_exchange);
  EXPECT_DOUBLE_EQ(spans.back().begin, 2);
  EXPECT_DOUBLE_EQ(spans.back().end, 6);
}

// A copy of activations beside an exchange and a computation: it slows nothing down, and is waited
// for by itself. By hand, k 1: the exchange of 2 and 2 of the computation take 4 s, the rest of it
// 1, and the copy of 7 ends 2 s later.
TEST(Simulation, CopiesOfActivationsHaveAStreamOfTheirOwn) {
  Steps steps(1);
  const std::int64_t copy = steps.exchange(Part::spill, 7, spill_write);
  const std::int64_t sent = steps.exchange(Part::dispatch, 2);
  steps.compute(Part::experts, 3);
  steps.wait(Part::combine, sent);
  steps.wait(Part::spill, copy);
  const StepTimes times = steps.times();
  EXPECT_DOUBLE_EQ(times.seconds, 7);
  EXPECT_DOUBLE_EQ(part(times, Part::experts), 5);
  EXPECT_DOUBLE_EQ(part(times, Part::combine), 0);
  EXPECT_DOUBLE_EQ(part(times, Part::spill), 2);
}

TEST(Simulation, TheStepEndsWithItsLastExchange) {
  Steps steps(0);
  steps.exchange(Part::reduction, 5);
  steps.compute(Part::head, 1);
  const StepTimes times = steps.times();
  EXPECT_DOUBLE_EQ(times.seconds, 5);
  EXPECT_DOUBLE_EQ(part(times, Part::other), 4);
}

// The fullest rank takes 3 s longer: all wait for it at the next exchange, once.
TEST(Simulation, OthersWaitForTheFullestRank) {
  Steps steps(0);
  steps.compute(Part::experts, 2, 1, 3);
  const std::int64_t combine = steps.exchange(Part::combine, 1);
  steps.wait(Part::combine, combine);
  const std::int64_t next = steps.exchange(Part::reduction, 1);
  steps.wait(Part::reduction, next);
  const StepTimes times = steps.times();
  EXPECT_DOUBLE_EQ(times.seconds, 2 + 4 + 1);
  EXPECT_DOUBLE_EQ(part(times, Part::combine), 4);
}

MachineProfile machine() {
  MachineProfile profile;
  profile.path = "made.yaml";
  MachineSetting& setting = profile.settings.emplace_back();
  setting.ranks_per_host = 4;
  setting.threads = 2;
  setting.kernels["linear_forward"][DType::f32] = {{{16, 64}, {8, 32}, {8, 128}},
                                                   {1e9, 2e9, 2e9, 4e9, 4e9, 8e9, 8e9, 16e9}};
  setting.kernels["copy"][DType::f32] = {{{1000, 100000}}, {1e9, 1e10}};
  setting.links[0]["any"] = {1e-6, 1e9};
  setting.links[1]["any"] = {1e-5, 2e8};
  return profile;
}

WorkUnit product(std::int64_t rows, std::int64_t out, std::int64_t in) {
  WorkUnit unit;
  unit.kind = "linear_forward";
  unit.dims = {rows, out, in, 0};
  unit.flops = 2.0 * static_cast<double>(rows * out * in);
  return unit;
}

TEST(KernelPrice, IsTheMeasuredOneAtMeasuredSizesAndBetweenThemInTheMiddle) {
  const MachineProfile profile = machine();
  PriceGaps gaps;
  const auto rate = [&](const WorkUnit& unit) {
    return unit.flops / kernel_seconds(unit, profile, profile.settings.front(), gaps);
  };
  EXPECT_NEAR(rate(product(16, 8, 8)), 1e9, 1);
  EXPECT_NEAR(rate(product(16, 32, 8)), 2e9, 1);
  EXPECT_NEAR(rate(product(64, 32, 128)), 16e9, 10);
  // Half-way in the logarithm: the geometric mean.
  EXPECT_NEAR(rate(product(32, 8, 8)), 2e9, 1);
  EXPECT_NEAR(rate(product(16, 16, 8)), std::sqrt(2.0) * 1e9, 1);
  // Rows go on at the last rate; fewer than the fewest take as long as those.
  EXPECT_NEAR(rate(product(64'000, 32, 128)), 16e9, 10);
  EXPECT_NEAR(rate(product(4, 8, 8)), 0.25e9, 1);
  EXPECT_TRUE(gaps.extrapolated.empty());
  rate(product(16, 8, 5000));
  ASSERT_EQ(gaps.extrapolated.size(), 1u);
  EXPECT_EQ(*gaps.extrapolated.begin(), "linear_forward of f32: in 5000 (measured: 8 to 128)");
}

TEST(KernelPrice, OfKindsWithoutATableIsThatOfACopyAndSaysSo) {
  const MachineProfile profile = machine();
  PriceGaps gaps;
  WorkUnit unit;
  unit.kind = "swiglu_forward";
  unit.dtype = DType::bf16;
  unit.bytes = 10'000;
  const double seconds = kernel_seconds(unit, profile, profile.settings.front(), gaps);
  EXPECT_NEAR(unit.bytes / seconds, std::sqrt(1e9 * 1e10), 1);
  EXPECT_EQ(gaps.as_copies, (std::set<std::string>{"swiglu_forward"}));
  unit.kind = "grouped_linear_forward";
  unit.dims = {2, 8, 8, 8};
  EXPECT_THROW(kernel_seconds(unit, profile, profile.settings.front(), gaps), ConfigError);
}

WorkUnit exchange(std::string_view kind, ExchangeRanks ranks, double bytes) {
  WorkUnit unit;
  unit.kind = kind;
  unit.is_exchange = true;
  unit.wire_bytes = bytes;
  unit.ranks = ranks;
  return unit;
}

TEST(ExchangePrice, FollowsTheLinksThatItTakes) {
  const MachineProfile profile = machine();
  const MachineSetting& setting = profile.settings.front();
  // Four ranks of one host: three messages.
  EXPECT_DOUBLE_EQ(
      exchange_seconds(exchange("all_to_all", {.size = 4, .rank = 2}, 3e6), profile, setting),
      3e-6 + 3e-3);
  // Eight on two hosts: of the bytes to seven others four sevenths leave the host, and all four
  // ranks of it send as many by one link.
  EXPECT_DOUBLE_EQ(
      exchange_seconds(exchange("all_to_all", {.size = 8, .rank = 5}, 7e6), profile, setting),
      7e-5 + 4 * 4e6 / 2e8);
  // One rank a host, every fourth: all bytes leave, and so do those of the three other groups.
  const WorkUnit strided =
      exchange("reduce_scatter", {.size = 2, .first = 1, .stride = 4, .rank = 1}, 1e6);
  EXPECT_DOUBLE_EQ(exchange_seconds(strided, profile, setting), 1e-5 + 4 * 1e6 / 2e8);
  // A ring's step crosses once for the group.
  const LinkBytes ring =
      link_bytes(exchange("send_receive", {.size = 8, .rank = 0}, 4e6), 4, DeviceKind::cpu);
  EXPECT_DOUBLE_EQ(ring.of_host, 4e6);
  EXPECT_EQ(num_messages("all_reduce", 4, DeviceKind::cpu), 6);
  EXPECT_EQ(num_messages("values", 5, DeviceKind::cpu), 3);
}

// Both ranks of a host share its disk; in memory a copy reads and writes.
TEST(ExchangePrice, CopiesOfActivationsGoByTheDiskOrAsCopies) {
  MachineProfile profile = machine();
  profile.disk_write_bytes_per_second = 1e9;
  profile.disk_read_bytes_per_second = 2e9;
  const MachineSetting& setting = profile.settings.front();
  PriceGaps gaps;
  WorkUnit copy;
  copy.kind = spill_write;
  copy.is_exchange = true;
  copy.bytes = 5e4;
  EXPECT_DOUBLE_EQ(spill_seconds(copy, profile, setting, gaps), 4 * 5e4 / 1e9);
  copy.kind = spill_read;
  EXPECT_DOUBLE_EQ(spill_seconds(copy, profile, setting, gaps), 4 * 5e4 / 2e9);
  copy.kind = spill_copy;
  EXPECT_NEAR(spill_seconds(copy, profile, setting, gaps), 1e5 / 1e10, 1e-12);
  EXPECT_TRUE(gaps.as_copies.empty());
  profile.disk_read_bytes_per_second = 0;
  copy.kind = spill_read;
  EXPECT_NEAR(spill_seconds(copy, profile, setting, gaps), 1e5 / 1e10, 1e-12);
  EXPECT_EQ(gaps.as_copies, (std::set<std::string>{"spill_read"}));
}

TEST(Settings, AreThoseMeasuredUnlessToldOtherwise) {
  const MachineProfile profile = machine();
  EXPECT_EQ(&setting_for(profile, 8, {}, false), &profile.settings.front());
  EXPECT_EQ(&setting_for(profile, 8, {4, 2}, false), &profile.settings.front());
  EXPECT_THROW(setting_for(profile, 8, {4, 1}, false), ConfigError);
  EXPECT_THROW(setting_for(profile, 2, {}, false), ConfigError);
  EXPECT_EQ(&setting_for(profile, 8, {4, 1}, true), &profile.settings.front());
}

// Daly's eq. 37 by hand: C = 60 s, M = 24 h.
TEST(Checkpoints, BestIntervals) {
  constexpr double checkpoint = 60, failures = 86400;
  EXPECT_NEAR(young_interval(checkpoint, failures), 3219.94, 0.01);
  const double ratio = checkpoint / (2 * failures);
  EXPECT_NEAR(daly_interval(checkpoint, failures),
              3219.938 * (1 + std::sqrt(ratio) / 3 + ratio / 9) - checkpoint, 0.01);
  EXPECT_EQ(daly_interval(200, 90), 90);
}

// Many draws of an even distribution and of one where a single expert has all.
TEST(Imbalance, FollowsTheConcentration) {
  EXPECT_EQ(dirichlet_max_over_mean(1, 8, 1), 1);
  EXPECT_NEAR(dirichlet_max_over_mean(1e5, 8, 8), 1, 0.01);
  EXPECT_NEAR(dirichlet_max_over_mean(1e-2, 8, 8), 8, 0.5);
  // Two shares of Dirichlet(1, 1) are u and 1 - u: the larger is 3 / 4 in the mean.
  EXPECT_NEAR(dirichlet_max_over_mean(1, 2, 2), 1.5, 0.05);
  const double concentration = concentration_of_load(1.7, 16);
  EXPECT_NEAR(dirichlet_max_over_mean(concentration, 16, 16), 1.7, 0.02);
  // Fewer ranks, of more experts each, differ less.
  EXPECT_LT(dirichlet_max_over_mean(concentration, 16, 4), 1.7);
}

}  // namespace
}  // namespace switchyard::test
