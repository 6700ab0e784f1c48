// Attention to chosen blocks, joined with what rows have over other keys, pair by pair in double:
// outputs, log-sum-exps and every gradient.
#include "kernels/attention/chosen_attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/kernel_test.hpp"
#include "support/on_device.hpp"
#include "support/tested_device.hpp"

namespace switchyard::kernels {
namespace {

struct ChosenCase {
  std::int64_t sequences, queries, keys, heads, kv_heads, dim, block, choices;
  DType dtype = DType::f32;
};

class ChosenAttentionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (test::is_tested_on_card()) GTEST_SKIP() << "blocks are chosen on the CPU";
  }
};

// Operands, and what they should give.
class Problem {
 public:
  explicit Problem(const ChosenCase& c)
      : c_(c),
        rows_(c.sequences * c.queries),
        q_(values(rows_, c.heads * c.dim, 0.7)),
        k_(values(c.sequences * c.keys, c.kv_heads * c.dim, 0.31)),
        v_(values(c.sequences * c.keys, c.kv_heads * c.dim, 0.53)),
        dout_(values(rows_, c.heads * c.dim, 0.17)),
        chosen_(test::tested(), Purpose::workspace, DType::i32, {rows_, c.kv_heads * c.choices}) {
    const std::int64_t num_blocks = c.keys / c.block;
    for (std::int64_t row = 0; row < rows_; ++row)
      for (std::int64_t g = 0; g < c.kv_heads; ++g) {
        // Some rows choose fewer, some nothing; a step that no number of blocks divides.
        const std::int64_t count = std::min(num_blocks, (row + g) % (c.choices + 1));
        std::int32_t* chosen = chosen_->row<std::int32_t>(row) + g * c.choices;
        std::fill_n(chosen, c.choices, -1);
        for (std::int64_t j = 0; j < count; ++j)
          chosen[j] = static_cast<std::int32_t>((row * 5 + g + j) % num_blocks);
        std::sort(chosen, chosen + count);
      }
  }

  void expect_right() {
    const Tensor out = values(rows_, c_.heads * c_.dim, 0.9, DType::f32);
    const Tensor lse = values(rows_, c_.heads, 1.3, DType::f32);
    for (std::int64_t row = 0; row < rows_; row += 3) {  // without other keys
      std::fill_n(lse->row<float>(row), c_.heads, -std::numeric_limits<float>::infinity());
      std::fill_n(out->row<float>(row), c_.heads * c_.dim, 0.0f);
    }
    const Tensor before = values(rows_, c_.heads * c_.dim, 0.9, DType::f32);
    const Tensor lse_before = values(rows_, c_.heads, 1.3, DType::f32);
    const AttentionShape shape{.num_sequences = c_.sequences,
                               .query_length = c_.queries,
                               .key_length = c_.keys,
                               .num_heads = c_.heads,
                               .num_kv_heads = c_.kv_heads,
                               .head_dim = c_.dim,
                               .scale = scale()};
    const Tensor workspace(test::tested(), Purpose::workspace, DType::u8,
                           {chosen_attention_workspace_bytes(shape, c_.block, c_.choices, c_.dtype,
                                                             true, test::tested().target())});
    const ChosenBlocks blocks{chosen_, c_.block};
    chosen_attention_forward(shape, q_, k_, v_, blocks, out, lse, Merge::with_before, workspace);
    const Tensor delta(test::tested(), Purpose::workspace, DType::f32, {rows_, c_.heads});
    attention_delta(out, dout_, c_.dim, delta);
    const Tensor dq = values(rows_, c_.heads * c_.dim, 0.2, DType::f32);
    const Tensor dk = values(k_->rows(), k_->cols(), 0.4, DType::f32);
    const Tensor dv = values(k_->rows(), k_->cols(), 0.6, DType::f32);
    std::vector<double> wanted_dq = of(dq), wanted_dk = of(dk), wanted_dv = of(dv);
    chosen_attention_backward(shape, q_, k_, v_, blocks, lse, delta, dout_, dq, dk, dv, workspace);

    std::vector<double> wanted_out = of(before), wanted_lse = of(lse_before);
    const std::vector<double> got_lse = of(lse), got_delta = of(delta);
    for (std::int64_t row = 0; row < rows_; ++row)
      for (std::int64_t h = 0; h < c_.heads; ++h) {
        const bool is_alone = row % 3 == 0;
        const auto at = static_cast<std::size_t>(row * c_.heads + h);
        const std::vector<std::int64_t> keys = keys_of(row, h);
        std::vector<double> scores;
        for (const std::int64_t key : keys) scores.push_back(score(row, h, key));
        double sum = is_alone ? 0 : std::exp(wanted_lse[at]);
        const double own = sum;
        for (const double s : scores) sum += std::exp(s);
        wanted_lse[at] = sum > 0 ? std::log(sum) : -std::numeric_limits<double>::infinity();
        for (std::int64_t d = 0; d < c_.dim; ++d) {
          double& value =
              wanted_out[static_cast<std::size_t>(row * c_.heads * c_.dim + h * c_.dim + d)];
          value = sum > 0 ? value * own / sum : 0;
          for (std::size_t i = 0; i < keys.size(); ++i)
            value += std::exp(scores[i]) / sum * element(v_, keys[i], kv(h, d));
        }
        for (std::size_t i = 0; i < keys.size(); ++i) {
          const double p = std::exp(scores[i] - got_lse[at]);
          double dp = 0;
          for (std::int64_t d = 0; d < c_.dim; ++d)
            dp += element(dout_, row, h * c_.dim + d) * element(v_, keys[i], kv(h, d));
          const double ds = static_cast<double>(scale()) * p * (dp - got_delta[at]);
          for (std::int64_t d = 0; d < c_.dim; ++d) {
            const auto q = static_cast<std::size_t>(row * c_.heads * c_.dim + h * c_.dim + d);
            const auto k = static_cast<std::size_t>(keys[i] * c_.kv_heads * c_.dim + kv(h, d));
            wanted_dq[q] += ds * element(k_, keys[i], kv(h, d));
            wanted_dk[k] += ds * element(q_, row, h * c_.dim + d);
            wanted_dv[k] += p * element(dout_, row, h * c_.dim + d);
          }
        }
      }
    expect_near(out, wanted_out, "out");
    expect_near(lse, wanted_lse, "lse");
    expect_near(dq, wanted_dq, "dq");
    expect_near(dk, wanted_dk, "dk");
    expect_near(dv, wanted_dv, "dv");
  }

 private:
  // Rounded to the type of the operands.
  Tensor values(std::int64_t rows, std::int64_t cols, double step, DType dtype) const {
    std::vector<float> made;
    for (std::int64_t i = 0; i < rows * cols; ++i)
      made.push_back(static_cast<float>(std::sin(step * static_cast<double>(i * i % 10'007))));
    Tensor tensor(test::tested(), Purpose::workspace, dtype, {rows, cols});
    for (std::size_t i = 0; i < made.size(); ++i)
      if (dtype == DType::f32)
        tensor->as<float>()[i] = made[i];
      else
        tensor->as<BFloat16>()[i] = to_bf16(made[i]);
    return tensor;
  }
  Tensor values(std::int64_t rows, std::int64_t cols, double step) const {
    return values(rows, cols, step, c_.dtype);
  }
  float scale() const { return 1 / std::sqrt(static_cast<float>(c_.dim)); }
  std::int64_t kv(std::int64_t head, std::int64_t d) const {
    return head / (c_.heads / c_.kv_heads) * c_.dim + d;
  }
  static double element(const Tensor& of, std::int64_t row, std::int64_t col) {
    const std::int64_t at = row * of->cols() + col;
    return of->dtype == DType::f32 ? static_cast<double>(of->as<float>()[at])
                                   : static_cast<double>(to_float(of->as<BFloat16>()[at]));
  }
  static std::vector<double> of(const Tensor& tensor) {
    return {tensor->as<float>(), tensor->as<float>() + tensor->numel()};
  }
  // Rows of k that the head's choices show to the row.
  std::vector<std::int64_t> keys_of(std::int64_t row, std::int64_t head) const {
    std::vector<std::int64_t> keys;
    const std::int64_t first = row / c_.queries * c_.keys;
    for (std::int64_t j = 0; j < c_.choices; ++j) {
      const std::int32_t b =
          chosen_->row<std::int32_t>(row)[head / (c_.heads / c_.kv_heads) * c_.choices + j];
      for (std::int64_t i = 0; b >= 0 && i < c_.block; ++i)
        keys.push_back(first + b * c_.block + i);
    }
    return keys;
  }
  double score(std::int64_t row, std::int64_t head, std::int64_t key) const {
    double dot = 0;
    for (std::int64_t d = 0; d < c_.dim; ++d)
      dot += element(q_, row, head * c_.dim + d) * element(k_, key, kv(head, d));
    return static_cast<double>(scale()) * dot;
  }
  // fp32: 1e-5 of the largest value, of sums of some hundred terms; bf16: probabilities are rounded
  // by 2^-9 each.
  void expect_near(const Tensor& got, const std::vector<double>& wanted, const char* name) const {
    double largest = 0, worst = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (std::isinf(wanted[i])) {
        ASSERT_EQ(static_cast<double>(got->as<float>()[i]), wanted[i]) << name << " " << i;
        continue;
      }
      largest = std::max(largest, std::abs(wanted[i]));
      worst = std::max(worst, std::abs(static_cast<double>(got->as<float>()[i]) - wanted[i]));
    }
    EXPECT_LT(worst, (c_.dtype == DType::f32 ? 1e-5 : 0x1p-7) * largest) << name;
  }

  ChosenCase c_;
  std::int64_t rows_;
  Tensor q_, k_, v_, dout_, chosen_;
};

// Small blocks; heads that share keys; more rows than a tile and a chunk have; a block of several
// parts; bf16.
TEST_F(ChosenAttentionTest, OutputsAndGradientsEqualTheReference) {
  for (const ChosenCase& c : {ChosenCase{2, 13, 17, 6, 3, 6, 4, 3},
                              {1, 40, 33, 4, 4, 16, 8, 2},
                              {1, 700, 96, 2, 1, 8, 32, 2},
                              {1, 21, 640, 2, 2, 8, 300, 2},
                              {2, 30, 64, 4, 2, 32, 16, 3, DType::bf16}})
    Problem(c).expect_right();
}

}  // namespace
}  // namespace switchyard::kernels
