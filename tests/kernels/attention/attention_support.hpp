// Operands and results of one call of both passes of attention, on any device, masks that tests
// make up, and the comparison with the reference.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "kernels/attention/attention.hpp"
#include "tests/kernels/products/products_support.hpp"
#include "tests/support/reference_attention.hpp"

namespace switchyard::test {

using kernels::AttentionShape;
using kernels::Merge;
using reference::Visible;

inline AttentionShape shape_of(std::int64_t sequences, std::int64_t length, std::int64_t heads,
                               std::int64_t kv_heads, std::int64_t head_dim) {
  return {.num_sequences = sequences,
          .query_length = length,
          .key_length = length,
          .num_heads = heads,
          .num_kv_heads = kv_heads,
          .head_dim = head_dim,
          .scale = 1.0f / std::sqrt(static_cast<float>(head_dim))};
}

// Query i at position offset + i, as causal_ranges(), written down once more.
inline Visible causal(const AttentionShape& s, std::int64_t offset = 0, std::int64_t window = 0) {
  Visible visible;
  for (std::int64_t n = 0; n < s.num_sequences; ++n)
    for (std::int64_t i = 0; i < s.query_length; ++i) {
      const std::int64_t end = std::min(s.key_length, offset + i + 1);
      const std::int64_t first =
          window > 0 ? std::clamp<std::int64_t>(offset + i + 1 - window, 0, end) : 0;
      visible.first.push_back(static_cast<std::int32_t>(first));
      visible.end.push_back(static_cast<std::int32_t>(end));
    }
  return visible;
}

// Ranges in memory of a device.
struct DeviceRanges {
  DeviceRanges(Device& device, const Visible& visible)
      : first(device, Purpose::activation, DType::i32, {std::ssize(visible.first)}),
        end(device, Purpose::activation, DType::i32, {std::ssize(visible.end)}),
        ranges{first, end, static_cast<double>(visible.num_pairs())} {
    std::ranges::copy(visible.first, first->as<std::int32_t>());
    std::ranges::copy(visible.end, end->as<std::int32_t>());
  }
  Tensor first, end;
  kernels::KeyRanges ranges;
};

struct AttentionCase {
  AttentionCase(Device& device, const AttentionShape& s, Visible seen, DType type,
                float factor = 1.0f, std::string keys_name = "")
      : shape(s),
        visible(std::move(seen)),
        on_device(device, visible),
        ranges(on_device.ranges),
        q(random_tensor(device, type, queries(), "q", factor)),
        k(random_tensor(device, type, keys(), "k" + keys_name, factor)),
        v(random_tensor(device, type, keys(), "v" + keys_name)),
        dout(random_tensor(device, type, queries(), "dout")),
        out(random_tensor(device, type, queries(), "garbage")),
        lse(random_tensor(device, DType::f32, values(), "garbage")),
        delta(random_tensor(device, DType::f32, values(), "garbage")),
        dq(random_tensor(device, type, queries(), "garbage")),
        dk(random_tensor(device, type, keys(), "garbage")),
        dv(random_tensor(device, type, keys(), "garbage")),
        workspace(device, Purpose::workspace, DType::u8,
                  {attention_workspace_bytes(s, type, device.target())}) {}

  Shape queries() const {
    return {shape.num_sequences * shape.query_length, shape.num_heads * shape.head_dim};
  }
  Shape keys() const {
    return {shape.num_sequences * shape.key_length, shape.num_kv_heads * shape.head_dim};
  }
  Shape values() const { return {shape.num_sequences * shape.query_length, shape.num_heads}; }
  void forward() { attention_forward(shape, q, k, v, ranges, out, lse, Merge::replace, workspace); }
  void backward() {
    kernels::attention_delta(out, dout, shape.head_dim, delta);
    attention_backward(shape, q, k, v, ranges, lse, delta, dout, {dq, dk, dv}, workspace);
  }

  AttentionShape shape;
  Visible visible;
  DeviceRanges on_device;
  kernels::KeyRanges ranges;
  Tensor q, k, v, dout, out, lse, delta, dq, dk, dv, workspace;
};

inline AttentionShape with_keys(AttentionShape s, std::int64_t key_length) {
  s.key_length = key_length;
  return s;
}

// Ranges that a walk through the keys makes, a function of the seed alone: both ends go forward by
// jumps of which some are long (holes), and now and then a row or a run of rows sees nothing.
inline Visible random_ranges(const AttentionShape& s, std::uint64_t seed) {
  Visible visible;
  for (std::int64_t n = 0; n < s.num_sequences; ++n) {
    std::int64_t first = 0, end = 0;
    for (std::int64_t i = 0; i < s.query_length; ++i) {
      const auto words = random_words(random_key(seed, "ranges"), static_cast<std::uint64_t>(n),
                                      static_cast<std::uint64_t>(i));
      const std::int64_t step = 2 * s.key_length / s.query_length + 2;
      if (words[0] % 4 != 0) end += words[1] % step;
      if (words[0] % 37 == 0) end += s.key_length / 5;
      end = std::min(end, s.key_length);
      if (words[2] % 3 == 0) first += words[3] % (2 * step);
      if (words[2] % 23 == 0) first = end;
      first = std::min(first, end);
      visible.first.push_back(static_cast<std::int32_t>(first));
      visible.end.push_back(static_cast<std::int32_t>(end));
    }
  }
  return visible;
}

// A row sees its own document up to itself; documents are `lengths` long, over and over.
inline Visible documents(const AttentionShape& s, const std::vector<std::int64_t>& lengths) {
  Visible visible;
  for (std::int64_t n = 0; n < s.num_sequences; ++n) {
    std::int64_t begin = 0;
    std::size_t document = 0;
    for (std::int64_t i = 0; i < s.query_length; ++i) {
      if (i - begin == lengths[document % lengths.size()]) {
        begin = i;
        ++document;
      }
      visible.first.push_back(static_cast<std::int32_t>(begin));
      visible.end.push_back(static_cast<std::int32_t>(i + 1));
    }
  }
  return visible;
}

// Relative to the reference in doubles. bf16, forward: probabilities and outputs are each rounded
// once, each by less than half the worst case in the mean. Backward: probabilities, dout * out (out
// is rounded), score gradients and the results; terms cancel, so twice as much again.
inline double forward_tolerance(DType type) {
  return type == DType::f32 ? 1e-5 : bf16_rounding;
}
inline double backward_tolerance(DType type) {
  return type == DType::f32 ? 1e-5 : 4 * bf16_rounding;
}

inline void expect_lse(const TensorView& lse, const std::vector<double>& expected) {
  const auto values = doubles(lse);
  ASSERT_EQ(values.size(), expected.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    if (expected[i] == -std::numeric_limits<double>::infinity())
      ASSERT_EQ(values[i], expected[i]) << i;
    else
      ASSERT_NEAR(values[i], expected[i], 1e-5 * (1 + std::abs(expected[i]))) << i;
}

// Both passes against the reference.
inline void expect_reference(AttentionCase& c) {
  const DType type = c.q->dtype;
  const auto qs = doubles(c.q), ks = doubles(c.k), vs = doubles(c.v), ds = doubles(c.dout);
  c.forward();
  const auto result = reference::attention_forward(c.shape, c.visible, qs, ks, vs);
  EXPECT_LT(relative_error(doubles(c.out), result.out), forward_tolerance(type));
  expect_lse(c.lse, result.lse);
  c.backward();
  const auto gradient = reference::attention_backward(c.shape, c.visible, qs, ks, vs, ds);
  EXPECT_LT(relative_error(doubles(c.dv), gradient.dv), backward_tolerance(type));
  // With one visible key the softmax is constant and both gradients vanish.
  if (c.shape.key_length == 1) return;
  EXPECT_LT(relative_error(doubles(c.dq), gradient.dq), backward_tolerance(type));
  EXPECT_LT(relative_error(doubles(c.dk), gradient.dk), backward_tolerance(type));
}

}  // namespace switchyard::test
