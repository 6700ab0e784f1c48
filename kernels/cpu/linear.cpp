#include "kernels/cpu/linear.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/onednn.hpp"
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/row_pieces.hpp"
#include "kernels/isa.hpp"
#include "kernels/threads.hpp"

namespace switchyard::kernels::cpu {

namespace {

// Without bf16 products the operands are fp32 numbers that happen to be bf16 values.
DType operand_type(DType compute) {
  return compute == DType::bf16 && !has_bf16_products() ? DType::f32 : compute;
}

// rows x cols elements between a strided view and a dense buffer of another float type.
void load(const TensorView& from, std::int64_t begin, std::int64_t rows, DType type,
          std::byte* buffer) {
  const std::int64_t cols = from.cols();
  for (std::int64_t r = 0; r < rows; ++r) {
    std::byte* to = buffer + r * cols * size_of(type);
    const std::byte* row =
        from.kernel_bytes() + (begin + r) * from.row_stride * size_of(from.dtype);
    if (from.dtype == type) {
      std::memcpy(to, row, static_cast<std::size_t>(cols * size_of(type)));
    } else {  // bf16 to f32
      const auto* source = reinterpret_cast<const BFloat16*>(row);
      auto* target = reinterpret_cast<float*>(to);
      for (std::int64_t c = 0; c < cols; ++c) target[c] = to_float(source[c]);
    }
  }
}

void store(const std::byte* buffer, DType type, const TensorView& to, std::int64_t begin,
           std::int64_t rows) {
  const std::int64_t cols = to.cols();
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::byte* from = buffer + r * cols * size_of(type);
    std::byte* row = to.kernel_bytes() + (begin + r) * to.row_stride * size_of(to.dtype);
    if (to.dtype == type) {
      std::memcpy(row, from, static_cast<std::size_t>(cols * size_of(type)));
    } else {  // f32 to bf16
      const auto* source = reinterpret_cast<const float*>(from);
      auto* target = reinterpret_cast<BFloat16*>(row);
      for (std::int64_t c = 0; c < cols; ++c) target[c] = to_bf16(source[c]);
    }
  }
}

// y = x B or y += x B for a packed B.
struct RowProduct {
  const TensorView& x;
  const std::byte* packed;
  const TensorView& y;
  bool accumulate;

  std::int64_t k() const { return x.cols(); }
  std::int64_t n() const { return y.cols(); }
  DType operands() const { return operand_type(x.dtype); }
  bool is_direct() const { return operands() == x.dtype; }
  // What the product itself writes; rounded to y's type afterwards if that differs.
  DType result() const { return is_direct() ? y.dtype : DType::f32; }
  Product product(std::int64_t rows, std::int64_t lda, std::int64_t ldc) const {
    return {.m = rows,
            .n = n(),
            .k = k(),
            .operands = operands(),
            .result = result(),
            .lda = lda,
            .ldb = 0,
            .ldc = ldc,
            .b_packed = true,
            .accumulate = accumulate};
  }
};

void multiply_in_place(const RowProduct& p, std::int64_t begin, std::int64_t rows) {
  multiply(p.product(rows, p.x.row_stride, p.y.row_stride),
           p.x.kernel_bytes() + begin * p.x.row_stride * size_of(p.x.dtype), p.packed,
           p.y.kernel_bytes() + begin * p.y.row_stride * size_of(p.y.dtype));
}

// `rows` rows as a product of `padded` rows through scratch; the added rows are zeros.
void multiply_padded(const RowProduct& p, std::int64_t begin, std::int64_t rows,
                     std::int64_t padded) {
  const std::int64_t x_bytes = p.k() * size_of(p.operands());
  const std::int64_t y_bytes = p.n() * size_of(p.result());
  std::byte* x = scratch(ScratchSlot::first, padded * x_bytes);
  std::byte* y = scratch(ScratchSlot::result, padded * y_bytes);
  load(p.x, begin, rows, p.operands(), x);
  std::fill(x + rows * x_bytes, x + padded * x_bytes, std::byte{0});
  if (p.accumulate) {
    load(p.y, begin, rows, p.result(), y);
    std::fill(y + rows * y_bytes, y + padded * y_bytes, std::byte{0});
  }
  multiply(p.product(padded, p.k(), p.n()), x, p.packed, y);
  store(y, p.result(), p.y, begin, rows);
}

void multiply_rows(const RowProduct& p, std::int64_t begin, std::int64_t end, bool short_pieces) {
  while (begin < end) {
    const std::int64_t piece = short_pieces ? next_piece(end - begin) : row_block;
    const std::int64_t rows = std::min(piece, end - begin);
    if (p.is_direct() && rows == piece)
      multiply_in_place(p, begin, rows);
    else
      multiply_padded(p, begin, rows, piece);
    begin += rows;
  }
}

void multiply_all_rows(const RowProduct& p) {
  const std::int64_t rows = p.x.rows();
  const bool short_pieces = short_pieces_keep_bits(p.k(), p.n(), p.operands(), p.result());
  const std::int64_t piece = short_pieces ? even_piece(rows, num_threads()) : row_block;
  const std::int64_t num_pieces = (rows + piece - 1) / piece;
  for_each_piece(num_pieces, [&](std::int64_t i, int) {
    multiply_rows(p, i * piece, std::min(rows, (i + 1) * piece), short_pieces);
  });
}

// dw += dy^T x over `rows` rows, a range of dw's rows by one thread.
struct WeightGradient {
  DType operands;
  std::int64_t out;
  std::int64_t in;
  float* dw;
};
struct Operand {
  const std::byte* data;
  std::int64_t leading;
};

// Rows of one product: long enough to amortise reading and writing dw, short enough that a panel of
// both operands stays in the cache. What is left is cut at multiples of row_step, so few distinct
// products exist whatever numbers of rows the experts receive.
constexpr std::int64_t chunk_rows = 512;
constexpr std::int64_t row_step = 64;
constexpr std::int64_t gradient_piece = 256;  // rows of dw

std::int64_t piece_of_gradient(std::int64_t out) {
  const std::int64_t threads = num_threads();
  const std::int64_t share = (out + threads - 1) / threads;
  return std::clamp<std::int64_t>((share + 15) / 16 * 16, 16, gradient_piece);
}

void add_chunk(const WeightGradient& g, const Operand& dy, const Operand& x, std::int64_t rows,
               std::int64_t begin, std::int64_t end) {
  multiply({.m = end - begin,
            .n = g.in,
            .k = rows,
            .operands = g.operands,
            .result = DType::f32,
            .lda = dy.leading,
            .ldb = x.leading,
            .ldc = g.in,
            .a_transposed = true,
            .accumulate = true},
           dy.data + begin * size_of(g.operands), x.data,
           reinterpret_cast<std::byte*>(g.dw + begin * g.in));
}

// rows: a multiple of row_step.
void add_rows(const WeightGradient& g, const Operand& dy, const Operand& x, std::int64_t rows) {
  const std::int64_t piece = piece_of_gradient(g.out);
  const std::int64_t num_pieces = (g.out + piece - 1) / piece;
  const std::int64_t size = size_of(g.operands);
  for_each_piece(num_pieces, [&](std::int64_t i, int) {
    for (std::int64_t row = 0; row < rows; row += chunk_rows)
      add_chunk(g, {dy.data + row * dy.leading * size, dy.leading},
                {x.data + row * x.leading * size, x.leading}, std::min(chunk_rows, rows - row),
                i * piece, std::min(g.out, (i + 1) * piece));
  });
}

// A panel of a view as a dense buffer of `padded` rows, zeros after the first `rows`.
Operand padded_panel(const TensorView& view, std::int64_t begin, std::int64_t rows,
                     std::int64_t padded, DType type, ScratchSlot slot) {
  const std::int64_t row_bytes = view.cols() * size_of(type);
  std::byte* buffer = scratch(slot, padded * row_bytes);
  load(view, begin, rows, type, buffer);
  std::fill(buffer + rows * row_bytes, buffer + padded * row_bytes, std::byte{0});
  return {buffer, view.cols()};
}

}  // namespace

std::int64_t packed_weight_bytes(std::int64_t k, std::int64_t n, DType compute) {
  return packed_bytes(k, n, operand_type(compute));
}

void pack_weight(const TensorView& weight, DType compute, const TensorView& forward,
                 const TensorView& backward) {
  const std::int64_t out = weight.rows();
  const std::int64_t in = weight.cols();
  const DType operands = operand_type(compute);
  const auto write = [&](const TensorView& layout, std::int64_t k, std::int64_t n,
                         bool transposed) {
    pack(k, n, operands, weight.as<float>(), transposed, layout.kernel_bytes());
    if (operands == compute) return;
    float* values = reinterpret_cast<float*>(layout.kernel_bytes());
    const std::int64_t numel = layout.numel() / size_of(DType::f32);
    parallel_blocks(numel, block_elements, [values](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) values[i] = to_float(to_bf16(values[i]));
    });
  };
  write(forward, in, out, true);
  if (!backward.empty()) write(backward, out, in, false);
}

void linear_forward(const TensorView& x, const PackedWeight& weight, const TensorView& y) {
  multiply_all_rows({x, weight.forward_layout().kernel_bytes(), y, false});
}

void linear_backward_input(const TensorView& dy, const PackedWeight& weight, const TensorView& dx,
                           Accumulate accumulate) {
  multiply_all_rows(
      {dy, weight.backward_layout().kernel_bytes(), dx, accumulate == Accumulate::yes});
}

void linear_backward_weight(const TensorView& dy, const TensorView& x, const TensorView& dw) {
  const DType operands = operand_type(dy.dtype);
  const WeightGradient g{operands, dy.cols(), x.cols(), dw.as<float>()};
  const bool is_direct = operands == dy.dtype;
  std::int64_t row = 0;
  if (is_direct) {
    row = dy.rows() / row_step * row_step;
    if (row > 0)
      add_rows(g, {dy.kernel_bytes(), dy.row_stride}, {x.kernel_bytes(), x.row_stride}, row);
  }
  while (row < dy.rows()) {
    const std::int64_t rows = std::min(chunk_rows, dy.rows() - row);
    const std::int64_t padded = (rows + row_step - 1) / row_step * row_step;
    add_rows(g, padded_panel(dy, row, rows, padded, operands, ScratchSlot::first),
             padded_panel(x, row, rows, padded, operands, ScratchSlot::second), padded);
    row += rows;
  }
}

}  // namespace switchyard::kernels::cpu
