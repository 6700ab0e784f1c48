// Which Highway target the loops of this library run on: for tests and reports.
#pragma once

#include <string_view>

namespace switchyard::kernels::cpu {

std::string_view loop_target();  // "AVX3", "AVX2", "SSE4" or "SCALAR"

}  // namespace switchyard::kernels::cpu
