#include "kernels/isa.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "kernels/cpu/isa.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels {
namespace {

// Every limit is tried in a process of its own: oneDNN fixes its choice on first use.
void exit_with_loops_on(Isa limit, std::string_view target) {
  limit_isa(limit);
  const bool as_wanted = cpu::loop_target() == target && active_isa() == limit &&
                         has_bf16_products() == (limit >= Isa::avx512_bf16);
  std::exit(as_wanted ? 0 : 1);
}

TEST(Isa, NamesAreReadBack) {
  for (Isa isa : {Isa::sse4, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx})
    EXPECT_EQ(isa_from_name(name_of(isa)), isa);
  EXPECT_THROW(isa_from_name("avx9"), ConfigError);
}

TEST(Isa, EveryAvailableLimitHolds) {
  const auto target_of = [](Isa isa) {
    return isa == Isa::sse4 ? "SSE4" : isa == Isa::avx2 ? "AVX2" : "AVX3";
  };
  for (Isa isa : available_isas())
    EXPECT_EXIT(exit_with_loops_on(isa, target_of(isa)), testing::ExitedWithCode(0), "")
        << name_of(isa);
}

TEST(Isa, RefusesWhatTheProcessorLacks) {
  const std::vector<Isa> available = available_isas();
  EXPECT_EQ(available.front(), Isa::sse4);
  EXPECT_TRUE(std::ranges::is_sorted(available));
  for (Isa isa : {Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx})
    if (std::ranges::find(available, isa) == available.end()) {
      EXPECT_THROW(limit_isa(isa), ConfigError) << name_of(isa);
    }
}

TEST(Isa, EnvironmentVariableIsNamedInItsError) {
  setenv("SWITCHYARD_MAX_ISA", "pentium", 1);
  try {
    limit_isa_from_environment();
    FAIL() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string_view(error.what()).find("SWITCHYARD_MAX_ISA"), std::string_view::npos);
  }
  unsetenv("SWITCHYARD_MAX_ISA");
  EXPECT_NO_THROW(limit_isa_from_environment());
}

TEST(Isa, ALimitThatComesTooLateIsAnError) {
  const std::vector<Isa> available = available_isas();
  EXPECT_EXIT(
      {
        const Isa active = active_isa();  // from here on oneDNN's choice is fixed
        limit_isa(active);
        try {
          if (active != Isa::sse4) limit_isa(Isa::sse4);
        } catch (const InternalError&) {
          std::exit(0);
        }
        std::exit(active == Isa::sse4 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace switchyard::kernels
