// `switchyard bench all_to_all`: the exchange that dispatch and combine are made of.
#pragma once

#include <vector>

#include "bench/report.hpp"

namespace switchyard::bench {

struct AllToAllOptions {
  // Bytes that a rank sends, its own part included; rounded down to equal parts of whole rows.
  std::vector<std::int64_t> sizes{4096, 16384, 65536, 262144, 1048576, 4194304, 16777216};
};

// Collective, on two ranks at least. InternalError on all ranks if an element arrived wrong.
void run_all_to_all(Group& world, const AllToAllOptions& options, const Repeats& repeats,
                    const Output& output);

}  // namespace switchyard::bench
