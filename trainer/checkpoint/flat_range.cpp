#include "trainer/checkpoint/flat_range.hpp"

#include "tensor/error.hpp"

namespace switchyard {
namespace {

// Adds the boxes of elements [begin, end) of the sub-tensor that spans dims `dim` and inner; the
// outer dims of `at` are fixed already.
void add_boxes(const Shape& shape, int dim, hdf5::Box at, std::int64_t begin, std::int64_t end,
               std::vector<hdf5::Box>& boxes) {
  if (begin == end) return;
  std::int64_t slab = 1;  // elements of one index of this dim
  for (int inner = dim + 1; inner < shape.num_dims(); ++inner) slab *= shape[inner];
  const auto d = static_cast<std::size_t>(dim);

  const auto inside_slab = [&](std::int64_t index, std::int64_t from, std::int64_t to) {
    hdf5::Box fixed = at;
    fixed.begin[d] = index;
    fixed.count[d] = 1;
    add_boxes(shape, dim + 1, fixed, from - index * slab, to - index * slab, boxes);
  };
  const std::int64_t first_whole = (begin + slab - 1) / slab;
  const std::int64_t end_whole = end / slab;
  if (first_whole > end_whole) {  // begins and ends inside one slab
    inside_slab(end_whole, begin, end);
    return;
  }
  if (begin < first_whole * slab) inside_slab(first_whole - 1, begin, first_whole * slab);
  if (first_whole < end_whole) {
    hdf5::Box whole = at;
    whole.begin[d] = first_whole;
    whole.count[d] = end_whole - first_whole;
    for (int inner = dim + 1; inner < shape.num_dims(); ++inner) {
      whole.begin[static_cast<std::size_t>(inner)] = 0;
      whole.count[static_cast<std::size_t>(inner)] = shape[inner];
    }
    boxes.push_back(whole);
  }
  if (end_whole * slab < end) inside_slab(end_whole, end_whole * slab, end);
}

}  // namespace

std::vector<hdf5::Box> flat_range_to_boxes(const Shape& shape, std::int64_t begin,
                                           std::int64_t numel) {
  expect(shape.num_dims() >= 1, "a tensor with dims");
  expect(begin >= 0 && numel >= 0 && begin + numel <= shape.numel(), "a range inside the tensor");
  std::vector<hdf5::Box> boxes;
  hdf5::Box at;
  at.num_dims = shape.num_dims();
  add_boxes(shape, 0, at, begin, begin + numel, boxes);
  return boxes;
}

std::vector<hdf5::Box> stretches_to_boxes(const Shape& shape, std::int64_t begin,
                                          std::int64_t numel, std::int64_t count,
                                          std::int64_t stride) {
  if (count == 1) return flat_range_to_boxes(shape, begin, numel);
  std::int64_t inner = shape.numel();  // elements of one index of dim `dim`
  Shape outer = shape;                 // the dims before it
  int dim = 0;
  for (; dim < shape.num_dims(); ++dim) {
    const std::int64_t all = inner;
    inner /= shape[dim];
    if (all == stride && numel % inner == 0 && begin % inner == 0) break;
  }
  expect(dim < shape.num_dims(), "stretches that are runs of indices of one dim");
  for (int d = dim; d < shape.num_dims(); ++d) outer = outer.with_dim(d, 1);
  std::vector<hdf5::Box> boxes = flat_range_to_boxes(outer, begin / stride, count);
  for (hdf5::Box& box : boxes)
    for (int d = dim; d < shape.num_dims(); ++d) {
      const auto at = static_cast<std::size_t>(d);
      box.begin[at] = d == dim ? begin % stride / inner : 0;
      box.count[at] = d == dim ? numel / inner : shape[d];
    }
  return boxes;
}

}  // namespace switchyard
