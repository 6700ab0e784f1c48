// Entropies against double, on every instruction set; counts that are marked.
#include "kernels/routing/routing_figures.hpp"

#include <cmath>
#include <limits>

#include "kernels/host_copy.hpp"
#include "kernels/kernel_test.hpp"
#include "support/on_device.hpp"

namespace switchyard::test {
namespace {

double entropy_of(const TensorView& shares) {
  std::vector<std::int64_t> sum = {5};
  const Tensor into = tensor_of(tested(), sum, {1});
  kernels::add_entropy(shares, into);
  kernels::copy_to_host<std::int64_t>(into, sum);
  return static_cast<double>(sum[0] - 5) * kernels::entropy_unit;
}

TEST(RoutingFigures, EntropyIsThatOfTheDefinition) {
  for (const std::int64_t num_experts : {1, 3, 8, 61})
    for (const std::int64_t num_tokens : {1, 7, 3000}) {
      Doubles shares;
      double expected = 0;
      for (std::int64_t t = 0; t < num_tokens; ++t) {
        Doubles row;
        double sum = 0;
        for (std::int64_t e = 0; e < num_experts; ++e) {
          row.push_back((t + e) % 5 == 4 && e > 0
                            ? 0.0
                            : 1 + std::fmod(static_cast<double>(e * 7 + t), 11.0));
          sum += row.back();
        }
        for (double& p : row) {
          p /= sum;
          if (p > 0) expected -= p * std::log(p);
        }
        shares.insert(shares.end(), row.begin(), row.end());
      }
      Operand operand(DType::f32, num_tokens, num_experts, 1, 3);
      operand.set(shares);
      EXPECT_NEAR(entropy_of(operand), expected, 2e-6 * static_cast<double>(num_tokens));
    }
}

TEST(RoutingFigures, AreTheSameForAnyThreads) {
  Operand shares(DType::f32, 5000, 16);
  shares.set(Doubles(5000 * 16, 1.0 / 16));
  expect_same_for_any_threads([&] { return std::vector<Doubles>{{entropy_of(shares)}}; });
  EXPECT_NEAR(entropy_of(shares), 5000 * std::log(16.0), 5000 * 2e-6);
}

TEST(RoutingFigures, ATokenThatIsNotFiniteCountsNothing) {
  Operand shares(DType::f32, 2, 2);
  shares.set({std::numeric_limits<double>::quiet_NaN(), 0.5, 0.5, 0.5});
  EXPECT_NEAR(entropy_of(shares), std::log(2.0), 2e-6);
}

TEST(RoutingFigures, AddWhatIsMarked) {
  std::vector<std::int64_t> sum = {100};
  const Tensor into = tensor_of(tested(), sum, {1});
  kernels::add_marked(Operand::of_ints({3, 0, 2, 7}), Operand::of_ints({1, 1, 0, 1}), into);
  kernels::copy_to_host<std::int64_t>(into, sum);
  EXPECT_EQ(sum[0], 110);
  EXPECT_THROW(kernels::add_marked(Operand::of_ints({3}), Operand::of_ints({1, 1}), into),
               InternalError);
}

}  // namespace
}  // namespace switchyard::test
