// What `train` and `eval` do alike before the first step: check that the layout, the vocabulary and
// the memory are possible, and build device, mesh and trainer.
#pragma once

#include <memory>
#include <string>

#include "data/token_file.hpp"
#include "parallel/group/collective_log.hpp"
#include "trainer/plan.hpp"
#include "trainer/trainer.hpp"

namespace switchyard {

// The configuration with parallel resolved and, from the token file, the vocabulary's size.
// ConfigError if the model's vocabulary is smaller than the tokenizer's.
Config resolve_config(const Config& config, int num_ranks, const TokenFile& tokens);

// Sets the number of OpenMP threads of this process from run.threads (0: left as the launcher set
// it, else this rank's share of the cores that it may use), and makes sure that they can be had
// (trainer/thread_limit.hpp). Collective.
void set_threads(const RunConfig& run, Group& world);
// The same for a process alone.
void set_threads(const RunConfig& run);
// The number that one of num_ranks on this host would take, for a plan, which starts none.
void set_planned_threads(const RunConfig& run, int num_ranks);

// Throws MemoryError, with the plan's figures by purpose, the limit and what to change, if the
// fullest rank needs more than is available on its host, or on the card that is current here, for
// each of its ranks. Collective.
void require_memory(Group& world, const Config& config, const Plan& plan);

// make_run_device (trainer/run_device.hpp), whose errors end all ranks. Collective.
std::unique_ptr<Device> make_device_together(Group& world, const Config& config);

// Everything of one rank that lives as long as the run. Members die in reverse order.
struct RankState {
  // Collective over world. config is resolved.
  RankState(Group& world, CollectiveLog& log, const Config& config, std::unique_ptr<Device> device,
            std::int64_t vocab_size_used);

  std::unique_ptr<Device> device;
  std::unique_ptr<Group> card_world;  // may be null: make_card_group
  Mesh mesh;
  Trainer trainer;
};

}  // namespace switchyard
