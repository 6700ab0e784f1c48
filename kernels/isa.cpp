#include "kernels/isa.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>

#include "tensor/error.hpp"

namespace switchyard::kernels {

namespace {

constexpr std::array all_isas = {Isa::sse4, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx};

}  // namespace

std::string_view name_of(Isa isa) {
  switch (isa) {
    case Isa::sse4:
      return "sse4";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512_bf16:
      return "avx512_bf16";
    case Isa::amx:
      return "amx";
  }
  return "?";
}

Isa isa_from_name(std::string_view name) {
  const auto found =
      std::ranges::find_if(all_isas, [name](Isa isa) { return name_of(isa) == name; });
  if (found != all_isas.end()) return *found;
  throw ConfigError(fmt::format(
      "'{}' is not an instruction set; use sse4, avx2, avx512, avx512_bf16 or amx", name));
}

void limit_isa_from_environment() {
  const char* name = std::getenv("SWITCHYARD_MAX_ISA");
  if (name == nullptr || *name == '\0') return;
  Isa limit{};
  try {
    limit = isa_from_name(name);
  } catch (const ConfigError& error) {
    throw ConfigError(fmt::format("environment variable SWITCHYARD_MAX_ISA: {}", error.what()));
  }
  limit_isa(limit);
}

bool has_bf16_products() {
  return active_isa() >= Isa::avx512_bf16;
}

}  // namespace switchyard::kernels
