#include "kernels/attention/attention.hpp"

#include <thread>

#include "kernels/rows/elementwise.hpp"
#include "kernels/threads.hpp"
#include "tensor/error.hpp"
#include "tests/kernels/attention/attention_support.hpp"

namespace switchyard::kernels {
namespace {

using namespace switchyard::test;

constexpr double f32_tolerance = 1e-5;

using Case = AttentionCase;

struct Masked {
  AttentionShape shape;
  std::int64_t offset = 0;
};
std::vector<Masked> shapes() {
  std::vector<Masked> all = {{shape_of(2, 1, 4, 2, 8)},   {shape_of(3, 7, 4, 2, 16)},
                             {shape_of(2, 65, 4, 4, 12)}, {shape_of(1, 300, 4, 2, 16)},
                             {shape_of(1, 300, 2, 2, 7)}, {shape_of(2, 130, 6, 1, 9)}};
  Masked with_cache{shape_of(2, 1, 4, 2, 16), 299};
  with_cache.shape.key_length = 300;
  all.push_back(with_cache);
  Masked later_part{shape_of(2, 33, 4, 1, 16), 267};  // 33 queries after 267 cached keys
  later_part.shape.key_length = 300;
  all.push_back(later_part);
  Masked more_keys{shape_of(1, 40, 2, 2, 16)};  // the last keys are seen by none
  more_keys.shape.key_length = 64;
  all.push_back(more_keys);
  return all;
}

class AttentionTest : public ::testing::Test {
 protected:
  std::unique_ptr<Device> device_ = make_tested_device();
};

TEST_F(AttentionTest, AgreesWithTheReferenceInF32) {
  for (const Masked& m : shapes()) {
    Case c(*device_, m.shape, causal(m.shape, m.offset), DType::f32);
    SCOPED_TRACE(::testing::Message() << m.shape.query_length << "/" << m.shape.key_length << " of "
                                      << m.shape.head_dim);
    expect_reference(c);
  }
}

TEST_F(AttentionTest, AgreesWithTheReferenceInBf16) {
  for (const Masked& m : shapes()) {
    Case c(*device_, m.shape, causal(m.shape, m.offset), DType::bf16);
    SCOPED_TRACE(::testing::Message() << m.shape.query_length << "/" << m.shape.key_length << " of "
                                      << m.shape.head_dim);
    expect_reference(c);
  }
}

TEST_F(AttentionTest, GradientsAgreeWithFiniteDifferences) {
  const AttentionShape s = shape_of(1, 6, 4, 2, 5);
  Case c(*device_, s, causal(s), DType::f32);
  c.forward();
  c.backward();
  auto qs = doubles(c.q);
  auto ks = doubles(c.k);
  auto vs = doubles(c.v);
  const auto ds = doubles(c.dout);
  const auto loss = [&] {
    const auto out = reference::attention_forward(c.shape, c.visible, qs, ks, vs).out;
    double sum = 0;
    for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * ds[i];
    return sum;
  };
  const auto slopes = [&](std::vector<double>& at) {
    std::vector<double> result;
    for (double& value : at) {
      const double centre = value;
      value = centre + 1e-4;
      const double above = loss();
      value = centre - 1e-4;
      result.push_back((above - loss()) / 2e-4);
      value = centre;
    }
    return result;
  };
  EXPECT_LT(relative_error(doubles(c.dq), slopes(qs)), f32_tolerance);
  EXPECT_LT(relative_error(doubles(c.dk), slopes(ks)), f32_tolerance);
  EXPECT_LT(relative_error(doubles(c.dv), slopes(vs)), f32_tolerance);
}

TEST_F(AttentionTest, BitsDoNotDependOnTheNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16}) {
    const AttentionShape s = shape_of(3, 300, 4, 2, 16);
    kernels::set_num_threads(1);
    Case one(*device_, s, causal(s), type);
    one.forward();
    one.backward();
    kernels::set_num_threads(2);
    Case two(*device_, s, causal(s), type);
    two.forward();
    two.backward();
    EXPECT_TRUE(same_bits(one.out, two.out));
    EXPECT_TRUE(same_bits(one.lse, two.lse));
    EXPECT_TRUE(same_bits(one.dq, two.dq));
    EXPECT_TRUE(same_bits(one.dk, two.dk));
    EXPECT_TRUE(same_bits(one.dv, two.dv));
  }
}

TEST_F(AttentionTest, ASequenceDoesNotDependOnItsNeighbours) {
  const AttentionShape s = shape_of(3, 70, 4, 2, 16);
  Case all(*device_, s, causal(s), DType::bf16);
  all.forward();
  all.backward();
  AttentionShape one = s;
  one.num_sequences = 1;
  Case last(*device_, one, causal(one), DType::bf16);
  const auto rows = [&](const Tensor& x) { return x->slice_rows(2 * 70, 3 * 70); };
  attention_forward(one, rows(all.q), rows(all.k), rows(all.v), last.ranges, last.out, last.lse,
                    Merge::replace, last.workspace);
  attention_delta(last.out, rows(all.dout), one.head_dim, last.delta);
  attention_backward(one, rows(all.q), rows(all.k), rows(all.v), last.ranges, last.lse, last.delta,
                     rows(all.dout), {last.dq, last.dk, last.dv}, last.workspace);
  EXPECT_TRUE(same_bits(last.out, rows(all.out)));
  EXPECT_TRUE(same_bits(last.dq, rows(all.dq)));
  EXPECT_TRUE(same_bits(last.dk, rows(all.dk)));
  EXPECT_TRUE(same_bits(last.dv, rows(all.dv)));
}

TEST_F(AttentionTest, HugeLogitsStayFinite) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const float factor : {100.0f, 1e6f, 1e15f}) {
      const AttentionShape s = shape_of(1, 300, 2, 1, 16);
      Case c(*device_, s, causal(s), type, factor);
      c.forward();
      c.backward();
      for (const Tensor* x : {&c.out, &c.lse, &c.dq, &c.dk, &c.dv})
        for (const double value : doubles(*x)) ASSERT_TRUE(std::isfinite(value)) << factor;
      // Outputs are weighted means: none is larger than the largest value.
      for (const double value : doubles(c.out)) ASSERT_LT(std::abs(value), 6.0);
    }
}

// q, k and v as column ranges of one buffer, and their gradients likewise.
TEST_F(AttentionTest, RowsMayBeStrided) {
  for (const DType type : {DType::f32, DType::bf16}) {
    const AttentionShape s = shape_of(2, 65, 4, 2, 8);
    Case c(*device_, s, causal(s), type);
    c.forward();
    c.backward();
    const std::int64_t q_cols = s.num_heads * s.head_dim;
    const std::int64_t kv_cols = s.num_kv_heads * s.head_dim;
    const Shape all{c.q->rows(), q_cols + 2 * kv_cols};
    const Tensor qkv(*device_, Purpose::activation, type, all);
    const Tensor dqkv(*device_, Purpose::activation, type, all);
    const auto q_of = [&](const Tensor& x) { return x->slice_cols(0, q_cols); };
    const auto k_of = [&](const Tensor& x) { return x->slice_cols(q_cols, q_cols + kv_cols); };
    const auto v_of = [&](const Tensor& x) {
      return x->slice_cols(q_cols + kv_cols, q_cols + 2 * kv_cols);
    };
    fill_random(q_of(qkv), "q");
    fill_random(k_of(qkv), "k");
    fill_random(v_of(qkv), "v");
    const Tensor out(*device_, Purpose::activation, type, c.queries());
    attention_forward(s, q_of(qkv), k_of(qkv), v_of(qkv), c.ranges, out, c.lse, Merge::replace,
                      c.workspace);
    attention_backward(s, q_of(qkv), k_of(qkv), v_of(qkv), c.ranges, c.lse, c.delta, c.dout,
                       {q_of(dqkv), k_of(dqkv), v_of(dqkv)}, c.workspace);
    EXPECT_TRUE(same_bits(out, c.out));
    EXPECT_TRUE(same_bits(q_of(dqkv), c.dq));
    EXPECT_TRUE(same_bits(k_of(dqkv), c.dk));
    EXPECT_TRUE(same_bits(v_of(dqkv), c.dv));
  }
}

// Generation: one query at a time over a growing cache gives what one pass over all gives.
TEST_F(AttentionTest, QueriesOneByOneAgreeWithOnePass) {
  const std::int64_t length = 80;
  const AttentionShape whole = shape_of(1, length, 4, 2, 16);
  Case c(*device_, whole, causal(whole), DType::f32);
  c.forward();
  const Tensor out(*device_, Purpose::activation, DType::f32, c.queries());
  const Tensor lse(*device_, Purpose::activation, DType::f32, {length, 4});
  for (std::int64_t i = 0; i < length; ++i) {
    AttentionShape s = whole;
    s.query_length = 1;
    s.key_length = i + 1;
    const DeviceRanges seen(*device_, causal(s, i));
    attention_forward(s, c.q->slice_rows(i, i + 1), c.k->slice_rows(0, i + 1),
                      c.v->slice_rows(0, i + 1), seen.ranges, out->slice_rows(i, i + 1),
                      lse->slice_rows(i, i + 1), Merge::replace, c.workspace);
  }
  EXPECT_LT(relative_error(doubles(out), doubles(c.out)), f32_tolerance);
  EXPECT_LT(relative_error(doubles(lse), doubles(c.lse)), f32_tolerance);
}

TEST_F(AttentionTest, ChecksShapes) {
  const AttentionShape s = shape_of(1, 16, 4, 2, 8);
  Case c(*device_, s, causal(s), DType::f32);
  AttentionShape wrong = s;
  wrong.num_kv_heads = 3;
  EXPECT_THROW(
      attention_forward(wrong, c.q, c.k, c.v, c.ranges, c.out, c.lse, Merge::replace, c.workspace),
      InternalError);
  Case low(*device_, s, causal(s), DType::bf16);  // bf16 cannot be merged into
  EXPECT_THROW(attention_forward(s, low.q, low.k, low.v, low.ranges, low.out, low.lse,
                                 Merge::with_before, low.workspace),
               InternalError);
}

TEST_F(AttentionTest, ChecksRangesAndWorkspace) {
  if (is_tested_on_card()) GTEST_SKIP() << "the host does not see a card's ranges";
  const AttentionShape s = shape_of(1, 16, 4, 2, 8);
  Case c(*device_, s, causal(s), DType::f32);
  const auto bytes = [](const AttentionShape& shape, int threads) {
    return attention_workspace_bytes(shape, DType::f32,
                                     {.device = DeviceKind::cpu, .num_threads = threads});
  };
  // What every thread has for itself does not grow with a long sequence.
  const auto of_thread = [&](std::int64_t length) {
    const AttentionShape longer = shape_of(1, length, 4, 2, 8);
    return bytes(longer, 4) - bytes(longer, 3);
  };
  EXPECT_GT(of_thread(16), 0);
  EXPECT_EQ(of_thread(1 << 20), of_thread(1 << 13));
  const auto forward = [&](const TensorView& workspace) {
    attention_forward(s, c.q, c.k, c.v, c.ranges, c.out, c.lse, Merge::replace, workspace);
  };
  EXPECT_THROW(forward(c.workspace->slice_rows(0, 64)), InternalError);
  for (std::int32_t end : {3, 17}) {  // back behind the row before; beyond the last key
    Case other(*device_, s, causal(s), DType::f32);
    other.ranges.end.as<std::int32_t>()[15] = end;
    EXPECT_THROW(other.forward(), InternalError);
  }
  // With room for one thread only, one thread does all the work.
  c.forward();
  const Tensor with_all(*device_, Purpose::activation, DType::f32, c.queries());
  copy(c.out, with_all);
  forward(c.workspace->slice_rows(0, bytes(s, 1)));
  EXPECT_TRUE(same_bits(with_all, c.out));
}

TEST_F(AttentionTest, PollsFromTheCallingThread) {
  const AttentionShape s = shape_of(2, 300, 4, 2, 16);
  Case c(*device_, s, causal(s), DType::f32);
  const auto caller = std::this_thread::get_id();
  int num_polls = 0;
  const Poll poll = [&] {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    ++num_polls;
  };
  attention_forward(s, c.q, c.k, c.v, c.ranges, c.out, c.lse, Merge::replace, c.workspace, poll);
  EXPECT_GT(std::exchange(num_polls, 0), 0);
  attention_delta(c.out, c.dout, s.head_dim, c.delta);
  attention_backward(s, c.q, c.k, c.v, c.ranges, c.lse, c.delta, c.dout, {c.dq, c.dk, c.dv},
                     c.workspace, poll);
  EXPECT_GT(num_polls, 0);
}

TEST(AttentionPlan, CountsVisiblePairsOnce) {
  const auto plan = make_plan_device();
  const auto record = [&](const Masked& m) {
    const AttentionShape& s = m.shape;
    const std::int64_t rows = s.num_sequences * s.query_length;
    const Shape keys{s.num_sequences * s.key_length, s.num_kv_heads * s.head_dim};
    const Tensor q(*plan, Purpose::activation, DType::bf16, {rows, s.num_heads * s.head_dim});
    const Tensor k(*plan, Purpose::activation, DType::bf16, keys);
    const Tensor lse(*plan, Purpose::activation, DType::f32, {rows, s.num_heads});
    const Tensor first(*plan, Purpose::activation, DType::i32, {rows});
    const Tensor end(*plan, Purpose::activation, DType::i32, {rows});
    const Tensor workspace(*plan, Purpose::workspace, DType::u8,
                           {attention_workspace_bytes(s, DType::bf16, plan->target())});
    const KeyRanges ranges = causal_ranges({.num_sequences = s.num_sequences,
                                            .query_length = s.query_length,
                                            .key_length = s.key_length,
                                            .query_offset = m.offset},
                                           first, end);
    plan->profile().reset();
    attention_forward(s, q, k, k, ranges, q, lse, Merge::replace, workspace);
    const double forward = plan->profile().total_work().flops;
    attention_backward(s, q, k, k, ranges, lse, lse, q, {q, k, k}, workspace);
    EXPECT_EQ(plan->profile().total_work().flops, 3 * forward);
    return forward;
  };
  for (const Masked& m : shapes())
    EXPECT_EQ(record(m), 4.0 * static_cast<double>(m.shape.head_dim * m.shape.num_heads *
                                                   causal(m.shape, m.offset).num_pairs()));
}

TEST(KeyRangesTest, WindowsAndCachesAsWrittenDown) {
  const auto device = make_cpu_device();
  for (std::int64_t window : {0, 1, 5, 100})
    for (std::int64_t offset : {0, 3, 40}) {
      AttentionShape s = shape_of(2, 33, 1, 1, 8);
      s.key_length = 50;
      const Tensor first(*device, Purpose::activation, DType::i32, {66});
      const Tensor end(*device, Purpose::activation, DType::i32, {66});
      const KeyRanges ranges = causal_ranges({.num_sequences = 2,
                                              .query_length = 33,
                                              .key_length = 50,
                                              .query_offset = offset,
                                              .window = window},
                                             first, end);
      const Visible expected = causal(s, offset, window);
      EXPECT_TRUE(std::ranges::equal(ranges.first.span<std::int32_t>(), expected.first));
      EXPECT_TRUE(std::ranges::equal(ranges.end.span<std::int32_t>(), expected.end));
      EXPECT_EQ(ranges.num_pairs, static_cast<double>(expected.num_pairs()));
    }
}

}  // namespace
}  // namespace switchyard::kernels

int main(int argc, char** argv) {
  return switchyard::test::run_tests_on_isa(argc, argv);
}
