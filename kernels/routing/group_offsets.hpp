// From the number of rows of each group to where the rows of each begin.
#pragma once

#include <span>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// offsets[g] = sum over h < g and s of counts[s, h]: an exclusive prefix sum over the groups, for
// rows that lie sorted by group. counts: i32 [groups], or [sources, groups] where rows of several
// sources come together; not negative, with a sum below 2^31. offsets: i32 [groups + 1], written.
void group_offsets(const TensorView& counts, const TensorView& offsets);

// For exact sums (kernels/gradient_sum.hpp). counts[place, u]: of the (token, choice) pairs of unit
// u, which has the tokens u unit_rows ... (u + 1) unit_rows - 1, those whose expert lives at
// `place`. indices: i32 [T, k], -1 for none; place_of_expert as in kernels/routing/permute.hpp;
// counts: i32 [places, T / unit_rows], written.
void count_by_unit(const TensorView& indices, std::span<const std::int32_t> place_of_expert,
                   std::int64_t unit_rows, const TensorView& counts);
// Where the rows of each unit of each group begin, and where the last end. counts: i32 [sources,
// groups, units]. order: [sources * units], on the host: how the units lie one behind the other in
// a group, each as source * units + u. offsets: i32 [groups * sources * units + 1], written.
void unit_offsets(const TensorView& counts, std::span<const std::int32_t> order,
                  const TensorView& offsets);

}  // namespace switchyard::kernels
