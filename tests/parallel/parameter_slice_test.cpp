// Slices against the plain definition: index by index.
#include "parallel/parameter_slice.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

// Global flat index of every element of the local tensor, in order.
std::vector<std::int64_t> global_indices(const Shape& shape, const Slice& slice) {
  const Shape local = slice.local_shape(shape);
  std::vector<std::int64_t> indices;
  for (std::int64_t n = 0; n < local.numel(); ++n) {
    std::array<std::int64_t, Shape::max_dims> at{};
    std::int64_t rest = n;
    for (int dim = local.num_dims() - 1; dim >= 0; --dim) {
      at[static_cast<std::size_t>(dim)] = rest % local[dim];
      rest /= local[dim];
    }
    std::int64_t flat = 0;
    for (int dim = 0; dim < shape.num_dims(); ++dim) {
      const std::int64_t index = at[static_cast<std::size_t>(dim)];
      flat = flat * shape[dim] + (dim == slice.dim() ? slice.index_of(index) : index);
    }
    indices.push_back(flat);
  }
  return indices;
}

void check(const Shape& shape, const Slice& slice, std::int64_t begin, std::int64_t numel) {
  const std::vector<std::int64_t> wanted = global_indices(shape, slice);
  std::vector<int> times(static_cast<std::size_t>(numel), 0);
  const std::vector<SlicePiece> pieces = pieces_of(shape, slice, begin, numel);
  EXPECT_LE(pieces.size(), 3 * std::max<std::size_t>(slice.runs().size(), 1));
  std::int64_t last = -1;
  for (const SlicePiece& piece : pieces) {
    EXPECT_GT(piece.total(), 0);
    EXPECT_GT(piece.global_begin, last);
    last = piece.global_begin;
    for (std::int64_t stretch = 0; stretch < piece.count; ++stretch)
      for (std::int64_t i = 0; i < piece.numel; ++i) {
        const std::int64_t local = piece.local_begin + stretch * piece.local_stride + i;
        ASSERT_TRUE(local >= 0 && local < numel);
        ++times[static_cast<std::size_t>(local)];
        ASSERT_EQ(piece.global_begin + stretch * piece.global_stride + i,
                  wanted[static_cast<std::size_t>(begin + local)])
            << shape.to_string() << " dim " << slice.dim() << " element " << begin + local;
      }
  }
  EXPECT_EQ(times, std::vector<int>(times.size(), 1));
  for (std::int64_t i = begin; i < begin + numel; ++i)
    ASSERT_EQ(global_index_of(shape, slice, i), wanted[static_cast<std::size_t>(i)]);
}

TEST(ParameterSlice, EveryRangeOfSmallTensors) {
  const std::vector<std::pair<Shape, Slice>> cases = {
      {{7}, Slice(0, {{0, 7}})},
      {{7}, Slice(0, {{2, 3}, {5, 7}})},
      {{4, 6}, Slice(0, {{1, 3}})},
      {{4, 6}, Slice(1, {{0, 2}, {3, 4}, {5, 6}})},
      {{3, 4, 2}, Slice(1, {{1, 2}, {3, 4}})},
      {{3, 4, 2}, Slice(2, {{1, 2}})},
      {{3, 4, 2}, Slice(1, {})},
      {{2, 2, 3, 2}, Slice(2, {{0, 1}, {2, 3}})},
      {{5, 3}, Slice::of(0, std::vector<std::int64_t>{4, 0, 1, 3})},
      {{4, 2}, Slice::of(0, std::vector<std::int64_t>{2, 3, 0, 1})},
      {{3, 4, 2}, Slice::of(1, std::vector<std::int64_t>{3, 1})},
  };
  for (const auto& [shape, slice] : cases) {
    const std::int64_t all = slice.local_shape(shape).numel();
    for (std::int64_t begin = 0; begin <= all; ++begin)
      for (std::int64_t numel = 0; begin + numel <= all; ++numel) check(shape, slice, begin, numel);
  }
}

TEST(ParameterSlice, DrawnSlicesOfDrawnShapes) {
  std::mt19937 random(4711);
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  for (int trial = 0; trial < 500; ++trial) {
    const Shape shape{pick(1, 5), pick(1, 9), pick(1, 6)};
    const int dim = static_cast<int>(pick(0, 2));
    std::vector<IndexRange> runs;
    for (std::int64_t at = pick(0, 2); at < shape[dim]; at += pick(0, 3)) {
      const std::int64_t end = pick(at, shape[dim]);
      runs.push_back({at, end});
      at = end;
    }
    if (trial % 2 == 1) std::shuffle(runs.begin(), runs.end(), random);
    const Slice slice(dim, runs);
    const std::int64_t all = slice.local_shape(shape).numel();
    const std::int64_t begin = pick(0, all);
    check(shape, slice, begin, pick(0, all - begin));
  }
}

TEST(ParameterSlice, AWholeTensorIsOnePiece) {
  EXPECT_EQ(pieces_of({8, 5}, Slice::whole({8, 5}), 3, 30).size(), 1u);
  EXPECT_EQ(pieces_of({8, 5}, Slice(1, {{0, 2}, {2, 5}}), 0, 40).size(), 1u);  // runs that meet
  EXPECT_EQ(pieces_of({8, 5}, Slice(0, {{2, 6}}), 0, 20).size(), 1u);
}

TEST(ParameterSlice, MistakesAreRefused) {
  EXPECT_THROW(Slice(0, {{3, 5}, {4, 6}}), InternalError);
  EXPECT_THROW(Slice(0, {{4, 6}, {1, 2}, {5, 7}}), InternalError);
  EXPECT_THROW(Slice::of(0, std::vector<std::int64_t>{2, 1, 2}), InternalError);
  EXPECT_THROW(Slice(0, {{3, 2}}), InternalError);
  EXPECT_THROW(Slice(-1, {}), InternalError);
  EXPECT_THROW(pieces_of({4, 6}, Slice(1, {{0, 7}}), 0, 1), InternalError);
  EXPECT_THROW(pieces_of({4, 6}, Slice(2, {}), 0, 0), InternalError);
  EXPECT_THROW(pieces_of({4, 6}, Slice(1, {{0, 2}}), 4, 5), InternalError);
}

}  // namespace
}  // namespace switchyard
