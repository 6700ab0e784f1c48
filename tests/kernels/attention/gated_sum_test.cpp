// The gated sum of branches, element by element.
#include "kernels/attention/gated_sum.hpp"

#include <cmath>

#include "kernels/kernel_test.hpp"
#include "support/tested_device.hpp"

namespace switchyard::kernels {
namespace {

// One branch, whose gates are columns of more, and several; heads that no vector divides.
TEST(GatedSum, EveryHeadOfEveryBranchHasItsGate) {
  if (test::is_tested_on_card()) GTEST_SKIP() << "branches are gated on the CPU";
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const std::int64_t branches : {1, 3}) {
      constexpr std::int64_t tokens = 37, heads = 3, dim = 21, cols = heads * dim;
      const Tensor x(test::tested(), Purpose::workspace, dtype, {branches * tokens, cols});
      const Tensor out(test::tested(), Purpose::workspace, dtype, {tokens, cols});
      const Tensor wide(test::tested(), Purpose::workspace, DType::f32,
                        {tokens, branches * heads + 5});
      const auto value = [&](const Tensor& of, std::int64_t row, std::int64_t col) {
        return dtype == DType::f32 ? of->row<float>(row)[col]
                                   : to_float(of->row<BFloat16>(row)[col]);
      };
      for (std::int64_t i = 0; i < x->numel(); ++i) {
        const auto made = static_cast<float>(std::sin(0.7 * static_cast<double>(i * i % 1009)));
        if (dtype == DType::f32)
          x->as<float>()[i] = made;
        else
          x->as<BFloat16>()[i] = to_bf16(made);
      }
      for (std::int64_t i = 0; i < wide->numel(); ++i)
        wide->as<float>()[i] = static_cast<float>(std::cos(0.3 * static_cast<double>(i)));
      const TensorView gates = wide->slice_cols(5, wide->cols());
      gated_sum(x, gates, heads, out);
      for (std::int64_t t = 0; t < tokens; ++t)
        for (std::int64_t col = 0; col < cols; ++col) {
          double sum = 0;
          for (std::int64_t c = 0; c < branches; ++c)
            sum += static_cast<double>(gates.row<float>(t)[c * heads + col / dim]) *
                   static_cast<double>(value(x, c * tokens + t, col));
          EXPECT_NEAR(value(out, t, col), sum, dtype == DType::f32 ? 1e-6 : 0x1p-7);
        }
    }
}

}  // namespace
}  // namespace switchyard::kernels
