// Choices over whole sequences against their oracles.
#include "kernels/routing/select_sequences.hpp"

#include <cmath>
#include <limits>
#include <map>

#include "kernels/kernel_test.hpp"
#include "kernels/routing/select.hpp"
#include "tests/support/reference_routing.hpp"

namespace switchyard::test {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

struct Size {
  std::int64_t num_sequences, length, num_experts, top_k;
};
const std::vector<Size> sizes = {{1, 1, 1, 1}, {2, 7, 3, 1},  {3, 8, 4, 2},
                                 {2, 5, 8, 1}, {1, 64, 5, 3}, {2, 33, 16, 4}};

Operand no_choices(const Size& size) {
  const std::int64_t slots = size.num_sequences * size.length * size.top_k;
  return Operand::of_ints(std::vector<std::int32_t>(static_cast<std::size_t>(slots), -7),
                          size.top_k);
}

Doubles sequence_of(const Doubles& all, const Size& size, std::int64_t s) {
  const std::ptrdiff_t numel = size.length * size.num_experts;
  return Doubles(all.begin() + s * numel, all.begin() + (s + 1) * numel);
}

std::map<std::int32_t, std::int64_t> counts_of(const std::vector<std::int32_t>& indices,
                                               const Size& size, std::int64_t s) {
  std::map<std::int32_t, std::int64_t> counts;
  const std::int64_t slots = size.length * size.top_k;
  for (std::int64_t i = s * slots; i < (s + 1) * slots; ++i)
    ++counts[indices[static_cast<std::size_t>(i)]];
  return counts;
}

TEST(Sinkhorn, IsThePlanWithThoseSums) {
  for (const Size& size : sizes) {
    const Operand logits(DType::f32, size.num_sequences * size.length, size.num_experts, 7, 2);
    logits.set([&] {
      Doubles values = logits.values();
      for (double& value : values) value *= 3;
      return values;
    }());
    const Operand plan(DType::f32, size.num_sequences * size.length, size.num_experts, 8, 1);
    const Doubles before = logits.values();
    kernels::sinkhorn_plan(logits, size.length, plan);
    EXPECT_EQ(logits.values(), before);
    Doubles wanted;
    for (std::int64_t s = 0; s < size.num_sequences; ++s)
      for (const double element :
           reference_plan(sequence_of(before, size, s), static_cast<std::size_t>(size.num_experts)))
        wanted.push_back(element);
    expect_close(plan, wanted, 5e-4);  // within one turn of convergence by 1e-4
  }
}

// Logits far apart, and an expert that nobody wants: numbers all the same, and an even choice.
TEST(Sinkhorn, BalancesWhatIsFarApart) {
  const Size size{1, 40, 4, 1};
  const Operand logits(DType::f32, 40, 4);
  Doubles values(160);
  for (std::size_t t = 0; t < 40; ++t)
    for (std::size_t e = 0; e < 4; ++e)
      values[t * 4 + e] = (e == 0 ? 5 : 0) + std::sin(static_cast<double>(t * 4 + e) * 1.7);
  logits.set(values);
  kernels::sinkhorn_plan(logits, 40, logits);
  const Operand indices = no_choices(size);
  kernels::select_top_k(logits, indices);
  for (const auto& [expert, count] : counts_of(indices.ints(), size, 0)) {
    EXPECT_GE(count, 5) << expert;
    EXPECT_LE(count, 15) << expert;
  }
  for (std::size_t t = 0; t < 40; ++t) values[t * 4] = -1e5;
  logits.set(values);
  kernels::sinkhorn_plan(logits, 40, logits);
  for (const double element : logits.values()) EXPECT_TRUE(std::isfinite(element));
}

TEST(BalancedChoice, HasTheLargestSumOfScores) {
  for (const Size& size : sizes) {
    const Operand scores(DType::f32, size.num_sequences * size.length, size.num_experts, 9, 2);
    const Operand indices = no_choices(size);
    kernels::select_balanced(scores, size.length, indices);
    const std::vector<std::int32_t> chosen = indices.ints();
    const Doubles values = scores.values();
    const auto num_experts = static_cast<std::size_t>(size.num_experts);
    const auto top_k = static_cast<std::size_t>(size.top_k);
    for (std::int64_t s = 0; s < size.num_sequences; ++s) {
      const std::int64_t slots = size.length * size.top_k, share = slots / size.num_experts;
      std::int64_t num_more = 0, total = 0;
      for (const auto& [expert, count] : counts_of(chosen, size, s)) {
        EXPECT_GE(expert, 0);
        EXPECT_LE(count, share + 1);
        num_more += count > share ? 1 : 0;
        total += count;
      }
      EXPECT_EQ(total, slots);
      EXPECT_LE(num_more, slots % size.num_experts);
      double sum = 0;
      for (std::int64_t t = s * size.length; t < (s + 1) * size.length; ++t) {
        std::vector<std::int32_t> experts(chosen.begin() + t * size.top_k,
                                          chosen.begin() + (t + 1) * size.top_k);
        const double* row = &values[static_cast<std::size_t>(t) * num_experts];
        for (std::size_t j = 0; j < top_k; ++j) {
          sum += row[experts[j]];
          EXPECT_GE(row[experts[j == 0 ? 0 : j - 1]], row[experts[j]]);
        }
        std::sort(experts.begin(), experts.end());
        EXPECT_EQ(std::adjacent_find(experts.begin(), experts.end()), experts.end());
      }
      const ReferenceAssignment best(sequence_of(values, size, s), num_experts, top_k);
      EXPECT_NEAR(sum, best.cost(), 1e-5 * (1 + std::abs(best.cost())));
    }
  }
}

// Everybody wants expert 0: only the price of going elsewhere decides. And scores without order.
TEST(BalancedChoice, BearsAnyScores) {
  const Size size{1, 9, 3, 1};
  const Operand scores(DType::f32, 9, 3), indices = no_choices(size);
  Doubles values;
  for (int t = 0; t < 9; ++t) values.insert(values.end(), {10.0 + t, 0.1 * t, 0});
  scores.set(values);
  kernels::select_balanced(scores, 9, indices);
  EXPECT_EQ(indices.ints(), (std::vector<std::int32_t>{2, 2, 2, 1, 1, 1, 0, 0, 0}));
  scores.set(Doubles(27, nan));
  kernels::select_balanced(scores, 9, indices);
  for (const auto& [expert, count] : counts_of(indices.ints(), size, 0)) EXPECT_EQ(count, 3);
  scores.set(Doubles(27, -std::numeric_limits<double>::infinity()));
  kernels::select_balanced(scores, 9, indices);
  for (const auto& [expert, count] : counts_of(indices.ints(), size, 0)) EXPECT_EQ(count, 3);
}

TEST(ExpertChoice, IsEachExpertsBestTokens) {
  for (const Size& size : sizes)
    for (const double capacity : {0.5, 1.0, 2.5}) {
      const Operand scores(DType::f32, size.num_sequences * size.length, size.num_experts, 9, 2);
      Doubles values = scores.values();
      for (double& value : values) value = std::round(value * 8) / 8;  // ties
      scores.set(values);
      const Operand indices = no_choices(size);
      kernels::select_by_experts(scores, size.length, capacity, indices);
      const std::int64_t tokens =
          std::clamp<std::int64_t>(std::llround(capacity * static_cast<double>(size.length) /
                                                static_cast<double>(size.num_experts)),
                                   1, size.length);
      std::vector<std::int32_t> wanted;
      for (std::int64_t s = 0; s < size.num_sequences; ++s)
        for (const std::int64_t e : reference_expert_choice(
                 sequence_of(values, size, s), static_cast<std::size_t>(size.num_experts),
                 static_cast<std::size_t>(tokens), static_cast<std::size_t>(size.top_k)))
          wanted.push_back(static_cast<std::int32_t>(e));
      EXPECT_EQ(indices.ints(), wanted);
    }
}

// Two sequences of four tokens that all choose expert 0, and some expert 1.
TEST(Capacity, DropsWhatIsOverItByPositionOrByScore) {
  const Operand scores(DType::f32, 8, 2, 1);
  scores.set({1, 5, 3, 5, 3, 5, 2, 5, 4, 9, 4, 8, 4, 9, 4, 7});
  const auto dropped = [&](std::int64_t capacity, kernels::DropBy drop_by) {
    const Operand indices = Operand::of_ints({0, 1, 0, -1, 0, 1, 0, -1, 0, 1, 0, 1, 0, 1, 0, 1}, 2);
    kernels::drop_over_capacity(scores, 4, capacity, drop_by, indices);
    return indices.ints();
  };
  using Ints = std::vector<std::int32_t>;
  EXPECT_EQ(dropped(2, kernels::DropBy::position),
            (Ints{0, 1, 0, -1, -1, 1, -1, -1, 0, 1, 0, 1, -1, -1, -1, -1}));
  EXPECT_EQ(dropped(2, kernels::DropBy::score),
            (Ints{-1, 1, 0, -1, 0, 1, -1, -1, 0, 1, 0, -1, -1, 1, -1, -1}));
  EXPECT_EQ(dropped(4, kernels::DropBy::score),
            (Ints{0, 1, 0, -1, 0, 1, 0, -1, 0, 1, 0, 1, 0, 1, 0, 1}));
}

TEST(SequenceChoices, AreTheSameForAnyThreads) {
  expect_same_for_any_threads([] {
    const Size size{5, 24, 6, 2};
    const Operand scores(DType::f32, 120, 6, 9), plan(DType::f32, 120, 6, 3);
    const Operand balanced = no_choices(size), by_experts = no_choices(size);
    kernels::sinkhorn_plan(scores, 24, plan);
    kernels::select_balanced(scores, 24, balanced);
    kernels::select_by_experts(scores, 24, 2, by_experts);
    std::vector<Doubles> all{plan.values()};
    for (const Operand* choice : {&balanced, &by_experts}) {
      const std::vector<std::int32_t> ints = choice->ints();
      all.emplace_back(ints.begin(), ints.end());
    }
    return all;
  });
}

}  // namespace
}  // namespace switchyard::test
