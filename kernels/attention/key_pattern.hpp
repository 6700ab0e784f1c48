// Which positions of its document a query of attention sees, by their numbers alone. A query at
// position p, in a document that begins at b, sees
//   a window       of `window` positions up to p, or, with a `block`, up to the end of the block
//                  that p is in, as far as p: windows then begin at fixed places (segments with
//                  memory: Dai et al., "Transformer-XL", 2019)
//   globals        b ... b + globals - 1, as far as they are before the window
//   random blocks  of those between globals and window, drawn for each block of queries (BigBird:
//                  Zaheer et al. 2020, in a causal form)
//   a summary      the last `summary` positions of each block, up to p ("fixed" of Sparse
//                  Transformers: Child et al. 2019)
// or, with a `stride`, the first half of the heads the window, the second half the positions p,
// p - stride, p - 2 stride ... ("strided" of the same). Blocks are counted from position 0.
//
// Every query sees several sets of keys, each a range of places among the keys in an order by
// groups: summaries before all others, positions of one residue together, else one group.
#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <vector>

#include "tensor/position_range.hpp"

namespace switchyard::kernels {

// A value that layers ask by.
struct KeyPattern {
  // Not explicit: a window alone is the usual pattern.
  KeyPattern(std::int64_t tokens = 0, std::int64_t first_tokens = 0)
      : window(tokens), globals(tokens > 0 ? first_tokens : 0) {}
  std::int64_t window;   // tokens; 0: all
  std::int64_t globals;  // with a window: the first `globals` of the document, too
  // Where rows are brought together: whether a document may begin anywhere, and its globals with
  // it.
  bool begins_anywhere = false;
  std::int64_t block = 0;     // tokens; 0: windows end at their query
  bool before_block = false;  // of the window only what is before the query's block
  std::int64_t summary = 0;   // of a block; not beside globals
  std::int64_t stride = 0;    // without a window: of all heads
  std::int64_t random_blocks = 0;
  std::int64_t random_stream = 0;  // what is drawn differs by it
  // Beside the window, of the whole blocks before it (kernels/attention/block_choice.hpp): so many
  // that each query chooses, and so many summaries of each.
  std::int64_t chosen_blocks = 0;
  std::int64_t summaries = 0;
  bool without_window = false;  // such blocks alone
  // Or nothing but keys of the query's class (kernels/attention/hash_classes.hpp): by how many
  // rounds of hashing, into how many buckets, and so many of the last of each.
  std::int64_t hash_rounds = 0;
  std::int64_t num_buckets = 0;
  std::int64_t class_window = 0;

  // The window and the first tokens alone, in the order of positions.
  bool is_plain() const { return block == 0 && stride == 0; }
  // Whether the two halves of the heads see differently.
  bool has_halves() const { return stride > 0 && window > 0; }
  bool sees_residues() const { return stride > 0 && window == 0; }
  // Whether keys are not told by positions alone.
  bool is_hierarchical() const { return chosen_blocks > 0 || summaries > 0 || has_classes(); }
  bool has_classes() const { return hash_rounds > 0; }
  // Whether a query may see what is behind window and globals.
  bool reaches_far() const {
    return random_blocks > 0 || summary > 0 || stride > 0 || is_hierarchical();
  }
  // The window of a hierarchical pattern by itself.
  KeyPattern window_alone() const {
    KeyPattern alone(window);
    alone.block = block;
    return alone;
  }
  // The parts of a hierarchical pattern that have a softmax of their own where branches are gated:
  // summaries, chosen blocks, the window.
  std::array<KeyPattern, 3> branches() const {
    KeyPattern compressed = *this, selected = *this;
    compressed.without_window = selected.without_window = true;
    compressed.chosen_blocks = selected.summaries = 0;
    return {compressed, selected, window_alone()};
  }
  // The numbers of the blocks in the document before the query's window.
  PositionRange whole_blocks(std::int64_t position, std::int64_t document_begin) const {
    const std::int64_t first = (document_begin + block - 1) / block;
    return {first, std::max<std::int64_t>(window_begin(position) / block - first, 0)};
  }
  // Whether the ranges of a set never go back from one query to the next.
  bool ascends() const { return random_blocks == 0; }
  std::int64_t num_sets() const {
    return 1 + (globals > 0 ? 1 : 0) + (summary > 0 ? 1 : 0) + random_blocks;
  }
  // Whether rows take their places by groups.
  bool orders_queries() const { return sees_residues(); }
  bool orders_keys() const { return sees_residues() || summary > 0; }
  std::int64_t group_of(std::int64_t position) const;
  // The first position of the window, not below 0; 0 without one.
  std::int64_t window_begin(std::int64_t position) const;
  auto operator<=>(const KeyPattern&) const = default;
};

// Heads of an attention that see by one pattern: begin ... end - 1.
struct HeadShare {
  KeyPattern pattern;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
// Of heads first_head ... first_head + num_heads - 1 of all_heads; begin and end count from the
// first.
std::vector<HeadShare> head_shares(const KeyPattern& pattern, std::int64_t num_heads,
                                   std::int64_t first_head, std::int64_t all_heads);

// Queries at so many places in a row see alike, and the next ones otherwise
// (AttentionShape::query_block), or, of a window, half as many as it shows: of more, most scores
// would be masked. 0: their ranges go on without a leap. num_queries: of a sequence.
std::int64_t query_block(const KeyPattern& pattern, std::int64_t num_queries);

// The random blocks of the queries in block number `block`, ascending: a function of the pattern
// and the block alone. Fewer than asked for where there are fewer.
std::vector<std::int64_t> drawn_blocks(const KeyPattern& pattern, std::int64_t block);

// Keys of one group at the positions begin ... end - 1; none if end <= begin.
struct SeenKeys {
  std::int64_t group = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// What queries see, set by set. Queries of one block are best asked for one after the other.
class SeenSets {
 public:
  explicit SeenSets(const KeyPattern& pattern) : pattern_(pattern) {}
  SeenKeys seen(std::int64_t set, std::int64_t position, std::int64_t document_begin);

 private:
  KeyPattern pattern_;
  std::int64_t block_ = -1;  // whose blocks are drawn
  std::vector<std::int64_t> drawn_;
};

// Rows in the order of their groups, and of their positions within a group.
class RowOrder {
 public:
  // Of the rows of `positions`, ascending and apart.
  RowOrder(const KeyPattern& pattern, std::int64_t num_groups,
           std::span<const PositionRange> positions);
  std::int64_t num_places() const { return std::ssize(rows_); }
  std::span<const std::int32_t> rows() const { return rows_; }  // by place
  std::int64_t position(std::int64_t place) const {
    return positions_[static_cast<std::size_t>(place)];
  }
  // The place of the first row of the group at `position` or behind it.
  std::int64_t place(std::int64_t group, std::int64_t position) const;

 private:
  std::vector<std::int32_t> rows_, positions_;
  std::vector<std::int64_t> group_begins_;
};
RowOrder key_order(const KeyPattern& pattern, std::span<const PositionRange> keys);
RowOrder query_order(const KeyPattern& pattern, std::span<const PositionRange> queries);

// The positions that at least one of the queries sees when documents are left aside: what must be
// brought to them.
std::vector<PositionRange> seen_positions(std::span<const PositionRange> queries,
                                          const KeyPattern& pattern);

// Positions of a sequence of `length` among which are all whose queries see at least one of the
// keys, likewise: what must be brought to keys. No others, but for patterns of blocks.
std::vector<PositionRange> seeing_positions(std::span<const PositionRange> keys,
                                            const KeyPattern& pattern, std::int64_t length);

}  // namespace switchyard::kernels
