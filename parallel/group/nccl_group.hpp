// The group over NCCL: tensors of a card travel from card to card, on its communication stream,
// and the host waits for none of it. What the host holds (values, texts, barriers, tensors of its
// memory) goes by the group below, which is MPI's.
//
// Sums are taken in rank order, as Group promises: NCCL's own reductions keep no order, so operands
// are sent and received, and added by a kernel (kernels/cuda/sums/rank_order.hpp). The bits are
// those of the MPI group, which stages through the host. Whole numbers, whose sums have no order,
// go by NCCL's reductions.
#pragma once

#include <memory>
#include <string>

#include "parallel/group/collective_log.hpp"
#include "parallel/group/group.hpp"
#include "tensor/device.hpp"

namespace switchyard::nccl {

// What keeps this process from using NCCL, and the remedy; empty: nothing. Loads the library.
std::string find_trouble();
// "2.28.3". The library is there.
std::string version_text();

// The ranks of `below`, each with a card of its own (`device`, the calling thread's current one).
// Collective. `below`, the device and the log outlive the group; subgroups do not outlive it.
// world_rank: this rank among all of the job. ConfigError if NCCL cannot be loaded.
std::unique_ptr<Group> make_group(Group& below, Device& device, CollectiveLog& log, int world_rank);

}  // namespace switchyard::nccl
