// switchyard train and eval: a configuration on all ranks of the job.
#include <fmt/core.h>

#include <csignal>
#include <cstdio>

#include "data/files/shell_quote.hpp"
#include "launch/commands/commands.hpp"
#include "launch/commands/kept_keys.hpp"
#include "launch/commands/run_data.hpp"
#include "launch/config/config_file.hpp"
#include "launch/options.hpp"
#include "launch/pricing/find_profile.hpp"
#include "launch/program_place.hpp"
#include "trainer/agreement.hpp"
#include "trainer/run/evaluation_run.hpp"
#include "trainer/run/train_run.hpp"

namespace switchyard {

namespace {

// The token file that data.path names must be one, and the model must know its tokens: rank 0
// looks, before anything is made or allocated, and all ranks throw alike.
void check_data(Group& world, const LoadedConfig& loaded) {
  ExitCode code = ExitCode::done;
  std::string problem;
  if (world.rank() == 0) {
    try {
      require_valid_for_vocabulary(loaded, vocab_size_of_data(loaded));
    } catch (const Error& error) {
      code = error.code();
      problem = error.what();
    }
  }
  world.broadcast_text(problem, 0);
  if (problem.empty()) return;
  double agreed = static_cast<double>(code);
  world.all_reduce_values({&agreed, 1}, ReduceOp::max);
  throw_error(static_cast<ExitCode>(static_cast<int>(agreed)), problem);
}

LoadedConfig load_for_run(const CommandContext& context,
                          const std::vector<std::string>& arguments) {
  Group& world = context.session->world();
  LoadedConfig loaded =
      load_config_collectively(world, arguments.front(), std::span(arguments).subspan(1));
  require_valid_for_ranks(loaded, world.size());
  check_data(world, loaded);
  keep_balance_reduction(world, loaded);
  if (world.rank() == 0) print_warnings(loaded);
  return loaded;
}

// The command that goes on with this run: that of this start, but from where the run then is.
std::string continue_command(const CommandContext& context, const LoadedConfig& loaded) {
  const std::string resume = "checkpoint.resume=";
  std::vector<std::string> words = context.arguments;
  if (loaded.config.checkpoint.resume_choice() != Resume::automatic) {
    std::erase_if(words, [&](const std::string& word) { return word.starts_with(resume); });
    words.push_back(resume + std::string(name_of(Resume::automatic)));
  }
  return start_of_command(context.launcher, context.program, "train") + " " +
         quote_all_for_shell(words);
}

// Rank 0 foretells; a profile that is named must be one, for all ranks.
RunMachine machine_of(Group& world, const LoadedConfig& loaded) {
  RunMachine machine;
  run_together(world, [&] {
    if (world.rank() != 0) return;
    FoundProfile found = find_profile(loaded.config.plan.profile);
    machine = {std::move(found.profile), std::move(found.why_not)};
  });
  return machine;
}

// What draws a run, for the shell; empty: it is not here.
std::string plot_script() {
  const std::string script = script_of_launch("plot.sh");
  return script.empty() ? script : quote_for_shell(script);
}

}  // namespace

int run_train(const CommandContext& context) {
  std::vector<std::string> arguments;
  Options options(
      "train", "CONFIG [key.path=value ...]",
      "Trains a model: alone, under mpirun (launch/mpirun.sh) or under srun. Continues by "
      "itself from the newest checkpoint of run.output. SIGUSR1 or SIGTERM finishes the "
      "step, saves and ends with code 16: run the same command to go on.");
  options.arguments("CONFIG", arguments, 1);
  if (!options.parse(context.arguments)) return 0;
  const LoadedConfig loaded = load_for_run(context, arguments);
  StopSignal stop;  // not before there is something to stop
  const RunStart start{.configuration = text_of(loaded.config),
                       .program = quote_for_shell(context.program),
                       .continue_command = continue_command(context, loaded),
                       .command = start_of_command(context.launcher, context.program, "train") +
                                  " " + quote_all_for_shell(context.arguments),
                       .version = version_text(),
                       .plot_script = plot_script(),
                       .job = detect_batch_job(),
                       .machine = machine_of(context.session->world(), loaded)};
  // What a run leaves lies in its folder: a reader of its words that goes away (`| head`) does not
  // end it, nor do words that found no room make it fail.
  std::signal(SIGPIPE, SIG_IGN);
  const ExitCode code =
      run_training(context.session->world(), context.session->log(), loaded.config, start, stop);
  std::clearerr(stdout);
  return static_cast<int>(code);
}

int run_eval(const CommandContext& context) {
  std::vector<std::string> arguments;
  Options options(
      "eval", "CONFIG [key.path=value ...]",
      "Prints the validation loss of the newest checkpoint of run.output, or of the one that "
      "checkpoint.resume=PATH names here: the mean over the tokens of the validation split, or of "
      "its first evaluate.num_sequences sequences, the same whatever the batch and the layout. Any "
      "number of ranks.");
  options.arguments("CONFIG", arguments, 1);
  if (!options.parse(context.arguments)) return 0;
  const LoadedConfig loaded = load_for_run(context, arguments);
  // What the file says of checkpoint.resume is where the training began.
  Config config = loaded.config;
  const Origin& origin = loaded.origin(*find_key("checkpoint.resume"));
  if (origin.kind != Origin::Kind::command_line)
    config.checkpoint.resume = name_of(Resume::automatic);
  run_evaluation(context.session->world(), context.session->log(), config, text_of(loaded.config));
  return 0;
}

}  // namespace switchyard
