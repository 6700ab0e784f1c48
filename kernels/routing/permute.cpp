#include "kernels/routing/permute.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/routing/permute.hpp"
#include "kernels/cuda/routing/permute.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

// rows [n, H] and row_of_slot [T, k] against tokens [T, H]; of what type the rows may be.
enum class RowType : std::uint8_t { of_tokens, any };
void check_slots(const TensorView& rows, const TensorView& row_of_slot, const TensorView& tokens,
                 RowType type = RowType::of_tokens) {
  expect(is_float(tokens.dtype) && is_float(rows.dtype), "rows of type f32 or bf16");
  expect(row_of_slot.dtype == DType::i32 && row_of_slot.rows() == tokens.rows() &&
             row_of_slot.cols() >= 1,
         "row_of_slot i32 [T, k]");
  expect_matrix(rows, type == RowType::any ? rows.dtype : tokens.dtype, rows.rows(), tokens.cols(),
                "rows [n, H]");
}

void one_type_on_cards(const TensorView& rows, const TensorView& out) {
  expect(rows.dtype == out.dtype, "sums of rows in their own type on a card");
}

}  // namespace

void sort_by_expert(const TensorView& indices, std::span<const std::int32_t> place_of_expert,
                    const TensorView& counts, const TensorView& row_of_slot,
                    const TensorView& token_of_row, std::int64_t rows_of_place) {
  if (counts.empty()) return;
  expect(indices.dtype == DType::i32, "indices i32 [T, k]");
  expect_vector(counts, DType::i32, counts.rows(), "counts i32 [places]");
  expect_matrix(row_of_slot, DType::i32, indices.rows(), indices.cols(), "row_of_slot i32 [T, k]");
  const bool is_padded = rows_of_place > 0;
  expect_vector(token_of_row, DType::i32,
                is_padded ? counts.numel() * rows_of_place : indices.numel(),
                "token_of_row i32 [T k], or a number for each row that places have room for");
  dispatch(
      *counts.device,
      [&] {
        cpu::sort_by_expert(indices, place_of_expert, counts, row_of_slot, token_of_row,
                            rows_of_place);
      },
      [&] { plan::sort_by_expert(counts, indices, token_of_row); },
      [&] {
        if (is_padded) no_padding_on_cards();
        cuda::sort_by_expert(indices, place_of_expert, counts, row_of_slot, token_of_row);
      });
}

void gather_rows(const TensorView& src, const TensorView& index, const TensorView& dst) {
  if (dst.empty()) return;
  expect(is_float(src.dtype) || src.dtype == DType::i32, "rows of type f32, bf16 or i32");
  expect_vector(index, DType::i32, index.rows(), "index i32 [m]");
  expect_matrix(dst, src.dtype, index.rows(), src.cols(), "dst [m, H] like src");
  dispatch(
      *dst.device, [&] { cpu::gather_rows(src, index, dst); }, [&] { plan::gather_rows(dst); },
      [&] { cuda::gather_rows(src, index, dst); });
}

void scatter_rows(const TensorView& src, const TensorView& index, const TensorView& dst) {
  if (src.empty()) return;
  expect(is_float(src.dtype) || src.dtype == DType::i32, "rows of type f32, bf16 or i32");
  expect_vector(index, DType::i32, src.rows(), "index i32 [m]");
  expect(dst.dtype == src.dtype && dst.cols() == src.cols(), "dst [n, H] like src");
  dispatch(
      *src.device, [&] { cpu::scatter_rows(src, index, dst); }, [&] { plan::scatter_rows(src); },
      [&] { cuda::scatter_rows(src, index, dst); });
}

void combine_rows(const TensorView& rows, const TensorView& row_of_slot, const TensorView& weights,
                  const TensorView& out) {
  if (out.empty()) return;
  check_slots(rows, row_of_slot, out, RowType::any);
  expect_matrix(weights, DType::f32, out.rows(), row_of_slot.cols(), "weights f32 [T, k]");
  dispatch(
      *out.device, [&] { cpu::combine_rows(rows, row_of_slot, weights, out); },
      [&] { plan::combine_rows(rows, out); },
      [&] {
        one_type_on_cards(rows, out);
        cuda::combine_rows(rows, row_of_slot, weights, out);
      });
}

void combine_rows_backward(const TensorView& dout, const TensorView& rows,
                           const TensorView& row_of_slot, const TensorView& weights,
                           const TensorView& drows, const TensorView& dweights) {
  if (dout.empty()) return;
  check_slots(rows, row_of_slot, dout);
  expect_matrix(weights, DType::f32, dout.rows(), row_of_slot.cols(), "weights f32 [T, k]");
  expect_matrix(drows, rows.dtype, rows.rows(), rows.cols(), "drows like rows");
  expect_matrix(dweights, DType::f32, dout.rows(), row_of_slot.cols(), "dweights f32 [T, k]");
  dispatch(
      *dout.device,
      [&] { cpu::combine_rows_backward(dout, rows, row_of_slot, weights, drows, dweights); },
      [&] { plan::combine_rows_backward(dout, rows); },
      [&] { cuda::combine_rows_backward(dout, rows, row_of_slot, weights, drows, dweights); });
}

void sum_rows(const TensorView& rows, const TensorView& row_of_slot, const TensorView& out) {
  if (out.empty()) return;
  check_slots(rows, row_of_slot, out, RowType::any);
  dispatch(
      *out.device, [&] { cpu::sum_rows(rows, row_of_slot, out); },
      [&] { plan::sum_rows(rows, out); },
      [&] {
        one_type_on_cards(rows, out);
        cuda::sum_rows(rows, row_of_slot, out);
      });
}

}  // namespace switchyard::kernels
