// From argv to a command and from an exception to an exit code. A command is a line of a table and
// a function in a file of its own, command_<name>.cpp; main() hands the table to run_program().
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "launch/launcher.hpp"
#include "parallel/session.hpp"

namespace switchyard {

struct CommandContext {
  std::string program;                 // as it was called
  std::vector<std::string> arguments;  // behind the command's name
  Launcher launcher;
  // Null for commands of one process. A command of all ranks gets it unless it is only asked for
  // its help, so parse the options first.
  Session* session = nullptr;
};

enum class Processes : std::uint8_t {
  one,        // needs no MPI and starts at once; under mpirun, only rank 0 runs it
  all_ranks,  // runs on every rank, in a session
};

struct Command {
  std::string_view name;
  std::string_view summary;  // one line
  Processes processes;
  int (*run)(const CommandContext& context);  // returns the exit code
};

// Runs the command that argv names; returns the exit code of the process. Errors are printed on
// stderr, once: "switchyard: MESSAGE", with "rank N (HOST): " when one rank of several fails, which
// also ends the other ranks.
int run_program(std::span<const Command> commands, int argc, char** argv);

std::string version_text();

}  // namespace switchyard
