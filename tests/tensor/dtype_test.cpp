#include "tensor/dtype.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace switchyard {
namespace {

TEST(BFloat16, EveryPatternSurvivesTheWayThroughFloat) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const BFloat16 value{static_cast<std::uint16_t>(bits)};
    const BFloat16 back = to_bf16(to_float(value));
    if (std::isnan(to_float(value))) {
      ASSERT_TRUE(std::isnan(to_float(back))) << bits;
    } else {
      ASSERT_EQ(back.bits, value.bits);
    }
  }
}

// Between every finite pattern and the next: below the middle down, above it up, at it to even.
TEST(BFloat16, RoundsToNearestTiesToEven) {
  for (std::uint32_t sign : {0x0000u, 0x8000u})
    for (std::uint32_t bits = 0; bits < 0x7f80; ++bits) {
      const std::uint32_t lower = sign | bits;  // the next magnitude is lower + 1, at last infinity
      const auto rounded = [&](std::uint32_t tail) {
        return to_bf16(std::bit_cast<float>(lower << 16 | tail)).bits;
      };
      ASSERT_EQ(rounded(0x0001), lower);
      ASSERT_EQ(rounded(0x7fff), lower);
      ASSERT_EQ(rounded(0x8000), lower % 2 == 0 ? lower : lower + 1);
      ASSERT_EQ(rounded(0x8001), lower + 1);
      ASSERT_EQ(rounded(0xffff), lower + 1);
    }
}

TEST(BFloat16, NanStaysNan) {
  for (std::uint32_t bits : {0x7f800001u, 0x7fffffffu, 0xff800001u, 0xffffffffu, 0x7fc00000u})
    EXPECT_TRUE(std::isnan(to_float(to_bf16(std::bit_cast<float>(bits))))) << std::hex << bits;
}

TEST(DType, SizesAndNames) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::i32, DType::i64, DType::u8})
    EXPECT_NE(name_of(dtype), "?");
  EXPECT_EQ(size_of(DType::f64), 8);
  EXPECT_EQ(size_of(DType::f32), 4);
  EXPECT_EQ(size_of(DType::bf16), static_cast<std::int64_t>(sizeof(BFloat16)));
  EXPECT_EQ(size_of(DType::u8), 1);
}

}  // namespace
}  // namespace switchyard
