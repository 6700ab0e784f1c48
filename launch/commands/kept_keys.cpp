#include "launch/commands/kept_keys.hpp"

#include <fmt/core.h>

#include <optional>

#include "tensor/error.hpp"
#include "trainer/checkpoint/place.hpp"

namespace switchyard {

namespace {

// Of the newest checkpoint there; empty if there is none, or none that can be read.
std::string configuration_at(const std::string& place) {
  try {
    return read_manifest(resolve_checkpoint(place)).configuration;
  } catch (const CheckpointError&) {
    return {};
  }
}

// The configuration that the checkpoint keeps from which a run goes on; empty if it begins, or if
// nothing can be read: who reads the checkpoint will say so.
std::string configuration_before(const Config& config) {
  const std::optional<Resume> choice = config.checkpoint.resume_choice();
  if (choice == Resume::never) return {};
  const std::string own = configuration_at(choice ? config.run.output : config.checkpoint.resume);
  const bool goes_on =
      config.checkpoint.starts_from() && config.checkpoint.start_with == StartWith::all;
  return own.empty() && goes_on ? configuration_at(config.checkpoint.start_from) : own;
}

}  // namespace

void keep_balance_reduction(Group& world, LoadedConfig& loaded) {
  const Key& key = *find_key("experts.balance_reduction");
  if (loaded.origin(key).kind != Origin::Kind::default_value) return;
  BalanceReduction& reduction = loaded.config.experts.balance_reduction;
  std::string name(name_of(reduction));
  if (world.rank() == 0) {
    if (const std::string before = configuration_before(loaded.config); !before.empty()) {
      name = name_of(BalanceReduction::mean);
      for (const auto& [path, value] : saved_values(before))
        if (path == key.path()) name = value;
    }
  }
  world.broadcast_text(name, 0);
  if (name == name_of(reduction)) return;
  loaded.warnings.push_back(
      fmt::format("{}: {}, as in the run so far; a new run has {}. To change it, set it",
                  key.path(), name, name_of(reduction)));
  reduction = choice_of<BalanceReduction>(name).value_or(reduction);
}

}  // namespace switchyard
