#include "kernels/cpu/products/grouped_linear.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/products/dense_rows.hpp"
#include "kernels/cpu/products/exact_weight_gradient.hpp"
#include "kernels/cpu/products/linear.hpp"
#include "kernels/cpu/products/onednn.hpp"
#include "kernels/cpu/products/row_pieces.hpp"
#include "kernels/cpu/products/weight_gradient.hpp"
#include "kernels/threads.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

namespace {

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

// Of a row of x in scratch, which has room for it.
std::int64_t most_stride(std::int64_t k) {
  return 2 * k;
}

// y = x B or y += x B for the B of each group: packed, or [k, n] in the operands' type.
struct RowProducts {
  TensorView x;
  TensorView y;
  std::vector<const std::byte*> weights;  // by group
  bool accumulate;
  bool is_grouped;
  bool is_packed = true;

  std::int64_t k() const { return x.cols(); }
  std::int64_t n() const { return y.cols(); }
  DType operands() const { return operand_type(x.dtype); }
  bool is_direct() const { return operands() == x.dtype; }
  // Of rows of x in scratch. Some of oneDNN's products round otherwise where x is strided, so that
  // padded pieces are if those in place are.
  std::int64_t padded_stride() const {
    return is_direct() && x.row_stride > k() ? std::min(x.row_stride, most_stride(k())) : k();
  }
  // What the product itself writes; rounded to y's type afterwards if that differs.
  DType result() const { return is_direct() ? y.dtype : DType::f32; }
  Product product(std::int64_t rows, std::int64_t lda, std::int64_t ldc) const {
    return {.m = rows,
            .n = n(),
            .k = k(),
            .operands = operands(),
            .result = result(),
            .lda = lda,
            .ldb = is_packed ? 0 : n(),
            .ldc = ldc,
            .b_packed = is_packed,
            .accumulate = accumulate};
  }
};

// Columns of weights that become fp32 operands at once.
std::int64_t panel_cols(std::int64_t k, std::int64_t n) {
  constexpr std::int64_t elements = 256 * 1024, fewest = 64;
  return std::min(n, std::max(elements / k / fewest * fewest, fewest));
}

// What lies in kernel_scratch: of each thread oneDNN's, then places for padded pieces, x and behind
// it y, then a panel of weights. Its size does not depend on where rows go, so that a plan knows
// it. Rows of one group that are multiplied in place have one padded piece at most.
struct ScratchSizes {
  std::int64_t threads;
  std::int64_t places;
  std::int64_t x;
  std::int64_t y;
  std::int64_t panel;
  std::int64_t of_place() const { return x + y; }
  std::int64_t bytes() const { return threads * scratchpad_bytes + places * of_place() + panel; }
};
ScratchSizes scratch_sizes(std::int64_t k, std::int64_t n, DType compute, DType operands,
                           bool is_grouped, int num_threads) {
  const bool is_direct = operands == compute;
  const std::int64_t cols = is_direct ? n : panel_cols(k, n);
  return {.threads = num_threads,
          .places = is_direct && !is_grouped ? 1 : num_threads,
          .x = rounded(row_piece * (is_direct ? most_stride(k) : k) * size_of(operands)),
          .y = rounded(row_piece * cols * size_of(DType::f32)),
          .panel = is_direct ? 0 : rounded(k * cols * size_of(operands))};
}
// On any processor.
std::int64_t most_scratch(std::int64_t k, std::int64_t n, DType compute, bool is_grouped,
                          int num_threads) {
  return std::max(scratch_sizes(k, n, compute, compute, is_grouped, num_threads).bytes(),
                  scratch_sizes(k, n, compute, DType::f32, is_grouped, num_threads).bytes());
}

struct Scratch {
  std::byte* begin;
  ScratchSizes sizes;
  std::byte* scratchpad(int thread) const { return begin + thread * scratchpad_bytes; }
  std::byte* place(int thread) const {
    return scratchpad(static_cast<int>(sizes.threads)) +
           (sizes.places > 1 ? thread : 0) * sizes.of_place();
  }
  std::byte* panel() const {
    return scratchpad(static_cast<int>(sizes.threads)) + sizes.places * sizes.of_place();
  }
};
// Of the thread that takes a piece.
struct PieceScratch {
  std::byte* scratchpad;
  std::byte* x;
  std::byte* y;
};

void multiply_in_place(const RowProducts& p, const Pieces::Piece& rows, std::byte* scratchpad) {
  multiply(p.product(rows.end - rows.begin, p.x.row_stride, p.y.row_stride),
           p.x.kernel_bytes() + rows.begin * p.x.row_stride * size_of(p.x.dtype),
           p.weights[rows.group],
           p.y.kernel_bytes() + rows.begin * p.y.row_stride * size_of(p.y.dtype), scratchpad);
}

// A product of `padded` rows through scratch; the added rows are zeros.
void multiply_padded(const RowProducts& p, const Pieces::Piece& piece, std::int64_t padded,
                     const PieceScratch& scratch) {
  const std::int64_t rows = piece.end - piece.begin;
  const std::int64_t stride = p.padded_stride();
  const std::int64_t x_row = stride * size_of(p.operands());
  const std::int64_t y_row = p.n() * size_of(p.result());
  const auto [scratchpad, x, y] = scratch;
  load_rows(p.x, piece.begin, rows, p.operands(), x, stride);
  std::fill(x + rows * x_row, x + padded * x_row, std::byte{0});
  if (p.accumulate) {
    load_rows(p.y, piece.begin, rows, p.result(), y);
    std::fill(y + rows * y_row, y + padded * y_row, std::byte{0});
  }
  multiply(p.product(padded, stride, p.n()), x, p.weights[piece.group], y, scratchpad);
  store_rows(y, p.result(), p.y, piece.begin, rows);
}

void multiply_rows(const RowProducts& p, Pieces::Piece piece, bool short_pieces,
                   const PieceScratch& scratch) {
  const std::int64_t end = piece.end;
  while (piece.begin < end) {
    const std::int64_t left = end - piece.begin;
    // Only rows in place may be many: scratch has room for row_piece.
    const std::int64_t size = !short_pieces   ? row_piece
                              : p.is_direct() ? next_piece(left)
                                              : next_piece(std::min(left, row_piece));
    piece.end = piece.begin + std::min(size, left);
    if (p.is_direct() && size <= left)
      multiply_in_place(p, piece, scratch.scratchpad);
    else
      multiply_padded(p, piece, size, scratch);
    piece.begin = piece.end;
  }
}

void multiply_pieces(const RowProducts& p, std::span<const std::int64_t> offsets,
                     const Scratch& scratch) {
  const bool short_pieces =
      short_pieces_keep_bits(p.k(), p.n(), p.operands(), p.result(), p.is_packed);
  const std::int64_t rows = offsets.back() - offsets.front();
  const Pieces pieces(offsets, short_pieces ? shared_piece(rows, num_threads()) : row_piece);
  for_each_piece(pieces.count(), [&](std::int64_t i, int thread) {
    std::byte* const place = scratch.place(thread);
    multiply_rows(p, pieces[i], short_pieces,
                  {scratch.scratchpad(thread), place, place + scratch.sizes.x});
  });
}

// Columns [begin, end) of a weight, bf16 [k, n], as fp32 [k, end - begin].
void expand(const std::byte* weight, std::int64_t k, std::int64_t n, std::int64_t begin,
            std::int64_t end, float* panel) {
  const auto* values = reinterpret_cast<const BFloat16*>(weight);
  parallel_rows(k, end - begin, [=](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row)
      for (std::int64_t col = begin; col < end; ++col)
        panel[row * (end - begin) + col - begin] = to_float(values[row * n + col]);
  });
}

// Without products in bf16: a group after the other, and a panel of its weight after the other,
// become fp32 operands.
void multiply_expanded(const RowProducts& p, std::span<const std::int64_t> offsets,
                       const Scratch& scratch) {
  const std::int64_t cols = panel_cols(p.k(), p.n());
  for (std::size_t group = 0; group + 1 < offsets.size(); ++group) {
    if (offsets[group] == offsets[group + 1]) continue;
    for (std::int64_t begin = 0; begin < p.n(); begin += cols) {
      const std::int64_t end = std::min(p.n(), begin + cols);
      expand(p.weights[group], p.k(), p.n(), begin, end, reinterpret_cast<float*>(scratch.panel()));
      multiply_pieces(
          {p.x, p.y.slice_cols(begin, end), {scratch.panel()}, p.accumulate, p.is_grouped, false},
          offsets.subspan(group, 2), scratch);
    }
  }
}

void multiply_groups(const RowProducts& p, std::span<const std::int64_t> offsets) {
  const ScratchSizes sizes =
      scratch_sizes(p.k(), p.n(), p.x.dtype, p.operands(), p.is_grouped, num_threads());
  const Scratch scratch{p.x.device->kernel_scratch(sizes.bytes()), sizes};
  if (p.is_direct())
    multiply_pieces(p, offsets, scratch);
  else
    multiply_expanded(p, offsets, scratch);
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
  const std::int64_t forward = most_scratch(in, out, compute, is_grouped, num_threads);
  if (!backward) return forward;
  return std::max({forward, most_scratch(out, in, compute, is_grouped, num_threads),
                   weight_gradient_scratch({out, in, compute}, num_threads)});
}

void linear_forward(const TensorView& x, const PackedWeight& weight, const TensorView& y) {
  multiply_groups({x, y, packed_of({&weight, 1}, true), false, false}, whole(x));
}

void linear_backward_input(const TensorView& dy, const PackedWeight& weight, const TensorView& dx,
                           Accumulate accumulate) {
  multiply_groups({dy, dx, packed_of({&weight, 1}, false), accumulate == Accumulate::yes, false},
                  whole(dy));
}

void linear_backward_weight(const TensorView& dy, const TensorView& x, const GradientSum& dw) {
  if (!dw.is_exact()) return add_weight_gradients(dy, x, whole(dy), dw.view.as<float>());
  std::vector<std::int64_t> units;
  for (std::int64_t begin = 0; begin < dy.rows(); begin += dw.exact.unit_rows)
    units.push_back(begin);
  units.push_back(dy.rows());
  add_exact_weight_gradients(dy, x, units, 1, dw);
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
                                    const TensorView& offsets, const GradientSum& dw) {
  const std::vector<std::int64_t> rows = read_offsets(offsets, dy.rows());
  if (dw.is_exact()) return add_exact_weight_gradients(dy, x, rows, dw.view.shape[0], dw);
  add_weight_gradients(dy, x, rows, dw.view.as<float>());
}

}  // namespace switchyard::kernels::cpu
