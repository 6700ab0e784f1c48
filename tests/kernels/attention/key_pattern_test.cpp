// Patterns of blocks: what each query sees is the definition, in whatever order keys and queries
// take their places; what is drawn, what must be brought together.
#include "kernels/attention/key_pattern.hpp"

#include <algorithm>
#include <functional>
#include <numeric>
#include <set>

#include "kernels/attention/key_ranges.hpp"
#include "kernels/kernel_test.hpp"
#include "support/block_masks.hpp"
#include "support/tested_device.hpp"

namespace switchyard::kernels {
namespace {

using Segments = std::vector<PositionRange>;
using Starts = std::vector<std::vector<std::int32_t>>;
using Sees = std::function<bool(std::int64_t query, std::int64_t key)>;

struct Pattern {
  std::string name;
  KeyPattern keys;
  Sees sees;
};

KeyPattern bigbird(std::int64_t block, std::int64_t window, std::int64_t globals,
                   std::int64_t random) {
  KeyPattern pattern(window * block, globals * block);
  pattern.block = block;
  pattern.random_blocks = random;
  pattern.random_stream = 5;
  return pattern;
}

Sees mask_of_bigbird(const KeyPattern& pattern, std::int64_t length) {
  test::BigBirdMask mask{.block = pattern.block,
                         .window_blocks = pattern.window / pattern.block,
                         .global_blocks = pattern.globals / pattern.block};
  for (std::int64_t block = 0; block * pattern.block < length; ++block)
    mask.drawn.push_back(drawn_blocks(pattern, block));
  return [mask](std::int64_t query, std::int64_t key) { return mask.sees(query, key); };
}

constexpr std::int64_t length = 47;

std::vector<Pattern> patterns() {
  std::vector<Pattern> all;
  for (const auto& [block, window, globals, random] :
       {std::array{4, 2, 1, 2}, {3, 1, 0, 1}, {5, 3, 2, 3}, {1, 2, 1, 4}, {4, 2, 1, 0}}) {
    const KeyPattern pattern = bigbird(block, window, globals, random);
    all.push_back({"bigbird", pattern, mask_of_bigbird(pattern, length)});
  }
  for (const auto& [stride, summary] : {std::array{6, 2}, {1, 1}, {5, 5}, {60, 3}}) {
    KeyPattern fixed(stride);
    fixed.block = stride;
    fixed.summary = summary;
    all.push_back({"fixed", fixed, [=](std::int64_t query, std::int64_t key) {
                     return test::sees_fixed(stride, summary, query, key);
                   }});
  }
  for (const std::int64_t stride : {1, 5, 60}) {
    KeyPattern residues;
    residues.stride = stride;
    all.push_back({"residues", residues, [=](std::int64_t query, std::int64_t key) {
                     return test::sees_strided(stride, true, query, key);
                   }});
  }
  for (const auto& [segment, memory] : {std::array{6, 4}, {5, 0}, {3, 9}}) {
    KeyPattern pattern(segment + memory);
    pattern.block = segment;
    all.push_back({"segment", pattern, [=](std::int64_t query, std::int64_t key) {
                     return test::sees_segment(segment, memory, query, key);
                   }});
    pattern.before_block = true;
    all.push_back({"memory", pattern, [=](std::int64_t query, std::int64_t key) {
                     return test::sees_segment(segment, memory, query, key) &&
                            key < query / segment * segment;
                   }});
  }
  return all;
}

Tensor ints(std::int64_t count) {
  Tensor tensor(test::tested(), Purpose::workspace, DType::i32, {count});
  std::ranges::fill(tensor->span<std::int32_t>(), -7);
  return tensor;
}

// The keys' positions that the query at each position sees, by sequence, found through the ranges.
struct Found {
  std::vector<std::vector<std::vector<std::int64_t>>> seen;  // by sequence and query row
  double num_pairs = 0;
};
Found found(const VisibleKeys& visible, const Starts& starts) {
  const RowOrder queries = query_order(visible.pattern, visible.queries);
  const RowOrder keys = key_order(visible.pattern, visible.keys);
  const std::int64_t rows = visible.query_length();
  const std::int64_t sets = visible.pattern.num_sets();
  const Tensor first = ints(sets * visible.num_sequences * rows);
  const Tensor end = ints(sets * visible.num_sequences * rows);
  Tensor begins;
  if (!starts.empty()) {
    begins =
        Tensor(test::tested(), Purpose::workspace, DType::i32, {visible.num_sequences, length});
    fill_document_begins(starts, begins);
  }
  fill_key_ranges(visible, begins, first, end);
  Found found;
  found.seen.resize(static_cast<std::size_t>(visible.num_sequences));
  for (auto& of_sequence : found.seen) of_sequence.resize(static_cast<std::size_t>(rows));
  std::int64_t at = 0;
  for (std::int64_t set = 0; set < sets; ++set)
    for (std::int64_t s = 0; s < visible.num_sequences; ++s)
      for (std::int64_t place = 0; place < rows; ++place, ++at) {
        const std::int32_t from = first->as<std::int32_t>()[at], to = end->as<std::int32_t>()[at];
        EXPECT_LE(from, to);
        if (visible.pattern.ascends() && place > 0) {
          EXPECT_LE(first->as<std::int32_t>()[at - 1], from);
          EXPECT_LE(end->as<std::int32_t>()[at - 1], to);
        }
        const auto row = static_cast<std::size_t>(queries.rows()[static_cast<std::size_t>(place)]);
        for (std::int32_t k = from; k < to; ++k)
          found.seen[static_cast<std::size_t>(s)][row].push_back(keys.position(k));
        found.num_pairs += to - from;
      }
  return found;
}

TEST(KeyPatternTest, EveryQuerySeesTheDefinition) {
  if (test::is_tested_on_card()) GTEST_SKIP() << "patterns of blocks are for the CPU";
  const Segments queries = {{3, 9}, {20, 27}};
  const Starts documents = {{4, 10, 21}, {}, {1, 2, 26, 43}};
  for (const Pattern& pattern : patterns())
    for (const Segments& keys : {Segments{{0, length}}, Segments{{2, 11}, {18, 20}}})
      for (const bool with_documents : {false, true}) {
        // Globals are then a document's first, which test::BigBirdMask does not know.
        if (with_documents && pattern.keys.globals > 0) continue;
        const Starts& starts = with_documents ? documents : Starts();
        const VisibleKeys visible{
            .queries = queries, .keys = keys, .pattern = pattern.keys, .num_sequences = 3};
        const Found actual = found(visible, starts);
        double num_pairs = 0;
        for (std::size_t s = 0; s < 3; ++s) {
          std::size_t row = 0;
          for (const PositionRange& range : queries)
            for (std::int64_t p = range.begin; p < range.end(); ++p, ++row) {
              std::int64_t begin = 0;
              if (with_documents)
                for (const std::int32_t start : starts[s])
                  if (start <= p) begin = start;
              std::vector<std::int64_t> wanted;
              for (const PositionRange& held : keys)
                for (std::int64_t k = held.begin; k < held.end(); ++k)
                  if (k >= begin && pattern.sees(p, k)) wanted.push_back(k);
              std::vector<std::int64_t> seen = actual.seen[s][row];
              std::ranges::sort(seen);
              EXPECT_EQ(seen, wanted) << pattern.name << ", query " << p;
              num_pairs += static_cast<double>(wanted.size());
            }
        }
        EXPECT_EQ(actual.num_pairs, num_pairs) << pattern.name;
        EXPECT_EQ(count_pairs(visible, starts), num_pairs) << pattern.name;
      }
}

// Globals begin with the document; no key is seen twice, none of another document or behind the
// query.
TEST(KeyPatternTest, BlocksOfDocumentsAreCutAtTheirBegin) {
  if (test::is_tested_on_card()) GTEST_SKIP() << "patterns of blocks are for the CPU";
  const Segments all = {{0, length}};
  const KeyPattern pattern = bigbird(4, 2, 1, 2);
  const Starts starts = {{13, 30}};
  const Found actual = found({.queries = all, .keys = all, .pattern = pattern}, starts);
  for (std::int64_t p = 0; p < length; ++p) {
    std::vector<std::int64_t> seen = actual.seen[0][static_cast<std::size_t>(p)];
    std::ranges::sort(seen);
    EXPECT_EQ(std::ranges::adjacent_find(seen), seen.end()) << p;
    const std::int64_t begin = p < 13 ? 0 : p < 30 ? 13 : 30;
    EXPECT_EQ(seen.front(), begin) << p;
    EXPECT_EQ(seen.back(), p);
    EXPECT_TRUE(std::ranges::binary_search(seen, std::min(begin + 3, p))) << p;
  }
}

TEST(KeyPatternTest, WhatIsBroughtToQueriesIsWhatTheySee) {
  const Segments queries = {{3, 9}, {20, 7}};
  for (const Pattern& pattern : patterns()) {
    if (pattern.keys.before_block) continue;  // the queries' own are brought, too
    std::set<std::int64_t> wanted;
    for (const PositionRange& range : queries)
      for (std::int64_t p = range.begin; p < range.end(); ++p)
        for (std::int64_t k = 0; k <= p; ++k)
          if (pattern.sees(p, k)) wanted.insert(k);
    std::set<std::int64_t> brought;
    for (const PositionRange& range : seen_positions(queries, pattern.keys))
      for (std::int64_t k = range.begin; k < range.end(); ++k) brought.insert(k);
    if (pattern.keys.sees_residues()) {
      EXPECT_TRUE(std::ranges::includes(brought, wanted)) << pattern.name;
    } else {
      EXPECT_EQ(brought, wanted) << pattern.name;
    }
    // And the other way round: nobody who sees these keys is missing.
    const Segments seeing = seeing_positions(queries, pattern.keys, length);
    for (const PositionRange& range : queries)
      for (std::int64_t k = range.begin; k < range.end(); ++k)
        for (std::int64_t p = k; p < length; ++p)
          if (pattern.sees(p, k)) {
            EXPECT_EQ(count_before(seeing, p + 1) - count_before(seeing, p), 1) << pattern.name;
          }
  }
}

// The numbers themselves: another build, another layout or another day must not draw others.
TEST(KeyPatternTest, RandomBlocksAreDrawnOnceAndForAll) {
  KeyPattern pattern = bigbird(64, 3, 2, 3);
  std::set<std::vector<std::int64_t>> different;
  for (std::int64_t block = 0; block < 60; ++block) {
    const std::vector<std::int64_t> drawn = drawn_blocks(pattern, block);
    const std::int64_t candidates = std::max<std::int64_t>(block - 2 - 2, 0);
    ASSERT_EQ(std::ssize(drawn), std::min<std::int64_t>(candidates, 3)) << block;
    EXPECT_TRUE(std::ranges::is_sorted(drawn, std::less_equal<>()));
    if (drawn.empty()) continue;
    EXPECT_GE(drawn.front(), 2) << block;
    EXPECT_LT(drawn.back(), block - 2) << block;
    different.insert(drawn);
  }
  EXPECT_GT(different.size(), 40u);
  std::vector<std::int64_t> counts(40, 0);  // no block is drawn far more often than others
  for (pattern.random_stream = 0; pattern.random_stream < 400; ++pattern.random_stream)
    for (const std::int64_t block : drawn_blocks(pattern, 44))
      ++counts[static_cast<std::size_t>(block - 2)];
  EXPECT_GT(*std::ranges::min_element(counts), 10);
  EXPECT_LT(*std::ranges::max_element(counts), 60);  // 30 on average
}

TEST(KeyPatternTest, HalvesOfHeadsWhoeverHasThem) {
  KeyPattern strided(7);
  strided.stride = 7;
  const auto shares = [&](std::int64_t first, std::int64_t count) {
    std::vector<std::array<std::int64_t, 3>> result;
    for (const HeadShare& share : head_shares(strided, count, first, 8))
      result.push_back({share.begin, share.end, share.pattern.sees_residues() ? 1 : 0});
    return result;
  };
  using Shares = std::vector<std::array<std::int64_t, 3>>;
  EXPECT_EQ(shares(0, 8), (Shares{{0, 4, 0}, {4, 8, 1}}));
  EXPECT_EQ(shares(0, 4), (Shares{{0, 4, 0}}));
  EXPECT_EQ(shares(6, 2), (Shares{{0, 2, 1}}));
  EXPECT_EQ(shares(2, 4), (Shares{{0, 2, 0}, {2, 4, 1}}));
  EXPECT_EQ(head_shares(KeyPattern(3), 8, 0, 8).size(), 1u);
}

}  // namespace
}  // namespace switchyard::kernels
