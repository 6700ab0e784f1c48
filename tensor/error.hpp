// Errors and exit codes. Two families: what a user can mend (configuration, data, checkpoint, disk,
// memory) carries its exit code and a message that names the remedy; what a programmer must mend is
// an InternalError. main() catches, prints one line with the rank and ends all ranks.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "tensor/code_location.hpp"

namespace switchyard {

// The process exit codes that scripts may rely on.
enum class ExitCode : int {
  done = 0,
  internal = 1,    // a defect of this program
  usage = 2,       // command line or configuration
  data = 3,        // bad data
  checkpoint = 4,  // no valid checkpoint where one is needed
  memory = 5,      // does not fit in memory
  io = 6,          // input/output error or disk full
  stopped = 16,    // stopped on request; run the same command again to continue
  numerical = 17,  // loss or gradient is not finite
  hang = 18,
  no_progress = 19,  // restarted again and again from the same step; do not restart by itself
  lost_rank = 20,    // a rank died without a word; run the same command again to continue
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// A wrong configuration or command line. The message may hold several lines, one per mistake.
class ConfigError : public Error {
 public:
  explicit ConfigError(const std::string& message) : Error(ExitCode::usage, message) {}
};
class DataError : public Error {
 public:
  explicit DataError(const std::string& message) : Error(ExitCode::data, message) {}
};
class CheckpointError : public Error {
 public:
  explicit CheckpointError(const std::string& message) : Error(ExitCode::checkpoint, message) {}
};
class MemoryError : public Error {
 public:
  explicit MemoryError(const std::string& message) : Error(ExitCode::memory, message) {}
};
class IoError : public Error {
 public:
  explicit IoError(const std::string& message) : Error(ExitCode::io, message) {}
};
class NumericalError : public Error {
 public:
  explicit NumericalError(const std::string& message) : Error(ExitCode::numerical, message) {}
};
class ProgressError : public Error {
 public:
  explicit ProgressError(const std::string& message) : Error(ExitCode::no_progress, message) {}
};
class InternalError : public Error {
 public:
  explicit InternalError(const std::string& message) : Error(ExitCode::internal, message) {}
};

// Throws InternalError with the caller's file and line unless `condition` holds: for mistakes of
// programmers at a public entry (a shape that does not match), never for input from users.
void expect(bool condition, std::string_view what, CodeLocation where = CodeLocation::current());

}  // namespace switchyard
