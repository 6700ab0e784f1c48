#include "data/safetensors/numbers.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/dtype.hpp"
#include "tensor/error.hpp"

namespace switchyard::safetensors {

namespace {

// A number of 1 sign bit, `exponent_bits` and `mantissa_bits`, without infinity and NaN.
float float_of_fields(unsigned bits, int exponent_bits, int mantissa_bits) {
  const unsigned mantissa = bits & ((1u << mantissa_bits) - 1);
  const int exponent = static_cast<int>(bits >> mantissa_bits & ((1u << exponent_bits) - 1));
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const bool is_negative = bits >> (exponent_bits + mantissa_bits) & 1;
  const unsigned whole = exponent == 0 ? mantissa : mantissa | 1u << mantissa_bits;
  const float size =
      std::ldexp(static_cast<float>(whole), (exponent == 0 ? 1 : exponent) - bias - mantissa_bits);
  return is_negative ? -size : size;
}

template <class Bits>
Bits read(const std::byte* from) {
  Bits bits;
  std::memcpy(&bits, from, sizeof(Bits));
  return bits;
}

template <class Bits, class Convert>
void convert_all(std::span<const std::byte> bytes, std::span<float> numbers, Convert convert) {
  for (std::size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = convert(read<Bits>(bytes.data() + i * sizeof(Bits)));
}

template <class Bits, class Convert>
void store_all(std::span<const float> numbers, std::span<std::byte> bytes, Convert convert) {
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const Bits bits = convert(numbers[i]);
    std::memcpy(bytes.data() + i * sizeof(Bits), &bits, sizeof(Bits));
  }
}

}  // namespace

bool is_float(ElementType type) {
  return type == ElementType::f32 || type == ElementType::f16 || type == ElementType::bf16 ||
         type == ElementType::f8_e4m3 || type == ElementType::f8_e5m2;
}

float float_of_f16(std::uint16_t bits) {
  if ((bits >> 10 & 31) != 31) return float_of_fields(bits, 5, 10);
  const std::uint32_t sign = (bits & 0x8000u) << 16;
  return std::bit_cast<float>(sign | 0x7f800000u | (bits & 0x3ffu) << 13);
}

std::uint16_t f16_of_float(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
  const std::uint32_t size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u | (size >> 13 & 0x3ffu));
  if (size >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 2^16 and more
  if (size < 0x38800000u) {  // below 2^-14: multiples of 2^-24
    const float whole = std::nearbyint(std::ldexp(std::bit_cast<float>(size), 24));
    return static_cast<std::uint16_t>(sign | static_cast<unsigned>(whole));
  }
  const std::uint32_t rounded = size + 0xfffu + (size >> 13 & 1u);
  return static_cast<std::uint16_t>(sign | (rounded - 0x38000000u) >> 13);
}

float float_of_f8_e4m3(std::uint8_t bits) {
  if ((bits & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();
  return float_of_fields(bits, 4, 3);
}

float float_of_f8_e5m2(std::uint8_t bits) {
  return float_of_f16(static_cast<std::uint16_t>(bits << 8));
}

void to_floats(ElementType type, std::span<const std::byte> bytes, std::span<float> numbers) {
  expect(std::ssize(bytes) == std::ssize(numbers) * size_of(type), "an element for each number");
  switch (type) {
    case ElementType::f32:
      if (!numbers.empty()) std::memcpy(numbers.data(), bytes.data(), bytes.size());
      return;
    case ElementType::bf16:
      return convert_all<std::uint16_t>(
          bytes, numbers, [](std::uint16_t bits) { return to_float(BFloat16{bits}); });
    case ElementType::f16:
      return convert_all<std::uint16_t>(bytes, numbers, float_of_f16);
    case ElementType::f8_e4m3:
      return convert_all<std::uint8_t>(bytes, numbers, float_of_f8_e4m3);
    case ElementType::f8_e5m2:
      return convert_all<std::uint8_t>(bytes, numbers, float_of_f8_e5m2);
    default:
      expect(false, "a type of numbers that fp32 holds");
  }
}

void from_floats(std::span<const float> numbers, ElementType type, std::span<std::byte> bytes) {
  expect(std::ssize(bytes) == std::ssize(numbers) * size_of(type), "an element for each number");
  if (type == ElementType::f32) {
    if (!numbers.empty()) std::memcpy(bytes.data(), numbers.data(), bytes.size());
  } else if (type == ElementType::bf16) {
    store_all<std::uint16_t>(numbers, bytes, [](float value) { return to_bf16(value).bits; });
  } else {
    expect(type == ElementType::f16, "F32, F16 or BF16");
    store_all<std::uint16_t>(numbers, bytes, f16_of_float);
  }
}

void mxfp4_to_floats(std::span<const std::uint8_t> blocks, std::span<const std::uint8_t> scales,
                     std::span<float> numbers) {
  constexpr std::size_t block_bytes = mxfp4_block / 2;
  expect(blocks.size() == scales.size() * block_bytes && numbers.size() == 2 * blocks.size(),
         "16 bytes and 32 numbers for each scale");
  constexpr std::array<float, 8> sizes = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  const auto number_of = [&](unsigned half, int exponent) {
    const float size = std::ldexp(sizes[half & 7], exponent);
    return (half & 8) != 0 ? -size : size;
  };
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const int exponent = int{scales[i / block_bytes]} - 127;
    numbers[2 * i] = number_of(blocks[i] & 15u, exponent);
    numbers[2 * i + 1] = number_of(blocks[i] >> 4, exponent);
  }
}

}  // namespace switchyard::safetensors
