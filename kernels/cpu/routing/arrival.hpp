// The CPU twin of kernels/routing/arrival.hpp. Counts that are negative or do not add up to the
// rows throw InternalError.
#pragma once

#include "kernels/routing/arrival.hpp"

namespace switchyard::kernels::cpu {

void arrival_order(const TensorView& counts, const TensorView& numbers,
                   const SharingSources& sharing, const TensorView& arrival_of_row);
// With rows_of_count.
void arrival_order_of_padded(const TensorView& counts, std::int64_t rows_of_count,
                             const TensorView& arrival_of_row);

}  // namespace switchyard::kernels::cpu
