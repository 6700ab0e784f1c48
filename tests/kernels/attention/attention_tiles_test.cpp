// Attention at the sizes where tiles of a kernel begin and end: lengths around 64 and 128, head
// dims with kernels of their own and others, groups of heads, and masks that cross tiles.
#include "tests/kernels/attention/attention_parts.hpp"

namespace switchyard::kernels {
namespace {

using namespace switchyard::test;
using Case = AttentionCase;

class AttentionTilesTest : public ::testing::Test {
 protected:
  void expect_right(const AttentionShape& s, const Visible& visible, DType type) {
    SCOPED_TRACE(::testing::Message()
                 << s.num_sequences << " x " << s.query_length << "/" << s.key_length << ", heads "
                 << s.num_heads << "/" << s.num_kv_heads << " of " << s.head_dim << " "
                 << name_of(type));
    Case c(*device_, s, visible, type);
    expect_reference(c);
  }
  std::unique_ptr<Device> device_ = make_tested_device();
};

TEST_F(AttentionTilesTest, LengthsAroundTiles) {
  for (const std::int64_t head_dim : {64, 128})
    for (const std::int64_t length : {1, 63, 64, 65, 127, 128, 129, 200}) {
      const AttentionShape s = shape_of(2, length, 2, 1, head_dim);
      expect_right(s, causal(s), DType::bf16);
    }
}

TEST_F(AttentionTilesTest, QueriesAndKeysOfDifferentLength) {
  for (const std::int64_t head_dim : {64, 128})
    for (const auto& [queries, keys] : {std::pair{1, 300}, {65, 129}, {129, 300}, {200, 63}}) {
      const AttentionShape s = with_keys(shape_of(2, queries, 2, 2, head_dim), keys);
      expect_right(s, causal(s, std::max(keys - queries, 0)), DType::bf16);
      expect_right(s, random_ranges(s, 11), DType::bf16);
    }
}

TEST_F(AttentionTilesTest, AnyHeadDim) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const std::int64_t head_dim : {1, 8, 32, 64, 72, 80, 96, 128, 130, 256}) {
      const AttentionShape s = shape_of(1, 70, 2, 1, head_dim);
      expect_right(s, causal(s), type);
    }
}

TEST_F(AttentionTilesTest, MasksThatCrossTiles) {
  for (const std::int64_t head_dim : {64, 128})
    for (const std::int64_t group : {1, 4, 8}) {
      const AttentionShape s = shape_of(1, 270, group, 1, head_dim);
      for (const std::int64_t window : {1, 7, 100})
        expect_right(s, causal(s, 0, window), DType::bf16);
      expect_right(s, documents(s, {70, 1, 33, 5, 150}), DType::bf16);
      expect_right(s, random_ranges(s, 12), DType::bf16);
      Visible nothing;
      nothing.first.assign(270, 20);
      nothing.end.assign(270, 20);
      expect_right(s, nothing, DType::bf16);
      Visible all;
      all.first.assign(270, 0);
      all.end.assign(270, 270);
      expect_right(s, all, DType::bf16);
    }
}

TEST_F(AttentionTilesTest, PartsOfTheKeysMergeInAnyOrder) {
  for (const std::int64_t head_dim : {64, 128})
    for (const bool last_first : {false, true})
      for (const std::vector<std::int64_t>& cuts :
           {std::vector<std::int64_t>{0, 100, 200}, {0, 64, 130, 200}}) {
        const AttentionShape s = shape_of(1, 200, 4, 2, head_dim);
        Case c(*device_, s, causal(s), DType::bf16);
        expect_parts_equal_one_call(*device_, c, cuts, bf16_rounding, bf16_rounding, last_first);
      }
}

// Of a row without keys nothing may come that is not a number, and of huge scores neither.
TEST_F(AttentionTilesTest, HugeScoresStayFinite) {
  for (const std::int64_t head_dim : {64, 128})
    for (const float factor : {30.0f, 1e6f, 1e15f}) {
      const AttentionShape s = shape_of(1, 300, 2, 1, head_dim);
      Case c(*device_, s, random_ranges(s, 13), DType::bf16, factor);
      c.forward();
      c.backward();
      for (const Tensor* x : {&c.out, &c.dq, &c.dk, &c.dv})
        for (const double value : doubles(*x)) ASSERT_TRUE(std::isfinite(value)) << factor;
      for (const double value : doubles(c.out)) ASSERT_LT(std::abs(value), 6.0);
      if (factor > 100) continue;
      const auto expected =
          reference::attention_forward(s, c.visible, doubles(c.q), doubles(c.k), doubles(c.v));
      EXPECT_LT(relative_error(doubles(c.out), expected.out), bf16_rounding);
      expect_lse(c.lse, expected.lse);
    }
}

// Long enough for many tiles, and the same bits again.
TEST_F(AttentionTilesTest, LongRowsGiveTheSameBitsAgain) {
  for (const std::int64_t head_dim : {64, 128}) {
    const AttentionShape s = shape_of(2, 700, 4, 2, head_dim);
    const Visible visible = documents(s, {500, 200});
    Case once(*device_, s, visible, DType::bf16);
    expect_reference(once);
    Case again(*device_, s, visible, DType::bf16);
    again.forward();
    again.backward();
    for (auto result : {&Case::out, &Case::lse, &Case::dq, &Case::dk, &Case::dv})
      EXPECT_TRUE(same_bits(once.*result, again.*result));
  }
}

// Rows that begin at no multiple of 16 bytes.
TEST_F(AttentionTilesTest, UnalignedRows) {
  for (const std::int64_t head_dim : {64, 128}) {
    const AttentionShape s = shape_of(1, 130, 2, 1, head_dim);
    Case c(*device_, s, causal(s), DType::bf16);
    expect_reference(c);
    const auto shifted = [&](const TensorView& from, std::string_view name) {
      Tensor wide(*device_, Purpose::activation, DType::bf16, {from.rows(), from.cols() + 3});
      fill_random(wide->slice_cols(1, 1 + from.cols()), name);
      return wide;
    };
    const auto inner = [](const Tensor& wide) { return wide->slice_cols(1, wide->cols() - 2); };
    const Tensor q = shifted(c.q, "q"), k = shifted(c.k, "k"), v = shifted(c.v, "v");
    const Tensor dout = shifted(c.dout, "dout"), out = shifted(c.out, "garbage");
    const Tensor dq = shifted(c.q, "garbage"), dk = shifted(c.k, "garbage");
    const Tensor dv = shifted(c.v, "garbage");
    const auto values = [&](const Tensor& wide) { return doubles(inner(wide)); };
    attention_forward(s, inner(q), inner(k), inner(v), c.ranges, inner(out), c.lse, Merge::replace,
                      c.workspace);
    attention_delta(inner(out), inner(dout), head_dim, c.delta);
    attention_backward(s, inner(q), inner(k), inner(v), c.ranges, c.lse, c.delta, inner(dout),
                       {inner(dq), inner(dk), inner(dv)}, c.workspace);
    EXPECT_LT(relative_error(values(out), doubles(c.out)), bf16_rounding);
    EXPECT_LT(relative_error(values(dq), doubles(c.dq)), 2 * bf16_rounding);
    EXPECT_LT(relative_error(values(dk), doubles(c.dk)), 2 * bf16_rounding);
    EXPECT_LT(relative_error(values(dv), doubles(c.dv)), 2 * bf16_rounding);
  }
}

}  // namespace
}  // namespace switchyard::kernels

int main(int argc, char** argv) {
  return switchyard::test::run_tests_on_isa(argc, argv);
}
