#include "kernels/rows/right_answers.hpp"

#include <algorithm>

#include "kernels/kernel_test.hpp"
#include "kernels/rows/cross_entropy.hpp"

namespace switchyard::test {
namespace {

using kernels::right_answers;

// Small whole numbers, so that many are equal; columns of padding hold the largest of all.
TEST(RightAnswers, AreThoseOfThePlainLoop) {
  for (const std::int64_t vocab_size : {1, 7, 33, 260}) {
    constexpr std::int64_t rows = 40, padding = 3;
    const std::int64_t cols = vocab_size + padding;
    Operand logits(DType::f32, rows, cols);
    Doubles values;
    for (std::int64_t i = 0; i < rows * cols; ++i)
      values.push_back(i % cols < vocab_size ? static_cast<double>((i * i + i / cols) % 11) : 99.0);
    logits.set(values);
    std::vector<std::int32_t> targets;
    Doubles by_row, wanted, wanted_counts;
    for (std::int64_t t = 0; t < rows; ++t) {
      const auto row = values.begin() + t * cols;
      const auto best = static_cast<std::int32_t>(std::max_element(row, row + vocab_size) - row);
      targets.push_back(t % 5 == 4   ? kernels::no_target
                        : t % 2 == 0 ? best
                                     : static_cast<std::int32_t>(t % vocab_size));
      by_row.push_back(t % 3 == 0 ? 0.0 : 0.5 * static_cast<double>(t));
      const bool is_right = targets.back() == best;
      wanted.push_back(is_right ? by_row.back() : 0.0);
      wanted_counts.push_back(is_right ? 1.0 : 0.0);
    }
    const Operand right = vector_of(rows), weights = vector_of(rows);
    weights.set(by_row);
    const Operand index = Operand::of_ints(targets);
    right_answers(logits, index, vocab_size, weights, right);
    EXPECT_EQ(right.values(), wanted) << vocab_size;
    right_answers(logits, index, vocab_size, {}, right);
    EXPECT_EQ(right.values(), wanted_counts) << vocab_size;
  }
}

TEST(RightAnswers, RefuseTargetsOutsideTheVocabulary) {
  const Operand logits(DType::f32, 1, 8), right = vector_of(1);
  expect_refused([&] { right_answers(logits, Operand::of_ints({6}), 6, {}, right); });
}

}  // namespace
}  // namespace switchyard::test
