#include "kernels/routing/place_choices.hpp"

#include "kernels/kernel_test.hpp"
#include "support/tested_device.hpp"

namespace switchyard::test {
namespace {

using Ints = std::vector<std::int32_t>;

// Expert 0 has the places 0, 3 and 5, the others one each.
TEST(PlaceChoices, GoByTheTokensSequence) {
  if (is_tested_on_card()) GTEST_SKIP() << "not on a card";
  const Ints first = {0, 3, 4, 5}, of_experts = {0, 3, 5, 1, 2};
  const Operand indices = Operand::of_ints({0, 1, 2, -1, -1, 0, 0, 2}, 2);
  const Tensor ids(tested(), Purpose::workspace, DType::i64, {2});
  const auto placed = [&](std::int64_t a, std::int64_t b, std::int64_t sequences_of_share) {
    ids->span<std::int64_t>()[0] = a;
    ids->span<std::int64_t>()[1] = b;
    const Operand places = Operand::of_ints(Ints(8, -7), 2);
    kernels::place_choices(indices, {first, of_experts}, ids, sequences_of_share, places);
    return places.ints();
  };
  EXPECT_EQ(placed(3, 4, 1), Ints({0, 1, 2, -1, -1, 3, 3, 2}));
  EXPECT_EQ(placed(5, 7, 1), Ints({5, 1, 2, -1, -1, 3, 3, 2}));
  EXPECT_EQ(placed(2, 3, 2), Ints({3, 1, 2, -1, -1, 3, 3, 2}));
  EXPECT_EQ(placed(3, 4, 2), Ints({3, 1, 2, -1, -1, 5, 5, 2}));
  const Operand beyond = Operand::of_ints({3, 0}, 2), two = Operand::of_ints({-7, -7}, 2);
  expect_refused([&] {
    kernels::place_choices(beyond, {first, of_experts}, ids->slice_rows(0, 1), 1, two);
  });
}

}  // namespace
}  // namespace switchyard::test
