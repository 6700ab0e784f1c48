// How the backward pass of attention divides its work, and what it computes in.
#pragma once

#include <algorithm>
#include <optional>

#include "kernels/cpu/attention/attention_blocks.hpp"
#include "kernels/cpu/attention/attention_distances.hpp"

namespace switchyard::kernels::cpu {

// A kv head of this many queries is enough for several threads, and its stacked operands are no
// longer kept.
inline constexpr std::int64_t longest_short_sequence = 2048;
inline constexpr std::int64_t max_lanes_of_block = 16;
inline constexpr std::int64_t max_lanes_with_distances = 4;  // each has a sum of their gradients
inline constexpr std::int64_t query_blocks_of_lane =
    4;  // at least; a lane costs a sum of dk and dv
// Of windows few query blocks see a key block: then less is enough.
inline constexpr std::int64_t rows_of_lane = 128;
inline constexpr std::int64_t few_lanes = 4;

// With keys of distances a kv head is always everybody's: their gradients are sums over sequences.
inline bool is_long(const AttentionBlocks& b) {
  return b.shape().query_length > longest_short_sequence || b.shape().num_distances > 0;
}

inline std::int64_t max_lanes(const AttentionBlocks& b) {
  if (b.shape().num_distances > 0) return max_lanes_with_distances;
  return is_long(b) ? max_lanes_of_block : 1;
}

inline std::int64_t num_lanes(const AttentionBlocks& b, const Range& query_blocks) {
  const std::int64_t few = std::min(
      {query_blocks.count * b.max_rows() / rows_of_lane, few_lanes, query_blocks.count});
  return std::clamp<std::int64_t>(std::max(query_blocks.count / query_blocks_of_lane, few), 1,
                                  max_lanes(b));
}

// What a lane reads and computes. R rows of a query block, N keys of a key block, D head_dim;
// Q query blocks of a short sequence, which are stacked once, or 1.
struct LaneScratch {
  LaneScratch(Carver& carver, const AttentionBlocks& b) {
    const std::int64_t stacked = b.max_rows() * (is_long(b) ? 1 : b.num_query_blocks());
    const std::int64_t scores_numel = b.max_rows() * b.max_keys();
    q = carver.take<std::byte>(b.operand_bytes(stacked * b.head_dim()));
    dout = carver.take<std::byte>(b.operand_bytes(stacked * b.head_dim()));
    lse = carver.take<float>(stacked);
    delta = carver.take<float>(stacked);
    k = carver.take<std::byte>(b.operand_bytes(b.max_keys() * b.head_dim()));
    v = carver.take<std::byte>(b.operand_bytes(b.max_keys() * b.head_dim()));
    scores = carver.take<float>(scores_numel);
    dprobs = carver.take<float>(scores_numel);
    probs = carver.take<std::byte>(b.operand_bytes(scores_numel));
    dscores = carver.take<std::byte>(b.operand_bytes(scores_numel));
    from = carver.take<std::int32_t>(b.max_rows());
    to = carver.take<std::int32_t>(b.max_rows());
    scratchpad = carver.take<std::byte>(scratchpad_bytes);
    distances.emplace(carver, b, true);
  }
  std::optional<DistanceScratch> distances;
  std::byte* q;        // [Q, R, D]
  std::byte* dout;     // [Q, R, D]
  float* lse;          // [Q, R], to base 2
  float* delta;        // [Q, R]
  std::byte* k;        // [N, D]
  std::byte* v;        // [N, D]
  float* scores;       // [R, N]
  float* dprobs;       // [R, N]
  std::byte* probs;    // [R, N]
  std::byte* dscores;  // [R, N]
  std::int32_t* from;  // [R], visible keys of the block
  std::int32_t* to;    // [R]
  std::byte* scratchpad;
};

inline std::int64_t num_parameters(const AttentionBlocks& b) {
  return b.shape().bias.num_parameters;
}

inline std::int64_t num_distances(const AttentionBlocks& b) {
  return b.shape().num_distances;
}

// The sums of a kv head under way. B query blocks.
struct GroupScratch {
  GroupScratch(Carver& carver, const AttentionBlocks& b) {
    dq = carver.take<float>(b.num_query_blocks() * b.max_rows() * b.head_dim());
    dbias = carver.take<float>(b.num_query_blocks() * b.max_rows() * num_parameters(b));
    dk = carver.take<float>(max_lanes(b) * b.max_keys() * b.head_dim());
    dv = carver.take<float>(max_lanes(b) * b.max_keys() * b.head_dim());
    if (num_distances(b) == 0) return;
    dp = carver.take<float>(b.num_query_blocks() * b.max_rows() * b.head_dim());
    dr = carver.take<float>(max_lanes(b) * num_distances(b) * b.head_dim());
  }
  float* dp = nullptr;  // [B, R, D], with keys of N' distances
  float* dr = nullptr;  // [lanes, N', D], likewise
  float* dq;            // [B, R, D]
  float* dbias;         // [B, R, U], with a bias of U parameters a head
  float* dk;            // [lanes, N, D]
  float* dv;            // [lanes, N, D]
};

}  // namespace switchyard::kernels::cpu
