// What routers chose while a run trained, from its trace of routing (docs/traces.md): the loads
// that real tokens make, for `switchyard bench dispatch --trace`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/group/group.hpp"

namespace switchyard::bench {

struct TracedChoices {
  std::int64_t step = 0;
  std::int64_t layer = 0;
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
  double max_over_mean = 1;           // choices of the most chosen expert over the mean
  std::vector<std::int32_t> experts;  // [tokens of the step, top_k]; -1: dropped

  // Of num_tokens tokens of a rank, [num_tokens, top_k]: rank after rank takes the next ones, from
  // the first one again after the last.
  std::vector<std::int32_t> of_rank(int rank, std::int64_t num_tokens) const;
};

// Of a trace's last step, the layer whose most chosen expert has the largest share. path: as for
// TraceReader, which says what may be wrong with it. Collective.
TracedChoices read_choices(Group& world, const std::string& path);

}  // namespace switchyard::bench
