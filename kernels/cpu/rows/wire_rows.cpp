#include "kernels/cpu/rows/wire_rows.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/element.hpp"
#include "kernels/cpu/rows/elementwise.hpp"

namespace switchyard::kernels::cpu {

namespace {

constexpr float largest = 448;
constexpr std::uint8_t nan_code = 0x7f;

const std::array<float, 256>& e4m3_values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> table{};
    for (std::size_t code = 0; code < table.size(); ++code)
      table[code] = from_e4m3(static_cast<std::uint8_t>(code));
    return table;
  }();
  return values;
}

// NaN if a value of the block is not finite.
template <class T>
float scale_of(const T* x, std::int64_t n) {
  float most = 0;
  bool finite = true;
  for (std::int64_t i = 0; i < n; ++i) {
    const float size = std::abs(value_of(x[i]));
    finite &= size <= std::numeric_limits<float>::max();
    most = std::max(most, size);
  }
  return finite ? most / largest : std::numeric_limits<float>::quiet_NaN();
}

// A block so small that its scale has no reciprocal arrives as zeros.
template <class T>
void pack_fp8(const T* x, std::int64_t cols, std::byte* wire) {
  auto* codes = reinterpret_cast<std::uint8_t*>(wire);
  std::byte* scales = wire + cols;
  for (std::int64_t begin = 0; begin < cols; begin += fp8_block) {
    const std::int64_t n = std::min(fp8_block, cols - begin);
    const float scale = scale_of(x + begin, n);
    const float factor = scale >= std::numeric_limits<float>::min() ? 1 / scale : 0;
    for (std::int64_t i = 0; i < n; ++i)
      codes[begin + i] = std::isnan(scale) ? nan_code : to_e4m3(value_of(x[begin + i]) * factor);
    std::memcpy(scales, &scale, sizeof scale);
    scales += sizeof scale;
  }
}

template <class T>
void unpack_fp8(const std::byte* wire, std::int64_t cols, T* x) {
  const auto* codes = reinterpret_cast<const std::uint8_t*>(wire);
  const std::byte* scales = wire + cols;
  const std::array<float, 256>& values = e4m3_values();
  for (std::int64_t begin = 0; begin < cols; begin += fp8_block) {
    float scale = 0;
    std::memcpy(&scale, scales, sizeof scale);
    scales += sizeof scale;
    for (std::int64_t i = begin; i < std::min(cols, begin + fp8_block); ++i)
      put(values[codes[i]] * scale, x[i]);
  }
}

// each(row of `rows`, bytes of the same row of `wire`)
template <class T, class Each>
void for_each_row(const TensorView& rows, const TensorView& wire, const Each& each) {
  const Rows<T> values = rows_of<T>(rows);
  std::byte* const bytes = wire.kernel_bytes();
  const std::int64_t row_bytes = wire.cols();
  parallel_rows(rows.rows(), rows.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) each(values[row], bytes + row * row_bytes);
  });
}

}  // namespace

std::uint8_t to_e4m3(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint8_t>(bits >> 24 & 0x80u);
  const std::uint32_t size = bits & 0x7fffffffu;
  // Below 2^-6 codes are multiples of 2^-9: adding 1.5 2^23 rounds to whole numbers.
  constexpr float whole = 12582912;
  const float multiple = std::bit_cast<float>(size) * 512 + whole;
  const std::uint32_t small = std::bit_cast<std::uint32_t>(multiple) & 0x3fffffu;
  const std::uint32_t rounded = size + 0x7ffffu + (size >> 20 & 1u);
  const std::uint32_t normal = (rounded >> 20) - (120u << 3);
  constexpr std::uint32_t smallest_normal = 0x3c800000u;  // 2^-6
  return static_cast<std::uint8_t>(sign | (size < smallest_normal ? small : normal));
}

float from_e4m3(std::uint8_t code) {
  const std::uint32_t exponent = code >> 3 & 15u, mantissa = code & 7u;
  if ((code & 0x7fu) == nan_code) return std::numeric_limits<float>::quiet_NaN();
  const float size =
      exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                    : std::ldexp(static_cast<float>(8 + mantissa), static_cast<int>(exponent) - 10);
  return (code & 0x80u) != 0 ? -size : size;
}

void pack_rows(const TensorView& rows, WireFormat format, const TensorView& wire) {
  const std::int64_t cols = rows.cols();
  if (format == WireFormat::bf16)
    for_each_row<float>(rows, wire, [cols](const float* x, std::byte* to) {
      convert_span(x, reinterpret_cast<BFloat16*>(to), cols);
    });
  else if (rows.dtype == DType::f32)
    for_each_row<float>(rows, wire,
                        [cols](const float* x, std::byte* to) { pack_fp8(x, cols, to); });
  else
    for_each_row<BFloat16>(rows, wire,
                           [cols](const BFloat16* x, std::byte* to) { pack_fp8(x, cols, to); });
}

void unpack_rows(const TensorView& wire, WireFormat format, const TensorView& rows) {
  const std::int64_t cols = rows.cols();
  if (format == WireFormat::bf16)
    for_each_row<float>(rows, wire, [cols](float* x, const std::byte* from) {
      convert_span(reinterpret_cast<const BFloat16*>(from), x, cols);
    });
  else if (rows.dtype == DType::f32)
    for_each_row<float>(rows, wire,
                        [cols](float* x, const std::byte* from) { unpack_fp8(from, cols, x); });
  else
    for_each_row<BFloat16>(
        rows, wire, [cols](BFloat16* x, const std::byte* from) { unpack_fp8(from, cols, x); });
}

}  // namespace switchyard::kernels::cpu
