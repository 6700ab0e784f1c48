// Attention with grouped queries over a range of keys for each query, in blocks with an online
// softmax: no [L, L] matrix exists, and blocks that no query sees cost nothing.
//   out = softmax(scale * q k^T over the range) v       lse = log sum exp(scale * q k^T)
// Scores may be lowered by distance, slope * (position of the query - that of the key), with a
// slope of each head (ALiBi: Press et al. 2022), or get what is learned for it (DistanceBias), or
// scale * p_i r_d with other queries p and a key r_d of each distance d (Transformer-XL: Dai et al.
// 2019); on the CPU only. Running maximum, sum, output
// accumulator and every gradient accumulator are fp32 (Dao et al., "FlashAttention", 2022). The
// keys may come in parts, one call each: outputs in fp32 are merged by their log-sum-exps (Merge),
// and a part's gradients need only the whole row's lse and delta. Deterministic: every sum has a
// fixed order whatever the number of threads. A call may have a share of whole sequences ("held"):
// their lengths and ranges are still those of all queries and keys, and so are the blocks, at fixed
// places of the whole sequence. Every result then has the bits that a call with everything has:
// out, lse and dq if all keys are held that the held queries see, dk and dv if all queries are held
// that see the held keys. A block of which only some rows are held is computed as a whole. On the
// CPU only.
#pragma once

#include <span>

#include "kernels/attention/distance_bias.hpp"
#include "kernels/attention/key_ranges.hpp"
#include "kernels/poll.hpp"
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
  float scale = 1.0f;  // usually 1 / sqrt(head_dim)
  // The positions whose rows are there, ascending and apart; empty: all. Borrowed. q, out, lse,
  // delta, dout and dq have num_sequences * num_held_queries() rows, k, v, dk and dv
  // num_sequences * num_held_keys().
  std::span<const PositionRange> held_queries = {};
  std::span<const PositionRange> held_keys = {};
  // Places of queries that see alike, where ranges leap behind them: blocks are then no larger. 0:
  // as is quickest.
  std::int64_t query_block = 0;

  // By head; empty: nothing is lowered. Borrowed.
  std::span<const float> slopes = {};
  DistanceBias bias = {};  // is added after the scale
  // Keys of distances 0 ... num_distances - 1; 0: none. p like q; r: [num_distances, num_kv_heads *
  // head_dim], of q's type. Borrowed.
  std::int64_t num_distances = 0;
  TensorView distance_queries = {};
  TensorView distance_keys = {};
  // Positions of the rows of queries and of keys, ascending and apart, for distances; empty: a row
  // is at its number. Of held shares rows are whole sequences'. Borrowed.
  std::span<const PositionRange> query_positions = {};
  std::span<const PositionRange> key_positions = {};

  std::int64_t num_held_queries() const {
    return held_queries.empty() ? query_length : num_positions(held_queries);
  }
  std::int64_t num_held_keys() const {
    return held_keys.empty() ? key_length : num_positions(held_keys);
  }
};

// What happens to a result that is already there: it is overwritten, or what the view holds is the
// result over other keys (or of other queries), and becomes that over both.
enum class Merge : std::uint8_t { replace, with_before };

// q: [num_sequences * query_length, num_heads * head_dim]; k, v: [num_sequences * key_length,
// num_kv_heads * head_dim]; all of one type (f32 or bf16), rows may be strided (slices of one qkv
// buffer). out: as q, or f32 (Merge::with_before: must be). lse: f32 [num_sequences * query_length,
// num_heads], natural logarithm. A row that sees no key gets out 0 and lse -infinity; merging
// leaves it as it is. workspace: u8, at least attention_workspace_bytes for one thread.
void attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                       const TensorView& v, const KeyRanges& ranges, const TensorView& out,
                       const TensorView& lse, Merge merge, const TensorView& workspace,
                       const Poll& poll = {});

// delta[r, h] = sum over head h of dout[r] * out[r], f32 [rows, num_heads]. out and dout: [rows,
// num_heads * head_dim], each f32 or bf16. Once for the whole row, not for each part of its keys.
void attention_delta(const TensorView& out, const TensorView& dout, std::int64_t head_dim,
                     const TensorView& delta);

// dq as q, dk and dv as k: each of their type, or f32. with_before adds to what is there and needs
// f32. No dq, or neither dk nor dv: it is not computed. dbias: with dq and with a bias; of each
// query row by itself, so that the sum over rows is the caller's business. Borrowed.
struct AttentionGradients {
  TensorView dq;
  TensorView dk;
  TensorView dv;
  Merge dq_merge = Merge::replace;  // and of dbias
  Merge dkv_merge = Merge::replace;
  // Of the keys of distances: dp like dq, beside it; dr f32, like r, added to.
  TensorView dp = {};
  TensorView dr = {};
  TensorView dbias = {};  // f32 [num_sequences * query_length, num_heads * num_parameters]

  bool has_dq() const { return dq.device != nullptr; }
  bool has_dbias() const { return dbias.device != nullptr; }
  bool has_dkv() const { return dk.device != nullptr || dv.device != nullptr; }
};

// lse, delta: of the whole row, over all keys and sinks; P = exp(score - lse). A row with lse
// -infinity gives no gradient. dout: as q.
void attention_backward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                        const TensorView& v, const KeyRanges& ranges, const TensorView& lse,
                        const TensorView& delta, const TensorView& dout,
                        const AttentionGradients& gradients, const TensorView& workspace,
                        const Poll& poll = {});

// Scratch for forward and backward on a machine: a device's target(). Threads decide it on the CPU.
std::int64_t attention_workspace_bytes(const AttentionShape& shape, DType dtype,
                                       const PlanTarget& target);

}  // namespace switchyard::kernels
