// A failure of one rank in a phase that the others also run becomes a failure of all, so that none
// waits for ever in the next exchange.
#pragma once

#include <functional>
#include <string>

#include "parallel/group/group.hpp"
#include "tensor/error.hpp"

namespace switchyard {

// Runs `phase` on this rank (it may do nothing here), then all ranks of `world` learn whether it
// failed anywhere. If so, all throw the error of the lowest rank that failed: same class, same
// message, with "rank R: " before it unless the world is one rank. `phase` must not communicate.
void run_together(Group& world, const std::function<void()>& phase);

// The error class that belongs to an exit code, as an error that all ranks throw alike.
[[noreturn]] void throw_error(ExitCode code, const std::string& message);

}  // namespace switchyard
