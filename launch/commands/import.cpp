// switchyard import: a published model becomes a run's folder.
#include <fmt/format.h>

#include <iostream>

#include "data/files/shell_quote.hpp"
#include "launch/commands/commands.hpp"
#include "launch/config/config_file.hpp"
#include "launch/options.hpp"
#include "launch/suggestion.hpp"
#include "trainer/families/import.hpp"

namespace switchyard {

int run_import(const CommandContext& context) {
  ImportOptions importing;
  std::vector<std::string> arguments;
  Options options(
      "import", "FOLDER --output RUN [key.path=value ...]",
      "Makes a run of a published model: FOLDER holds config.json and *.safetensors, as Hugging "
      "Face's libraries write them. RUN gets a checkpoint of its weights at step 0 and "
      "config.yaml, "
      "with which it trains on: docs/formats.md.");
  options.add_path("output", "RUN", importing.output, "the run's folder, which is made")
      .arguments("FOLDER", arguments, 1);
  if (!options.parse(context.arguments)) return 0;
  if (importing.output.empty()) throw UsageError("import", "--output is missing");
  importing.source = arguments.front();

  PublishedModel model = read_published_model(importing.source);
  model.config.run.output = importing.output;
  model.config.data.path = "corpus.h5";
  const LoadedConfig loaded =
      load_config(to_yaml(model.config), importing.source + "/config.json, as YAML",
                  std::span(arguments).subspan(1));
  if (const std::vector<std::string> changed = differing_keys(model.config, loaded.config);
      !changed.empty())
    throw ConfigError(
        fmt::format("{}: is the published model's; leave it out, or change "
                    "config.json with it",
                    fmt::join(changed, ", ")));
  importing.configuration = to_yaml(loaded.config);
  const Report report = [](const std::string& text) {
    std::cerr << "switchyard import: " << text << '\n';
  };
  if (!model.unread_keys.empty())
    report(fmt::format("of config.json these keys do not count here: {}",
                       fmt::join(model.unread_keys, ", ")));
  const Imported imported = import_model(*model.family, loaded.config, importing, nearest, report);
  const std::string run = quote_for_shell(importing.output);
  std::cout << fmt::format(
      "{}\n{} tensors of family {}, {} bytes\n"
      "next: switchyard train {}/config.yaml data.path=FILE, or another configuration with "
      "checkpoint.start_from={}\n",
      imported.checkpoint, imported.num_tensors, model.family->name, imported.num_bytes, run, run);
  return 0;
}

}  // namespace switchyard
