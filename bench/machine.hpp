// What a figure was measured on: printed at the head of every benchmark.
#pragma once

#include <string>

#include "parallel/group.hpp"

namespace switchyard::bench {

// Lines that begin with "# ": processor, instruction set in force, ranks, threads a rank, versions.
std::string describe_machine(Group& world);
std::string processor_name();  // from /proc/cpuinfo

}  // namespace switchyard::bench
