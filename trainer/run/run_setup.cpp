#include "trainer/run/run_setup.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "cmake/built_with.hpp"
#include "kernels/threads.hpp"
#include "parallel/cores.hpp"
#include "parallel/group/collective_error.hpp"
#include "tensor/cuda/cuda_device.hpp"
#include "tensor/error.hpp"
#include "trainer/agreement.hpp"
#include "trainer/memory_limit.hpp"
#include "trainer/number_text.hpp"
#include "trainer/run_device.hpp"
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

// What a process holds of a card beside its tensors: CUDA's context, the code of kernels and
// libraries (`switchyard doctor` measures it).
constexpr std::int64_t bytes_outside_ledger = std::int64_t{768} << 20;

// What binds a rank: the memory of the host that it shares with the ranks there, or its card's.
MemoryLimit limit_of_rank(const Config& config, const Topology& topology) {
  const int ranks_on_host = topology.num_local_ranks();
  if constexpr (built_with_cuda) {
    if (device_kind(config.run) == DeviceKind::cuda) {
      const CudaCard card = current_card();
      const std::int64_t sharing = config.parallel.share_devices ? ranks_on_host : 1;
      return {.name = "the memory of the card " + card.name,
              .remedy = "end what else runs there (nvidia-smi), or use a larger card",
              .total = card.total_bytes,
              .available = (card.free_bytes - sharing * bytes_outside_ledger) / sharing};
    }
  }
  return available_memory().for_each_of(ranks_on_host);
}

void check_memory(const Plan& plan, const MemoryLimit& limit, int ranks_on_host) {
  const RankPlan& fullest = plan.fullest();
  if (limit.total == 0 || fullest.peak_bytes <= limit.available) return;
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

void require_memory(Group& world, const Config& config, const Plan& plan) {
  run_together(world, [&] {
    check_memory(plan, limit_of_rank(config, world.topology()), world.topology().num_local_ranks());
    if (device_kind(config.run) != DeviceKind::cpu) return;
    const AvailableMemory memory = available_memory();
    if (memory.address_space) check_address_space(plan, *memory.address_space);
  });
}

std::unique_ptr<Device> make_device_together(Group& world, const Config& config) {
  std::unique_ptr<Device> device;
  run_together(world, [&] { device = make_run_device(config, world); });
  return device;
}

RankState::RankState(Group& world, CollectiveLog& log, const Config& config,
                     std::unique_ptr<Device> on, std::int64_t vocab_size_used)
    : device(std::move(on)),
      card_world(make_card_group(config, world, *device, log)),
      mesh(card_world ? *card_world : world, config.parallel),
      trainer(*device, mesh, config, vocab_size_used) {}

}  // namespace switchyard
