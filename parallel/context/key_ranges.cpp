#include "parallel/context/key_ranges.hpp"

#include <algorithm>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

// How many keys lie before positions that never decrease.
class KeyCounter {
 public:
  explicit KeyCounter(std::span<const Segment> keys) : keys_(keys) {}

  std::int64_t before(std::int64_t position) {
    while (!keys_.empty() && position >= keys_.front().end()) {
      passed_ += keys_.front().count;
      keys_ = keys_.subspan(1);
    }
    if (keys_.empty()) return passed_;
    return passed_ + std::max<std::int64_t>(position - keys_.front().begin, 0);
  }

 private:
  std::span<const Segment> keys_;  // that are not wholly before the last position
  std::int64_t passed_ = 0;
};

// Calls each(first, end) for the queries of one sequence.
template <class Each>
void for_each_query(const VisibleKeys& visible, std::span<const std::int32_t> starts, Each each) {
  KeyCounter before_first(visible.keys);
  KeyCounter before_end(visible.keys);
  std::int64_t document_begin = 0;
  std::size_t next_document = 0;
  for (const Segment& segment : visible.queries)
    for (std::int64_t p = segment.begin; p < segment.end(); ++p) {
      while (next_document < starts.size() && starts[next_document] <= p)
        document_begin = starts[next_document++];
      std::int64_t low = document_begin;
      if (visible.window > 0) low = std::max(low, p - visible.window + 1);
      each(before_first.before(low), before_end.before(p + 1));
    }
}

// Calls each(first, end) for the queries of all sequences.
template <class Each>
void for_each_sequence(const VisibleKeys& visible, Each each) {
  expect(visible.document_starts.empty() ||
             std::ssize(visible.document_starts) == visible.num_sequences,
         "document starts of every sequence, or none");
  for (std::int64_t s = 0; s < visible.num_sequences; ++s)
    for_each_query(visible,
                   visible.document_starts.empty()
                       ? std::span<const std::int32_t>{}
                       : visible.document_starts[static_cast<std::size_t>(s)],
                   each);
}

// Pairs of a query at p and a key up to p - distance.
std::int64_t pairs_up_to(const Segment& queries, const Segment& keys, std::int64_t distance) {
  // Of the first x positions from keys.begin on, taken as queries.
  const auto of_first = [&](std::int64_t x) {
    const std::int64_t rising = std::clamp<std::int64_t>(x, 0, keys.count);
    return rising * (rising + 1) / 2 + std::max<std::int64_t>(x - keys.count, 0) * keys.count;
  };
  return of_first(queries.end() - distance - keys.begin) -
         of_first(queries.begin - distance - keys.begin);
}

}  // namespace

double count_pairs(const VisibleKeys& visible) {
  std::int64_t num_pairs = 0;
  if (visible.document_starts.empty()) {
    for (const Segment& queries : visible.queries)
      for (const Segment& keys : visible.keys) {
        num_pairs += pairs_up_to(queries, keys, 0);
        if (visible.window > 0) num_pairs -= pairs_up_to(queries, keys, visible.window);
      }
    return static_cast<double>(num_pairs * visible.num_sequences);
  }
  for_each_sequence(visible,
                    [&](std::int64_t first, std::int64_t end) { num_pairs += end - first; });
  return static_cast<double>(num_pairs);
}

void fill_key_ranges(const VisibleKeys& visible, std::int32_t* first, std::int32_t* end) {
  for_each_sequence(visible, [&](std::int64_t from, std::int64_t to) {
    *first++ = static_cast<std::int32_t>(from);
    *end++ = static_cast<std::int32_t>(to);
  });
}

std::vector<Segment> seen_positions(std::span<const Segment> queries, std::int64_t window) {
  std::vector<Segment> seen;
  for (const Segment& segment : queries) {
    const std::int64_t begin =
        window > 0 ? std::max<std::int64_t>(segment.begin - window + 1, 0) : 0;
    seen.push_back({begin, segment.end() - begin});
  }
  return joined(std::move(seen));
}

}  // namespace switchyard
