// The device that a run computes on: from run.device, what this build has and the cards of the
// hosts.
#pragma once

#include <memory>
#include <string>

#include "parallel/group/collective_log.hpp"
#include "parallel/group/group.hpp"
#include "tensor/device.hpp"
#include "trainer/config.hpp"

namespace switchyard {

// `automatic` becomes cuda where the build has it and every host of the world has a card for each
// of its ranks (any card, if they may share), else cpu: the same on all ranks. Collective.
RunDevice resolved_device(const Config& config, Group& world);

// Of a run whose run.device is resolved. automatic counts as cpu.
DeviceKind device_kind(const RunConfig& run);

// Rank i of a host takes card i; with parallel.share_devices, i modulo the number of cards.
// ConfigError that names the host, its cards and its ranks where there are too few.
std::unique_ptr<Device> make_run_device(const Config& config, const Group& world);

// The world for tensors that lie on cards, over NCCL, if parallel.backend or, for `auto`, what the
// ranks have says so; null: `world` carries them. It lives between world, device and log, and what
// is made of it. Collective; ConfigError, with the remedy, if NCCL was asked for and is not there.
std::unique_ptr<Group> make_card_group(const Config& config, Group& world, Device& device,
                                       CollectiveLog& log);

// What a start says of it: "cuda (NVIDIA H200)", "cpu".
std::string describe_device(const Device& device);

}  // namespace switchyard
