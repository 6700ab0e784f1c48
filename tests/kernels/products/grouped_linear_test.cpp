// Products of groups: against the double reference, and bit for bit against a product for each.
#include "kernels/products/grouped_linear.hpp"

#include <algorithm>
#include <functional>
#include <limits>

#include "kernels/threads.hpp"
#include "tensor/error.hpp"
#include "tests/kernels/products/products_support.hpp"
#include "tests/support/reference_linear.hpp"

namespace switchyard::kernels {
namespace {

using namespace switchyard::test;
using reference::LinearShape;
using Offsets = std::vector<std::int32_t>;

// As in linear_test.cpp: sums of up to a few thousand products in fp32; results in bf16 are
// rounded.
double tolerance(DType type) {
  return type == DType::f32 ? 1e-5 : bf16_rounding;
}

// Whether a product is that of one group alone: bit for bit on the CPU, where one kernel serves
// both.
bool is_product_alone(const TensorView& result, const TensorView& alone) {
  if (!is_tested_on_card()) return same_bits(result, alone);
  return relative_error(doubles(result), doubles(alone)) < bf16_rounding;
}

// Empty groups first, between and last; one row; more than a piece; all rows with one.
const std::vector<Offsets> all_offsets = {
    {0, 0, 1, 70, 70, 333, 333}, {0, 0, 0, 300}, {0, 5},
    {0, 1, 2, 3, 4, 5},          {0, 0, 0},      {0, 700, 1400}};
constexpr std::int64_t out = 72, in = 33;

Tensor offsets_on(Device& device, const Offsets& offsets) {
  Tensor tensor(device, Purpose::workspace, DType::i32, {std::ssize(offsets)});
  if (!device.is_plan()) std::ranges::copy(offsets, tensor->as<std::int32_t>());
  return tensor;
}

class GroupedLinearTest : public testing::Test {
 protected:
  GroupedLinearTest() : device_(make_tested_device()) { set_num_threads(3); }
  ~GroupedLinearTest() override { set_num_threads(before_); }

  Tensor weight(std::int64_t group) const {
    return random_tensor(*device_, DType::f32, {out, in}, "w" + std::to_string(group));
  }
  std::vector<PackedWeight> packed(const Offsets& offsets, DType type) const {
    std::vector<PackedWeight> weights;
    for (std::int64_t g = 0; g + 1 < std::ssize(offsets); ++g) {
      weights.emplace_back(*device_, out, in, type);
      weights.back().pack(weight(g));
    }
    return weights;
  }
  // The weight as the product reads it.
  std::vector<double> rounded(std::int64_t group, DType type) const {
    std::vector<double> values = doubles(weight(group));
    if (type == DType::bf16)
      for (double& value : values)
        value = static_cast<double>(to_float(to_bf16(static_cast<float>(value))));
    return values;
  }
  Tensor on_device(const Offsets& offsets) const { return offsets_on(*device_, offsets); }
  Tensor rows(DType type, const Offsets& offsets, std::int64_t cols, std::string_view name) const {
    return random_tensor(*device_, type, {offsets.back(), cols}, name);
  }

  std::unique_ptr<Device> device_;
  int before_ = num_threads();
};

// visit(group, begin, end) for all groups with rows.
template <class Visit>
void for_each_group(const Offsets& offsets, Visit&& visit) {
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g)
    if (offsets[g] < offsets[g + 1])
      visit(static_cast<std::int64_t>(g), offsets[g], offsets[g + 1]);
}

TEST_F(GroupedLinearTest, ForwardIsTheProductOfEachGroup) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const Offsets& offsets : all_offsets) {
      const auto weights = packed(offsets, type);
      const Tensor x = rows(type, offsets, in, "x"), y = rows(type, offsets, out, "y");
      const Tensor alone = rows(type, offsets, out, "other");
      grouped_linear_forward(x, weights, on_device(offsets), y);
      for_each_group(offsets, [&](std::int64_t g, std::int64_t begin, std::int64_t end) {
        const TensorView part = x->slice_rows(begin, end), result = y->slice_rows(begin, end);
        EXPECT_LT(relative_error(doubles(result), linear_forward(LinearShape{end - begin, out, in},
                                                                 doubles(part), rounded(g, type))),
                  tolerance(type));
        linear_forward(part, weights[static_cast<std::size_t>(g)], alone->slice_rows(begin, end));
        EXPECT_TRUE(is_product_alone(result, alone->slice_rows(begin, end)));
      });
    }
}

TEST_F(GroupedLinearTest, BackwardInputIsTheProductOfEachGroup) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const Offsets& offsets : all_offsets)
      for (const Accumulate accumulate : {Accumulate::no, Accumulate::yes}) {
        const auto weights = packed(offsets, type);
        const Tensor dy = rows(type, offsets, out, "dy"), dx = rows(type, offsets, in, "before");
        const Tensor alone = rows(type, offsets, in, "before");
        const auto before = doubles(dx);
        grouped_linear_backward_input(dy, weights, on_device(offsets), dx, accumulate);
        for_each_group(offsets, [&](std::int64_t g, std::int64_t begin, std::int64_t end) {
          const TensorView part = dy->slice_rows(begin, end), result = dx->slice_rows(begin, end);
          auto expected = linear_backward_input(LinearShape{end - begin, out, in}, doubles(part),
                                                rounded(g, type));
          if (accumulate == Accumulate::yes)
            for (std::size_t i = 0; i < expected.size(); ++i)
              expected[i] += before[static_cast<std::size_t>(begin * in) + i];
          EXPECT_LT(relative_error(doubles(result), expected), tolerance(type));
          linear_backward_input(part, weights[static_cast<std::size_t>(g)],
                                alone->slice_rows(begin, end), accumulate);
          EXPECT_TRUE(is_product_alone(result, alone->slice_rows(begin, end)));
        });
      }
}

TEST_F(GroupedLinearTest, BackwardWeightAddsToEachGroup) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const Offsets& offsets : all_offsets) {
      const std::int64_t groups = std::ssize(offsets) - 1;
      const Tensor dy = rows(type, offsets, out, "dy"), x = rows(type, offsets, in, "x");
      const Tensor dw = random_tensor(*device_, DType::f32, {groups, out, in}, "before");
      const Tensor alone = random_tensor(*device_, DType::f32, {groups, out, in}, "before");
      auto expected = doubles(dw->flat().reshape({groups * out, in}));
      grouped_linear_backward_weight(dy, x, on_device(offsets), dw);
      for_each_group(offsets, [&](std::int64_t g, std::int64_t begin, std::int64_t end) {
        const TensorView dy_part = dy->slice_rows(begin, end), x_part = x->slice_rows(begin, end);
        const auto product = linear_backward_weight(LinearShape{end - begin, out, in},
                                                    doubles(dy_part), doubles(x_part));
        for (std::size_t i = 0; i < product.size(); ++i)
          expected[static_cast<std::size_t>(g * out * in) + i] += product[i];
        linear_backward_weight(dy_part, x_part, alone.view()[g]);
      });
      EXPECT_LT(relative_error(doubles(dw->flat().reshape({groups * out, in})), expected), 1e-5);
      EXPECT_TRUE(is_product_alone(dw, alone));
    }
}

// Groups around a card's tiles of 64, 128 and 256 rows and columns, operands that its matrix units
// take, and rows that are in no group, which hold what would spoil every sum.
TEST_F(GroupedLinearTest, GroupsAroundTheSizesOfTiles) {
  const Offsets offsets = {0, 0, 1, 128, 256, 385, 385, 448, 513};
  const std::int64_t groups = std::ssize(offsets) - 1, num_rows = offsets.back() + 20;
  const Tensor given = on_device(offsets);
  struct Sizes {
    std::int64_t out, in;
    DType result;
  };
  for (const Sizes s : {Sizes{64, 192, DType::bf16}, Sizes{192, 64, DType::f32},
                        Sizes{264, 136, DType::bf16}, Sizes{8, 520, DType::f32}}) {
    SCOPED_TRACE(std::to_string(s.out) + " x " + std::to_string(s.in));
    const double within = s.result == DType::f32 ? 1e-5 : bf16_rounding + 1e-5;
    const Tensor x = random_tensor(*device_, DType::bf16, {num_rows, s.in}, "x");
    const Tensor dy = random_tensor(*device_, DType::bf16, {num_rows, s.out}, "dy");
    for (const Tensor* operand : {&x, &dy})
      fill_random(operand->view().slice_rows(offsets.back(), num_rows), "none",
                  std::numeric_limits<float>::quiet_NaN());
    const Tensor y = random_tensor(*device_, s.result, {num_rows, s.out}, "garbage");
    const Tensor dx = random_tensor(*device_, s.result, {num_rows, s.in}, "before");
    const Tensor added = random_tensor(*device_, s.result, {num_rows, s.in}, "before");
    const Tensor untouched = random_tensor(*device_, s.result, {num_rows, s.in}, "before");
    const Tensor dw = random_tensor(*device_, DType::f32, {groups, s.out, s.in}, "before");
    const Tensor dw_before = random_tensor(*device_, DType::f32, {groups, s.out, s.in}, "before");
    std::vector<PackedWeight> weights;
    std::vector<std::vector<double>> values;
    for (std::int64_t g = 0; g < groups; ++g) {
      const Tensor w = random_tensor(*device_, DType::f32, {s.out, s.in}, std::to_string(g));
      weights.emplace_back(*device_, s.out, s.in, DType::bf16);
      weights.back().pack(w);
      values.push_back(doubles(w));
      for (double& value : values.back())
        value = static_cast<double>(to_float(to_bf16(static_cast<float>(value))));
    }
    grouped_linear_forward(x, weights, given, y);
    grouped_linear_backward_input(dy, weights, given, dx);
    grouped_linear_backward_input(dy, weights, given, added, Accumulate::yes);
    grouped_linear_backward_weight(dy, x, given, dw);
    for_each_group(offsets, [&](std::int64_t g, std::int64_t begin, std::int64_t end) {
      SCOPED_TRACE(g);
      const auto group = static_cast<std::size_t>(g);
      const LinearShape shape{end - begin, s.out, s.in};
      const auto of = [&](const Tensor& tensor) { return doubles(tensor->slice_rows(begin, end)); };
      const auto sum = [](std::vector<double> a, const std::vector<double>& b) {
        std::ranges::transform(a, b, a.begin(), std::plus<>());
        return a;
      };
      EXPECT_LT(relative_error(of(y), linear_forward(shape, of(x), values[group])), within);
      const auto expected = linear_backward_input(shape, of(dy), values[group]);
      EXPECT_LT(relative_error(of(dx), expected), within);
      EXPECT_LT(relative_error(of(added), sum(of(untouched), expected)), within);
      EXPECT_LT(
          relative_error(doubles(dw.view()[g]), sum(doubles(dw_before.view()[g]),
                                                    linear_backward_weight(shape, of(dy), of(x)))),
          1e-5);
    });
    EXPECT_TRUE(same_bits(dw.view()[0], dw_before.view()[0]));  // a group without rows
    const auto rest = [&](const Tensor& tensor) {
      return tensor->slice_rows(offsets.back(), num_rows);
    };
    EXPECT_TRUE(same_bits(rest(dx), rest(untouched)));
    EXPECT_TRUE(same_bits(rest(added), rest(untouched)));
  }
}

TEST_F(GroupedLinearTest, RowsDoNotDependOnTheNumberOfThreads) {
  const Offsets offsets = {0, 130, 131, 900, 1300};
  for (const DType type : {DType::f32, DType::bf16}) {
    const Tensor x = rows(type, offsets, in, "x"), dy = rows(type, offsets, out, "dy");
    std::vector<Tensor> ys;
    for (const int threads : {1, 2, 3, 7}) {
      set_num_threads(threads);
      ys.push_back(rows(type, offsets, out, "y"));
      grouped_linear_forward(x, packed(offsets, type), on_device(offsets), ys.back());
      EXPECT_TRUE(same_bits(ys.front(), ys.back()));
      // A weight's gradient: the same bits again, whoever took which piece.
      std::vector<Tensor> dws;
      for (int call = 0; call < 3; ++call) {
        dws.emplace_back(*device_, Purpose::gradient, DType::f32, Shape{4, out, in});
        grouped_linear_backward_weight(dy, x, on_device(offsets), dws.back());
        EXPECT_TRUE(same_bits(dws.front(), dws.back()));
      }
    }
  }
}

// One group needs no offsets.
TEST_F(GroupedLinearTest, AllRowsMayBelongToOneGroup) {
  const Offsets offsets = {0, 70};
  const auto weights = packed(offsets, DType::bf16);
  const Tensor x = rows(DType::bf16, offsets, in, "x"), dy = rows(DType::bf16, offsets, out, "dy");
  const Tensor given = on_device(offsets);
  std::vector<Tensor> ys, dxs, dws;
  for (const TensorView& of : {given.view(), TensorView{}}) {
    ys.push_back(rows(DType::bf16, offsets, out, "y"));
    dxs.push_back(rows(DType::bf16, offsets, in, "dx"));
    dws.emplace_back(*device_, Purpose::gradient, DType::f32, Shape{1, out, in});
    grouped_linear_forward(x, weights, of, ys.back());
    grouped_linear_backward_input(dy, weights, of, dxs.back());
    grouped_linear_backward_weight(dy, x, of, dws.back());
  }
  EXPECT_TRUE(is_product_alone(ys[0], ys[1]));
  EXPECT_TRUE(is_product_alone(dxs[0], dxs[1]));
  EXPECT_TRUE(is_product_alone(dws[0], dws[1]));
}

// Rows that are not in use are neither read into a sum nor written.
TEST_F(GroupedLinearTest, RowsAfterTheLastGroupAreLeftAlone) {
  const Offsets all = {0, 40, 100, 130}, used = {0, 40, 100};
  const auto weights = packed(used, DType::f32);
  const Tensor x = rows(DType::f32, all, in, "x"), y = rows(DType::f32, all, out, "y");
  const Tensor dx = rows(DType::f32, all, in, "dx");
  const Tensor y_before = rows(DType::f32, all, out, "y"),
               dx_before = rows(DType::f32, all, in, "dx");
  grouped_linear_forward(x, weights, on_device(used), y);
  grouped_linear_backward_input(y, weights, on_device(used), dx);
  EXPECT_TRUE(same_bits(y->slice_rows(100, 130), y_before->slice_rows(100, 130)));
  EXPECT_TRUE(same_bits(dx->slice_rows(100, 130), dx_before->slice_rows(100, 130)));
  EXPECT_FALSE(same_bits(y->slice_rows(60, 100), y_before->slice_rows(60, 100)));
  const Tensor dw(*device_, Purpose::gradient, DType::f32, {2, out, in});
  const Tensor alone(*device_, Purpose::gradient, DType::f32, {2, out, in});
  grouped_linear_backward_weight(y, x, on_device(used), dw);
  grouped_linear_backward_weight(y->slice_rows(0, 100), x->slice_rows(0, 100), on_device(used),
                                 alone);
  EXPECT_TRUE(same_bits(dw, alone));
}

// Block after block the weight gradient has the bits of the whole.
TEST_F(GroupedLinearTest, BlocksKeepTheBitsOfWeightGradients) {
  if (is_tested_on_card()) GTEST_SKIP() << "a card takes all rows at once";
  const Offsets offsets = {0, 300, 1900, 1900, 2000, 2600};
  const std::int64_t groups = std::ssize(offsets) - 1;
  const Tensor x = rows(DType::bf16, offsets, in, "x"), dy = rows(DType::bf16, offsets, out, "dy");
  const Tensor given = on_device(offsets), of_block = on_device(offsets);
  const Tensor whole(*device_, Purpose::gradient, DType::f32, {groups, out, in});
  grouped_linear_backward_weight(dy, x, given, whole);
  for (const std::int64_t most : {gradient_chunk_rows, std::int64_t{1024}, std::int64_t{1536},
                                  std::int64_t{10000}, all_rows}) {
    const Tensor dw(*device_, Purpose::gradient, DType::f32, {groups, out, in});
    for_each_row_block(
        *device_, given, x->rows(), groups, most, gradient_chunk_rows, of_block,
        [&](const RowBlock& block) {
          grouped_linear_backward_weight(
              dy->slice_rows(block.begin, block.end), x->slice_rows(block.begin, block.end),
              block.offsets,
              dw->slice_rows(block.first_group, block.first_group + block.num_groups));
        });
    EXPECT_TRUE(same_bits(whole, dw)) << most;
  }
}

TEST_F(GroupedLinearTest, RowBlocksCoverAllRowsAndCutGroupsAtSteps) {
  if (is_tested_on_card()) GTEST_SKIP() << "a card takes all rows at once";
  for (const Offsets& offsets :
       {Offsets{0, 0, 300, 300, 301, 2000, 2064, 2064}, Offsets{0, 0}, Offsets{0, 64}, Offsets{0}})
    for (const std::int64_t most : {512, 1024, 4096})
      for (const std::int64_t step : {64, 512}) {
        const Tensor given = on_device(offsets), of_block = on_device(offsets);
        std::int64_t at = 0;
        for_each_row_block(*device_, given, offsets.back() + 5, std::ssize(offsets) - 1, most, step,
                           of_block, [&](const RowBlock& block) {
                             EXPECT_EQ(block.begin, at);
                             EXPECT_LE(block.end - block.begin, most);
                             EXPECT_GT(block.end, block.begin);
                             ASSERT_EQ(block.offsets.numel(), block.num_groups + 1);
                             const std::int32_t* cuts = block.offsets.as<std::int32_t>();
                             for (std::int64_t g = 0; g < block.num_groups; ++g) {
                               const auto group = static_cast<std::size_t>(block.first_group + g);
                               const std::int64_t begin = block.begin + cuts[g];
                               EXPECT_EQ(begin,
                                         std::max<std::int64_t>(offsets[group], block.begin));
                               EXPECT_EQ(block.begin + cuts[g + 1],
                                         std::min<std::int64_t>(offsets[group + 1], block.end));
                               EXPECT_EQ((begin - offsets[group]) % step, 0);
                             }
                             at = block.end;
                           });
        EXPECT_EQ(at, offsets.back());
      }
}

// A GPU takes all rows at once, by the offsets as they are.
TEST(RowBlocks, AreOneOnAGpu) {
  const auto gpu = make_plan_device({.device = DeviceKind::cuda});
  const auto cpu = make_plan_device({.device = DeviceKind::cpu, .num_threads = 2});
  const Tensor offsets(*gpu, Purpose::workspace, DType::i32, {9});
  EXPECT_EQ(block_rows(*cpu), 512);
  ASSERT_EQ(block_rows(*gpu), all_rows);
  int num_blocks = 0;
  for_each_row_block(*gpu, offsets, 5000, 8, block_rows(*gpu), 64, {}, [&](const RowBlock& block) {
    ++num_blocks;
    EXPECT_EQ(block.begin, 0);
    EXPECT_EQ(block.end, 5000);
    EXPECT_EQ(block.first_group, 0);
    EXPECT_EQ(block.num_groups, 8);
    EXPECT_EQ(block.offsets.data, offsets->data);
  });
  EXPECT_EQ(num_blocks, 1);
}

// 2^31 rows are a handful of visits, whose rows count as often as there are such blocks.
TEST(RowBlocks, AreAlikeToAPlan) {
  const auto plan = make_plan_device({.device = DeviceKind::cpu, .num_threads = 2});
  const std::int64_t num_rows = std::int64_t{1} << 31, num_groups = 3;
  const Tensor offsets(*plan, Purpose::workspace, DType::i32, {num_groups + 1});
  const Tensor of_block(*plan, Purpose::workspace, DType::i32, {num_groups + 1});
  plan->profile().reset();
  int num_visits = 0;
  for_each_row_block(*plan, offsets, num_rows, num_groups, 1000, 64, of_block,
                     [&](const RowBlock& block) {
                       ++num_visits;
                       const auto rows = static_cast<double>(block.end - block.begin);
                       plan->profile().record({.flops = rows});
                     });
  EXPECT_LE(num_visits, 3 * num_groups);
  EXPECT_EQ(plan->profile().total_work().flops, static_cast<double>(num_rows));
}

TEST_F(GroupedLinearTest, RefusesWhatDoesNotFit) {
  const Offsets offsets = {0, 2, 5};
  const auto weights = packed(offsets, DType::f32);
  const Tensor x = rows(DType::f32, offsets, in, "x"), y = rows(DType::f32, offsets, out, "y");
  if (!is_tested_on_card()) {  // where nobody reads them on the host
    EXPECT_THROW(grouped_linear_forward(x, weights, on_device({0, 2, 6}), y), InternalError);
    EXPECT_THROW(grouped_linear_forward(x, weights, on_device({0, 3, 2}), y), InternalError);
  }
  EXPECT_THROW(grouped_linear_forward(x, {weights.data(), 1}, on_device(offsets), y),
               InternalError);
  EXPECT_THROW(grouped_linear_forward(x, weights, {}, y), InternalError);
  EXPECT_THROW(grouped_linear_forward(y, weights, on_device(offsets), x), InternalError);
}

// The plan records the work of each product and reserves the same scratch.
TEST(GroupedLinearPlan, RecordsTheWorkOfEachProduct) {
  const auto plan = make_plan_device(), cpu = make_cpu_device();
  const Offsets offsets = {0, 0, 30, 100};
  std::vector<PackedWeight> weights, on_cpu;
  for (int g = 0; g < 3; ++g) {
    weights.emplace_back(*plan, 64, 96, DType::bf16);
    on_cpu.emplace_back(*cpu, 64, 96, DType::bf16);
  }
  reserve_grouped_linear(*plan, 64, 96, DType::bf16);
  reserve_grouped_linear(*cpu, 64, 96, DType::bf16);
  EXPECT_GT(plan->memory().live(Purpose::workspace), 0);
  const std::int64_t reserved = cpu->memory().live(Purpose::workspace);
  EXPECT_EQ(plan->memory().live(Purpose::workspace), reserved);
  const auto flops_of = [&](Device& device, std::span<const PackedWeight> with) {
    const Tensor x(device, Purpose::activation, DType::bf16, {100, 96});
    const Tensor y(device, Purpose::activation, DType::bf16, {100, 64});
    const Tensor dw(device, Purpose::gradient, DType::f32, {3, 64, 96});
    const Tensor given = offsets_on(device, offsets);
    device.profile().reset();
    grouped_linear_forward(x, with, given, y);
    grouped_linear_backward_input(y, with, given, x);
    grouped_linear_backward_weight(y, x, given, dw);
    return device.profile().total_work().flops;
  };
  EXPECT_EQ(flops_of(*plan, weights), 3 * 2.0 * 100 * 64 * 96);
  flops_of(*cpu, on_cpu);
  EXPECT_EQ(cpu->memory().live(Purpose::workspace), reserved);  // the products took no more
}

}  // namespace
}  // namespace switchyard::kernels

int main(int argc, char** argv) {
  return switchyard::test::run_tests_on_isa(argc, argv);
}
