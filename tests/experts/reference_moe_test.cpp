// The oracle's gradients against central differences of its loss.
#include "tests/support/reference_moe.hpp"

#include <gtest/gtest.h>

#include "tests/experts/numbers.hpp"

namespace switchyard::test {
namespace {

struct Dims {
  std::size_t num_experts, top_k;
  bool normalize, masked, drops = false;
  std::size_t shared_width = 0;
  bool shared_gate = false;
  bool pooled = false;
  bool sigmoid = false, noisy = false, in_sums = false, given = false;
  double scale = 1;
  bool importance = false, load = false;
};

ReferenceMoe make_reference(const Dims& dims) {
  ReferenceMoe moe;
  moe.num_experts = dims.num_experts;
  moe.top_k = dims.top_k;
  moe.normalize = dims.normalize;
  moe.hidden = 5;
  moe.intermediate = 3;
  moe.sequence_length = 4;
  moe.balance_weight = 0.7;
  moe.z_weight = 0.3;
  moe.router = random_doubles("router", dims.num_experts * 5, 1.0);
  moe.gate_up = random_doubles("gate_up", dims.num_experts * 6 * 5, 1.0);
  moe.down = random_doubles("down", dims.num_experts * 5 * 3, 1.0);
  for (std::size_t i = 0; dims.drops && i < 8 * dims.top_k; ++i)
    moe.dropped.push_back(i < dims.top_k || i % 3 == 0);  // of the first token all
  moe.shared.intermediate = dims.shared_width;
  moe.shared.gate_up = random_doubles("shared gate_up", dims.shared_width * 2 * 5, 1.0);
  moe.shared.down = random_doubles("shared down", dims.shared_width * 5, 1.0);
  if (dims.shared_gate) moe.shared.gate = random_doubles("shared gate", 5, 1.0);
  if (dims.pooled) {
    moe.sequence_length = 8;
    moe.earlier = random_doubles("earlier", dims.num_experts, 2.0);
    for (double& count : moe.earlier) count = std::round(count + 3);
    moe.num_earlier = 30;
  }
  moe.sigmoid = dims.sigmoid;
  moe.scale = dims.scale;
  moe.importance = dims.importance;
  moe.load = dims.load;
  moe.dropped_are_in_sums = dims.in_sums;
  if (dims.noisy) {
    moe.noise_router = random_doubles("noise router", dims.num_experts * 5, 1.0);
    moe.noise = random_doubles("noise", 8 * dims.num_experts, 1.0);
    moe.jitter = random_doubles("jitter", 8 * 5, 1.0);
  }
  for (std::size_t i = 0; dims.given && i < 8 * dims.top_k; ++i)
    moe.given.push_back(i % 7 == 0 ? -1 : static_cast<std::int64_t>(i % dims.num_experts));
  if (dims.masked) moe.mask = random_doubles("mask", 8 * dims.top_k * 5, 1.0);
  return moe;
}

// The difference quotient of the loss along each element of `values`.
void expect_slopes(const ReferenceMoe& moe, const Doubles& x, const Doubles& dy, Doubles& values,
                   const Doubles& gradient) {
  constexpr double step = 1e-6;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double value = values[i];
    values[i] = value + step;
    const double above = moe.loss(x, dy);
    values[i] = value - step;
    const double below = moe.loss(x, dy);
    values[i] = value;
    EXPECT_NEAR((above - below) / (2 * step), gradient[i], 1e-7 * (1 + std::abs(gradient[i])));
  }
}

class ReferenceMoeTest : public ::testing::TestWithParam<Dims> {};

TEST_P(ReferenceMoeTest, gradients_are_the_slopes_of_the_loss) {
  ReferenceMoe moe = make_reference(GetParam());
  Doubles x = random_doubles("x", 8 * 5, 2.0);
  const Doubles dy = random_doubles("dy", 8 * 5, 1.0);
  const ReferenceMoe::Forward f = moe.forward(x);
  ASSERT_GT(f.margin, 1e-4);  // no step changes a choice
  const ReferenceMoe::Gradients g = moe.backward(x, dy, f);
  expect_slopes(moe, x, dy, x, g.x);
  expect_slopes(moe, x, dy, moe.router, g.router);
  expect_slopes(moe, x, dy, moe.noise_router, g.noise_router);
  expect_slopes(moe, x, dy, moe.gate_up, g.gate_up);
  expect_slopes(moe, x, dy, moe.down, g.down);
  expect_slopes(moe, x, dy, moe.shared.gate_up, g.shared_gate_up);
  expect_slopes(moe, x, dy, moe.shared.down, g.shared_down);
  expect_slopes(moe, x, dy, moe.shared.gate, g.shared_gate);
}

INSTANTIATE_TEST_SUITE_P(
    dims, ReferenceMoeTest,
    ::testing::Values(
        Dims{1, 1, true, false}, Dims{3, 1, true, false}, Dims{3, 1, false, false},
        Dims{4, 2, true, true}, Dims{4, 2, false, false}, Dims{5, 3, true, false},
        Dims{5, 3, false, true}, Dims{5, 3, true, true, true}, Dims{4, 2, false, false, true},
        Dims{4, 2, true, false, false, 4}, Dims{3, 1, false, true, true, 4, true},
        Dims{4, 2, true, false, false, 0, false, true},
        Dims{.num_experts = 5,
             .top_k = 3,
             .normalize = true,
             .masked = false,
             .sigmoid = true,
             .scale = 2.5},
        Dims{.num_experts = 4, .top_k = 2, .normalize = false, .masked = true, .sigmoid = true},
        Dims{.num_experts = 4, .top_k = 2, .normalize = true, .masked = false, .noisy = true},
        Dims{.num_experts = 5,
             .top_k = 2,
             .normalize = true,
             .masked = false,
             .noisy = true,
             .scale = 1.5,
             .importance = true,
             .load = true},
        Dims{.num_experts = 4,
             .top_k = 1,
             .normalize = false,
             .masked = true,
             .noisy = true,
             .load = true},
        Dims{.num_experts = 4,
             .top_k = 2,
             .normalize = true,
             .masked = false,
             .drops = true,
             .in_sums = true},
        Dims{.num_experts = 4,
             .top_k = 3,
             .normalize = true,
             .masked = false,
             .sigmoid = true,
             .given = true,
             .scale = 0.5}));

}  // namespace
}  // namespace switchyard::test
