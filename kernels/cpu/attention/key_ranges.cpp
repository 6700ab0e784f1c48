#include "kernels/cpu/attention/key_ranges.hpp"

#include <algorithm>

#include "kernels/cpu/parallel.hpp"

namespace switchyard::kernels::cpu {

namespace {

// How many keys lie before positions that never decrease.
class KeyCounter {
 public:
  explicit KeyCounter(std::span<const PositionRange> keys) : keys_(keys) {}

  std::int64_t before(std::int64_t position) {
    while (!keys_.empty() && position >= keys_.front().end()) {
      passed_ += keys_.front().count;
      keys_ = keys_.subspan(1);
    }
    if (keys_.empty()) return passed_;
    return passed_ + std::max<std::int64_t>(position - keys_.front().begin, 0);
  }

 private:
  std::span<const PositionRange> keys_;  // that are not wholly before the last position
  std::int64_t passed_ = 0;
};

// Ranges never decrease within a sequence, empty ones neither: queries that see nothing have an
// empty range at the end where the others' begins, or the other way round.
struct SequenceRanges {
  const VisibleKeys& visible;
  bool of_globals;                      // what is seen beside the window
  const std::int32_t* document_begins;  // of the sequence; null: documents do not matter
  std::int32_t* first;
  std::int32_t* end;

  // For the query rows begin ... end - 1.
  void fill(std::int64_t begin_row, std::int64_t end_row) const {
    KeyCounter before_first(visible.keys);
    KeyCounter before_end(visible.keys);
    std::int64_t row = begin_row;
    for (const PositionRange& range : slice_of(visible.queries, begin_row, end_row))
      for (std::int64_t p = range.begin; p < range.end(); ++p, ++row) {
        std::int64_t low = document_begins != nullptr ? document_begins[p] : 0;
        std::int64_t high = p + 1;
        const std::int64_t in_window = std::max(low, p - visible.pattern.window + 1);
        if (of_globals)
          high = std::min(low + visible.pattern.globals, in_window);
        else if (visible.pattern.window > 0)
          low = in_window;
        first[row] = static_cast<std::int32_t>(before_first.before(low));
        end[row] = static_cast<std::int32_t>(before_end.before(high));
        if (row < visible.first_query) end[row] = first[row];
        if (row >= visible.end_query) first[row] = end[row];
      }
  }
};

// Ranges of one set of a sequence, in the orders of a pattern.
struct PatternRanges {
  const VisibleKeys& visible;
  const RowOrder& queries;
  const RowOrder& keys;
  std::int64_t set;
  const std::int32_t* document_begins;  // of the sequence; null: documents do not matter
  std::int32_t* first;
  std::int32_t* end;

  void fill(std::int64_t begin_place, std::int64_t end_place) const {
    SeenSets sets(visible.pattern);
    for (std::int64_t i = begin_place; i < end_place; ++i) {
      const std::int64_t p = queries.position(i);
      const SeenKeys seen = sets.seen(set, p, document_begins != nullptr ? document_begins[p] : 0);
      const std::int64_t from = keys.place(seen.group, seen.begin);
      first[i] = static_cast<std::int32_t>(from);
      end[i] = static_cast<std::int32_t>(std::max(from, keys.place(seen.group, seen.end)));
    }
  }
};

}  // namespace

void fill_document_begins(DocumentStarts document_starts, const TensorView& document_begins) {
  std::int64_t sequence = 0;
  for (const std::vector<std::int32_t>& starts : document_starts) {
    std::int32_t* out = document_begins.row<std::int32_t>(sequence++);
    auto next = starts.begin();
    std::int32_t begin = 0;
    for (std::int64_t position = 0; position < document_begins.cols(); ++position) {
      while (next != starts.end() && *next <= position) begin = *next++;
      out[position] = begin;
    }
  }
}

void restart_positions(const TensorView& positions, const TensorView& document_begins,
                       const TensorView& rotary) {
  const std::int64_t length = positions.numel() / document_begins.rows();
  const std::int32_t* position = positions.as<std::int32_t>();
  std::int32_t* restarted = rotary.as<std::int32_t>();
  for (std::int64_t s = 0; s < document_begins.rows(); ++s) {
    const std::int32_t* begins = document_begins.row<std::int32_t>(s);
    for (std::int64_t i = s * length; i < (s + 1) * length; ++i)
      restarted[i] = position[i] - begins[position[i]];
  }
}

void fill_key_ranges(const VisibleKeys& visible, const TensorView& document_begins,
                     const TensorView& first, const TensorView& end) {
  const std::int64_t length = visible.query_length();
  const bool is_plain = visible.pattern.is_plain();
  const std::span<const PositionRange> none;
  const RowOrder queries = query_order(visible.pattern, is_plain ? none : visible.queries);
  const RowOrder keys = key_order(visible.pattern, is_plain ? none : visible.keys);
  for (std::int64_t r = 0; r < visible.pattern.num_sets() * visible.num_sequences; ++r) {
    const std::int64_t s = r % visible.num_sequences;
    const std::int32_t* begins =
        document_begins.empty() ? nullptr : document_begins.row<std::int32_t>(s);
    std::int32_t* firsts = first.as<std::int32_t>() + r * length;
    std::int32_t* ends = end.as<std::int32_t>() + r * length;
    const auto fill = [&](const auto& ranges) {
      parallel_blocks(length, block_elements,
                      [&](std::int64_t from, std::int64_t to) { ranges.fill(from, to); });
    };
    if (is_plain)
      fill(SequenceRanges{visible, r >= visible.num_sequences, begins, firsts, ends});
    else
      fill(PatternRanges{visible, queries, keys, r / visible.num_sequences, begins, firsts, ends});
  }
}

}  // namespace switchyard::kernels::cpu
