#include "trainer/agreement.hpp"

#include <fmt/core.h>

#include <array>
#include <new>

#include "parallel/group/collective_error.hpp"

namespace switchyard {

void throw_error(ExitCode code, const std::string& message) {
  switch (code) {
    case ExitCode::usage:
      throw Collective<ConfigError>(message);
    case ExitCode::data:
      throw Collective<DataError>(message);
    case ExitCode::checkpoint:
      throw Collective<CheckpointError>(message);
    case ExitCode::memory:
      throw Collective<MemoryError>(message);
    case ExitCode::io:
      throw Collective<IoError>(message);
    case ExitCode::numerical:
      throw Collective<NumericalError>(message);
    case ExitCode::no_progress:
      throw Collective<ProgressError>(message);
    case ExitCode::internal:
      throw Collective<InternalError>(message);
    case ExitCode::done:
    case ExitCode::stopped:
    case ExitCode::hang:
    case ExitCode::lost_rank:
      break;
  }
  throw Collective<InternalError>(message);
}

void run_together(Group& world, const std::function<void()>& phase) {
  ExitCode code = ExitCode::done;
  std::string message;
  try {
    phase();
  } catch (const Error& error) {
    code = error.code();
    message = error.what();
  } catch (const std::bad_alloc&) {
    code = ExitCode::memory;
    message = "no memory left for host buffers";
  } catch (const std::exception& error) {
    code = ExitCode::internal;
    message = error.what();
  }

  const bool failed = code != ExitCode::done;
  std::array<double, 1> first{static_cast<double>(failed ? world.rank() : world.size())};
  world.all_reduce_values(first, ReduceOp::min);
  const int culprit = static_cast<int>(first[0]);
  if (culprit >= world.size()) return;

  std::array<double, 1> agreed{world.rank() == culprit ? static_cast<double>(code) : 0.0};
  world.all_reduce_values(agreed, ReduceOp::max);
  world.broadcast_text(message, culprit);
  if (world.size() > 1) message = fmt::format("rank {}: {}", culprit, message);
  throw_error(static_cast<ExitCode>(static_cast<int>(agreed[0])), message);
}

}  // namespace switchyard
