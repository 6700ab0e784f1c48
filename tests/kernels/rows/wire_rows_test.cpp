// Rows on the wire: codes against a search among all values of e4m3, rows within the bounds that
// the header states, both ways.
#include "kernels/rows/wire_rows.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/rows/wire_rows.hpp"

namespace switchyard::kernels {
namespace {

// The nearest code by trying all; of two as near, the even one.
std::uint8_t nearest(float value) {
  int best = 0;
  for (int code = 0; code < 127; ++code) {
    const double error =
        std::abs(double{cpu::from_e4m3(static_cast<std::uint8_t>(code))} - std::abs(double{value}));
    const double least =
        std::abs(double{cpu::from_e4m3(static_cast<std::uint8_t>(best))} - std::abs(double{value}));
    if (error < least || (error == least && code % 2 == 0)) best = code;
  }
  return static_cast<std::uint8_t>(best | (std::signbit(value) ? 0x80 : 0));
}

TEST(E4m3, HasTheValuesOfItsDefinition) {
  EXPECT_EQ(cpu::from_e4m3(0x00), 0);
  EXPECT_EQ(cpu::from_e4m3(0x01), std::ldexp(1.0f, -9));
  EXPECT_EQ(cpu::from_e4m3(0x08), std::ldexp(1.0f, -6));
  EXPECT_EQ(cpu::from_e4m3(0x38), 1);
  EXPECT_EQ(cpu::from_e4m3(0x7e), 448);
  EXPECT_EQ(cpu::from_e4m3(0xfe), -448);
  EXPECT_TRUE(std::isnan(cpu::from_e4m3(0x7f)));
}

TEST(E4m3, RoundsToTheNearestValueAndTiesToEven) {
  std::mt19937 random(7);
  for (int code = 0; code < 127; ++code) {
    const float value = cpu::from_e4m3(static_cast<std::uint8_t>(code));
    EXPECT_EQ(cpu::to_e4m3(value), code);
    EXPECT_EQ(cpu::to_e4m3(-value), code | 0x80);
    if (code == 126) continue;
    const float middle = (value + cpu::from_e4m3(static_cast<std::uint8_t>(code + 1))) / 2;
    EXPECT_EQ(cpu::to_e4m3(middle), nearest(middle)) << middle;
    for (const float near : {std::nextafter(middle, 0.0f), std::nextafter(middle, 448.0f)})
      EXPECT_EQ(cpu::to_e4m3(near), nearest(near)) << near;
  }
  std::uniform_real_distribution<float> exponents(-12, 8.8f);
  for (int i = 0; i < 20'000; ++i) {
    const float value = std::exp2(exponents(random));
    if (value > 448) continue;
    ASSERT_EQ(cpu::to_e4m3(value), nearest(value)) << value;
  }
}

class WireRows : public ::testing::TestWithParam<std::pair<WireFormat, DType>> {};

TEST_P(WireRows, ArriveWithinTheirBounds) {
  const auto [format, dtype] = GetParam();
  const std::unique_ptr<Device> device = make_cpu_device();
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  for (const std::int64_t cols : {1, 7, 128, 129, 300}) {
    const std::int64_t num_rows = 9;
    Tensor rows(*device, Purpose::workspace, dtype, {num_rows, cols});
    Tensor back(*device, Purpose::workspace, dtype, {num_rows, cols});
    Tensor wire(*device, Purpose::workspace, DType::u8,
                {num_rows, wire_row_bytes(format, dtype, cols)});
    const auto at = [&](const Tensor& tensor, std::int64_t row, std::int64_t col) {
      return dtype == DType::f32 ? tensor->row<float>(row)[col]
                                 : to_float(tensor->row<BFloat16>(row)[col]);
    };
    for (std::int64_t row = 0; row < num_rows; ++row)
      for (std::int64_t col = 0; col < cols; ++col) {
        const float value = normal(random) * std::exp2(static_cast<float>(4 * row - 16));
        if (dtype == DType::f32)
          rows->row<float>(row)[col] = value;
        else
          rows->row<BFloat16>(row)[col] = to_bf16(value);
      }
    for (std::int64_t col = 0; col < cols; ++col)  // a row of zeros
      if (dtype == DType::f32)
        rows->row<float>(3)[col] = 0;
      else
        rows->row<BFloat16>(3)[col] = to_bf16(0);
    pack_rows(rows, format, wire);
    unpack_rows(wire, format, back);
    for (std::int64_t row = 0; row < num_rows; ++row)
      for (std::int64_t col = 0; col < cols; ++col) {
        float largest = 0;
        const std::int64_t block = col / fp8_block * fp8_block;
        for (std::int64_t i = block; i < std::min(cols, block + fp8_block); ++i)
          largest = std::max(largest, std::abs(at(rows, row, i)));
        const float value = at(rows, row, col), size = std::abs(value);
        const float bound =
            format == WireFormat::bf16 ? size / 256 : std::max(size / 16, largest / 448 / 1024);
        // Beside it the roundings of the scale, of the quotient and of the product.
        const float rest = size * (dtype == DType::f32 ? 4e-7f : 1.0f / 256);
        ASSERT_LE(std::abs(at(back, row, col) - value), bound + rest) << row << ", " << col;
      }
  }
}

INSTANTIATE_TEST_SUITE_P(formats, WireRows,
                         ::testing::Values(std::pair(WireFormat::bf16, DType::f32),
                                           std::pair(WireFormat::fp8, DType::f32),
                                           std::pair(WireFormat::fp8, DType::bf16)));

TEST(WireRows, TellOfWhatIsNotFinite) {
  const std::unique_ptr<Device> device = make_cpu_device();
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    Tensor rows(*device, Purpose::workspace, DType::f32, {2, 200});
    Tensor wire(*device, Purpose::workspace, DType::u8,
                {2, wire_row_bytes(WireFormat::fp8, DType::f32, 200)});
    std::fill_n(rows->as<float>(), 400, 1.0f);
    rows->row<float>(1)[150] = bad;
    pack_rows(rows, WireFormat::fp8, wire);
    unpack_rows(wire, WireFormat::fp8, rows);
    EXPECT_EQ(rows->row<float>(0)[150], 1);
    EXPECT_EQ(rows->row<float>(1)[0], 1);  // another block
    EXPECT_TRUE(std::isnan(rows->row<float>(1)[150]));
  }
}

}  // namespace
}  // namespace switchyard::kernels
