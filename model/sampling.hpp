// Choosing the next token from logits: temperature, then the nucleus (Holtzman et al., "The curious
// case of neural text degeneration", 2020). The random number comes from outside, by counter, so a
// continuation is a function of seed and position alone.
#pragma once

#include <cstdint>
#include <span>

namespace switchyard {

// The token drawn with probability softmax(logits / temperature), restricted to the smallest set of
// most probable tokens whose probabilities reach top_p together. temperature >= 0, 0 takes the most
// probable token; top_p in (0, 1]; uniform in [0, 1). Ties go to the lower id.
// NumericalError if no logit is finite.
std::int32_t sample(std::span<const float> logits, double temperature, double top_p,
                    double uniform);

// The number in [0, 1) for the token at `position` of continuation number `sequence`.
double sampling_uniform(std::uint64_t seed, std::uint64_t sequence, std::uint64_t position);

}  // namespace switchyard
