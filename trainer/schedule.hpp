// The learning rate as a pure function of the step: a linear warm-up from zero, then one of three
// curves. Nothing is kept between steps, so a resumed run continues on the same curve.
#pragma once

#include <cstdint>

#include "trainer/config.hpp"

namespace switchyard {

// `step` counts from 1 (the step about to be taken) to num_steps; 0 gives 0 when there is a
// warm-up. With w = warmup_steps, N = num_steps, peak and low the two learning rates:
//   step <= w        peak * step / w
//   cosine           low + (peak - low) * (1 + cos(pi * (step - b) / (N + 1 - b))) / 2
//   linear           peak + (low - peak) * (step - b) / (N + 1 - b)
//   constant_decay   peak until b, then as linear
// with b, the last step that has the peak, max(w, 1), and of constant_decay N - decay_steps if that
// is more. The low rate is reached after the last step, at N + 1: a step at a rate of 0, the
// default, would compute a gradient and learn nothing.
double learning_rate_at(const OptimizerConfig& config, std::int64_t num_steps, std::int64_t step);

}  // namespace switchyard
