// exit.json in the folder of a run: how and at which step it ended, and when. Rank 0 writes it, or
// whichever rank ends the job when that one cannot.
#pragma once

#include <cstdint>
#include <string>

#include "tensor/error.hpp"

namespace switchyard {

std::string utc_now();  // "2026-01-31T12:00:00Z"

// Atomic.
void write_exit_file(const std::string& run_folder, ExitCode code, const std::string& reason,
                     std::int64_t step);
// The same by write_file_at_once().
void write_exit_file_at_once(const std::string& run_folder, ExitCode code,
                             const std::string& reason, std::int64_t step);
// It was written too early: the run goes on.
void remove_exit_file(const std::string& run_folder);

}  // namespace switchyard
