#include "launch/command_line.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>
#include <optional>
#include <system_error>
#include <thread>

#include "kernels/isa.hpp"
#include "launch/mpi_guard.hpp"
#include "launch/options.hpp"
#include "launch/standard_streams.hpp"
#include "launch/suggestion.hpp"
#include "launch/commit.hpp"
#include "launch/version.hpp"
#include "parallel/group/collective_error.hpp"
#include "trainer/thread_limit.hpp"

namespace switchyard {
namespace {

struct Failure {
  ExitCode code = ExitCode::internal;
  std::string message;
  bool is_known_to_all = false;
};

// What the exception under way means. Call in a catch block.
Failure current_failure() {
  try {
    throw;
  } catch (const UsageError& error) {
    const std::string command = error.command().empty() ? "" : error.command() + " ";
    return {.code = error.code(),
            .message = fmt::format("{}{}{}\nTry 'switchyard {}--help'.", error.command(),
                                   error.command().empty() ? "" : ": ", error.what(), command),
            .is_known_to_all = true};
  } catch (const Error& error) {
    return {.code = error.code(),
            .message = error.what(),
            .is_known_to_all = dynamic_cast<const KnownToAllRanks*>(&error) != nullptr};
  } catch (const std::bad_alloc&) {
    return {.code = ExitCode::memory,
            .message = "out of memory; use a smaller model or micro_batch, or more ranks"};
  } catch (const std::filesystem::filesystem_error& error) {
    return {.code = ExitCode::io,
            .message = fmt::format("{}: {}", error.path1().string(), error.code().message())};
  } catch (const std::system_error& error) {
    if (is_thread_shortage(error)) return {.code = ExitCode::memory, .message = no_thread_text()};
    return {.code = ExitCode::internal, .message = fmt::format("internal error: {}", error.what())};
  } catch (const std::exception& error) {
    return {.code = ExitCode::internal, .message = fmt::format("internal error: {}", error.what())};
  } catch (...) {
    return {.code = ExitCode::internal, .message = "internal error of an unknown kind"};
  }
}

// Each line of the message with the prefix, in one write so that ranks do not mix.
void report(const std::string& message, const Launcher& launcher, bool is_of_this_rank_alone) {
  std::string prefix = "switchyard: ";
  if (is_of_this_rank_alone && launcher.num_ranks > 1) {
    prefix += fmt::format("rank {} ({}): ", launcher.rank, host_name());
  }
  std::string text = prefix;
  for (const char letter : message) {
    text += letter;
    if (letter == '\n') text += prefix;
  }
  text += '\n';
  std::fflush(stdout);
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
}

// Ends this rank, and the others unless they fail in the same way.
int fail(const Failure& failure, const Launcher& launcher, Session* session) {
  const int exit_code = static_cast<int>(failure.code);
  if (failure.is_known_to_all) {
    if (launcher.rank == 0) report(failure.message, launcher, false);
    // Without a session nothing makes the others wait for rank 0, and the first to fail has mpirun
    // end the rest, perhaps before rank 0 has spoken: so it alone fails.
    return session != nullptr || launcher.rank == 0 ? exit_code : 0;
  }
  if (launcher.num_ranks > 1) {
    // When all ranks fail at once, the first to report ends the others before they repeat it.
    std::this_thread::sleep_for(std::chrono::milliseconds(300 * std::min(launcher.rank, 5)));
  }
  report(failure.message, launcher, true);
  if (session != nullptr && launcher.num_ranks > 1) session->abort(exit_code);
  return exit_code;
}

std::string program_help(std::span<const Command> commands) {
  std::string text =
      "switchyard COMMAND [ARGUMENT ...]\n\n"
      "Trains mixture-of-experts language models on many ranks.\n\nCommands:\n";
  std::size_t width = 0;
  for (const Command& command : commands) width = std::max(width, command.name.size());
  for (const Command& command : commands) {
    text += fmt::format("  {:<{}}  {}\n", command.name, width, command.summary);
  }
  return text +
         "\n'switchyard COMMAND --help' tells more about a command.\n"
         "'switchyard --version' prints versions.\n";
}

const Command& find_command(std::span<const Command> commands, const std::string& name) {
  std::vector<std::string_view> names;
  for (const Command& command : commands) {
    if (command.name == name) return command;
    names.push_back(command.name);
  }
  const auto near = nearest(name, names);
  throw UsageError("", fmt::format("unknown command {}{}", name,
                                   near ? fmt::format("; did you mean {}?", *near) : ""));
}

bool asks_for_help(const std::vector<std::string>& arguments) {
  const auto end = std::find(arguments.begin(), arguments.end(), "--");
  return std::any_of(arguments.begin(), end, [](const std::string& argument) {
    return argument == "--help" || argument == "-h";
  });
}

int run_in_one_process(const Command& command, CommandContext& context) {
  const Launcher& launcher = context.launcher;
  if (launcher.rank != 0) return 0;
  if (launcher.num_ranks > 1 && command.processes == Processes::one) {
    std::fprintf(stderr,
                 "switchyard: %s runs in one process; the other %d of this job do nothing\n",
                 std::string(command.name).c_str(), launcher.num_ranks - 1);
  }
  kernels::limit_isa_from_environment();
  return command.run(context);
}

int run_in_session(const Command& command, CommandContext& context, int argc, char** argv) {
  require_pmi(context.launcher);
  yield_where_crowded(context.launcher);
  std::optional<MpiGuard> end;  // dies after the session, whose end it watches
  std::optional<MpiGuard> start(std::in_place, MpiGuard::Phase::start, context.launcher);
  Session session(&argc, &argv);
  start.reset();
  require_same_world(context.launcher, session.world().size());
  context.session = &session;
  // The session knows; the environment only guesses.
  context.launcher.rank = session.world().rank();
  context.launcher.num_ranks = session.world().size();
  int exit_code = 0;
  try {
    kernels::limit_isa_from_environment();
    exit_code = command.run(context);
  } catch (...) {
    exit_code = fail(current_failure(), context.launcher, &session);
  }
  end.emplace(MpiGuard::Phase::end, context.launcher);
  return exit_code;
}

int dispatch(std::span<const Command> commands, const Launcher& launcher, int argc, char** argv) {
  std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  if (words.empty()) throw UsageError("", "a command is missing");
  const bool is_first = launcher.rank == 0;
  if (words.front() == "--version") {
    if (is_first) std::fputs(version_text().c_str(), stdout);
    return 0;
  }
  if (words.front() == "help" && words.size() > 1) words = {words[1], "--help"};
  if (words.front() == "--help" || words.front() == "-h" || words.front() == "help") {
    if (is_first) std::fputs(program_help(commands).c_str(), stdout);
    return 0;
  }
  const Command& command = find_command(commands, words.front());
  CommandContext context{
      .program = argv[0], .arguments = {words.begin() + 1, words.end()}, .launcher = launcher};
  if (command.processes == Processes::one || asks_for_help(context.arguments)) {
    return run_in_one_process(command, context);
  }
  return run_in_session(command, context, argc, argv);
}

}  // namespace

int run_program(std::span<const Command> commands, int argc, char** argv) {
  // A file beyond the limit of this process (ulimit -f) is an error of the write, told like that of
  // a full disk, also where a library writes; unhandled, the signal would end the rank without a
  // word.
  std::signal(SIGXFSZ, SIG_IGN);
  const Launcher launcher = detect_launcher();
  try {
    hold_standard_streams();
    const int exit_code = dispatch(commands, launcher, argc, argv);
    const bool is_written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
    if (exit_code == 0 && !is_written) throw IoError("cannot write to the standard output");
    return exit_code;
  } catch (...) {
    return fail(current_failure(), launcher, nullptr);
  }
}

std::string version_text() {
  return fmt::format(
      "switchyard {} (commit {})\nbuild {}, {}\noneDNN {}, {} (MPI {}), HDF5 {}, Boost {}, yaml-cpp {}, {}\n",
      version::program, version::commit, version::build_type, version::compiler, version::onednn,
      version::mpi_library, version::mpi_standard, version::hdf5, version::boost, version::yaml_cpp,
      version::cuda);
}

}  // namespace switchyard
