// The CPU twins of kernels/attention/key_ranges.hpp.
#pragma once

#include "kernels/attention/key_ranges.hpp"

namespace switchyard::kernels::cpu {

void fill_document_begins(DocumentStarts document_starts, const TensorView& document_begins);
void restart_positions(const TensorView& positions, const TensorView& document_begins,
                       const TensorView& rotary);
void fill_key_ranges(const VisibleKeys& visible, const TensorView& document_begins,
                     const TensorView& first, const TensorView& end);

}  // namespace switchyard::kernels::cpu
