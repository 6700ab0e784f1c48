#include "trainer/run/run_setup.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "kernels/threads.hpp"
#include "parallel/cores.hpp"
#include "parallel/group/collective_error.hpp"
#include "tensor/error.hpp"
#include "trainer/agreement.hpp"
#include "trainer/memory_limit.hpp"
#include "trainer/number_text.hpp"
#include "trainer/thread_limit.hpp"

namespace switchyard {

Config resolve_config(const Config& given, int num_ranks, const TokenFile& tokens) {
  Config config = given;
  config.parallel = resolved_parallel(config, num_ranks);
  if (config.model.vocab_size == 0) config.model.vocab_size = tokens.vocab_size();
  if (config.model.vocab_size < tokens.vocab_size())
    throw Collective<ConfigError>(fmt::format(
        "model.vocab_size is {}, but the tokenizer of {} has {} tokens; use 0 (the tokenizer's) or "
        "at least {}",
        config.model.vocab_size, tokens.path(), tokens.vocab_size(), tokens.vocab_size()));
  return config;
}

namespace {

// Returns what the number of threads comes from.
std::string set_threads_or_cores(const RunConfig& run, int num_cores) {
  if (run.threads > 0) {
    kernels::set_num_threads(static_cast<int>(run.threads));
    return "run.threads";
  }
  if (std::getenv("OMP_NUM_THREADS") != nullptr) return "OMP_NUM_THREADS";
  kernels::set_num_threads(num_cores);
  return "a thread for each core";
}

}  // namespace

void set_threads(const RunConfig& run, Group& world) {
  const std::string source = set_threads_or_cores(run, num_cores_for_rank(world));
  run_together(world, [&] { require_threads(kernels::num_threads(), source); });
}

void set_threads(const RunConfig& run) {
  const std::string source = set_threads_or_cores(run, Cores::of_this_process().num_cores);
  require_threads(kernels::num_threads(), source);
}

void set_planned_threads(const RunConfig& run, int num_ranks) {
  set_threads_or_cores(run, std::max(1, Cores::of_this_process().num_cores / num_ranks));
}

namespace {

// What grows is mapped in advance, with room for the most rows that routing can send.
void check_address_space(const Plan& plan, const MemoryLimit& limit) {
  const std::int64_t bytes = plan.most_reserved_bytes();
  if (bytes <= limit.available) return;
  throw MemoryError(fmt::format(
      "the run reserves {} of address space on a rank, of which it uses {} with balanced routing "
      "(the rest is room for the rows that routing may send), and {}, {}, leaves {}. To change "
      "that "
      "limit: {}. To need less: a smaller train.micro_batch, more parallel.expert or a smaller "
      "model",
      format_bytes(static_cast<double>(bytes)),
      format_bytes(static_cast<double>(plan.fullest().peak_bytes)), limit.name,
      format_bytes(static_cast<double>(limit.total)),
      format_bytes(static_cast<double>(limit.available)), limit.remedy));
}

void check_memory(const Plan& plan, int ranks_on_host) {
  const AvailableMemory memory = available_memory();
  const MemoryLimit limit = memory.for_each_of(ranks_on_host);
  const RankPlan& fullest = plan.fullest();
  if (limit.total == 0 || fullest.peak_bytes <= limit.available) {
    if (memory.address_space) check_address_space(plan, *memory.address_space);
    return;
  }
  std::string parts;
  for (int purpose = 0; purpose < num_purposes; ++purpose)
    parts += fmt::format(
        "{}{} {}", purpose == 0 ? "" : ", ", name_of(static_cast<Purpose>(purpose)),
        format_bytes(static_cast<double>(fullest.bytes[static_cast<std::size_t>(purpose)])));
  throw MemoryError(fmt::format(
      "the run needs {} on its fullest rank ({}) with balanced routing, and {}, {}, leaves {} for "
      "each of the {} ranks on this host. To change that limit: {}. To need less: a smaller "
      "train.micro_batch, more parallel.expert or a smaller model; `switchyard plan` shows the "
      "figures of any layout",
      format_bytes(static_cast<double>(fullest.peak_bytes)), parts, limit.name,
      format_bytes(static_cast<double>(limit.total)),
      format_bytes(static_cast<double>(limit.available)), ranks_on_host, limit.remedy));
}

}  // namespace

void require_memory(Group& world, const Plan& plan) {
  run_together(world, [&] { check_memory(plan, world.topology().num_local_ranks()); });
}

RankState::RankState(Group& world, const Config& config, std::int64_t vocab_size_used)
    : device(make_device(DeviceKind::cpu, world.topology().local_rank())),
      mesh(world, config.parallel),
      trainer(*device, mesh, config, vocab_size_used) {}

}  // namespace switchyard
