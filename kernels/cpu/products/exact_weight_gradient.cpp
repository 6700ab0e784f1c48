#include "kernels/cpu/products/exact_weight_gradient.hpp"

#include <algorithm>
#include <vector>

#include "kernels/cpu/products/dense_rows.hpp"
#include "kernels/cpu/products/linear.hpp"
#include "kernels/cpu/products/onednn.hpp"
#include "kernels/cpu/sums/fixed_point.hpp"
#include "kernels/threads.hpp"

namespace switchyard::kernels::cpu {

namespace {

// A tile of dw in fp32 and its sums over all units stay in the second-level cache; wide enough that
// the copies oneDNN makes of its operands are few.
constexpr std::int64_t tile_out = 128, tile_in = 512;
// Rows of one product: oneDNN does not cut a sum of so many. What is left is computed padded to a
// multiple of row_step, so that few distinct products exist.
constexpr std::int64_t product_rows = 512, row_step = 64;

// The rows [begin, end) of one unit, at most term_rows of them.
struct Term {
  std::int64_t begin;
  std::int64_t end;
};

// The part of dw[group] from (out, in) on.
struct Tile {
  std::int64_t group;
  std::int64_t out;
  std::int64_t in;
  std::int64_t rows;  // of dw
  std::int64_t cols;
};

struct Gradients {
  const TensorView& dy;
  const TensorView& x;
  const GradientSum& dw;
  FixedScale fixed;
  std::vector<std::vector<Term>> terms;  // by group

  std::int64_t out() const { return dy.cols(); }
  std::int64_t in() const { return x.cols(); }
  DType operands() const { return operand_type(dy.dtype); }
  bool is_direct() const { return operands() == dy.dtype; }
};

// Of a thread.
struct Scratch {
  explicit Scratch(std::byte* begin)
      : scratchpad(begin),
        dy(scratchpad + scratchpad_bytes),
        x(dy + product_rows * tile_out * size_of(DType::f32)),
        tile(reinterpret_cast<float*>(x + product_rows * tile_in * size_of(DType::f32))),
        sums(reinterpret_cast<std::int64_t*>(tile + tile_out * tile_in)) {}
  static constexpr std::int64_t bytes =
      scratchpad_bytes + product_rows * (tile_out + tile_in) * size_of(DType::f32) +
      tile_out * tile_in * (size_of(DType::f32) + size_of(DType::i64));

  std::byte* scratchpad;
  std::byte* dy;  // panels of operands that cannot be read in place
  std::byte* x;
  float* tile;         // what a term adds
  std::int64_t* sums;  // and all terms
};

struct Operand {
  const std::byte* data;
  std::int64_t leading;
};

Operand in_place(const TensorView& view, std::int64_t row, std::int64_t col) {
  return {view.kernel_bytes() + (row * view.row_stride + col) * size_of(view.dtype),
          view.row_stride};
}

// Rows of some columns in a buffer, zeros behind them up to a multiple of row_step.
Operand padded(const TensorView& cols, std::int64_t row, std::int64_t rows, std::int64_t num_rows,
               DType type, std::byte* buffer) {
  load_rows(cols, row, rows, type, buffer);
  const std::int64_t row_bytes = cols.cols() * size_of(type);
  std::fill(buffer + rows * row_bytes, buffer + num_rows * row_bytes, std::byte{0});
  return {buffer, cols.cols()};
}

// tile = or += the product of so many rows from `row` on. Returns how many it took.
std::int64_t multiply_rows(const Gradients& g, const Tile& at, std::int64_t row, std::int64_t left,
                           bool accumulate, const Scratch& scratch) {
  std::int64_t rows = std::min(left, product_rows), k = rows;
  Operand dy, x;
  if (g.is_direct() && rows >= row_step) {
    k = rows = rows / row_step * row_step;
    dy = in_place(g.dy, row, at.out);
    x = in_place(g.x, row, at.in);
  } else {
    k = (rows + row_step - 1) / row_step * row_step;
    dy = padded(g.dy.slice_cols(at.out, at.out + at.rows), row, rows, k, g.operands(), scratch.dy);
    x = padded(g.x.slice_cols(at.in, at.in + at.cols), row, rows, k, g.operands(), scratch.x);
  }
  multiply({.m = at.rows,
            .n = at.cols,
            .k = k,
            .operands = g.operands(),
            .result = DType::f32,
            .lda = dy.leading,
            .ldb = x.leading,
            .ldc = at.cols,
            .a_transposed = true,
            .accumulate = accumulate},
           dy.data, x.data, reinterpret_cast<std::byte*>(scratch.tile), scratch.scratchpad);
  return rows;
}

void multiply_term(const Gradients& g, const Tile& at, const Term& term, const Scratch& scratch) {
  for (std::int64_t row = term.begin; row < term.end;)
    row += multiply_rows(g, at, row, term.end - row, row > term.begin, scratch);
}

std::int64_t* sums_at(const Gradients& g, const Tile& at, std::int64_t row) {
  return g.dw.view.as<std::int64_t>() + ((at.group * g.out() + at.out + row) * g.in() + at.in);
}

void add_tile(const Gradients& g, const Tile& at, const Scratch& scratch) {
  const std::vector<Term>& terms = g.terms[static_cast<std::size_t>(at.group)];
  bool all_fit = true;
  if (terms.size() == 1) {
    multiply_term(g, at, terms.front(), scratch);
    for (std::int64_t row = 0; row < at.rows; ++row)
      all_fit &= add_fixed(scratch.tile + row * at.cols, at.cols, g.fixed, sums_at(g, at, row));
  } else {
    std::fill_n(scratch.sums, at.rows * at.cols, 0);
    for (const Term& term : terms) {
      multiply_term(g, at, term, scratch);
      all_fit &= add_fixed(scratch.tile, at.rows * at.cols, g.fixed, scratch.sums);
    }
    for (std::int64_t row = 0; row < at.rows; ++row)
      add_whole(scratch.sums + row * at.cols, at.cols, sums_at(g, at, row));
  }
  if (!all_fit) tell_overflow(g.dw.exact);
}

std::vector<std::vector<Term>> terms_of(std::span<const std::int64_t> segments,
                                        std::int64_t num_groups) {
  std::vector<std::vector<Term>> terms(static_cast<std::size_t>(num_groups));
  const std::size_t per_group = (segments.size() - 1) / static_cast<std::size_t>(num_groups);
  for (std::size_t i = 0; i + 1 < segments.size(); ++i)
    for (std::int64_t begin = segments[i]; begin < segments[i + 1]; begin += term_rows)
      terms[i / per_group].push_back({begin, std::min(begin + term_rows, segments[i + 1])});
  return terms;
}

}  // namespace

void add_exact_weight_gradients(const TensorView& dy, const TensorView& x,
                                std::span<const std::int64_t> segments, std::int64_t num_groups,
                                const GradientSum& dw) {
  const std::int64_t terms_of_unit = (dw.exact.unit_rows + term_rows - 1) / term_rows;
  const Gradients g{dy, x, dw, FixedScale(dw.exact, terms_of_unit), terms_of(segments, num_groups)};
  std::vector<std::int64_t> groups;  // those with rows
  for (std::int64_t group = 0; group < num_groups; ++group)
    if (!g.terms[static_cast<std::size_t>(group)].empty()) groups.push_back(group);
  const std::int64_t down = (g.out() + tile_out - 1) / tile_out;
  const std::int64_t across = (g.in() + tile_in - 1) / tile_in;
  std::byte* const scratch = x.device->kernel_scratch(num_threads() * Scratch::bytes);
  for_each_piece(std::ssize(groups) * down * across, [&](std::int64_t i, int thread) {
    const std::int64_t tile = i % (down * across);
    const std::int64_t out = tile / across * tile_out, in = tile % across * tile_in;
    add_tile(g,
             {.group = groups[static_cast<std::size_t>(i / (down * across))],
              .out = out,
              .in = in,
              .rows = std::min(tile_out, g.out() - out),
              .cols = std::min(tile_in, g.in() - in)},
             Scratch(scratch + thread * Scratch::bytes));
  });
}

std::int64_t exact_weight_gradient_scratch(int num_threads) {
  return num_threads * Scratch::bytes;
}

}  // namespace switchyard::kernels::cpu
