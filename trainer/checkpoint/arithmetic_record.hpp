// What the last bits of exact mode depend on beside configuration and data: the instruction set
// that the kernels use, and the program itself. Checkpoints of exact runs keep it, so that a run
// which goes on elsewhere can say that its bits may be others there.
#pragma once

#include <string>

#include "parallel/group/group.hpp"

namespace switchyard {

struct ArithmeticRecord {
  std::string isa;    // as SWITCHYARD_MAX_ISA names it
  std::string build;  // checksum of the program's file
  friend bool operator==(const ArithmeticRecord&, const ArithmeticRecord&) = default;
};

// Of all ranks. Collective. ConfigError with the remedy if they differ: which rank computes what
// would then be seen in the bits.
ArithmeticRecord arithmetic_record(Group& world);

// What a run says that goes on from a checkpoint with another record; empty if there is nothing to
// say.
std::string changed_arithmetic(const ArithmeticRecord& saved, const ArithmeticRecord& now);

}  // namespace switchyard
