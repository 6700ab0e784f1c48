// How attention is cut into blocks, and the moves between tensors and blocks that both passes
// share. A query block holds `queries` queries of each of the `group` heads that share a kv head,
// stacked: row h * count + i is query i of head h. A key block holds up to `keys` keys. Rows are
// padded with zeros to multiples of 16 (queries) and 64 (keys), so that few distinct products are
// made. Blocks are those of the whole sequence also where only a share of its rows is held: the
// others are zeros and see nothing, and no row of a product depends on another.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/attention/attention.hpp"
#include "kernels/cpu/attention/softmax.hpp"
#include "kernels/cpu/products/onednn.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

struct Range {
  std::int64_t begin = 0;
  std::int64_t count = 0;
  std::int64_t end() const { return begin + count; }
};

// One kv head of one sequence, and the query heads that read it.
struct HeadGroup {
  std::int64_t sequence = 0;
  std::int64_t kv_head = 0;
};

class AttentionBlocks {
 public:
  static constexpr std::int64_t max_keys_of_block = 256;
  // For sizes alone; what asks for keys or queries by their ranges needs the ranges.
  AttentionBlocks(const AttentionShape& shape, DType dtype);
  AttentionBlocks(const AttentionShape& shape, DType dtype, const KeyRanges& ranges);

  const AttentionShape& shape() const { return shape_; }
  std::int64_t group() const { return shape_.num_heads / shape_.num_kv_heads; }
  std::int64_t head_dim() const { return shape_.head_dim; }
  std::int64_t num_groups() const { return shape_.num_sequences * shape_.num_kv_heads; }
  HeadGroup head_group(std::int64_t i) const {
    return {i / shape_.num_kv_heads, i % shape_.num_kv_heads};
  }

  std::int64_t num_query_blocks() const;
  Range query_block(std::int64_t i) const;
  std::int64_t num_key_blocks() const;
  Range key_block(std::int64_t j) const;
  // What follows is about one set of ranges, `set`, if it does not say otherwise.
  std::int64_t num_sets() const { return num_sets_; }
  // Of key block j, from the first to the last key that one of a sequence's queries sees, the first
  // rounded down so that keys are cut at multiples of 64; count 0 if none is seen.
  Range key_block(std::int64_t j, std::int64_t set, std::int64_t sequence,
                  const Range& queries) const;
  // Key blocks outside are seen by none of the queries; queries blocks outside see none of the
  // keys, by any set.
  Range key_blocks_of(std::int64_t set, std::int64_t sequence, const Range& queries) const;
  Range query_blocks_of(std::int64_t sequence, const Range& keys) const;

  std::int64_t max_rows() const { return padded_rows(queries_); }  // of a query block
  std::int64_t max_keys() const { return keys_; }
  std::int64_t padded_rows(std::int64_t num_queries) const;
  static std::int64_t padded_keys(std::int64_t num_keys);

  // Whether rows of the share that is held are among these.
  bool holds_query(std::int64_t query) const { return holds_queries({query, 1}); }
  bool holds_queries(const Range& queries) const;
  bool holds_key(std::int64_t key) const { return holds_keys({key, 1}); }
  bool holds_keys(const Range& keys) const;

  DType dtype() const { return dtype_; }        // of the tensors
  DType operands() const { return operands_; }  // of the products
  std::int64_t operand_bytes(std::int64_t numel) const { return numel * size_of(operands_); }
  // The same with fp32 operands. Scratch has room for them on every processor, so that a plan knows
  // its size.
  AttentionBlocks with_widest_operands() const {
    AttentionBlocks widest = *this;
    widest.operands_ = DType::f32;
    return widest;
  }
  StoreAs store_as() const;
  float scale_log2() const;  // scale * log2(e)

  // from[r] ... to[r] - 1: which of `keys`, counted from their first, row r of the query block
  // sees. Padding and queries that are not held see none.
  void find_visible(std::int64_t set, std::int64_t sequence, const Range& queries,
                    const Range& keys, std::int32_t* from, std::int32_t* to) const;
  // The same in two steps: of each query, held or not; and of the rows that its heads are, from
  // what queries have in the same places.
  void find_seen(std::int64_t set, std::int64_t sequence, const Range& queries, const Range& keys,
                 std::int32_t* from, std::int32_t* to) const;
  void spread_to_rows(const Range& queries, std::int32_t* from, std::int32_t* to) const;

  // Adds to the scores [padded rows, padded keys] of a query block what their distances do; such as
  // are multiplied by the scale afterwards. Nothing without slopes and bias.
  void add_by_distance(const HeadGroup& g, const Range& queries, const Range& keys,
                       float* scores) const;
  // dbias [padded rows, parameters of a head]: the gradients of the scores that each row sees (as
  // of find_visible) are added, as they are stored.
  void add_bias_gradient(const HeadGroup& g, const Range& queries, const Range& keys,
                         const std::byte* dscores, const std::int32_t* from, const std::int32_t* to,
                         float* dbias) const;

  // Queries (of all heads of the group) and keys as dense padded blocks in the operand type; zeros
  // for those that are not held.
  void gather_queries(const TensorView& from, const HeadGroup& g, const Range& queries,
                      std::byte* block) const;
  void gather_keys(const TensorView& from, const HeadGroup& g, const Range& keys,
                   std::byte* block) const;
  // The same in two steps, for keys of several ranges.
  void copy_keys(const TensorView& from, const HeadGroup& g, const Range& keys,
                 std::byte* rows) const;
  void pad_keys(std::int64_t num_keys, std::byte* block) const;
  // Address of a held query's part for head h of the group; of a held key's part. Of any element
  // type.
  std::byte* query_at(const TensorView& in, const HeadGroup& g, std::int64_t h,
                      std::int64_t query) const;
  std::byte* key_at(const TensorView& in, const HeadGroup& g, std::int64_t key) const;
  // The positions of the rows at places.
  std::int64_t query_position(std::int64_t query) const { return position_of_query(query); }
  std::int64_t key_position(std::int64_t key) const;
  // A head's part of a row, in the operand type.
  void copy_row(const std::byte* from, std::byte* to) const { gather_row(from, to); }
  // Where a held query's gradients of a head's bias lie.
  float* bias_at(const TensorView& dbias, const HeadGroup& g, std::int64_t h,
                 std::int64_t query) const;
  // Of a value for each head: lse, delta.
  float* value_at(const TensorView& values, const HeadGroup& g, std::int64_t h,
                  std::int64_t query) const;

 private:
  void gather_row(const std::byte* from, std::byte* to) const;
  // From the first to the last that sees one of the keys.
  Range queries_of_set(std::int64_t set, std::int64_t sequence, const Range& keys) const;
  // Of a sequence: the row at a place.
  std::int64_t row_of_query(std::int64_t query) const {
    return query_rows_ == nullptr ? query : query_rows_[query];
  }
  std::int64_t row_of_key(std::int64_t key) const {
    return key_rows_ == nullptr ? key : key_rows_[key];
  }
  // Of the tensors: the row of a held query, of a held key.
  std::int64_t query_row(std::int64_t sequence, std::int64_t query) const;
  std::int64_t key_row(std::int64_t sequence, std::int64_t key) const;
  // Positions of keys, and of a query.
  std::array<std::int32_t, max_keys_of_block> positions_of(const Range& keys) const;
  std::int32_t position_of_query(std::int64_t query) const;

  AttentionShape shape_;
  DType dtype_;
  DType operands_;
  std::int64_t queries_;
  std::int64_t keys_;
  // Row of the ranges of a sequence's first query.
  std::int64_t range_row(std::int64_t set, std::int64_t sequence) const {
    return (set * shape_.num_sequences + sequence) * shape_.query_length;
  }

  std::int64_t num_sets_ = 1;
  const std::int32_t* first_ = nullptr;
  const std::int32_t* end_ = nullptr;
  bool ascends_ = true;
  const std::int32_t* query_rows_ = nullptr;  // null: every row at its place
  const std::int32_t* key_rows_ = nullptr;
};

// Cuts a thread's part of the workspace into arrays at multiples of 64 bytes. Starting from a null
// address it only counts.
class Carver {
 public:
  explicit Carver(std::byte* begin) : next_(reinterpret_cast<std::uintptr_t>(begin)) {}
  template <class T>
  T* take(std::int64_t count) {
    const std::uintptr_t address = next_;
    const auto bytes = static_cast<std::uintptr_t>(count) * sizeof(T);
    next_ += (bytes + 63) / 64 * 64;
    return reinterpret_cast<T*>(address);
  }
  std::int64_t bytes_from_null() const { return static_cast<std::int64_t>(next_); }

 private:
  std::uintptr_t next_;
};

}  // namespace switchyard::kernels::cpu
