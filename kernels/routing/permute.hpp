// Moving rows between token order and expert order. A *slot* is a (token, choice) pair, number
// t k + j; a *row* is a slot's number among rows sorted by expert, and by slot within an expert.
// Expert -1 and row -1 mean dropped: such a slot has no row, reads as zeros and adds nothing.
#pragma once

#include <span>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// Stable counting sort of slots by the place of their expert. indices: i32 [T, k], each in [0, E)
// or -1. place_of_expert: [E], on the host, all different; empty if expert e is at place e.
// Written: counts i32 [places], row_of_slot i32 [T, k] (-1 of a dropped slot), token_of_row i32 [T
// k] (-1 beyond the sum of the counts).
// With rows_of_place every place has room for so many rows, which no count exceeds, and its rows
// begin there: token_of_row is i32 [places rows_of_place], -1 where there is no row. Not on a card.
void sort_by_expert(const TensorView& indices, std::span<const std::int32_t> place_of_expert,
                    const TensorView& counts, const TensorView& row_of_slot,
                    const TensorView& token_of_row, std::int64_t rows_of_place = 0);

// dst[i] = src[index[i]], zeros where index[i] is -1. src: [n, H]; index: i32 [m]; dst: [m, H];
// f32, bf16 or i32.
void gather_rows(const TensorView& src, const TensorView& index, const TensorView& dst);

// dst[index[i]] = src[i], for an index without repeats: the inverse of gather_rows. Nothing is
// written for -1, nor to rows that no index names. f32, bf16 or i32.
void scatter_rows(const TensorView& src, const TensorView& index, const TensorView& dst);

// out[t] = sum over j of weights[t, j] * rows[row_of_slot[t, j]], j ascending, in fp32, then
// rounded. A dropped choice adds nothing, whatever its weight. rows: [n, H]; row_of_slot: i32 [T,
// k], each in [0, n) or -1; weights: f32 [T, k]; out: [T, H] of the same type as rows, or, not on a
// card, of another.
void combine_rows(const TensorView& rows, const TensorView& row_of_slot, const TensorView& weights,
                  const TensorView& out);

// The gradients: drows[row_of_slot[t, j]] = weights[t, j] * dout[t]; dweights[t, j] = <dout[t],
// rows[row_of_slot[t, j]]>, 0 of a dropped choice. Both written, but for rows of drows that no slot
// names. drows may not be rows.
void combine_rows_backward(const TensorView& dout, const TensorView& rows,
                           const TensorView& row_of_slot, const TensorView& weights,
                           const TensorView& drows, const TensorView& dweights);

// out[t] = sum over j of rows[row_of_slot[t, j]], j ascending, in fp32: the adjoint of gathering
// tokens into rows. Types as of combine_rows.
void sum_rows(const TensorView& rows, const TensorView& row_of_slot, const TensorView& out);

}  // namespace switchyard::kernels
