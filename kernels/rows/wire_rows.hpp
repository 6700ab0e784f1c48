// Rows as they travel, in fewer bytes than they are computed with.
//
// bf16: rounded to nearest, ties to even: an element is off by at most 2^-8 of itself.
// fp8: e4m3 of the Open Compute Project (OFP8, 2023: 4 bits of exponent, 3 of mantissa, largest
//   value 448, no infinity) with a scale in fp32 for each block of 128 elements of a row:
//     scale = largest |x| of the block / 448,   code = x / scale, rounded to nearest, ties to even
//   An element is off by at most 2^-4 of itself, or 2^-10 scales where it is small beside the
//   block's largest. A block with a value that is not finite arrives as NaN. (Block scales for
//   dispatch: DeepSeek-V3, 2024.)
//
// A row's bytes depend on the row alone.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// compute: as rows are, unchanged.
enum class WireFormat : std::uint8_t { compute, bf16, fp8 };
constexpr std::array<std::string_view, 3> choice_names(WireFormat) {
  return {"compute", "bf16", "fp8"};
}

inline constexpr std::int64_t fp8_block = 128;

// Whether rows of this type change on the wire.
constexpr bool is_packed(WireFormat format, DType compute) {
  return format == WireFormat::fp8 || (format == WireFormat::bf16 && compute == DType::f32);
}
// Of a row of `cols` elements of type f32 or bf16: fp8 has the codes first, then the scales.
std::int64_t wire_row_bytes(WireFormat format, DType compute, std::int64_t cols);

// rows: f32 or bf16 [n, cols], contiguous; wire: u8 [n, wire_row_bytes], contiguous, written. The
// format is one that changes rows.
void pack_rows(const TensorView& rows, WireFormat format, const TensorView& wire);
// The way back: rows is written.
void unpack_rows(const TensorView& wire, WireFormat format, const TensorView& rows);

}  // namespace switchyard::kernels
