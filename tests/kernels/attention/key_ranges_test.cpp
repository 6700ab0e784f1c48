// Ranges of visible keys, hand-worked and against the definition.
#include "kernels/attention/key_ranges.hpp"

#include <algorithm>

#include "kernels/kernel_test.hpp"
#include "support/tested_device.hpp"

namespace switchyard::kernels {
namespace {

using Segments = std::vector<PositionRange>;
using Starts = std::vector<std::vector<std::int32_t>>;

struct Ranges {
  std::vector<std::int32_t> first, end;
};

Ranges ranges_of(const VisibleKeys& visible, const Starts& starts = {}) {
  const Shape rows = {visible.pattern.num_sets() * visible.num_sequences * visible.query_length()};
  const Tensor first(test::tested(), Purpose::workspace, DType::i32, rows);
  const Tensor end(test::tested(), Purpose::workspace, DType::i32, rows);
  std::ranges::fill(first->span<std::int32_t>(), -7);
  std::ranges::fill(end->span<std::int32_t>(), -7);
  Tensor begins;
  if (!starts.empty()) {
    begins = Tensor(test::tested(), Purpose::workspace, DType::i32,
                    {visible.num_sequences, visible.queries.back().end()});
    fill_document_begins(starts, begins);
  }
  fill_key_ranges(visible, begins, first, end);
  const auto values = [](const Tensor& tensor) {
    const auto span = tensor->span<std::int32_t>();
    return std::vector<std::int32_t>(span.begin(), span.end());
  };
  return {values(first), values(end)};
}

TEST(KeyRangesTest, ZigzagQueriesAmongOtherKeys) {
  const Segments queries = {{4, 2}, {8, 2}};
  const Segments keys = {{2, 3}, {9, 3}};
  const Ranges ranges = ranges_of({.queries = queries, .keys = keys});
  EXPECT_EQ(ranges.first, (std::vector<std::int32_t>{0, 0, 0, 0}));
  EXPECT_EQ(ranges.end, (std::vector<std::int32_t>{3, 3, 3, 4}));
  EXPECT_EQ(count_pairs({.queries = queries, .keys = keys, .num_sequences = 3}), 3 * 13);
}

TEST(KeyRangesTest, EveryRangeIsTheDefinition) {
  const Segments queries = {{3, 9}, {20, 7}};
  const Starts starts = {{4, 10, 21}, {}, {1, 2, 26}};
  for (const Segments& keys :
       {Segments{{0, 5}, {18, 6}}, Segments{{3, 9}, {20, 7}}, Segments{{27, 4}}, Segments{{6, 1}}})
    for (const std::int64_t window : {0, 1, 4, 100})
      for (const bool with_documents : {false, true}) {
        const VisibleKeys visible{
            .queries = queries, .keys = keys, .pattern = window, .num_sequences = 3};
        const Starts documents = with_documents ? starts : Starts();
        const Ranges ranges = ranges_of(visible, documents);
        std::size_t row = 0;
        double num_pairs = 0;
        for (std::size_t s = 0; s < 3; ++s)
          for (const PositionRange& segment : queries)
            for (std::int64_t p = segment.begin; p < segment.end(); ++p, ++row) {
              std::int64_t low = window > 0 ? p - window + 1 : 0;
              if (with_documents)
                for (const std::int32_t start : starts[s])
                  if (start <= p && start > low) low = start;
              EXPECT_EQ(ranges.first[row], count_before(keys, low));
              EXPECT_EQ(ranges.end[row], count_before(keys, p + 1));
              num_pairs += ranges.end[row] - ranges.first[row];
            }
        EXPECT_EQ(count_pairs(visible, documents), num_pairs);
      }
}

// The two sets together: each visible key once.
TEST(KeyRangesTest, GlobalsAreTheFirstOfADocumentBeforeTheWindow) {
  if (test::is_tested_on_card()) GTEST_SKIP() << "globals are for the CPU";
  const Segments queries = {{3, 9}, {20, 7}};
  const Starts starts = {{4, 10, 21}, {}, {1, 2, 26}};
  for (const Segments& keys : {Segments{{0, 5}, {18, 6}}, Segments{{3, 9}, {20, 7}}})
    for (const std::int64_t window : {1, 4, 100})
      for (const std::int64_t globals : {1, 3, 12})
        for (const bool with_documents : {false, true}) {
          const VisibleKeys visible{
              .queries = queries, .keys = keys, .pattern = {window, globals}, .num_sequences = 3};
          const Starts documents = with_documents ? starts : Starts();
          const Ranges ranges = ranges_of(visible, documents);
          ASSERT_EQ(ranges.first.size(), 2U * 48U);
          std::size_t row = 0;
          double num_pairs = 0;
          for (std::size_t s = 0; s < 3; ++s)
            for (const PositionRange& segment : queries)
              for (std::int64_t p = segment.begin; p < segment.end(); ++p, ++row) {
                std::int64_t begin = 0;
                if (with_documents)
                  for (const std::int32_t start : starts[s])
                    if (start <= p) begin = start;
                std::vector<std::int64_t> wanted, seen;
                std::int64_t number = 0;
                for (const PositionRange& range : keys)
                  for (std::int64_t k = range.begin; k < range.end(); ++k, ++number)
                    if (k <= p && k >= begin && (p - k < window || k < begin + globals))
                      wanted.push_back(number);
                for (const std::size_t set : {1U, 0U})
                  for (std::int64_t k = ranges.first[set * 48 + row];
                       k < ranges.end[set * 48 + row]; ++k)
                    seen.push_back(k);
                EXPECT_EQ(seen, wanted) << p;
                num_pairs += static_cast<double>(wanted.size());
              }
          EXPECT_EQ(count_pairs(visible, documents), num_pairs);
        }
}

TEST(KeyRangesTest, GlobalsAreSeenFromEverywhere) {
  EXPECT_EQ(seen_positions(Segments{{14, 2}}, KeyPattern(3, 2)), (Segments{{0, 2}, {12, 4}}));
  EXPECT_EQ(seeing_positions(Segments{{1, 2}}, KeyPattern(3, 2), 20), (Segments{{1, 19}}));
  EXPECT_EQ(seeing_positions(Segments{{2, 2}}, KeyPattern(3, 2), 20), (Segments{{2, 4}}));
  KeyPattern anywhere(3, 2);
  anywhere.begins_anywhere = true;
  EXPECT_EQ(seen_positions(Segments{{14, 2}}, anywhere), (Segments{{0, 16}}));
  EXPECT_EQ(seeing_positions(Segments{{2, 2}}, anywhere, 20), (Segments{{2, 18}}));
}

TEST(KeyRangesTest, SeenPositionsAreTheHaloOfEachSegment) {
  EXPECT_EQ(seen_positions(Segments{{4, 2}, {20, 2}}, 3), (Segments{{2, 4}, {18, 4}}));
  EXPECT_EQ(seen_positions(Segments{{4, 2}, {8, 2}}, 6), (Segments{{0, 10}}));
  EXPECT_EQ(seen_positions(Segments{{4, 2}, {20, 2}}, 0), (Segments{{0, 22}}));
  EXPECT_EQ(seen_positions(Segments{{4, 2}}, 1), (Segments{{4, 2}}));
}

TEST(KeyRangesTest, OtherQueriesThanTheChosenSeeNothing) {
  const Segments queries = {{3, 4}, {20, 3}};
  const Segments keys = {{2, 3}, {18, 4}};
  const Starts starts = {{5}, {}};
  VisibleKeys visible{.queries = queries, .keys = keys, .num_sequences = 2};
  const Ranges all = ranges_of(visible, starts);
  visible.first_query = 2;
  visible.end_query = 5;
  const Ranges some = ranges_of(visible, starts);
  double num_pairs = 0;
  for (std::size_t row = 0; row < all.first.size(); ++row) {
    const bool is_chosen = row % 7 >= 2 && row % 7 < 5;
    const std::int32_t seen = is_chosen ? all.end[row] - all.first[row] : 0;
    EXPECT_EQ(some.end[row] - some.first[row], seen) << row;
    if (row % 7 == 0) continue;
    EXPECT_GE(some.first[row], some.first[row - 1]) << row;
    EXPECT_GE(some.end[row], some.end[row - 1]) << row;
  }
  for (std::size_t row = 0; row < all.first.size(); ++row)
    num_pairs += some.end[row] - some.first[row];
  EXPECT_EQ(count_pairs(visible, starts), num_pairs);
}

TEST(KeyRangesTest, PositionsRestartAtDocuments) {
  const Tensor begins(test::tested(), Purpose::workspace, DType::i32, {2, 9});
  fill_document_begins(Starts{{2, 7}, {}}, begins);
  const auto positions = test::Operand::of_ints({0, 1, 2, 6, 7, 8, 0, 1, 2, 6, 7, 8});
  const auto rotary = test::Operand::of_ints(std::vector<std::int32_t>(12, -7));
  restart_positions(positions, begins, rotary);
  EXPECT_EQ(rotary.ints(), (std::vector<std::int32_t>{0, 1, 0, 4, 0, 1, 0, 1, 2, 6, 7, 8}));
}

// More documents and more ranges than a card's launch takes along.
TEST(KeyRangesTest, ManyDocumentsAndRanges) {
  Segments queries, keys;
  for (std::int64_t i = 0; i < 250; ++i) {
    queries.push_back({i * 12, 3 + i % 5});
    keys.push_back({i * 12 + 1, 2 + i % 7});
  }
  const std::int64_t length = queries.back().end();
  Starts starts(3);
  for (std::int32_t p = 1; p < length; ++p) {
    if (p % 3 == 0) starts[0].push_back(p);
    if (p % 1000 == 999) starts[2].push_back(p);
  }
  const VisibleKeys visible{.queries = queries, .keys = keys, .pattern = 700, .num_sequences = 3};
  const Ranges ranges = ranges_of(visible, starts);
  std::size_t row = 0;
  for (std::size_t s = 0; s < 3; ++s)
    for (const PositionRange& segment : queries)
      for (std::int64_t p = segment.begin; p < segment.end(); ++p, ++row) {
        const auto next = std::upper_bound(starts[s].begin(), starts[s].end(), p);
        const std::int64_t begin = next == starts[s].begin() ? 0 : *std::prev(next);
        ASSERT_EQ(ranges.first[row], count_before(keys, std::max(begin, p - 699))) << row;
        ASSERT_EQ(ranges.end[row], count_before(keys, p + 1)) << row;
      }
}

TEST(KeyRangesTest, DocumentsOfEverySequenceOrOfNone) {
  const Segments queries = {{0, 4}};
  EXPECT_THROW(count_pairs({.queries = queries, .keys = queries, .num_sequences = 2}, Starts{{2}}),
               InternalError);
}

}  // namespace
}  // namespace switchyard::kernels
