// The chunked recurrence knows nothing of later tokens, and threads change nothing.
#include <cmath>

#include "kernels/recurrence/recurrence_problem.hpp"

namespace switchyard::test {
namespace {

class RecurrenceBitsTest : public ::testing::TestWithParam<Form> {};

// Tokens from c on are changed: what comes out before has the same bits.
TEST_P(RecurrenceBitsTest, NothingLeaksFromTheFuture) {
  const std::int64_t length = 37;
  const Problem before(GetParam(), length);
  const std::vector<std::int64_t> borders = {16};
  for (const std::vector<std::int64_t>& cut : {std::vector<std::int64_t>{}, borders}) {
    const Doubles expected = actual_of(before, cut).at("out");
    for (const std::int64_t c : {7, 8, 9, 15, 16, 17, 36}) {
      const Problem after(GetParam(), length);
      for (const Operand* each : {&after.q, &after.k, &after.v, &after.betas}) {
        Doubles values = each->values();
        const std::size_t cols = values.size() / static_cast<std::size_t>(num_sequences * length);
        for (std::size_t i = static_cast<std::size_t>(c) * cols;
             i < static_cast<std::size_t>(length) * cols; ++i)
          values[i] = std::abs(0.9 * values[i]);
        each->set(values);
      }
      const Doubles actual = actual_of(after, cut).at("out");
      const std::size_t cols = static_cast<std::size_t>(num_heads * GetParam().value_width);
      for (std::size_t i = 0; i < static_cast<std::size_t>(c) * cols; ++i)
        ASSERT_EQ(actual[i], expected[i]) << "position " << i / cols << ", changed from " << c;
      // Nothing changes where the memory is empty, nor by a query's length in a mean.
      if (GetParam().exclusive && (GetParam().normalized || c < GetParam().chunk)) continue;
      EXPECT_NE(actual[static_cast<std::size_t>(c) * cols],
                expected[static_cast<std::size_t>(c) * cols]);
    }
  }
}

TEST_P(RecurrenceBitsTest, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const Problem p(GetParam(), 37);
    std::vector<Doubles> all;
    for (const auto& [name, values] : actual_of(p)) all.push_back(values);
    return all;
  });
}

INSTANTIATE_TEST_SUITE_P(Forms, RecurrenceBitsTest, ::testing::ValuesIn(recurrent_forms()),
                         [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace switchyard::test
