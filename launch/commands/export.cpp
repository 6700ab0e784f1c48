// switchyard export: a checkpoint becomes a published model.
#include <fmt/format.h>

#include <cmath>
#include <iostream>

#include "launch/commands/commands.hpp"
#include "launch/config/config_file.hpp"
#include "launch/options.hpp"
#include "trainer/checkpoint/place.hpp"
#include "trainer/families/export.hpp"

namespace switchyard {

namespace {

// "5GB": decimal units, as Hugging Face's libraries take them.
std::int64_t bytes_of(const std::string& text) {
  constexpr std::pair<std::string_view, double> units[] = {
      {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}};
  for (const auto& [unit, factor] : units) {
    if (!text.ends_with(unit)) continue;
    const std::string digits = text.substr(0, text.size() - unit.size());
    std::size_t used = 0;
    double number = 0;
    try {
      number = std::stod(digits, &used);
    } catch (const std::exception&) {
      break;
    }
    if (used != digits.size() || !(number * factor >= 1) || number * factor > 1e18) break;
    return static_cast<std::int64_t>(number * factor);
  }
  throw UsageError("export", fmt::format("--shard-size is '{}'; write a number and B, KB, MB, GB "
                                         "or TB, as 5GB",
                                         text));
}

}  // namespace

int run_export(const CommandContext& context) {
  ExportOptions exporting;
  std::string shard_size = "5GB";
  std::vector<std::string> arguments;
  Options options(
      "export", "RUN --output FOLDER",
      "Makes a published model of a run's newest checkpoint, or of a checkpoint named: "
      "config.json, "
      "generation_config.json, *.safetensors and the tokenizer's files, as Hugging Face's "
      "libraries read them: docs/formats.md.");
  options.add_path("output", "FOLDER", exporting.output, "the folder that is made")
      .add("shard-size", "5GB", shard_size, "the most bytes of a file of weights (default 5GB)")
      .add("dtype", "bf16|f16|f32", exporting.type, "type of the weights (default bf16)")
      .add("family", "NAME", exporting.family,
           "as config.json has it in model_type (default: what was imported, or the first that "
           "can say the model)")
      .arguments("RUN", arguments, 1, 1);
  if (!options.parse(context.arguments)) return 0;
  if (exporting.output.empty()) throw UsageError("export", "--output is missing");
  exporting.shard_bytes = bytes_of(shard_size);

  const Report report = [](const std::string& text) {
    std::cerr << "switchyard export: " + text + '\n';
  };
  const auto export_checkpoint = [&](const std::string& path,
                                     const std::function<void()>& verified) {
    exporting.checkpoint = path;
    Config config =
        load_saved_config(read_manifest(path).configuration, path + "/" + manifest_name).config;
    if (config.model.vocab_size == 0)
      if (const SavedTensor* embedding = read_manifest(path).find("embedding.weight"))
        config.model.vocab_size = embedding->shape[0];
    const Exported exported = export_model(config, exporting, verified, report);
    std::cout << fmt::format("{}\n{} tensors of family {} in {} files, {} bytes\n",
                             exporting.output, exported.num_tensors, exported.family,
                             exported.num_files, exported.num_bytes);
  };
  read_checkpoint_meanwhile(arguments.front(), report, export_checkpoint);
  return 0;
}

}  // namespace switchyard
