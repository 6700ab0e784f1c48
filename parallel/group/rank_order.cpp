#include "parallel/group/rank_order.hpp"

#include <algorithm>
#include <array>

#include "kernels/threads.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Elements whose running results stay in the first-level cache while all ranks are added.
constexpr std::int64_t block_numel = 1024;
constexpr std::int64_t piece_numel = 1 << 15;  // of one thread: fewer are not worth its start

struct Sum {
  template <class T>
  T operator()(T a, T b) const {
    return a + b;
  }
};
// b != b: a NaN in b wins; a NaN in a stays because every comparison with it is false.
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return b > a || b != b ? b : a;
  }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return b < a || b != b ? b : a;
  }
};

template <class T, class Op>
void reduce_block(std::span<const std::byte* const> sources, T* result, std::int64_t begin,
                  std::int64_t numel, Op op) {
  std::array<T, block_numel> running;
  const T* first = reinterpret_cast<const T*>(sources[0]) + begin;
  std::copy_n(first, numel, running.data());
  for (std::size_t p = 1; p < sources.size(); ++p) {
    const T* source = reinterpret_cast<const T*>(sources[p]) + begin;
    for (std::int64_t i = 0; i < numel; ++i) {
      T& value = running[static_cast<std::size_t>(i)];
      value = op(value, source[i]);
    }
  }
  std::copy_n(running.data(), numel, result + begin);
}

template <class T, class Op>
void reduce(std::span<const std::byte* const> sources, std::byte* result, std::int64_t numel,
            Op op) {
  T* typed = reinterpret_cast<T*>(result);
  const auto reduce_piece = [&](std::int64_t piece, int) {
    const std::int64_t end = std::min(numel, (piece + 1) * piece_numel);
    for (std::int64_t begin = piece * piece_numel; begin < end; begin += block_numel)
      reduce_block<T>(sources, typed, begin, std::min(block_numel, end - begin), op);
  };
  kernels::for_each_piece((numel + piece_numel - 1) / piece_numel, reduce_piece);
}

template <class T>
void reduce(std::span<const std::byte* const> sources, std::byte* result, std::int64_t numel,
            ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return reduce<T>(sources, result, numel, Sum{});
    case ReduceOp::max:
      return reduce<T>(sources, result, numel, Max{});
    case ReduceOp::min:
      return reduce<T>(sources, result, numel, Min{});
  }
}

}  // namespace

void reduce_in_rank_order(std::span<const std::byte* const> sources, std::byte* result,
                          std::int64_t numel, DType dtype, ReduceOp op) {
  switch (dtype) {
    case DType::f32:
      return reduce<float>(sources, result, numel, op);
    case DType::f64:
      return reduce<double>(sources, result, numel, op);
    case DType::i32:
      return reduce<std::int32_t>(sources, result, numel, op);
    case DType::i64:
      return reduce<std::int64_t>(sources, result, numel, op);
    default:
      expect(false, "a reduction of f32, f64, i32 or i64");
  }
}

}  // namespace switchyard
