// The instruction set that kernels use, chosen at run time: the best the processor has, or less
// when the environment variable SWITCHYARD_MAX_ISA (sse4, avx2, avx512, avx512_bf16, amx) says so.
// The limit governs our own loops (Highway targets) and oneDNN alike.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace switchyard::kernels {

enum class Isa : std::uint8_t { sse4, avx2, avx512, avx512_bf16, amx };
std::string_view name_of(Isa isa);
// ConfigError naming the legal values when `name` is none of them.
Isa isa_from_name(std::string_view name);

// What the processor and the operating system offer, lowest first.
std::vector<Isa> available_isas();
// Sets the limit for this process. To be called before the first kernel runs (oneDNN fixes its
// choice then); InternalError afterwards if that makes a difference. Applies SWITCHYARD_MAX_ISA
// when called without a limit. ConfigError if the processor lacks what is asked for.
void limit_isa(Isa limit);
void limit_isa_from_environment();
// The instruction set in force.
Isa active_isa();
// Whether products take bf16 operands natively; without it they run in fp32 on converted operands.
bool has_bf16_products();

}  // namespace switchyard::kernels
