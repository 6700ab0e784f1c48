// Attention over any ranges of keys: documents, windows, holes, rows that see nothing, keys in
// parts.
#include <limits>
#include <numeric>

#include "kernels/attention/attention_sink.hpp"
#include "kernels/threads.hpp"
#include "tests/kernels/attention/attention_parts.hpp"

namespace switchyard::kernels {
namespace {

using namespace switchyard::test;
using Case = AttentionCase;

struct Named {
  std::string name;
  AttentionShape shape;
  Visible visible;
};
// For a group of `group` query heads to a kv head.
std::vector<Named> masks(std::int64_t group) {
  const auto shape = [&](std::int64_t sequences, std::int64_t length) {
    return shape_of(sequences, length, 2 * group, 2, 16);
  };
  std::vector<Named> all;
  const auto add = [&](const std::string& name, const AttentionShape& s, Visible visible) {
    all.push_back({name, s, std::move(visible)});
  };
  const AttentionShape plain = shape(2, 150);
  add("window", plain, causal(plain, 0, 40));
  add("window of two", plain, causal(plain, 0, 2));
  add("documents", plain, documents(plain, {70, 1, 33, 5}));
  const AttentionShape many_keys = with_keys(shape(1, 90), 700);
  add("random, more keys", many_keys, random_ranges(many_keys, 1));
  const AttentionShape few_keys = with_keys(shape(2, 260), 70);
  add("random, fewer keys", few_keys, random_ranges(few_keys, 2));
  const AttentionShape equal = shape(1, 300);
  add("random", equal, random_ranges(equal, 3));
  Visible nothing;
  nothing.first.assign(150, 20);
  nothing.end.assign(150, 20);
  add("nothing", shape(1, 150), nothing);
  return all;
}

class AttentionRangesTest : public ::testing::Test {
 protected:
  std::unique_ptr<Device> device_ = make_tested_device();
};

TEST_F(AttentionRangesTest, AnyRangesAgreeWithTheReference) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const std::int64_t group : {1, 4, 8})
      for (const Named& mask : masks(group)) {
        SCOPED_TRACE(mask.name + " " + std::string(name_of(type)) + " " + std::to_string(group));
        Case c(*device_, mask.shape, mask.visible, type);
        expect_reference(c);
      }
}

// Documents that share blocks of queries and keys: huge values in one change no bit of the other.
TEST_F(AttentionRangesTest, WhatARowDoesNotSeeChangesNoBit) {
  const AttentionShape s = shape_of(1, 150, 4, 2, 16);
  for (const DType type : {DType::f32, DType::bf16})
    for (const bool hides_later : {true, false}) {
      Case plain(*device_, s, documents(s, {70, 80}), type);
      Case other(*device_, s, documents(s, {70, 80}), type);
      const std::int64_t seen = hides_later ? 0 : 70, hidden = hides_later ? 70 : 0;
      const std::int64_t num_seen = hides_later ? 70 : 80, num_hidden = 150 - num_seen;
      for (const Tensor* x : {&other.q, &other.k, &other.v, &other.dout})
        for (std::int64_t r = hidden; r < hidden + num_hidden; ++r)
          for (std::int64_t col = 0; col < x->view().cols(); ++col)
            set(*x, r, col, (r + col) % 2 == 0 ? 1e6f : -1e6f);
      for (Case* c : {&plain, &other}) {
        c->forward();
        c->backward();
      }
      for (auto x : {&Case::out, &Case::lse, &Case::dq, &Case::dk, &Case::dv})
        EXPECT_TRUE(same_bits((plain.*x)->slice_rows(seen, seen + num_seen),
                              (other.*x)->slice_rows(seen, seen + num_seen)));
    }
}

// Long enough for several threads to work on one kv head together.
TEST_F(AttentionRangesTest, LongSequencesAgreeWithTheReference) {
  const AttentionShape s = shape_of(1, 2200, 2, 1, 8);
  for (const DType type : {DType::f32, DType::bf16})
    for (const Visible& visible : {causal(s), causal(s, 0, 300), random_ranges(s, 5)}) {
      Case c(*device_, s, visible, type);
      expect_reference(c);
    }
}

TEST_F(AttentionRangesTest, BitsOfLongSequencesDoNotDependOnTheNumberOfThreads) {
  const AttentionShape s = shape_of(1, 2300, 4, 2, 16);
  for (const Visible& visible : {causal(s), random_ranges(s, 6)}) {
    std::vector<std::unique_ptr<Case>> runs;
    for (int threads : {1, 2, 5}) {
      kernels::set_num_threads(threads);
      Case& c = *runs.emplace_back(std::make_unique<Case>(*device_, s, visible, DType::bf16));
      c.forward();
      c.backward();
      for (auto result : {&Case::out, &Case::lse, &Case::dq, &Case::dk, &Case::dv})
        EXPECT_TRUE(same_bits((*runs.front()).*result, c.*result)) << threads;
    }
    kernels::set_num_threads(2);
  }
}

TEST_F(AttentionRangesTest, PartsOfTheKeysMergeToOneCall) {
  const AttentionShape s = shape_of(1, 200, 8, 2, 16);
  for (const Visible& visible : {causal(s), causal(s, 0, 30), random_ranges(s, 7)}) {
    Case exact(*device_, s, visible, DType::f32);
    expect_parts_equal_one_call(*device_, exact, {0, 64, 65, 130, 200}, 2e-6, 2e-6);
    // One call rounds its outputs to bf16, and probabilities by another maximum.
    Case rounded(*device_, s, visible, DType::bf16);
    expect_parts_equal_one_call(*device_, rounded, {0, 64, 65, 130, 200}, bf16_rounding,
                                bf16_rounding);
  }
}

// The first keys score 80 above the others, or 80 below: the smaller part all but vanishes, and
// nothing overflows, whichever comes first.
TEST_F(AttentionRangesTest, PartsWithLogSumExpsFarApartMerge) {
  const AttentionShape s = shape_of(1, 90, 4, 2, 16);
  for (const float distance : {80.0f, -80.0f, 1000.0f}) {
    Case c(*device_, s, causal(s, 0, 70), DType::f32);
    for (std::int64_t r = 0; r < s.query_length; ++r)
      for (std::int64_t head = 0; head < s.num_heads; ++head) set(c.q, r, head * s.head_dim, 1.0f);
    for (std::int64_t r = 0; r < s.key_length; ++r)
      for (std::int64_t head = 0; head < s.num_kv_heads; ++head)
        set(c.k, r, head * s.head_dim, r < 40 ? distance / s.scale : 0.0f);
    expect_parts_equal_one_call(*device_, c, {0, 40, 90}, 5e-6, 5e-5);
    const auto result =
        reference::attention_forward(s, c.visible, doubles(c.q), doubles(c.k), doubles(c.v));
    EXPECT_LT(relative_error(doubles(c.out), result.out), 1e-4);
  }
}

// Rows with lse -infinity take no part, whatever the ranges say.
TEST_F(AttentionRangesTest, RowsWithoutKeysGiveNoGradient) {
  const AttentionShape s = shape_of(1, 20, 2, 1, 8);
  Case c(*device_, s, causal(s), DType::f32);
  c.forward();
  for (std::int64_t r = 0; r < 10; ++r)
    for (std::int64_t head = 0; head < 2; ++head)
      c.lse->row<float>(r)[head] = -std::numeric_limits<float>::infinity();
  c.backward();
  for (const Tensor* x : {&c.dq, &c.dk, &c.dv})
    for (const double value : doubles(*x)) ASSERT_TRUE(std::isfinite(value));
  for (const double value : doubles(c.dq->slice_rows(0, 10))) EXPECT_EQ(value, 0);
  EXPECT_NE(doubles(c.dq->slice_rows(10, 20))[0], 0);
}

// Softmax over the keys and sinks in doubles: out and lse of every row and head.
reference::AttentionResult with_sinks(const Case& c, const std::vector<double>& sinks,
                                      std::int64_t num_sinks) {
  const AttentionShape& s = c.shape;
  auto result =
      reference::attention_forward(s, c.visible, doubles(c.q), doubles(c.k), doubles(c.v));
  for (std::size_t i = 0; i < result.lse.size(); ++i) {
    const auto head = i % static_cast<std::size_t>(s.num_heads);
    double sum = std::exp(result.lse[i]);
    for (std::int64_t n = 0; n < num_sinks; ++n)
      sum +=
          std::exp(sinks[head * static_cast<std::size_t>(num_sinks) + static_cast<std::size_t>(n)]);
    const double factor = std::exp(result.lse[i]) / sum;
    for (std::int64_t d = 0; d < s.head_dim; ++d)
      result.out[i * static_cast<std::size_t>(s.head_dim) + static_cast<std::size_t>(d)] *= factor;
    result.lse[i] = std::log(sum);
  }
  return result;
}

TEST_F(AttentionRangesTest, SinksTakeTheirShare) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const std::int64_t num_sinks : {1, 3}) {
      const AttentionShape s = shape_of(2, 30, 4, 2, 16);
      Case c(*device_, s, random_ranges(s, 8), type);
      const Tensor sinks = random_tensor(*device_, DType::f32, {4, num_sinks}, "sinks");
      c.forward();
      attention_sink_forward(sinks, s.head_dim, c.out, c.lse);
      const auto expected = with_sinks(c, doubles(sinks), num_sinks);
      EXPECT_LT(relative_error(doubles(c.out), expected.out), 2 * forward_tolerance(type));
      expect_lse(c.lse, expected.lse);
    }
}

TEST_F(AttentionRangesTest, SinkGradientsAgreeWithFiniteDifferences) {
  const std::int64_t num_sinks = 2;
  const AttentionShape s = shape_of(1, 12, 4, 2, 8);
  Case c(*device_, s, random_ranges(s, 9), DType::f32);
  const Tensor sinks = random_tensor(*device_, DType::f32, {4, num_sinks}, "sinks");
  const Tensor dsinks(*device_, Purpose::activation, DType::f32, {4, num_sinks});
  c.forward();
  attention_sink_forward(sinks, s.head_dim, c.out, c.lse);
  c.backward();
  attention_sink_backward(sinks, c.lse, c.delta, dsinks);
  const auto ds = doubles(c.dout);
  std::vector<double> at = doubles(sinks), slopes;
  const auto loss = [&] {
    const auto out = with_sinks(c, at, num_sinks).out;
    return std::inner_product(out.begin(), out.end(), ds.begin(), 0.0);
  };
  for (double& value : at) {
    const double centre = value;
    value = centre + 1e-5;
    const double above = loss();
    value = centre - 1e-5;
    slopes.push_back((above - loss()) / 2e-5);
    value = centre;
  }
  EXPECT_LT(relative_error(doubles(dsinks), slopes), 1e-5);
  attention_sink_backward(sinks, c.lse, c.delta, dsinks);  // adds
  for (double& slope : slopes) slope *= 2;
  EXPECT_LT(relative_error(doubles(dsinks), slopes), 1e-5);

  // Queries, keys and values: by the lse with sinks.
  auto qs = doubles(c.q);
  std::vector<double> dq;
  const Tensor nudged(*device_, Purpose::activation, DType::f32, c.queries());
  const auto whole_loss = [&] {
    auto result = reference::attention_forward(s, c.visible, qs, doubles(c.k), doubles(c.v));
    double sum = 0;
    for (std::size_t i = 0; i < result.lse.size(); ++i) {
      double both = std::exp(result.lse[i]);
      for (std::size_t n = 0; n < 2; ++n) both += std::exp(at[i % 4 * 2 + n]);
      for (std::size_t d = 0; d < 8; ++d)
        sum += result.out[i * 8 + d] * ds[i * 8 + d] * std::exp(result.lse[i]) / both;
    }
    return sum;
  };
  for (double& value : qs) {
    const double centre = value;
    value = centre + 1e-5;
    const double above = whole_loss();
    value = centre - 1e-5;
    dq.push_back((above - whole_loss()) / 2e-5);
    value = centre;
  }
  EXPECT_LT(relative_error(doubles(c.dq), dq), 1e-4);
}

// A row that sees no key sees its sinks: its output is 0 and its lse theirs.
TEST_F(AttentionRangesTest, SinksOfRowsWithoutKeys) {
  const AttentionShape s = shape_of(1, 5, 1, 1, 8);
  Visible nothing;
  nothing.first.assign(5, 0);
  nothing.end.assign(5, 0);
  Case c(*device_, s, nothing, DType::f32);
  c.forward();
  const Tensor sinks = random_tensor(*device_, DType::f32, {1, 1}, "sinks");
  attention_sink_forward(sinks, s.head_dim, c.out, c.lse);
  for (const double value : doubles(c.out)) EXPECT_EQ(value, 0);
  for (const double value : doubles(c.lse)) EXPECT_NEAR(value, doubles(sinks)[0], 1e-6);
}

}  // namespace
}  // namespace switchyard::kernels

int main(int argc, char** argv) {
  return switchyard::test::run_tests_on_isa(argc, argv);
}
