// From the number of rows of each group to where the rows of each begin.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// offsets[g] = sum over h < g and s of counts[s, h]: an exclusive prefix sum over the groups, for
// rows that lie sorted by group. counts: i32 [groups], or [sources, groups] where rows of several
// sources come together; not negative, with a sum below 2^31. offsets: i32 [groups + 1], written.
void group_offsets(const TensorView& counts, const TensorView& offsets);

}  // namespace switchyard::kernels
