// Attention of this rank's queries over a part of the keys: the kernel, with the ranges that follow
// from who holds which positions, and the scratch that every scheme of context parallelism shares.
// Made once; borrows the device. The ranges of a part are made when it is first asked for, and
// again when the documents have changed: once a micro-batch, not in every layer and direction.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <vector>

#include "kernels/attention/attention.hpp"
#include "kernels/attention/key_ranges.hpp"
#include "tensor/tensor.hpp"

namespace switchyard {

// Heads as the kernel sees them: a rank's share of them where Ulysses divides them.
struct AttentionSizes {
  std::int64_t num_sequences = 0;  // of a micro-batch
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  float scale = 1.0f;
  std::vector<float> slopes = {};  // by head; none: nothing is lowered by distance
  // Of kernels::DistanceBias: the parameter of each distance, and how many there are of a head.
  std::vector<std::int32_t> bias_parameters = {};
  std::int64_t num_bias_parameters = 0;
  std::int64_t num_distances = 0;  // that have keys (kernels::AttentionShape); 0: none
  // Of all that there are (0: num_heads), these are the heads from first_head on.
  std::int64_t first_head = 0;
  std::int64_t all_heads = 0;

  std::int64_t query_cols() const { return num_heads * head_dim; }
  std::int64_t key_cols() const { return num_kv_heads * head_dim; }
  std::int64_t bias_cols() const { return num_heads * num_bias_parameters; }
};

// What a rank brings: rows of its positions. Rows may be strided.
struct AttentionInputs {
  TensorView q;          // [S n, A D]
  TensorView k;          // [S n, G D]
  TensorView v;          // [S n, G D]
  TensorView bias = {};  // f32 [A, N]: what is added by distance; none: nothing
  // i32 [S n, G t]: the blocks that each query chose (kernels/attention/block_choice.hpp); forward
  // writes them. Of hierarchical patterns that choose.
  TensorView chosen = {};
  // f32 [R, B]: of the R learned sums of each block's keys and values; none: means.
  TensorView summary_keys = {}, summary_values = {};
  TensorView directions = {};  // f32 [., D]: by which keys are hashed, of patterns with classes
  // Of keys of distances: p [S n, A D], r [distances, G D].
  TensorView distance_queries = {}, distance_keys = {};
};
// Their gradients, of q, k and v likewise.
struct AttentionRowGradients {
  TensorView q, k, v;
  TensorView bias = {};              // f32 [S n, A U]: of each row, to the U parameters of a head
  TensorView distance_queries = {};  // as p
  TensorView distance_keys = {};     // f32, as r: added to
  TensorView summary_keys = {}, summary_values = {};  // f32: added to
};
// What the backward pass reads beside it. lse and delta of the whole rows, sinks included.
struct AttentionResults {
  TensorView lse;    // f32 [S n, A]
  TensorView delta;  // f32 [S n, A]
  TensorView dout;   // [S n, A D]
};

// Keys of one call: of every sequence the rows of `keys`, `key_length` rows a sequence (those
// behind the keys' own are padding, which no query sees).
struct AttentionPart {
  std::span<const PositionRange> queries;
  std::span<const PositionRange> keys;
  std::int64_t key_length = 0;
  kernels::KeyPattern pattern = {};
  // Of every sequence only these query rows see anything: first_query ... end_query - 1.
  std::int64_t first_query = 0;
  std::int64_t end_query = std::numeric_limits<std::int64_t>::max();
  // Whether blocks are those of whole sequences, of which queries and keys are a share (kernels'
  // held_queries and held_keys); key_length and the limits of queries then do not count.
  bool of_whole_sequences = false;
  // Whether gradients are written, as zeros, also where no query sees a key.
  bool writes_zeros = false;
};

class PartAttention {
 public:
  // Scratch for calls of at most max_queries and max_keys rows a sequence, of positions below
  // `length`, with these patterns.
  PartAttention(Device& device, const AttentionSizes& sizes, DType compute,
                std::span<const kernels::KeyPattern> patterns, std::int64_t max_queries,
                std::int64_t max_keys, std::int64_t length);

  // By sequence, or empty; kept until the next call.
  void set_documents(kernels::DocumentStarts document_starts);

  // The kernel's own contract (kernels/attention/attention.hpp). A part that nobody sees is skipped
  // where something is there before; false: it was.
  bool forward(const AttentionPart& part, const AttentionInputs& inputs, const TensorView& out,
               const TensorView& lse, kernels::Merge merge, const kernels::Poll& poll);
  // The gradients asked for are written; without a pair to see, nothing or zeros are, and the
  // result is false.
  bool backward(const AttentionPart& part, const AttentionInputs& inputs,
                const AttentionResults& results, const kernels::AttentionGradients& gradients,
                const kernels::Poll& poll);

  Device& device() const { return device_; }
  const AttentionSizes& sizes() const { return sizes_; }
  DType compute() const { return compute_; }
  kernels::DocumentStarts document_starts() const { return document_starts_; }
  // Empty: documents do not matter.
  TensorView document_begins() const {
    return document_starts_.empty() ? TensorView{} : document_begins_.view();
  }

 private:
  // What the ranges of a part depend on, beside the documents.
  struct PartKey {
    std::vector<PositionRange> keys, queries;
    kernels::KeyPattern pattern;
    std::int64_t first_query, end_query;
    auto operator<=>(const PartKey&) const = default;
  };
  // What was made for it.
  struct MadeRanges {
    Tensor first;                 // i32 [sets S num_queries]
    Tensor end;                   // i32 [sets S num_queries]
    Tensor query_rows, key_rows;  // i32 [num_queries], [num_keys]; only in other orders
    double num_pairs = 0;
    bool is_current = false;  // of these documents
  };

  kernels::AttentionShape shape_of(const AttentionPart& part, const AttentionInputs& inputs) const;
  kernels::KeyRanges ranges_of(const AttentionPart& part);
  kernels::KeyRanges ranges_of_whole(const AttentionPart& share);
  std::vector<kernels::HeadShare> shares_of(const AttentionPart& part) const;
  void make(const PartKey& part, MadeRanges& ranges) const;
  Tensor rows_in_order(const kernels::RowOrder& order) const;

  Device& device_;
  AttentionSizes sizes_;
  DType compute_;
  std::int64_t length_;
  std::vector<std::vector<std::int32_t>> document_starts_;
  Tensor document_begins_;  // i32 [S, length]; none before there are documents
  std::map<PartKey, MadeRanges> made_;
  Tensor workspace_;  // of the kernel
};

}  // namespace switchyard
