#include "kernels/routing/arrival.hpp"

#include <numeric>
#include <tuple>

#include "kernels/kernel_test.hpp"
#include "support/tested_device.hpp"

namespace switchyard::test {
namespace {

using Ints = std::vector<std::int32_t>;

struct Arrivals {
  Ints counts;   // [P, experts]
  Ints numbers;  // [R]
};

// Of `tokens` tokens of a source each goes to each expert with some probability; the i-th of n
// sources that share sequences has the tokens i, i + n, i + 2 n ...
Arrivals random_arrivals(std::int64_t sources, std::int64_t experts,
                         kernels::SharingSources sharing, std::int32_t tokens, unsigned seed) {
  std::mt19937 generator(seed);
  Arrivals arrivals;
  for (std::int64_t p = 0; p < sources; ++p)
    for (std::int64_t e = 0; e < experts; ++e) {
      const std::size_t before = arrivals.numbers.size();
      const unsigned odds = generator() % 4;  // 0: no row at all
      for (std::int32_t t = 0; t < tokens; ++t)
        if (generator() % 4 < odds)
          arrivals.numbers.push_back(
              static_cast<std::int32_t>(t * sharing.size + (sharing.first + p) % sharing.size));
      arrivals.counts.push_back(static_cast<std::int32_t>(arrivals.numbers.size() - before));
    }
  return arrivals;
}

// The definition: arrivals sorted by (expert, sources that share, number), or (expert, source).
Ints sorted(const Arrivals& arrivals, std::int64_t experts, kernels::SharingSources sharing) {
  std::vector<std::tuple<std::int64_t, std::int64_t, std::int32_t>> keys;
  for (std::size_t i = 0; i < arrivals.counts.size(); ++i) {
    const auto source = static_cast<std::int64_t>(i) / experts;
    for (std::int32_t row = 0; row < arrivals.counts[i]; ++row) {
      const std::int32_t number = sharing.size > 1 ? arrivals.numbers[keys.size()] : 0;
      keys.emplace_back(static_cast<std::int64_t>(i) % experts,
                        (sharing.first + source) / sharing.size, number);
    }
  }
  Ints order(keys.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return keys[static_cast<std::size_t>(a)] < keys[static_cast<std::size_t>(b)];
  });
  return order;
}

void expect_sorted(std::int64_t sources, std::int64_t experts, std::int64_t size,
                   std::int32_t tokens, unsigned seed) {
  const kernels::SharingSources sharing{.first = sources * 2, .size = size};
  SCOPED_TRACE(testing::Message() << sources << " sources, " << size << " share, " << experts
                                  << " experts, " << tokens << " tokens");
  const Arrivals arrivals = random_arrivals(sources, experts, sharing, tokens, seed);
  const Operand order = Operand::of_ints(Ints(arrivals.numbers.size(), -7));
  kernels::arrival_order(Operand::of_ints(arrivals.counts, experts),
                         size > 1 ? Operand::of_ints(arrivals.numbers).view() : TensorView{},
                         sharing, order);
  EXPECT_EQ(order.ints(), sorted(arrivals, experts, sharing));
}

TEST(ArrivalOrder, SortsByExpertThenByTheIdentityOfTheToken) {
  unsigned seed = 0;
  for (std::int64_t sources : {1, 2, 3, 6})
    for (std::int64_t experts : {1, 2, 5})
      for (std::int64_t size : {1, 2, 3})
        for (std::int32_t tokens : {0, 1, 30})
          expect_sorted(sources, experts, size, tokens, ++seed);
}

TEST(ArrivalOrder, ManyRowsSourcesAndExperts) {
  expect_sorted(4, 3, 4, 4000, 1);
  expect_sorted(3, 1, 1, 9000, 2);
  expect_sorted(40, 17, 8, 60, 3);
}

// Two sources and two experts with room for three rows each: what is there comes first.
TEST(ArrivalOrder, RowsComeBeforeTheirPadding) {
  if (is_tested_on_card()) GTEST_SKIP() << "not on a card";
  const Operand order = Operand::of_ints(Ints(12, -7));
  kernels::arrival_order(Operand::of_ints({2, 0, 1, 3}, 2), {}, {}, order, 3);
  EXPECT_EQ(order.ints(), Ints({0, 1, 6, 9, 10, 11, -1, -1, -1, -1, -1, -1}));
  expect_refused([&] {
    kernels::arrival_order(Operand::of_ints({4, 0, 1, 3}, 2), {}, {}, order, 3);
  });
}

TEST(ArrivalOrder, CountsThatAreNotTheRowsAreRefused) {
  const Operand order = Operand::of_ints({-7, -7, -7});
  expect_refused([&] { kernels::arrival_order(Operand::of_ints({1, 1}, 2), {}, {}, order); });
  expect_refused([&] { kernels::arrival_order(Operand::of_ints({4, -1}, 2), {}, {}, order); });
  expect_refused([&] {
    kernels::arrival_order(Operand::of_ints({2, 1}, 2), Operand::of_ints({1}),
                           {.first = 0, .size = 2}, order);
  });
}

}  // namespace
}  // namespace switchyard::test
