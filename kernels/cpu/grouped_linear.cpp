#include "kernels/cpu/grouped_linear.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "kernels/cpu/linear.hpp"
#include "kernels/cpu/onednn.hpp"
#include "kernels/cpu/row_pieces.hpp"
#include "kernels/threads.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

namespace {

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

std::int64_t rounded(std::int64_t bytes) {
  return MemoryLedger::rounded(bytes);
}

// The rows of all groups in one queue of pieces of at most `size` rows, each of one group.
class Pieces {
 public:
  struct Piece {
    std::size_t group;
    std::int64_t begin;  // rows
    std::int64_t end;
  };
  Pieces(std::span<const std::int64_t> offsets, std::int64_t size)
      : offsets_(offsets), size_(size) {
    first_.push_back(0);
    for (std::size_t g = 0; g + 1 < offsets.size(); ++g)
      first_.push_back(first_.back() + (offsets[g + 1] - offsets[g] + size - 1) / size);
  }
  std::int64_t count() const { return first_.back(); }
  Piece operator[](std::int64_t i) const {
    const auto group =
        static_cast<std::size_t>(std::ranges::upper_bound(first_, i) - first_.begin() - 1);
    const std::int64_t begin = offsets_[group] + (i - first_[group]) * size_;
    return {group, begin, std::min(offsets_[group + 1], begin + size_)};
  }

 private:
  std::span<const std::int64_t> offsets_;
  std::int64_t size_;
  std::vector<std::int64_t> first_;  // of each group, and of the end
};

// y = x B or y += x B for the packed B of each group.
struct RowProducts {
  const TensorView& x;
  const TensorView& y;
  std::vector<const std::byte*> packed;  // by group
  bool accumulate;
  bool is_grouped;

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

// Scratch of padded pieces: of y behind that of x. Its size does not depend on where rows go, so
// that a plan knows it. Rows of one group that are multiplied in place have one padded piece at
// most.
std::int64_t x_scratch(std::int64_t k, DType compute) {
  return rounded(row_piece * k * size_of(operand_type(compute)));
}
std::int64_t y_scratch(std::int64_t n) {
  return rounded(row_piece * n * size_of(DType::f32));
}
std::int64_t row_places(DType compute, bool is_grouped, int num_threads) {
  return operand_type(compute) == compute && !is_grouped ? 1 : num_threads;
}

void multiply_in_place(const RowProducts& p, const Pieces::Piece& rows) {
  multiply(p.product(rows.end - rows.begin, p.x.row_stride, p.y.row_stride),
           p.x.kernel_bytes() + rows.begin * p.x.row_stride * size_of(p.x.dtype),
           p.packed[rows.group],
           p.y.kernel_bytes() + rows.begin * p.y.row_stride * size_of(p.y.dtype));
}

// A product of `padded` rows through scratch; the added rows are zeros.
void multiply_padded(const RowProducts& p, const Pieces::Piece& piece, std::int64_t padded,
                     std::byte* scratch) {
  const std::int64_t rows = piece.end - piece.begin;
  const std::int64_t x_row = p.k() * size_of(p.operands());
  const std::int64_t y_row = p.n() * size_of(p.result());
  std::byte* x = scratch;
  std::byte* y = scratch + x_scratch(p.k(), p.x.dtype);
  load(p.x, piece.begin, rows, p.operands(), x);
  std::fill(x + rows * x_row, x + padded * x_row, std::byte{0});
  if (p.accumulate) {
    load(p.y, piece.begin, rows, p.result(), y);
    std::fill(y + rows * y_row, y + padded * y_row, std::byte{0});
  }
  multiply(p.product(padded, p.k(), p.n()), x, p.packed[piece.group], y);
  store(y, p.result(), p.y, piece.begin, rows);
}

void multiply_rows(const RowProducts& p, Pieces::Piece piece, bool short_pieces,
                   std::byte* scratch) {
  const std::int64_t end = piece.end;
  while (piece.begin < end) {
    const std::int64_t left = end - piece.begin;
    // Only rows in place may be many: scratch has room for row_piece.
    const std::int64_t size = !short_pieces   ? row_piece
                              : p.is_direct() ? next_piece(left)
                                              : next_piece(std::min(left, row_piece));
    piece.end = piece.begin + std::min(size, left);
    if (p.is_direct() && size <= left)
      multiply_in_place(p, piece);
    else
      multiply_padded(p, piece, size, scratch);
    piece.begin = piece.end;
  }
}

void multiply_groups(const RowProducts& p, std::span<const std::int64_t> offsets) {
  const std::int64_t places = row_places(p.x.dtype, p.is_grouped, num_threads());
  const std::int64_t place_bytes = x_scratch(p.k(), p.x.dtype) + y_scratch(p.n());
  std::byte* scratch = p.x.device->kernel_scratch(places * place_bytes);
  const bool short_pieces = short_pieces_keep_bits(p.k(), p.n(), p.operands(), p.result());
  const Pieces pieces(offsets,
                      short_pieces ? shared_piece(offsets.back(), num_threads()) : row_piece);
  for_each_piece(pieces.count(), [&](std::int64_t i, int thread) {
    multiply_rows(p, pieces[i], short_pieces, scratch + (places > 1 ? thread : 0) * place_bytes);
  });
}

// Rows of one product of a weight gradient: long enough to amortise reading and writing dw, short
// enough that a panel of both operands stays in the cache and that oneDNN does not cut the sum.
// What is left is cut at multiples of row_step, so few distinct products exist whatever numbers of
// rows the experts receive.
constexpr std::int64_t chunk_rows = gradient_chunk_rows;
constexpr std::int64_t row_step = 64;

// Rows of dw that a thread takes at a time: 16 pieces of a weight, if they are not too short to
// amortise reading x. How oneDNN orders a sum may depend on their number, so it follows from the
// weight's size alone.
constexpr std::int64_t pieces_of_weight = 16;
constexpr std::int64_t shortest_gradient_piece = 64;
constexpr std::int64_t longest_gradient_piece = 256;
std::int64_t gradient_piece(std::int64_t out) {
  const std::int64_t shortest = shortest_gradient_piece * pieces_of_weight;
  return std::clamp((out + shortest - 1) / shortest * shortest_gradient_piece,
                    shortest_gradient_piece, longest_gradient_piece);
}

// dw += dy^T x of each group; dw f32 [groups, out, in].
struct WeightGradients {
  const TensorView& dy;
  const TensorView& x;
  float* dw;

  std::int64_t out() const { return dy.cols(); }
  std::int64_t in() const { return x.cols(); }
  DType operands() const { return operand_type(dy.dtype); }
  bool is_direct() const { return operands() == dy.dtype; }
};

// Scratch of padded panels: of x behind that of dy.
std::int64_t panel_scratch(std::int64_t cols, DType compute) {
  const DType operands = operand_type(compute);
  return rounded((operands == compute ? row_step : chunk_rows) * cols * size_of(operands));
}
std::int64_t gradient_place(std::int64_t out, std::int64_t in, DType compute) {
  return panel_scratch(std::min(gradient_piece(out), out), compute) + panel_scratch(in, compute);
}

struct Operand {
  const std::byte* data;
  std::int64_t leading;
};
// Rows [begin, end) of the dw of one group.
struct GradientPiece {
  std::size_t group;
  std::int64_t begin;
  std::int64_t end;
};

void add_chunk(const WeightGradients& g, const GradientPiece& piece, const Operand& dy,
               const Operand& x, std::int64_t rows) {
  float* dw = g.dw + (static_cast<std::int64_t>(piece.group) * g.out() + piece.begin) * g.in();
  multiply({.m = piece.end - piece.begin,
            .n = g.in(),
            .k = rows,
            .operands = g.operands(),
            .result = DType::f32,
            .lda = dy.leading,
            .ldb = x.leading,
            .ldc = g.in(),
            .a_transposed = true,
            .accumulate = true},
           dy.data, x.data, reinterpret_cast<std::byte*>(dw));
}

// A panel of a view as a dense buffer of `padded` rows, zeros after the first `rows`.
Operand padded_panel(const TensorView& view, std::int64_t begin, std::int64_t rows,
                     std::int64_t padded, DType type, std::byte* buffer) {
  const std::int64_t row_bytes = view.cols() * size_of(type);
  load(view, begin, rows, type, buffer);
  std::fill(buffer + rows * row_bytes, buffer + padded * row_bytes, std::byte{0});
  return {buffer, view.cols()};
}

// All rows [row, end) of the piece's group.
void add_rows(const WeightGradients& g, const GradientPiece& piece, std::int64_t row,
              std::int64_t end, std::byte* scratch) {
  const std::int64_t size = size_of(g.dy.dtype);
  while (row < end) {
    const std::int64_t left = std::min(chunk_rows, end - row);
    const std::int64_t in_place = g.is_direct() ? left / row_step * row_step : 0;
    if (in_place > 0) {
      add_chunk(
          g, piece,
          {g.dy.kernel_bytes() + (row * g.dy.row_stride + piece.begin) * size, g.dy.row_stride},
          {g.x.kernel_bytes() + row * g.x.row_stride * size, g.x.row_stride}, in_place);
      row += in_place;
      continue;
    }
    const std::int64_t padded = (left + row_step - 1) / row_step * row_step;
    const TensorView dy_cols = g.dy.slice_cols(piece.begin, piece.end);
    std::byte* x = scratch + panel_scratch(dy_cols.cols(), g.dy.dtype);
    add_chunk(g, piece, padded_panel(dy_cols, row, left, padded, g.operands(), scratch),
              padded_panel(g.x, row, left, padded, g.operands(), x), padded);
    row += left;
  }
}

void add_gradients(const WeightGradients& g, std::span<const std::int64_t> offsets) {
  std::vector<std::size_t> groups;  // those with rows
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i)
    if (offsets[i] < offsets[i + 1]) groups.push_back(i);
  const std::int64_t size = gradient_piece(g.out());
  const std::int64_t pieces_of_group = (g.out() + size - 1) / size;
  const std::int64_t place_bytes = gradient_place(g.out(), g.in(), g.dy.dtype);
  std::byte* scratch = g.x.device->kernel_scratch(num_threads() * place_bytes);
  for_each_piece(std::ssize(groups) * pieces_of_group, [&](std::int64_t i, int thread) {
    const std::size_t group = groups[static_cast<std::size_t>(i / pieces_of_group)];
    const std::int64_t begin = i % pieces_of_group * size;
    add_rows(g, {group, begin, std::min(g.out(), begin + size)}, offsets[group], offsets[group + 1],
             scratch + thread * place_bytes);
  });
}

std::vector<const std::byte*> packed_of(std::span<const PackedWeight> weights, bool forward) {
  std::vector<const std::byte*> packed;
  for (const PackedWeight& weight : weights)
    packed.push_back((forward ? weight.forward_layout() : weight.backward_layout()).kernel_bytes());
  return packed;
}

std::array<std::int64_t, 2> whole(const TensorView& x) {
  return {0, x.rows()};
}

}  // namespace

std::int64_t product_scratch_bytes(const ProductKind& kind, int num_threads) {
  const auto [out, in, compute, is_grouped, backward] = kind;
  const std::int64_t places = row_places(compute, is_grouped, num_threads);
  const std::int64_t forward = places * (x_scratch(in, compute) + y_scratch(out));
  if (!backward) return forward;
  return std::max({forward, places * (x_scratch(out, compute) + y_scratch(in)),
                   num_threads * gradient_place(out, in, compute)});
}

void linear_forward(const TensorView& x, const PackedWeight& weight, const TensorView& y) {
  multiply_groups({x, y, packed_of({&weight, 1}, true), false, false}, whole(x));
}

void linear_backward_input(const TensorView& dy, const PackedWeight& weight, const TensorView& dx,
                           Accumulate accumulate) {
  multiply_groups({dy, dx, packed_of({&weight, 1}, false), accumulate == Accumulate::yes, false},
                  whole(dy));
}

void linear_backward_weight(const TensorView& dy, const TensorView& x, const TensorView& dw) {
  add_gradients({dy, x, dw.as<float>()}, whole(dy));
}

std::vector<std::int64_t> read_offsets(const TensorView& offsets, std::int64_t num_rows) {
  const std::span<const std::int32_t> given = offsets.span<std::int32_t>();
  expect(given.front() == 0 && given.back() <= num_rows && std::ranges::is_sorted(given),
         "offsets that ascend from 0 to at most the number of rows");
  return {given.begin(), given.end()};
}

void write_offsets(std::span<const std::int64_t> offsets, const TensorView& to) {
  std::ranges::transform(offsets, to.span<std::int32_t>().begin(),
                         [](std::int64_t row) { return static_cast<std::int32_t>(row); });
}

void grouped_linear_forward(const TensorView& x, std::span<const PackedWeight> weights,
                            const TensorView& offsets, const TensorView& y) {
  multiply_groups({x, y, packed_of(weights, true), false, true}, read_offsets(offsets, x.rows()));
}

void grouped_linear_backward_input(const TensorView& dy, std::span<const PackedWeight> weights,
                                   const TensorView& offsets, const TensorView& dx,
                                   Accumulate accumulate) {
  multiply_groups({dy, dx, packed_of(weights, false), accumulate == Accumulate::yes, true},
                  read_offsets(offsets, dy.rows()));
}

void grouped_linear_backward_weight(const TensorView& dy, const TensorView& x,
                                    const TensorView& offsets, const TensorView& dw) {
  add_gradients({dy, x, dw.as<float>()}, read_offsets(offsets, dy.rows()));
}

}  // namespace switchyard::kernels::cpu
