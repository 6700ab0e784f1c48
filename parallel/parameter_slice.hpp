// Which part of a parameter's global tensor a rank holds: runs of indices along one dim, and all of
// the other dims. Experts are one run of dim 0. A fused tensor whose parts are each cut gives
// several: q|k|v of 8 heads and 2 kv heads of 64, cut over 2 ranks, is for the second rank
//   rows [256, 512) of q, [512 + 64, 512 + 128) of k, [640 + 64, 640 + 128) of v
//   Slice(0, {{256, 512}, {576, 640}, {704, 768}})
// The rank's own tensor is these runs one after the other along that dim, row-major, in any order:
// experts lie as a placement has them. Everything that must know where an element of it belongs
// (initial values, ownership, checkpoints) asks here, so a new way to cut changes nothing else.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/shape.hpp"

namespace switchyard {

struct IndexRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
  friend bool operator==(const IndexRange&, const IndexRange&) = default;
};

class Slice {
 public:
  // Runs without overlap; empty ones count for nothing, and without any other the rank holds
  // nothing. InternalError if they are not so.
  Slice(int dim, std::vector<IndexRange> runs);
  // These indices, in this order.
  static Slice of(int dim, std::span<const std::int64_t> indices);
  static Slice whole(const Shape& shape) { return Slice(0, {{0, shape[0]}}); }

  int dim() const { return dim_; }
  // As they lie in the local tensor; none empty, none that goes on where the one before ends.
  const std::vector<IndexRange>& runs() const { return runs_; }
  std::int64_t num_held() const;                   // indices of the dim
  std::int64_t index_of(std::int64_t held) const;  // in the global tensor, of the n-th held index
  // InternalError unless the shape has the dim and all runs lie inside.
  void expect_inside(const Shape& global_shape) const;
  Shape local_shape(const Shape& global_shape) const;

 private:
  int dim_;
  std::vector<IndexRange> runs_;
};

// An index of a parameter's first dim that several ranks of the expert axis hold: a replicated
// expert.
struct SharedIndex {
  std::int64_t index = 0;
  std::vector<int> ranks;  // ascending; the first one counts and saves it
};
// Beside one rank for each index.
inline std::int64_t num_replicas_of(std::span<const SharedIndex> shared) {
  std::int64_t sum = 0;
  for (const SharedIndex& each : shared) sum += static_cast<std::int64_t>(each.ranks.size()) - 1;
  return sum;
}

// Where one element of the flattened local tensor lies in the flattened global one.
std::int64_t global_index_of(const Shape& global_shape, const Slice& slice, std::int64_t local);

// Elements that lie alike in two flattened tensors: `count` stretches of `numel` neighbours, one
// stride from each beginning to the next (0 if there is one only).
struct SlicePiece {
  std::int64_t global_begin = 0;
  std::int64_t local_begin = 0;
  std::int64_t numel = 0;
  std::int64_t count = 1;
  std::int64_t global_stride = 0;
  std::int64_t local_stride = 0;

  std::int64_t total() const { return numel * count; }
};

// Where the elements [begin, begin + numel) of the flattened local tensor lie in the flattened
// global one; local_begin counts from `begin` on. At most three pieces a run, ascending in the
// global tensor by their first elements (and so in the local one, where the runs ascend).
std::vector<SlicePiece> pieces_of(const Shape& global_shape, const Slice& slice, std::int64_t begin,
                                  std::int64_t numel);

}  // namespace switchyard
