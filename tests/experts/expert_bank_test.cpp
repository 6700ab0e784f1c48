// The bank over row ranges: none, one row, a block and a bit, more than a chunk; sharded experts
// and the dense form. The oracle is the layer's with weights of one: each row chooses its expert.
#include "experts/expert_bank.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/experts/numbers.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/reference_moe.hpp"

namespace switchyard::test {
namespace {

constexpr std::int64_t hidden = 24;
constexpr std::int64_t intermediate = 20;

struct BankCase {
  DType dtype;
  bool dense;
  std::vector<std::int64_t> offsets;  // of local experts
  double tolerance;
};

// The oracle of one expert: a mixture of one.
ReferenceMoe one_expert(DType dtype, std::int64_t expert) {
  const std::string suffix = std::to_string(expert);
  ReferenceMoe moe;
  moe.hidden = hidden;
  moe.intermediate = intermediate;
  moe.router = Doubles(hidden);
  moe.gate_up = random_doubles("gate_up " + suffix, 2 * intermediate * hidden, 0.4);
  moe.down = random_doubles("down " + suffix, hidden * intermediate, 0.4);
  round_to(dtype, moe.gate_up);
  round_to(dtype, moe.down);
  return moe;
}

TensorView expert_part(const TensorView& whole, const BankCase& c, std::int64_t expert) {
  return c.dense ? whole : whole[expert];
}

class ExpertBankTest : public ::testing::TestWithParam<BankCase> {};

TEST_P(ExpertBankTest, is_the_oracle) {
  const BankCase& c = GetParam();
  const std::int64_t num_experts = std::ssize(c.offsets) - 1;
  const std::int64_t num_rows = c.offsets.back();
  const std::unique_ptr<Device> device = make_cpu_device();
  const Mesh mesh(world(), Mesh::resolved({}, 1));
  ParameterStore store(*device, mesh);
  BankSpec spec;
  spec.prefix = "bank";
  spec.hidden = hidden;
  spec.intermediate = intermediate;
  spec.compute = c.dtype;
  if (!c.dense) {
    spec.num_experts = num_experts + 2;  // the others belong to other ranks
    spec.first_expert = 1;
    spec.num_local_experts = num_experts;
  }
  ExpertBank bank(store, spec);
  store.allocate();
  const Parameter& gate_up_weight = store.parameters()[0];
  const Parameter& down_weight = store.parameters()[1];
  EXPECT_EQ(gate_up_weight.name(), "bank.gate_up.weight");
  EXPECT_EQ(down_weight.name(), "bank.down.weight");
  for (std::int64_t e = 0; e < num_experts; ++e) {
    const ReferenceMoe moe = one_expert(c.dtype, e);
    write(expert_part(gate_up_weight.value(), c, e), moe.gate_up.data());
    write(expert_part(down_weight.value(), c, e), moe.down.data());
  }
  bank.pack_weights();

  Doubles x_values = random_doubles("x", static_cast<std::size_t>(num_rows * hidden), 1.0);
  Doubles dy_values = random_doubles("dy", static_cast<std::size_t>(num_rows * hidden), 1.0);
  round_to(c.dtype, x_values);
  round_to(c.dtype, dy_values);
  const auto rows_of = [&](std::int64_t cols) {
    return Tensor(*device, Purpose::activation, c.dtype, {num_rows, cols});
  };
  const Tensor x = rows_of(hidden), dy = rows_of(hidden), y = rows_of(hidden), dx = rows_of(hidden),
               gate_up = rows_of(2 * intermediate);
  write(x, x_values.data());
  write(dy, dy_values.data());
  BankScratch scratch(*device, num_rows, intermediate, c.dtype);
  const Pass pass;
  bank.forward(x, c.offsets, gate_up, y, scratch, pass);
  bank.backward(dy, x, c.offsets, gate_up, dx, scratch, pass);

  for (std::int64_t e = 0; e < num_experts; ++e) {
    SCOPED_TRACE("expert " + std::to_string(e));
    const auto at = static_cast<std::size_t>(e);
    const std::int64_t begin = c.offsets[at], end = c.offsets[at + 1];
    const ReferenceMoe moe = one_expert(c.dtype, e);
    const Doubles x_part(x_values.begin() + begin * hidden, x_values.begin() + end * hidden);
    const Doubles dy_part(dy_values.begin() + begin * hidden, dy_values.begin() + end * hidden);
    const ReferenceMoe::Forward forward = moe.forward(x_part);
    const ReferenceMoe::Gradients expected = moe.backward(x_part, dy_part, forward);
    const auto error = [](const TensorView& actual, const Doubles& wanted) {
      const Doubles values = to_doubles(actual.flat());
      return relative_error(values.data(), wanted.data(), wanted.size());
    };
    EXPECT_LE(error(y->slice_rows(begin, end), forward.y), c.tolerance);
    EXPECT_LE(error(dx->slice_rows(begin, end), expected.x), c.tolerance);
    EXPECT_LE(error(expert_part(gate_up_weight.gradient(), c, e), expected.gate_up), c.tolerance);
    EXPECT_LE(error(expert_part(down_weight.gradient(), c, e), expected.down), c.tolerance);
  }
}

// bf16: see layer_test.cpp for the count of roundings; six of them happen here.
constexpr double bf16_tolerance = 2 * 6 / 512.0;

INSTANTIATE_TEST_SUITE_P(
    ranges, ExpertBankTest,
    ::testing::Values(BankCase{DType::f32, false, {0, 0, 1, 258, 258, 1400, 2700}, 1e-5},
                      BankCase{DType::bf16, false, {0, 1100, 1100, 1356, 1360}, bf16_tolerance},
                      BankCase{DType::f32, true, {0, 1300}, 1e-5},
                      BankCase{DType::bf16, true, {0, 300}, bf16_tolerance},
                      BankCase{DType::f32, false, {0, 3}, 1e-5}));

}  // namespace
}  // namespace switchyard::test
