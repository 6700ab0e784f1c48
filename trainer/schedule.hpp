// The learning rate as a pure function of the step: a linear warm-up from zero, then one of three
// curves. Nothing is kept between steps, so a resumed run continues on the same curve.
#pragma once

#include <cstdint>

#include "trainer/config.hpp"

namespace switchyard {

// `step` counts from 1 (the step about to be taken) to num_steps; 0 gives 0 when there is a
// warm-up. With w = warmup_steps, N = num_steps, peak and low the two learning rates:
//   step <= w        peak * step / w
//   cosine           low + (peak - low) * (1 + cos(pi * (step - w) / (N - w))) / 2
//   linear           peak + (low - peak) * (step - w) / (N - w)
//   constant_decay   peak until N - decay_steps, then linear to low at N
// So step w has the peak and step N the low one. ConfigError for another name of a schedule.
double learning_rate_at(const OptimizerConfig& config, std::int64_t num_steps, std::int64_t step);

}  // namespace switchyard
