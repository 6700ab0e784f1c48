#include "trainer/checkpoint/flat_range.hpp"

#include <gtest/gtest.h>

#include <random>

namespace switchyard {
namespace {

// Row-major flat indices of a box's elements, appended.
void append_indices(const Shape& shape, const hdf5::Box& box, std::vector<std::int64_t>& indices) {
  std::array<std::int64_t, Shape::max_dims> at{};
  for (std::int64_t n = 0; n < box.numel(); ++n) {
    std::int64_t flat = 0;
    for (int dim = 0; dim < shape.num_dims(); ++dim) {
      const auto d = static_cast<std::size_t>(dim);
      flat = flat * shape[dim] + box.begin[d] + at[d];
    }
    indices.push_back(flat);
    for (int dim = shape.num_dims() - 1; dim >= 0; --dim) {
      const auto d = static_cast<std::size_t>(dim);
      if (++at[d] < box.count[d]) break;
      at[d] = 0;
    }
  }
}

void check(const Shape& shape, std::int64_t begin, std::int64_t numel) {
  const std::vector<hdf5::Box> boxes = flat_range_to_boxes(shape, begin, numel);
  EXPECT_LE(boxes.size(), static_cast<std::size_t>(2 * shape.num_dims() - 1));
  std::vector<std::int64_t> indices;
  for (const hdf5::Box& box : boxes) {
    EXPECT_EQ(box.num_dims, shape.num_dims());
    EXPECT_GT(box.numel(), 0);
    append_indices(shape, box, indices);
  }
  ASSERT_EQ(indices.size(), static_cast<std::size_t>(numel)) << shape.to_string() << " " << begin;
  for (std::int64_t i = 0; i < numel; ++i)
    ASSERT_EQ(indices[static_cast<std::size_t>(i)], begin + i) << shape.to_string() << " " << begin;
}

TEST(FlatRange, EveryRangeOfSmallShapes) {
  for (const Shape& shape : {Shape{7}, Shape{3, 4}, Shape{1, 5}, Shape{5, 1}, Shape{3, 2, 4},
                             Shape{2, 1, 3}, Shape{2, 3, 2, 3}})
    for (std::int64_t begin = 0; begin <= shape.numel(); ++begin)
      for (std::int64_t numel = 0; begin + numel <= shape.numel(); ++numel)
        check(shape, begin, numel);
}

TEST(FlatRange, RandomRangesOfRandomShapes) {
  std::mt19937 random(12345);
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  for (int trial = 0; trial < 2000; ++trial) {
    const std::int64_t a = pick(1, 9), b = pick(1, 9), c = pick(1, 9), d = pick(1, 9);
    const std::array<Shape, 4> shapes{Shape{a * b}, Shape{a, b}, Shape{a, b, c}, Shape{a, b, c, d}};
    const Shape& shape = shapes[static_cast<std::size_t>(pick(0, 3))];
    const std::int64_t begin = pick(0, shape.numel());
    check(shape, begin, pick(0, shape.numel() - begin));
  }
}

// Runs of indices of each dim: the boxes hold the stretches, in order.
TEST(FlatRange, StretchesOfAnInnerDim) {
  for (const Shape& shape : {Shape{3, 4}, Shape{3, 2, 4}, Shape{2, 3, 2, 3}, Shape{4, 1, 3}}) {
    for (int dim = 1; dim < shape.num_dims(); ++dim) {
      std::int64_t inner = 1;
      for (int d = dim + 1; d < shape.num_dims(); ++d) inner *= shape[d];
      const std::int64_t stride = shape[dim] * inner;
      const std::int64_t num_rows = shape.numel() / stride;
      for (std::int64_t row = 0; row + 2 <= num_rows; ++row)
        for (std::int64_t count = 2; row + count <= num_rows; ++count)
          for (std::int64_t first = 0; first < shape[dim]; ++first)
            for (std::int64_t length = 1; first + length <= shape[dim]; ++length) {
              const std::int64_t begin = row * stride + first * inner;
              std::vector<std::int64_t> indices;
              for (const hdf5::Box& box :
                   stretches_to_boxes(shape, begin, length * inner, count, stride))
                append_indices(shape, box, indices);
              ASSERT_EQ(std::ssize(indices), count * length * inner);
              for (std::int64_t i = 0; i < std::ssize(indices); ++i)
                ASSERT_EQ(indices[static_cast<std::size_t>(i)],
                          begin + i / (length * inner) * stride + i % (length * inner));
            }
    }
  }
  EXPECT_THROW(stretches_to_boxes({4, 6}, 1, 2, 3, 5), InternalError);
}

TEST(FlatRange, WholeTensorIsOneBox) {
  EXPECT_EQ(flat_range_to_boxes({4, 5, 6}, 0, 120).size(), 1u);
  EXPECT_EQ(flat_range_to_boxes({4, 5, 6}, 30, 60).size(), 1u);
  EXPECT_EQ(flat_range_to_boxes({4, 5, 6}, 1, 118).size(), 5u);
}

TEST(FlatRange, RangeOutsideIsRefused) {
  EXPECT_THROW(flat_range_to_boxes({4, 5}, 10, 11), InternalError);
  EXPECT_THROW(flat_range_to_boxes({4, 5}, -1, 2), InternalError);
}

}  // namespace
}  // namespace switchyard
