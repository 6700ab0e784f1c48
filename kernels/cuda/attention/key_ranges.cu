#include "kernels/cuda/attention/key_ranges.hpp"

#include <algorithm>

#include "kernels/cuda/rows.cuh"
#include "tensor/error.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 256;

// Beginnings of documents that one launch carries, ascending by sequence and position.
struct SomeStarts {
  static constexpr int most = 480;
  struct Start {
    std::int32_t sequence;
    std::int32_t position;
  };
  std::int32_t count = 0;
  bool is_first = true;  // of the launches
  Start starts[most];
};

// The last start at or before each position; launches that follow know later ones.
__global__ void document_begins_kernel(const __grid_constant__ SomeStarts some,
                                       CardRows<std::int32_t> document_begins, std::int64_t length,
                                       std::int64_t numel) {
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i >= numel) return;
  const std::int64_t sequence = i / length;
  const std::int64_t position = i % length;
  int low = 0;
  int high = some.count;
  while (low < high) {
    const int middle = (low + high) / 2;
    const SomeStarts::Start start = some.starts[middle];
    const bool is_before =
        start.sequence < sequence || (start.sequence == sequence && start.position <= position);
    if (is_before)
      low = middle + 1;
    else
      high = middle;
  }
  if (low > 0 && some.starts[low - 1].sequence == sequence)
    document_begins[sequence][position] = some.starts[low - 1].position;
  else if (some.is_first)
    document_begins[sequence][position] = 0;
}

__global__ void restart_kernel(const std::int32_t* positions, CardRows<const std::int32_t> begins,
                               std::int64_t length, std::int64_t numel, std::int32_t* rotary) {
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i >= numel) return;
  const std::int32_t position = positions[i];
  rotary[i] = position - begins[i / length][position];
}

// Ranges of queries and of keys that one launch carries. Rows of the queries are first_row and on;
// keys are counted apart in each launch and added.
struct SomeRanges {
  static constexpr int most = 120;
  PositionRange queries[most];
  PositionRange keys[most];
  std::int32_t num_queries = 0;
  std::int32_t num_keys = 0;
  std::int64_t first_row = 0;
  std::int64_t num_rows = 0;  // of these queries, in each sequence
  bool is_first = true;       // of the launches for these queries
  bool is_last = true;
};

struct Visible {
  std::int64_t num_sequences = 0;
  std::int64_t query_length = 0;
  std::int64_t window = 0;
  std::int64_t first_query = 0;
  std::int64_t end_query = 0;
  CardRows<const std::int32_t> document_begins;  // null: documents do not matter
  std::int32_t* first = nullptr;
  std::int32_t* end = nullptr;
};

__device__ std::int64_t position_of(const SomeRanges& some, std::int64_t row) {
  int range = 0;
  while (range + 1 < some.num_queries && row >= some.queries[range].count)
    row -= some.queries[range++].count;
  return some.queries[range].begin + row;
}

__device__ std::int64_t keys_before(const SomeRanges& some, std::int64_t position) {
  std::int64_t count = 0;
  for (int range = 0; range < some.num_keys; ++range) {
    const PositionRange& keys = some.keys[range];
    count += min(max(position - keys.begin, std::int64_t{0}), keys.count);
  }
  return count;
}

// A thread has a query of a sequence.
__global__ void key_ranges_kernel(const __grid_constant__ SomeRanges some, Visible visible) {
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i >= visible.num_sequences * some.num_rows) return;
  const std::int64_t sequence = i / some.num_rows;
  const std::int64_t p = position_of(some, i % some.num_rows);
  const std::int64_t row = some.first_row + i % some.num_rows;
  const std::int64_t at = sequence * visible.query_length + row;
  std::int64_t low = 0;
  if (visible.document_begins.data != nullptr) low = visible.document_begins[sequence][p];
  if (visible.window > 0) low = max(low, p - visible.window + 1);
  std::int64_t first = keys_before(some, low);
  std::int64_t end = keys_before(some, p + 1);
  if (!some.is_first) {
    first += visible.first[at];
    end += visible.end[at];
  }
  if (some.is_last) {
    if (row < visible.first_query) end = first;
    if (row >= visible.end_query) first = end;
  }
  visible.first[at] = static_cast<std::int32_t>(first);
  visible.end[at] = static_cast<std::int32_t>(end);
}

// The next ranges of `from`, at most as many as a launch carries.
std::int32_t take(std::span<const PositionRange>& from, PositionRange* to) {
  const std::size_t count = std::min<std::size_t>(from.size(), SomeRanges::most);
  std::ranges::copy(from.first(count), to);
  from = from.subspan(count);
  return static_cast<std::int32_t>(count);
}

}  // namespace

void fill_document_begins(DocumentStarts document_starts, const TensorView& document_begins) {
  const std::int64_t numel = document_begins.numel();
  SomeStarts some;
  const auto launch = [&] {
    document_begins_kernel<<<num_blocks(numel, threads), threads, 0, stream_of(document_begins)>>>(
        some, card_rows<std::int32_t>(document_begins), document_begins.cols(), numel);
    check_launch();
    some.is_first = false;
    some.count = 0;
  };
  std::int32_t sequence = 0;
  for (const std::vector<std::int32_t>& starts : document_starts) {
    for (const std::int32_t start : starts) {
      if (some.count == SomeStarts::most) launch();
      some.starts[some.count++] = {sequence, start};
    }
    ++sequence;
  }
  if (some.is_first || some.count > 0) launch();
}

void restart_positions(const TensorView& positions, const TensorView& document_begins,
                       const TensorView& rotary) {
  const std::int64_t numel = positions.numel();
  restart_kernel<<<num_blocks(numel, threads), threads, 0, stream_of(positions)>>>(
      pointer<std::int32_t>(positions), card_rows<const std::int32_t>(document_begins),
      numel / document_begins.rows(), numel, pointer<std::int32_t>(rotary));
  check_launch();
}

void fill_key_ranges(const VisibleKeys& visible, const TensorView& document_begins,
                     const TensorView& first, const TensorView& end) {
  const Visible operands{.num_sequences = visible.num_sequences,
                         .query_length = visible.query_length(),
                         .window = visible.pattern.window,
                         .first_query = visible.first_query,
                         .end_query = visible.end_query,
                         .document_begins = card_rows<const std::int32_t>(document_begins),
                         .first = pointer<std::int32_t>(first),
                         .end = pointer<std::int32_t>(end)};
  std::int64_t first_row = 0;
  for (std::span<const PositionRange> queries = visible.queries; !queries.empty();) {
    SomeRanges some;
    some.first_row = first_row;
    some.num_queries = take(queries, some.queries);
    some.num_rows = num_positions({some.queries, static_cast<std::size_t>(some.num_queries)});
    first_row += some.num_rows;
    if (some.num_rows == 0) continue;
    std::span<const PositionRange> keys = visible.keys;
    do {
      some.num_keys = take(keys, some.keys);
      some.is_last = keys.empty();
      key_ranges_kernel<<<num_blocks(visible.num_sequences * some.num_rows, threads), threads, 0,
                          stream_of(first)>>>(some, operands);
      check_launch();
      some.is_first = false;
    } while (!keys.empty());
  }
}

}  // namespace switchyard::kernels::cuda
