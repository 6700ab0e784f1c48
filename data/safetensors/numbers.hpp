// Numbers of safetensors files as fp32, and fp32 as such numbers. What fp32 holds exactly comes
// back exactly; all else is rounded to nearest, ties to even. MXFP4 is the microscaling format of
// the OCP specification (version 1.0, 2023): blocks of 32 numbers of 4 bits (1 sign, 2 exponent, 1
// mantissa bits), two a byte, the lower half first, with a common scale 2^(byte - 127).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "data/safetensors/header.hpp"

namespace switchyard::safetensors {

bool is_float(ElementType type);  // F32, F16, BF16, F8_E4M3, F8_E5M2: what to_floats() takes

float float_of_f16(std::uint16_t bits);
std::uint16_t f16_of_float(float value);
float float_of_f8_e4m3(std::uint8_t bits);  // no infinity; S.1111.111 is NaN
float float_of_f8_e5m2(std::uint8_t bits);

// bytes: numbers.size() elements of a type that is_float().
void to_floats(ElementType type, std::span<const std::byte> bytes, std::span<float> numbers);
// type: F32, F16 or BF16.
void from_floats(std::span<const float> numbers, ElementType type, std::span<std::byte> bytes);

inline constexpr std::int64_t mxfp4_block = 32;
// blocks: 16 bytes for each scale; numbers: 32 for each.
void mxfp4_to_floats(std::span<const std::uint8_t> blocks, std::span<const std::uint8_t> scales,
                     std::span<float> numbers);

}  // namespace switchyard::safetensors
