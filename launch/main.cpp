// The program `switchyard`: a table of commands. Each lives in launch/command_<name>.cpp.
#include "launch/command_line.hpp"
#include "launch/commands/commands.hpp"

int main(int argc, char** argv) {
  using switchyard::Command;
  using switchyard::Processes;
  const Command commands[] = {
      {"prepare", "turn texts into a file of tokens", Processes::one, switchyard::run_prepare},
      {"train", "train a model, on all ranks of the job", Processes::all_ranks,
       switchyard::run_train},
      {"eval", "the validation loss of a run", Processes::all_ranks, switchyard::run_eval},
      {"generate", "text from a trained model", Processes::one, switchyard::run_generate},
      {"score", "how probable a trained model finds texts", Processes::all_ranks,
       switchyard::run_score},
      {"plan", "memory, work and traffic of a layout, without running it", Processes::one,
       switchyard::run_plan},
      {"sweep", "the points of a study: plan, run and collect them", Processes::one,
       switchyard::run_sweep},
      {"fit", "scaling laws of finished runs", Processes::one, switchyard::run_fit},
      {"config", "check a configuration and print it complete", Processes::one,
       switchyard::run_config},
      {"checkpoint", "show, verify or compare checkpoints", Processes::one,
       switchyard::run_checkpoint},
      {"upcycle", "make a model with experts of a dense one", Processes::one,
       switchyard::run_upcycle},
      {"import", "a published model becomes a run's folder", Processes::one,
       switchyard::run_import},
      {"export", "a checkpoint becomes a published model", Processes::one, switchyard::run_export},
      {"trace", "the load and co-activation of experts in a trace of routing", Processes::one,
       switchyard::run_trace},
      {"report", "one page of figures and tables from runs", Processes::one,
       switchyard::run_report},
      {"doctor", "what the machines of a job have, and what is wrong with them",
       Processes::all_ranks, switchyard::run_doctor},
      {"bench", "measure speed beside the machine's ceiling", Processes::all_ranks,
       switchyard::run_bench},
  };
  return switchyard::run_program(commands, argc, argv);
}
