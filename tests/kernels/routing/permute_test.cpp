#include "kernels/routing/permute.hpp"

#include <limits>
#include <numeric>

#include "kernels/kernel_test.hpp"
#include "support/tested_device.hpp"

namespace switchyard::test {
namespace {

using Ints = std::vector<std::int32_t>;
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// A random routing: choices of a token differ, some experts may stay empty, about a third of the
// slots may be dropped.
struct Routing {
  Routing(std::int64_t num_tokens, int num_experts, int top_k, unsigned seed, bool drops)
      : tokens(num_tokens),
        k(top_k),
        counts(tested(), Purpose::workspace, DType::i32, {num_experts}) {
    std::mt19937 generator(seed);
    std::vector<std::int32_t> order(static_cast<std::size_t>(num_experts)), chosen;
    std::iota(order.begin(), order.end(), 0);
    for (std::int64_t t = 0; t < tokens; ++t) {
      std::shuffle(order.begin(), order.end(), generator);
      chosen.insert(chosen.end(), order.begin(), order.begin() + k);
    }
    if (drops)
      for (std::int32_t& expert : chosen)
        if (generator() % 3 == 0) expert = -1;
    const std::vector<std::int32_t> unset(chosen.size(), -7);
    indices = Operand::of_ints(chosen, k);
    row_of_slot = Operand::of_ints(unset, k);
    token_of_row = Operand::of_ints(unset);
    std::ranges::fill(counts->span<std::int32_t>(), -7);
    kernels::sort_by_expert(indices, {}, counts, row_of_slot, token_of_row);
  }
  std::int64_t num_rows() const {
    const auto span = counts->span<std::int32_t>();
    return std::accumulate(span.begin(), span.end(), std::int64_t{0});
  }
  // `operand` [T k, H] with NaN in the rows that no slot has: nobody may read them.
  void poison(const Operand& operand) const {
    Doubles values = operand.values();
    std::fill(values.begin() + num_rows() * operand.view().cols(), values.end(), nan);
    operand.set(values);
  }
  std::int64_t tokens, k;
  Tensor counts;
  Operand indices = Operand::of_ints({}), row_of_slot = Operand::of_ints({}),
          token_of_row = Operand::of_ints({});
};

void fill_with_nan(const Operand& operand) {
  operand.set(Doubles(static_cast<std::size_t>(operand.view().numel()), nan));
}

void for_each_routing(const std::function<void(const Routing&)>& body) {
  unsigned seed = 1;
  for (bool drops : {false, true})
    for (int k : {1, 2, 5})
      for (int experts : {5, 16, 65})
        for (std::int64_t tokens : {0, 1, 3, 50}) {
          SCOPED_TRACE(testing::Message() << tokens << " tokens, " << experts << " experts, " << k
                                          << (drops ? ", slots dropped" : ""));
          body(Routing(tokens, experts, k, ++seed, drops));
        }
}

TEST(SortByExpert, IsAStablePermutationOfTheSlotsThatAreKept) {
  for_each_routing([](const Routing& r) {
    const std::vector<std::int32_t> experts = r.indices.ints(), rows = r.row_of_slot.ints();
    // The definition: slots ordered by (expert, slot).
    std::vector<std::int32_t> slots;
    for (std::size_t slot = 0; slot < experts.size(); ++slot)
      if (experts[slot] >= 0)
        slots.push_back(static_cast<std::int32_t>(slot));
      else
        EXPECT_EQ(rows[slot], -1);
    std::stable_sort(slots.begin(), slots.end(), [&](std::int32_t a, std::int32_t b) {
      return experts[static_cast<std::size_t>(a)] < experts[static_cast<std::size_t>(b)];
    });
    for (std::size_t row = 0; row < slots.size(); ++row) {
      EXPECT_EQ(rows[static_cast<std::size_t>(slots[row])], static_cast<std::int32_t>(row));
      EXPECT_EQ(r.token_of_row.ints()[row], slots[row] / r.k);
    }
    for (std::size_t row = slots.size(); row < experts.size(); ++row)
      EXPECT_EQ(r.token_of_row.ints()[row], -1);
    std::vector<std::int32_t> wanted(static_cast<std::size_t>(r.counts->rows()));
    for (std::int32_t e : experts)
      if (e >= 0) ++wanted[static_cast<std::size_t>(e)];
    const auto counts = r.counts->span<std::int32_t>();
    EXPECT_EQ(std::vector<std::int32_t>(counts.begin(), counts.end()), wanted);
  });
}

// As if the choices had been the places.
TEST(SortByExpert, SortsByPlace) {
  const Ints places = {3, 0, 4, 1};  // place 2 is nobody's
  const Operand experts = Operand::of_ints({2, 0, 3, -1, 1, 2}, 2),
                placed = Operand::of_ints({4, 3, 1, -1, 0, 4}, 2);
  const auto sorted = [](const Operand& indices, const Ints& place_of_expert) {
    const Tensor counts(tested(), Purpose::workspace, DType::i32, {5});
    const Operand rows = Operand::of_ints(Ints(6, -7), 2), tokens = Operand::of_ints(Ints(6, -7));
    kernels::sort_by_expert(indices, place_of_expert, counts, rows, tokens);
    const auto span = counts->span<std::int32_t>();
    return std::vector<Ints>{rows.ints(), tokens.ints(), Ints(span.begin(), span.end())};
  };
  EXPECT_EQ(sorted(experts, places), sorted(placed, {}));
}

// Every place's rows begin at its room, and are otherwise sorted as ever.
TEST(SortByExpert, LeavesRoomForTheRowsOfAPlace) {
  if (is_tested_on_card()) GTEST_SKIP() << "not on a card";
  constexpr std::int64_t room = 3;
  const Ints places = {3, 0, 4, 1};  // place 2 is nobody's
  const Operand experts = Operand::of_ints({2, 0, 3, -1, 1, 2}, 2);
  const Tensor counts(tested(), Purpose::workspace, DType::i32, {5});
  const Operand rows = Operand::of_ints(Ints(6, -7), 2), tokens = Operand::of_ints(Ints(15, -7));
  kernels::sort_by_expert(experts, places, counts, rows, tokens, room);
  EXPECT_EQ(rows.ints(), Ints({12, 9, 3, -1, 0, 13}));
  EXPECT_EQ(tokens.ints(), Ints({2, -1, -1, 1, -1, -1, -1, -1, -1, 0, -1, -1, 0, 2, -1}));
  const auto span = counts->span<std::int32_t>();
  EXPECT_EQ(Ints(span.begin(), span.end()), Ints({1, 1, 0, 1, 2}));
  const Operand few = Operand::of_ints(Ints(5, -7));
  expect_refused([&] { kernels::sort_by_expert(experts, places, counts, rows, few, 1); });
}

TEST(SortByExpert, RefusesExpertsThatDoNotExist) {
  const Tensor counts(tested(), Purpose::workspace, DType::i32, {2});
  const Operand one = Operand::of_ints({0}), two = Operand::of_ints({2});
  expect_refused([&] { kernels::sort_by_expert(two, {}, counts, one, one); });
  expect_refused([&] { kernels::sort_by_expert(Operand::of_ints({-2}), {}, counts, one, one); });
  const Ints beyond = {0, 2};
  expect_refused([&] { kernels::sort_by_expert(one, beyond, counts, one, one); });
}

TEST(Permute, ScatterUndoesGatherOfAPermutation) {
  for_each_routing([](const Routing& r) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      const std::int64_t n = r.tokens * r.k;
      const Operand src(dtype, n, 33, 1, 2), moved(dtype, n, 33, 2, 1), back(dtype, n, 33, 3, 3);
      const Operand order = Operand::of_ints(r.row_of_slot.ints());
      fill_with_nan(moved);
      kernels::gather_rows(src, order, moved);
      const Doubles from = src.values(), to = moved.values();
      Doubles wanted = back.values();  // rows that no index names stay as they are
      const std::vector<std::int32_t> rows = order.ints();
      for (std::size_t i = 0; i < to.size(); ++i) {
        if (rows[i / 33] < 0) {
          ASSERT_EQ(to[i], 0);
          continue;
        }
        const std::size_t source = static_cast<std::size_t>(rows[i / 33]) * 33 + i % 33;
        ASSERT_EQ(to[i], from[source]);
        wanted[source] = from[source];
      }
      kernels::scatter_rows(moved, order, back);
      EXPECT_EQ(back.values(), wanted);
      EXPECT_TRUE(back.gaps_untouched() && moved.gaps_untouched());
    }
  });
}

TEST(Permute, GathersNumbers) {
  const Operand numbers = Operand::of_ints({10, 11, 12, 13}),
                taken = Operand::of_ints({-7, -7, -7});
  kernels::gather_rows(numbers, Operand::of_ints({3, -1, 0}), taken);
  EXPECT_EQ(taken.ints(), (std::vector<std::int32_t>{13, 0, 10}));
}

TEST(Permute, RefusesIndicesOutsideTheRows) {
  const Operand rows(DType::f32, 2, 3), one(DType::f32, 1, 3);
  expect_refused([&] { kernels::gather_rows(rows, Operand::of_ints({2}), one); });
  expect_refused([&] { kernels::scatter_rows(one, Operand::of_ints({-2}), rows); });
}

// Each case without and with dropped slots.
void for_each_combination(std::int64_t k, int num_experts,
                          const std::function<void(const Case&, const Routing&)>& body) {
  for_each_case([&](const Case& c) {
    for (bool drops : {false, true}) {
      SCOPED_TRACE(drops ? "slots dropped" : "all kept");
      body(c, Routing(c.rows, num_experts, static_cast<int>(k), 7, drops));
    }
  });
}

TEST(CombineRows, IsTheWeightedSumOfWhatIsKept) {
  for_each_combination(3, 9, [](const Case& c, const Routing& r) {
    const Operand rows(c.dtype, 3 * c.rows, c.cols, 1, c.gap),
        weights(DType::f32, c.rows, 3, 2, c.gap);
    const Operand out(c.dtype, c.rows, c.cols, 3, c.gap), total(c.dtype, c.rows, c.cols, 4, c.gap);
    const auto hidden = static_cast<std::size_t>(c.cols);
    r.poison(rows);
    fill_with_nan(out);
    fill_with_nan(total);
    kernels::combine_rows(rows, r.row_of_slot, weights, out);
    expect_close(
        out, reference::combine(rows.values(), r.row_of_slot.ints(), weights.values(), 3, hidden),
        tolerance_of(c.dtype));
    kernels::sum_rows(rows, r.row_of_slot, total);
    const Doubles ones(static_cast<std::size_t>(3 * c.rows), 1.0);
    expect_close(total, reference::combine(rows.values(), r.row_of_slot.ints(), ones, 3, hidden),
                 tolerance_of(c.dtype));
  });
}

TEST(CombineRows, BackwardIsTheGradientAndZeroOfWhatIsDropped) {
  for_each_combination(2, 4, [](const Case& c, const Routing& r) {
    const Operand rows(c.dtype, 2 * c.rows, c.cols, 1, c.gap),
        weights(DType::f32, c.rows, 2, 2, c.gap);
    const Operand dout(c.dtype, c.rows, c.cols, 3, c.gap),
        drows(c.dtype, 2 * c.rows, c.cols, 4, c.gap);
    const Operand dweights(DType::f32, c.rows, 2, 5, c.gap);
    const auto loss = [&](const Doubles& at_rows, const Doubles& at_weights) {
      return reference::dot(reference::combine(at_rows, r.row_of_slot.ints(), at_weights, 2,
                                               static_cast<std::size_t>(c.cols)),
                            dout.values());
    };
    Doubles wanted = reference::numerical_gradient(
        [&](const Doubles& at) { return loss(at, weights.values()); }, rows.values());
    const Doubles wanted_weights = reference::numerical_gradient(
        [&](const Doubles& at) { return loss(rows.values(), at); }, weights.values());
    r.poison(rows);
    drows.set(Doubles(wanted.size(), 5.0));  // what stays in rows that no slot names
    std::fill(wanted.begin() + r.num_rows() * c.cols, wanted.end(), 5.0);
    fill_with_nan(dweights);
    kernels::combine_rows_backward(dout, rows, r.row_of_slot, weights, drows, dweights);
    expect_close(drows, wanted, tolerance_of(c.dtype));
    expect_close(dweights, wanted_weights, 1e-5);
  });
}

TEST(CombineRows, IsAdjointToItsBackwardAndSumsToGathering) {
  for_each_routing([](const Routing& r) {
    const std::int64_t n = r.tokens * r.k;
    const Operand rows(DType::f32, n, 65, 1), weights(DType::f32, r.tokens, r.k, 2);
    const Operand y(DType::f32, r.tokens, 65, 3), out(DType::f32, r.tokens, 65, 4);
    const Operand drows(DType::f32, n, 65, 5), dweights(DType::f32, r.tokens, r.k, 6);
    drows.set(Doubles(static_cast<std::size_t>(n * 65)));  // also of rows that no slot names
    const double tolerance = 1e-5 * static_cast<double>(1 + n);
    kernels::combine_rows(rows, r.row_of_slot, weights, out);
    kernels::combine_rows_backward(y, rows, r.row_of_slot, weights, drows, dweights);
    EXPECT_NEAR(reference::dot(out.values(), y.values()),
                reference::dot(rows.values(), drows.values()), tolerance);
    // <sum_rows(x), y> == <x, gather_rows(y)>
    kernels::sum_rows(rows, r.row_of_slot, out);
    kernels::gather_rows(y, r.token_of_row, drows);
    EXPECT_NEAR(reference::dot(out.values(), y.values()),
                reference::dot(rows.values(), drows.values()), tolerance);
  });
}

TEST(Permute, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const Routing r(400, 8, 2, 3, true);
    const Operand x(DType::bf16, 400, 65, 1), rows(DType::bf16, 800, 65), out(DType::bf16, 400, 65);
    const Operand weights(DType::f32, 400, 2, 2), drows(DType::bf16, 800, 65),
        dweights(DType::f32, 400, 2);
    kernels::gather_rows(x, r.token_of_row, rows);
    kernels::combine_rows(rows, r.row_of_slot, weights, out);
    kernels::combine_rows_backward(x, rows, r.row_of_slot, weights, drows, dweights);
    return std::vector<Doubles>{rows.values(), out.values(), drows.values(), dweights.values()};
  });
}

}  // namespace
}  // namespace switchyard::test
