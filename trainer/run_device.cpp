#include "trainer/run_device.hpp"

#include <fmt/core.h>

#include "cmake/built_with.hpp"
#include "experts/dispatch/dispatch_mistakes.hpp"
#include "experts/router/router_mistakes.hpp"
#include "parallel/group/nccl_group.hpp"
#include "tensor/cuda/cuda_device.hpp"
#include "tensor/error.hpp"
#include "trainer/agreement.hpp"

namespace switchyard {

namespace {

int num_cards() {
  if constexpr (built_with_cuda) return num_cuda_cards();
  return 0;
}

// What keeps a rank of this build from using NCCL; empty: nothing.
std::string why_no_nccl() {
  if constexpr (built_with_nccl) return nccl::find_trouble();
  return "this build has no NCCL (build it where nccl.h of NCCL 2.18 or newer is)";
}

bool has_cards_for(const Topology& topology, bool are_shared) {
  const int needed = are_shared ? 1 : topology.num_local_ranks();
  return num_cards() >= needed;
}

}  // namespace

RunDevice resolved_device(const Config& config, Group& world) {
  if (config.run.device != RunDevice::automatic) return config.run.device;
  if (config.numerics.exact) return RunDevice::cpu;  // not there on a card
  for (const auto mistakes : {router_mistakes_on_card, dispatch_mistakes_on_card})
    if (!mistakes(config.experts).empty()) return RunDevice::cpu;
  std::int64_t is_possible = has_cards_for(world.topology(), config.parallel.share_devices) ? 1 : 0;
  std::vector<std::int64_t> everywhere(static_cast<std::size_t>(world.size()));
  world.all_gather_values({&is_possible, 1}, everywhere);
  for (const std::int64_t here : everywhere)
    if (here == 0) return RunDevice::cpu;
  return RunDevice::cuda;
}

DeviceKind device_kind(const RunConfig& run) {
  return run.device == RunDevice::cuda ? DeviceKind::cuda : DeviceKind::cpu;
}

std::unique_ptr<Device> make_run_device(const Config& config, const Group& world) {
  const Topology& topology = world.topology();
  const int rank = topology.local_rank();
  if (device_kind(config.run) == DeviceKind::cpu) return make_device(DeviceKind::cpu, rank);
  const int cards = num_cards();
  if (cards == 0 || config.parallel.share_devices)  // 0: whoever makes it says why there is none
    return make_device(DeviceKind::cuda, cards == 0 ? rank : rank % cards);
  if (topology.num_local_ranks() > cards)
    throw ConfigError(fmt::format(
        "run.device: cuda, but host {} has {} ranks and {} card{}: start at most one rank a card, "
        "or let ranks share them (parallel.share_devices: true; for tests, as it is slow)",
        topology.name_of(topology.host_of(world.rank())), topology.num_local_ranks(), cards,
        cards == 1 ? "" : "s"));
  return make_device(DeviceKind::cuda, rank);
}

std::unique_ptr<Group> make_card_group(const Config& config, Group& world, Device& device,
                                       CollectiveLog& log) {
  const ExchangeBackend asked = config.parallel.backend;
  if (device.kind() != DeviceKind::cuda || world.size() == 1 || asked == ExchangeBackend::mpi)
    return nullptr;
  if (asked == ExchangeBackend::automatic && config.parallel.share_devices) return nullptr;
  const std::string trouble = why_no_nccl();
  std::int64_t num_without = trouble.empty() ? 0 : 1;
  world.all_reduce_values({&num_without, 1}, ReduceOp::sum);
  if (num_without > 0 && asked == ExchangeBackend::automatic) return nullptr;
  run_together(world, [&] {
    if (!trouble.empty())
      throw ConfigError(
          fmt::format("parallel.backend: nccl, but {}; or write parallel.backend: mpi", trouble));
  });
  if constexpr (built_with_nccl) return nccl::make_group(world, device, log, world.rank());
  return nullptr;
}

std::string describe_device(const Device& device) {
  if constexpr (built_with_cuda)
    if (device.kind() == DeviceKind::cuda) return fmt::format("cuda ({})", current_card().name);
  return std::string(name_of(device.kind()));
}

}  // namespace switchyard
