#include "kernels/attention/key_ranges.hpp"

#include <algorithm>

#include "kernels/check.hpp"
#include "kernels/cpu/attention/key_ranges.hpp"
#include "kernels/cuda/attention/key_ranges.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

// Pairs of a query at p and a key up to p - distance.
std::int64_t pairs_up_to(const PositionRange& queries, const PositionRange& keys,
                         std::int64_t distance) {
  // Of the first x positions from keys.begin on, taken as queries.
  const auto of_first = [&](std::int64_t x) {
    const std::int64_t rising = std::clamp<std::int64_t>(x, 0, keys.count);
    return rising * (rising + 1) / 2 + std::max<std::int64_t>(x - keys.count, 0) * keys.count;
  };
  return of_first(queries.end() - distance - keys.begin) -
         of_first(queries.begin - distance - keys.begin);
}

// The part of the ranges at positions begin ... end - 1.
std::vector<PositionRange> within(std::span<const PositionRange> ranges, std::int64_t begin,
                                  std::int64_t end) {
  return slice_of(ranges, count_before(ranges, begin), count_before(ranges, end));
}

// Of a document that begins at `begin`. What is behind the window counts where it is global.
std::int64_t pairs_of_a_document(std::span<const PositionRange> queries,
                                 std::span<const PositionRange> keys, const KeyPattern& pattern,
                                 std::int64_t begin) {
  const std::vector<PositionRange> globals = within(keys, begin, begin + pattern.globals);
  std::int64_t num_pairs = 0;
  for (const PositionRange& some_queries : queries) {
    for (const PositionRange& some_keys : keys) {
      num_pairs += pairs_up_to(some_queries, some_keys, 0);
      if (pattern.window > 0) num_pairs -= pairs_up_to(some_queries, some_keys, pattern.window);
    }
    for (const PositionRange& some_keys : globals)
      num_pairs += pairs_up_to(some_queries, some_keys, pattern.window);
  }
  return num_pairs;
}

std::int64_t pairs_of_a_sequence(std::span<const PositionRange> queries, const VisibleKeys& visible,
                                 std::span<const std::int32_t> starts) {
  std::int64_t num_pairs = 0;
  std::int64_t begin = 0;
  for (std::size_t document = 0; document <= starts.size(); ++document) {
    const std::int64_t end =
        document < starts.size() ? starts[document] : std::numeric_limits<std::int64_t>::max();
    num_pairs += pairs_of_a_document(within(queries, begin, end), within(visible.keys, begin, end),
                                     visible.pattern, begin);
    begin = end;
  }
  return num_pairs;
}

// Of one sequence under any pattern, query by query.
std::int64_t pairs_by_sets(std::span<const PositionRange> queries, const RowOrder& keys,
                           const KeyPattern& pattern, std::span<const std::int32_t> starts) {
  SeenSets sets(pattern);
  std::int64_t num_pairs = 0;
  for (const PositionRange& range : queries)
    for (std::int64_t p = range.begin; p < range.end(); ++p) {
      const auto next = std::ranges::upper_bound(starts, p);
      const std::int64_t begin = next == starts.begin() ? 0 : *std::prev(next);
      for (std::int64_t set = 0; set < pattern.num_sets(); ++set) {
        const SeenKeys seen = sets.seen(set, p, begin);
        if (seen.begin < seen.end)
          num_pairs += keys.place(seen.group, seen.end) - keys.place(seen.group, seen.begin);
      }
    }
  return num_pairs;
}

double pairs_of_pattern(const VisibleKeys& visible, DocumentStarts document_starts) {
  const RowOrder keys = key_order(visible.pattern, visible.keys);
  const auto pairs = [&](std::span<const std::int32_t> starts) {
    return static_cast<double>(pairs_by_sets(visible.queries, keys, visible.pattern, starts));
  };
  if (document_starts.empty()) return pairs({}) * static_cast<double>(visible.num_sequences);
  double num_pairs = 0;
  for (const std::vector<std::int32_t>& starts : document_starts) num_pairs += pairs(starts);
  return num_pairs;
}

void check_pattern(const VisibleKeys& visible) {
  const KeyPattern& pattern = visible.pattern;
  expect(!pattern.has_halves(), "a pattern of all heads");
  expect(pattern.summary == 0 || (pattern.summary <= pattern.block && pattern.globals == 0 &&
                                  pattern.random_blocks == 0),
         "a summary within blocks, and no other far keys beside it");
  expect(pattern.random_blocks == 0 || pattern.block > 0, "random blocks of some tokens");
  expect(pattern.is_plain() ||
             (visible.first_query == 0 && visible.end_query >= visible.query_length()),
         "all queries, of patterns of blocks");
}

void check_documents(const TensorView& document_begins, std::int64_t num_sequences,
                     std::int64_t last_position) {
  expect(document_begins.dtype == DType::i32 && document_begins.is_contiguous() &&
             document_begins.rows() == num_sequences && document_begins.cols() > last_position,
         "document_begins: i32 [sequences, length] of every position");
}

}  // namespace

void fill_document_begins(DocumentStarts document_starts, const TensorView& document_begins) {
  expect(std::ssize(document_starts) == document_begins.rows(),
         "document starts of every sequence");
  if (document_begins.empty()) return;
  dispatch(
      *document_begins.device, [&] { cpu::fill_document_begins(document_starts, document_begins); },
      [] {}, [&] { cuda::fill_document_begins(document_starts, document_begins); });
}

void restart_positions(const TensorView& positions, const TensorView& document_begins,
                       const TensorView& rotary) {
  if (positions.empty()) return;
  expect_vector(positions, DType::i32, positions.numel(), "positions: i32 [tokens]");
  expect_vector(rotary, DType::i32, positions.numel(), "rotary: i32 [tokens]");
  check_documents(document_begins, document_begins.rows(), 0);
  expect(positions.numel() % document_begins.rows() == 0, "equal rows of every sequence");
  dispatch(
      *positions.device, [&] { cpu::restart_positions(positions, document_begins, rotary); },
      [&] { plan::restart_positions(positions); },
      [&] { cuda::restart_positions(positions, document_begins, rotary); });
}

void fill_key_ranges(const VisibleKeys& visible, const TensorView& document_begins,
                     const TensorView& first, const TensorView& end) {
  check_pattern(visible);
  const std::int64_t rows =
      visible.pattern.num_sets() * visible.num_sequences * visible.query_length();
  expect_vector(first, DType::i32, rows, "first: i32 [sets * sequences * query_length]");
  expect_vector(end, DType::i32, rows, "end: i32 [sets * sequences * query_length]");
  if (rows == 0) return;
  if (!document_begins.empty())
    check_documents(document_begins, visible.num_sequences, visible.queries.back().end() - 1);
  dispatch(
      *first.device, [&] { cpu::fill_key_ranges(visible, document_begins, first, end); },
      [&] { plan::fill_key_ranges(document_begins, first); },
      [&] {
        expect(visible.pattern.is_plain() && visible.pattern.globals == 0,
               "a window alone: other patterns are for the CPU");
        cuda::fill_key_ranges(visible, document_begins, first, end);
      });
}

double count_pairs(const VisibleKeys& visible, DocumentStarts document_starts) {
  expect(document_starts.empty() || std::ssize(document_starts) == visible.num_sequences,
         "document starts of every sequence, or none");
  check_pattern(visible);
  if (!visible.pattern.is_plain()) return pairs_of_pattern(visible, document_starts);
  const std::vector<PositionRange> queries =
      slice_of(visible.queries, visible.first_query, visible.end_query);
  if (document_starts.empty())
    return static_cast<double>(pairs_of_a_document(queries, visible.keys, visible.pattern, 0) *
                               visible.num_sequences);
  std::int64_t num_pairs = 0;
  for (const std::vector<std::int32_t>& starts : document_starts)
    num_pairs += pairs_of_a_sequence(queries, visible, starts);
  return static_cast<double>(num_pairs);
}

KeyRanges causal_ranges(const CausalMask& mask, const TensorView& first, const TensorView& end) {
  expect(mask.query_offset >= 0 && mask.window >= 0, "an offset and a window of at least 0");
  const PositionRange queries{mask.query_offset, mask.query_length};
  const PositionRange keys{0, mask.key_length};
  const VisibleKeys visible{.queries = {&queries, 1},
                            .keys = {&keys, 1},
                            .pattern = mask.window,
                            .num_sequences = mask.num_sequences};
  fill_key_ranges(visible, {}, first, end);
  return {first, end, count_pairs(visible)};
}

}  // namespace switchyard::kernels
