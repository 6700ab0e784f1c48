// The CUDA twins of kernels/attention/key_ranges.hpp. What the host knows travels by value with the
// launches.
#pragma once

#include "kernels/attention/key_ranges.hpp"

namespace switchyard::kernels::cuda {

void fill_document_begins(DocumentStarts document_starts, const TensorView& document_begins);
void restart_positions(const TensorView& positions, const TensorView& document_begins,
                       const TensorView& rotary);
void fill_key_ranges(const VisibleKeys& visible, const TensorView& document_begins,
                     const TensorView& first, const TensorView& end);

}  // namespace switchyard::kernels::cuda
