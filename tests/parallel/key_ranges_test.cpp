// Ranges of visible keys, hand-worked and against the definition.
#include <gtest/gtest.h>

#include "parallel/context/key_ranges.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

using Segments = std::vector<Segment>;
using Starts = std::vector<std::vector<std::int32_t>>;

struct Ranges {
  std::vector<std::int32_t> first, end;
};

Ranges ranges_of(const VisibleKeys& visible) {
  const auto num_rows =
      static_cast<std::size_t>(visible.num_sequences * num_positions(visible.queries));
  Ranges ranges{std::vector<std::int32_t>(num_rows), std::vector<std::int32_t>(num_rows)};
  fill_key_ranges(visible, ranges.first.data(), ranges.end.data());
  return ranges;
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
        VisibleKeys visible{.queries = queries, .keys = keys, .window = window, .num_sequences = 3};
        if (with_documents) visible.document_starts = starts;
        const Ranges ranges = ranges_of(visible);
        std::size_t row = 0;
        double num_pairs = 0;
        for (std::size_t s = 0; s < 3; ++s)
          for (const Segment& segment : queries)
            for (std::int64_t p = segment.begin; p < segment.end(); ++p, ++row) {
              std::int64_t low = window > 0 ? p - window + 1 : 0;
              if (with_documents)
                for (const std::int32_t start : starts[s])
                  if (start <= p && start > low) low = start;
              EXPECT_EQ(ranges.first[row], count_before(keys, low));
              EXPECT_EQ(ranges.end[row], count_before(keys, p + 1));
              num_pairs += ranges.end[row] - ranges.first[row];
            }
        EXPECT_EQ(count_pairs(visible), num_pairs);
      }
}

TEST(KeyRangesTest, SeenPositionsAreTheHaloOfEachSegment) {
  EXPECT_EQ(seen_positions(Segments{{4, 2}, {20, 2}}, 3), (Segments{{2, 4}, {18, 4}}));
  EXPECT_EQ(seen_positions(Segments{{4, 2}, {8, 2}}, 6), (Segments{{0, 10}}));
  EXPECT_EQ(seen_positions(Segments{{4, 2}, {20, 2}}, 0), (Segments{{0, 22}}));
  EXPECT_EQ(seen_positions(Segments{{4, 2}}, 1), (Segments{{4, 2}}));
}

TEST(KeyRangesTest, DocumentsOfEverySequenceOrOfNone) {
  const Segments queries = {{0, 4}};
  const Starts starts = {{2}};
  EXPECT_THROW(
      count_pairs(
          {.queries = queries, .keys = queries, .document_starts = starts, .num_sequences = 2}),
      InternalError);
}

}  // namespace
}  // namespace switchyard
