#include "kernels/rows/wire_rows.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/rows/wire_rows.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void expect_operands(const TensorView& rows, WireFormat format, const TensorView& wire) {
  expect(is_float(rows.dtype) && rows.is_contiguous(), "contiguous rows of type f32 or bf16");
  expect(is_packed(format, rows.dtype), "a format that is not that of the rows");
  expect_matrix(wire, DType::u8, rows.rows(), wire_row_bytes(format, rows.dtype, rows.cols()),
                "wire: u8 [rows, bytes of a row]");
  expect(wire.is_contiguous(), "contiguous bytes to send");
}

}  // namespace

std::int64_t wire_row_bytes(WireFormat format, DType compute, std::int64_t cols) {
  if (!is_packed(format, compute)) return cols * size_of(compute);
  if (format == WireFormat::bf16) return cols * size_of(DType::bf16);
  return cols + (cols + fp8_block - 1) / fp8_block * size_of(DType::f32);
}

void pack_rows(const TensorView& rows, WireFormat format, const TensorView& wire) {
  expect_operands(rows, format, wire);
  if (rows.empty()) return;
  dispatch(
      *rows.device, [&] { cpu::pack_rows(rows, format, wire); },
      [&] { plan::convert_rows(rows, wire); });
}

void unpack_rows(const TensorView& wire, WireFormat format, const TensorView& rows) {
  expect_operands(rows, format, wire);
  if (rows.empty()) return;
  dispatch(
      *rows.device, [&] { cpu::unpack_rows(wire, format, rows); },
      [&] { plan::convert_rows(wire, rows); });
}

}  // namespace switchyard::kernels
