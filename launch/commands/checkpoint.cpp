// switchyard checkpoint: looks into checkpoints. The work is in trainer/checkpoint_inspect.
#include <iostream>
#include <memory>

#include "launch/commands/commands.hpp"
#include "launch/options.hpp"
#include "parallel/group/group.hpp"
#include "trainer/checkpoint/inspect.hpp"

namespace switchyard {

int run_checkpoint(const CommandContext& context) {
  std::vector<std::string> arguments;
  bool digest = false;
  Options options(
      "checkpoint", "show|verify|diff PATH...",
      "show: state, tensors with norms, configuration. verify: every file against its hash; exit 4 "
      "names the damaged one. diff: two checkpoints, tensor by tensor; exit 0 if they are equal "
      "bit "
      "for bit, 1 if not. A run's folder stands for its newest checkpoint.");
  options.add("digest", digest,
              "show one hash of weights, moments and position in the data, the same whatever "
              "layout wrote them, and the folder");
  options.arguments("ACTION", arguments);
  if (!options.parse(context.arguments)) return 0;
  const std::string action = arguments.empty() ? std::string() : arguments.front();
  const std::vector<std::string> paths(arguments.begin() + (arguments.empty() ? 0 : 1),
                                       arguments.end());
  if (action != "show" && action != "verify" && action != "diff")
    throw UsageError("checkpoint", "say what to do: show, verify or diff");
  if (digest && action != "show") throw UsageError("checkpoint", "--digest is for show");
  if (action == "diff" ? paths.size() != 2 : paths.empty())
    throw UsageError("checkpoint", action == "diff" ? "diff takes two paths" : "a path is missing");

  const std::unique_ptr<Group> world = make_local_group("world");
  if (action == "diff") return diff_checkpoints(paths[0], paths[1], std::cout) ? 0 : 1;
  for (const std::string& path : paths) {
    if (digest) {
      std::cout << digest_of_checkpoint(path) << "  " << path << '\n';
    } else if (action == "show") {
      show_checkpoint(path, std::cout);
    } else {
      verify_checkpoint(path, *world, std::cout);
    }
  }
  return 0;
}

}  // namespace switchyard
