// What `switchyard plan` tells of the ways by which tokens can reach their experts.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/config.hpp"

namespace switchyard {

// For each kind of dispatch the bytes that a rank sends for its tokens' way to the experts, in a
// layer and micro-step, if choices are alike likely, and the kind with the fewest. parallel of the
// configuration: resolved. Empty where no tokens travel.
std::string dispatch_table(const Config& config, std::int64_t ranks_per_node);

}  // namespace switchyard
