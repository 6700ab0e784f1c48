// A range of a row-major tensor's elements as rectangular boxes: what a rank owns is a range of a
// flattened tensor, what HDF5 selects is a box.
#pragma once

#include <cstdint>
#include <vector>

#include "data/hdf5.hpp"
#include "tensor/shape.hpp"

namespace switchyard {

// Disjoint boxes that together hold exactly the elements [begin, begin + numel) of `shape`, ordered
// so that their elements, box after box and row-major inside each, come in ascending order. At most
// 2 * num_dims - 1 of them; none when numel is 0.
std::vector<hdf5::Box> flat_range_to_boxes(const Shape& shape, std::int64_t begin,
                                           std::int64_t numel);

}  // namespace switchyard
