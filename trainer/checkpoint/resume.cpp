#include "trainer/checkpoint/resume.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

#include "parallel/group/collective_error.hpp"
#include "trainer/agreement.hpp"
#include "trainer/plan.hpp"

namespace switchyard {

namespace {

// Keys and values of an effective configuration by path. Maps are indented by two spaces a level.
using Values = std::vector<std::pair<std::string, std::string>>;

Values values_of(std::string_view yaml) {
  Values values;
  std::vector<std::string> path;
  while (!yaml.empty()) {
    const std::string_view line = yaml.substr(0, yaml.find('\n'));
    yaml.remove_prefix(std::min(yaml.size(), line.size() + 1));
    const std::size_t indent = line.find_first_not_of(' ');
    const std::size_t colon = line.find(':');
    if (indent == std::string_view::npos || colon == std::string_view::npos) continue;
    path.resize(std::min(path.size(), indent / 2));
    path.emplace_back(line.substr(indent, colon - indent));
    const std::string_view rest = line.substr(colon + 1);
    const std::size_t begin = rest.find_first_not_of(' ');
    if (begin == std::string_view::npos) continue;  // a section or a map
    values.emplace_back(fmt::format("{}", fmt::join(path, ".")), rest.substr(begin));
  }
  return values;
}

// Nothing valid was found. Starting anew would in time replace what somebody may still mend.
void refuse_damaged(const std::string& folder, Group& world) {
  run_together(world, [&] {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(folder, none))
      if (step_of_folder_name(entry.path().filename().string()) >= 0)
        throw CheckpointError(
            fmt::format("{} holds checkpoints, but none of them is valid (see above); mend or "
                        "remove them, or begin anew with another run.output",
                        folder));
  });
}

bool is_named(const std::string& resume) {
  return resume != "never" && resume != "auto";
}

std::optional<std::string> find_checkpoint(const std::string& resume, const std::string& folder,
                                           Group& world, const Report& report) {
  if (resume == "never") return std::nullopt;
  if (is_named(resume)) {
    const std::string damage = find_damage(resume, world, report);
    if (!damage.empty())
      throw Collective<CheckpointError>(fmt::format("checkpoint.resume: {}", damage));
    return resume;
  }
  std::optional<std::string> path = find_newest_valid(folder, world, report);
  if (!path) refuse_damaged(folder, world);
  return path;
}

// Whether a checkpoint that was trained with another value of the key is told: what the model
// computes and from which data. Schedules, batches and layouts are changed all the time.
bool is_told(const std::string& key) {
  return key.starts_with("model.") || key.starts_with("experts.") || key.starts_with("data.") ||
         key == "run.seed" || key == "run.precision";
}

// Another number of heads may cut the same matrix: no shape would tell. Other keys may be changed
// on purpose (a longer rope_base, a smaller balance_weight), and are only told.
void check_changed_keys(const std::string& path, const std::vector<ChangedKey>& changed,
                        Group& world, const Report& report) {
  for (const ChangedKey& key : changed)
    if (key.path == "model.num_heads" || key.path == "model.num_kv_heads")
      throw Collective<CheckpointError>(fmt::format(
          "{}: was trained with {} {}, not {}: its matrices mean something else there; set {} back "
          "or choose another run.output",
          path, key.path, key.saved, key.now, key.path));
  if (world.rank() != 0 || !report) return;
  for (const ChangedKey& key : changed)
    report(fmt::format("the checkpoint was trained with {} {}; from here on it is {}", key.path,
                       key.saved, key.now));
}

void restore_capacity(const Manifest& manifest, const Config& config, Trainer& trainer,
                      const Group& world) {
  const bool same_layout = manifest.num_ranks == world.size() &&
                           manifest.layout.data == config.parallel.data &&
                           manifest.layout.expert == config.parallel.expert;
  if (same_layout)
    trainer.reserve_rows(std::min(manifest.state.max_rows, worst_case_rows(config, world.size())));
}

}  // namespace

std::vector<ChangedKey> changed_keys(std::string_view saved, std::string_view now) {
  std::map<std::string, std::string> before;
  for (auto& [path, value] : values_of(saved)) before[path] = value;
  std::vector<ChangedKey> changed;
  for (const auto& [path, value] : values_of(now)) {
    if (!is_told(path)) continue;
    const auto found = before.find(path);
    if (found != before.end() && found->second != value)
      changed.push_back({path, found->second, value});
  }
  return changed;
}

void require_named_checkpoint(const CheckpointConfig& config) {
  std::error_code error;
  if (is_named(config.resume) && !std::filesystem::is_directory(config.resume, error))
    throw CheckpointError(
        fmt::format("checkpoint.resume: {}: there is no such checkpoint; name a folder such as "
                    "RUN/checkpoints/step-00000100, or auto for the newest of this run",
                    config.resume));
}

std::optional<Resumed> resume_run(const Config& config, const std::string& effective_yaml,
                                  const std::string& folder, Trainer& trainer, Group& world,
                                  const Report& report) {
  const std::optional<std::string> path =
      find_checkpoint(config.checkpoint.resume, folder, world, report);
  if (!path) return std::nullopt;
  const TrainState state = load_checkpoint(*path, trainer.store(), &trainer.optimizer(), world);
  const Manifest manifest = read_manifest(*path);
  check_changed_keys(*path, changed_keys(manifest.configuration, effective_yaml), world, report);
  trainer.weights_changed();
  restore_capacity(manifest, config, trainer, world);
  return Resumed{state, *path};
}

}  // namespace switchyard
