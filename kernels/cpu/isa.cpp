// Our own loops follow Highway's table of supported targets, products follow oneDNN's largest
// instruction set; both tables belong to their libraries, and both are set here only.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/isa.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <hwy/highway.h>

#include "kernels/cpu/isa.hpp"
#include "kernels/isa.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

const char* target_name() {
  return hwy::TargetName(HWY_TARGET);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>

#include "tensor/error.hpp"

namespace switchyard::kernels {

namespace cpu {

HWY_EXPORT(target_name);

std::string_view loop_target() {
  return HWY_DYNAMIC_DISPATCH(target_name)();
}

}  // namespace cpu

namespace {

std::int64_t targets_above(Isa limit) {
  if (limit >= Isa::avx512) return 0;
  const std::int64_t above_avx2 = HWY_AVX3 | HWY_AVX3_DL;
  return limit == Isa::avx2 ? above_avx2 : above_avx2 | HWY_AVX2;
}

dnnl::cpu_isa onednn_isa(Isa isa) {
  switch (isa) {
    case Isa::sse4:
      return dnnl::cpu_isa::sse41;
    case Isa::avx2:
      return dnnl::cpu_isa::avx2;
    case Isa::avx512:
      return dnnl::cpu_isa::avx512_core;
    case Isa::avx512_bf16:
      return dnnl::cpu_isa::avx512_core_bf16;
    case Isa::amx:
      return dnnl::cpu_isa::avx512_core_amx;
  }
  return dnnl::cpu_isa::all;
}

bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c");
}

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512cd");
}

bool has_avx512_bf16() {
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
}

bool has_amx() {
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
         __builtin_cpu_supports("amx-int8");
}

}  // namespace

std::vector<Isa> available_isas() {
  __builtin_cpu_init();
  std::vector<Isa> isas = {Isa::sse4};
  if (!has_avx2()) return isas;
  isas.push_back(Isa::avx2);
  if (!has_avx512()) return isas;
  isas.push_back(Isa::avx512);
  if (!has_avx512_bf16()) return isas;
  isas.push_back(Isa::avx512_bf16);
  if (has_amx()) isas.push_back(Isa::amx);
  return isas;
}

void limit_isa(Isa limit) {
  const std::vector<Isa> available = available_isas();
  if (std::ranges::find(available, limit) == available.end()) {
    std::vector<std::string_view> names;
    for (Isa isa : available) names.push_back(name_of(isa));
    throw ConfigError(
        fmt::format("this processor does not offer the instruction set {}; it offers {}. Unset "
                    "SWITCHYARD_MAX_ISA or name one of these",
                    name_of(limit), fmt::join(names, ", ")));
  }
  // oneDNN refuses once it has been used; then only its present choice is acceptable.
  const dnnl::status status = dnnl::set_max_cpu_isa(onednn_isa(limit));
  expect(status == dnnl::status::success || active_isa() == limit,
         "the instruction set to be limited before the first kernel runs");
  hwy::DisableTargets(targets_above(limit));
}

Isa active_isa() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::all:
    case dnnl::cpu_isa::avx512_core_amx:
      return Isa::amx;
    case dnnl::cpu_isa::avx512_core_bf16:
      return Isa::avx512_bf16;
    case dnnl::cpu_isa::avx512_core:
    case dnnl::cpu_isa::avx512_core_vnni:
      return Isa::avx512;
    case dnnl::cpu_isa::avx2:
    case dnnl::cpu_isa::avx2_vnni:
    case dnnl::cpu_isa::avx512_mic:
    case dnnl::cpu_isa::avx512_mic_4ops:
      return Isa::avx2;
    case dnnl::cpu_isa::avx:
    case dnnl::cpu_isa::sse41:
      return Isa::sse4;
  }
  return Isa::sse4;
}

}  // namespace switchyard::kernels

#endif  // HWY_ONCE
