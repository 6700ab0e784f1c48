// switchyard config: checks a configuration and prints it complete.
#include <fmt/core.h>

#include <cstdio>

#include "launch/commands/commands.hpp"
#include "launch/config/config_file.hpp"
#include "launch/config/document.hpp"
#include "launch/config/value.hpp"
#include "launch/options.hpp"

namespace switchyard {

namespace {

const Key& key_to_get(const std::string& path) {
  const Key* key = find_key(path);
  if (key != nullptr) return *key;
  throw UsageError("config", is_section(path)
                                 ? fmt::format("--get {}: is a section; name one of its keys", path)
                                 : fmt::format("--get {}: {}", path, unknown_path(path)));
}

}  // namespace

int run_config(const CommandContext& context) {
  bool prints_document = false;
  bool prints_origins = false;
  std::optional<std::int64_t> num_ranks;
  std::optional<std::string> path;  // of the key to get
  std::vector<std::string> arguments;
  Options options(
      "config", "CONFIG [key.path=value ...]",
      "Checks a configuration and prints it complete, as YAML. All mistakes are told at "
      "once.");
  options.add("origins", prints_origins, "say where each value comes from")
      .add("get", "KEY.PATH", path, "print the value of this key alone, as it is: for scripts")
      .add("ranks", "N", num_ranks, "also check that the configuration fits N ranks")
      .add("document", prints_document, "print docs/configuration.md instead; takes no CONFIG")
      .arguments("CONFIG", arguments);
  if (!options.parse(context.arguments)) return 0;
  if (prints_document) {
    std::fputs(configuration_document().c_str(), stdout);
    return 0;
  }
  if (arguments.empty()) throw UsageError("config", "CONFIG is missing");
  if (num_ranks && *num_ranks < 1) throw UsageError("config", "--ranks must be at least 1");

  if (path && prints_origins) throw UsageError("config", "give --get or --origins, not both");
  const Key* key = path ? &key_to_get(*path) : nullptr;

  const LoadedConfig loaded = read_config(arguments.front(), std::span(arguments).subspan(1));
  if (num_ranks) require_valid_for_ranks(loaded, *num_ranks);
  if (key != nullptr) {
    std::fputs((plain_value(loaded.config, *key) + "\n").c_str(), stdout);
    return 0;
  }
  print_warnings(loaded);
  const std::string yaml = prints_origins ? to_yaml_with_origins(loaded) : to_yaml(loaded.config);
  std::fputs(yaml.c_str(), stdout);
  return 0;
}

}  // namespace switchyard
