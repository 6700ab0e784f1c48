// switchyard upcycle: a dense checkpoint becomes one of a model with experts.
#include <fmt/core.h>

#include <cmath>
#include <iostream>

#include "data/files/shell_quote.hpp"
#include "launch/commands/commands.hpp"
#include "launch/config/config_file.hpp"
#include "launch/options.hpp"
#include "trainer/checkpoint/upcycle.hpp"

namespace switchyard {

int run_upcycle(const CommandContext& context) {
  UpcycleOptions upcycling;
  std::vector<std::string> arguments;
  Options options(
      "upcycle", "DENSE CONFIG --output FOLDER [key.path=value ...]",
      "Makes experts of the feed-forwards of a dense model: copies, or, where "
      "experts.intermediate is a part of its width, parts of it. DENSE is a run's folder, one of "
      "checkpoints or a checkpoint's; CONFIG the configuration of the model with experts. FOLDER "
      "gets a checkpoint of weights alone, with which a run begins: checkpoint.start_from=FOLDER.");
  options.add_path("output", "FOLDER", upcycling.output, "where the new checkpoint is written")
      .add("router", "zero|small", upcycling.router,
           "weights of the routers: zero, or small random ones, the same for the parts of a copy "
           "(default small)")
      .add("noise", "X", upcycling.noise,
           "normal noise on each expert's weights, as part of their root mean square (default 0)")
      .arguments("DENSE CONFIG", arguments, 2);
  if (!options.parse(context.arguments)) return 0;
  if (upcycling.output.empty()) throw UsageError("upcycle", "--output is missing");
  if (!(upcycling.noise >= 0) || std::isinf(upcycling.noise))
    throw UsageError("upcycle", "--noise must be a number of at least 0");
  upcycling.dense = arguments[0];
  const LoadedConfig loaded = read_config(arguments[1], std::span(arguments).subspan(2));
  print_warnings(loaded);
  const Upcycled made =
      upcycle(loaded.config, text_of(loaded.config), upcycling,
              [](const std::string& text) { std::cerr << "switchyard upcycle: " << text << '\n'; });
  const ExpertsConfig& experts = loaded.config.experts;
  std::cout << fmt::format(
      "{}\n{} layers with {} experts: {} copies of a feed-forward, each in {} parts\n"
      "the first loss {} the dense model's\n"
      "next: train with checkpoint.start_from={}\n",
      made.path, made.num_layers, experts.num_experts, experts.num_experts / made.num_parts,
      made.num_parts, made.keeps_loss ? "is" : "is near, but not,",
      quote_for_shell(upcycling.output));
  return 0;
}

}  // namespace switchyard
