// The units of exact mode (docs/numerics.md): the rows whose gradients are summed in fp32 before
// they are added to sums without an order. They follow from the configuration alone, so every
// layout has the same ones: whole sequences, or, where sequences may be split, parts of one so
// short that every rank of every legal split holds whole units.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/gradient_sum.hpp"
#include "parallel/config_mistake.hpp"
#include "parallel/pass.hpp"
#include "trainer/config.hpp"

namespace switchyard {

struct ExactUnits {
  std::int64_t rows = 0;      // tokens of one
  std::int64_t per_step = 0;  // of all ranks and micro-steps
};
// numerics.exact is set, and exact_mistakes() has nothing against it.
ExactUnits exact_units_of(const Config& config);

// How gradients are summed; none without numerics.exact.
std::optional<kernels::ExactSum> exact_sum_of(const Config& config);
// How the losses of so many sequences are summed; not at all exactly without numerics.exact.
// num_moe_layers: with experts.
ExactFigures exact_figures_of(const Config& config, std::int64_t num_sequences,
                              std::int64_t num_moe_layers);

// What the keys of section numerics have against the batch and the layout; nothing without
// numerics.exact. parallel: with every 0 replaced; context ranks need not be chosen yet.
std::vector<ConfigMistake> exact_mistakes(const Config& config, const ParallelConfig& parallel);

}  // namespace switchyard
