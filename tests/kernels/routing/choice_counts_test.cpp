#include "kernels/routing/choice_counts.hpp"

#include "kernels/host_copy.hpp"
#include "kernels/kernel_test.hpp"
#include "support/on_device.hpp"

namespace switchyard::test {
namespace {

using Counts = std::vector<std::int64_t>;

Counts counts_of(const TensorView& view) {
  Counts counts(static_cast<std::size_t>(view.numel()));
  kernels::copy_to_host<std::int64_t>(view, counts);
  return counts;
}

TEST(ChoiceCounts, AreSummedOverSequencesAddedAndSpread) {
  const Operand counts = Operand::of_ints({1, 2, 3, 4, 5, 6}, 3);
  Counts zeros(3);
  const Tensor totals = tensor_of(tested(), zeros, {3}), sums = tensor_of(tested(), zeros, {3});
  kernels::sum_counts(counts, totals);
  EXPECT_EQ(counts_of(totals), (Counts{5, 7, 9}));
  kernels::add_counts(totals, sums);
  kernels::add_counts(totals, sums);
  EXPECT_EQ(counts_of(sums), (Counts{10, 14, 18}));
  kernels::spread_counts(sums, counts);
  EXPECT_EQ(counts.ints(), (std::vector<std::int32_t>{10, 14, 18, 10, 14, 18}));
  kernels::sum_counts(counts.view().slice_rows(0, 0), totals);
  EXPECT_EQ(counts_of(totals), (Counts{0, 0, 0}));
}

// The mean is 4; of three experts with 10 in all it is no integer.
TEST(ChoiceCounts, MoveTheBiasByTheirSignsIfTheStepGoes) {
  const float rate = 0.25f;
  const auto moved = [&](Counts counts, float go) {
    std::vector<float> start(counts.size(), 1.0f), decision = {0.5f, go};
    const auto num_experts = std::ssize(counts);
    const Tensor bias = tensor_of(tested(), start, {num_experts});
    kernels::move_selection_bias(tensor_of(tested(), counts, {num_experts}),
                                 tensor_of(tested(), decision, {2}), rate, bias);
    kernels::copy_to_host<float>(bias, start);
    return start;
  };
  using Bias = std::vector<float>;
  EXPECT_EQ(moved({4, 0, 9, 3}, 1), (Bias{1, 1.25f, 0.75f, 1.25f}));
  EXPECT_EQ(moved({3, 3, 4}, 1), (Bias{1.25f, 1.25f, 0.75f}));
  EXPECT_EQ(moved({4, 0, 9, 3}, 0), Bias(4, 1.0f)) << "a refused step";
  EXPECT_EQ(moved({7}, 1), Bias(1, 1.0f));
  EXPECT_EQ(moved({std::int64_t{1} << 40, 0}, 1), (Bias{0.75f, 1.25f}));
}

}  // namespace
}  // namespace switchyard::test
