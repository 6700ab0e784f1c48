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
                                     visible.pattern(), begin);
    begin = end;
  }
  return num_pairs;
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
  const std::int64_t rows =
      visible.pattern().num_sets() * visible.num_sequences * visible.query_length();
  expect_vector(first, DType::i32, rows, "first: i32 [sets * sequences * query_length]");
  expect_vector(end, DType::i32, rows, "end: i32 [sets * sequences * query_length]");
  if (rows == 0) return;
  if (!document_begins.empty())
    check_documents(document_begins, visible.num_sequences, visible.queries.back().end() - 1);
  dispatch(
      *first.device, [&] { cpu::fill_key_ranges(visible, document_begins, first, end); },
      [&] { plan::fill_key_ranges(document_begins, first); },
      [&] {
        expect(visible.globals == 0, "no globals: such patterns are for the CPU");
        cuda::fill_key_ranges(visible, document_begins, first, end);
      });
}

double count_pairs(const VisibleKeys& visible, DocumentStarts document_starts) {
  expect(document_starts.empty() || std::ssize(document_starts) == visible.num_sequences,
         "document starts of every sequence, or none");
  const std::vector<PositionRange> queries =
      slice_of(visible.queries, visible.first_query, visible.end_query);
  if (document_starts.empty())
    return static_cast<double>(pairs_of_a_document(queries, visible.keys, visible.pattern(), 0) *
                               visible.num_sequences);
  std::int64_t num_pairs = 0;
  for (const std::vector<std::int32_t>& starts : document_starts)
    num_pairs += pairs_of_a_sequence(queries, visible, starts);
  return static_cast<double>(num_pairs);
}

std::vector<PositionRange> seen_positions(std::span<const PositionRange> queries,
                                          const KeyPattern& pattern) {
  const bool sees_all = pattern.window == 0 || (pattern.globals > 0 && pattern.begins_anywhere);
  std::vector<PositionRange> seen;
  for (const PositionRange& range : queries) {
    const std::int64_t begin =
        sees_all ? 0 : std::max<std::int64_t>(range.begin - pattern.window + 1, 0);
    seen.push_back({begin, range.end() - begin});
    seen.push_back({0, std::min(pattern.globals, range.end())});
  }
  return joined(std::move(seen));
}

std::vector<PositionRange> seeing_positions(std::span<const PositionRange> keys,
                                            const KeyPattern& pattern, std::int64_t length) {
  std::vector<PositionRange> seeing;
  for (const PositionRange& range : keys) {
    const bool is_global =
        pattern.globals > 0 && (pattern.begins_anywhere || range.begin < pattern.globals);
    const std::int64_t end = pattern.window > 0 && !is_global
                                 ? std::min(range.end() + pattern.window - 1, length)
                                 : length;
    seeing.push_back({range.begin, end - range.begin});
  }
  return joined(std::move(seeing));
}

KeyRanges causal_ranges(const CausalMask& mask, const TensorView& first, const TensorView& end) {
  expect(mask.query_offset >= 0 && mask.window >= 0, "an offset and a window of at least 0");
  const PositionRange queries{mask.query_offset, mask.query_length};
  const PositionRange keys{0, mask.key_length};
  const VisibleKeys visible{.queries = {&queries, 1},
                            .keys = {&keys, 1},
                            .window = mask.window,
                            .num_sequences = mask.num_sequences};
  fill_key_ranges(visible, {}, first, end);
  return {first, end, count_pairs(visible)};
}

}  // namespace switchyard::kernels
