// switchyard bench: speed, beside the ceiling measured in the same run.
#include <fmt/format.h>

#include "bench/step.hpp"
#include "launch/commands.hpp"
#include "launch/config_file.hpp"
#include "launch/options.hpp"

namespace switchyard {

int run_bench(const CommandContext& context) {
  std::vector<std::string> arguments;
  bench::StepOptions step;
  std::int64_t num_warmup = step.num_warmup;
  std::int64_t num_steps = step.num_steps;
  Options options("bench",
                  "step CONFIG [key.path=value ...] | linear | attention | experts | all_to_all",
                  "Measures speed on made-up data and prints it beside the ceiling measured in the "
                  "same run. Under mpirun, all ranks together.");
  options.add("json", step.json, "print JSON instead of a table")
      .add("warmup", "N", num_warmup, "steps or repetitions before measuring")
      .add("steps", "N", num_steps, "steps or repetitions measured")
      .arguments("NAME", arguments, 1);
  if (!options.parse(context.arguments)) return 0;
  if (num_warmup < 0 || num_steps < 1)
    throw UsageError("bench", "--steps must be at least 1, --warmup at least 0");
  step.num_warmup = static_cast<int>(num_warmup);
  step.num_steps = static_cast<int>(num_steps);

  Group& world = context.session->world();
  const std::string& name = arguments.front();
  if (name == "step") {
    if (arguments.size() < 2) throw UsageError("bench", "bench step needs a CONFIG");
    const LoadedConfig loaded =
        load_config_collectively(world, arguments[1], std::span(arguments).subspan(2));
    require_valid_for_ranks(loaded, world.size());
    bench::run_step(world, loaded.config, arguments[1], step);
    return 0;
  }
  throw UsageError("bench",
                   fmt::format("unknown benchmark {}; there are step, linear, attention, experts "
                               "and all_to_all",
                               name));
}

}  // namespace switchyard
