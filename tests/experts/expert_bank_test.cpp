// The bank over row ranges: none, one row, a block and a bit, more than a chunk; sharded experts
// and the dense form. The oracle is the layer's with weights of one: each row chooses its expert.
#include "experts/expert_bank.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "kernels/threads.hpp"
#include "tests/experts/numbers.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/reference_moe.hpp"
#include "tests/support/tested_device.hpp"

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

BankSpec spec_of(const BankCase& c) {
  BankSpec spec;
  spec.prefix = "bank";
  spec.hidden = hidden;
  spec.intermediate = intermediate;
  spec.compute = c.dtype;
  if (c.dense) return spec;
  spec.local_experts.resize(c.offsets.size() - 1);
  std::iota(spec.local_experts.begin(), spec.local_experts.end(), 1);
  spec.num_experts = std::ssize(spec.local_experts) + 2;  // the others belong to other ranks
  return spec;
}

// A bank, the numbers that go into it, and what comes out forward and backward.
struct BankRun {
  explicit BankRun(const BankCase& run_case)
      : c(run_case),
        num_rows(c.offsets.back()),
        device(make_tested_device()),
        mesh(world(), Mesh::resolved({}, 1)),
        store(*device, mesh),
        bank(store, spec_of(c)),
        x_values(random_doubles("x", static_cast<std::size_t>(num_rows * hidden), 1.0)),
        dy_values(random_doubles("dy", static_cast<std::size_t>(num_rows * hidden), 1.0)),
        offsets(*device, Purpose::workspace, DType::i32, {std::ssize(c.offsets)}),
        x(rows_of(hidden)),
        dy(rows_of(hidden)),
        y(rows_of(hidden)),
        dx(rows_of(hidden)),
        gate_up(rows_of(2 * intermediate)) {
    std::ranges::copy(c.offsets, offsets->host<std::int32_t>());
    store.allocate();
    for (std::int64_t e = 0; e < std::ssize(c.offsets) - 1; ++e) {
      const ReferenceMoe moe = one_expert(c.dtype, e);
      write(expert_part(gate_up_weight().value(), c, e), moe.gate_up.data());
      write(expert_part(down_weight().value(), c, e), moe.down.data());
    }
    bank.pack_weights();
    round_to(c.dtype, x_values);
    round_to(c.dtype, dy_values);
    write(x, x_values.data());
    write(dy, dy_values.data());
  }
  Tensor rows_of(std::int64_t cols) const {
    return Tensor(*device, Purpose::activation, c.dtype, {num_rows, cols});
  }
  // A dense bank needs none.
  TensorView offsets_of_experts() const { return c.dense ? TensorView{} : offsets.view(); }
  const Parameter& gate_up_weight() const { return store.parameters()[0]; }
  const Parameter& down_weight() const { return store.parameters()[1]; }

  // keep: whether the backward pass gets the forward's product or computes it again.
  void run(bool keep = true) {
    const std::int64_t num_experts = std::ssize(c.offsets) - 1;
    BankScratch scratch(*device, num_rows, num_experts, intermediate, c.dtype);
    const Pass pass;
    const TensorView kept = keep ? gate_up.view() : TensorView{};
    bank.forward(x, offsets_of_experts(), kept, y, scratch, pass);
    bank.backward(dy, x, offsets_of_experts(), TensorView{}, kept, dx, scratch, pass);
  }

  const BankCase& c;
  std::int64_t num_rows;
  std::unique_ptr<Device> device;
  Mesh mesh;
  ParameterStore store;
  ExpertBank bank;
  Doubles x_values, dy_values;
  Tensor offsets, x, dy, y, dx, gate_up;
};

class ExpertBankTest : public ::testing::TestWithParam<BankCase> {};

TEST_P(ExpertBankTest, is_the_oracle) {
  const BankCase& c = GetParam();
  const std::int64_t num_experts = std::ssize(c.offsets) - 1;
  BankRun run(c);
  EXPECT_EQ(run.gate_up_weight().name(), "bank.gate_up.weight");
  EXPECT_EQ(run.down_weight().name(), "bank.down.weight");
  run.run();
  for (std::int64_t e = 0; e < num_experts; ++e) {
    SCOPED_TRACE("expert " + std::to_string(e));
    const auto at = static_cast<std::size_t>(e);
    const std::int64_t begin = c.offsets[at], end = c.offsets[at + 1];
    const ReferenceMoe moe = one_expert(c.dtype, e);
    const auto part_of = [&](const Doubles& values) {
      return Doubles(values.begin() + begin * hidden, values.begin() + end * hidden);
    };
    const Doubles x_part = part_of(run.x_values), dy_part = part_of(run.dy_values);
    const ReferenceMoe::Forward forward = moe.forward(x_part);
    const ReferenceMoe::Gradients expected = moe.backward(x_part, dy_part, forward);
    const auto error = [](const TensorView& actual, const Doubles& wanted) {
      const Doubles values = to_doubles(actual.flat());
      return relative_error(values.data(), wanted.data(), wanted.size());
    };
    EXPECT_LE(error(run.y->slice_rows(begin, end), forward.y), c.tolerance);
    EXPECT_LE(error(run.dx->slice_rows(begin, end), expected.x), c.tolerance);
    EXPECT_LE(error(expert_part(run.gate_up_weight().gradient(), c, e), expected.gate_up),
              c.tolerance);
    EXPECT_LE(error(expert_part(run.down_weight().gradient(), c, e), expected.down), c.tolerance);
  }
}

bool same_bits(const TensorView& a, const TensorView& b) {
  return a.num_bytes() == b.num_bytes() &&
         std::memcmp(a.data, b.data, static_cast<std::size_t>(a.num_bytes())) == 0;
}

// How many rows are taken at once depends on the threads: no bit of a row does. What is computed
// again has the bits of what is kept, those of weight gradients, too.
TEST_P(ExpertBankTest, neither_threads_nor_what_is_kept_change_a_row) {
  const int before = kernels::num_threads();
  kernels::set_num_threads(1);
  BankRun expected(GetParam());
  expected.run();
  for (const int threads : {1, 2, 3, 6}) {
    SCOPED_TRACE(std::to_string(threads) + " threads");
    kernels::set_num_threads(threads);
    BankRun kept(GetParam()), again(GetParam());
    kept.run(true);
    again.run(false);
    for (const BankRun* run : {&kept, &again}) {
      EXPECT_TRUE(same_bits(run->y, expected.y));
      EXPECT_TRUE(same_bits(run->dx, expected.dx));
    }
    EXPECT_TRUE(same_bits(kept.gate_up_weight().gradient(), again.gate_up_weight().gradient()));
    EXPECT_TRUE(same_bits(kept.down_weight().gradient(), again.down_weight().gradient()));
  }
  kernels::set_num_threads(before);
}

// A GPU takes all rows at once, so what lies between its products follows the rows that come; a
// processor takes blocks, and needs as much for many rows as for few.
TEST(BankScratch, FollowsTheRowsWhereAllAreTakenAtOnce) {
  const std::int64_t rows = 1000;
  const auto grown_on = [&](DeviceKind kind) {
    const auto device = make_plan_device({.device = kind, .num_threads = 2});
    RowCapacity capacity;
    const BankScratch scratch(*device, 1'000'000, 4, intermediate, DType::bf16, &capacity);
    const std::int64_t before = device->memory().live(Purpose::workspace);
    EXPECT_GT(before, 0);
    capacity.require(rows);
    return device->memory().live(Purpose::workspace) - before;
  };
  EXPECT_EQ(grown_on(DeviceKind::cpu), 0);
  // Gate and up and their gradients, the activation and its gradient; whole pages of each.
  const std::int64_t needed = rows * 6 * intermediate * size_of(DType::bf16);
  EXPECT_GE(grown_on(DeviceKind::cuda), needed);
  EXPECT_LT(grown_on(DeviceKind::cuda), needed + 4 * 4096);
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
