// Operands and results of one call of both passes of attention, on any device, and a mask that a
// test makes up.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "kernels/attention.hpp"
#include "tests/kernels/products_support.hpp"
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

struct AttentionCase {
  AttentionCase(Device& device, const AttentionShape& s, Visible seen, DType type,
                float factor = 1.0f, std::string keys_name = "")
      : shape(s),
        visible(std::move(seen)),
        ranges{view_of(device, visible.first.data(), {s.num_sequences * s.query_length}),
               view_of(device, visible.end.data(), {s.num_sequences * s.query_length}),
               static_cast<double>(visible.num_pairs())},
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
                  {attention_workspace_bytes(s, type, kernels::num_threads())}) {}
  AttentionCase(const AttentionCase&) = delete;  // the ranges borrow
  AttentionCase& operator=(const AttentionCase&) = delete;

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
  kernels::KeyRanges ranges;
  Tensor q, k, v, dout, out, lse, delta, dq, dk, dv, workspace;
};

}  // namespace switchyard::test
