// Attention on the plan device: it records its work.
#pragma once

#include "kernels/attention/attention.hpp"
#include "kernels/attention/block_choice.hpp"

namespace switchyard::kernels::plan {

// Model flops, each visible pair of query and key once: 4 head_dim a head forward, 8 backward (the
// scores that the backward pass computes again, and its delta, are no work of the model).
void attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                       const TensorView& v, const KeyRanges& ranges, const TensorView& out,
                       const TensorView& lse);
void attention_delta(const TensorView& out, const TensorView& dout, const TensorView& delta);
void attention_backward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                        const TensorView& v, const KeyRanges& ranges, const TensorView& lse,
                        const TensorView& delta, const TensorView& dout,
                        const AttentionGradients& gradients);
void make_distance_bias(const TensorView& values);
void attention_merge(const TensorView& other, const TensorView& out, const TensorView& lse);
void block_mean(const TensorView& rows, const TensorView& pooled);
void block_sums(const TensorView& rows, const TensorView& weights, const TensorView& sums);
void choose_blocks(const BlockQueries& asking, const TensorView& q, const TensorView& pooled_keys,
                   const TensorView& chosen);
void hash_keys(const TensorView& keys, const TensorView& directions, const TensorView& buckets);
void sort_classes(const TensorView& query_rows, const TensorView& key_rows);
void attention_sink_forward(const TensorView& out, const TensorView& lse);
void attention_sink_backward(const TensorView& lse, const TensorView& delta);

}  // namespace switchyard::kernels::plan
