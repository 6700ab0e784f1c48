// Means of blocks and choices among them, against the definition.
#include "kernels/attention/block_choice.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/kernel_test.hpp"
#include "support/tested_device.hpp"

namespace switchyard::kernels {
namespace {

using Segments = std::vector<PositionRange>;

class BlockChoiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (test::is_tested_on_card()) GTEST_SKIP() << "blocks are chosen on the CPU";
  }
  static Tensor floats(std::int64_t rows, std::int64_t cols, double step) {
    Tensor tensor(test::tested(), Purpose::workspace, DType::f32, {rows, cols});
    for (std::int64_t i = 0; i < rows * cols; ++i)
      tensor->as<float>()[i] =
          static_cast<float>(std::sin(step * static_cast<double>(i * i % 1009)));
    return tensor;
  }
  static Tensor ints(Shape dims) { return {test::tested(), Purpose::workspace, DType::i32, dims}; }
};

TEST_F(BlockChoiceTest, MeansOfWholeBlocksAndTheirAdjoint) {
  constexpr std::int64_t sequences = 2, length = 11, block = 4, cols = 5;
  const Tensor rows = floats(sequences * length, cols, 0.7);
  const Tensor pooled = floats(sequences * 2, cols, 0.1);
  block_mean(rows, sequences, block, pooled);
  for (std::int64_t s = 0; s < sequences; ++s)
    for (std::int64_t b = 0; b < 2; ++b)
      for (std::int64_t c = 0; c < cols; ++c) {
        double mean = 0;
        for (std::int64_t i = 0; i < block; ++i)
          mean += static_cast<double>(rows->row<float>(s * length + b * block + i)[c]) / block;
        EXPECT_NEAR(pooled->row<float>(s * 2 + b)[c], mean, 1e-6);
      }
  // <mean(x), g> = <x, backward(g)>; what is added to stays.
  const Tensor gradient = floats(sequences * 2, cols, 0.3);
  const Tensor d_rows = floats(sequences * length, cols, 0);
  block_mean_backward(gradient, sequences, block, d_rows);
  double one = 0, other = 0;
  for (std::int64_t i = 0; i < pooled->numel(); ++i)
    one += static_cast<double>(pooled->as<float>()[i] * gradient->as<float>()[i]);
  for (std::int64_t i = 0; i < rows->numel(); ++i)
    other += static_cast<double>(rows->as<float>()[i] * d_rows->as<float>()[i]);
  EXPECT_NEAR(one, other, 1e-5);
}

TEST_F(BlockChoiceTest, SumsOfBlocksAndTheirAdjoints) {
  constexpr std::int64_t sequences = 2, length = 11, block = 4, each = 3, cols = 5;
  const Tensor rows = floats(sequences * length, cols, 0.7);
  const Tensor weights = floats(each, block, 1.1);
  const Tensor sums = floats(sequences * 2 * each, cols, 0.1);
  block_sums(rows, sequences, weights, sums);
  for (std::int64_t b = 0; b < sequences * 2; ++b)
    for (std::int64_t r = 0; r < each; ++r)
      for (std::int64_t c = 0; c < cols; ++c) {
        double sum = 0;
        for (std::int64_t t = 0; t < block; ++t)
          sum += static_cast<double>(weights->row<float>(r)[t]) *
                 static_cast<double>(rows->row<float>(b / 2 * length + b % 2 * block + t)[c]);
        EXPECT_NEAR(sums->row<float>(b * each + r)[c], sum, 1e-6);
      }
  // Linear in rows and in weights.
  const Tensor gradient = floats(sequences * 2 * each, cols, 0.3);
  const Tensor d_rows = floats(sequences * length, cols, 0), d_weights = floats(each, block, 0);
  block_sums_backward(gradient, rows, sequences, weights, d_rows, d_weights);
  const auto product = [](const Tensor& a, const Tensor& b) {
    double sum = 0;
    for (std::int64_t i = 0; i < a->numel(); ++i)
      sum += static_cast<double>(a->as<float>()[i]) * static_cast<double>(b->as<float>()[i]);
    return sum;
  };
  EXPECT_NEAR(product(sums, gradient), product(rows, d_rows), 1e-5);
  EXPECT_NEAR(product(sums, gradient), product(weights, d_weights), 1e-5);
}

TEST_F(BlockChoiceTest, TheBestWholeBlocksOfTheDocumentAndOfEqualsTheEarlier) {
  constexpr std::int64_t sequences = 2, length = 23, block = 3, dim = 4, heads = 4, kv_heads = 2;
  constexpr std::int64_t num_blocks = length / block, choices = 3;
  const Segments queries = {{2, 9}, {14, 9}};
  const std::int64_t n = 18;
  KeyPattern pattern(2 * block);
  pattern.block = block;
  pattern.chosen_blocks = choices;
  pattern.summaries = 1;
  const std::vector<std::vector<std::int32_t>> starts = {{4, 13}, {}};
  const Tensor begins = ints({sequences, length});
  fill_document_begins(starts, begins);
  const Tensor q = floats(sequences * n, heads * dim, 0.9);
  const Tensor pooled = floats(sequences * num_blocks, kv_heads * dim, 0.4);
  for (std::int64_t c = 0; c < kv_heads * dim; ++c)  // equals
    pooled->row<float>(num_blocks + 3)[c] = pooled->row<float>(num_blocks + 1)[c];
  const Tensor chosen = ints({sequences * n, kv_heads * choices});
  const BlockQueries asking{pattern, queries, sequences, begins};
  choose_blocks(asking, dim, q, pooled, chosen);
  const Tensor first = ints({sequences * n}), end = ints({sequences * n});
  fill_block_ranges(asking, first, end);

  BlockCounts counts;
  std::int64_t row = 0;
  for (std::int64_t s = 0; s < sequences; ++s)
    for (const PositionRange& range : queries)
      for (std::int64_t p = range.begin; p < range.end(); ++p, ++row) {
        std::int64_t begin = 0;
        for (const std::int32_t start : starts[static_cast<std::size_t>(s)])
          if (start <= p) begin = start;
        std::vector<std::int64_t> whole;
        for (std::int64_t b = 0; b < p / block - 1; ++b)
          if (b * block >= begin) whole.push_back(b);
        counts.whole += static_cast<double>(whole.size());
        counts.chosen += static_cast<double>(std::min<std::size_t>(whole.size(), choices));
        EXPECT_EQ(end->as<std::int32_t>()[row] - first->as<std::int32_t>()[row], std::ssize(whole));
        if (!whole.empty()) {
          EXPECT_EQ(first->as<std::int32_t>()[row], whole.front());
        }
        for (std::int64_t g = 0; g < kv_heads; ++g) {
          std::vector<std::pair<double, std::int64_t>> by_score;
          for (const std::int64_t b : whole) {
            double score = 0;
            for (std::int64_t h = 2 * g; h < 2 * g + 2; ++h)
              for (std::int64_t d = 0; d < dim; ++d)
                score += static_cast<double>(q->row<float>(row)[h * dim + d]) *
                         static_cast<double>(pooled->row<float>(s * num_blocks + b)[g * dim + d]);
            by_score.emplace_back(-score, b);
          }
          std::sort(by_score.begin(), by_score.end(), [](const auto& a, const auto& b) {
            return std::abs(a.first - b.first) > 1e-9 ? a.first < b.first : a.second < b.second;
          });
          std::vector<std::int32_t> wanted;
          for (std::size_t j = 0; j < std::min<std::size_t>(by_score.size(), choices); ++j)
            wanted.push_back(static_cast<std::int32_t>(by_score[j].second));
          std::ranges::sort(wanted);
          wanted.resize(choices, -1);
          const std::int32_t* actual = chosen->row<std::int32_t>(row) + g * choices;
          EXPECT_EQ(std::vector(actual, actual + choices), wanted) << "position " << p;
        }
      }
  const BlockCounts counted = count_blocks(asking, starts);
  EXPECT_EQ(counted.whole, counts.whole);
  EXPECT_EQ(counted.chosen, counts.chosen);
}

// Scores that are no numbers, or all as low as can be: every block is still chosen once at most.
TEST_F(BlockChoiceTest, WhatIsNoNumberIsChosenLast) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float most = std::numeric_limits<float>::infinity();
  KeyPattern pattern(1);
  pattern.block = 1;
  pattern.chosen_blocks = 3;
  const Segments queries = {{6, 1}};
  const Tensor q = floats(1, 1, 0), pooled = floats(6, 1, 0);
  q->as<float>()[0] = 1;
  const Tensor chosen = ints({1, 3});
  using Values = std::vector<float>;
  for (const auto& [means, wanted] :
       {std::pair{Values{nan, 1, nan, 2, nan, nan}, std::vector{0, 1, 3}},
        {Values{-most, -most, 5, -most, -most, -most}, std::vector{0, 1, 2}},
        {Values{nan, nan, nan, nan, nan, nan}, std::vector{0, 1, 2}},
        {Values{1, most, 0, most, 2, most}, std::vector{1, 3, 5}}}) {
    std::ranges::copy(means, pooled->as<float>());
    choose_blocks({pattern, queries, 1}, 1, q, pooled, chosen);
    EXPECT_TRUE(std::ranges::equal(chosen->span<std::int32_t>(), wanted));
  }
}

}  // namespace
}  // namespace switchyard::kernels
