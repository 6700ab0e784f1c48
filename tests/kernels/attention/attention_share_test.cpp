// A share of whole sequences: every result has the bits of the call that holds everything, however
// the sequences are cut, on any number of threads, with other sequences beside it or alone.
#include "kernels/threads.hpp"
#include "tests/kernels/attention/attention_support.hpp"

namespace switchyard::kernels {
namespace {

using namespace switchyard::test;
using Case = AttentionCase;
using Positions = std::vector<PositionRange>;

// Rows of some positions of every sequence, in memory of their own.
Tensor rows_of(const Tensor& whole, std::int64_t num_sequences, const Positions& positions) {
  const std::int64_t length = whole->rows() / num_sequences;
  const std::int64_t row_bytes = whole->cols() * size_of(whole->dtype);
  Tensor rows(*whole->device, Purpose::activation, whole->dtype,
              {num_sequences * num_positions(positions), whole->cols()});
  std::byte* to = rows->data;
  for (std::int64_t s = 0; s < num_sequences; ++s)
    for (const PositionRange& range : positions) {
      std::copy_n(whole->data + (s * length + range.begin) * row_bytes, range.count * row_bytes,
                  to);
      to += range.count * row_bytes;
    }
  return rows;
}

Tensor like_garbage(const Tensor& whole, std::int64_t rows) {
  return random_tensor(*whole->device, whole->dtype, {rows, whole->cols()}, "garbage");
}

// What a share is tested on: which queries or keys it owns, and those of the other kind that it
// must hold.
struct Share {
  Positions owned;
  Positions held;
};
// All others that see one of the owned keys, or that an owned query sees, by the ranges.
Share queries_share(const Visible& visible, std::int64_t length, std::int64_t num_sequences,
                    const Positions& owned) {
  Positions held;
  for (std::int64_t s = 0; s < num_sequences; ++s)
    for (const PositionRange& range : owned)
      for (std::int64_t i = range.begin; i < range.end(); ++i) {
        const auto row = static_cast<std::size_t>(s * length + i);
        held.push_back({visible.first[row], visible.end[row] - visible.first[row]});
      }
  return {owned, joined(held)};
}
Share keys_share(const Visible& visible, std::int64_t length, std::int64_t num_sequences,
                 const Positions& owned) {
  Positions held;
  for (std::int64_t s = 0; s < num_sequences; ++s)
    for (std::int64_t i = 0; i < length; ++i) {
      const auto row = static_cast<std::size_t>(s * length + i);
      if (count_before(owned, visible.end[row]) > count_before(owned, visible.first[row]))
        held.push_back({i, 1});
    }
  return {owned, joined(held)};
}

void expect_queries_have_the_bits(const Case& c, const Positions& owned) {
  const std::int64_t n = c.shape.num_sequences;
  const Share share = queries_share(c.visible, c.shape.query_length, n, owned);
  AttentionShape shape = c.shape;
  shape.held_queries = share.owned;
  shape.held_keys = share.held;
  const auto own = [&](const Tensor& whole) { return rows_of(whole, n, share.owned); };
  const Tensor q = own(c.q), dout = own(c.dout), delta = own(c.delta);
  const Tensor k = rows_of(c.k, n, share.held), v = rows_of(c.v, n, share.held);
  const Tensor out = like_garbage(c.out, q->rows()), lse = like_garbage(c.lse, q->rows()),
               dq = like_garbage(c.dq, q->rows());
  attention_forward(shape, q, k, v, c.ranges, out, lse, Merge::replace, c.workspace);
  EXPECT_TRUE(same_bits(out, own(c.out)));
  EXPECT_TRUE(same_bits(lse, own(c.lse)));
  attention_backward(shape, q, k, v, c.ranges, lse, delta, dout, {.dq = dq, .dk = {}, .dv = {}},
                     c.workspace);
  EXPECT_TRUE(same_bits(dq, own(c.dq)));
}

void expect_keys_have_the_bits(const Case& c, const Positions& owned) {
  const std::int64_t n = c.shape.num_sequences;
  const Share share = keys_share(c.visible, c.shape.query_length, n, owned);
  AttentionShape shape = c.shape;
  shape.held_queries = share.held;
  shape.held_keys = share.owned;
  const auto held = [&](const Tensor& whole) { return rows_of(whole, n, share.held); };
  const Tensor q = held(c.q), dout = held(c.dout), delta = held(c.delta), lse = held(c.lse);
  const Tensor k = rows_of(c.k, n, share.owned), v = rows_of(c.v, n, share.owned);
  const Tensor dk = like_garbage(c.dk, k->rows()), dv = like_garbage(c.dv, k->rows());
  attention_backward(shape, q, k, v, c.ranges, lse, delta, dout, {.dq = {}, .dk = dk, .dv = dv},
                     c.workspace);
  EXPECT_TRUE(same_bits(dk, rows_of(c.dk, n, share.owned)));
  EXPECT_TRUE(same_bits(dv, rows_of(c.dv, n, share.owned)));
}

// Of one of `ranks`, in zigzag and contiguous splits of any length.
std::vector<Positions> shares_of(std::int64_t length, std::int64_t ranks) {
  std::vector<Positions> shares;
  const auto chunk = [&](std::int64_t i, std::int64_t of) {
    return PositionRange{length * i / of, length * (i + 1) / of - length * i / of};
  };
  for (std::int64_t r = 0; r < ranks; ++r) {
    shares.push_back({chunk(r, ranks)});
    shares.push_back(joined({chunk(r, 2 * ranks), chunk(2 * ranks - 1 - r, 2 * ranks)}));
  }
  return shares;
}

void expect_shares_have_the_bits(Case& c, std::initializer_list<std::int64_t> num_ranks) {
  c.forward();
  c.backward();
  for (const std::int64_t ranks : num_ranks)
    for (const Positions& owned : shares_of(c.shape.query_length, ranks)) {
      SCOPED_TRACE(testing::Message() << ranks << " ranks, rows from " << owned.front().begin);
      expect_queries_have_the_bits(c, owned);
      expect_keys_have_the_bits(c, owned);
    }
}

class AttentionShareTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (is_tested_on_card()) GTEST_SKIP() << "shares of whole sequences are for the CPU";
  }
  std::unique_ptr<Device> device_ = make_tested_device();
};

TEST_F(AttentionShareTest, AnyShareHasTheBitsOfTheWhole) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const auto& [heads, kv_heads, head_dim] :
         {std::tuple{2, 2, 16}, std::tuple{4, 1, 20}, std::tuple{8, 2, 6}}) {
      const AttentionShape s = shape_of(2, 340, heads, kv_heads, head_dim);
      for (const Visible& visible :
           {causal(s), causal(s, 0, 3), causal(s, 0, 150), documents(s, {70, 1, 133, 5})}) {
        SCOPED_TRACE(testing::Message() << name_of(type) << " " << heads << " heads, "
                                        << visible.num_pairs() << " pairs");
        Case c(*device_, s, visible, type);
        expect_shares_have_the_bits(c, {2, 3});
      }
    }
}

// Rows of 1 and of 2: a block is computed whole for a single row.
TEST_F(AttentionShareTest, SharesOfSingleRows) {
  const AttentionShape s = shape_of(1, 9, 4, 2, 8);
  Case c(*device_, s, causal(s), DType::bf16);
  expect_shares_have_the_bits(c, {4, 9});
}

// Lanes add up the gradients of keys.
TEST_F(AttentionShareTest, LongSequences) {
  const AttentionShape s = shape_of(1, 2300, 2, 1, 8);
  for (const Visible& visible : {causal(s), causal(s, 0, 700)}) {
    Case c(*device_, s, visible, DType::bf16);
    expect_shares_have_the_bits(c, {3});
  }
}

TEST_F(AttentionShareTest, OnAnyNumberOfThreads) {
  const AttentionShape s = shape_of(2, 340, 4, 2, 16);
  Case whole(*device_, s, causal(s), DType::f32);
  whole.forward();
  whole.backward();
  for (const int threads : {1, 2, 4}) {
    set_num_threads(threads);
    Case c(*device_, s, causal(s), DType::f32);
    expect_shares_have_the_bits(c, {2});
    for (auto result : {&Case::out, &Case::lse, &Case::dq, &Case::dk, &Case::dv})
      EXPECT_TRUE(same_bits(whole.*result, c.*result)) << threads;
  }
  set_num_threads(2);
}

// Three sequences in a call, and the second of them alone.
TEST_F(AttentionShareTest, ASequenceHasTheSameBitsAlone) {
  for (const std::int64_t length : {150, 2100})
    for (const DType type : {DType::f32, DType::bf16}) {
      const AttentionShape s = shape_of(3, length, 4, 2, 8);
      Case several(*device_, s, causal(s, 0, 100), type);
      several.forward();
      several.backward();
      const AttentionShape one = shape_of(1, length, 4, 2, 8);
      Case alone(*device_, one, causal(one, 0, 100), type);
      const auto second = [&](const Tensor& x) { return x->slice_rows(length, 2 * length); };
      for (auto operand : {&Case::q, &Case::k, &Case::v, &Case::dout})
        std::copy_n(second(several.*operand).data, (alone.*operand)->num_bytes(),
                    (alone.*operand)->data);
      alone.forward();
      alone.backward();
      for (auto result : {&Case::out, &Case::lse, &Case::dq, &Case::dk, &Case::dv})
        EXPECT_TRUE(same_bits(alone.*result, second(several.*result))) << length;
    }
}

}  // namespace
}  // namespace switchyard::kernels

int main(int argc, char** argv) {
  return switchyard::test::run_tests_on_isa(argc, argv);
}
