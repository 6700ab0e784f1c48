// Moving rows between token order and expert order. A *slot* is a (token, choice) pair, number
// t k + j; a *row* is a slot's place among rows sorted by expert, and by slot within an expert.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// Stable counting sort of slots by expert. indices: i32 [T, k], each in [0, E). Written: counts i64
// [E], row_of_slot i32 [T, k], token_of_row i32 [T k].
void sort_by_expert(const TensorView& indices, const TensorView& counts,
                    const TensorView& row_of_slot, const TensorView& token_of_row);

// dst[i] = src[index[i]]. src: [n, H]; index: i32 [m]; dst: [m, H]; f32 or bf16.
void gather_rows(const TensorView& src, const TensorView& index, const TensorView& dst);

// dst[index[i]] = src[i]: the inverse of gather_rows for an index without repeats.
void scatter_rows(const TensorView& src, const TensorView& index, const TensorView& dst);

// out[t] = sum over j of weights[t, j] * rows[row_of_slot[t, j]], j ascending, in fp32, then rounded.
// rows: [T k, H]; weights: f32 [T, k]; out: [T, H] of the same type as rows.
void combine_rows(const TensorView& rows, const TensorView& row_of_slot, const TensorView& weights,
                  const TensorView& out);

// The gradients: drows[row_of_slot[t, j]] = weights[t, j] * dout[t]; dweights[t, j] = <dout[t],
// rows[row_of_slot[t, j]]>. Both written. drows may not be rows.
void combine_rows_backward(const TensorView& dout, const TensorView& rows,
                           const TensorView& row_of_slot, const TensorView& weights,
                           const TensorView& drows, const TensorView& dweights);

// out[t] = sum over j of rows[row_of_slot[t, j]], j ascending, in fp32: the adjoint of gathering
// tokens into rows.
void sum_rows(const TensorView& rows, const TensorView& row_of_slot, const TensorView& out);

}  // namespace switchyard::kernels
