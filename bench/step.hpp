// `switchyard bench step CONFIG`: whole training steps on made-up tokens. Prints tokens a second,
// model FLOP/s, the share of the product peak measured in the same run, and the seconds of each
// part, which add up to the step.
#pragma once

#include <string>

#include "bench/report.hpp"
#include "parallel/group/collective_log.hpp"
#include "trainer/config.hpp"

namespace switchyard::bench {

// Collective. name: of the configuration, for the head. A vocabulary of 0 in the configuration is
// taken as 257 (bytes). disturb: also the time of a step while another program keeps the last
// processor of rank 0 busy, and what scheduling alone would make of it.
void run_step(Group& world, CollectiveLog& log, const Config& config, const std::string& name,
              const Repeats& repeats, bool disturb, const Output& output);

}  // namespace switchyard::bench
