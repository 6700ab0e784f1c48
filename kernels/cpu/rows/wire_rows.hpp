// The CPU twins of kernels/rows/wire_rows.hpp, and the codes of single values.
#pragma once

#include "kernels/rows/wire_rows.hpp"

namespace switchyard::kernels::cpu {

void pack_rows(const TensorView& rows, WireFormat format, const TensorView& wire);
void unpack_rows(const TensorView& wire, WireFormat format, const TensorView& rows);

// e4m3 of a finite value of at most 448 and a half step, and back; 0x7f and 0xff are NaN.
std::uint8_t to_e4m3(float value);
float from_e4m3(std::uint8_t code);

}  // namespace switchyard::kernels::cpu
