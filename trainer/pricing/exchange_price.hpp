// Seconds of what goes on beside the compute stream of a record: an exchange, by the alpha and beta
// of its collective and of the links that it takes; a copy of activations, by the disk's rate or,
// between places in memory, as a copy.
//
// On processors ranks send to each other directly (parallel/group/mpi_exchanges.hpp): P - 1
// messages, of which those to other hosts share the host's links with all ranks of the host. On
// cards NCCL's rings cross from host to host once for each group, and latencies grow as log2 P.
#pragma once

#include <array>

#include "tensor/work_record.hpp"
#include "trainer/pricing/kernel_price.hpp"

namespace switchyard {

// Which links an exchange of a rank takes, where hosts have ranks_per_host consecutive ranks.
struct LinkBytes {
  std::array<double, num_link_classes> bytes{};  // sent by this rank
  double of_host = 0;  // sent to other hosts by all ranks of this host that do the same
};
LinkBytes link_bytes(const WorkUnit& exchange, std::int64_t ranks_per_host, DeviceKind device);

// ConfigError if the profile has no rate for such an exchange.
double exchange_seconds(const WorkUnit& exchange, const MachineProfile& profile,
                        const MachineSetting& setting);

// All ranks of a host share its disk. Without a figure of the disk, or of copies in memory, as
// kernel_seconds() prices what it has no table of.
double spill_seconds(const WorkUnit& copy, const MachineProfile& profile,
                     const MachineSetting& setting, PriceGaps& gaps);

// Ranks of an exchange that share the host of the rank whose record it is of, itself among them.
int num_on_host(const ExchangeRanks& ranks, std::int64_t ranks_per_host);

// Messages that follow each other in an exchange among `size` ranks: what a latency counts for.
double num_messages(std::string_view kind, int size, DeviceKind device);

}  // namespace switchyard
