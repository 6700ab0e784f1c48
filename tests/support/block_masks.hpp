// Which keys queries see under patterns of blocks, one pair at a time, as the papers have them. The
// oracles of the tests read these; positions count from the sequence's first.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace switchyard::test {

// Sparse Transformer, "fixed": the query's own block, and the last `summary` of every other.
inline bool sees_fixed(std::int64_t stride, std::int64_t summary, std::int64_t query,
                       std::int64_t key) {
  const bool is_summary = key % stride >= stride - summary;
  return key <= query && (query / stride == key / stride || is_summary);
}

// Sparse Transformer, "strided": one half of the heads looks near, the other in steps.
inline bool sees_strided(std::int64_t stride, bool in_steps, std::int64_t query, std::int64_t key) {
  return key <= query && (in_steps ? (query - key) % stride == 0 : query - key < stride);
}

// BigBird, causal.
struct BigBirdMask {
  std::int64_t block = 1, window_blocks = 1, global_blocks = 0;
  std::vector<std::vector<std::int64_t>> drawn = {};  // by block of queries

  bool sees(std::int64_t query, std::int64_t key) const {
    const std::int64_t own = query / block, other = key / block;
    const auto& random = drawn[static_cast<std::size_t>(own)];
    return key <= query && (own - other < window_blocks || other < global_blocks ||
                            std::ranges::find(random, other) != random.end());
  }
};

// Transformer-XL: the query's segment, and the `memory` positions before it.
inline bool sees_segment(std::int64_t length, std::int64_t memory, std::int64_t query,
                         std::int64_t key) {
  return key <= query && key >= query / length * length - memory;
}

}  // namespace switchyard::test
