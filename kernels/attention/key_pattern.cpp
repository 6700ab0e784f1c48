#include "kernels/attention/key_pattern.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "tensor/error.hpp"
#include "tensor/random.hpp"

namespace switchyard::kernels {

std::int64_t KeyPattern::group_of(std::int64_t position) const {
  if (sees_residues()) return position % stride;
  return summary > 0 && position % block < block - summary ? 1 : 0;
}

std::int64_t KeyPattern::window_begin(std::int64_t position) const {
  if (window == 0) return 0;
  const std::int64_t end = block > 0 ? (position / block + 1) * block : position + 1;
  return std::max<std::int64_t>(end - window, 0);
}

std::vector<HeadShare> head_shares(const KeyPattern& pattern, std::int64_t num_heads,
                                   std::int64_t first_head, std::int64_t all_heads) {
  if (!pattern.has_halves()) return {{pattern, 0, num_heads}};
  const std::int64_t middle = std::clamp<std::int64_t>(all_heads / 2 - first_head, 0, num_heads);
  KeyPattern residues;
  residues.stride = pattern.stride;
  std::vector<HeadShare> shares;
  if (middle > 0) shares.push_back({KeyPattern(pattern.window), 0, middle});
  if (middle < num_heads) shares.push_back({residues, middle, num_heads});
  return shares;
}

std::int64_t query_block(const KeyPattern& pattern, std::int64_t num_queries) {
  if (pattern.sees_residues()) return std::max<std::int64_t>(num_queries / pattern.stride, 1);
  if (pattern.block > 0 || pattern.window == 0) return pattern.block;
  constexpr std::int64_t least = 64;
  return std::max(pattern.window / (2 * least) * least, least);
}

// Floyd's way to draw without repetition (Bentley and Floyd, "A sample of brilliance", 1987).
std::vector<std::int64_t> drawn_blocks(const KeyPattern& pattern, std::int64_t block) {
  const std::int64_t first = (pattern.globals + pattern.block - 1) / pattern.block;
  const std::int64_t end = pattern.window_begin(block * pattern.block) / pattern.block;
  const RandomKey key =
      random_key(0, fmt::format("random blocks of attention {}", pattern.random_stream));
  std::vector<std::int64_t> drawn;
  for (std::int64_t last = std::max(first, end - pattern.random_blocks); last < end; ++last) {
    const std::uint64_t word = random_words(key, static_cast<std::uint64_t>(block),
                                            static_cast<std::uint64_t>(last - first))[0];
    const auto count = static_cast<std::uint64_t>(last - first + 1);
    const std::int64_t chosen = first + static_cast<std::int64_t>(word * count >> 32);
    const bool is_new = std::ranges::find(drawn, chosen) == drawn.end();
    drawn.push_back(is_new ? chosen : last);
  }
  std::ranges::sort(drawn);
  return drawn;
}

SeenKeys SeenSets::seen(std::int64_t set, std::int64_t position, std::int64_t document_begin) {
  if (pattern_.sees_residues()) return {pattern_.group_of(position), document_begin, position + 1};
  const std::int64_t window = std::max(document_begin, pattern_.window_begin(position));
  const std::int64_t after_globals = document_begin + pattern_.globals;
  const std::int64_t end =
      pattern_.before_block ? position / pattern_.block * pattern_.block : position + 1;
  if (set == 0) return {pattern_.summary > 0 ? 1 : 0, window, end};
  if (pattern_.summary > 0) return {0, document_begin, position + 1};
  if (pattern_.globals > 0 && set == 1) return {0, document_begin, std::min(after_globals, window)};
  const std::int64_t own = position / pattern_.block;
  if (own != block_) drawn_ = drawn_blocks(pattern_, own);
  block_ = own;
  const std::int64_t number = set - (pattern_.globals > 0 ? 2 : 1);
  if (number >= std::ssize(drawn_)) return {};
  const std::int64_t begin = drawn_[static_cast<std::size_t>(number)] * pattern_.block;
  return {0, std::max(begin, after_globals), std::min(begin + pattern_.block, window)};
}

RowOrder::RowOrder(const KeyPattern& pattern, std::int64_t num_groups,
                   std::span<const PositionRange> positions)
    : rows_(static_cast<std::size_t>(num_positions(positions))),
      positions_(rows_.size()),
      group_begins_(static_cast<std::size_t>(num_groups) + 1, 0) {
  const auto group_of = [&](std::int64_t position) {
    return static_cast<std::size_t>(num_groups > 1 ? pattern.group_of(position) : 0);
  };
  for (const PositionRange& range : positions)
    for (std::int64_t p = range.begin; p < range.end(); ++p) ++group_begins_[group_of(p) + 1];
  for (std::size_t g = 1; g < group_begins_.size(); ++g) group_begins_[g] += group_begins_[g - 1];
  std::vector<std::int64_t> next = group_begins_;
  std::int32_t row = 0;
  for (const PositionRange& range : positions)
    for (std::int64_t p = range.begin; p < range.end(); ++p, ++row) {
      const auto place = static_cast<std::size_t>(next[group_of(p)]++);
      rows_[place] = row;
      positions_[place] = static_cast<std::int32_t>(p);
    }
}

std::int64_t RowOrder::place(std::int64_t group, std::int64_t position) const {
  const auto begin = positions_.begin() + group_begins_[static_cast<std::size_t>(group)];
  const auto end = positions_.begin() + group_begins_[static_cast<std::size_t>(group) + 1];
  return std::lower_bound(begin, end, position) - positions_.begin();
}

RowOrder key_order(const KeyPattern& pattern, std::span<const PositionRange> keys) {
  const std::int64_t of_keys = pattern.sees_residues() ? pattern.stride : 2;
  return {pattern, pattern.orders_keys() ? of_keys : 1, keys};
}

RowOrder query_order(const KeyPattern& pattern, std::span<const PositionRange> queries) {
  return {pattern, pattern.orders_queries() ? pattern.stride : 1, queries};
}

std::vector<PositionRange> seen_positions(std::span<const PositionRange> queries,
                                          const KeyPattern& pattern) {
  const bool sees_all = pattern.window == 0 || pattern.stride > 0 || pattern.is_hierarchical() ||
                        (pattern.globals > 0 && pattern.begins_anywhere);
  std::vector<PositionRange> seen;
  for (const PositionRange& range : queries) {
    if (range.count == 0) continue;
    const std::int64_t begin = sees_all ? 0 : pattern.window_begin(range.begin);
    seen.push_back({begin, range.end() - begin});
    seen.push_back({0, std::min(pattern.globals, range.end())});
    if (sees_all || pattern.block == 0) continue;
    const std::int64_t last = (range.end() - 1) / pattern.block;
    if (pattern.summary > 0)
      for (std::int64_t block = 1; block <= last; ++block)
        seen.push_back({block * pattern.block - pattern.summary, pattern.summary});
    for (std::int64_t own = range.begin / pattern.block; own <= last; ++own)
      for (const std::int64_t block : drawn_blocks(pattern, own))
        seen.push_back({block * pattern.block, pattern.block});
  }
  return joined(std::move(seen));
}

std::vector<PositionRange> seeing_positions(std::span<const PositionRange> keys,
                                            const KeyPattern& pattern, std::int64_t length) {
  std::vector<PositionRange> seeing;
  for (const PositionRange& range : keys) {
    const bool is_global =
        pattern.globals > 0 && (pattern.begins_anywhere || range.begin < pattern.globals);
    const bool is_near = pattern.window > 0 && !is_global && !pattern.reaches_far();
    const std::int64_t end = is_near ? std::min(range.end() + pattern.window - 1, length) : length;
    seeing.push_back({range.begin, end - range.begin});
  }
  return joined(std::move(seeing));
}

}  // namespace switchyard::kernels
