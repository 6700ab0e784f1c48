// What `switchyard plan` tells of the ways in which ranks can share a sequence: for each legal
// scheme the bytes that a rank sends and the seconds that computing and sending take.
#pragma once

#include <string>

#include "parallel/context/context_choice.hpp"

namespace switchyard {

// All legal schemes for the ranks of `chosen`, whatever the configuration has fixed. chosen: the
// mesh's configuration, resolved. Empty for one context rank.
std::vector<SchemeCost> all_scheme_costs(const ContextProblem& problem,
                                         const ParallelConfig& chosen);
bool is_chosen(const SchemeCost& cost, const ParallelConfig& chosen);

// Means of a layer, for one micro-batch.
std::string context_table(const ContextProblem& problem, const ParallelConfig& chosen);

}  // namespace switchyard
