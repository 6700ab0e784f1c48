// Attention within classes of positions (kernels/attention/hash_classes.hpp). All keys up to the
// queries are at hand; who brings them is the caller's business. Each head of each sequence is one
// call of the kernel a round, over rows that are sorted by class; rounds are joined by
// log-sum-exps. Classes are made of the keys again for the backward pass, with the same bits. Owns
// its scratch, made once. Every head has keys of its own. Legend: S sequences, n queries and m keys
// of each, A heads, D head_dim, R rounds.
#pragma once

#include <span>

#include "kernels/attention/block_choice.hpp"
#include "kernels/attention/hash_classes.hpp"
#include "kernels/attention/head_slice.hpp"
#include "parallel/context/part_attention.hpp"

namespace switchyard {

class ClassAttention {
 public:
  // For at most so many queries and keys a sequence; patterns have classes.
  ClassAttention(Device& device, const AttentionSizes& sizes, DType compute,
                 std::span<const kernels::KeyPattern> patterns, std::int64_t max_queries,
                 std::int64_t max_keys);

  // inputs: k, v [S m, A D], at the positions 0 ... m - 1 of each sequence, and directions. sums:
  // f32 [S n, A D], lse: written.
  void forward(const kernels::BlockQueries& asking, const AttentionInputs& inputs,
               const TensorView& sums, const TensorView& lse, const kernels::Poll& poll);
  // dq, dk, dv: f32, added to.
  void backward(const kernels::BlockQueries& asking, const AttentionInputs& inputs,
                const AttentionResults& results, const AttentionRowGradients& sums,
                const kernels::Poll& poll);

 private:
  // A head of a sequence in a round.
  struct Sorted {
    kernels::HeadSlice heads;
    kernels::KeyRanges ranges;
    PositionRange queries, keys;  // rows of the sequence
    bool is_first;                // round
  };
  // Calls each(Sorted) for all of them, a head's rounds one after the other.
  template <class Each>
  void for_each_class(const kernels::BlockQueries& asking, const AttentionInputs& inputs,
                      Each each) const;
  kernels::AttentionShape shape_of(const kernels::KeyPattern& pattern, std::int64_t num_queries,
                                   std::int64_t num_keys) const;

  AttentionSizes sizes_;
  Tensor buckets_;                                   // i32 [S m, R A]
  Tensor query_rows_, key_rows_, first_keys_, end_;  // i32 [n], [m], [n], [n]
  Tensor workspace_;
};

}  // namespace switchyard
