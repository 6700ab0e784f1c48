// `switchyard bench step CONFIG`: whole training steps on made-up tokens. Prints tokens a second,
// model FLOP/s, the share of the product peak measured in the same run, and the seconds of each part,
// which add up to the step.
#pragma once

#include <string>

#include "parallel/group.hpp"
#include "trainer/config.hpp"

namespace switchyard::bench {

struct StepOptions {
  int num_warmup = 2;
  int num_steps = 5;
  bool json = false;
};

// Collective; prints on rank 0. A vocabulary of 0 in the configuration is taken as 257 (bytes).
void run_step(Group& world, const Config& config, const std::string& name, const StepOptions& options);

}  // namespace switchyard::bench
