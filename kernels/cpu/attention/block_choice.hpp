// The CPU twins of kernels/attention/block_choice.hpp.
#pragma once

#include "kernels/attention/block_choice.hpp"

namespace switchyard::kernels::cpu {

void block_mean(const TensorView& rows, std::int64_t num_sequences, std::int64_t block,
                const TensorView& pooled);
void block_mean_backward(const TensorView& d_pooled, std::int64_t num_sequences, std::int64_t block,
                         const TensorView& d_rows);
void block_sums(const TensorView& rows, std::int64_t num_sequences, const TensorView& weights,
                const TensorView& sums);
void block_sums_backward(const TensorView& d_sums, const TensorView& rows,
                         std::int64_t num_sequences, const TensorView& weights,
                         const TensorView& d_rows, const TensorView& d_weights);
void fill_block_ranges(const BlockQueries& asking, const TensorView& first, const TensorView& end);
void choose_blocks(const BlockQueries& asking, std::int64_t head_dim, const TensorView& q,
                   const TensorView& pooled_keys, const TensorView& chosen);

}  // namespace switchyard::kernels::cpu
