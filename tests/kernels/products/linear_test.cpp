#include "kernels/products/linear.hpp"

#include "kernels/rows/elementwise.hpp"
#include "kernels/threads.hpp"
#include "tensor/error.hpp"
#include "tests/kernels/products/products_support.hpp"
#include "tests/support/reference_linear.hpp"

namespace switchyard::kernels {
namespace {

using namespace switchyard::test;
using reference::LinearShape;

// Sums of up to a few thousand products in fp32, blocked, and operands that are exact on both
// sides.
constexpr double f32_tolerance = 1e-5;

struct Types {
  DType compute;
  DType result;
};
constexpr Types all_types[] = {
    {DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::bf16, DType::f32}};

double tolerance(const Types& types) {
  return types.result == DType::f32 ? f32_tolerance : bf16_rounding + f32_tolerance;
}

const LinearShape shapes[] = {{1, 16, 8},    {7, 33, 65}, {17, 64, 48},
                              {300, 96, 40}, {65, 1, 5},  {530, 48, 130}};

class LinearTest : public ::testing::Test {
 protected:
  std::unique_ptr<Device> device_ = make_tested_device();

  // The weight as the products see it.
  std::vector<double> rounded(const TensorView& weight, DType compute) {
    std::vector<double> values = doubles(weight);
    if (compute == DType::bf16)
      for (double& v : values) v = static_cast<double>(to_float(to_bf16(static_cast<float>(v))));
    return values;
  }
  PackedWeight packed(const TensorView& weight, DType compute) {
    PackedWeight result(*device_, weight.rows(), weight.cols(), compute);
    result.pack(weight);
    return result;
  }
};

TEST_F(LinearTest, ForwardIsTheProductWithTheTransposedWeight) {
  for (const Types types : all_types)
    for (const LinearShape& s : shapes) {
      const Tensor x = random_tensor(*device_, types.compute, {s.rows, s.in}, "x");
      const Tensor w = random_tensor(*device_, DType::f32, {s.out, s.in}, "w");
      const Tensor y = random_tensor(*device_, types.result, {s.rows, s.out}, "garbage");
      linear_forward(x, packed(w, types.compute), y);
      const auto expected = linear_forward(s, doubles(x), rounded(w, types.compute));
      EXPECT_LT(relative_error(doubles(y), expected), tolerance(types))
          << s.rows << " " << s.out << " " << s.in << " " << name_of(types.compute);
    }
}

TEST_F(LinearTest, BackwardInputIsTheProductWithTheWeight) {
  for (const Types types : all_types)
    for (const LinearShape& s : shapes)
      for (const Accumulate accumulate : {Accumulate::no, Accumulate::yes}) {
        const Tensor dy = random_tensor(*device_, types.compute, {s.rows, s.out}, "dy");
        const Tensor w = random_tensor(*device_, DType::f32, {s.out, s.in}, "w");
        const Tensor dx = random_tensor(*device_, types.result, {s.rows, s.in}, "before");
        const auto before = doubles(dx);
        linear_backward_input(dy, packed(w, types.compute), dx, accumulate);
        auto expected = linear_backward_input(s, doubles(dy), rounded(w, types.compute));
        if (accumulate == Accumulate::yes)
          for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += before[i];
        EXPECT_LT(relative_error(doubles(dx), expected), tolerance(types))
            << s.rows << " " << s.out << " " << s.in << " " << name_of(types.compute);
      }
}

TEST_F(LinearTest, BackwardWeightAddsToTheGradient) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const std::int64_t rows : {1, 63, 64, 65, 513, 1100}) {
      const LinearShape s{rows, 33, 40};
      const Tensor dy = random_tensor(*device_, type, {s.rows, s.out}, "dy");
      const Tensor x = random_tensor(*device_, type, {s.rows, s.in}, "x");
      const Tensor dw = random_tensor(*device_, DType::f32, {s.out, s.in}, "before");
      auto expected = doubles(dw);
      linear_backward_weight(dy, x, dw);
      const auto product = linear_backward_weight(s, doubles(dy), doubles(x));
      for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += product[i];
      EXPECT_LT(relative_error(doubles(dw), expected), f32_tolerance) << rows;
    }
}

// The loss sum(dy * y) by central differences of the double reference.
TEST_F(LinearTest, GradientsAgreeWithFiniteDifferences) {
  const LinearShape s{5, 6, 7};
  const Tensor dy = random_tensor(*device_, DType::f32, {s.rows, s.out}, "dy");
  const Tensor x = random_tensor(*device_, DType::f32, {s.rows, s.in}, "x");
  const Tensor w = random_tensor(*device_, DType::f32, {s.out, s.in}, "w");
  const Tensor dx = random_tensor(*device_, DType::f32, {s.rows, s.in}, "garbage");
  const Tensor dw(*device_, Purpose::gradient, DType::f32, {s.out, s.in});
  linear_backward_input(dy, packed(w, DType::f32), dx);
  linear_backward_weight(dy, x, dw);
  auto xs = doubles(x);
  auto ws = doubles(w);
  const auto slopes = [&](std::vector<double>& at) {
    const auto loss = [&] {
      const auto y = linear_forward(s, xs, ws);
      double sum = 0;
      for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * doubles(dy)[i];
      return sum;
    };
    std::vector<double> result;
    for (double& value : at) {
      const double centre = value;
      value = centre + 1e-3;
      const double above = loss();
      value = centre - 1e-3;
      result.push_back((above - loss()) / 2e-3);
      value = centre;
    }
    return result;
  };
  EXPECT_LT(relative_error(doubles(dx), slopes(xs)), f32_tolerance);
  EXPECT_LT(relative_error(doubles(dw), slopes(ws)), f32_tolerance);
}

TEST_F(LinearTest, BitsOfARowDoNotDependOnTheNumberOfRows) {
  if (is_tested_on_card()) GTEST_SKIP() << "cuBLASLt does not promise it";
  constexpr std::int64_t most = 1000;
  for (const Types types : all_types)
    for (const auto& [out, in] :
         {std::pair<std::int64_t, std::int64_t>{64, 2048}, {72, 1024}, {128, 512}, {33, 65}}) {
      const Tensor x = random_tensor(*device_, types.compute, {most, in}, "x");
      const Tensor w = random_tensor(*device_, DType::f32, {out, in}, "w");
      const PackedWeight weight = packed(w, types.compute);
      const Tensor all(*device_, Purpose::activation, types.result, {most, out});
      linear_forward(x, weight, all);
      for (const std::int64_t rows : {1, 17, 256, 300, 640}) {
        // The last rows of all: another place in their block as well.
        const TensorView end = x->slice_rows(most - rows, most);
        const Tensor few(*device_, Purpose::activation, types.result, {rows, out});
        linear_forward(end, weight, few);
        EXPECT_TRUE(same_bits(few, all->slice_rows(most - rows, most)))
            << rows << " rows, " << out << "x" << in << " " << name_of(types.result);
      }
    }
}

// Of rows that are columns of wider rows, as heads in a joint projection are.
TEST_F(LinearTest, BitsOfAStridedRowDoNotDependOnTheNumberOfRows) {
  if (is_tested_on_card()) GTEST_SKIP() << "cuBLASLt does not promise it";
  constexpr std::int64_t most = 400;
  for (const Types types : all_types)
    for (const auto& [out, in] :
         {std::pair<std::int64_t, std::int64_t>{8, 8}, {12, 24}, {72, 1024}, {33, 65}}) {
      const Tensor wide_x = random_tensor(*device_, types.compute, {most, in + 8}, "x");
      const TensorView x = wide_x->slice_cols(8, in + 8);
      const Tensor w = random_tensor(*device_, DType::f32, {out, in}, "w");
      const PackedWeight weight = packed(w, types.compute);
      const Tensor wide(*device_, Purpose::activation, types.result, {most, out + 24});
      const TensorView all = wide->slice_cols(16, out + 16);
      linear_forward(x, weight, all);
      const Tensor dense(*device_, Purpose::activation, types.result, {most, out});
      linear_forward(x, weight, dense);
      EXPECT_TRUE(same_bits(dense, all)) << out << "x" << in << " " << name_of(types.result);
      for (std::int64_t rows : {1, 7, 48, 300}) {
        const Tensor wide_few(*device_, Purpose::activation, types.result, {rows, out + 24});
        const TensorView few = wide_few->slice_cols(16, out + 16);
        linear_forward(x.slice_rows(most - rows, most), weight, few);
        EXPECT_TRUE(same_bits(few, all.slice_rows(most - rows, most)))
            << rows << " rows, " << out << "x" << in << " " << name_of(types.result);
      }
    }
}

// Gradients that are added to what is there, as a router's.
TEST_F(LinearTest, BitsOfAnAddedRowDoNotDependOnTheNumberOfRows) {
  if (is_tested_on_card()) GTEST_SKIP() << "cuBLASLt does not promise it";
  constexpr std::int64_t most = 700;
  for (const DType type : {DType::f32, DType::bf16})
    for (const auto& [out, in] :
         {std::pair<std::int64_t, std::int64_t>{6, 32}, {64, 768}, {520, 72}, {2048, 64}}) {
      const Tensor dy = random_tensor(*device_, type, {most, out}, "dy");
      const Tensor w = random_tensor(*device_, DType::f32, {out, in}, "w");
      const PackedWeight weight = packed(w, type);
      const Tensor all = random_tensor(*device_, DType::f32, {most, in}, "dx");
      const Tensor before = random_tensor(*device_, DType::f32, {most, in}, "dx");
      linear_backward_input(dy, weight, all, Accumulate::yes);
      for (const std::int64_t rows : {1, 17, 48, 300}) {
        const Tensor few(*device_, Purpose::activation, DType::f32, {rows, in});
        kernels::copy(before->slice_rows(most - rows, most), few);
        linear_backward_input(dy->slice_rows(most - rows, most), weight, few, Accumulate::yes);
        EXPECT_TRUE(same_bits(few, all->slice_rows(most - rows, most)))
            << rows << " rows, " << out << "x" << in << " " << name_of(type);
      }
    }
}

TEST_F(LinearTest, BitsDoNotDependOnTheNumberOfThreads) {
  const LinearShape s{700, 80, 192};
  for (const Types types : all_types) {
    const Tensor x = random_tensor(*device_, types.compute, {s.rows, s.in}, "x");
    const Tensor dy = random_tensor(*device_, types.compute, {s.rows, s.out}, "dy");
    const Tensor w = random_tensor(*device_, DType::f32, {s.out, s.in}, "w");
    std::vector<Tensor> ys;
    std::vector<Tensor> dxs;
    for (const int threads : {1, 2, 3}) {
      kernels::set_num_threads(threads);
      const PackedWeight weight = packed(w, types.compute);
      ys.emplace_back(*device_, Purpose::activation, types.result, Shape{s.rows, s.out});
      dxs.emplace_back(*device_, Purpose::activation, types.result, Shape{s.rows, s.in});
      linear_forward(x, weight, ys.back());
      linear_backward_input(dy, weight, dxs.back());
      EXPECT_TRUE(same_bits(ys.front(), ys.back()));
      EXPECT_TRUE(same_bits(dxs.front(), dxs.back()));
    }
    kernels::set_num_threads(2);
  }
}

TEST_F(LinearTest, WeightGradientIsDeterministic) {
  const Tensor x = random_tensor(*device_, DType::bf16, {700, 96}, "x");
  const Tensor dy = random_tensor(*device_, DType::bf16, {700, 300}, "dy");
  const Tensor first(*device_, Purpose::gradient, DType::f32, {300, 96});
  const Tensor second(*device_, Purpose::gradient, DType::f32, {300, 96});
  linear_backward_weight(dy, x, first);
  linear_backward_weight(dy, x, second);
  EXPECT_TRUE(same_bits(first, second));
}

TEST_F(LinearTest, RowsMayBeStrided) {
  const LinearShape s{53, 24, 40};
  for (const Types types : all_types) {
    const Tensor wide_x = random_tensor(*device_, types.compute, {s.rows, s.in + 16}, "x");
    const Tensor wide_y(*device_, Purpose::activation, types.result, {s.rows, s.out + 8});
    const Tensor w = random_tensor(*device_, DType::f32, {s.out, s.in}, "w");
    const PackedWeight weight = packed(w, types.compute);
    const TensorView x = wide_x->slice_cols(16, s.in + 16);
    const TensorView y = wide_y->slice_cols(4, s.out + 4);
    linear_forward(x, weight, y);
    const auto expected = linear_forward(s, doubles(x), rounded(w, types.compute));
    EXPECT_LT(relative_error(doubles(y), expected), tolerance(types));
    for (std::int64_t r = 0; r < s.rows; ++r)  // nothing beside the columns was written
      for (const std::int64_t c : {0, 3, 28, 31}) EXPECT_EQ(get(wide_y, r, c), 0.0);

    const Tensor wide_dy = random_tensor(*device_, types.compute, {s.rows, s.out + 8}, "dy");
    const TensorView dy = wide_dy->slice_cols(4, s.out + 4);
    const Tensor dw(*device_, Purpose::gradient, DType::f32, {s.out, s.in});
    linear_backward_weight(dy, x, dw);
    EXPECT_LT(relative_error(doubles(dw), linear_backward_weight(s, doubles(dy), doubles(x))),
              f32_tolerance);
  }
}

TEST_F(LinearTest, PackingAgainReplacesTheWeight) {
  const LinearShape s{20, 24, 40};
  const Tensor x = random_tensor(*device_, DType::bf16, {s.rows, s.in}, "x");
  const Tensor y(*device_, Purpose::activation, DType::f32, {s.rows, s.out});
  PackedWeight weight =
      packed(random_tensor(*device_, DType::f32, {s.out, s.in}, "old"), DType::bf16);
  const Tensor w = random_tensor(*device_, DType::f32, {s.out, s.in}, "new");
  weight.pack(w);
  linear_forward(x, weight, y);
  EXPECT_LT(relative_error(doubles(y), linear_forward(s, doubles(x), rounded(w, DType::bf16))),
            f32_tolerance);
}

TEST_F(LinearTest, EmptyAndWrongShapes) {
  const Tensor w = random_tensor(*device_, DType::f32, {8, 4}, "w");
  const PackedWeight weight = packed(w, DType::f32);
  const Tensor none(*device_, Purpose::activation, DType::f32, {0, 4});
  const Tensor none_out(*device_, Purpose::activation, DType::f32, {0, 8});
  EXPECT_NO_THROW(linear_forward(none, weight, none_out));
  const Tensor x(*device_, Purpose::activation, DType::f32, {3, 5});
  const Tensor y(*device_, Purpose::activation, DType::f32, {3, 8});
  EXPECT_THROW(linear_forward(x, weight, y), InternalError);
  PackedWeight forward_only(*device_, 8, 4, DType::f32, false);
  forward_only.pack(w);
  EXPECT_TRUE(forward_only.backward_layout().empty());
  EXPECT_THROW(linear_backward_input(y, forward_only, x->slice_cols(0, 4)), InternalError);
}

TEST(LinearPlan, RecordsWorkAndTheMemoryOfTheCpu) {
  const auto plan = make_plan_device();
  const auto cpu = make_cpu_device();
  PackedWeight weight(*plan, 64, 96, DType::bf16);
  const PackedWeight on_cpu(*cpu, 64, 96, DType::bf16);
  EXPECT_EQ(plan->memory().live(Purpose::parameter), cpu->memory().live(Purpose::parameter));
  EXPECT_GT(cpu->memory().live(Purpose::parameter), 0);
  const Tensor x(*plan, Purpose::activation, DType::bf16, {100, 96});
  const Tensor y(*plan, Purpose::activation, DType::bf16, {100, 64});
  const Tensor dw(*plan, Purpose::gradient, DType::f32, {64, 96});
  const auto flops_of = [&](auto&& call) {
    plan->profile().reset();
    call();
    return plan->profile().total_work().flops;
  };
  EXPECT_EQ(flops_of([&] { linear_forward(x, weight, y); }), 2.0 * 100 * 64 * 96);
  EXPECT_EQ(flops_of([&] { linear_backward_input(y, weight, x); }), 2.0 * 100 * 64 * 96);
  EXPECT_EQ(flops_of([&] { linear_backward_weight(y, x, dw); }), 2.0 * 100 * 64 * 96);
  EXPECT_EQ(plan->profile().total_work().bytes, 100 * 96 * 2 + 100 * 64 * 2 + 2 * 64 * 96 * 4);
  EXPECT_EQ(flops_of([&] { weight.pack(dw); }), 0.0);
}

// On whatever processor this runs: a plan made on one holds on another.
TEST(LinearPlan, SizesFollowFromTheShapeAlone) {
  const auto device = make_cpu_device();
  const PackedWeight f32(*device, 70, 33, DType::f32), bf16(*device, 70, 33, DType::bf16);
  EXPECT_EQ(f32.forward_layout().numel(), 192 * 128);   // 33 * 4 bytes of each of 70 columns
  EXPECT_EQ(f32.backward_layout().numel(), 320 * 64);   // 70 * 4 bytes of each of 33 columns
  EXPECT_EQ(bf16.forward_layout().numel(), 128 * 128);  // the same in 2 bytes
  EXPECT_EQ(bf16.backward_layout().numel(), 192 * 64);
}

// The products take no more scratch than a weight has reserved, whatever the rows and the
// processor.
TEST(LinearPlan, ProductsTakeTheScratchThatWasReserved) {
  const auto device = make_cpu_device(), plan = make_plan_device();
  for (const DType type : {DType::f32, DType::bf16}) {
    const Tensor values = random_tensor(*device, DType::f32, {200, 700}, "w");
    PackedWeight weight(*device, 200, 700, type);
    weight.pack(values);
    const PackedWeight planned(*plan, 200, 700, type);
    const std::int64_t reserved = device->memory().live(Purpose::workspace);
    EXPECT_EQ(plan->memory().live(Purpose::workspace), reserved);
    for (const std::int64_t rows : {1, 130, 1000}) {
      const Tensor x = random_tensor(*device, type, {rows, 700}, "x");
      const Tensor y = random_tensor(*device, type, {rows, 200}, "y");
      linear_forward(x, weight, y);
      linear_backward_input(y, weight, x, Accumulate::yes);
      linear_backward_weight(y, x, values);
      EXPECT_EQ(device->memory().live(Purpose::workspace), reserved);
    }
  }
}

// A card has one layout of a weight and a fixed workspace for all products, whatever the host's
// processor.
TEST(LinearPlan, KnowsTheMemoryOfACard) {
  const auto plan = make_plan_device({.device = DeviceKind::cuda});
  const PackedWeight weight(*plan, 64, 96, DType::bf16);
  EXPECT_EQ(plan->memory().live(Purpose::parameter), MemoryLedger::rounded(64 * 96 * 2));
  EXPECT_FALSE(weight.backward_layout().empty());
  EXPECT_EQ(plan->memory().live(Purpose::workspace), 32 << 20);
  const PackedWeight forward_only(*plan, 640, 96, DType::f32, false);
  EXPECT_TRUE(forward_only.backward_layout().empty());
  EXPECT_EQ(plan->memory().live(Purpose::parameter),
            MemoryLedger::rounded(64 * 96 * 2) + 640 * 96 * 4);
  EXPECT_EQ(plan->memory().live(Purpose::workspace), 32 << 20);
}

}  // namespace
}  // namespace switchyard::kernels

int main(int argc, char** argv) {
  return switchyard::test::run_tests_on_isa(argc, argv);
}
