// Scores by distance that depend on the query, too (AttentionShape::distance_keys): of a tile of
// queries and keys whose positions go on one by one, only nq + nk - 1 distances occur. One product
// has the scores of all queries with all of these, and row a of the queries reads its keys from
// there, the last first ("skew": Dai et al. 2019).
#pragma once

#include "kernels/cpu/attention/attention_blocks.hpp"

namespace switchyard::kernels::cpu {

// R rows of a query block, E distances of a tile, D head_dim. Nothing where there are no distances.
struct DistanceScratch {
  DistanceScratch(Carver& carver, const AttentionBlocks& blocks, bool for_backward);
  std::byte* queries = nullptr;  // [R, D]: of the query block
  std::byte* keys = nullptr;     // [E, D]
  float* scores = nullptr;       // [R, E]
  std::byte* dscores = nullptr;  // [R, E], of the operands' type
  float* dkeys = nullptr;        // [E, D]
  std::byte* scratchpad = nullptr;
};

class AttentionDistances {
 public:
  explicit AttentionDistances(const AttentionBlocks& blocks) : blocks_(blocks) {}
  bool are_scored() const { return blocks_.shape().num_distances > 0; }

  // scores [padded rows, padded keys] of a query block: what distances give is added, before the
  // scale.
  void add_scores(const HeadGroup& g, const Range& queries, const Range& keys, float* scores,
                  const DistanceScratch& s) const;
  // dscores: of the operands' type, 0 where nothing is seen. dqueries [padded rows, D] and dkeys
  // [distances, D] are added to.
  void add_gradients(const HeadGroup& g, const Range& queries, const Range& keys,
                     const std::byte* dscores, float* dqueries, float* dkeys,
                     const DistanceScratch& s) const;

 private:
  // Queries and keys counted from the blocks' first; the distance of the first query from the last
  // key.
  struct Tile {
    Range queries, keys;
    std::int64_t first_distance = 0;
    std::int64_t num_distances() const { return queries.count + keys.count - 1; }
  };
  std::vector<Tile> tiles_of(const Range& queries, const Range& keys) const;
  // The rows of the distances of a tile; zeros for those that no key has.
  void gather_keys(const HeadGroup& g, const Tile& tile, std::byte* block) const;

  const AttentionBlocks& blocks_;
};

}  // namespace switchyard::kernels::cpu
