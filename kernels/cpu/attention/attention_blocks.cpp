#include "kernels/cpu/attention/attention_blocks.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numbers>

#include "kernels/isa.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

namespace {

constexpr std::int64_t row_padding = 16;
constexpr std::int64_t key_padding = 64;
// Blocks that fill the products' rows without computing too many masked scores on the diagonal.
constexpr std::int64_t stacked_rows = 256;
constexpr std::int64_t least_queries = 16;  // of a block, where there are as many

// In a short sequence the diagonal is a larger part of all scores.
std::int64_t max_queries(std::int64_t query_length) {
  return query_length > 2048 ? 256 : 128;
}

std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// The row of a held position, where `num_held` rows of every sequence are there.
std::int64_t row_of(std::span<const PositionRange> held, std::int64_t num_held,
                    std::int64_t sequence, std::int64_t position) {
  const std::int64_t in_sequence = held.empty() ? position : count_before(held, position);
  return sequence * num_held + in_sequence;
}

bool holds_any(std::span<const PositionRange> held, const Range& positions) {
  return std::ranges::any_of(held, [&](const PositionRange& range) {
    return range.begin < positions.end() && positions.begin < range.end();
  });
}

// The same for the rows at places, in another order than that of the places if there is one.
bool holds_any(std::span<const PositionRange> held, const Range& places, const std::int32_t* rows) {
  if (rows == nullptr) return holds_any(held, places);
  return std::any_of(rows + places.begin, rows + places.end(), [&](std::int32_t row) {
    return holds_any(held, {row, 1});
  });
}

// The position of a row of a sequence, where rows hold these.
std::int64_t position_of(std::span<const PositionRange> positions, std::int64_t row) {
  for (const PositionRange& range : positions) {
    if (row < range.count) return range.begin + row;
    row -= range.count;
  }
  return row;  // of padding, which nobody sees; of all rows, where nothing is said
}

void check_ranges(const AttentionShape& s, const KeyRanges& ranges, const std::int32_t* first,
                  const std::int32_t* end) {
  bool right = true;
  for (std::int64_t i = 0; i < ranges.num_sets * s.num_sequences * s.query_length; ++i) {
    const bool begins = i % s.query_length == 0 || !ranges.ascends;
    right = right && (begins ? 0 : first[i - 1]) <= first[i] &&
            (begins ? 0 : end[i - 1]) <= end[i] && first[i] <= end[i] && end[i] <= s.key_length;
  }
  expect(right, "ranges of keys that exist and never go back within a sequence");
}

}  // namespace

AttentionBlocks::AttentionBlocks(const AttentionShape& shape, DType dtype)
    : shape_(shape),
      dtype_(dtype),
      operands_(dtype == DType::bf16 && !has_bf16_products() ? DType::f32 : dtype),
      queries_(std::clamp<std::int64_t>(stacked_rows / group(), least_queries,
                                        max_queries(shape.query_length))),
      keys_(std::min(max_keys_of_block, padded_keys(shape.key_length))) {
  if (shape.query_block > 0)
    queries_ = std::min(queries_, std::max(shape.query_block, least_queries));
  queries_ = std::max<std::int64_t>(1, std::min(queries_, shape.query_length));
}

AttentionBlocks::AttentionBlocks(const AttentionShape& shape, DType dtype, const KeyRanges& ranges)
    : AttentionBlocks(shape, dtype) {
  first_ = ranges.first.as<std::int32_t>();
  end_ = ranges.end.as<std::int32_t>();
  num_sets_ = ranges.num_sets;
  ascends_ = ranges.ascends;
  if (!ranges.query_rows.empty()) query_rows_ = ranges.query_rows.as<std::int32_t>();
  if (!ranges.key_rows.empty()) key_rows_ = ranges.key_rows.as<std::int32_t>();
  check_ranges(shape, ranges, first_, end_);
}

std::int64_t AttentionBlocks::num_query_blocks() const {
  return (shape_.query_length + queries_ - 1) / queries_;
}

Range AttentionBlocks::query_block(std::int64_t i) const {
  return {i * queries_, std::min(queries_, shape_.query_length - i * queries_)};
}

std::int64_t AttentionBlocks::num_key_blocks() const {
  return (shape_.key_length + keys_ - 1) / keys_;
}

Range AttentionBlocks::key_block(std::int64_t j) const {
  return {j * keys_, std::min(keys_, shape_.key_length - j * keys_)};
}

Range AttentionBlocks::key_block(std::int64_t j, std::int64_t set, std::int64_t sequence,
                                 const Range& queries) const {
  const Range whole = key_block(j);
  const std::int64_t row = range_row(set, sequence);
  std::int64_t begin = whole.end(), end = whole.begin;
  for (std::int64_t i = row + queries.begin; i < row + queries.end(); ++i) {
    const std::int64_t first = std::max<std::int64_t>(first_[i], whole.begin);
    const std::int64_t last = std::min<std::int64_t>(end_[i], whole.end());
    if (first >= last) continue;
    begin = std::min(begin, first);
    end = std::max(end, last);
  }
  if (begin >= end) return {whole.begin, 0};
  begin -= (begin - whole.begin) % key_padding;
  return {begin, end - begin};
}

Range AttentionBlocks::key_blocks_of(std::int64_t set, std::int64_t sequence,
                                     const Range& queries) const {
  const std::int64_t row = range_row(set, sequence);
  std::int32_t first = first_[row + queries.begin];
  std::int32_t end = end_[row + queries.end() - 1];
  if (!ascends_) {
    first = std::numeric_limits<std::int32_t>::max();
    end = 0;
    for (std::int64_t i = row + queries.begin; i < row + queries.end(); ++i) {
      if (first_[i] == end_[i]) continue;
      first = std::min(first, first_[i]);
      end = std::max(end, end_[i]);
    }
  }
  const std::int64_t begin = first / keys_;
  return {begin, std::max<std::int64_t>(0, (end + keys_ - 1) / keys_ - begin)};
}

// Rows whose range ends after the first key are the last rows, those whose range begins before the
// end of the keys the first ones.
Range AttentionBlocks::queries_of_set(std::int64_t set, std::int64_t sequence,
                                      const Range& keys) const {
  const std::int32_t* ends = end_ + range_row(set, sequence);
  const std::int32_t* firsts = first_ + range_row(set, sequence);
  std::int64_t from = 0, to = shape_.query_length;
  if (ascends_) {
    from = std::upper_bound(ends, ends + to, keys.begin) - ends;
    to = std::lower_bound(firsts, firsts + to, keys.end()) - firsts;
  } else {
    const auto sees = [&](std::int64_t i) {
      return firsts[i] < std::min<std::int64_t>(keys.end(), ends[i]) && ends[i] > keys.begin;
    };
    while (from < to && !sees(from)) ++from;
    while (from < to && !sees(to - 1)) --to;
  }
  return {from, std::max<std::int64_t>(to - from, 0)};
}

Range AttentionBlocks::query_blocks_of(std::int64_t sequence, const Range& keys) const {
  std::int64_t begin = shape_.query_length, end = 0;
  for (std::int64_t set = 0; set < num_sets_; ++set) {
    const Range queries = queries_of_set(set, sequence, keys);
    if (queries.count == 0) continue;
    begin = std::min(begin, queries.begin);
    end = std::max(end, queries.end());
  }
  if (begin >= end) return {0, 0};
  return {begin / queries_, (end + queries_ - 1) / queries_ - begin / queries_};
}

std::int64_t AttentionBlocks::padded_rows(std::int64_t num_queries) const {
  return round_up(group() * num_queries, row_padding);
}

std::int64_t AttentionBlocks::padded_keys(std::int64_t num_keys) {
  return round_up(num_keys, key_padding);
}

StoreAs AttentionBlocks::store_as() const {
  if (dtype_ == DType::f32) return StoreAs::f32;
  return operands_ == DType::bf16 ? StoreAs::bf16 : StoreAs::f32_rounded_to_bf16;
}

float AttentionBlocks::scale_log2() const {
  return shape_.scale * std::numbers::log2e_v<float>;
}

void AttentionBlocks::find_seen(std::int64_t set, std::int64_t sequence, const Range& queries,
                                const Range& keys, std::int32_t* from, std::int32_t* to) const {
  const std::int64_t begin = range_row(set, sequence) + queries.begin;
  const auto of_block = [&](std::int32_t key) {
    return static_cast<std::int32_t>(std::clamp<std::int64_t>(key - keys.begin, 0, keys.count));
  };
  for (std::int64_t i = 0; i < queries.count; ++i) {
    from[i] = of_block(first_[begin + i]);
    to[i] = of_block(end_[begin + i]);
  }
}

void AttentionBlocks::spread_to_rows(const Range& queries, std::int32_t* from,
                                     std::int32_t* to) const {
  for (std::int64_t i = 0; i < queries.count; ++i)
    if (!holds_query(queries.begin + i)) to[i] = from[i];
  for (std::int64_t h = 1; h < group(); ++h) {
    std::copy_n(from, queries.count, from + h * queries.count);
    std::copy_n(to, queries.count, to + h * queries.count);
  }
  const std::int64_t rows = group() * queries.count;
  std::fill(from + rows, from + padded_rows(queries.count), 0);
  std::fill(to + rows, to + padded_rows(queries.count), 0);
}

void AttentionBlocks::find_visible(std::int64_t set, std::int64_t sequence, const Range& queries,
                                   const Range& keys, std::int32_t* from, std::int32_t* to) const {
  find_seen(set, sequence, queries, keys, from, to);
  spread_to_rows(queries, from, to);
}

std::array<std::int32_t, AttentionBlocks::max_keys_of_block> AttentionBlocks::positions_of(
    const Range& keys) const {
  std::array<std::int32_t, max_keys_of_block> positions;
  for (std::int64_t j = 0; j < keys.count; ++j)
    positions[static_cast<std::size_t>(j)] =
        static_cast<std::int32_t>(position_of(shape_.key_positions, row_of_key(keys.begin + j)));
  return positions;
}

std::int64_t AttentionBlocks::key_position(std::int64_t key) const {
  return position_of(shape_.key_positions, row_of_key(key));
}

std::int32_t AttentionBlocks::position_of_query(std::int64_t query) const {
  return static_cast<std::int32_t>(position_of(shape_.query_positions, row_of_query(query)));
}

void AttentionBlocks::add_by_distance(const HeadGroup& g, const Range& queries, const Range& keys,
                                      float* scores) const {
  const TensorView& bias = shape_.bias.values;
  if (shape_.slopes.empty() && bias.empty()) return;
  const auto positions = positions_of(keys);
  const auto last = static_cast<std::int32_t>(std::ssize(shape_.bias.parameters) - 1);
  const float unscaled = 1 / shape_.scale;
  float* row = scores;
  for (std::int64_t h = 0; h < group(); ++h) {
    const std::int64_t head = g.kv_head * group() + h;
    const float slope =
        shape_.slopes.empty() ? 0 : shape_.slopes[static_cast<std::size_t>(head)] / shape_.scale;
    const float* values = bias.empty() ? nullptr : bias.row<float>(head);
    for (std::int64_t i = 0; i < queries.count; ++i, row += padded_keys(keys.count)) {
      const std::int32_t own = position_of_query(queries.begin + i);
      if (slope != 0)
        for (std::int64_t j = 0; j < keys.count; ++j)
          row[j] -= slope * static_cast<float>(own - positions[static_cast<std::size_t>(j)]);
      if (values != nullptr)  // of keys that are not seen, too: those behind the query
        for (std::int64_t j = 0; j < keys.count; ++j)
          row[j] +=
              unscaled * values[std::clamp(own - positions[static_cast<std::size_t>(j)], 0, last)];
    }
  }
}

void AttentionBlocks::add_bias_gradient(const HeadGroup& g, const Range& queries, const Range& keys,
                                        const std::byte* dscores, const std::int32_t* from,
                                        const std::int32_t* to, float* dbias) const {
  const auto positions = positions_of(keys);
  const std::span<const std::int32_t> parameters = shape_.bias.parameters;
  const auto last = static_cast<std::int32_t>(std::ssize(parameters) - 1);
  const DType stored = store_as() == StoreAs::bf16 ? DType::bf16 : DType::f32;
  const bool has_slopes = shape_.bias.values.cols() > std::ssize(parameters);
  std::int64_t r = 0;
  for (std::int64_t h = 0; h < group(); ++h) {
    const float* slopes =
        shape_.bias.values.row<float>(g.kv_head * group() + h) + std::ssize(parameters);
    for (std::int64_t i = 0; i < queries.count; ++i, ++r) {
      const std::int32_t own = position_of_query(queries.begin + i);
      float* sums = dbias + r * shape_.bias.num_parameters;
      const std::byte* row = dscores + r * padded_keys(keys.count) * size_of(stored);
      for (std::int64_t j = from[r]; j < to[r]; ++j) {
        const std::int32_t d = std::min(own - positions[static_cast<std::size_t>(j)], last);
        const float ds = stored == DType::bf16 ? to_float(reinterpret_cast<const BFloat16*>(row)[j])
                                               : reinterpret_cast<const float*>(row)[j];
        sums[parameters[static_cast<std::size_t>(d)]] += has_slopes ? slopes[d] * ds : ds;
      }
    }
  }
}

std::int64_t AttentionBlocks::query_row(std::int64_t sequence, std::int64_t query) const {
  return row_of(shape_.held_queries, shape_.num_held_queries(), sequence, row_of_query(query));
}

std::int64_t AttentionBlocks::key_row(std::int64_t sequence, std::int64_t key) const {
  return row_of(shape_.held_keys, shape_.num_held_keys(), sequence, row_of_key(key));
}

bool AttentionBlocks::holds_queries(const Range& queries) const {
  return shape_.held_queries.empty() || holds_any(shape_.held_queries, queries, query_rows_);
}

bool AttentionBlocks::holds_keys(const Range& keys) const {
  return shape_.held_keys.empty() || holds_any(shape_.held_keys, keys, key_rows_);
}

std::byte* AttentionBlocks::query_at(const TensorView& in, const HeadGroup& g, std::int64_t h,
                                     std::int64_t query) const {
  const std::int64_t row = query_row(g.sequence, query);
  const std::int64_t col = (g.kv_head * group() + h) * head_dim();
  return in.kernel_bytes() + (row * in.row_stride + col) * size_of(in.dtype);
}

std::byte* AttentionBlocks::key_at(const TensorView& in, const HeadGroup& g,
                                   std::int64_t key) const {
  const std::int64_t row = key_row(g.sequence, key);
  return in.kernel_bytes() + (row * in.row_stride + g.kv_head * head_dim()) * size_of(in.dtype);
}

float* AttentionBlocks::bias_at(const TensorView& dbias, const HeadGroup& g, std::int64_t h,
                                std::int64_t query) const {
  return reinterpret_cast<float*>(dbias.kernel_bytes()) +
         query_row(g.sequence, query) * dbias.row_stride +
         (g.kv_head * group() + h) * shape_.bias.num_parameters;
}

float* AttentionBlocks::value_at(const TensorView& values, const HeadGroup& g, std::int64_t h,
                                 std::int64_t query) const {
  return reinterpret_cast<float*>(values.kernel_bytes()) +
         query_row(g.sequence, query) * values.row_stride + g.kv_head * group() + h;
}

void AttentionBlocks::gather_row(const std::byte* from, std::byte* to) const {
  if (operands_ == dtype_) {
    std::memcpy(to, from, static_cast<std::size_t>(operand_bytes(head_dim())));
    return;
  }
  const auto* source = reinterpret_cast<const BFloat16*>(from);
  auto* target = reinterpret_cast<float*>(to);
  for (std::int64_t i = 0; i < head_dim(); ++i) target[i] = to_float(source[i]);
}

void AttentionBlocks::gather_queries(const TensorView& from, const HeadGroup& g,
                                     const Range& queries, std::byte* block) const {
  const std::int64_t row_bytes = operand_bytes(head_dim());
  std::byte* to = block;
  for (std::int64_t h = 0; h < group(); ++h)
    for (std::int64_t i = 0; i < queries.count; ++i, to += row_bytes) {
      if (holds_query(queries.begin + i))
        gather_row(query_at(from, g, h, queries.begin + i), to);
      else
        std::fill_n(to, row_bytes, std::byte{0});
    }
  std::fill(to, block + padded_rows(queries.count) * row_bytes, std::byte{0});
}

void AttentionBlocks::gather_keys(const TensorView& from, const HeadGroup& g, const Range& keys,
                                  std::byte* block) const {
  copy_keys(from, g, keys, block);
  pad_keys(keys.count, block);
}

void AttentionBlocks::copy_keys(const TensorView& from, const HeadGroup& g, const Range& keys,
                                std::byte* rows) const {
  const std::int64_t row_bytes = operand_bytes(head_dim());
  for (std::int64_t i = 0; i < keys.count; ++i) {
    if (holds_key(keys.begin + i))
      gather_row(key_at(from, g, keys.begin + i), rows + i * row_bytes);
    else
      std::fill_n(rows + i * row_bytes, row_bytes, std::byte{0});
  }
}

void AttentionBlocks::pad_keys(std::int64_t num_keys, std::byte* block) const {
  const std::int64_t row_bytes = operand_bytes(head_dim());
  std::fill(block + num_keys * row_bytes, block + padded_keys(num_keys) * row_bytes, std::byte{0});
}

}  // namespace switchyard::kernels::cpu
