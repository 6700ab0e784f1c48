#include "kernels/rows/cross_entropy.hpp"

#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

using kernels::softmax_cross_entropy;

std::vector<std::int32_t> some_targets(std::int64_t n, std::int64_t vocab_size) {
  std::vector<std::int32_t> targets;
  for (std::int64_t t = 0; t < n; ++t)
    targets.push_back(static_cast<std::int32_t>((t * 37 + vocab_size - 1) % vocab_size));
  return targets;
}

TEST(CrossEntropy, LossAndGradient) {
  for_each_case([](const Case& c) {
    for (std::int64_t padding : {0, 5}) {
      Operand logits(DType::f32, c.rows, c.cols + padding, 1, c.gap);
      logits.scale_by(4);
      const std::vector<std::int32_t> targets = some_targets(c.rows, c.cols);
      const Operand index = Operand::of_ints(targets), losses = vector_of(c.rows);
      const Operand gradient(c.dtype, c.rows, c.cols + padding, 2, c.gap);
      softmax_cross_entropy(logits, index, c.cols, 0.25f, losses, gradient);
      const auto loss_of = [&](const Doubles& at) {
        return reference::cross_entropy(at, targets, static_cast<std::size_t>(c.cols + padding),
                                        static_cast<std::size_t>(c.cols));
      };
      expect_close(losses, loss_of(logits.values()), 2e-6);
      const Doubles wanted = reference::numerical_gradient(
          [&](const Doubles& at) {
            const Doubles all = loss_of(at);
            return 0.25 * std::accumulate(all.begin(), all.end(), 0.0);
          },
          logits.values());
      expect_close(gradient, wanted, c.dtype == DType::f32 ? 1e-6 : 0x1p-9);
      // Columns of padding get nothing at all.
      for (std::int64_t t = 0; t < c.rows; ++t)
        for (std::int64_t v = c.cols; v < c.cols + padding; ++v)
          EXPECT_EQ(gradient.values()[static_cast<std::size_t>(t * (c.cols + padding) + v)], 0);
    }
  });
}

TEST(CrossEntropy, RowsWithoutATargetCountForNothing) {
  for (const DType type : {DType::f32, DType::bf16}) {
    const Operand logits(DType::f32, 3, 65, 1), gradient(type, 3, 65, 2), all(type, 3, 65, 3);
    const Operand losses = vector_of(3), all_losses = vector_of(3);
    softmax_cross_entropy(logits, Operand::of_ints({4, kernels::no_target, 9}), 60, 2.0f, losses,
                          gradient);
    softmax_cross_entropy(logits, Operand::of_ints({4, 5, 9}), 60, 2.0f, all_losses, all);
    Doubles wanted = all.values(), wanted_losses = all_losses.values();
    std::fill(wanted.begin() + 65, wanted.begin() + 130, 0.0);
    wanted_losses[1] = 0;
    EXPECT_EQ(gradient.values(), wanted);
    EXPECT_EQ(losses.values(), wanted_losses);
  }
}

TEST(CrossEntropy, WeightsOfRows) {
  constexpr std::int64_t vocab_size = 60, cols = 65;
  const std::vector<std::int32_t> targets = {4, 59, kernels::no_target, 9, 0};
  const Doubles by_row = {0, 1.0 / 3, 2, 2.5, 1};
  for (const DType type : {DType::f32, DType::bf16}) {
    const Operand logits(DType::f32, 5, cols, 1), gradient(type, 5, cols, 2);
    const Operand weights = vector_of(5), losses = vector_of(5);
    weights.set(by_row);
    Doubles at = logits.values();
    at[7] = std::numeric_limits<double>::quiet_NaN();  // in a row that counts for nothing
    logits.set(at);
    softmax_cross_entropy(logits, Operand::of_ints(targets), vocab_size, 0.25f, losses, gradient,
                          weights);
    Doubles wanted_losses(5), wanted(5 * cols);
    for (const std::size_t t : {std::size_t{1}, std::size_t{3}, std::size_t{4}}) {
      const Doubles row(at.begin() + static_cast<std::ptrdiff_t>(t) * cols,
                        at.begin() + static_cast<std::ptrdiff_t>(t + 1) * cols);
      wanted_losses[t] =
          by_row[t] * reference::cross_entropy(row, {targets[t]}, cols, vocab_size)[0];
      const Doubles probs = reference::softmax({row.begin(), row.begin() + vocab_size}, vocab_size);
      for (std::size_t v = 0; v < vocab_size; ++v)
        wanted[t * cols + v] =
            0.25 * by_row[t] * (probs[v] - (static_cast<std::int32_t>(v) == targets[t] ? 1 : 0));
    }
    expect_close(losses, wanted_losses, 2e-6);
    expect_close(gradient, wanted, type == DType::f32 ? 1e-6 : 0x1p-9);
    for (std::int64_t v = 0; v < cols; ++v)
      EXPECT_EQ(gradient.values()[static_cast<std::size_t>(v)], 0);
    EXPECT_EQ(losses.values()[0], 0);
  }
}

// Weights of 1 are no weights, to the bit; what is below 0 or not finite is refused.
TEST(CrossEntropy, WeightsOfOneAndIllegalWeights) {
  const Operand logits(DType::f32, 2, 65, 1), with(DType::f32, 2, 65, 2),
      without(DType::f32, 2, 65);
  const Operand weights = vector_of(2), losses = vector_of(2), all_losses = vector_of(2);
  const Operand index = Operand::of_ints({3, 64});
  weights.set({1, 1});
  softmax_cross_entropy(logits, index, 65, 0.3f, losses, with, weights);
  softmax_cross_entropy(logits, index, 65, 0.3f, all_losses, without);
  EXPECT_EQ(with.values(), without.values());
  EXPECT_EQ(losses.values(), all_losses.values());
  for (const double illegal : {-1.0, std::numeric_limits<double>::infinity()}) {
    weights.set({1, illegal});
    expect_refused([&] { softmax_cross_entropy(logits, index, 65, 1, losses, with, weights); });
  }
}

TEST(CrossEntropy, GradientMayOverwriteTheLogitsAndMayBeAbsent) {
  const Operand logits(DType::f32, 3, 65, 1), apart(DType::f32, 3, 65, 2);
  const Operand index = Operand::of_ints({0, 64, 9}), with = vector_of(3), without = vector_of(3);
  softmax_cross_entropy(logits, index, 65, 2.0f, without, TensorView{});
  softmax_cross_entropy(logits, index, 65, 2.0f, with, apart);
  EXPECT_EQ(with.values(), without.values());
  softmax_cross_entropy(logits, index, 65, 2.0f, with, logits);
  EXPECT_EQ(logits.values(), apart.values());
  EXPECT_EQ(with.values(), without.values());
}

// More than two blocks of the vocabulary, the maximum rising from block to block, far from zero.
TEST(CrossEntropy, ManyBlocksAndLargeLogits) {
  constexpr std::int64_t vocab_size = 5003;
  Operand logits(DType::f32, 2, vocab_size);
  Doubles values;
  for (int t = 0; t < 2; ++t)
    for (std::int64_t v = 0; v < vocab_size; ++v)
      values.push_back((t == 0 ? 1 : -1) * 300.0 * static_cast<double>(v) / vocab_size +
                       1000.0 * t);
  logits.set(values);
  const std::vector<std::int32_t> targets = {4999, 2};
  const Operand losses = vector_of(2), gradient(DType::f32, 2, vocab_size);
  softmax_cross_entropy(logits, Operand::of_ints(targets), vocab_size, 1.0f, losses, gradient);
  expect_close(losses, reference::cross_entropy(logits.values(), targets, vocab_size, vocab_size),
               2e-6);
  Doubles wanted = reference::softmax(logits.values(), vocab_size);
  wanted[4999] -= 1;
  wanted[vocab_size + 2] -= 1;
  expect_close(gradient, wanted, 1e-6);
}

// Vocabularies of models, which a card holds in shared memory, and a larger one, which it reads
// twice; more rows than a card has processors; some of which count for nothing.
TEST(CrossEntropy, SizesOfModelsAndBeyond) {
  struct Size {
    std::int64_t rows, vocab_size, cols;
  };
  for (const DType type : {DType::f32, DType::bf16})
    for (const auto& [rows, vocab_size, cols] :
         {Size{3, 50257, 50304}, {2, 70001, 70016}, {700, 250, 256}}) {
      SCOPED_TRACE(testing::Message() << name_of(type) << " " << rows << " " << cols);
      Operand logits(DType::f32, rows, cols, 1);
      logits.scale_by(4);
      const Operand gradient(type, rows, cols, 2), losses = vector_of(rows);
      std::vector<std::int32_t> targets = some_targets(rows, vocab_size);
      for (std::size_t t = 1; t < targets.size(); t += 5) targets[t] = kernels::no_target;
      softmax_cross_entropy(logits, Operand::of_ints(targets), vocab_size, 0.5f, losses, gradient);
      const Doubles at = logits.values();
      Doubles wanted(at.size()), wanted_losses(targets.size());
      for (std::size_t t = 0; t < targets.size(); ++t) {
        if (targets[t] == kernels::no_target) continue;
        const auto row = at.begin() + static_cast<std::ptrdiff_t>(t) * cols;
        const Doubles words(row, row + vocab_size);
        const auto size = static_cast<std::size_t>(vocab_size);
        wanted_losses[t] = reference::cross_entropy(words, {targets[t]}, size, size)[0];
        const Doubles probs = reference::softmax(words, size);
        for (std::size_t v = 0; v < size; ++v)
          wanted[t * static_cast<std::size_t>(cols) + v] =
              0.5 * (probs[v] - (static_cast<std::int32_t>(v) == targets[t] ? 1 : 0));
      }
      expect_close(losses, wanted_losses, 2e-6);
      expect_close(gradient, wanted, type == DType::f32 ? 1e-6 : 0x1p-9);
      if (type == DType::bf16) continue;
      const Doubles apart = gradient.values();
      softmax_cross_entropy(logits, Operand::of_ints(targets), vocab_size, 0.5f, losses, logits);
      EXPECT_EQ(logits.values(), apart) << "in place";
    }
}

TEST(CrossEntropy, OneNanShowsInItsRowOnly) {
  for (std::size_t place : {std::size_t{0}, std::size_t{20}, std::size_t{64}}) {
    Operand logits(DType::f32, 2, 65, 1);
    Doubles values = logits.values();
    values[place] = std::numeric_limits<double>::quiet_NaN();
    logits.set(values);
    const Operand losses = vector_of(2);
    softmax_cross_entropy(logits, Operand::of_ints({3, 3}), 65, 1.0f, losses, TensorView{});
    EXPECT_TRUE(std::isnan(losses.values()[0])) << place;
    EXPECT_TRUE(std::isfinite(losses.values()[1]));
  }
}

TEST(CrossEntropy, RefusesTargetsOutsideTheVocabulary) {
  const Operand logits(DType::f32, 1, 8), losses = vector_of(1);
  expect_refused(
      [&] { softmax_cross_entropy(logits, Operand::of_ints({6}), 6, 1, losses, TensorView{}); });
}

TEST(CrossEntropy, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const Operand logits(DType::f32, 300, 200, 1), losses = vector_of(300);
    const Operand gradient(DType::bf16, 300, 200);
    softmax_cross_entropy(logits, Operand::of_ints(some_targets(300, 190)), 190, 0.5f, losses,
                          gradient);
    return std::vector<Doubles>{losses.values(), gradient.values()};
  });
}

}  // namespace
}  // namespace switchyard::test
