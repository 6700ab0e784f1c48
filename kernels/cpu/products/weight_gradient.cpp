#include "kernels/cpu/products/weight_gradient.hpp"

#include <algorithm>
#include <vector>

#include "kernels/cpu/products/dense_rows.hpp"
#include "kernels/cpu/products/linear.hpp"
#include "kernels/cpu/products/onednn.hpp"
#include "kernels/products/grouped_linear.hpp"
#include "kernels/threads.hpp"

namespace switchyard::kernels::cpu {

namespace {

// Rows of one product: long enough to amortise reading and writing dw, short enough that a panel of
// both operands stays in the cache and that oneDNN does not cut the sum. What is left is cut at
// multiples of row_step, so few distinct products exist whatever numbers of rows the experts
// receive.
constexpr std::int64_t chunk_rows = gradient_chunk_rows;
constexpr std::int64_t row_step = 64;

// Rows of dw that a thread takes at a time: each thread's share of a weight, at most so many. How
// oneDNN orders a sum may depend on their number: the bits are those of a number of threads.
constexpr std::int64_t longest_piece = 256;
std::int64_t piece_of(std::int64_t out, int num_threads) {
  const std::int64_t share = (out + num_threads - 1) / num_threads;
  return std::clamp<std::int64_t>((share + 15) / 16 * 16, 16, longest_piece);
}

// Columns of x that are copied at once where they become fp32.
constexpr std::int64_t cols_of_copy = 512;

struct WeightGradients {
  const TensorView& dy;
  const TensorView& x;
  float* dw;
  int num_threads;

  std::int64_t out() const { return dy.cols(); }
  std::int64_t in() const { return x.cols(); }
  DType operands() const { return operand_type(dy.dtype); }
  bool is_direct() const { return operands() == dy.dtype; }
  GradientSizes sizes() const { return {out(), in(), dy.dtype}; }
};

// A thread's panels of both operands: the rows that are left over, or, if a product takes other
// operands than the tensors hold, all of a chunk, some columns of x at a time.
struct Panels {
  std::int64_t rows;
  std::int64_t dy_cols;
  std::int64_t x_cols;
  DType type;
  std::int64_t dy_bytes() const { return MemoryLedger::rounded(rows * dy_cols * size_of(type)); }
  std::int64_t bytes() const {
    return dy_bytes() + MemoryLedger::rounded(rows * x_cols * size_of(type));
  }
};
Panels panels_of(const GradientSizes& sizes, DType operands) {
  const auto [out, in, compute] = sizes;
  // As wide for all pieces: how a product sums depends on it where a piece is one row of dw.
  const std::int64_t dy_cols = std::min(out, longest_piece);
  if (operands == compute) return {row_step, dy_cols, in, compute};
  return {chunk_rows, dy_cols, std::min(in, cols_of_copy), operands};
}

// Of a thread: for oneDNN, and for panels behind that. The panel of x serves all pieces of a group
// that the thread takes one after the other.
struct Scratch {
  std::byte* scratchpad;
  std::byte* dy;
  std::byte* x;
  std::int64_t x_row = -1;  // of its first element; -1: nothing in it yet
  std::int64_t x_col = -1;
};

struct Operand {
  const std::byte* data;
  std::int64_t leading;
};
// The rows [begin, end) of the dw of one group.
struct Piece {
  std::size_t group;
  std::int64_t begin;
  std::int64_t end;
};

// To the columns of dw from `col` on that x has, `cols` of them.
void add_product(const WeightGradients& g, const Piece& piece, const Operand& dy, const Operand& x,
                 std::int64_t rows, std::int64_t col, std::int64_t cols, std::byte* scratchpad) {
  float* dw =
      g.dw + (static_cast<std::int64_t>(piece.group) * g.out() + piece.begin) * g.in() + col;
  multiply({.m = piece.end - piece.begin,
            .n = cols,
            .k = rows,
            .operands = g.operands(),
            .result = DType::f32,
            .lda = dy.leading,
            .ldb = x.leading,
            .ldc = g.in(),
            .a_transposed = true,
            .accumulate = true},
           dy.data, x.data, reinterpret_cast<std::byte*>(dw), scratchpad);
}

// Rows of a view in a buffer of `padded` rows, `leading` elements from one to the next; zeros after
// the first `rows`.
Operand padded_panel(const TensorView& view, std::int64_t begin, std::int64_t rows,
                     std::int64_t padded, DType type, std::byte* buffer, std::int64_t leading) {
  const std::int64_t row_bytes = view.cols() * size_of(type);
  for (std::int64_t row = 0; row < padded; ++row) {
    std::byte* const to = buffer + row * leading * size_of(type);
    if (row < rows)
      load_rows(view, begin + row, 1, type, to);
    else
      std::fill(to, to + row_bytes, std::byte{0});
  }
  return {buffer, leading};
}

void add_in_place(const WeightGradients& g, const Piece& piece, std::int64_t row, std::int64_t rows,
                  const Scratch& scratch) {
  const std::int64_t size = size_of(g.dy.dtype);
  add_product(g, piece,
              {g.dy.kernel_bytes() + (row * g.dy.row_stride + piece.begin) * size, g.dy.row_stride},
              {g.x.kernel_bytes() + row * g.x.row_stride * size, g.x.row_stride}, rows, 0, g.in(),
              scratch.scratchpad);
}

void add_copied(const WeightGradients& g, const Piece& piece, std::int64_t row, std::int64_t rows,
                Scratch& scratch) {
  const std::int64_t padded = (rows + row_step - 1) / row_step * row_step;
  const Panels panels = panels_of(g.sizes(), g.operands());
  const Operand dy = padded_panel(g.dy.slice_cols(piece.begin, piece.end), row, rows, padded,
                                  g.operands(), scratch.dy, panels.dy_cols);
  const std::int64_t cols = panels.x_cols;
  for (std::int64_t col = 0; col < g.in(); col += cols) {
    const std::int64_t end = std::min(g.in(), col + cols);
    if (scratch.x_row != row || scratch.x_col != col)
      padded_panel(g.x.slice_cols(col, end), row, rows, padded, g.operands(), scratch.x, end - col);
    scratch.x_row = row;
    scratch.x_col = col;
    add_product(g, piece, dy, {scratch.x, end - col}, padded, col, end - col, scratch.scratchpad);
  }
}

// All rows [row, end) of the piece's group.
void add_rows(const WeightGradients& g, const Piece& piece, std::int64_t row, std::int64_t end,
              Scratch& scratch) {
  while (row < end) {
    const std::int64_t left = std::min(chunk_rows, end - row);
    const std::int64_t in_place = g.is_direct() ? left / row_step * row_step : 0;
    if (in_place > 0)
      add_in_place(g, piece, row, in_place, scratch);
    else
      add_copied(g, piece, row, left, scratch);
    row += in_place > 0 ? in_place : left;
  }
}

}  // namespace

void add_weight_gradients(const TensorView& dy, const TensorView& x,
                          std::span<const std::int64_t> offsets, float* dw) {
  const WeightGradients g{dy, x, dw, num_threads()};
  std::vector<std::size_t> groups;  // those with rows
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i)
    if (offsets[i] < offsets[i + 1]) groups.push_back(i);
  const std::int64_t size = piece_of(g.out(), g.num_threads);
  const std::int64_t pieces_of_group = (g.out() + size - 1) / size;
  const Panels panels = panels_of(g.sizes(), g.operands());
  const std::int64_t place_bytes = scratchpad_bytes + panels.bytes();
  std::byte* const places = x.device->kernel_scratch(num_threads() * place_bytes);
  std::vector<Scratch> scratch;
  for (int thread = 0; thread < num_threads(); ++thread) {
    std::byte* const place = places + thread * place_bytes;
    std::byte* const of_dy = place + scratchpad_bytes;
    scratch.push_back({.scratchpad = place, .dy = of_dy, .x = of_dy + panels.dy_bytes()});
  }
  for_each_piece(std::ssize(groups) * pieces_of_group, [&](std::int64_t i, int thread) {
    const std::size_t group = groups[static_cast<std::size_t>(i / pieces_of_group)];
    const std::int64_t begin = i % pieces_of_group * size;
    add_rows(g, {group, begin, std::min(g.out(), begin + size)}, offsets[group], offsets[group + 1],
             scratch[static_cast<std::size_t>(thread)]);
  });
}

std::int64_t weight_gradient_scratch(const GradientSizes& sizes, int num_threads) {
  const std::int64_t panels =
      std::max(panels_of(sizes, sizes.compute).bytes(), panels_of(sizes, DType::f32).bytes());
  return num_threads * (scratchpad_bytes + panels);
}

}  // namespace switchyard::kernels::cpu
