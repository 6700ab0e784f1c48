// An element of f32 or bf16 read and written as fp32, for plain loops over either.
#pragma once

#include "tensor/dtype.hpp"

namespace switchyard::kernels::cpu {

inline float value_of(float x) {
  return x;
}
inline float value_of(BFloat16 x) {
  return to_float(x);
}
inline void put(float value, float& to) {
  to = value;
}
inline void put(float value, BFloat16& to) {
  to = to_bf16(value);
}

}  // namespace switchyard::kernels::cpu
