// Causal attention with grouped queries, in blocks with an online softmax: no [L, L] matrix exists.
//   out = softmax(scale * q k^T + mask) v            lse = log sum exp(scale * q k^T + mask)
// Running maximum, sum, output accumulator and every gradient accumulator are fp32 (Dao et al.,
// "FlashAttention", 2022; backward from out, lse: dS = P * (dP - rowsum(dout * out))).
// Deterministic: gradients are summed in a fixed order whatever the number of threads.
#pragma once

#include "kernels/threads.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

struct AttentionShape {
  std::int64_t num_sequences = 0;
  std::int64_t query_length = 0;  // queries per sequence
  std::int64_t key_length = 0;    // keys per sequence
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;  // divides num_heads; head h reads kv head h / (heads / kv_heads)
  std::int64_t head_dim = 0;
  float scale = 1.0f;             // usually 1 / sqrt(head_dim)
  // The first query's position among the keys: query i sees keys 0 ... query_offset + i. Training:
  // 0 with query_length == key_length; generation with a cache: key_length - query_length.
  std::int64_t query_offset = 0;
};

// q, out: [num_sequences * query_length, num_heads * head_dim]; k, v: [num_sequences * key_length,
// num_kv_heads * head_dim]; all of one type (f32 or bf16), rows may be strided (slices of one qkv
// buffer). lse: f32 [num_sequences * query_length, num_heads], natural logarithm; written.
// workspace: u8, at least attention_workspace_bytes(shape, dtype).
void attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                       const TensorView& v, const TensorView& out, const TensorView& lse,
                       const TensorView& workspace);

// dq, dk, dv: as q, k, v; overwritten.
void attention_backward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                        const TensorView& v, const TensorView& out, const TensorView& lse,
                        const TensorView& dout, const TensorView& dq, const TensorView& dk,
                        const TensorView& dv, const TensorView& workspace);

// Scratch for forward and backward. num_threads decides it, so that a plan for another machine can
// ask for that machine's; on this process's own runs pass num_threads().
std::int64_t attention_workspace_bytes(const AttentionShape& shape, DType dtype, int num_threads);

}  // namespace switchyard::kernels
