// `switchyard bench dispatch`: the way of tokens to the experts' ranks and back, without experts:
// gather, exchange, order, and on the way back the sum by token. By every kind of dispatch, for
// choices that are even, as uneven as a router's without balance loss, and all of one rank; and for
// those of a trace, if one is given.
#pragma once

#include <optional>
#include <vector>

#include "bench/report.hpp"
#include "bench/traced_choices.hpp"
#include "experts/config.hpp"

namespace switchyard::bench {

struct DispatchSize {
  std::int64_t num_tokens = 0;  // of a rank
  std::int64_t hidden = 0;
  std::int64_t num_experts = 0;  // of all ranks
  std::int64_t top_k = 0;
};

struct DispatchOptions {
  std::vector<DType> precisions{DType::f32, DType::bf16};
  std::vector<DispatchSize> sizes{
      {4096, 512, 16, 2},  // configs/bench/moe_216m.yaml
      {2048, 1024, 64, 8},
  };
  std::optional<TracedChoices> traced =
      std::nullopt;  // of as many experts and choices as each size
};

enum class Choices : std::uint8_t { balanced, skewed, worst };
constexpr std::array<std::string_view, 3> choice_names(Choices) {
  return {"balanced", "skewed", "worst"};
}
// The experts of a rank's tokens, [T, k], different ones for each token. balanced: in turn. skewed:
// expert e as often as 1 / (e + 1) says, at random. worst: the first k experts, of one rank if it
// has as many.
std::vector<std::int32_t> choices_of(const DispatchSize& size, Choices choices, int rank);

// Collective, over at least two ranks, which share the experts.
void run_dispatch(Group& world, const DispatchOptions& options, const Repeats& repeats,
                  const Output& output);

}  // namespace switchyard::bench
