// A program with commands that fail in each way there is, run through the same run_program() as
// `switchyard`. The shell tests beside it look at exit codes and messages.
#include <fmt/core.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <new>
#include <thread>

#include "launch/command_line.hpp"
#include "launch/config/config_file.hpp"
#include "launch/options.hpp"
#include "parallel/group/collective_error.hpp"

namespace switchyard {
namespace {

// The last rank fails while the others wait for it.
int one_rank_fails(const CommandContext& context) {
  Group& world = context.session->world();
  if (world.rank() == world.size() - 1) throw DataError("the last rank fails");
  world.barrier();
  std::this_thread::sleep_for(std::chrono::seconds(30));
  return 0;
}

int all_fail_alike(const CommandContext& /*context*/) {
  throw CheckpointError("every rank fails");
}

int all_know(const CommandContext& /*context*/) {
  throw Collective<CheckpointError>("the ranks know");
}

int out_of_memory(const CommandContext& /*context*/) {
  throw std::bad_alloc();
}
int foreign(const CommandContext& /*context*/) {
  throw std::out_of_range("index 3");
}
int stopped(const CommandContext& /*context*/) {
  return static_cast<int>(ExitCode::stopped);
}

// The last rank is stopped behind all work: the others wait for it in MPI's own end.
int last_is_late(const CommandContext& context) {
  const Group& world = context.session->world();
  if (world.rank() == world.size() - 1) std::raise(SIGSTOP);
  return 0;
}

// Loads a configuration on all ranks; each prints what it got.
int load(const CommandContext& context) {
  std::vector<std::string> arguments;
  Options options("load", "CONFIG [key.path=value ...]", "Loads a configuration on all ranks.");
  options.arguments("CONFIG", arguments, 1);
  if (!options.parse(context.arguments)) return 0;
  // Only rank 0's file and overrides count.
  if (context.session->world().rank() != 0) arguments = {"/nonexistent", "train.num_steps=77"};
  const LoadedConfig loaded = load_config_collectively(context.session->world(), arguments[0],
                                                       std::span(arguments).subspan(1));
  std::fputs(fmt::format("{} {} {}\n", loaded.path, loaded.config.train.num_steps,
                         loaded.config.run.output)
                 .c_str(),
             stdout);
  return 0;
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  using namespace switchyard;
  const Command commands[] = {
      {"one-fails", "the last rank fails", Processes::all_ranks, one_rank_fails},
      {"all-fail", "all ranks fail, each for itself", Processes::all_ranks, all_fail_alike},
      {"all-know", "all ranks fail and know it", Processes::all_ranks, all_know},
      {"memory", "std::bad_alloc", Processes::all_ranks, out_of_memory},
      {"foreign", "a foreign exception", Processes::all_ranks, foreign},
      {"stopped", "stops on request", Processes::all_ranks, stopped},
      {"late", "the last rank does not come to MPI's end", Processes::all_ranks, last_is_late},
      {"one", "stops on request in one process", Processes::one, stopped},
      {"load", "loads a configuration", Processes::all_ranks, load},
  };
  return run_program(commands, argc, argv);
}
