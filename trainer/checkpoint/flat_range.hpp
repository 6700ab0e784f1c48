// Elements of a flattened row-major tensor as rectangular boxes: what a rank owns is a range of the
// flattened tensor, or stretches of one length and distance, where the tensor is cut along an inner
// dim; what HDF5 selects is a box.
#pragma once

#include <cstdint>
#include <vector>

#include "data/hdf5/hdf5.hpp"
#include "tensor/shape.hpp"

namespace switchyard {

// Disjoint boxes that together hold exactly the elements [begin, begin + numel) of `shape`, ordered
// so that their elements, box after box and row-major inside each, come in ascending order. At most
// 2 * num_dims - 1 of them; none when numel is 0.
std::vector<hdf5::Box> flat_range_to_boxes(const Shape& shape, std::int64_t begin,
                                           std::int64_t numel);

// The same for `count` stretches of `numel` elements, each `stride` elements after the one before.
// InternalError unless a stretch is a run of indices of one dim and a stride all of that dim.
std::vector<hdf5::Box> stretches_to_boxes(const Shape& shape, std::int64_t begin,
                                          std::int64_t numel, std::int64_t count,
                                          std::int64_t stride);

}  // namespace switchyard
