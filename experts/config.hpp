// Key `experts` of a configuration.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "tensor/choice.hpp"

namespace switchyard {

// Over which tokens the balance loss takes its means.
enum class BalanceScope : std::uint8_t { sequence };
constexpr std::array<std::string_view, 1> choice_names(BalanceScope) {
  return {"sequence"};
}

struct ExpertsConfig {
  std::int64_t num_experts = 8;
  std::int64_t top_k = 2;
  std::int64_t intermediate = 1024;  // width of one expert's SwiGLU
  std::int64_t every = 1;            // layer l has experts if (l + 1) % every == 0; 0: no layer has
  double balance_weight = 0.01;
  double z_weight = 0.001;
  bool normalize_top_k = true;  // in a configuration file that leaves it out: top_k > 1
  BalanceScope balance_scope = BalanceScope::sequence;
  double dropout = 0;  // of expert outputs, by token, expert choice and element

  bool layer_has_experts(std::int64_t layer) const {
    return num_experts > 0 && every > 0 && (layer + 1) % every == 0;
  }
};

}  // namespace switchyard
