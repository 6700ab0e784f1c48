// The CPU twins of kernels/routing/permute.hpp. Indices outside their range (-1: dropped) throw
// InternalError.
#pragma once

#include <span>

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

void sort_by_expert(const TensorView& indices, std::span<const std::int32_t> place_of_expert,
                    const TensorView& counts, const TensorView& row_of_slot,
                    const TensorView& token_of_row, std::int64_t rows_of_place);
void gather_rows(const TensorView& src, const TensorView& index, const TensorView& dst);
void scatter_rows(const TensorView& src, const TensorView& index, const TensorView& dst);
void combine_rows(const TensorView& rows, const TensorView& row_of_slot, const TensorView& weights,
                  const TensorView& out);
void combine_rows_backward(const TensorView& dout, const TensorView& rows,
                           const TensorView& row_of_slot, const TensorView& weights,
                           const TensorView& drows, const TensorView& dweights);
void sum_rows(const TensorView& rows, const TensorView& row_of_slot, const TensorView& out);

}  // namespace switchyard::kernels::cpu
