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

std::array<float, 256> all_of_8_bits(float (*number_of)(std::uint8_t)) {
  std::array<float, 256> numbers{};
  for (std::size_t bits = 0; bits < numbers.size(); ++bits)
    numbers[bits] = number_of(static_cast<std::uint8_t>(bits));
  return numbers;
}

}  // namespace

bool is_float(ElementType type) {
  return type == ElementType::f32 || type == ElementType::f16 || type == ElementType::bf16 ||
         type == ElementType::f8_e4m3 || type == ElementType::f8_e5m2;
}

float float_of_f16(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000u) << 16, size = bits & 0x7fffu;
  const float small = static_cast<float>(static_cast<std::int32_t>(size)) * 0x1p-24f;
  const std::uint32_t other = (size << 13) + (size >= 0x7c00u ? 0x70000000u : 0x38000000u);
  return std::bit_cast<float>(sign | (size < 0x400u ? std::bit_cast<std::uint32_t>(small) : other));
}

std::uint16_t f16_of_float(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  // Below 2^-14 there are multiples of 2^-24: those that a float beside 0.5 has.
  const std::uint32_t small =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(size) + 0.5f) - 0x3f000000u;
  const std::uint32_t rounded = (size + 0xfffu + (size >> 13 & 1u) - 0x38000000u) >> 13;
  const std::uint32_t beyond =  // 2^16 and more; not a number
      size > 0x7f800000u ? 0x7e00u | (size >> 13 & 0x3ffu) : 0x7c00u;
  const std::uint32_t result = size < 0x38800000u ? small : size < 0x47800000u ? rounded : beyond;
  return static_cast<std::uint16_t>(sign | result);
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
      return convert_all<std::uint16_t>(bytes, numbers,
                                        [](std::uint16_t bits) { return float_of_f16(bits); });
    case ElementType::f8_e4m3: {
      static const std::array<float, 256> table = all_of_8_bits(float_of_f8_e4m3);
      return convert_all<std::uint8_t>(bytes, numbers,
                                       [](std::uint8_t bits) { return table[bits]; });
    }
    case ElementType::f8_e5m2: {
      static const std::array<float, 256> table = all_of_8_bits(float_of_f8_e5m2);
      return convert_all<std::uint8_t>(bytes, numbers,
                                       [](std::uint8_t bits) { return table[bits]; });
    }
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
    store_all<std::uint16_t>(numbers, bytes, [](float value) { return f16_of_float(value); });
  }
}

void mxfp4_to_floats(std::span<const std::uint8_t> blocks, std::span<const std::uint8_t> scales,
                     std::span<float> numbers) {
  constexpr std::size_t block_bytes = mxfp4_block / 2;
  expect(blocks.size() == scales.size() * block_bytes && numbers.size() == 2 * blocks.size(),
         "16 bytes and 32 numbers for each scale");
  constexpr std::array<double, 16> sizes = {0.0,  0.5,  1.0,  1.5,  2.0,  3.0,  4.0,  6.0,
                                            -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0};
  for (std::size_t block = 0; block < scales.size(); ++block) {
    const double scale = std::ldexp(1.0, int{scales[block]} - 127);
    for (std::size_t i = block * block_bytes; i < (block + 1) * block_bytes; ++i) {
      numbers[2 * i] = static_cast<float>(sizes[blocks[i] & 15u] * scale);
      numbers[2 * i + 1] = static_cast<float>(sizes[blocks[i] >> 4] * scale);
    }
  }
}

}  // namespace switchyard::safetensors
